package client

import (
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
)

// SessionBits is cluster.SessionBits: how many low bits of a session's id count the sessions of one instance.
const SessionBits = cluster.SessionBits

// MaxInstance is the largest Options.Instance.
const MaxInstance = 1<<(64-SessionBits) - 1

// Session is the identity of one writer, which is never used again: an I_T nexus, an NBD connection, a run of a command.
type Session struct {
	c      *Client
	id     uint64
	alive  func() loop.Instant
	next   uint64 // sequence
	sent   partList
	kept   []*kept // copies, in the order of their sequence: no OSD may forget their requests
	ops    int
	held   bool // parts wait for the window
	fenced bool
	closed bool
	done   func()
}

// sessionWindow is how far a session's sequence may be ahead of the lowest that has no answer. OSDs remember every change from that one on: when one waits for ever, they must not be made to
// remember all that others of the session do meanwhile.
const sessionWindow = 4096

// NewSession makes a session. alive is when its client last showed life: a change is not begun later than Options.OpTTL after that. nil means that the client is this process.
func (c *Client) NewSession(alive func() loop.Instant) *Session {
	s := &Session{c: c, alive: alive, next: 1, sent: partList{which: inSession}}
	n := c.sessions*uint64(c.o.Lanes) + uint64(c.o.Lane) + 1
	if n < 1<<SessionBits {
		c.sessions++
		s.id = c.o.Instance<<SessionBits | n
	}
	return s
}

// ID is the session's id, which fences name; 0 when the instance has used up its ids: then every change fails with ErrSessions.
func (s *Session) ID() uint64 { return s.id }

// Fenced reports whether an OSD has refused the session.
func (s *Session) Fenced() bool { return s.fenced }

// Fence ends the session from this side: what was not sent ends with ErrFenced, what was sent is asked for no more. Fencing at the OSDs is the caller's (fence/ keys).
func (s *Session) Fence() {
	s.fenced = true
	s.c.dropSession(s, ErrFenced)
}

// Close ends the session: new operations fail with ErrClosed; done (which may be nil) is called later, after the running ones have completed.
func (s *Session) Close(done func()) {
	s.closed = true
	s.done = done
	if s.ops == 0 {
		s.c.closing = append(s.c.closing, s)
		s.c.l.Defer(&s.c.task)
	}
}

// deadline is the moment until which p, a change, may be begun. All tries of p go by the OpTTL of the first, so that a later one never has an earlier deadline.
func (s *Session) deadline(p *part, now loop.Instant) loop.Instant {
	if p.ttl == 0 {
		p.ttl = s.c.o.OpTTL
	}
	if s.alive != nil {
		now = min(now, s.alive())
	}
	return now.Add(p.ttl)
}

// low is the lowest sequence without an answer.
func (s *Session) low() uint64 {
	low := s.next
	if p := s.sent.first; p != nil {
		low = p.seq
	}
	if len(s.kept) > 0 {
		low = min(low, s.kept[0].seq)
	}
	return low
}

// number gives p its sequence, which it keeps until it has an answer.
func (s *Session) number(p *part) {
	if p.seq == 0 {
		p.seq = s.next
		s.next++
		s.sent.push(p)
	}
}

// answered takes p's sequence back.
func (s *Session) answered(p *part) {
	if p.seq != 0 {
		s.sent.remove(p)
		p.seq = 0
		if s.held && !s.full() {
			s.held = false
			s.c.unhold(s)
		}
	}
}

// full reports whether no further change may be sent before the oldest one is answered.
func (s *Session) full() bool { return s.next-s.low() >= sessionWindow }

// unhold sends what waited for the session's window.
func (c *Client) unhold(s *Session) {
	for p := c.waiting.first; p != nil; {
		next := p.links[inQueue].next
		if p.op.Session == s && p.seq == 0 && p.primary != 0 {
			c.l.Disarm(&p.timer)
			p.move(partReady)
		}
		p = next
	}
}

// check says why the session may not be used.
func (s *Session) check(k Kind) error {
	switch {
	case s.closed:
		return ErrClosed
	case s.fenced:
		return ErrFenced
	case s.id == 0 && k.changes():
		return ErrSessions
	}
	return nil
}

// InstanceOf is the instance that a session's id belongs to.
func InstanceOf(session uint64) uint64 { return session >> SessionBits }

// objectOf names a part's object.
func (p *part) objectOf() layout.ObjectID {
	return layout.ObjectID{Inode: p.op.Inode, Stripe: p.stripe}
}
