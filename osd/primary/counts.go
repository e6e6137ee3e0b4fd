package primary

import (
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
)

// Counts are a PG's objects that are not whole on its acting set.
type Counts struct {
	Left      int // all of them
	Total     int // as many as there were when the PG began to serve, at least
	Misplaced int // of Left, those of which there are as many copies as the pool is to have, if elsewhere
	Unfound   int // of Left, those that no OSD could give when it was tried last: incomplete, as stock tools say; none is among Misplaced
	Corrupted int // of Left, those of which a copy could not be read, or was found to be wrong
	// Inconsistent are of Left those whose copies differ, and nobody knows which are right; none is among Misplaced or Unfound. Nothing is done about them before somebody decides.
	Inconsistent int
}

// Degraded are those that only miss copies.
func (c Counts) Degraded() int { return c.Left - c.Misplaced - c.Unfound - c.Inconsistent }

// ToRecover are those of Left that recovery is to make whole, and Total what that was.
func (c Counts) ToRecover() (left, total int) {
	return c.Left - c.Inconsistent, c.Total - c.Inconsistent
}

// Counts counts them, without looking at any.
func (q *PG) Counts() Counts {
	return Counts{Left: q.left, Total: max(q.total, q.left), Misplaced: q.misplaced, Unfound: len(q.unfound), Corrupted: q.corrupted, Inconsistent: q.inconsistent}
}

// State is what the counts add to the PG's state.
func (c Counts) State() (b wire.PGState) {
	for _, f := range [...]struct {
		n   int
		bit wire.PGState
	}{{c.Degraded(), wire.PGHasDegraded}, {c.Misplaced, wire.PGHasMisplaced}, {c.Unfound, wire.PGHasIncomplete}, {c.Corrupted, wire.PGHasCorrupted}, {c.Inconsistent, wire.PGHasInconsistent}} {
		if f.n > 0 {
			b |= f.bit
		}
	}
	return b
}

// meter measures how fast a PG's objects become whole.
type meter struct {
	since loop.Instant
	done  int // since then
	rate  uint64
}

// leastSpan is the shortest time that a rate is measured over.
const leastSpan = time.Second

// Rate is how many objects became whole per second between the last two times it was asked, or over the last second and more if it is asked more often.
func (q *PG) Rate() uint64 {
	m := &q.meter
	now := q.p.l.Now()
	if dt := now.Sub(m.since); dt >= leastSpan {
		m.rate = uint64(float64(m.done)/dt.Seconds() + 0.5)
		m.since, m.done = now, 0
	}
	return m.rate
}

// misplacedBy reports whether an object only has to move: there are as many copies as the pool is to have. In a set that lacks a member an object with fewer is in danger wherever they are.
func (q *PG) misplacedBy(u *peering.Unclean) bool {
	if q.coded != nil {
		return u.RolesBelow(len(q.coded.roles)) == len(q.coded.roles)
	}
	return len(u.Holders) >= max(len(q.members), q.size)
}

// notFound notes that no OSD could give an object.
func (q *PG) notFound(u *peering.Unclean) {
	if q.unfound[u.Object] {
		return
	}
	if q.unfound == nil {
		q.unfound = map[layout.ObjectID]bool{}
	}
	q.unfound[u.Object] = true
	if q.misplacedBy(u) {
		q.misplaced--
	}
}

// disputed notes whether an object's copies differ without its being known which are right.
func (q *PG) disputed(o *pg.Object, now bool) {
	if o.Inconsistent == now {
		return
	}
	o.Inconsistent = now
	by := 1
	if !now {
		by = -1
	}
	q.inconsistent += by
	if q.misplacedBy(o.Unclean) && !q.unfound[o.ID] {
		q.misplaced -= by
	}
}

// unreadable notes that an OSD's copy of an object could not be read, or is wrong.
func (q *PG) unreadable(o *pg.Object, osd layout.OSDNum) {
	if slices.Contains(o.Corrupted, osd) {
		return
	}
	if len(o.Corrupted) == 0 {
		q.corrupted++
	}
	if q.p != nil {
		q.p.BadCopies = put(q.p.BadCopies, osd, q.p.BadCopies[osd]+1)
	}
	o.Corrupted = append(o.Corrupted, osd)
}

// madeWhole takes an object out of the counts.
func (q *PG) madeWhole(o *pg.Object) {
	delete(q.spoiled, o.ID)
	if q.left--; q.left == 0 {
		q.unclean = nil
	}
	q.meter.done++
	if len(o.Corrupted) > 0 {
		q.corrupted--
	}
	switch u := o.Unclean; {
	case o.Inconsistent:
		q.inconsistent--
	case q.unfound[u.Object]:
		delete(q.unfound, u.Object)
	case q.misplacedBy(u):
		q.misplaced--
	}
}
