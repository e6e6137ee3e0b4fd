package wire

import "holdfast/core/layout"

// Flags of requests to secondaries.
const (
	SecRecovery     uint32 = 1 // counts as recovery
	SecIgnorePGLock uint32 = 2
)

// Versions with a meaning of their own in a SEC_READ.
const (
	VersionNewest uint64 = 1<<64 - 1 // the newest, unstable ones too
	VersionStable uint64 = 0         // the newest stable one
)

func getOID(b []byte) layout.ObjectID {
	return layout.ObjectID{Inode: layout.Inode(le.Uint64(b)), Stripe: le.Uint64(b[8:])}
}

func putOID(b []byte, o layout.ObjectID) {
	le.PutUint64(b, uint64(o.Inode))
	le.PutUint64(b[8:], o.Stripe)
}

// SecReadWrite is the request SEC_READ, SEC_WRITE or SEC_WRITE_STABLE. Writes are followed by AttrLen bytes of bitmap and Len bytes of data.
type SecReadWrite struct {
	Op      Opcode
	OID     layout.ObjectID // @24
	Version uint64          // @40
	Offset  uint32          // @48, within the chunk
	Len     uint32          // @52
	AttrLen uint32          // @56
	Flags   uint32          // @60
}

var secReadWriteOps = set(OpSecRead, OpSecWrite, OpSecWriteStable)

// Encode writes the packet, all but its id.
func (m *SecReadWrite) Encode(h *Header) {
	h.begin(RequestMagic, m.Op)
	putOID(h[24:], m.OID)
	le.PutUint64(h[40:], m.Version)
	le.PutUint32(h[48:], m.Offset)
	le.PutUint32(h[52:], m.Len)
	le.PutUint32(h[56:], m.AttrLen)
	le.PutUint32(h[60:], m.Flags)
}

// Decode reads the packet.
func (m *SecReadWrite) Decode(h *Header) error {
	if err := h.expect(RequestMagic, secReadWriteOps); err != nil {
		return err
	}
	*m = SecReadWrite{h.Op(), getOID(h[24:]), le.Uint64(h[40:]), le.Uint32(h[48:]), le.Uint32(h[52:]), le.Uint32(h[56:]), le.Uint32(h[60:])}
	return nil
}

// SecReadWriteReply answers them; a SEC_READ's is followed by AttrLen bytes of bitmap and Retval bytes of data.
type SecReadWriteReply struct {
	Op      Opcode
	Retval  int64
	Version uint64 // @32
	AttrLen uint32 // @40
}

// Encode writes the packet, all but its id.
func (m *SecReadWriteReply) Encode(h *Header) {
	h.beginReply(m.Op, m.Retval)
	le.PutUint64(h[32:], m.Version)
	le.PutUint32(h[40:], m.AttrLen)
}

// Decode reads the packet.
func (m *SecReadWriteReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, secReadWriteOps); err != nil {
		return err
	}
	*m = SecReadWriteReply{h.Op(), h.Retval(), le.Uint64(h[32:]), le.Uint32(h[40:])}
	return nil
}

// SecDelete is the request SEC_DELETE.
type SecDelete struct {
	OID     layout.ObjectID // @24
	Version uint64          // @40
	Flags   uint32          // @48
}

// Encode writes the packet, all but its id.
func (m *SecDelete) Encode(h *Header) {
	h.begin(RequestMagic, OpSecDelete)
	putOID(h[24:], m.OID)
	le.PutUint64(h[40:], m.Version)
	le.PutUint32(h[48:], m.Flags)
}

// Decode reads the packet.
func (m *SecDelete) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpSecDelete)); err != nil {
		return err
	}
	*m = SecDelete{getOID(h[24:]), le.Uint64(h[40:]), le.Uint32(h[48:])}
	return nil
}

// SecDeleteReply answers SEC_DELETE.
type SecDeleteReply struct {
	Retval  int64
	Version uint64 // @32
}

// Encode writes the packet, all but its id.
func (m *SecDeleteReply) Encode(h *Header) {
	h.beginReply(OpSecDelete, m.Retval)
	le.PutUint64(h[32:], m.Version)
}

// Decode reads the packet.
func (m *SecDeleteReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, set(OpSecDelete)); err != nil {
		return err
	}
	*m = SecDeleteReply{h.Retval(), le.Uint64(h[32:])}
	return nil
}

// SecSync is the request SEC_SYNC.
type SecSync struct {
	Flags uint32 // @24
}

// Encode writes the packet, all but its id.
func (m *SecSync) Encode(h *Header) {
	h.begin(RequestMagic, OpSecSync)
	le.PutUint32(h[24:], m.Flags)
}

// Decode reads the packet.
func (m *SecSync) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpSecSync)); err != nil {
		return err
	}
	m.Flags = le.Uint32(h[24:])
	return nil
}

// SecVersions is the request SEC_STABILIZE, SEC_ROLLBACK or SEC_READ_BMP; Len bytes of Versioned entries follow.
type SecVersions struct {
	Op    Opcode
	Len   uint64 // @24, a multiple of VersionedSize
	Flags uint32 // @32
}

var secVersionsOps = set(OpSecStabilize, OpSecRollback, OpSecReadBmp)

// Encode writes the packet, all but its id.
func (m *SecVersions) Encode(h *Header) {
	h.begin(RequestMagic, m.Op)
	le.PutUint64(h[24:], m.Len)
	le.PutUint32(h[32:], m.Flags)
}

// Decode reads the packet.
func (m *SecVersions) Decode(h *Header) error {
	if err := h.expect(RequestMagic, secVersionsOps); err != nil {
		return err
	}
	*m = SecVersions{h.Op(), le.Uint64(h[24:]), le.Uint32(h[32:])}
	return nil
}

// Flags of SEC_LOCK.
const (
	LockPG   uint64 = 1
	UnlockPG uint64 = 2
)

// SecLock is the request SEC_LOCK.
type SecLock struct {
	Flags uint64  // @24
	Pool  uint64  // @32
	PG    uint64  // @40
	State PGState // @48
}

// Encode writes the packet, all but its id.
func (m *SecLock) Encode(h *Header) {
	h.begin(RequestMagic, OpSecLock)
	le.PutUint64(h[24:], m.Flags)
	le.PutUint64(h[32:], m.Pool)
	le.PutUint64(h[40:], m.PG)
	le.PutUint64(h[48:], uint64(m.State))
}

// Decode reads the packet.
func (m *SecLock) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpSecLock)); err != nil {
		return err
	}
	*m = SecLock{le.Uint64(h[24:]), le.Uint64(h[32:]), le.Uint64(h[40:]), PGState(le.Uint64(h[48:]))}
	return nil
}

// SecLockReply answers SEC_LOCK.
type SecLockReply struct {
	Retval  int64
	Primary layout.OSDNum // @32: who holds the PG, with EBUSY
}

// Encode writes the packet, all but its id.
func (m *SecLockReply) Encode(h *Header) {
	h.beginReply(OpSecLock, m.Retval)
	le.PutUint64(h[32:], uint64(m.Primary))
}

// Decode reads the packet.
func (m *SecLockReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, set(OpSecLock)); err != nil {
		return err
	}
	*m = SecLockReply{h.Retval(), layout.OSDNum(le.Uint64(h[32:]))}
	return nil
}
