package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"holdfast/core/loop"
)

func TestDisksNamedTwiceAreOne(t *testing.T) {
	dir := t.TempDir()
	data, fast, link := filepath.Join(dir, "data"), filepath.Join(dir, "fast"), filepath.Join(dir, "link")
	for _, path := range []string{data, fast} {
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(fast, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		d    Disks
		want []string
	}{
		{Disks{data, "", ""}, []string{data}},
		{Disks{data, fast, ""}, []string{data, fast}},
		{Disks{data, fast, link}, []string{data, fast}},
		{Disks{data, link, data}, []string{data, link}},
		{Disks{data, "", fast}, []string{data, fast}},
		{Disks{data, "gone", "gone"}, []string{data, "gone"}},
	} {
		if have := c.d.Paths(); !slices.Equal(have, c.want) {
			t.Errorf("%+v: %v, want %v", c.d, have, c.want)
		}
	}
}

func TestEachDiskHasItsOwnFlushes(t *testing.T) {
	for _, c := range []struct {
		flags            []string
		i, meta, journal int
		want             bool
	}{
		{nil, 0, -1, -1, false},
		{[]string{"disable_data_fsync"}, 0, -1, -1, true},
		{[]string{"disable_data_fsync"}, 1, 1, -1, false},
		{[]string{"disable_meta_fsync"}, 0, 0, 1, false},
		{[]string{"disable_meta_fsync"}, 1, 1, -1, true},
		{[]string{"disable_meta_fsync"}, 1, 1, 1, false},
		{[]string{"disable_meta_fsync", "disable_journal_fsync"}, 1, 1, 1, true},
		{[]string{"disable_meta_fsync"}, 2, 1, 2, false},
		{[]string{"disable_journal_fsync"}, 2, 1, 2, true},
		{[]string{"disable_journal_fsync"}, 1, -1, 1, true},
	} {
		flags := map[string]string{}
		for _, f := range c.flags {
			flags[f] = "true"
		}
		v, err := LoadConfig(flags)
		if err != nil {
			t.Fatal(err)
		}
		if have := noFlush(v, c.i, c.meta, c.journal); have != c.want {
			t.Errorf("%v: disk %d with metadata on %d and journal on %d: %t", c.flags, c.i, c.meta, c.journal, have)
		}
	}
}

// TestDisksOfWhichOneIsMissingAreClosed names it, and leaves the others to who opens them next.
func TestDisksOfWhichOneIsMissingAreClosed(t *testing.T) {
	v, err := LoadConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	th, err := NewThread("portable", "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer th.Stop()
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := Await(t.Context(), th, func(done func(struct{}, error)) {
			_, path, err := Disks{data, "", data + ".gone"}.Open(th, v, loop.DiskOptions{Exclusive: true})
			if path != data+".gone" {
				t.Errorf("the error is about %s", path)
			}
			done(struct{}{}, err)
		})
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("open: %v", err)
		}
	}
}
