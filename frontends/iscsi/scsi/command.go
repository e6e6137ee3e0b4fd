package scsi

import "encoding/binary"

// Operation codes (SPC-4 and SBC-3 annexes).
const (
	opTestUnitReady    = 0x00
	opRequestSense     = 0x03
	opRead6            = 0x08
	opWrite6           = 0x0A
	opInquiry          = 0x12
	opModeSelect6      = 0x15
	opReserve6         = 0x16
	opRelease6         = 0x17
	opModeSense6       = 0x1A
	opStartStop        = 0x1B
	opPreventAllow     = 0x1E
	opReadCapacity10   = 0x25
	opRead10           = 0x28
	opWrite10          = 0x2A
	opWriteVerify10    = 0x2E
	opVerify10         = 0x2F
	opPrefetch10       = 0x34
	opSynchronize10    = 0x35
	opWriteSame10      = 0x41
	opUnmap            = 0x42
	opModeSelect10     = 0x55
	opReserve10        = 0x56
	opRelease10        = 0x57
	opModeSense10      = 0x5A
	opPersistentIn     = 0x5E
	opPersistentOut    = 0x5F
	opRead16           = 0x88
	opCompareAndWrite  = 0x89
	opWrite16          = 0x8A
	opWriteVerify16    = 0x8E
	opVerify16         = 0x8F
	opPrefetch16       = 0x90
	opSynchronize16    = 0x91
	opWriteSame16      = 0x93
	opServiceActionIn  = 0x9E
	opReportLUNs       = 0xA0
	opMaintenanceIn    = 0xA3
	opRead12           = 0xA8
	opWrite12          = 0xAA
	opWriteVerify12    = 0xAE
	opVerify12         = 0xAF
	noServiceAction    = -1
	saReadCapacity16   = 0x10
	saGetLBAStatus     = 0x12
	saReportPortGroups = 0x0A
	saReportOpcodes    = 0x0C
	saReportTMFs       = 0x0D
)

// access is how a command stands to reservations of others.
type access uint8

const (
	accessAlways access = iota // allowed whatever is reserved
	accessRead                 // conflicts with Exclusive Access
	accessWrite                // conflicts with Write Exclusive too
)

// Flags of a command.
const (
	ignoresAttention = 1 << iota // INQUIRY, REPORT LUNS, REQUEST SENSE (SPC-4, unit attention)
	writesMedium                 // refused when the unit is write protected
	legacyAllowed                // allowed beside another nexus's RESERVE (SPC-2)
	withBlocks                   // the CDB has the common layout of an LBA and a transfer length
)

// command is one entry of the table: what REPORT SUPPORTED OPERATION CODES tells, and how it begins.
type command struct {
	op     byte
	sa     int16 // service action or noServiceAction
	access access
	flags  uint8
	usage  []byte // CDB usage data: 1 for each bit that is looked at; its length is the CDB's
	begin  func(*Unit, *Task)
}

func (c *command) length() int { return len(c.usage) }

