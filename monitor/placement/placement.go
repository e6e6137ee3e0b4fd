// Package placement decides which OSDs hold each PG of a pool. It is pure and deterministic; monitor calls it.
//
// The rules: no two members of a PG share a failure domain, every OSD gets a share of the pool's PGs in proportion to its weight as far as the domains allow, and what was placed
// before stays where it is unless the rules or evenness demand a move.
package placement

import (
	"cmp"
	"fmt"
	"slices"

	"holdfast/core/layout"
)

// Leaf is one OSD that may hold PGs.
type Leaf struct {
	OSD    layout.OSDNum
	Weight float64 // in any unit; above 0
	Domain string  // the failure domain it is in
}

// Input is one pool's demand.
type Input struct {
	Leaves   []Leaf
	Size     int // members of each PG
	PGs      int
	Previous [][]layout.OSDNum // sets of today by PG, 0 for an empty slot; may be shorter or nil
}

// ShortError says that the tree has fewer failure domains than a PG has members: some slots stay empty.
type ShortError struct{ Domains, Want int }

func (e *ShortError) Error() string {
	return fmt.Sprintf("the pool wants %d failure domains, the tree has %d with usable OSDs", e.Want, e.Domains)
}

// state is the placement in the making.
type state struct {
	in     Input
	leaf   map[layout.OSDNum]int
	ideal  []float64 // PGs each leaf should hold
	count  []int
	sets   [][]int // leaf by PG and slot, -1 for none
	domain []int   // of each leaf
}

// Place fills every slot that the tree has room for. The error is nil or a *ShortError, which comes together with a usable result.
func Place(in Input) ([][]layout.OSDNum, error) {
	s := &state{in: in, leaf: map[layout.OSDNum]int{}}
	slices.SortFunc(s.in.Leaves, func(a, b Leaf) int { return cmp.Compare(a.OSD, b.OSD) })
	names := map[string]int{}
	for i, l := range s.in.Leaves {
		s.leaf[l.OSD] = i
		if _, ok := names[l.Domain]; !ok {
			names[l.Domain] = len(names)
		}
		s.domain = append(s.domain, names[l.Domain])
	}
	s.shares(len(names))
	s.keep()
	s.fill()
	s.level()
	out := make([][]layout.OSDNum, in.PGs)
	for i, set := range s.sets {
		out[i] = make([]layout.OSDNum, in.Size)
		for j, l := range set {
			if l >= 0 {
				out[i][j] = s.in.Leaves[l].OSD
			}
		}
	}
	if len(names) < in.Size {
		return out, &ShortError{Domains: len(names), Want: in.Size}
	}
	return out, nil
}

// shares computes what each leaf should hold: in proportion to its weight, but no domain more than every PG once.
func (s *state) shares(domains int) {
	weight := make([]float64, domains)
	for i, l := range s.in.Leaves {
		weight[s.domain[i]] += l.Weight
	}
	full := make([]bool, domains)
	slots, total := float64(min(s.in.Size, domains)), 0.0
	for _, w := range weight {
		total += w
	}
	for changed := true; changed; {
		changed = false
		for d, w := range weight {
			if !full[d] && total > 0 && w/total*slots > 1 {
				full[d], changed = true, true
				slots, total = slots-1, total-w
				break
			}
		}
	}
	for i, l := range s.in.Leaves {
		d := s.domain[i]
		share := l.Weight / weight[d]
		if !full[d] {
			share = 0
			if total > 0 {
				share = l.Weight / total * slots
			}
		}
		s.ideal = append(s.ideal, share*float64(s.in.PGs))
	}
	s.count = make([]int, len(s.in.Leaves))
}

// keep takes over what was placed before and is still allowed.
func (s *state) keep() {
	s.sets = make([][]int, s.in.PGs)
	for i := range s.sets {
		s.sets[i] = make([]int, s.in.Size)
		for j := range s.sets[i] {
			s.sets[i][j] = -1
		}
		if i >= len(s.in.Previous) {
			continue
		}
		for j, osd := range s.in.Previous[i] {
			l, ok := s.leaf[osd]
			if j < s.in.Size && osd != 0 && ok && !s.uses(i, s.domain[l], -1) {
				s.sets[i][j] = l
				s.count[l]++
			}
		}
	}
}

// uses reports whether PG i has a member in the domain, in another slot than but.
func (s *state) uses(i, domain, but int) bool {
	for j, l := range s.sets[i] {
		if j != but && l >= 0 && s.domain[l] == domain {
			return true
		}
	}
	return false
}

// need is how much below its share a leaf is, relative to the share.
func (s *state) need(l int) float64 {
	if s.ideal[l] == 0 {
		return -1e18
	}
	return (s.ideal[l] - float64(s.count[l])) / s.ideal[l]
}

// fill puts the neediest leaf into each empty slot.
func (s *state) fill() {
	for i := range s.sets {
		for j, l := range s.sets[i] {
			if l >= 0 {
				continue
			}
			best := -1
			for c := range s.in.Leaves {
				if s.ideal[c] > 0 && !s.uses(i, s.domain[c], j) && (best < 0 || s.need(c) > s.need(best)) {
					best = c
				}
			}
			if best >= 0 {
				s.sets[i][j] = best
				s.count[best]++
			}
		}
	}
}

// level moves members from leaves above their share to leaves below it until nobody is off by one or more, or no single move helps.
func (s *state) level() {
	for range s.in.PGs * s.in.Size {
		over := func(l int) float64 { return float64(s.count[l]) - s.ideal[l] }
		order := make([]int, len(s.in.Leaves))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(over(b), over(a)) })
		if len(order) == 0 || !s.move(order, over) {
			return
		}
	}
}

// move makes the most useful single move; false when there is none.
func (s *state) move(order []int, over func(int) float64) bool {
	for _, from := range order {
		if over(from) <= 0 {
			return false
		}
		for k := len(order) - 1; k >= 0; k-- {
			to := order[k]
			if over(from)-over(to) <= 1 {
				break
			}
			for i := range s.sets {
				j := slices.Index(s.sets[i], from)
				if j < 0 || s.uses(i, s.domain[to], j) {
					continue
				}
				s.sets[i][j] = to
				s.count[from]--
				s.count[to]++
				return true
			}
		}
	}
	return false
}
