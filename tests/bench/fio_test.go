package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// cellTime is how long one figure is measured.
const cellTime = 5 * time.Second

// figure is what one run of a load gave.
type figure struct {
	iops    float64
	latency time.Duration // mean
	p99     time.Duration
	flushes float64 // per op; of the store only
	writes  float64 // device writes per op; of the store only
	cpu     float64 // us per op; of the store only
	bytes   float64 // read or written in all
	// amplification is bytes that devices were given for each byte written; only where it was measured.
	amplification float64
}

// cell is one load.
type cell struct {
	rw    string // fio's name
	block string
	depth int
}

func (c cell) String() string {
	pattern := map[string]string{"randwrite": "random write", "randread": "random read", "write": "sequential write", "read": "sequential read"}[c.rw]
	return fmt.Sprintf("%s %s, depth %d", c.block, pattern, c.depth)
}

func (c cell) writes() bool { return c.rw == "write" || c.rw == "randwrite" || c.rw == "randrw" }

// fio runs a load; where says engine and target.
func fio(t *testing.T, c cell, size string, where ...string) figure {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json") // what fio prints has warnings in between
	args := append([]string{"--name=bench", "--output=" + report, "--output-format=json", "--rw=" + c.rw, "--bs=" + c.block, fmt.Sprintf("--iodepth=%d", c.depth), "--size=" + size,
		"--time_based", fmt.Sprintf("--runtime=%d", int(cellTime.Seconds())), "--norandommap", "--randrepeat=0", "--refill_buffers"}, where...)
	stand.Run(t, "fio", args...)
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	type side struct {
		IOPS  float64
		Bytes float64 `json:"io_bytes"`
		Clat  struct {
			Mean       float64
			Percentile map[string]float64
		} `json:"clat_ns"`
	}
	var out struct{ Jobs []struct{ Read, Write side } }
	if err := json.Unmarshal(text, &out); err != nil || len(out.Jobs) != 1 {
		t.Fatalf("fio's report: %v\n%s", err, text)
	}
	s := out.Jobs[0].Read
	if c.writes() {
		s = out.Jobs[0].Write
	}
	return figure{iops: s.IOPS, bytes: s.Bytes, latency: time.Duration(s.Clat.Mean), p99: time.Duration(s.Clat.Percentile["99.000000"])}
}

// raw is fio on a file, past the page cache; writes are durable when they are done.
func raw(t *testing.T, c cell, path, size string) figure {
	t.Helper()
	return fio(t, c, size, "--filename="+path, "--direct=1", "--sync=dsync", "--ioengine=io_uring")
}

// mean of two runs, one before and one after what they are compared with: the machine's speed drifts.
func mean(a, b figure) figure {
	return figure{iops: (a.iops + b.iops) / 2, latency: (a.latency + b.latency) / 2, p99: (a.p99 + b.p99) / 2}
}

// allocated makes a file of written blocks.
func allocated(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4<<20)
	for i := range p {
		p[i] = byte(i * 7)
	}
	for n := int64(0); n < size; n += int64(len(p)) {
		if _, err := f.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
