package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/tests/marked"
	"holdfast/tests/stand"
)

// The floors: what is missed fails the run.
const (
	storeFloor   = 0.60 // of fio's rate, 4k random write at depth 32
	latencyFloor = 5    // times fio's latency, over NBD at depth 1
)

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }

// TestReport measures for about four minutes, if HOLDFAST_TEST_BENCH is set, and replaces the tables of docs/performance.md.
func TestReport(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_BENCH") == "" {
		t.Skip("measurements are run by `make bench`")
	}
	path := filepath.Join(t.TempDir(), "disk")
	store := measureStore(t, path)
	nbd := measureNBD(t, path)
	tables := render(store, nbd)
	fmt.Print(tables)
	replace(t, "bench", tables)
	if r := store[1]; r.store.iops < storeFloor*r.raw.iops {
		t.Errorf("floor missed: %v: the store does %.0f %% of fio, wanted %.0f %%", r.cell, 100*r.store.iops/r.raw.iops, 100*storeFloor)
	}
	for _, i := range []int{0, 2} {
		if r := nbd[i]; r.nbd.latency > latencyFloor*r.raw.latency {
			t.Errorf("floor missed: NBD %v takes %.1f times a raw one, wanted at most %d", r.cell, float64(r.nbd.latency)/float64(r.raw.latency), latencyFloor)
		}
	}
}

func us(d time.Duration) string { return fmt.Sprintf("%d us", d.Microseconds()) }

// measured says when and on what.
func measured() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // a missing kernel version is no reason to measure nothing
	return fmt.Sprintf("Measured on %s with Linux %s, %d processors, %s.\n\n", time.Now().Format("2006-01-02"), unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), runtime.Version())
}

func render(store []storeRow, nbd []nbdRow) string {
	var b strings.Builder
	b.WriteString(measured())
	b.WriteString("**The store alone**\n\n| load | fio | store | ratio | latency fio / store | flushes, device writes, processor time per op |\n|---|---|---|---|---|---|\n")
	for _, r := range store {
		fmt.Fprintf(&b, "| %v | %.0f/s | %.0f/s | %.2f | %s / %s | %.2f, %.2f, %.0f us |\n", r.cell, r.raw.iops, r.store.iops, r.store.iops/r.raw.iops, us(r.raw.latency), us(r.store.latency), r.store.flushes, r.store.writes, r.store.cpu)
	}
	b.WriteString("\n**NBD to a cluster of three OSDs, three copies, on one disk**\n\n| load | fio on the disk | over NBD | ratio | latency disk / NBD | times | 99 % disk / NBD |\n|---|---|---|---|---|---|---|\n")
	for _, r := range nbd {
		fmt.Fprintf(&b, "| %v | %.0f/s | %.0f/s | %.2f | %s / %s | %.1f | %s / %s |\n", r.cell, r.raw.iops, r.nbd.iops, r.nbd.iops/r.raw.iops, us(r.raw.latency), us(r.nbd.latency),
			float64(r.nbd.latency)/float64(r.raw.latency), us(r.raw.p99), us(r.nbd.p99))
	}
	return b.String()
}

// replace puts tables between the markers of that name in docs/performance.md.
func replace(t *testing.T, name, tables string) {
	t.Helper()
	part, err := marked.Open(filepath.Join(stand.Root(t), "docs", "performance.md"), "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->\n")
	if err == nil {
		err = part.Write(tables)
	}
	if err != nil {
		t.Error(err)
	}
}
