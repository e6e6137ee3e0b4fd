package client

import (
	"cmp"
	"errors"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
)

// keeper has the copies of changes with Op.Lazy that were acknowledged and are perhaps not durable, until a SYNC to the OSD that acknowledged them is answered (docs/adr/0014-lazy-sync.md).
//
// When the connection to that OSD ends, or another OSD serves the object, the object's copies are sent again, one after the other in the order in which they were made, under the same pairs; whatever else concerns the object
// waits until that is over. A copy that was lost and that another client has overtaken since is refused, and dropped.
type keeper struct {
	objects map[layout.ObjectID]*keptObject
	first   *kept // in the order in which they were acknowledged
	last    *kept
	n       int
	bytes   int
	coming  int // changes under way of which copies will be kept, and bytes
	comingB int
	count   uint64 // of all that were ever kept
	free    *kept
	spare   *keptObject
	syncs   []*osdSync
	flushes []*Op
	lost    error // why a copy could not be sent again: the next Flush says so
	held    bool  // a session's window is full of them
	timer   loop.Timer
}

// kept is one copy.
type kept struct {
	c          *Client
	o          *keptObject
	call       peer.Call
	session    *Session
	code       wire.Opcode
	explicit   bool // of a ZERO: explicit zeroes
	off, len   uint32
	data       *buf.Ref
	seq        uint64
	number     uint64
	osd        layout.OSDNum // that acknowledged it last
	again      bool          // it has to be sent again
	sync       *osdSync      // covers it
	prev, next *kept
}

// keptObject is the copies of one object.
type keptObject struct {
	id     layout.ObjectID
	list   []*kept        // in the order in which they were acknowledged: those that overlap were made in that order
	mine   layout.Version // the newest that this client has made
	asking *kept          // is on its way
	timer  loop.Timer
	next   *keptObject
}

// osdSync is a SYNC to one OSD.
type osdSync struct {
	osd     layout.OSDNum
	call    peer.Call
	running bool
}

// keeperHandler is the Client as its Hub sees it.
type keeperHandler struct{ c *Client }

// Serve refuses: nobody asks a client.
func (keeperHandler) Serve(r *peer.Request) { r.Fail(wire.ENOSYS) }

// PeerUp tells nothing of use.
func (keeperHandler) PeerUp(layout.OSDNum) {}

// PeerDown has what the OSD acknowledged sent again.
func (h keeperHandler) PeerDown(osd layout.OSDNum, _ error) {
	h.c.o.Registry.Doubt()
	h.c.unsure(osd)
}

// IncomingDown tells nothing of use.
func (keeperHandler) IncomingDown(*peer.Incoming) {}

// mayKeep decides for a change that is sent for the first time whether it may be acknowledged before it is durable.
func (c *Client) mayKeep(p *part) bool {
	op, k := p.op, &c.keep
	pl := c.pools[op.Inode.Pool()]
	if !op.Lazy || op.CAS != 0 || p.rewrite || pl == nil || !pl.lazy || k.n+k.coming >= c.o.MaxDirtyOps || k.bytes+k.comingB+int(p.len) > c.o.MaxDirtyBytes {
		return false
	}
	k.coming++
	k.comingB += int(p.len)
	return true
}

// came notes the end of a change of which a copy was to be kept.
func (k *keeper) came(p *part) {
	if p.lazy {
		p.lazy = false
		k.coming--
		k.comingB -= int(p.len)
	}
}

