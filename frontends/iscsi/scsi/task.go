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
// Order of calls: Begin; when DataOut is not 0, the transport brings that many bytes into Data (or calls ShortData); then Next until it says Finished. A Task whose Op or Change is
// under way must not be reused.
type Task struct {
	CDB [16]byte

	// Data is what the initiator sent, DataOut bytes; the transport owns the references and keeps them until Finished.
	Data []volume.Piece

	// Op is valid while Submit was the last step. Streams says that its Pieces are the data of this command for the initiator; the transport releases them.
	Op      volume.Op
	Streams bool
	Change  Change

	// DataIn and DataOut are how many bytes the command itself moves, known after Begin (for parameter data after Finished); residuals are counted against them.
	DataIn, DataOut uint64

	Status Status
	Sense  Sense
	In     []byte // parameter data for the initiator, cut to the allocation length; valid until the next Begin
	Drop   bool   // end the session instead of answering

	next    func(*Unit, *Task) Step
	lba     uint64
	blocks  uint64
	flags   uint8
	index   int    // of the next UNMAP descriptor
	scratch []byte // the parameter list in one piece
	pattern volume.Piece
}

// reset forgets the previous command but keeps memory.
func (t *Task) reset() {
	t.Op.Pieces, t.Op.Compare, t.Op.Extents = t.Op.Pieces[:0], t.Op.Compare[:0], t.Op.Extents[:0]
	t.Op.Offset, t.Op.Length, t.Op.MaxExtents, t.Op.Err = 0, 0, 0, nil
	t.Op.FUA, t.Op.NoHole, t.Op.Fast = false, false, false
	t.Streams, t.Drop = false, false
	t.DataIn, t.DataOut = 0, 0
	t.Status, t.Sense, t.In = Good, Sense{}, t.In[:0]
	t.next, t.lba, t.blocks, t.flags, t.index = nil, 0, 0, 0, 0
}

// fail makes CHECK CONDITION with code the answer.
func (t *Task) fail(code Code) Step {
	t.Status, t.Sense = CheckCondition, Sense{Code: code}
	t.In, t.Streams, t.next = t.In[:0], false, nil
	t.DataIn = 0
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

// ShortData ends a command whose initiator announced fewer bytes than the command takes: nothing is written (FCP-4 and SPC-4 leave the choice; writing a part would surprise more).
func (t *Task) ShortData() { t.fail(codeInformationUnit) }

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
