package sim

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
)

// do sends one request and waits for its answer.
func (k *Client) do(t *testing.T, m wire.ReadWrite, data []byte) Result {
	t.Helper()
	r, ok := k.Do(m, data, time.Minute)
	if !ok {
		t.Fatalf("%v at %d is not answered; %s", m.Op, m.Offset, k.c.describe())
	}
	return r
}

func write(offset uint64, n int, session, sequence uint64) wire.ReadWrite {
	return wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: offset, Len: uint32(n), Trailer: wire.Trailer{Session: session, Sequence: sequence, Low: sequence}}
}

// TestRepeatedRequestsTakeEffectOnce sends each request again while it is under way, after it was answered, and after the primary has died.
func TestRepeatedRequestsTakeEffectOnce(t *testing.T) {
	c := start(t, Options{Seed: 11, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	first := k.do(t, write(0, 4096, 7, 100), pattern(4096, 1))
	var answers []Result
	for range 4 {
		k.Begin(write(0, 4096, 7, 101), pattern(4096, 2), func(r Result) { answers = append(answers, r) })
	}
	c.Wait("four answers", time.Minute, func() bool { return len(answers) == 4 })
	for _, r := range answers {
		if r.Retval != 4096 || r.Version != first.Version+1 {
			t.Errorf("a repeated write is answered %+v, want version %x", r, first.Version+1)
		}
	}
	second := answers[0]
	k.do(t, write(0, 4096, 8, 1), pattern(4096, 3))
	if r := k.do(t, write(0, 4096, 7, 101), pattern(4096, 2)); r.Version != second.Version || r.Retval != 4096 {
		t.Errorf("repeated after another client's write: %+v, want version %x", r, second.Version)
	}
	c.Nodes[c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1})].Kill()
	if r := k.do(t, write(0, 4096, 7, 101), pattern(4096, 2)); r.Version != second.Version || r.Retval != 4096 {
		t.Errorf("repeated after the primary's death: %+v, want version %x", r, second.Version)
	}
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 3)) {
		t.Error("a repeated write undid a newer one")
	}
}

