package sim

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestProofIsWhatWasRun compares docs/proof.md with the runs that were recorded, and records one in a copy of both.
func TestProofIsWhatWasRun(t *testing.T) {
	root := filepath.Join("..", "..")
	runs, err := readRuns(root)
	if err != nil {
		t.Fatal(err)
	}
	part, err := proofPart(root)
	if err != nil {
		t.Fatal(err)
	}
	if part.Text != proofTables(runs) {
		t.Errorf("the tables of %s are not those of %s", proofFile, runsFile)
	}
	text, err := os.ReadFile(filepath.Join(root, proofFile))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i := range faultKinds {
		names[faultKinds[i].name] = true
	}
	for _, x := range runs {
		for _, k := range slices.Sorted(maps.Keys(x.Kinds)) {
			if !names[k] {
				t.Errorf("the run of %s has the fault %q, which there is not", x.Commit, k)
			}
		}
	}

	dir := t.TempDir()
	kept, err := os.ReadFile(filepath.Join(root, runsFile))
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{proofFile: text, runsFile: kept} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	more := everything(123)
	more.Struck, more.Simulated, more.Real, more.CPU = 77, 90*time.Minute, 61*time.Second, 100*time.Second
	if err := more.Record(dir); err != nil {
		t.Fatal(err)
	}
	again, err := readRuns(dir)
	if err != nil || len(again) != len(runs)+1 || again[len(runs)].Seeds != 123 {
		t.Fatalf("%d runs are recorded, %v; want one more than %d", len(again), err, len(runs))
	}
	text, err = os.ReadFile(filepath.Join(dir, proofFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| no commit | 123 | 1.5 | 0 | 77 (0) | 0 | 0 | 1 min 01 s | 1 min 40 s |\n| **sum** |", "| OSD killed | ", "| cached writes reordered | "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no %q", proofFile, want)
		}
	}
}
