package primary

import (
	"holdfast/core/layout"
	"holdfast/osd/peering"
)

// Counts are a PG's objects that are not whole on its acting set.
type Counts struct {
	Left      int // all of them
	Total     int // as many as there were when the PG began to serve, at least
	Misplaced int // of Left, those of which there are as many copies as the set has members, if elsewhere
	Unfound   int // of Left, those that no OSD could give when it was tried last
}

// Counts counts them, without looking at any.
func (q *PG) Counts() Counts {
	return Counts{Left: q.left, Total: max(q.total, q.left), Misplaced: q.misplaced, Unfound: len(q.unfound)}
}

// misplacedBy reports whether an object only has to move.
func (q *PG) misplacedBy(u *peering.Unclean) bool { return len(u.Holders) >= len(q.members) }

// notFound notes that no OSD could give an object.
func (q *PG) notFound(o layout.ObjectID) {
	if q.unfound == nil {
		q.unfound = map[layout.ObjectID]bool{}
	}
	q.unfound[o] = true
}

// madeWhole takes an object out of the counts.
func (q *PG) madeWhole(u *peering.Unclean) {
	q.left--
	delete(q.unfound, u.Object)
	if q.misplacedBy(u) {
		q.misplaced--
	}
}
