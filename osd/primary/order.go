package primary

import (
	"cmp"
	"slices"

	"holdfast/core/layout"
	"holdfast/osd/peering"
)

// urgency orders what has to be recovered, over all PGs: the fewer whole copies there are, or chunks more than it takes, the sooner.
type urgency uint8

const (
	manyCopies urgency = iota + 4 // five or more, one is missing all the same; 0 is one copy, 1 two, and so on
	deletions                     // members do not know of a deletion yet, or it is known elsewhere: no data is in danger
	moves                         // as many copies as there are to be, but elsewhere
	urgencies
)

// urgency is how soon an object has to be recovered.
func (q *PG) urgency(u *peering.Unclean) urgency {
	switch {
	case u.Truth.Version == 0 || u.Truth.Tombstone: // misplaced ones, too: they take no space and give some back, so nothing may hold them
		return deletions
	case q.misplacedBy(u):
		return moves
	}
	spare := len(u.Holders) - 1
	if q.coded != nil {
		spare = u.Roles() - q.coded.k
	}
	return urgency(min(max(spare, 0), int(manyCopies)))
}

// backlog is a PG's objects that nobody has begun to recover, by urgency and then by object. Objects that became whole otherwise are still in it.
type backlog [urgencies][]layout.ObjectID

func (b *backlog) add(u urgency, id layout.ObjectID) { b[u] = append(b[u], id) }

// take takes the first of an urgency out; there must be one.
func (b *backlog) take(u urgency) layout.ObjectID {
	id := b[u][0]
	if b[u] = b[u][1:]; len(b[u]) == 0 {
		b[u] = nil
	}
	return id
}

// queues is the backlog of all PGs together.
type queues struct {
	waiting [urgencies]int // objects in the backlogs
	last    layout.PGID    // that the last object was taken from
	urgency urgency        // of that
	row     int            // taken from that PG without a break
}

// pick is the PG from whose backlog, and of which urgency, the next object is to be taken; nil when there is none. A PG goes on for up to recovery_pg_switch objects, in whose order the disks
// read and write, unless a more urgent one is waiting elsewhere.
func (p *Primary) pick() (*PG, urgency) {
	s := &p.queues
	for u := range urgencies {
		if s.waiting[u] == 0 || u == moves && p.tuning.NoRebalance {
			continue
		}
		if q := p.pgs[s.last]; q != nil && len(q.backlog[u]) > 0 && s.urgency == u && s.row < p.tuning.PGSwitch && !q.stays(u) {
			s.row++
			return q, u
		}
		at, found := slices.BinarySearchFunc(p.order, s.last, comparePGs)
		if found {
			at++
		}
		for i := range p.order {
			id := p.order[(at+i)%len(p.order)]
			if q := p.pgs[id]; len(q.backlog[u]) > 0 && !q.stays(u) {
				s.last, s.urgency, s.row = id, u, 1
				return q, u
			}
		}
	}
	return nil, 0
}

func comparePGs(a, b layout.PGID) int {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Num, b.Num))
}

// enqueue puts an object that is not whole into the backlog.
func (q *PG) enqueue(u *peering.Unclean) {
	class := q.urgency(u)
	q.backlog.add(class, u.Object)
	q.p.queues.waiting[class]++
}

// dequeue takes the next object of an urgency out of the backlog.
func (q *PG) dequeue(u urgency) layout.ObjectID {
	q.p.queues.waiting[u]--
	return q.backlog.take(u)
}

// clearBacklog forgets what is waiting, as the PG stops.
func (q *PG) clearBacklog() {
	for u := range urgencies {
		q.p.queues.waiting[u] -= len(q.backlog[u])
		q.backlog[u] = nil
	}
	q.resting, q.held = nil, nil
}
