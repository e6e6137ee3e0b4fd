package wire

import "holdfast/core/layout"

// ReadWrite is the request READ, WRITE, DELETE or SCRUB. A WRITE is followed by Len bytes of data.
type ReadWrite struct {
	Op           Opcode
	Inode        layout.Inode // @24
	Offset       uint64       // @32, within the inode
	Len          uint32       // @40; a READ of 0 asks for the bitmaps of the whole object
	Flags        uint32       // @44
	MetaRevision uint64       // @48: revision of the inode's configuration that the sender knows; not 0 asks for a read through the layers
	Version      uint64       // @56: the version the object shall get (one above the expected), 0 is unconditional
	Trailer                   // @64
}

var readWriteOps = set(OpRead, OpWrite, OpDelete, OpScrub)

// Encode writes the packet, all but its id.
func (m *ReadWrite) Encode(h *Header) {
	h.begin(RequestMagic, m.Op)
	le.PutUint64(h[24:], uint64(m.Inode))
	le.PutUint64(h[32:], m.Offset)
	le.PutUint32(h[40:], m.Len)
	le.PutUint32(h[44:], m.Flags)
	le.PutUint64(h[48:], m.MetaRevision)
	le.PutUint64(h[56:], m.Version)
	m.Trailer.Encode(h)
}

// Decode reads the packet. Lengths are the caller's to judge: a WRITE with more than MaxData never gets here (PayloadLen).
func (m *ReadWrite) Decode(h *Header) error {
	if err := h.expect(RequestMagic, readWriteOps); err != nil {
		return err
	}
	m.Op = h.Op()
	m.Inode = layout.Inode(le.Uint64(h[24:]))
	m.Offset = le.Uint64(h[32:])
	m.Len = le.Uint32(h[40:])
	m.Flags = le.Uint32(h[44:])
	m.MetaRevision = le.Uint64(h[48:])
	m.Version = le.Uint64(h[56:])
	m.Trailer.Decode(h)
	return nil
}

// ReadWriteReply answers READ and WRITE. A READ's is followed by BitmapLen bytes of bitmap and Retval bytes of data.
type ReadWriteReply struct {
	Op        Opcode
	Retval    int64  // the request's Len
	BitmapLen uint32 // @32
	Version   uint64 // @40
}

var readWriteReplyOps = set(OpRead, OpWrite)

// Encode writes the packet, all but its id.
func (m *ReadWriteReply) Encode(h *Header) {
	h.beginReply(m.Op, m.Retval)
	le.PutUint32(h[32:], m.BitmapLen)
	le.PutUint64(h[40:], m.Version)
}

// Decode reads the packet.
func (m *ReadWriteReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, readWriteReplyOps); err != nil {
		return err
	}
	*m = ReadWriteReply{h.Op(), h.Retval(), le.Uint32(h[32:]), le.Uint64(h[40:])}
	return nil
}

// Flags of a DELETE's reply.
const (
	SupportLeftOnDead uint32 = 1 // always set: the list below has a meaning
	LeftOnDead        uint32 = 2 // the OSDs listed are dead and may still hold the object
)

// MaxLeftOnDead is how many OSD numbers a DELETE's reply has room for.
const MaxLeftOnDead = 22

// DeleteReply answers DELETE. The list of dead OSDs stands inside the header.
type DeleteReply struct {
	Retval  int64
	Flags   uint32                // @32
	Count   uint32                // @36: entries of OSDs that are used, at most MaxLeftOnDead
	OSDs    [MaxLeftOnDead]uint32 // @40
	Version uint64                // not on the wire where the list reaches it: see Encode
}

// deleteVersionAt is where our DELETE replies carry the tombstone's version, when the list leaves the room: our own addition, for CAS by our own clients.
const (
	deleteVersionAt      = 120
	maxDeadBesideVersion = (deleteVersionAt - 40) / 4
)

// Encode writes the packet, all but its id. Count must be at most MaxLeftOnDead; Version is left out when Count is above 20.
func (m *DeleteReply) Encode(h *Header) {
	h.beginReply(OpDelete, m.Retval)
	le.PutUint32(h[32:], m.Flags)
	le.PutUint32(h[36:], m.Count)
	for i, osd := range m.OSDs[:m.Count] {
		le.PutUint32(h[40+4*i:], osd)
	}
	if m.Count <= maxDeadBesideVersion {
		le.PutUint64(h[deleteVersionAt:], m.Version)
	}
}

