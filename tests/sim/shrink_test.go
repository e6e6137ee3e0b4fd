package sim

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestShrinkFindsWhatItTakes has a synthetic run that fails when two faults and three operations come together, and otherwise in another way when one operation is there: what is kept is
// the five, not the one.
func TestShrinkFindsWhatItTakes(t *testing.T) {
	has := func(p *Plan, ops, faults []int) bool {
		n := 0
		for _, o := range p.Ops {
			for _, id := range ops {
				if int(o.ID) == id {
					n++
				}
			}
		}
		for _, f := range p.Faults {
			for _, id := range faults {
				if f.ID == id {
					n++
				}
			}
		}
		return n == len(ops)+len(faults)
	}
	run := func(p *Plan) (list []string) {
		if has(p, []int{17, 500, 998}, []int{2, 7}) {
			list = append(list, fmt.Sprintf("%ds: op 17 of client 1 (write of image 0 at %d+512) is lost\nand more", len(p.Ops), len(p.Faults)))
		}
		if has(p, []int{300}, nil) {
			list = append(list, "1m2s: something else")
		}
		return list
	}
	var out bytes.Buffer
	s := shrinking{plan: NewPlan(1), out: &out, most: shrinkRuns, run: run}
	if !s.search() {
		t.Fatalf("it fails, and was not seen to: %s", &out)
	}
	if want := "replay: make sim SEED=1 FAULTS=2,7 OPS=17,500,998\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("printed\n%s\nwhich does not end with %q", &out, want)
	}
	for _, want := range []string{"fault 2: ", "fault 7: ", "operation 17 of client", "operation 500 of client", "it is: 3s: op 17 of client 1 (write of image 0 at 2+512) is lost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed\n%s\nwithout %q", &out, want)
		}
	}
	if s.runs > 300 {
		t.Errorf("it took %d runs", s.runs)
	}
	if n := len(s.plan.Ops); n != seedOps {
		t.Errorf("the plan has %d operations left", n)
	}
}

// TestShrinkEndsInTime has a run for which everything is needed.
func TestShrinkEndsInTime(t *testing.T) {
	var out bytes.Buffer
	s := shrinking{plan: NewPlan(1), out: &out, most: 50, run: func(p *Plan) []string {
		if len(p.Ops) < seedOps-1 {
			return nil
		}
		return []string{"1s: bad"}
	}}
	if !s.search() || s.runs > 50 || !strings.Contains(out.String(), "a shorter schedule may be left") {
		t.Errorf("after %d runs: %s", s.runs, &out)
	}
	s = shrinking{plan: NewPlan(1), out: &out, most: 50, run: func(*Plan) []string { return nil }}
	if s.search() || s.runs != 1 {
		t.Errorf("a seed that does not fail was shortened in %d runs", s.runs)
	}
}

// TestShrinkOfARun shortens a real run, which is taken to have failed when a certain fault began and a certain operation came to its end: a shortened schedule does the rest as before.
func TestShrinkOfARun(t *testing.T) {
	p := NewPlan(3)
	if err := p.Keep("1-40", "1-4"); err != nil {
		t.Fatal(err)
	}
	op, f := p.Ops[len(p.Ops)/2], p.Faults[2]
	var out bytes.Buffer
	s := shrinking{plan: p, out: &out, most: 200, run: func(p *Plan) []string {
		var log bytes.Buffer
		rep := RunPlan(p, &log, slog.LevelError)
		if text := log.String(); strings.Contains(text, fmt.Sprintf(" fault %d: ", f.ID)) && strings.Contains(text, fmt.Sprintf(" op %d done\n", op.ID)) {
			return []string{fmt.Sprintf("%v: it happened", rep.Simulated)}
		}
		return rep.Violations
	}}
	if !s.search() {
		t.Fatalf("seed %d: %s", p.Seed, &out)
	}
	if want := fmt.Sprintf("replay: make sim SEED=%d FAULTS=%d OPS=%d\n", p.Seed, f.ID, op.ID); !strings.HasSuffix(out.String(), want) {
		t.Errorf("printed\n%s\nwhich does not end with %q", &out, want)
	}
}
