package peer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"holdfast/core/loop"
	"holdfast/core/wire"
)

var errEOF = errors.New("closed by the other side")

// Received is called by the loop: it takes as many packets as p holds. What goes before the data is collected here, data goes into its buffer, and the loop is asked
// to put the rest of it there itself.
func (k *link) Received(_ loop.Conn, p []byte) int {
	k.keep.hear()
	n := 0
	for !k.dead {
		switch rest := p[n:]; k.stage {
		case atHeader:
			if k.paused {
				return n
			}
			if len(rest) >= 8 && len(rest) < wire.HeaderSize && !known(rest) {
				k.fail(errGarbage(rest))
				return n
			}
			if len(rest) < wire.HeaderSize {
				return n
			}
			n += copy(k.hdr[:], rest)
			k.header()
		case atMeta:
			m := copy(k.meta[k.got:], rest)
			n += m
			k.got += m
			if k.got < len(k.meta) {
				return n
			}
			k.afterMeta()
		case atData:
			b := k.data.Bytes()
			m := copy(b[k.got:], rest)
			n += m
			k.got += m
			if k.got < len(b) {
				k.askFill()
				return n
			}
			k.complete()
		}
	}
	return len(p) // a dead link reads nothing more
}

// Filled is called by the loop.
func (k *link) Filled(loop.Conn) {
	k.keep.hear()
	if k.dead {
		return
	}
	k.got += k.fill
	if k.got < k.data.Len() {
		k.askFill()
		return
	}
	k.complete()
}

func (k *link) askFill() {
	b := k.data.Bytes()[k.got:]
	k.fill = min(len(b), fillPiece)
	k.conn.Fill(b[:k.fill])
}

func known(p []byte) bool {
	m := binary.LittleEndian.Uint64(p)
	return m == wire.RequestMagic || m == wire.ReplyMagic
}

func errGarbage(p []byte) error { return fmt.Errorf("not a packet: it starts with %x", p[:8]) }

// header looks at the packet in k.hdr and prepares for its payload. After an error the link is dead.
func (k *link) header() {
	var meta, data int
	var err error
	switch k.hdr.Magic() {
	case wire.RequestMagic:
		meta, data, err = k.requestHeader()
	case wire.ReplyMagic:
		meta, data, err = k.replyHeader()
	default:
		err = errGarbage(k.hdr[:])
	}
	switch {
	case err != nil:
		k.fail(err)
		return
	case k.dead || k.req == nil && k.call == nil: // refused with an answer
		return
	}
	if data > 0 {
		k.data = k.hub.l.Alloc(data)
	}
	k.stage, k.got = atMeta, 0
	if meta == 0 {
		k.afterMeta()
	}
}

func (k *link) requestHeader() (meta, data int, err error) {
	h := &k.hdr
	if k.checkSeq {
		if h.ID() != k.nextID {
			return 0, 0, fmt.Errorf("request %d came where %d was due", h.ID(), k.nextID)
		}
		k.nextID++
	}
	if meta, data, err = wire.PayloadLen(h); err != nil {
		return 0, 0, err
	}
	answered, err := k.own.admit(h, meta, data)
	if answered || err != nil {
		return 0, 0, err
	}
	r := k.hub.newRequest(k)
	r.Header = *h
	r.id, r.op, r.cost = h.ID(), h.Op(), requestCost+meta+data
	r.Meta = grow(r.Meta, meta)
	k.req, k.meta = r, r.Meta
	return meta, data, nil
}

func (k *link) replyHeader() (meta, data int, err error) {
	h := &k.hdr
	c := k.table.take(h.ID())
	if c == nil {
		return 0, 0, fmt.Errorf("reply to request %d, which is not waiting for one", h.ID())
	}
	k.sent.remove(c)
	k.call = c
	if meta, data, err = wire.ReplyPayloadLen(&c.Header, h); err != nil {
		return 0, 0, err
	}
	c.ReplyMeta = grow(c.ReplyMeta, meta)
	k.meta = c.ReplyMeta
	return meta, data, nil
}

// grow gives b the length n, in the same memory where that is large enough and not oversized.
func grow(b []byte, n int) []byte {
	if n <= cap(b) && (cap(b) <= keepMeta || n > keepMeta) {
		return b[:n]
	}
	if n == 0 {
		return nil
	}
	return make([]byte, n, max(n, firstMeta))
}

func (k *link) afterMeta() {
	k.stage, k.got = atData, 0
	if k.data == nil {
		k.complete()
	}
}

// complete hands the packet on. What is called may fail this link, call, and answer.
func (k *link) complete() {
	data, r, c := k.data, k.req, k.call
	k.stage, k.got, k.meta, k.data, k.req, k.call = atHeader, 0, nil, nil, nil, nil
	if r != nil {
		r.Data = data
		r.Received = k.hub.l.Now()
		k.own.request(r)
		return
	}
	c.Reply = k.hdr
	c.ReplyData = data
	c.finish(nil)
}