// Decode reads the packet.
func (m *DeleteReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, set(OpDelete)); err != nil {
		return err
	}
	*m = DeleteReply{Retval: h.Retval(), Flags: le.Uint32(h[32:]), Count: le.Uint32(h[36:])}
	if m.Count > MaxLeftOnDead {
		return &PacketError{OpDelete, "left_on_dead_count", uint64(m.Count), MaxLeftOnDead}
	}
	for i := range m.OSDs[:m.Count] {
		m.OSDs[i] = le.Uint32(h[40+4*i:])
	}
	if m.Count <= maxDeadBesideVersion {
		m.Version = le.Uint64(h[deleteVersionAt:])
	}
	return nil
}

// Sync is the request SYNC: everything this OSD acknowledged to the connection becomes durable.
type Sync struct {
	Trailer // @64
}

// Encode writes the packet, all but its id.
func (m *Sync) Encode(h *Header) {
	h.begin(RequestMagic, OpSync)
	m.Trailer.Encode(h)
}

// Decode reads the packet.
func (m *Sync) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpSync)); err != nil {
		return err
	}
	m.Trailer.Decode(h)
	return nil
}

// Ping is the request PING. Sent is ours: the sender's CLOCK_BOOTTIME, 0 from stock peers.
type Ping struct {
	Sent uint64 // @32
}

// Encode writes the packet, all but its id.
func (m *Ping) Encode(h *Header) {
	h.begin(RequestMagic, OpPing)
	le.PutUint64(h[32:], m.Sent)
}

// Decode reads the packet.
func (m *Ping) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpPing)); err != nil {
		return err
	}
	m.Sent = le.Uint64(h[32:])
	return nil
}

// PingReply answers PING, and stands in the same bytes of SHOW_CONFIG's reply (Op). Clock is ours: the replier's CLOCK_BOOTTIME, 0 from stock peers.
type PingReply struct {
	Op     Opcode
	Retval int64
	Clock  uint64 // @32
}

var clockOps = set(OpPing, OpShowConfig)

// Encode writes the packet, all but its id.
func (m *PingReply) Encode(h *Header) {
	h.beginReply(m.Op, m.Retval)
	le.PutUint64(h[32:], m.Clock)
}

// Decode reads the packet.
func (m *PingReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, clockOps); err != nil {
		return err
	}
	*m = PingReply{h.Op(), h.Retval(), le.Uint64(h[32:])}
	return nil
}

// BareReply is a reply that has nothing but its result: SYNC, SEC_SYNC, SEC_STABILIZE, SEC_ROLLBACK, SEC_READ_BMP, SCRUB, and the refusal of any request.
type BareReply struct {
	Op     Opcode
	Retval int64
}

// Encode writes the packet, all but its id.
func (m *BareReply) Encode(h *Header) { h.beginReply(m.Op, m.Retval) }

// Decode reads the packet; any opcode is taken.
func (m *BareReply) Decode(h *Header) error {
	if h.Magic() != ReplyMagic {
		return &PacketError{Op: h.Op(), Field: "magic", Value: h.Magic()}
	}
	*m = BareReply{h.Op(), h.Retval()}
	return nil
}

// ShowConfig is the request SHOW_CONFIG; JSONLen bytes of JSON follow. Its reply is a PingReply with Retval bytes of JSON, a trailing NUL included.
type ShowConfig struct {
	JSONLen uint64 // @24
	Sent    uint64 // @32, as in Ping
}

// Encode writes the packet, all but its id.
func (m *ShowConfig) Encode(h *Header) {
	h.begin(RequestMagic, OpShowConfig)
	le.PutUint64(h[24:], m.JSONLen)
	le.PutUint64(h[32:], m.Sent)
}

// Decode reads the packet.
func (m *ShowConfig) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpShowConfig)); err != nil {
		return err
	}
	*m = ShowConfig{le.Uint64(h[24:]), le.Uint64(h[32:])}
	return nil
}

// ListPrimary in List.Flags asks the primary for its own view; in the reply it says that this is what was given.
const ListPrimary uint64 = 1

// List is the request SEC_LIST: the objects of a PG in a range. It uses 84 bytes, so it has no Trailer.
type List struct {
	PG           uint32       // @24
	PGCount      uint32       // @28
	PGStripeSize uint64       // @32
	MinInode     layout.Inode // @40
	MaxInode     layout.Inode // @48
	MinStripe    uint64       // @56
	MaxStripe    uint64       // @64: on the wire 0 means no limit and 2^64-1 means 0
	StableLimit  uint32       // @72
	Flags        uint64       // @76, not aligned
}

