package sim

import (
	"fmt"
	"time"

	"holdfast/core/loop"
)

// clock turns world time into one host's CLOCK_BOOTTIME and back. The host's processes share it, one after the other as well as side by side.
type clock struct {
	world, local loop.Instant  // a moment by both clocks
	ppm          int64         // how many microseconds this clock gains in a second
	seen         loop.Instant  // the latest moment anyone has read
	wall         time.Duration // the time of day here minus the true one
}

// at is the local moment of world moment t; t is not before c.world.
func (c *clock) at(t loop.Instant) loop.Instant {
	d := int64(t - c.world)
	sec, ns := d/int64(time.Second), d%int64(time.Second)
	return c.local + loop.Instant(d+sec*1000*c.ppm+ns*c.ppm/1_000_000)
}

// when is the first world moment, not before c.world, at which the local clock shows t or more.
func (c *clock) when(t loop.Instant) loop.Instant {
	d := int64(max(0, t-c.local))
	if c.ppm == 0 {
		return c.world + loop.Instant(d)
	}
	rate := 1_000_000 + c.ppm
	w := c.world + loop.Instant(max(0, d/rate*1_000_000+d%rate*1_000_000/rate-4_000_000/rate)) // at rounds down twice
	for c.at(w) < t {
		w++
	}
	return w
}

// clockOf is the host's clock.
func (w *World) clockOf(host string) *clock {
	c := w.clocks[host]
	if c == nil {
		c = &clock{world: w.now, local: w.now}
		w.clocks[host] = c
	}
	return c
}

// set changes the moment and the drift that the clock shows from the world's moment now on.
func (c *clock) set(now, local loop.Instant, ppm int64) {
	if local < c.seen {
		panic(fmt.Sprintf("sim: a clock that was read as %d cannot be set back to %d", c.seen, local))
	}
	c.world, c.local, c.ppm = now, local, ppm
}

// SetClock makes Now of the loop's host differ from the world's by offset from now on and gain ppm microseconds every second (lose, when negative). Now never goes back: an offset
// that would make it so panics.
//
// A process that has not read its clock yet and is alone on its host may be given any: that is a host that has just booted.
func (l *Loop) SetClock(offset time.Duration, ppm int64) {
	now := l.w.now.Add(offset)
	if now < l.clock.seen && !l.read && l.alone() {
		l.clock = &clock{world: l.w.now, local: now, ppm: l.clock.ppm, wall: l.clock.wall}
		l.w.clocks[l.host] = l.clock
	}
	if l.clock.at(l.w.now) != now {
		l.w.inflict(FaultClockJump, l.name, "now %v from the true time", offset)
	}
	l.setClock(now, ppm)
}

// alone reports whether no other process of the host is alive.
func (l *Loop) alone() bool {
	for _, o := range l.w.loops {
		if o != l && !o.dead && o.host == l.host {
			return false
		}
	}
	return true
}

// SetDrift makes the clock of the loop's host gain ppm microseconds every second from now on (lose, when negative); 100,000 is 10 %.
func (l *Loop) SetDrift(ppm int64) { l.setClock(l.clock.at(l.w.now), ppm) }

func (l *Loop) setClock(local loop.Instant, ppm int64) {
	if ppm != l.clock.ppm {
		l.w.inflict(FaultClockDrift, l.name, "%d ppm", ppm)
	}
	l.clock.set(l.w.now, local, ppm)
	for _, o := range l.w.loops {
		if o.clock == l.clock && !o.dead {
			o.wake.seq = 0
			o.schedule()
		}
	}
}

// JumpClock makes Now of the loop's host jump forward by d, as when a hypervisor had stopped it and tells it so. Timers that become due fire late.
func (l *Loop) JumpClock(d time.Duration) {
	l.w.inflict(FaultClockJump, l.name, "forward by %v", d)
	l.setClock(l.clock.at(l.w.now).Add(d), l.clock.ppm)
}

// SetWallOffset makes Wall of the loop's host differ from the world's; it may go back.
func (l *Loop) SetWallOffset(d time.Duration) {
	l.w.inflict(FaultWallJump, l.name, "%v from the true time", d)
	l.clock.wall = d
}

// Reboot starts the host's CLOCK_BOOTTIME anew, somewhere in the first minute after a boot, with the same drift. No process of the host may be alive; those that start later have
// the new clock.
func (w *World) Reboot(host string) {
	for _, l := range w.loops {
		if l.host == host && !l.dead {
			panic("sim: host " + host + " reboots while process " + l.name + " is alive")
		}
	}
	old := w.clockOf(host)
	local := loop.Instant(0).Add(between(w.Stream("boot"), 5*time.Second, time.Minute))
	w.clocks[host] = &clock{world: w.now, local: local, ppm: old.ppm, wall: old.wall}
	w.inflict(FaultReboot, "-", "host %s at boot time %v", host, time.Duration(local))
}
