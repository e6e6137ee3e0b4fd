package peer

import (
	"time"
)

// Times are the Options that may change while a Hub runs.
type Times struct {
	ConnectTimeout, HandshakeTimeout, ConnectInterval, ConnectIntervalMax, IdleTimeout, PingTimeout time.Duration
}

// SetTimes changes how patient the Hub is; what is zero gets its default. Connections that stand are watched by the new times from now on, waits between attempts end within the new
// limit, and an attempt under way goes on as it began.
func (b *Hub) SetTimes(t Times) {
	o := Options{ConnectTimeout: t.ConnectTimeout, HandshakeTimeout: t.HandshakeTimeout, ConnectInterval: t.ConnectInterval, ConnectIntervalMax: t.ConnectIntervalMax,
		IdleTimeout: t.IdleTimeout, PingTimeout: t.PingTimeout}
	o.fill(b.l)
	if b.closed || o.times() == b.o.times() {
		return
	}
	b.o.ConnectTimeout, b.o.HandshakeTimeout, b.o.ConnectInterval, b.o.ConnectIntervalMax = o.ConnectTimeout, o.HandshakeTimeout, o.ConnectInterval, o.ConnectIntervalMax
	b.o.IdleTimeout, b.o.PingTimeout = o.IdleTimeout, o.PingTimeout
	for _, p := range b.order {
		if p.link != nil {
			p.link.keep.retime()
		}
		p.wait = min(p.wait, b.o.ConnectIntervalMax)
		if last := b.l.Now().Add(b.o.ConnectIntervalMax); p.state == dialWaiting && p.timer.At > last {
			b.l.Arm(&p.timer, last)
		}
	}
	for c := b.incoming.first; c != nil; c = c.next {
		c.link.keep.retime()
	}
}

// Times are the Hub's at present.
func (b *Hub) Times() Times { return b.o.times() }

func (o *Options) times() Times {
	return Times{o.ConnectTimeout, o.HandshakeTimeout, o.ConnectInterval, o.ConnectIntervalMax, o.IdleTimeout, o.PingTimeout}
}

// retime has the watch go on by the Hub's present times. A ping that is out is waited for no longer than before.
func (a *keepAlive) retime() {
	if !a.timer.Armed() {
		return // in the handshake, or over
	}
	o, now := &a.k.hub.o, a.k.hub.l.Now()
	switch {
	case a.k.paused:
		a.arm(min(a.due, now.Add(o.IdleTimeout)))
	case !a.pings:
	case a.waiting:
		a.arm(min(a.due, now.Add(o.PingTimeout)))
	default:
		a.arm(max(now, a.last.Add(o.IdleTimeout)))
	}
}
