package sim

import (
	"errors"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd"
	"holdfast/osd/store"
)

// misplaced starts an OSD on a disk that is not its own, on another host, and says what became of it within 20 s.
func misplaced(c *Cluster, disk string, owner store.Owner) error {
	c.T.Helper()
	l := c.W.NewLoop("wrong")
	d, err := l.OpenDisk(disk, loop.DiskOptions{Exclusive: true})
	if err != nil {
		c.T.Fatal(err)
	}
	ended, done := error(nil), false
	end := func(err error) { ended, done = err, true }
	store.Open(l, d, store.Options{Owner: owner}, func(st *store.Store, err error) {
		if err != nil {
			end(err)
			return
		}
		o := osd.Options{Num: owner.OSD, Instance: 77, Host: "wrong", Bind: []loop.Addr{{Network: "tcp", Address: "10.0.0.77:7000"}}, Key: c.Key, Registry: c.open(l), Store: st, Fatal: end}
		if _, err := osd.Start(l, o); err != nil {
			c.T.Fatal(err)
		}
	})
	c.W.RunUntil(func() bool { return done }, 20*time.Second)
	l.Kill()
	return ended
}

// The disk of an OSD is put into another one's place while both are down. Nobody is misled: it is not opened, the two identities stay as they are, and with the disks where they belong both serve.
func TestDiskInAnothersPlaceChangesNothing(t *testing.T) {
	c := New(t, Options{Seed: 1, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 4, DiskSize: 32 << 20, Down: func(*Node, error) {}})
	c.Wait("PGs active", time.Minute, func() bool { return c.States(cluster.StateActive) })
	was := [3]layout.StoreID{}
	for n, id := range c.Snapshot().Stores.All() {
		was[n-1] = id.Store
	}
	for n := range layout.OSDNum(2) {
		c.Nodes[n+1].Kill()
	}
	var place *osd.PlaceError
	if err := misplaced(c, c.Nodes[2].disk(), store.Owner{OSD: 1}); !errors.As(err, &place) {
		t.Errorf("a disk of which etcd knows that it is another OSD's: %v", err)
	}
	for n, id := range c.Snapshot().Stores.All() {
		if was[n-1] != id.Store || len(id.Retired) > 0 {
			t.Errorf("OSD %d has store %v, had %v, retired %v", n, id.Store, was[n-1], id.Retired)
		}
	}
	for n := range layout.OSDNum(2) {
		c.Nodes[n+1].Start()
	}
	c.Wait("PGs active again", time.Minute, func() bool { return c.States(cluster.StateActive) })
}

// A copy of a disk is started beside the OSD that runs on it. Whatever the copy lacks was acknowledged: it must not take the place of the one that runs.
func TestCopyOfARunningDiskIsRefused(t *testing.T) {
	c := New(t, Options{Seed: 1, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 4, DiskSize: 32 << 20, Down: func(*Node, error) {}})
	c.Wait("PGs active", time.Minute, func() bool { return c.States(cluster.StateActive) })
	c.W.NewDiskFrom("copy", c.W.Disk(c.Nodes[1].disk()).Image())
	var place *osd.PlaceError
	if err := misplaced(c, "copy", store.Owner{OSD: 1}); !errors.As(err, &place) || !place.Taken {
		t.Errorf("the copy: %v", err)
	}
	if n := c.Nodes[1]; n.Err != nil || !n.Loop.Alive() || !c.States(cluster.StateActive) {
		t.Errorf("the OSD that ran: %v", n.Err)
	}
}
