package client

import (
	"errors"
	"fmt"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
)

// ErrPGsChanged says that the pool's PGs were split while its objects were listed: list again.
var ErrPGsChanged = errors.New("the number of PGs changed during the listing")

const (
	// listsAtOnce is how many PGs are asked at once.
	listsAtOnce = 8
	// listSpan is how many objects of a PG are asked for at once after it had too many for one answer.
	listSpan = 1 << 20
	// lastStripe is beyond every object. On the wire 0 would mean no limit, and 2^64-1 would mean 0.
	lastStripe = cluster.MaxImageSize
	// maxWrong is how often a PG may refuse the question: it may know another number of PGs for a moment.
	maxWrong = 40
)

// Listing is the listing of an inode's objects, PG by PG.
type Listing struct {
	c     *Client
	inode layout.Inode
	each  func(stripe uint64)
	done  func(error)

	g       layout.Geometry
	started bool
	next    uint32 // PG to ask next
	running int
	asks    []*ask
	err     error
	timer   loop.Timer
	over    bool
}

// ask is one PG's listing.
type ask struct {
	s     *Listing
	pg    uint32
	osd   layout.OSDNum
	call  peer.Call
	timer loop.Timer
	idle  bool // waits for a primary
	on    bool

	lo, hi uint64 // stripes that are asked for now
	span   uint64 // how far hi is from lo; 0: all
	wrong  int    // refusals as invalid in a row
}

// ListObjects calls each with the stripe of every object of the inode, in no order, then done, later. A PG without a primary is waited for (Waiting). After an error some
// objects may have been missing.
func (c *Client) ListObjects(inode layout.Inode, each func(stripe uint64), done func(error)) *Listing {
	s := &Listing{c: c, inode: inode, each: each, done: done, next: 1}
	s.timer.Fire = s.begin
	c.lists = append(c.lists, s)
	c.l.Arm(&s.timer, c.l.Now())
	return s
}

// Stop ends the listing; done is called with ErrCanceled, later, once no answer is awaited any more.
func (s *Listing) Stop() {
	if s.err == nil {
		s.err = ErrCanceled
	}
	if !s.over {
		s.c.l.Arm(&s.timer, s.c.l.Now())
	}
}

// Waiting is a PG that the listing waits for because it has no primary; false when there is none.
func (s *Listing) Waiting() (layout.PGID, bool) {
	for _, a := range s.asks {
		if a.on && a.idle {
			return layout.PGID{Pool: s.inode.Pool(), Num: a.pg}, true
		}
	}
	return layout.PGID{}, false
}

func (s *Listing) begin() {
	c := s.c
	if s.over {
		return
	}
	if s.err == nil && !s.started {
		if !c.live {
			c.l.Arm(&s.timer, c.l.Now().Add(c.o.RetryInterval))
			return
		}
		if s.g, s.err = c.Geometry(s.inode.Pool()); s.err == nil && s.g.PGCount == 0 {
			c.l.Arm(&s.timer, c.l.Now().Add(c.o.RetryInterval))
			return
		}
		s.started = true
	}
	for s.err == nil && s.running < listsAtOnce && s.next <= s.g.PGCount {
		a := s.idleAsk()
		a.pg, a.on = s.next, true
		a.lo, a.hi, a.span, a.wrong = 0, lastStripe, 0, 0
		s.next++
		s.running++
		a.send()
	}
	if s.err != nil {
		for _, a := range s.asks {
			if a.on && (a.timer.Armed() || c.hub.Cancel(&a.call)) {
				c.l.Disarm(&a.timer)
				a.on = false
				s.running--
			}
		}
	}
	if s.running == 0 {
		s.finish()
	}
}

func (s *Listing) idleAsk() *ask {
	for _, a := range s.asks {
		if !a.on {
			return a
		}
	}
	a := &ask{s: s}
	a.call.Done = func(*peer.Call) { a.answered() }
	a.timer.Fire = a.send
	s.asks = append(s.asks, a)
	return a
}

