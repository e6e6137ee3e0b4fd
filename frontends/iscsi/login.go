package iscsi

import (
	"encoding/binary"
	"fmt"

	"holdfast/core/loop"
)

// Login statuses: class and detail (RFC 7143, section 11.13.5).
const (
	loginSuccess        = 0x0000
	loginInitiatorError = 0x0200
	loginAuthentication = 0x0201
	loginForbidden      = 0x0202
	loginNotFound       = 0x0203
	loginVersion        = 0x0205
	loginTooMany        = 0x0206
	loginMissing        = 0x0207
	loginSessionType    = 0x0209
	loginNoSession      = 0x020a
	loginTargetError    = 0x0300
	loginServiceAbsent  = 0x0301
	loginOutOfResources = 0x0302
	stageSecurity       = 0
	stageOperational    = 1
	stageFullFeature    = 3
	bitTransit          = 0x80
	maxLoginText        = 16 << 10 // of one request sequence (C bit)
	maxLoginRequests    = 64       // of one login
	statSNStart         = 1
)

// login is the login phase of one connection. It decides; conn and session do.
type login struct {
	x     *conn
	timer loop.Timer
	retry loop.Task

	started   bool
	isid      [6]byte
	tsih      uint16
	cid       uint16
	tag       uint32
	cmdSN     uint32
	stage     byte
	requests  int
	initiator string
	target    string
	image     string
	discovery bool
	text      []byte // of the requests so far with the C bit
	p         params
	declared  bool // our MaxRecvDataSegmentLength was sent
	auth      chap
	authOn    bool // CHAP is asked for
	authStep  uint8
	reply     []byte
	final     header // the last response, while the session is being made
}

func newLogin(x *conn) *login {
	g := &login{x: x, p: defaultParams()}
	g.timer.Fire = func() { g.x.fail("the login took too long") }
	g.retry.Run = g.establish
	x.srv.l.Arm(&g.timer, x.srv.l.Now().Add(x.srv.o.LoginTimeout))
	return g
}

// end frees the timer.
func (g *login) end() { g.x.srv.l.Disarm(&g.timer) }

// header looks at the header of a PDU whose data follows.
func (g *login) header() {
	if g.x.h.opcode() != opLogin {
		g.x.fail(fmt.Sprintf("opcode %02xh before the login", g.x.h.opcode()))
		return
	}
	g.x.hold()
}

// received handles one Login Request.
func (g *login) received(data []byte) {
	h := &g.x.h
	if g.requests++; g.requests > maxLoginRequests {
		g.refuse(loginInitiatorError, "too many login requests")
		return
	}
	if !g.started {
		g.tag, g.cmdSN = h.tag(), h.u32(24)
		copy(g.isid[:], h[8:14])
		g.tsih = binary.BigEndian.Uint16(h[14:])
		g.cid = binary.BigEndian.Uint16(h[20:])
		g.x.statSN = statSNStart
		g.stage = h[1] >> 2 & 3
	} else if g.tag != h.tag() || string(g.isid[:]) != string(h[8:14]) {
		g.refuse(loginInitiatorError, "the login's tag or ISID changed")
		return
	}
	if h[3] != 0 { // Version-min; there is only version 0
		g.refuse(loginVersion, "an unknown protocol version")
		return
	}
	if len(g.text)+len(data) > maxLoginText {
		g.refuse(loginInitiatorError, "too much login text")
		return
	}
	g.text = append(g.text, data...)
	if h[1]&bitContinue != 0 {
		if h[1]&bitTransit != 0 {
			g.refuse(loginInitiatorError, "T and C in one login request")
			return
		}
		g.respond(h[1]>>2&3, h[1]>>2&3, false)
		return
	}
	pairs, err := parseText(g.text)
	g.text = g.text[:0]
	if err != nil {
		g.refuse(loginInitiatorError, err.Error())
		return
	}
	g.reply = g.reply[:0]
	if !g.started {
		g.started = true
		if !g.begin(pairs) {
			return
		}
	}
	g.negotiate(h[1]&bitTransit != 0, h[1]>>2&3, h[1]&3, pairs)
}

