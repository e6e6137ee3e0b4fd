package primary

import (
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
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
