package nfs

import (
	"errors"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/nfs/xdr"
	"holdfast/frontends/volume"
)

// conn is one connection: it takes records apart, starts requests and sends replies in whatever order they come.
type conn struct {
	s     *Server
	c     loop.Conn
	cl    *client
	index int          // in s.conns
	heard loop.Instant // when bytes last arrived

	// What of a record has been received. At most one of these is going on.
	skip    int      // bytes of a finished record to pass over
	filling *request // a WRITE whose data is being received straight into its buffers
	fillLen int      // bytes of data still to be asked for
	gather  gather   // a record of several fragments
	partial bool     // the beginning of a record has been shown and not consumed

	requests   int  // under way
	readBytes  int  // data of READs under way
	writeBytes int  // data of WRITEs under way
	paused     bool // not read, because of the limits
	closed     bool // nothing is to be read or sent any more

	waiting requestList // READs that wait for room
	held    requestList // READs that are done and wait for the peer to take earlier replies
}

// gather assembles a record that comes in fragments. Its buffer grows with what has arrived, not with what was announced.
type gather struct {
	ref       *buf.Ref
	n         int // bytes in ref
	left      int // bytes missing of the present fragment
	last      bool
	fragments int
}

var (
	errRecordTooLong = errors.New("longer than any request, at most " + itoa(maxRecord) + " bytes")
	errNoCall        = errors.New("not an RPC call")
	errFragments     = errors.New("more than " + itoa(maxFragment) + " fragments")
)

// Opened is loop.ConnHandler's; accepted connections are open from the start.
func (c *conn) Opened(loop.Conn) {}

// Received is loop.ConnHandler's.
func (c *conn) Received(_ loop.Conn, p []byte) int {
	c.heard = c.s.l.Now()
	used := 0
	for !c.closed && !c.paused && c.filling == nil && used < len(p) {
		n := c.take(p[used:])
		if n == 0 {
			break
		}
		used += n
	}
	c.partial = used < len(p)
	return used
}

// take consumes one step's worth of p: 0 when more is needed.
func (c *conn) take(p []byte) int {
	switch {
	case c.skip > 0:
		n := min(c.skip, len(p))
		c.skip -= n
		return n
	case c.gather.left > 0:
		return c.gatherMore(p)
	case len(p) < rpc.MarkSize:
		return 0
	}
	n, last := rpc.Mark(p)
	if n > maxRecord || n+c.gather.n > maxRecord {
		c.garbage("a record", errRecordTooLong)
		return 0
	}
	if !last || c.gather.fragments > 0 {
		c.gather.fragments++
		if c.gather.fragments > maxFragment {
			c.garbage("a record", errFragments)
			return 0
		}
		c.gather.left, c.gather.last = n, last
		if n == 0 && last {
			c.gathered()
		}
		return rpc.MarkSize
	}
	body := p[rpc.MarkSize:]
	if n <= inlineRecord {
		if len(body) < n {
			return 0
		}
		c.record(body[:n], nil)
		return rpc.MarkSize + n
	}
	if len(body) < headBytes {
		return 0
	}
	return rpc.MarkSize + c.longRecord(body[:headBytes], n)
}

// gatherMore adds bytes of the present fragment.
func (c *conn) gatherMore(p []byte) int {
	g := &c.gather
	n := min(g.left, len(p))
	if g.ref == nil || g.n+n > g.ref.Len() {
		size := 4096
		for size < g.n+n {
			size *= 2
		}
		ref := c.s.l.Alloc(size)
		if g.ref != nil {
			copy(ref.Bytes(), g.ref.Bytes()[:g.n])
			g.ref.Release()
		}
		g.ref = ref
	}
	copy(g.ref.Bytes()[g.n:], p[:n])
	g.n += n
	g.left -= n
	if g.left == 0 && g.last {
		c.gathered()
	}
	return n
}

// gathered handles the assembled record.
func (c *conn) gathered() {
	g := c.gather
	c.gather = gather{}
	if g.ref == nil {
		c.garbage("a record", errNoCall)
		return
	}
	c.record(g.ref.Bytes()[:g.n], g.ref)
	g.ref.Release()
}

// record handles a whole record. ref is the buffer that it fills from the start, nil when it is only lent for this call.
func (c *conn) record(p []byte, ref *buf.Ref) {
	r := c.begin()
	n, ok := rpc.DecodeCall(p, &r.call)
	if !ok {
		r.release()
		c.garbage("a record", errNoCall)
		return
	}
	if h := r.route(); h != nil {
		r.args = p[n:]
		r.ref, r.refOff = ref, n
		r.dec = xdr.NewDecoder(r.args)
		h(r, &r.dec)
	}
	c.throttle()
}