// Usage data shared by commands of the same shape. The first byte is replaced by the operation code when reported.
var (
	usageRead6 = []byte{0, 0x1f, 0xff, 0xff, 0xff, 0x04}

	usageNone6     = []byte{0, 0, 0, 0, 0, 0x04}
	usageNone10    = []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0x04}
	usageIO10      = []byte{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04}
	usageIO12      = []byte{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04}
	usageIO16      = []byte{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04}
	usageVerify10  = []byte{0, 0xf6, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04}
	usageVerify12  = []byte{0, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04}
	usageVerify16  = []byte{0, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04}
	usageSync10    = []byte{0, 0x02, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04}
	usageSync16    = []byte{0, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04}
	usageSame10    = []byte{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04}
	usageSame16    = []byte{0, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04}
	usageCAW       = []byte{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x3f, 0x04}
	usageUnmap     = []byte{0, 0x01, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0x04}
	usageCapacity  = []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0x04}
	usageSAIn      = []byte{0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
	usageCap16     = []byte{0, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
	usageInquiry   = []byte{0, 0x01, 0xff, 0xff, 0xff, 0x04}
	usageSense     = []byte{0, 0x01, 0, 0, 0xff, 0x04}
	usageMSense6   = []byte{0, 0x08, 0xff, 0xff, 0xff, 0x04}
	usageMSense10  = []byte{0, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04}
	usageMSelect6  = []byte{0, 0x11, 0, 0, 0xff, 0x04}
	usageMSelect10 = []byte{0, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04}
	usageStart     = []byte{0, 0x01, 0, 0x0f, 0xf7, 0x04}
	usagePrevent   = []byte{0, 0, 0, 0, 0x03, 0x04}
	usagePRIn      = []byte{0, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04}
	usagePROut     = []byte{0, 0x1f, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04}
	usageLUNs      = []byte{0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
	usageGroups    = []byte{0, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
	usageOpcodes   = []byte{0, 0x1f, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
	usageTMFs      = []byte{0, 0x1f, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
)

// commands is every command, sorted by operation code and service action. Access follows SPC-4 table "persistent reservations" and SBC-3 table of the same name.
// It is filled by init since the functions it names read it (REPORT SUPPORTED OPERATION CODES).
var commands []command

// byOp is where each operation code's entries begin in commands, plus 1.
var byOp [256]uint8

func init() {
	const w = writesMedium | withBlocks
	commands = []command{
		{opTestUnitReady, noServiceAction, accessAlways, 0, usageNone6, beginNothing},
		{opRequestSense, noServiceAction, accessAlways, ignoresAttention | legacyAllowed, usageSense, beginRequestSense},
		{opRead6, noServiceAction, accessRead, withBlocks, usageRead6, beginRead},
		{opWrite6, noServiceAction, accessWrite, w, usageRead6, beginWrite},
		{opInquiry, noServiceAction, accessAlways, ignoresAttention | legacyAllowed, usageInquiry, beginInquiry},
		{opModeSelect6, noServiceAction, accessWrite, 0, usageMSelect6, beginModeSelect},
		{opReserve6, noServiceAction, accessAlways, legacyAllowed, usageNone6, beginReserve},
		{opRelease6, noServiceAction, accessAlways, legacyAllowed, usageNone6, beginRelease},
		{opModeSense6, noServiceAction, accessWrite, 0, usageMSense6, beginModeSense},
		{opStartStop, noServiceAction, accessAlways, 0, usageStart, beginStartStop},
		{opPreventAllow, noServiceAction, accessAlways, 0, usagePrevent, beginNothing},
		{opReadCapacity10, noServiceAction, accessAlways, 0, usageCapacity, beginReadCapacity10},
		{opRead10, noServiceAction, accessRead, withBlocks, usageIO10, beginRead},
		{opWrite10, noServiceAction, accessWrite, w, usageIO10, beginWrite},
		{opWriteVerify10, noServiceAction, accessWrite, w, usageVerify10, beginWriteVerify},
		{opVerify10, noServiceAction, accessRead, withBlocks, usageVerify10, beginVerify},
		{opPrefetch10, noServiceAction, accessRead, withBlocks, usageSync10, beginPrefetch},
		{opSynchronize10, noServiceAction, accessWrite, withBlocks, usageSync10, beginSynchronize},
		{opWriteSame10, noServiceAction, accessWrite, w, usageSame10, beginWriteSame},
		{opUnmap, noServiceAction, accessWrite, writesMedium, usageUnmap, beginUnmap},
		{opModeSelect10, noServiceAction, accessWrite, 0, usageMSelect10, beginModeSelect},
		{opReserve10, noServiceAction, accessAlways, legacyAllowed, usageNone10, beginReserve},
		{opRelease10, noServiceAction, accessAlways, legacyAllowed, usageNone10, beginRelease},
		{opModeSense10, noServiceAction, accessWrite, 0, usageMSense10, beginModeSense},
		{opPersistentIn, prReadKeys, accessAlways, 0, usagePRIn, beginPersistentIn},
		{opPersistentIn, prReadReservation, accessAlways, 0, usagePRIn, beginPersistentIn},
		{opPersistentIn, prReportCapabilities, accessAlways, 0, usagePRIn, beginPersistentIn},
		{opPersistentIn, prReadFullStatus, accessAlways, 0, usagePRIn, beginPersistentIn},
		{opPersistentOut, int16(Register), accessAlways, 0, usagePROut, beginPersistentOut},
		{opPersistentOut, int16(Reserve), accessAlways, 0, usagePROut, beginPersistentOut},
		{opPersistentOut, int16(Release), accessAlways, 0, usagePROut, beginPersistentOut},
		{opPersistentOut, int16(Clear), accessAlways, 0, usagePROut, beginPersistentOut},
		{opPersistentOut, int16(Preempt), accessAlways, 0, usagePROut, beginPersistentOut},
		{opPersistentOut, int16(PreemptAndAbort), accessAlways, 0, usagePROut, beginPersistentOut},
		{opPersistentOut, int16(RegisterAndIgnore), accessAlways, 0, usagePROut, beginPersistentOut},
		{opRead16, noServiceAction, accessRead, withBlocks, usageIO16, beginRead},
		{opCompareAndWrite, noServiceAction, accessWrite, w, usageCAW, beginCompareAndWrite},
		{opWrite16, noServiceAction, accessWrite, w, usageIO16, beginWrite},
		{opWriteVerify16, noServiceAction, accessWrite, w, usageVerify16, beginWriteVerify},
		{opVerify16, noServiceAction, accessRead, withBlocks, usageVerify16, beginVerify},
		{opPrefetch16, noServiceAction, accessRead, withBlocks, usageSync16, beginPrefetch},
		{opSynchronize16, noServiceAction, accessWrite, withBlocks, usageSync16, beginSynchronize},
		{opWriteSame16, noServiceAction, accessWrite, w, usageSame16, beginWriteSame},
		{opServiceActionIn, saReadCapacity16, accessAlways, 0, usageCap16, beginReadCapacity16},
		{opServiceActionIn, saGetLBAStatus, accessRead, 0, usageSAIn, beginGetLBAStatus},
		{opReportLUNs, noServiceAction, accessAlways, ignoresAttention | legacyAllowed, usageLUNs, beginReportLUNs},
		{opMaintenanceIn, saReportPortGroups, accessAlways, 0, usageGroups, beginReportPortGroups},
		{opMaintenanceIn, saReportOpcodes, accessAlways, 0, usageOpcodes, beginReportOpcodes},
		{opMaintenanceIn, saReportTMFs, accessAlways, 0, usageTMFs, beginReportTMFs},
		{opRead12, noServiceAction, accessRead, withBlocks, usageIO12, beginRead},
		{opWrite12, noServiceAction, accessWrite, w, usageIO12, beginWrite},
		{opWriteVerify12, noServiceAction, accessWrite, w, usageVerify12, beginWriteVerify},
		{opVerify12, noServiceAction, accessRead, withBlocks, usageVerify12, beginVerify},
	}
	for i := len(commands) - 1; i >= 0; i-- {
		byOp[commands[i].op] = uint8(i + 1)
	}
}

// known reports whether any command has the operation code.
func known(op byte) bool { return byOp[op] != 0 }

// find is the table's entry for a CDB, or nil.
func find(cdb *[16]byte) *command { return lookup(cdb[0], int16(cdb[1]&0x1f)) }

func lookup(op byte, sa int16) *command {
	i := int(byOp[op])
	if i == 0 {
		return nil
	}
	for i--; i < len(commands) && commands[i].op == op; i++ {
		if commands[i].sa == noServiceAction || commands[i].sa == sa {
			return &commands[i]
		}
	}
	return nil
}

// decodeBlocks reads LBA and transfer length from a CDB of the common layout (SBC-3, READ and WRITE commands).
func decodeBlocks(cdb *[16]byte) (lba, blocks uint64) {
	switch cdb[0] >> 5 {
	case 0: // 6 bytes; a length of 0 means 256
		lba = uint64(cdb[1]&0x1f)<<16 | uint64(cdb[2])<<8 | uint64(cdb[3])
		blocks = uint64(cdb[4])
		if blocks == 0 {
			blocks = 256
		}
	case 1, 2: // 10 bytes
		lba = uint64(binary.BigEndian.Uint32(cdb[2:]))
		blocks = uint64(binary.BigEndian.Uint16(cdb[7:]))
	case 5: // 12 bytes
		lba = uint64(binary.BigEndian.Uint32(cdb[2:]))
		blocks = uint64(binary.BigEndian.Uint32(cdb[6:]))
	default: // 16 bytes
		lba = binary.BigEndian.Uint64(cdb[2:])
		blocks = uint64(binary.BigEndian.Uint32(cdb[10:]))
	}
	return lba, blocks
}
