package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// revision is PRODUCT REVISION LEVEL.
const revision = "0001"

func inquiryAllocation(t *Task) uint64 { return uint64(binary.BigEndian.Uint16(t.CDB[3:])) }

// beginInquiry answers standard data or a vital product data page (SPC-4, INQUIRY).
func beginInquiry(u *Unit, t *Task) {
	page := t.CDB[2]
	switch {
	case t.CDB[1]&0x02 != 0: // CMDDT is obsolete
		t.failField(1, 1)
		return
	case t.CDB[1]&1 == 0 && page != 0:
		t.failField(2, -1)
		return
	case t.CDB[1]&1 == 0:
		t.In = appendStandard(t.In, 0x00)
	default:
		fill := vitalPage(page)
		if fill == nil {
			t.failField(2, -1)
			return
		}
		t.In = append(t.In, 0x00, page, 0, 0)
		t.In = fill(u, t.In)
		binary.BigEndian.PutUint16(t.In[2:], uint16(len(t.In)-4))
	}
	t.answer(inquiryAllocation(t))
}

// inquiryNoUnit answers INQUIRY for a LUN that is not there: peripheral qualifier 011b and type 1Fh.
func (u *Unit) inquiryNoUnit(t *Task) {
	if t.CDB[1]&1 != 0 {
		if t.CDB[2] != 0 {
			t.failField(2, -1)
			return
		}
		t.In = append(t.In, 0x7f, 0, 0, 1, 0)
	} else {
		t.In = appendStandard(t.In, 0x7f)
	}
	t.answer(inquiryAllocation(t))
}

// appendStandard adds standard INQUIRY data: implicit ALUA, several ports, command queuing.
func appendStandard(b []byte, peripheral byte) []byte {
	b = append(b,
		peripheral,
		0x00, // not removable
		0x06, // SPC-4
		0x12, // HISUP, response data format 2
		96-5, // additional length
		0x10, // TPGS 01b: implicit asymmetric logical unit access
		0x10, // MULTIP
		0x02) // CMDQUE
	b = append(b, vendor...)
	b = append(b, "BLOCK DEVICE    "...)
	b = append(b, revision...)
	for range 58 - 36 {
		b = append(b, 0)
	}
	// Version descriptors (SPC-4, version descriptor values): SAM-5, SPC-4, SBC-3, iSCSI, none of them to a revision.
	for _, v := range []uint16{0x00A0, 0x0460, 0x04C0, 0x0960} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	for range 96 - 66 {
		b = append(b, 0)
	}
	return b
}

// vitalPages lists what page 00h tells, in order.
var vitalPages = []byte{0x00, 0x80, 0x83, 0x86, 0x87, 0xB0, 0xB1, 0xB2}

// vitalPage is what fills a page behind its 4-byte header, or nil.
func vitalPage(page byte) func(*Unit, []byte) []byte {
	switch page {
	case 0x00:
		return func(_ *Unit, b []byte) []byte { return append(b, vitalPages...) }
	case 0x80:
		return func(u *Unit, b []byte) []byte { return append(b, Serial(&u.info)...) }
	case 0x83:
		return (*Unit).appendIdentification
	case 0x86:
		return (*Unit).appendExtended
	case 0x87:
		return appendModePolicy
	case 0xB0:
		return (*Unit).appendBlockLimits
	case 0xB1:
		return appendCharacteristics
	case 0xB2:
		return appendProvisioning
	}
	return nil
}

// Code sets, associations and types of designators (SPC-4, Device Identification VPD page).
const (
	binarySet = 1
	asciiSet  = 2
	utf8Set   = 3
	ofPort    = 0x10
	piv       = 0x80
	iscsi     = 0x50 // protocol identifier 5h
)

func appendDesignator(b []byte, set, kind byte, d []byte) []byte {
	b = append(b, set, kind, 0, byte(len(d)))
	return append(b, d...)
}

