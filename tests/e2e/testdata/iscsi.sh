# In a Linux guest: the kernel's iSCSI initiator, ext4 and xfs.
# Environment: PORTAL, TARGET.
set -eu
modprobe iscsi_tcp
modprobe sd_mod
iscsid
iscsiadm -m discovery -t sendtargets -p "$PORTAL" | tee /tmp/found
grep -qF "$TARGET" /tmp/found

login() {
	iscsiadm -m node -T "$TARGET" -p "$PORTAL" --login >/dev/null
	for i in $(seq 100); do
		for d in /sys/class/iscsi_session/session*/device/target*/*/block/*; do
			[ -e "$d" ] && { dev=/dev/${d##*/}; return; }
		done
		sleep 0.1
	done
	echo "no disk appeared" >&2
	return 1
}
logout() {
	iscsiadm -m node -T "$TARGET" -p "$PORTAL" --logout >/dev/null
}

for fs in ext4 xfs; do
	echo "== iSCSI, $fs"
	login
	case $fs in
		ext4) mkfs.ext4 -q -F $dev ;;
		xfs) mkfs.xfs -q -f $dev ;;
	esac
	mount $dev /mnt
	dd if=/dev/urandom of=/mnt/noise bs=1M count=24 conv=fsync status=none
	fio --name=v --directory=/mnt --size=24M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --fsync=64 --number_ios=3000 >/tmp/fio || { cat /tmp/fio; exit 1; }
	sha256sum /mnt/noise /mnt/v.* >/tmp/sums
	umount /mnt
	logout
	login
	case $fs in
		ext4) e2fsck -f -n $dev ;;
		xfs) xfs_repair -n $dev ;;
	esac
	mount $dev /mnt
	sha256sum -c /tmp/sums
	rm /mnt/v.*
	fstrim -v /mnt
	umount /mnt
	logout
done 2>&1
echo content
