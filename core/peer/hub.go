package peer

import (
	"errors"
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
)

// Hub is one loop's connections: those it dials to OSDs and those that others make to it.
type Hub struct {
	l loop.Loop
	o Options
	h Handler

	peers     map[layout.OSDNum]*dialled
	order     []*dialled // the same, in the order of SetPeer
	incoming  incomingList
	pending   int // of incoming: not ready
	listeners []loop.Listener
	closed    bool

	failed callList  // wait for their Done
	task   loop.Task // calls it
	free   *Request  // pool
	nonces uint64

	warned     loop.Instant // when the last warning about an incoming connection was logged
	unreported int          // warnings left out since
}

// PeerInfo is what a connected OSD said of itself.
type PeerInfo struct {
	Instance uint64           // 0 of a stock OSD
	Legacy   bool             // a stock OSD
	Config   wire.ConfigReply // what it answered to SHOW_CONFIG
}

// New makes a Hub without connections. h may be nil for a client that only calls.
func New(l loop.Loop, o Options, h Handler) *Hub {
	o.fill(l)
	if h == nil {
		h = nobody{}
	}
	b := &Hub{l: l, o: o, h: h, peers: map[layout.OSDNum]*dialled{}}
	b.task.Run = b.finishFailed
	return b
}

// Listen accepts connections at addr, until the Listener or the Hub is closed.
func (b *Hub) Listen(addr loop.Addr, o loop.ListenOptions) (loop.Listener, error) {
	ln, err := b.l.Listen(addr, o, acceptHandler{b})
	if err == nil {
		b.listeners = append(b.listeners, ln)
	}
	return ln, err
}

type acceptHandler struct{ b *Hub }

func (a acceptHandler) Accepted(c loop.Conn) loop.ConnHandler { return a.b.acceptConn(c) }

// SetPeer makes an OSD's addresses known, best first. A connection that stands is kept; one that is being tried elsewhere goes on with the new addresses.
func (b *Hub) SetPeer(osd layout.OSDNum, addrs []loop.Addr) {
	if b.closed {
		return
	}
	p := b.peers[osd]
	if p == nil {
		p = newDialled(b, osd)
		b.peers[osd] = p
		b.order = append(b.order, p)
	}
	if slices.Equal(p.addrs, addrs) {
		return
	}
	p.addrs, p.next = slices.Clone(addrs), 0
	switch p.state {
	case dialWaiting: // the reason to wait is gone
		p.wait = 0
		b.l.Arm(&p.timer, b.l.Now())
	case dialConnecting, dialHello:
		p.next = -1 // ended goes to the first one
		p.link.fail(errMoved)
	case dialIdle:
		p.want()
	}
}

var errMoved = errors.New("the OSD has other addresses now")

// RemovePeer forgets an OSD: its connection is closed and its calls fail.
func (b *Hub) RemovePeer(osd layout.OSDNum) {
	p := b.peers[osd]
	if p == nil {
		return
	}
	delete(b.peers, osd)
	b.order = slices.DeleteFunc(b.order, func(o *dialled) bool { return o == p })
	b.forget(p)
}

func (b *Hub) forget(p *dialled) {
	p.gone = true
	b.failLater(&p.queue, &DisconnectedError{OSD: p.osd, Cause: ErrClosed})
	b.l.Disarm(&p.timer)
	if p.link != nil {
		p.link.fail(ErrClosed)
	}
}

// Connect dials now and keeps dialling when the connection is lost, until RemovePeer. Without it the Hub dials when there are calls. It needs SetPeer first.
func (b *Hub) Connect(osd layout.OSDNum) {
	if p := b.peers[osd]; p != nil {
		p.eager = true
		p.want()
	}
}

// Drop closes the connection to an OSD; it is dialled again as needed. The sent calls fail with cause.
func (b *Hub) Drop(osd layout.OSDNum, cause error) {
	if p := b.peers[osd]; p != nil && p.link != nil {
		if cause == nil {
			cause = ErrClosed
		}
		p.link.fail(cause)
	}
}