// TestOneOfManyExpectationsHolds sends several conditional writes for one version at once.
func TestOneOfManyExpectationsHolds(t *testing.T) {
	c := start(t, Options{Seed: 12, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	version := uint64(0)
	for round := range 20 {
		won, lost := 0, 0
		var winner uint64
		var conflicts []uint64
		n := 0
		for i := range uint64(4) {
			k := c.NewClient(uint64(100*round) + 10 + i)
			m := write(0, 4096, uint64(100*round)+10+i, 1)
			m.Version = version + 1
			k.Begin(m, pattern(4096, byte(i)), func(r Result) {
				n++
				switch r.Retval {
				case 4096:
					won++
					winner = r.Version
				case wire.EINTR:
					lost++
					conflicts = append(conflicts, r.Version)
				default:
					t.Errorf("round %d: answered %d", round, r.Retval)
				}
			})
		}
		c.Wait("all answers", time.Minute, func() bool { return n == 4 })
		if won != 1 || lost != 3 {
			t.Fatalf("round %d: %d won and %d lost, want 1 and 3", round, won, lost)
		}
		for _, v := range conflicts {
			if v != winner {
				t.Errorf("round %d: a loser is told version %x, want %x", round, v, winner)
			}
		}
		version = winner
		if round%5 == 4 { // gone: the next expectation is for version 0
			k := c.NewClient(uint64(100*round) + 99)
			if r := k.do(t, wire.ReadWrite{Op: wire.OpDelete, Inode: image}, nil); r.Retval != 0 {
				t.Fatalf("delete: %+v", r)
			}
			version = 0
		}
	}
}

// tombstones counts what deletions the OSDs remember.
func (c *Cluster) tombstones() (n uint64) {
	for _, node := range c.Nodes {
		if node.Loop.Alive() && node.Store != nil {
			n += node.Store.Stats().Tombstones
		}
	}
	return n
}

// TestDeletedObjectsStayDeleted deletes while a member is away, has the tombstones forgotten while another is, and writes over tombstones as they are being forgotten.
func TestDeletedObjectsStayDeleted(t *testing.T) {
	c := start(t, Options{Seed: 13, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 2})
	defer c.W.Close()
	k := c.NewClient(7)
	const objects = 16
	at := func(i int) uint64 { return uint64(i) * 128 << 10 }
	for round := range 6 {
		for i := range objects {
			k.Write(image, at(i), pattern(4096, byte(round*16+i)))
		}
		victim := c.Nodes[layout.OSDNum(round%3+1)]
		victim.Kill()
		for i := range objects {
			if r := k.do(t, wire.ReadWrite{Op: wire.OpDelete, Inode: image, Offset: at(i)}, nil); r.Retval != 0 {
				t.Fatalf("delete: %+v", r)
			}
		}
		for i := range 4 {
			k.Write(image, at(objects+i), pattern(4096, byte(i))) // says that the answers to the deletions have come
		}
		if round%2 == 0 {
			c.W.Run(3 * time.Second)
		}
		c.Wait("no tombstones", 20*time.Second, func() bool { return round%2 != 0 || c.tombstones() == 0 })
		victim.Start()
		for i := range objects {
			if i%4 == round%4 {
				k.Write(image, at(i), pattern(4096, byte(100+i)))
			}
			c.W.Run(time.Duration(c.W.Elapsed()%97) * time.Millisecond)
		}
		c.Wait("all PGs clean again", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
		for i := range objects {
			r := k.Read(image, at(i), 4096)
			want := make([]byte, 4096)
			if i%4 == round%4 {
				want = pattern(4096, byte(100+i))
			}
			if !bytes.Equal(r.Data, want) {
				t.Fatalf("round %d: object %d reads back differently (version %x)", round, i, r.Version)
			}
		}
		c.Wait("no tombstones", 20*time.Second, func() bool { return c.tombstones() == 0 })
	}
}

// TestUnreadableCopyIsRepaired spoils the primary's copy on the disk and reads it.
func TestUnreadableCopyIsRepaired(t *testing.T) {
	c := start(t, Options{Seed: 14, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	want := pattern(128<<10, 9) // a whole block goes straight to its place
	k.Write(image, 0, want)
	n := c.Nodes[c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1})]
	d := c.W.Disk(n.disk())
	spoil := func() {
		t.Helper()
		all := make([]byte, d.Size())
		d.Peek(all, 0)
		i := bytes.Index(all, want[:4096])
		if i < 0 {
			t.Fatal("the block is not on the disk")
		}
		d.Flip(int64(i)+5000, 0x40)
	}
	for round := range 3 {
		spoil()
		n0 := 0
		for range 5 {
			k.Begin(wire.ReadWrite{Op: wire.OpRead, Inode: image, Len: 128 << 10}, nil, func(r Result) {
				n0++
				if r.Retval != 128<<10 || !bytes.Equal(r.Data, want) {
					t.Errorf("round %d: a read of a spoiled copy is answered %d, data as written: %v", round, r.Retval, bytes.Equal(r.Data, want))
				}
			})
		}
		c.Wait("five reads", time.Minute, func() bool { return n0 == 5 })
		if errors := n.Store.Stats().ChecksumErrors; errors == 0 {
			t.Errorf("round %d: nothing was counted", round)
		}
	}
	c.settleLeaks(t)
}

// TestWhoHasLeftWaitsForNothing: the primary's copy of an object cannot be read, and the disk with the other one does not answer. Who asks for it waits, and what a client has asked for goes with its connection.
func TestWhoHasLeftWaitsForNothing(t *testing.T) {
	c := start(t, Options{Seed: 15, OSDs: 2, Replicas: 2, MinSize: 1, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	block := pattern(128<<10, 9)
	k.Write(image, 0, block)
	for _, n := range c.Nodes {
		d := c.W.Disk(n.disk())
		if n.Num != c.Snapshot().Primary(onlyPG) {
			d.Stall(true)
			continue
		}
		all := make([]byte, d.Size())
		d.Peek(all, 0)
		d.Flip(int64(bytes.Index(all, block[:4096]))+5000, 0x40)
	}
	stays, leaves := c.NewClient(8), c.NewClient(9)
	never := func(Result) { t.Error("who waits is answered") }
	read := wire.ReadWrite{Op: wire.OpRead, Inode: image, Len: 128 << 10}
	ask := func(k *Client) {
		k.Begin(read, nil, never)
		for range 3 {
			k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Len: 128 << 10}, block, never)
		}
	}
	stays.Begin(read, nil, never)
	c.W.Run(time.Second) // the other copy is being read then
	ask(leaves)
	stays.Begin(read, nil, never)
	ask(leaves)
	waiting := func() uint64 {
		st, _ := c.Snapshot().OSDStats.Get(c.Snapshot().Primary(onlyPG))
		return uint64(st.SlowOpsPrimary)
	}
	c.Wait("ten requests that wait", time.Minute, func() bool { return waiting() == 10 })
	leaves.Loop.Kill()
	c.Wait("those of the other client", time.Minute, func() bool { return waiting() == 2 })
	stays.Loop.Kill()
	for _, n := range c.Nodes {
		c.W.Disk(n.disk()).Stall(false)
	}
	c.settleLeaks(t)
}

// settleLeaks lets everything finish and checks that no process holds a buffer.
func (c *Cluster) settleLeaks(t *testing.T) {
	t.Helper()
	stopped := 0
	for _, n := range c.Nodes {
		if !n.Loop.Alive() {
			stopped++
			continue
		}
		n.Loop.Post(&loop.Task{Run: func() { n.OSD.Stop(func() { n.Store.Close(func() { stopped++ }) }) }})
	}
	c.Wait("all OSDs stopped", 30*time.Second, func() bool { return stopped == len(c.Nodes) })
	c.W.Run(5 * time.Second)
	c.W.CheckLeaks(t)
}

// TestEndedIntervalsAnswerAndReleaseEverything ends intervals under load in every way and counts answers and buffers.
func TestEndedIntervalsAnswerAndReleaseEverything(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := start(t, Options{Seed: 20 + seed, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 2})
			defer c.W.Close()
			k := c.NewClient(7)
			begun, ended, next := 0, 0, 0
			load := func(n int) {
				for range n {
					begun++
					next++
					m := wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: uint64(next%12) * 64 << 10, Len: 4096}
					var data []byte
					switch next % 7 {
					case 1, 3:
						m.Op = wire.OpRead
					case 5:
						m.Op, m.Offset, m.Len = wire.OpDelete, m.Offset&^(128<<10-1), 0
					case 6:
						m.Version = 1 // expects nothing there: mostly refused
						data = pattern(4096, byte(next))
					default:
						data = pattern(4096, byte(next))
					}
					k.Begin(m, data, func(Result) { ended++ })
				}
			}
			for round := range 12 {
				load(30)
				c.W.Run(time.Duration(round%4) * 300 * time.Microsecond)
				n := c.Nodes[layout.OSDNum(round%3+1)]
				switch (uint64(round) + seed) % 4 {
				case 0:
					n.Kill()
					load(10)
					c.W.Run(300 * time.Millisecond)
					n.Start()
				case 1:
					other := c.Nodes[layout.OSDNum((round+1)%3+1)]
					c.W.Net.Reset(n.Loop, other.Loop)
				case 2:
					l := n.Loop
					l.Pause()
					c.W.After(2*time.Second, l.Resume)
				case 3:
					other := c.Nodes[layout.OSDNum((round+1)%3+1)]
					c.W.Net.Cut(n.Loop, other.Loop)
					c.W.Run(time.Second)
					c.W.Net.HealAll()
				}
				c.W.Run(500 * time.Millisecond)
			}
			c.Wait("all answers", time.Minute, func() bool { return ended == begun })
			c.Wait("all PGs clean", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
			c.settleLeaks(t)
		})
	}
}

