package primary

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

func TestSlowOperationsAreNamed(t *testing.T) {
	w := sim.NewWorld(1)
	var log bytes.Buffer
	w.LogTo(slog.NewTextHandler(&log, nil))
	p := New(w.NewLoop("osd"), nil, nil, nil, nil, Options{Self: 7, RecoveryDepth: 1})
	begin := func(session uint64) *op {
		o := p.get()
		o.code, o.id, o.trail.Session = wire.OpWrite, layout.ObjectID{Inode: layout.MakeInode(1, 2), Stripe: 4096}, session
		return o
	}
	lines := func() int { return strings.Count(log.String(), "is slow") }

	for range 20 { // fast ones
		o := begin(1)
		w.Run(time.Second)
		p.put(o)
	}
	if lines() != 0 {
		t.Fatalf("operations of a second are slow:\n%s", log.String())
	}
	first := begin(2)
	w.Run(5 * time.Second)
	second := begin(3)
	w.Run(4900 * time.Millisecond)
	if lines() != 0 {
		t.Fatalf("named before 10 s:\n%s", log.String())
	}
	w.Run(200 * time.Millisecond)
	if text := log.String(); lines() != 1 || !strings.Contains(text, "session=2 age=10s slow=1") || !strings.Contains(text, first.id.String()) || !strings.Contains(text, "osd=7") {
		t.Fatalf("after 10 s:\n%s", text)
	}
	w.Run(9800 * time.Millisecond)
	if lines() != 1 {
		t.Fatalf("more than one line in 10 s:\n%s", log.String())
	}
	p.put(first)
	w.Run(200 * time.Millisecond)
	if lines() != 2 || !strings.Contains(log.String(), "session=3 age=15s slow=1") {
		t.Fatalf("after 20 s:\n%s", log.String())
	}
	if p.SlowOps() != 1 {
		t.Errorf("SlowOps() = %d, want 1", p.SlowOps())
	}
	p.put(second)
	w.Run(time.Minute)
	if _, left := p.slow.Last(); lines() != 2 || left || p.SlowOps() != 0 {
		t.Fatalf("named after their end:\n%s", log.String())
	}

	third := begin(4)
	w.Run(3 * time.Second)
	p.Tune(Tuning{SlowLog: 2 * time.Second})
	w.Run(100 * time.Millisecond)
	if lines() != 3 || !strings.Contains(log.String(), "session=4 age=3s") {
		t.Fatalf("a shorter interval is not gone by:\n%s", log.String())
	}
	p.slow.End(&third.watched) // answered, and waits for members
	p.put(third)
	w.Run(time.Minute)
	if lines() != 3 {
		t.Fatalf("named after its end:\n%s", log.String())
	}
}

func TestWatchingAllocatesNothing(t *testing.T) {
	w := sim.NewWorld(1)
	p := New(w.NewLoop("osd"), nil, nil, nil, nil, Options{})
	p.put(p.get())
	if n := testing.AllocsPerRun(100, func() { p.put(p.get()) }); n != 0 {
		t.Errorf("%v allocations for one operation", n)
	}
}
