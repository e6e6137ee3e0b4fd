package iscsi

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"holdfast/core/loop"
	"holdfast/frontends/iscsi/scsi"
	"holdfast/frontends/volume"
)

const (
	// Keep-alive probes feed volume.Session.Alive, so they must be more frequent than op_ttl (4 s): a write that waits is dropped when its initiator was silent for that long.
	keepAliveIdle     = time.Second
	keepAliveInterval = time.Second
	keepAliveCount    = 15
	// tableSize is the number of buckets of tasks by initiator task tag.
	tableSize = 256
)

// session is one session in full feature phase, with its one connection.
//
// Its end: the connection closes; tasks without an operation under way end at once, the others are canceled and awaited; then the volume is detached, the reservations left, and Shared
// told, in this order, so that a session that takes over begins when nothing of this one can happen any more.
type session struct {
	x *conn
	e *entry
	p params

	discovery bool
	image     string
	handle    volume.Handle
	unit      *scsi.Unit
	member    scsi.Membership

	expCmdSN uint32
	window   int // non-immediate commands under way
	urgent   int // immediate ones
	all      *task
	table    [tableSize]*task
	tasks    int
	heldBack int // tasks whose turn by CmdSN has not come
	active   int // tasks that have begun and not ended, for ORDERED
	ordered  int // of them, ORDERED ones
	parkedQ  queue
	nextTTT  uint32

	reading    int // bytes of reads under way
	readQ      queue
	soliciting int // bytes asked for or being written
	writeQ     queue

	pingTimer loop.Timer
	pinged    bool
	pingTag   uint32

	text     []byte // of text requests with the C bit
	textOut  []byte // what is left of a long answer
	textTag  uint32
	aborting bool // abortAll is under way
	claimed  bool
	attached bool
	ending   bool
	ended    bool
	detached bool
	logout   *header // sent when the tasks have ended
	logouts  header
}

func newSession(x *conn, g *login) *session {
	s := &session{x: x, discovery: g.discovery, image: g.image}
	s.e = &entry{l: x.srv.l, s: s, key: sessionKey{initiator: strings.ToLower(g.initiator), isid: g.isid}}
	if !g.discovery {
		s.e.key.target, s.e.key.group = g.target, x.srv.o.PortalGroup
		_, info, _ := x.srv.c.Lookup(g.image) // attach finds out whether it is gone
		s.e.unit = info.ID
	}
	s.pingTimer.Fire = s.ping
	return s
}

// initiatorPort is the name of the initiator's end (RFC 7143, section 4.2.7.1).
func (s *session) initiatorPort() string {
	return s.e.key.initiator + ",i,0x" + hex.EncodeToString(s.e.key.isid[:])
}

// attach takes the volume into use; the status is a login status.
func (s *session) attach(g *login) (status uint16, why string) {
	s.p = g.p
	s.expCmdSN = g.cmdSN
	if s.discovery {
		return loginSuccess, ""
	}
	srv := s.x.srv
	device, info, ok := srv.c.Lookup(s.image)
	if !ok {
		return loginNotFound, "the image was removed"
	}
	if info.BlockSize > scsi.BlockSize {
		return loginTargetError, fmt.Sprintf("the image's block size of %d bytes is more than 512", info.BlockSize)
	}
	targetPort := fmt.Sprintf("%s,t,0x%04x", s.e.key.target, srv.o.PortalGroup)
	h, err := device.Attach(srv.l, volume.Session{
		Protocol: "iscsi", Client: s.e.key.initiator + " " + s.x.c.Remote().Address,
		Nexus: "iscsi:" + s.initiatorPort() + "/" + targetPort,
		Alive: s.x.c.LastAck,
	})
	if err != nil {
		if errors.Is(err, volume.ErrGone) {
			return loginNotFound, err.Error()
		}
		return loginServiceAbsent, err.Error()
	}
	s.handle = h
	s.attached = true
	info = h.Info()
	s.member = srv.shared.reservations.Join(srv.l, info.ID, scsi.Nexus{Initiator: s.initiatorPort(), Port: srv.o.RelativePort}, s)
	s.unit = scsi.NewUnit(scsi.Config{
		Info: info, Port: scsi.Port{Name: targetPort, Relative: srv.o.RelativePort, Group: srv.o.RelativePort},
		Ports: srv.o.Ports, Member: s.member, Alloc: srv.l.Alloc,
	}, scsi.PowerOn)
	h.Events(s)
	return loginSuccess, ""
}