// longRecord starts the record of n bytes that begins with p and is too long for anything but a WRITE. It returns the number of bytes consumed.
func (c *conn) longRecord(p []byte, n int) int {
	r := c.begin()
	head, ok := rpc.DecodeCall(p, &r.call)
	if !ok {
		r.release()
		c.garbage("a record", errNoCall)
		return 0
	}
	h := r.route()
	if h == nil { // answered
		c.skip = n
		c.throttle()
		return 0
	}
	d := xdr.NewDecoder(p[head:])
	if r.call.Program != rpc.ProgramNFS || r.call.Procedure != procWrite || !r.writeArgs(&d) {
		r.garbageArgs()
		c.skip = n
		return 0
	}
	head += d.Offset()
	length := int(r.count)
	if head+length+xdr.Pad(length) > n {
		r.garbageArgs()
		c.skip = n
		return 0
	}
	c.filling, c.fillLen = r, length
	c.skip = n - head - length
	if length == 0 {
		c.filled()
	} else {
		c.fillMore()
	}
	return head
}

// fillMore asks for the next part of a WRITE's data. Only what is asked for is lent.
func (c *conn) fillMore() {
	n := min(c.fillLen, chunkBytes)
	ref := c.s.l.Alloc(n)
	c.filling.data = append(c.filling.data, volume.Piece{Ref: ref, Len: n})
	c.filling.charge(n)
	c.fillLen -= n
	c.c.Fill(ref.Bytes())
}

// Filled is loop.ConnHandler's.
func (c *conn) Filled(loop.Conn) {
	c.heard = c.s.l.Now()
	if c.closed || c.filling == nil {
		return
	}
	if c.fillLen > 0 {
		c.fillMore()
		return
	}
	c.filled()
}

func (c *conn) filled() {
	r := c.filling
	c.filling = nil
	r.startWrite()
	c.throttle()
}

// unfinished reports whether part of a record has arrived.
func (c *conn) unfinished() bool {
	return c.filling != nil || c.gather.fragments > 0 || c.skip > 0 || c.partial
}

// begin makes a request that came over c.
func (c *conn) begin() *request {
	r := c.s.takeRequest()
	r.conn, r.cl = c, c.cl
	c.requests++
	c.cl.running++
	c.s.running++
	c.s.stats.Requests++
	return r
}

// full reports whether no more should be read for now. READs do not count: they wait in line, so that what comes behind them and needs no data is still seen.
func (c *conn) full() bool {
	return c.requests >= c.s.o.MaxRequests || c.writeBytes >= c.s.o.MaxConnBytes || c.writeBytes > 0 && c.s.bytes >= c.s.o.MaxBytes ||
		c.c.Queued() > 2*loop.HighWater
}

func (c *conn) throttle() {
	if !c.paused && !c.closed && c.full() {
		c.paused = true
		c.c.Pause()
	}
}

// relax goes on with what had to wait, after a request has ended or replies have left.
func (c *conn) relax() {
	if c.closed {
		return
	}
	for c.waiting.n > 0 && c.mayRead(int(c.waiting.first.count)) {
		c.waiting.pop().readNow()
	}
	if c.paused && !c.full() {
		c.paused = false
		c.heard = c.s.l.Now()
		c.c.Resume()
	}
}

// mayRead reports whether there is room for a READ of n bytes. A connection that reads nothing always has room, so that each makes progress.
func (c *conn) mayRead(n int) bool {
	if c.c.Queued() > loop.HighWater {
		return false
	}
	return c.readBytes == 0 || c.readBytes+n <= c.s.o.MaxConnBytes && c.s.bytes+n <= c.s.o.MaxBytes
}

// Drained is loop.ConnHandler's.
func (c *conn) Drained(loop.Conn) {
	for c.held.n > 0 && c.c.Queued() <= loop.HighWater {
		c.held.pop().sendRead()
	}
	c.relax()
}

// garbage ends the connection because of bytes that make no sense.
func (c *conn) garbage(what string, err error) {
	if c.closed {
		return
	}
	c.s.stats.Garbage++
	c.s.l.Log().Debug("nfs connection closed", "client", c.c.Remote().Address, "what", what, "err", err)
	c.hangUp()
}

// hangUp ends the connection; Closed follows.
func (c *conn) hangUp() {
	if !c.closed {
		c.closed = true
		c.c.Close()
	}
}

// Closed is loop.ConnHandler's. Requests under way go on without it: a write cannot be taken back, and its retransmission will join it.
func (c *conn) Closed(_ loop.Conn, _ error) {
	c.closed = true
	c.s.forget(c)
	c.cl.closed(c)
	if c.gather.ref != nil {
		c.gather.ref.Release()
		c.gather = gather{}
	}
	if r := c.filling; r != nil {
		c.filling = nil
		r.release()
	}
	for r := c.waiting.pop(); r != nil; r = c.waiting.pop() {
		r.release()
	}
	for r := c.held.pop(); r != nil; r = c.held.pop() {
		r.release()
	}
	c.s.finishClose()
}
