package sim

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// recovered is how many objects all OSDs have recovered since they started.
func (c *Cluster) recovered() (n uint64) {
	for _, o := range c.Nodes {
		n += o.OSD.RecoveryStat().Objects
	}
	return n
}

// An OSD returns that lacks hundreds of objects, while clients are at work on others.
func TestRecoveryYieldsToClientsAndIsQuickWithoutThem(t *testing.T) {
	const size, objects, apart = 32 << 10, 2400, 4000
	c := start(t, Options{Seed: 14, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 4, Depth: 1, DiskSize: 128 << 20, Store: store.Config{BlockSize: size, Granularity: 4096}})
	c.put(cluster.KeyGlobal, []byte(`{"no_recovery": true}`))
	var log bytes.Buffer
	for _, n := range c.Nodes {
		n.followGlobal(&log)
	}
	k := c.NewClient(77)
	for i := range 8 {
		k.Write(image, uint64(apart+i)*size, pattern(8192, byte(i)))
	}
	c.Nodes[3].Kill()
	for i := range objects {
		k.Write(image, uint64(i)*size, pattern(8192, byte(i)))
	}
	c.Nodes[3].Start()
	c.Wait("OSD 3 to be opened", 30*time.Second, func() bool { return c.Nodes[3].OSD != nil })
	c.Nodes[3].followGlobal(&log)
	c.Wait("the PGs to be degraded with it", 30*time.Second, func() bool {
		for _, st := range c.Snapshot().PGStates.All() {
			if len(st.Peers) < 3 {
				return false
			}
		}
		return c.Serving() && !c.States(cluster.StateActive)
	})

	// Two requests are always under way.
	stopped, done := false, 0
	data := pattern(4096, 9)
	var write func(Result)
	write = func(r Result) {
		if r.Retval != int64(len(data)) {
			t.Errorf("a write is answered %d", r.Retval)
		}
		if done++; !stopped {
			k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: uint64(apart+done%8) * size, Len: uint32(len(data))}, data, write)
		}
	}
	write(Result{Retval: int64(len(data))})
	write(Result{Retval: int64(len(data))})
	for range 2 { // each OSD has seen the load
		c.W.Run(time.Second)
	}
	measure := func() (writes int, copies uint64) {
		w, n := done, c.recovered()
		c.W.Run(2 * time.Second)
		return done - w, c.recovered() - n
	}
	alone, none := measure()
	c.put(cluster.KeyGlobal, []byte(`{}`))
	beside, slow := measure()
	stopped = true
	_, quick := measure()
	t.Logf("in 2 s: %d writes alone, %d beside recovery; %d objects recovered beside clients, %d without", alone, beside, slow, quick)
	if none != 0 || slow == 0 || quick == 0 {
		t.Errorf("recovered: %d while it was held back, %d beside clients, %d without", none, slow, quick)
	}
	if beside < alone*3/4 {
		t.Errorf("%d writes beside recovery, %d alone", beside, alone)
	}
	if slow > objects/3 || slow+quick < objects {
		t.Errorf("of %d objects %d were recovered beside clients, %d without; wanted few, then all", objects, slow, quick)
	}
	c.Wait("all PGs clean", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
}
