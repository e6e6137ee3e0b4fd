package scsi

import (
	"encoding/binary"
	"strings"
)

// Service actions of PERSISTENT RESERVE IN (SPC-4).
const (
	prReadKeys           = 0x00
	prReadReservation    = 0x01
	prReportCapabilities = 0x02
	prReadFullStatus     = 0x03
)

func beginPersistentIn(u *Unit, t *Task) {
	s := u.c.Member.State()
	switch t.CDB[1] & 0x1f {
	case prReadKeys:
		t.In = binary.BigEndian.AppendUint32(t.In, s.Generation)
		t.In = binary.BigEndian.AppendUint32(t.In, uint32(8*len(s.Registered)))
		for i := range s.Registered {
			t.In = binary.BigEndian.AppendUint64(t.In, s.Registered[i].Key)
		}
	case prReadReservation:
		t.readReservation(s)
	case prReportCapabilities: // CRH; ATP_C and SIP_C are 0; PTPL_C; TMV; PTPL_A as it is; all types
		capable, activated := byte(0), byte(0)
		if u.c.Member.Durable() {
			capable = 0x01
		}
		if s.APTPL {
			activated = 0x01
		}
		t.In = append(t.In, 0, 8, 0x10|capable, 0x80|activated, 0xEA, 0x01, 0, 0)
	case prReadFullStatus:
		t.readFullStatus(s)
	}
	t.answer(uint64(binary.BigEndian.Uint16(t.CDB[7:])))
}

func (t *Task) readReservation(s *State) {
	t.In = binary.BigEndian.AppendUint32(t.In, s.Generation)
	if s.Type == 0 {
		t.In = append(t.In, 0, 0, 0, 0)
		return
	}
	key, _ := s.key(s.Holder)
	if s.Type.all() {
		key = 0
	}
	t.In = append(t.In, 0, 0, 0, 16)
	t.In = binary.BigEndian.AppendUint64(t.In, key)
	t.In = append(t.In, 0, 0, 0, 0, 0, byte(s.Type), 0, 0)
}

func (t *Task) readFullStatus(s *State) {
	t.In = binary.BigEndian.AppendUint32(t.In, s.Generation)
	t.In = append(t.In, 0, 0, 0, 0)
	for i := range s.Registered {
		r := &s.Registered[i]
		t.In = binary.BigEndian.AppendUint64(t.In, r.Key)
		t.In = append(t.In, 0, 0, 0, 0)
		if s.holds(r.Nexus) {
			t.In = append(t.In, 0x01, byte(s.Type))
		} else {
			t.In = append(t.In, 0, 0)
		}
		t.In = append(t.In, 0, 0, 0, 0, byte(r.Port>>8), byte(r.Port))
		id := transportID(r.Initiator)
		t.In = binary.BigEndian.AppendUint32(t.In, uint32(len(id)))
		t.In = append(t.In, id...)
	}
	binary.BigEndian.PutUint32(t.In[4:], uint32(len(t.In)-8))
}

// transportID is the iSCSI initiator port TransportID, format 01b (SPC-4, TransportID for initiator ports using SCSI over iSCSI).
func transportID(initiator string) []byte {
	name := initiator + strings.Repeat("\x00", 4-len(initiator)%4)
	b := []byte{0x40 | 0x05, 0, byte(len(name) >> 8), byte(len(name))}
	return append(b, name...)
}

func beginPersistentOut(_ *Unit, t *Task) {
	if t.CDB[2]>>4 != 0 { // SCOPE: only the logical unit
		t.failField(2, 7)
		return
	}
	t.DataOut = uint64(binary.BigEndian.Uint32(t.CDB[5:]))
	if t.DataOut != 24 { // without SPEC_I_PT the list is 24 bytes
		t.DataOut = 0
		t.fail(codeParameterLength)
		return
	}
	t.next = startPersistentOut
}

func startPersistentOut(u *Unit, t *Task) Step {
	list := t.parameters()
	if list[20]&0x0c != 0 { // SPEC_I_PT and ALL_TG_PT: neither is in REPORT CAPABILITIES
		return t.failParameter(20)
	}
	if list[20]&0x01 != 0 && !u.c.Member.Durable() { // APTPL without PTPL_C
		return t.failParameter(20)
	}
	t.Change.Action = Action(t.CDB[1] & 0x1f)
	t.Change.Type = Type(t.CDB[2] & 0x0f)
	t.Change.Key = binary.BigEndian.Uint64(list)
	t.Change.ServiceKey = binary.BigEndian.Uint64(list[8:])
	t.Change.APTPL = list[20]&0x01 != 0
	t.next = endChange
	return ChangeMember
}

func endChange(_ *Unit, t *Task) Step {
	t.next = nil
	if t.Change.Status == CheckCondition {
		return t.fail(t.Change.Code)
	}
	t.Status = t.Change.Status
	return Finished
}

func beginReserve(_ *Unit, t *Task) { t.beginLegacy(LegacyReserve) }
func beginRelease(_ *Unit, t *Task) { t.beginLegacy(LegacyRelease) }

func (t *Task) beginLegacy(a Action) {
	if t.CDB[1]&0x1f != 0 { // third party and extent reservations are obsolete
		t.failField(1, 4)
		return
	}
	t.Change = Change{Action: a, Done: t.Change.Done}
	t.next = startChange
}

func startChange(_ *Unit, t *Task) Step {
	t.next = endChange
	return ChangeMember
}
