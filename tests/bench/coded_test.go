package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// streamFloor is how fast whole stripes are written one after the other, of what three copies do: less fails the run (issue 5).
const streamFloor = 1.0

// settle is how long small writes that are in a journal have to get to their blocks before the bytes are counted that devices were given.
const settle = 3 * time.Second

var codedPools = []struct{ name, flag, value, minsize string }{
	{"replicated 3", "--pg_size", "3", "2"},
	{"2+1", "--ec", "2+1", "2"},
	{"4+2", "--ec", "4+2", "5"},
}

type codedRow struct {
	cell
	pools [3]figure // as codedPools
}

// TestBenchCoded measures erasure-coded pools beside a replicated one, on the same six OSDs.
func TestBenchCoded(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_BENCH") == "" {
		t.Skip("measurements are run by `make bench`")
	}
	d := stand.StartPlan(t, stand.Plan{OSDs: 6, OSDSize: 3 << 30, Copies: 3, MinSize: 2, PGs: 32})
	where := func(i int) []string {
		return []string{"--ioengine=nbd", "--uri=nbd://" + d.NBD + "/bench" + strconv.Itoa(i)}
	}
	for i, p := range codedPools {
		pool := "pool" // the one that is there
		if i > 0 {
			pool = "coded" + strconv.Itoa(i)
			d.CLI("create-pool", pool, p.flag, p.value, "--pg_minsize", p.minsize, "--pg_count", "32", "--failure_domain", "osd")
			d.AwaitActive(time.Minute)
		}
		d.CLI("create", "bench"+strconv.Itoa(i), "--pool", pool, "--size", "1G")
		stand.Run(t, "fio", append(where(i), "--name=fill", "--rw=write", "--bs=1m", "--iodepth=8", "--size=1g", "--refill_buffers")...)
	}
	var rows []codedRow
	for _, c := range []cell{
		{"randwrite", "4k", 1}, {"randwrite", "4k", 32}, {"randread", "4k", 1}, {"randread", "4k", 32},
		{"write", "1m", 4}, {"read", "1m", 4},
	} {
		r := codedRow{cell: c}
		measure := func(i int) figure {
			before := written(t, d)
			f := fio(t, c, "1g", where(i)...)
			if c.writes() {
				time.Sleep(settle)
				f.amplification = float64(written(t, d)-before) / f.bytes
			}
			t.Logf("%v, %s: %.0f IOPS, %v, %.2f bytes written per byte", c, codedPools[i].name, f.iops, f.latency, f.amplification)
			return f
		}
		before := measure(0)
		r.pools[1], r.pools[2] = measure(1), measure(2)
		r.pools[0] = mean(before, measure(0))
		r.pools[0].amplification = before.amplification
		rows = append(rows, r)
	}
	tables := renderCoded(rows)
	fmt.Print(tables)
	replace(t, "coded", measured()+tables)
	for _, r := range rows {
		for i, p := range codedPools {
			if r.rw == "write" && r.pools[i].iops < streamFloor*r.pools[0].iops {
				t.Errorf("floor missed: %v: %s does %.2f of three copies, wanted %.2f", r.cell, p.name, r.pools[i].iops/r.pools[0].iops, streamFloor)
			}
		}
	}
}

func renderCoded(rows []codedRow) string {
	var b strings.Builder
	b.WriteString("| load | replicated 3 | 2+1 | ratio | 4+2 | ratio | latency (99 %): replicated 3 | 2+1 | 4+2 | bytes written to disks per byte |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		rep, few, many := r.pools[0], r.pools[1], r.pools[2]
		disks := ""
		if r.writes() {
			disks = fmt.Sprintf("%.1f, %.1f, %.1f", rep.amplification, few.amplification, many.amplification)
		}
		fmt.Fprintf(&b, "| %v | %.0f/s | %.0f/s | %.2f | %.0f/s | %.2f | %s (%s) | %s (%s) | %s (%s) | %s |\n", r.cell, rep.iops, few.iops, few.iops/rep.iops, many.iops, many.iops/rep.iops,
			us(rep.latency), us(rep.p99), us(few.latency), us(few.p99), us(many.latency), us(many.p99), disks)
	}
	return b.String()
}

// written is how many bytes all OSDs have given to their devices (proc_pid_io(5), write_bytes).
func written(t *testing.T, d *stand.Daemons) int64 {
	t.Helper()
	var sum int64
	for n := range d.OSDs {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.Child(n)), "io"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var bytes int64
			if _, err := fmt.Sscanf(line, "write_bytes: %d", &bytes); err == nil {
				sum += bytes
			}
		}
	}
	return sum
}
