package primary

import (
	"time"
)

// Tuning is what may change while a primary runs.
type Tuning struct {
	Recovery    Pacing
	PGSwitch    int           // recovery_pg_switch: objects of one PG that are recovered before another has its turn
	NoRecovery  bool          // no_recovery: nothing in the background; what a client waits for is made whole all the same
	NoRebalance bool          // no_rebalance: the same for objects that are only misplaced
	SlowLog     time.Duration // slow_log_interval
	Scrub       Scrubbing
}

// Scrubbing says how it is decided which copies of an object are right.
type Scrubbing struct {
	FindBest        bool // scrub_find_best: the greater part of them is; otherwise somebody has to say so
	MaxCombinations int  // scrub_ec_max_bruteforce: sets of chunks that are tried, beyond what the code finds by itself
}

// DefaultTuning is what the parameters say where nobody has set them.
func DefaultTuning() Tuning {
	return Tuning{Recovery: DefaultPacing(), PGSwitch: 128, SlowLog: 10 * time.Second, Scrub: Scrubbing{FindBest: true, MaxCombinations: 100}}
}

// Tune takes over t. Objects under recovery are finished when fewer may be, or there is to be none.
func (p *Primary) Tune(t Tuning) {
	p.tuning = t
	p.slow.SetLimit(t.SlowLog)
	p.l.Disarm(&p.throttle.tick)
	p.throttle.now = p.throttle.pacer.decide(&p.tuning.Recovery)
	p.watchLoad()
	p.kick()
}

// Tuning is what Tune has set.
func (p *Primary) Tuning() Tuning { return p.tuning }
