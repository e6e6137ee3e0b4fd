package scsi

import (
	"encoding/binary"
)

// beginReportLUNs answers LUN 0 only (SPC-4, REPORT LUNS).
func beginReportLUNs(u *Unit, t *Task) {
	allocation := uint64(binary.BigEndian.Uint32(t.CDB[6:]))
	switch {
	case allocation < 16:
		t.failField(6, -1)
		return
	case t.CDB[2] > 0x02:
		t.failField(2, -1)
		return
	}
	u.pending.clear(ReportedLUNsChanged)
	t.In = append(t.In, 0, 0, 0, 0, 0, 0, 0, 0)
	if t.CDB[2] != 0x01 { // 01h: well known logical units only, and there are none
		t.In[3] = 8
		t.In = append(t.In, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	t.answer(allocation)
}

// beginReportPortGroups answers every group of every gateway, all active/optimized (SPC-4, REPORT TARGET PORT GROUPS).
func beginReportPortGroups(u *Unit, t *Task) {
	t.In = append(t.In, 0, 0, 0, 0)
	if t.CDB[1]>>5 == 1 { // extended header: implicit transition time
		t.In = append(t.In, 0x10, 0, 0, 0)
	}
	ports := u.c.Ports
	for len(ports) > 0 {
		n := 1
		for n < len(ports) && ports[n].Group == ports[0].Group && n < 255 {
			n++
		}
		t.In = append(t.In, 0x00, 0x01) // active/optimized; AO_SUP
		t.In = binary.BigEndian.AppendUint16(t.In, ports[0].Group)
		t.In = append(t.In, 0, 0x02, 0, byte(n)) // altered by implicit behaviour
		for _, p := range ports[:n] {
			t.In = append(t.In, 0, 0)
			t.In = binary.BigEndian.AppendUint16(t.In, p.Relative)
		}
		ports = ports[n:]
	}
	binary.BigEndian.PutUint32(t.In, uint32(len(t.In)-4))
	t.answer(uint64(binary.BigEndian.Uint32(t.CDB[6:])))
}

// A command timeouts descriptor with nothing to say (SPC-4).
var noTimeouts = []byte{0, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// beginReportOpcodes is REPORT SUPPORTED OPERATION CODES (SPC-4).
func beginReportOpcodes(_ *Unit, t *Task) {
	timeouts := t.CDB[2]&0x80 != 0
	op := t.CDB[3]
	sa := binary.BigEndian.Uint16(t.CDB[4:])
	switch t.CDB[2] & 0x07 {
	case 0:
		t.reportAllOpcodes(timeouts)
	case 1: // an operation code without service actions
		c := lookup(op, -2)
		if c == nil && known(op) {
			t.failField(4, -1)
			return
		}
		t.reportOneOpcode(c, timeouts)
	case 2: // an operation code with a service action
		if known(op) && commands[byOp[op]-1].sa == noServiceAction {
			t.failField(4, -1)
			return
		}
		t.reportOneOpcode(lookupExact(op, sa), timeouts)
	case 3: // either
		c := lookupExact(op, sa)
		if c == nil && known(op) && commands[byOp[op]-1].sa == noServiceAction && sa == 0 {
			c = lookup(op, -2)
		}
		t.reportOneOpcode(c, timeouts)
	default:
		t.failField(2, 2)
		return
	}
	t.answer(uint64(binary.BigEndian.Uint32(t.CDB[6:])))
}

// lookupExact finds a command that has the service action.
func lookupExact(op byte, sa uint16) *command {
	c := lookup(op, int16(sa&0x1f))
	if c == nil || c.sa == noServiceAction || sa > 0x1f {
		return nil
	}
	return c
}

func (t *Task) reportAllOpcodes(timeouts bool) {
	t.In = append(t.In, 0, 0, 0, 0)
	for i := range commands {
		c := &commands[i]
		sa, flags := uint16(0), byte(0)
		if c.sa != noServiceAction {
			sa, flags = uint16(c.sa), 0x01 // SERVACTV
		}
		if timeouts {
			flags |= 0x02 // CTDP
		}
		t.In = append(t.In, c.op, 0, byte(sa>>8), byte(sa), 0, flags, 0, byte(c.length()))
		if timeouts {
			t.In = append(t.In, noTimeouts...)
		}
	}
	binary.BigEndian.PutUint32(t.In, uint32(len(t.In)-4))
}

func (t *Task) reportOneOpcode(c *command, timeouts bool) {
	if c == nil {
		t.In = append(t.In, 0, 0x01, 0, 0) // not supported
		return
	}
	support := byte(0x03) // supported in conformance with a standard
	if timeouts {
		support |= 0x80
	}
	t.In = append(t.In, 0, support, 0, byte(c.length()))
	at := len(t.In)
	t.In = append(t.In, c.usage...)
	t.In[at] = c.op
	if c.sa != noServiceAction {
		t.In[at+1] = t.In[at+1]&0xe0 | byte(c.sa) // the service action itself, not a mask
	}
	if timeouts {
		t.In = append(t.In, noTimeouts...)
	}
}

// beginReportTMFs is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: abort task, abort task set, clear task set, logical unit reset (SPC-4).
func beginReportTMFs(_ *Unit, t *Task) {
	allocation := uint64(binary.BigEndian.Uint32(t.CDB[6:]))
	if allocation < 4 {
		t.failField(6, -1)
		return
	}
	t.In = append(t.In, 0x80|0x40|0x10|0x08, 0, 0, 0)
	if t.CDB[2]&0x80 != 0 { // REPD: extended parameter data
		t.In[3] = 12
		t.In = append(t.In, make([]byte, 12)...)
	}
	t.answer(allocation)
}