// begin handles what only the first request carries.
func (g *login) begin(pairs []pair) bool {
	g.initiator, _ = find(pairs, "InitiatorName")
	if g.initiator == "" {
		g.refuse(loginMissing, "no InitiatorName")
		return false
	}
	if !validInitiator(g.initiator) {
		initiator := g.initiator
		g.initiator = ""
		g.refuse(loginInitiatorError, fmt.Sprintf("%.40q is no initiator name", initiator))
		return false
	}
	kind, ok := find(pairs, "SessionType")
	switch {
	case kind == "Discovery":
		g.discovery = true
	case ok && kind != "Normal":
		g.refuse(loginSessionType, "an unknown SessionType")
		return false
	}
	if g.tsih != 0 {
		if !g.x.srv.shared.knows(g.tsih, g.initiator) {
			g.refuse(loginNoSession, "an unknown TSIH")
		} else {
			g.refuse(loginTooMany, "a second connection of a session")
		}
		return false
	}
	if !g.discovery && !g.findTarget(pairs) {
		return false
	}
	o := &g.x.srv.o
	if o.Allow != nil && !o.Allow(g.image, g.initiator, g.x.c.Remote().Address) {
		g.refuse(loginForbidden, "not allowed by the address and name rules")
		return false
	}
	if o.CHAP != nil {
		g.auth.cred, g.authOn = o.CHAP(g.image)
	}
	return true
}

func (g *login) findTarget(pairs []pair) bool {
	g.target, _ = find(pairs, "TargetName")
	if g.target == "" {
		g.refuse(loginMissing, "no TargetName")
		return false
	}
	image, ok := ImageName(g.x.srv.o.TargetPrefix, g.target)
	if ok {
		_, _, ok = g.x.srv.c.Lookup(image)
	}
	if !ok {
		g.refuse(loginNotFound, fmt.Sprintf("no target %.223q", g.target))
		return false
	}
	g.image = image
	g.target = TargetName(g.x.srv.o.TargetPrefix, image)
	g.reply = appendPair(g.reply, "TargetPortalGroupTag", itoa(int(g.x.srv.o.PortalGroup)))
	return true
}

// negotiate handles the text of one request in stage csg, and moves to nsg when both sides are ready.
func (g *login) negotiate(transit bool, csg, nsg byte, pairs []pair) {
	if csg < g.stage || csg == 2 || csg == stageFullFeature {
		g.refuse(loginInitiatorError, "a login stage out of order")
		return
	}
	g.stage = csg
	ready := true
	if csg == stageSecurity {
		if ready = g.security(pairs); g.x.failed {
			return
		}
	} else if g.authOn && !g.auth.done {
		g.refuse(loginAuthentication, "CHAP is required and was not done")
		return
	}
	if !g.operational(csg, pairs) {
		return
	}
	if !transit || !ready {
		g.respond(csg, csg, false)
		return
	}
	if nsg <= csg || nsg == 2 {
		g.refuse(loginInitiatorError, "a login stage out of order")
		return
	}
	if g.authOn && !g.auth.done {
		g.refuse(loginAuthentication, "CHAP is required and was not done")
		return
	}
	if nsg != stageFullFeature {
		g.stage = nsg
		g.respond(csg, nsg, true)
		return
	}
	g.p.settle()
	g.final.start(opLoginReply, bitTransit|csg<<2|nsg, g.tag)
	g.establish()
}

// security handles AuthMethod and CHAP; it reports whether the stage may end.
func (g *login) security(pairs []pair) bool {
	if methods, ok := find(pairs, "AuthMethod"); ok {
		switch {
		case !g.authOn && listed(methods, "None"):
			g.reply = appendPair(g.reply, "AuthMethod", "None")
		case g.authOn && listed(methods, "CHAP"):
			g.reply = appendPair(g.reply, "AuthMethod", "CHAP")
			g.authStep = 1
		default:
			g.refuse(loginAuthentication, fmt.Sprintf("no common authentication method in %.64q", methods))
			return false
		}
	}
	if !g.authOn {
		return true
	}
	ok := true
	algorithms, offered := find(pairs, "CHAP_A")
	_, proves := find(pairs, "CHAP_R")
	switch {
	case g.authStep == 1 && offered:
		challenge := make([]byte, chapChallenge)
		secure(challenge)
		if g.reply, ok = g.auth.offer(algorithms, challenge[0]^challenge[1], challenge, g.reply); ok {
			g.authStep = 2
		}
	case g.authStep == 2 && proves:
		g.reply, ok = g.auth.verify(pairs, g.reply)
		g.authStep = 3
	}
	if !ok {
		g.refuse(loginAuthentication, "CHAP failed: wrong user or secret, or no common algorithm")
		return false
	}
	return g.auth.done
}