// Connected reports whether there is a connection, the handshake done.
func (b *Hub) Connected(osd layout.OSDNum) bool {
	p := b.peers[osd]
	return p != nil && p.state == dialUp && !p.link.dead
}

// Info is what is known of a connected OSD.
func (b *Hub) Info(osd layout.OSDNum) (PeerInfo, bool) {
	if !b.Connected(osd) {
		return PeerInfo{}, false
	}
	return b.peers[osd].info, true
}

// Call sends c to an OSD; c.Done is called later, once. Without a connection c waits for it, and fails when it does not come about at any of the OSD's addresses.
func (b *Hub) Call(osd layout.OSDNum, c *Call) {
	if c.impl.state != callIdle {
		panic("peer: Call of a call that is under way")
	}
	c.check()
	p := b.peers[osd]
	switch {
	case p != nil && p.ready():
		p.link.start(c)
	case b.closed:
		b.failOne(c, osd, ErrClosed)
	case p == nil || len(p.addrs) == 0:
		b.failOne(c, osd, ErrNoAddress)
	case p.queue.n >= b.o.MaxQueue:
		b.failOne(c, osd, ErrQueueFull)
	default:
		p.queue.push(c, callQueued)
		p.want()
	}
}

// Cancel takes back a call that has not been sent: true means that it is its owner's again and that Done will not be called.
func (b *Hub) Cancel(c *Call) bool {
	i := &c.impl
	if i.state == callFailed {
		if d, ok := c.Err.(*DisconnectedError); !ok || d.Sent {
			return false
		}
	} else if i.state != callQueued {
		return false
	}
	i.list.remove(c)
	i.state = callIdle
	return true
}

// RemoteDeadline converts a moment of our clock to the connected OSD's clock, never to a later moment. false means that the offset is not known.
func (b *Hub) RemoteDeadline(osd layout.OSDNum, local loop.Instant) (uint64, bool) {
	if !b.Connected(osd) {
		return 0, false
	}
	return b.peers[osd].link.clock.remote(local)
}

// Close closes everything. Calls fail with ErrClosed, later; the Handler hears nothing more.
func (b *Hub) Close() {
	if b.closed {
		return
	}
	b.closed = true
	b.h = nobody{}
	for _, ln := range b.listeners {
		ln.Close()
	}
	for _, p := range b.order {
		b.forget(p)
	}
	b.order = nil
	clear(b.peers)
	for c := b.incoming.first; c != nil; c = c.next {
		c.link.fail(ErrClosed)
	}
}

func (b *Hub) failOne(c *Call, osd layout.OSDNum, cause error) {
	c.ReplyData = nil
	c.Err = &DisconnectedError{OSD: osd, Cause: cause}
	b.failed.push(c, callFailed)
	b.l.Defer(&b.task)
}

func (b *Hub) failLater(q *callList, err *DisconnectedError) {
	if q.n > 0 {
		q.moveTo(&b.failed, callFailed, err)
		b.l.Defer(&b.task)
	}
}

// finishFailed gives back the calls in b.failed; it runs as a task and at the end of a connection, never inside a method of the Hub.
func (b *Hub) finishFailed() {
	for n := b.failed.n; n > 0 && b.failed.first != nil; n-- { // what fails meanwhile has its own task
		c := b.failed.first
		b.failed.remove(c)
		c.finish(c.Err)
	}
}

// warn logs at most one event about incoming connections in a second, as strangers cause them.
func (b *Hub) warn(msg string, args ...any) {
	now := b.l.Now()
	if b.warned != 0 && now.Sub(b.warned) < time.Second {
		b.unreported++
		return
	}
	b.o.Log.Warn(msg, append(args, "unreported", b.unreported)...)
	b.warned, b.unreported = now, 0
}

// nobody is the Handler of a Hub that only calls, or is closed.
type nobody struct{}

func (nobody) Serve(r *Request)              { r.Fail(wire.ENOSYS) }
func (nobody) PeerUp(layout.OSDNum)          {}
func (nobody) PeerDown(layout.OSDNum, error) {}
func (nobody) IncomingDown(*Incoming)        {}
