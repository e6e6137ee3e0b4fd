package client

import (
	"time"

	"holdfast/core/peer"
)

// Tuning is what may change while a Client runs. Zero times mean what they mean in Options.
type Tuning struct {
	RetryInterval    time.Duration
	EIORetryInterval time.Duration
	RetryENOSPC      bool
	OpTTL            time.Duration
	Peer             peer.Times
}

// Tune takes over t. What waits to be tried again is tried at once, so that it goes on by the new times. A change that was sent
// before keeps the OpTTL of its first try.
func (c *Client) Tune(t Tuning) {
	def(&t.RetryInterval, 50*time.Millisecond)
	def(&t.OpTTL, 4*time.Second)
	c.hub.SetTimes(t.Peer)
	if t.Peer = c.hub.Times(); c.closed || t == c.Tuning() {
		return
	}
	c.o.RetryInterval, c.o.EIORetryInterval, c.o.RetryENOSPC, c.o.OpTTL = t.RetryInterval, t.EIORetryInterval, t.RetryENOSPC, t.OpTTL
	for p := c.waiting.first; p != nil; {
		next := p.links[inQueue].next
		c.l.Disarm(&p.timer)
		p.move(partReady)
		p = next
	}
	c.pump()
}

// Tuning is what the Client goes by at present.
func (c *Client) Tuning() Tuning {
	return Tuning{RetryInterval: c.o.RetryInterval, EIORetryInterval: c.o.EIORetryInterval, RetryENOSPC: c.o.RetryENOSPC, OpTTL: c.o.OpTTL, Peer: c.hub.Times()}
}
