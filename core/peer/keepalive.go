package peer

import (
	"time"

	"holdfast/core/loop"
	"holdfast/core/wire"
)

// TCP's own keep-alive, for connections that are not pinged (stock clients) or not read (back-pressure).
const (
	tcpIdle     = 30 * time.Second
	tcpInterval = 10 * time.Second
	tcpCount    = 3
)

// keepAlive pings after silence and ends the connection when nothing comes back. Any byte counts as life, and so do bytes of ours that leave a queue which was
// stuck behind the ping. A side that does not read, as it has enough to do (back-pressure), cannot answer pings; it pings instead, to show that it lives.
type keepAlive struct {
	k     *link
	timer loop.Timer
	due   loop.Instant // when the timer should have fired
	ping  Call

	pings   bool         // false for stock clients, which are never pinged
	last    loop.Instant // when something came
	waiting bool         // a ping was sent (or is still out) and nothing has come since
	left    uint64       // bytes that had left when waiting began
	looked  loop.Instant // when the clock was last asked for
	moved   loop.Instant // when bytes last left, while not reading
}

func (a *keepAlive) init(k *link) {
	a.k = k
	a.timer.Fire = a.fire
	a.ping.Done = a.pong
}

// start begins the watch.
func (a *keepAlive) start(pings bool) {
	now := a.k.hub.l.Now()
	a.pings, a.last, a.looked = pings, now, now
	a.arm(now.Add(a.k.hub.o.IdleTimeout))
}

// pause is told that reading stops.
func (a *keepAlive) pause() {
	a.moved = a.k.hub.l.Now()
	a.left = a.k.left()
}

func (a *keepAlive) hear() {
	a.last = a.k.hub.l.Now()
	a.waiting = false
}

func (a *keepAlive) arm(at loop.Instant) {
	a.due = at
	a.k.hub.l.Arm(&a.timer, at)
}

func (a *keepAlive) fire() {
	k := a.k
	o := &k.hub.o
	now := k.hub.l.Now()
	asleep := now.Sub(a.due) > o.IdleTimeout // we stood still ourselves; what came meanwhile may not have been read yet
	left := k.left()
	switch {
	case k.paused:
		a.notReading(now, left)
	case !a.pings:
		a.arm(now.Add(tcpIdle))
	case a.waiting && (asleep || left != a.left && k.conn.Queued() > 0):
		a.left = left
		a.arm(now.Add(o.PingTimeout))
	case a.waiting:
		k.fail(ErrSilent)
	case now.Sub(a.last) >= o.IdleTimeout:
		a.waiting, a.left = true, left
		a.send(now)
		a.arm(now.Add(o.PingTimeout))
	default:
		if now.Sub(a.looked) >= o.ClockInterval {
			a.send(now)
		}
		a.arm(a.last.Add(o.IdleTimeout))
	}
}

// notReading shows life to a peer of ours, and ends the connection to one that takes nothing of what is queued for it.
func (a *keepAlive) notReading(now loop.Instant, left uint64) {
	k := a.k
	o := &k.hub.o
	a.last, a.waiting = now, false
	patience := tcpIdle
	if a.pings {
		patience = o.IdleTimeout + o.PingTimeout
	}
	queued := k.conn.Queued()
	if left != a.left || queued == 0 {
		a.moved, a.left = now, left
	}
	if now.Sub(a.moved) >= patience && now.Sub(a.due) <= o.IdleTimeout {
		k.fail(ErrSilent)
		return
	}
	if a.pings && queued == 0 {
		life := &Call{Done: func(*Call) {}} // answered some time, when we read again
		(&wire.Ping{}).Encode(&life.Header)
		k.start(life)
	}
	a.arm(now.Add(o.IdleTimeout))
}

// send pings, unless the last ping is still out.
func (a *keepAlive) send(now loop.Instant) {
	if a.ping.Active() {
		return
	}
	a.looked = now
	(&wire.Ping{Sent: uint64(now)}).Encode(&a.ping.Header)
	a.k.start(&a.ping)
	a.left = a.k.left()
}

func (a *keepAlive) pong(c *Call) {
	var m wire.PingReply
	if c.Err == nil && m.Decode(&c.Reply) == nil {
		a.k.clock.sample(a.looked, m.Clock, nil)
	}
}
