package sim

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/osd/primary"
)

// lazily is a write that need not be durable when it is acknowledged.
func lazily(offset uint64, n int, session, sequence uint64) wire.ReadWrite {
	m := write(offset, n, session, sequence)
	m.Flags = wire.FlagLazy
	return m
}

// sync makes durable what an OSD has acknowledged.
func (k *Client) sync(t *testing.T, n layout.OSDNum) {
	t.Helper()
	done := false
	call := &peer.Call{}
	call.Done = func(c *peer.Call) {
		if c.Err != nil || c.Reply.Retval() != 0 {
			t.Errorf("the sync ends with %v, %d", c.Err, c.Reply.Retval())
		}
		done = true
	}
	var m wire.Sync
	m.Encode(&call.Header)
	k.Loop.Post(&loop.Task{Run: func() { k.hub.Call(n, call) }})
	k.c.Wait("a sync", time.Minute, func() bool { return done })
}

// unplug ends a node's machine; the disk loses all that was not flushed.
func (n *Node) unplug() {
	n.reg.Close()
	n.Loop.PowerOff()
	n.c.W.Disk(n.disk()).Crash(sim.CrashDrop)
}

// startLazy makes a cluster with one PG and such a pool, and returns its primary.
func startLazy(t *testing.T, seed uint64, commit string) (*Cluster, *Node) {
	t.Helper()
	c := start(t, Options{Seed: seed, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 1, Commit: commit})
	c.Wait("the PG is clean", time.Minute, func() bool { return c.States(cluster.StateActive) })
	c.W.Run(2 * time.Second)
	return c, c.Nodes[c.Snapshot().Primary(onlyPG)]
}

// TestSyncedChangesSurvive takes the power from every host after a SYNC, and lets only those return who were not the primary.
func TestSyncedChangesSurvive(t *testing.T) {
	for _, commit := range []string{"none", "small"} {
		c, p := startLazy(t, 31, commit)
		k := c.NewClient(7)
		k.do(t, lazily(0, 131072, 7, 1), pattern(131072, 1))
		k.do(t, lazily(8192, 4096, 7, 2), pattern(4096, 2))
		k.do(t, lazily(131072, 131072, 7, 3), pattern(131072, 3))
		if commit == "none" && p.Store.Unsynced() != 3 {
			t.Errorf("%d changes wait for a sync, want 3", p.Store.Unsynced())
		}
		k.sync(t, p.Num)
		if n := p.Store.Unsynced(); n != 0 {
			t.Errorf("%d changes are not durable after the sync", n)
		}
		for i := range 3 {
			c.Nodes[layout.OSDNum(i+1)].unplug()
		}
		for i := range 3 {
			if n := c.Nodes[layout.OSDNum(i+1)]; n != p {
				n.Start()
			}
		}
		k = c.NewClient(8)
		if r := k.Read(image, 8192, 4096); !bytes.Equal(r.Data, pattern(4096, 2)) {
			t.Errorf("%s: the small write is gone, the read finds version %x", commit, r.Version)
		}
		if r := k.Read(image, 131072, 4096); !bytes.Equal(r.Data, pattern(131072, 3)[:4096]) {
			t.Errorf("%s: the large write is gone, the read finds version %x", commit, r.Version)
		}
		c.W.Close()
	}
}

// TestUnsyncedChangeSurvivesWithOneStore takes the power from all hosts but one: what was acknowledged is where it was not lost.
func TestUnsyncedChangeSurvivesWithOneStore(t *testing.T) {
	c, p := startLazy(t, 32, "none")
	defer c.W.Close()
	k := c.NewClient(7)
	k.do(t, lazily(0, 4096, 7, 1), pattern(4096, 1))
	k.sync(t, p.Num)
	k.do(t, lazily(0, 4096, 7, 2), pattern(4096, 2))
	var stays *Node
	for i := range 3 {
		n := c.Nodes[layout.OSDNum(i+1)]
		if stays == nil && n != p {
			stays = n
			continue
		}
		n.unplug()
	}
	for i := range 3 {
		if n := c.Nodes[layout.OSDNum(i+1)]; n != stays {
			n.Start()
		}
	}
	if r := c.NewClient(8).Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 2)) {
		t.Errorf("a change is gone that one member had all the time; the read finds version %x", r.Version)
	}
}

