package wire

import (
	"fmt"

	"holdfast/core/layout"
)

// Limits of what follows a header.
const (
	// MaxData bounds the data of one packet (OSD_RW_MAX).
	MaxData = 64 << 20
	// MaxMeta bounds what comes before the data: bitmaps, JSON, the cold part of our own sub-operations.
	MaxMeta = 1 << 20
)

// Positions of the two lengths in packets of our own opcodes (32..63). Requests have retval's place free for themselves.
const (
	ownRequestMeta = 112 // u32, at most MaxMeta
	ownRequestData = 116 // u32, at most MaxData
	ownReplyMeta   = 120
	ownReplyData   = 124
)

// SetRequestLens writes the payload lengths of a request with one of our own opcodes.
func (h *Header) SetRequestLens(meta, data int) {
	le.PutUint32(h[ownRequestMeta:], uint32(meta))
	le.PutUint32(h[ownRequestData:], uint32(data))
}

// SetReplyLens writes the payload lengths of a reply to one of our own opcodes.
func (h *Header) SetReplyLens(meta, data int) {
	le.PutUint32(h[ownReplyMeta:], uint32(meta))
	le.PutUint32(h[ownReplyData:], uint32(data))
}

// PayloadLen is how many bytes follow a request: first meta (bitmap, JSON, arrays of versions), then data. An error means that the stream cannot be followed further.
// Unknown opcodes have no payload.
func PayloadLen(h *Header) (meta, data int, err error) {
	op := h.Op()
	if h.Magic() != RequestMagic {
		return 0, 0, &PacketError{Op: op, Field: "magic", Value: h.Magic()}
	}
	var m, d uint64
	switch op {
	case OpShowConfig:
		m = le.Uint64(h[24:])
	case OpWrite:
		d = uint64(le.Uint32(h[40:]))
	case OpSecWrite, OpSecWriteStable:
		m, d = uint64(le.Uint32(h[56:])), uint64(le.Uint32(h[52:]))
	case OpSecStabilize, OpSecRollback, OpSecReadBmp:
		m = le.Uint64(h[24:])
		if m%VersionedSize != 0 {
			return 0, 0, &PacketError{Op: op, Field: "len", Value: m}
		}
	default:
		if op.IsOwn() {
			m, d = uint64(le.Uint32(h[ownRequestMeta:])), uint64(le.Uint32(h[ownRequestData:]))
		}
	}
	return bound(op, m, d)
}

// ReplyPayloadLen is how many bytes follow the reply to a request. Besides what PayloadLen checks, the reply must be of the request's kind and must have the length asked
// for: there are no short reads.
func ReplyPayloadLen(request, reply *Header) (meta, data int, err error) {
	op := request.Op()
	if reply.Magic() != ReplyMagic || reply.Op() != op {
		return 0, 0, &PacketError{Op: op, Field: "magic or opcode of the reply", Value: uint64(reply.Op())}
	}
	if op.IsOwn() {
		m, d := uint64(le.Uint32(reply[ownReplyMeta:])), uint64(le.Uint32(reply[ownReplyData:]))
		if op == OpSubReadRange && reply.Retval() >= 0 {
			if err := exact(op, d, le.Uint32(request[60:])); err != nil {
				return 0, 0, err
			}
		}
		return bound(op, m, d)
	}
	retval := reply.Retval()
	if retval < 0 {
		return 0, 0, nil
	}
	n := uint64(retval)
	var m, d uint64
	switch op {
	case OpRead:
		m, d = uint64(le.Uint32(reply[32:])), n
		err = exact(op, n, le.Uint32(request[40:]))
	case OpWrite:
		err = exact(op, n, le.Uint32(request[40:]))
	case OpSecRead:
		m, d = uint64(le.Uint32(reply[40:])), n
		err = exact(op, n, le.Uint32(request[52:]))
	case OpSecWrite, OpSecWriteStable:
		err = exact(op, n, le.Uint32(request[52:]))
	case OpShowConfig:
		m = n
	case OpSecList:
		if n > MaxData/VersionedSize {
			return 0, 0, &PacketError{op, "count", n, MaxData / VersionedSize}
		}
		d = n * VersionedSize
	case OpDescribe:
		d = le.Uint64(reply[32:])
		if n > MaxDescribe || d != n*DescribeItemSize {
			return 0, 0, &PacketError{Op: op, Field: "result_bytes", Value: d}
		}
	case OpSecReadBmp:
		d = n
	case OpDelete:
		if c := le.Uint32(reply[36:]); c > MaxLeftOnDead {
			return 0, 0, &PacketError{op, "left_on_dead_count", uint64(c), MaxLeftOnDead}
		}
	}
	if err != nil {
		return 0, 0, err
	}
	return bound(op, m, d)
}

