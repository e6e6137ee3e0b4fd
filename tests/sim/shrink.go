package sim

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// DrawnFrom is where the seeds begin that are drawn anew for each commit, and what they are drawn from. Outside of git, and where git is missing, they are drawn from a fixed word.
func DrawnFrom() (base uint64, how string) {
	what, how := "no commit", "a fixed word, as there is no git here"
	if out, err := exec.Command("git", "rev-parse", "HEAD").Output(); err == nil {
		what = strings.TrimSpace(string(out))
		how = "commit " + what
	}
	sum := sha1.Sum([]byte(what))
	return 1_000_000 + uint64(binary.LittleEndian.Uint32(sum[:])), how
}

// Keep leaves only the operations and faults with these numbers in the plan ("" all, "none" none, else as 1-5,9).
func (p *Plan) Keep(ops, faults string) error {
	wanted, err := numbers(ops)
	if err != nil {
		return err
	}
	if ops != "" {
		var kept []PlannedOp
		for _, o := range p.Ops {
			if wanted[int(o.ID)] {
				kept = append(kept, o)
			}
		}
		p.Ops = kept
	}
	if wanted, err = numbers(faults); err != nil {
		return err
	}
	if faults != "" {
		var kept []PlannedFault
		for _, f := range p.Faults {
			if wanted[f.ID] {
				kept = append(kept, f)
			}
		}
		p.Faults = kept
	}
	return nil
}

func numbers(text string) (map[int]bool, error) {
	m := map[int]bool{}
	if text == "" || text == "none" {
		return m, nil
	}
	for _, part := range strings.Split(text, ",") {
		lo, hi, found := strings.Cut(part, "-")
		if !found {
			hi = lo
		}
		a, err := strconv.Atoi(lo)
		if err != nil {
			return nil, fmt.Errorf("%q is not a list of numbers as 1-5,9", text)
		}
		b, err := strconv.Atoi(hi)
		if err != nil || b < a || b-a > 1<<20 {
			return nil, fmt.Errorf("%q is not a list of numbers as 1-5,9", text)
		}
		for i := a; i <= b; i++ {
			m[i] = true
		}
	}
	return m, nil
}

// list is numbers' inverse; they are sorted.
func list(n []int) string {
	if len(n) == 0 {
		return "none"
	}
	var b strings.Builder
	for i := 0; i < len(n); {
		j := i
		for j+1 < len(n) && n[j+1] == n[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if b.WriteString(strconv.Itoa(n[i])); j > i {
			fmt.Fprintf(&b, "-%d", n[j])
		}
		i = j + 1
	}
	return b.String()
}

// shrinkRuns is how many runs a search may take: a few minutes. What has been found by then still fails, and may be longer than need be.
const shrinkRuns = 1500

// Shrink looks for a shorter schedule of a seed that still fails in the same way, and prints what it keeps and how to replay that. It reports whether the seed fails at all.
func Shrink(seed Seed, out io.Writer) bool {
	s := shrinking{plan: NewPlanOf(seed.N, seed.Draw), out: out, most: shrinkRuns, run: func(p *Plan) []string { return RunPlan(p, nil, slog.LevelError).Violations }}
	return s.search()
}

// shrinking is the search for a shorter schedule: it leaves out faults, then operations, in ever smaller pieces, as long as run finds the same wrong.
type shrinking struct {
	plan *Plan // not changed
	out  io.Writer
	run  func(*Plan) []string // the violations
	most int                  // runs
	runs int

	ops, faults []int // what is kept
	what        string
	last        string // the violation of the shortest schedule so far
}

func (s *shrinking) search() bool {
	for _, o := range s.plan.Ops {
		s.ops = append(s.ops, int(o.ID))
	}
	for _, f := range s.plan.Faults {
		s.faults = append(s.faults, f.ID)
	}
	slices.Sort(s.ops)
	first := s.try(s.ops, s.faults)
	if len(first) == 0 {
		fmt.Fprintf(s.out, "%v does not fail\n", s.plan.Of())
		return false
	}
	s.last, s.what = first[0], wrong(first[0])
	fmt.Fprintf(s.out, "seed %d: %s\n", s.plan.Seed, firstLines(s.last, 12))
	for before := -1; before != len(s.ops)+len(s.faults) && s.runs < s.most; {
		before = len(s.ops) + len(s.faults)
		s.faults = reduce(s.faults, func(f []int) bool { return s.fails(s.ops, f) })
		fmt.Fprintf(s.out, "after %d runs: %d faults and %d operations still fail\n", s.runs, len(s.faults), len(s.ops))
		s.ops = reduce(s.ops, func(o []int) bool { return s.fails(o, s.faults) })
		fmt.Fprintf(s.out, "after %d runs: %d faults and %d operations still fail\n", s.runs, len(s.faults), len(s.ops))
	}
	s.print()
	return true
}

// try runs the plan with only these operations and faults.
func (s *shrinking) try(ops, faults []int) []string {
	p := *s.plan
	if err := p.Keep(list(ops), list(faults)); err != nil {
		panic(err)
	}
	s.runs++
	return s.run(&p)
}

// fails reports whether a schedule fails as the whole one does: another violation may be another bug, and leads away from this one.
func (s *shrinking) fails(ops, faults []int) bool {
	if s.runs >= s.most {
		return false
	}
	for _, v := range s.try(ops, faults) {
		if wrong(v) == s.what {
			s.last = v
			return true
		}
	}
	return false
}

func (s *shrinking) print() {
	if s.runs >= s.most {
		fmt.Fprintf(s.out, "%d runs are the most; a shorter schedule may be left\n", s.most)
	}
	fmt.Fprintf(s.out, "it is: %s\nwhat is kept:\n", firstLines(s.last, 24))
	p := *s.plan
	if err := p.Keep(list(s.ops), list(s.faults)); err != nil {
		panic(err)
	}
	for i := range p.Faults {
		fmt.Fprintf(s.out, "  %v\n", &p.Faults[i])
	}
	for i := range p.Ops {
		if i == 20 {
			fmt.Fprintf(s.out, "  and %d operations more\n", len(p.Ops)-i)
			break
		}
		fmt.Fprintf(s.out, "  %v\n", &p.Ops[i])
	}
	fmt.Fprintf(s.out, "replay: make sim %v FAULTS=%s OPS=%s\n", p.Of(), list(s.faults), list(s.ops))
}

// details are what differs between two violations of the same kind: names in parentheses and brackets, words in a list of kinds, numbers.
var details = regexp.MustCompile(`\([^()]*\)|\[[^\]]*\]|[0-9a-fx]*[0-9][0-9a-z.:]*`)

// wrong is the kind of a violation: its first line without what is this run's.
func wrong(violation string) string {
	_, text, _ := strings.Cut(violation, ": ") // behind the moment
	text, _, _ = strings.Cut(text, "\n")
	return strings.Join(strings.Fields(details.ReplaceAllString(text, " ")), " ")
}

// firstLines is the beginning of a long text.
func firstLines(text string, n int) string {
	lines := strings.SplitN(text, "\n", n+1)
	if len(lines) > n {
		lines[n] = "..."
	}
	return strings.Join(lines, "\n  ")
}

// reduce leaves pieces of a list out, halves first, as long as the rest fails.
func reduce(all []int, fails func([]int) bool) []int {
	for size := (len(all) + 1) / 2; size >= 1 && len(all) > 0; size /= 2 {
		for at := 0; at < len(all); {
			rest := append(append([]int(nil), all[:at]...), all[min(at+size, len(all)):]...)
			if fails(rest) {
				all = rest
			} else {
				at += size
			}
		}
	}
	return all
}
