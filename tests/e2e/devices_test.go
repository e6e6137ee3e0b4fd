package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/core/admin"
	"holdfast/tests/stand"
)

// TestOSDsOnSeveralDevices has three OSDs, each on three files, killed as kill -9 does: one at a time under load, then all at once. What clients were told is there. Then an OSD is given the journal of
// another, an empty one, an old one and none: it refuses with a reason, changes nothing, and starts with the right one.
func TestOSDsOnSeveralDevices(t *testing.T) {
	d := stand.StartPlan(t, stand.Plan{OSDs: 3, OSDSize: 256 << 20, Meta: 16 << 20, Journal: 16 << 20, Format: []string{"--journal_size", "8M"}, MinSize: 2})
	d.CLI("create", "demo", "--size", "64M")
	l := stand.NewLoad(t, 8192, d.Dial("demo"))
	for n := 1; n <= rounds(t, 1); n++ {
		osd := (n-1)%3 + 1
		l.Start(8)
		l.AwaitWrites(500)
		d.OSDs[osd].Kill()
		l.AwaitWrites(500)
		d.StartOSD(osd)
		d.AwaitActive(60 * time.Second)
		l.Stop()
		l.Verify()
	}
	l.Start(8)
	l.AwaitWrites(500)
	for n := 1; n <= 3; n++ {
		d.OSDs[n].Kill()
	}
	for n := 1; n <= 3; n++ {
		d.StartOSD(n)
	}
	d.AwaitActive(60 * time.Second)
	l.AwaitWrites(200)
	l.Stop()
	l.Verify()
	if errs := l.Errors(); len(errs) > 0 {
		t.Errorf("clients saw errors: %v", errs)
	}

	journal := d.Disk(1) + ".journal"
	right, old := journal+".right", journal+".old"
	content := func(path string) []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.OSDs[1].Stop(30 * time.Second)
	write(old, content(journal))
	for range 2 { // an interrupted opening may leave one write between the superblocks
		d.StartOSD(1)
		d.AwaitActive(60 * time.Second)
		d.OSDs[1].Stop(30 * time.Second)
	}
	d.OSDs[2].Stop(30 * time.Second)
	if err := os.Rename(journal, right); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		journal []byte // nil: none
		want    string
		code    admin.Kind
	}{
		{"another OSD's", content(d.Disk(2) + ".journal"), "it has the journal of store ", admin.Refused},
		{"an empty one", make([]byte, 16<<20), "nothing of a store is on it", admin.Refused},
		{"an old one", content(old), "it is an older state of the journal of store ", admin.Refused},
		{"none", nil, "no such file or directory", admin.NotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.journal != nil {
				write(journal, c.journal)
				defer os.Remove(journal)
			}
			files := []string{d.Disk(1), d.Disk(1) + ".meta"}
			before := [][]byte{content(files[0]), content(files[1])}
			d.StartOSD(1)
			p := d.OSDs[1]
			if code := p.Wait(30 * time.Second); code != int(c.code) {
				t.Errorf("exit code %d, want %d:\n%s", code, c.code, p.Output().Tail(10))
			}
			if said := p.Output().String(); !strings.Contains(said, journal) || !strings.Contains(said, c.want) {
				t.Errorf("it does not say %q of %s:\n%s", c.want, journal, p.Output().Tail(10))
			}
			for i, b := range before {
				if !bytes.Equal(b, content(files[i])) {
					t.Errorf("%s has changed", files[i])
				}
			}
			if c.journal != nil && !bytes.Equal(c.journal, content(journal)) {
				t.Error("the journal has changed")
			}
		})
	}
	if err := os.Rename(right, journal); err != nil {
		t.Fatal(err)
	}
	d.StartOSD(1)
	d.StartOSD(2)
	d.AwaitActive(60 * time.Second)
	l.Start(8)
	l.AwaitWrites(200)
	l.Stop()
	l.Verify()
}

// TestSectorsOfBlockDevices formats loop devices with sectors of 512 and of 4096 bytes, and moves stores from one to the other.
func TestSectorsOfBlockDevices(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, then string // sectors
		units       string
		format      string // why it is not formatted
		check       string // why it cannot be used afterwards
	}{
		{"4096", "4096", "4096", "4K", "", ""},
		{"from 512 to 4096", "512", "4096", "4K", "", ""},
		{"from 4096 to 512", "4096", "512", "4K", "", ""},
		{"small units on 4096", "4096", "", "512", "4096, the sector size of the device", ""},
		{"small units from 512 to 4096", "512", "4096", "512", "", "the device has sectors of 4096 bytes, the store was made for 512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, 64<<20); err != nil {
				t.Fatal(err)
			}
			on := func(sector string, want string, args ...string) {
				t.Helper()
				dev := strings.TrimSpace(stand.Run(t, "losetup", "--find", "--show", "--sector-size", sector, file))
				defer stand.Run(t, "losetup", "-d", dev)
				out, err := exec.Command(stand.Binary(t), append(args, dev)...).CombinedOutput()
				if (err == nil) != (want == "") || !strings.Contains(string(out), want) {
					t.Errorf("%s: %v, wanted %q\n%s", args, err, want, out)
				}
			}
			on(c.first, c.format, "disk", "format", "--bitmap_granularity", c.units, "--csum_block_size", c.units)
			if c.then != "" {
				on(c.then, c.check, "disk", "check")
			}
		})
	}
}
