package wire

import (
	"fmt"

	"holdfast/core/layout"
)

// Opcodes of our own. Every request of ours carries meta_len u32 @112 and data_len u32 @116, every reply meta_len u32 @120 and data_len u32 @124.
const (
	OpZero        Opcode = 32 // client -> primary: write zeroes, or make a hole, without a payload
	OpSubChange   Opcode = 33 // primary -> member: one change of one object
	OpSubRead     Opcode = 34 // primary -> heard store: all that recovery copies of one object
	OpSubReplace  Opcode = 35 // primary -> member: make the object exactly this
	OpSubVoid     Opcode = 36 // primary -> heard store: these copies are false
	OpSubForget   Opcode = 37 // primary -> member: these tombstones are needed no more
	OpSubList     Opcode = 38 // primary -> heard store: objects of a PG
	OpSubLock     Opcode = 39 // primary -> store: grant me the PG for an interval
	OpSubRenew    Opcode = 40 // primary -> store: renew all grants
	OpSubUnlock   Opcode = 41 // primary -> store: the grant is given back
	OpSubAnnounce Opcode = 42 // primary -> heard store: the interval is activated, write it down
	OpSubDead     Opcode = 43 // parent of an OSD -> OSD: that instance is dead
	OpFence       Opcode = 44 // client -> OSD: refuse a session from now on, as its key in etcd says
	OpSubSync     Opcode = 45 // primary -> member: make durable what was acknowledged lazily

	// Of erasure-coded pools:
	OpSubReadRange Opcode = 46 // primary -> member: a part of a chunk, at a version or below
	OpSubCommit    Opcode = 47 // primary -> member: these versions, and unstable ones below them, are stable
	OpSubRollback  Opcode = 48 // primary -> member: drop the unstable versions above these
)

func init() {
	registerOp(OpZero, "primary_zero", OwnClient)
	registerOp(OpSubChange, "sub_change", OSDOnly)
	registerOp(OpSubRead, "sub_read", OSDOnly)
	registerOp(OpSubReplace, "sub_replace", OSDOnly)
	registerOp(OpSubVoid, "sub_void", OSDOnly)
	registerOp(OpSubForget, "sub_forget", OSDOnly)
	registerOp(OpSubList, "sub_list", OSDOnly)
	registerOp(OpSubLock, "sub_lock", OSDOnly)
	registerOp(OpSubRenew, "sub_renew", OSDOnly)
	registerOp(OpSubUnlock, "sub_unlock", OSDOnly)
	registerOp(OpSubAnnounce, "sub_announce", OSDOnly)
	registerOp(OpSubDead, "sub_dead", OwnClient)
	registerOp(OpFence, "fence", OwnClient)
	registerOp(OpSubSync, "sub_sync", OSDOnly)
	registerOp(OpSubReadRange, "sub_read_range", OSDOnly)
	registerOp(OpSubCommit, "sub_commit", OSDOnly)
	registerOp(OpSubRollback, "sub_rollback", OSDOnly)
}

// ZeroKeepWritten in Zero.Flags makes the range explicit zeroes, which hide a layer's parent; without it the range becomes a hole.
const ZeroKeepWritten uint32 = 1

// Flags of WRITE, DELETE and ZERO from our own clients, for pools whose immediate_commit is not all. Without FlagLazy a change with a session is durable when it is acknowledged.
const (
	FlagLazy   uint32 = 1 << 30 // the client keeps a copy until a SYNC is answered
	FlagReplay uint32 = 1 << 31 // such a copy is sent again: Version is the newest version of the object that the client has made; over a newer one it is refused with EEXIST
)

// Zero is the request ZERO; its reply is a ReadWriteReply's bytes under this opcode (Version @40).
type Zero struct {
	Inode   layout.Inode // @24
	Offset  uint64       // @32, within the inode
	Len     uint32       // @40
	Flags   uint32       // @44
	Version uint64       // @56, as in ReadWrite
	Trailer              // @64
}

// Encode writes the packet, all but its id.
func (m *Zero) Encode(h *Header) {
	h.begin(RequestMagic, OpZero)
	le.PutUint64(h[24:], uint64(m.Inode))
	le.PutUint64(h[32:], m.Offset)
	le.PutUint32(h[40:], m.Len)
	le.PutUint32(h[44:], m.Flags)
	le.PutUint64(h[56:], m.Version)
	m.Trailer.Encode(h)
}

