package peer

import (
	"holdfast/core/loop"
)

// driftPPM is how far two clocks may move apart while nobody compares them.
const driftPPM = 200

// clock knows how far the other side's CLOCK_BOOTTIME is ahead of ours, at least.
//
// A reply that was stamped r there and is here at t proves offset >= r - t, however long it was on its way. The best such bound is kept, and lowered with time by the
// drift. Now is fixed for a turn and bytes may come while the turn runs, so t is taken in the turn after.
type clock struct {
	k     *link
	timer loop.Timer
	known bool
	low   int64        // offset >= low, as of at
	at    loop.Instant //

	sent    loop.Instant // of the sample in hand
	remote0 uint64
	done    func()
}

func (c *clock) init(k *link) {
	c.k = k
	c.timer.Fire = c.fire
}

// sample takes note of a reply that has just come: the request was sent at sent, the other side's clock when it answered was remote (0 from stock peers).
// done is called afterwards, in the next turn; it may be nil.
func (c *clock) sample(sent loop.Instant, remote uint64, done func()) {
	if c.timer.Armed() {
		return // one in hand; only the handshake has a done, and nothing comes before it
	}
	c.sent, c.remote0, c.done = sent, remote, done
	c.k.hub.l.Arm(&c.timer, c.k.hub.l.Now())
}

func (c *clock) fire() {
	now := c.k.hub.l.Now()
	if r := c.remote0; r != 0 && r < 1<<62 {
		low := int64(r) - int64(now)
		high := int64(r) - int64(c.sent)
		old := c.bound(now)
		// An old bound above the new high is no bound: their clock stood still (a paused machine).
		if !c.known || low >= old || old > high {
			c.known, c.low, c.at = true, low, now
		}
	}
	if f := c.done; f != nil {
		c.done = nil
		f()
	}
}

// bound is low, with what may have been lost until now.
func (c *clock) bound(now loop.Instant) int64 {
	age := max(int64(now-c.at), 0)
	return c.low - (age/1e6+1)*driftPPM
}

// remote converts a moment of ours. It is never later than the true one; past moments come out as 1 at least, since 0 means none.
func (c *clock) remote(local loop.Instant) (uint64, bool) {
	if !c.known {
		return 0, false
	}
	return uint64(max(int64(local)+c.bound(max(local, c.k.hub.l.Now())), 1)), true
}
