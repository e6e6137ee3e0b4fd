package cluster

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/tests/marked"
	"holdfast/tests/stand"
)

var (
	only    = flag.String("fault", "", "only the faults whose names match this expression")
	update  = flag.Bool("update", false, "write what is measured into testdata, and the tables of docs/proof.md from that")
	results = flag.String("results", "", "write what is measured to this file, too")
)

// result is what is known of one fault.
type result struct {
	Fault   string `json:"fault"`
	Rounds  int    `json:"rounds"`
	Gap     int64  `json:"without_io_ms"`      // the longest time without any answer
	Slowest int64  `json:"slowest_request_ms"` // from the request to its answer
}

// A report is one table of docs/proof.md. What it is made from is kept beside the tests, so that both can be compared.
type report struct {
	name  string // of its file in testdata, and in the marks around its table
	names []string

	mu  sync.Mutex
	all []result // guarded by mu
}

// measured prints and keeps what one round of a fault showed.
func (p *report) measured(name string, gap, slowest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Printf("%s: longest time without I/O %s, slowest request %s\n", name, seconds(gap.Milliseconds()), seconds(slowest.Milliseconds()))
	i := slices.IndexFunc(p.all, func(r result) bool { return r.Fault == name })
	if i < 0 {
		i = len(p.all)
		p.all = append(p.all, result{Fault: name})
	}
	r := &p.all[i]
	r.Rounds++
	r.Gap, r.Slowest = max(r.Gap, gap.Milliseconds()), max(r.Slowest, slowest.Milliseconds())
}

// seconds rounds to 10 ms.
func seconds(ms int64) string { return fmt.Sprintf("%.2f s", float64(ms)/1000) }

func (p *report) file() string { return filepath.Join("testdata", p.name+".json") }

// record writes the results where the flags say.
func (p *report) record(t *testing.T) {
	t.Helper()
	slices.SortFunc(p.all, func(a, b result) int { return slices.Index(p.names, a.Fault) - slices.Index(p.names, b.Fault) })
	b, err := json.MarshalIndent(p.all, "", "\t")
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
	if len(p.all) != len(p.names) {
		t.Fatalf("%d of %d faults were measured: run -update with all", len(p.all), len(p.names))
	}
	if err := os.WriteFile(p.file(), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.proof(t).Write(table(p.all)); err != nil {
		t.Fatal(err)
	}
}

// proof is the place of the report's table in docs/proof.md.
func (p *report) proof(t *testing.T) *marked.Part {
	t.Helper()
	part, err := marked.Open(filepath.Join(stand.Root(t), "docs", "proof.md"), "<!-- tests/cluster -update writes "+p.name+" from here -->\n", "<!-- to here -->\n")
	if err != nil {
		t.Fatal(err)
	}
	return part
}

func table(all []result) string {
	var b strings.Builder
	b.WriteString("| fault | rounds | longest time without I/O | slowest request |\n|---|---:|---:|---:|\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", r.Fault, r.Rounds, seconds(r.Gap), seconds(r.Slowest))
	}
	return b.String()
}

// TestProofIsWhatWasMeasured compares the tables of docs/proof.md with what was measured, and both with the faults that there are.
func TestProofIsWhatWasMeasured(t *testing.T) {
	for _, p := range []*report{every, fewer} {
		b, err := os.ReadFile(p.file())
		if err != nil {
			t.Fatal(err)
		}
		var kept []result
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&kept); err != nil {
			t.Fatalf("%s: %v", p.file(), err)
		}
		if len(kept) != len(p.names) {
			t.Fatalf("%s tells of %d faults, there are %d: run the test with -update", p.file(), len(kept), len(p.names))
		}
		for i, r := range kept {
			if r.Fault != p.names[i] {
				t.Errorf("fault %d is %q in %s, and %q in the test", i, r.Fault, p.file(), p.names[i])
			}
			_, name, prefixed := strings.Cut(r.Fault, " copies: ")
			if !prefixed {
				name = r.Fault
			}
			if most := promised[name]; most > 0 && r.Gap > most.Milliseconds() {
				t.Errorf("%s tells of %d ms without I/O after %q, promised are %v", p.file(), r.Gap, r.Fault, most)
			}
		}
		if p.proof(t).Text != table(kept) {
			t.Errorf("a table of docs/proof.md is not that of %s: run the test with -update", p.file())
		}
	}
}
