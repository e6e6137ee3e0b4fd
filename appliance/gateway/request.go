package gateway

import (
	"holdfast/core/client"
	"holdfast/frontends/volume"
)

// maxExtentObjects is how many objects one Extents looks at: its answer may end before the range does.
const maxExtentObjects = 1024

// request is one volume.Op on its way through the client. The lane pools them.
type request struct {
	ln         *lane
	h          *handle
	op         *volume.Op
	c          client.Op
	err        error // of one that the client did not see
	change     bool
	list       *requestList
	prev, next *request
}

// requestList is a list of requests.
type requestList struct{ first, last *request }

func (q *requestList) push(r *request) {
	r.list, r.prev, r.next = q, q.last, nil
	if q.last == nil {
		q.first = r
	} else {
		q.last.next = r
	}
	q.last = r
}

func (q *requestList) remove(r *request) {
	if r.prev == nil {
		q.first = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		q.last = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.list, r.prev, r.next = nil, nil, nil
}

func (q *requestList) pop() *request {
	r := q.first
	if r != nil {
		q.remove(r)
	}
	return r
}

func (ln *lane) take(h *handle, op *volume.Op) *request {
	r := ln.free
	if r == nil {
		r = &request{ln: ln}
		r.c.Done = func(*client.Op) { r.completed() }
	} else {
		ln.free, r.next = r.next, nil
	}
	r.h, r.op = h, op
	return r
}

// end gives the result to the caller and the request back to the pool.
func (r *request) end(err error) {
	h, op, ln := r.h, r.op, r.ln
	clear(r.c.Pieces)
	clear(r.c.Compare)
	r.c.Pieces, r.c.Compare, r.c.Session = r.c.Pieces[:0], r.c.Compare[:0], nil
	r.h, r.op, r.err, r.change = nil, nil, nil, false
	r.next, ln.free = ln.free, r
	op.Complete(err)
	h.maybeClose()
}

// refuse completes r with err at the end of the turn.
func (ln *lane) refuse(r *request, err error) {
	r.err = err
	ln.done.push(r)
	ln.l.Defer(&ln.task)
}

// Submit is volume.Handle's.
func (h *handle) Submit(op *volume.Op) {
	r := h.ln.take(h, op)
	err := h.admit(op)
	switch {
	case err != nil, op.Length == 0 && op.Kind != volume.Flush:
		h.ln.refuse(r, err)
	case h.gates > 0:
		h.waiting.push(r)
	default:
		h.start(r)
	}
}

func (h *handle) admit(op *volume.Op) error {
	switch {
	case h.gone:
		return volume.ErrGone
	case h.fenced:
		return volume.ErrFenced
	case h.leaving:
		return volume.ErrShutdown
	}
	return volume.Check(&h.info, op)
}

// start gives r to the client. Whole granules go down and come up in the buffers they are in; the client reads and rewrites the others under the object's version, so that 512-byte
// writes of several gateways do not undo each other.
func (h *handle) start(r *request) {
	op, c := r.op, &r.c
	if err := h.admit(op); err != nil && !h.leaving {
		h.ln.refuse(r, err) // it has waited, and the image has changed
		return
	}
	c.Session, c.Inode, c.Offset, c.Len, c.CAS, c.KeepWritten = h.session, h.inode, op.Offset, op.Length, 0, false
	switch op.Kind {
	case volume.Read:
		c.Kind = client.Read
	case volume.Write:
		c.Kind, r.change = client.Write, true
		c.Pieces = lend(c.Pieces, op.Pieces)
	case volume.CompareAndWrite:
		c.Kind, r.change = client.CompareWrite, true
		c.Pieces, c.Compare = lend(c.Pieces, op.Pieces), lend(c.Compare, op.Compare)
	case volume.Zero:
		// Zeroing costs no more than a trim, so Fast is always granted.
		c.Kind, c.KeepWritten, r.change = client.Zero, op.NoHole, true
	case volume.Trim:
		c.Kind, r.change = client.Zero, true
	case volume.Flush:
		c.Kind = client.Flush
	case volume.Extents:
		c.Kind = client.ReadBitmap
		c.Len = min(c.Len, uint64(h.info.OptimalSize)*maxExtentObjects)
	}
	h.running.push(r)
	if r.change {
		h.changes++
	}
	h.ln.c.Submit(c)
}

func lend(to []client.Piece, from []volume.Piece) []client.Piece {
	to = to[:0]
	for _, p := range from {
		to = append(to, client.Piece(p))
	}
	return to
}

// completed takes the client's result.
func (r *request) completed() {
	h := r.h
	h.running.remove(r)
	if r.change {
		h.changes--
	}
	err := r.c.Err
	if err == nil {
		switch r.op.Kind {
		case volume.Read:
			r.deliver()
		case volume.Extents:
			r.op.Extents = extents(r.op.Extents[:0], &r.c, uint64(h.info.PreferredSize), r.op.MaxExtents)
		}
		r.end(nil)
		return
	}
	r.end(translate(err))
}

// deliver passes on what a read brought: the client's buffers, or, into the caller's, a copy.
func (r *request) deliver() {
	op, c := r.op, &r.c
	if len(op.Pieces) > 0 {
		copyParts(op.Pieces, c.Parts)
		c.ReleaseParts()
		return
	}
	for i := range c.Parts {
		p := &c.Parts[i]
		piece := volume.Piece{Ref: p.Data, Off: p.DataOff, Len: int(p.Len)}
		if p.Data != nil && p.Version == 0 && !p.Written(0) && !anyBit(p.Bitmap) {
			p.Data.Release() // no object: zeroes need no memory
			piece.Ref, piece.Off = nil, 0
		}
		op.Pieces = append(op.Pieces, piece)
		p.Data = nil
	}
	c.ReleaseParts()
}

func anyBit(bitmap []byte) bool {
	for _, b := range bitmap {
		if b != 0 {
			return true
		}
	}
	return false
}

// copyParts fills the caller's pieces.
func copyParts(to []volume.Piece, parts []client.Part) {
	i, in := 0, 0
	for p := range parts {
		from := parts[p].Bytes()
		for len(from) > 0 {
			for in == to[i].Len {
				i, in = i+1, 0
			}
			n := copy(to[i].Bytes()[in:], from)
			from, in = from[n:], in+n
		}
	}
}

// extents makes extents of the bitmaps: what was never written is a hole and reads as zeroes.
func extents(to []volume.Extent, c *client.Op, unit uint64, most int) []volume.Extent {
	for i := range c.Parts {
		p := &c.Parts[i]
		for at, end := p.Offset, p.Offset+uint64(p.Len); at < end; {
			bit := (at - p.Stripe) / unit
			next := min(end, p.Stripe+(bit+1)*unit)
			hole := !p.Written(int(bit))
			if n := len(to); n > 0 && to[n-1].Hole == hole {
				to[n-1].Length += next - at
			} else {
				if most > 0 && len(to) == most {
					return to
				}
				to = append(to, volume.Extent{Length: next - at, Hole: hole, Zero: hole})
			}
			at = next
		}
	}
	return to
}

// Cancel is volume.Handle's.
func (h *handle) Cancel(op *volume.Op) {
	for r := h.waiting.first; r != nil; r = r.next {
		if r.op == op {
			h.waiting.remove(r)
			h.ln.refuse(r, volume.ErrCanceled)
			return
		}
	}
	for r := h.running.first; r != nil; r = r.next {
		if r.op == op {
			h.ln.c.Cancel(&r.c)
			return
		}
	}
}
