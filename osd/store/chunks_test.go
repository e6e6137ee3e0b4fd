package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

// chunk is an object of an erasure-coded pool: the role is in the low bits of its stripe.
func chunk(n uint64, role uint64) layout.ObjectID {
	o := obj(n)
	o.Stripe |= role
	return o
}

// change submits a change of a chunk made for its newest version.
func (r *rig) change(kind OpKind, oid layout.ObjectID, version layout.Version, unstable bool, off uint32, p []byte) *Op {
	r.t.Helper()
	st, _ := r.s.Newest(oid)
	op := &Op{Kind: kind, Object: oid, Base: st.Version, Version: version, Interval: 7, Unstable: unstable, Offset: off, Len: uint32(len(p)), Pair: Pair{max(9, r.session), uint64(version)}}
	if kind == OpWrite && len(p) > 0 {
		op.Data = r.data(p)
		defer op.Data.Release()
	}
	return r.must(op)
}

// at reads a chunk as it was at a version: its version, flags and letters, or the error.
func (r *rig) at(oid layout.ObjectID, version layout.Version) string {
	r.t.Helper()
	c := r.s.sb.Config
	op := r.do(&Op{Kind: OpRead, Object: oid, Len: c.BlockSize, AtMost: version, Bounded: true, Exact: true})
	if op.Err != nil {
		return op.Err.Error()
	}
	defer op.Data.Release()
	var out []byte
	for u := 0; u < c.units(); u++ {
		x := op.Data.Bytes()[u*int(c.Granularity)]
		switch {
		case x != 0:
		case hasBit(op.Bitmap, uint32(u)):
			x = '0'
		default:
			x = '.'
		}
		out = append(out, x)
	}
	return fmt.Sprintf("%x %s %s", uint64(op.State.Version), flagNames(op.State.Flags), out)
}

func (r *rig) expectAt(oid layout.ObjectID, version layout.Version, want string) {
	r.t.Helper()
	if have := r.at(oid, version); have != want {
		r.t.Errorf("%v at most %x reads %q, want %q", oid, uint64(version), have, want)
	}
}

// list is everything that is listed of a PG, in pages of so many entries.
func (r *rig) list(pg layout.PGID, page int) (out []string) {
	r.t.Helper()
	var all []ListEntry
	for at, more := Cursor(0), true; more; {
		all, at, more = r.s.List(all, pg, at, page)
	}
	for _, e := range all {
		out = append(out, fmt.Sprintf("%v@%x %s", e.Object, uint64(e.Version), flagNames(e.Flags)))
	}
	return out
}

func (r *rig) shard(sh Sharding) {
	r.t.Helper()
	done := false
	r.s.Shard(1, sh, func() { done = true })
	r.until("shard", func() bool { return done })
}

// everyWay calls f for a store that goes on, was closed, was killed, or lost power.
func everyWay(t *testing.T, f func(t *testing.T, r *rig, again func())) {
	for name, again := range map[string]func(r *rig){
		"going on": func(*rig) {},
		"idle":     func(r *rig) { r.w.Run(5 * time.Second) },
		"closed":   func(r *rig) { r.close(); r.mustOpen() },
		"killed":   func(r *rig) { r.l.Kill(); r.process(); r.mustOpen() },
		"crashed":  func(r *rig) { r.crash(sim.CrashDrop); r.mustOpen() },
	} {
		t.Run(name, func(t *testing.T) {
			c := smallConfig
			c.JournalSize = 4 << 20
			r := newRig(t, 1, 16<<20, c)
			f(t, r, func() { again(r) })
		})
	}
}

