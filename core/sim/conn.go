package sim

import (
	"fmt"
	"slices"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

// conn is one end of a connection.
type conn struct {
	l        *Loop
	id       int
	h        loop.ConnHandler // nil on an accepted end until its process has accepted it
	peer     *conn            // nil while dialling
	listener *listener        // of an accepted end
	local    loop.Addr
	remote   loop.Addr

	accepted bool
	opened   bool
	closing  bool // Close was called; only Closed is to come
	closed   bool // nothing is to come
	ending   bool // CloseAfterSend was called
	eof      bool // the peer's end of stream has come
	half     bool // this end saw a reset that the other did not
	paused   bool
	timing   bool // a dial timeout is queued

	out        wire
	in         *wire // the peer's out
	segs       []segment
	segHead    int
	queued     int
	over       bool // queued was above HighWater since it was last 0
	dirty      bool // in l.dirty
	roomComing bool // an evWritable is on its way

	fill    []byte
	filling bool
	filled  int
	lending bool // inside Received or Filled, where Fill is allowed
	fresh   bool // something to show has come since Received was last called

	lastAck loop.Instant
	keep    struct {
		idle, interval time.Duration
		count          int
		missed         int
		generation     int
	}
}

var _ loop.Conn = (*conn)(nil)

// connError is why a connection ends.
type connError struct {
	c   *conn
	err error
}

// segment is a run of bytes to send: a part of ref, or of own.
type segment struct {
	ref *buf.Ref
	own []byte
	b   []byte // what is left
}

// wire is one direction of a connection: what the two kernels and the way between them hold.
type wire struct {
	from   *conn
	items  []wireItem // on the way, in order
	head   int
	last   loop.Instant // when the newest of them arrives
	broken bool         // nothing arrives any more

	bytes []byte // [start:start+avail] have arrived, what follows is on the way
	start int
	avail int
}

type itemKind uint8

const (
	itemSyn itemKind = iota + 1
	itemSynAck
	itemData
	itemFin
	itemRst
)

type wireItem struct {
	kind itemKind
	n    int // bytes of data
}

// push puts an item on its way; it arrives at the given moment, but after those before it.
func (wr *wire) push(it wireItem, at loop.Instant) {
	if wr.head > 0 && wr.head == len(wr.items) {
		wr.items, wr.head = wr.items[:0], 0
	}
	wr.items = append(wr.items, it)
	wr.last = max(wr.last, at)
	wr.from.l.w.push(event{at: wr.last, kind: evArrive, x: wr})
}

func (wr *wire) first() wireItem { return wr.items[wr.head] }

func (wr *wire) pop() wireItem {
	it := wr.items[wr.head]
	wr.head++
	if wr.head >= 64 && wr.head*2 >= len(wr.items) {
		wr.items = slices.Delete(wr.items, 0, wr.head)
		wr.head = 0
	}
	return it
}

// held is how many bytes have left the sender and were not consumed.
func (wr *wire) held() int { return len(wr.bytes) - wr.start }

func (wr *wire) add(p []byte) {
	if wr.start > 0 && (wr.start == len(wr.bytes) || wr.start >= window) {
		wr.bytes = wr.bytes[:copy(wr.bytes, wr.bytes[wr.start:])]
		wr.start = 0
	}
	wr.bytes = append(wr.bytes, p...)
}

// Send queues a copy of p.
func (c *conn) Send(p []byte) {
	if !c.sendable(len(p)) {
		return
	}
	if n := len(c.segs); n > c.segHead {
		if s := &c.segs[n-1]; s.ref == nil && cap(s.b)-len(s.b) >= len(p) {
			s.b = append(s.b, p...)
			c.touch()
			return
		}
	}
	own := c.l.w.chunk(len(p))
	c.enqueue(segment{own: own, b: append(own, p...)})
}

// SendRef queues a part of b without copying.
func (c *conn) SendRef(b *buf.Ref, off, n int) {
	p := b.Bytes()[off : off+n]
	if !c.sendable(n) {
		return
	}
	c.enqueue(segment{ref: b.Retain(), b: p})
}

func (c *conn) sendable(n int) bool {
	if n == 0 || c.closing || c.closed || c.ending || c.l.dead {
		return false
	}
	c.queued += n
	c.over = c.over || c.queued > loop.HighWater
	return true
}

func (c *conn) enqueue(s segment) {
	if c.segHead > 0 && c.segHead == len(c.segs) {
		c.segs, c.segHead = c.segs[:0], 0
	}
	c.segs = append(c.segs, s)
	c.touch()
}

// touch makes the end of the turn flush c.
func (c *conn) touch() {
	if !c.dirty {
		c.dirty = true
		c.l.dirty = append(c.l.dirty, c)
	}
	c.l.needTurn()
}

// flush lets what is queued leave, as far as there is room, in pieces that arrive one after the other.
func (c *conn) flush() {
	c.dirty = false
	if !c.opened || c.closing || c.closed {
		return
	}
	moved := 0
	for c.queued > 0 {
		s := &c.segs[c.segHead]
		n := min(window-c.out.held(), len(s.b))
		if n == 0 {
			break
		}
		c.out.add(s.b[:n])
		s.b = s.b[n:]
		c.queued -= n
		moved += n
		if len(s.b) == 0 {
			c.dropSegment()
		}
	}
	if moved > 0 {
		c.cut(moved)
	}
	if c.queued > 0 {
		return
	}
	if c.over {
		c.over = false
		c.soon(evDrained)
	}
	if c.ending {
		c.Close()
	}
}

// cut sends n bytes on their way in a few pieces (SetPieces), sometimes very small ones: enough to find a parser that counts on whole messages, few enough to be quick.
func (c *conn) cut(n int) {
	w := c.l.w
	if w.trace != nil {
		w.tracef(c.l.name, "%s: %d bytes leave", c.label(), n)
	}
	net := w.Net
	if net.call() {
		net.BreakConn(c, BreakBoth)
	}
	link := net.special(c.l, c.peer.l)
	for pieces := 1 + net.cuts.IntN(net.pieces); n > 0; pieces-- {
		k := n
		if pieces > 1 && n > 1 {
			k = 1 + net.cuts.IntN(n-1)
			if net.cuts.IntN(8) == 0 {
				k = min(k, 1+net.cuts.IntN(16))
			}
		}
		at := w.now
		if link != nil && link.rate > 0 {
			link.free = max(link.free, at).Add(time.Duration(int64(k) * int64(time.Second) / link.rate))
			at = link.free
		}
		c.out.push(wireItem{itemData, k}, at.Add(net.latency(c.l, c.peer.l)))
		n -= k
	}
}

func (c *conn) dropSegment() {
	s := &c.segs[c.segHead]
	if s.ref != nil {
		s.ref.Release()
	} else {
		c.l.w.recycle(s.own)
	}
	*s = segment{}
	c.segHead++
}

// dropQueue forgets what has not left.
func (c *conn) dropQueue() {
	for c.segHead < len(c.segs) {
		c.dropSegment()
	}
	c.segs, c.segHead, c.queued, c.over = c.segs[:0], 0, 0, false
}

// soon queues an event of this connection.
func (c *conn) soon(k eventKind) {
	c.l.w.push(event{at: c.l.w.now.Add(soon), l: c.l, kind: k, x: c})
}

// Queued is the number of bytes that have not left.
func (c *conn) Queued() int { return c.queued }

// Fill asks for the next bytes of the stream in p.
func (c *conn) Fill(p []byte) {
	if !c.lending {
		panic("sim: Fill outside of Received and Filled")
	}
	if c.filling {
		panic("sim: Fill while another buffer is being filled")
	}
	c.fill, c.filling, c.filled = p, true, 0
}

// Pause stops reading.
func (c *conn) Pause() { c.paused = true }

// Resume goes on with reading.
func (c *conn) Resume() {
	if !c.paused {
		return
	}
	c.paused = false
	c.fresh = true
	if !c.closing && !c.closed && !c.l.dead {
		c.soon(evRead)
	}
}

// Close ends the connection.
func (c *conn) Close() {
	if c.closing || c.closed || c.l.dead {
		return
	}
	c.closing = true
	c.dropQueue()
	c.discard()
	c.fin()
	c.soon(evClosed)
}

// CloseAfterSend closes once everything queued has left.
func (c *conn) CloseAfterSend() {
	if c.closing || c.closed || c.l.dead {
		return
	}
	c.ending = true
	c.touch()
}

// fin ends this end's stream after what has left.
func (c *conn) fin() {
	w := c.l.w
	to := c.l
	if c.peer != nil {
		to = c.peer.l
	}
	if !c.out.broken {
		c.out.push(wireItem{kind: itemFin}, w.now.Add(w.Net.latency(c.l, to)))
	}
}

// abandon ends the connection of a killed process.
func (c *conn) abandon() {
	if c.closed {
		return
	}
	was := c.closing
	c.closed = true
	if c.out.broken || was {
		return
	}
	w := c.l.w
	kind := itemRst
	if c.peer == nil {
		kind = itemFin // nobody knows of it yet
	}
	c.out.push(wireItem{kind: kind}, w.now.Add(w.Net.latency(c.l, c.l)))
}

// Local names this end.
func (c *conn) Local() loop.Addr { return c.local }

// Remote names the other end.
func (c *conn) Remote() loop.Addr { return c.remote }

// SetKeepAlive sets TCP keep-alive.
func (c *conn) SetKeepAlive(idle, interval time.Duration, count int) {
	if c.remote.Network != "tcp" || c.closed || c.l.dead || idle <= 0 || interval <= 0 {
		return
	}
	c.keep.idle, c.keep.interval, c.keep.count, c.keep.missed = idle, interval, count, 0
	c.keep.generation++
	c.l.w.push(event{at: c.l.w.now.Add(idle), kind: evProbe, x: c, n: c.keep.generation})
}

// LastAck is when the peer last acknowledged anything.
func (c *conn) LastAck() loop.Instant {
	if c.remote.Network != "tcp" {
		return c.l.Now()
	}
	return c.l.Now().Add(-c.l.w.now.Sub(c.lastAck))
}

// accept asks the listener's handler who takes the connection.
func (c *conn) accept() {
	if c.closed || c.closing {
		return
	}
	if c.listener.gone {
		c.closing = true
		c.fin()
		c.vanish()
		return
	}
	c.h = c.listener.h.Accepted(c)
	if c.h == nil {
		c.dropQueue()
		c.closing = true
		c.fin()
		c.vanish()
		return
	}
	c.touch()
}

// vanish ends a connection that has no handler to tell.
func (c *conn) vanish() {
	c.closed = true
	c.discard()
	c.l.forget(c)
}

func (c *conn) establish() {
	if c.closed || c.closing {
		return
	}
	c.opened = true
	c.h.Opened(c)
	if !c.closing && !c.closed {
		c.touch()
	}
}

// consume gives n arrived bytes' room back to the sender.
func (c *conn) consume(n int) {
	wr := c.in
	wr.start += n
	wr.avail -= n
	p := c.peer
	if n > 0 && p.queued > 0 && !p.roomComing && !p.l.dead {
		p.roomComing = true
		w := c.l.w
		w.push(event{at: w.now.Add(w.Net.latency(c.l, p.l)), kind: evWritable, x: p})
	}
}

// discard drops what has arrived at an end that reads no more.
func (c *conn) discard() {
	if c.in != nil && c.in.avail > 0 {
		c.consume(c.in.avail)
	}
}

// read shows the handler what has arrived.
func (c *conn) read() {
	if c.h == nil || !c.opened {
		return
	}
	c.fresh = true
	for !c.closing && !c.closed && !c.paused && !c.l.dead {
		wr := c.in
		switch {
		case c.filling:
			n := copy(c.fill[c.filled:], wr.bytes[wr.start:wr.start+wr.avail])
			c.filled += n
			c.consume(n)
			if c.filled < len(c.fill) {
				c.maybeEnd()
				return
			}
			c.fill, c.filling, c.fresh = nil, false, true
			c.lending = true
			c.h.Filled(c)
			c.lending = false
		case wr.avail > 0 && c.fresh:
			n := min(wr.avail, show)
			p := wr.bytes[wr.start : wr.start+n : wr.start+n]
			c.fresh = n < wr.avail // more is to be shown at once, if this is consumed
			c.lending = true
			k := c.h.Received(c, p)
			c.lending = false
			if k < 0 || k > n {
				panic(fmt.Sprintf("sim: Received says it consumed %d of %d bytes", k, n))
			}
			if c.closing || c.closed || c.l.dead {
				return // Close has discarded them
			}
			c.consume(k)
			if k == 0 && n == show && !c.filling && !c.paused {
				panic("sim: a handler waits for more than 64 KiB in one piece; it must use Fill")
			}
			c.fresh = c.fresh && k > 0
		default:
			c.maybeEnd()
			return
		}
	}
}

// maybeEnd closes after the peer's end of stream.
func (c *conn) maybeEnd() {
	if c.eof && !c.closing {
		c.finish(nil)
	}
}

func (c *conn) drained() {
	if !c.closed && !c.closing {
		c.h.Drained(c)
	}
}

// fail ends the connection because of the network; an end that was closed already only waits for its Closed.
func (c *conn) fail(err error) {
	if c.closing {
		return
	}
	c.finish(err)
}

// finish is the last call of the handler.
func (c *conn) finish(err error) {
	if c.closed {
		return
	}
	c.closed = true
	c.dropQueue()
	c.discard()
	c.fill, c.filling = nil, false
	c.l.forget(c)
	if err != nil && c.peer != nil && !c.peer.closed && !c.out.broken {
		w := c.l.w // as a kernel does that gives up a connection
		c.out.push(wireItem{kind: itemRst}, w.now.Add(w.Net.latency(c.l, c.peer.l)))
	}
	if c.h != nil {
		c.h.Closed(c, err)
	}
}

func (l *Loop) forget(c *conn) {
	if i := slices.Index(l.conns, c); i >= 0 {
		l.conns = slices.Delete(l.conns, i, i+1)
	}
}

// chunkSize is the size of the buffers that Send copies into; longer sends get their own.
const chunkSize = 16 << 10

func (w *World) chunk(n int) []byte {
	if n > chunkSize {
		return make([]byte, 0, n)
	}
	if k := len(w.chunks); k > 0 {
		b := w.chunks[k-1]
		w.chunks = w.chunks[:k-1]
		return b
	}
	return make([]byte, 0, chunkSize)
}

func (w *World) recycle(b []byte) {
	if cap(b) == chunkSize {
		w.chunks = append(w.chunks, b[:0])
	}
}
