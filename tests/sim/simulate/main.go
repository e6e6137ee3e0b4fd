// Command simulate runs seeds of the simulator (tests/sim), replays one with a readable event log, or shortens one that fails. The Makefile's sim and sim-shrink call it.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	sim "holdfast/tests/sim"
)

func main() {
	seeds := flag.Int("seeds", 0, "run so many seeds")
	from := flag.Uint64("from", 1, "the first of them")
	drawn := flag.Int("drawn", 0, "besides, run so many seeds drawn from the commit")
	workers := flag.Int("workers", 0, "worlds at once [the number of processors]")
	seed := flag.Uint64("seed", 0, "replay this seed with its event log")
	shrink := flag.Uint64("shrink", 0, "find a shorter schedule of this seed that still fails")
	draw := flag.Int("draw", sim.DefaultDraw, "with -seed, -shrink and -seeds: what seeds meant in this draw")
	ops := flag.String("ops", "", "with -seed: only these operations, as 1-20,33")
	faults := flag.String("faults", "", "with -seed: only these faults; none for none")
	level := flag.String("log", "info", "with -seed: what the processes log from this level on (debug, info, warn, error)")
	quiet := flag.Bool("q", false, "print no line for each seed that fails while it goes on")
	record := flag.Bool("record", false, "with -seeds: add what was run to docs/proof.md, here")
	flag.Parse()
	if *draw < sim.FirstDraw || *draw > sim.NewestDraw {
		fmt.Fprintf(os.Stderr, "there is no draw %d: the first is %d, the newest %d\n", *draw, sim.FirstDraw, sim.NewestDraw)
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	ok := true
	switch {
	case *seed != 0:
		ok = replay(out, sim.Seed{N: *seed, Draw: *draw}, *ops, *faults, *level)
	case *shrink != 0:
		ok = sim.Shrink(sim.Seed{N: *shrink, Draw: *draw}, os.Stdout)
	default:
		ok = run(out, *seeds, *from, *draw, *drawn, *workers, *quiet, *record)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		ok = false
	}
	if !ok {
		os.Exit(1)
	}
}

// tellEvery is how often it is said how far a run has come.
const tellEvery = time.Minute

func run(out *bufio.Writer, n int, from uint64, draw, drawn, workers int, quiet, record bool) bool {
	list := sim.SeedsFrom(from, n)
	for i := range list {
		list[i].Draw = draw
	}
	if drawn > 0 {
		for _, f := range sim.Found {
			list = append(list, f.Seed)
		}
		base, how := sim.DrawnFrom()
		fmt.Fprintf(out, "%d seeds drawn from %s: from %d on\n", drawn, how, base)
		list = append(list, sim.SeedsFrom(base, drawn)...)
	}
	began, told := time.Now(), time.Now()
	done, bad := 0, 0
	t := sim.RunSeeds(list, workers, func(rep *sim.Report) {
		done++
		bad += min(1, len(rep.Violations))
		if now := time.Now(); now.Sub(told) >= tellEvery && !quiet {
			told = now
			rate := float64(done) / now.Sub(began).Seconds()
			left := time.Duration(float64(len(list)-done) / rate * float64(time.Second))
			fmt.Printf("%d of %d seeds, %d with violations, %.1f a second, %v left\n", done, len(list), bad, rate, left.Round(time.Second))
		}
		if len(rep.Violations) > 0 && !quiet {
			fmt.Printf("%s\n  %s\n", rep.Summary(), first(rep.Violations[0]))
		}
	})
	t.Print(out)
	for _, rep := range t.Failed {
		fmt.Fprintf(out, "replay: make sim %v   shorten: make sim-shrink %v\n", rep.Plan.Of(), rep.Plan.Of())
	}
	if record {
		if err := t.Record("."); err != nil {
			fmt.Fprintf(out, "record: %v\n", err)
			return false
		}
	}
	return t.OK()
}

// first is the beginning of a long text.
func first(text string) string {
	lines := strings.SplitN(text, "\n", 24)
	if len(lines) == 24 {
		lines[23] = "..."
	}
	return strings.Join(lines, "\n  ")
}

func replay(out *bufio.Writer, seed sim.Seed, ops, faults, level string) bool {
	p := sim.NewPlanOf(seed.N, seed.Draw)
	if err := p.Keep(ops, faults); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return false
	}
	l := slog.LevelInfo
	if err := l.UnmarshalText([]byte(level)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return false
	}
	rep := sim.RunPlan(p, out, l)
	for _, v := range rep.Violations {
		fmt.Fprintf(out, "violation: %s\n", v)
	}
	fmt.Fprintf(out, "hash %016x, %d events, %d operations, %.1f s simulated\n", rep.Hash, rep.Steps, rep.Ops, rep.Simulated.Seconds())
	return len(rep.Violations) == 0
}
