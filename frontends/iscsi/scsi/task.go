package scsi

import (
	"holdfast/frontends/volume"
)

// Step is what the transport does next with a Task.
type Step uint8

// The steps.
const (
	Finished     Step = iota + 1 // Status, Sense and In are the answer
	Submit                       // submit t.Op; call Next again when it has completed
	ChangeMember                 // hand t.Change to the unit's Membership; call Next again when it has completed
)

// Task is one command. The transport pools it, sets CDB, and sets Op.Done and Change.Done once.
//
// Order of calls: Begin; Offer; the transport brings Take bytes into Data (or calls FailData); then Next until it says Finished. A Task whose Op or Change is
// under way must not be reused.
type Task struct {
	CDB [16]byte

	// Data is what the initiator sent, Take bytes; the transport owns the references and keeps them until Finished.
	Data []volume.Piece

	// Op is valid while Submit was the last step. Streams says that its Pieces are the data of this command for the initiator; the transport releases them.
	Op      volume.Op
	Streams bool
	Change  Change

	// DataIn and DataOut are how many bytes the command itself moves, known after Begin (for parameter data after Finished); residuals are counted against them.
	DataIn, DataOut uint64
	// Take is how many bytes the transport brings, known after Offer.
	Take uint64

	Status Status
	Sense  Sense
	In     []byte // parameter data for the initiator, cut to the allocation length; valid until the next Begin
	Drop   bool   // end the session instead of answering

	next    func(*Unit, *Task) Step
	lba     uint64
	blocks  uint64
	flags   uint8
	sizing  uint8
	index   int    // of the next UNMAP descriptor
	scratch []byte // the parameter list in one piece
	pattern volume.Piece
}

// Reset forgets the previous command but keeps memory. Begin does it too.
func (t *Task) Reset() {
	t.Op.Pieces, t.Op.Compare, t.Op.Extents = t.Op.Pieces[:0], t.Op.Compare[:0], t.Op.Extents[:0]
	t.Op.Offset, t.Op.Length, t.Op.MaxExtents, t.Op.Err = 0, 0, 0, nil
	t.Op.FUA, t.Op.NoHole, t.Op.Fast = false, false, false
	t.Streams, t.Drop = false, false
	t.DataIn, t.DataOut, t.Take, t.sizing = 0, 0, 0, sizeAtLeast
	t.Status, t.Sense, t.In = Good, Sense{}, t.In[:0]
	t.next, t.lba, t.blocks, t.flags, t.index = nil, 0, 0, 0, 0
}

// fail makes CHECK CONDITION with code the answer.
func (t *Task) fail(code Code) Step {
	t.Status, t.Sense = CheckCondition, Sense{Code: code}
	t.In, t.Streams, t.next = t.In[:0], false, nil
	t.DataIn, t.Take = 0, 0
	return Finished
}

// failField is INVALID FIELD IN CDB with a pointer to the byte and, when not negative, its bit.
func (t *Task) failField(at uint16, bit int8) Step {
	t.fail(codeInvalidField)
	t.Sense.Field, t.Sense.Bit, t.Sense.InCDB, t.Sense.HasField = at, bit, true, true
	t.DataOut = 0
	return Finished
}

// failParameter is INVALID FIELD IN PARAMETER LIST with a pointer to the byte.
func (t *Task) failParameter(at uint16) Step {
	t.fail(codeInvalidParameter)
	t.Sense.Field, t.Sense.Bit, t.Sense.HasField = at, -1, true
	return Finished
}

// Offer says how many bytes the initiator will send, after Begin; it sets Take. WRITE takes the whole blocks among fewer bytes than it asked for, and tells the residual (FCP-4 leaves the
// choice between this and an error, initiators' tests ask for this); a list of parameters or a block to compare with or to repeat must be whole.
func (t *Task) Offer(n uint64) {
	switch {
	case t.Status != Good:
	case t.sizing == sizeExact && n != t.DataOut:
		t.failField(lengthField(t.CDB[0]), -1)
	case n >= t.DataOut:
		t.Take = t.DataOut
	case t.sizing == sizePartial:
		t.blocks = n / BlockSize
		t.Take = t.blocks * BlockSize
		if t.blocks == 0 {
			t.next = nil
		}
	default:
		t.failKeep(codeInformationUnit)
	}
}

// How the bytes that an initiator sends may differ from what the command takes.
const (
	sizeAtLeast = iota // more are ignored
	sizePartial        // fewer make a shorter transfer
	sizeExact
)

// FailData ends a command whose data did not arrive as it should (RFC 7143, section 11.4.7.2: protocol service CRC error).
func (t *Task) FailData() { t.failKeep(codeProtocolCRC) }

// failKeep is fail, with the residual that follows from what the command would have taken.
func (t *Task) failKeep(code Code) {
	n := t.DataOut
	t.fail(code)
	t.DataOut = n
}

// Abort ends a command that has no Op and no Change under way, releasing what it holds.
func (t *Task) Abort() {
	t.releasePattern()
	t.next = nil
	t.Status = TaskAborted
}

// answer cuts the parameter data to the allocation length.
func (t *Task) answer(allocation uint64) {
	if uint64(len(t.In)) > allocation {
		t.In = t.In[:allocation]
	}
	t.DataIn = uint64(len(t.In))
}

// parameters is the parameter list in one piece.
func (t *Task) parameters() []byte {
	t.scratch = t.scratch[:0]
	for _, p := range t.Data {
		t.scratch = append(t.scratch, p.Bytes()...)
	}
	return t.scratch
}

func (t *Task) releasePattern() {
	if t.pattern.Ref != nil {
		t.pattern.Ref.Release()
		t.pattern = volume.Piece{}
	}
}
