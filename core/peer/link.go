package peer

import (
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/wire"
)

// owner is what stands behind a link: a dialled OSD or an Incoming.
type owner interface {
	opened()
	// admit says whether a request may come, before its payload is received. answered means that it was refused and has no payload.
	admit(h *wire.Header, meta, data int) (answered bool, err error)
	// request takes a request that is complete.
	request(r *Request)
	// drained says that the send queue is empty again.
	drained()
	// ended is the last call; err is never nil.
	ended(err error)
}

// stage is which part of a packet comes next.
type stage uint8

const (
	atHeader stage = iota
	atMeta
	atData
)

const (
	// fillPiece is how much of a payload is asked for at once, so that a slow transfer shows life.
	fillPiece = 1 << 20
	// keepMeta is how large a reused buffer for the small part of a payload may stay.
	keepMeta = 64 << 10
	// firstMeta is what such a buffer holds at least.
	firstMeta = 64
)

// link is one connection: packets in both directions, the calls that wait for their replies, pings, and the other side's clock.
type link struct {
	hub   *Hub
	own   owner
	conn  loop.Conn
	dead  bool  // Close was called, or Closed
	cause error // of our Close

	// The packet that is arriving:
	stage stage
	hdr   wire.Header
	meta  []byte // of req or call
	data  *buf.Ref
	got   int // bytes of the present stage
	fill  int // bytes of the running Fill
	req   *Request
	call  *Call

	lastID   uint64 // of our requests
	sent     callList
	table    callTable
	checkSeq bool
	nextID   uint64 // expected, with checkSeq

	keep  keepAlive
	clock clock

	out    uint64 // bytes handed to conn
	paused bool   // not reading: back-pressure
}

func (k *link) init(h *Hub, own owner) {
	k.hub, k.own = h, own
	k.keep.init(k)
	k.clock.init(k)
}

// fail ends the connection for a reason of ours.
func (k *link) fail(err error) {
	if k.dead {
		return
	}
	k.dead, k.cause = true, err
	k.stop()
	k.conn.Close()
}

// failAfterSend ends it once the last answer has left.
func (k *link) failAfterSend(err error) {
	if k.dead {
		return
	}
	k.dead, k.cause = true, err
	k.stop()
	k.conn.CloseAfterSend()
}

func (k *link) stop() {
	k.hub.l.Disarm(&k.keep.timer)
	k.hub.l.Disarm(&k.clock.timer)
}

// Opened is called by the loop.
func (k *link) Opened(loop.Conn) {
	if !k.dead {
		k.own.opened()
	}
}

// Drained is called by the loop.
func (k *link) Drained(loop.Conn) {
	if !k.dead {
		k.own.drained()
	}
}

// Closed is called by the loop. The calls that were sent complete here.
func (k *link) Closed(_ loop.Conn, err error) {
	k.dead = true
	k.stop()
	if k.cause == nil {
		k.cause = err
	}
	if k.cause == nil {
		k.cause = errEOF
	}
	if k.data != nil {
		k.data.Release()
		k.data = nil
	}
	if k.req != nil {
		k.req.recycle()
		k.req = nil
	}
	if c := k.call; c != nil { // its reply was arriving
		k.call = nil
		k.sent.push(c, callSent)
	}
	k.table = callTable{}
	k.own.ended(k.cause)
}

// start sends a call's request.
func (k *link) start(c *Call) {
	c.Err, c.ReplyData = nil, nil
	k.lastID++
	c.impl.id = k.lastID
	c.Header.SetID(k.lastID)
	if c.Deadline != 0 {
		d, _ := k.clock.remote(c.Deadline) // 0, none, where the clock is not known
		c.Header.SetDeadline(d)
	}
	k.sent.push(c, callSent)
	k.table.put(c)
	k.send(&c.Header, c.Meta, c.Payload)
}

func (k *link) send(h *wire.Header, meta []byte, data []Piece) {
	k.conn.Send(h[:])
	n := wire.HeaderSize + len(meta)
	if len(meta) > 0 {
		k.conn.Send(meta)
	}
	for _, p := range data {
		if p.Len > 0 {
			k.conn.SendRef(p.Ref, p.Off, p.Len)
			n += p.Len
		}
	}
	k.out += uint64(n)
}

// left is how many bytes have left this process.
func (k *link) left() uint64 { return k.out - uint64(k.conn.Queued()) }

func pieceBytes(data []Piece) int {
	n := 0
	for _, p := range data {
		n += p.Len
	}
	return n
}
