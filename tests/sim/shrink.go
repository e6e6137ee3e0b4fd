package sim

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
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

// Shrink looks for a shorter schedule of a seed that still fails: it leaves out faults, then operations, in ever smaller pieces, as long as anything is violated.
func Shrink(seed uint64, out io.Writer) bool {
	full := NewPlan(seed)
	var ops, faults []int
	for _, o := range full.Ops {
		ops = append(ops, int(o.ID))
	}
	for _, f := range full.Faults {
		faults = append(faults, f.ID)
	}
	slices.Sort(ops)
	runs := 0
	var last *Report
	fails := func(ops, faults []int) bool {
		p := NewPlan(seed)
		if err := p.Keep(list(ops), list(faults)); err != nil {
			panic(err)
		}
		runs++
		rep := RunPlan(p, nil, slog.LevelError)
		if len(rep.Violations) > 0 {
			last = rep
		}
		return len(rep.Violations) > 0
	}
	if !fails(ops, faults) {
		fmt.Fprintf(out, "seed %d does not fail\n", seed)
		return false
	}
	for {
		before := len(ops) + len(faults)
		faults = reduce(faults, func(f []int) bool { return fails(ops, f) })
		ops = reduce(ops, func(o []int) bool { return fails(o, faults) })
		fmt.Fprintf(out, "%d faults and %d operations still fail, after %d runs\n", len(faults), len(ops), runs)
		if len(ops)+len(faults) == before || runs > 600 {
			break
		}
	}
	fmt.Fprintf(out, "it is: %s\n", last.Violations[0])
	for i := range full.Faults {
		for _, id := range faults {
			if full.Faults[i].ID == id {
				fmt.Fprintf(out, "  %v\n", &full.Faults[i])
			}
		}
	}
	fmt.Fprintf(out, "replay: make sim SEED=%d FAULTS=%s OPS=%s\n", seed, list(faults), list(ops))
	return true
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
