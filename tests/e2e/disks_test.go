package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/admin"
	"holdfast/tests/stand"
)

// haltTime is how long an OSD may take from the failure of its disk to its end, with the reason in etcd.
const haltTime = 20 * time.Second

// TestFailingDiskStopsItsOSD lets the disk of one of three OSDs fail under load, in each way that can be had here. The OSD ends with code 6 and is not started again, its log and `status` name the device, the operation, the
// place and the cause, clients see nothing of it, and a new disk in its place clears it.
func TestFailingDiskStopsItsOSD(t *testing.T) {
	d := stand.StartDaemons(t, 3, 256<<20)
	d.CLI("create", "demo", "--size", "64M")
	l := stand.NewLoad(t, 8192, d.Dial("demo"))
	for _, c := range []struct {
		name  string
		disk  func(t *testing.T) (path string)           // another one for OSD 3; nil: a file
		fail  func(t *testing.T, child int, path string) // while it runs
		cause []string                                   // in the log and status
	}{
		{"the file system refuses writes", nil, func(t *testing.T, child int, path string) {
			// The kernel refuses to write beyond the limit, with EFBIG (setrlimit(2), RLIMIT_FSIZE); the runtime of Go ignores the signal.
			if err := unix.Prlimit(child, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}, nil); err != nil {
				t.Fatal(err)
			}
		}, []string{"file too large", "make room"}},
		// A loop device over a file with holes.
		{"a thin volume has run out", func(t *testing.T) string {
			dir := t.TempDir()
			stand.Run(t, "mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", dir)
			t.Cleanup(func() { stand.Run(t, "umount", "-l", dir) })
			return loopDevice(t, filepath.Join(dir, "backing"))
		}, nil, []string{"no space left", "thin volume", "replace the disk"}},
		{"a device disappears", func(t *testing.T) string { return loopDevice(t, filepath.Join(t.TempDir(), "backing")) }, func(t *testing.T, _ int, path string) {
			back := strings.TrimSpace(stand.Run(t, "losetup", "-n", "-O", "BACK-FILE", path))
			if err := os.Truncate(back, 0); err != nil {
				t.Fatal(err)
			}
			stand.Run(t, "losetup", "-c", path) // the device has no sector any more
		}, []string{"replace the disk"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := d.Disk(3)
			if c.disk != nil {
				d.OSDs[3].Stop(30 * time.Second)
				path = c.disk(t)
				place(t, d, 3, path)
				stand.Run(t, stand.Binary(t), "disk", "format", path)
				d.StartOSD(3)
			}
			l.Start(8)
			if c.fail != nil {
				d.AwaitActive(60 * time.Second)
				l.AwaitWrites(100)
				c.fail(t, d.Child(3), path)
			}
			p := d.OSDs[3]
			if code := p.Wait(haltTime); code != int(admin.Halted) {
				t.Errorf("exit code %d, want %d:\n%s", code, admin.Halted, p.Output().Tail(20))
			}
			l.AwaitWrites(1000) // without it
			l.Stop()
			l.Verify()
			if errs := l.Errors(); len(errs) > 0 {
				t.Errorf("clients saw errors: %v", errs)
			}
			said := p.Output().String()
			for _, want := range []string{"store stopped after a device error", "device=" + d.Disk(3), "operation=", "offset=", "errno=", "holdfast: OSD 3 stopped: "} {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in what it said:\n%s", want, p.Output().Tail(20))
				}
			}
			if strings.Count(said, "msg=configured") > strings.Count(said, "store stopped after")*10 {
				t.Errorf("it was started again:\n%s", said)
			}
			for _, o := range osdList(t, d) {
				if o.Num == 3 && (o.Up || o.Stopped == nil || o.Stopped.Device != d.Disk(3) || o.Stopped.Operation == "" || o.Stopped.Host == "") {
					t.Errorf("ls-osd: %+v, stopped %+v", o, o.Stopped)
				}
			}
			warned := ""
			for _, w := range status(t, d).Warnings {
				if strings.HasPrefix(w, "OSD 3 on host ") {
					warned = w
				}
			}
			t.Logf("status: %s", warned)
			for _, want := range append(c.cause, " stopped at ", d.Disk(3)) {
				if !strings.Contains(warned, want) {
					t.Errorf("status does not say %q: %q", want, warned)
				}
			}

			fresh := filepath.Join(d.Dir, "fresh."+strings.ReplaceAll(c.name, " ", "-"))
			stand.Run(t, stand.Binary(t), "disk", "format", "--size", "256M", fresh)
			place(t, d, 3, fresh)
			d.StartOSD(3)
			d.AwaitActive(60 * time.Second)
			for _, w := range status(t, d).Warnings {
				if strings.Contains(w, "stopped at") {
					t.Errorf("the failure is told although the OSD runs: %s", w)
				}
			}
		})
	}
}

// place puts a disk in the place of an OSD's.
func place(t *testing.T, d *stand.Daemons, n int, path string) {
	t.Helper()
	if err := os.RemoveAll(d.Disk(n)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, d.Disk(n)); err != nil {
		t.Fatal(err)
	}
}