// Chunks of one object are objects of one PG, told apart by their role in every place.
func TestChunksAreObjectsOfTheirOwn(t *testing.T) {
	everyWay(t, func(t *testing.T, r *rig, again func()) {
		for role := range uint64(6) {
			r.change(OpWrite, chunk(3, role), layout.Version(role+1), false, uint32(role)*4096, fill(4096, 'a'+byte(role)))
		}
		r.change(OpWrite, chunk(3, 0xfff), 9, false, 0, fill(32<<10, 'z'))
		r.change(OpDelete, chunk(3, 2), 20, false, 0, nil)
		again()
		r.expectAt(chunk(3, 1), 2, "2  .b......")
		r.expectAt(chunk(3, 2), 20, "14 tombstone ........")
		r.expectAt(chunk(3, 5), 6, "6  .....f..")
		r.expectAt(chunk(3, 0xfff), 9, "9  zzzzzzzz")
		r.expectAt(chunk(3, 7), 9, "0  ........")
		r.shard(Sharding{PGCount: 7, PGStripeSize: 1 << 17})
		pg := layout.PGID{Pool: 1, Num: uint32(3%7 + 1)}
		for _, page := range []int{1, 3, 100} {
			if l := r.list(pg, page); len(l) != 7 {
				t.Errorf("listed by %d: %q", page, l)
			}
		}
		r.w.Run(5 * time.Second) // everything is folded
		blocks := int64(0)
		r.s.SpaceByInode(func(inode layout.Inode, bytes int64) {
			if inode == chunk(3, 0).Inode {
				blocks = bytes / int64(r.s.sb.Config.BlockSize)
			}
		})
		if blocks != 6 {
			t.Errorf("the inode has %d blocks, want 6", blocks)
		}
		if st := r.s.Stats(); st.Objects != 7 || st.Tombstones != 1 {
			t.Errorf("%d objects and %d tombstones, want 7 and 1", st.Objects, st.Tombstones)
		}
	})
}

// A change of no bytes is how a chunk follows the version of its object.
func TestWriteOfNoBytesRaisesTheVersion(t *testing.T) {
	everyWay(t, func(t *testing.T, r *rig, again func()) {
		a, b := chunk(1, 0), chunk(1, 1)
		r.change(OpWrite, a, 2, false, 4096, fill(8192, 'a'))
		r.change(OpWrite, b, 2, false, 0, nil)
		free := r.s.Stats().FreeBlocks
		r.change(OpWrite, a, 3, true, 0, nil)
		r.change(OpWrite, b, 3, true, 0, nil)
		again()
		r.expectAt(a, 2, "2  .aa.....")
		r.expectAt(a, 3, "3 unstable .aa.....")
		r.expectAt(b, 2, "2  ........")
		r.expectAt(b, 3, "3 unstable ........")
		if _, v, ok := r.s.FindPair(Pair{9, 3}); !ok || v != 3 {
			t.Errorf("the request of version 3 is known: %v, as %x", ok, v)
		}
		r.must(&Op{Kind: OpCommit, Object: a, Version: 3})
		r.must(&Op{Kind: OpRollback, Object: b, Version: 2})
		again()
		r.expectAt(a, 3, "3  .aa.....")
		r.expectAt(a, 2, ErrVersionGone.Error())
		r.expectAt(b, 3, "2  ........")
		if n := r.s.Stats().FreeBlocks; n != free {
			t.Errorf("%d blocks are free, %d before", n, free)
		}
		r.change(OpDelete, a, 4, false, 0, nil)
		r.change(OpWrite, a, 5, false, 0, nil)
		again()
		r.expectAt(a, 5, "5  ........")
	})
}

// A parity chunk's bitmap is given, and replaces what was, with bytes or without.
func TestGivenBitmapReplacesTheObjects(t *testing.T) {
	everyWay(t, func(t *testing.T, r *rig, again func()) {
		o := chunk(1, 2)
		write := func(version layout.Version, bitmap byte, p []byte) {
			op := &Op{Kind: OpWrite, Object: o, Base: version - 1, Version: version, Interval: 7, Unstable: version > 2, Bitmap: []byte{bitmap}, Len: uint32(len(p))}
			if len(p) > 0 {
				op.Data = r.data(p)
			}
			r.must(op)
		}
		write(1, 0, nil)
		write(2, 0x0f, fill(8192, 'p'))
		write(3, 0x35, nil)
		write(4, 0, fill(4096, 'q'))
		again()
		for at, want := range map[layout.Version]string{2: "2  pp00....", 3: "3 unstable pp0.00..", 4: "4 unstable qp......"} {
			r.expectAt(o, at, want)
		}
		bitmap := func(at layout.Version) byte {
			return r.must(&Op{Kind: OpRead, Object: o, AtMost: at}).Bitmap[0]
		}
		if x, y, z := bitmap(2), bitmap(3), bitmap(4); x != 0x0f || y != 0x35 || z != 0 {
			t.Errorf("the bitmaps are %02x, %02x, %02x", x, y, z)
		}
		r.must(&Op{Kind: OpCommit, Object: o, Version: 3})
		again()
		if x, y := bitmap(3), bitmap(4); x != 0x35 || y != 0 {
			t.Errorf("after a commit the bitmaps are %02x, %02x", x, y)
		}
	})
	r := newRig(t, 1, 8<<20, smallConfig)
	if op := r.do(&Op{Kind: OpWrite, Object: chunk(1, 2), Version: 1, Bitmap: []byte{1, 2}}); !errors.Is(op.Err, ErrUnsupported) {
		t.Errorf("a bitmap of the wrong length: %v", op.Err)
	}
}

