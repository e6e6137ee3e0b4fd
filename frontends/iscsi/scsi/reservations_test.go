package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"

	"holdfast/frontends/volume/memory"
)

func prOut(g *rig, action Action, kind Type, key, service uint64, flags byte) {
	g.t.Helper()
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], service)
	list[20] = flags
	g.run(cdb(fmt.Sprintf("5f %02x %02x 00 00 00 00 00 18 00", action, kind)), list)
	for g.l.Turn() {
	}
}

func (g *rig) expect(what string, status Status) {
	g.t.Helper()
	if g.task.Status != status {
		g.t.Errorf("%s: status %02xh (%02x), want %02xh", what, g.task.Status, g.task.Sense.Code, status)
	}
}

// TestAccessByType is the table of SPC-4, "persistent reservations", for a read and a write of each kind of nexus.
func TestAccessByType(t *testing.T) {
	const read, write = "28 00 00 00 00 00 00 00 01 00", "2a 00 00 00 00 00 00 00 01 00"
	for _, c := range []struct {
		kind                           Type
		othersRead, othersWrite        bool
		registeredRead, registeredWrit bool
	}{
		{WriteExclusive, true, false, true, false},
		{ExclusiveAccess, false, false, false, false},
		{WriteExclusiveRegistrants, true, false, true, true},
		{ExclusiveAccessRegistrants, false, false, true, true},
		{WriteExclusiveAllRegistrant, true, false, true, true},
		{ExclusiveAccessAllRegistant, false, false, true, true},
	} {
		holder := newRig(t, memory.Options{})
		registered, stranger := holder.other(), joinRig(t, holder.l, holder.disk, holder.res, "iqn.c,i,0x400000000003")
		prOut(holder, Register, 0, 0, 1, 0)
		prOut(registered, Register, 0, 0, 2, 0)
		prOut(holder, Reserve, c.kind, 1, 0, 0)
		holder.expect("reserve", Good)
		try := func(who string, g *rig, canRead, canWrite bool) {
			t.Helper()
			want := map[bool]Status{true: Good, false: ReservationConflict}
			g.run(cdb(read), nil)
			g.expect(fmt.Sprintf("type %d: read by %s", c.kind, who), want[canRead])
			g.run(cdb(write), make([]byte, 512))
			g.expect(fmt.Sprintf("type %d: write by %s", c.kind, who), want[canWrite])
			for _, always := range []string{"00 00 00 00 00 00", "12 00 00 00 24 00", "25 00 00 00 00 00 00 00 00 00", "5e 00 00 00 00 00 00 00 ff 00", "a0 00 00 00 00 00 00 00 00 10 00 00"} {
				g.run(cdb(always), nil)
				g.expect(fmt.Sprintf("type %d: %s by %s", c.kind, always, who), Good)
			}
		}
		try("the holder", holder, true, true)
		try("a registered nexus", registered, c.registeredRead, c.registeredWrit)
		try("a stranger", stranger, c.othersRead, c.othersWrite)
	}
}

func TestRegisterNeedsTheKey(t *testing.T) {
	a := newRig(t, memory.Options{})
	prOut(a, Register, 0, 5, 1, 0)
	a.expect("register with a key while unregistered", ReservationConflict)
	prOut(a, Register, 0, 0, 1, 0)
	a.expect("register", Good)
	prOut(a, Register, 0, 2, 3, 0)
	a.expect("register with the wrong key", ReservationConflict)
	prOut(a, RegisterAndIgnore, 0, 99, 3, 0)
	a.expect("register and ignore", Good)
	if s := a.u.c.Member.State(); s.APTPL || s.Generation != 2 || len(s.Registered) != 1 || s.Registered[0].Key != 3 {
		t.Errorf("state %+v", s)
	}
	prOut(a, Reserve, WriteExclusive, 1, 0, 0)
	a.expect("reserve with the wrong key", ReservationConflict)
	prOut(a, Register, 0, 3, 4, 0x08)
	a.expect("SPEC_I_PT", CheckCondition)
	prOut(a, Register, 0, 3, 4, 0x01)
	a.expect("APTPL with reservations in memory", CheckCondition)
}

func TestReleaseAndUnregister(t *testing.T) {
	a := newRig(t, memory.Options{})
	b := a.other()
	prOut(a, Register, 0, 0, 1, 0)
	prOut(b, Register, 0, 0, 2, 0)
	prOut(a, Reserve, WriteExclusiveRegistrants, 1, 0, 0)
	prOut(a, Release, WriteExclusive, 1, 0, 0)
	if a.task.Sense.Code != codeInvalidRelease {
		t.Errorf("release of another type: %02x, want 26h/04h", a.task.Sense.Code)
	}
	prOut(b, Release, WriteExclusiveRegistrants, 2, 0, 0)
	b.expect("release by another", Good)
	if !a.u.c.Member.State().holds(a.u.c.Member.Self()) {
		t.Error("another nexus released the reservation")
	}
	prOut(a, Register, 0, 1, 0, 0)
	a.expect("unregister", Good)
	if s := a.u.c.Member.State(); s.Type != 0 || len(s.Registered) != 1 {
		t.Errorf("state after the holder unregistered: %+v", s)
	}
	b.bad("00 00 00 00 00 00", nil, CheckCondition, Code{6, 0x2a, 0x04})
}

