package osd

import (
	"time"

	"holdfast/core/peer"
	"holdfast/osd/primary"
	"holdfast/osd/secondary"
)

// Tuning is what may change while an OSD runs.
type Tuning struct {
	StatsInterval time.Duration // etcd_stats_interval
	Primary       primary.Tuning
	Sync          primary.Syncing
	Peer          peer.Times
	Full          secondary.Limits
	Scrub         Scrubbing
}

// Tune takes over t, on the OSD's loop.
func (s *OSD) Tune(t Tuning) {
	if t.StatsInterval != s.o.StatsInterval {
		s.o.StatsInterval = t.StatsInterval
		if next := s.l.Now().Add(t.StatsInterval); s.stats.Armed() && s.stats.At > next {
			s.l.Arm(&s.stats, next)
		}
	}
	if t.Primary != s.prim.Tuning() {
		s.prim.Tune(t.Primary)
		s.sec.SlowLog(t.Primary.SlowLog)
	}
	if t.Sync != s.prim.Syncing() {
		s.prim.TuneSync(t.Sync)
	}
	if t.Scrub != s.scrubs.how {
		s.scrubs.tune(t.Scrub)
	}
	s.hub.SetTimes(t.Peer)
	s.sec.Limits = t.Full
}

// Tuning is what the OSD goes by at present.
func (s *OSD) Tuning() Tuning {
	return Tuning{StatsInterval: s.o.StatsInterval, Primary: s.prim.Tuning(), Sync: s.prim.Syncing(), Peer: s.hub.Times(), Scrub: s.scrubs.how, Full: s.sec.Limits}
}
