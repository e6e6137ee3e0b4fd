package peer

import (
	"errors"
	"fmt"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
)

type dialState uint8

const (
	dialIdle       dialState = iota
	dialWaiting              // for the next attempt
	dialConnecting           // TCP
	dialHello                // handshake
	dialUp
)

// dialled is an OSD whose address is known, with the connection to it that we dial and the calls that wait for it.
type dialled struct {
	hub   *Hub
	osd   layout.OSDNum
	addrs []loop.Addr
	next  int       // the address to try
	at    loop.Addr // the one being tried
	eager bool      // dial without calls, too
	gone  bool      // RemovePeer or Close

	state dialState
	link  *link // from dialConnecting on
	queue callList
	wait  time.Duration // between attempts; 0 after success
	timer loop.Timer

	hello Call
	sent  loop.Instant // the second hello
	terms terms
	info  PeerInfo
}

func newDialled(b *Hub, osd layout.OSDNum) *dialled {
	p := &dialled{hub: b, osd: osd}
	p.timer.Fire = p.fire
	p.hello.Done = p.helloDone
	return p
}

// want dials when there is a reason to and nothing is under way.
func (p *dialled) want() {
	if p.state == dialIdle && !p.gone && (p.eager || p.queue.n > 0) {
		p.dial()
	}
}

func (p *dialled) dial() {
	b := p.hub
	if len(p.addrs) == 0 {
		p.state = dialIdle
		b.failLater(&p.queue, &DisconnectedError{OSD: p.osd, Cause: ErrNoAddress})
		return
	}
	k := new(link)
	k.init(b, p)
	p.link, p.state = k, dialConnecting
	b.l.Arm(&p.timer, b.l.Now().Add(b.o.ConnectTimeout))
	p.at = p.addrs[p.next]
	k.conn = b.l.Dial(p.at, k)
}

func (p *dialled) fire() {
	switch p.state {
	case dialWaiting:
		p.state = dialIdle
		p.want()
	case dialConnecting:
		p.link.fail(fmt.Errorf("no connection to %v within %v", p.at, p.hub.o.ConnectTimeout))
	case dialHello:
		p.link.fail(fmt.Errorf("no answer to the handshake from %v within %v", p.at, p.hub.o.HandshakeTimeout))
	}
}

func (p *dialled) opened() {
	b, k := p.hub, p.link
	k.conn.SetKeepAlive(tcpIdle, tcpInterval, tcpCount)
	p.state = dialHello
	b.l.Arm(&p.timer, b.l.Now().Add(b.o.HandshakeTimeout))
	p.terms = terms{dialNonce: b.nonce(), dial: b.self()}
	p.sendHello("")
}

// sendHello sends the first round, or the second with our proof.
func (p *dialled) sendHello(proof string) {
	b := p.hub
	h := &wire.Hello{Version: wire.HelloVersion, Role: b.o.Role, Instance: wire.Hex64(b.o.Instance), Client: b.o.Client, Nonce: p.terms.dialNonce, Proof: proof}
	c := &wire.ConfigRequest{OSDNum: b.o.Self, Features: wire.RequestFeatures{CheckSequencing: true}, Holdfast: h}
	text, err := wire.AppendConfigRequest(nil, c)
	if err != nil {
		p.link.fail(fmt.Errorf("encode the handshake: %w", err))
		return
	}
	p.hello.Meta = text
	p.sent = b.l.Now()
	(&wire.ShowConfig{JSONLen: uint64(len(text)), Sent: uint64(p.sent)}).Encode(&p.hello.Header)
	p.link.start(&p.hello)
}

func (p *dialled) helloDone(c *Call) {
	if c.Err != nil || p.state != dialHello || p.link.dead {
		return // the connection's end is told elsewhere
	}
	if err := p.judge(c); err != nil {
		p.link.fail(err)
	}
}

