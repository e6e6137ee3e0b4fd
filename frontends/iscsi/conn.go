package iscsi

import (
	"hash/crc32"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

// conn is one TCP connection: it cuts the stream into PDUs, sees to digests, and hands them to the login or to the session.
type conn struct {
	srv   *Server
	c     loop.Conn
	login *login   // until full feature phase
	s     *session // from then on; also while the volume is being attached

	state    recvState
	h        header   // the PDU that is being received
	h2       header   // one to send
	sense    []byte   // sense data to send
	length   int      // of the data segment
	dst      []byte   // where the data segment goes; nil: it is skipped
	got      int      // bytes of it so far
	held     *buf.Ref // dst's memory when nobody else holds it (login, text, NOP)
	into     *task    // whose data dst is
	statSN   uint32
	paused   bool // reading stopped because output is not taken
	waiting  bool // reading stopped because a login waits
	failed   bool // nothing more is read or answered: Close or CloseAfterSend was called
	closed   bool // Close was called
	gone     bool // Closed was called
	lastRecv loop.Instant
	out      [bhsSize + digestSize]byte
	pad      [8]byte
	sumIn    uint32
	headerD  bool // digests in force
	dataD    bool
}

type recvState uint8

const (
	recvHeader recvState = iota
	recvData
	recvFilling // Conn.Fill is under way
	recvTrailer // padding and data digest
)

func newConn(s *Server, c loop.Conn) *conn {
	x := &conn{srv: s, c: c, lastRecv: s.l.Now()}
	x.login = newLogin(x)
	s.conns[x] = struct{}{}
	c.SetKeepAlive(keepAliveIdle, keepAliveInterval, keepAliveCount)
	return x
}

// Opened is loop.ConnHandler's; accepted connections do not get it.
func (x *conn) Opened(loop.Conn) {}

// fail ends the connection; why is for the log.
func (x *conn) fail(why string) {
	if x.closed {
		return
	}
	x.failed, x.closed = true, true
	x.srv.log.Info("connection ended", "client", x.c.Remote().Address, "initiator", x.initiator(), "why", why)
	x.c.Close()
}

func (x *conn) initiator() string {
	if x.s != nil {
		return x.s.e.key.initiator
	}
	return x.login.initiator
}

// Received is loop.ConnHandler's.
func (x *conn) Received(_ loop.Conn, p []byte) int {
	total := len(p)
	x.lastRecv = x.srv.l.Now()
	for !x.failed && !x.paused && !x.waiting {
		n, more := x.step(p)
		p = p[n:]
		if !more {
			break
		}
	}
	if x.failed {
		return total
	}
	return total - len(p)
}

// step consumes what it can of one part of a PDU and says whether to go on.
func (x *conn) step(p []byte) (consumed int, more bool) {
	switch x.state {
	case recvHeader:
		return x.stepHeader(p)
	case recvData:
		left := x.length - x.got
		if x.dst == nil { // skip
			n := min(left, len(p))
			x.sum(p[:n])
			x.got += n
			if n < left {
				return n, false
			}
			x.state = recvTrailer
			return n, true
		}
		if len(p) < left {
			x.c.Fill(x.dst)
			x.state = recvFilling
			return 0, false
		}
		copy(x.dst, p)
		x.sum(p[:left])
		x.state = recvTrailer
		return left, true
	case recvTrailer:
		return x.stepTrailer(p)
	}
	return 0, false // recvFilling
}

func (x *conn) stepHeader(p []byte) (int, bool) {
	if len(p) < bhsSize {
		return 0, false
	}
	n := bhsSize + 4*int(p[4]) // TotalAHSLength: at most 1020 bytes
	size := n
	if x.headerD {
		size += digestSize
	}
	if len(p) < size {
		return 0, false
	}
	if x.headerD && checksum(p[:n]) != digest(p[n:]) {
		x.fail("header digest error") // at error recovery level 0 the session ends (RFC 7143, section 7.8)
		return size, false
	}
	copy(x.h[:], p)
	x.length, x.got, x.sumIn = x.h.dataLength(), 0, 0
	x.dst, x.into = nil, nil
	limit := maxReceive
	if x.login != nil {
		limit = loginReceive
	}
	if x.length > limit {
		x.fail("a data segment longer than was declared")
		return size, false
	}
	if x.login != nil {
		x.login.header()
	} else {
		x.s.header()
	}
	if x.failed {
		return size, false
	}
	if x.length == 0 {
		x.complete()
		return size, true
	}
	x.state = recvData
	return size, true
}

// hold makes dst a buffer of its own.
func (x *conn) hold() {
	if x.length == 0 {
		return
	}
	x.held = x.srv.l.Alloc(x.length)
	x.dst = x.held.Bytes()
}

func (x *conn) dropHeld() {
	if x.held != nil {
		x.held.Release()
		x.held = nil
	}
}

// Filled is loop.ConnHandler's.
func (x *conn) Filled(loop.Conn) {
	x.lastRecv = x.srv.l.Now()
	x.sum(x.dst)
	x.state = recvTrailer
	if x.failed {
		return
	}
	if x.trailer() == 0 {
		x.complete()
	}
}

func (x *conn) sum(p []byte) {
	if x.dataD {
		x.sumIn = crc32.Update(x.sumIn, castagnoli, p)
	}
}

// trailer is how many bytes follow the data segment.
func (x *conn) trailer() int {
	n := padding(x.length)
	if x.dataD {
		n += digestSize
	}
	return n
}

func (x *conn) stepTrailer(p []byte) (int, bool) {
	n := x.trailer()
	if len(p) < n {
		return 0, false
	}
	if x.dataD {
		pad := padding(x.length)
		x.sum(p[:pad])
		if x.sumIn != digest(p[pad:]) {
			x.fail("data digest error")
			return n, false
		}
	}
	x.complete()
	return n, true
}

// complete handles the PDU that has arrived.
func (x *conn) complete() {
	x.state = recvHeader
	if x.login != nil {
		x.login.received(x.dst)
	} else {
		x.s.received(x.dst)
	}
	x.dropHeld()
	x.dst, x.into = nil, nil
	x.checkOutput()
}

// checkOutput stops reading while the peer does not take what we send.
func (x *conn) checkOutput() {
	if !x.paused && !x.failed && x.c.Queued() > loop.HighWater {
		x.paused = true
		x.c.Pause()
	}
}

// Drained is loop.ConnHandler's.
func (x *conn) Drained(loop.Conn) {
	if x.paused {
		x.paused = false
		if !x.waiting {
			x.c.Resume()
		}
	}
	if x.s != nil {
		x.s.pumpReads()
	}
}

// wait stops reading while a login waits for something else; resume goes on.
func (x *conn) wait() {
	x.waiting = true
	x.c.Pause()
}

func (x *conn) resume() {
	x.waiting = false
	if !x.paused {
		x.c.Resume()
	}
}

// Closed is loop.ConnHandler's.
func (x *conn) Closed(_ loop.Conn, err error) {
	if !x.failed {
		x.failed = true
		x.srv.log.Info("connection closed", "client", x.c.Remote().Address, "initiator", x.initiator(), "err", err)
	}
	x.gone = true
	filling := x.into
	x.dropHeld()
	x.dst, x.into, x.state = nil, nil, recvHeader
	if x.login != nil {
		x.login.end()
	}
	if x.s == nil {
		x.forget()
		return
	}
	if filling != nil {
		filling.filling = false
		if filling.aborted {
			x.s.finish(filling)
		}
	}
	x.s.connectionClosed()
}

// forget takes the connection off the server's list, as the last thing.
func (x *conn) forget() {
	delete(x.srv.conns, x)
	x.srv.finishClose()
}

// sendHeader queues the header segment of a PDU.
func (x *conn) sendHeader(h *header) {
	copy(x.out[:], h[:])
	n := bhsSize
	if x.headerD {
		putDigest(x.out[bhsSize:], checksum(x.out[:bhsSize]))
		n += digestSize
	}
	x.c.Send(x.out[:n])
}

// sendTrailer queues padding and data digest after a data segment of n bytes whose checksum is sum.
func (x *conn) sendTrailer(n int, sum uint32) {
	k := padding(n)
	copy(x.pad[:], padBytes[:k])
	if x.dataD {
		putDigest(x.pad[k:], crc32.Update(sum, castagnoli, padBytes[:k]))
		k += digestSize
	}
	if k != 0 {
		x.c.Send(x.pad[:k])
	}
}

// send queues a PDU with a data segment that is copied.
func (x *conn) send(h *header, data []byte) {
	h.setDataLength(len(data))
	x.sendHeader(h)
	if len(data) == 0 {
		return
	}
	x.c.Send(data)
	sum := uint32(0)
	if x.dataD {
		sum = checksum(data)
	}
	x.sendTrailer(len(data), sum)
}
