package nbd

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/frontends/nbd"
	"holdfast/frontends/volume/memory"
)

// kernelScript runs as root under a Linux kernel: its NBD client over two connections, each file system made, written, trimmed, detached and checked.
const kernelScript = `set -eu
dev=/dev/nbd0
modprobe nbd nbds_max=4
attach() { nbd-client "$HOST_IP" "$PORT" -N demo -C 2 -t 30 $dev; }
detach() {
	nbd-client -d $dev
	while [ -e /sys/block/nbd0/pid ]; do sleep 0.1; done
}
for fs in ext4 xfs; do
	attach
	if [ $fs = ext4 ]; then mkfs.ext4 -q -F $dev; else mkfs.xfs -q -f $dev; fi
	mount $dev /mnt
	dd if=/dev/urandom of=/mnt/a bs=1M count=32 conv=fsync status=none
	fio --name=verify --directory=/mnt --size=32M --rw=randwrite --bs=4k --ioengine=psync --verify=crc32c --fsync=64 --number_ios=2000 >/dev/null
	(cd /mnt && sha256sum a >/tmp/sums)
	rm /mnt/verify.*
	fstrim -v /mnt
	umount /mnt
	detach; attach
	if [ $fs = ext4 ]; then e2fsck -f -n $dev; else xfs_repair -n $dev; fi
	mount $dev /mnt
	(cd /mnt && sha256sum -c /tmp/sums)
	umount /mnt
	detach
done
`

// The guest is booted by HOLDFAST_GUEST, or by the program in the shared folder beside the repository ("guest run SCRIPT").
func TestLinuxKernelClient(t *testing.T) {
	guest := os.Getenv("HOLDFAST_GUEST")
	if guest == "" {
		guest, _ = filepath.Abs("../../../shared/guest/guest")
	}
	if _, err := os.Stat(guest); err != nil {
		t.Fatalf("no program that boots a Linux guest: %v; say where it is with HOLDFAST_GUEST", err)
	}
	d := memory.New(memory.Options{Name: "demo", Size: 512 << 20, MaxDelay: 100 * time.Microsecond})
	s := start(t, "", nbd.Options{}, d)
	script := filepath.Join(t.TempDir(), "nbd.sh")
	if err := os.WriteFile(script, []byte(kernelScript), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.tcp)
	t.Log(client(t, guest, "run", "--timeout", "480", "--env", "PORT="+port, script))
}
