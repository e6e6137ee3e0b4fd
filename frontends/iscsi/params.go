package iscsi

import (
	"strconv"
	"strings"
)

// What this target declares and offers. A write of up to firstBurst bytes needs no R2T round trip (spec/clients.md I4).
const (
	maxReceive = 256 << 10 // MaxRecvDataSegmentLength
	firstBurst = 256 << 10 // FirstBurstLength
	maxBurst   = 1 << 20   // MaxBurstLength
	// loginReceive bounds a PDU before full feature phase: the default MaxRecvDataSegmentLength (RFC 7143, section 13.12).
	loginReceive = 8192
)

// params are the operational parameters of a session; the zero value is not useful, see defaultParams.
type params struct {
	headerDigest, dataDigest bool
	maxSend                  int // the initiator's MaxRecvDataSegmentLength
	firstBurst, maxBurst     int
	immediateData            bool
	initialR2T               bool
}

// defaultParams are the values that hold when a key is not negotiated (RFC 7143, section 13).
func defaultParams() params {
	return params{maxSend: 8192, firstBurst: 64 << 10, maxBurst: 256 << 10, immediateData: true, initialR2T: true}
}

// negotiate answers one operational key: the answer to send ("" for none) and whether the value was acceptable. RFC 7143, section 13, names the result functions.
func (p *params) negotiate(key, value string, discovery bool) (answer string, ok bool) {
	switch key {
	case "HeaderDigest":
		return chooseDigest(value, &p.headerDigest)
	case "DataDigest":
		return chooseDigest(value, &p.dataDigest)
	case "MaxRecvDataSegmentLength": // declared, not answered
		return "", number(value, 512, 1<<24-1, &p.maxSend)
	case "MaxConnections":
		return lesser(value, 1, 65535, 1, nil)
	case "ErrorRecoveryLevel":
		return lesser(value, 0, 2, 0, nil)
	case "MaxOutstandingR2T":
		return lesser(value, 1, 65535, 1, nil)
	case "DefaultTime2Retain":
		return lesser(value, 0, 3600, 0, nil)
	case "DefaultTime2Wait": // the greater of both
		n := 0
		if !number(value, 0, 3600, &n) {
			return "Reject", false
		}
		return strconv.Itoa(max(n, 2)), true
	case "FirstBurstLength":
		return lesser(value, 512, 1<<24-1, firstBurst, &p.firstBurst)
	case "MaxBurstLength":
		return lesser(value, 512, 1<<24-1, maxBurst, &p.maxBurst)
	case "ImmediateData": // yes only if both say so
		return boolean(value, &p.immediateData)
	case "InitialR2T": // yes if one says so; we do not
		return boolean(value, &p.initialR2T)
	case "DataPDUInOrder", "DataSequenceInOrder": // yes if one says so; we do
		var v bool
		if _, ok := boolean(value, &v); !ok {
			return "Reject", false
		}
		return "Yes", true
	case "IFMarker", "OFMarker": // obsolete (RFC 7143, section 13.25)
		return "No", true
	case "IFMarkInt", "OFMarkInt":
		return "Reject", true
	case "TaskReporting":
		return "RFC3720", true
	case "iSCSIProtocolLevel": // RFC 7144, section 7.1.1; 1 is RFC 7143 alone
		return lesser(value, 0, 31, 1, nil)
	case "InitiatorAlias", "SessionType", "InitiatorName", "TargetName":
		return "", true
	}
	return "NotUnderstood", true
}

// settle makes the parameters agree with each other once all are known.
func (p *params) settle() { p.firstBurst = min(p.firstBurst, p.maxBurst) }

func chooseDigest(offered string, on *bool) (string, bool) {
	for v := range strings.SplitSeq(offered, ",") {
		switch v {
		case "CRC32C":
			*on = true
			return v, true
		case "None":
			*on = false
			return v, true
		}
	}
	return "Reject", false
}

// number parses a decimal or 0x-hexadecimal numerical value (RFC 7143, section 6.1) within bounds.
func number(value string, low, high int, to *int) bool {
	base, digits := 10, value
	if len(value) > 2 && (value[:2] == "0x" || value[:2] == "0X") {
		base, digits = 16, value[2:]
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || int(n) < low || int(n) > high {
		return false
	}
	if to != nil {
		*to = int(n)
	}
	return true
}

func lesser(value string, low, high, ours int, to *int) (string, bool) {
	n := 0
	if !number(value, low, high, &n) {
		return "Reject", false
	}
	n = min(n, ours)
	if to != nil {
		*to = n
	}
	return strconv.Itoa(n), true
}

func boolean(value string, to *bool) (string, bool) {
	switch value {
	case "Yes":
		*to = true
	case "No":
		*to = false
	default:
		return "Reject", false
	}
	return value, true
}
