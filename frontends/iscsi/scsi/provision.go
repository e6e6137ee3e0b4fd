package scsi

import (
	"encoding/binary"

	"holdfast/frontends/volume"
)

// Limits of thin provisioning commands, told in VPD page B0h.
const (
	maxUnmapBlocks      = 1 << 20 // 512 MiB of one UNMAP
	maxUnmapDescriptors = 256
	maxSameBlocks       = 512 << 11 // 512 MiB
	patternSize         = 64 << 10  // bytes of a repeated block that are made once
	patternRepeats      = 16        // pieces of one write of a pattern
)

// Bits of byte 1 of WRITE SAME (SBC-3).
const (
	sameAnchor = 0x10
	sameUnmap  = 0x08
	sameNDOB   = 0x01 // WRITE SAME (16) only: no data-out buffer, the block is zeroes
)

func beginWriteSame(u *Unit, t *Task) {
	if !u.blockRange(t) {
		return
	}
	noData := t.CDB[0] == opWriteSame16 && t.CDB[1]&sameNDOB != 0
	switch {
	case t.CDB[1]&sameAnchor != 0: // ANC_SUP is 0 in VPD page B2h
		t.failField(1, 4)
		return
	case t.CDB[0] == opWriteSame10 && t.CDB[1]&0x07 != 0: // PBDATA and LBDATA are obsolete
		t.failField(1, 2)
		return
	case t.CDB[0] == opWriteSame16 && t.CDB[1]&0x06 != 0:
		t.failField(1, 2)
		return
	case t.blocks == 0, t.blocks > maxSameBlocks: // WSNZ is 1 in VPD page B0h: 0 does not mean "to the end"
		t.failField(lengthField(t.CDB[0]), -1)
		return
	}
	t.flags = t.CDB[1]
	if noData {
		t.next = startZeroes
		return
	}
	t.DataOut = BlockSize
	t.sizing = sizeExact
	t.next = startWriteSame
}

func startWriteSame(u *Unit, t *Task) Step {
	block := t.parameters()
	for _, c := range block {
		if c != 0 {
			return u.startPattern(t, block)
		}
	}
	return startZeroes(u, t)
}

// startZeroes writes zeroes; space is given back only when UNMAP allows it (SBC-3, WRITE SAME).
func startZeroes(_ *Unit, t *Task) Step {
	t.prepare(volume.Zero)
	t.Op.FUA = true
	t.Op.NoHole = t.flags&sameUnmap == 0
	t.next = endOp
	return Submit
}

// startPattern makes a piece of the repeated block and writes it over the range. UNMAP does not apply: LBPRZ is 1, and the block is not zeroes.
func (u *Unit) startPattern(t *Task, block []byte) Step {
	n := int(min(t.blocks*BlockSize, patternSize))
	ref := u.c.Alloc(n)
	b := ref.Bytes()
	for done := copy(b, block); done < n; {
		done += copy(b[done:], b[:done])
	}
	t.pattern = volume.Piece{Ref: ref, Len: n}
	t.next = nextPattern
	t.Op.Err = nil
	return nextPattern(u, t)
}

func nextPattern(u *Unit, t *Task) Step {
	if t.Op.Err != nil || t.blocks == 0 {
		t.releasePattern()
		return endOp(u, t)
	}
	left := t.blocks * BlockSize
	t.prepare(volume.Write)
	t.Op.FUA = true
	size := 0
	limit := min(uint64(u.info.MaxTransfer), patternRepeats*patternSize)
	for range patternRepeats {
		n := int(min(uint64(t.pattern.Len), left, limit-uint64(size)))
		if n == 0 {
			break
		}
		t.Op.Pieces = append(t.Op.Pieces, volume.Piece{Ref: t.pattern.Ref, Len: n})
		size += n
		left -= uint64(n)
	}
	t.Op.Length = uint64(size)
	t.lba += uint64(size) / BlockSize
	t.blocks = left / BlockSize
	return Submit
}