// Decode reads the packet.
func (m *Zero) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpZero)); err != nil {
		return err
	}
	m.Inode = layout.Inode(le.Uint64(h[24:]))
	m.Offset = le.Uint64(h[32:])
	m.Len = le.Uint32(h[40:])
	m.Flags = le.Uint32(h[44:])
	m.Version = le.Uint64(h[56:])
	m.Trailer.Decode(h)
	return nil
}

// VersionReply answers ZERO, SUB_CHANGE, SUB_REPLACE. Free is the replier's free space in blocks.
type VersionReply struct {
	Op      Opcode
	Retval  int64
	Free    uint64 // @32
	Version uint64 // @40
}

var versionOps = set(OpZero, OpSubChange, OpSubReplace)

// Encode writes the packet, all but its id.
func (m *VersionReply) Encode(h *Header) {
	h.beginReply(m.Op, m.Retval)
	le.PutUint64(h[32:], m.Free)
	le.PutUint64(h[40:], m.Version)
}

// Decode reads the packet.
func (m *VersionReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, versionOps); err != nil {
		return err
	}
	*m = VersionReply{Op: h.Op(), Retval: h.Retval(), Free: le.Uint64(h[32:]), Version: le.Uint64(h[40:])}
	return nil
}

// ChangeKind is what a SubChange does.
type ChangeKind uint8

// The kinds of change.
const (
	ChangeWrite ChangeKind = iota + 1
	ChangeZero             // explicit zeroes
	ChangeHole
	ChangeDelete
)

// Grant names the right in which a primary asks: the member carries the request out only for the holder of its grant.
type Grant struct {
	PG       layout.PGID     // number @104, pool @108 (u16)
	Interval layout.Interval // @88
	Instance uint64          // @96: the primary's running instance
}

func (g *Grant) encode(h *Header) {
	le.PutUint64(h[88:], uint64(g.Interval))
	le.PutUint64(h[96:], g.Instance)
	le.PutUint32(h[104:], g.PG.Num)
	le.PutUint16(h[108:], uint16(g.PG.Pool))
}

func (g *Grant) decode(h *Header) {
	g.Interval = layout.Interval(le.Uint64(h[88:]))
	g.Instance = le.Uint64(h[96:])
	g.PG.Num = le.Uint32(h[104:])
	g.PG.Pool = layout.PoolID(le.Uint16(h[108:]))
}

// orderBits are the bits of SubChange.Order that say how far the mark is behind.
const orderBits = 24

// Order is the place of a change for its members: it is the n-th of its PG in its interval, from 1, and of those before it all up to mark are on every member. 0 when that cannot be said.
func Order(n, mark uint64) uint64 {
	if n >= 1<<(64-orderBits) || n-mark >= 1<<orderBits {
		return 0
	}
	return n<<orderBits | (n - mark)
}

// SplitOrder takes an Order apart. A mark that cannot be is 0.
func SplitOrder(order uint64) (n, mark uint64) {
	n = order >> orderBits
	return n, n - min(n, order&(1<<orderBits-1))
}

// SubChange is the request SUB_CHANGE. A ChangeWrite is followed by Meta bytes of bitmap, which replaces the object's, and Len bytes of data. In erasure-coded pools Len may be 0: then the version is raised, and
// the data stays.
type SubChange struct {
	Object   layout.ObjectID // @24
	Base     layout.Version  // @40
	Version  layout.Version  // @48
	Offset   uint32          // @56, within the block
	Len      uint32          // @60
	Session  uint64          // @64
	Sequence uint64          // @72
	Low      uint64          // @80
	Grant                    // @88..109
	Kind     ChangeKind      // @110
	Lazy     uint8           // @111: when the member may acknowledge it: 0 when it is durable, 1 as soon as the device has it if it goes straight to a block, 2 as soon as the device has it
	Order    uint64          // @120: see Order; 0: the primary lends no reads
	Unstable bool            // @111, bit 7: the version waits for a SUB_COMMIT
	Meta     int             // length @112 of the bitmap; 0: the units that are written count as written. Only of a ChangeWrite
}

// changeUnstable is the bit of SubChange.Unstable beside Lazy.
const changeUnstable = 0x80

