package osd

import (
	"fmt"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd/peering"
	"holdfast/osd/primary"
)

// What is published of a PG for people, in pgstats: why it waits or is not whole, and how far recovery is; and in osd/stats how fast it goes. Nothing here is asked by the data path.

// progressInterval is the longest time between statistics while objects are being recovered.
const progressInterval = 5 * time.Second

// waits reports whether the PG waits for somebody. It does also while it asks again; showing that as peering would only have etcd written several times a second.
func (r *pgRun) waits() bool {
	return r.m.Phase == peering.Waiting || r.m.Phase == peering.Locking && r.m.Reason != ""
}

// reason says why the PG waits, or why it is not whole although it serves and only we know. Empty when there is nothing to say.
func (r *pgRun) reason() string {
	if r.m.Phase != peering.Active {
		return cluster.ClipReason(r.m.Reason)
	}
	if len(r.m.Acting) >= r.size && (r.served == nil || r.served.Counts().Left == 0) {
		return ""
	}
	var list []string
	if full := r.m.Full(); len(full) > 0 {
		list = append(list, osds(full)+" refused writes for lack of space and takes no part: add OSDs or remove images")
	}
	var away, back []layout.OSDNum
	for _, osd := range r.m.LeftOut() {
		if r.s.hub.Connected(osd) {
			back = append(back, osd)
		} else {
			away = append(away, osd)
		}
	}
	if len(away) > 0 {
		list = append(list, fmt.Sprintf("OSD %d cannot reach %s, though up: look at the network between them", r.s.o.Num, osds(away)))
	}
	if len(back) > 0 {
		list = append(list, osds(back)+" did not give its lock in time and is tried again soon")
	}
	if r.served != nil {
		c, t := r.served.Counts(), r.s.prim.Tuning()
		if c.Inconsistent > 0 {
			list = append(list, fmt.Sprintf("copies of %d objects differ, and nobody knows which are right: `holdfast describe` lists them, `holdfast fix` settles it", c.Inconsistent))
		}
		left, _ := c.ToRecover()
		switch {
		case t.NoRecovery && left > 0:
			list = append(list, "no_recovery holds recovery back: set it to false")
		case t.NoRebalance && c.Misplaced > 0:
			list = append(list, "no_rebalance holds misplaced objects back: set it to false")
		case c.Misplaced > 0 && r.s.Snapshot().PGConfig.IsBackfillfull(r.id.Pool):
			list = append(list, "misplaced objects wait: with them an OSD would be fuller than osd_backfillfull_ratio; add OSDs or remove images")
		}
		if full := r.served.FullFor(); len(full) > 0 {
			has, it := " has", "it lacks"
			if len(full) > 1 {
				has, it = " have", "they lack"
			}
			list = append(list, osds(full)+has+" no space for what recovery brings (osd_backfillfull_ratio), and objects that "+it+" wait: add OSDs or remove images")
		}
	}
	return cluster.ClipReason(strings.Join(list, "; "))
}

// osds lists OSDs for people.
func osds(list []layout.OSDNum) string {
	if len(list) == 1 {
		return fmt.Sprintf("OSD %d", list[0])
	}
	return "OSDs " + strings.ReplaceAll(strings.Trim(fmt.Sprint(list), "[]"), " ", ",")
}

// statsValue is pgstats.
func (r *pgRun) statsValue() *cluster.PGStats {
	v := &cluster.PGStats{WriteOSDSet: []cluster.Number{}, Reason: r.reason()}
	for _, a := range r.m.Acting {
		v.WriteOSDSet = append(v.WriteOSDSet, cluster.Number(a.OSD))
	}
	n := r.s.o.Store.CountPG(r.id)
	var c primary.Counts
	if r.served != nil {
		c = r.served.Counts()
	}
	n = max(n, c.Left)
	bad := 0
	switch {
	case r.waits():
		bad = n
		v.IncompleteCount = cluster.Number(n)
	case r.served != nil && len(r.m.Acting) < r.size:
		bad = n
		v.DegradedCount, v.IncompleteCount = cluster.Number(n-c.Unfound), cluster.Number(c.Unfound)
	default:
		bad = c.Left
		v.DegradedCount, v.MisplacedCount, v.IncompleteCount = cluster.Number(c.Degraded()), cluster.Number(c.Misplaced), cluster.Number(c.Unfound)
	}
	v.ObjectCount, v.CleanCount = cluster.Number(n), cluster.Number(n-bad)
	left, total := c.ToRecover()
	v.RecoveryLeft, v.RecoveryMisplaced, v.UnfoundCount, v.CorruptedCount, v.InconsistentCount = cluster.Number(left), cluster.Number(c.Misplaced), cluster.Number(c.Unfound), cluster.Number(c.Corrupted), cluster.Number(c.Inconsistent)
	if left > 0 {
		v.RecoveryTotal, v.RecoveryRate = cluster.Number(total), cluster.Number(r.served.Rate())
	}
	return v
}

// recovered is what recovery has done since the start: objects of which copies were missing, and those that only were elsewhere.
type recovered struct{ degraded, misplaced primary.RecoveryStat }

func (s *OSD) recovered() recovered {
	return recovered{s.prim.Recovery.Without(s.prim.Moved), s.prim.Moved}
}

// progress remembers what recovery had done when its rate was published last.
type progress struct {
	at   loop.Instant
	done recovered
}

// rates puts osd/stats's recovery_stats into a map: sums since the start, and what they grew per second since it was asked last.
func (p *progress) rates(now loop.Instant, r recovered, to map[string]cluster.OpStats) {
	dt := now.Sub(p.at).Seconds()
	if p.at == 0 {
		dt = 0
	}
	if r.degraded.Objects > 0 {
		to["degraded"] = rate(dt, r.degraded, p.done.degraded)
	}
	if r.misplaced.Objects > 0 {
		to["misplaced"] = rate(dt, r.misplaced, p.done.misplaced)
	}
	p.at, p.done = now, r
}

// rate is one of them, dt seconds after the one before; 0: there was none.
func rate(dt float64, r, before primary.RecoveryStat) cluster.OpStats {
	v := cluster.OpStats{Count: cluster.Number(r.Objects), Usec: cluster.Number(r.Usec), Bytes: cluster.Number(r.Bytes)}
	if d := r.Without(before); dt > 0 && d.Objects > 0 {
		v.Iops, v.Bps, v.Lat = cluster.Number(float64(d.Objects)/dt+0.5), cluster.Number(float64(d.Bytes)/dt), cluster.Number(d.Usec/d.Objects)
	}
	return v
}

// recovering reports whether a PG of ours has objects left to recover.
func (s *OSD) recovering() bool {
	for _, r := range s.pgs { // order: any
		if r.served == nil {
			continue
		}
		if left, _ := r.served.Counts().ToRecover(); left > 0 {
			return true
		}
	}
	return false
}

// statsPause is how long until the next statistics.
func (s *OSD) statsPause() time.Duration {
	if s.recovering() {
		return min(s.o.StatsInterval, progressInterval)
	}
	return s.o.StatsInterval
}

// hurryStats has the next statistics come sooner when there is progress to show. Recovery that begins only now is measured from now on.
func (s *OSD) hurryStats() {
	if s.progress.done == s.recovered() {
		s.progress.at = s.l.Now()
	}
	if next := s.l.Now().Add(s.statsPause()); s.stats.Armed() && s.stats.At > next {
		s.l.Arm(&s.stats, next)
	}
}
