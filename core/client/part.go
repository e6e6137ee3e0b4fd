package client

import (
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/registry"
)

// partState is where a part is.
type partState uint8

const (
	partIdle    partState = iota
	partBlocked           // an earlier change overlaps
	partReady             // waits for its turn
	partCalling           // the Hub has it
	partWaiting           // for its timer, or for news of the cluster
)

// part is the piece of an Op that falls into one object.
type part struct {
	c     *Client
	op    *Op
	call  peer.Call
	timer loop.Timer
	state partState

	index  int
	stripe uint64
	off    uint32 // within the object
	len    uint32
	at     uint64 // of its first byte, from the Op's start

	// A change that is not aligned, or compares, is a read of [off, off+len) and a write of it:
	rewrite bool
	writing bool
	inOff   uint32 // where the Op's bytes lie in data
	inLen   uint32
	data    *buf.Ref
	version layout.Version // that the write expects, plus 1

	seq      uint64        // in the session; 0: none
	lazy     bool          // it may be acknowledged before it is durable
	explicit bool          // of a ZERO: explicit zeroes
	unknown  bool          // an earlier try may take effect
	primary  layout.OSDNum // asked last; of a local read, the member that was
	local    bool          // a member other than the primary is asked
	stay     bool          // only the primary is asked from now on
	revision registry.Revision
	deadline loop.Instant
	ttl      time.Duration // OpTTL when a change was first sent
	tries    int
	since    loop.Instant // of the first try

	held     bool  // in order
	behind   *part // in order
	blockers int

	links [linkKinds]struct{ prev, next *part }
	list  *partList // that links[inQueue] is in
}

const (
	inQueue   = iota // one of the Client's lists by state, or its free list
	inOp             // of its Op
	inSession        // numbered and not answered, in order
	linkKinds
)

// partList is a list of parts linked through one of their links.
type partList struct {
	which       int
	first, last *part
	n           int
}

func (l *partList) push(p *part) {
	k := &p.links[l.which]
	k.prev, k.next = l.last, nil
	if l.last == nil {
		l.first = p
	} else {
		l.last.links[l.which].next = p
	}
	l.last = p
	l.n++
	if l.which == inQueue {
		p.list = l
	}
}

func (l *partList) remove(p *part) {
	k := &p.links[l.which]
	if k.prev == nil {
		l.first = k.next
	} else {
		k.prev.links[l.which].next = k.next
	}
	if k.next == nil {
		l.last = k.prev
	} else {
		k.next.links[l.which].prev = k.prev
	}
	k.prev, k.next = nil, nil
	l.n--
	if l.which == inQueue {
		p.list = nil
	}
}

// move puts p into the list of a state.
func (p *part) move(s partState) {
	if p.list != nil {
		p.list.remove(p)
	}
	if p.state == partCalling {
		p.c.flying--
		p.c.bytes -= int(p.len)
	}
	p.state = s
	switch s {
	case partBlocked:
		p.c.blocked.push(p)
	case partReady:
		p.c.ready.push(p)
	case partCalling:
		p.c.flying++
		p.c.bytes += int(p.len)
		p.c.calling.push(p)
	case partWaiting:
		p.c.waiting.push(p)
	}
}

func (c *Client) newPart(op *Op) *part {
	p := c.free.first
	if p == nil {
		p = &part{c: c}
		p.call.Done = func(*peer.Call) { c.called(p) }
		p.timer.Fire = func() {
			p.move(partReady)
			c.pump()
		}
	} else {
		c.free.remove(p)
	}
	p.op = op
	p.links[inOp].prev, p.links[inOp].next = nil, op.first
	if op.first != nil {
		op.first.links[inOp].prev = p
	}
	op.first = p
	op.active++
	return p
}

// endPart takes p from its Op, with what became of it.
func (c *Client) endPart(p *part, err error) {
	op := p.op
	if err != nil {
		op.fail(err)
	}
	p.move(partIdle)
	c.l.Disarm(&p.timer)
	if op.Session != nil {
		op.Session.answered(p)
	}
	c.order.leave(p, func(q *part) { q.move(partReady) })
	if p.data != nil {
		p.data.Release()
		p.data = nil
	}
	k := &p.links[inOp]
	if k.prev == nil {
		op.first = k.next
	} else {
		k.prev.links[inOp].next = k.next
	}
	if k.next != nil {
		k.next.links[inOp].prev = k.prev
	}
	k.prev, k.next = nil, nil
	for i := range p.call.Payload {
		p.call.Payload[i] = peer.Piece{}
	}
	p.call.Payload = p.call.Payload[:0]
	c.keep.came(p)
	p.op, p.rewrite, p.writing, p.unknown, p.explicit = nil, false, false, false, false
	p.primary, p.revision, p.deadline, p.ttl, p.tries, p.version = 0, 0, 0, 0, 0, 0
	p.local, p.stay = false, false
	c.free.push(p)
	op.active--
	if err != nil {
		c.abandon(op)
	}
	c.advance(op)
}

// abandon drops the parts of a failed Op that cannot take effect: it would end with an error anyway. A part that may take effect is asked for until that is known,
// unless the session is over.
func (c *Client) abandon(op *Op) {
	over := rank(op.Err) >= 5
	for p := op.first; p != nil; {
		next := p.links[inOp].next
		if p.state != partCalling && p.state != partIdle && (over || !p.unknown) {
			p.state = partIdle
			if p.list != nil {
				p.list.remove(p)
			}
			c.dropped = append(c.dropped, p)
		}
		p = next
	}
	for len(c.dropped) > 0 {
		p := c.dropped[len(c.dropped)-1]
		c.dropped = c.dropped[:len(c.dropped)-1]
		c.endPart(p, nil)
	}
}
