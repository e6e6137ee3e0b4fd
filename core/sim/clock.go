package sim

import (
	"fmt"
	"time"

	"holdfast/core/loop"
)

// clock turns world time into one host's CLOCK_BOOTTIME and back.
type clock struct {
	world, local loop.Instant // a moment by both clocks
	ppm          int64        // how many microseconds this clock gains in a second
	seen         loop.Instant // the latest moment anyone has read
}

// at is the local moment of world moment t; t is not before c.world.
func (c *clock) at(t loop.Instant) loop.Instant {
	d := int64(t - c.world)
	sec, ns := d/int64(time.Second), d%int64(time.Second)
	return c.local + loop.Instant(d+sec*1000*c.ppm+ns*c.ppm/1_000_000)
}

// when is the first world moment, not before c.world, at which the local clock shows t or more.
func (c *clock) when(t loop.Instant) loop.Instant {
	w := c.world + max(0, t-c.local)
	if c.ppm == 0 {
		return w
	}
	for range 8 { // each round leaves ppm/1e6 of the error
		w = max(c.world, w+t-c.at(w))
	}
	for c.at(w) < t {
		w++
	}
	return w
}

// set changes offset and drift from the world's moment now on.
func (c *clock) set(now loop.Instant, offset time.Duration, ppm int64) {
	local := now.Add(offset)
	if local < c.seen {
		panic(fmt.Sprintf("sim: a clock that was read as %d cannot be set back to %d", c.seen, local))
	}
	c.world, c.local, c.ppm = now, local, ppm
}

// SetClock makes the loop's Now differ from the world's by offset from now on and gain ppm microseconds every second (lose, when negative). Now never goes back: an offset
// that would make it so panics.
func (l *Loop) SetClock(offset time.Duration, ppm int64) {
	l.clock.set(l.w.now, offset, ppm)
	l.wake.seq = 0
	l.schedule()
}

// SetWallOffset makes the loop's Wall differ from the world's; it may go back.
func (l *Loop) SetWallOffset(d time.Duration) { l.wallOffset = d }
