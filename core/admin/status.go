package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// Status is the whole cluster at a glance.
type Status struct {
	Health     string       `json:"health"` // "ok", "degraded" (everything is served, copies are missing) or "down" (something is not served)
	ClusterID  string       `json:"cluster_id"`
	Monitors   int          `json:"monitors"`
	Master     string       `json:"master"` // host of the leading monitor
	OSDsUp     int          `json:"osds_up"`
	OSDs       int          `json:"osds_total"`
	Gateways   int          `json:"gateways"`
	Pools      int          `json:"pools_total"`
	PoolsUp    int          `json:"pools_active"` // all of whose PGs are active
	Images     int          `json:"images"`
	RawTotal   uint64       `json:"raw_total"` // bytes
	RawUsed    uint64       `json:"raw_used"`
	PGs        []StateCount `json:"pg_states"`
	Clean      uint64       `json:"clean_bytes"`
	Degraded   uint64       `json:"degraded_bytes"`
	Misplaced  uint64       `json:"misplaced_bytes"`
	Incomplete uint64       `json:"incomplete_bytes"`
	Client     []Rate       `json:"client"`
	Recovery   []Rate       `json:"recovery"`
	Progress   Progress     `json:"recovery_progress"`
	Scrub      *Scrub       `json:"scrub,omitempty"` // how far the scrubs are that go on
	Reasons    []Waits      `json:"reasons"`         // why PGs wait or are not whole: the first MaxReasons groups
	MoreWait   int          `json:"reasons_more"`    // and how many more there are
	Flags      []string     `json:"flags"`           // that hold something back, such as no_recovery
	Warnings   []string     `json:"warnings"`        // what an operator should look at

	Snapshot *EtcdSaved `json:"etcd_snapshot,omitempty"` // the newest that a monitor that runs has written
}

// EtcdSaved is a snapshot of etcd in a file.
type EtcdSaved struct {
	Host     string `json:"host"`
	File     string `json:"file"`
	Time     string `json:"time"`
	Revision uint64 `json:"revision"`
	Keys     int    `json:"keys"`
}

// StateCount is how many PGs have a state.
type StateCount struct {
	State string `json:"state"`
	Count int    `json:"count"`
}

// Rate is what goes on now.
type Rate struct {
	Op   string `json:"op"`
	Bps  uint64 `json:"bps"`
	Iops uint64 `json:"iops"`
}

// MaxReasons is how many PGs' reasons Report tells.
const MaxReasons = 8

// Report sums the cluster up.
func Report(s *cluster.Snapshot) Status {
	v := Status{Health: "ok", Monitors: s.Monitors.Len(), Gateways: s.Gateways.Len(), Pools: s.Pools.Len(), Images: s.Inodes.Len(), PGs: []StateCount{}, Client: []Rate{}, Recovery: []Rate{}, Flags: []string{}, Reasons: []Waits{}, Warnings: []string{}}
	warn := func(format string, args ...any) { v.Warnings = append(v.Warnings, fmt.Sprintf(format, args...)) }
	worse := func(h string) {
		if v.Health != "down" {
			v.Health = h
		}
	}
	if s.ClusterID != nil {
		v.ClusterID = s.ClusterID.ID.String()
	}
	if s.Master == nil {
		warn("no monitor leads: lost OSDs are not replaced; start `holdfast mon`")
		worse("degraded")
	} else {
		v.Master = s.Master.Hostname
		v.Monitors = max(v.Monitors, 1)
	}
	for _, o := range OSDs(s) {
		v.OSDs++
		if !o.Up {
			since := ""
			if t := lastHeard(s, layout.OSDNum(o.Num)); !t.IsZero() {
				since = ", last heard of " + stamp(t)
			}
			if o.Stopped != nil && o.Waits == "" {
				warn("OSD %d on host %s stopped at %s: %s", o.Num, o.Stopped.Host, o.Stopped.Time, o.Stopped.Reason)
				worse("degraded")
				continue
			}
			if o.Waits != "" {
				since += ", its process runs and waits: " + o.Waits
			}
			warn("OSD %d (host %s) is down%s", o.Num, cmp.Or(o.Host, "unknown"), since)
			worse("degraded")
			continue
		}
		v.OSDsUp++
		v.RawTotal += o.Size
		v.RawUsed += o.Size - min(o.Size, o.Free)
		if text := fullWarning(s, layout.OSDNum(o.Num)); text != "" {
			warn("%s", text)
		}
		if st, ok := s.OSDStats.Get(layout.OSDNum(o.Num)); ok && st.SlowOpsPrimary > 0 {
			warn("OSD %d has %d slow operations of clients; its log says what they wait for (`a client's operation is slow`)", o.Num, uint64(st.SlowOpsPrimary))
		}
		if st, ok := s.OSDStats.Get(layout.OSDNum(o.Num)); ok && st.SlowOpsSecondary > 0 {
			warn("the disk of OSD %d (host %s) is slow: %d operations of other OSDs wait for it longer than slow_log_interval; look at the disk", o.Num, cmp.Or(o.Host, "unknown"), uint64(st.SlowOpsSecondary))
		}
		if st, ok := s.OSDStats.Get(layout.OSDNum(o.Num)); ok && st.ChecksumErrors > 0 {
			warn("OSD %d found %d damaged copies on its disk since it started and took them from other OSDs; look at the disk", o.Num, uint64(st.ChecksumErrors))
		}
		if n := badCopies(s, o.Num); n > 0 {
			warn("on OSD %d %d copies were wrong or could not be read, and were taken from other OSDs, since their primaries started; look at the disk", o.Num, n)
		}
		if by := s.MissedBy(layout.OSDNum(o.Num)); len(by) > 0 {
			warn("OSD %d (host %s) is up, and OSD %v cannot reach it: look at the network between them", o.Num, cmp.Or(o.Host, "unknown"), by)
		}
	}
	if list := s.Unreported(); len(list) > 0 {
		warn("etcd was restored from an older state (%s): no PG becomes active until OSD %v have reported; start them, or declare what is gone lost with `holdfast etcd lost OSD`", s.Restored.Reason, list)
		worse("degraded")
	}
	if r := s.Restoring; r != nil {
		warn("a restore of etcd from %s was begun and has not ended, and nothing is served before it has: run `holdfast etcd restore` with it again", cmp.Or(r.File, "a snapshot"))
		worse("down")
	}
	v.space(s, warn)
	v.Snapshot = saved(s, warn)
	v.pgs(s, warn, worse)
	for _, name := range []string{"no_recovery", "no_rebalance", "no_scrub", "noout"} {
		if flag(s, name) {
			v.Flags = append(v.Flags, name)
		}
	}
	for n, c := range s.OSDConfigs.All() {
		if bool(c.NoOut) {
			v.Flags = append(v.Flags, fmt.Sprintf("noout of OSD %d", n))
		}
	}
	v.Progress = recovery(s)
	v.Recovery = append(v.Recovery, recoveryRates(s)...)
	if st := s.Stats; st != nil {
		v.Degraded, v.Misplaced, v.Incomplete = uint64(st.ObjectBytes.Degraded), uint64(st.ObjectBytes.Misplaced), uint64(st.ObjectBytes.Incomplete)
		v.Clean = uint64(st.ObjectBytes.Clean)
		for _, op := range []string{"read", "write", "delete", "zero"} {
			if r, ok := st.OpStats["primary_"+op]; ok { // what clients asked of primaries
				v.Client = append(v.Client, Rate{op, uint64(r.Bps), uint64(r.Iops)})
			}
		}
	}
	for key, f := range s.Faults.All() {
		warn("etcd key %s cannot be used and what it held before stays in force: %v; %s", key, f.Reason, cmp.Or(f.Action, "correct it"))
	}
	return v
}

