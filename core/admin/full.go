package admin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// What people are told of disks that fill up, and of pools whose images may grow to more than there is (docs/operating.md, "Full disks").

// Fullness is how full an OSD is beside the ratios.
type Fullness string

// The values of Fullness.
const (
	Roomy        Fullness = "ok"
	NearFull     Fullness = "nearfull"     // osd_nearfull_ratio: time to do something
	Full         Fullness = "full"         // osd_full_ratio: clients' writes that need space are refused
	BackfillFull Fullness = "backfillfull" // osd_backfillfull_ratio: recovery brings nothing more, either
)

// fullRatios are the ratios in force.
type fullRatios struct{ near, full, backfill float64 }

func ratiosOf(s *cluster.Snapshot) fullRatios {
	get := func(name string, def float64) float64 {
		var f cluster.Float
		if raw, ok := s.Global[name]; ok && json.Unmarshal(raw, &f) == nil && f > 0 {
			return float64(f)
		}
		return def
	}
	// As the parameters' defaults.
	return fullRatios{get("osd_nearfull_ratio", 0.95), get("osd_full_ratio", 0.97), get("osd_backfillfull_ratio", 0.99)}
}

func (r fullRatios) of(st *cluster.OSDStats) Fullness {
	switch {
	case st.Size == 0:
	case st.Used() >= r.backfill:
		return BackfillFull
	case st.Refuses(r.full):
		return Full
	case st.Used() >= r.near:
		return NearFull
	}
	return Roomy
}

// fullWarning says what an OSD that fills up means for its pools; empty when it has room.
func fullWarning(s *cluster.Snapshot, n layout.OSDNum) string {
	st, ok := s.OSDStats.Get(n)
	if !ok {
		return ""
	}
	r := ratiosOf(s)
	how := r.of(st)
	if how == Roomy {
		return ""
	}
	in := ""
	if pools := poolsOn(s, n); len(pools) > 0 {
		in = " in " + strings.Join(pools, ", ")
	}
	word, then := "full", ""
	switch how {
	case NearFull:
		word, then = "nearly full", fmt.Sprintf("at %g %% (osd_full_ratio) writes that need space will be refused%s", 100*r.full, in)
	case Full:
		then = fmt.Sprintf("writes that need space are refused%s; what is there can be read, overwritten and removed", in)
	default:
		then = fmt.Sprintf("writes that need space are refused%s, and recovery waits; what is there can be read, overwritten and removed", in)
	}
	return fmt.Sprintf("OSD %d is %s (%.1f %% used, %s free of %s): %s; add OSDs or remove images", n, word, 100*st.Used(), Size(int64(st.Free)), Size(int64(st.Size)), then)
}

// poolsOn names the pools that have PGs on an OSD.
func poolsOn(s *cluster.Snapshot, n layout.OSDNum) (list []string) {
	if s.PGConfig == nil {
		return nil
	}
	for id, p := range s.Pools.All() {
		if slices.ContainsFunc(s.PGConfig.Pools[id], func(t cluster.PGTarget) bool { return slices.Contains(t.OSDSet, n) }) {
			list = append(list, quote(p.Name))
		}
	}
	return list
}

// commitment is what the images of a pool may grow to.
type commitment struct {
	provisioned uint64 // bytes, all together
	fits        uint64 // of them, for so many there is space, beside the images of other pools on the same OSDs
}

// over reports whether images may grow to more than there is space for.
func (c commitment) over() bool { return c.fits < c.provisioned }

// commitments are those of all pools. An image counts with its size, a snapshot with what it holds: it does not grow.
func commitments(s *cluster.Snapshot) map[layout.PoolID]commitment {
	grown := map[layout.PoolID]float64{}
	for id, i := range s.Inodes.All() {
		size := float64(i.Size)
		if bool(i.ReadOnly) || bool(i.Deleted) {
			size = 0
			st, ok := s.InodeStats.Get(id)
			if p, known := s.PoolStats.Get(id.Pool()); ok && known && p.RawToUsable > 0 {
				size = float64(st.RawUsed) / float64(p.RawToUsable)
			}
		}
		grown[id.Pool()] += size
	}
	// What each OSD would have to hold.
	demand := map[layout.OSDNum]float64{}
	for id := range s.Pools.All() {
		if s.PGConfig == nil {
			break
		}
		pgs := s.PGConfig.Pools[id]
		st, ok := s.PoolStats.Get(id)
		slots := 0
		for _, t := range pgs {
			slots += len(t.OSDSet)
		}
		if !ok || slots == 0 {
			continue
		}
		each := grown[id] * float64(st.RawToUsable) / float64(slots)
		for _, t := range pgs {
			for _, n := range t.OSDSet {
				demand[n] += each
			}
		}
	}
	full := ratiosOf(s).full
	out := map[layout.PoolID]commitment{}
	for id := range s.Pools.All() {
		part := 1.0
		if s.PGConfig != nil {
			for _, t := range s.PGConfig.Pools[id] {
				for _, n := range t.OSDSet {
					if st, ok := s.OSDStats.Get(n); ok && n != 0 && demand[n] > 0 {
						part = min(part, float64(st.Size)*full/demand[n])
					}
				}
			}
		}
		out[id] = commitment{uint64(grown[id]), uint64(grown[id] * part)}
	}
	return out
}

// overWarning says that a pool's images may grow to more than there is space for; empty when they may not.
func overWarning(name string, c commitment) string {
	if !c.over() {
		return ""
	}
	return fmt.Sprintf("pool %s is over-committed: its images may grow to %s together, and there is space for %s of that; before that is used up add OSDs, or remove or shrink images, else writes will be refused",
		quote(name), Size(int64(c.provisioned)), Size(int64(c.fits)))
}

// poolWarnings are what is to be said of the space of a pool.
func poolWarnings(s *cluster.Snapshot, id layout.PoolID, name string, c commitment) []string {
	list := []string{}
	if text := overWarning(name, c); text != "" {
		list = append(list, text)
	}
	var osds []layout.OSDNum
	if s.PGConfig != nil {
		for _, t := range s.PGConfig.Pools[id] {
			osds = append(osds, t.OSDSet...)
		}
	}
	slices.Sort(osds)
	for _, n := range slices.Compact(osds) {
		if text := fullWarning(s, n); text != "" {
			list = append(list, text)
		}
	}
	if s.PGConfig.IsBackfillfull(id) {
		list = append(list, backfillWarning(name))
	}
	return list
}

func backfillWarning(name string) string {
	return fmt.Sprintf("pool %s is not rebalanced: with all that its PGs are to have, an OSD would be fuller than osd_backfillfull_ratio; add OSDs or remove images", quote(name))
}

// space adds what is to be said of all OSDs and pools to a report.
func (v *Status) space(s *cluster.Snapshot, warn func(string, ...any)) {
	all := commitments(s)
	for id, p := range s.Pools.All() {
		if text := overWarning(p.Name, all[id]); text != "" {
			warn("%s", text)
		}
		if s.PGConfig.IsBackfillfull(id) {
			warn("%s", backfillWarning(p.Name))
		}
	}
}
