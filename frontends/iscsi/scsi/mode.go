package scsi

import (
	"bytes"
	"encoding/binary"
)

// Mode pages (SPC-4 and SBC-3).
const (
	pageRecovery      = 0x01
	pageCaching       = 0x08
	pageControl       = 0x0A
	pageInformational = 0x1C
	pageAll           = 0x3F
)

var modePages = []byte{pageRecovery, pageCaching, pageControl, pageInformational}

const bitDSense = 0x04 // of byte 2 of the control page

// appendModePage adds a page; changeable asks for a mask of what MODE SELECT may change instead of values.
func (u *Unit) appendModePage(b []byte, page byte, changeable bool) []byte {
	start := len(b)
	switch page {
	case pageRecovery:
		b = append(b, page, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		if !changeable {
			b[start+2] = 0xC0 // AWRE, ARRE: the store repairs by itself
		}
	case pageCaching: // WCE 0: GOOD means durable
		b = append(b, page, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	case pageControl:
		b = append(b, page, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		if changeable {
			b[start+2] = bitDSense
			break
		}
		b[start+2] = 0x20 // TST 001b: a task set per I_T nexus
		if u.dSense {
			b[start+2] |= bitDSense
		}
		b[start+3] = 0x10 // unrestricted reordering allowed
		b[start+5] = 0x40 // TAS: commands that others abort end with TASK ABORTED
		b[start+8], b[start+9] = 0xff, 0xff
	case pageInformational:
		b = append(b, page, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	return b
}

// beginModeSense is MODE SENSE (6) and (10) (SPC-4).
func beginModeSense(u *Unit, t *Task) {
	ten := t.CDB[0] == opModeSense10
	control, page, sub := t.CDB[2]>>6, t.CDB[2]&0x3f, t.CDB[3]
	if control == 3 {
		t.fail(codeNotSaved)
		return
	}
	if sub != 0 && sub != 0xff { // no page here has subpages; FFh asks for all
		t.failField(3, -1)
		return
	}
	specific := byte(0x10) // DPOFUA
	if u.info.ReadOnly {
		specific |= 0x80 // WP
	}
	noBlock := t.CDB[1]&0x08 != 0 // DBD
	long := ten && t.CDB[1]&0x10 != 0
	if ten {
		t.In = append(t.In, 0, 0, 0, specific, 0, 0, 0, 0)
	} else {
		t.In = append(t.In, 0, 0, specific, 0)
	}
	head := len(t.In)
	if !noBlock {
		t.In = u.appendBlockDescriptor(t.In, long)
	}
	descriptor := len(t.In) - head
	if !u.appendModePages(t, page, control == 1) {
		t.failField(2, 5)
		return
	}
	if ten {
		binary.BigEndian.PutUint16(t.In, uint16(len(t.In)-2))
		if long && !noBlock {
			t.In[4] = 1 // LONGLBA
		}
		t.In[7] = byte(descriptor)
		t.answer(uint64(binary.BigEndian.Uint16(t.CDB[7:])))
		return
	}
	t.In[0] = byte(len(t.In) - 1)
	t.In[3] = byte(descriptor)
	t.answer(uint64(t.CDB[4]))
}

func (u *Unit) appendModePages(t *Task, page byte, changeable bool) (found bool) {
	for _, p := range modePages {
		if page == p || page == pageAll {
			t.In = u.appendModePage(t.In, p, changeable)
			found = true
		}
	}
	return found
}

func (u *Unit) appendBlockDescriptor(b []byte, long bool) []byte {
	if long {
		b = binary.BigEndian.AppendUint64(b, u.capacity())
		return append(b, 0, 0, 0, 0, 0, 0, BlockSize>>8, BlockSize&0xff)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(min(u.capacity(), 0xffffffff)))
	return append(b, 0, 0, BlockSize>>8, BlockSize&0xff)
}

// beginModeSelect is MODE SELECT (6) and (10) (SPC-4).
func beginModeSelect(_ *Unit, t *Task) {
	if t.CDB[1]&0x01 != 0 { // SP: nothing can be saved
		t.failField(1, 0)
		return
	}
	if t.CDB[1]&0x10 == 0 { // PF: the pages are the standard's
		t.failField(1, 4)
		return
	}
	if t.CDB[0] == opModeSelect10 {
		t.DataOut = uint64(binary.BigEndian.Uint16(t.CDB[7:]))
	} else {
		t.DataOut = uint64(t.CDB[4])
	}
	if t.DataOut != 0 {
		t.next = applyModeSelect
	}
}

// applyModeSelect accepts D_SENSE and otherwise only what is so already.
func applyModeSelect(u *Unit, t *Task) Step {
	t.next = nil
	list := t.parameters()
	head, at := 4, 3
	if t.CDB[0] == opModeSelect10 {
		head, at = 8, 7
	}
	if len(list) < head {
		return t.fail(codeParameterLength)
	}
	pos := head + int(list[at])
	if head == 8 {
		pos += int(list[6]) << 8
	}
	if pos > len(list) {
		return t.fail(codeParameterLength)
	}
	dSense := u.dSense
	for pos < len(list) {
		if len(list)-pos < 2 || len(list)-pos-2 < int(list[pos+1]) {
			return t.fail(codeParameterLength)
		}
		page := list[pos : pos+2+int(list[pos+1])]
		have := u.appendModePage(t.In[:0], page[0]&0x3f, false)
		if page[0]&0x40 != 0 || len(have) != len(page) {
			return t.failParameter(uint16(pos))
		}
		if page[0]&0x3f == pageControl {
			dSense = page[2]&bitDSense != 0
			have[2] = have[2]&^bitDSense | page[2]&bitDSense
		}
		if !bytes.Equal(have[1:], page[1:]) {
			return t.failParameter(uint16(pos + 2))
		}
		pos += len(page)
	}
	u.dSense = dSense
	return Finished
}
