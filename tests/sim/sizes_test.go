package sim

import (
	"io"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestSizesOfPools runs seeds of the newest draw in which the pool's pg_size, or its number of parity chunks, is changed again and again beside all else that happens. HOLDFAST_TEST_SEEDS says
// how many.
func TestSizesOfPools(t *testing.T) {
	n := 12
	if v := os.Getenv("HOLDFAST_TEST_SEEDS"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	kind := &faultKind{1, "pg_size changed", sizesFit, (*run).changePoolSize}
	changed, coded := uint64(0), 0
	for seed := uint64(1); n > 0; seed++ {
		p := NewPlanOf(seed, NewestDraw)
		if p.Config.Back == backEtcd || !sizesFit(&p.Config) || n%2 == 0 && p.Config.Parity == 0 {
			continue // who sets etcd back does an operator's work again only where he knows how
		}
		n--
		if p.Config.Parity > 0 {
			coded++
		}
		for i := range 4 {
			f := PlannedFault{ID: len(p.Faults) + 1, At: faultsFrom + time.Duration(i)*9*time.Second + time.Duration(seed%7)*time.Second, For: 1500*time.Millisecond + time.Duration(seed%5)*time.Second, Kind: kind, N: seed>>3 + uint64(i)}
			p.Faults = append(p.Faults, f)
		}
		rep := RunPlan(p, io.Discard, slog.LevelError)
		for _, v := range rep.Violations {
			t.Errorf("%s: %s", rep.Summary(), v)
		}
		if rep.GaveUp {
			t.Errorf("%s: a check came to no result", rep.Summary())
		}
		changed += rep.Coverage["pg_size changed and changed back"]
		if t.Failed() {
			return
		}
	}
	t.Logf("pg_size changed and changed back %d times, %d of the seeds with erasure codes", changed, coded)
	if changed == 0 || coded == 0 {
		t.Error("nothing is shown of changes of pg_size")
	}
}
