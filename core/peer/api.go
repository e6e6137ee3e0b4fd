// Package peer keeps the connections between daemons and clients: dialling, handshake, proof of the cluster key, pings, matching of replies, back-pressure.
//
// osd and core/client use it. A Hub and everything it hands out belong to one loop and are touched only there. It guarantees that each Call completes exactly once and
// never inside a method of the Hub, that a payload is never copied once it is in a buffer, and that nothing is allocated for a call or a request in steady state.
// docs/formats/wire.md describes the handshake.
package peer

import (
	"errors"
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/wire"
)

// Piece is payload: Ref.Bytes()[Off:Off+Len].
type Piece struct {
	Ref *buf.Ref
	Off int
	Len int
}

// Call is one request to an OSD and its reply. The owner embeds or pools it and sets Done once; the Hub owns it from Call to Done.
type Call struct {
	Header  wire.Header // opcode and fields; magic and id are filled in by the Hub
	Meta    []byte      // what goes before the payload (bitmap, our own cold part); lent until Done
	Payload []Piece     // lent until Done, in order; with Meta it must be as long as Header says
	// Deadline, when not 0, is a moment of this loop that the Hub writes into the trailer in the receiver's time as the request leaves.
	// It is moved earlier, never later, by what is not known about the receiver's clock. Stock OSDs get none.
	Deadline loop.Instant

	Reply     wire.Header // the reply's 128 bytes
	ReplyMeta []byte      // bitmap or JSON of the reply, in the Call's own reused memory
	ReplyData *buf.Ref    // data of the reply, nil when there is none; the owner releases it
	Err       error       // transport errors only: *DisconnectedError; an OSD's -errno is in Reply
	Done      func(*Call)

	impl callImpl
}

// Active reports whether the Hub owns c now.
func (c *Call) Active() bool { return c.impl.state != callIdle }

// Sent reports whether c's request has been handed to a connection.
func (c *Call) Sent() bool { return c.impl.state == callSent }

// DisconnectedError says that the connection to an OSD was lost or never came about: whether the request took effect is unknown when Sent.
type DisconnectedError struct {
	OSD   layout.OSDNum
	Sent  bool
	Cause error
}

func (e *DisconnectedError) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("connection to OSD %d lost", e.OSD)
	}
	return fmt.Sprintf("connection to OSD %d lost: %v", e.OSD, e.Cause)
}

func (e *DisconnectedError) Unwrap() error { return e.Cause }

// Causes of a DisconnectedError besides those of the network.
var (
	// ErrNoAddress means that the OSD's addresses are not known (it is not up).
	ErrNoAddress = errors.New("the OSD has no known address")
	// ErrQueueFull means that Options.MaxQueue calls are waiting for the connection already.
	ErrQueueFull = errors.New("too many calls wait for the connection")
	// ErrClosed means that the Hub, or the connection by RemovePeer, was closed on this side.
	ErrClosed = errors.New("closed on this side")
	// ErrSilent means that nothing came, not even the answer to a ping.
	ErrSilent = errors.New("the other side does not answer pings")
	// ErrHandshake means that the two sides do not accept each other; the message says why.
	ErrHandshake = errors.New("handshake refused")
)

// Handler serves what others ask of this daemon and hears of connections.
type Handler interface {
	// Serve takes one request; the answer is given by Request.Reply, at once or later, once. The sender's right to the opcode has been checked (wire.Access).
	Serve(r *Request)
	// PeerUp and PeerDown tell of connections dialled by this Hub to an OSD, after the handshake, and of their end. Every Call that was sent completes
	// before PeerDown.
	PeerUp(osd layout.OSDNum)
	PeerDown(osd layout.OSDNum, err error)
	// IncomingDown tells that a connection made by somebody else has ended (locks and sessions tied to it end). It is told only of connections that
	// finished the handshake.
	IncomingDown(c *Incoming)
}