// Each unstable change keeps the version before beside it, whatever they are; a rollback gives it back, and what the changes were asked for by is forgotten with them.
func TestRollbackGivesBackWhatWasThere(t *testing.T) {
	type try struct {
		first          string
		second, third  OpKind
		o              layout.ObjectID
		session        uint64
		was, five, top string
	}
	everyWay(t, func(t *testing.T, r *rig, again func()) {
		var all []*try
		for _, first := range []string{"nothing", "an object", "a tombstone", "no bytes"} {
			for _, second := range []OpKind{OpWrite, OpZero, OpDelete} {
				for _, third := range []OpKind{OpWrite, OpZero, OpDelete} {
					all = append(all, &try{first: first, second: second, third: third, o: chunk(uint64(len(all)), 1), session: uint64(100 + len(all)), was: "0  ........"})
				}
			}
		}
		// Version 1 or 2 is stable, 5 and 7 wait for commits.
		for _, x := range all {
			r.session = x.session
			switch x.first {
			case "an object":
				r.change(OpWrite, x.o, 2, false, 0, fill(32<<10, 'a'))
				x.was = "2  aaaaaaaa"
			case "a tombstone":
				r.change(OpWrite, x.o, 1, false, 0, fill(32<<10, 'a'))
				r.change(OpDelete, x.o, 2, false, 0, nil)
				x.was = "2 tombstone ........"
			case "no bytes":
				r.change(OpWrite, x.o, 2, false, 0, nil)
				x.was = "2  ........"
			}
		}
		again()
		free := r.s.Stats().FreeBlocks
		for _, x := range all {
			r.session = x.session
			r.change(x.second, x.o, 5, true, 0, fill(32<<10, 'b'))
			x.five = r.at(x.o, 5)
			r.change(x.third, x.o, 7, true, 4096, fill(8192, 'c'))
			x.top = r.at(x.o, 8)
		}
		again()
		for _, x := range all {
			r.expectAt(x.o, 4, x.was)
			r.expectAt(x.o, 5, x.five)
			r.expectAt(x.o, 6, x.five)
			r.expectAt(x.o, 8, x.top)
			r.must(&Op{Kind: OpRollback, Object: x.o, Version: 6})
			r.expectAt(x.o, 8, x.five)
		}
		again()
		for _, x := range all {
			r.expectAt(x.o, 8, x.five)
			_, _, kept := r.s.FindPair(Pair{x.session, 5})
			if _, _, ok := r.s.FindPair(Pair{x.session, 7}); ok || !kept {
				t.Errorf("%+v: the request of version 5 is known: %v, of 7, which was rolled back: %v", x, kept, ok)
			}
			r.must(&Op{Kind: OpRollback, Object: x.o, Version: 2})
		}
		again()
		for _, x := range all {
			r.expectAt(x.o, 8, x.was)
			if _, _, ok := r.s.FindPair(Pair{x.session, 5}); ok {
				t.Errorf("%+v: the request of version 5, which was rolled back, is known", x)
			}
			base, is := errors.AsType[*BaseError](r.do(&Op{Kind: OpRollback, Object: x.o, Version: 1}).Err)
			if is != (x.first != "nothing") {
				t.Errorf("%+v: a rollback of what is stable: %v", x, base)
			}
		}
		if n := r.s.Stats().FreeBlocks; n != free {
			t.Errorf("%d blocks are free, %d before", n, free)
		}
	})
}

