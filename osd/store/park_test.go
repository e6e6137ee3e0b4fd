package store

import (
	"errors"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

// crowd makes a version of one chunk after the other, from a number on, that waits for its commit, until the store takes no more; it returns the number of the first that it did not take.
func (r *rig) crowd(n uint64) uint64 {
	r.t.Helper()
	for ; ; n++ {
		op := &Op{Kind: OpWrite, Object: chunk(n, 1), Version: 3, Interval: 7, Unstable: true, Offset: 8192, Len: 8192, Pair: Pair{10, 1 + n}, Data: r.data(fill(8192, 'b'))}
		if st, had := r.s.Newest(op.Object); had {
			op.Base = st.Version
		}
		r.do(op)
		op.Data.Release()
		if errors.Is(op.Err, ErrWaiting) {
			return n
		}
		if op.Err != nil {
			r.t.Fatalf("chunk %d: %v", n, op.Err)
		}
	}
}

// goRound has changes of another chunk wait and be committed, so that the journal goes round some times.
func (r *rig) goRound(times uint64) {
	r.t.Helper()
	o := chunk(999, 1)
	for end := r.s.j.head + times*r.s.j.size; r.s.j.head < end; {
		st, _ := r.s.Newest(o)
		r.change(OpWrite, o, st.Version+1, true, 0, fill(int(r.s.sb.Config.BlockSize)*3/4, 'x'))
		r.must(&Op{Kind: OpCommit, Object: o, Version: st.Version + 1})
	}
}

// What waits for long while it crowds the journal leaves room for others. It reads as before, survives, and is committed or rolled back whenever that comes.
func TestWhatWaitsForLongIsParked(t *testing.T) {
	for _, how := range []string{"nothing", "power loss", "opening again"} {
		t.Run(how, func(t *testing.T) {
			c := smallConfig
			c.JournalSize = 2 << 20
			r := newRig(t, 2, 32<<20, c)
			const old = 15 // the other chunks are new
			for n := range uint64(old) {
				r.change(OpWrite, chunk(n, 1), 1, false, 0, fill(4096, 'a'))
				r.change(OpWrite, chunk(n, 1), 2, false, 20<<10, fill(8192, 'a'))
			}
			free := r.s.Stats().FreeBlocks
			n := r.crowd(0)
			before := r.s.Stats()
			r.w.Run(2 * time.Second)
			if st := r.s.Stats(); n <= old+5 || st.Waiting != before.Waiting || st.Parked != 0 {
				t.Errorf("%d chunks wait, %d bytes after 2 s, and %d are parked", n, st.Waiting, st.Parked)
			}
			r.w.Run(20 * time.Second)
			if st := r.s.Stats(); st.Waiting > st.MaxWaiting/4 || st.Parked == 0 || st.Parked > before.Waiting/20 || st.MaxWaiting != before.MaxWaiting-st.Parked {
				t.Errorf("%d of %d bytes wait and %d are parked; before, %d waited", st.Waiting, st.MaxWaiting, st.Parked, before.Waiting)
			}
			r.goRound(3)
			switch how {
			case "power loss":
				r.crash(sim.CrashDrop)
				r.mustOpen()
			case "opening again":
				r.close()
				r.mustOpen()
			}
			for i := range n {
				below, above := "2  a....aa.", "3 unstable a.bb.aa."
				if i >= old {
					below, above = "0  ........", "3 unstable ..bb...."
				}
				r.expectAt(chunk(i, 1), 2, below)
				r.expectAt(chunk(i, 1), 3, above)
			}
			r.shard(Sharding{PGCount: 1, PGStripeSize: 1 << 17})
			if l := r.list(layout.PGID{Pool: 1, Num: 1}, 10); len(l) != int(n)+old+1 {
				t.Errorf("%d entries, want %d", len(l), int(n)+old+1)
			}
			for i := range n {
				kind, version := OpCommit, layout.Version(3)
				if i%2 == 1 {
					kind, version = OpRollback, 2
				}
				r.must(&Op{Kind: kind, Object: chunk(i, 1), Version: version})
			}
			r.w.Run(5 * time.Second)
			if st := r.s.Stats(); st.Waiting+st.Parked != 0 || st.FreeBlocks != free-(n+1)/2+(old+1)/2-1 {
				t.Errorf("%d bytes wait, %d are parked and %d blocks are free, of %d before", st.Waiting, st.Parked, st.FreeBlocks, free)
			}
			r.close()
			r.mustOpen()
			for i := range n {
				want := []string{"3  a.bb.aa.", "2  a....aa.", "3  ..bb....", "0  ........"}[i%2+min(i/old, 1)*2]
				r.expectAt(chunk(i, 1), 9, want)
			}
			op := r.must(&Op{Kind: OpReadObject, Object: chunk(2, 1)})
			if op.Present[0] != 0b01101101 || len(op.Pairs) != 1 {
				t.Errorf("present %b, %d requests", op.Present[0], len(op.Pairs))
			}
			op.Data.Release()
		})
	}
}

// However many PGs leave something behind, what waits stays within its part of the journal, and the journal goes on.
func TestParkedVersionsAreBounded(t *testing.T) {
	c := Config{BlockSize: 16 << 10, Granularity: 4096, JournalSize: 640 << 10}
	r := newRig(t, 2, 64<<20, c)
	r.change(OpWrite, chunk(999, 1), 1, false, 0, fill(4096, 'x'))
	n, rounds := uint64(0), 0
	for ; ; rounds++ {
		was := n
		if n = r.crowd(n); n < was+2 {
			break
		}
		if r.s.unstable > r.s.unstableLimit() {
			t.Fatalf("round %d: %d bytes wait, the limit is %d", rounds, r.s.unstable, r.s.unstableLimit())
		}
		r.w.Run(15 * time.Second)
		if st := r.s.Stats(); st.Waiting > st.MaxWaiting/2 {
			t.Fatalf("round %d: %d of %d bytes wait", rounds, st.Waiting, st.MaxWaiting)
		}
	}
	if first := uint64(r.s.unstableLimit() / 8400); rounds < 10 || n < 20*first {
		t.Errorf("%d versions wait after %d rounds", n, rounds)
	}
	// Nothing that needs no room of that kind is refused.
	o := chunk(998, 1)
	for v := range layout.Version(400) {
		r.change(OpWrite, o, v+1, false, 0, fill(12<<10, 'y'))
	}
	r.crash(sim.CrashDrop)
	r.mustOpen()
	for i := range n {
		r.expectAt(chunk(i, 1), 3, "3 unstable ..bb")
		r.must(&Op{Kind: OpCommit, Object: chunk(i, 1), Version: 3})
	}
	if st := r.s.Stats(); st.Waiting+st.Parked != 0 {
		t.Errorf("%d bytes wait and %d are parked", st.Waiting, st.Parked)
	}
	r.goRound(2)
}

// What does not crowd the journal stays in it, however long it waits.
func TestWhatDoesNotCrowdIsNotParked(t *testing.T) {
	r := newRig(t, 2, 32<<20, smallConfig)
	for n := range uint64(7) {
		r.change(OpWrite, chunk(n, 1), 3, true, 8192, fill(8192, 'b'))
	}
	before := r.s.Stats()
	r.w.Run(time.Hour)
	if st := r.s.Stats(); st.Waiting != before.Waiting || st.Waiting < st.MaxWaiting/3 || st.Parked != 0 {
		t.Errorf("%d of %d bytes wait and %d are parked", st.Waiting, st.MaxWaiting, st.Parked)
	}
}

// A chunk that cannot be read stays in the journal; the others are parked.
func TestParkingGoesPastRot(t *testing.T) {
	r := newRig(t, 2, 32<<20, smallConfig)
	r.change(OpWrite, chunk(0, 1), 2, false, 0, fill(4096, 'a'))
	r.w.Run(5 * time.Second)
	_, slot, _, _ := r.s.lookup(chunk(0, 1))
	n := r.crowd(0)
	r.dev.Flip(r.s.sb.blockOff(slotView(r.s.t.slot(slot)).block())+5, 4)
	r.w.Run(20 * time.Second)
	if st := r.s.Stats(); st.Waiting > st.MaxWaiting/4 {
		t.Errorf("%d of %d bytes wait, of %d chunks", st.Waiting, st.MaxWaiting, n)
	}
	if _, _, d, _ := r.s.lookup(chunk(0, 1)); r.s.changes[r.s.dirty[d].first].data == 0 {
		t.Error("what could not be read is in a block")
	}
	if n := r.s.Stats().ChecksumErrors; n == 0 || n > 2 {
		t.Errorf("it was read %d times", n)
	}
	r.expectAt(chunk(1, 1), 3, "3 unstable ..bb....")
	free := r.s.Stats().FreeBlocks
	r.must(&Op{Kind: OpRollback, Object: chunk(1, 1), Version: 2})
	if now := r.s.Stats().FreeBlocks; now != free+1 {
		t.Errorf("%d blocks are free, %d before", now, free)
	}
}

// An object in so many pieces that their entries take more than the data stays in the journal.
func TestParkingSavesRoom(t *testing.T) {
	r := newRig(t, 2, 128<<20, Config{BlockSize: 512 << 10, Granularity: 4096, JournalSize: minJournal(512 << 10)})
	for i := range uint32(64) {
		r.change(OpWrite, chunk(0, 1), layout.Version(i+1), false, i*8192, fill(4096, 'a'))
	}
	r.change(OpWrite, chunk(0, 1), 65, true, 0, fill(4096, 'b'))
	n := r.crowd(1)
	r.w.Run(30 * time.Second)
	if _, _, d, _ := r.s.lookup(chunk(0, 1)); r.s.changes[r.s.dirty[d].first].data == 0 {
		t.Error("it is in pieces")
	}
	if st := r.s.Stats(); st.Waiting > st.MaxWaiting/4 || st.Parked > 200*n {
		t.Errorf("%d of %d bytes wait, and %d are parked, of %d chunks", st.Waiting, st.MaxWaiting, st.Parked, n)
	}
}