// Encode writes the packet, all but its id.
func (m *List) Encode(h *Header) {
	h.begin(RequestMagic, OpSecList)
	le.PutUint32(h[24:], m.PG)
	le.PutUint32(h[28:], m.PGCount)
	le.PutUint64(h[32:], m.PGStripeSize)
	le.PutUint64(h[40:], uint64(m.MinInode))
	le.PutUint64(h[48:], uint64(m.MaxInode))
	le.PutUint64(h[56:], m.MinStripe)
	le.PutUint64(h[64:], m.MaxStripe)
	le.PutUint32(h[72:], m.StableLimit)
	le.PutUint64(h[76:], m.Flags)
}

// Decode reads the packet.
func (m *List) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpSecList)); err != nil {
		return err
	}
	m.PG = le.Uint32(h[24:])
	m.PGCount = le.Uint32(h[28:])
	m.PGStripeSize = le.Uint64(h[32:])
	m.MinInode = layout.Inode(le.Uint64(h[40:]))
	m.MaxInode = layout.Inode(le.Uint64(h[48:]))
	m.MinStripe = le.Uint64(h[56:])
	m.MaxStripe = le.Uint64(h[64:])
	m.StableLimit = le.Uint32(h[72:])
	m.Flags = le.Uint64(h[76:])
	return nil
}

// LastStripe is MaxStripe without its two exceptions.
func (m *List) LastStripe() uint64 {
	switch m.MaxStripe {
	case 0:
		return ^uint64(0)
	case ^uint64(0):
		return 0
	}
	return m.MaxStripe
}

// ListReply answers SEC_LIST; Retval entries of VersionedSize bytes follow, stable ones first.
type ListReply struct {
	Retval      int64
	StableCount uint64 // @32
	Flags       uint64 // @40
}

// Encode writes the packet, all but its id.
func (m *ListReply) Encode(h *Header) {
	h.beginReply(OpSecList, m.Retval)
	le.PutUint64(h[32:], m.StableCount)
	le.PutUint64(h[40:], m.Flags)
}

// Decode reads the packet.
func (m *ListReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, set(OpSecList)); err != nil {
		return err
	}
	*m = ListReply{h.Retval(), le.Uint64(h[32:]), le.Uint64(h[40:])}
	return nil
}

// MaxDescribe is the greatest Limit of a Describe.
const MaxDescribe = 1 << 20

// Describe is the request DESCRIBE: the unclean objects of a range. It uses 80 bytes, so it has no Trailer.
type Describe struct {
	ObjectState uint64       // @24: mask, 0 is all
	MinInode    layout.Inode // @32
	MinOffset   uint64       // @40
	MaxInode    layout.Inode // @48
	MaxOffset   uint64       // @56
	Limit       uint64       // @64: 0 is MaxDescribe
	Pool        uint32       // @72
	PG          uint32       // @76
}

// Encode writes the packet, all but its id.
func (m *Describe) Encode(h *Header) {
	h.begin(RequestMagic, OpDescribe)
	le.PutUint64(h[24:], m.ObjectState)
	le.PutUint64(h[32:], uint64(m.MinInode))
	le.PutUint64(h[40:], m.MinOffset)
	le.PutUint64(h[48:], uint64(m.MaxInode))
	le.PutUint64(h[56:], m.MaxOffset)
	le.PutUint64(h[64:], m.Limit)
	le.PutUint32(h[72:], m.Pool)
	le.PutUint32(h[76:], m.PG)
}

// Decode reads the packet.
func (m *Describe) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpDescribe)); err != nil {
		return err
	}
	m.ObjectState = le.Uint64(h[24:])
	m.MinInode = layout.Inode(le.Uint64(h[32:]))
	m.MinOffset = le.Uint64(h[40:])
	m.MaxInode = layout.Inode(le.Uint64(h[48:]))
	m.MaxOffset = le.Uint64(h[56:])
	m.Limit = le.Uint64(h[64:])
	m.Pool = le.Uint32(h[72:])
	m.PG = le.Uint32(h[76:])
	return nil
}

// DescribeReply answers DESCRIBE; ResultBytes bytes of items follow, Retval items.
type DescribeReply struct {
	Retval      int64
	ResultBytes uint64 // @32
}

// Encode writes the packet, all but its id.
func (m *DescribeReply) Encode(h *Header) {
	h.beginReply(OpDescribe, m.Retval)
	le.PutUint64(h[32:], m.ResultBytes)
}

// Decode reads the packet.
func (m *DescribeReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, set(OpDescribe)); err != nil {
		return err
	}
	*m = DescribeReply{h.Retval(), le.Uint64(h[32:])}
	return nil
}
