package peer

import (
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
)

type inState uint8

const (
	inFresh      inState = iota
	inChallenged         // waits for the second round of the handshake
	inReady
)

// Incoming is a connection that somebody else made to us. It stays valid after its end for as long as anybody holds it.
type Incoming struct {
	OSD           layout.OSDNum // 0 for clients
	Role          string        // "" for stock clients
	Instance      uint64        // 0 for stock clients
	Client        string        // name for people
	Authenticated bool          // proved the cluster key
	Legacy        bool          // a stock client
	Remote        loop.Addr
	User          any // the Handler's own

	link       link
	state      inState
	mayLegacy  bool
	timer      loop.Timer // end of patience with the handshake, or with a refused peer
	terms      terms
	inFlight   int // cost of requests without an answer
	prev, next *Incoming
}

// Close ends the connection, for example to make a client write again what it had not synced.
func (c *Incoming) Close(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	c.link.fail(cause)
}

// Gone reports whether the connection has ended.
func (c *Incoming) Gone() bool { return c.link.dead }

// InFlight is the number of bytes of its requests that have no answer yet, each counted with some overhead.
func (c *Incoming) InFlight() int { return c.inFlight }

func (c *Incoming) String() string {
	switch {
	case c.OSD != 0:
		return fmt.Sprintf("%s %d at %s", c.Role, c.OSD, c.Remote.Address)
	case c.Legacy:
		return "stock client at " + c.Remote.Address
	}
	return fmt.Sprintf("client %q at %s", c.Client, c.Remote.Address)
}

// acceptConn takes a new connection, or refuses it.
func (b *Hub) acceptConn(conn loop.Conn) loop.ConnHandler {
	if b.closed || b.incoming.n >= b.o.MaxConnections || b.pending >= b.o.MaxPending {
		b.warn("connection refused", "remote", conn.Remote().String(), "connections", b.incoming.n, "in_handshake", b.pending)
		return nil
	}
	c := &Incoming{Remote: conn.Remote()}
	c.link.init(b, c)
	c.link.conn = conn
	c.mayLegacy = b.o.AllowLegacy != nil && b.o.AllowLegacy(c.Remote)
	c.timer.Fire = c.impatient
	conn.SetKeepAlive(tcpIdle, tcpInterval, tcpCount)
	b.incoming.push(c)
	b.pending++
	b.l.Arm(&c.timer, b.l.Now().Add(b.o.HandshakeTimeout))
	return &c.link
}

func (c *Incoming) impatient() {
	if c.link.dead { // refused, and does not read the answer
		c.link.conn.Close()
		return
	}
	c.link.fail(fmt.Errorf("%w: not finished within %v", ErrHandshake, c.link.hub.o.HandshakeTimeout))
}

func (c *Incoming) opened() {}

func (c *Incoming) drained() { c.balance() }

// balance stops reading while too much is unanswered or unsent, and goes on when that has shrunk.
func (c *Incoming) balance() {
	k := &c.link
	if k.dead {
		return
	}
	limit := k.hub.o.MaxInFlight
	queued := k.conn.Queued() > loop.HighWater
	switch {
	case !k.paused && (queued || c.inFlight > limit):
		k.paused = true
		k.keep.pause()
		k.conn.Pause()
	case k.paused && !queued && c.inFlight <= limit-limit/4:
		k.paused = false
		k.keep.hear()
		k.conn.Resume()
	}
}

// admit judges a request by its header.
func (c *Incoming) admit(h *wire.Header, meta, data int) (answered bool, err error) {
	op := h.Op()
	if op == wire.OpShowConfig {
		if meta > maxHello {
			return false, &wire.PacketError{Op: op, Field: "json_len", Value: uint64(meta), Max: maxHello}
		}
		return false, nil
	}
	if c.state == inFresh && c.mayLegacy {
		c.ready(identity{}, false)
	}
	if c.state != inReady {
		return false, fmt.Errorf("%w: %v before its end", ErrHandshake, op)
	}
	errno := int64(wire.EPERM)
	switch op.Access() {
	case wire.AnyClient:
		if c.Legacy && op != wire.OpSecList && op != wire.OpDescribe {
			(&wire.Trailer{}).Encode(h) // a stranger acts for nobody's session
		}
		return false, nil
	case wire.OwnClient:
		if !c.Legacy {
			return false, nil
		}
	case wire.OSDOnly:
		if c.OSD != 0 && (c.Role == RoleOSD || c.Role == RoleParent) {
			return false, nil
		}
	default:
		errno = wire.EINVAL
	}
	if meta+data > 0 { // not worth receiving
		return false, fmt.Errorf("%v request from %v, who may not send it", op, c)
	}
	k := &c.link
	var reply wire.Header
	(&wire.BareReply{Op: op, Retval: errno}).Encode(&reply)
	reply.SetID(h.ID())
	k.send(&reply, nil, nil)
	c.balance()
	return true, nil
}

func (c *Incoming) request(r *Request) {
	switch r.op {
	case wire.OpPing:
		r.pong(!c.Legacy)
	case wire.OpShowConfig:
		c.showConfig(r)
	default:
		r.counted = true
		c.inFlight += r.cost
		c.link.hub.h.Serve(r)
		c.balance()
	}
}

// pong answers a ping, with our clock if the other side is one of ours.
func (r *Request) pong(clock bool) {
	m := wire.PingReply{Op: r.op}
	if clock {
		m.Clock = uint64(r.link.hub.l.Now())
	}
	var h wire.Header
	m.Encode(&h)
	r.Reply(&h, nil, nil)
}

