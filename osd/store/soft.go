package store

import (
	"hash/crc32"

	"holdfast/core/loop"
	"holdfast/core/planted"
)

// softData is data in a block that a soft batch speaks of: it may have been lost although the batch was not.
type softData struct {
	batch uint64
	at    int64 // on the device
	n     int
	sums  []byte
}

// checkSoft compares the data that soft batches speak of with its checksums, if it is not known that they were durable, and lets the journal end before the first of which something is not there. Nobody was told
// that anything from there on is durable.
func (p *opening) checkSoft(then func()) {
	s := p.s
	newest, known, err := p.newestBatch()
	var list []softData
	if err == nil && p.soft && s.sb.Config.ChecksumType != ChecksumNone && !planted.SoftUnchecked {
		p.walk(newest.tailPos, newest.tailSeq, func(h *batchInfo) error {
			if !h.soft || h.seq <= known {
				return nil
			}
			return h.entries(s.j.mem[h.pos:h.pos+uint64(h.size())], &s.sb, func(e *entry, _ uint32) error {
				if e.kind == entryWrite && e.block != noBlock && e.data == 0 && e.length > 0 {
					list = append(list, softData{h.seq, s.sb.blockOff(e.block) + int64(e.off), int(e.length), e.sums})
				}
				return nil
			})
		})
	}
	step := int(s.sb.Config.ChecksumBlock)
	var next func()
	next = func() {
		if len(list) == 0 {
			then()
			return
		}
		d := &list[0]
		if d.n == 0 {
			list = list[1:]
			next()
			return
		}
		b := p.x.ref.Bytes()
		b = b[:min(d.n, len(b)/step*step)]
		p.x.run(loop.DiskRead, d.at, b, func(err error) {
			for i := 0; i < len(b) && err == nil; i += step {
				if crc32.Checksum(b[i:i+step], castagnoli) != le.Uint32(d.sums[i/step*4:]) {
					err = errNoBatch
				}
			}
			if err != nil {
				p.softEnd = d.batch
				list = nil
			} else {
				d.at, d.n, d.sums = d.at+int64(len(b)), d.n-len(b), d.sums[len(b)/step*4:]
			}
			next()
		})
	}
	next()
}
