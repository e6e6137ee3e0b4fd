package secondary

import (
	"time"

	"holdfast/core/loop"
)

// Watch are requests under way, the oldest first. One that takes longer than Limit is told to Say, at most one in that time.
type Watch[T any] struct {
	Limit time.Duration // slow_log_interval
	Say   func(of T, age time.Duration)

	l           loop.Loop
	first, last *Watched[T]
	timer       loop.Timer   // armed while anything is under way
	said        loop.Instant // when the last one was told
}

// Watched is one of them, embedded in what it is of.
type Watched[T any] struct {
	Start        loop.Instant
	of           T
	on           bool
	older, newer *Watched[T]
}

// Init is called once, before anything else.
func (s *Watch[T]) Init(l loop.Loop, limit time.Duration, say func(of T, age time.Duration)) {
	s.l, s.Limit, s.Say = l, limit, say
	s.timer.Fire = s.name
}

// Begin puts a request, which has just come, under watch.
func (s *Watch[T]) Begin(w *Watched[T], of T) {
	*w = Watched[T]{Start: s.l.Now(), of: of, on: true, older: s.last}
	if s.last == nil {
		s.first = w
	} else {
		s.last.newer = w
	}
	s.last = w
	if !s.timer.Armed() {
		s.arm()
	}
}

// End takes a request out; more than once is fine.
func (s *Watch[T]) End(w *Watched[T]) {
	if !w.on {
		return
	}
	w.on = false
	if w.older == nil {
		s.first = w.newer
	} else {
		w.older.newer = w.newer
	}
	if w.newer == nil {
		s.last = w.older
	} else {
		w.newer.older = w.older
	}
	w.older, w.newer = nil, nil
}

// SetLimit takes over another Limit.
func (s *Watch[T]) SetLimit(d time.Duration) {
	s.Limit = d
	s.l.Disarm(&s.timer)
	if s.first != nil {
		s.arm()
	}
}

// arm looks at the oldest request when it is due. The timer stays armed when that one ends before, so that fast requests cost nothing.
func (s *Watch[T]) arm() {
	due := s.first.Start.Add(s.Limit)
	if s.said != 0 {
		due = max(due, s.said.Add(s.Limit))
	}
	s.l.Arm(&s.timer, due)
}

// name tells of the oldest request if it is slow.
func (s *Watch[T]) name() {
	if s.first == nil {
		return
	}
	now := s.l.Now()
	if age := now.Sub(s.first.Start); age >= s.Limit {
		s.said = now
		s.Say(s.first.of, age)
	}
	s.arm()
}

// Slow is how many requests have taken longer than Limit and are under way.
func (s *Watch[T]) Slow() (n int) {
	now := s.l.Now()
	for w := s.first; w != nil && now.Sub(w.Start) >= s.Limit; w = w.newer {
		n++
	}
	return n
}

// Last is the newest, if there is one.
func (s *Watch[T]) Last() (of T, ok bool) {
	if s.last == nil {
		return of, false
	}
	return s.last.of, true
}

// All calls f for each, the oldest first; f must end none.
func (s *Watch[T]) All(f func(of T)) {
	for w := s.first; w != nil; w = w.newer {
		f(w.of)
	}
}
