package primary

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast/core/layout"
	"holdfast/osd/peering"
)

// yard is a Primary with nothing but PGs and their backlogs.
func yard(pgSwitch int, pgs ...layout.PGID) *Primary {
	p := &Primary{pgs: map[layout.PGID]*PG{}, tuning: Tuning{PGSwitch: pgSwitch}}
	for _, id := range pgs {
		p.pgs[id] = &PG{ID: id, p: p, members: []layout.OSDNum{1, 2, 3}}
	}
	p.sortPGs()
	return p
}

// lacks puts objects with so many whole copies into a PG's backlog.
func (q *PG) lacks(copies int, stripes ...uint64) {
	for _, s := range stripes {
		u := &peering.Unclean{Object: layout.ObjectID{Stripe: s}, Truth: peering.Entry{Version: 1}}
		for i := range copies {
			u.Holders = append(u.Holders, layout.OSDNum(i+1))
		}
		q.enqueue(u)
	}
}

// drain takes everything out, as PG:object.
func (p *Primary) drain() (list []string) {
	for {
		q, u := p.pick()
		if q == nil {
			return list
		}
		list = append(list, fmt.Sprintf("%d:%d", q.ID.Num, q.dequeue(u).Stripe))
	}
}

func pgNum(n uint32) layout.PGID { return layout.PGID{Pool: 1, Num: n} }

func (p *Primary) expect(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(p.drain(), " "); got != want {
		t.Errorf("recovered in the order %s, want %s", got, want)
	}
}

func TestMostEndangeredFirst(t *testing.T) {
	p := yard(128, pgNum(1), pgNum(2), pgNum(3))
	p.pgs[pgNum(1)].lacks(2, 10, 11)
	p.pgs[pgNum(1)].lacks(1, 12)
	p.pgs[pgNum(2)].lacks(3, 20) // misplaced
	p.pgs[pgNum(2)].lacks(2, 21)
	p.pgs[pgNum(3)].lacks(1, 30, 31)
	p.pgs[pgNum(3)].enqueue(&peering.Unclean{Object: layout.ObjectID{Stripe: 32}, Truth: peering.Entry{Version: 5, Tombstone: true}, Holders: []layout.OSDNum{1}})
	p.expect(t, "1:12 3:30 3:31 1:10 1:11 2:21 3:32 2:20")
}

func TestMoreUrgentInterrupts(t *testing.T) {
	p := yard(128, pgNum(1), pgNum(2))
	p.pgs[pgNum(1)].lacks(2, 1, 2)
	q, u := p.pick()
	q.dequeue(u)
	p.pgs[pgNum(2)].lacks(1, 9) // its interval begins now
	p.expect(t, "2:9 1:2")
}

func TestPGsTakeTurns(t *testing.T) {
	p := yard(2, pgNum(1), pgNum(2), pgNum(3))
	p.pgs[pgNum(1)].lacks(1, 1, 2, 3, 4, 5)
	p.pgs[pgNum(3)].lacks(1, 1, 2, 3)
	p.expect(t, "1:1 1:2 3:1 3:2 1:3 1:4 3:3 1:5")
}

func TestNoRebalanceHoldsOnlyMoves(t *testing.T) {
	p := yard(128, pgNum(1))
	p.pgs[pgNum(1)].lacks(3, 1)
	p.pgs[pgNum(1)].lacks(2, 2)
	p.tuning.NoRebalance = true
	p.expect(t, "1:2")
	p.tuning.NoRebalance = false
	p.expect(t, "1:1")
}

func TestStoppedPGLeavesNothingBehind(t *testing.T) {
	p := yard(128, pgNum(1), pgNum(2))
	p.pgs[pgNum(1)].lacks(1, 1, 2, 3)
	p.pgs[pgNum(2)].lacks(2, 4)
	q, u := p.pick()
	q.dequeue(u)
	delete(p.pgs, pgNum(1))
	p.sortPGs()
	q.clearBacklog()
	p.expect(t, "2:4")
	if !slices.Equal(p.queues.waiting[:], make([]int, urgencies)) {
		t.Errorf("still waiting: %v", p.queues.waiting)
	}
}

func TestUrgency(t *testing.T) {
	q := &PG{members: make([]layout.OSDNum, 9)}
	last := urgency(0)
	for copies := range 12 {
		u := q.urgency(&peering.Unclean{Truth: peering.Entry{Version: 1}, Holders: make([]layout.OSDNum, copies)})
		if u < last || (copies >= 9) != (u == moves) {
			t.Errorf("%d copies of 9: urgency %d after %d", copies, u, last)
		}
		last = u
	}
	if u := q.urgency(&peering.Unclean{}); u != deletions {
		t.Errorf("an object that must not exist: urgency %d", u)
	}
}
