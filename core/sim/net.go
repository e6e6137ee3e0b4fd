package sim

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"

	"holdfast/core/loop"
)

const (
	// window is how much of one direction of a connection the two kernels hold: what has left the sender and was not consumed by the receiver.
	window = 1 << 20
	// show is the most that Received is shown at once; the seam promises no more (loop.ConnHandler).
	show = 64 << 10
	// dialTimeout is how long a dial waits for a host that does not answer (Linux tcp_syn_retries = 6).
	dialTimeout = 127 * time.Second
)

// Net is the network of a world: who listens where, how long bytes take, and which links are cut.
type Net struct {
	w         *World
	min, max  time.Duration
	links     map[[2]string]*link // by names of processes, from and to
	listeners map[loop.Addr][]*listener
	last      map[loop.Addr]*Loop // the latest process to listen there, for links to dead ones
}

// link is what is special about the way from one process to another.
type link struct {
	cut      bool
	slow     bool
	min, max time.Duration
	held     []event // what waits for the cut to heal
}

func newNet(w *World) *Net {
	return &Net{
		w: w, min: 50 * time.Microsecond, max: 200 * time.Microsecond,
		links:     map[[2]string]*link{},
		listeners: map[loop.Addr][]*listener{},
		last:      map[loop.Addr]*Loop{},
	}
}

// SetLatency sets how long bytes take, each way.
func (n *Net) SetLatency(lo, hi time.Duration) { n.min, n.max = lo, hi }

// SetLatencyBetween sets how long bytes take from a to b and from b to a.
func (n *Net) SetLatencyBetween(a, b *Loop, lo, hi time.Duration) {
	for _, l := range []*link{n.link(a, b), n.link(b, a)} {
		l.slow, l.min, l.max = true, lo, hi
	}
}

// Cut holds everything that goes between a and b, both ways, until Heal: silence, not a reset. It goes by the names of the processes, so it also holds for their successors.
func (n *Net) Cut(a, b *Loop) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay holds what goes from one process to another.
func (n *Net) CutOneWay(from, to *Loop) {
	from.note("cut to " + to.name)
	n.link(from, to).cut = true
}

// Heal ends a cut between a and b; what was held goes on its way.
func (n *Net) Heal(a, b *Loop) {
	for _, pair := range [][2]*Loop{{a, b}, {b, a}} {
		pair[0].note("heal to " + pair[1].name)
		n.heal(n.link(pair[0], pair[1]))
	}
}

