package iscsi

import (
	"strings"
)

// maxTextAnswer bounds a SendTargets answer, bytes: some 20,000 targets.
const maxTextAnswer = 4 << 20

// textRequest handles a Text Request: SendTargets and nothing else (RFC 7143, sections 11.10 and 13.3, appendix C).
func (s *session) textRequest(data []byte) {
	h := &s.x.h
	if h.targetTag() != reserved && len(s.text) == 0 { // more of a long answer
		if h.targetTag() != s.textTag || len(s.textOut) == 0 || len(data) != 0 {
			s.reject(rejectInvalidField)
			return
		}
		s.sendText(h.tag())
		return
	}
	s.textOut = nil
	if len(s.text)+len(data) > maxLoginText {
		s.x.fail("too much text")
		return
	}
	s.text = append(s.text, data...)
	if h[1]&bitContinue != 0 {
		s.sendText(h.tag())
		return
	}
	pairs, err := parseText(s.text)
	s.text = s.text[:0]
	if err != nil {
		s.x.fail(err.Error())
		return
	}
	for _, p := range pairs {
		switch p.key {
		case "SendTargets":
			if !s.sendTargets(p.value) {
				s.textOut = appendPair(s.textOut, p.key, "Reject")
			}
		case "MaxRecvDataSegmentLength":
			if !number(p.value, 512, 1<<24-1, &s.p.maxSend) {
				s.textOut = appendPair(s.textOut, p.key, "Reject")
			}
		case "InitiatorName", "InitiatorAlias":
		default:
			s.textOut = appendPair(s.textOut, p.key, "NotUnderstood")
		}
	}
	s.sendText(h.tag())
}

// sendText sends the next part of the answer, as much as the initiator takes in one PDU.
func (s *session) sendText(tag uint32) {
	n := min(len(s.textOut), s.p.maxSend, maxReceive)
	part := s.textOut[:n]
	s.textOut = s.textOut[n:]
	var h header
	if len(s.textOut) == 0 && s.x.h[1]&bitContinue == 0 {
		h.start(opTextReply, bitFinal, tag)
		h.putU32(20, reserved)
		s.textOut = nil
	} else {
		h.start(opTextReply, 0, tag)
		if len(s.textOut) != 0 {
			h[1] = bitContinue
		}
		if s.textTag++; s.textTag == reserved {
			s.textTag = 0
		}
		h.putU32(20, s.textTag)
	}
	s.stamp(&h, true)
	s.x.send(&h, part)
}

// sendTargets lists one target or, in a discovery session, all that the initiator may use.
func (s *session) sendTargets(value string) bool {
	srv := s.x.srv
	switch {
	case value == "All" && s.discovery:
		for _, image := range srv.c.Names() {
			if len(s.textOut) > maxTextAnswer {
				srv.log.Warn("more targets than a discovery answer may hold", "limit", maxTextAnswer, "initiator", s.e.key.initiator)
				break
			}
			s.appendTarget(image)
		}
	case value == "All":
		return false
	case value == "" && !s.discovery:
		s.appendTarget(s.image)
	default:
		image, ok := ImageName(srv.o.TargetPrefix, value)
		if !ok || !s.discovery && image != s.image {
			return true // an unknown target is an empty list
		}
		if _, _, ok := srv.c.Lookup(image); ok {
			s.appendTarget(image)
		}
	}
	return true
}

func (s *session) appendTarget(image string) {
	srv := s.x.srv
	name := TargetName(srv.o.TargetPrefix, image)
	if name == "" || srv.o.Allow != nil && !srv.o.Allow(image, s.e.key.initiator, s.x.c.Remote().Address) {
		return
	}
	s.textOut = appendPair(s.textOut, "TargetName", name)
	if len(srv.o.Portals) == 0 {
		s.textOut = appendPair(s.textOut, "TargetAddress", portalAddress(s.x.c.Local().Address)+","+itoa(int(srv.o.PortalGroup)))
	}
	for _, p := range srv.o.Portals {
		s.textOut = appendPair(s.textOut, "TargetAddress", portalAddress(p.Address)+","+itoa(int(p.Group)))
	}
}

// portalAddress drops the zone of an IPv6 address, which means nothing elsewhere.
func portalAddress(a string) string {
	if i := strings.IndexByte(a, '%'); i >= 0 {
		if j := strings.IndexByte(a[i:], ']'); j >= 0 {
			return a[:i] + a[i+j:]
		}
	}
	return a
}
