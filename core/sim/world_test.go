package sim

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/core/loop"
)

func TestTimersTasksAndDeferredRunInOrder(t *testing.T) {
	w := NewWorld(1)
	l := w.NewLoop("a")
	var got []string
	say := func(s string) func() { return func() { got = append(got, s) } }
	deferred := &loop.Task{Run: say("deferred")}
	first := &loop.Timer{Fire: func() { got = append(got, "first"); l.Defer(deferred); l.Defer(deferred) }}
	second := &loop.Timer{Fire: say("second")}
	moved := &loop.Timer{Fire: say("moved")}
	off := &loop.Timer{Fire: say("off")}
	l.Arm(second, l.Now().Add(2*time.Second))
	l.Arm(first, l.Now().Add(time.Second))
	l.Arm(moved, l.Now().Add(time.Second))
	l.Arm(moved, l.Now().Add(3*time.Second))
	l.Arm(off, l.Now().Add(time.Second))
	l.Disarm(off)
	task := &loop.Task{Run: say("posted")}
	l.Post(task)
	l.Post(task)
	l.Defer(&loop.Task{Run: say("deferred outside")})
	if len(got) != 0 {
		t.Fatalf("ran inside the call: %v", got)
	}
	w.Run(10 * time.Second)
	want := "deferred outside,posted,first,deferred,second,moved"
	if s := strings.Join(got, ","); s != want {
		t.Errorf("order %s, want %s", s, want)
	}
	if w.Elapsed() != 10*time.Second {
		t.Errorf("elapsed %v, want 10s", w.Elapsed())
	}
}

func TestPollingLoopMakesProgress(t *testing.T) {
	w := NewWorld(1)
	l := w.NewLoop("a")
	end := l.Now().Add(time.Millisecond)
	done := false
	var tm loop.Timer
	tm.Fire = func() {
		if done = l.Now() >= end; !done {
			l.Arm(&tm, 0)
		}
	}
	l.Arm(&tm, 0)
	if !w.RunUntil(func() bool { return done }, time.Second) {
		t.Error("a timer that is always due stops the clock")
	}
}

func TestClocksDriftApart(t *testing.T) {
	w := NewWorld(1)
	fast, slow := w.NewLoop("fast"), w.NewLoop("slow")
	fast.SetClock(time.Hour, 1000)
	slow.SetClock(0, -1000)
	start := slow.Now()
	var fired loop.Instant
	tm := &loop.Timer{Fire: func() { fired = slow.Now() }}
	slow.Arm(tm, start.Add(10*time.Second))
	w.Run(10 * time.Second)
	if fired != 0 {
		t.Error("the slow clock's timer fired by the world's time")
	}
	if d := fast.Now().Sub(slow.Now()); d != time.Hour+20*time.Millisecond {
		t.Errorf("clocks are %v apart, want 1h0m0.02s", d)
	}
	w.Run(20 * time.Millisecond)
	if d := fired.Sub(start); d < 10*time.Second || d > 10*time.Second+time.Microsecond {
		t.Errorf("fired after %v of the slow clock, want 10s", d)
	}
	if got := fast.Wall(); !got.Equal(time.Date(2026, 1, 1, 0, 0, 10, 20e6, time.UTC)) {
		t.Errorf("wall %v", got)
	}
}

