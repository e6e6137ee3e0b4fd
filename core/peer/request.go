package peer

import (
	"fmt"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/wire"
)

// requestCost is what a request without payload counts against Options.MaxInFlight.
const requestCost = 512

// Request is one request from elsewhere. It belongs to the Handler from Serve to Reply (or Drop), which must come exactly once; the Hub reuses it afterwards.
type Request struct {
	Header   wire.Header
	Meta     []byte   // valid until Reply
	Data     *buf.Ref // nil when there is none; the Hub releases it at Reply unless it was taken
	From     *Incoming
	Received loop.Instant // when its last byte had come

	link    *link
	id      uint64
	op      wire.Opcode
	cost    int
	counted bool
	out     wire.Header
	next    *Request
}

// newRequest takes a Request from the pool.
func (b *Hub) newRequest(k *link) *Request {
	r := b.free
	if r == nil {
		r = new(Request)
	} else {
		b.free, r.next = r.next, nil
	}
	r.link = k
	r.From, _ = k.own.(*Incoming)
	return r
}

// recycle gives r back to the pool and its data to the arena.
func (r *Request) recycle() {
	if r.link == nil {
		panic("peer: a request was answered twice")
	}
	b := r.link.hub
	if r.Data != nil {
		r.Data.Release()
	}
	r.Data, r.From, r.link, r.counted = nil, nil, nil, false
	r.Meta = grow(r.Meta, 0)
	r.next, b.free = b.free, r
}

// Reply answers: h's retval and fields are sent with the request's id and opcode, then meta, then data. h and meta are copied, of data references are taken, so that
// everything is the caller's again on return. The lengths must be those that h announces and r.Header asked for. On a connection that has ended it only gives the
// request back.
func (r *Request) Reply(h *wire.Header, meta []byte, data []Piece) {
	k := r.link
	if k == nil {
		panic("peer: a request was answered twice")
	}
	if !k.dead {
		r.out = *h
		r.out.SetMagic(wire.ReplyMagic)
		r.out.SetID(r.id)
		r.out.SetOp(r.op)
		if r.Header.IsRequest() { // else the caller has made the reply in place, and what was asked is not known here any more
			r.checkReply(len(meta), pieceBytes(data))
		}
		k.send(&r.out, meta, data)
	}
	r.finish()
}

// checkReply finds our own faults before they confuse the stream.
func (r *Request) checkReply(meta, data int) {
	m, d, err := wire.ReplyPayloadLen(&r.Header, &r.out)
	if err == nil && (m != meta || d != data) {
		err = fmt.Errorf("header announces %d + %d bytes", m, d)
	}
	if err != nil {
		panic(fmt.Sprintf("peer: reply to %v, retval %d, with %d + %d bytes: %v", r.op, r.out.Retval(), meta, data, err))
	}
}

// Fail answers with a negative retval and nothing else.
func (r *Request) Fail(errno int64) {
	var m wire.Header
	m.SetRetval(errno)
	r.Reply(&m, nil, nil)
}

// Drop gives the request back without an answer.
func (r *Request) Drop() {
	if r.link == nil {
		panic("peer: a request was answered twice")
	}
	r.finish()
}

func (r *Request) finish() {
	in, counted, cost := r.From, r.counted, r.cost
	r.recycle()
	if in == nil {
		return
	}
	if counted {
		in.inFlight -= cost
	}
	in.balance()
}

// TakeData makes the data the caller's, who releases it. It may be nil.
func (r *Request) TakeData() *buf.Ref {
	d := r.Data
	r.Data = nil
	return d
}

// Gone reports whether the connection has ended, so that nobody waits for the answer.
func (r *Request) Gone() bool { return r.link.dead }