func (s *Listing) finish() {
	s.over = true
	s.c.l.Disarm(&s.timer)
	for i, other := range s.c.lists {
		if other == s {
			s.c.lists = append(s.c.lists[:i], s.c.lists[i+1:]...)
			break
		}
	}
	s.c.l.Defer(&s.c.task)
	s.done(s.err)
}

// finishLists ends the listings of a closed client; it runs until none is left.
func (c *Client) finishLists() {
	for _, s := range c.lists {
		c.l.Arm(&s.timer, c.l.Now())
	}
}

func (a *ask) send() {
	s, c := a.s, a.s.c
	if s.err != nil {
		a.end()
		return
	}
	g, err := c.Geometry(s.inode.Pool())
	if err == nil && g.PGCount != s.g.PGCount {
		err = ErrPGsChanged
	}
	if err != nil {
		s.err = err
		a.end()
		return
	}
	_, a.osd = c.primary(s.inode, uint64(a.pg-1)*s.g.PGStripeSize)
	if a.osd == 0 {
		a.idle = true
		c.l.Arm(&a.timer, c.l.Now().Add(c.o.RetryInterval))
		return
	}
	a.idle = false
	m := wire.List{PG: a.pg, PGCount: s.g.PGCount, PGStripeSize: s.g.PGStripeSize, MinInode: s.inode, MaxInode: s.inode, MinStripe: a.lo, MaxStripe: a.hi, Flags: wire.ListPrimary}
	m.Encode(&a.call.Header)
	c.hub.Call(a.osd, &a.call)
}

func (a *ask) end() {
	a.on = false
	a.s.running--
	a.s.c.l.Arm(&a.s.timer, a.s.c.l.Now())
}

func (a *ask) answered() {
	s, c := a.s, a.s.c
	data := a.call.ReplyData
	a.call.ReplyData = nil
	if data != nil {
		defer data.Release()
	}
	if a.call.Err != nil {
		c.l.Arm(&a.timer, c.l.Now().Add(c.o.RetryInterval))
		return
	}
	var m wire.ListReply
	err := m.Decode(&a.call.Reply)
	switch {
	case err != nil:
	case m.Retval == wire.EPIPE, m.Retval == wire.EAGAIN, m.Retval == wire.EBUSY, m.Retval == wire.ENOENT:
		c.l.Arm(&a.timer, c.l.Now().Add(c.o.RetryInterval))
		return
	case m.Retval == wire.EINVAL && a.wrong < maxWrong && s.err == nil:
		a.wrong++
		c.l.Arm(&a.timer, c.l.Now().Add(c.o.RetryInterval))
		return
	case m.Retval == wire.ERANGE && a.hi-a.lo >= s.g.ObjectSize() && s.err == nil:
		if a.span == 0 {
			a.span = listSpan * s.g.ObjectSize() * uint64(s.g.PGCount)
		} else {
			a.span /= 2
		}
		a.hi = a.lo + min(a.span, lastStripe-a.lo)
		c.l.Arm(&a.timer, c.l.Now())
		return
	case m.Retval < 0:
		err = wire.Errno(m.Retval)
	case m.Flags&wire.ListPrimary == 0:
		err = errors.New("it gave only its own objects: upgrade it")
	case data != nil && s.err == nil:
		err = s.take(data.Bytes())
	}
	if err == nil && s.err == nil && a.hi < lastStripe {
		// What comes next may be sparse, as the end of an image is: try more at once.
		a.span = min(2*a.span, lastStripe)
		a.lo, a.wrong = a.hi+1, 0
		a.hi = a.lo + min(a.span, lastStripe-a.lo)
		c.l.Arm(&a.timer, c.l.Now())
		return
	}
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("list PG %d/%d at OSD %d: %w", s.inode.Pool(), a.pg, a.osd, err)
	}
	a.end()
}

func (s *Listing) take(b []byte) error {
	var one [1]wire.Versioned
	for ; len(b) >= wire.VersionedSize; b = b[wire.VersionedSize:] {
		list, err := wire.DecodeVersioned(one[:0], b[:wire.VersionedSize])
		if err != nil {
			return err
		}
		if id := list[0].OID; id.Inode == s.inode {
			s.each(id.Stripe)
		}
	}
	return nil
}
