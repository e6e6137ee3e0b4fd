package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/appliance/bootstrap"
	"holdfast/appliance/daemon"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd/store"
)

// command runs a command line and returns what it printed.
func command(t *testing.T, want int, args ...string) (out, errs string) {
	t.Helper()
	t.Setenv("HOLDFAST_CONFIG", "")
	os.Unsetenv("HOLDFAST_CONFIG")
	var o, e bytes.Buffer
	if code := run("holdfast", args, &o, &e); code != want {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, want, o.String(), e.String())
	}
	return o.String(), e.String()
}

// damagedDisk is a file with a store of which a batch in the middle of the journal is damaged.
func damagedDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "osd.1.data")
	command(t, 0, "disk", "format", "--size", "64M", path)
	a := &app{params: map[string]string{}, out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	v, err := a.config()
	if err != nil {
		t.Fatal(err)
	}
	th, err := daemon.NewThread("portable", "disk", a.quiet(v))
	if err != nil {
		t.Fatal(err)
	}
	sb, err := bootstrap.OnDisk(t.Context(), th, v, daemon.Disks{Data: path}, false, func(d loop.Disk, done func(store.Superblock, error)) {
		store.Open(th, d, store.Options{}, func(s *store.Store, err error) {
			if err != nil {
				done(store.Superblock{}, err)
				return
			}
			n := uint64(0)
			op := &store.Op{}
			op.Done = func(op *store.Op) {
				if n++; n == 6 || op.Err != nil {
					done(s.Superblock(), op.Err) // as a process that dies: the store is not closed
					return
				}
				data := th.Alloc(4096)
				*op = store.Op{Kind: store.OpWrite, Object: layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: n << 17}, Version: 1, Interval: 1, Len: 4096, Data: data, Done: op.Done}
				s.Submit(op)
			}
			op.Done(op)
		})
	})
	th.Stop()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Batches of one write take two units; the third one is hit.
	if _, err := f.WriteAt([]byte("damage"), sb.Journal.Off+4096+2*8192+200); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDiskAcceptSaysWhatMayBeLostAndDoesNothing(t *testing.T) {
	path := damagedDisk(t)
	before, _ := os.ReadFile(path)
	out, _ := command(t, 1, "disk", "check", path)
	if !strings.Contains(out, "disk accept") {
		t.Errorf("disk check: %s", out)
	}
	out, _ = command(t, 4, "disk", "accept", path)
	for _, want := range []string{"what is wrong", "journal, device offset", "batch", "2 entries follow", "written since opening", "what may be lost", "other copies", "acknowledged", "nothing was changed", "cluster was not asked"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	var v acceptance
	text, _ := command(t, 4, "disk", "accept", "--json", path)
	if err := json.Unmarshal([]byte(text), &v); err != nil || !v.Needed || len(v.Gaps) != 1 || v.Gaps[0].Entries != 1 || v.Gaps[0].After != 2 || v.Accepted != "" || v.Cluster.Verdict != bootstrap.Unasked {
		t.Errorf("%v: %s", err, text)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the disk was changed")
	}
}

func TestDiskAcceptTakesTheDamageOut(t *testing.T) {
	for _, keep := range []bool{false, true} {
		path := damagedDisk(t)
		args := []string{"disk", "accept", "--yes", "--json", path}
		if keep {
			args = append(args, "--keep-id")
		}
		text, _ := command(t, 0, args...)
		var v acceptance
		if err := json.Unmarshal([]byte(text), &v); err != nil || v.Accepted != map[bool]string{false: "empty", true: "keep"}[keep] || (v.NewID == "") != keep {
			t.Errorf("%v: %s", err, text)
		}
		if out, _ := command(t, 0, "disk", "check", path); !strings.Contains(out, "in order") {
			t.Errorf("disk check: %s", out)
		}
		dump, _ := command(t, 0, "disk", "dump", path)
		if n := strings.Count(dump, "\nobject "); n != map[bool]int{false: 0, true: 4}[keep] || strings.Contains(dump, v.StoreID) != keep {
			t.Errorf("keep %v: %d objects in\n%s", keep, n, dump)
		}
		// Without a cluster nobody can say whether anything is left to accept.
		if _, errs := command(t, 2, "disk", "accept", path); !strings.Contains(errs, "no cluster is named") {
			t.Errorf("again: %s", errs)
		}
	}
}

func TestDiskAcceptOfWhatIsNoStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs := command(t, 4, "disk", "accept", "--yes", path); !strings.Contains(errs, "not an OSD's disk") {
		t.Error(errs)
	}
	command(t, 3, "disk", "accept", path+"y")
	damaged := damagedDisk(t)
	f, _ := os.OpenFile(damaged, os.O_RDWR, 0)
	f.WriteAt([]byte("x"), 60)
	f.WriteAt([]byte("x"), 64<<10+60)
	f.Close()
	if _, errs := command(t, 4, "disk", "accept", "--yes", damaged); !strings.Contains(errs, "disk format --force") {
		t.Error(errs)
	}
}
