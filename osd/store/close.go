package store

import "time"

// idleTime is how long nothing must have changed before the journal is emptied.
const idleTime = time.Second

// closeStage says how far a Close has come.
type closeStage uint8

const (
	closeFlush closeStage = iota // data and pages
	closeCarry                   // records are written again behind everything
	closeTail                    // the tail is recorded
	closeOver
)

// Close stops taking ops, finishes those under way, writes everything to its place so that the next Open replays nothing but records, and calls done. Nothing else may
// be called after that. The disk is not closed.
func (s *Store) Close(done func()) {
	if s.closing {
		panic("store: closed twice")
	}
	s.closing, s.onClosed = true, done
	s.l.Disarm(&s.idle)
	s.l.Disarm(&s.parking.timer)
	s.releaseHeld(true)
	s.l.Disarm(&s.discard.timer)
	s.fl.urgent = true
	s.l.Defer(&s.j.task)
	s.l.Defer(&s.finish)
}

// ioRunning reports whether the device still works for us.
func (s *Store) ioRunning() bool {
	return s.reads+s.direct+s.discards+s.j.flying+s.fl.running+s.round.io > 0 || s.lazy.flushing
}

// closeStep goes on with a Close when the work that it waits for is done.
func (s *Store) closeStep() {
	if !s.closing || s.closed || s.finished.head != nil || s.ioRunning() {
		return
	}
	if s.failure == nil && !s.o.ReadOnly {
		if s.j.queue.head != nil || len(s.j.records) > 0 || s.fifo.head != 0 || s.round.active || s.t.dirtyLen > 0 && s.stage == closeFlush || s.lazy.softLeft() {
			s.l.Defer(&s.j.task)
			return
		}
		s.j.advance()
		switch s.stage {
		case closeFlush:
			s.stage = closeCarry
			s.carry(s.j.seq)
			s.l.Defer(&s.j.task)
			s.l.Defer(&s.finish)
			return
		case closeCarry:
			if s.o.salvage && s.leaveOld() {
				return
			}
			s.stage = closeTail
			s.j.send(true)
			return
		}
	}
	s.stage, s.closed = closeOver, true
	s.t.free()
	s.j.mem = nil
	s.onClosed()
}

// leaveOld carries everything that a salvage still needs of the old journal into batches of its own, so that no later opening looks there. It reports whether something is on its way.
func (s *Store) leaveOld() bool {
	if s.j.oldest > s.sb.endBatch {
		return false
	}
	s.carryChains(s.sb.endBatch)
	s.carry(s.sb.endBatch)
	s.l.Defer(&s.j.task)
	return len(s.j.chains)+len(s.j.records) > 0
}

// armIdle starts to wait for a quiet moment.
func (s *Store) armIdle() {
	if !s.idle.Armed() && !s.closing {
		s.idleSeq = s.j.seq
		s.l.Arm(&s.idle, s.l.Now().Add(idleTime))
	}
}

// idleStep empties the journal when nothing has changed for a while: the next Open is quicker, and data is not read through long chains.
func (s *Store) idleStep() {
	switch {
	case s.failure != nil || s.closing:
	case s.j.seq != s.idleSeq:
		s.armIdle()
	case s.fifo.head != 0 || s.t.dirtyLen > 0 || len(s.lazy.changes) > 0:
		s.fl.urgent = true
		s.l.Defer(&s.j.task)
	}
}
