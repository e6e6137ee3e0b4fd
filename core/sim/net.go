package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
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
	delay     Delay
	pieces    int              // at most so many for what leaves at once
	links     map[[2]int]*link // by number of the processes' names, from and to
	listeners map[loop.Addr][]*listener
	last      map[loop.Addr]*Loop // the latest process to listen there, for links to dead ones

	delays, cuts, choices, breaks *rand.Rand // sub-streams: how long, in which pieces, which listener, faults

	calls   uint64 // dials and pieces of sending so far
	breakAt uint64 // the call that fails; 0 for none
}

// link is what is special about the way from one process to another.
type link struct {
	cut   bool
	delay *Delay       // nil: the network's
	rate  int64        // bytes per second; 0 for no limit
	free  loop.Instant // when what was sent has left, with a rate
	flap  uint64       // generation of its flapping
	held  []event      // what waits for the cut to heal
}

func newNet(w *World) *Net {
	return &Net{
		w: w, delay: Delay{Min: 50 * time.Microsecond, Max: 200 * time.Microsecond}, pieces: 3,
		delays: w.Stream("net/delay"), cuts: w.Stream("net/pieces"), choices: w.Stream("net/listener"), breaks: w.Stream("net/faults"),
		links:     map[[2]int]*link{},
		listeners: map[loop.Addr][]*listener{},
		last:      map[loop.Addr]*Loop{},
	}
}

// SetLatency sets how long bytes take, each way.
func (n *Net) SetLatency(lo, hi time.Duration) { n.SetDelay(Delay{Min: lo, Max: hi}) }

// SetDelay sets how long bytes take, each way. Each connection draws on its own, so what goes over two connections arrives in any order; one connection keeps its order.
func (n *Net) SetDelay(d Delay) { n.delay = d }

// SetPieces sets in how many pieces at most arrives what leaves at once; each length is drawn, some are very small. It is 3 at first.
func (n *Net) SetPieces(most int) { n.pieces = max(1, most) }

// SetLatencyBetween sets how long bytes take from a to b and from b to a.
func (n *Net) SetLatencyBetween(a, b *Loop, lo, hi time.Duration) {
	n.SetDelayBetween(a, b, Delay{Min: lo, Max: hi})
}

// SetDelayBetween sets how long bytes take from a to b and from b to a; the zero Delay means as everywhere again.
func (n *Net) SetDelayBetween(a, b *Loop, d Delay) {
	for _, l := range []*link{n.link(a, b), n.link(b, a)} {
		l.delay = &d
		if d == (Delay{}) {
			l.delay = nil
		}
	}
	if d != (Delay{}) {
		n.w.inflict(FaultNetSlow, a.name, "%v to %v to and from %s", d.Min, max(d.Max, d.Worst), b.name)
	}
}

// SetBandwidth limits what goes from one process to another to so many bytes per second; 0 ends the limit.
func (n *Net) SetBandwidth(from, to *Loop, perSecond int64) {
	n.link(from, to).rate = max(perSecond, 0)
	if perSecond > 0 {
		n.w.inflict(FaultNetSlow, from.name, "%d bytes per second to %s", perSecond, to.name)
	}
}

// Cut holds everything that goes between a and b, both ways, until Heal: silence, not a reset. It goes by the names of the processes, so it also holds for their successors.
func (n *Net) Cut(a, b *Loop) {
	n.w.inflict(FaultCut, a.name, "to and from %s", b.name)
	n.link(a, b).cut = true
	n.link(b, a).cut = true
}

// CutOneWay holds what goes from one process to another.
func (n *Net) CutOneWay(from, to *Loop) {
	n.w.inflict(FaultCutOneWay, from.name, "to %s", to.name)
	n.link(from, to).cut = true
}

// Heal ends a cut between a and b; what was held goes on its way.
func (n *Net) Heal(a, b *Loop) {
	for _, pair := range [][2]*Loop{{a, b}, {b, a}} {
		if l := n.special(pair[0], pair[1]); l != nil {
			if l.cut {
				pair[0].note("heal to " + pair[1].name)
			}
			n.heal(l)
		}
	}
}

