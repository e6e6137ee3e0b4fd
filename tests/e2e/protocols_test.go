package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/tests/stand"
)

// fileSystem makes an ext4 image with 2,000 files and some larger ones.
func fileSystem(t *testing.T) (path string) {
	t.Helper()
	from := filepath.Join(t.TempDir(), "files")
	for i := range 2000 {
		dir := filepath.Join(from, fmt.Sprintf("d%02d", i%40))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := strings.Repeat(fmt.Sprintf("file %d of two thousand\n", i), 1+i*7%400)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%04d", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(t.TempDir(), "ext4.img")
	stand.Run(t, "mkfs.ext4", "-q", "-F", "-d", from, path, "128M")
	return path
}

// TestOneImageOverThreeProtocols writes a file system over NBD and finds the same bytes over NFS and iSCSI.
func TestOneImageOverThreeProtocols(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "1G")
	image := fileSystem(t)
	u.Create("fs", "128M")

	stand.Run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, u.NBDURI("fs"))
	stand.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, u.NBDURI("fs"))
	stand.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, u.ISCSIURI("fs"))

	back := filepath.Join(t.TempDir(), "back")
	stand.Run(t, "nfs-cp", u.NFSURI("fs"), back)
	same(t, image, back)
	stand.Run(t, "e2fsck", "-fn", back)
	if out := stand.Run(t, "debugfs", "-R", "cat /d39/f1999", back); !strings.Contains(out, "file 1999 of two thousand\n") {
		t.Errorf("a file of the file system read over NFS: %.200s", out)
	}

	// And the other way: written over NFS and iSCSI, read over NBD.
	u.Create("other", "128M")
	stand.Run(t, "nfs-cp", image, u.NFSURI("copy"))
	stand.Run(t, "nbdcopy", u.NBDURI("copy"), back)
	same(t, image, back)
	stand.Run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, u.ISCSIURI("other"))
	stand.Run(t, "nbdcopy", u.NBDURI("other"), back)
	same(t, image, back)
}

func same(t *testing.T, want, got string) {
	t.Helper()
	if out, err := stand.Try(t, toolLimit, "/usr/bin/cmp", want, got); err != nil {
		t.Fatalf("%s is not what was written: %s", got, out)
	}
}

// TestClientsOfOthers runs the programs that people use.
func TestClientsOfOthers(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "512M", "--image", "demo:64M")
	t.Run("nbdinfo", func(t *testing.T) {
		var info struct {
			Exports []struct {
				Size uint64 `json:"export-size"`
			}
		}
		if out := stand.Run(t, "nbdinfo", "--json", u.NBDURI("demo")); json.Unmarshal([]byte(out), &info) != nil || len(info.Exports) != 1 || info.Exports[0].Size != 64<<20 {
			t.Errorf("nbdinfo: %s", out)
		}
		stand.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 1M", u.NBDURI("demo"))
		got := strings.Join(strings.Fields(stand.Run(t, "nbdinfo", "--map", u.NBDURI("demo"))), " ")
		if want := "0 1048576 3 hole,zero 1048576 1048576 0 data 2097152 65011712 3 hole,zero"; got != want {
			t.Errorf("nbdinfo --map: %s, want %s", got, want)
		}
	})
	t.Run("fio", func(t *testing.T) {
		stand.Run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+u.NBDURI("demo"), "--rw=randrw", "--bsrange=4k-64k", "--bs_unaligned=0", "--iodepth=32", "--size=32m",
			"--verify=crc32c", "--verify_fatal=1", "--do_verify=1")
	})
	t.Run("nbdcopy", func(t *testing.T) {
		from, back := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "back")
		noise(t, from, 64<<20)
		stand.Run(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", from, u.NBDURI("demo"))
		stand.Run(t, "nbdcopy", "--connections=4", u.NBDURI("demo"), back)
		same(t, from, back)
	})
	t.Run("libnfs", func(t *testing.T) {
		host, port, _ := strings.Cut(u.NFS, ":")
		list := fmt.Sprintf("nfs://%s/?nfsport=%s&mountport=%s&version=3", host, port, port)
		if out := stand.Run(t, "nfs-ls", list); !strings.Contains(out, " demo") {
			t.Errorf("nfs-ls: %s", out)
		}
		from, back := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "back")
		noise(t, from, 3<<20+777)
		stand.Run(t, "nfs-cp", from, u.NFSURI("odd"))
		stand.Run(t, "nfs-cp", u.NFSURI("odd"), back)
		same(t, from, back)
		if out := u.CLI("ls"); !strings.Contains(out, "odd") {
			t.Errorf("an image made over NFS is not listed: %s", out)
		}
	})
	t.Run("libiscsi", func(t *testing.T) {
		if out := stand.Run(t, "iscsi-ls", "-s", "iscsi://"+u.ISCSI); !strings.Contains(out, u.Target+":demo") {
			t.Errorf("iscsi-ls: %s", out)
		}
		if out := stand.Run(t, "iscsi-inq", u.ISCSIURI("demo")); !strings.Contains(out, "DIRECT_ACCESS") && !strings.Contains(out, "Device Type") {
			t.Errorf("iscsi-inq: %s", out)
		}
	})
	t.Run("live", func(t *testing.T) {
		u.Create("later", "16M")
		stand.Run(t, "nbdinfo", u.NBDURI("later"))
		stand.Run(t, "iscsi-inq", u.ISCSIURI("later"))
		stand.Run(t, "nfs-cp", u.NFSURI("later"), filepath.Join(t.TempDir(), "x"))
		u.CLI("rm", "later")
		if out, err := stand.Try(t, toolLimit, "nbdinfo", u.NBDURI("later")); err == nil {
			t.Errorf("a removed image is still served: %s", out)
		}
	})
}