func TestPausedProcessCatchesUp(t *testing.T) {
	w := NewWorld(1)
	l := w.NewLoop("a")
	d := w.NewDisk("d", 1<<20, 4096)
	disk, err := l.OpenDisk("d", loop.DiskOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	l.Arm(&loop.Timer{Fire: func() { got = append(got, "timer") }}, l.Now().Add(time.Microsecond))
	l.Post(&loop.Task{Run: func() { got = append(got, "post") }})
	b := l.Alloc(4096)
	disk.Submit(&loop.DiskOp{Kind: loop.DiskWrite, Data: b.Bytes(), Done: func(*loop.DiskOp) { got = append(got, "disk") }})
	l.Pause()
	w.Run(time.Second)
	if len(got) != 0 || d.Unflushed() != 1 {
		t.Errorf("while paused: ran %v, %d writes in the cache", got, d.Unflushed())
	}
	l.Resume()
	w.Run(time.Second)
	if s := strings.Join(got, ","); s != "disk,timer,post" {
		t.Errorf("after resuming: %s", s)
	}
	b.Release()
	w.CheckLeaks(t)
}

func TestKilledProcessRunsNothing(t *testing.T) {
	w := NewWorld(1)
	l := w.NewLoop("a")
	ran := false
	set := func() { ran = true }
	l.Arm(&loop.Timer{Fire: set}, l.Now().Add(time.Second))
	l.Post(&loop.Task{Run: set})
	l.Defer(&loop.Task{Run: set})
	l.Kill()
	l.Arm(&loop.Timer{Fire: set}, l.Now().Add(time.Second))
	w.Run(time.Minute)
	if ran {
		t.Error("something ran after Kill")
	}
}

func TestProcessThatKillsItselfStopsAtOnce(t *testing.T) {
	w, a, _, ca, cb := pair(t, 1)
	ran := false
	set := func() { ran = true }
	a.Arm(&loop.Timer{Fire: func() {
		ca.conn.Send([]byte("lost"))
		a.Defer(&loop.Task{Run: a.Kill})
		a.Defer(&loop.Task{Run: set})
	}}, 0)
	a.Arm(&loop.Timer{Fire: set}, a.Now().Add(time.Second))
	w.Run(time.Minute)
	if ran || len(cb.got) != 0 || ca.closed != 0 || cb.closed != 1 {
		t.Errorf("went on: %t; %q was sent; closed %d and %d", ran, cb.got, ca.closed, cb.closed)
	}
}

func TestRunDrivesTheWorldUntilStop(t *testing.T) {
	w := NewWorld(1)
	l := w.NewLoop("a")
	ended := make(chan error)
	go func() { ended <- l.Run() }()
	ran := make(chan struct{})
	l.Post(&loop.Task{Run: func() { close(ran) }})
	<-ran
	l.Stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// busyWorld runs a bit of everything and returns its trace.
func busyWorld(t *testing.T, seed uint64) []byte {
	w := NewWorld(seed)
	var trace bytes.Buffer
	w.Trace(&trace)
	server := w.NewLoop("server")
	if _, err := server.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:7000"}, loop.ListenOptions{}, echoListener{}); err != nil {
		t.Fatal(err)
	}
	w.NewDisk("d", 1<<20, 512)
	disk, err := server.OpenDisk("d", loop.DiskOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var clients []*Loop
	for i := range 3 {
		l := w.NewLoop(fmt.Sprint("client", i))
		c := &client{}
		c.conn = l.Dial(loop.Addr{Network: "tcp", Address: "127.0.0.1:7000"}, c)
		var tick loop.Timer
		tick.Fire = func() {
			c.conn.Send(bytes.Repeat([]byte{byte(i)}, l.Rand().IntN(100_000)))
			l.Arm(&tick, l.Now().Add(time.Duration(l.Rand().IntN(1e6))))
		}
		l.Arm(&tick, l.Now())
		clients = append(clients, l)
	}
	var op loop.DiskOp
	op = loop.DiskOp{Kind: loop.DiskWrite, Data: server.Alloc(4096).Bytes(), Done: func(*loop.DiskOp) {
		op.Off = int64(server.Rand().IntN(256)) * 4096
		disk.Submit(&op)
	}}
	disk.Submit(&op)
	w.After(10*time.Millisecond, func() { w.Net.Cut(server, clients[0]) })
	w.After(15*time.Millisecond, func() { clients[1].Kill() })
	w.After(20*time.Millisecond, func() { w.Net.HealAll() })
	w.Run(30 * time.Millisecond)
	w.Disk("d").Crash(CrashRandom)
	w.Run(time.Millisecond)
	return trace.Bytes()
}

func TestSameSeedSameTrace(t *testing.T) {
	a, b, c := busyWorld(t, 7), busyWorld(t, 7), busyWorld(t, 8)
	if len(a) < 10_000 {
		t.Fatalf("trace of %d bytes shows nothing", len(a))
	}
	if !bytes.Equal(a, b) {
		t.Error("one seed gave two traces")
	}
	if bytes.Equal(a, c) {
		t.Error("two seeds gave one trace")
	}
}

func TestClosedWorldGivesItsMemoryBack(t *testing.T) {
	before := addressSpace(t)
	for seed := range uint64(200) {
		w := NewWorld(seed)
		l := w.NewLoop("a")
		for _, n := range []int{1, 4096, 128 << 10, 4 << 20, 5 << 20} {
			l.Alloc(n)
		}
		l.Alloc(5 << 20).Release()
		l.Kill()
		w.Close()
	}
	if grown := addressSpace(t) - before; grown > 500<<20 {
		t.Errorf("200 worlds left %d MiB mapped", grown>>20)
	}
}

// addressSpace is how much memory is mapped by this process, in bytes.
func addressSpace(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var pages int64
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
