package sim

import (
	"io"
	"log/slog"
	"os"
	"strconv"
	"testing"
)

// TestSeeds runs the first seeds; `make test` runs many more with `make sim`, and HOLDFAST_TEST_SEEDS says how many here.
func TestSeeds(t *testing.T) {
	n := 20
	if v := os.Getenv("HOLDFAST_TEST_SEEDS"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	totals := RunSeeds(SeedsFrom(1, n), 0, nil)
	totals.Print(t.Output())
	for _, rep := range totals.Failed {
		for _, v := range rep.Violations {
			t.Errorf("%s: %s", rep.Summary(), v)
		}
	}
}

// runWell runs a plan that is to show no violation.
func runWell(t *testing.T, p *Plan) *Report {
	t.Helper()
	rep := RunPlan(p, io.Discard, slog.LevelError)
	for _, v := range rep.Violations {
		t.Errorf("%s: %s", rep.Summary(), v)
	}
	if rep.GaveUp {
		t.Errorf("%s: a check came to no result", rep.Summary())
	}
	return rep
}
