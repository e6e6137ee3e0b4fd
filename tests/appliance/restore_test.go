package appliance

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// TestUpIsRestoredFromItsOwnSnapshot: `up` writes snapshots of its etcd into its folder, and one of them is put back into that folder, over an etcd that is there and into none.
func TestUpIsRestoredFromItsOwnSnapshot(t *testing.T) {
	u := stand.StartUp(t, append(small, "--etcd_snapshot_interval", "1")...)
	want := bytes.Repeat([]byte("holdfast"), stand.BlockSize/8)
	c, err := u.Dial("demo")()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteAt(want, 5*stand.BlockSize); err != nil {
		t.Fatal(err)
	}
	c.Close()
	read := func() {
		t.Helper()
		c, err := u.Dial("demo")()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		have := make([]byte, stand.BlockSize)
		if _, err := c.ReadAt(have, 5*stand.BlockSize); err != nil || !bytes.Equal(have, want) {
			t.Fatalf("read %.20q, %v", have, err)
		}
	}
	var files []string
	await(t, 10*time.Second, "a snapshot", func() bool {
		files, _ = filepath.Glob(filepath.Join(u.Dir, "snapshots", "etcd-*.json"))
		return len(files) > 0
	})
	file := filepath.Join(t.TempDir(), "snapshot.json") // those in the folder are thinned out
	if err := os.Link(files[0], file); err != nil {
		t.Fatal(err)
	}
	u.Create("later", "1M")
	run(t, "etcd", "restore", file, "--dir", u.Dir).refused(t, 4, "holdfast up", "runs in --dir")
	on(t, u, "etcd", "restore", file).refused(t, 4, "daemons run", "osd/state/1")
	u.Kill() // its keys outlive it

	run(t, "etcd", "restore", file, "--dir", u.Dir, "--yes").refused(t, 4, "is not empty")
	run(t, "etcd", "restore", file, "--dir", u.Dir, "--yes", "--replace").ok(t)
	u.With()
	u.Start()
	read()
	on(t, u, "modify", "later", "--resize", "2M").refused(t, 3, "later")
	u.Stop(20 * time.Second)

	if err := os.RemoveAll(filepath.Join(u.Dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	run(t, "etcd", "restore", file, "--dir", u.Dir, "--yes").ok(t)
	u.Start()
	read()
	// What was replaced has become a snapshot, too.
	kept, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "replaced-*"))
	if len(kept) != 1 {
		t.Fatalf("kept are %q", kept)
	}
	run(t, "etcd", "check", kept[0]).ok(t)
	run(t, "etcd", "check", u.Config()).refused(t, 1, "not a whole snapshot")
	run(t, "etcd", "check", file+"x").refused(t, 3, "there is no file")
	run(t, "etcd", "restore", file, "--dir", file+"x").refused(t, 3, "holds no cluster")
	on(t, u, "etcd", "snapshot", file).refused(t, 4, "exists already")
}
