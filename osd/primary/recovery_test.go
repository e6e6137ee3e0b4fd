package primary

import (
	"slices"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
	"holdfast/osd/store"
)

// listener is a Host that only hears which PGs are whole.
type listener struct {
	Host
	whole []layout.PGID
}

func (h *listener) Recovered(id layout.PGID) { h.whole = append(h.whole, id) }

// A PG is whole again each time: who shows it as degraded while an object is repaired must hear the end of that.
func TestWholeAgainAfterARepairIsTold(t *testing.T) {
	h := &listener{}
	p := yard(128, pgNum(1))
	p.host = h
	q := p.pgs[pgNum(1)]
	q.Table, q.others = pg.NewTable(), []layout.OSDNum{2, 3}
	q.checkRecovered()
	obj := q.Table.Open(layout.ObjectID{Stripe: 7}, 5, false)
	if q.repair(obj, store.State{}) || !q.repair(obj, store.State{Version: 5}) {
		t.Fatal("nothing was repaired that another member has, or something that nobody can have")
	}
	q.checkRecovered()
	q.madeWhole(obj)
	q.checkRecovered()
	q.checkRecovered()
	if want := []layout.PGID{pgNum(1), pgNum(1)}; !slices.Equal(h.whole, want) {
		t.Errorf("whole: %v, want %v", h.whole, want)
	}
}

// What nobody can give is tried again a few at a time, and does not keep the others from their turn.
func TestRestEndsForAFewAtATime(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	p := New(w.NewLoop("osd"), nil, nil, nil, &listener{}, Options{})
	p.Tune(Tuning{Recovery: Pacing{Depth: 1}, PGSwitch: 128, NoRecovery: true})
	q := &PG{ID: pgNum(1), p: p, members: []layout.OSDNum{1, 2}, Table: pg.NewTable(), left: 100}
	p.pgs[q.ID] = q
	p.sortPGs()
	for i := range uint64(100) {
		o := q.Table.Open(layout.ObjectID{Stripe: i}, 1, false)
		o.Unclean = &peering.Unclean{Object: o.ID, Truth: peering.Entry{Version: 1}, Holders: []layout.OSDNum{2}}
		q.resting = append(q.resting, o.ID)
	}
	p.armRetry()
	for _, want := range []int{0, retryBatch, 2 * retryBatch, 3 * retryBatch, 100, 100} {
		if got := p.queues.waiting[0]; got != want || len(q.backlog[0]) != want || len(q.resting) != 100-want {
			t.Fatalf("after %v %d objects are waiting (%d in the PG) and %d resting, want %d", w.Elapsed(), got, len(q.backlog[0]), len(q.resting), want)
		}
		w.Run(retryPause)
	}
	if p.retry.Armed() {
		t.Error("goes on looking for what rests")
	}
}

// While a PG is not clean an object may be deleted any number of times, each time after it was written again: one deletion of each object is remembered.
func TestDeletionsThatWaitAreOneOfEachObject(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	l := w.NewLoop("osd")
	w.NewDisk("d", 32<<20, 4096)
	d, err := l.OpenDisk("d", loop.DiskOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var st *store.Store
	store.Format(l, d, store.Config{JournalSize: 4 << 20}, func(_ store.Superblock, err error) {
		if err != nil {
			t.Error(err)
		}
		store.Open(l, d, store.Options{}, func(s *store.Store, err error) { st = s })
	})
	w.RunUntil(func() bool { return st != nil }, time.Minute)
	if st == nil {
		t.Fatal("the store does not open")
	}
	for _, c := range []*coding{{own: 1}, nil} {
		deletionsThatWait(t, w, &PG{ID: pgNum(1), p: New(l, nil, nil, st, &listener{}, Options{}), Table: pg.NewTable(), coded: c})
	}
}

func deletionsThatWait(t *testing.T, w *sim.World, q *PG) {
	const objects, rounds, unclean = 8, 3 * leastTidy / 8, 7
	entry := func(i, v int) wire.SubEntry {
		return wire.SubEntry{Object: layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: uint64(i) << 17}, Version: layout.Version(v), Interval: 1}
	}
	done := 0
	for i := range objects {
		e := entry(i, rounds)
		q.p.st.Submit(&store.Op{Kind: store.OpDelete, Object: q.mine(e.Object), Version: e.Version, Interval: 1, Done: func(op *store.Op) {
			if done++; op.Err != nil {
				t.Error(op.Err)
			}
		}})
	}
	w.RunUntil(func() bool { return done == objects }, time.Minute)
	q.Table.Open(entry(unclean, 0).Object, 1, false).Unclean = &peering.Unclean{}
	q.waiting = []wire.SubEntry{entry(unclean, 5)}
	for v := range rounds {
		for i := range objects - 1 {
			q.buried(entry(i, v+1))
		}
		if n := len(q.waiting); n > leastTidy {
			t.Fatalf("%d deletions wait, of %d objects", n, objects)
		}
	}
	q.tidy()
	if len(q.waiting) != objects || q.waiting[0] != entry(unclean, 5) {
		t.Errorf("%d deletions are left, want one of each object, among them that of the object that is not whole", len(q.waiting))
	}
	for i := range objects - 1 {
		if !slices.Contains(q.waiting, entry(i, rounds)) {
			t.Errorf("the deletion of object %d is lost", i)
		}
	}
}
