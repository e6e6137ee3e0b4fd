# In a Linux guest: the kernel's NBD client with two connections, ext4 and xfs.
# Environment: PORT, NAME.
set -eu
dev=/dev/nbd0
modprobe nbd nbds_max=4

connect() {
	nbd-client "$HOST_IP" "$PORT" -N "$NAME" -C 2 -t 60 $dev
}
disconnect() {
	nbd-client -d $dev
	while [ -e /sys/block/nbd0/pid ]; do sleep 0.1; done
}

for fs in ext4 xfs; do
	echo "== NBD, $fs"
	connect
	case $fs in
		ext4) mkfs.ext4 -q -F $dev ;;
		xfs) mkfs.xfs -q -f $dev ;;
	esac
	mount $dev /mnt
	dd if=/dev/urandom of=/mnt/noise bs=1M count=24 conv=fsync status=none
	fio --name=v --directory=/mnt --size=24M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --fsync=64 --number_ios=3000 >/tmp/fio || { cat /tmp/fio; exit 1; }
	sha256sum /mnt/noise /mnt/v.* >/tmp/sums
	umount /mnt
	disconnect # and with it every cache
	connect
	case $fs in
		ext4) e2fsck -f -n $dev ;;
		xfs) xfs_repair -n $dev ;;
	esac
	mount $dev /mnt
	sha256sum -c /tmp/sums
	rm /mnt/v.*
	fstrim -v /mnt
	sha256sum -c /tmp/sums 2>/dev/null | grep 'noise: OK'
	umount /mnt
	disconnect
done 2>&1
echo content
