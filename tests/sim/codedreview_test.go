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
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// startCoded starts a pool of 2+1 in one PG, and writes the first object whole, so that its chunks are in their blocks.
func startCoded(t *testing.T, seed uint64) (c *Cluster, k *Client) {
	t.Helper()
	c = start(t, Options{Seed: seed, OSDs: 3, Replicas: 3, Parity: 1, MinSize: 2, PGs: 1})
	t.Cleanup(c.W.Close)
	k = c.NewClient(7)
	k.Write(image, 0, pattern(256<<10, 1))
	return c, k
}

// holder is the OSD that has a role in the only PG.
func (c *Cluster) holder(role int) *Node {
	t, _ := c.Snapshot().PGConfig.Target(onlyPG)
	return c.Nodes[t.OSDSet[role]]
}

// flip spoils what a disk holds at so many bytes behind these.
func (n *Node) flip(t *testing.T, what []byte, behind int) {
	t.Helper()
	d := n.c.W.Disk(n.disk())
	all := make([]byte, d.Size())
	d.Peek(all, 0)
	i := bytes.LastIndex(all, what) // in its block, not the journal
	if i < 0 {
		t.Fatal("it is not on the disk")
	}
	d.Flip(int64(i+behind), 0x40)
}

// TestFenceEndsCodedChangesThatRead fences a session whose change waits for what it has to read before. Nothing of it has been sent to anybody, and nothing may be.
func TestFenceEndsCodedChangesThatRead(t *testing.T) {
	c, _ := startCoded(t, 401)
	p, _ := c.seat()
	d := c.connect(p)
	slow := c.W.Disk(c.holder(0).disk())
	slow.Stall(true)
	late := d.ask(write(128<<10, 4096, 7, 50), pattern(4096, 2))
	c.W.Run(50 * time.Millisecond)
	_, done := c.fencing(7)
	c.Wait("the fence", 20*time.Second, func() bool { return *done })
	c.W.Run(3 * time.Second)
	slow.Stall(false)
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() {
		t.Errorf("a write of the fenced session is acknowledged: %v", late)
	}
	if r := c.NewClient(8).Read(image, 128<<10, 4096); !bytes.Equal(r.Data, pattern(256<<10, 1)[128<<10:][:4096]) {
		t.Error("the fenced session's write took effect")
	}
}

// TestLateCodedChangeIsNotBegun has a change read for so long that its deadline passes.
func TestLateCodedChangeIsNotBegun(t *testing.T) {
	c, k := startCoded(t, 402)
	p, _ := c.seat()
	d := c.connect(p)
	slow := c.W.Disk(c.holder(0).disk())
	slow.Stall(true)
	m := write(128<<10, 4096, 9, 1)
	m.Trailer.Deadline = uint64(p.Loop.Now()) + uint64(100*time.Millisecond)
	late := d.ask(m, pattern(4096, 2))
	c.W.Run(200 * time.Millisecond)
	slow.Stall(false)
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() || late.call.Reply.Retval() != wire.ETIMEDOUT {
		t.Errorf("a write that is sent out after its deadline: %v", late)
	}
	if r := k.Read(image, 128<<10, 4096); !bytes.Equal(r.Data, pattern(256<<10, 1)[128<<10:][:4096]) {
		t.Error("it took effect")
	}
}

// TestCodedChangeWaitsForARepair finds a chunk unreadable while a change of the object reads another one: the chunk must be put back before the change goes on, or members are asked to replace
// what has changed, which ends the interval.
func TestCodedChangeWaitsForARepair(t *testing.T) {
	for _, pause := range []time.Duration{0, 50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
		c, k := startCoded(t, 403)
		want := pattern(256<<10, 1)
		before, _ := c.Snapshot().Records.Get(onlyPG)
		c.holder(1).flip(t, want[128<<10:][:4096], 64<<10)
		slow := c.W.Disk(c.holder(0).disk())
		slow.Stall(true)
		written, read := 0, false
		for i := range 2 {
			k.Begin(write(128<<10, 4096, 9+uint64(i), 50), pattern(4096, 2), func(Result) { written++ })
		}
		c.W.Run(5 * time.Millisecond)
		k.Begin(wire.ReadWrite{Op: wire.OpRead, Inode: image, Offset: 192 << 10, Len: 4096}, nil, func(r Result) {
			if read = true; !bytes.Equal(r.Data, want[192<<10:][:4096]) {
				t.Error("an unreadable chunk reads wrong")
			}
		})
		c.W.Run(5 * time.Millisecond)
		slow.Stall(false)
		slow.SetAllLatency(pause, pause)
		c.Wait("the answers", time.Minute, func() bool { return read && written == 2 })
		c.W.Run(2 * time.Second)
		if now, _ := c.Snapshot().Records.Get(onlyPG); now.Interval != before.Interval {
			t.Errorf("pause %v: interval %d, was %d", pause, now.Interval, before.Interval)
		}
		copy(want[128<<10:], pattern(4096, 2))
		if r := k.Read(image, 0, 256<<10); !bytes.Equal(r.Data, want) {
			t.Error("the object reads back differently")
		}
		c.settleLeaks(t)
	}
}

