package nbd

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/frontends/nbd"
)

// BenchmarkFio measures our server over an image in memory beside nbdkit's memory plugin, by the same fio in the same run. One iteration is two seconds of load:
// go test -run '^$' -bench Fio -benchtime 1x ./tests/nbd
func BenchmarkFio(b *testing.B) {
	for _, rw := range []string{"randread", "randwrite"} {
		for _, depth := range []int{1, 32} {
			for _, who := range []string{"uring", "portable", "nbdkit"} {
				b.Run(fmt.Sprintf("%s/depth=%d/server=%s", rw, depth, who), func(b *testing.B) {
					uri := ""
					if who == "nbdkit" {
						uri = nbdkit(b)
					} else {
						uri = start(b, who, nbd.Options{}, image("demo", 0)).unixURI("demo")
					}
					client(b, "fio", "--name=fill", "--ioengine=nbd", "--uri="+uri, "--rw=write", "--bs=1m", "--size=64m")
					for b.Loop() {
						measure(b, uri, rw, depth)
					}
				})
			}
		}
	}
}

func measure(b *testing.B, uri, rw string, depth int) {
	var out struct {
		Jobs []struct {
			Read, Write struct {
				IOPS float64
				Clat struct{ Percentile map[string]float64 } `json:"clat_ns"`
			}
		}
	}
	report := filepath.Join(b.TempDir(), "report.json") // what fio prints has warnings in between
	client(b, "fio", "--output="+report, "--name=bench", "--ioengine=nbd", "--uri="+uri, "--rw="+rw, "--bs=4k", fmt.Sprintf("--iodepth=%d", depth), "--size=64m",
		"--time_based", "--runtime=2", "--output-format=json")
	text, err := os.ReadFile(report)
	if err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		b.Fatalf("fio: %v\n%s", err, text)
	}
	j := out.Jobs[0]
	side := j.Read
	if rw == "randwrite" {
		side = j.Write
	}
	b.ReportMetric(side.IOPS, "iops")
	b.ReportMetric(side.Clat.Percentile["50.000000"]/1000, "p50-us")
	b.ReportMetric(side.Clat.Percentile["99.000000"]/1000, "p99-us")
	b.ReportMetric(0, "ns/op")
}

// nbdkit serves 64 MiB of memory until the benchmark ends.
func nbdkit(b *testing.B) (uri string) {
	path, err := exec.LookPath("nbdkit")
	if err != nil {
		b.Fatalf("nbdkit is not installed: apt install %s", debian["nbdkit"])
	}
	socket := filepath.Join(b.TempDir(), "nbdkit.sock")
	cmd := exec.Command(path, "--foreground", "--unix", socket, "memory", "64M")
	cmd.Stderr = b.Output()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill() // ours, and holds nothing
		_ = cmd.Wait()
	})
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			return "nbd+unix:///?socket=" + socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("nbdkit does not listen")
	return ""
}
