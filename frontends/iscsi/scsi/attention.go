package scsi

import "math/bits"

// Attention is a unit attention condition. Conditions of lower number are reported first (SAM-5, unit attention conditions; the most severe reset comes first).
type Attention uint8

// The unit attention conditions.
const (
	PowerOn Attention = iota
	DeviceReset
	NexusLoss
	ReservationsPreempted
	ReservationsReleased
	RegistrationsPreempted
	CapacityChanged
	ModeParametersChanged
	ALUAStateChanged
	InquiryChanged
	ReportedLUNsChanged
	attentions // how many there are
)

var attentionCodes = [attentions]Code{
	PowerOn:                {keyUnitAttention, 0x29, 0x00}, // POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
	DeviceReset:            {keyUnitAttention, 0x29, 0x03}, // BUS DEVICE RESET FUNCTION OCCURRED
	NexusLoss:              {keyUnitAttention, 0x29, 0x07}, // I_T NEXUS LOSS OCCURRED
	ReservationsPreempted:  {keyUnitAttention, 0x2A, 0x03},
	ReservationsReleased:   {keyUnitAttention, 0x2A, 0x04},
	RegistrationsPreempted: {keyUnitAttention, 0x2A, 0x05},
	CapacityChanged:        {keyUnitAttention, 0x2A, 0x09}, // CAPACITY DATA HAS CHANGED
	ModeParametersChanged:  {keyUnitAttention, 0x2A, 0x01},
	ALUAStateChanged:       {keyUnitAttention, 0x2A, 0x06}, // ASYMMETRIC ACCESS STATE CHANGED
	InquiryChanged:         {keyUnitAttention, 0x3F, 0x03},
	ReportedLUNsChanged:    {keyUnitAttention, 0x3F, 0x0E},
}

// attentionSet is the conditions pending for one nexus.
type attentionSet uint16

func (s *attentionSet) add(a Attention)   { *s |= 1 << a }
func (s *attentionSet) clear(a Attention) { *s &^= 1 << a }

// take removes and returns the first condition.
func (s *attentionSet) take() (Code, bool) {
	if *s == 0 {
		return codeNone, false
	}
	a := Attention(bits.TrailingZeros16(uint16(*s)))
	s.clear(a)
	return attentionCodes[a], true
}
