package sim

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/sim"
)

// coverageAfter is how many seeds must have come across everything that is required.
const coverageAfter = 500

// Totals sum up many seeds.
type Totals struct {
	Seeds      int
	Draw       int       // the newest one of them
	Failed     []*Report // in order of the seeds
	GaveUp     int
	Simulated  time.Duration
	CPU        time.Duration // processor time
	Real       time.Duration
	Ops, Acts  int
	Struck     int            // faults
	Moot       int            // faults that could not happen
	Overlaps   int            // those that began while another was on
	Thin       int            // seeds with fewer of them than a seed must have, of draws that see to that
	Faults     map[string]int // those that happened, by kind
	Did        sim.FaultCounts
	Coverage   map[string]uint64
	Configured map[string]int // seeds by line of the tables
}

func newTotals() *Totals {
	return &Totals{Faults: map[string]int{}, Coverage: map[string]uint64{}, Configured: map[string]int{}}
}

// Seed names a plan: a number, and the draw that gives it its meaning.
type Seed struct {
	N    uint64
	Draw int
}

// SeedsFrom are n seeds of the draw that is meant where none is named.
func SeedsFrom(first uint64, n int) (list []Seed) {
	for i := range n {
		list = append(list, Seed{first + uint64(i), DefaultDraw})
	}
	return list
}

// String is how the seed is asked for: the parameters of make sim.
func (s Seed) String() string {
	if s.Draw != DefaultDraw {
		return fmt.Sprintf("SEED=%d DRAW=%d", s.N, s.Draw)
	}
	return fmt.Sprintf("SEED=%d", s.N)
}

// Of is the seed that the plan was drawn from.
func (p *Plan) Of() Seed { return Seed{p.Seed, p.Draw} }

// RunSeeds runs seeds on as many workers as there are processors, a world on each. tell is called for each report, one at a time.
func RunSeeds(seeds []Seed, workers int, tell func(*Report)) *Totals {
	t := newTotals()
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	start, used := time.Now(), processorTime()
	next := make(chan Seed)
	reports := make(chan *Report)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for seed := range next {
				reports <- RunPlan(NewPlanOf(seed.N, seed.Draw), nil, slog.LevelError)
			}
		})
	}
	go func() { // ends with the last report
		for _, s := range seeds {
			next <- s
		}
		close(next)
		running.Wait()
		close(reports)
	}()
	for rep := range reports {
		t.add(rep)
		if tell != nil {
			tell(rep)
		}
	}
	t.Real, t.CPU = time.Since(start), processorTime()-used
	slices.SortFunc(t.Failed, func(a, b *Report) int { return cmp.Compare(a.Plan.Seed, b.Plan.Seed) })
	return t
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (t *Totals) add(rep *Report) {
	t.Seeds++
	t.Draw = max(t.Draw, rep.Plan.Draw)
	t.Simulated += rep.Simulated
	t.Ops += rep.Ops
	t.Acts += rep.Acts
	t.Struck += rep.Struck
	t.Overlaps += rep.Overlaps
	t.Moot += rep.Moot
	if rep.Plan.Draw >= fullDraw && !rep.enough() {
		t.Thin++
	}
	t.Did.Add(rep.Did)
	if len(rep.Violations) > 0 {
		t.Failed = append(t.Failed, rep)
	}
	if rep.GaveUp {
		t.GaveUp++
	}
	for k, n := range rep.Faults {
		t.Faults[k] += n
	}
	for k, n := range rep.Coverage {
		t.Coverage[k] += n
	}
	for _, name := range rep.Plan.Config.Name {
		t.Configured[name]++
	}
}

// Missing is what so many seeds should have come across and have not.
func (t *Totals) Missing() []string {
	if t.Seeds < coverageAfter {
		return nil
	}
	list := missing(t.Coverage, t.Draw)
	for i := range faultKinds[:drawnFaults[t.Draw]] {
		if t.Faults[faultKinds[i].name] == 0 {
			list = append(list, "fault: "+faultKinds[i].name)
		}
	}
	for i := range sim.NumFaults {
		if (i != sim.FaultRestore || t.Draw >= 5) && t.Did[i] == 0 { // in earlier draws etcd is not set back
			list = append(list, "what faults did: "+i.String())
		}
	}
	for _, table := range tablesOf(t.Draw) {
		for _, line := range table {
			if t.Configured[line.name] == 0 {
				list = append(list, "configuration: "+line.name)
			}
		}
	}
	return list
}

// OK reports whether nothing was found.
func (t *Totals) OK() bool {
	return len(t.Failed) == 0 && t.GaveUp == 0 && t.Thin == 0 && len(t.Missing()) == 0
}

// Print writes the figures.
func (t *Totals) Print(out io.Writer) {
	fmt.Fprintf(out, "seeds run: %d\nsimulated hours: %.2f\noperations checked: %d (%d acts on blocks)\n", t.Seeds, t.Simulated.Hours(), t.Ops, t.Acts)
	fmt.Fprintf(out, "faults: %d, of which %d began while another was on; %d more could not happen\n", t.Struck, t.Overlaps, t.Moot)
	fmt.Fprintf(out, "seeds of which fewer than %d happened, or fewer than %d so: %d\n", seedFaults, seedOverlaps, t.Thin)
	for i := range faultKinds {
		fmt.Fprintf(out, "  %7d %s\n", t.Faults[faultKinds[i].name], faultKinds[i].name)
	}
	fmt.Fprint(out, "what they did:")
	for i := range sim.NumFaults {
		if n := t.Did[i]; n > 0 {
			fmt.Fprintf(out, " %v %d;", i, n)
		}
	}
	fmt.Fprintln(out, "\ncoverage:")
	for _, what := range requiredOf(t.Draw) {
		fmt.Fprintf(out, "  %7d %s\n", t.Coverage[what], what)
	}
	for _, what := range sorted(t.Coverage) {
		if !slices.Contains(requiredOf(t.Draw), what) {
			fmt.Fprintf(out, "  %7d %s (not required)\n", t.Coverage[what], what)
		}
	}
	for _, what := range t.Missing() {
		fmt.Fprintf(out, "MISSING after %d seeds: %s\n", t.Seeds, what)
	}
	fmt.Fprintf(out, "checks that gave up: %d\nviolations: %d seeds\n", t.GaveUp, len(t.Failed))
	if len(t.Failed) > 0 {
		var list []string
		for _, rep := range t.Failed {
			list = append(list, fmt.Sprint(rep.Plan.Seed))
		}
		fmt.Fprintf(out, "failed: %s\n", strings.Join(list, " "))
	}
	fmt.Fprintf(out, "simulated seconds per second: %.0f in %v; %.0f per second of processor time, of which a seed takes %.2f s\n",
		t.Simulated.Seconds()/max(t.Real.Seconds(), 1e-9), t.Real.Round(time.Second), t.Simulated.Seconds()/max(t.CPU.Seconds(), 1e-9), t.CPU.Seconds()/float64(max(t.Seeds, 1)))
}