// showConfig takes one round of the handshake, or tells the configuration once more.
func (c *Incoming) showConfig(r *Request) {
	k := &c.link
	q, err := wire.DecodeConfigRequest(r.Meta)
	if err != nil {
		r.Drop()
		k.fail(err)
		return
	}
	if q.Features.CheckSequencing {
		k.checkSeq, k.nextID = true, r.id+1
	}
	switch {
	case c.state == inReady:
		c.tell(r, nil)
	case c.state == inChallenged:
		c.finishHandshake(r, q)
	case q.Holdfast != nil:
		c.challenge(r, q)
	case !c.mayLegacy || q.OSDNum != 0:
		r.Fail(wire.EACCES)
		c.refused(fmt.Errorf("%w: a stock peer at %v is not allowed here (allow_legacy_clients)", ErrHandshake, c.Remote))
	default:
		c.ready(identity{}, false)
		c.tell(r, nil)
	}
}

// challenge answers the first round.
func (c *Incoming) challenge(r *Request, q *wire.ConfigRequest) {
	b, h := c.link.hub, q.Holdfast
	err := checkHello(h)
	switch {
	case err != nil:
	case (h.Role == RoleOSD || h.Role == RoleParent) && q.OSDNum == 0, h.Role == RoleClient && q.OSDNum != 0, h.Role == "":
		err = fmt.Errorf("%w: role %q with osd_num %d", ErrHandshake, h.Role, q.OSDNum)
	case h.Role == RoleOSD && q.OSDNum == b.o.Self:
		err = fmt.Errorf("%w: the dialler says it is OSD %d, and so are we", ErrHandshake, q.OSDNum)
	}
	if err != nil {
		c.refuse(r, err)
		return
	}
	c.state = inChallenged
	c.terms = terms{
		dialNonce: h.Nonce, dial: identity{q.OSDNum, h.Role, uint64(h.Instance), h.Client},
		acceptNonce: b.nonce(), accept: b.self(),
	}
	c.tell(r, &wire.Hello{
		Version: wire.HelloVersion, Role: b.o.Role, Instance: wire.Hex64(b.o.Instance), Client: b.o.Client,
		Nonce: c.terms.acceptNonce, Proof: c.terms.proof(b.o.Key, acceptor),
	})
}

// finishHandshake answers the second round.
func (c *Incoming) finishHandshake(r *Request, q *wire.ConfigRequest) {
	b, h := c.link.hub, q.Holdfast
	if h == nil {
		c.refuse(r, fmt.Errorf("%w: the second round lacks our part", ErrHandshake))
		return
	}
	if err := c.terms.check(b.o.Key, dialler, h.Proof); err != nil {
		c.refuse(r, err)
		return
	}
	c.ready(c.terms.dial, len(b.o.Key) > 0)
	c.tell(r, &wire.Hello{Version: wire.HelloVersion, Role: b.o.Role, Instance: wire.Hex64(b.o.Instance)})
}

// ready ends the handshake; the zero identity is a stock client.
func (c *Incoming) ready(id identity, authenticated bool) {
	b := c.link.hub
	c.state = inReady
	c.OSD, c.Role, c.Instance, c.Client, c.Authenticated = id.osd, id.role, id.instance, id.client, authenticated
	c.Legacy = id.role == ""
	b.pending--
	b.l.Disarm(&c.timer)
	c.link.keep.start(!c.Legacy)
	b.o.Log.Debug("connection accepted", "client", c.String(), "authenticated", authenticated)
}

// tell answers SHOW_CONFIG.
func (c *Incoming) tell(r *Request, h *wire.Hello) {
	b := c.link.hub
	var conf wire.ConfigReply
	if b.o.Config != nil {
		conf = b.o.Config()
	}
	conf.OSDNum, conf.ProtocolVersion, conf.Holdfast = b.o.Self, wire.ProtocolVersion, h
	conf.Features.PGLocks = true
	text, err := wire.AppendConfigReply(nil, &conf)
	if err != nil {
		r.Fail(wire.EIO)
		c.refused(fmt.Errorf("encode the configuration: %w", err))
		return
	}
	m := wire.PingReply{Op: wire.OpShowConfig, Retval: int64(len(text))}
	if !c.Legacy && c.state != inFresh {
		m.Clock = uint64(b.l.Now())
	}
	var reply wire.Header
	m.Encode(&reply)
	r.Reply(&reply, text, nil)
}

// refuse tells one of ours why it may not connect.
func (c *Incoming) refuse(r *Request, why error) {
	c.tell(r, &wire.Hello{Version: wire.HelloVersion, Refused: why.Error()})
	c.refused(why)
}

// refused closes after the answer, with patience for a peer that does not read it.
func (c *Incoming) refused(why error) {
	b := c.link.hub
	b.warn("handshake refused", "remote", c.Remote.String(), "err", why)
	b.l.Arm(&c.timer, b.l.Now().Add(b.o.HandshakeTimeout))
	c.link.failAfterSend(why)
}

func (c *Incoming) ended(err error) {
	b := c.link.hub
	b.l.Disarm(&c.timer)
	b.incoming.remove(c)
	c.link.sent.moveTo(&b.failed, callFailed, err) // only pings
	b.finishFailed()
	if c.state != inReady {
		b.pending--
		b.o.Log.Debug("connection ended in the handshake", "remote", c.Remote.String(), "err", err)
		return
	}
	b.o.Log.Debug("connection ended", "client", c.String(), "err", err)
	b.h.IncomingDown(c)
}

// incomingList holds all Incoming of a Hub.
type incomingList struct {
	first, last *Incoming
	n           int
}

func (q *incomingList) push(c *Incoming) {
	c.prev = q.last
	if q.last == nil {
		q.first = c
	} else {
		q.last.next = c
	}
	q.last = c
	q.n++
}

func (q *incomingList) remove(c *Incoming) {
	if c.prev == nil {
		q.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		q.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	q.n--
}
