package admin

import (
	"fmt"
	"strings"
	"time"

	"holdfast/core/cluster"
)

// Progress is how far recovery is, over all PGs that are served.
type Progress struct {
	Left        uint64   `json:"objects_left"`
	Total       uint64   `json:"objects_total"`     // as many as there were when the PGs began to be served
	Misplaced   uint64   `json:"objects_misplaced"` // of those left: they have enough copies, if elsewhere
	Held        uint64   `json:"objects_held"`      // of those left: they are held back
	Objects     uint64   `json:"objects_per_second"`
	Bytes       uint64   `json:"bytes_per_second"`
	SecondsLeft uint64   `json:"seconds_left"` // for those that are not held back, at this rate; 0: unknown, or done
	HeldBy      []string `json:"held_by"`      // what holds them back
}

// recovery sums up how far recovery is.
func recovery(s *cluster.Snapshot) Progress {
	v := Progress{HeldBy: []string{}}
	for id, st := range s.PGStates.All() {
		if p, ok := s.PGStats.Get(id); ok && st.State&cluster.StateActive != 0 && p.Mod >= st.Create {
			v.Left += uint64(p.RecoveryLeft)
			v.Misplaced += uint64(min(p.RecoveryMisplaced, p.RecoveryLeft))
			v.Total += uint64(max(p.RecoveryTotal, p.RecoveryLeft))
		}
	}
	if v.Left == 0 {
		return v // the rates are of the time before
	}
	for _, r := range recoveryRates(s) {
		v.Objects += r.Iops
		v.Bytes += r.Bps
	}
	switch {
	case flag(s, heldBack):
		v.Held, v.HeldBy = v.Left, append(v.HeldBy, heldBack)
	case flag(s, heldMoves) && v.Misplaced > 0:
		v.Held, v.HeldBy = v.Misplaced, append(v.HeldBy, heldMoves)
	}
	if going := v.Left - v.Held; v.Objects > 0 && going > 0 {
		v.SecondsLeft = max(1, (going+v.Objects/2)/v.Objects)
	}
	return v
}

// recoveryRates sums the rates that the OSDs measured when they last wrote their statistics.
func recoveryRates(s *cluster.Snapshot) []Rate {
	var list []Rate
	for _, op := range []string{"degraded", "misplaced"} {
		sum, there := Rate{Op: op}, false
		for n, st := range s.OSDStats.All() {
			if _, up := s.OSDStates.Get(n); !up {
				continue
			}
			if r, ok := st.RecoveryStats[op]; ok {
				sum.Bps, sum.Iops, there = sum.Bps+uint64(r.Bps), sum.Iops+uint64(r.Iops), true
			}
		}
		if there {
			list = append(list, sum)
		}
	}
	return list
}

// Line is the progress in words; empty when nothing is left.
func (v Progress) Line() string {
	if v.Left == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d objects left, ", v.Left, v.Total)
	held := "held back by " + strings.Join(v.HeldBy, ", ")
	switch {
	case v.Held == v.Left:
		return text + held
	case v.Held > 0:
		text += fmt.Sprintf("%d of them %s, ", v.Held, held)
	case v.Misplaced > 0:
		text += fmt.Sprintf("%d of them only misplaced, ", v.Misplaced)
	}
	if v.Objects == 0 {
		return text + "time left not known yet"
	}
	return text + fmt.Sprintf("%d objects/s, %s/s, about %s left", v.Objects, Size(int64(v.Bytes)), Period(time.Duration(v.SecondsLeft)*time.Second))
}

// Period writes a time for people, in its two largest units.
func Period(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d days %d h", s/86400, s/3600%24)
}
