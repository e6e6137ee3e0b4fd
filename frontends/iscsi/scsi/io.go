package scsi

import (
	"bytes"

	"holdfast/frontends/volume"
)

// Bits of byte 1 of the block commands (SBC-3).
const (
	bitFUA      = 0x08
	bitBytchk   = 0x06 // BYTCHK of VERIFY and WRITE AND VERIFY, two bits
	maskProtect = 0xE0 // RDPROTECT, WRPROTECT, VRPROTECT: no protection information here (PROTECT is 0 in INQUIRY)
)

// beginNothing is for commands that have no effect here: TEST UNIT READY, PREVENT ALLOW MEDIUM REMOVAL (the medium is not removable).
func beginNothing(*Unit, *Task) {}

// beginStartStop accepts START and STOP without effect, since other nexuses use the unit; there is nothing to load or eject (SBC-3, START STOP UNIT).
func beginStartStop(_ *Unit, t *Task) {
	if t.CDB[4]&0x02 != 0 && t.CDB[4]>>4 == 0 { // LOEJ
		t.failField(4, 1)
	}
}

// blockRange decodes and checks the range of a block command; it has answered when it reports false.
func (u *Unit) blockRange(t *Task) bool {
	if t.CDB[0]>>5 != 0 && t.CDB[1]&maskProtect != 0 {
		t.failField(1, 7)
		return false
	}
	t.lba, t.blocks = decodeBlocks(&t.CDB)
	return u.inRange(t, t.lba, t.blocks)
}

// inRange checks that a range exists; the first LBA must even when no block is asked for (SBC-3).
func (u *Unit) inRange(t *Task, lba, blocks uint64) bool {
	have := u.capacity()
	if lba > have || blocks > have-lba || (lba == have && have != 0) {
		t.fail(codeLBARange)
		t.Sense.Info, t.Sense.HasInfo = max(lba, have), true
		return false
	}
	return true
}

// prepare fills in t.Op for the task's range.
func (t *Task) prepare(kind volume.Kind) {
	t.Op.Kind = kind
	t.Op.Offset = t.lba * BlockSize
	t.Op.Length = t.blocks * BlockSize
	t.Op.Pieces = t.Op.Pieces[:0]
}

func beginRead(u *Unit, t *Task) {
	if !u.blockRange(t) || t.blocks == 0 {
		return
	}
	if t.blocks > u.transferLimit() {
		t.failField(lengthField(t.CDB[0]), -1)
		return
	}
	t.DataIn = t.blocks * BlockSize
	t.Streams = true
	t.next = startRead
}

func startRead(_ *Unit, t *Task) Step {
	t.prepare(volume.Read)
	t.next = endOp
	return Submit
}

// endOp answers GOOD or with the error of t.Op.
func endOp(_ *Unit, t *Task) Step {
	t.next = nil
	if t.Op.Err != nil {
		return t.failWith(t.Op.Err)
	}
	return Finished
}

func beginWrite(u *Unit, t *Task) {
	if !u.blockRange(t) || t.blocks == 0 {
		return
	}
	if t.blocks > u.transferLimit() {
		t.failField(lengthField(t.CDB[0]), -1)
		return
	}
	t.DataOut = t.blocks * BlockSize
	t.sizing = sizePartial
	t.next = startWrite
}

// startWrite writes through: the caching page says that there is no volatile cache (WCE 0), so every write must be durable before GOOD.
func startWrite(_ *Unit, t *Task) Step {
	t.writeData()
	t.next = endOp
	return Submit
}

func (t *Task) writeData() {
	t.prepare(volume.Write)
	t.Op.FUA = true
	t.Op.Pieces = append(t.Op.Pieces, t.Data...)
}

func beginWriteVerify(u *Unit, t *Task) {
	if t.CDB[1]&bitBytchk == bitBytchk || t.CDB[1]&bitBytchk == 0x04 { // 10b and 11b are reserved here (SBC-3, WRITE AND VERIFY)
		t.failField(1, 2)
		return
	}
	beginWrite(u, t)
	if t.next != nil {
		t.next = startWriteVerify
	}
}

func startWriteVerify(_ *Unit, t *Task) Step {
	t.writeData()
	t.next = verifyWritten
	return Submit
}

// verifyWritten reads back what was written; a BYTCHK of 0 asks for no more than that it can be read.
func verifyWritten(_ *Unit, t *Task) Step {
	if t.Op.Err != nil {
		t.next = nil
		return t.failWith(t.Op.Err)
	}
	t.prepare(volume.Read)
	t.next = endVerify
	return Submit
}