// TestWritersOfUnsyncedChangesAreDropped ends an interval: the connection of the client that has to write again ends, the other's stays.
func TestWritersOfUnsyncedChangesAreDropped(t *testing.T) {
	c, p := startLazy(t, 33, "none")
	defer c.W.Close()
	lazy, other, synced := c.NewClient(7), c.NewClient(8), c.NewClient(9)
	synced.do(t, lazily(8192, 4096, 9, 1), pattern(4096, 1))
	synced.sync(t, p.Num)
	lazy.do(t, lazily(0, 4096, 7, 1), pattern(4096, 1))
	other.do(t, write(4096, 4096, 8, 1), pattern(4096, 2))
	for i := range 3 {
		if n := c.Nodes[layout.OSDNum(i+1)]; n != p {
			n.Kill()
			break
		}
	}
	c.Wait("the connection has ended", time.Minute, func() bool { return !lazy.hub.Connected(p.Num) })
	c.Wait("a new interval", time.Minute, func() bool { return c.Serving() })
	if !other.hub.Connected(p.Num) || !synced.hub.Connected(p.Num) {
		t.Error("a connection was ended of a client that has nothing to write again")
	}
	if n := p.OSD.Events().Dropped; n != 1 {
		t.Errorf("%d connections were ended, want 1", n)
	}
}

// TestLazyDeletionIsRememberedUntilItIsDurable stalls a member's disk, on which a lazy deletion is not durable, and then takes its power: the deletion must not have been forgotten elsewhere.
func TestLazyDeletionIsRememberedUntilItIsDurable(t *testing.T) {
	c, p := startLazy(t, 34, "none")
	defer c.W.Close()
	k := c.NewClient(7)
	k.do(t, write(0, 4096, 7, 1), pattern(4096, 1))
	c.W.Run(2 * time.Second)
	var away *Node
	for i := range 3 {
		if n := c.Nodes[layout.OSDNum(i+1)]; n != p {
			away = n
		}
	}
	m := wire.ReadWrite{Op: wire.OpDelete, Inode: image, Flags: wire.FlagLazy, Trailer: wire.Trailer{Session: 7, Sequence: 2, Low: 2}}
	k.do(t, m, nil)
	k.do(t, wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: 1 << 20, Len: 4096, Flags: wire.FlagLazy, Trailer: wire.Trailer{Session: 7, Sequence: 3, Low: 3}}, pattern(4096, 2))
	c.W.Disk(away.disk()).Stall(true)
	c.W.Run(1200 * time.Millisecond)
	away.unplug()
	c.W.Disk(away.disk()).Stall(false)
	away.Start()
	k = c.NewClient(8)
	c.Wait("the PG is clean", time.Minute, func() bool { return c.States(cluster.StateActive) })
	if r := k.Read(image, 0, 4096); r.Version != 0 {
		t.Errorf("a deleted object is back with version %x", r.Version)
	}
}

