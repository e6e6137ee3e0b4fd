package primary

import (
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

func TestPauseKeepsItsPlace(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	p := New(w.NewLoop("osd"), nil, nil, nil, nil, Options{})
	p.Tune(Tuning{Recovery: Pacing{Depth: 2, Pause: 10 * ms}, SlowLog: time.Hour})
	begin := func(want bool) {
		t.Helper()
		if got := p.mayRecover(); got != want {
			t.Fatalf("mayRecover() = %t after %v, want %t", got, w.Elapsed(), want)
		}
		if want {
			p.recovering++
		}
	}
	end := func() { p.recovering--; p.rest(p.l.Now()) }
	begin(true)
	begin(true)
	begin(false)
	end()
	begin(false)
	w.Run(5 * ms)
	end()
	begin(false)
	w.Run(5 * ms)
	begin(true)
	begin(false)
	w.Run(5 * ms)
	begin(true)
	end()
	end()
	p.Tune(Tuning{Recovery: Pacing{Depth: 2}, SlowLog: time.Hour})
	begin(true)
	p.Tune(Tuning{Recovery: Pacing{Depth: 2}, NoRecovery: true, SlowLog: time.Hour})
	begin(false)
}

func TestClientsOperationCountsBeforeTheNextInterval(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	p := New(w.NewLoop("osd"), nil, nil, nil, nil, Options{})
	p.recovering = 3
	if !p.mayRecover() {
		t.Fatal("not at full speed while nobody is there")
	}
	o := p.get()
	if p.mayRecover() {
		t.Error("goes on at full speed beside a client")
	}
	w.Run(2 * time.Second)
	if !p.mayRecover() {
		t.Error("held up by an operation that has been stuck for long")
	}
	p.put(o)
}

func TestLoadIsMeasuredWhilePGsAreServed(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	p := New(w.NewLoop("osd"), nil, nil, nil, nil, Options{})
	w.Run(5 * time.Second)
	if p.throttle.tick.Armed() {
		t.Error("measures without a PG")
	}
	p.pgs[pgNum(1)] = &PG{ID: pgNum(1), p: p, left: 1}
	p.sortPGs()
	p.stats[wire.OpWrite].Usec = 1e9 // before
	p.watchLoad()
	w.Run(500 * ms)
	p.stats[wire.OpWrite].Usec += 3e6
	p.rest(p.l.Now().Add(-4 * ms))
	w.Run(600 * ms)
	if got, want := p.throttle.now, (pace{1, 9, 9}); got != want {
		t.Errorf("beside 3 operations of clients: %+v, want %+v", got, want)
	}
	w.Run(time.Second)
	if got, want := p.throttle.now, (pace{16, 0, 9}); got != want {
		t.Errorf("when they have left: %+v, want %+v", got, want)
	}
	p.recovering = 0
	o := p.get()
	p.rest(p.l.Now().Add(-4 * ms))
	if p.mayRecover() {
		t.Error("no pause beside an operation that was not reckoned with")
	}
	w.Run(36 * ms)
	if !p.mayRecover() {
		t.Error("the pause does not end")
	}
	p.put(o)
	delete(p.pgs, pgNum(1))
	p.sortPGs()
	w.Run(2 * time.Second)
	if p.throttle.tick.Armed() {
		t.Error("goes on measuring without a PG")
	}
}

func TestOrderAndPaceAllocateNothing(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	p := New(w.NewLoop("osd"), nil, nil, nil, nil, Options{})
	for n := range uint32(3) {
		q := &PG{ID: pgNum(n), p: p, members: make([]layout.OSDNum, 3)}
		p.pgs[q.ID] = q
		for i := range uint64(500) {
			q.lacks(1+int(i%3), i)
		}
	}
	p.sortPGs()
	p.recovering = 15
	one := func() {
		q, u := p.pick()
		q.dequeue(u)
		p.rest(p.l.Now().Add(-4 * ms))
		if !p.mayRecover() {
			t.Error("held up")
		}
	}
	one()
	if n := testing.AllocsPerRun(1000, one); n != 0 {
		t.Errorf("%v allocations for each object", n)
	}
}
