package sim

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// replayEnv names the seed whose log a child process writes to its standard output.
const replayEnv = "HOLDFAST_SIM_REPLAY"

// TestSameSeedSameLogInEveryProcess runs seeds in processes of their own that differ in everything the runtime may differ in; their logs are the same bytes.
func TestSameSeedSameLogInEveryProcess(t *testing.T) {
	if seed := os.Getenv(replayEnv); seed != "" {
		var n uint64
		if _, err := fmt.Sscan(seed, &n); err != nil {
			t.Fatal(err)
		}
		out := bufio.NewWriter(os.Stdout)
		w := everything(t, n, func(w *World) { w.Trace(out) })
		fmt.Fprintf(out, "hash %016x faults %v\n", w.Hash(), w.Faults())
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		return
	}
	child := func(seed uint64, env ...string) []byte {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSameSeedSameLogInEveryProcess$", "-test.v=false")
		cmd.Env = append(os.Environ(), append(env, fmt.Sprintf("%s=%d", replayEnv, seed))...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, stderr.Bytes())
		}
		log, _, ok := bytes.Cut(out, []byte("PASS"))
		if !ok || len(log) < 100_000 {
			t.Fatalf("seed %d: a log of %d bytes shows nothing", seed, len(log))
		}
		return log
	}
	var logs [][]byte
	for seed := range uint64(3) {
		one, four := child(seed, "GOMAXPROCS=1", "GOGC=20"), child(seed, "GOMAXPROCS=4", "GOGC=400")
		if !bytes.Equal(one, four) {
			t.Errorf("seed %d gave two logs: %s", seed, firstDifference(one, four))
		}
		hash := fmt.Sprintf("hash %016x ", everything(t, seed, func(*World) {}).Hash())
		if !bytes.Contains(one, []byte(hash)) {
			t.Errorf("seed %d: without a log the run has the %s, which is not the one with a log", seed, hash)
		}
		logs = append(logs, one)
	}
	if bytes.Equal(logs[0], logs[1]) {
		t.Error("two seeds gave one log")
	}
}

func firstDifference(a, b []byte) string {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d: %q and %q", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(x), len(y))
}

// everything runs processes that talk, write to disks and use the registry under every kind of fault.
func everything(t *testing.T, seed uint64, prepare func(w *World)) *World {
	t.Helper()
	w := NewWorld(seed)
	prepare(w)
	r := NewRegistry(w, "registry")
	r.SetFaults(RegistryFaults{LoseRequest: 0.05, LoseReply: 0.05, LateRequest: 0.5, Slow: 0.05, SlowBy: Delay{Max: 2 * time.Second}, BreakWatch: 0.05, SlowWatch: 0.1, SlowWatchBy: Delay{Max: time.Second}})
	w.Net.SetDelay(Delay{Min: 20 * time.Microsecond, Max: 300 * time.Microsecond, Worst: 50 * time.Millisecond, Rare: 0.01})
	w.Net.SetPieces(5)
	const n = 4
	var loops [n]*Loop
	for i := range loops {
		d := w.NewDisk(fmt.Sprint("disk", i), 1<<20, 512)
		d.SetFaults(DiskFaults{ReadError: 0.01, WriteError: 0.01, FlushError: 0.01, BitFlip: 0.01, Lost: 0.01, Misdirect: 0.01, Slow: 0.01, SlowBy: Delay{Max: time.Second}})
	}
	start := func(i int) {
		l := w.NewLoop(fmt.Sprint("p", i))
		loops[i] = l
		addr := func(i int) loop.Addr { return loop.Addr{Network: "tcp", Address: fmt.Sprintf("10.1.0.%d:1", i)} }
		if _, err := l.Listen(addr(i), loop.ListenOptions{}, echoListener{}); err != nil {
			t.Fatal(err)
		}
		disk, err := l.OpenDisk(fmt.Sprint("disk", i), loop.DiskOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h := r.Open(l)
		k := &keeper{w: w}
		h.Watch([]string{"k/"}, 0, k)
		h.Grant(time.Second, k)
		ref := l.Alloc(2048)
		op := &loop.DiskOp{Data: ref.Bytes()}
		op.Done = func(*loop.DiskOp) {
			op.Kind, op.Off = loop.DiskKind(1+l.Rand().IntN(4)), int64(l.Rand().IntN(200))*512
			disk.Submit(op)
		}
		op.Done(op)
		var c *client
		var tick loop.Timer
		tick.Fire = func() {
			if c == nil || c.closed > 0 {
				c = &client{}
				c.conn = l.Dial(addr(l.Rand().IntN(n)), c)
			}
			c.conn.Send(bytes.Repeat([]byte{byte(i)}, l.Rand().IntN(3000)))
			key := fmt.Sprintf("k/%d", l.Rand().IntN(5))
			h.Txn(registry.Txn{If: []registry.Compare{registry.Exists(key)}, Then: []registry.Op{{Kind: registry.Delete, Key: key}}, Else: []registry.Op{{Kind: registry.Put, Key: key}}}, func(registry.TxnResult, error) {})
			l.Arm(&tick, l.Now().Add(time.Duration(l.Rand().IntN(int(20*time.Millisecond)))))
		}
		l.Arm(&tick, l.Now())
	}
	for i := range loops {
		start(i)
	}
	backup := r.Backup()
	rng := w.Stream("test/faults")
	for range 60 {
		w.Run(time.Duration(rng.IntN(int(60 * time.Millisecond))))
		i, j := rng.IntN(n), rng.IntN(n)
		a, b := loops[i], loops[j]
		switch rng.IntN(20) {
		case 0:
			a.Kill()
			start(i)
		case 1:
			a.PowerOff()
			w.Disk(fmt.Sprint("disk", i)).Crash(CrashRandom)
			w.Reboot(a.Host())
			start(i)
		case 2:
			a.PauseFor(200 * time.Millisecond)
		case 3:
			a.SetDrift(int64(rng.IntN(200_001)) - 100_000)
		case 4:
			a.JumpClock(time.Second)
		case 5:
			w.Net.Cut(a, b)
		case 6:
			w.Net.CutOneWay(a, b)
		case 7, 8:
			w.Net.HealAll()
		case 9:
			w.Net.Flap(a, b, 5*time.Millisecond, 5*time.Millisecond, 100*time.Millisecond)
		case 10, 11, 12:
			w.Net.Break(a, b, Break(1+rng.IntN(3)))
		case 13:
			w.Disk(fmt.Sprint("disk", i)).StallFor(50 * time.Millisecond)
		case 14:
			r.SetDown(true)
		case 15:
			r.Cut(a, rng.IntN(2) == 0, true)
		case 16, 17:
			r.HealAll()
		case 18:
			r.Compact(r.Revision())
		case 19:
			r.Restore(backup, 0)
		}
		w.Logf("test", "round at %v", w.Elapsed())
	}
	return w
}