// TestBitmapOfDegradedObject asks what is written of an object, and for nothing of its data, while a chunk is away.
func TestBitmapOfDegradedObject(t *testing.T) {
	for role := range 3 {
		c, k := startCoded(t, 404)
		k.Write(image, 256<<10, pattern(8192, 1))
		k.Write(image, 400<<10, pattern(4096, 1))
		ask := func(offset uint64) []byte {
			r, ok := k.Do(wire.ReadWrite{Op: wire.OpRead, Inode: image, Offset: offset}, nil, 5*time.Second)
			if !ok {
				t.Errorf("role %d: not answered", role)
			}
			return r.Bitmap
		}
		whole, some := bytes.Clone(ask(0)), bytes.Clone(ask(256<<10))
		c.holder(role).Kill()
		c.Wait("an interval without it", time.Minute, func() bool { return !c.States(cluster.StateActive) && c.Serving() })
		c.W.Run(3 * time.Second)
		before, _ := c.Snapshot().Records.Get(onlyPG)
		if got := ask(0); !bytes.Equal(got, whole) {
			t.Errorf("role %d: %x, was %x", role, got, whole)
		}
		if got := ask(256 << 10); !bytes.Equal(got, some) {
			t.Errorf("role %d: %x, was %x", role, got, some)
		}
		if now, _ := c.Snapshot().Records.Get(onlyPG); now.Interval != before.Interval {
			t.Errorf("role %d: interval %d, was %d", role, now.Interval, before.Interval)
		}
	}
}

// TestListingNamesWhatOurChunkKnowsAsDeleted writes objects that were deleted while a member is away, and lists them when that is the primary: until it has its chunks it has deletions.
func TestListingNamesWhatOurChunkKnowsAsDeleted(t *testing.T) {
	const objects = 40
	partly := 0
	for away := range layout.OSDNum(4) {
		c := start(t, Options{Seed: 405, OSDs: 4, Replicas: 4, Parity: 2, MinSize: 2, PGs: 1, Depth: 1})
		k, away := c.NewClient(7), c.Nodes[away+1]
		all := func(m wire.ReadWrite, data []byte) {
			n := 0
			for i := range uint64(objects) {
				m.Offset = i * 256 << 10
				k.Begin(m, data, func(Result) { n++ })
			}
			c.Wait("the answers", time.Minute, func() bool { return n == objects })
		}
		all(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Len: 4096}, pattern(4096, 1))
		all(wire.ReadWrite{Op: wire.OpDelete, Inode: image}, nil)
		c.W.Run(100 * time.Millisecond) // it is committed, and not forgotten yet
		away.Kill()
		all(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Len: 4096}, pattern(4096, 2))
		if p, _ := c.seat(); p != away {
			p.Kill()
		}
		away.Start()
		role := 0
		for c.holder(role) != away {
			role++
		}
		d := c.connect(away)
		for range 4000 {
			call := &peer.Call{}
			m := wire.List{PG: 1, MinInode: image, MaxInode: image, Flags: wire.ListPrimary}
			m.Encode(&call.Header)
			call.Done = func(call *peer.Call) {
				if call.Err != nil || call.Reply.Retval() < 0 {
					return
				}
				if s, ok := away.Store.State(layout.ObjectID{Inode: image, Stripe: (objects-1)*256<<10 | uint64(role)}); ok && s.Flags&store.Tombstone != 0 {
					partly++
				}
				if call.Reply.Retval() != objects {
					t.Errorf("OSD %d lists %d objects", away.Num, call.Reply.Retval())
				}
			}
			d.l.Post(&loop.Task{Run: func() { d.hub.Call(away.Num, call) }})
			c.W.Run(time.Millisecond)
			if t.Failed() {
				break
			}
		}
		c.W.Close()
	}
	if partly == 0 {
		t.Error("it was never listed while our own chunks were deletions")
	}
}

// TestCodedPrimaryAllocatesNothing is TestPrimaryAllocatesNothing for erasure-coded objects: small changes and whole ones, whole PGs and those that have to compute what is away.
func TestCodedPrimaryAllocatesNothing(t *testing.T) {
	for _, away := range []bool{false, true} {
		c, k := startCoded(t, 406)
		if away {
			c.holder(0).Kill()
			c.Wait("an interval without it", time.Minute, func() bool { return !c.States(cluster.StateActive) && c.Serving() })
		}
		allocateNothing(t, func(n int) {
			for i := range n {
				at := uint64(i%8) * 256 << 10
				if i%2 == 0 {
					k.Write(image, at, pattern(256<<10, byte(i)))
				} else {
					k.Write(image, at-256<<10+uint64(i%3)*64<<10, pattern(8192, byte(i)))
				}
				k.Read(image, at, 4096)
				k.Read(image, at+128<<10, 4096)
			}
		})
	}
}

