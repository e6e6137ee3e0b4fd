package iscsi

import (
	"holdfast/core/loop"
	"holdfast/frontends/iscsi/scsi"
)

// commandHeader takes a SCSI command whose immediate data, if any, follows (RFC 7143, section 11.3).
func (s *session) commandHeader() {
	x := s.x
	h := &x.h
	x.into = nil
	if s.discovery {
		x.fail("a SCSI command in a discovery session")
		return
	}
	sn := h.u32(24)
	if !h.immediate() && (!s.inWindow(sn) || sn != s.expCmdSN && s.heldSN(sn)) {
		return // ignored: its data is skipped
	}
	if h.immediate() && s.urgent == maxImmediate {
		s.reject(rejectTooMany)
		return
	}
	if s.logout != nil {
		return
	}
	if h.tag() == reserved || s.task(h.tag()) != nil {
		x.fail("an initiator task tag that is in use")
		return
	}
	edtl := h.u32(20)
	writes := h[1]&bitWrite != 0
	if x.length != 0 && (!s.p.immediateData || !writes || x.length > s.p.firstBurst || uint32(x.length) > edtl) {
		x.fail("immediate data that was not agreed on")
		return
	}
	if writes && h[1]&bitFinal == 0 && s.p.initialR2T {
		x.fail("unsolicited data that was not agreed on")
		return
	}
	t := x.srv.newTask()
	t.s = s
	copy(t.CDB[:], h[32:48])
	t.itt, t.cmdSN, t.lun, t.edtl = h.tag(), sn, h.lun(), edtl
	t.attr = h[1] & 7
	t.reads, t.writes = h[1]&bitRead != 0, writes
	t.immediate = h.immediate()
	t.ttt = reserved
	t.unsolicited = writes && h[1]&bitFinal == 0
	t.limit = min(edtl, uint32(s.p.firstBurst))
	s.insert(t)
	x.into = t
	if x.length != 0 {
		room := x.length
		if t.unsolicited {
			room = int(t.limit)
		}
		x.dst = t.place(x.length, room, x.srv.l.Alloc)
		t.filling = true
		t.received = uint32(x.length)
	}
}

// heldSN reports whether a command of that CmdSN waits already.
func (s *session) heldSN(sn uint32) bool {
	for t := s.all; t != nil; t = t.succ {
		if t.held && t.cmdSN == sn {
			return true
		}
	}
	return false
}

// commandReceived starts the command, or keeps it until its turn by CmdSN.
func (s *session) commandReceived(t *task) {
	if t.aborted {
		s.finish(t)
		return
	}
	switch {
	case t.immediate:
		s.dispatch(t)
	case t.cmdSN == s.expCmdSN:
		s.expCmdSN++
		s.dispatch(t)
		s.releaseHeld()
	default:
		t.held = true
		s.heldBack++
	}
}

// releaseHeld starts the commands whose turn has come.
func (s *session) releaseHeld() {
	for s.heldBack != 0 {
		var found *task
		for t := s.all; t != nil; t = t.succ {
			if t.held && t.cmdSN == s.expCmdSN {
				found = t
				break
			}
		}
		if found == nil {
			return
		}
		found.held = false
		s.heldBack--
		s.expCmdSN++
		s.dispatch(found)
	}
}

// dispatch starts a command in its turn, unless its attribute or an ORDERED command before it makes it wait (SAM-5, task attributes).
func (s *session) dispatch(t *task) {
	if t.attr != attrHeadOfQueue && (s.parkedQ.first != nil || s.ordered != 0 || t.attr == attrOrdered && s.active != 0) {
		t.parked = true
		s.parkedQ.push(t)
		return
	}
	s.start(t)
}

// unpark starts waiting commands after one has ended.
func (s *session) unpark() {
	for {
		t := s.parkedQ.first
		if t == nil || s.ordered != 0 || t.attr == attrOrdered && s.active != 0 {
			return
		}
		s.parkedQ.pop()
		t.parked = false
		s.start(t)
	}
}

func (s *session) start(t *task) {
	t.counted = true
	s.active++
	if t.attr == attrOrdered {
		s.ordered++
	}
	t.begun = true
	s.unit.Begin(&t.Task, t.lun)
	offered := uint64(0)
	if t.writes {
		offered = uint64(t.edtl)
	}
	t.Offer(offered)
	s.advance(t)
}

