// Package rpc is the message layer of ONC RPC version 2 (RFC 5531) over a stream: record marks, call headers with AUTH_NONE and AUTH_SYS, and every form of reply header.
//
// It is pure: bytes in, values out. frontends/nfs drives it. Nothing here allocates.
package rpc

import (
	"encoding/binary"

	"holdfast/frontends/nfs/xdr"
)

// Version is the only version of RPC there is (RFC 5531, section 9).
const Version = 2

// The programs served on an NFS port.
const (
	ProgramPortmap = 100000 // RFC 1833, section 3
	ProgramNFS     = 100003 // RFC 1813, section 3
	ProgramMount   = 100005 // RFC 1813, section 5
)

// Sizes of a message.
const (
	MarkSize     = 4   // RFC 5531, section 11
	maxAuthBody  = 400 // RFC 5531, section 8.2
	maxMachine   = 255 // RFC 5531, appendix A
	MaxGroups    = 16  // RFC 5531, appendix A
	callFixed    = 24  // xid, message type, RPC version, program, version, procedure
	replyFixed   = 24  // xid, message type, reply status, verifier (2 words), accept status
	MaxCallBytes = callFixed + 2*(8+maxAuthBody)
	// AcceptedSize is the number of bytes of an accepted reply before its results.
	AcceptedSize = replyFixed
)

// The authentication flavors that are understood (RFC 5531, section 8.2).
const (
	AuthNone = 0
	AuthSys  = 1
)

// AcceptStat is how an accepted call ended (RFC 5531, section 9, accept_stat).
type AcceptStat uint32

// The values of AcceptStat.
const (
	Success      AcceptStat = 0
	ProgUnavail  AcceptStat = 1
	ProgMismatch AcceptStat = 2
	ProcUnavail  AcceptStat = 3
	GarbageArgs  AcceptStat = 4
	SystemErr    AcceptStat = 5
)

// AuthStat is why credentials were refused (RFC 5531, section 9, auth_stat).
type AuthStat uint32

// The values of AuthStat that are sent.
const (
	AuthOK      AuthStat = 0
	AuthBadCred AuthStat = 1
	AuthBadVerf AuthStat = 3
	AuthTooWeak AuthStat = 5
)

// message types and reply states (RFC 5531, section 9).
const (
	msgCall     = 0
	msgReply    = 1
	msgAccepted = 0
	msgDenied   = 1

	rpcMismatch = 0
	authError   = 1
)

// Mark takes a record mark apart: the number of bytes of the fragment that follows, and whether it ends its record (RFC 5531, section 11).
func Mark(b []byte) (n int, last bool) {
	v := binary.BigEndian.Uint32(b)
	return int(v &^ (1 << 31)), v>>31 == 1
}

// PutMark writes the mark of a record of one fragment with n bytes.
func PutMark(b []byte, n int) { binary.BigEndian.PutUint32(b, uint32(n)|1<<31) }

// Credentials say who calls. For AUTH_NONE everything but Flavor is zero.
type Credentials struct {
	Flavor   uint32
	UID, GID uint32
	Groups   [MaxGroups]uint32
	NGroups  int
}

// Call is the header of a call.
type Call struct {
	XID                         uint32
	RPCVersion                  uint32
	Program, Version, Procedure uint32
	Cred                        Credentials
	// Auth is AuthOK, or why the credentials cannot be accepted.
	Auth AuthStat
}

// DecodeCall reads the header of a call from the start of a record into c. It returns the number of bytes of the header; ok is false when b holds no call at all, after which the
// stream cannot be trusted. With another RPCVersion or an Auth that is not AuthOK the rest of the record means nothing.
func DecodeCall(b []byte, c *Call) (n int, ok bool) {
	d := xdr.NewDecoder(b)
	*c = Call{XID: d.Uint32()}
	if d.Uint32() != msgCall || !d.OK() {
		return 0, false
	}
	c.RPCVersion = d.Uint32()
	if !d.OK() {
		return 0, false
	}
	if c.RPCVersion != Version {
		return d.Offset(), true
	}
	c.Program, c.Version, c.Procedure = d.Uint32(), d.Uint32(), d.Uint32()
	if !d.OK() {
		return 0, false
	}
	c.Cred.Flavor = d.Uint32()
	body := d.Opaque(maxAuthBody)
	if !d.OK() || !c.Cred.decode(body) {
		c.Auth = AuthBadCred
		return d.Offset(), true
	}
	// The verifier of AUTH_NONE and AUTH_SYS calls carries nothing (RFC 5531, section 10 and appendix A).
	d.Uint32()
	d.Opaque(maxAuthBody)
	if !d.OK() {
		c.Auth = AuthBadVerf
	}
	return d.Offset(), true
}

// decode reads the body of a credential; false when it is not one we understand.
func (c *Credentials) decode(body []byte) bool {
	switch c.Flavor {
	case AuthNone:
		return true // RFC 5531, section 10: the body is of length zero; some clients put bytes there, which say nothing
	case AuthSys:
		d := xdr.NewDecoder(body)
		d.Uint32() // stamp
		d.Opaque(maxMachine)
		c.UID, c.GID = d.Uint32(), d.Uint32()
		n := d.Uint32()
		if n > MaxGroups {
			return false
		}
		for i := range int(n) {
			c.Groups[i] = d.Uint32()
		}
		c.NGroups = int(n)
		return d.OK()
	}
	return false
}

// Accepted appends the header of a reply to an accepted call; for Success the results follow.
func Accepted(e *xdr.Encoder, xid uint32, stat AcceptStat) {
	e.Uint32(xid)
	e.Uint32(msgReply)
	e.Uint32(msgAccepted)
	e.Uint32(AuthNone)
	e.Uint32(0)
	e.Uint32(uint32(stat))
}

// Mismatch appends the whole reply to a call for a version of a program that is not served; low and high are those that are.
func Mismatch(e *xdr.Encoder, xid, low, high uint32) {
	Accepted(e, xid, ProgMismatch)
	e.Uint32(low)
	e.Uint32(high)
}

// DeniedVersion appends the whole reply to a call of another version of RPC.
func DeniedVersion(e *xdr.Encoder, xid uint32) {
	e.Uint32(xid)
	e.Uint32(msgReply)
	e.Uint32(msgDenied)
	e.Uint32(rpcMismatch)
	e.Uint32(Version)
	e.Uint32(Version)
}

// DeniedAuth appends the whole reply to a call whose credentials are refused.
func DeniedAuth(e *xdr.Encoder, xid uint32, why AuthStat) {
	e.Uint32(xid)
	e.Uint32(msgReply)
	e.Uint32(msgDenied)
	e.Uint32(authError)
	e.Uint32(uint32(why))
}
