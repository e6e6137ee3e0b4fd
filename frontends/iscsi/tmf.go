package iscsi

import (
	"holdfast/core/loop"
	"holdfast/frontends/iscsi/scsi"
)

// Task management functions and responses (RFC 7143, sections 11.5.1 and 11.6.1).
const (
	tmfAbortTask    = 1
	tmfAbortTaskSet = 2
	tmfClearACA     = 3
	tmfClearTaskSet = 4
	tmfUnitReset    = 5
	tmfWarmReset    = 6
	tmfColdReset    = 7
	tmfReassign     = 8

	tmfComplete     = 0
	tmfNoTask       = 1
	tmfNoLUN        = 2
	tmfNoReassign   = 4
	tmfNotSupported = 5
)

// tmf is a task management function, or something else that waits for commands to end. It answers only when each of them is done or can no longer start.
type tmf struct {
	s       *session // who answers the initiator; nil: done is called
	itt     uint32
	waiting int
	done    func()
}

// arrived counts one end; the last makes the answer.
func (s *session) arrived(m *tmf) {
	if m.waiting--; m.waiting != 0 {
		return
	}
	if m.done != nil {
		s.x.srv.l.Post(&loop.Task{Run: m.done})
		return
	}
	m.s.answerTMF(m.itt, tmfComplete)
}

func (s *session) answerTMF(itt uint32, response byte) {
	if s.x.failed {
		return
	}
	var h header
	h.start(opTaskResponse, bitFinal, itt)
	h[2] = response
	s.stamp(&h, true)
	s.x.send(&h, nil)
}

// taskManagement handles a Task Management Function Request (RFC 7143, section 11.5).
func (s *session) taskManagement() {
	h := &s.x.h
	if s.discovery {
		s.reject(rejectProtocol)
		return
	}
	function := h[1] & 0x7f
	if function <= tmfUnitReset && function != tmfClearACA && h.lun() != 0 {
		s.answerTMF(h.tag(), tmfNoLUN)
		return
	}
	m := &tmf{s: s, itt: h.tag()}
	switch function {
	case tmfAbortTask:
		s.abortTask(m, h.u32(20), h.u32(32))
	case tmfAbortTaskSet, tmfClearTaskSet: // the task set is this nexus's (TST 001b)
		s.abortAll(m, true)
	case tmfUnitReset, tmfWarmReset:
		s.resetUnit(m)
	case tmfReassign:
		s.answerTMF(h.tag(), tmfNoReassign)
	default:
		s.answerTMF(h.tag(), tmfNotSupported)
	}
}

// abortTask ends one command. A command that has not arrived yet but may is none of ours: on the session's only connection everything sent before has arrived.
func (s *session) abortTask(m *tmf, itt, sn uint32) {
	t := s.task(itt)
	if t == nil {
		response := byte(tmfNoTask)
		if s.inWindow(sn) { // treated as received and aborted (RFC 7143, section 11.6.1)
			response = tmfComplete
		}
		s.answerTMF(m.itt, response)
		return
	}
	m.waiting = 2
	s.abort(t, m, true)
	s.arrived(m)
}

// abortAll ends every command of the session. m, unless nil, is told when all have ended.
func (s *session) abortAll(m *tmf, silent bool) {
	if m != nil {
		m.waiting += s.tasks + 1
	}
	s.aborting = true // nothing starts meanwhile, so abort(t) frees t and no other
	for t := s.all; t != nil; {
		succ := t.succ
		s.abort(t, m, silent)
		t = succ
	}
	s.aborting = false
	if m != nil {
		s.arrived(m)
	}
	s.after()
}

// abort makes t end as soon as it can no longer take effect.
func (s *session) abort(t *task, m *tmf, silent bool) {
	if m != nil {
		if t.want == nil {
			t.want = m
		} else {
			t.more = append(t.more, m)
		}
	}
	if t.aborted {
		t.silent = t.silent || silent
		return
	}
	t.aborted, t.silent = true, silent
	switch {
	case t.changing, t.filling: // it ends by itself soon
		return
	case t.running:
		s.handle.Cancel(&t.Op)
		return
	case t.queued:
		s.readQ.remove(t)
		s.writeQ.remove(t)
	case t.parked:
		s.parkedQ.remove(t)
	case t.held:
		s.heldBack--
		t.held = false
	}
	s.finish(t)
}

// resetUnit is LOGICAL UNIT RESET and TARGET WARM RESET, which are the same with one unit per target: it ends the commands of every session that this gateway has with the unit, and an
// SPC-2 reservation.
func (s *session) resetUnit(m *tmf) {
	s.unit.Reset()
	s.unit.Raise(scsi.DeviceReset)
	s.member.ResetUnit()
	others := s.x.srv.shared.others(s.e)
	m.waiting = len(others)
	for _, o := range others {
		back := &loop.Task{Run: func() { s.arrived(m) }}
		l := s.x.srv.l
		o.l.Post(&loop.Task{Run: func() { o.s.resetByOther(func() { l.Post(back) }) }})
	}
	s.abortAll(m, true)
}

// resetByOther is a reset that another session asked for.
func (s *session) resetByOther(done func()) {
	if s.ended || !s.attached {
		done()
		return
	}
	s.unit.Reset()
	s.unit.Raise(scsi.DeviceReset)
	s.abortAll(&tmf{done: done}, false)
}