// Encode writes the packet, all but its id.
func (m *SubChange) Encode(h *Header) {
	h.begin(RequestMagic, OpSubChange)
	le.PutUint64(h[24:], uint64(m.Object.Inode))
	le.PutUint64(h[32:], m.Object.Stripe)
	le.PutUint64(h[40:], uint64(m.Base))
	le.PutUint64(h[48:], uint64(m.Version))
	le.PutUint32(h[56:], m.Offset)
	le.PutUint32(h[60:], m.Len)
	le.PutUint64(h[64:], m.Session)
	le.PutUint64(h[72:], m.Sequence)
	le.PutUint64(h[80:], m.Low)
	m.Grant.encode(h)
	h[110], h[111] = byte(m.Kind), m.Lazy
	if m.Unstable {
		h[111] |= changeUnstable
	}
	le.PutUint32(h[112:], uint32(m.Meta))
	le.PutUint64(h[120:], m.Order)
	if m.Kind == ChangeWrite {
		le.PutUint32(h[116:], m.Len)
	}
}

// Decode reads the packet.
func (m *SubChange) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpSubChange)); err != nil {
		return err
	}
	m.Object = layout.ObjectID{Inode: layout.Inode(le.Uint64(h[24:])), Stripe: le.Uint64(h[32:])}
	m.Base = layout.Version(le.Uint64(h[40:]))
	m.Version = layout.Version(le.Uint64(h[48:]))
	m.Offset = le.Uint32(h[56:])
	m.Len = le.Uint32(h[60:])
	m.Session = le.Uint64(h[64:])
	m.Sequence = le.Uint64(h[72:])
	m.Low = le.Uint64(h[80:])
	m.Grant.decode(h)
	m.Kind, m.Lazy, m.Order = ChangeKind(h[110]), h[111]&^changeUnstable, le.Uint64(h[120:])
	m.Unstable, m.Meta = h[111]&changeUnstable != 0, int(le.Uint32(h[112:]))
	if m.Lazy > 2 {
		return &PacketError{Op: OpSubChange, Field: "lazy", Value: uint64(m.Lazy)}
	}
	if m.Kind < ChangeWrite || m.Kind > ChangeDelete {
		return &PacketError{Op: OpSubChange, Field: "kind", Value: uint64(m.Kind)}
	}
	if data := le.Uint32(h[116:]); m.Kind == ChangeWrite && data != m.Len || m.Kind != ChangeWrite && data != 0 {
		return &PacketError{Op: OpSubChange, Field: "data length", Value: uint64(data)}
	}
	if m.Kind != ChangeWrite && m.Meta != 0 {
		return &PacketError{Op: OpSubChange, Field: "bitmap length", Value: uint64(m.Meta)}
	}
	return nil
}

// Newest in SubReadRange.AtMost asks for the newest version that there is, stable or not.
const Newest = ^layout.Version(0)

// SubReadRange is the request SUB_READ_RANGE. A SubReply answers it.
type SubReadRange struct {
	Object layout.ObjectID // @24, with its role
	AtMost layout.Version  // @48: the newest version that is not above; 0: the object has none yet that counts
	Offset uint32          // @56, within the block
	Len    uint32          // @60; 0: state and bitmap only
	Grant                  // @88..109
}

// Encode writes the packet, all but its id.
func (m *SubReadRange) Encode(h *Header) {
	h.begin(RequestMagic, OpSubReadRange)
	le.PutUint64(h[24:], uint64(m.Object.Inode))
	le.PutUint64(h[32:], m.Object.Stripe)
	le.PutUint64(h[48:], uint64(m.AtMost))
	le.PutUint32(h[56:], m.Offset)
	le.PutUint32(h[60:], m.Len)
	m.Grant.encode(h)
}

// Decode reads the packet.
func (m *SubReadRange) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpSubReadRange)); err != nil {
		return err
	}
	m.Object = layout.ObjectID{Inode: layout.Inode(le.Uint64(h[24:])), Stripe: le.Uint64(h[32:])}
	m.AtMost = layout.Version(le.Uint64(h[48:]))
	m.Offset = le.Uint32(h[56:])
	m.Len = le.Uint32(h[60:])
	m.Grant.decode(h)
	switch lens := le.Uint64(h[112:]); {
	case m.Len > MaxData:
		return &PacketError{OpSubReadRange, "length", uint64(m.Len), MaxData}
	case lens != 0:
		return &PacketError{Op: OpSubReadRange, Field: "payload lengths", Value: lens}
	}
	return nil
}

