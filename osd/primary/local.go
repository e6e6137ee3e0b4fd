package primary

import (
	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// lends is what a primary keeps so that its members can answer reads with what all of them have: the changes of a PG in their order, and which of them are not on every member
// (docs/adr/0018-local-reads.md).
type lends struct {
	on          bool
	sent        uint64 // changes sent to the members in this interval
	first, last *place // those that are not on every member yet, in order
}

// place is one change in that order. It is embedded in the operation that makes it.
type place struct {
	n            uint64 // from 1; 0: it has none
	older, newer *place
}

// send gives a change the next place, and says it as members are told.
func (l *lends) send(p *place) uint64 {
	if !l.on {
		return 0
	}
	l.sent++
	*p = place{n: l.sent, older: l.last}
	if l.last == nil {
		l.first = p
	} else {
		l.last.newer = p
	}
	l.last = p
	return wire.Order(p.n, l.mark())
}

// arrived takes out a change that is on every member, or whose interval is over.
func (l *lends) arrived(p *place) {
	if p.n == 0 {
		return
	}
	if p.older == nil {
		l.first = p.newer
	} else {
		p.older.newer = p.newer
	}
	if p.newer == nil {
		l.last = p.older
	} else {
		p.newer.older = p.older
	}
	*p = place{}
}

// mark is up to which change all are on every member.
func (l *lends) mark() uint64 {
	if l.first == nil {
		return l.sent
	}
	return l.first.n - 1
}

// MayLend reports whether members may be given the right to answer reads in this interval.
func (q *PG) MayLend() bool { return q.lends.on }

// Lends says whether members may answer reads now: the changes sent in this interval, and up to which all are on every member.
func (q *PG) Lends() (sent, mark uint64, ok bool) {
	return q.lends.sent, q.lends.mark(), q.lends.on && !q.stopped && q.left == 0
}

// local answers a read of a PG that another OSD is primary of, if that has lent us the right to; the client asks it otherwise.
func (o *op) local(id layout.PGID) {
	p := o.p
	right, ok := p.sec.Locks.Right(id)
	switch {
	case !ok || p.o.LockConfirm || p.checkInode(o, o.id.Inode, o.meta) != 0:
		p.refuse(o, wire.EPIPE)
		return
	case !p.sec.Locks.Settled(right, o.id):
		o.unsettled()
		return
	}
	o.right = right
	o.sop.Kind, o.sop.Object, o.sop.Offset, o.sop.Len = store.OpRead, o.id, o.off, o.len
	p.st.Submit(&o.sop)
}

// unsettled leaves a read to the primary for once.
func (o *op) unsettled() {
	errno := int64(wire.EAGAIN)
	if o.r.From == nil || o.r.From.Legacy {
		errno = wire.EPIPE
	}
	o.p.Events.Unsettled++
	o.p.refuse(o, errno)
}

// maxComplaints bounds the primaries that are being told of our own bad copies. Of one that is not told of the next reader will tell, or scrub.
const maxComplaints = 16

// complain tells the primary of a PG that our copy of an object cannot be read: it compares all of them then, and has ours made anew.
func (p *Primary) complain(pg layout.PGID, id layout.ObjectID) {
	osd := p.host.Snapshot().Primary(pg)
	if osd == 0 || osd == p.o.Self || p.complaints == maxComplaints {
		return
	}
	p.complaints++
	p.l.Log().Warn("copy unreadable, telling the primary", "pg", pg.String(), "object", id.String(), "primary", uint64(osd))
	c := &peer.Call{Done: func(*peer.Call) { p.complaints-- }}
	m := wire.ReadWrite{Op: wire.OpScrub, Inode: id.Inode, Offset: id.Stripe}
	m.Encode(&c.Header)
	p.hub.Call(osd, c)
}

// localDone answers with what the store brought, if that may still be told: meanwhile a change of the object may have come, or the right may have ended.
func (o *op) localDone() {
	p := o.p
	switch {
	case o.sop.Err != nil || !p.sec.Locks.InForce(o.right):
		if errno := secondary.Retval(o.sop.Err); errno == wire.EDOM || errno == wire.EIO {
			p.complain(o.right.PG, o.id)
		}
		o.dropData()
		p.refuse(o, wire.EPIPE)
		return
	case !p.sec.Locks.Settled(o.right, o.id):
		o.dropData()
		o.unsettled()
		return
	}
	p.Events.LocalReads++
	if b := p.o.Probe; b != nil {
		b.ReadLocally(o.right.PG, o.right.Interval, o.id, o.sees())
	}
	o.replyRead()
}