// What waits for a commit is settled before anything else is done to the object.
func TestUnsettledVersionsAreInTheWay(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	o := chunk(1, 1)
	r.change(OpWrite, o, 2, false, 0, fill(4096, 'a'))
	r.change(OpDelete, o, 5, true, 0, nil)
	for _, op := range []*Op{
		{Kind: OpReplace, Base: 5, Version: 6, Bitmap: []byte{0}, Present: []byte{0}},
		{Kind: OpVoid, Base: 5},
	} {
		op.Object, op.BaseInterval = o, 7
		if r.do(op); !errors.Is(op.Err, ErrUnsettled) {
			t.Errorf("op %d: %v", op.Kind, op.Err)
		}
	}
	if _, is := errors.AsType[*BaseError](r.do(&Op{Kind: OpForget, Object: o, Base: 5}).Err); !is {
		t.Error("a tombstone that waits for its commit is forgotten")
	}
	if op := r.do(&Op{Kind: OpWrite, Object: o, Base: 5, Version: 6}); !errors.Is(op.Err, ErrUnsupported) {
		t.Errorf("a stable change over an unstable one: %v", op.Err)
	}
	if _, is := errors.AsType[*BaseError](r.do(&Op{Kind: OpCommit, Object: o, Version: 6}).Err); !is {
		t.Error("a version that is not there is committed")
	}
	// A rollback that is under way counts.
	back := &Op{Kind: OpRollback, Object: o, Version: 2, Done: func(*Op) {}}
	r.s.Submit(back)
	r.must(&Op{Kind: OpVoid, Object: o, Base: 2, BaseInterval: 7})
	r.expectAt(o, 9, ErrVoid.Error())
	r.must(&Op{Kind: OpReplace, Object: o, Base: 2, BaseInterval: 7, Version: 1, Bitmap: []byte{0}, Present: []byte{0}})
	r.expectAt(o, 9, "1  ........")
	r.expectAt(o, 0, ErrVersionGone.Error())
}

// A change and its commit may be in one batch, and a commit that was answered is durable.
func TestChangeAndCommitInOneBatch(t *testing.T) {
	for _, p := range [][]byte{nil, fill(4096, 'b'), fill(32<<10, 'b')} {
		r := newRig(t, 2, 8<<20, smallConfig)
		o := chunk(1, 1)
		r.change(OpWrite, o, 2, false, 0, fill(32<<10, 'a'))
		writes := r.s.Stats().SyncWrites
		op := &Op{Kind: OpWrite, Object: o, Base: 2, Version: 3, Unstable: true, Len: uint32(len(p)), Done: func(*Op) {}}
		if len(p) > 0 {
			op.Data = r.data(p)
		}
		r.s.Submit(op)
		r.must(&Op{Kind: OpCommit, Object: o, Version: 3})
		most := uint64(1)
		if len(p) == 32<<10 {
			most = 2 // its data first
		}
		if n := r.s.Stats().SyncWrites - writes; n > most {
			t.Errorf("%d bytes and their commit took %d device writes", len(p), n)
		}
		r.crash(sim.CrashDrop)
		r.mustOpen()
		if st, _ := r.s.State(o); st.Version != 3 || st.Flags != 0 {
			t.Errorf("after power loss the object is %+v", st)
		}
	}
}

// Nobody waits for the commit of the write before: it goes out with the next one.
func TestCommitsCostNoFlushOfTheirOwn(t *testing.T) {
	r := newRig(t, 2, 8<<20, smallConfig)
	o := chunk(1, 1)
	r.change(OpWrite, o, 1, false, 0, fill(32<<10, 'a'))
	before := r.s.Stats()
	const n = 40
	var last *Op
	for i := range layout.Version(n) {
		r.change(OpWrite, o, i+2, true, 0, fill(4096, 'b'))
		last = &Op{Kind: OpCommit, Object: o, Version: i + 2, Done: func(*Op) {}}
		r.s.Submit(last)
		r.w.Run(300 * time.Microsecond) // the client, and the network
	}
	st := r.s.Stats()
	if w := st.SyncWrites - before.SyncWrites; w > n+1 {
		t.Errorf("%d writes, one at a time, and their commits took %d durable writes", n, w)
	}
	r.w.Run(2 * commitDelay)
	if st, _ := r.s.State(o); st.Flags != 0 || st.Version != n+1 {
		t.Errorf("the last commit is not carried out: %+v", st)
	}
	// A read waits for what it reads, and not for a commit.
	r.change(OpWrite, o, n+2, true, 0, fill(4096, 'c'))
	r.s.Submit(&Op{Kind: OpCommit, Object: o, Version: n + 2, Done: func(*Op) {}})
	start := r.l.Now()
	r.must(&Op{Kind: OpRead, Object: o})
	if d := r.l.Now().Sub(start); d > commitDelay/4 {
		t.Errorf("a read waited %v for a commit", d)
	}
}

