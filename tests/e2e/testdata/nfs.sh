# In a Linux guest: the kernel's NFSv3 client. Files are images, directories parts of their names.
# Environment: PORT.
set -eu
attach() {
	mount -t nfs -o "vers=3,proto=tcp,mountproto=tcp,nolock,port=$PORT,mountport=$PORT" "$HOST_IP:/" /mnt
}

attach
ls -l /mnt /mnt/vm
[ "$(stat -c %s /mnt/vm/one)" = 67108864 ]
mkdir /mnt/guest
dd if=/dev/urandom of=/mnt/guest/noise bs=1M count=16 conv=fsync status=none
fio --name=v --directory=/mnt/guest --size=16M --rw=randwrite --bs=4k --ioengine=psync --verify=crc32c --fsync=64 --number_ios=1500 >/tmp/fio || { cat /tmp/fio; exit 1; }
rm /mnt/guest/v.*
echo "an odd number of bytes." >/mnt/guest/short
echo "and a line more" >>/mnt/guest/short
truncate -s 1G /mnt/guest/sparse
mv /mnt/guest/noise /mnt/guest/kept
(cd /mnt/guest && sha256sum kept short) >/tmp/sums
dd if=/dev/urandom of=/mnt/vm/one bs=64k count=100 conv=notrunc,fsync status=none
sha256sum /mnt/vm/one >>/tmp/sums
umount /mnt

attach
(cd /mnt/guest && sha256sum -c /tmp/sums)
[ "$(stat -c %s /mnt/guest/sparse)" = 1073741824 ]
[ "$(stat -c %s /mnt/guest/short)" = 40 ]
[ ! -e /mnt/guest/noise ]
rm /mnt/guest/sparse /mnt/guest/short
[ "$(ls /mnt/guest)" = kept ]
umount /mnt
echo content
