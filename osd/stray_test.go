package osd

import (
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/osd/store"
)

// What a store holds of a PG is removed only when nothing at all speaks against it.
func TestUnneeded(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.place(1, 1)
	b.wait("PG on OSD 1", func() bool { return b.serves(1, 1) })
	s := b.osds[3].s
	b.w.Run(100 * time.Millisecond)
	rec := *b.record()
	key := cluster.PGRecordKey(pg1)
	mine := store.PGRecord{PG: pg1, Generation: uint64(rec.Generation), Interval: rec.Interval - 1, TookPart: rec.Interval - 1}
	if !s.unneeded(mine) {
		t.Fatal("a clean PG that lives elsewhere and is newer needs something of this store")
	}
	self := cluster.PGMember{OSD: 3, Store: s.self.Store}
	state := b.get(cluster.PGStateKey(pg1))
	for _, c := range []struct {
		name string
		mine func(*store.PGRecord)
		now  func(*cluster.PGRecord)
		do   func()
		undo func()
	}{
		{name: "of another generation", mine: func(m *store.PGRecord) { m.Generation++ }},
		{name: "locked for a later interval", mine: func(m *store.PGRecord) { m.Interval = rec.Interval + 1 }},
		{name: "without a record", mine: func(m *store.PGRecord) { m.PG.Num = 2 }},
		{name: "not activated", now: func(r *cluster.PGRecord) { r.Interval++ }},
		{name: "with an older set", now: func(r *cluster.PGRecord) {
			r.Sets = append([]cluster.PGSet{{Interval: 1, Members: []cluster.PGMember{{OSD: 2, Store: layout.StoreID{2}}}}}, r.Sets...)
		}},
		{name: "on this store", now: func(r *cluster.PGRecord) {
			r.Sets = []cluster.PGSet{{Interval: r.Activated, Members: []cluster.PGMember{self}}}
			r.Participants = []cluster.PGMember{self}
		}},
		{name: "with this store as a participant", now: func(r *cluster.PGRecord) { r.Participants = append([]cluster.PGMember{self}, r.Participants...) }},
		{name: "with another participant", now: func(r *cluster.PGRecord) {
			r.Participants = append([]cluster.PGMember{{OSD: 2, Store: layout.StoreID{2}}}, r.Participants...)
		}},
		{name: "that nobody serves", do: func() { b.put(cluster.PGStateKey(pg1), nil) }, undo: func() { b.put(cluster.PGStateKey(pg1), string(state.Value)) }},
		{name: "that is not served yet", do: func() {
			b.put(cluster.PGStateKey(pg1), &cluster.PGState{Primary: 1, State: cluster.StatePeering})
		}, undo: func() { b.put(cluster.PGStateKey(pg1), string(state.Value)) }},
		{name: "that is to be here", do: func() { b.place(0, 3) }, undo: func() { b.place(0, 1) }},
		{name: "granted to somebody", do: func() { b.grant(3, rec.Interval) }},
	} {
		b.osds[1].l.Kill() // changes nothing any more
		m, now := mine, rec
		if c.mine != nil {
			c.mine(&m)
		}
		if c.now != nil {
			c.now(&now)
			b.put(key, &now)
		}
		if c.do != nil {
			c.do()
		}
		b.w.Run(100 * time.Millisecond)
		if s.unneeded(m) {
			t.Errorf("a PG %s needs nothing of this store", c.name)
		}
		b.put(key, &rec)
		if c.undo != nil {
			c.undo()
		}
		b.w.Run(100 * time.Millisecond)
		if c.name != "granted to somebody" && !s.unneeded(mine) {
			t.Fatalf("after %q the PG needs something of the store", c.name)
		}
	}
}
