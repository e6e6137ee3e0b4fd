package sim

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/sim"
)

// sameSeeds is how many seeds are run twice.
const sameSeeds = 20

// TestSameBytesInEveryProcess runs seeds in two processes with different numbers of processors and different garbage collection: their event logs are the same, byte for byte.
func TestSameBytesInEveryProcess(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_SAME") != "" {
		for seed := range uint64(sameSeeds) {
			rep := RunPlan(NewPlan(seed+1), os.Stdout, slog.LevelDebug)
			fmt.Printf("seed %d: hash %016x\n", seed+1, rep.Hash)
		}
		return
	}
	var logs [2][]byte
	for i, env := range [][]string{{"GOMAXPROCS=1", "GOGC=20"}, {"GOMAXPROCS=4", "GOGC=400"}} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSameBytesInEveryProcess$")
		cmd.Env = append(append(os.Environ(), env...), "HOLDFAST_TEST_SAME=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("the process with %v: %v", env, err)
		}
		end := bytes.LastIndex(out, []byte("seed "))
		logs[i] = out[:bytes.IndexByte(out[end:], '\n')+end] // behind that the testing package says how long it took
	}
	if bytes.Count(logs[0], []byte("\n")) < 1000*sameSeeds {
		t.Fatalf("the event log of %d seeds has only %d lines", sameSeeds, bytes.Count(logs[0], []byte("\n")))
	}
	if bytes.Equal(logs[0], logs[1]) {
		return
	}
	a, b := strings.Split(string(logs[0]), "\n"), strings.Split(string(logs[1]), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("line %d of the event log is\n%s\nin one process and\n%s\nin the other", i+1, a[i], b[i])
		}
	}
	t.Fatalf("one process wrote %d lines, the other %d", len(a), len(b))
}

// TestSeedIsWhatItMustBe checks that plans are at least what DESIGN section 13 asks of a seed.
func TestSeedIsWhatItMustBe(t *testing.T) {
	for seed := range uint64(500) {
		p := NewPlan(seed + 1)
		p.Faults = slices.DeleteFunc(p.Faults, func(f PlannedFault) bool { return f.Spare })
		if len(p.Ops) < 1000 || seedFaults < 8 || seedOverlaps < 2 || len(p.Faults) < seedFaults || p.Overlapping() < seedOverlaps || seedTime < 60*time.Second || seedOSDs < 5 || seedSlots < 3 {
			t.Errorf("seed %d: %d operations, %d faults of which %d overlap", seed+1, len(p.Ops), len(p.Faults), p.Overlapping())
		}
	}
}

// TestEachCallDroppedInTurn drops the connection of the n-th dial or send of a short run, for n = 1, 2, ... until a run needs no more calls: each time every request is answered, and what
// was acknowledged is there.
func TestEachCallDroppedInTurn(t *testing.T) {
	run := func(n uint64) (calls uint64, dropped bool) {
		c := start(t, Options{Seed: 5, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 2, DiskSize: 24 << 20})
		defer c.W.Close()
		before, broken := c.W.Net.Calls(), c.W.Faults()[sim.FaultReset]
		if n > 0 {
			c.W.Net.FailCall(n)
		}
		k := c.NewClient(7)
		for i := range 6 {
			k.Write(image, uint64(i)*64<<10, pattern(8192, byte(i)))
			if i == 3 {
				c.Nodes[1].Kill()
				c.Nodes[1].Start()
			}
		}
		for i := range 6 {
			if r := k.Read(image, uint64(i)*64<<10, 8192); !bytes.Equal(r.Data, pattern(8192, byte(i))) {
				t.Fatalf("call %d dropped: block %d reads back differently", n, i)
			}
		}
		calls = c.W.Net.Calls() - before
		c.Wait("all PGs clean", 60*time.Second, func() bool { return c.States(cluster.StateActive) })
		return calls, c.W.Faults()[sim.FaultReset] > broken
	}
	if _, dropped := run(0); dropped {
		t.Fatal("a connection was reset, and nothing was to be dropped")
	}
	n := uint64(1)
	for ; ; n++ {
		calls, dropped := run(n)
		if dropped != (n <= calls) {
			t.Fatalf("of %d calls the %d. was to be dropped: %t", calls, n, dropped)
		}
		if !dropped {
			break
		}
	}
	if n <= 50 {
		t.Errorf("only %d calls were dropped in turn", n-1)
	}
	t.Logf("%d calls dropped in turn", n-1)
}
