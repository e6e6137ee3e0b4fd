package secondary

import (
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/planted"
	"holdfast/core/wire"
)

// A primary may lend its members the right to answer clients' reads (docs/adr/0018-local-reads.md). The right hangs on the grant that the member has given the primary: it belongs to that interval, ends
// with the grant, and ends before the earliest of the grants that the primary holds, so that nobody serves the PG anew while it is in force. The member answers with what every member has: the primary
// numbers its changes and says with each of them, and with the right, up to which all are on every member.

// ReadRight is one PG of a RenewRequest: the member may answer reads of it.
type ReadRight struct {
	PG       layout.PGID     `json:"pg"`
	Interval layout.Interval `json:"interval"`
	Sent     uint64          `json:"sent"` // changes that the primary has sent to its members in the interval,
	Mark     uint64          `json:"mark"` // and how many of them, from the first on, are on every member
	For      time.Duration   `json:"for"`  // how long the primary's grants last, all of them, as the request is sent
}

// maxPending bounds the changes that are remembered because they may not be on every member: far more than a primary has under way. Beyond, the member answers no reads in this interval.
const maxPending = 1 << 16

// reads is what a member knows of a PG whose primary lends it reads.
type reads struct {
	until   loop.Instant // when the right ends; 0: none was lent yet
	last    uint64       // the newest change received
	mark    uint64       // changes up to here are on every member
	broken  bool         // a change is missing
	pending map[layout.ObjectID]uint64
	queue   []pendingChange // in order; those before head are done with
	head    int
}

type pendingChange struct {
	order  uint64
	object layout.ObjectID
}

// received notes a change.
func (r *reads) received(object layout.ObjectID, order, mark uint64) {
	if order != r.last+1 || len(r.queue)-r.head == maxPending {
		r.broken = true
	}
	if r.broken {
		r.pending, r.queue, r.head = nil, nil, 0
		return
	}
	r.last = order
	r.pending[object] = order
	r.queue = append(r.queue, pendingChange{order, object})
	r.advance(mark)
}

// advance forgets what is on every member.
func (r *reads) advance(mark uint64) {
	r.mark = max(r.mark, mark)
	for r.head < len(r.queue) && r.queue[r.head].order <= r.mark {
		if c := r.queue[r.head]; r.pending[c.object] == c.order {
			delete(r.pending, c.object)
		}
		r.head++
	}
	if r.head == len(r.queue) || r.head >= 64 && 2*r.head >= len(r.queue) {
		r.queue = r.queue[:copy(r.queue, r.queue[r.head:])]
		r.head = 0
	}
}

// ordered notes the place of a change that is about to be carried out. One without a place, as a primary sends when it can count no further, is one too many for what is known.
func (t *Locks) ordered(m *wire.SubChange) {
	g := t.pgs[m.PG]
	if g == nil || g.interval != m.Interval || m.Order == 0 && g.reads == nil {
		return
	}
	order, mark := wire.SplitOrder(m.Order)
	t.readsOf(g).received(m.Object, order, mark)
}

func (t *Locks) readsOf(g *grant) *reads {
	if g.reads == nil {
		g.reads = &reads{pending: map[layout.ObjectID]uint64{}}
	}
	return g.reads
}

// lent takes the rights in a renewal of p. The time that the primary names runs from when we sent the answer that it heard last, which was before.
func (t *Locks) lent(p *pair, q *RenewRequest) {
	heard := loop.Instant(q.Heard)
	if heard < t.started || heard > t.l.Now() {
		return // of another process, or nonsense
	}
	for i := range q.Reads {
		x := &q.Reads[i]
		g := t.pgs[x.PG]
		if g == nil || g.pair != p || g.interval != x.Interval || g.pending || x.For <= 0 || x.For > t.ttl {
			continue
		}
		if r := t.readsOf(g); !r.broken && r.last >= x.Sent {
			r.advance(x.Mark)
			r.until = max(r.until, heard.Add(x.For*9/10))
		}
	}
}

// Right is a member's right to answer reads of a PG, as it was looked up.
type Right struct {
	PG       layout.PGID
	Interval layout.Interval
	g        *grant
}

// Right looks up whether reads of a PG may be answered now.
func (t *Locks) Right(pg layout.PGID) (Right, bool) {
	g := t.pgs[pg]
	if g == nil {
		return Right{}, false
	}
	r := Right{pg, g.interval, g}
	return r, t.InForce(r)
}

// InForce reports whether a right still is.
func (t *Locks) InForce(r Right) bool {
	g := r.g
	if t.pgs[r.PG] != g || g.reads == nil || g.reads.broken || g.reads.until == 0 {
		return false
	}
	return planted.ReadRightRunOut || t.live(g) && t.l.Now() < g.reads.until
}

// Settled reports whether all that the store holds of an object is on every member, as far as the holder of a right knows.
func (t *Locks) Settled(r Right, object layout.ObjectID) bool {
	_, pending := r.g.reads.pending[object]
	return !pending || planted.LocalUncommitted
}