// operational answers operational keys, which may come in either stage; it has refused when it reports false.
func (g *login) operational(csg byte, pairs []pair) bool {
	for _, p := range pairs {
		switch p.key {
		case "AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C":
			if csg != stageSecurity {
				g.refuse(loginInitiatorError, p.key+" outside the security stage")
				return false
			}
			continue
		}
		answer, ok := g.p.negotiate(p.key, p.value, g.discovery)
		if !ok {
			g.refuse(loginInitiatorError, fmt.Sprintf("%s=%.64q is not acceptable", p.key, p.value))
			return false
		}
		if answer != "" {
			g.reply = appendPair(g.reply, p.key, answer)
		}
	}
	if csg == stageOperational && !g.declared {
		g.declared = true
		g.reply = appendPair(g.reply, "MaxRecvDataSegmentLength", itoa(maxReceive))
	}
	return true
}

func listed(list, value string) bool {
	for len(list) > 0 {
		i := 0
		for i < len(list) && list[i] != ',' {
			i++
		}
		if list[:i] == value {
			return true
		}
		list = list[min(i+1, len(list)):]
	}
	return false
}

// respond sends a Login Response with the reply text.
func (g *login) respond(csg, nsg byte, transit bool) {
	var h header
	flags := csg << 2
	if transit {
		flags |= bitTransit | nsg
	}
	h.start(opLoginReply, flags, g.tag)
	g.sendResponse(&h, loginSuccess)
	g.reply = g.reply[:0]
}

func (g *login) sendResponse(h *header, status uint16) {
	copy(h[8:14], g.isid[:])
	h.putU32(24, g.x.statSN)
	g.x.statSN++
	h.putU32(28, g.cmdSN)
	h.putU32(32, g.cmdSN+uint32(g.x.srv.o.QueueDepth)-1)
	h[36], h[37] = byte(status>>8), byte(status)
	g.x.send(h, g.reply)
}

// refuse ends the login with a status and a line in the log, since initiators seldom say why (spec/clients.md I19).
func (g *login) refuse(status uint16, why string) {
	g.x.srv.log.Warn("login refused", "client", g.x.c.Remote().Address, "initiator", g.initiator, "target", g.target, "status", fmt.Sprintf("%04xh", status), "err", why)
	var h header
	h.start(opLoginReply, g.stage<<2, g.tag)
	g.reply = g.reply[:0]
	if g.x.statSN == 0 {
		g.x.statSN = statSNStart
	}
	g.sendResponse(&h, status)
	g.x.failed = true
	g.x.c.CloseAfterSend()
}

// establish makes the session, after an earlier one of the same nexus has ended (RFC 7143, section 6.3.5), and answers the login.
func (g *login) establish() {
	x := g.x
	if x.failed {
		return
	}
	if x.s == nil {
		x.s = newSession(x, g)
	}
	claimed, full := x.srv.shared.claim(x.s.e, &g.retry)
	switch {
	case full:
		x.s = nil
		g.refuse(loginOutOfResources, "all session handles are in use")
		return
	case !claimed:
		if !x.waiting {
			x.wait()
		}
		return
	}
	x.s.claimed = true
	if status, why := x.s.attach(g); status != loginSuccess {
		x.srv.shared.release(x.s.e)
		x.s = nil
		g.refuse(status, why)
		return
	}
	g.end()
	binary.BigEndian.PutUint16(g.final[14:], x.s.e.tsih)
	g.sendResponse(&g.final, loginSuccess)
	x.headerD, x.dataD = g.p.headerDigest, g.p.dataDigest
	x.login = nil
	x.s.begin()
	if x.waiting {
		x.resume()
	}
}
