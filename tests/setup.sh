#!/bin/bash
# Installs the Debian packages whose programs the tests run, by name, and only those that are missing. Everything else the tests need is Go.
set -euo pipefail

packages=(
	libnbd-bin nbdkit             # nbdinfo, nbdcopy, nbdsh; a peer to measure beside
	qemu-utils qemu-block-extra   # qemu-img, qemu-io, with iSCSI and NBD
	fio                           # verified load
	libiscsi-bin                  # iscsi-ls, iscsi-inq, iscsi-test-cu
	libnfs-utils                  # nfs-ls, nfs-cp, nfs-cat
	etcd-server etcd-client       # clusters of separate daemons
	e2fsprogs xfsprogs            # file systems
	iproute2 nftables util-linux  # network namespaces, links that are cut
	procps python3                # looking at processes and sockets
)

missing=()
for p in "${packages[@]}"; do
	if ! dpkg-query -W -f='${Status}\n' "$p" 2>/dev/null | grep -q 'ok installed'; then
		missing+=("$p")
	fi
done
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi

root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! sudo -n true 2>/dev/null; then
		echo "packages for the tests are missing; as root: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	root=(sudo -n)
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The packages' own services are not wanted: nothing may take the ports that are tested.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
	"${root[@]}" chmod +x "$policy"
	made=1
fi
trap 'if [ -n "$made" ]; then "${root[@]}" rm -f "$policy"; fi' EXIT
"${root[@]}" apt-get -q update
"${root[@]}" apt-get -q install -y --no-install-recommends "${missing[@]}" </dev/null