func beginVerify(u *Unit, t *Task) {
	if !u.blockRange(t) {
		return
	}
	check := t.CDB[1] & bitBytchk
	if check == 0x04 { // 10b is reserved
		t.failField(1, 2)
		return
	}
	if t.blocks == 0 {
		return
	}
	if t.blocks > u.transferLimit() {
		t.failField(lengthField(t.CDB[0]), -1)
		return
	}
	switch check {
	case 0x02:
		t.DataOut = t.blocks * BlockSize
	case 0x06: // 11b: one block, compared with each of the range
		t.DataOut = BlockSize
	}
	t.next = startVerify
}

func startVerify(_ *Unit, t *Task) Step {
	t.prepare(volume.Read)
	t.next = endVerify
	return Submit
}

func endVerify(_ *Unit, t *Task) Step {
	t.next = nil
	if t.Op.Err != nil {
		t.Op.ReleasePieces()
		return t.failWith(t.Op.Err)
	}
	at, same := uint64(0), true
	if t.CDB[1]&bitBytchk != 0 {
		at, same = differ(t.Op.Pieces, t.Data)
	}
	t.Op.ReleasePieces()
	if !same {
		t.fail(codeMiscompare)
		t.Sense.Info, t.Sense.HasInfo = at, true
	}
	return Finished
}

// differ compares what was read with want, which is repeated when it is shorter, and returns where the first difference is.
func differ(read, want []volume.Piece) (at uint64, same bool) {
	var zeroes [BlockSize]byte
	w, off := 0, 0
	for _, p := range read {
		b, left := p.Bytes(), p.Len
		for left > 0 {
			for off == want[w].Len { // a piece of Data is never empty
				w, off = (w+1)%len(want), 0
			}
			x := want[w].Bytes()[off:]
			n := min(left, len(x))
			y := b
			if b == nil {
				n = min(n, len(zeroes))
				y = zeroes[:n]
			}
			if !bytes.Equal(x[:n], y[:n]) {
				for i := range n {
					if x[i] != y[i] {
						return at + uint64(i), false
					}
				}
			}
			if b != nil {
				b = b[n:]
			}
			left -= n
			off += n
			at += uint64(n)
		}
	}
	return 0, true
}

// beginPrefetch only checks the range: CONDITION MET says that what was asked for is in the cache or that there is none to keep it from (SBC-3, PRE-FETCH).
func beginPrefetch(u *Unit, t *Task) {
	if u.blockRange(t) {
		t.Status = ConditionMet
	}
}

func beginSynchronize(u *Unit, t *Task) {
	t.lba, t.blocks = decodeBlocks(&t.CDB)
	if u.inRange(t, t.lba, t.blocks) {
		t.next = startFlush
	}
}

// startFlush flushes the whole volume, which contains the range; IMMED is answered like its absence.
func startFlush(_ *Unit, t *Task) Step {
	t.prepare(volume.Flush)
	t.Op.Offset, t.Op.Length = 0, 0
	t.next = endOp
	return Submit
}

// maxCompareBlocks is MAXIMUM COMPARE AND WRITE LENGTH: one block never crosses a boundary that volume.CompareAndWrite refuses, and it is all that VMware uses.
const maxCompareBlocks = 1

func beginCompareAndWrite(u *Unit, t *Task) {
	if t.CDB[1]&maskProtect != 0 {
		t.failField(1, 7)
		return
	}
	t.lba, _ = decodeBlocks(&t.CDB)
	t.blocks = uint64(t.CDB[13])
	if t.blocks > maxCompareBlocks {
		t.failField(13, -1)
		return
	}
	t.sizing = sizeExact
	if !u.inRange(t, t.lba, t.blocks) || t.blocks == 0 {
		return
	}
	t.DataOut = 2 * t.blocks * BlockSize
	t.next = startCompareAndWrite
}

// startCompareAndWrite splits the data: first what is expected, then what to write (SBC-3, COMPARE AND WRITE).
func startCompareAndWrite(_ *Unit, t *Task) Step {
	t.prepare(volume.CompareAndWrite)
	t.Op.FUA = true
	half := int(t.blocks * BlockSize)
	t.Op.Compare = appendRange(t.Op.Compare[:0], t.Data, 0, half)
	t.Op.Pieces = appendRange(t.Op.Pieces[:0], t.Data, half, half)
	t.next = endOp
	return Submit
}

// appendRange adds bytes [off, off+n) of pieces to to.
func appendRange(to, pieces []volume.Piece, off, n int) []volume.Piece {
	for _, p := range pieces {
		if off >= p.Len {
			off -= p.Len
			continue
		}
		m := min(n, p.Len-off)
		if m == 0 {
			break
		}
		to = append(to, volume.Piece{Ref: p.Ref, Off: p.Off + off, Len: m})
		n -= m
		off = 0
	}
	return to
}

// lengthField is the CDB byte where the transfer length begins.
func lengthField(op byte) uint16 {
	switch op >> 5 {
	case 0:
		return 4
	case 1, 2:
		return 7
	case 5:
		return 6
	}
	return 10
}