// pgs counts PGs by state, and says which pools are not served.
func (v *Status) pgs(s *cluster.Snapshot, warn func(string, ...any), worse func(string)) {
	counts := map[string]int{}
	var all []PG
	for id, p := range s.Pools.All() {
		n, active := s.PGConfig.Count(id), uint32(0)
		pgs, _ := PGs(s, PGFilter{Pool: p.Name})
		all = append(all, pgs...)
		for _, pg := range pgs {
			state := strings.Join(pg.State, "+")
			counts[state]++
			switch {
			case slices.Contains(pg.State, "active"):
				active++
				if st, _ := cluster.ParseState(pg.State); !st.Whole() {
					worse("degraded")
				}
			default:
				worse("down")
			}
		}
		switch {
		case n == 0:
			warn("pool %q has no PGs yet: the monitor makes them when there are enough OSDs", p.Name)
			worse("down")
		case active < n:
			warn("pool %q: %d of %d PGs are not active and serve nothing; `holdfast pg-list '!active'` says why", p.Name, n-active, n)
			v.Health = "down"
		default:
			v.PoolsUp++
		}
	}
	v.Reasons = append(v.Reasons, Reasons(all)...)
	v.Scrub = scrubbing(all)
	if n := len(v.Reasons); n > MaxReasons {
		v.Reasons, v.MoreWait = v.Reasons[:MaxReasons], n-MaxReasons
	}
	for state, n := range counts { // order: sorted below
		v.PGs = append(v.PGs, StateCount{state, n})
	}
	slices.SortFunc(v.PGs, func(a, b StateCount) int { return cmp.Or(b.Count-a.Count, strings.Compare(a.State, b.State)) })
}

// badCopies is how many copies on an OSD primaries have found wrong or unreadable.
func badCopies(s *cluster.Snapshot, osd uint64) (n uint64) {
	for _, st := range s.OSDStats.All() {
		n += uint64(st.BadCopies[strconv.FormatUint(osd, 10)])
	}
	return n
}

// saved is the newest snapshot of etcd.
func saved(s *cluster.Snapshot, warn func(string, ...any)) (newest *EtcdSaved) {
	at := int64(0)
	for _, m := range s.Monitors.All() {
		n := m.Snapshot
		if n == nil {
			continue
		}
		if n.Time > at {
			at, newest = n.Time, &EtcdSaved{Host: n.Host, File: n.File, Time: stamp(time.Unix(n.Time, 0)), Revision: uint64(n.Revision), Keys: n.Keys}
		}
		if n.Error != "" {
			last := "none since it started"
			if n.Time != 0 {
				last = "the last is of " + stamp(time.Unix(n.Time, 0))
			}
			warn("the monitor on host %s cannot write snapshots of etcd (%s): %s", n.Host, last, n.Error)
		}
	}
	return newest
}
