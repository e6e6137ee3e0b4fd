package primary

import (
	"time"

	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/pg"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// change gives a write, zero or delete its version and sends it to every member.
func (o *op) change() {
	p, q := o.p, o.q
	o.decide()
	if q.coded != nil && !o.coded().alone() {
		return
	}
	if o.fenced() {
		p.refuse(o, wire.ESTALE)
		return
	}
	obj := q.open(o.id)
	if o.trail.Session != 0 {
		if c := obj.Find(o.trail.Session, o.trail.Sequence); c != nil && !planted.RetryBeside {
			// The client repeats what is under way: it gets the same answer.
			first := c.Owner.(*op)
			p.Events.Joined++
			o.joined, first.joined = first.joined, o
			return
		}
		if id, version, ok := p.st.FindPair(store.Pair{Session: o.trail.Session, Sequence: o.trail.Sequence}); ok && !planted.RetryTwice {
			// Done before: the object is whole, so every member has that version.
			q.Table.Close(obj)
			if id != q.mine(o.id) {
				p.refuse(o, wire.EINVAL)
				return
			}
			if !o.settled() {
				return
			}
			p.Events.PairAnswers++
			o.tell(version, true)
			o.reply(uint64(version))
			return
		}
	}
	if o.late() {
		q.Table.Close(obj)
		p.refuse(o, wire.ETIMEDOUT)
		return
	}
	if o.again && uint64(obj.Last) > o.mine && !planted.ReplayOver {
		if obj.Changing() {
			obj.Await(&o.waiter, obj.Last)
			return
		}
		q.Table.Close(obj)
		if o.isSure() {
			p.Events.Overtaken++
			p.refuse(o, wire.EEXIST)
		}
		return
	}
	if current := visible(obj.Last, obj.Gone); o.cas != 0 && o.cas != uint64(current)+1 && !planted.CASIgnored {
		if obj.Changing() {
			// What the client will be told must be true: wait until it is on every member.
			obj.Await(&o.waiter, obj.Last)
			return
		}
		q.Table.Close(obj)
		if !o.isSure() {
			return
		}
		o.conflict(uint64(current))
		return
	}
	if obj.Gone && (o.kind == wire.ChangeDelete || o.kind == wire.ChangeHole) {
		if obj.Changing() {
			obj.Await(&o.waiter, obj.Last)
			return
		}
		q.Table.Close(obj)
		if !o.isSure() || !o.settled() {
			return
		}
		o.reply(0)
		return
	}
	st := p.st.Stats()
	if !o.taking && o.needsBlock(obj) {
		switch q.room(&st) {
		case noRoom:
			q.Table.Close(obj)
			p.Events.Full++
			p.refuse(o, wire.ENOSPC)
			return
		case roomLater:
			q.Table.Close(obj)
			p.short = append(p.short, o)
			return
		}
		o.taking = true
		p.taking++
	}
	if o.trail.Session != 0 && !q.remembers(&st, &o.trail) {
		q.Table.Close(obj)
		p.Events.Crowded++
		p.refuse(o, wire.EBUSY)
		return
	}
	if q.coded != nil {
		o.beginCoded(obj.Last, obj.Gone)
		return
	}
	o.begin(obj.Last)
}

// fenced reports, and counts, that the change's session is fenced.
func (o *op) fenced() bool {
	if o.trail.Session == 0 || !o.p.host.Fenced(o.trail.Session, o.id.Inode.Pool()) || planted.FencedWrite {
		return false
	}
	o.p.Events.Fenced++
	return true
}

// late reports, and counts, that the change's deadline has passed.
func (o *op) late() bool {
	if o.trail.Deadline == 0 || int64(o.p.l.Now()) <= int64(o.trail.Deadline) || planted.DeadlineUnchecked {
		return false
	}
	o.p.Events.Late++
	return true
}

// visible is an object's version as clients see it.
func visible(v layout.Version, gone bool) layout.Version {
	if gone {
		return 0
	}
	return v
}

// remembers reports whether every member can remember one more request of a session, by what it said last. A session that never says what it has had answers to gets no more than a quarter of
// what there is, so that it stalls itself and nobody else. The oldest request of a session without an answer is what all later ones are remembered for: it alone may use what is kept for
// recovery, or sessions that wait for one PG, and have had all else answered, would fill the OSDs and wait for ever.
func (q *PG) remembers(st *store.Stats, t *wire.Trailer) bool {
	p := q.p
	if t.Sequence <= t.Low {
		return st.Pairs+uint64(q.running) < st.MaxPairs-st.MaxPairs/8
	}
	if secondary.RequestRoom(st) <= uint64(q.running) || uint64(p.st.SessionPairs(t.Session)) >= st.MaxPairs/4 {
		return false
	}
	for _, osd := range q.others {
		if free, known := p.requests[osd]; known && free <= uint64(q.running) {
			return false
		}
	}
	return true
}

// Requests notes how many more requests another OSD can remember, as it said itself.
func (p *Primary) Requests(osd layout.OSDNum, n uint64) { p.requests[osd] = n }

// begin sends the change out on top of base.
func (o *op) begin(base layout.Version) {
	p, q := o.p, o.q
	obj := q.Table.Get(o.id)
	version := max(base, q.floor, layout.Version(q.Interval)<<layout.VersionCounterBits) + 1
	o.ch.Version, o.ch.Tombstone = version, o.kind == wire.ChangeDelete
	o.assign(obj)
	m := wire.SubChange{
		Object: o.id, Base: base, Version: version, Offset: o.off, Len: o.len, Kind: o.kind, Grant: q.grant,
		Session: o.trail.Session, Sequence: o.trail.Sequence, Low: o.trail.Low, Lazy: uint8(o.how), Order: q.lends.send(&o.place),
	}
	o.left = 1 + len(q.others)
	for i, osd := range q.others {
		c := o.call(i)
		c.osd = osd
		m.Base = o.baseOn(obj, osd, base)
		m.Encode(&c.c.Header)
		c.c.Meta, c.c.Payload = nil, c.c.Payload[:0] // it was a chunk's, perhaps
		if o.data != nil {
			c.c.Payload = append(c.c.Payload, peer.Piece{Ref: o.data, Len: int(o.len)})
		}
		p.hub.Call(osd, &c.c)
	}
	o.sop.Data, o.sop.DataOff = o.data, 0
	m.Base = o.baseOn(obj, p.o.Self, base)
	q.begin()
	p.sec.Change(&o.sop, &m)
}

// assign puts the change into its object's order, with the version it has been given. Nobody else has an object that is made anew.
func (o *op) assign(obj *pg.Object) {
	o.ch.Session, o.ch.Sequence = o.trail.Session, o.trail.Sequence
	if o.ch.Anew = obj.Inconsistent || obj.Broken; o.ch.Anew {
		obj.Recovering = true
	}
	obj.Assign(&o.ch)
}

// call is the i-th sub-operation.
func (o *op) call(i int) *call {
	if i == len(o.calls) {
		c := &call{op: o}
		c.c.Done = func(*peer.Call) { c.answered() }
		c.again.Fire = func() { o.p.hub.Call(c.osd, &c.c) }
		o.calls = append(o.calls, c)
	}
	return o.calls[i]
}

// roomPause is how long a change rests of which a store says that too much waits there for commits.
const roomPause = 2 * time.Millisecond

// answered is another member's answer.
func (c *call) answered() {
	o := c.op
	p, q := o.p, o.q
	errno := int64(0)
	if c.c.Err != nil {
		errno = wire.EPIPE
	} else {
		var m wire.VersionReply
		if m.Decode(&c.c.Reply) != nil {
			errno = wire.EINVAL
		} else if errno = m.Retval; errno == 0 {
			p.space[c.osd] = m.Free
		} else if errno == wire.ENOSPC {
			p.space[c.osd] = 0
		}
	}
	if q.coded != nil && !q.stopped && (errno == wire.EAGAIN || errno == wire.ENOSPC) {
		if errno == wire.ENOSPC {
			p.space[c.osd] = 0
			o.full = !planted.FullIgnored
		} else if !o.yields() {
			p.l.Arm(&c.again, p.l.Now().Add(roomPause))
			return
		}
		o.member()
		return
	}
	if errno != 0 {
		o.failed = true
	}
	id, stopped := q.ID, q.stopped
	o.member()
	if errno != 0 && !stopped {
		p.l.Log().Warn("a member failed a change", "pg", id.String(), "peer", uint64(c.osd), "object", o.id.String(), "retval", errno, "err", c.c.Err)
		p.host.Lost(id, c.osd, errno == wire.ENOSPC)
	}
}

// member counts one member's answer; after the last the change is committed, or the operation is over.
func (o *op) member() {
	if c := o.q.coded; planted.StabilisedEarly && c != nil && o.left == c.here.Len() && !o.failed && !o.q.stopped {
		o.q.commitLater(o.id, o.ch.Version)
	}
	if o.left--; o.left > 0 && !(planted.ReplyEarly && o.left == 1) {
		return
	}
	if planted.ReplyEarly && o.left == 0 && o.r == nil {
		o.p.put(o)
		return
	}
	switch {
	case o.q.stopped:
		o.p.put(o) // the client was answered when the interval ended
	case o.failed:
		// The interval is about to end and answers the client; committed puts the operation back.
	case o.full || o.later:
		o.undo()
	default:
		o.q.Table.Ack(&o.ch)
	}
}

// committed is called when every member has the change and all before it, or when the interval ended.
func (o *op) committed() {
	p, q := o.p, o.q
	q.lends.arrived(&o.place)
	// Without the members' grants, others may serve and have been told of a fence by now: the client asks whoever serves, who knows the request.
	if q.stopped || q.lapsed() && !planted.GrantNotRechecked {
		p.Events.Interrupted++
		for j := o.joined; j != nil; {
			next := j.joined
			j.joined = nil
			p.refuse(j, wire.EPIPE)
			j = next
		}
		o.joined = nil
		p.count(o, 0)
		o.r.Fail(wire.EPIPE)
		o.r = nil
		p.slow.End(&o.watched)
		if o.left == 0 {
			p.put(o)
		}
		return
	}
	switch z := &q.lazy.chains; {
	case q.coded == nil:
	case o.how == store.Durable:
		z.durable(o.id)
		q.commitLater(o.id, o.ch.Version)
	default:
		z.add(o.id, o.ch.Version)
	}
	if o.ch.Anew {
		q.madeWhole(q.Table.Get(o.id))
		p.host.Restated(q.ID)
		p.kick()
	}
	if o.ch.Tombstone {
		if e := (wire.SubEntry{Object: o.id, Version: o.ch.Version, Interval: q.Interval}); o.how != store.Durable && !planted.TombsUnsynced {
			q.lazy.tombs = append(q.lazy.tombs, e)
		} else {
			q.buried(e)
		}
	}
	version := uint64(o.ch.Version)
	o.tell(o.ch.Version, false)
	for j := o.joined; j != nil; {
		next := j.joined
		j.joined = nil
		j.tell(o.ch.Version, true)
		j.reply(version)
		j = next
	}
	o.joined = nil
	o.reply(version)
}

// buried takes a deletion that is durable on every member; its commit, if it has one, may be yet to be sent.
func (q *PG) buried(e wire.SubEntry) {
	if len(q.commits) > 0 && !planted.ForgotUncommitted {
		q.graves = append(q.graves, e)
		return
	}
	q.settled(e)
}

// settled takes a deletion that is all that the members have of its object.
func (q *PG) settled(e wire.SubEntry) {
	if q.clean || planted.TombstoneEarly {
		q.tombs = append(q.tombs, e)
		q.p.armForget()
		return
	}
	if q.waiting = append(q.waiting, e); len(q.waiting) >= max(q.tidyAt, leastTidy) {
		q.tidy()
	}
}

// tell shows the probe what the client is about to be told.
func (o *op) tell(version layout.Version, repeated bool) {
	if b := o.p.o.Probe; b != nil {
		b.Changed(o.q.ID, o.q.Interval, o.id, version, o.trail.Session, o.trail.Sequence, repeated)
	}
}

// reply acknowledges the operation and ends it.
func (o *op) reply(version uint64) {
	o.dirtied()
	o.p.count(o, o.len)
	o.answer(int64(o.len), version)
}

// lapsed reports whether a member's grant has run out.
func (q *PG) lapsed() bool {
	for _, osd := range q.others {
		if !q.p.host.Valid(osd) {
			return true
		}
	}
	return false
}

// conflict answers a CAS whose expectation is not the present version.
func (o *op) conflict(version uint64) {
	o.p.Events.Conflicts++
	o.p.count(o, 0)
	o.answer(wire.EINTR, version)
}

func (o *op) answer(retval int64, version uint64) {
	var h wire.Header
	switch o.code {
	case wire.OpDelete:
		if retval > 0 {
			retval = 0
		}
		m := wire.DeleteReply{Retval: retval, Flags: wire.SupportLeftOnDead, Version: version}
		m.Encode(&h)
	case wire.OpZero:
		m := wire.VersionReply{Op: wire.OpZero, Retval: retval, Version: version}
		m.Encode(&h)
	default:
		m := wire.ReadWriteReply{Op: o.code, Retval: retval, Version: version}
		m.Encode(&h)
	}
	o.r.Reply(&h, nil, nil)
	o.p.put(o)
}