func TestPreemptAndAbort(t *testing.T) {
	a := newRig(t, memory.Options{})
	b := a.other()
	prOut(a, Register, 0, 0, 1, 0)
	prOut(b, Register, 0, 0, 2, 0)
	prOut(a, Reserve, ExclusiveAccess, 1, 0, 0)
	prOut(b, PreemptAndAbort, WriteExclusive, 2, 1, 0)
	b.expect("preempt", Good)
	if a.evs.aborts != 1 {
		t.Errorf("the loser's commands were aborted %d times, want 1", a.evs.aborts)
	}
	s := b.u.c.Member.State()
	if s.Type != WriteExclusive || !s.holds(b.u.c.Member.Self()) || len(s.Registered) != 1 {
		t.Errorf("state %+v, want the reservation with the preemptor alone", s)
	}
	a.bad("00 00 00 00 00 00", nil, CheckCondition, Code{6, 0x2a, 0x05})
	a.run(cdb("2a 00 00 00 00 00 00 00 01 00"), make([]byte, 512))
	a.expect("write by the loser", ReservationConflict)
	prOut(b, Preempt, WriteExclusive, 2, 77, 0)
	b.expect("preempt of a key that nobody has", ReservationConflict)
	prOut(b, Preempt, WriteExclusive, 2, 0, 0)
	b.expect("preempt of key 0", CheckCondition)
}

func TestClear(t *testing.T) {
	a := newRig(t, memory.Options{})
	b := a.other()
	prOut(a, Register, 0, 0, 1, 0)
	prOut(b, Register, 0, 0, 2, 0)
	prOut(a, Reserve, ExclusiveAccess, 1, 0, 0)
	prOut(b, Clear, 0, 2, 0, 0)
	if s := a.u.c.Member.State(); s.Type != 0 || len(s.Registered) != 0 || s.Generation != 3 {
		t.Errorf("state after CLEAR: %+v", s)
	}
	a.bad("00 00 00 00 00 00", nil, CheckCondition, Code{6, 0x2a, 0x03})
}

func TestReserveOfSPC2(t *testing.T) {
	a := newRig(t, memory.Options{})
	b := a.other()
	a.good("16 00 00 00 00 00", nil)
	b.run(cdb("16 00 00 00 00 00"), nil)
	b.expect("second RESERVE", ReservationConflict)
	b.run(cdb("00 00 00 00 00 00"), nil)
	b.expect("TEST UNIT READY", ReservationConflict)
	b.good("12 00 00 00 24 00", nil)
	b.good("17 00 00 00 00 00", nil) // RELEASE by another: GOOD without effect
	b.run(cdb("28 00 00 00 00 00 00 00 01 00"), nil)
	b.expect("read", ReservationConflict)
	a.u.c.Member.Leave()
	b.good("28 00 00 00 00 00 00 00 01 00", nil)
}

func TestPersistentIn(t *testing.T) {
	a := newRig(t, memory.Options{})
	prOut(a, Register, 0, 0, 0xabcd, 0)
	prOut(a, Reserve, ExclusiveAccess, 0xabcd, 0, 0)
	if b := a.good("5e 00 00 00 00 00 00 00 ff 00", nil); hex.EncodeToString(b) != "0000000100000008000000000000abcd" {
		t.Errorf("READ KEYS %x", b)
	}
	if b := a.good("5e 01 00 00 00 00 00 00 ff 00", nil); hex.EncodeToString(b) != "0000000100000010000000000000abcd0000000000030000" {
		t.Errorf("READ RESERVATION %x", b)
	}
	if b := a.good("5e 02 00 00 00 00 00 00 ff 00", nil); hex.EncodeToString(b) != "00081080ea010000" {
		t.Errorf("REPORT CAPABILITIES %x", b)
	}
	b := a.good("5e 03 00 00 00 00 00 00 ff 00", nil)
	if len(b) != 8+24+4+24 || b[8+12] != 1 || b[8+13] != 3 || b[32] != 0x45 || string(b[36:58]) != "iqn.a,i,0x400000000001" {
		t.Errorf("READ FULL STATUS %x", b)
	}
	if b := a.good("5e 00 00 00 00 00 00 00 05 00", nil); len(b) != 5 {
		t.Errorf("%d bytes, want the allocation length 5", len(b))
	}
}