func beginUnmap(_ *Unit, t *Task) {
	if t.CDB[1]&1 != 0 { // ANCHOR
		t.failField(1, 0)
		return
	}
	t.DataOut = uint64(binary.BigEndian.Uint16(t.CDB[7:]))
	if t.DataOut == 0 {
		return
	}
	t.next = startUnmap
}

// startUnmap checks the parameter list as a whole before it takes effect (SBC-3, UNMAP parameter list).
func startUnmap(u *Unit, t *Task) Step {
	list := t.parameters()
	if len(list) < 8 {
		return t.fail(codeParameterLength)
	}
	size := int(binary.BigEndian.Uint16(list[2:]))
	if size > len(list)-8 {
		return t.failParameter(2)
	}
	n := size / 16 // what is left over is ignored
	if n > maxUnmapDescriptors {
		return t.failParameter(2)
	}
	total := uint64(0)
	for i := range n {
		lba, blocks := unmapDescriptor(list, i)
		if blocks == 0 {
			continue
		}
		if !u.inRange(t, lba, blocks) {
			t.next = nil
			return Finished
		}
		if total += blocks; total > maxUnmapBlocks {
			return t.failParameter(uint16(8 + 16*i + 8))
		}
	}
	t.index = 0
	t.Op.Err = nil
	t.blocks = uint64(n)
	return nextUnmap(u, t)
}

func unmapDescriptor(list []byte, i int) (lba, blocks uint64) {
	d := list[8+16*i:]
	return binary.BigEndian.Uint64(d), uint64(binary.BigEndian.Uint32(d[8:]))
}

func nextUnmap(u *Unit, t *Task) Step {
	if t.Op.Err != nil {
		return endOp(u, t)
	}
	for t.index < int(t.blocks) {
		lba, blocks := unmapDescriptor(t.scratch, t.index)
		t.index++
		if blocks == 0 {
			continue
		}
		t.prepare(volume.Trim)
		t.Op.FUA = true
		t.Op.Offset, t.Op.Length = lba*BlockSize, blocks*BlockSize
		t.next = nextUnmap
		return Submit
	}
	t.next = nil
	return Finished
}

// maxStatusExtents is how many descriptors one GET LBA STATUS answers.
const maxStatusExtents = 64

func beginGetLBAStatus(u *Unit, t *Task) {
	t.lba = binary.BigEndian.Uint64(t.CDB[2:])
	if !u.inRange(t, t.lba, 1) {
		return
	}
	t.next = startExtents
}

func startExtents(u *Unit, t *Task) Step {
	t.blocks = u.capacity() - t.lba
	t.prepare(volume.Extents)
	t.Op.MaxExtents = maxStatusExtents
	t.next = endExtents
	return Submit
}

// endExtents answers one descriptor per extent (SBC-3, GET LBA STATUS parameter data).
func endExtents(_ *Unit, t *Task) Step {
	t.next = nil
	if t.Op.Err != nil {
		return t.failWith(t.Op.Err)
	}
	t.In = append(t.In, 0, 0, 0, 0, 0, 0, 0, 0)
	lba, left := t.lba, t.blocks
	for _, e := range t.Op.Extents {
		n := min(e.Length/BlockSize, left, 0xffffffff)
		if n == 0 {
			continue
		}
		status := byte(0) // mapped
		if e.Hole {
			status = 1 // deallocated
		}
		t.In = binary.BigEndian.AppendUint64(t.In, lba)
		t.In = binary.BigEndian.AppendUint32(t.In, uint32(n))
		t.In = append(t.In, status, 0, 0, 0)
		if n < e.Length/BlockSize {
			break // the next extent would not follow
		}
		lba += n
		left -= n
	}
	binary.BigEndian.PutUint32(t.In, uint32(len(t.In)-4))
	t.answer(uint64(binary.BigEndian.Uint32(t.CDB[10:])))
	return Finished
}