// loopDevice is a device of 256 MiB over a new file with holes.
func loopDevice(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(256 << 20)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for try := 0; ; try++ { // another process may take the free one first
		out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
		if err == nil {
			dev := strings.TrimSpace(string(out))
			t.Cleanup(func() { stand.Run(t, "losetup", "-d", dev) })
			return dev
		}
		if try == 10 {
			t.Fatalf("losetup: %v: %s", err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func status(t *testing.T, d *stand.Daemons) (s admin.Status) {
	t.Helper()
	fromJSON(t, d.CLI("status", "--json"), &s)
	return s
}

func osdList(t *testing.T, d *stand.Daemons) (list []admin.OSD) {
	t.Helper()
	fromJSON(t, d.CLI("ls-osd", "--json"), &list)
	return list
}

func fromJSON(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatal(fmt.Errorf("%w in %s", err, text))
	}
}

// TestDiskInTheWrongPlace starts OSDs where they must not run: each is refused with code 6 and a message that names whose disk it is, or who runs; the cluster goes on, and nobody's disk has changed.
func TestDiskInTheWrongPlace(t *testing.T) {
	d := stand.StartDaemons(t, 3, 256<<20)
	d.CLI("create", "demo", "--size", "32M")
	l := stand.NewLoad(t, 4096, d.Dial("demo"))
	l.Start(4)
	l.AwaitWrites(1000)
	l.Stop()
	refused := func(t *testing.T, code int, device string, args []string, want ...string) {
		t.Helper()
		p := d.Hosts[3].Start("refused", stand.Binary(t), append([]string{"osd", "--data_device", device, "--etcd_address", d.Etcd, "--bind_address", d.Hosts[3].Address}, args...)...)
		if got := p.Wait(haltTime); got != code {
			t.Errorf("exit code %d, want %d", got, code)
		}
		for _, w := range want {
			if said := p.Output().String(); !strings.Contains(said, w) {
				t.Errorf("%q is not in what it said:\n%s", w, said)
			}
		}
	}
	copied := filepath.Join(t.TempDir(), "copy")
	t.Run("a disk that is in use", func(t *testing.T) {
		refused(t, int(admin.Refused), d.Disk(3), []string{"--osd_num", "3"}, "in use by process "+fmt.Sprint(d.Child(3)), "holdfast")
		refused(t, int(admin.Refused), d.Disk(2), []string{"--osd_num", "3"}, "in use by process "+fmt.Sprint(d.Child(2)))
	})
	t.Run("a number that is in use, on an empty disk", func(t *testing.T) {
		empty := filepath.Join(t.TempDir(), "empty")
		stand.Run(t, stand.Binary(t), "disk", "format", "--size", "256M", empty)
		refused(t, int(admin.Halted), empty, []string{"--osd_num", "2"}, "another OSD 2 runs on host", d.Hosts[2].Address, "stop that one first")
	})
	t.Run("a copy of a disk that is in use", func(t *testing.T) {
		stand.Run(t, "cp", "--sparse=always", d.Disk(2), copied)
		refused(t, int(admin.Halted), copied, []string{"--osd_num", "2"}, "is in use by OSD 2, which runs on host", d.Hosts[2].Address)
	})
	d.OSDs[2].Stop(30 * time.Second)
	d.OSDs[3].Stop(30 * time.Second)
	before := stand.Run(t, stand.Binary(t), "disk", "dump", d.Disk(2))
	t.Run("the disk of another OSD", func(t *testing.T) {
		refused(t, int(admin.Halted), d.Disk(2), []string{"--osd_num", "3"}, "is that of OSD 2", "start OSD 2 on it, and OSD 3 on its own disk")
		if warnings := fmt.Sprint(status(t, d).Warnings); !strings.Contains(warnings, "OSD 3 on host ") || !strings.Contains(warnings, "is that of OSD 2") {
			t.Errorf("status does not say it: %v", warnings)
		}
	})
	t.Run("the disk of another cluster", func(t *testing.T) {
		other := stand.StartPlan(t, stand.Plan{OSDs: 1, OSDSize: 256 << 20, NoGate: true})
		other.OSDs[1].Stop(30 * time.Second)
		refused(t, int(admin.Halted), other.Disk(1), []string{"--osd_num", "1"}, "another OSD 1 runs on host")
		refused(t, int(admin.Halted), other.Disk(1), []string{"--osd_num", "3"}, "belongs to OSD 1 of cluster ")
	})
	if after := stand.Run(t, stand.Binary(t), "disk", "dump", d.Disk(2)); after != before {
		t.Errorf("the disk of OSD 2 has changed:\n%.2000s\nwas:\n%.2000s", after, before)
	}
	d.StartOSD(2)
	d.StartOSD(3)
	d.AwaitActive(60 * time.Second)
	l.Verify()
}

// TestOSDsOnPartsOfADisk runs two OSDs on partitions of one device: each has its own disk for itself, and nobody takes the whole device beside them.
func TestOSDsOnPartsOfADisk(t *testing.T) {
	d := stand.StartPlan(t, stand.Plan{OSDs: 3, OSDSize: 256 << 20})
	dev := loopDevice(t, filepath.Join(t.TempDir(), "backing"))
	const part = 120 << 20 / 512
	stand.Run(t, "addpart", dev, "1", "2048", fmt.Sprint(part))
	stand.Run(t, "addpart", dev, "2", fmt.Sprint(2048+part), fmt.Sprint(part))
	t.Cleanup(func() { stand.Run(t, "partx", "-d", dev) })
	for n := 2; n <= 3; n++ {
		path := fmt.Sprintf("%sp%d", dev, n-1)
		d.OSDs[n].Stop(30 * time.Second)
		place(t, d, n, path)
		stand.Run(t, stand.Binary(t), "disk", "format", path)
		d.StartOSD(n)
		d.AwaitActive(60 * time.Second)
	}
	d.CLI("create", "demo", "--size", "32M")
	l := stand.NewLoad(t, 4096, d.Dial("demo"))
	l.Start(4)
	l.AwaitWrites(2000)
	for _, device := range []string{dev, d.Disk(2)} {
		if out, err := stand.Try(t, toolLimit, stand.Binary(t), "disk", "format", "--force", device); err == nil || !strings.Contains(out, "in use") && !strings.Contains(out, "busy") {
			t.Errorf("%s was formatted beside the OSD on it: %v, %s", device, err, out)
		}
	}
	l.Stop()
	l.Verify()
	for n := 2; n <= 3; n++ {
		d.KillChild(n)
	}
	d.AwaitActive(60 * time.Second)
	l.Verify()
}

// TestOptionsOfOSDs starts OSDs with the options that change how they use their disk and memory.
func TestOptionsOfOSDs(t *testing.T) {
	d := stand.StartDaemons(t, 3, 256<<20)
	d.CLI("create", "demo", "--size", "32M")
	l := stand.NewLoad(t, 4096, d.Dial("demo"))
	l.Start(4)
	l.AwaitWrites(1000)
	l.Stop()
	restart := func(n int, args ...string) *stand.Process {
		t.Helper()
		if !d.OSDs[n].Ended() {
			d.OSDs[n].Stop(30 * time.Second)
		}
		d.OSDs[n] = d.Hosts[n].Start(fmt.Sprintf("OSD %d", n), stand.Binary(t), append([]string{"osd", "--osd_num", fmt.Sprint(n), "--data_device", d.Disk(n), "--etcd_address", d.Etcd,
			"--bind_address", d.Hosts[n].Address}, args...)...)
		return d.OSDs[n]
	}
	said := func(text string) func(string) bool {
		return func(out string) bool { return strings.Contains(out, text) }
	}
	t.Run("discard_on_start", func(t *testing.T) {
		before := onDisk(t, d.Disk(1))
		p := restart(1, "--discard_on_start")
		p.Await(haltTime, "the end of the discards", said("free space was discarded"))
		if after := onDisk(t, d.Disk(1)); after > before/2 {
			t.Errorf("the disk's file takes %d bytes, %d before", after, before)
		}
		d.AwaitActive(30 * time.Second)
		l.Verify()
	})
	t.Run("osd_memlock", func(t *testing.T) {
		restart(2, "--osd_memlock").Await(haltTime, `the line "up"`, stand.HasLine("up"))
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Child(2)))
		if err != nil || strings.Contains(string(text), "VmLck:\t       0 kB") {
			t.Errorf("nothing is locked: %v", err)
		}
		d.AwaitActive(30 * time.Second)
		l.Start(4)
		l.AwaitWrites(1000)
		l.Stop()
		p := stand.Start(t, "an OSD that may not", stand.Tool(t, "setpriv"), "--bounding-set=-ipc_lock,-sys_resource", "prlimit", "--memlock=8388608:8388608", stand.Binary(t),
			"osd", "--osd_num", "3", "--data_device", d.Disk(3), "--etcd_address", d.Etcd, "--osd_memlock")
		if code := p.Wait(haltTime); code != int(admin.Usage) || !said("LimitMEMLOCK=infinity")(p.Output().String()) {
			t.Errorf("exit code %d:\n%s", code, p.Output())
		}
	})
	t.Run("readonly", func(t *testing.T) {
		d.OSDs[3].Stop(30 * time.Second)
		before := sum(t, d.Disk(3))
		p := restart(3, "--readonly")
		p.Await(haltTime, "that it is read-only", said("read-only: nothing is served"))
		l.Start(4)
		l.AwaitWrites(500) // without it
		l.Stop()
		warned := fmt.Sprint(status(t, d).Warnings)
		if !strings.Contains(warned, "OSD 3 (host ") || !strings.Contains(warned, "read-only") {
			t.Errorf("status does not say it: %s", warned)
		}
		p.Stop(30 * time.Second)
		if sum(t, d.Disk(3)) != before {
			t.Error("the disk has changed")
		}
		d.StartOSD(3)
		d.AwaitActive(60 * time.Second)
		l.Verify()
	})
}

// onDisk is what a file takes of its file system.
func onDisk(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func sum(t *testing.T, path string) string {
	t.Helper()
	return strings.Fields(stand.Run(t, "sha256sum", path))[0]
}