// A listing has the newest stable version and what waits above it, oldest first, and a page never has a part of that.
func TestListingHasEveryVersionThatCounts(t *testing.T) {
	everyWay(t, func(t *testing.T, r *rig, again func()) {
		want := map[layout.ObjectID][]string{}
		say := func(o layout.ObjectID, v layout.Version, flags string) {
			want[o] = append(want[o], fmt.Sprintf("%v@%x %s", o, uint64(v), flags))
		}
		for n := range uint64(9) {
			o := chunk(n, n)
			if n%3 > 0 {
				r.change(OpWrite, o, 2, false, 0, fill(4096, 'a'))
				say(o, 2, "")
			}
			for v := range layout.Version(n % 5) {
				kind, flags := OpWrite, "unstable"
				if v == 2 {
					kind, flags = OpDelete, "tombstone+unstable"
				}
				r.change(kind, o, v+3, true, 0, nil)
				say(o, v+3, flags)
			}
		}
		again()
		r.shard(Sharding{PGCount: 1, PGStripeSize: 1 << 17})
		for _, page := range []int{1, 2, 3, 4, 5, 100} {
			have := map[layout.ObjectID][]string{}
			entries, at, more := []ListEntry(nil), Cursor(0), true
			for more {
				entries, at, more = r.s.List(entries[:0], layout.PGID{Pool: 1, Num: 1}, at, page)
				seen := map[layout.ObjectID]bool{}
				for _, e := range entries {
					if have[e.Object] != nil && !seen[e.Object] {
						t.Errorf("%v is on two pages", e.Object)
					}
					seen[e.Object] = true
					have[e.Object] = append(have[e.Object], fmt.Sprintf("%v@%x %s", e.Object, uint64(e.Version), flagNames(e.Flags)))
				}
				if len(entries) > max(page, 5) {
					t.Errorf("a page of %d has %d entries", page, len(entries))
				}
			}
			for o := range want {
				if !slices.Equal(have[o], want[o]) {
					t.Errorf("by %d: %v is listed as %q, want %q", page, o, have[o], want[o])
				}
			}
			if len(have) != len(want) {
				t.Errorf("by %d: %d objects, want %d", page, len(have), len(want))
			}
		}
	})
}

// What is lazy and waits for a commit becomes durable by a sync, and is committed then; a commit alone makes it durable, too.
func TestLazyAndUnstable(t *testing.T) {
	for _, how := range []string{"sync and commit", "sync", "commit", "neither"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, 2, 8<<20, smallConfig)
			o := chunk(1, 1)
			r.change(OpWrite, o, 1, false, 0, fill(32<<10, 'a'))
			for v := range layout.Version(5) {
				size := []int{4096, 32 << 10, 0}[v%3]
				op := &Op{Kind: OpWrite, Object: o, Base: v + 1, Version: v + 2, Unstable: true, Lazy: Lazy, Len: uint32(size), Pair: Pair{9, uint64(v + 2)}}
				if size > 0 {
					op.Data = r.data(fill(size, 'b'+byte(v)))
				}
				r.must(op)
			}
			if n := r.s.Unsynced(); n != 5 {
				t.Errorf("%d changes are not durable, want 5", n)
			}
			r.expectAt(o, 3, "3 unstable cccccccc")
			want := "6 unstable eeeeeeee"
			switch how {
			case "sync and commit":
				r.must(&Op{Kind: OpSync})
				r.must(&Op{Kind: OpCommit, Object: o, Version: 4})
			case "sync":
				r.must(&Op{Kind: OpSync})
			case "commit":
				r.must(&Op{Kind: OpCommit, Object: o, Version: 6})
				want = "6  fccccccc"
			case "neither":
				want = "1  aaaaaaaa"
			}
			if how != "neither" && how != "commit" {
				want = "6 unstable " + r.at(o, 9)[len("6 unstable "):]
			}
			r.crash(sim.CrashDrop)
			r.mustOpen()
			if how == "commit" {
				want = "6  " + r.at(o, 9)[len("6  "):]
			}
			r.expectAt(o, 9, want)
			below := map[string]string{"sync and commit": ErrVersionGone.Error(), "sync": "3 unstable cccccccc", "commit": ErrVersionGone.Error(), "neither": "1  aaaaaaaa"}[how]
			r.expectAt(o, 3, below)
			if _, _, ok := r.s.FindPair(Pair{9, 6}); ok != (how != "neither") {
				t.Errorf("the request of version 6 is known: %v", ok)
			}
		})
	}
}