// TestPrimaryAllocatesNothing profiles every allocation of a running cluster and looks for those made by the request path of the OSDs.
func TestPrimaryAllocatesNothing(t *testing.T) {
	c := start(t, Options{Seed: 15, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	allocateNothing(t, func(n int) {
		for i := range n {
			k.Write(image, uint64(i%8)*128<<10, pattern(4096, byte(i)))
			k.Read(image, uint64(i%8)*128<<10, 4096)
		}
	})
}

// allocateNothing fails the test if the request path of the OSDs allocates for what round does so many times.
func allocateNothing(t *testing.T, round func(n int)) {
	t.Helper()
	round(400)
	old := runtime.MemProfileRate
	runtime.MemProfileRate = 1
	defer func() { runtime.MemProfileRate = old }()
	profile := func() map[string]int64 {
		runtime.GC()
		runtime.GC()
		var rec []runtime.MemProfileRecord
		for n, ok := runtime.MemProfile(nil, true); !ok; n, ok = runtime.MemProfile(rec, true) {
			rec = make([]runtime.MemProfileRecord, n+100)
			if m, ok := runtime.MemProfile(rec, true); ok {
				rec = rec[:m]
				break
			}
		}
		out := map[string]int64{}
		for i := range rec {
			frames := runtime.CallersFrames(rec[i].Stack())
			for {
				f, more := frames.Next()
				if strings.HasPrefix(f.Function, "runtime.") || strings.HasPrefix(f.Function, "slices.") {
					if more {
						continue
					}
				}
				for _, room := range []string{"holdfast/osd/primary.", "holdfast/osd/secondary.", "holdfast/osd/pg.", "holdfast/osd/store."} {
					if strings.HasPrefix(f.Function, room) {
						out[fmt.Sprintf("%s:%d", f.Function, f.Line)] += rec[i].AllocObjects
					}
				}
				break
			}
		}
		return out
	}
	before := profile()
	const ops = 400
	round(ops)
	for where, n := range profile() {
		if n -= before[where]; n >= ops/4 {
			t.Errorf("%s allocated %d times in %d writes and reads", where, n, ops)
		}
	}
}

// others are the members of the only PG besides its primary.
func (c *Cluster) others() (primary *Node, others []*Node) {
	n := c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1})
	for i := range c.O.OSDs {
		if num := layout.OSDNum(i + 1); num != n {
			others = append(others, c.Nodes[num])
		}
	}
	return c.Nodes[n], others
}

