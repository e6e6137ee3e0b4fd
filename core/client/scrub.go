package client

import (
	"errors"
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
)

// Found is what a comparison has found.
type Found = wire.Found

// The findings, see wire.Found.
const (
	FoundSame         = wire.FoundSame
	FoundNothing      = wire.FoundNothing
	FoundBad          = wire.FoundBad
	FoundInconsistent = wire.FoundInconsistent
	FoundLost         = wire.FoundLost
	FoundUnclean      = wire.FoundUnclean
)

// AnyPart is whatever part of an object an OSD has.
const AnyPart = wire.AnyPart

// Compared is what the comparison of an object's copies, or chunks, has found.
type Compared struct {
	Found Found
	Bytes uint64 // read, of all copies
	Bad   int    // copies that were wrong
}

// Comparing has a primary compare what there is of one object.
type Comparing struct {
	c     *Client
	pg    layout.PGID
	what  string
	ask   wire.Header
	done  func(Compared, error)
	call  peer.Call
	timer loop.Timer
	osd   layout.OSDNum
	tries int
	over  bool
}

// ErrNotWrong says that nothing of an object is wrong or in doubt on an OSD.
var ErrNotWrong = errors.New("nothing of the object is wrong or in doubt there")

// ErrNoneLeft says that too little of an object would be left.
var ErrNoneLeft = errors.New("too little that may be right would be left of the object")

// Scrub compares all that there is of an object, and has what is wrong made anew. done is called later, once. A primary that is about to change is waited for, for a few seconds.
func (c *Client) Scrub(id layout.ObjectID, done func(Compared, error)) *Comparing {
	m := wire.ReadWrite{Op: wire.OpScrub, Inode: id.Inode, Offset: id.Stripe}
	d := &Comparing{c: c, what: "scrub", done: done}
	m.Encode(&d.ask)
	d.begin(id)
	return d
}

// Fix has what an OSD has of an object made anew from the others; part is that of an erasure-coded object, or AnyPart. Errors: ErrNotWrong, ErrNoneLeft.
func (c *Client) Fix(id layout.ObjectID, osd layout.OSDNum, part uint32, done func(Compared, error)) *Comparing {
	m := wire.Fix{Object: id, OSD: osd, Part: part}
	d := &Comparing{c: c, what: "fix", done: done}
	m.Encode(&d.ask)
	d.begin(id)
	return d
}

func (d *Comparing) begin(id layout.ObjectID) {
	d.what = fmt.Sprintf("%s object %v", d.what, id)
	d.call.Done = func(*peer.Call) { d.answered() }
	d.timer.Fire = func() { d.send(id) }
	d.c.l.Arm(&d.timer, d.c.l.Now())
}

// Stop gives up; done is not called any more.
func (d *Comparing) Stop() {
	d.over = true
	d.c.l.Disarm(&d.timer)
	d.c.hub.Cancel(&d.call)
}

func (d *Comparing) send(id layout.ObjectID) {
	c := d.c
	if d.over {
		return
	}
	if c.closed {
		d.end(Compared{}, ErrClosed)
		return
	}
	g, err := c.snap.Geometry(id.Inode.Pool())
	if err != nil || g.PGCount == 0 {
		d.again(errors.New("its pool has no PGs"))
		return
	}
	d.pg = layout.PGID{Pool: id.Inode.Pool(), Num: g.PG(g.Stripe(id.Stripe))}
	if d.osd = c.snap.Primary(d.pg); d.osd == 0 {
		d.again(fmt.Errorf("nobody serves PG %v", d.pg))
		return
	}
	d.call.Header = d.ask
	c.hub.Call(d.osd, &d.call)
}

func (d *Comparing) again(err error) {
	if d.tries++; d.tries == describeTries {
		d.end(Compared{}, err)
		return
	}
	d.c.l.Arm(&d.timer, d.c.l.Now().Add(d.c.o.RetryInterval))
}

func (d *Comparing) end(found Compared, err error) {
	if err != nil {
		err = fmt.Errorf("%s: %w", d.what, err)
	}
	d.over = true
	d.done(found, err)
}

func (d *Comparing) answered() {
	if d.over {
		return
	}
	var m wire.ScrubReply
	switch err := d.call.Err; {
	case err != nil:
		d.again(err)
	case m.Decode(&d.call.Reply) != nil:
		d.end(Compared{}, errReply)
	case m.Retval == wire.EPIPE:
		d.again(fmt.Errorf("OSD %d: %w", d.osd, wire.Errno(m.Retval)))
	case m.Retval == wire.ENOENT:
		d.end(Compared{}, ErrNotWrong)
	case m.Retval == wire.ERANGE:
		d.end(Compared{}, ErrNoneLeft)
	case m.Retval < 0:
		d.end(Compared{}, fmt.Errorf("OSD %d: %w", d.osd, wire.Errno(m.Retval)))
	default:
		d.end(Compared{m.Found, m.Bytes, int(m.Bad)}, nil)
	}
}