// TestLazyChangeIsNotRepeatedOverAnother loses an unsynced change everywhere; before its client sends it again another one writes.
func TestLazyChangeIsNotRepeatedOverAnother(t *testing.T) {
	c, p := startLazy(t, 35, "none")
	defer c.W.Close()
	k := c.NewClient(7)
	k.do(t, lazily(0, 4096, 7, 1), pattern(4096, 1))
	k.sync(t, p.Num)
	mine := k.do(t, lazily(0, 4096, 7, 2), pattern(4096, 2))
	other := k.do(t, lazily(131072, 4096, 7, 3), pattern(4096, 3))
	for i := range 3 {
		c.Nodes[layout.OSDNum(i+1)].unplug()
	}
	for i := range 3 {
		c.Nodes[layout.OSDNum(i+1)].Start()
	}
	c.NewClient(8).do(t, write(0, 4096, 8, 1), pattern(4096, 9))
	again := func(offset, sequence uint64, version uint64, tag byte) Result {
		m := lazily(offset, 4096, 7, sequence)
		m.Low, m.Flags, m.Version = 2, wire.FlagLazy|wire.FlagReplay, version
		return k.do(t, m, pattern(4096, tag))
	}
	if r := again(0, 2, mine.Version, 2); r.Retval != wire.EEXIST {
		t.Errorf("a change is answered %+v that another has overtaken", r)
	}
	if r := again(131072, 3, other.Version, 3); r.Retval != 4096 || r.Version <= other.Version {
		t.Errorf("a change that was lost is answered %+v", r)
	}
	k = c.NewClient(10)
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 9)) {
		t.Errorf("a change came again over another's: version %x", r.Version)
	}
	if r := k.Read(image, 131072, 4096); !bytes.Equal(r.Data, pattern(4096, 3)) {
		t.Errorf("a change that came again is not there: version %x", r.Version)
	}
}

// TestDurableDeletionOfWhatALazyOneDeletedStays deletes lazily, and has another client, which is promised durability, find nothing to delete.
func TestDurableDeletionOfWhatALazyOneDeletedStays(t *testing.T) {
	c, _ := startLazy(t, 36, "none")
	defer c.W.Close()
	k := c.NewClient(7)
	k.do(t, write(0, 4096, 7, 1), pattern(4096, 1))
	k.do(t, wire.ReadWrite{Op: wire.OpDelete, Inode: image, Flags: wire.FlagLazy, Trailer: wire.Trailer{Session: 7, Sequence: 2, Low: 2}}, nil)
	if r := c.NewClient(8).do(t, wire.ReadWrite{Op: wire.OpDelete, Inode: image, Trailer: wire.Trailer{Session: 8, Sequence: 1, Low: 1}}, nil); r.Retval != 0 || r.Version != 0 {
		t.Fatalf("the second deletion is answered %+v", r)
	}
	for i := range 3 {
		c.Nodes[layout.OSDNum(i+1)].unplug()
	}
	for i := range 3 {
		c.Nodes[layout.OSDNum(i+1)].Start()
	}
	if r := c.NewClient(9).Read(image, 0, 4096); r.Version != 0 {
		t.Errorf("a deleted object is back with version %x", r.Version)
	}
}

// TestStockClientsWritesAreAsThePoolSays has a client without a session write to each kind of pool.
func TestStockClientsWritesAreAsThePoolSays(t *testing.T) {
	for _, one := range []struct {
		commit string
		want   int // of a whole block and a small write, not durable
	}{{"all", 0}, {"small", 0}, {"none", 2}} {
		c, p := startLazy(t, 37, one.commit)
		k := c.NewClient(0)
		for i, n := range []int{131072, 4096} {
			k.do(t, wire.ReadWrite{Op: wire.OpWrite, Inode: image, Len: uint32(n)}, pattern(n, byte(i)))
			if one.commit == "small" && i == 0 && p.Store.Unsynced() != 1 {
				t.Error("a whole block is durable at once in a pool with small")
			}
		}
		if n := p.Store.Unsynced(); n != one.want {
			t.Errorf("%s: %d changes are not durable, want %d", one.commit, n, one.want)
		}
		k.sync(t, p.Num)
		if n := p.Store.Unsynced(); n != 0 {
			t.Errorf("%s: %d changes are not durable after a sync", one.commit, n)
		}
		if want := uint64(1); one.commit != "all" && p.OSD.Events().Syncs != want {
			t.Errorf("%s: %d syncs, want %d", one.commit, p.OSD.Events().Syncs, want)
		}
		c.W.Close()
	}
}

