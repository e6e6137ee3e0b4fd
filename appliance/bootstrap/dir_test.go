package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/config"
)

func kindOf(err error) admin.Kind {
	var e *admin.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestFolderIsLockedAndRemembersItsShape(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "cluster")
	d := open(t, path)
	if !d.Fresh {
		t.Error("a new folder is not fresh")
	}
	if _, err := OpenDir(path); kindOf(err) != admin.Refused {
		t.Errorf("a second one: %v", err)
	}
	d.Shape = Shape{Format: 1, OSDs: 2, OSDSize: 1 << 30, Replicas: 2, Made: []int{1}, Ready: true}
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	d.Close()
	again := open(t, path)
	if again.Fresh || again.Shape.OSDs != 2 || !slices.Equal(again.Shape.Made, []int{1}) {
		t.Errorf("read again: %+v, fresh %v", again.Shape, again.Fresh)
	}
}

func TestFoldersOfOthersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"holdfast.conf": "{}", "cluster.json": "{", "new/cluster.json": `{"format":2,"osds":1}`} {
		path := filepath.Join(dir, filepath.Dir(name), "case", filepath.Base(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := OpenDir(filepath.Dir(path)); err == nil {
			d.Close()
			t.Errorf("%s holding %q was accepted", name, content)
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeyIsMadeOnceAndNotAgainWhenItIsLost(t *testing.T) {
	d := open(t, t.TempDir())
	path, err := d.MakeKey()
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil || len(first) < 2*keyBytes {
		t.Fatalf("key: %q, %v", first, err)
	}
	if _, err := d.MakeKey(); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(path); string(again) != string(first) {
		t.Error("the key changed")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	d.Fresh, d.Shape.Ready = false, true
	if _, err := d.MakeKey(); kindOf(err) != admin.Refused {
		t.Errorf("a lost key of a cluster: %v", err)
	}
}

func TestDisksAreMadeOnce(t *testing.T) {
	d := open(t, t.TempDir())
	d.Shape = Shape{Format: 1, OSDs: 1, OSDSize: 32 << 20, Replicas: 1}
	v, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	th, err := daemon.NewThread("portable", "test", slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer th.Stop()
	ctx := context.Background()
	// What an interrupted start left is made anew.
	if err := os.WriteFile(d.OSDFile(1), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.MakeDisk(ctx, th, 1, v); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(d.OSDFile(1))
	if err != nil || len(first) != 32<<20 {
		t.Fatalf("%d bytes, %v", len(first), err)
	}
	if err := d.MakeDisk(ctx, th, 1, v); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(d.OSDFile(1)); string(again) != string(first) {
		t.Error("a disk that had been made was formatted again")
	}
	if _, err := Format(ctx, th, v, daemon.Disks{Data: d.OSDFile(1)}, StoreConfig(v)); kindOf(err) != admin.Refused {
		t.Errorf("formatting an OSD's disk: %v", err)
	}
	if err := os.Remove(d.OSDFile(1)); err != nil {
		t.Fatal(err)
	}
	if err := d.MakeDisk(ctx, th, 1, v); kindOf(err) != admin.NotFound {
		t.Errorf("a disk that is gone: %v", err)
	}
}

func TestSpaceIsCheckedBeforeAnythingIsMade(t *testing.T) {
	d := open(t, t.TempDir())
	d.Shape = Shape{Format: 1, OSDs: 3, OSDSize: 1 << 50}
	if err := d.CheckSpace(); kindOf(err) != admin.Refused {
		t.Errorf("3 disks of 1 PiB: %v", err)
	}
	d.Shape.Made = []int{1, 2, 3}
	if err := d.CheckSpace(); err != nil {
		t.Errorf("nothing to make: %v", err)
	}
}
