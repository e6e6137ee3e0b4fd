package secondary

import (
	"hash/crc32"

	"holdfast/core/wire"
	"holdfast/osd/store"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Digest is the checksum by which scrub compares copies: of the data of an object that was read as a whole, and of its bitmap. Two copies that read alike have the same, however they lie on their disks.
func Digest(op *store.Op) uint32 {
	sum := uint32(0)
	if op.Data != nil {
		sum = crc32.Update(sum, castagnoli, op.Data.Bytes())
	}
	return crc32.Update(sum, castagnoli, op.Bitmap)
}

// answerDigest answers a SUB_DIGEST that the store has carried out.
func (j *job) answerDigest() {
	s := j.s
	a := wire.SubReply{Op: wire.OpSubDigest, Retval: Retval(j.op.Err)}
	s.meta = s.meta[:0]
	if j.op.Err == nil {
		a.Version, a.Written, a.Flags = j.op.State.Version, j.op.State.Interval, stateFlags(j.op.State.Flags)
		s.meta = wire.AppendDigest(s.meta, Digest(&j.op))
		a.Meta = len(s.meta)
	}
	if j.op.Data != nil {
		j.op.Data.Release()
	}
	var h wire.Header
	a.Encode(&h)
	j.r.Reply(&h, s.meta, nil)
}