// TestReadsShowWhatEveryMemberHas stalls one member's disk in the middle of a write: the new data must not be shown, however long that takes, for it could still be lost.
func TestReadsShowWhatEveryMemberHas(t *testing.T) {
	c := start(t, Options{Seed: 16, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	a, b := c.NewClient(7), c.NewClient(8)
	a.Write(image, 0, pattern(4096, 1))
	b.Read(image, 0, 4096)
	_, others := c.others()
	d := c.W.Disk(others[0].disk())
	for round := range byte(5) {
		d.Stall(true)
		written, read, stalled := false, 0, true
		a.Begin(write(0, 4096, 7, 1000+uint64(round)), pattern(4096, 2+round), func(Result) { written = true })
		c.W.Run(20 * time.Millisecond)
		for range 3 {
			b.Begin(wire.ReadWrite{Op: wire.OpRead, Inode: image, Len: 4096}, nil, func(r Result) {
				read++
				if stalled && bytes.Equal(r.Data, pattern(4096, 2+round)) {
					t.Errorf("round %d: a read shows a write that a member has not finished", round)
				}
			})
			c.W.Run(50 * time.Millisecond)
		}
		if written {
			t.Fatal("a write was acknowledged that a member has not finished")
		}
		stalled = false
		d.Stall(false)
		c.Wait("the write and the reads", time.Minute, func() bool { return written && read == 3 })
	}
}

// TestWritesWaitWhileTombstonesAreForgotten writes objects over and over while members drop their tombstones at different times. No member may be asked to build on what it has
// dropped, which would end the interval.
func TestWritesWaitWhileTombstonesAreForgotten(t *testing.T) {
	c := start(t, Options{Seed: 17, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	interval := func() layout.Interval {
		r, _ := c.Snapshot().Records.Get(layout.PGID{Pool: 1, Num: 1})
		return r.Interval
	}
	before := interval()
	_, others := c.others()
	c.W.Disk(others[0].disk()).SetAllLatency(20*time.Millisecond, 60*time.Millisecond)
	k := c.NewClient(7)
	const objects = 40
	for i := range objects {
		k.Write(image, uint64(i)*128<<10, pattern(4096, 1))
	}
	n := 0
	for i := range objects {
		k.Begin(wire.ReadWrite{Op: wire.OpDelete, Inode: image, Offset: uint64(i) * 128 << 10}, nil, func(Result) { n++ })
	}
	c.Wait("the deletes", time.Minute, func() bool { return n == objects })
	for i := range objects {
		at := time.Duration(i) * 20 * time.Millisecond
		c.W.After(at, func() {
			k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: uint64(i) * 128 << 10, Len: 4096}, pattern(4096, 2), func(Result) { n++ })
		})
	}
	c.Wait("the writes", time.Minute, func() bool { return n == 2*objects })
	for i := range objects {
		if r := k.Read(image, uint64(i)*128<<10, 4096); !bytes.Equal(r.Data, pattern(4096, 2)) {
			t.Errorf("object %d reads back differently", i)
		}
	}
	if have := interval(); have != before {
		t.Errorf("interval %d, was %d", have, before)
	}
}
