package sim

import (
	"testing"
	"time"

	"holdfast/core/loop"
)

func TestClockDriftsAndJumpsForItsWholeHost(t *testing.T) {
	w := NewWorld(1)
	a, b := w.NewLoop("a"), w.NewLoop("b")
	b.SetHost(a.Host())
	a.SetDrift(-100_000)
	w.Run(10 * time.Second)
	if d := b.Now().Sub(epoch); d != 9*time.Second {
		t.Errorf("10 seconds are %v by a clock that loses 10 %%", d)
	}
	fired := false
	b.Arm(&loop.Timer{Fire: func() { fired = true }}, b.Now().Add(time.Minute))
	a.JumpClock(time.Minute)
	w.Run(time.Millisecond)
	if !fired {
		t.Error("a timer that the jump made due has not fired")
	}
	a.Kill()
	a = w.NewLoop("a")
	if d := a.Now().Sub(b.Now()); d != 0 {
		t.Errorf("the successor's clock is %v off", d)
	}
	wantFault(t, w, FaultClockDrift, 1)
	wantFault(t, w, FaultClockJump, 1)
}

func TestRebootStartsBootTimeAnew(t *testing.T) {
	w := NewWorld(1)
	a := w.NewLoop("a")
	a.SetDrift(1000)
	w.Run(time.Hour)
	before := a.Now()
	a.PowerOff()
	w.Reboot(a.Host())
	b := w.NewLoop("a")
	start := b.Now()
	if start >= before || start > loop.Instant(time.Minute) || start < loop.Instant(5*time.Second) {
		t.Errorf("boot time %v after a reboot, %v before", time.Duration(start), time.Duration(before))
	}
	w.Run(10 * time.Second)
	if d := b.Now().Sub(start); d != 10010*time.Millisecond {
		t.Errorf("10 seconds are %v: the drift is the hardware's", d)
	}
	if w.Elapsed() != time.Hour+10*time.Second {
		t.Errorf("elapsed %v", w.Elapsed())
	}
	wantFault(t, w, FaultReboot, 1)
}

func TestWallClockMayGoBack(t *testing.T) {
	w := NewWorld(1)
	a := w.NewLoop("a")
	before, now := a.Wall(), a.Now()
	a.SetWallOffset(-time.Hour)
	if d := a.Wall().Sub(before); d != -time.Hour || a.Now() != now {
		t.Errorf("wall time moved by %v, boot time by %v", d, a.Now().Sub(now))
	}
	wantFault(t, w, FaultWallJump, 1)
}

func TestPausedProcessGoesOnByItself(t *testing.T) {
	w, a, b, ca, cb := pair(t, 1)
	_ = a
	b.PauseFor(3 * time.Second)
	var fired time.Duration
	b.Arm(&loop.Timer{Fire: func() { fired = w.Elapsed() }}, b.Now().Add(time.Second))
	ca.conn.Send(make([]byte, 3<<20)) // more than its kernel takes
	start := w.Elapsed()
	w.Run(2 * time.Second)
	if len(cb.got) != 0 || ca.conn.Queued() == 0 || fired != 0 {
		t.Errorf("while paused %d bytes were read, %d are queued, timer at %v", len(cb.got), ca.conn.Queued(), fired)
	}
	w.Run(2 * time.Second)
	if len(cb.got) != 3<<20 || fired-start < 3*time.Second {
		t.Errorf("afterwards %d bytes were read, timer after %v", len(cb.got), fired-start)
	}
	wantFault(t, w, FaultPause, 1)
}
