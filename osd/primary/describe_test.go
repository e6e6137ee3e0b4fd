package primary

import (
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
	"holdfast/osd/store"
)

// Pages of any size tell together of every object that is not whole, once and in order, whether peering found it or it was found unreadable later.
func TestPagesTellOfEveryObject(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		p := &Primary{pgs: map[layout.PGID]*PG{}}
		var want []layout.ObjectID
		for num := range uint32(2) {
			id := layout.PGID{Pool: 1, Num: num + 1}
			q := &PG{ID: id, Table: pg.NewTable(), spoiled: map[layout.ObjectID]*peering.Unclean{}}
			p.pgs[id], p.order = q, append(p.order, id)
			var found []*peering.Unclean
			for i := range uint64(20) {
				object := layout.ObjectID{Inode: layout.MakeInode(1, 1+i/8), Stripe: i<<18 | uint64(num)<<17}
				whole := rng.IntN(4) == 0
				if rng.IntN(2) == 0 { // peering found it
					q.unclean = append(q.unclean, peering.Unclean{Object: object})
				} else {
					q.spoiled[object] = &peering.Unclean{Object: object}
				}
				if !whole {
					want = append(want, object)
				}
			}
			for i := range q.unclean {
				found = append(found, &q.unclean[i])
			}
			for _, u := range q.spoiled {
				found = append(found, u)
			}
			for _, u := range found {
				if slices.Contains(want, u.Object) {
					q.Table.Open(u.Object, 1, false).Unclean = u
				}
			}
		}
		slices.SortFunc(want, compareIDs)
		var got []layout.ObjectID
		for m, limit := (wire.Describe{}), 1+rng.IntN(10); ; {
			page := p.matching(&m, limit)
			if len(page) == 0 {
				break
			}
			for _, d := range page {
				got = append(got, d.o.ID)
			}
			last := got[len(got)-1]
			m.MinInode, m.MinOffset = last.Inode, last.Stripe+1
		}
		if !slices.Equal(got, want) {
			t.Fatalf("the pages tell of %v, want %v", got, want)
		}
	}
}

// Between pages objects become whole, are found unreadable, and are whole again. What is not whole all the time is told of once, nothing is told of twice or out of order, and a page tells of what is so then.
func TestPagesWhileObjectsChange(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	w := sim.NewWorld(1)
	defer w.Close()
	l := w.NewLoop("osd")
	for round := range 400 {
		q := &PG{ID: layout.PGID{Pool: 1, Num: 1}, Table: pg.NewTable(), members: []layout.OSDNum{1, 2}, others: []layout.OSDNum{2}}
		p := &Primary{l: l, o: Options{Self: 1}, pgs: map[layout.PGID]*PG{q.ID: q}, order: []layout.PGID{q.ID}}
		q.p = p
		var ids []layout.ObjectID
		for i := range uint64(60) {
			ids = append(ids, layout.ObjectID{Inode: layout.MakeInode(1, 1+i/20), Stripe: i << 17})
			if rng.IntN(3) > 0 {
				q.unclean = append(q.unclean, peering.Unclean{Object: ids[i], Lacks: []peering.Lack{{OSD: 2}}})
			}
		}
		q.left = len(q.unclean)
		steady := map[layout.ObjectID]bool{}
		for i := range q.unclean {
			u := &q.unclean[i]
			q.Table.Open(u.Object, 1, false).Unclean, steady[u.Object] = u, true
		}
		told := map[layout.ObjectID]bool{}
		limit := 1 + rng.IntN(8)
		for m := (wire.Describe{}); ; {
			page := p.matching(&m, limit)
			for i, d := range page {
				switch {
				case told[d.o.ID]:
					t.Fatalf("round %d: %v is told of twice", round, d.o.ID)
				case compareIDs(d.o.ID, layout.ObjectID{Inode: m.MinInode, Stripe: m.MinOffset}) < 0 || i > 0 && compareIDs(page[i-1].o.ID, d.o.ID) >= 0:
					t.Fatalf("round %d: %v is told of in a page from %v on after %v", round, d.o.ID, m, page[:i])
				case d.o.Unclean == nil:
					t.Fatalf("round %d: %v is whole", round, d.o.ID)
				}
				told[d.o.ID] = true
			}
			if len(page) == 0 {
				break
			}
			last := page[len(page)-1].o.ID
			m.MinInode, m.MinOffset = last.Inode, last.Stripe+1
			for range rng.IntN(20) {
				id := ids[rng.IntN(len(ids))]
				delete(steady, id)
				if o := q.Table.Get(id); o != nil {
					q.madeWhole(o)
					q.Table.Whole(o, 1, false)
				} else if !q.repair(q.Table.Open(id, 1, false), store.State{Version: 1}) {
					t.Fatal("a copy cannot be repaired")
				}
			}
		}
		for id := range steady {
			if !told[id] {
				t.Fatalf("round %d: %v is not told of", round, id)
			}
		}
		for _, id := range ids { // all that is left is whole at last, and nothing is kept of it
			if o := q.Table.Get(id); o != nil {
				q.madeWhole(o)
				q.Table.Whole(o, 1, false)
			}
		}
		if c := q.Counts(); c.Left != 0 || c.Misplaced != 0 || c.Unfound != 0 || c.Corrupted != 0 || len(q.spoiled) > 0 || q.unclean != nil || len(p.matching(&wire.Describe{}, 10)) > 0 {
			t.Fatalf("round %d: when all are whole: %+v, %d found later, %d of peering", round, c, len(q.spoiled), len(q.unclean))
		}
	}
}
