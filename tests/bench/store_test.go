package bench

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// storeSize is the size of the file that fio and the store use in turn.
const storeSize = 2 << 30

type storeRow struct {
	cell
	raw, store figure
}

// measureStore runs the store alone on a file, fio on the same file before and after.
func measureStore(t *testing.T, path string) []storeRow {
	t.Helper()
	allocated(t, path, storeSize)
	root := stand.Root(t)
	bench := t.TempDir() + "/store.test"
	cmd := exec.Command("go", "test", "-c", "-o", bench, "./osd/store")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c ./osd/store: %v\n%s", err, out)
	}
	var rows []storeRow
	for _, c := range []cell{{"randwrite", "4k", 1}, {"randwrite", "4k", 32}, {"randread", "4k", 1}, {"randread", "4k", 32}} {
		before := raw(t, c, path, "1g")
		r := storeRow{cell: c, store: runStore(t, bench, path, c)}
		r.raw = mean(before, raw(t, c, path, "1g"))
		t.Logf("store: %v: fio %.0f IOPS, store %.0f IOPS (%.2f), %.2f flushes per op", c, r.raw.iops, r.store.iops, r.store.iops/r.raw.iops, r.store.flushes)
		rows = append(rows, r)
	}
	return rows
}

var metric = regexp.MustCompile(`([0-9.e+-]+) (ns/op|IOPS|flushes/op|device-writes/op|cpu-us/op)`)

// runStore runs osd/store's own benchmark on the file, which it formats.
func runStore(t *testing.T, bench, path string, c cell) figure {
	t.Helper()
	what := "read"
	if c.writes() {
		what = "write"
	}
	cmd := exec.Command(bench, "-test.run=^$", fmt.Sprintf("-test.bench=^BenchmarkStore$/^%s$/^full$/^size=4KiB$/^depth=%d$", what, c.depth), fmt.Sprintf("-test.benchtime=%v", cellTime))
	cmd.Env = append(os.Environ(), "HOLDFAST_BENCH_DISK="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	var f figure
	for _, m := range metric.FindAllStringSubmatch(strings.ReplaceAll(string(out), "\t", " "), -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		switch m[2] {
		case "ns/op":
			f.latency = time.Duration(v * float64(c.depth))
		case "IOPS":
			f.iops = v
		case "flushes/op":
			f.flushes = v
		case "device-writes/op":
			f.writes = v
		case "cpu-us/op":
			f.cpu = v
		}
	}
	if f.iops == 0 {
		t.Fatalf("the store's benchmark printed no figures:\n%s", out)
	}
	return f
}
