package iscsi

import (
	"hash/crc32"

	"holdfast/core/loop/buf"
	"holdfast/frontends/iscsi/scsi"
	"holdfast/frontends/volume"
)

// dataHeader finds where a Data-Out segment belongs (RFC 7143, section 11.7). Data for a command that has ended is skipped: the initiator may not know yet.
func (s *session) dataHeader() {
	x := s.x
	h := &x.h
	t := s.task(h.tag())
	if t == nil {
		return
	}
	ttt := h.targetTag()
	unsolicited := ttt == reserved && t.unsolicited
	solicited := ttt != reserved && t.solicited && ttt == t.ttt
	offset, n := h.u32(40), uint32(x.length)
	if !unsolicited && !solicited {
		return // of an R2T that is over
	}
	// Data PDUs and sequences are in order: that was negotiated. A gap means a lost PDU, which only a higher error recovery level could ask for again (RFC 7143, section 7.7).
	if offset != t.received || n > t.limit-t.received || h.u32(36) != t.dataSN {
		s.breakData(t)
		return
	}
	if n != 0 {
		x.dst = t.place(x.length, int(t.limit-t.received), x.srv.l.Alloc)
		if x.dst == nil {
			x.fail("Data-Out beyond its sequence")
			return
		}
		t.filling = true
	}
	t.received += n
	t.dataSN++
	x.into = t
}

// dataReceived goes on with the command when a sequence is complete.
func (s *session) dataReceived(t *task) {
	if s.x.h[1]&bitFinal != 0 {
		if t.solicited && t.received < t.limit && !t.aborted {
			s.breakData(t)
			return
		}
		t.unsolicited, t.solicited = false, false
	}
	switch {
	case t.aborted:
		s.finish(t) // whether or not the sequence is complete: what is still to come is skipped
	case t.begun:
		s.advance(t)
	}
}

// breakData ends a command whose data did not arrive in order. What is still to come of it is skipped.
func (s *session) breakData(t *task) {
	if !t.begun || t.aborted {
		s.x.fail("Data-Out out of order or beyond its sequence")
		return
	}
	if t.queued {
		s.writeQ.remove(t)
	}
	t.unsolicited, t.solicited = false, false
	t.FailData()
	s.respond(t)
}

// solicit asks for the next part of the data, or waits for the budget. The whole command is admitted at once, so that what was admitted can always complete.
func (s *session) solicit(t *task) {
	if !t.admitted {
		if s.writeQ.first != nil || !s.mayWrite(t) {
			t.queued = true
			s.writeQ.push(t)
			return
		}
		s.admitWrite(t)
	}
	s.sendR2T(t)
}

func (s *session) mayWrite(t *task) bool {
	return s.soliciting == 0 || s.soliciting+int(t.need()-t.received) <= writeBudget
}

func (s *session) admitWrite(t *task) {
	t.admitted, t.queued = true, false
	t.writeBytes = int(t.need() - t.received)
	s.soliciting += t.writeBytes
}

func (s *session) pumpWrites() {
	for s.writeQ.first != nil && s.mayWrite(s.writeQ.first) {
		t := s.writeQ.pop()
		s.admitWrite(t)
		s.sendR2T(t)
	}
}

// sendR2T asks for one burst (RFC 7143, section 11.8); MaxOutstandingR2T is 1.
func (s *session) sendR2T(t *task) {
	n := min(t.need()-t.received, uint32(s.p.maxBurst))
	s.nextTTT++
	if s.nextTTT == reserved {
		s.nextTTT = 1
	}
	t.ttt, t.solicited, t.dataSN = s.nextTTT, true, 0
	t.limit = t.received + n
	if last := len(t.Data) - 1; last >= 0 {
		t.region = t.Data[last].Len // an unsolicited sequence may have been shorter than its buffer
	}
	h := &s.x.h2
	h.start(opR2T, bitFinal, t.itt)
	putLUN(h, t.lun)
	h.putU32(20, t.ttt)
	s.stamp(h, false)
	h.putU32(36, t.r2tSN)
	t.r2tSN++
	h.putU32(40, t.received)
	h.putU32(44, n)
	s.x.send(h, nil)
}

func putLUN(h *header, lun uint64) {
	h.putU32(8, uint32(lun>>32))
	h.putU32(12, uint32(lun))
}

// residual is the overflow or underflow of a command (RFC 7143, section 11.4.5): moved is what the command itself would move.
func residual(flags byte, expected uint32, moved uint64) (byte, uint32) {
	switch {
	case moved > uint64(expected):
		return flags | bitOverflow, uint32(min(moved-uint64(expected), 0xffffffff))
	case moved < uint64(expected):
		return flags | bitUnderflow, expected - uint32(moved)
	}
	return flags, 0
}

// residual is the overflow or underflow of a task in the direction that it moved data.
func (t *task) residual(flags byte) (byte, uint32) {
	switch {
	case t.DataOut != 0:
		expected := t.edtl
		if !t.writes {
			expected = 0
		}
		return residual(flags, expected, t.DataOut)
	case t.reads:
		return residual(flags, t.edtl, t.DataIn)
	case t.DataIn != 0:
		return residual(flags, 0, t.DataIn)
	}
	return residual(flags, t.edtl, 0)
}

