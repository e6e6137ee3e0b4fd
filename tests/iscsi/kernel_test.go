package iscsi

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast/frontends/iscsi"
)

// kernelScript runs as root under a Linux kernel with open-iscsi: discovery, sessions with digests, two file systems, trimming, write same, a reset, persistent reservations.
const kernelScript = `set -eu
modprobe iscsi_tcp; modprobe sd_mod; modprobe sg
iscsid
target=$(iscsiadm -m discovery -t sendtargets -p "$PORTAL" | awk '/:disk$/ {print $2}')
log() { iscsiadm -m node -T "$target" -p "$PORTAL" "$@" >/dev/null; }
disk() {
	for i in $(seq 50); do
		for d in /sys/class/iscsi_session/session*/device/target*/*/block/*; do
			[ -e "$d" ] && { echo "/dev/${d##*/}"; return; }
		done
		sleep 0.1
	done
	echo "no disk appeared" >&2; return 1
}
for fs in ext4 xfs; do
	log -o update -n node.conn[0].iscsi.HeaderDigest -v CRC32C
	log -o update -n node.conn[0].iscsi.DataDigest -v $([ $fs = ext4 ] && echo CRC32C || echo None)
	log --login
	dev=$(disk)
	if [ $fs = ext4 ]; then mkfs.ext4 -q -F $dev; else mkfs.xfs -q -f $dev; fi
	mount $dev /mnt
	dd if=/dev/urandom of=/mnt/a bs=1M count=32 conv=fsync status=none
	fio --name=verify --directory=/mnt --size=32M --rw=randwrite --bs=4k --ioengine=psync --verify=crc32c --fsync=64 --number_ios=2000 >/dev/null
	(cd /mnt && sha256sum a >/tmp/sums)
	rm /mnt/verify.*
	fstrim -v /mnt
	umount /mnt
	log --logout
	log --login
	dev=$(disk)
	if [ $fs = ext4 ]; then e2fsck -f -n $dev; else xfs_repair -n $dev; fi
	mount $dev /mnt
	(cd /mnt && sha256sum -c /tmp/sums)
	umount /mnt
	log --logout
done 2>&1
log --login
dev=$(disk)
q=/sys/block/${dev#/dev/}/queue
echo "logical $(cat $q/logical_block_size) physical $(cat $q/physical_block_size) discard $(cat $q/discard_max_bytes) same $(cat $q/write_same_max_bytes) zeroes $(cat $q/write_zeroes_max_bytes) fua $(cat $q/fua) cache $(cat $q/write_cache)"
[ "$(cat $q/physical_block_size)" = 4096 ] && [ "$(cat $q/discard_max_bytes)" -gt 0 ] && [ "$(cat $q/write_zeroes_max_bytes)" -gt 0 ]
blkdiscard $dev
blkdiscard -z $dev
sg_inq -p di $dev
sg_vpd -p lbpv $dev
sg_luns $dev
sg_rtpg -d $dev
sg_opcodes $dev | head -5
sg_persist --out --register --param-sark=0xabc $dev
sg_persist --out --reserve --param-rk=0xabc --prout-type=5 $dev
sg_persist --in --read-full-status $dev
sg_persist --out --release --param-rk=0xabc --prout-type=5 $dev
sg_persist --out --register --param-rk=0xabc --param-sark=0 $dev
sg_reset --device $dev
fio --name=x --filename=$dev --rw=randrw --bs=4k --iodepth=32 --ioengine=libaio --direct=1 --size=16M --verify=crc32c >/tmp/fio &
for i in 1 2 3; do sleep 0.2; sg_reset --device $dev || true; done
wait $! || { cat /tmp/fio; exit 1; }
log --logout
echo "the kernel's initiator is content"
`

// The guest is booted by HOLDFAST_GUEST, or by the program in the shared folder beside the repository ("guest run SCRIPT").
func TestLinuxKernelInitiator(t *testing.T) {
	guest := os.Getenv("HOLDFAST_GUEST")
	if guest == "" {
		guest, _ = filepath.Abs("../../../shared/guest/guest")
	}
	if _, err := os.Stat(guest); err != nil {
		t.Fatalf("no program that boots a Linux guest: %v; say where it is with HOLDFAST_GUEST", err)
	}
	g := start(t, "auto", 1, iscsi.Options{}, 512<<20)
	script := filepath.Join(t.TempDir(), "iscsi.sh")
	if err := os.WriteFile(script, []byte(kernelScript), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), guest, "run", "--timeout", "480", "--env", "PORTAL="+g.portals[0], script).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
