package client

import (
	"errors"
	"fmt"

	"holdfast/core/wire"
)

// Submit starts op: Done is called later, once, on this loop.
func (c *Client) Submit(op *Op) {
	if op.submitted {
		panic(fmt.Sprintf("client: %v of inode %v was submitted twice", op.Kind, op.Inode))
	}
	op.c, op.submitted, op.finished, op.begun, op.touched = c, true, false, false, false
	op.Err, op.Version, op.Parts, op.bits = nil, 0, op.Parts[:0], op.bits[:0]
	op.cursor, op.end, op.index, op.active, op.blockers, op.first = op.Offset, op.Offset+op.Len, 0, 0, 0, nil
	op.next, op.prev, op.list = nil, nil, nil
	c.ops++
	c.Stats.Ops++
	if op.Session != nil {
		op.Session.ops++
	}
	if err := c.admit(op); err != nil {
		op.Err = err
		c.finish(op)
		return
	}
	if op.Kind.changes() {
		for q := c.changes.first; q != nil; q = q.next {
			if overlap(q, op) {
				op.blockers++
			}
		}
		c.changes.push(op)
	} else {
		c.reads.push(op)
	}
	c.advance(op)
	c.pump()
}

// admit checks what can be checked without knowing the cluster.
func (c *Client) admit(op *Op) error {
	if op.Session == nil && op.Kind.changes() {
		panic(fmt.Sprintf("client: %v of inode %v has no session", op.Kind, op.Inode))
	}
	switch {
	case c.closed:
		return ErrClosed
	case c.ops > c.o.MaxOps:
		return ErrBusy
	case op.end < op.Offset:
		return ErrTooLong
	}
	if op.Session != nil {
		if err := op.Session.check(op.Kind); err != nil {
			return err
		}
	}
	switch op.Kind {
	case Read, Write, CompareWrite:
		if op.Len > MaxLen {
			return ErrTooLong
		}
	case ReadBitmap, Zero, Delete, Flush:
	default:
		return fmt.Errorf("there is no %v", op.Kind)
	}
	if op.Kind == Write || op.Kind == CompareWrite {
		checkPieces(op, op.Pieces)
	}
	if op.Kind == CompareWrite {
		checkPieces(op, op.Compare)
	}
	return nil
}

func checkPieces(op *Op, pieces []Piece) {
	n := uint64(0)
	for _, p := range pieces {
		n += uint64(p.Len)
	}
	if n != op.Len {
		panic(fmt.Sprintf("client: %v of %d bytes of inode %v has pieces of %d bytes", op.Kind, op.Len, op.Inode, n))
	}
}

// begin checks what the pool says.
func (c *Client) begin(op *Op) error {
	op.begun = true
	pl, err := c.pool(op.Inode.Pool())
	if err != nil {
		return err
	}
	g := uint64(pl.g.Granularity)
	single := op.Offset/pl.size == (max(op.end, op.Offset+1)-1)/pl.size
	switch {
	case op.CAS != 0 && op.Kind.changes() && (!single || op.Offset%g != 0 || op.Len%g != 0 || op.Kind == CompareWrite),
		op.Kind == CompareWrite && !single,
		op.Kind == Delete && (op.Offset%pl.size != 0 || op.Len%pl.size != 0):
		return ErrAlignment
	case op.Kind == ReadBitmap && op.Len/pl.size >= MaxBitmapObjects-1:
		return ErrTooLong
	}
	return nil
}

// startAll begins what waited for the first snapshot.
func (c *Client) startAll() {
	var all []*Op
	for _, l := range [...]*opList{&c.changes, &c.reads} {
		for op := l.first; op != nil; op = op.next {
			all = append(all, op)
		}
	}
	for _, op := range all {
		c.advance(op)
	}
	c.pump()
}

// advance cuts further parts off op, as many as may be under way, and finishes it when all are done.
func (c *Client) advance(op *Op) {
	if op.slicing || op.finished {
		return
	}
	if op.list != nil {
		if c.live && op.blockers == 0 && op.Err == nil {
			op.slicing = true
			if !op.begun {
				op.Err = c.begin(op)
			}
			for op.cursor < op.end && op.active < partsPerOp && op.Err == nil && op.Kind != Flush {
				c.slice(op)
			}
			op.slicing = false
		}
		if op.Err != nil || op.begun && (op.cursor >= op.end || op.Kind == Flush) {
			flush := op.Kind == Flush && op.Err == nil && (c.keep.n > 0 || c.keep.lost != nil)
			if flush {
				op.active++
			}
			c.cut(op)
			if flush {
				c.flush(op)
			}
		}
	}
	if op.list == nil && op.active == 0 && !op.finished {
		c.finish(op)
	}
}

// cut takes op, of which no parts are to come, from its list, and lets those go on that waited for it.
func (c *Client) cut(op *Op) {
	changes := op.list == &c.changes
	later := op.next
	op.list.remove(op)
	if !changes || later == nil {
		return
	}
	var free []*Op
	for q := later; q != nil; q = q.next {
		if overlap(op, q) {
			if q.blockers--; q.blockers == 0 {
				free = append(free, q)
			}
		}
	}
	for _, q := range free {
		if q.list != nil {
			c.advance(q)
		}
	}
	c.pump()
}

