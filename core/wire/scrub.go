package wire

import "holdfast/core/layout"

// Opcodes of scrub.
const (
	OpSubDigest Opcode = 49 // primary -> member: read all of one object, and tell a checksum of it
	OpFix       Opcode = 50 // client -> primary: what an OSD has of an object is wrong; make it anew from the others
)

func init() {
	registerOp(OpSubDigest, "sub_digest", OSDOnly)
	registerOp(OpFix, "fix", OwnClient)
}

// DigestSize is the small part of a reply to SUB_DIGEST: the CRC32C (u32) of the block, as it reads, and of its bitmap behind that.
const DigestSize = 4

// Digest takes it.
func Digest(meta []byte) (sum uint32, ok bool) {
	if len(meta) != DigestSize {
		return 0, false
	}
	return le.Uint32(meta), true
}

// AppendDigest appends it.
func AppendDigest(b []byte, sum uint32) []byte { return le.AppendUint32(b, sum) }

// Found is what the comparison of an object's copies, or chunks, has found.
type Found uint32

// The findings.
const (
	FoundSame         Found = iota // all can be read and agree
	FoundNothing                   // there is no such object
	FoundBad                       // some were wrong, and are made anew from the others
	FoundInconsistent              // they differ, and nobody knows which are right
	FoundLost                      // too few can be read
	FoundUnclean                   // not compared: some are missing or old, and are being recovered
)

// ScrubReply answers SCRUB and FIX. Stock clients look at Retval only.
type ScrubReply struct {
	Op     Opcode
	Retval int64
	Bytes  uint64 // @32: read, of all copies
	Found  Found  // @40
	Bad    uint32 // @44: copies that were found to be wrong
}

// Encode writes the packet, all but its id.
func (m *ScrubReply) Encode(h *Header) {
	h.beginReply(m.Op, m.Retval)
	le.PutUint64(h[32:], m.Bytes)
	le.PutUint32(h[40:], uint32(m.Found))
	le.PutUint32(h[44:], m.Bad)
}

// Decode reads the packet.
func (m *ScrubReply) Decode(h *Header) error {
	if err := h.expect(ReplyMagic, set(OpScrub, OpFix)); err != nil {
		return err
	}
	*m = ScrubReply{h.Op(), h.Retval(), le.Uint64(h[32:]), Found(le.Uint32(h[40:])), le.Uint32(h[44:])}
	if m.Found > FoundUnclean {
		return &PacketError{m.Op, "finding", uint64(m.Found), uint64(FoundUnclean)}
	}
	return nil
}

// AnyPart in Fix.Part is whatever part the OSD has.
const AnyPart = ^uint32(0)

// Fix is the request FIX. A ScrubReply answers it.
type Fix struct {
	Object layout.ObjectID // @24, without a role
	OSD    layout.OSDNum   // @40
	Part   uint32          // @48: of an erasure-coded object; AnyPart, or 0 of a replicated one
}

// Encode writes the packet, all but its id.
func (m *Fix) Encode(h *Header) {
	h.begin(RequestMagic, OpFix)
	putOID(h[24:], m.Object)
	le.PutUint64(h[40:], uint64(m.OSD))
	le.PutUint32(h[48:], m.Part)
}

// Decode reads the packet.
func (m *Fix) Decode(h *Header) error {
	if err := h.expect(RequestMagic, set(OpFix)); err != nil {
		return err
	}
	*m = Fix{getOID(h[24:]), layout.OSDNum(le.Uint64(h[40:])), le.Uint32(h[48:])}
	if lens := le.Uint64(h[ownRequestMeta:]); lens != 0 {
		return &PacketError{Op: OpFix, Field: "payload lengths", Value: lens}
	}
	return nil
}
