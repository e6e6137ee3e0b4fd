package client

import (
	"errors"
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
)

// Unclean is an object that is not whole.
type Unclean struct {
	Object  layout.ObjectID
	State   ObjectState // 0 when the OSD, a stock one, does not tell
	Deleted bool        // it is to be deleted
	Copies  []Copy
}

// ObjectState is what is wrong with an object, one bit for each.
type ObjectState uint8

// The bits of ObjectState: one of the first three, and what is besides.
const (
	Degraded     = ObjectState(wire.ObjectDegraded)
	Misplaced    = ObjectState(wire.ObjectMisplaced)
	Incomplete   = ObjectState(wire.ObjectIncomplete)
	Corrupted    = ObjectState(wire.ObjectCorrupted)
	Inconsistent = ObjectState(wire.ObjectInconsistent)
)

// Copy is a copy of an Unclean, or the place for one.
type Copy struct {
	OSD   layout.OSDNum
	Part  uint32 // of an erasure-coded object; 0
	State CopyState
}

// CopyState is what a copy is like.
type CopyState uint8

// The states of copies.
const (
	CopyWhole CopyState = iota
	CopyOutdated
	CopyCorrupted
	CopyInconsistent
	CopyMissing
)

// Query says which objects of a PG are asked for.
type Query struct {
	States   ObjectState     // in one of these; 0: in any
	From, To layout.ObjectID // the first and the last; a zero inode or stripe of To: there is no last one
	Most     int             // so many at most [all]
	Page     int             // copies in one answer, about [4096]
}

// Describing asks a PG's primary which objects are not whole, and where their copies are.
type Describing struct {
	c     *Client
	pg    layout.PGID
	ask   wire.Describe
	most  int
	done  func(list []Unclean, more bool, err error)
	list  []Unclean
	items []wire.DescribeItem
	call  peer.Call
	timer loop.Timer
	osd   layout.OSDNum
	tries int
	over  bool
}

const (
	// describePage is Query.Page where it is not set.
	describePage = 4096
	// describeTries is how often a PG is asked that has just gone elsewhere.
	describeTries = 40
)

// Describe asks for the objects of a PG that are not whole. done is called later, once, with what was found, in order; more says that there are others.
func (c *Client) Describe(pg layout.PGID, q Query, done func(list []Unclean, more bool, err error)) *Describing {
	d := &Describing{c: c, pg: pg, most: q.Most, done: done}
	def(&q.Page, describePage)
	d.ask = wire.Describe{ObjectState: uint64(q.States), MinInode: q.From.Inode, MinOffset: q.From.Stripe, MaxInode: q.To.Inode, MaxOffset: q.To.Stripe, Limit: uint64(q.Page), Pool: uint32(pg.Pool), PG: pg.Num}
	d.call.Done = func(*peer.Call) { d.answered() }
	d.timer.Fire = d.send
	c.l.Arm(&d.timer, c.l.Now())
	return d
}

// Stop gives up; done is not called any more.
func (d *Describing) Stop() {
	d.over = true
	d.c.l.Disarm(&d.timer)
	d.c.hub.Cancel(&d.call)
}

func (d *Describing) send() {
	c := d.c
	if d.over {
		return
	}
	if c.closed {
		d.end(false, ErrClosed)
		return
	}
	if d.osd = c.snap.Primary(d.pg); d.osd == 0 {
		d.again(errors.New("nobody serves it"))
		return
	}
	d.ask.Encode(&d.call.Header)
	c.hub.Call(d.osd, &d.call)
}

func (d *Describing) again(err error) {
	if d.tries++; d.tries == describeTries {
		d.end(false, err)
		return
	}
	d.c.l.Arm(&d.timer, d.c.l.Now().Add(d.c.o.RetryInterval))
}

func (d *Describing) end(more bool, err error) {
	if err != nil {
		err = fmt.Errorf("describe the objects of PG %v: %w", d.pg, err)
	}
	d.over = true
	d.done(d.list, more, err)
}

func (d *Describing) answered() {
	data := d.call.ReplyData
	d.call.ReplyData = nil
	if data != nil {
		defer data.Release()
	}
	if d.over {
		return
	}
	var m wire.DescribeReply
	switch err := d.call.Err; {
	case err != nil:
		d.again(err)
		return
	case m.Decode(&d.call.Reply) != nil:
		d.end(false, errReply)
		return
	case m.Retval == wire.EPIPE:
		d.again(fmt.Errorf("OSD %d: %w", d.osd, wire.Errno(m.Retval)))
		return
	case m.Retval < 0:
		d.end(false, fmt.Errorf("OSD %d: %w", d.osd, wire.Errno(m.Retval)))
		return
	case m.Retval == 0:
		d.end(false, nil)
		return
	}
	var err error
	if d.items = d.items[:0]; data != nil {
		d.items, err = wire.DecodeDescribeItems(d.items, data.Bytes())
	}
	if err != nil || len(d.items) == 0 {
		d.end(false, errReply)
		return
	}
	d.take()
	if d.most > 0 && len(d.list) > d.most {
		d.list = d.list[:d.most]
		d.end(true, nil)
		return
	}
	last := d.items[len(d.items)-1].OID
	next := layout.ObjectID{Inode: last.Inode, Stripe: last.Stripe + 1}
	if from := (layout.ObjectID{Inode: d.ask.MinInode, Stripe: d.ask.MinOffset}); next.Inode < from.Inode || next.Inode == from.Inode && next.Stripe <= from.Stripe {
		d.end(false, errReply) // it does not get on
		return
	}
	d.ask.MinInode, d.ask.MinOffset, d.tries = next.Inode, next.Stripe, 0
	d.c.l.Arm(&d.timer, d.c.l.Now())
}

// take adds the objects of an answer.
func (d *Describing) take() {
	for i := range d.items {
		it := &d.items[i]
		if i == 0 || it.OID != d.items[i-1].OID {
			d.list = append(d.list, Unclean{Object: it.OID, State: ObjectState(it.State()), Deleted: it.Bad&wire.LocDeleted != 0})
		}
		v := &d.list[len(d.list)-1]
		v.Copies = append(v.Copies, Copy{it.OSD, it.Role, copyState(it.Bad)})
	}
}

func copyState(bad uint32) CopyState {
	for _, f := range [...]struct {
		bit   uint32
		state CopyState
	}{{wire.LocCorrupted, CopyCorrupted}, {wire.LocInconsistent, CopyInconsistent}, {wire.LocMissing, CopyMissing}, {wire.LocOutdated, CopyOutdated}} {
		if bad&f.bit != 0 {
			return f.state
		}
	}
	return CopyWhole
}
