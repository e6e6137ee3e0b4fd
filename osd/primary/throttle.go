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
	ends   []loop.Instant // of copies that are followed by a pause still, oldest first: each has its place among those under way
	rested loop.Timer     // armed for the first of these

	tick  loop.Timer // armed while PGs are served
	since loop.Instant
	sum   paceSample // since then; client is what it was then
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
	t.ends = append(t.ends, now)
}

// mayRecover reports whether there is a free place for a background copy. As soon as a client's operation is seen recovery yields, whatever was decided before.
func (p *Primary) mayRecover() bool {
	t := &p.throttle
	now := p.l.Now()
	depth, pause := t.now.depth, t.now.pause
	if o := p.slow.last; o != nil && now.Sub(o.start) < p.tuning.Recovery.Interval && depth > p.tuning.Recovery.Depth {
		depth, pause = p.tuning.Recovery.Depth, t.now.yield
	}
	n := 0
	for n < len(t.ends) && now >= t.ends[n].Add(pause) {
		n++
	}
	t.ends = t.ends[:copy(t.ends, t.ends[n:])]
	if len(t.ends) == 0 {
		p.l.Disarm(&t.rested)
	} else if at := t.ends[0].Add(pause); !t.rested.Armed() || t.rested.At != at {
		p.l.Arm(&t.rested, at)
	}
	return !p.tuning.NoRecovery && p.recovering+len(t.ends) < depth
}
