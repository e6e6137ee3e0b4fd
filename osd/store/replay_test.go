package store

import (
	"testing"

	"holdfast/core/sim"
)

// all runs ops beside each other.
func (r *rig) all(ops []*Op) {
	r.t.Helper()
	left := len(ops)
	for _, op := range ops {
		op.Done = func(*Op) { left-- }
		r.s.Submit(op)
	}
	r.until("the ops", func() bool { return left == 0 })
}

// TestReplayNeedsNoSlotsForWhatTheJournalRemovesAgain: more objects come and go than slots are free later, when others have taken theirs. The journal still has all of it, since an
// unstable write holds its tail; a replay that makes the objects again in order to remove them again finds no slots.
func TestReplayNeedsNoSlotsForWhatTheJournalRemovesAgain(t *testing.T) {
	r := newRig(t, 1, 3<<20, smallConfig)
	r.must(&Op{Kind: OpWrite, Object: obj(0), Version: 1, Len: 4096, Data: r.data(fill(4096, 'u')), Unstable: true})
	pinned := r.s.j.oldest
	const gone = 60
	var made, removed []*Op
	for n := range uint64(gone) {
		made = append(made, &Op{Kind: OpDelete, Object: obj(1000 + n), Version: 1})
		removed = append(removed, &Op{Kind: OpForget, Object: obj(1000 + n), Base: 1})
	}
	r.all(made)
	r.quiet()
	r.all(removed)
	r.quiet() // the pages without them are durable
	for full, n := false, uint64(2000); !full; n += 16 {
		var fill []*Op
		for i := range uint64(16) {
			fill = append(fill, &Op{Kind: OpDelete, Object: obj(n + i), Version: 1})
		}
		r.all(fill)
		for _, op := range fill {
			full = full || op.Err == ErrNoSpace
		}
	}
	r.quiet()
	if r.s.t.slotFree.free >= gone || r.s.j.oldest != pinned {
		t.Fatalf("%d slots are free, replay begins at batch %d: the test shows nothing", r.s.t.slotFree.free, r.s.j.oldest)
	}
	r.crash(sim.CrashDrop)
	r.mustOpen()
	r.expect(0, "1 u.......")
	if st, ok := r.s.State(obj(2000)); !ok || st.Version != 1 || st.Flags != Tombstone {
		t.Errorf("a tombstone is %+v", st)
	}
	for i := range uint64(gone) {
		if st, ok := r.s.State(obj(1000 + i)); ok {
			t.Errorf("object %d is back: %+v", 1000+i, st)
		}
	}
}