// judge takes a reply of the handshake.
func (p *dialled) judge(c *Call) error {
	b, k, t := p.hub, p.link, &p.terms
	if err := c.Reply.Err(); err != nil {
		return fmt.Errorf("%w by OSD %d: %w", ErrHandshake, p.osd, err)
	}
	reply, err := wire.DecodeConfigReply(c.ReplyMeta)
	if err != nil {
		return err
	}
	h := reply.Holdfast
	if h != nil && h.Refused != "" {
		return fmt.Errorf("%w by OSD %d: %.200q", ErrHandshake, p.osd, h.Refused)
	}
	if err := b.checkConfig(p.osd, reply); err != nil {
		return err
	}
	if h == nil {
		if t.acceptNonce != "" || b.o.Self != 0 || b.o.AllowLegacy == nil || !b.o.AllowLegacy(k.conn.Remote()) {
			return fmt.Errorf("%w: OSD %d at %v does not speak our handshake, and stock OSDs are not allowed there", ErrHandshake, p.osd, k.conn.Remote())
		}
		p.up(PeerInfo{Legacy: true, Config: *reply})
		return nil
	}
	if t.acceptNonce == "" {
		if err := checkHello(h); err != nil {
			return err
		}
		if h.Role != RoleOSD {
			return fmt.Errorf("%w: role %q answers for OSD %d", ErrHandshake, h.Role, p.osd)
		}
		t.acceptNonce, t.accept = h.Nonce, identity{reply.OSDNum, h.Role, uint64(h.Instance), h.Client}
		if err := t.check(b.o.Key, acceptor, h.Proof); err != nil {
			return err
		}
		p.sendHello(t.proof(b.o.Key, dialler))
		return nil
	}
	var m wire.PingReply
	if err := m.Decode(&c.Reply); err != nil {
		return err
	}
	k.clock.sample(p.sent, m.Clock, func() {
		if k.dead {
			return
		}
		if !k.clock.known {
			k.fail(fmt.Errorf("%w: OSD %d does not tell its clock", ErrHandshake, p.osd))
			return
		}
		p.up(PeerInfo{Instance: t.accept.instance, Config: *reply})
	})
	return nil
}

func (p *dialled) up(info PeerInfo) {
	b := p.hub
	b.l.Disarm(&p.timer)
	p.state, p.info, p.wait = dialUp, info, 0
	p.link.keep.start(true)
	b.o.Log.Debug("connected to osd", "osd", p.osd, "remote", p.link.conn.Remote().String())
	p.drained()
	b.h.PeerUp(p.osd)
}

// ready reports whether a call may be sent now.
func (p *dialled) ready() bool {
	return p.state == dialUp && !p.link.dead && p.queue.n == 0 && p.link.conn.Queued() <= loop.HighWater
}

// drained sends what waits, as far as the send queue goes.
func (p *dialled) drained() {
	for p.state == dialUp && !p.link.dead && p.queue.n > 0 && p.link.conn.Queued() <= loop.HighWater {
		c := p.queue.first
		p.queue.remove(c)
		p.link.start(c)
	}
}

// admit lets only pings through: nothing else is asked of who dialled.
func (p *dialled) admit(h *wire.Header, meta, data int) (bool, error) {
	if h.Op() != wire.OpPing {
		return false, fmt.Errorf("%v request on a connection that we dialled", h.Op())
	}
	return false, nil
}

func (p *dialled) request(r *Request) { r.pong(p.state == dialUp && !p.info.Legacy) }

func (p *dialled) ended(err error) {
	b, k := p.hub, p.link
	wasUp := p.state == dialUp
	b.l.Disarm(&p.timer)
	p.link, p.state = nil, dialWaiting
	tried := true // all addresses
	if !wasUp {
		p.next++
		if tried = p.next >= len(p.addrs); tried {
			p.next = 0
		}
	}
	switch {
	case p.gone:
		p.state = dialIdle
	case !tried:
		b.l.Arm(&p.timer, b.l.Now())
	default:
		p.wait = min(max(2*p.wait, b.o.ConnectInterval), b.o.ConnectIntervalMax)
		half := p.wait / 2
		b.l.Arm(&p.timer, b.l.Now().Add(half+time.Duration(b.l.Rand().Int64N(int64(half)+1))))
	}
	if wasUp {
		b.o.Log.Info("connection to osd lost", "osd", p.osd, "err", err)
	} else if tried && !p.gone {
		level := b.o.Log.Debug
		if errors.Is(err, ErrHandshake) {
			level = b.o.Log.Warn
		}
		level("cannot connect to osd", "osd", p.osd, "err", err, "again_in", p.wait)
	}
	k.sent.moveTo(&b.failed, callFailed, &DisconnectedError{OSD: p.osd, Sent: true, Cause: err})
	if !wasUp && tried {
		p.queue.moveTo(&b.failed, callFailed, &DisconnectedError{OSD: p.osd, Cause: err})
	}
	b.finishFailed()
	if wasUp {
		b.h.PeerDown(p.osd, err)
	}
}
