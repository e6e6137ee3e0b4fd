package iscsi

import (
	"encoding/binary"
	"hash/crc32"
)

// bhsSize is the length of a basic header segment (RFC 7143, section 11.2.1).
const bhsSize = 48

// digestSize is the length of a header or data digest.
const digestSize = 4

// Opcodes (RFC 7143, section 11.2.1.2).
const (
	opNopOut       = 0x00
	opSCSICommand  = 0x01
	opTaskManage   = 0x02
	opLogin        = 0x03
	opText         = 0x04
	opDataOut      = 0x05
	opLogout       = 0x06
	opSnack        = 0x10
	opNopIn        = 0x20
	opSCSIResponse = 0x21
	opTaskResponse = 0x22
	opLoginReply   = 0x23
	opTextReply    = 0x24
	opDataIn       = 0x25
	opLogoutReply  = 0x26
	opR2T          = 0x31
	opAsync        = 0x32
	opReject       = 0x3f
)

const (
	opcodeMask   = 0x3f
	bitImmediate = 0x40 // of byte 0
	bitFinal     = 0x80 // of byte 1
	bitContinue  = 0x40 // of byte 1 of login and text
	bitRead      = 0x40 // of byte 1 of a SCSI command
	bitWrite     = 0x20
	bitOverflow  = 0x04 // of byte 1 of a SCSI response and of Data-In with status
	bitUnderflow = 0x02
	bitStatus    = 0x01
)

// reserved is the value of a tag that names nothing.
const reserved = 0xffffffff

// Reasons of Reject (RFC 7143, section 11.17.1).
const (
	rejectSnack        = 0x03
	rejectProtocol     = 0x04
	rejectNotSupported = 0x05
	rejectTooMany      = 0x06
	rejectInvalidField = 0x09
)

// header is a basic header segment. Fields are named as in RFC 7143, section 11.
type header [bhsSize]byte

func (h *header) opcode() byte            { return h[0] & opcodeMask }
func (h *header) immediate() bool         { return h[0]&bitImmediate != 0 }
func (h *header) dataLength() int         { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }
func (h *header) lun() uint64             { return binary.BigEndian.Uint64(h[8:]) }
func (h *header) tag() uint32             { return binary.BigEndian.Uint32(h[16:]) }
func (h *header) targetTag() uint32       { return binary.BigEndian.Uint32(h[20:]) }
func (h *header) u32(at int) uint32       { return binary.BigEndian.Uint32(h[at:]) }
func (h *header) putU32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }

// start makes h a PDU to send.
func (h *header) start(opcode, flags byte, tag uint32) {
	*h = header{opcode, flags}
	h.putU32(16, tag)
}

func (h *header) setDataLength(n int) { h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n) }

// padding is how many bytes follow a segment of n bytes to a multiple of four.
func padding(n int) int { return -n & 3 }

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	padBytes   [4]byte
)

// putDigest stores a CRC32C as it is sent: the example of RFC 7143, appendix B.4, 32 zero bytes, is sent aa 36 91 8a.
func putDigest(b []byte, crc uint32) { binary.LittleEndian.PutUint32(b, crc) }

func digest(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// before is serial number arithmetic (RFC 1982): a comes before b.
func before(a, b uint32) bool { return int32(a-b) < 0 }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
