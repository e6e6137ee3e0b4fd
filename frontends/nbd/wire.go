package nbd

import (
	"encoding/binary"

	"holdfast/frontends/volume"
)

// Magic numbers (NBD proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "Request message", "Simple reply message", "Structured reply chunk message").
const (
	initMagic       = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic     = 0x49484156454f5054 // "IHAVEOPT"
	optReplyMagic   = 0x0003e889045565a9
	requestMagic    = 0x25609513 // NBD_REQUEST_MAGIC
	simpleMagic     = 0x67446698 // NBD_SIMPLE_REPLY_MAGIC
	structuredMagic = 0x668e33ef // NBD_STRUCTURED_REPLY_MAGIC
)

// Sizes of headers, bytes.
const (
	optionHeaderSize  = 16
	requestHeaderSize = 28
)

// Handshake and client flags (NBD proto.md, "Handshake flags", "Client flags"); the client's have the same bits.
const (
	flagFixedNewstyle = 1 << 0 // NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_C_FIXED_NEWSTYLE
	flagNoZeroes      = 1 << 1 // NBD_FLAG_NO_ZEROES, NBD_FLAG_C_NO_ZEROES
)

// Transmission flags (NBD proto.md, "Transmission flags").
const (
	flagHasFlags        = 1 << 0
	flagReadOnly        = 1 << 1
	flagSendFlush       = 1 << 2
	flagSendFUA         = 1 << 3
	flagSendTrim        = 1 << 5
	flagSendWriteZeroes = 1 << 6
	flagSendDF          = 1 << 7
	flagCanMultiConn    = 1 << 8
	flagSendCache       = 1 << 10
	flagSendFastZero    = 1 << 11
)

// Options (NBD proto.md, "Option types"). Early drafts of the text had the two meta context options one higher; qemu, libnbd and the present text agree on these.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10
	optExtendedHeaders = 11
)

// Option reply types (NBD proto.md, "Option reply types").
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4

	repErrUnsup   = 1<<31 + 1
	repErrPolicy  = 1<<31 + 2
	repErrInvalid = 1<<31 + 3
	repErrUnknown = 1<<31 + 6
	repErrTooBig  = 1<<31 + 9
)

// Information types (NBD proto.md, NBD_REP_INFO).
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Commands (NBD proto.md, "Request types").
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	commands = 8 // how many of them there are
)

// Command flags (NBD proto.md, "Command flags").
const (
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4
)

// Structured reply types and flags (NBD proto.md, "Structured reply flags", "Structured reply types").
const (
	replyFlagDone = 1 << 0

	replyNone        = 0
	replyOffsetData  = 1
	replyOffsetHole  = 2
	replyBlockStatus = 5
	replyError       = 1<<15 + 1
)

// The metadata context base:allocation (NBD proto.md, "The base:allocation metadata context").
const (
	baseAllocation = "base:allocation"
	allocationID   = 1 // our choice; unique among the contexts of a connection

	stateHole = 1 << 0 // NBD_STATE_HOLE
	stateZero = 1 << 1 // NBD_STATE_ZERO
)

// Limits of the protocol.
const (
	// maxString is the longest string (NBD proto.md, "Conventions").
	maxString = 4096
	// maxPayload is the largest payload of a read or write, and what a client that does not ask may assume (NBD proto.md, "Block size constraints": 33,554,432).
	maxPayload = 32 << 20
	// maxOption is the longest option whose data we look at: a name and 7 queries of the longest kind. It is below what a loop shows in one piece (loop.ConnHandler).
	maxOption = 32 << 10
	// maxSkip is the longest data of an option that we do not look at but pass over; one that announces more is not a client.
	maxSkip = 1 << 20
)

var be = binary.BigEndian

// header is a request's (NBD proto.md, "Request message").
type header struct {
	flags  uint16
	kind   uint16
	cookie uint64 // "handle" in older texts
	offset uint64
	length uint32
}

// parseHeader reads a header of requestHeaderSize bytes.
func parseHeader(p []byte) (h header, ok bool) {
	return header{be.Uint16(p[4:]), be.Uint16(p[6:]), be.Uint64(p[8:]), be.Uint64(p[16:]), be.Uint32(p[24:])}, be.Uint32(p) == requestMagic
}

// allowedFlags says which flags a command may have besides FUA, which is tolerated on every one: clients are known to set it anywhere (NBD proto.md, "Command flags").
var allowedFlags = [commands]uint16{
	cmdRead:        cmdFlagDF,
	cmdWriteZeroes: cmdFlagNoHole | cmdFlagFastZero,
	cmdBlockStatus: cmdFlagReqOne,
}

// transmissionFlags are what an export offers.
func transmissionFlags(info *volume.Info, structured bool) uint16 {
	// CAN_MULTI_CONN is honest: nothing is cached here, so what one connection flushed every other sees.
	f := uint16(flagHasFlags | flagSendFlush | flagSendFUA | flagCanMultiConn | flagSendCache)
	if structured {
		f |= flagSendDF
	}
	if info.ReadOnly {
		return f | flagReadOnly
	}
	return f | flagSendTrim | flagSendWriteZeroes | flagSendFastZero
}

// blockSizes are the constraints we advertise: each a power of two with minimum <= preferred <= maximum (NBD proto.md, "Block size constraints").
func blockSizes(info *volume.Info) (minimum, preferred, payload uint32) {
	minimum = max(1, info.BlockSize)
	payload = min(info.MaxTransfer, maxPayload) / minimum * minimum
	preferred = min(max(info.PreferredSize, minimum, 512), payload)
	return minimum, preferred, payload
}