// Sub is any other request from a primary to a store: SUB_READ, SUB_DIGEST, SUB_REPLACE, SUB_VOID, SUB_FORGET, SUB_LIST, SUB_SYNC, SUB_COMMIT and SUB_ROLLBACK (with a list of Versioned as payload) and, with a JSON payload, SUB_LOCK, SUB_RENEW, SUB_UNLOCK, SUB_ANNOUNCE, SUB_DEAD.
type Sub struct {
	Op           Opcode
	Object       layout.ObjectID // @24: of SUB_READ, SUB_DIGEST and SUB_REPLACE; of SUB_LIST the stripe is the cursor that the last answer gave
	Base         layout.Version  // @40: SUB_REPLACE: what the member holds now
	Version      layout.Version  // @48: SUB_REPLACE: what it shall hold
	BaseInterval layout.Interval // @56: SUB_REPLACE
	Written      layout.Interval // @64: SUB_REPLACE: the interval that wrote Version
	Limit        uint32          // @72: SUB_LIST: entries at most
	Flags        uint32          // @76: SUB_REPLACE: SubTombstone
	Grant                        // @88..109
	Meta, Data   int             // lengths @112, @116
}

// Flags of a Sub.
const (
	SubTombstone uint32 = 1 // SUB_REPLACE: the truth is a deletion
	SubResume    uint32 = 2 // SUB_LIST's reply: there is more
	SubUnstable  uint32 = 4 // reply to SUB_READ and SUB_READ_RANGE: the version waits for its commit
)

var subOps = set(OpSubRead, OpSubReplace, OpSubVoid, OpSubForget, OpSubList, OpSubLock, OpSubRenew, OpSubUnlock, OpSubAnnounce, OpSubDead, OpFence, OpSubSync, OpSubCommit, OpSubRollback, OpSubDigest)

var subReplyOps = subOps | set(OpSubReadRange)

// Encode writes the packet, all but its id.
func (m *Sub) Encode(h *Header) {
	h.begin(RequestMagic, m.Op)
	le.PutUint64(h[24:], uint64(m.Object.Inode))
	le.PutUint64(h[32:], m.Object.Stripe)
	le.PutUint64(h[40:], uint64(m.Base))
	le.PutUint64(h[48:], uint64(m.Version))
	le.PutUint64(h[56:], uint64(m.BaseInterval))
	le.PutUint64(h[64:], uint64(m.Written))
	le.PutUint32(h[72:], m.Limit)
	le.PutUint32(h[76:], m.Flags)
	m.Grant.encode(h)
	le.PutUint32(h[112:], uint32(m.Meta))
	le.PutUint32(h[116:], uint32(m.Data))
}

// Decode reads the packet.
func (m *Sub) Decode(h *Header) error {
	if err := h.expect(RequestMagic, subOps); err != nil {
		return err
	}
	m.Op = h.Op()
	m.Object = layout.ObjectID{Inode: layout.Inode(le.Uint64(h[24:])), Stripe: le.Uint64(h[32:])}
	m.Base = layout.Version(le.Uint64(h[40:]))
	m.Version = layout.Version(le.Uint64(h[48:]))
	m.BaseInterval = layout.Interval(le.Uint64(h[56:]))
	m.Written = layout.Interval(le.Uint64(h[64:]))
	m.Limit = le.Uint32(h[72:])
	m.Flags = le.Uint32(h[76:])
	m.Grant.decode(h)
	m.Meta, m.Data = int(le.Uint32(h[112:])), int(le.Uint32(h[116:]))
	return nil
}

// SubReply answers a Sub or a SubReadRange. For SUB_READ, SUB_DIGEST and SUB_READ_RANGE Version and Written are the object's, Flags its state (SubTombstone, SubUnstable); for SUB_LIST Flags has SubResume when there is more, from the cursor in Object's stripe.
type SubReply struct {
	Op         Opcode
	Retval     int64
	Free       uint64          // @32
	Version    layout.Version  // @40
	Written    layout.Interval // @48
	Object     layout.ObjectID // @56
	Flags      uint32          // @72
	Meta, Data int             // lengths @120, @124
}

// Encode writes the packet, all but its id.
func (m *SubReply) Encode(h *Header) {
	h.beginReply(m.Op, m.Retval)
	le.PutUint64(h[32:], m.Free)
	le.PutUint64(h[40:], uint64(m.Version))
	le.PutUint64(h[48:], uint64(m.Written))
	le.PutUint64(h[56:], uint64(m.Object.Inode))
	le.PutUint64(h[64:], m.Object.Stripe)
	le.PutUint32(h[72:], m.Flags)
	le.PutUint32(h[120:], uint32(m.Meta))
	le.PutUint32(h[124:], uint32(m.Data))
}

