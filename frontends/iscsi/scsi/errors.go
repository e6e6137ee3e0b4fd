package scsi

import (
	"errors"

	"holdfast/frontends/volume"
)

// outcome is how an error of the volume is told to an initiator.
type outcome struct {
	status Status
	code   Code
	// drop ends the session without an answer: the initiator's own path handling does better than any status (spec/clients.md I11).
	drop bool
}

// outcomes translates volume.Sentinels; a test proves it total. LOGICAL UNIT NOT SUPPORTED is permanent device loss to VMware, so it stands for ErrGone and nothing else
// (spec/clients.md I11).
var outcomes = []struct {
	err error
	outcome
}{
	{volume.ErrCanceled, outcome{status: TaskAborted}},
	{volume.ErrGone, outcome{status: CheckCondition, code: codeNoUnit}},
	{volume.ErrReadOnly, outcome{status: CheckCondition, code: codeWriteProtected}},
	{volume.ErrRange, outcome{status: CheckCondition, code: codeLBARange}},
	{volume.ErrAlignment, outcome{status: CheckCondition, code: codeInvalidField}},
	{volume.ErrTooLong, outcome{status: CheckCondition, code: codeInvalidField}},
	{volume.ErrNoSpace, outcome{status: CheckCondition, code: codeNoSpace}},
	{volume.ErrIO, outcome{status: CheckCondition, code: codeReadError}}, // codeWriteError for what writes
	{volume.ErrFenced, outcome{status: CheckCondition, code: codeCommunicationFailure, drop: true}},
	{volume.ErrUnsupported, outcome{status: CheckCondition, code: codeInvalidField}},
	{volume.ErrExpired, outcome{status: Busy}}, // it had no effect: BUSY asks for the same command again
	{volume.ErrShutdown, outcome{status: CheckCondition, code: codeCommunicationFailure, drop: true}},
}

// translate finds the outcome of err; an error that is no sentinel is ABORTED COMMAND, which initiators retry.
func translate(err error, kind volume.Kind) (outcome, bool) {
	for i := range outcomes {
		if errors.Is(err, outcomes[i].err) {
			o := outcomes[i].outcome
			if o.code == codeReadError && kind != volume.Read && kind != volume.Extents {
				o.code = codeWriteError
			}
			return o, true
		}
	}
	return outcome{status: CheckCondition, code: codeInternalFailure}, false
}

// failWith ends t with the translation of err, which t.Op completed with.
func (t *Task) failWith(err error) Step {
	var miss *volume.MiscompareError
	if errors.As(err, &miss) {
		t.fail(codeMiscompare)
		t.Sense.Info, t.Sense.HasInfo = miss.Offset, true
		return Finished
	}
	o, _ := translate(err, t.Op.Kind)
	t.fail(o.code)
	t.Status = o.status
	t.Drop = o.drop
	return Finished
}
