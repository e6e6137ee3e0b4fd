package sim

import (
	"bytes"
	"os"
	"strconv"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
	"holdfast/osd/primary"
	"holdfast/osd/store"
)

// startCodedLazy makes a 2+1 pool of one PG whose changes may be lazy, and returns its primary.
func startCodedLazy(t *testing.T, seed uint64, commit string) (*Cluster, *Node) {
	t.Helper()
	c := start(t, Options{Seed: seed, OSDs: 3, Replicas: 3, Parity: 1, MinSize: 2, PGs: 1, Commit: commit})
	c.Wait("the PG is clean", time.Minute, func() bool { return c.States(cluster.StateActive) })
	c.W.Run(2 * time.Second)
	return c, c.Nodes[c.Snapshot().Primary(onlyPG)]
}

// flushes are how often all stores have made their devices flush.
func (c *Cluster) flushes() (n uint64) {
	for _, o := range c.Nodes { // order: a sum
		st := o.Store.Stats()
		n += st.Flushes + st.SyncWrites
	}
	return n
}

// TestLazyCodedChangesFlushNothing counts how often devices flush for small writes of a pool that is lazy, and of one that is not.
func TestLazyCodedChangesFlushNothing(t *testing.T) {
	const n = 100
	count := func(commit string) uint64 {
		c, p := startCodedLazy(t, 41, commit)
		defer c.W.Close()
		k := c.NewClient(7)
		before := c.flushes()
		for i := range uint64(n) {
			k.do(t, lazily(i%25*4096, 4096, 7, i+1), pattern(4096, byte(i)))
		}
		k.sync(t, p.Num)
		c.W.Run(20 * time.Millisecond) // the commits
		took := c.flushes() - before
		t.Logf("immediate_commit %s: %d flushes of three devices for %d writes and a sync", commit, took, n)
		for i := range uint64(25) {
			if r := k.Read(image, i*4096, 4096); !bytes.Equal(r.Data, pattern(4096, byte(75+i))) {
				t.Errorf("block %d reads wrong", i)
			}
		}
		for _, o := range c.Nodes { // order: each by itself
			if st := o.Store.Stats(); st.Waiting != 0 {
				t.Errorf("OSD %d has %d bytes of changes that wait for a commit", o.Num, st.Waiting)
			}
		}
		return took
	}
	if all, none := count("all"), count("none"); all < 3*n || none > 30 {
		t.Errorf("%d flushes where writes are durable at once, %d where they are not: want %d and more, and hardly any", all, none, 3*n)
	}
}

// TestSyncedCodedChangesSurvive takes the power from every host after a sync, and brings any two of three back.
func TestSyncedCodedChangesSurvive(t *testing.T) {
	for _, commit := range []string{"none", "small"} {
		for away := layout.OSDNum(1); away <= 3; away++ {
			c, p := startCodedLazy(t, 42, commit)
			k := c.NewClient(7)
			k.do(t, lazily(0, 256<<10, 7, 1), pattern(256<<10, 1))
			k.do(t, lazily(8192, 4096, 7, 2), pattern(4096, 2))
			k.do(t, lazily(8192, 8192, 7, 3), pattern(8192, 3))
			k.do(t, lazily(256<<10, 4096, 7, 4), pattern(4096, 4))
			k.sync(t, p.Num)
			k.do(t, lazily(8192, 4096, 7, 5), pattern(4096, 5)) // not synced
			for _, n := range c.Nodes {
				n.unplug()
			}
			for num := layout.OSDNum(1); num <= 3; num++ {
				if num != away {
					c.Nodes[num].Start()
				}
			}
			k = c.NewClient(8)
			r := k.Read(image, 8192, 8192)
			if old, now := pattern(8192, 3), append(pattern(4096, 5), pattern(8192, 3)[4096:]...); !bytes.Equal(r.Data, old) && !bytes.Equal(r.Data, now) {
				t.Errorf("%s, without OSD %d: what was synced is gone", commit, away)
			}
			if r := k.Read(image, 128<<10, 4096); !bytes.Equal(r.Data, pattern(256<<10, 1)[128<<10:132<<10]) {
				t.Errorf("%s, without OSD %d: the whole stripe is gone", commit, away)
			}
			if r := k.Read(image, 256<<10, 4096); !bytes.Equal(r.Data, pattern(4096, 4)) {
				t.Errorf("%s, without OSD %d: the other object is gone", commit, away)
			}
			c.W.Close()
		}
	}
}

