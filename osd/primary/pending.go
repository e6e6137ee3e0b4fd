package primary

import (
	"holdfast/core/layout"
	"holdfast/osd/pg"
)

// Pending is what a Primary has under way.
type Pending struct {
	Objects    int // that something is under way with, or that are not whole
	Running    int // operations of our own store
	Recovering int // objects under background recovery
	Calls      int // of the connections, those of other parts of the OSD too
}

// Pending is what is under way now; all of it is zero when every request has been answered and every PG is whole.
func (p *Primary) Pending() Pending {
	n := Pending{Recovering: p.recovering, Calls: p.hub.Pending()}
	for _, q := range p.pgs { // order: sums
		n.Objects += q.Table.Len()
		n.Running += q.running
	}
	return n
}

// Overdue are the PGs in which a change of a fenced session is still under way, in order.
func (p *Primary) Overdue() (list []layout.PGID) {
	for _, id := range p.order {
		fenced := func(c *pg.Change) bool { return c.Session != 0 && p.host.Fenced(c.Session, id.Pool) }
		if p.pgs[id].Table.Changing(fenced) {
			list = append(list, id)
		}
	}
	return list
}
