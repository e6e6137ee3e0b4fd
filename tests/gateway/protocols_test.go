package gateway

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/frontends/iscsi"
)

const mib = 1 << 20

// content is data with holes.
func content(size int) []byte {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	for off := 0; off < size; off += 3 * mib {
		_, _ = rng.Read(b[off:min(size, off+mib+4096)]) // never fails
	}
	return b
}

func TestOneImageThroughAllProtocols(t *testing.T) {
	onEachLoop(t, func(t *testing.T, kind string) {
		c := newCluster(t, kind)
		c.create("disk", 32*mib)
		g := c.gateway("gw", 2, 100)
		want := content(32 * mib)
		in := filepath.Join(t.TempDir(), "in.raw")
		if err := os.WriteFile(in, want, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", in, "nbd://"+g.nbd+"/disk")
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, "nbd+unix:///disk?socket="+g.socket)
		target := iscsi.TargetName("iqn.2026-11.local.holdfast", "disk")
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, "iscsi://"+g.iscsi+"/"+target+"/0")
		if got := run(t, "nfs-cat", g.file("disk")); !bytes.Equal([]byte(got), want) {
			t.Errorf("over NFS %d bytes came, and they differ", len(got))
		}
		if ls := run(t, "nfs-ls", g.file("")); !strings.Contains(ls, "disk") {
			t.Errorf("nfs-ls: %s", ls)
		}
		if ls := run(t, "iscsi-ls", "-s", "iscsi://"+g.iscsi); !strings.Contains(ls, target) {
			t.Errorf("iscsi-ls: %s", ls)
		}
		if m := run(t, "nbdinfo", "--map", "nbd://"+g.nbd+"/disk"); !strings.Contains(m, "hole") || !strings.Contains(m, "data") {
			t.Errorf("nbdinfo --map: %s", m)
		}
		// A file that NFS made is an image for the others.
		run(t, "nfs-cp", in, g.file("copy"))
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, "nbd://"+g.nbd+"/copy")
	})
}

func TestFioVerifiesOverNBD(t *testing.T) {
	onEachLoop(t, func(t *testing.T, kind string) {
		c := newCluster(t, kind)
		c.create("disk", 32*mib)
		g := c.gateway("gw", 2, 100)
		run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri=nbd://"+g.nbd+"/disk", "--rw=randwrite", "--bsrange=512-64k", "--blockalign=512", "--size=32m", "--io_size=16m", "--iodepth=16",
			"--verify=crc32c", "--verify_fatal=1", "--do_verify=1")
	})
}
