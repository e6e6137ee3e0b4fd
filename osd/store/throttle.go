package store

import (
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
)

// Throttle holds back the replies to small writes where the journal is much faster than the data device: otherwise clients fill the journal at its own speed, and then stand still until the flusher has
// made room. The zero value holds nothing back.
type Throttle struct {
	On          bool
	IOPS        int           // what the data device can write in a second: writes,
	MBs         int           // and MiB
	Parallelism int           // writes that it does at once
	Threshold   time.Duration // a shorter delay is left out
}

// How far back in the journal, in 1/256 of it, the oldest change that is not flushed lies when replies begin to be held back, and when they take the whole time that the data device would need. The rest
// of the journal is for what comes until its oldest part is free: an object is flushed with all that it has in the journal, so that the first of a burst may have to wait for much of it.
const (
	throttleFrom = flushStart
	throttleFull = 144
)

// throttle is the replies that are held back, oldest first; none is due before the one ahead of it.
//
// A write is to take as long as the data device would for it and those that wait with it, times how much is used of the part of the journal beyond throttleFrom. So clients come to the
// pace at which the flusher empties the journal before it is full. What is held back is durable and visible; only its Done is late.
type throttle struct {
	Throttle
	held  opList
	n     int
	timer loop.Timer
}

// Throttle is how replies to small writes are held back at present.
func (s *Store) Throttle() Throttle { return s.throttle.Throttle }

// SetThrottle changes how replies to small writes are held back.
func (s *Store) SetThrottle(t Throttle) {
	s.throttle.Throttle = t
	s.releaseHeld(!t.On)
}

// pressure is how far the flusher has fallen behind, from 0 to 1.
func (s *Store) pressure() float64 {
	oldest := s.j.start()
	if s.fifo.head != 0 {
		oldest = s.j.batches[s.changes[s.dirty[s.fifo.head].first].batch].pos
	} else if s.fl.running == 0 {
		return 0
	}
	age := s.j.age(oldest)
	return min(1, max(0, float64(age-throttleFrom)/(throttleFull-throttleFrom)))
}

// target is how long a small write should take now.
func (t *throttle) target(n uint32, pressure float64) time.Duration {
	one := time.Second/time.Duration(max(t.IOPS, 1)) + time.Duration(n)*time.Second/time.Duration(max(t.MBs, 1)<<20)
	return time.Duration(float64(one) * max(1, float64(t.n+1)/float64(max(t.Parallelism, 1))) * pressure)
}

// reply completes a change that is durable, now or later.
func (s *Store) reply(op *Op) {
	t := &s.throttle
	if !t.On && t.held.head == nil || s.closing || s.failure != nil {
		op.impl.busy = false
		op.Done(op)
		return
	}
	now := s.l.Now()
	due := now
	if p := s.pressure(); op.impl.journaled && p > 0 {
		if at := op.impl.start.Add(t.target(op.Len, p)); at > now.Add(t.Threshold) {
			due = at
		}
	}
	if due == now && !t.holds(op.Object) {
		op.impl.busy = false
		op.Done(op)
		return
	}
	if last := t.held.tail; last != nil {
		due = max(due, last.impl.due)
	}
	op.impl.due = due
	t.held.push(op)
	t.n++
	if !t.timer.Armed() {
		s.l.Arm(&t.timer, t.held.head.impl.due)
	}
}

// holds reports whether a reply for the object is held back: those that come after it must not overtake it.
func (t *throttle) holds(oid layout.ObjectID) bool {
	for op := t.held.head; op != nil; op = op.impl.next {
		if op.Object == oid {
			return true
		}
	}
	return false
}

// releaseHeld completes what is due, or everything.
func (s *Store) releaseHeld(all bool) {
	t := &s.throttle
	now := s.l.Now()
	for t.held.head != nil && (all || t.held.head.impl.due <= now) {
		t.n--
		s.finishOp(t.held.pop(), nil)
	}
	if s.l.Disarm(&t.timer); t.held.head != nil {
		s.l.Arm(&t.timer, t.held.head.impl.due)
	}
}
