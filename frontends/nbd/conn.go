package nbd

import (
	"fmt"
	"log/slog"

	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// phase is what a connection expects next.
type phase uint8

const (
	wantClientFlags phase = iota
	wantOption
	wantOptionData
	wantRequest
)

// conn is one client's connection.
type conn struct {
	s      *Server
	c      loop.Conn
	log    *slog.Logger
	index  int // in s.conns
	phase  phase
	closed bool // Closed was called
	ending bool // nothing more is read: requests under way finish, then the connection closes
	shut   bool // Close or CloseAfterSend was called
	timer  loop.Timer

	// Negotiation.
	fixed      bool
	noZeroes   bool
	structured bool
	metaName   string // the export that base:allocation was chosen for
	metaChosen bool
	option     uint32 // the one whose data comes next
	optionLen  uint32

	// Transmission.
	name     string
	h        volume.Handle
	info     volume.Info
	payload  uint32 // the largest that we take
	status   bool   // base:allocation was negotiated for this export
	inFlight int    // requests that are not answered
	bytes    int    // their payload
	first    *request
	filling  *request // whose payload is being received
	givenUp  bool     // filling is not counted any more: its payload will not come
	skip     uint64   // bytes to pass over
	skipping *request // answered with skipErr after that; nil for an option's data
	skipErr  error

	full   bool // paused: too much under way
	behind bool // paused: the client does not take its replies
}

func newConn(s *Server, c loop.Conn) *conn {
	n := &conn{s: s, c: c, log: s.log.With("client", c.Remote().String())}
	n.timer.Fire = n.timeout
	return n
}

// greet begins the negotiation (NBD proto.md, "Newstyle negotiation").
func (c *conn) greet() {
	c.c.SetKeepAlive(c.s.o.KeepAlive, c.s.o.KeepAlive, c.s.o.KeepAliveProbes)
	c.s.l.Arm(&c.timer, c.s.l.Now().Add(c.s.o.NegotiationTimeout))
	var b [18]byte
	be.PutUint64(b[0:], initMagic)
	be.PutUint64(b[8:], optionMagic)
	be.PutUint16(b[16:], flagFixedNewstyle|flagNoZeroes)
	c.c.Send(b[:])
}

// timeout ends a negotiation, or a drain, that takes too long.
func (c *conn) timeout() {
	if c.ending {
		c.log.Warn("connection closed before its requests had ended", "export", c.name, "requests", c.inFlight)
	} else {
		c.log.Warn("client did not negotiate in time", "timeout", c.s.o.NegotiationTimeout)
	}
	c.close()
}

// broken ends the connection of a client that breaks the protocol's rules ("hard disconnect").
func (c *conn) broken(format string, args ...any) {
	c.log.Warn("client breaks the protocol", "export", c.name, "err", fmt.Sprintf(format, args...))
	c.close()
}

// close ends the connection at once.
func (c *conn) close() {
	c.ending, c.shut = true, true
	c.c.Close()
}

// drain ends the connection when what is under way is answered. Requests that were not read yet are left unanswered rather than failed: a client that reconnects sends them
// again, where an error would reach its file system.
func (c *conn) drain(why string) {
	if c.ending || c.closed {
		return
	}
	if c.phase != wantRequest {
		c.close()
		return
	}
	c.ending = true
	c.log.Info("connection ends", "export", c.name, "reason", why, "requests", c.inFlight)
	c.c.Pause()
	c.s.l.Arm(&c.timer, c.s.l.Now().Add(c.s.o.DrainTimeout))
	if c.filling != nil { // the buffer is lent to the connection until Closed
		c.givenUp = true
		c.uncount(c.filling)
	}
	if r := c.skipping; r != nil {
		c.skipping = nil
		c.answered(r)
		return
	}
	c.maybeEnd()
}

// maybeEnd closes a connection that is ending once nothing is under way.
func (c *conn) maybeEnd() {
	if c.ending && !c.shut && !c.closed && c.inFlight == 0 {
		c.shut = true
		c.c.CloseAfterSend()
	}
}

// Opened is not called for accepted connections.
func (c *conn) Opened(loop.Conn) {}

// Received takes what the client sent as far as it is complete.
func (c *conn) Received(_ loop.Conn, p []byte) int {
	n := 0
	for !c.ending && !c.full && !c.behind && c.filling == nil {
		if c.skip > 0 {
			m := min(c.skip, uint64(len(p)-n))
			n += int(m)
			if c.skip -= m; c.skip > 0 {
				return n
			}
			if r := c.skipping; r != nil {
				c.skipping = nil
				c.fail(r, c.skipErr)
			}
			continue
		}
		if c.c.Queued() > loop.HighWater {
			c.behind = true
			c.c.Pause()
			break
		}
		used, ok := c.step(p[n:])
		n += used
		if !ok {
			break
		}
	}
	return n
}

// step takes one message from the front of p, or says that it is not complete.
func (c *conn) step(p []byte) (used int, ok bool) {
	switch c.phase {
	case wantClientFlags:
		if len(p) < 4 {
			return 0, false
		}
		c.clientFlags(be.Uint32(p))
		return 4, true
	case wantOption:
		if len(p) < optionHeaderSize {
			return 0, false
		}
		if m := be.Uint64(p); m != optionMagic {
			c.broken("option begins with %#x instead of %#x", m, uint64(optionMagic))
			return 0, false
		}
		c.option, c.optionLen = be.Uint32(p[8:]), be.Uint32(p[12:])
		c.optionHeader()
		return optionHeaderSize, true
	case wantOptionData:
		if uint64(len(p)) < uint64(c.optionLen) {
			return 0, false
		}
		c.phase = wantOption
		c.doOption(p[:c.optionLen])
		return int(c.optionLen), true
	}
	if len(p) < requestHeaderSize {
		return 0, false
	}
	h, magic := parseHeader(p)
	if !magic {
		c.broken("request begins with %#x instead of %#x", be.Uint32(p), uint32(requestMagic))
		return 0, false
	}
	if !c.request(h) {
		return 0, false
	}
	return requestHeaderSize, true
}

// Filled says that a write's payload is there.
func (c *conn) Filled(loop.Conn) {
	r := c.filling
	c.filling = nil
	switch {
	case c.givenUp:
		c.s.put(r)
	case c.ending:
		c.answered(r)
	default:
		c.submit(r)
	}
}

// Drained goes on with a client that has taken its replies.
func (c *conn) Drained(loop.Conn) {
	if c.behind {
		c.behind = false
		c.resume()
	}
}

func (c *conn) resume() {
	if !c.full && !c.behind && !c.ending && !c.closed {
		c.c.Resume()
	}
}

// Closed recalls what is under way and gives the handle back.
func (c *conn) Closed(_ loop.Conn, err error) {
	c.closed = true
	c.s.l.Disarm(&c.timer)
	if r := c.filling; r != nil {
		c.filling = nil
		if c.givenUp {
			c.s.put(r)
		} else {
			c.answered(r)
		}
	}
	if r := c.skipping; r != nil {
		c.skipping = nil
		c.answered(r)
	}
	for r := c.first; r != nil; r = r.next {
		c.h.Cancel(&r.op)
	}
	if c.h == nil {
		c.s.forget(c)
		return
	}
	c.log.Info("client left", "export", c.name, "requests", c.inFlight, "err", err)
	c.h.Detach(func() { c.s.forget(c) })
}

// VolumeEvent follows changes to the image.
func (c *conn) VolumeEvent(e volume.Event) {
	switch e {
	case volume.Resized, volume.Renamed:
		c.info = c.h.Info() // the protocol has no way to tell the client; requests are checked against the new size
	case volume.Gone:
		c.drain("the image was removed")
	case volume.Draining:
		c.drain("the gateway is stopping")
	}
}