// TestUnsyncedCodedChangesHaveNoWriteHole takes the power from one host, which forgets what was not synced: the object is read as it was before by all others, and any one of them can be lost.
func TestUnsyncedCodedChangesHaveNoWriteHole(t *testing.T) {
	for lost := layout.OSDNum(1); lost <= 3; lost++ {
		for away := layout.OSDNum(1); away <= 3; away++ {
			c, p := startCodedLazy(t, 43, "none")
			k := c.NewClient(7)
			k.do(t, lazily(0, 256<<10, 7, 1), pattern(256<<10, 1))
			k.sync(t, p.Num)
			for i := range uint64(5) {
				k.do(t, lazily(8192*i, 8192, 7, 2+i), pattern(8192, byte(2+i)))
			}
			c.Nodes[lost].unplug()
			c.Nodes[lost].Start()
			c.Wait("the PG is clean", time.Minute, func() bool { return c.States(cluster.StateActive) })
			c.W.Run(2 * time.Second)
			read := func() []byte { return k.Read(image, 0, 256<<10).Data }
			before := read()
			c.Nodes[away].Kill()
			c.W.Run(8 * time.Second)
			if now := read(); !bytes.Equal(before, now) {
				t.Errorf("OSD %d lost its power and OSD %d went away: the object reads otherwise", lost, away)
			}
			want := pattern(256<<10, 1)
			if same := bytes.Equal(before, want); !same {
				for i := range 5 { // a prefix of what was done
					copy(want[8192*i:], pattern(8192, byte(2+i)))
					same = same || bytes.Equal(before, want)
				}
				if !same {
					t.Errorf("OSD %d lost its power: the object is at no state that it was in", lost)
				}
			}
			c.W.Close()
		}
	}
}

// TestLongChainOfLazyCodedChanges overwrites one object lazily until no more of that may wait in the journal: a sync makes room.
func TestLongChainOfLazyCodedChanges(t *testing.T) {
	c := start(t, Options{Seed: 44, OSDs: 3, Replicas: 3, Parity: 1, MinSize: 2, PGs: 1, Commit: "none", Store: store.Config{BlockSize: 128 << 10, Granularity: 4096, JournalSize: 2 << 20}})
	defer c.W.Close()
	for _, n := range c.Nodes { // order: each by itself
		n.Loop.Post(&loop.Task{Run: func() {
			tuning := n.OSD.Tuning()
			tuning.Sync = primary.Syncing{} // nobody syncs unless there is a need
			n.OSD.Tune(tuning)
		}})
	}
	k := c.NewClient(7)
	began := c.W.Elapsed()
	for i := range uint64(400) {
		k.do(t, lazily(i%4*16384, 16384, 7, i+1), pattern(16384, byte(i)))
	}
	if took := c.W.Elapsed() - began; took > 20*time.Second {
		t.Errorf("400 changes took %v", took)
	}
	for i := range uint64(4) {
		if r := k.Read(image, i*16384, 16384); !bytes.Equal(r.Data, pattern(16384, byte(396+i))) {
			t.Errorf("range %d reads wrong", i)
		}
	}
	k.Do(wire.ReadWrite{Op: wire.OpDelete, Inode: image, Offset: 0}, nil, time.Minute)
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, make([]byte, 4096)) {
		t.Error("the object is there after it was deleted")
	}
}

// TestLazyCodedSeeds runs seeds of the newest draw with an erasure-coded pool that is lazy, and a client that uses that. HOLDFAST_TEST_SEEDS says how many.
func TestLazyCodedSeeds(t *testing.T) {
	n := 8
	if v := os.Getenv("HOLDFAST_TEST_SEEDS"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	from := uint64(1)
	if v := os.Getenv("HOLDFAST_TEST_FROM"); v != "" {
		from, _ = strconv.ParseUint(v, 10, 64)
	}
	looked, again := uint64(0), uint64(0)
	for seed := from; n > 0; seed++ {
		p := NewPlanOf(seed, NewestDraw)
		if p.Config.Parity == 0 || p.Config.lazySlot() < 0 {
			continue
		}
		n--
		rep := runWell(t, p)
		looked, again = looked+rep.Coverage["synced change looked at"], again+rep.Coverage["lazy change written again"]
		if t.Failed() {
			return
		}
	}
	t.Logf("%d synced changes looked at, %d lazy changes written again", looked, again)
	if looked == 0 {
		t.Error("no synced change was looked at")
	}
}
