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

// Of an erasure-coded object every chunk is told of with its role; when too few are left it is incomplete.
func TestDescribeTellsOfChunks(t *testing.T) {
	object := layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: 1 << 18}
	lack := func(osd layout.OSDNum, role uint64, version layout.Version) peering.Lack {
		return peering.Lack{OSD: osd, Have: peering.Entry{Object: layout.ObjectID{Inode: object.Inode, Stripe: object.Stripe | role}, Version: version}}
	}
	for _, c := range []struct {
		chunks    []peering.Chunk
		lacks     []peering.Lack
		corrupted []layout.OSDNum
		state     uint64
		want      []wire.DescribeItem
	}{
		{[]peering.Chunk{{OSD: 5, Role: 1}, {OSD: 6, Role: 2}}, []peering.Lack{lack(4, 0, 0)}, nil, wire.ObjectDegraded,
			[]wire.DescribeItem{{Role: 1, OSD: 5}, {Role: 2, OSD: 6}, {Role: 0, OSD: 4, Bad: wire.LocMissing}}},
		{[]peering.Chunk{{OSD: 4, Role: 0}, {OSD: 6, Role: 2}}, []peering.Lack{lack(5, 1, 3)}, []layout.OSDNum{6}, wire.ObjectDegraded | wire.ObjectCorrupted,
			[]wire.DescribeItem{{Role: 0, OSD: 4}, {Role: 2, OSD: 6, Bad: wire.LocCorrupted}, {Role: 1, OSD: 5, Bad: wire.LocOutdated}}},
		{[]peering.Chunk{{OSD: 4, Role: 0}}, []peering.Lack{lack(5, 1, 0), lack(6, 2, 0)}, nil, wire.ObjectIncomplete,
			[]wire.DescribeItem{{Role: 0, OSD: 4}, {Role: 1, OSD: 5, Bad: wire.LocMissing}, {Role: 2, OSD: 6, Bad: wire.LocMissing}}},
	} {
		u := &peering.Unclean{Object: object, Truth: peering.Entry{Object: object, Version: 7}, Chunks: c.chunks, Lacks: c.lacks}
		for _, chunk := range c.chunks {
			u.Holders = append(u.Holders, chunk.OSD)
		}
		q := &PG{coded: &coding{stripes: stripes{k: 2, m: 1}, roles: []layout.OSDNum{4, 5, 6}}}
		o := &pg.Object{ID: object, Unclean: u, Corrupted: c.corrupted}
		if s := q.state(o); s != c.state {
			t.Errorf("%+v: state %x, wanted %x", u, s, c.state)
		}
		var want []byte
		for _, item := range c.want {
			item.OID, item.Bad = object, item.Bad|wire.LocState(c.state)
			want = wire.AppendDescribeItem(want, item)
		}
		if got := q.describe(nil, o, true); string(got) != string(want) {
			t.Errorf("%+v: told %x, wanted %x", u, got, want)
		}
	}
}