// HealAll ends every cut and all flapping.
func (n *Net) HealAll() {
	keys := make([][2]int, 0, len(n.links))
	for k := range n.links {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	for _, k := range keys {
		n.heal(n.links[k])
	}
}

func (n *Net) heal(l *link) {
	l.cut = false
	l.flap++
	for _, e := range l.held {
		e.at = n.w.now.Add(n.delay.draw(n.delays))
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

// Partition cuts every process of a group from those of the other groups. Processes in no group keep all of their links.
func (n *Net) Partition(groups ...[]*Loop) {
	for i, g := range groups {
		for _, other := range groups[i+1:] {
			for _, a := range g {
				for _, b := range other {
					n.Cut(a, b)
				}
			}
		}
	}
}

// Flap cuts and heals the link between a and b again and again, one after the other for about up and down each (half to one and a half of it), until d has passed or somebody
// heals it; in the end it is whole.
func (n *Net) Flap(a, b *Loop, up, down, d time.Duration) {
	ab, ba := n.link(a, b), n.link(b, a)
	n.w.inflict(FaultFlap, a.name, "to and from %s, %v up and %v down for %v", b.name, up, down, d)
	end := n.w.now.Add(d)
	vary := func(d time.Duration) time.Duration { return max(soon, between(n.breaks, d/2, d*3/2)) }
	generation := uint64(0)
	set := func(cut bool) {
		if cut {
			ab.cut, ba.cut = true, true
			a.note("flaps down to " + b.name)
		} else {
			a.note("flaps up to " + b.name)
			n.heal(ab)
			n.heal(ba)
		}
		generation = ab.flap
	}
	var turn func()
	cut := false
	turn = func() {
		if ab.flap != generation {
			return // somebody healed it
		}
		cut = !cut && n.w.now < end
		set(cut)
		switch {
		case cut:
			n.w.After(vary(down), turn)
		case n.w.now < end:
			n.w.After(vary(up), turn)
		}
	}
	generation = ab.flap
	turn()
}

// Reset breaks every connection between a and b: both ends see a reset, bytes on the way are lost.
func (n *Net) Reset(a, b *Loop) {
	n.Break(a, b, BreakBoth)
}

// ResetConn breaks one connection as Reset does; c is either of its ends.
func (n *Net) ResetConn(c loop.Conn) { n.BreakConn(c, BreakBoth) }

// Break is a way in which a connection ends without anybody having closed it.
type Break uint8

// The ways.
const (
	BreakBoth   Break = iota + 1 // both ends see a reset
	BreakOne                     // the given end sees a reset; the other sees nothing, until it sends (or probes): that is answered by a reset
	BreakSilent                  // neither end sees anything, and what they send vanishes
)

// Break breaks every connection between a and b and says how many there were; with BreakOne it is a's ends that see it.
func (n *Net) Break(a, b *Loop, how Break) int {
	broken := 0
	for _, c := range slices.Clone(a.conns) {
		if c.peer != nil && c.peer.l == b {
			n.BreakConn(c, how)
			broken++
		}
	}
	return broken
}

// BreakConn breaks one connection; bytes on the way are lost.
func (n *Net) BreakConn(c loop.Conn, how Break) {
	end := c.(*conn)
	ends := [2]*conn{end, end.peer}
	switch how {
	case BreakBoth:
		n.w.inflict(FaultReset, end.l.name, "%s", end.label())
	case BreakOne:
		n.w.inflict(FaultHalfOpen, end.l.name, "%s", end.label())
		end.half = true
		ends[1] = nil
	case BreakSilent:
		n.w.inflict(FaultSilentBreak, end.l.name, "%s", end.label())
	}
	for _, e := range ends {
		if e != nil {
			e.out.broken = true
			if how != BreakSilent {
				n.fail(e, syscall.ECONNRESET)
			}
		}
	}
}

// Calls is how many dials and pieces of sending there were.
func (n *Net) Calls() uint64 { return n.calls }

// FailCall makes the k-th dial or piece of sending from now fail: the dial is refused, the connection is reset. For testers that fail each call in turn.
func (n *Net) FailCall(k uint64) { n.breakAt = n.calls + k }

// call counts a dial or a piece of sending and reports whether it is the one to fail.
func (n *Net) call() bool {
	n.calls++
	return n.calls == n.breakAt
}

// fail tells one end of its connection's end, after the network's delay.
func (n *Net) fail(c *conn, err error) {
	what := "connection to " + c.remote.String()
	n.w.push(event{at: n.w.now.Add(n.delay.draw(n.delays)), l: c.l, kind: evFailed, x: &connError{c, fmt.Errorf("%s: %w", what, err)}})
}

func (n *Net) link(from, to *Loop) *link {
	k := [2]int{from.number, to.number}
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
	return n.links[[2]int{from.number, to.number}]
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
	if l := n.special(from, to); l != nil && l.delay != nil {
		return l.delay.draw(n.delays)
	}
	return n.delay.draw(n.delays)
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
	s := candidates[0]
	if len(candidates) > 1 {
		s = candidates[n.choices.IntN(len(candidates))]
	}
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
	if n.call() {
		n.w.inflict(FaultReset, l.name, "conn %d: dial %s", c.id, a)
		n.w.push(event{at: n.w.now.Add(soon), l: l, kind: evFailed, x: &connError{c, fmt.Errorf("dial %s: %w", a, syscall.ECONNREFUSED)}})
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
	switch {
	case to.half && !to.l.silent:
		n.refuse(from)
		return false
	case to.l.dead:
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

// refuse answers what was sent to a connection that is over at the other end.
func (n *Net) refuse(from *conn) {
	if !from.out.broken {
		from.out.broken = true
		n.fail(from, syscall.ECONNRESET)
	}
}

// afterlife answers what was sent to a process that is no more: a host that lost power answers once it runs again.
func (n *Net) afterlife(from, to *conn, it wireItem) {
	if !to.l.silent || it.kind != itemData || from.out.broken {
		return
	}
	for _, l := range n.w.loops {
		if !l.dead && l.host == to.l.host {
			n.refuse(from)
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
	if p != nil && p.half && !n.isCut(c.l, p.l) && !n.isCut(p.l, c.l) && !p.l.dead {
		n.refuse(c)
		return false
	}
	if p != nil && !n.isCut(c.l, p.l) && !n.isCut(p.l, c.l) && !p.l.silent && !c.out.broken && !p.out.broken {
		c.lastAck = n.w.now
		c.keep.missed = 0
		return again(n.w.now.Add(c.keep.idle))
	}
	if c.keep.missed++; c.keep.missed <= c.keep.count {
		return again(n.w.now.Add(c.keep.interval))
	}
	return n.w.dispatch(event{at: n.w.now, l: c.l, kind: evFailed, x: &connError{c, fmt.Errorf("connection to %s: %w", c.remote, syscall.ETIMEDOUT)}})
}