// begin is full feature phase.
func (s *session) begin() {
	s.x.srv.log.Info("session started", "client", s.x.c.Remote().Address, "initiator", s.e.key.initiator, "target", s.e.key.target, "tsih", s.e.tsih)
	s.armPing()
}

// VolumeEvent is volume.EventHandler's.
func (s *session) VolumeEvent(e volume.Event) {
	if s.ending {
		return
	}
	switch e {
	case volume.Draining:
		s.sendAsync(asyncLogout)
	default:
		s.unit.Update(s.handle.Info())
	}
}

// Raise is scsi.NexusEvents'.
func (s *session) Raise(a scsi.Attention) { s.unit.Raise(a) }

// AbortTasks is scsi.NexusEvents': PREEMPT AND ABORT by another nexus.
func (s *session) AbortTasks(done func()) { s.abortAll(&tmf{done: done}, false) }

// header looks at the header of a PDU whose data follows, and says where the data goes.
func (s *session) header() {
	x := s.x
	h := &x.h
	switch h.opcode() {
	case opSCSICommand:
		s.commandHeader()
	case opDataOut:
		s.dataHeader()
	case opNopOut:
		if x.length > s.p.maxSend { // the echo must fit
			break
		}
		x.hold()
	case opText:
		if x.length > loginReceive {
			x.fail("a text request longer than 8 KiB")
			return
		}
		x.hold()
	case opLogin:
		x.fail("a login request in full feature phase")
	}
}

// received handles a PDU whose data has arrived.
func (s *session) received(data []byte) {
	x := s.x
	h := &x.h
	switch h.opcode() {
	case opSCSICommand:
		if t := x.into; t != nil {
			t.filling = false
			s.commandReceived(t)
		}
	case opDataOut:
		if t := x.into; t != nil {
			t.filling = false
			s.dataReceived(t)
		}
	case opNopOut:
		s.nopOut(data)
	case opTaskManage:
		if s.inOrder(h) {
			s.taskManagement()
		}
	case opText:
		if s.inOrder(h) {
			s.textRequest(data)
		}
	case opLogout:
		if s.inOrder(h) {
			s.logoutRequest()
		}
	case opSnack:
		s.reject(rejectSnack)
	default:
		s.reject(rejectNotSupported)
	}
}

// inOrder counts the CmdSN of a PDU that is no SCSI command, and reports whether it is to be handled.
func (s *session) inOrder(h *header) bool {
	if h.immediate() {
		return true
	}
	sn := h.u32(24)
	if sn != s.expCmdSN {
		if s.inWindow(sn) {
			s.x.fail("a gap in the command sequence") // nothing can fill it: the connection is the session's only one
		}
		return false
	}
	s.expCmdSN++
	s.releaseHeld()
	return true
}

// inWindow reports whether a CmdSN may be used now (RFC 7143, section 4.2.2.1); others are ignored.
func (s *session) inWindow(sn uint32) bool {
	return !before(sn, s.expCmdSN) && !before(s.maxCmdSN(), sn)
}

func (s *session) maxCmdSN() uint32 {
	return s.expCmdSN + uint32(s.x.srv.o.QueueDepth-(s.window-s.heldBack)) - 1
}

// stamp writes StatSN, ExpCmdSN and MaxCmdSN.
func (s *session) stamp(h *header, advance bool) {
	h.putU32(24, s.x.statSN)
	if advance {
		s.x.statSN++
	}
	h.putU32(28, s.expCmdSN)
	h.putU32(32, s.maxCmdSN())
}

