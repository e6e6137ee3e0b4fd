package monitor

import (
	"time"

	"holdfast/core/cluster"
)

// Tuning is what may change while a monitor runs. Zero values but OSDOutTime's mean what they mean in Options.
type Tuning struct {
	ChangeDelay, StatsDelay, OSDOutTime time.Duration
	NoOut                               bool
	NearFull                            float64
}

// Tune takes over t, on the monitor's loop. OSDs whose time is up by a shorter OSDOutTime go out at once.
func (m *Monitor) Tune(t Tuning) {
	old := m.Tuning()
	if t == old || m.stopped {
		return
	}
	m.o.ChangeDelay, m.o.StatsDelay, m.o.OSDOutTime, m.o.NoOut, m.o.NearFull = t.ChangeDelay, t.StatsDelay, t.OSDOutTime, t.NoOut, t.NearFull
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
	return Tuning{m.o.ChangeDelay, m.o.StatsDelay, m.o.OSDOutTime, m.o.NoOut, m.o.NearFull}
}

// warnFull names OSDs that are fuller than they may be, once until they have room again.
func (m *Monitor) warnFull(s *cluster.Snapshot) {
	for n, st := range s.OSDStats.All() {
		used := 1 - float64(st.Free)/float64(max(st.Size, 1))
		full := st.Size > 0 && used >= m.o.NearFull
		if full && !m.full[n] {
			m.log.Warn("an OSD is nearly full: add OSDs, or remove images", "osd", uint64(n), "used", used, "osd_nearfull_ratio", m.o.NearFull)
		}
		if full {
			m.full[n] = true
		} else {
			delete(m.full, n)
		}
	}
}
