package nbd

import "holdfast/frontends/volume"

// holeMin is the shortest hole that is told as one, bytes; sending fewer zeroes costs less than two more chunks.
const holeMin = 4096

// sendSimple sends a simple reply; the data of a read follows it (NBD proto.md, "Simple reply message").
func (c *conn) sendSimple(r *request, e Errno) {
	b := be.AppendUint32(c.s.scratch[:0], simpleMagic)
	b = be.AppendUint32(b, uint32(e))
	b = be.AppendUint64(b, r.head.cookie)
	c.c.Send(b)
	c.s.scratch = b
}

// chunk begins a structured reply chunk in b (NBD proto.md, "Structured reply chunk message").
func chunk(b []byte, r *request, flags, kind uint16, length int) []byte {
	b = be.AppendUint32(b, structuredMagic)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint64(b, r.head.cookie)
	return be.AppendUint32(b, uint32(length))
}

// sendError is a structured error with its sentence.
func (c *conn) sendError(r *request, e Errno, why string) {
	if len(why) > maxString {
		why = why[:maxString]
	}
	b := chunk(c.s.scratch[:0], r, replyFlagDone, replyError, 6+len(why))
	b = be.AppendUint32(b, uint32(e))
	b = be.AppendUint16(b, uint16(len(why)))
	b = append(b, why...)
	c.c.Send(b)
	c.s.scratch = b
}

// sendPieces sends data as it lies in the device's buffers.
func (c *conn) sendPieces(pieces []volume.Piece) {
	for _, p := range pieces {
		if p.Ref != nil {
			c.c.SendRef(p.Ref, p.Off, p.Len)
			continue
		}
		for left := p.Len; left > 0; {
			n := min(left, zeroSize)
			c.c.SendRef(c.s.zero, 0, n)
			left -= n
		}
	}
}

// sendChunks answers a read with chunks of data and holes (NBD proto.md, NBD_CMD_READ, "Structured replies"). All of it is here, so nothing can fail any more and the last
// content chunk ends the reply.
func (c *conn) sendChunks(r *request) {
	pieces := r.op.Pieces
	if len(pieces) == 0 {
		b := chunk(c.s.scratch[:0], r, replyFlagDone, replyNone, 0)
		c.c.Send(b)
		c.s.scratch = b
		return
	}
	whole := r.head.flags&cmdFlagDF != 0
	for off := r.head.offset; len(pieces) > 0; {
		n, length, hole := run(pieces, whole)
		flags := uint16(0)
		if n == len(pieces) {
			flags = replyFlagDone
		}
		var b []byte
		if hole {
			b = chunk(c.s.scratch[:0], r, flags, replyOffsetHole, 12)
			b = be.AppendUint64(b, off)
			b = be.AppendUint32(b, uint32(length))
		} else {
			b = chunk(c.s.scratch[:0], r, flags, replyOffsetData, 8+length)
			b = be.AppendUint64(b, off)
		}
		c.c.Send(b)
		c.s.scratch = b
		if !hole {
			c.sendPieces(pieces[:n])
		}
		off += uint64(length)
		pieces = pieces[n:]
	}
}

// run finds the pieces at the front that make one chunk, at least one. A hole is a chunk of its own when it is long enough; with whole set only when there is nothing else.
func run(pieces []volume.Piece, whole bool) (n, length int, hole bool) {
	for n < len(pieces) && pieces[n].Ref == nil {
		length += pieces[n].Len
		n++
	}
	if n > 0 && (n == len(pieces) || length >= holeMin && !whole) {
		return n, length, true
	}
	for n < len(pieces) {
		zeroes, end := 0, n
		for end < len(pieces) && pieces[end].Ref == nil {
			zeroes += pieces[end].Len
			end++
		}
		if zeroes >= holeMin && !whole {
			return n, length, false
		}
		length += zeroes
		if n = end; n < len(pieces) {
			length += pieces[n].Len
			n++
		}
	}
	return n, length, false
}

// sendStatus answers a block status request (NBD proto.md, NBD_REPLY_TYPE_BLOCK_STATUS).
func (c *conn) sendStatus(r *request) {
	const at = 24 // of the first descriptor: 20 bytes of chunk header, 4 of context
	b := chunk(c.s.scratch[:0], r, replyFlagDone, replyBlockStatus, 0)
	b = be.AppendUint32(b, allocationID)
	left := uint64(r.head.length)
	for _, e := range r.op.Extents {
		n := min(e.Length, left)
		if n == 0 {
			continue
		}
		left -= n
		state := uint32(0)
		if e.Hole {
			state |= stateHole
		}
		if e.Zero {
			state |= stateZero
		}
		if last := len(b) - 8; last >= at && be.Uint32(b[last+4:]) == state {
			be.PutUint32(b[last:], be.Uint32(b[last:])+uint32(n))
			continue
		}
		b = be.AppendUint32(b, uint32(n))
		b = be.AppendUint32(b, state)
	}
	if len(b) == at { // nothing is known: the protocol's safe answer
		b = be.AppendUint64(b, uint64(r.head.length)<<32)
	}
	be.PutUint32(b[16:], uint32(len(b)-20))
	c.c.Send(b)
	c.s.scratch = b
}