// TestCodedChangeThatBeginsAnewWaitsForARepair has one store refuse a change of a whole object again and again, since too much waits there for commits, and a read find a chunk of that object unreadable meanwhile:
// the change must not begin anew before the chunk is put back.
func TestCodedChangeThatBeginsAnewWaitsForARepair(t *testing.T) {
	c := start(t, Options{Seed: 408, OSDs: 5, Replicas: 3, Parity: 1, MinSize: 2, PGs: 8, Store: store.Config{BlockSize: 16 << 10, Granularity: 4096, JournalSize: 768 << 10}})
	defer c.W.Close()
	const object = 32 << 10
	k := c.NewClient(7)
	s := c.Snapshot()
	g, err := s.Geometry(1)
	if err != nil {
		t.Fatal(err)
	}
	setOf := func(pg uint32) []layout.OSDNum {
		to, _ := s.PGConfig.Target(layout.PGID{Pool: 1, Num: pg})
		return to.OSDSet
	}
	// Two PGs: the spoilt chunk is on a member of one only, and the disk that hangs is that of a member of the other one only.
	var one, other uint32
	spoilt, hangs := -1, layout.OSDNum(0)
	for one = 1; one <= 8 && hangs == 0; one++ {
		for other = 1; other <= 8 && hangs == 0; other++ {
			a, b := setOf(one), setOf(other)
			spoilt = slices.IndexFunc(a[:2], func(n layout.OSDNum) bool { return !slices.Contains(b, n) })
			shared := slices.ContainsFunc(a, func(n layout.OSDNum) bool { return slices.Contains(b, n) })
			if at := slices.IndexFunc(b, func(n layout.OSDNum) bool { return !slices.Contains(a, n) }); spoilt >= 0 && shared && at >= 0 {
				hangs = b[at]
				one, other = one-1, other-1
			}
		}
	}
	if hangs == 0 {
		t.Fatal("there are no such PGs")
	}
	var offsets []uint64 // of other's objects
	at := uint64(0)      // of one's
	for i := range uint64(400) {
		switch g.PG(i * object) {
		case one:
			at = i * object
		case other:
			offsets = append(offsets, i*object)
		}
	}
	want := pattern(object, 1)
	k.Write(image, at, want)
	k.Write(image, at, want)
	c.W.Run(10 * time.Second) // it is flushed
	c.Nodes[setOf(one)[spoilt]].flip(t, want[spoilt*16<<10:][:4096], 10<<10)
	before, _ := c.Snapshot().Records.Get(layout.PGID{Pool: 1, Num: one})
	c.W.Disk(c.Nodes[hangs].disk()).Stall(true)
	for _, off := range offsets[:min(40, len(offsets))] {
		k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: off, Len: 4096}, pattern(4096, 3), func(Result) {})
	}
	c.W.Run(200 * time.Millisecond)
	written, read := false, false
	k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: at, Len: object}, pattern(object, 2), func(r Result) { written = true })
	c.W.Run(100 * time.Millisecond)
	if written {
		t.Fatal("it was not refused")
	}
	for _, n := range setOf(one) {
		c.W.Disk(c.Nodes[n].disk()).SetAllLatency(10*time.Millisecond, 20*time.Millisecond)
	}
	k.Begin(wire.ReadWrite{Op: wire.OpRead, Inode: image, Offset: at, Len: object}, nil, func(r Result) { read = true })
	c.W.Run(time.Second)
	c.W.Disk(c.Nodes[hangs].disk()).Stall(false)
	c.Wait("the answers", time.Minute, func() bool { return written && read })
	if now, _ := c.Snapshot().Records.Get(layout.PGID{Pool: 1, Num: one}); now.Interval != before.Interval {
		t.Errorf("interval %d, was %d", now.Interval, before.Interval)
	}
	if r := k.Read(image, at, object); !bytes.Equal(r.Data, pattern(object, 2)) {
		t.Error("the object reads back differently")
	}
}

// TestRecoveredChunksAreCounted has chunks recovered, whose bytes the statistics have to show.
func TestRecoveredChunksAreCounted(t *testing.T) {
	c, k := startCoded(t, 409)
	p, others := c.seat()
	others[0].Kill()
	c.Wait("an interval without it", time.Minute, func() bool { return !c.States(cluster.StateActive) && c.Serving() })
	k.Write(image, 0, pattern(4096, 2))
	others[0].Start()
	c.Wait("all PGs clean", time.Minute, func() bool { return c.States(cluster.StateActive) })
	var got cluster.OpStats
	c.Wait("statistics of one object", 30*time.Second, func() bool {
		st, _ := c.Snapshot().OSDStats.Get(p.Num)
		got = st.RecoveryStats["degraded"]
		return got.Count == 1
	})
	if got.Bytes != 128<<10 {
		t.Errorf("%d bytes of a chunk are counted", got.Bytes)
	}
}