// Decode reads the packet.
func (m *SubReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, subReplyOps); err != nil {
		return err
	}
	m.Op, m.Retval = h.Op(), h.Retval()
	m.Free = le.Uint64(h[32:])
	m.Version = layout.Version(le.Uint64(h[40:]))
	m.Written = layout.Interval(le.Uint64(h[48:]))
	m.Object = layout.ObjectID{Inode: layout.Inode(le.Uint64(h[56:])), Stripe: le.Uint64(h[64:])}
	m.Flags = le.Uint32(h[72:])
	m.Meta, m.Data = int(le.Uint32(h[120:])), int(le.Uint32(h[124:]))
	return nil
}

// SubEntrySize is the size of one entry of SUB_LIST's reply and of SUB_VOID's and SUB_FORGET's payload.
const SubEntrySize = 40

// SubEntry is one object as a store lists it: inode, stripe, version, interval, flags (u64 each).
type SubEntry struct {
	Object   layout.ObjectID
	Version  layout.Version
	Interval layout.Interval
	Flags    uint8
}

// AppendSubEntry adds e to a payload.
func AppendSubEntry(dst []byte, e SubEntry) []byte {
	dst = le.AppendUint64(dst, uint64(e.Object.Inode))
	dst = le.AppendUint64(dst, e.Object.Stripe)
	dst = le.AppendUint64(dst, uint64(e.Version))
	dst = le.AppendUint64(dst, uint64(e.Interval))
	return le.AppendUint64(dst, uint64(e.Flags))
}

// SubEntries calls f for each entry of a payload, in order.
func SubEntries(p []byte, f func(SubEntry)) error {
	if len(p)%SubEntrySize != 0 {
		return fmt.Errorf("list of %d bytes is not a multiple of %d", len(p), SubEntrySize)
	}
	for ; len(p) > 0; p = p[SubEntrySize:] {
		f(SubEntry{
			Object:   layout.ObjectID{Inode: layout.Inode(le.Uint64(p)), Stripe: le.Uint64(p[8:])},
			Version:  layout.Version(le.Uint64(p[16:])),
			Interval: layout.Interval(le.Uint64(p[24:])),
			Flags:    uint8(le.Uint64(p[32:])),
		})
	}
	return nil
}

// SubPair is a session pair with the version it made, as recovery copies it.
type SubPair struct {
	Session, Sequence uint64
	Version           layout.Version
}

const subPairSize = 24

// AppendObjectMeta builds the meta payload of SUB_READ's reply and of SUB_REPLACE: both bitmaps (of equal length), then the pairs.
func AppendObjectMeta(dst, bitmap, present []byte, pairs int, pair func(int) SubPair) []byte {
	dst = le.AppendUint32(dst, uint32(len(bitmap)))
	dst = le.AppendUint32(dst, uint32(pairs))
	dst = append(dst, bitmap...)
	dst = append(dst, present...)
	for i := range pairs {
		p := pair(i)
		dst = le.AppendUint64(dst, p.Session)
		dst = le.AppendUint64(dst, p.Sequence)
		dst = le.AppendUint64(dst, uint64(p.Version))
	}
	return dst
}

// ObjectMeta takes such a payload apart; the bitmaps point into p.
func ObjectMeta(p []byte, pair func(SubPair)) (bitmap, present []byte, err error) {
	if len(p) < 8 {
		return nil, nil, fmt.Errorf("object description of %d bytes is too short", len(p))
	}
	n, pairs := uint64(le.Uint32(p)), uint64(le.Uint32(p[4:]))
	p = p[8:]
	if uint64(len(p)) != 2*n+pairs*subPairSize {
		return nil, nil, fmt.Errorf("object description has %d bytes for bitmaps of %d and %d pairs", len(p), n, pairs)
	}
	bitmap, present, p = p[:n:n], p[n:2*n:2*n], p[2*n:]
	for ; len(p) > 0; p = p[subPairSize:] {
		pair(SubPair{le.Uint64(p), le.Uint64(p[8:]), layout.Version(le.Uint64(p[16:]))})
	}
	return bitmap, present, nil
}