// The store bounds what waits, and says so in a way of its own: commits make room.
func TestWhatWaitsIsBounded(t *testing.T) {
	c := smallConfig
	c.JournalSize = 16 << 20
	r := newRig(t, 2, 32<<20, c)
	o := chunk(1, 1)
	r.change(OpWrite, o, 1, false, 0, fill(32<<10, 'a'))
	v := layout.Version(1)
	for ; ; v++ {
		op := r.do(&Op{Kind: OpWrite, Object: o, Base: v, Version: v + 1, Unstable: true})
		if op.Err != nil {
			if !errors.Is(op.Err, ErrWaiting) {
				t.Fatal(op.Err)
			}
			break
		}
	}
	if v != maxChain+1 {
		t.Errorf("%d versions wait, want %d", v-1, maxChain)
	}
	r.shard(Sharding{PGCount: 1, PGStripeSize: 1 << 17})
	if l := r.list(layout.PGID{Pool: 1, Num: 1}, 10); len(l) != maxChain+1 {
		t.Errorf("%d entries, want %d", len(l), maxChain+1)
	}
	r.must(&Op{Kind: OpCommit, Object: o, Version: v})
	r.must(&Op{Kind: OpWrite, Object: o, Base: v, Version: v + 1, Unstable: true})
	r.close()
	r.mustOpen()
	r.expectAt(o, v, fmt.Sprintf("%x  aaaaaaaa", uint64(v)))
}

// While the flusher writes over a block, and while a chain is written again, reads get the version that they ask for or are told that it is gone.
func TestOldVersionsWhileTheJournalGoesRound(t *testing.T) {
	for seed := range uint64(6) {
		c := smallConfig
		c.JournalSize = 4 << 20
		r := newRig(t, seed+1, 16<<20, c)
		o, other := chunk(1, 1), chunk(2, 1)
		r.change(OpWrite, o, 1, false, 0, fill(32<<10, 'a'))
		r.change(OpWrite, other, 1, false, 0, fill(32<<10, 'x'))
		stable, v := layout.Version(1), layout.Version(1)
		letter := map[layout.Version]byte{1: 'a'}
		running, gone, read := 0, 0, 0
		for i := range 600 {
			v++
			letter[v] = 'a' + byte(i%20)
			size := []int{32 << 10, 28 << 10}[i%2]
			op := &Op{Kind: OpWrite, Object: o, Base: v - 1, Version: v, Interval: 7, Unstable: true, Len: uint32(size), Data: r.data(fill(size, letter[v]))}
			running++
			op.Done = func(op *Op) {
				running--
				op.Data.Release()
				if op.Err != nil {
					t.Fatal(op.Err)
				}
			}
			r.s.Submit(op)
			for _, at := range []layout.Version{stable, v - 1} {
				x := &Op{Kind: OpRead, Object: o, AtMost: at, Len: 4096}
				running++
				x.Done = func(x *Op) {
					running--
					switch {
					case errors.Is(x.Err, ErrVersionGone):
						gone++
						return
					case x.Err != nil || x.State.Version != at || x.Data.Bytes()[0] != letter[at] || x.Data.Bytes()[4095] != letter[at]:
						t.Fatalf("seed %d: read at most %x: %+v %v", seed, at, x.State, x.Err)
					}
					read++
					x.Data.Release()
				}
				r.s.Submit(x)
			}
			if i%3 == 2 {
				stable = v - layout.Version(i%2)
				r.s.Submit(&Op{Kind: OpCommit, Object: o, Version: stable, Done: func(*Op) {}})
			}
			// Make the journal go round below.
			st, _ := r.s.Newest(other)
			w := &Op{Kind: OpWrite, Object: other, Base: st.Version, Version: st.Version + 1, Len: 24 << 10, Data: r.data(fill(24<<10, 'y')), Done: func(w *Op) { w.Data.Release() }}
			r.s.Submit(w)
			r.until("most", func() bool { return running < 6 })
		}
		r.until("the reads", func() bool { return running == 0 })
		if read < 500 {
			t.Errorf("seed %d: %d reads, %d gone", seed, read, gone)
		}
	}
}