// HealAll ends every cut.
func (n *Net) HealAll() {
	keys := make([][2]string, 0, len(n.links))
	for k := range n.links {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for _, k := range keys {
		n.heal(n.links[k])
	}
}

func (n *Net) heal(l *link) {
	l.cut = false
	for _, e := range l.held {
		e.at = n.w.now.Add(n.w.between(n.min, n.max))
		n.w.push(e)
	}
	l.held = nil
}

// Isolate cuts l from every other living process.
func (n *Net) Isolate(l *Loop) {
	for _, o := range n.w.loops {
		if o != l && !o.dead {
			n.Cut(l, o)
		}
	}
}

// Reset breaks every connection between a and b: both ends see a reset, bytes on the way are lost.
func (n *Net) Reset(a, b *Loop) {
	for _, c := range slices.Clone(a.conns) {
		if c.peer != nil && c.peer.l == b {
			n.ResetConn(c)
		}
	}
}

// ResetConn breaks one connection as Reset does; c is either of its ends.
func (n *Net) ResetConn(c loop.Conn) {
	end := c.(*conn)
	for _, e := range []*conn{end, end.peer} {
		if e != nil {
			e.out.broken = true
			n.fail(e, syscall.ECONNRESET)
		}
	}
}

// fail tells one end of its connection's end, after the network's delay.
func (n *Net) fail(c *conn, err error) {
	what := "connection to " + c.remote.String()
	n.w.push(event{at: n.w.now.Add(n.w.between(n.min, n.max)), l: c.l, kind: evFailed, x: &connError{c, fmt.Errorf("%s: %w", what, err)}})
}

func (n *Net) link(from, to *Loop) *link {
	k := [2]string{from.name, to.name}
	l := n.links[k]
	if l == nil {
		l = &link{}
		n.links[k] = l
	}
	return l
}

// special is the link from one process to another, or nil when it is like any other.
func (n *Net) special(from, to *Loop) *link {
	if len(n.links) == 0 || from == nil || to == nil {
		return nil
	}
	return n.links[[2]string{from.name, to.name}]
}

func (n *Net) isCut(from, to *Loop) bool {
	l := n.special(from, to)
	return l != nil && l.cut
}

// hold keeps e when its way is cut, and reports whether it did.
func (n *Net) hold(from, to *Loop, e event) bool {
	l := n.special(from, to)
	if l == nil || !l.cut {
		return false
	}
	l.held = append(l.held, e)
	return true
}

func (n *Net) latency(from, to *Loop) time.Duration {
	if l := n.special(from, to); l != nil && l.slow {
		return n.w.between(l.min, l.max)
	}
	return n.w.between(n.min, n.max)
}

// listener is one process's claim to an address.
type listener struct {
	l     *Loop
	a     loop.Addr
	share bool
	h     loop.ListenHandler
	gone  bool
}

func (n *Net) listen(l *Loop, a loop.Addr, o loop.ListenOptions, h loop.ListenHandler) (loop.Listener, error) {
	if l.dead {
		return nil, fmt.Errorf("listen on %s: process %s is dead", a, l.name)
	}
	switch a.Network {
	case "tcp":
		host, port, err := net.SplitHostPort(a.Address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", a, err)
		}
		if p, err := strconv.ParseUint(port, 10, 16); err != nil {
			return nil, fmt.Errorf("listen on %s: port: %w", a, err)
		} else if p == 0 {
			a.Address = net.JoinHostPort(host, n.port())
		}
	case "unix":
		a.Address = l.host + " " + a.Address // a path names a socket of its host
	default:
		return nil, fmt.Errorf("listen on %s: unknown network", a)
	}
	for _, other := range n.listeners[a] {
		if (!o.Share || !other.share) && !(wildcard(a) && other.l.host != l.host) {
			return nil, fmt.Errorf("listen on %s: %w", a, syscall.EADDRINUSE)
		}
	}
	s := &listener{l: l, a: a, share: o.Share, h: h}
	n.listeners[a] = append(n.listeners[a], s)
	n.last[a] = l
	l.listeners = append(l.listeners, s)
	return s, nil
}

func (n *Net) port() string {
	n.w.ports++
	return strconv.Itoa(n.w.ports)
}

// wildcard reports whether a stands for every address of its host.
func wildcard(a loop.Addr) bool {
	host, _, err := net.SplitHostPort(a.Address)
	return a.Network == "tcp" && err == nil && (host == "" || host == "0.0.0.0" || host == "::")
}

// find is who accepts a connection to a: the listener, drawn when several share it, and the process that would be concerned when nobody listens.
func (n *Net) find(from *Loop, a loop.Addr) (*listener, *Loop) {
	if a.Network == "unix" {
		a.Address = from.host + " " + a.Address
	}
	candidates := n.listeners[a]
	owner := n.last[a]
	if host, port, err := net.SplitHostPort(a.Address); a.Network == "tcp" && err == nil {
		local := host == "127.0.0.1" || host == "::1" || host == "localhost"
		for _, any := range []string{"0.0.0.0", "::", ""} {
			for _, s := range n.listeners[loop.Addr{Network: "tcp", Address: net.JoinHostPort(any, port)}] {
				if s.l.host == host || local && s.l.host == from.host {
					candidates = append(slices.Clip(candidates), s)
				}
			}
		}
		for _, o := range n.w.loops {
			if owner == nil && o.host == host {
				owner = o
			}
		}
	}
	if len(candidates) == 0 {
		return nil, owner
	}
	s := candidates[n.w.rng.IntN(len(candidates))]
	return s, s.l
}

// Addr is the bound address.
func (s *listener) Addr() loop.Addr {
	if s.a.Network == "unix" {
		return loop.Addr{Network: "unix", Address: s.a.Address[len(s.l.host)+1:]}
	}
	return s.a
}

// Close ends listening; accepted connections live on.
func (s *listener) Close() {
	s.drop()
	s.l.listeners = slices.DeleteFunc(s.l.listeners, func(o *listener) bool { return o == s })
}

func (s *listener) drop() {
	s.gone = true
	n := s.l.w.Net
	n.listeners[s.a] = slices.DeleteFunc(n.listeners[s.a], func(o *listener) bool { return o == s })
	if len(n.listeners[s.a]) == 0 {
		delete(n.listeners, s.a)
	}
}

func (n *Net) dial(l *Loop, a loop.Addr, h loop.ConnHandler) loop.Conn {
	n.w.ids++
	c := &conn{l: l, id: n.w.ids, h: h, remote: a, lastAck: n.w.now}
	c.out.from = c
	if l.dead {
		c.closed = true
		return c
	}
	host := l.host
	if to, _, err := net.SplitHostPort(a.Address); err == nil && net.ParseIP(to).IsLoopback() {
		host = to
	}
	c.local = loop.Addr{Network: a.Network}
	if a.Network == "tcp" {
		c.local.Address = net.JoinHostPort(host, n.port())
	}
	l.conns = append(l.conns, c)
	if err := checkDial(a); err != nil {
		n.w.push(event{at: n.w.now.Add(soon), l: l, kind: evFailed, x: &connError{c, fmt.Errorf("dial %s: %w", a, err)}})
		return c
	}
	c.out.push(wireItem{kind: itemSyn}, n.w.now.Add(n.latency(l, nil)))
	return c
}

func checkDial(a loop.Addr) error {
	switch a.Network {
	case "tcp":
		_, _, err := net.SplitHostPort(a.Address)
		return err
	case "unix":
		return nil
	}
	return errors.New("unknown network")
}

// arrive takes the next item off a wire at its far end.
func (n *Net) arrive(e event) bool {
	wr := e.x.(*wire)
	if wr.first().kind == itemSyn {
		return n.knock(wr, e)
	}
	from, to := wr.from, wr.from.peer
	if to == nil { // the dialler closed, or died, before its dial arrived
		wr.pop()
		return false
	}
	if n.hold(from.l, to.l, e) {
		return false
	}
	it := wr.pop()
	if wr.broken {
		return false
	}
	if to.l.dead {
		n.afterlife(from, to, it)
		return false
	}
	to.lastAck = n.w.now
	if !n.isCut(to.l, from.l) {
		from.lastAck = n.w.now
	}
	run := event{at: n.w.now, l: to.l, x: to}
	switch it.kind {
	case itemSynAck:
		run.kind = evOpened
	case itemData:
		to.in.avail += it.n
		if to.closing || to.closed {
			to.discard()
			return false
		}
		run.kind = evRead
	case itemFin:
		to.eof = true
		run.kind = evRead
	case itemRst:
		from.out.broken, to.out.broken = true, true
		run.kind = evFailed
		run.x = &connError{to, fmt.Errorf("connection to %s: %w", to.remote, syscall.ECONNRESET)}
	}
	return n.w.dispatch(run)
}

// afterlife answers what was sent to a process that is no more: a host that lost power answers once it runs again.
func (n *Net) afterlife(from, to *conn, it wireItem) {
	if !to.l.silent || it.kind != itemData || from.out.broken {
		return
	}
	for _, l := range n.w.loops {
		if !l.dead && l.host == to.l.host {
			from.out.broken = true
			n.fail(from, syscall.ECONNRESET)
			return
		}
	}
}

// knock brings a dial to its listener.
func (n *Net) knock(wr *wire, e event) bool {
	c := wr.from
	s, owner := n.find(c.l, c.remote)
	if owner != nil && owner != c.l && (n.isCut(c.l, owner) || s == nil && owner.silent && !n.hostAlive(owner.host)) {
		if !c.timing {
			c.timing = true
			n.w.push(event{at: n.w.now.Add(dialTimeout), kind: evDialTimeout, x: c})
		}
		if !n.hold(c.l, owner, e) {
			e.at = n.w.now.Add(time.Second) // a SYN is sent again, first after a second (RFC 6298, section 2.1)
			if !c.closed && !c.closing && !c.l.dead {
				n.w.push(e)
			}
		}
		return false
	}
	wr.pop()
	if c.closed {
		return false
	}
	if s == nil {
		c.out.broken = true
		n.w.push(event{at: n.w.now.Add(n.latency(owner, c.l)), l: c.l, kind: evFailed, x: &connError{c, fmt.Errorf("dial %s: %w", c.remote, syscall.ECONNREFUSED)}})
		return false
	}
	n.w.ids++
	p := &conn{l: s.l, id: n.w.ids, listener: s, accepted: true, opened: true, local: c.remote, remote: c.local, peer: c, lastAck: n.w.now}
	p.out.from = p
	p.in, c.in = &c.out, &p.out
	c.peer = p
	s.l.conns = append(s.l.conns, p)
	p.out.push(wireItem{kind: itemSynAck}, n.w.now.Add(n.latency(s.l, c.l)))
	return n.w.dispatch(event{at: n.w.now, l: s.l, kind: evAccept, x: p})
}

func (n *Net) hostAlive(host string) bool {
	return slices.ContainsFunc(n.w.loops, func(l *Loop) bool { return !l.dead && l.host == host })
}

func (n *Net) dialTimeout(c *conn) bool {
	if c.opened || c.closed || c.closing {
		return false
	}
	c.out.broken = true
	return n.w.dispatch(event{at: n.w.now, l: c.l, kind: evFailed, x: &connError{c, fmt.Errorf("dial %s: %w", c.remote, syscall.ETIMEDOUT)}})
}

// writable tells a sender that its peer has made room.
func (n *Net) writable(e event) bool {
	c := e.x.(*conn)
	if n.hold(c.peer.l, c.l, e) {
		return false
	}
	c.roomComing = false
	return n.w.dispatch(event{at: n.w.now, l: c.l, kind: evFlush, x: c})
}

// probe is one TCP keep-alive probe and its answer.
func (n *Net) probe(e event) bool {
	c := e.x.(*conn)
	if c.closed || c.l.dead || e.n != c.keep.generation {
		return false
	}
	again := func(at loop.Instant) bool {
		e.at = at
		n.w.push(e)
		return false
	}
	if due := c.lastAck.Add(c.keep.idle); n.w.now < due {
		c.keep.missed = 0
		return again(due)
	}
	p := c.peer
	if p != nil && !n.isCut(c.l, p.l) && !n.isCut(p.l, c.l) && !p.l.silent {
		c.lastAck = n.w.now
		c.keep.missed = 0
		return again(n.w.now.Add(c.keep.idle))
	}
	if c.keep.missed++; c.keep.missed <= c.keep.count {
		return again(n.w.now.Add(c.keep.interval))
	}
	return n.w.dispatch(event{at: n.w.now, l: c.l, kind: evFailed, x: &connError{c, fmt.Errorf("connection to %s: %w", c.remote, syscall.ETIMEDOUT)}})
}