// nopOut answers a ping at once, whatever the volume is doing (spec/clients.md L8).
func (s *session) nopOut(data []byte) {
	h := &s.x.h
	if h.tag() == reserved { // an answer to ours
		return
	}
	if !h.immediate() && !s.inOrder(h) {
		return
	}
	var r header
	r.start(opNopIn, bitFinal, h.tag())
	copy(r[8:16], h[8:16])
	r.putU32(20, reserved)
	s.stamp(&r, true)
	s.x.send(&r, data)
}

func (s *session) armPing() {
	s.x.srv.l.Arm(&s.pingTimer, s.x.srv.l.Now().Add(s.x.srv.o.PingInterval))
}

// ping asks a silent initiator for a sign of life.
func (s *session) ping() {
	x := s.x
	if s.ending {
		return
	}
	if x.failed {
		x.fail("the answer to a logout is not taken")
		return
	}
	silent := x.srv.l.Now().Sub(x.lastRecv)
	if silent < x.srv.o.PingInterval {
		s.pinged = false
		x.srv.l.Arm(&s.pingTimer, x.lastRecv.Add(x.srv.o.PingInterval))
		return
	}
	if s.pinged {
		x.fail("no answer to NOP-In")
		return
	}
	s.pinged = true
	s.pingTag++
	if s.pingTag == reserved {
		s.pingTag = 0
	}
	var h header
	h.start(opNopIn, bitFinal, reserved)
	h.putU32(20, s.pingTag)
	s.stamp(&h, false)
	x.send(&h, nil)
	s.armPing()
}

// reject answers a PDU with a Reject that carries its header.
func (s *session) reject(reason byte) {
	var h header
	h.start(opReject, bitFinal, reserved)
	h[2] = reason
	s.stamp(&h, true)
	s.x.send(&h, s.x.h[:])
}

// Async events (RFC 7143, section 11.9.1).
const asyncLogout = 1

// sendAsync asks the initiator to log out.
func (s *session) sendAsync(event byte) {
	var h header
	h.start(opAsync, bitFinal, reserved)
	s.stamp(&h, true)
	h[36] = event
	h[42], h[43] = 0, 5 // Parameter3: seconds
	s.x.send(&h, nil)
}

// logoutRequest ends the session (RFC 7143, section 11.14).
func (s *session) logoutRequest() {
	h := &s.x.h
	response := byte(0)
	reason := h[1] & 0x7f
	if reason == 2 { // recovery needs error recovery level 2
		response = 2
	} else if reason > 2 {
		s.reject(rejectInvalidField)
		return
	}
	s.logouts.start(opLogoutReply, bitFinal, h.tag())
	s.logouts[2] = response
	if response != 0 {
		s.stamp(&s.logouts, true)
		s.x.send(&s.logouts, nil)
		return
	}
	s.logout = &s.logouts
	s.abortAll(nil, true)
	s.finishLogout()
}

// finishLogout answers a logout once no command is under way.
func (s *session) finishLogout() {
	if s.logout == nil || s.tasks != 0 || s.x.failed {
		return
	}
	s.stamp(s.logout, true)
	s.x.send(s.logout, nil)
	s.logout = nil
	s.x.srv.log.Info("session logged out", "initiator", s.e.key.initiator, "target", s.e.key.target, "tsih", s.e.tsih)
	s.x.failed = true
	s.x.c.CloseAfterSend()
}

// end closes the connection; what follows happens in connectionClosed. It is called on the session's loop.
func (s *session) end(why string) { s.x.fail(why) }

// connectionClosed ends what the session was doing.
func (s *session) connectionClosed() {
	if !s.claimed { // it still waited for another to end
		s.ended = true
		s.x.forget()
		return
	}
	s.ending = true
	s.x.srv.l.Disarm(&s.pingTimer)
	s.abortAll(nil, true)
	s.finishEnd()
}

// finishEnd lets go of everything once no command is under way.
func (s *session) finishEnd() {
	if !s.ending || s.tasks != 0 || s.detached {
		return
	}
	s.detached = true
	if !s.attached {
		s.gone()
		return
	}
	s.handle.Events(nil)
	s.handle.Detach(s.gone)
}

func (s *session) gone() {
	s.ended = true
	if s.attached {
		s.member.Leave()
	}
	s.x.srv.shared.release(s.e)
	s.x.forget()
}