// slice makes the next part.
func (c *Client) slice(op *Op) {
	pl := c.pools[op.Inode.Pool()]
	g := uint64(pl.g.Granularity)
	down := func(n uint64) uint64 { return n &^ (g - 1) }
	up := func(n uint64) uint64 { return (n + g - 1) &^ (g - 1) }
	stripe := op.cursor / pl.size * pl.size
	from, to := op.cursor-stripe, min(op.end-stripe, pl.size)
	rewrite := false
	switch op.Kind {
	case Write:
		rewrite = from != down(from) || to != down(to)
	case CompareWrite:
		rewrite = true
	case Zero: // only granules at the ends are rewritten
		switch {
		case from != down(from):
			to, rewrite = min(to, up(from)), true
		case to != down(to) && down(to) > from:
			to = down(to)
		case to != down(to):
			rewrite = true
		}
	}
	p := c.newPart(op)
	c.Stats.Parts++
	p.index, p.stripe, p.at, p.rewrite, p.since = op.index, stripe, op.cursor-op.Offset, rewrite, c.l.Now()
	lo, hi := down(from), up(to)
	p.off, p.len, p.inOff, p.inLen = uint32(lo), uint32(hi-lo), uint32(from-lo), uint32(to-from)
	switch op.Kind {
	case ReadBitmap:
		p.off, p.len = 0, 0
		fallthrough
	case Read:
		op.Parts = append(op.Parts, Part{Offset: op.cursor, Len: uint32(to - from), Stripe: stripe})
	}
	op.index++
	op.cursor = stripe + to
	if op.Kind.changes() {
		if c.order.enter(p); p.blockers > 0 {
			p.move(partBlocked)
			return
		}
	}
	p.move(partReady)
}

// finish hands op back at the end of the turn.
func (c *Client) finish(op *Op) {
	op.finished = true
	if op.Err != nil {
		c.Stats.Failed++
		op.ReleaseParts()
	} else {
		c.Stats.Bytes += op.Len
	}
	op.next = nil
	if c.doneLast == nil {
		c.done = op
	} else {
		c.doneLast.next = op
	}
	c.doneLast = op
	c.l.Defer(&c.task)
}

// Cancel takes op back if no change of it was ever sent: then it completes with ErrCanceled. Otherwise it goes on as if nothing had been said.
func (c *Client) Cancel(op *Op) {
	if op.c != c || !op.submitted || op.finished || op.touched || op.Err != nil {
		return
	}
	for p := op.first; p != nil; p = p.links[inOp].next {
		if p.state != partCalling || p.rewrite && !p.writing {
			continue
		}
		if c.hub.Cancel(&p.call) {
			p.move(partReady)
			continue
		}
		c.pump() // what was taken back goes again
		return
	}
	op.fail(ErrCanceled)
	op.active++
	c.abandon(op)
	op.active--
	c.advance(op)
	c.pump()
}

var errReply = errors.New("the reply has the wrong form")

// copyPieces fills dst with what the pieces hold from skip on.
func copyPieces(dst []byte, pieces []Piece, skip int) {
	for _, p := range pieces {
		if len(dst) == 0 {
			return
		}
		if skip >= p.Len {
			skip -= p.Len
			continue
		}
		n := min(p.Len-skip, len(dst))
		if p.Ref == nil {
			clear(dst[:n])
		} else {
			copy(dst[:n], p.Ref.Bytes()[p.Off+skip:])
		}
		dst, skip = dst[n:], 0
	}
}

// mismatch is where b differs from what the pieces hold, or -1.
func mismatch(b []byte, pieces []Piece) int {
	at := 0
	for _, p := range pieces {
		for i := range p.Len {
			want := byte(0)
			if p.Ref != nil {
				want = p.Ref.Bytes()[p.Off+i]
			}
			if b[at] != want {
				return at
			}
			at++
		}
	}
	return -1
}

// payload makes the part's share of the pieces the call's payload.
func (c *Client) payload(p *part) {
	out := p.call.Payload[:0]
	skip, left := int(p.at), int(p.len)
	for _, q := range p.op.Pieces {
		if skip >= q.Len {
			skip -= q.Len
			continue
		}
		n := min(q.Len-skip, left)
		if q.Ref != nil {
			out = append(out, wirePiece(q.Ref, q.Off+skip, n))
		} else {
			for m := n; m > 0; m -= zeroPiece {
				out = append(out, wirePiece(c.zeros, 0, min(m, zeroPiece)))
			}
		}
		if left -= n; left == 0 {
			break
		}
		skip = 0
	}
	p.call.Payload = out
}

// opcode is what the part asks for now.
func (p *part) opcode() wire.Opcode {
	switch {
	case p.rewrite && !p.writing, p.op.Kind == Read, p.op.Kind == ReadBitmap:
		return wire.OpRead
	case p.rewrite, p.op.Kind == Write:
		return wire.OpWrite
	case p.op.Kind == Delete:
		return wire.OpDelete
	}
	return wire.OpZero
}