func (u *Unit) appendIdentification(b []byte) []byte {
	naa := NAA(&u.info)
	b = appendDesignator(b, binarySet, 3, naa[:])
	b = appendDesignator(b, asciiSet, 1, []byte(vendor+hex.EncodeToString(u.info.ID[:])))
	b = appendDesignator(b, iscsi|binarySet, piv|ofPort|4, []byte{0, 0, byte(u.c.Port.Relative >> 8), byte(u.c.Port.Relative)})
	b = appendDesignator(b, iscsi|binarySet, piv|ofPort|5, []byte{0, 0, byte(u.c.Port.Group >> 8), byte(u.c.Port.Group)})
	name := append([]byte(u.c.Port.Name), 0) // a SCSI name string ends with a null and is padded to 4
	for len(name)%4 != 0 {
		name = append(name, 0)
	}
	return appendDesignator(b, iscsi|utf8Set, piv|ofPort|8, name[:min(len(name), 252)])
}

// appendExtended is page 86h: SIMPLE, ORDERED and HEAD OF QUEUE; the page is 64 bytes.
func (u *Unit) appendExtended(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, 60)...)
	b[start+1] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	b[start+3] = 0x01 // LUICLR
	return b
}

// appendModePolicy is page 87h: all mode pages are per I_T nexus.
func appendModePolicy(_ *Unit, b []byte) []byte { return append(b, 0x3f, 0xff, 0x03, 0) }

// granularity is OPTIMAL UNMAP GRANULARITY in blocks: the physical block, far below the 1 MiB that VMware's automatic reclaim allows (spec/clients.md I13).
func (u *Unit) granularity() uint32 { return max(1, u.info.PreferredSize/BlockSize) }

// appendBlockLimits is page B0h, in logical blocks (SBC-3, Block Limits VPD page).
func (u *Unit) appendBlockLimits(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, 60)...)
	p := b[start-4:] // offsets as in the standard
	p[4] = 0x01      // WSNZ
	p[5] = maxCompareBlocks
	binary.BigEndian.PutUint16(p[6:], uint16(min(u.granularity(), 0xffff)))
	limit := uint32(u.transferLimit())
	binary.BigEndian.PutUint32(p[8:], limit)
	binary.BigEndian.PutUint32(p[12:], min(limit, u.info.OptimalSize/BlockSize))
	binary.BigEndian.PutUint32(p[20:], maxUnmapBlocks)
	binary.BigEndian.PutUint32(p[24:], maxUnmapDescriptors)
	binary.BigEndian.PutUint32(p[28:], u.granularity())
	binary.BigEndian.PutUint32(p[32:], 1<<31) // UGAVALID, alignment 0
	binary.BigEndian.PutUint64(p[36:], maxSameBlocks)
	return b
}

// appendCharacteristics is page B1h: not rotating.
func appendCharacteristics(_ *Unit, b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, 60)...)
	b[start+1] = 0x01
	return b
}

// appendProvisioning is page B2h: UNMAP and both WRITE SAME unmap, unmapped blocks read as zeroes, thin.
func appendProvisioning(_ *Unit, b []byte) []byte { return append(b, 0, 0xE0|0x04, 0x02, 0) }

func beginReadCapacity10(u *Unit, t *Task) {
	last := min(u.capacity()-1, 0xffffffff) // FFFFFFFFh sends the initiator to READ CAPACITY (16)
	if u.capacity() == 0 {
		last = 0
	}
	if t.CDB[8]&1 == 0 && binary.BigEndian.Uint32(t.CDB[2:]) != 0 { // an LBA without PMI
		t.failField(2, -1)
		return
	}
	t.In = binary.BigEndian.AppendUint32(t.In, uint32(last))
	t.In = binary.BigEndian.AppendUint32(t.In, BlockSize)
	t.answer(8)
}

func beginReadCapacity16(u *Unit, t *Task) {
	t.In = binary.BigEndian.AppendUint64(t.In, max(u.capacity(), 1)-1)
	t.In = binary.BigEndian.AppendUint32(t.In, BlockSize)
	t.In = append(t.In, 0, byte(bits.Len32(u.granularity())-1), 0x80|0x40, 0) // LBPPBE; LBPME and LBPRZ
	t.In = append(t.In, make([]byte, 16)...)
	t.answer(uint64(binary.BigEndian.Uint32(t.CDB[10:])))
}

// beginRequestSense answers a pending unit attention, or none (SPC-4, REQUEST SENSE).
func beginRequestSense(u *Unit, t *Task) {
	s := Sense{}
	s.Code, _ = u.pending.take()
	t.In = s.Append(t.In, t.CDB[1]&1 != 0)
	t.answer(uint64(t.CDB[4]))
}