// respond sends what a command brought, and its status.
func (s *session) respond(t *task) {
	if t.Drop {
		s.x.fail("the volume refuses this session")
	}
	if s.x.failed {
		if t.Streams {
			t.Op.ReleasePieces()
		}
		s.finish(t)
		return
	}
	n := uint64(0)
	if t.reads {
		n = min(t.DataIn, uint64(t.edtl))
	}
	// The window must have moved on in what this PDU says, so count the command as ended first.
	collapse := t.Status == scsi.Good && n != 0
	if !t.immediate {
		s.window--
	}
	switch {
	case n == 0:
	case t.Streams:
		s.sendPieces(t, int(n), collapse)
	default:
		s.sendBytes(t, t.In[:n], collapse)
	}
	if t.Streams {
		t.Op.ReleasePieces()
	}
	if !collapse {
		s.sendStatus(t, t.Status)
	}
	if !t.immediate {
		s.window++
	}
	s.finish(t)
}

// dataIn prepares the next Data-In PDU of n bytes at off, of total; the last one carries the status when it may (RFC 7143, section 11.7.3).
func (s *session) dataIn(h *header, t *task, off, n, total int, collapse bool) {
	last := off+n == total
	flags := byte(0)
	if last || (off+n)%s.p.maxBurst == 0 {
		flags = bitFinal
	}
	status := last && collapse
	rest := uint32(0)
	if status {
		flags, rest = t.residual(flags | bitStatus)
	}
	h.start(opDataIn, flags, t.itt)
	putLUN(h, t.lun)
	h.putU32(20, reserved)
	s.stamp(h, status)
	if !status {
		h.putU32(24, 0)
	}
	h.putU32(36, t.dataSN)
	t.dataSN++
	h.putU32(40, uint32(off))
	h.putU32(44, rest)
	h.setDataLength(n)
}

// segment is how long the next Data-In may be.
func (s *session) segment(off, total int) int {
	return min(total-off, s.p.maxSend, maxReceive, s.p.maxBurst-off%s.p.maxBurst)
}

// sendBytes sends parameter data, which is copied.
func (s *session) sendBytes(t *task, b []byte, collapse bool) {
	h := &s.x.h2
	for off := 0; off < len(b); {
		n := s.segment(off, len(b))
		s.dataIn(h, t, off, n, len(b), collapse)
		s.x.send(h, b[off:off+n])
		off += n
	}
}

// sendPieces sends what a Read brought, without copying. Holes are sent from the server's zeroes.
func (s *session) sendPieces(t *task, total int, collapse bool) {
	x := s.x
	pieces := t.Op.Pieces
	i, at := 0, 0 // the next byte
	for off := 0; off < total; {
		n := s.segment(off, total)
		s.dataIn(&x.h2, t, off, n, total, collapse)
		x.sendHeader(&x.h2)
		sum := uint32(0)
		for left := n; left > 0; {
			k := min(left, pieces[i].Len-at)
			sum = x.sendPiece(&pieces[i], at, k, sum)
			left -= k
			if at += k; at == pieces[i].Len {
				i, at = i+1, 0
			}
		}
		x.sendTrailer(n, sum)
		off += n
	}
}

// sendPiece queues n bytes of a piece and returns the checksum with them added.
func (x *conn) sendPiece(p *volume.Piece, at, n int, sum uint32) uint32 {
	if p.Ref != nil {
		return x.sendRef(p.Ref, p.Off+at, n, sum)
	}
	for n > 0 {
		k := min(n, zeroSize)
		sum = x.sendRef(x.srv.zeroes(), 0, k, sum)
		n -= k
	}
	return sum
}

func (x *conn) sendRef(r *buf.Ref, off, n int, sum uint32) uint32 {
	if n == 0 {
		return sum
	}
	x.c.SendRef(r, off, n)
	if x.dataD {
		sum = crc32.Update(sum, castagnoli, r.Bytes()[off:off+n])
	}
	return sum
}

// sendStatus sends a SCSI Response (RFC 7143, section 11.4), with sense data for CHECK CONDITION.
func (s *session) sendStatus(t *task, status scsi.Status) {
	x := s.x
	if x.failed {
		return
	}
	h := &x.h2
	flags, rest := t.residual(bitFinal)
	h.start(opSCSIResponse, flags, t.itt)
	h[3] = byte(status)
	s.stamp(h, true)
	h.putU32(36, t.dataSN) // ExpDataSN: how many Data-In PDUs were sent
	if t.DataOut != 0 {
		h.putU32(36, t.r2tSN) // and R2Ts
	}
	h.putU32(44, rest)
	x.sense = append(x.sense[:0], 0, 0)
	if status == scsi.CheckCondition {
		x.sense = s.unit.AppendSense(x.sense, &t.Task)
		x.sense[1] = byte(len(x.sense) - 2)
		x.send(h, x.sense)
		return
	}
	x.send(h, nil)
}
