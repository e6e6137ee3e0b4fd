package primary

import (
	"time"

	"holdfast/core/loop"
)

// slow are the clients' operations that have no answer yet, the oldest first, and the watch over them: one that takes longer than Tuning.SlowLog is named in the log, at most one in
// that time.
type slow struct {
	first, last *op
	timer       loop.Timer   // armed while anything is under way
	said        loop.Instant // when the last one was named
}

// begin puts o, which has just come, under watch.
func (s *slow) begin(o *op) {
	o.timed = true
	o.older, o.newer = s.last, nil
	if s.last == nil {
		s.first = o
	} else {
		s.last.newer = o
	}
	s.last = o
	if !s.timer.Armed() {
		o.p.watchSlow()
	}
}

// end takes o out once its client has an answer; more than once is fine.
func (s *slow) end(o *op) {
	if !o.timed {
		return
	}
	o.timed = false
	if o.older == nil {
		s.first = o.newer
	} else {
		o.older.newer = o.newer
	}
	if o.newer == nil {
		s.last = o.older
	} else {
		o.newer.older = o.older
	}
	o.older, o.newer = nil, nil
}

// watchSlow looks at the oldest operation when it is due. The timer stays armed when that one ends before, so that fast operations cost nothing.
func (p *Primary) watchSlow() {
	s := &p.slow
	due := s.first.start.Add(p.tuning.SlowLog)
	if s.said != 0 {
		due = max(due, s.said.Add(p.tuning.SlowLog))
	}
	p.l.Arm(&s.timer, due)
}

// nameSlow logs the oldest operation if it is slow.
func (p *Primary) nameSlow() {
	s := &p.slow
	now := p.l.Now()
	if s.first == nil {
		return
	}
	if o := s.first; now.Sub(o.start) >= p.tuning.SlowLog {
		s.said = now
		args := []any{"osd", uint64(p.o.Self), "op", o.code.String(), "object", o.id.String(), "offset", o.off, "len", o.len, "session", o.trail.Session, "age", now.Sub(o.start).Round(time.Millisecond), "slow", p.SlowOps()}
		if o.q != nil {
			args = append(args, "pg", o.q.ID.String())
		}
		if o.r != nil && o.r.From != nil {
			args = append(args, "client", o.r.From.String())
		}
		p.l.Log().Warn("a client's operation is slow", args...)
	}
	p.watchSlow()
}

// SlowOps is how many operations have taken longer than slow_log_interval and have no answer yet.
func (p *Primary) SlowOps() (n int) {
	now := p.l.Now()
	for o := p.slow.first; o != nil && now.Sub(o.start) >= p.tuning.SlowLog; o = o.newer {
		n++
	}
	return n
}
