package sim

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/sim"
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

// TestManyCodedChangesAtOnce has far more changes of erasure-coded objects under way, through all primaries, than what waits for commits may take of any journal: each member takes others of them first, and
// all are done all the same.
func TestManyCodedChangesAtOnce(t *testing.T) {
	for _, block := range []uint32{16 << 10, 128 << 10} {
		x := start(t, Options{Seed: 9, OSDs: 5, Replicas: 3, Parity: 1, MinSize: 3, PGs: 16, DiskSize: 64 << 20, Store: store.Config{BlockSize: block, Granularity: 4096}})
		k := x.NewClient(9)
		n := 400
		if block > 16<<10 {
			n = 100
		}
		object := 2 * uint64(block)
		for round := range byte(3) {
			left := n
			if round == 1 { // some are being taken back, or rest, when a member dies
				x.W.After(30*time.Millisecond, x.Nodes[2].Kill)
				x.W.After(2*time.Second, x.Nodes[2].Start)
			}
			for i := range n {
				off, length := uint64(i)*object, object
				if block > 16<<10 { // smaller than what goes straight to a block
					off, length = off+uint64(block)-32<<10, 64<<10
				}
				p := pattern(int(length), round+byte(i))
				m := wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: off, Len: uint32(length), Trailer: wire.Trailer{Session: uint64(1000 + i), Sequence: 1 + uint64(round), Low: 1 + uint64(round)}}
				k.Begin(m, p, func(r Result) {
					if r.Retval != int64(length) {
						t.Errorf("write %d: %+v", i, r)
					}
					left--
				})
			}
			if !x.W.RunUntil(func() bool { return left == 0 }, 30*time.Second) {
				t.Fatalf("%d of %d changes of chunks of %d bytes are not done: %s", left, n, block, x.describe())
			}
			t.Logf("chunks of %d bytes: done after %v", block, x.W.Elapsed())
			for i := range n {
				off, length := uint64(i)*object, object
				if block > 16<<10 {
					off, length = off+uint64(block)-32<<10, 64<<10
				}
				if got := k.Read(image, off, int(length)); !bytes.Equal(got.Data, pattern(int(length), round+byte(i))) {
					t.Fatalf("object %d reads wrong", i)
				}
			}
		}
		x.Wait("all PGs clean", 30*time.Second, func() bool { return x.States(cluster.StateActive) })
		gave := uint64(0)
		for _, n := range x.Nodes { // order: a sum
			gave += n.OSD.Events().Yielded
		}
		if gave == 0 {
			t.Error("no change had to give way to others")
		}
		x.W.Close()
	}
}

// TestDeletionIsForgottenWhenItIsCommitted loses what a member is sent after it has taken part in a deletion. The others may not forget the deletion, as that one has it beside the object that was there: it would be taken to have been told to
// nobody.
func TestDeletionIsForgottenWhenItIsCommitted(t *testing.T) {
	c := start(t, Options{Seed: 12, OSDs: 4, Replicas: 3, Parity: 1, MinSize: 2, PGs: 8})
	k := c.NewClient(7)
	const size = 256 << 10 // of an object
	state := func(object uint64) *cluster.PGState {
		st, _ := c.Snapshot().PGStates.Get(layout.PGID{Pool: 1, Num: uint32(object%8) + 1})
		return st
	}
	first, other := state(0), uint64(1) // an object that the primary of the first has a chunk of, and another OSD serves
	for ; state(other).Primary == first.Primary || !slices.Contains(state(other).Peers, first.Primary); other++ {
		if other == 8 {
			t.Fatal("there is no such object: ", c.describe())
		}
	}
	p, away := c.Nodes[first.Primary], c.Nodes[first.Peers[0]]
	if away == p {
		away = c.Nodes[first.Peers[1]]
	}
	k.Write(image, 0, pattern(size, 1))
	c.W.Net.SetDelayBetween(p.Loop, away.Loop, sim.Delay{Min: 100 * time.Millisecond, Max: 100 * time.Millisecond})
	answer := Result{Retval: -1}
	k.Begin(wire.ReadWrite{Op: wire.OpDelete, Inode: image}, nil, func(r Result) { answer = r })
	c.W.Run(150 * time.Millisecond)
	c.W.Net.CutOneWay(p.Loop, away.Loop) // it has the change by now, and its answer is on the way
	c.Wait("the deletion", time.Second, func() bool { return answer.Retval == 0 })
	k.Write(image, other*size, pattern(size, 2)) // says that the client has had the answer: nobody has to remember the deletion for it
	c.W.Run(1200 * time.Millisecond)             // others forget deletions after half a second
	c.W.Net.Reset(p.Loop, away.Loop)             // and what is on the way is lost
	p.PowerOff()
	c.W.Run(time.Second)
	c.W.Net.HealAll()
	c.W.Net.SetDelayBetween(p.Loop, away.Loop, sim.Delay{})
	p.Start()
	c.W.Run(8 * time.Second) // until the lease of before has ended
	c.Wait("all PGs clean", time.Minute, func() bool { return c.States(cluster.StateActive) })
	if r := k.Read(image, 0, size); r.Version != 0 || !bytes.Equal(r.Data, make([]byte, size)) {
		t.Errorf("what was deleted is back, as version %x", r.Version)
	}
	c.W.Close()
}