// A check reads what lies below a version that waits, too.
func TestCheckReadsVersionsBelow(t *testing.T) {
	for _, below := range []bool{false, true} {
		r := newRig(t, 2, 8<<20, smallConfig)
		o := chunk(1, 1)
		r.change(OpWrite, o, 2, false, 0, fill(32<<10, 'a'))
		r.w.Run(5 * time.Second)
		_, slot, _, _ := r.s.lookup(o)
		at := r.s.sb.blockOff(slotView(r.s.t.slot(slot)).block())
		r.change(OpWrite, o, 5, true, 0, fill(32<<10, 'b'))
		r.change(OpDelete, o, 6, true, 0, nil)
		r.close()
		want := 0
		if below {
			want = 1
			r.dev.Flip(at+5000, 4)
		}
		var out strings.Builder
		problems := -1
		Check(r.l, r.disk, &out, nil, func(n int, err error) { problems = n })
		r.until("check", func() bool { return problems >= 0 })
		if problems != want {
			t.Errorf("damaged %v: %d problems: %s", below, problems, out.String())
		}
		r.mustOpen()
		op := r.do(&Op{Kind: OpRead, Object: o, AtMost: 4, Len: 32 << 10})
		if _, is := errors.AsType[*ChecksumError](op.Err); is != below {
			t.Errorf("damaged %v: a read of the version below ends with %v", below, op.Err)
		}
		r.expectAt(o, 5, "5 unstable bbbbbbbb")
	}
}

// However large the blocks and small the journal, one change can wait, and is carried along as the journal goes round.
func TestOneLargeChangeCanAlwaysWait(t *testing.T) {
	c := Config{BlockSize: 1 << 20, Granularity: 4096, JournalSize: minJournal(1 << 20)}
	r := newRig(t, 2, 32<<20, c)
	o, other := chunk(1, 1), chunk(2, 1)
	large := 1<<20 - 4096
	r.change(OpWrite, o, 2, false, 0, fill(1<<20, 'a'))
	r.change(OpWrite, other, 2, false, 0, fill(1<<20, 'x'))
	r.change(OpWrite, o, 3, true, 4096, fill(large, 'b'))
	if op := r.do(&Op{Kind: OpWrite, Object: o, Base: 3, Version: 4, Unstable: true, Len: uint32(large), Data: r.data(fill(large, 'c'))}); !errors.Is(op.Err, ErrWaiting) {
		t.Errorf("a second one: %v", op.Err)
	}
	for v := range layout.Version(40) {
		running := true
		r.s.Submit(&Op{Kind: OpWrite, Object: other, Base: v + 2, Version: v + 3, Len: 512 << 10, Data: r.data(fill(512<<10, 'y')), Done: func(op *Op) {
			running = false
			if op.Data.Release(); op.Err != nil {
				t.Error(op.Err)
			}
		}})
		r.expectAt(o, 2, "2  "+strings.Repeat("a", 256))
		r.expectAt(o, 4, "3 unstable a"+strings.Repeat("b", 255))
		r.until("a write", func() bool { return !running })
	}
	if n := r.s.j.head / r.s.j.size; n < 3 {
		t.Errorf("the journal has gone round %d times", n)
	}
	r.crash(sim.CrashDrop)
	r.mustOpen()
	r.expectAt(o, 2, "2  "+strings.Repeat("a", 256))
	r.expectAt(o, 3, "3 unstable a"+strings.Repeat("b", 255))
	r.must(&Op{Kind: OpCommit, Object: o, Version: 3})
	r.close()
	r.mustOpen()
	r.expectAt(o, 3, "3  a"+strings.Repeat("b", 255))
}
