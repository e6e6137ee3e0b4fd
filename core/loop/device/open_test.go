package device

import (
	"os"
	"path/filepath"
	"testing"

	"holdfast/core/loop"
)

func TestBlockDevicesAreKnown(t *testing.T) {
	entries, err := os.ReadDir("/sys/class/block")
	if err != nil {
		t.Skip(err)
	}
	seen := 0
	for _, e := range entries {
		f, info, block, err := open(filepath.Join("/dev", e.Name()), loop.DiskOptions{ReadOnly: true})
		if err != nil {
			continue // not ours to open, or without a medium
		}
		f.Close()
		if info.Size == 0 {
			continue
		}
		seen++
		if !block || info.Size%int64(info.SectorSize) != 0 || info.SectorSize < 512 || info.Identity == "" {
			t.Errorf("%s: block %v, %+v", e.Name(), block, info)
		}
		t.Logf("%s: %+v", e.Name(), info)
	}
	if seen == 0 {
		t.Skip("no block device can be read here")
	}
}

func TestCacheAndSerialComeFromSysfs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sda/queue/write_cache", "write back")
	write("sda/device/serial", "S1")
	write("sda/sda2/partition", "2")
	write("vda/queue/write_cache", "write through")
	write("vda/serial", "V1")
	write("vda/vda1/partition", "1")
	write("ram0/size", "0")
	// What /sys/dev/block holds are links.
	if err := os.Symlink("vda/vda1", filepath.Join(dir, "254:1")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		through bool
		serial  string
	}{{"sda", false, "S1"}, {"sda/sda2", false, "S1-part2"}, {"vda", true, "V1"}, {"254:1", true, "V1-part1"}, {"ram0", false, ""}, {"none", false, ""}} {
		path := filepath.Join(dir, c.name)
		if got := writeThrough(path); got != c.through {
			t.Errorf("writeThrough(%s) = %v, want %v", c.name, got, c.through)
		}
		if got := serial(path); got != c.serial {
			t.Errorf("serial(%s) = %q, want %q", c.name, got, c.serial)
		}
	}
}
