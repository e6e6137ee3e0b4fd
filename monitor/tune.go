package monitor

import "time"

// Tuning is what may change while a monitor runs. Zero values but OSDOutTime's mean what they mean in Options.
type Tuning struct {
	ChangeDelay, StatsDelay, OSDOutTime time.Duration
	NoOut                               bool
	NearFull, Full, BackfillFull        float64
}

// Tune takes over t, on the monitor's loop. OSDs whose time is up by a shorter OSDOutTime go out at once.
func (m *Monitor) Tune(t Tuning) {
	old := m.Tuning()
	if t == old || m.stopped {
		return
	}
	m.o.ChangeDelay, m.o.StatsDelay, m.o.OSDOutTime, m.o.NoOut = t.ChangeDelay, t.StatsDelay, t.OSDOutTime, t.NoOut
	m.o.NearFull, m.o.Full, m.o.BackfillFull = t.NearFull, t.Full, t.BackfillFull
	if !m.leading {
		return
	}
	if next := m.l.Now().Add(t.StatsDelay); m.stats.Armed() && m.stats.At > next {
		m.l.Arm(&m.stats, next)
	}
	if t.OSDOutTime != old.OSDOutTime || t.NoOut != old.NoOut {
		m.soon(0)
	}
}

// Tuning is what the monitor goes by at present.
func (m *Monitor) Tuning() Tuning {
	return Tuning{m.o.ChangeDelay, m.o.StatsDelay, m.o.OSDOutTime, m.o.NoOut, m.o.NearFull, m.o.Full, m.o.BackfillFull}
}
