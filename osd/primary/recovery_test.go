package primary

import (
	"slices"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
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
