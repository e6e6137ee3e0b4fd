package sim

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// TestCodedObjects writes and reads anywhere in erasure-coded objects, whole, with chunks away, and again when they are back.
func TestCodedObjects(t *testing.T) {
	for _, c := range []struct {
		k, m  int
		block uint32
	}{{2, 1, 128 << 10}, {4, 2, 128 << 10}, {2, 1, 16 << 10}, {3, 2, 4 << 10}} { // the last two: fewer units than a byte of a bitmap has bits
		x := start(t, Options{Seed: 7, OSDs: c.k + c.m, Replicas: c.k + c.m, Parity: c.m, MinSize: c.k, PGs: 2, Store: store.Config{BlockSize: c.block, Granularity: 4096}})
		object := uint64(c.k) * uint64(c.block)
		size := 2 * object
		want := make([]byte, size)
		k := x.NewClient(7)
		r := rand.New(rand.NewPCG(1, uint64(c.k)))
		check := func(when string) {
			t.Helper()
			for range 20 {
				off := r.Uint64N(size/4096) * 4096
				n := min((1+r.Uint64N(64))*4096, object-off%object)
				if got := k.Read(image, off, int(n)); !bytes.Equal(got.Data, want[off:off+n]) {
					t.Fatalf("%d+%d %s: %d+%d reads wrong", c.k, c.m, when, off, n)
				}
			}
		}
		change := func() {
			t.Helper()
			for range 20 {
				off := r.Uint64N(size/4096) * 4096
				n := min((1+r.Uint64N(64))*4096, object-off%object)
				p := pattern(int(n), byte(r.Uint32()))
				k.Write(image, off, p)
				copy(want[off:], p)
			}
		}
		change()
		check("whole")
		x.Nodes[1].Kill()
		x.W.Run(3 * time.Second)
		change()
		check("degraded")
		x.Nodes[1].Start()
		x.Wait("all PGs clean again", 30*time.Second, func() bool { return x.States(cluster.StateActive) })
		check("whole again")
		x.Nodes[2].Kill()
		x.W.Run(3 * time.Second)
		check("degraded again")
		x.W.Close()
	}
}

// TestCodedBesideReplicated changes objects of an erasure-coded pool and of a replicated one by turns: their primaries share what operations are made of.
func TestCodedBesideReplicated(t *testing.T) {
	c := start(t, Options{Seed: 8, OSDs: 3, Replicas: 3, Parity: 1, MinSize: 2, PGs: 3})
	pool, kv := &cluster.Pool{}, registry.KV{}
	for _, have := range c.Reg.Dump() {
		if have.Key == cluster.KeyPools {
			kv = have
		}
	}
	pools, _, err := cluster.ReadPools(kv.Value)
	if err != nil {
		t.Fatal(err)
	}
	*pool = *pools[1]
	pool.ID, pool.Name, pool.Scheme, pool.ParityChunks = 2, "copies", cluster.Replicated, 0
	txn, err := cluster.SetPool(&kv, 2, pool)
	if err != nil {
		t.Fatal(err)
	}
	c.Txn(txn)
	c.pgs += 3
	c.Wait("all PGs active", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
	k := c.NewClient(7)
	for i := range 40 {
		p, off := pattern(4096, byte(i)), uint64(i%9)*(64<<10)
		inode := layout.MakeInode(layout.PoolID(1+i%2), 1)
		k.Write(inode, off, p)
		if got := k.Read(inode, off, len(p)); !bytes.Equal(got.Data, p) {
			t.Fatalf("pool %d, write %d: reads wrong", 1+i%2, i)
		}
	}
}

// TestUnreadableChunkIsNoSource has a member come back that lacks the newest version, while the chunk that would be read first for it cannot be read: its own is computed from the others, and so is that one.
func TestUnreadableChunkIsNoSource(t *testing.T) {
	x := start(t, Options{Seed: 9, OSDs: 4, Replicas: 4, Parity: 2, MinSize: 2, PGs: 1, OutTime: time.Hour})
	k := x.NewClient(7)
	k.Write(image, 0, pattern(256<<10, 1))
	st, _ := x.Snapshot().PGStates.Get(onlyPG)
	primary := x.Nodes[st.Primary]
	away := x.Nodes[st.Primary%4+1]
	away.Kill()
	x.W.Run(3 * time.Second)
	want := pattern(256<<10, 2)
	k.Write(image, 0, want)
	x.W.Run(time.Second)
	st, _ = x.Snapshot().PGStates.Get(onlyPG)
	target, _ := x.Snapshot().PGConfig.Target(onlyPG)
	chunk := layout.ObjectID{Inode: image}
	for role, osd := range target.OSDSet {
		if osd == primary.Num {
			chunk.Stripe = uint64(role)
		}
	}
	off, ok := primary.Store.Place(chunk)
	if st.Primary != primary.Num || !ok {
		t.Fatalf("OSD %d serves, and the chunk of OSD %d has a place: %v", st.Primary, primary.Num, ok)
	}
	x.W.Disk(primary.disk()).Flip(off+5000, 0x10)
	away.Start()
	x.Wait("all PGs clean again", 30*time.Second, func() bool { return x.States(cluster.StateActive) })
	for n := range layout.OSDNum(4) { // each pair of chunks alone gives the object
		for m := range n {
			a, b := x.Nodes[n+1], x.Nodes[m+1]
			a.Kill()
			b.Kill()
			x.W.Run(6 * time.Second)
			if got := k.Read(image, 0, len(want)); !bytes.Equal(got.Data, want) {
				t.Fatalf("without OSDs %d and %d the object reads wrong", a.Num, b.Num)
			}
			a.Start()
			b.Start()
			x.Wait("all PGs clean", 30*time.Second, func() bool { return x.States(cluster.StateActive) })
		}
	}
	x.W.Close()
}

// TestFenceStopsChangeThatStillReads fences a session whose write of a part of an object has yet to read from a disk that hangs: it is not under way on any member, and must not begin when the disk goes on.
func TestFenceStopsChangeThatStillReads(t *testing.T) {
	for _, late := range []bool{false, true} {
		c := start(t, Options{Seed: 10, OSDs: 3, Replicas: 3, Parity: 1, MinSize: 2, PGs: 1})
		k := c.NewClient(7)
		whole := pattern(256<<10, 1)
		k.Write(image, 0, whole)
		st, _ := c.Snapshot().PGStates.Get(onlyPG)
		for n, node := range c.Nodes {
			if n != st.Primary {
				c.W.Disk(node.disk()).Stall(true)
			}
		}
		answer := Result{Retval: -1}
		m, want := write(64<<10, 4096, 7, 50), int64(wire.ESTALE)
		if late {
			m.Session, m.Deadline, want = 8, uint64(c.Nodes[st.Primary].Loop.Now().Add(time.Second)), wire.ETIMEDOUT
		}
		k.Begin(m, pattern(4096, 2), func(r Result) { answer = r })
		c.W.Run(10 * time.Millisecond)
		_, done := c.fencing(7)
		c.Wait("the fence", 20*time.Second, func() bool { return *done })
		for _, node := range c.Nodes {
			c.W.Disk(node.disk()).Stall(false)
		}
		c.Wait("an answer", time.Minute, func() bool { return answer.Retval != -1 })
		if answer.Retval != want {
			t.Errorf("the write is answered %d, not %d", answer.Retval, want)
		}
		if r := c.NewClient(9).Read(image, 0, len(whole)); !bytes.Equal(r.Data, whole) {
			t.Error("the write took effect")
		}
		c.W.Close()
	}
}
