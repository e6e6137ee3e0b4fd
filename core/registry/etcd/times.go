package etcd

import "time"

// Times are the Options that may change while a Registry runs.
type Times struct {
	QuickTimeout, SlowTimeout, Progress time.Duration
	MaxAttempts                         int
}

// patience is one setting of the times; over is closed when another one holds.
type patience struct {
	Times
	over chan struct{}
}

func (t Times) fill() Times {
	t.QuickTimeout, t.SlowTimeout = orDefault(t.QuickTimeout, time.Second), orDefault(t.SlowTimeout, 5*time.Second)
	t.Progress, t.MaxAttempts = orDefault(t.Progress, 5*time.Second), orDefault(t.MaxAttempts, 5)
	return t
}

// SetTimes changes how patient the Registry is, on the loop; what is zero gets its default. Requests under way go on as they began; watches go by the new times at once.
func (r *Registry) SetTimes(t Times) {
	old := r.times.Load()
	if t = t.fill(); t != old.Times {
		r.times.Store(&patience{t, make(chan struct{})})
		close(old.over)
	}
}

// Times are the Registry's at present. It may be called from any goroutine.
func (r *Registry) Times() Times { return r.times.Load().Times }
