package cluster

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

var (
	only    = flag.String("fault", "", "only the faults whose names match this expression")
	update  = flag.Bool("update", false, "write testdata/faults.json from what is measured, and the table of docs/proof.md from that")
	results = flag.String("results", "", "write what is measured to this file, too")
)

// result is what is known of one fault.
type result struct {
	Fault   string `json:"fault"`
	Rounds  int    `json:"rounds"`
	Gap     int64  `json:"without_io_ms"`      // the longest time without any answer
	Slowest int64  `json:"slowest_request_ms"` // from the request to its answer
}

// all are the results of this run, in order.
var all []result

// measured prints and keeps what one round of a fault showed.
func measured(name string, gap, slowest time.Duration) {
	fmt.Printf("%s: longest time without I/O %s, slowest request %s\n", name, seconds(gap.Milliseconds()), seconds(slowest.Milliseconds()))
	if len(all) == 0 || all[len(all)-1].Fault != name {
		all = append(all, result{Fault: name})
	}
	r := &all[len(all)-1]
	r.Rounds++
	r.Gap, r.Slowest = max(r.Gap, gap.Milliseconds()), max(r.Slowest, slowest.Milliseconds())
}

// seconds rounds to 10 ms.
func seconds(ms int64) string { return fmt.Sprintf("%.2f s", float64(ms)/1000) }

const (
	jsonFile = "testdata/faults.json"
	begin    = "<!-- tests/cluster -update writes from here -->\n"
	end      = "<!-- to here -->\n"
)

// record writes the results where the flags say.
func record(t *testing.T) {
	t.Helper()
	b, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	if *results != "" {
		if err := os.WriteFile(*results, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !*update || t.Failed() {
		return
	}
	if len(all) != len(faults) {
		t.Fatalf("%d of %d faults were measured: run -update with all", len(all), len(faults))
	}
	if err := os.MkdirAll(filepath.Dir(jsonFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(jsonFile, b, 0o644); err != nil {
		t.Fatal(err)
	}
	doc, before, after := proof(t)
	if err := os.WriteFile(doc, []byte(before+table(all)+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// proof is docs/proof.md around its table.
func proof(t *testing.T) (path, before, after string) {
	t.Helper()
	path = filepath.Join(stand.Root(t), "docs", "proof.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", path, begin, end)
	}
	return path, before + begin, end + after
}

func table(all []result) string {
	var b strings.Builder
	b.WriteString("| fault | rounds | longest time without I/O | slowest request |\n|---|---:|---:|---:|\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", r.Fault, r.Rounds, seconds(r.Gap), seconds(r.Slowest))
	}
	return b.String()
}

// TestProofIsWhatWasMeasured compares the table of docs/proof.md with testdata/faults.json, and both with the faults that there are.
func TestProofIsWhatWasMeasured(t *testing.T) {
	b, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	var kept []result
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&kept); err != nil {
		t.Fatalf("%s: %v", jsonFile, err)
	}
	if len(kept) != len(faults) {
		t.Fatalf("%s tells of %d faults, there are %d: run the test with -update", jsonFile, len(kept), len(faults))
	}
	for i, r := range kept {
		if r.Fault != faults[i].name {
			t.Errorf("fault %d is %q in %s, and %q in the test", i, r.Fault, jsonFile, faults[i].name)
		}
	}
	path, before, after := proof(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != before+table(kept)+after {
		t.Errorf("the table of %s is not that of %s: run the test with -update", path, jsonFile)
	}
}
