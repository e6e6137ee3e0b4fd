package peer

import (
	"errors"

	"holdfast/core/layout"
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
	Payload []Piece     // lent until Done, in order

	Reply     wire.Header // the reply's 128 bytes
	ReplyMeta []byte      // bitmap or JSON of the reply, in the Call's own reused memory
	ReplyData *buf.Ref    // data of the reply, nil when there is none; the owner releases it
	Err       error       // transport errors only: *DisconnectedError; an OSD's -errno is in Reply
	Done      func(*Call)

	impl callImpl
}

// DisconnectedError says that the connection to an OSD was lost or never came about: whether the request took effect is unknown when Sent.
type DisconnectedError struct {
	OSD   layout.OSDNum
	Sent  bool
	Cause error
}

func (e *DisconnectedError) Error() string {
	if e.Cause == nil {
		return "connection to OSD lost"
	}
	return "connection to OSD lost: " + e.Cause.Error()
}

func (e *DisconnectedError) Unwrap() error { return e.Cause }

// ErrNoAddress means that the OSD's addresses are not known (it is not up).
var ErrNoAddress = errors.New("the OSD has no known address")

// Handler serves what others ask of this daemon and hears of connections.
type Handler interface {
	// Serve takes one request; the answer is given by Request.Reply, at once or later, once.
	Serve(r *Request)
	// PeerUp and PeerDown tell of connections dialled by this Hub to an OSD, after the handshake, and of their end.
	PeerUp(osd layout.OSDNum)
	PeerDown(osd layout.OSDNum, err error)
	// IncomingDown tells that a connection made by somebody else has ended (locks and sessions tied to it end).
	IncomingDown(c *Incoming)
}
