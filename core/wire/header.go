// Package wire is the codec of the OSD protocol: 128-byte packets and the payloads behind them, byte for byte as stock Vitastor clients speak it, and our additions to it.
//
// core/peer moves the packets, osd and core/client fill and read them. The package is pure: values in, values out, nothing is allocated by Encode and Decode, and
// every length is bounded before anybody can allocate for it. All integers are little-endian. docs/formats/wire.md draws the layout.
package wire

import (
	"encoding/binary"
	"fmt"
)

// HeaderSize is the size of every packet's fixed part.
const HeaderSize = 128

// The first 8 bytes of a packet.
const (
	RequestMagic uint64 = 0x2bd7b10325434553 // "SEC%" 03 b1 d7 2b on the wire
	ReplyMagic   uint64 = 0xbaa699b87b434553 // "SEC{" b8 99 a6 ba on the wire
)

// ProtocolVersion is protocol_version of SHOW_CONFIG.
const ProtocolVersion = 1

// Header is a packet without its payload; unused bytes are zero.
//
// Requests start with magic @0, id @8, opcode @16; replies have retval @24 besides.
type Header [HeaderSize]byte

var le = binary.LittleEndian

// Magic is the first 8 bytes.
func (h *Header) Magic() uint64 { return le.Uint64(h[0:]) }

// IsRequest and IsReply tell the two kinds apart; garbage is neither.
func (h *Header) IsRequest() bool { return h.Magic() == RequestMagic }

// IsReply reports whether h is a reply.
func (h *Header) IsReply() bool { return h.Magic() == ReplyMagic }

// SetMagic sets the first 8 bytes.
func (h *Header) SetMagic(m uint64) { le.PutUint64(h[0:], m) }

// ID is the sender's number of the request; the reply repeats it.
func (h *Header) ID() uint64 { return le.Uint64(h[8:]) }

// SetID sets the id.
func (h *Header) SetID(id uint64) { le.PutUint64(h[8:], id) }

// Op is the opcode.
func (h *Header) Op() Opcode { return Opcode(le.Uint64(h[16:])) }

// SetOp sets the opcode.
func (h *Header) SetOp(op Opcode) { le.PutUint64(h[16:], uint64(op)) }

// Retval is a reply's result: a length or count, or -errno.
func (h *Header) Retval() int64 { return int64(le.Uint64(h[24:])) }

// SetRetval sets a reply's result.
func (h *Header) SetRetval(v int64) { le.PutUint64(h[24:], uint64(v)) }

// Err is nil for a reply with a result, and an Errno otherwise.
func (h *Header) Err() error {
	if v := h.Retval(); v < 0 {
		return Errno(v)
	}
	return nil
}

func (h *Header) begin(magic uint64, op Opcode) {
	*h = Header{}
	h.SetMagic(magic)
	h.SetOp(op)
}

func (h *Header) beginReply(op Opcode, retval int64) {
	h.begin(ReplyMagic, op)
	h.SetRetval(retval)
}

// ops is a set of opcodes below 64.
type ops uint64

func set(list ...Opcode) ops {
	var s ops
	for _, op := range list {
		s |= 1 << op
	}
	return s
}

func (s ops) has(op Opcode) bool { return op < 64 && s>>op&1 != 0 }

// expect checks that h is a packet of the given kind with one of the opcodes.
func (h *Header) expect(magic uint64, s ops) error {
	if h.Magic() != magic || !s.has(h.Op()) {
		return &PacketError{Op: h.Op(), Field: "magic and opcode", Value: h.Magic()}
	}
	return nil
}

// PacketError says which field of a packet cannot be right. The connection it came from must be dropped: what follows on it has no meaning.
type PacketError struct {
	Op    Opcode
	Field string
	Value uint64
	Max   uint64 // 0 when the fault is not a limit
}

func (e *PacketError) Error() string {
	if e.Max != 0 {
		return fmt.Sprintf("%v packet: %s is %d, allowed are at most %d", e.Op, e.Field, e.Value, e.Max)
	}
	return fmt.Sprintf("%v packet: wrong %s %#x", e.Op, e.Field, e.Value)
}

// Trailer is what requests of our own clients carry in bytes 64..95 beside the stock fields (DESIGN section 8). It is zero from stock clients. LIST and DESCRIBE use
// those bytes themselves and carry none.
type Trailer struct {
	Session  uint64 // never-reused id of the writer @64
	Sequence uint64 // number of this request in the session @72
	Low      uint64 // lowest sequence that the session has no answer to yet @80
	Deadline uint64 // do not start a write after this moment of the receiver's CLOCK_BOOTTIME, ns @88; 0 is none
}

const deadlineAt = 88

// Encode writes the trailer and leaves the rest of h alone.
func (t *Trailer) Encode(h *Header) {
	le.PutUint64(h[64:], t.Session)
	le.PutUint64(h[72:], t.Sequence)
	le.PutUint64(h[80:], t.Low)
	le.PutUint64(h[deadlineAt:], t.Deadline)
}

// Decode reads the trailer.
func (t *Trailer) Decode(h *Header) {
	*t = Trailer{le.Uint64(h[64:]), le.Uint64(h[72:]), le.Uint64(h[80:]), le.Uint64(h[deadlineAt:])}
}

// SetDeadline writes only the trailer's deadline.
func (h *Header) SetDeadline(ns uint64) { le.PutUint64(h[deadlineAt:], ns) }
