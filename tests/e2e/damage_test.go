package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/tests/stand"
)

// TestDamagedDiskUnderRunningOSD flips bits in, and overwrites with zeroes, parts of one OSD's disk under a running cluster. Nobody may ever read wrong data.
func TestDamagedDiskUnderRunningOSD(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "256M", "--image", "demo:64M")
	l := stand.NewLoad(t, 8192, u.Dial("demo"))
	l.Start(8)
	time.Sleep(1500 * time.Millisecond)
	damage(t, disk(u, 2), 1000, 0)
	time.Sleep(1500 * time.Millisecond)
	l.Stop()
	l.Verify()
	if errs := l.Errors(); len(errs) > 0 {
		t.Errorf("clients saw errors although two copies were whole: %v", errs)
	}
	if !strings.Contains(u.Log(), "copy unreadable, repairing it from another") {
		t.Error("nothing was said of damaged copies")
	}
	l.Start(8)
	time.Sleep(500 * time.Millisecond)
	stillServes(t, u, l, "damage of one disk of three")
	l.Stop()
	l.Verify()
	u.Kill()
	u.Start()
	l.Verify()
}

// disk is the path of an OSD's disk.
func disk(u *stand.Up, n int) string { return filepath.Join(u.Dir, fmt.Sprintf("osd.%d.data", n)) }

// damage flips bits in, and zeroes, pages at random in the second half of a disk, which is data. It waits until the OSD has moved enough there.
func damage(t *testing.T, path string, flips, zeroes int) {
	t.Helper()
	// Past the page cache, as the OSD does: where the two meet in one page, Linux reports an error of the disk to both.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := aligned(t, 4096)
	written := pages(t, f)
	for end := time.Now().Add(time.Minute); len(written) < flips+zeroes; written = pages(t, f) {
		if time.Now().After(end) {
			t.Fatalf("only %d pages of data on %s", len(written), path)
		}
		time.Sleep(100 * time.Millisecond)
	}
	rng := rand.New(rand.NewPCG(1, uint64(flips)))
	for i, k := range rng.Perm(len(written))[:flips+zeroes] {
		off := written[k]
		if i < flips {
			if _, err := f.ReadAt(page, off); err != nil {
				t.Fatal(err)
			}
			page[rng.IntN(len(page))] ^= 1 << rng.IntN(8)
		} else {
			clear(page)
		}
		if _, err := f.WriteAt(page, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d flips and %d zeroed pages of %d in %s", flips, zeroes, len(written), filepath.Base(path))
}

// aligned is memory for what is read or written past the page cache.
func aligned(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

// pages are the offsets of every written page of the data area, which begins below 10 MiB on disks of 256 MiB (docs/formats/store.md).
func pages(t *testing.T, f *os.File) (written []int64) {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	piece := aligned(t, 1<<20)
	for off := int64(10 << 20); off < st.Size(); off += int64(len(piece)) {
		n, err := f.ReadAt(piece, off)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		for at := 0; at < n; at += 4096 {
			if bytes.ContainsFunc(piece[at:min(at+4096, n)], func(r rune) bool { return r != 0 }) {
				written = append(written, off+int64(at))
			}
		}
	}
	return written
}

// TestDamagedDiskOfStoppedOSD damages one disk of three, in each way, while the cluster is stopped. It comes up or says clearly why not, and never gives wrong data.
func TestDamagedDiskOfStoppedOSD(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(t *testing.T, path string)
		named  bool // whether the start must name the disk
	}{
		{"bits flipped", func(t *testing.T, path string) { damage(t, path, 200, 0) }, false},
		{"pages zeroed", func(t *testing.T, path string) { damage(t, path, 0, 200) }, false},
		{"truncated to half", func(t *testing.T, path string) { shorten(t, path, 2) }, true},
		{"truncated to nothing", func(t *testing.T, path string) { shorten(t, path, 0) }, true},
		{"superblock zeroed", func(t *testing.T, path string) { overwrite(t, path, 0, make([]byte, 16<<10)) }, false},
		{"journal and metadata zeroed", func(t *testing.T, path string) { overwrite(t, path, 64<<10, make([]byte, 32<<20)) }, true},
		{"journal garbled", func(t *testing.T, path string) {
			b := make([]byte, 8<<20)
			_, _ = rand.NewChaCha8([32]byte{3}).Read(b)
			overwrite(t, path, 1<<20, b)
		}, true},
		{"gone", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := stand.StartUp(t, "--osd-size", "256M", "--image", "demo:64M")
			l := stand.NewLoad(t, 4096, u.Dial("demo"))
			l.Start(8)
			l.AwaitWrites(2000) // that is more than damage needs
			l.Stop()
			if code := u.Stop(30 * time.Second); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			c.break_(t, disk(u, 2))
			u.Start()
			said, _, _ := strings.Cut(u.Output().String(), "# cluster")
			t.Logf("said at the start: %s", said)
			if c.named && !strings.Contains(said, "OSD 2") {
				t.Error("the start did not name the damaged OSD")
			}
			l.Verify()
			l.Start(8)
			stillServes(t, u, l, c.name)
			l.Stop()
			l.Verify()
			_, said, _ = strings.Cut(u.Output().String(), "\nup\n")
			t.Logf("said after it: %.1000s", said)
			if strings.Count(u.Log(), "\n") > 2000 {
				t.Error("the log is flooded")
			}
			u.Stop(30 * time.Second)
			out, err := stand.Try(t, toolLimit, stand.Binary(t), "disk", "check", disk(u, 2))
			t.Logf("disk check: %v: %.600s", err, out)
		})
	}
}

func shorten(t *testing.T, path string, part int64) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	if part > 0 {
		size = st.Size() / part
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, off)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk fills a small cluster: the client gets ENOSPC, what was written stays, deleting makes space again.
func TestFullDisk(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "128M", "--image", "demo:16M", "--client_retry_enospc=false", "--etcd_stats_interval", "1")
	u.Create("big", "512M")
	l := stand.NewLoad(t, 4096, u.Dial("demo"))
	l.Start(4)
	l.AwaitWrites(2000) // each object of it has its space then
	l.Stop()
	c, err := u.Dial("big")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	piece := make([]byte, 1<<20)
	full := int64(-1)
	for off := int64(0); off < 512<<20; off += int64(len(piece)) {
		for i := range piece {
			piece[i] = byte(off>>20) + byte(i>>12) | 1
		}
		if _, err := c.WriteAt(piece, off); errors.Is(err, stand.ENOSPC) {
			full = off
			break
		} else if err != nil {
			t.Fatalf("write at %d MiB: %v, wanted ENOSPC", off>>20, err)
		}
	}
	if full < 0 {
		t.Fatal("512 MiB went into disks of 128 MiB")
	}
	t.Logf("full after %d MiB", full>>20)
	got := make([]byte, len(piece))
	for off := int64(0); off < full; off += int64(len(piece)) {
		if _, err := c.ReadAt(got, off); err != nil {
			t.Fatalf("read at %d MiB of a full cluster: %v", off>>20, err)
		}
		for i := range got {
			if got[i] != byte(off>>20)+byte(i>>12)|1 {
				t.Fatalf("byte %d of what was written before the disks were full is %#x", off+int64(i), got[i])
			}
		}
	}
	l.Verify()
	u.CLI("rm", "big")
	l.Start(4)
	stillServes(t, u, l, "deleting an image of a full cluster")
	l.Stop()
	l.Verify()
	u.Create("again", "32M")
	c2, err := u.Dial("again")()
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	deadline := time.Now().Add(30 * time.Second)
	for off := int64(0); off < 32<<20; {
		_, err := c2.WriteAt(piece, off)
		switch {
		case err == nil:
			off += int64(len(piece))
		case errors.Is(err, stand.ENOSPC) && time.Now().Before(deadline):
			time.Sleep(200 * time.Millisecond) // the space comes back in the background
		default:
			t.Fatalf("write at %d MiB after the deletion: %v", off>>20, err)
		}
	}
	u.AwaitActive(30 * time.Second) // members that were full are back
	u.Kill()
	u.Start()
	l.Verify()
}