// need is how many bytes of data the command takes in all; at most its Expected Data Transfer Length.
func (t *task) need() uint32 { return uint32(t.Take) }

// advance moves a command on: to wait for unsolicited data, to ask for more, or to run.
func (s *session) advance(t *task) {
	switch {
	case t.unsolicited || t.solicited:
	case t.aborted:
		s.finish(t)
	case t.received < t.need():
		s.solicit(t)
	case t.Streams && !t.admitted:
		s.admitRead(t)
	default:
		s.run(t)
	}
}

// run executes steps until the command waits or has ended.
func (s *session) run(t *task) {
	if t.writes {
		t.trim(int(t.need()))
	}
	s.step(t)
}

func (s *session) step(t *task) {
	switch s.unit.Next(&t.Task) {
	case scsi.Submit:
		t.running = true
		s.handle.Submit(&t.Op)
	case scsi.ChangeMember:
		t.running, t.changing = true, true
		s.member.Change(&t.Change)
	default:
		s.respond(t)
	}
}

// completed is called when the Op or the Change of a command is done.
func (s *session) completed(t *task) {
	t.running, t.changing = false, false
	if t.aborted {
		if t.Streams {
			t.Op.ReleasePieces()
		}
		s.finish(t)
		return
	}
	s.step(t)
}

// admitRead starts a read unless too much is being read or sent already; pumpReads starts it later. Something is always under way then: another read, or output above the high-water mark
// whose end Drained tells.
func (s *session) admitRead(t *task) {
	if s.readQ.first != nil || !s.mayRead(t) {
		t.queued = true
		s.readQ.push(t)
		return
	}
	s.admittedRead(t)
}

func (s *session) mayRead(t *task) bool {
	return s.x.c.Queued() <= loop.HighWater && (s.reading == 0 || s.reading+int(t.DataIn) <= readBudget)
}

func (s *session) admittedRead(t *task) {
	t.admitted, t.queued = true, false
	t.readBytes = int(t.DataIn)
	s.reading += t.readBytes
	s.run(t)
}

func (s *session) pumpReads() {
	for s.readQ.first != nil && s.mayRead(s.readQ.first) {
		s.admittedRead(s.readQ.pop())
	}
}

// finish ends a command that has nothing under way: it is forgotten and its place in the window freed.
func (s *session) finish(t *task) {
	if t.running || t.filling {
		return
	}
	if t.aborted {
		if t.begun {
			t.Task.Abort()
		}
		if !t.silent {
			s.sendStatus(t, scsi.TaskAborted)
		}
	}
	t.releaseData()
	s.remove(t)
	if t.counted {
		s.active--
		if t.attr == attrOrdered {
			s.ordered--
		}
	}
	s.reading -= t.readBytes
	s.soliciting -= t.writeBytes
	want, more := t.want, t.more
	t.clear()
	s.x.srv.putTask(t)
	if want != nil {
		s.arrived(want)
	}
	for _, m := range more {
		s.arrived(m)
	}
	s.after()
}

// after lets others go on when a command has ended.
func (s *session) after() {
	if s.aborting {
		return
	}
	if s.ending {
		s.finishEnd()
		return
	}
	s.unpark()
	s.pumpReads()
	s.pumpWrites()
	s.finishLogout()
}

// insert adds a task to the session.
func (s *session) insert(t *task) {
	b := &s.table[t.itt%tableSize]
	t.hash = *b
	*b = t
	t.succ = s.all
	if s.all != nil {
		s.all.prev = t
	}
	s.all = t
	s.tasks++
	if t.immediate {
		s.urgent++
	} else {
		s.window++
	}
}

func (s *session) remove(t *task) {
	for p := &s.table[t.itt%tableSize]; *p != nil; p = &(*p).hash {
		if *p == t {
			*p = t.hash
			break
		}
	}
	if t.prev != nil {
		t.prev.succ = t.succ
	} else {
		s.all = t.succ
	}
	if t.succ != nil {
		t.succ.prev = t.prev
	}
	s.tasks--
	if t.immediate {
		s.urgent--
	} else {
		s.window--
	}
}

// task finds a command by its initiator task tag.
func (s *session) task(itt uint32) *task {
	t := s.table[itt%tableSize]
	for t != nil && t.itt != itt {
		t = t.hash
	}
	return t
}
