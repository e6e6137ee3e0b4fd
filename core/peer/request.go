package peer

import (
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/wire"
)

// Request is one request from elsewhere. It belongs to the Handler from Serve to Reply (or Drop), which must come exactly once; the Hub reuses it afterwards.
type Request struct {
	Header   wire.Header
	Meta     []byte   // valid until Reply
	Data     *buf.Ref // nil when there is none; the Hub releases it at Reply unless it was taken
	From     *Incoming
	Received loop.Instant // when its last byte had come
}

// Reply answers: h's retval and fields are sent with the request's id and opcode, then meta, then data. h and meta are copied, of data references are taken, so that
// everything is the caller's again on return. On a connection that has ended it only gives the request back.
func (r *Request) Reply(h *wire.Header, meta []byte, data []Piece) {}

// Fail answers with a negative retval and nothing else.
func (r *Request) Fail(errno int64) {}

// Drop gives the request back without an answer.
func (r *Request) Drop() {}

// TakeData makes the data the caller's, who releases it. It may be nil.
func (r *Request) TakeData() *buf.Ref { return nil }

// Gone reports whether the connection has ended, so that nobody waits for the answer.
func (r *Request) Gone() bool { return false }

// Incoming is a connection that somebody else made to us. It stays valid after its end for as long as anybody holds it.
type Incoming struct {
	OSD           layout.OSDNum // 0 for clients
	Role          string        // "" for stock clients
	Instance      uint64        // 0 for stock clients
	Client        string        // name for people
	Authenticated bool          // proved the cluster key
	Legacy        bool          // a stock client
	Remote        loop.Addr
	User          any // the Handler's own
}

// Close ends the connection, for example to make a client write again what it had not synced.
func (c *Incoming) Close(cause error) {}

// Gone reports whether the connection has ended.
func (c *Incoming) Gone() bool { return false }