// retain keeps a copy of p, which has just been acknowledged.
func (c *Client) retain(p *part, version layout.Version) {
	k := &c.keep
	e := k.free
	if e == nil {
		e = &kept{c: c}
		e.call.Done = func(*peer.Call) { c.keptAnswer(e) }
	} else {
		k.free, e.next = e.next, nil
	}
	k.count++
	e.session, e.code, e.explicit, e.off, e.len, e.seq, e.number, e.osd = p.op.Session, p.opcode(), p.explicit, p.off, p.len, p.seq, k.count, p.primary
	if e.code == wire.OpWrite {
		e.data = c.l.Alloc(int(p.len))
		b := e.data.Bytes()
		for _, q := range p.call.Payload {
			b = b[copy(b, q.Ref.Bytes()[q.Off:q.Off+q.Len]):]
		}
		k.bytes += int(p.len)
	}
	e.session.keep(p, e)
	id := p.objectOf()
	o := k.objects[id]
	if o == nil {
		if o = k.spare; o == nil {
			o = &keptObject{}
			o.timer.Fire = func() { c.resend(o) }
		} else {
			k.spare, o.next = o.next, nil
		}
		o.id, o.mine = id, 0
		k.objects[id] = o
	}
	e.o, o.mine = o, max(o.mine, version)
	o.list = append(o.list, e)
	if e.prev = k.last; k.last == nil {
		k.first = e
	} else {
		k.last.next = e
	}
	k.last = e
	k.n++
	c.syncKept()
}

// made notes that this client has changed an object in some other way.
func (c *Client) made(id layout.ObjectID, version layout.Version) {
	if o := c.keep.objects[id]; o != nil {
		o.mine = max(o.mine, version)
	}
}

