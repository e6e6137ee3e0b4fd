// Package turn holds the parts of a loop's turn that every implementation shares: the timer heap, the queue of deferred tasks and the inbox of posted ones.
//
// The implementations in core/loop and the simulator use it, so that order is the same everywhere: timers fire by moment, then in the order in which they were armed;
// tasks run in the order in which they were queued. It does no I/O and reads no clock.
package turn

import "holdfast/core/loop"

// Timers is a heap of armed timers keyed by (At, Seq). The zero value is ready.
type Timers struct {
	heap []*loop.Timer
	seq  uint64
}

// Len is the number of armed timers.
func (h *Timers) Len() int { return len(h.heap) }

// Arm puts t into the heap, or moves it there. A moment that is not after now becomes now+1: the timer then fires in the next turn, never in this one, provided that a
// loop's time grows by at least one nanosecond from turn to turn.
func (h *Timers) Arm(t *loop.Timer, at, now loop.Instant) {
	if at <= now {
		at = now + 1
	}
	h.seq++
	t.At, t.Seq = at, h.seq
	if t.Index == 0 {
		h.heap = append(h.heap, t)
		t.Index = len(h.heap)
		h.up(t.Index - 1)
		return
	}
	i := t.Index - 1
	if !h.up(i) {
		h.down(i)
	}
}

// Disarm takes t out; a timer that is not armed is left alone.
func (h *Timers) Disarm(t *loop.Timer) {
	if t.Index == 0 {
		return
	}
	i, last := t.Index-1, len(h.heap)-1
	h.swap(i, last)
	h.heap[last] = nil
	h.heap = h.heap[:last]
	t.Index = 0
	if i < last && !h.up(i) {
		h.down(i)
	}
}

// Next is the moment of the earliest timer.
func (h *Timers) Next() (at loop.Instant, ok bool) {
	if len(h.heap) == 0 {
		return 0, false
	}
	return h.heap[0].At, true
}

// Pop disarms and returns the earliest timer that is due at now, or nil. The caller then calls its Fire.
func (h *Timers) Pop(now loop.Instant) *loop.Timer {
	if len(h.heap) == 0 || h.heap[0].At > now {
		return nil
	}
	t := h.heap[0]
	h.Disarm(t)
	return t
}

// Fire fires every timer that is due at now, in order. Timers armed meanwhile wait for a later turn.
func (h *Timers) Fire(now loop.Instant) (fired int) {
	for t := h.Pop(now); t != nil; t = h.Pop(now) {
		fired++
		t.Fire()
	}
	return fired
}

func less(a, b *loop.Timer) bool {
	if a.At != b.At {
		return a.At < b.At
	}
	return a.Seq < b.Seq
}

func (h *Timers) swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.heap[i].Index, h.heap[j].Index = i+1, j+1
}

func (h *Timers) up(i int) (moved bool) {
	for i > 0 {
		parent := (i - 1) / 2
		if !less(h.heap[i], h.heap[parent]) {
			break
		}
		h.swap(i, parent)
		i, moved = parent, true
	}
	return moved
}

func (h *Timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.heap) {
			return
		}
		if child+1 < len(h.heap) && less(h.heap[child+1], h.heap[child]) {
			child++
		}
		if !less(h.heap[child], h.heap[i]) {
			return
		}
		h.swap(i, child)
		i = child
	}
}
