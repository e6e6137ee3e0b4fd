package nbd

import (
	"holdfast/frontends/volume"
)

// maxExtents bounds a block status reply; a client asks again for the rest. 1024 descriptors are 8 KiB.
const maxExtents = 1024

// request is one command under way. Pooled.
type request struct {
	op     volume.Op
	conn   *conn
	head   header
	cost   int             // bytes it counts against the limits
	data   [1]volume.Piece // of a write
	pieces []volume.Piece  // empty; where reads get theirs
	prev   *request        // submitted ones of the connection
	next   *request        // of the same list, or of the pool
	linked bool
}

func (s *Server) take() *request {
	r := s.free
	if r == nil {
		r = new(request)
		r.op.Done = func(*volume.Op) { r.done() }
		return r
	}
	s.free = r.next
	r.next = nil
	return r
}

// put gives back what r holds and r itself.
func (s *Server) put(r *request) {
	if r.data[0].Ref != nil {
		r.data[0].Ref.Release()
		r.data[0] = volume.Piece{}
	} else {
		r.op.ReleasePieces()
		r.pieces = r.op.Pieces
	}
	r.op.Pieces = nil
	r.op.Extents = r.op.Extents[:0]
	r.op.Err = nil
	r.conn = nil
	r.next = s.free
	s.free = r
}

func (c *conn) link(r *request) {
	r.prev, r.next, r.linked = nil, c.first, true
	if c.first != nil {
		c.first.prev = r
	}
	c.first = r
}

func (c *conn) unlink(r *request) {
	if !r.linked {
		return
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		c.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.prev, r.next, r.linked = nil, nil, false
}

// request starts what a header asks for. It reports false, and has then done nothing, when the connection has to wait first.
func (c *conn) request(h header) bool {
	if h.kind == cmdDisc {
		c.drain("the client disconnects")
		return true
	}
	cost := 0
	if h.kind == cmdRead || h.kind == cmdWrite {
		cost = int(min(h.length, c.payload))
	}
	o := &c.s.o
	if c.inFlight > 0 && (c.inFlight >= o.MaxInFlight || c.bytes+cost > o.MaxBytes || c.s.bytes+cost > o.TotalBytes) {
		c.full = true
		c.c.Pause()
		return false
	}
	r := c.s.take()
	r.conn, r.head, r.cost = c, h, cost
	c.inFlight++
	c.bytes += cost
	c.s.bytes += cost
	if h.kind < commands {
		c.s.stats.Requests[h.kind]++
	}
	err := c.prepare(r)
	switch {
	case h.kind == cmdWrite && h.length > 0:
		// The answer waits until the payload is consumed, also when it is of no use: a client may still be sending it.
		if err != nil {
			c.skip, c.skipping, c.skipErr = uint64(h.length), r, err
			break
		}
		ref := c.s.l.Alloc(int(h.length))
		r.data[0] = volume.Piece{Ref: ref, Len: int(h.length)}
		r.op.Pieces = r.data[:]
		c.filling = r
		c.c.Fill(ref.Bytes())
	case err != nil:
		c.fail(r, err)
	case h.kind == cmdCache:
		c.finish(r, nil) // nothing is cached here; accepting the hint is allowed (NBD proto.md, NBD_CMD_CACHE)
	default:
		c.submit(r)
	}
	return true
}

// prepare makes an operation of a header and finds what is wrong with it.
func (c *conn) prepare(r *request) error {
	h := &r.head
	if h.kind >= commands {
		return errCommand
	}
	if h.flags&^(cmdFlagFUA|allowedFlags[h.kind]) != 0 || h.flags&cmdFlagDF != 0 && !c.structured {
		return errFlags
	}
	op := &r.op
	op.Offset, op.Length = h.offset, uint64(h.length)
	op.FUA, op.NoHole, op.Fast, op.MaxExtents = false, false, false, 0
	op.Pieces = r.pieces[:0]
	switch h.kind {
	case cmdRead:
		op.Kind = volume.Read
	case cmdWrite:
		if h.length > c.payload {
			return volume.ErrTooLong
		}
		op.Kind = volume.Zero // the same rules, without the data that has not come yet
		if err := volume.Check(&c.info, op); err != nil {
			return err
		}
		op.Kind, op.FUA = volume.Write, h.flags&cmdFlagFUA != 0
		return nil
	case cmdFlush:
		op.Kind, op.Offset, op.Length = volume.Flush, 0, 0
	case cmdTrim:
		op.Kind, op.FUA = volume.Trim, h.flags&cmdFlagFUA != 0
	case cmdWriteZeroes:
		op.Kind, op.FUA = volume.Zero, h.flags&cmdFlagFUA != 0
		op.NoHole, op.Fast = h.flags&cmdFlagNoHole != 0, h.flags&cmdFlagFastZero != 0
	case cmdBlockStatus:
		if !c.status || h.length == 0 {
			return errNoStatus
		}
		op.Kind, op.MaxExtents = volume.Extents, maxExtents
		if h.flags&cmdFlagReqOne != 0 {
			op.MaxExtents = 1
		}
	case cmdCache:
		op.Kind = volume.Extents // for the checks only
	}
	return volume.Check(&c.info, op)
}

func (c *conn) submit(r *request) {
	c.link(r)
	c.h.Submit(&r.op)
}

// done is every operation's completion.
func (r *request) done() {
	c := r.conn
	c.unlink(r)
	if c.closed {
		c.answered(r)
		return
	}
	c.finish(r, r.op.Err)
}

// finish answers r.
func (c *conn) finish(r *request, err error) {
	if err != nil {
		c.fail(r, err)
		return
	}
	switch r.head.kind {
	case cmdRead:
		c.s.stats.Read += uint64(r.head.length)
		if c.structured {
			c.sendChunks(r)
		} else {
			c.sendSimple(r, 0)
			c.sendPieces(r.op.Pieces)
		}
	case cmdBlockStatus:
		c.sendStatus(r)
	default:
		if r.head.kind == cmdWrite {
			c.s.stats.Written += uint64(r.head.length)
		}
		c.sendSimple(r, 0)
	}
	c.answered(r)
}

func (c *conn) fail(r *request, err error) {
	c.s.stats.Errors++
	e := errno(err, r.head.kind, r.head.flags)
	c.log.Debug("request failed", "export", c.name, "command", r.head.kind, "offset", r.head.offset, "length", r.head.length, "errno", e, "err", err)
	if c.structured {
		c.sendError(r, e, err.Error())
	} else {
		c.sendSimple(r, e)
	}
	c.answered(r)
}

// uncount takes r off what is under way.
func (c *conn) uncount(r *request) {
	c.inFlight--
	c.bytes -= r.cost
	c.s.bytes -= r.cost
}

// answered ends r's life, with or without a reply, and goes on with what waited for it.
func (c *conn) answered(r *request) {
	c.uncount(r)
	c.s.put(r)
	if c.full {
		c.full = false
		c.resume()
	}
	c.maybeEnd()
}