// release drops a copy.
func (c *Client) release(e *kept) {
	k, o := &c.keep, e.o
	if e.prev == nil {
		k.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		k.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	k.n--
	if e.data != nil {
		k.bytes -= int(e.len)
		e.data.Release()
	}
	i := slices.Index(o.list, e)
	o.list = slices.Delete(o.list, i, i+1)
	if len(o.list) == 0 {
		c.l.Disarm(&o.timer)
		delete(k.objects, o.id)
		o.next, k.spare = k.spare, o
	}
	e.session.unkeep(e)
	e.call.Payload = e.call.Payload[:0]
	e.o, e.session, e.data, e.sync, e.prev, e.again = nil, nil, nil, nil, nil, false
	e.next, k.free = k.free, e
}

// unsure has everything sent again that an OSD acknowledged: the connection has ended, and with it perhaps the interval.
func (c *Client) unsure(osd layout.OSDNum) {
	c.recall(func(e *kept) bool { return e.osd == osd })
}

// moved has everything sent again of objects that another OSD serves now.
func (c *Client) moved() {
	elsewhere := func(e *kept) bool {
		_, osd := c.primary(e.o.id.Inode, e.o.id.Stripe)
		return osd != 0 && osd != e.osd
	}
	var late []*keptObject
	for e := c.keep.first; e != nil; e = e.next {
		o := e.o
		if !e.again || slices.Contains(late, o) {
			continue
		}
		if a := o.asking; a != nil && elsewhere(a) && c.hub.Cancel(&a.call) {
			o.asking = nil
		}
		late = append(late, o)
	}
	c.recall(elsewhere)
	for _, o := range late {
		c.resend(o)
	}
}

func (c *Client) recall(which func(*kept) bool) {
	var objects []*keptObject // a rare path: may allocate
	for e := c.keep.first; e != nil; e = e.next {
		if !e.again && which(e) {
			e.again, e.sync = true, nil
			if !slices.Contains(objects, e.o) {
				objects = append(objects, e.o)
			}
		}
	}
	for _, o := range objects {
		c.resend(o)
	}
}

// detained reports whether p has to wait until copies of its object, which osd serves now, have been sent again.
func (c *Client) detained(p *part, osd layout.OSDNum) bool {
	o := c.keep.objects[p.objectOf()]
	if o == nil {
		return false
	}
	if slices.ContainsFunc(o.list, func(e *kept) bool { return e.osd != osd && !e.again }) {
		c.moved()
		return true
	}
	return slices.ContainsFunc(o.list, func(e *kept) bool { return e.again })
}

// resend sends the first copy of an object that has to be sent again; when there is none, what waits for it goes on.
func (c *Client) resend(o *keptObject) {
	if c.closed || o.asking != nil || c.keep.objects[o.id] != o {
		return
	}
	i := slices.IndexFunc(o.list, func(e *kept) bool { return e.again })
	if i < 0 {
		c.undetain(o.id)
		return
	}
	e := o.list[i]
	_, osd := c.primary(o.id.Inode, o.id.Stripe)
	if osd == 0 {
		c.l.Arm(&o.timer, c.l.Now().Add(recheck))
		return
	}
	if e.session.fenced {
		c.forsake(e, ErrFenced)
		return
	}
	c.l.Disarm(&o.timer)
	now := c.l.Now()
	e.osd = osd
	e.call.Deadline = now.Add(c.o.OpTTL)
	t := wire.Trailer{Session: e.session.id, Sequence: e.seq, Low: e.session.low()}
	flags := wire.FlagLazy | wire.FlagReplay
	if e.code == wire.OpZero {
		m := wire.Zero{Inode: o.id.Inode, Offset: o.id.Stripe + uint64(e.off), Len: e.len, Flags: flags, Version: uint64(o.mine), Trailer: t}
		if e.explicit {
			m.Flags |= wire.ZeroKeepWritten
		}
		m.Encode(&e.call.Header)
	} else {
		m := wire.ReadWrite{Op: e.code, Inode: o.id.Inode, Offset: o.id.Stripe + uint64(e.off), Len: e.len, Flags: flags, Version: uint64(o.mine), Trailer: t}
		m.Encode(&e.call.Header)
	}
	e.call.Payload = e.call.Payload[:0]
	if e.data != nil {
		e.call.Payload = append(e.call.Payload, wirePiece(e.data, 0, int(e.len)))
	}
	o.asking = e
	c.Stats.Replayed++
	c.hub.Call(osd, &e.call)
}

// keptAnswer takes the answer to a copy that was sent again.
func (c *Client) keptAnswer(e *kept) {
	o, call := e.o, &e.call
	o.asking = nil
	if call.ReplyData != nil {
		call.ReplyData.Release()
		call.ReplyData = nil
	}
	if c.closed {
		c.release(e)
		return
	}
	retry := func() { c.l.Arm(&o.timer, c.l.Now().Add(c.o.RetryInterval)) }
	if call.Err != nil {
		c.unsure(e.osd)
		retry()
		return
	}
	switch errno := call.Reply.Retval(); errno {
	case wire.EPIPE, wire.EAGAIN, wire.EBUSY, wire.ENOENT, wire.ENOMEM, wire.EIO, wire.ENOSPC, wire.ETIMEDOUT:
		retry()
	case wire.EEXIST:
		c.Stats.Overtaken++
		c.forsake(e, ErrOvertaken)
	default:
		version, ok := replyVersion(&call.Reply)
		if errno < 0 || !ok {
			c.forsake(e, &RefusedError{e.osd, o.id, wire.Errno(errno)})
			return
		}
		e.again = false
		o.mine = max(o.mine, version)
		c.resend(o)
	}
}

// discard drops a copy that is not to be sent again, and goes on with its object.
func (c *Client) discard(e *kept) {
	o := e.o
	alone := len(o.list) == 1
	id := o.id
	c.release(e)
	if !alone {
		c.resend(o)
		return
	}
	c.undetain(id)
}

// undetain lets those go on that waited for an object's copies.
func (c *Client) undetain(id layout.ObjectID) {
	for p := c.waiting.first; p != nil; {
		next := p.links[inQueue].next
		if p.objectOf() == id {
			c.l.Disarm(&p.timer)
			p.move(partReady)
		}
		p = next
	}
	c.syncKept()
	c.pump()
}

// forsake gives a copy up that cannot be written again.
func (c *Client) forsake(e *kept, err error) {
	c.log.Error("a change that was not synced is lost", "object", e.o.id.String(), "offset", e.off, "len", e.len, "err", err)
	if c.keep.lost == nil {
		c.keep.lost = err
	}
	c.discard(e)
}

// flush ends op when everything that is kept now is durable.
func (c *Client) flush(op *Op) {
	op.touched = true // it is not taken back any more
	op.upTo = c.keep.count
	c.keep.flushes = append(c.keep.flushes, op)
	c.syncKept()
}

// syncKept asks the OSDs to make durable what is kept, if somebody waits for that or too much is kept, and ends the Flushes that need wait no longer.
func (c *Client) syncKept() {
	k := &c.keep
	for len(k.flushes) > 0 {
		op := k.flushes[0]
		if k.first != nil && k.first.number <= op.upTo {
			break
		}
		k.flushes = slices.Delete(k.flushes, 0, 1)
		if k.lost != nil {
			op.fail(k.lost)
			k.lost = nil
		}
		op.active--
		c.advance(op)
	}
	if len(k.flushes) == 0 && !k.held && k.n < c.o.MaxDirtyOps/2 && k.bytes < c.o.MaxDirtyBytes/2 || c.closed {
		return
	}
	for e := k.first; e != nil; e = e.next {
		if e.again || e.sync != nil {
			continue
		}
		s := c.syncOf(e.osd)
		if s.running {
			continue // what has come since has the next one
		}
		for f := e; f != nil; f = f.next {
			if f.osd == e.osd && !f.again && f.sync == nil {
				f.sync = s
			}
		}
		s.running = true
		var m wire.Sync
		m.Encode(&s.call.Header)
		c.hub.Call(s.osd, &s.call)
	}
}

func (c *Client) syncOf(osd layout.OSDNum) *osdSync {
	for _, s := range c.keep.syncs {
		if s.osd == osd {
			return s
		}
	}
	s := &osdSync{osd: osd}
	s.call.Done = func(*peer.Call) { c.synced(s) }
	c.keep.syncs = append(c.keep.syncs, s)
	return s
}

// synced takes the answer to a SYNC: copies that it covered, and that had not to be sent again meanwhile, are needed no more.
func (c *Client) synced(s *osdSync) {
	k := &c.keep
	s.running = false
	if c.closed {
		return
	}
	failed := s.call.Err != nil || s.call.Reply.Retval() != 0
	for e := k.first; e != nil; {
		next := e.next
		if e.sync == s || planted.CopyLetGo && e.osd == s.osd && !e.again {
			e.sync = nil
			if !failed {
				c.release(e)
			}
		}
		e = next
	}
	switch {
	case s.call.Err != nil:
		c.unsure(s.osd)
	case failed:
		c.l.Arm(&k.timer, c.l.Now().Add(c.o.RetryInterval))
		return
	}
	k.held = false
	c.syncKept()
}

// closeKept drops all copies: the Client is closed.
func (c *Client) closeKept() {
	k := &c.keep
	c.l.Disarm(&k.timer)
	for e := k.first; e != nil; {
		next := e.next
		if e.o.asking != e {
			c.release(e)
		}
		e = next
	}
	for _, op := range k.flushes {
		op.fail(ErrClosed)
		op.active--
		c.advance(op)
	}
	k.flushes = nil
}

var errNotKept = errors.New("client: a copy is not among those of its session")

// keep takes p's number over to its copy.
func (s *Session) keep(p *part, e *kept) {
	s.sent.remove(p)
	p.seq = 0
	at, _ := slices.BinarySearchFunc(s.kept, e, func(a, b *kept) int { return cmp.Compare(a.seq, b.seq) })
	s.kept = slices.Insert(s.kept, at, e)
}

func (s *Session) unkeep(e *kept) {
	i := slices.Index(s.kept, e)
	if i < 0 {
		panic(errNotKept)
	}
	s.kept = slices.Delete(s.kept, i, i+1)
	if s.held && !s.full() {
		s.held = false
		s.c.unhold(s)
	}
}