// TestCommitModeChangesAtOnce changes a pool's immediate_commit while its PG is served.
func TestCommitModeChangesAtOnce(t *testing.T) {
	c, p := startLazy(t, 38, "none")
	defer c.W.Close()
	k := c.NewClient(0)
	stock := func(i int) int {
		k.do(t, wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: uint64(i) * 4096, Len: 4096}, pattern(4096, byte(i)))
		return p.Store.Unsynced()
	}
	if n := stock(0); n != 1 {
		t.Errorf("%d changes are not durable, want 1", n)
	}
	for _, kv := range c.Reg.Dump() {
		if kv.Key == cluster.KeyPools {
			c.put(kv.Key, bytes.Replace(kv.Value, []byte(`"none"`), []byte(`"all"`), 1))
		}
	}
	c.W.Run(100 * time.Millisecond)
	if n := stock(1); n != 0 {
		t.Errorf("%d changes are not durable in a pool with all", n)
	}
}

// TestWhatPeeringHasListedIsDurable ends an interval in which a change was acknowledged that is not durable, and takes the power from all hosts as soon as the next one serves: what was listed is the truth by then.
func TestWhatPeeringHasListedIsDurable(t *testing.T) {
	c, p := startLazy(t, 39, "none")
	defer c.W.Close()
	k := c.NewClient(7)
	mine := k.do(t, lazily(0, 4096, 7, 1), pattern(4096, 1))
	interval := func() layout.Interval {
		rec, _ := c.Snapshot().Records.Get(onlyPG)
		return rec.Activated
	}
	was := interval()
	for i := range 3 {
		if n := c.Nodes[layout.OSDNum(i+1)]; n != p {
			n.Kill()
			break
		}
	}
	c.Wait("another interval", time.Minute, func() bool { return interval() > was && c.Serving() })
	for i := range 3 {
		c.Nodes[layout.OSDNum(i+1)].unplug()
	}
	for i := range 3 {
		c.Nodes[layout.OSDNum(i+1)].Start()
	}
	if r := c.NewClient(8).Read(image, 0, 4096); r.Version != mine.Version {
		t.Errorf("version %x was listed by every member, and version %x is read", mine.Version, r.Version)
	}
}

// TestUnsyncedChangesAreMadeDurableAtTheBound: nobody asks for a sync. Each member makes durable what was acknowledged when so many changes are, or so long after; and not before.
func TestUnsyncedChangesAreMadeDurableAtTheBound(t *testing.T) {
	for i, how := range []primary.Syncing{{Writes: 8}, {Interval: 3 * time.Second}} {
		c, p := startLazy(t, uint64(40+i), "none")
		k := c.NewClient(7)
		p.Loop.Post(&loop.Task{Run: func() {
			t := p.OSD.Tuning()
			t.Sync = how
			p.OSD.Tune(t)
		}})
		unsynced := func() (list []int) {
			for i := range 3 {
				list = append(list, int(c.Nodes[layout.OSDNum(i+1)].Store.Unsynced()))
			}
			return list
		}
		for i := range 7 {
			k.do(t, lazily(uint64(i)*4096, 4096, 7, uint64(i+1)), pattern(4096, byte(i)))
		}
		c.W.Run(time.Second)
		if list := unsynced(); slices.Contains(list, 0) || p.OSD.Events().Syncs != 0 {
			t.Errorf("%+v: before the bound %v changes are unsynced on the members, and there were %d syncs", how, list, p.OSD.Events().Syncs)
		}
		if how.Writes > 0 {
			c.W.Run(time.Minute)
			if n := p.OSD.Events().Syncs; n != 0 {
				t.Errorf("%+v: %d syncs in a minute with fewer changes", how, n)
			}
			k.do(t, lazily(7*4096, 4096, 7, 8), pattern(4096, 7))
		} else {
			c.W.Run(2 * time.Second)
		}
		c.W.Run(time.Second)
		if list := unsynced(); !slices.Equal(list, []int{0, 0, 0}) || p.OSD.Events().Syncs != 1 {
			t.Errorf("%+v: at the bound %v changes are unsynced on the members, and there were %d syncs", how, list, p.OSD.Events().Syncs)
		}
		c.W.Close()
	}
}
