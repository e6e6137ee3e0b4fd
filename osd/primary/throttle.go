package primary

import (
	"time"

	"holdfast/core/loop"
	"holdfast/core/wire"
)

// throttle holds background recovery to its pace.
type throttle struct {
	pacer  pacer
	now    pace
	ended  []endedCopy // that are followed by a pause still: each has its place among those under way
	rested loop.Timer  // armed for the first end of a pause

	tick  loop.Timer // armed while PGs are served
	since loop.Instant
	sum   paceSample // since then; client is what it was then
}

// endedCopy is a background copy that has ended.
type endedCopy struct {
	at   loop.Instant
	took time.Duration
}

// clientOps are what counts as load of clients.
var clientOps = []wire.Opcode{wire.OpRead, wire.OpWrite, wire.OpDelete, wire.OpZero}

// clientTime is what clients' operations have taken since the start, one with another.
func (p *Primary) clientTime() time.Duration {
	usec := uint64(0)
	for _, op := range clientOps {
		usec += p.Stats(op).Usec
	}
	return time.Duration(usec) * time.Microsecond
}

// watchLoad begins to measure, unless that is going on or is not wanted.
func (p *Primary) watchLoad() {
	t := &p.throttle
	if every := p.tuning.Recovery.Interval; every > 0 && !t.tick.Armed() && len(p.pgs) > 0 {
		t.since, t.sum = p.l.Now(), paceSample{client: p.clientTime()}
		p.l.Arm(&t.tick, t.since.Add(every))
	}
}

// repace decides the pace for the next interval.
func (p *Primary) repace() {
	t := &p.throttle
	s := t.sum
	s.span, s.client = p.l.Now().Sub(t.since), p.clientTime()-t.sum.client
	t.now = t.pacer.step(&p.tuning.Recovery, s)
	p.watchLoad()
	p.recoverSome()
}

// rest gives the place of a background copy that has ended free, after the pause.
func (p *Primary) rest(start loop.Instant) {
	t := &p.throttle
	now := p.l.Now()
	t.sum.copies++
	t.sum.took += now.Sub(start)
	t.ended = append(t.ended, endedCopy{now, now.Sub(start)})
}

// Rest is how long whoever else works in the background rests after something that took so long: as recovery does at its present pace, which follows the load of clients.
func (p *Primary) Rest(took time.Duration) time.Duration {
	if p.tuning.Recovery.Interval == 0 {
		return 0
	}
	rest := p.throttle.now.rest
	if o, any := p.slow.Last(); any && p.l.Now().Sub(o.start) < p.tuning.Recovery.Interval {
		rest = max(rest, p.throttle.now.yield)
	}
	return p.tuning.Recovery.pause(rest, took)
}

// mayRecover reports whether there is a free place for a background copy. As soon as a client's operation is seen recovery yields, whatever was decided before.
func (p *Primary) mayRecover() bool {
	t := &p.throttle
	now := p.l.Now()
	depth, rest := t.now.depth, t.now.rest
	if o, any := p.slow.Last(); any && now.Sub(o.start) < p.tuning.Recovery.Interval && depth > p.tuning.Recovery.Depth {
		depth, rest = p.tuning.Recovery.Depth, t.now.yield
	}
	kept := t.ended[:0]
	var first loop.Instant
	for _, e := range t.ended {
		if until := e.at.Add(p.tuning.Recovery.pause(rest, e.took)); until > now {
			if kept = append(kept, e); len(kept) == 1 || until < first {
				first = until
			}
		}
	}
	t.ended = kept
	if len(kept) == 0 {
		p.l.Disarm(&t.rested)
	} else if !t.rested.Armed() || t.rested.At != first {
		p.l.Arm(&t.rested, first)
	}
	return !p.tuning.NoRecovery && p.recovering+len(t.ended) < depth
}
