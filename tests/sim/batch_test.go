package sim

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/sim"
)

// everything is what so many seeds come to that have come across all that there is, once.
func everything(seeds int) *Totals {
	t := newTotals()
	t.Seeds, t.Draw = seeds, NewestDraw
	for _, what := range requiredOf(NewestDraw) {
		t.Coverage[what] = 1
	}
	for i := range faultKinds {
		t.Faults[faultKinds[i].name] = 1
	}
	for i := range t.Did {
		t.Did[i] = 1
	}
	for _, table := range tablesOf(NewestDraw) {
		for _, line := range table {
			t.Configured[line.name] = 1
		}
	}
	return t
}

// TestWhatIsNeverComeAcrossFails: 500 seeds in which a counter stays at 0 are a failure, fewer are not.
func TestWhatIsNeverComeAcrossFails(t *testing.T) {
	if full := everything(coverageAfter); !full.OK() {
		t.Fatalf("nothing is missing, and %q is", full.Missing())
	}
	if coverageAfter > 500 {
		t.Errorf("looked at only after %d seeds", coverageAfter)
	}
	without := func(what string, take func(*Totals)) {
		few, many := everything(coverageAfter-1), everything(coverageAfter)
		take(few)
		take(many)
		if !few.OK() {
			t.Errorf("without %s %d seeds fail already", what, few.Seeds)
		}
		var out bytes.Buffer
		many.Print(&out)
		if many.OK() || !slices.ContainsFunc(many.Missing(), func(s string) bool { return strings.HasSuffix(s, what) }) || !strings.Contains(out.String(), "MISSING") {
			t.Errorf("nobody misses %s", what)
		}
	}
	for _, what := range requiredOf(NewestDraw) {
		without(what, func(t *Totals) { t.Coverage[what] = 0 })
	}
	for i := range faultKinds {
		without(faultKinds[i].name, func(t *Totals) { t.Faults[faultKinds[i].name] = 0 })
	}
	for i := range sim.NumFaults {
		without(i.String(), func(t *Totals) { t.Did[i] = 0 })
	}
	for _, table := range tablesOf(NewestDraw) {
		for _, line := range table {
			without(line.name, func(t *Totals) { t.Configured[line.name] = 0 })
		}
	}
	failed := everything(1)
	if failed.add(&Report{Plan: NewPlan(7), Struck: seedFaults, Overlaps: seedOverlaps, Violations: []string{"1s: something"}}); failed.OK() {
		t.Error("a seed has a violation, and all is well")
	}
	thin := everything(1)
	if thin.add(&Report{Plan: NewPlan(7), Struck: seedFaults, Overlaps: seedOverlaps - 1}); thin.OK() {
		t.Error("a seed had too few faults at a time, and all is well")
	}
	unsure := everything(1)
	if unsure.add(&Report{Plan: NewPlan(7), Struck: seedFaults, Overlaps: seedOverlaps, GaveUp: true}); unsure.OK() {
		t.Error("a check gave up, and all is well")
	}
}

// TestFiguresArePrinted looks for what a run of seeds has to print.
func TestFiguresArePrinted(t *testing.T) {
	totals := newTotals()
	totals.add(&Report{Plan: NewPlan(7), Ops: 1000, Simulated: 90 * time.Minute, Struck: 9, Overlaps: 3, Faults: map[string]int{"OSD killed": 9}, Violations: []string{"1s: something"}})
	var out bytes.Buffer
	totals.Print(&out)
	for _, want := range []string{"seeds run: 1\n", "simulated hours: 1.50\n", "operations checked: 1000 ", "faults: 9, of which 3 began while another was on", "  9 OSD killed\n", "checks that gave up: 0\n",
		"violations: 1 seeds\n", "failed: 7\n", "simulated seconds per second"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed\n%s\nwithout %q", &out, want)
		}
	}
}