// TestRefusals: what cannot work ends at once with an error that names the cause, a non-zero exit code, and nothing changed.
func TestRefusals(t *testing.T) {
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "letters.txt"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	running := stand.StartUp(t, "--osd-size", "256M", "--image", "demo:16M")
	ports := stand.FreePorts(t, 4)
	free := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	fresh := func() string { return filepath.Join(t.TempDir(), "new") }
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"a folder with other things", []string{"--dir", other}, []string{"letters.txt", "--dir"}},
		{"a file", []string{"--dir", filepath.Join(other, "letters.txt")}, []string{"not a folder"}},
		{"a folder that cannot be made", []string{"--dir", "/proc/holdfast"}, []string{"/proc/holdfast"}},
		{"the folder of a running cluster", []string{"--dir", running.Dir}, []string{"another `holdfast up`", fmt.Sprint(running.Pid())}},
		{"NBD's port in use", []string{"--dir", fresh(), "--nbd", taken.Addr().String()}, []string{"--nbd", "in use"}},
		{"NFS's port in use", []string{"--dir", fresh(), "--nfs", taken.Addr().String()}, []string{"--nfs", "in use"}},
		{"iSCSI's port in use", []string{"--dir", fresh(), "--iscsi", taken.Addr().String()}, []string{"--iscsi", "in use"}},
		{"etcd's port in use", []string{"--dir", fresh(), "--etcd", taken.Addr().String()}, []string{"--etcd", "in use"}},
		{"no size", []string{"--dir", fresh(), "--image", "demo"}, []string{"--image demo", "NAME:SIZE"}},
		{"too many copies", []string{"--dir", fresh(), "--osds", "2", "--replicas", "3"}, []string{"--replicas 3"}},
		{"an unknown flag", []string{"--dir", fresh(), "--osd-sizes", "1G"}, []string{"--osd-sizes"}},
		{"a bad parameter", []string{"--dir", fresh(), "--pg_lock_time", "soon", "--op_ttl", "-1"}, []string{"pg_lock_time", "op_ttl"}},
		{"etcd for everybody", []string{"--dir", fresh(), "--etcd", "0.0.0.0:24000"}, []string{"loopback"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"up", "--nbd", free(0), "--nfs", free(1), "--iscsi", free(2), "--etcd", free(3), "--osd-size", "128M"}
			p := stand.Start(t, "holdfast up", stand.Binary(t), append(args, c.args...)...)
			code := p.Wait(20 * time.Second)
			out := p.Output().String()
			if code == 0 {
				t.Errorf("exit code 0; it printed %s", out)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in what it printed: %s", w, out)
				}
			}
			if strings.Contains(out, "goroutine ") || strings.Count(out, "\n") > 8 {
				t.Errorf("that is not a clear error:\n%s", out)
			}
		})
	}
	if text, err := os.ReadFile(filepath.Join(other, "letters.txt")); err != nil || string(text) != "dear" {
		t.Errorf("the folder with other things was changed: %q, %v", text, err)
	}
	stand.Run(t, "nbdinfo", running.NBDURI("demo"))
}
