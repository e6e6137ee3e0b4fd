package primary

import (
	"time"
)

// defaultSlowLog is slow_log_interval until Tune says otherwise.
const defaultSlowLog = 10 * time.Second

// Tuning is what may change while a primary runs.
type Tuning struct {
	RecoveryDepth int           // recovery_queue_depth: objects recovered at once in the background, over all PGs
	NoRecovery    bool          // no_recovery: none; what a client waits for is made whole all the same
	SlowLog       time.Duration // slow_log_interval
}

// Tune takes over t. Objects under recovery are finished when the depth shrinks, or there is to be none.
func (p *Primary) Tune(t Tuning) {
	p.tuning = t
	p.l.Disarm(&p.slow.timer)
	if p.slow.first != nil {
		p.watchSlow()
	}
	p.kick()
}

// Tuning is what Tune has set.
func (p *Primary) Tuning() Tuning { return p.tuning }
