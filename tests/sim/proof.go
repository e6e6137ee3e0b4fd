package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"holdfast/core/sim"
	"holdfast/tests/marked"
)

// recorded is what is kept of a run of many seeds: docs/proof.md adds these up.
type recorded struct {
	Commit     string            `json:"commit"`
	Seeds      int               `json:"seeds"`
	Simulated  float64           `json:"simulated_seconds"`
	Ops        int               `json:"operations"`
	Faults     int               `json:"faults"`
	Overlaps   int               `json:"overlapping"`
	GaveUp     int               `json:"gave_up"`
	Violations int               `json:"seeds_with_violations"`
	Mended     string            `json:"mended_in,omitempty"`
	Real       float64           `json:"seconds"`
	CPU        float64           `json:"processor_seconds,omitempty"` // of this and what follows earlier runs kept nothing
	Kinds      map[string]int    `json:"faults_by_kind,omitempty"`
	Did        map[string]uint64 `json:"what_they_did,omitempty"`
}

// Where runs are kept, below the module's root, and where their table is in docs/proof.md.
var (
	runsFile  = filepath.Join("tests", "sim", "testdata", "runs.json")
	proofFile = filepath.Join("docs", "proof.md")
)

const (
	proofBegin = "<!-- simulate -record writes from here -->\n"
	proofEnd   = "<!-- simulate -record writes up to here -->\n"
)

// Record adds a run to those that docs/proof.md adds up; root is the module's.
func (t *Totals) Record(root string) error {
	runs, err := readRuns(root)
	if err != nil {
		return err
	}
	x := recorded{Commit: "no commit", Seeds: t.Seeds, Simulated: t.Simulated.Round(time.Second).Seconds(), Ops: t.Ops, Faults: t.Struck, Overlaps: t.Overlaps, GaveUp: t.GaveUp, Violations: len(t.Failed),
		Real: t.Real.Round(time.Second).Seconds(), CPU: t.CPU.Round(time.Second).Seconds(), Kinds: t.Faults, Did: map[string]uint64{}}
	for i, n := range t.Did {
		if n > 0 {
			x.Did[sim.Fault(i).String()] = n
		}
	}
	if out, err := exec.Command("git", "-C", root, "describe", "--always", "--dirty", "--exclude=*").Output(); err == nil {
		x.Commit = strings.TrimSpace(string(out))
	}
	runs = append(runs, x)
	b, err := json.MarshalIndent(runs, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, runsFile), append(b, '\n'), 0o644); err != nil {
		return err
	}
	part, err := proofPart(root)
	if err != nil {
		return err
	}
	return part.Write(proofTables(runs))
}

func readRuns(root string) (runs []recorded, err error) {
	b, err := os.ReadFile(filepath.Join(root, runsFile))
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&runs); err != nil {
		return nil, fmt.Errorf("%s: %w", runsFile, err)
	}
	return runs, nil
}

// proofPart is the place of the tables in docs/proof.md.
func proofPart(root string) (*marked.Part, error) {
	return marked.Open(filepath.Join(root, proofFile), proofBegin, proofEnd)
}

// proofTables are the runs with their sum, and the faults by kind.
func proofTables(runs []recorded) string {
	var b strings.Builder
	var sum, kept recorded
	kept.Kinds, kept.Did = map[string]int{}, map[string]uint64{}
	b.WriteString("| commit | seeds | simulated hours | operations | faults (overlapping) | checks that gave up | seeds with violations | time | processor time |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	line := func(name string, x *recorded) {
		faults, cpu, mended := "", "", ""
		if x.Faults > 0 {
			faults = fmt.Sprintf("%d (%d)", x.Faults, x.Overlaps)
		}
		if x.CPU > 0 {
			cpu = spell(x.CPU)
		}
		if x.Mended != "" {
			mended = ", mended in " + x.Mended
		}
		fmt.Fprintf(&b, "| %s | %d | %.1f | %d | %s | %d | %d%s | %s | %s |\n", name, x.Seeds, x.Simulated/3600, x.Ops, faults, x.GaveUp, x.Violations, mended, spell(x.Real), cpu)
	}
	for i := range runs {
		x := &runs[i]
		line(x.Commit, x)
		sum.Seeds += x.Seeds
		sum.Simulated += x.Simulated
		sum.Ops += x.Ops
		sum.Faults += x.Faults
		sum.Overlaps += x.Overlaps
		sum.GaveUp += x.GaveUp
		sum.Violations += x.Violations
		sum.Real += x.Real
		if x.CPU > 0 {
			kept.Seeds += x.Seeds
			kept.Simulated += x.Simulated
			kept.CPU += x.CPU
		}
		for k, n := range x.Kinds {
			kept.Kinds[k] += n
		}
		for k, n := range x.Did {
			kept.Did[k] += n
		}
	}
	line("**sum**", &sum)
	if kept.CPU == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "\nOf %d seeds more was kept: %.0f simulated seconds per second of processor time, and the faults by kind.\n\n| fault | times |\n|---|---:|\n", kept.Seeds, kept.Simulated/kept.CPU)
	for i := range faultKinds {
		fmt.Fprintf(&b, "| %s | %d |\n", faultKinds[i].name, kept.Kinds[faultKinds[i].name])
	}
	b.WriteString("\n| what they did | times |\n|---|---:|\n")
	for i := range sim.NumFaults {
		if n := kept.Did[i.String()]; n > 0 {
			fmt.Fprintf(&b, "| %v | %d |\n", i, n)
		}
	}
	return b.String()
}

// spell writes seconds as a person would.
func spell(seconds float64) string {
	s := int(seconds)
	return fmt.Sprintf("%d min %02d s", s/60, s%60)
}
