package placement

import (
	"errors"
	"math"
	"strconv"
	"testing"

	"holdfast/core/layout"
)

func leaves(hosts, perHost int, weight func(osd int) float64) []Leaf {
	var list []Leaf
	for h := range hosts {
		for o := range perHost {
			n := h*perHost + o + 1
			list = append(list, Leaf{OSD: layout.OSDNum(n), Weight: weight(n), Domain: "host" + strconv.Itoa(h)})
		}
	}
	return list
}

func flat(int) float64 { return 1 }

// check verifies the rules and returns how many PGs each OSD has.
func check(t *testing.T, in Input, sets [][]layout.OSDNum) map[layout.OSDNum]int {
	t.Helper()
	domain := map[layout.OSDNum]string{}
	for _, l := range in.Leaves {
		domain[l.OSD] = l.Domain
	}
	count := map[layout.OSDNum]int{}
	for pg, set := range sets {
		seen := map[string]bool{}
		for _, osd := range set {
			if osd == 0 {
				continue
			}
			if seen[domain[osd]] {
				t.Fatalf("pg %d: set %v uses domain %s twice", pg+1, set, domain[osd])
			}
			seen[domain[osd]] = true
			count[osd]++
		}
	}
	return count
}

func TestEvenOverEqualOSDs(t *testing.T) {
	for _, c := range []struct{ hosts, per, size, pgs int }{{3, 1, 3, 16}, {3, 1, 2, 16}, {4, 2, 2, 16}, {5, 3, 3, 64}, {7, 1, 2, 32}} {
		in := Input{Leaves: leaves(c.hosts, c.per, flat), Size: c.size, PGs: c.pgs}
		sets, err := Place(in)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		ideal := float64(c.size*c.pgs) / float64(c.hosts*c.per)
		count := check(t, in, sets)
		for _, l := range in.Leaves {
			if math.Abs(float64(count[l.OSD])-ideal) > 1 {
				t.Errorf("%+v: OSD %d has %d PGs, want %.1f", c, l.OSD, count[l.OSD], ideal)
			}
		}
	}
}

func TestSharesFollowWeights(t *testing.T) {
	in := Input{Leaves: leaves(4, 1, func(n int) float64 { return float64(n) }), Size: 2, PGs: 100}
	sets, err := Place(in)
	if err != nil {
		t.Fatal(err)
	}
	count := check(t, in, sets)
	for osd, want := range map[layout.OSDNum]int{1: 20, 2: 40, 3: 60, 4: 80} {
		if d := count[osd] - want; d < -1 || d > 1 {
			t.Errorf("OSD %d has %d PGs, want %d", osd, count[osd], want)
		}
	}
}

func TestLosingAnOSDMovesLittleMoreThanItsSlots(t *testing.T) {
	in := Input{Leaves: leaves(6, 1, flat), Size: 3, PGs: 64}
	before, err := Place(in)
	if err != nil {
		t.Fatal(err)
	}
	in.Leaves = in.Leaves[:5]
	in.Previous = before
	after, err := Place(in)
	if err != nil {
		t.Fatal(err)
	}
	check(t, in, after)
	lost, moved := 0, 0
	for i := range before {
		for j := range before[i] {
			if before[i][j] == 6 {
				lost++
			}
			if before[i][j] != after[i][j] {
				moved++
			}
		}
	}
	if moved > lost*3/2 {
		t.Errorf("%d slots moved, %d were lost", moved, lost)
	}
}

func TestTooFewDomains(t *testing.T) {
	in := Input{Leaves: leaves(2, 2, flat), Size: 3, PGs: 8}
	sets, err := Place(in)
	var short *ShortError
	if !errors.As(err, &short) || short.Domains != 2 {
		t.Fatalf("error %v, want 2 domains", err)
	}
	for pg, set := range sets {
		n := 0
		for _, osd := range set {
			if osd != 0 {
				n++
			}
		}
		if n != 2 {
			t.Errorf("pg %d: set %v, want two members", pg+1, set)
		}
	}
	check(t, in, sets)
}

func TestNothingChangesTwice(t *testing.T) {
	in := Input{Leaves: leaves(5, 2, func(n int) float64 { return float64(n%3 + 1) }), Size: 2, PGs: 50}
	a, _ := Place(in)
	in.Previous = a
	b, _ := Place(in)
	for i := range a {
		for j := range a[i] {
			if a[i][j] != b[i][j] {
				t.Fatalf("pg %d moved from %v to %v without a reason", i+1, a[i], b[i])
			}
		}
	}
}
