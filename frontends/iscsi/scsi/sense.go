package scsi

import "encoding/binary"

// Status is a SCSI status code (SAM-5, status codes).
type Status uint8

// The status codes this target answers.
const (
	Good                Status = 0x00
	CheckCondition      Status = 0x02
	ConditionMet        Status = 0x04
	Busy                Status = 0x08
	ReservationConflict Status = 0x18
	TaskSetFull         Status = 0x28
	TaskAborted         Status = 0x40
)

// The sense keys this target answers (SPC-4, sense key descriptions).
const (
	keyNoSense        = 0x0
	keyNotReady       = 0x2
	keyMedium         = 0x3
	keyIllegalRequest = 0x5
	keyUnitAttention  = 0x6
	keyDataProtect    = 0x7
	keyAborted        = 0xB
	keyMiscompare     = 0xE
)

// Code is a sense key with its additional sense code and qualifier, as they are usually written: key/asc/ascq.
type Code struct{ Key, ASC, ASCQ uint8 }

// The codes this target answers (SPC-4 annex, additional sense codes).
var (
	codeNone                 = Code{}
	codeInvalidOpcode        = Code{keyIllegalRequest, 0x20, 0x00} // INVALID COMMAND OPERATION CODE
	codeLBARange             = Code{keyIllegalRequest, 0x21, 0x00} // LOGICAL BLOCK ADDRESS OUT OF RANGE
	codeInvalidField         = Code{keyIllegalRequest, 0x24, 0x00} // INVALID FIELD IN CDB
	codeNoUnit               = Code{keyIllegalRequest, 0x25, 0x00} // LOGICAL UNIT NOT SUPPORTED
	codeInvalidParameter     = Code{keyIllegalRequest, 0x26, 0x00} // INVALID FIELD IN PARAMETER LIST
	codeInvalidRelease       = Code{keyIllegalRequest, 0x26, 0x04} // INVALID RELEASE OF PERSISTENT RESERVATION
	codeParameterLength      = Code{keyIllegalRequest, 0x1A, 0x00} // PARAMETER LIST LENGTH ERROR
	codeNotSaved             = Code{keyIllegalRequest, 0x39, 0x00} // SAVING PARAMETERS NOT SUPPORTED
	codeInformationUnit      = Code{keyIllegalRequest, 0x0E, 0x03} // INVALID FIELD IN COMMAND INFORMATION UNIT
	codeNoRegistrations      = Code{keyIllegalRequest, 0x55, 0x04} // INSUFFICIENT REGISTRATION RESOURCES
	codeWriteProtected       = Code{keyDataProtect, 0x27, 0x00}    // WRITE PROTECTED
	codeNoSpace              = Code{keyDataProtect, 0x27, 0x07}    // SPACE ALLOCATION FAILED WRITE PROTECT
	codeReadError            = Code{keyMedium, 0x11, 0x00}         // UNRECOVERED READ ERROR
	codeWriteError           = Code{keyMedium, 0x0C, 0x00}         // WRITE ERROR
	codeInternalFailure      = Code{keyAborted, 0x44, 0x00}        // INTERNAL TARGET FAILURE
	codeProtocolCRC          = Code{keyAborted, 0x47, 0x05}        // PROTOCOL SERVICE CRC ERROR
	codeCommunicationFailure = Code{keyAborted, 0x08, 0x00}        // LOGICAL UNIT COMMUNICATION FAILURE
	codeMiscompare           = Code{keyMiscompare, 0x1D, 0x00}     // MISCOMPARE DURING VERIFY OPERATION
)

// Sense is what accompanies CHECK CONDITION.
type Sense struct {
	Code
	Info    uint64 // INFORMATION, when HasInfo
	HasInfo bool
	// Field points at the faulty byte of the CDB (InCDB) or of the parameter list, when HasField; Bit at its most significant faulty bit when not negative.
	Field    uint16
	Bit      int8
	InCDB    bool
	HasField bool
}

// Sizes of the two formats, bytes.
const (
	fixedSenseSize = 18
	maxSenseSize   = 8 + 12 + 8
)

// Append adds the sense data to b, in descriptor format or fixed format (SPC-4, sense data).
func (s *Sense) Append(b []byte, descriptor bool) []byte {
	if descriptor {
		return s.appendDescriptor(b)
	}
	var d [fixedSenseSize]byte
	d[0] = 0x70 // current, fixed
	if s.HasInfo && s.Info <= 0xffffffff {
		d[0] |= 0x80 // VALID
		binary.BigEndian.PutUint32(d[3:], uint32(s.Info))
	}
	d[2] = s.Key
	d[7] = fixedSenseSize - 8
	d[12], d[13] = s.ASC, s.ASCQ
	s.putFieldPointer(d[15:18])
	return append(b, d[:]...)
}

func (s *Sense) appendDescriptor(b []byte) []byte {
	start := len(b)
	b = append(b, 0x72, s.Key, s.ASC, s.ASCQ, 0, 0, 0, 0)
	if s.HasInfo {
		b = append(b, 0x00, 0x0A, 0x80, 0)
		b = binary.BigEndian.AppendUint64(b, s.Info)
	}
	if s.HasField {
		b = append(b, 0x02, 0x06, 0, 0, 0, 0, 0, 0)
		s.putFieldPointer(b[len(b)-4 : len(b)-1])
	}
	b[start+7] = byte(len(b) - start - 8)
	return b
}

func (s *Sense) putFieldPointer(d []byte) {
	if !s.HasField {
		return
	}
	d[0] = 0x80 // SKSV
	if s.InCDB {
		d[0] |= 0x40
	}
	if s.Bit >= 0 {
		d[0] |= 0x08 | byte(s.Bit)
	}
	binary.BigEndian.PutUint16(d[1:], s.Field)
}
