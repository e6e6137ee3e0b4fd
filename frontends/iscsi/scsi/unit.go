// Package scsi is the device server of a block device: it decodes command descriptor blocks and says what to answer, or which operation on the volume to run first.
//
// The iSCSI target uses it, one Unit per session. It holds no connection, clock or goroutine: Begin and Next take a Task and return a Step that the transport executes. Everything
// happens on the session's loop; only Reservations may be shared between loops.
//
// References are to SAM-5 r21, SPC-4 r37 and SBC-3 r36. The logical block is 512 bytes; the physical block, which READ CAPACITY (16) tells, is the volume's PreferredSize.
package scsi

import (
	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
)

// BlockSize is the logical block length, bytes.
const BlockSize = 512

// maxTransfer is the most one READ or WRITE moves, bytes, if the volume allows it.
const maxTransfer = 32 << 20

// Port is the target port that a session came in by.
type Port struct {
	Name     string // the iSCSI target port name: target name, ",t,0x" and the portal group tag (RFC 7143, section 4.2.7.1)
	Relative uint16 // RELATIVE TARGET PORT IDENTIFIER, from 1
	Group    uint16 // TARGET PORT GROUP
}

// Config is what a Unit is made of.
type Config struct {
	Info volume.Info
	Port Port
	// Ports are all target ports by which the unit can be reached, on every gateway, for REPORT TARGET PORT GROUPS; sorted by Group. Empty: only Port.
	Ports  []Port
	Member Membership
	// Alloc lends memory for data that the device server makes itself (loop.Loop.Alloc).
	Alloc func(n int) *buf.Ref
}

// Unit is a logical unit as one I_T nexus sees it.
type Unit struct {
	c       Config
	info    volume.Info
	pending attentionSet
	// dSense is D_SENSE of the control mode page, kept per nexus (VPD page 87h says so).
	dSense bool
}

// NewUnit is a unit with the first unit attention pending: PowerOn for a new nexus, NexusLoss for one that takes over from an earlier session.
func NewUnit(c Config, first Attention) *Unit {
	u := &Unit{c: c, info: c.Info}
	if len(u.c.Ports) == 0 {
		u.c.Ports = []Port{c.Port}
	}
	u.pending.add(first)
	return u
}

// Raise makes a unit attention condition pending.
func (u *Unit) Raise(a Attention) { u.pending.add(a) }

// Update takes the volume's new facts and raises the conditions that follow.
func (u *Unit) Update(info volume.Info) {
	if info.Size != u.info.Size {
		u.Raise(CapacityChanged)
	}
	if info.ReadOnly != u.info.ReadOnly {
		u.Raise(ModeParametersChanged)
	}
	u.info = info
}

// Info is the volume's facts as this nexus knows them.
func (u *Unit) Info() *volume.Info { return &u.info }

// Membership is the unit's part in the reservations.
func (u *Unit) Membership() Membership { return u.c.Member }

// Reset puts the nexus's mode parameters back, as a logical unit reset does.
func (u *Unit) Reset() { u.dSense = false }

// AppendSense adds t's sense data in the format that the control mode page asks for.
func (u *Unit) AppendSense(b []byte, t *Task) []byte { return t.Sense.Append(b, u.dSense) }

// capacity is the number of logical blocks.
func (u *Unit) capacity() uint64 { return u.info.Size / BlockSize }

// transferLimit is the most blocks of one READ or WRITE.
func (u *Unit) transferLimit() uint64 {
	return uint64(min(u.info.MaxTransfer, maxTransfer)) / BlockSize
}

// Begin decodes t.CDB, addressed to the given LUN field, and checks it as far as that is possible without data.
func (u *Unit) Begin(t *Task, lun uint64) {
	t.Reset()
	c := find(&t.CDB)
	if lun != 0 && !u.otherLUN(t, c) {
		return
	}
	if c == nil || c.flags&ignoresAttention == 0 {
		if code, ok := u.pending.take(); ok {
			t.fail(code)
			return
		}
	}
	if c == nil {
		if known(t.CDB[0]) {
			t.failField(1, 4) // an unknown service action
			return
		}
		t.fail(codeInvalidOpcode)
		return
	}
	if t.CDB[c.length()-1]&0x04 != 0 { // NACA in CONTROL: ACA is not supported (NORMACA is 0 in INQUIRY)
		t.failField(uint16(c.length()-1), 2)
		return
	}
	if conflicts(u.c.Member, c) {
		t.Status = ReservationConflict
		return
	}
	if c.access == accessWrite && u.info.ReadOnly && c.flags&writesMedium != 0 {
		t.fail(codeWriteProtected)
		return
	}
	c.begin(u, t)
}

// otherLUN answers for a LUN that is not there; it reports whether the command goes on as usual (SPC-4: INQUIRY, REPORT LUNS and REQUEST SENSE are answered for any LUN).
func (u *Unit) otherLUN(t *Task, c *command) bool {
	switch {
	case c == nil:
	case c.op == opReportLUNs:
		return true
	case c.op == opInquiry:
		u.inquiryNoUnit(t)
		return false
	case c.op == opRequestSense:
		s := Sense{Code: codeNoUnit}
		t.In = s.Append(t.In, t.CDB[1]&1 != 0)
		t.answer(uint64(t.CDB[4]))
		return false
	}
	t.fail(codeNoUnit)
	return false
}

// Next says what to do with t now.
func (u *Unit) Next(t *Task) Step {
	if t.next == nil {
		return Finished
	}
	return t.next(u, t)
}