func exact(op Opcode, have uint64, want uint32) error {
	if have != uint64(want) {
		return &PacketError{Op: op, Field: "length of the reply", Value: have}
	}
	return nil
}

func bound(op Opcode, meta, data uint64) (int, int, error) {
	switch {
	case meta > MaxMeta:
		return 0, 0, &PacketError{op, "length before the data", meta, MaxMeta}
	case data > MaxData:
		return 0, 0, &PacketError{op, "length of the data", data, MaxData}
	}
	return int(meta), int(data), nil
}

// PayloadError says that a payload is not an array of whole entries, or has too many.
type PayloadError struct {
	What string
	Len  int
}

func (e *PayloadError) Error() string { return fmt.Sprintf("%d bytes are not %s", e.Len, e.What) }

// VersionedSize is the size of a Versioned on the wire.
const VersionedSize = 24

// Versioned is an object at a version (obj_ver_id).
type Versioned struct {
	OID     layout.ObjectID
	Version uint64
}

// AppendVersioned appends v's 24 bytes to b.
func AppendVersioned(b []byte, v Versioned) []byte {
	b = le.AppendUint64(b, uint64(v.OID.Inode))
	b = le.AppendUint64(b, v.OID.Stripe)
	return le.AppendUint64(b, v.Version)
}

// PutVersioned writes v to the first 24 bytes of b.
func PutVersioned(b []byte, v Versioned) {
	putOID(b, v.OID)
	le.PutUint64(b[16:], v.Version)
}

// DecodeVersioned appends the entries in b to dst.
func DecodeVersioned(dst []Versioned, b []byte) ([]Versioned, error) {
	if len(b)%VersionedSize != 0 {
		return dst, &PayloadError{"object versions of 24 bytes", len(b)}
	}
	for ; len(b) > 0; b = b[VersionedSize:] {
		dst = append(dst, Versioned{getOID(b), le.Uint64(b[16:])})
	}
	return dst, nil
}

// What is wrong with a copy that DESCRIBE lists.
const (
	LocOutdated     uint32 = 1
	LocCorrupted    uint32 = 2
	LocInconsistent uint32 = 4

	// For our own clients:
	LocMissing uint32 = 1 << 8 // there is none, and the OSD is to have one
	LocDeleted uint32 = 1 << 9 // the truth is that the object does not exist
	// The low bits of the object's state (ObjectDegraded ...).
	locState     = 16
	locStateMask = 0xff
)

// LocState puts an object's state into DescribeItem.Bad, for our own clients.
func LocState(state uint64) uint32 { return uint32(state&locStateMask) << locState }

// DescribeItemSize is the size of a DescribeItem on the wire.
const DescribeItemSize = 32

// DescribeItem is one copy or chunk of an unclean object.
type DescribeItem struct {
	OID  layout.ObjectID // @0, the stripe without a role
	Role uint32          // @16
	Bad  uint32          // @20
	OSD  layout.OSDNum   // @24
}

// State is the object's state (ObjectDegraded ...), as far as our own OSDs tell it.
func (it *DescribeItem) State() uint64 { return uint64(it.Bad >> locState & locStateMask) }

// AppendDescribeItem appends it's 32 bytes to b.
func AppendDescribeItem(b []byte, it DescribeItem) []byte {
	b = le.AppendUint64(b, uint64(it.OID.Inode))
	b = le.AppendUint64(b, it.OID.Stripe)
	b = le.AppendUint32(b, it.Role)
	b = le.AppendUint32(b, it.Bad)
	return le.AppendUint64(b, uint64(it.OSD))
}

// DecodeDescribeItems appends the items in b to dst.
func DecodeDescribeItems(dst []DescribeItem, b []byte) ([]DescribeItem, error) {
	if len(b)%DescribeItemSize != 0 {
		return dst, &PayloadError{"described objects of 32 bytes", len(b)}
	}
	for ; len(b) > 0; b = b[DescribeItemSize:] {
		dst = append(dst, DescribeItem{getOID(b), le.Uint32(b[16:]), le.Uint32(b[20:]), layout.OSDNum(le.Uint64(b[24:]))})
	}
	return dst, nil
}
