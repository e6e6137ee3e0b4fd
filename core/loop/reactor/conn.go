package reactor

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

// connState is where a connection is in its life.
type connState uint8

const (
	stateDialing connState = iota
	stateOpen
	stateEnding    // no more reading; closes when everything queued has left
	stateLingering // everything has left and the peer was told so; waits for its end, so that what is on the way to it is not destroyed
	stateClosing   // the descriptor is closed; Closed is still to be called
	stateClosed
)

const (
	connMask = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP
	// lingerTime is how long an ended connection waits for the peer.
	lingerTime = time.Second
)

// Conn is one stream connection.
type Conn struct {
	node
	r      *Reactor
	h      loop.ConnHandler
	fd     int
	slot   uint32
	family int
	state  connState
	err    error // for Closed
	broken error // why writing failed; Closed tells it once everything received has been shown

	readable, writable bool
	hung               bool // the peer has ended its side or the connection has failed: reading goes on until it says so
	failed             bool // epoll reported an error
	paused             bool
	held               bool // rest is to be shown again without waiting for more
	filling            bool
	over               bool // Queued was above HighWater
	drained            bool // Drained is to be called
	endAfterDial       bool // CloseAfterSend was called before the connection was there

	rest   *buf.Ref // bytes received and not consumed
	restN  int
	fill   []byte
	filled int

	out output

	local, remote loop.Addr
	lingerTimer   loop.Timer
}

var _ loop.Conn = (*Conn)(nil)

// Dial starts a connection.
func (r *Reactor) Dial(a loop.Addr, h loop.ConnHandler) loop.Conn {
	c := &Conn{r: r, h: h, fd: -1, state: stateDialing, remote: a}
	c.lingerTimer.Fire = c.lingered
	if err := c.dial(a); err != nil {
		c.fail(fmt.Errorf("dial %v: %w", a, err))
	}
	return c
}

func (c *Conn) dial(a loop.Addr) error {
	family, sa, err := resolve(a)
	if err != nil {
		return err
	}
	if c.fd, err = socket(family); err != nil {
		return err
	}
	c.family = family
	noDelay(c.fd, family)
	err = unix.Connect(c.fd, sa)
	if err != nil && err != unix.EINPROGRESS {
		return err
	}
	// A connection that is there already is writable, which epoll reports at once.
	c.slot, err = c.r.watch(c.fd, c, connMask)
	return err
}

func (c *Conn) wake() { c.r.ready.push(c, &c.node, false) }

func (c *Conn) event(mask uint32) {
	if mask&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.readable = true
	}
	if mask&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
		c.hung = true
	}
	if mask&unix.EPOLLERR != 0 {
		c.hung, c.failed = true, true
	}
	if mask&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		c.writable = true
	}
	c.wake()
}

// step does what there is to do at the start of a turn.
func (c *Conn) step() {
	switch c.state {
	case stateDialing:
		c.connected()
	case stateOpen:
		if c.drained {
			c.drained = false
			c.h.Drained(c)
		}
		c.receive()
		if c.failed && c.paused && c.state == stateOpen {
			c.fail(c.socketError())
		}
	case stateEnding:
		if c.failed {
			c.fail(c.socketError())
		}
	case stateLingering:
		c.discard()
	case stateClosing:
		c.finish()
		return
	}
	if c.state <= stateEnding && c.writable && c.out.n > 0 {
		c.dirtied()
	}
}

func (c *Conn) socketError() error {
	v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case v == 0:
		return unix.ECONNRESET // another call has taken it
	}
	return unix.Errno(v)
}

func (c *Conn) connected() {
	if !c.writable {
		return
	}
	v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && v != 0 {
		err = unix.Errno(v)
	}
	if err != nil {
		c.fail(fmt.Errorf("dial %v: %w", c.remote, err))
		return
	}
	if c.local = localAddr(c.fd); c.family != unix.AF_UNIX && c.local == remoteAddr(c.fd) {
		// Dialling a free local port can connect a socket to itself (simultaneous open, RFC 9293, section 3.5): nobody listens there.
		c.fail(fmt.Errorf("dial %v: %w", c.remote, unix.ECONNREFUSED))
		return
	}
	c.state = stateOpen
	c.h.Opened(c)
	if c.state != stateOpen {
		return
	}
	if c.endAfterDial {
		c.end()
	} else if c.readable {
		c.wake()
	}
}

// receive reads once and shows what came.
func (c *Conn) receive() {
	if c.held && !c.paused {
		c.held = false
		n := copy(c.r.input.Bytes(), c.restBytes())
		c.dropRest()
		c.deliver(c.r.input.Bytes()[:n])
	}
	if c.state != stateOpen || c.paused || !c.readable {
		return
	}
	if c.held { // the end of a Filled found more to do
		c.wake()
		return
	}
	n, want, err := c.read()
	c.r.tick()
	switch {
	case err == unix.EAGAIN:
		if c.readable = false; c.broken != nil {
			c.fail(c.broken)
		}
		return
	case err == unix.EINTR:
		c.wake()
		return
	case err != nil:
		c.fail(err)
		return
	case n == 0:
		c.peerEnded()
		return
	}
	if n < want && !c.hung {
		c.readable = false // epoll(7), question 9: a short read has emptied the socket
	} else {
		c.wake()
	}
	c.received(n)
}

// read fills the Fill buffer first and the shared input behind it; bytes kept from before are put in front there.
func (c *Conn) read() (n, want int, err error) {
	in := c.r.input.Bytes()
	iov := c.r.iov[:0]
	if c.filling && c.filled < len(c.fill) {
		iov = append(iov, vec(c.fill[c.filled:]))
		iov = append(iov, vec(in[:readSize]))
	} else {
		k := copy(in, c.restBytes())
		if k == len(in) {
			return 0, 0, fmt.Errorf("loop: the handler of %v waits for more than %d bytes in one piece", c.remote, k)
		}
		iov = append(iov, vec(in[k:min(len(in), k+readSize)]))
	}
	for i := range iov {
		want += int(iov[i].Len)
	}
	got, _, e := unix.Syscall(unix.SYS_READV, uintptr(c.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	clear(iov)
	if e != 0 {
		return 0, want, e
	}
	return int(got), want, nil
}

// received takes n bytes that read has put in place.
func (c *Conn) received(n int) {
	in := c.r.input.Bytes()
	if c.filling && c.filled < len(c.fill) {
		k := min(n, len(c.fill)-c.filled)
		c.filled += k
		c.deliver(in[:n-k])
		return
	}
	k := c.restN
	c.dropRest()
	c.deliver(in[:k+n])
}

// deliver gives p to the Fill buffer and the handler, and keeps what is left. p is in the shared input; rest is empty.
func (c *Conn) deliver(p []byte) {
	for c.state == stateOpen {
		if c.paused {
			c.held = len(p) > 0 || c.filling && c.filled == len(c.fill)
			break
		}
		if c.filling {
			n := copy(c.fill[c.filled:], p)
			c.filled += n
			p = p[n:]
			if c.filled < len(c.fill) {
				break
			}
			c.filling, c.fill = false, nil
			c.h.Filled(c)
			continue
		}
		if len(p) == 0 {
			break
		}
		n := c.h.Received(c, p)
		if n < 0 || n > len(p) {
			panic(fmt.Sprintf("loop: Received consumed %d of %d bytes", n, len(p)))
		}
		p = p[n:]
		if !c.filling && !c.paused {
			break
		}
	}
	if c.state == stateOpen && len(p) > 0 {
		c.rest = c.r.arena.Alloc(len(p))
		c.restN = copy(c.rest.Bytes(), p)
	}
}

func (c *Conn) restBytes() []byte {
	if c.rest == nil {
		return nil
	}
	return c.rest.Bytes()[:c.restN]
}

func (c *Conn) dropRest() {
	if c.rest != nil {
		c.rest.Release()
		c.rest, c.restN = nil, 0
	}
}

// peerEnded is an orderly end by the peer: what this side has queued still gets its chance.
func (c *Conn) peerEnded() {
	if c.broken != nil {
		c.fail(c.broken)
		return
	}
	c.err = errOrderly
	c.end()
}

// end stops reading and closes when everything queued has left.
func (c *Conn) end() {
	c.state = stateEnding
	c.stopReading()
	c.dirtied()
	if c.err == errOrderly {
		c.r.Arm(&c.lingerTimer, c.r.now.Add(lingerTime))
	}
}

func (c *Conn) stopReading() {
	c.dropRest()
	c.held, c.filling, c.fill = false, false, nil
}

// sent is called when nothing is queued any more.
func (c *Conn) sent() {
	if c.over {
		c.over = false
		if c.state == stateOpen {
			c.drained = true
			c.wake()
		}
	}
	if c.state != stateEnding {
		return
	}
	if c.err == errOrderly {
		c.fail(nil)
		return
	}
	// Closing with unread bytes would reset the connection and destroy what is still on its way (RFC 9293, section 3.6.1).
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		c.fail(nil)
		return
	}
	c.state = stateLingering
	c.readable = true
	c.r.Arm(&c.lingerTimer, c.r.now.Add(lingerTime))
	c.wake()
}

func (c *Conn) lingered() {
	if c.state == stateEnding || c.state == stateLingering {
		c.fail(nil)
	}
}

// discard reads and drops until the peer ends too.
func (c *Conn) discard() {
	if !c.readable {
		return
	}
	n, err := unix.Read(c.fd, c.r.input.Bytes())
	switch {
	case err == unix.EAGAIN:
		c.readable = false
	case err == unix.EINTR || err == nil && n > 0:
		c.wake()
	default:
		c.fail(nil)
	}
}

// fail closes the connection now; Closed(err) comes in the next turn.
func (c *Conn) fail(err error) {
	if c.state >= stateClosing {
		return
	}
	if errors.Is(err, io.EOF) || err == errOrderly {
		err = nil
	}
	c.state, c.err = stateClosing, err
	c.release()
	c.wake()
}

func (c *Conn) release() {
	c.stopReading()
	c.out.drop()
	c.r.Disarm(&c.lingerTimer)
	if c.fd >= 0 {
		if c.slot != 0 {
			c.r.forget(c.slot)
		}
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

func (c *Conn) finish() {
	c.state = stateClosed
	c.h.Closed(c, c.err)
}

// refuse ends a connection that nobody handles.
func (c *Conn) refuse() {
	if c.state < stateClosing {
		c.release()
	}
	c.state = stateClosed
}

func (c *Conn) abandon() {
	c.state = stateClosed
	c.release()
}

// Fill asks for the next bytes to be put into p.
func (c *Conn) Fill(p []byte) {
	if c.state >= stateEnding {
		return
	}
	if c.filling {
		panic("loop: Fill while another Fill runs")
	}
	c.filling, c.fill, c.filled = true, p, 0
	if c.rest != nil || len(p) == 0 {
		c.held = true
		c.wake()
	}
}

// Pause stops reading.
func (c *Conn) Pause() { c.paused = true }

// Resume goes on reading.
func (c *Conn) Resume() {
	if c.paused {
		c.paused, c.held = false, true // what was not consumed is shown again
		c.wake()
	}
}

// Close ends the connection and drops what is queued.
func (c *Conn) Close() { c.fail(nil) }

// CloseAfterSend closes once everything queued has left.
func (c *Conn) CloseAfterSend() {
	switch c.state {
	case stateDialing:
		if c.out.n == 0 {
			c.fail(nil)
			return
		}
		c.endAfterDial = true
	case stateOpen:
		c.end()
	}
}

// Local is this end's address.
func (c *Conn) Local() loop.Addr { return c.local }

// Remote is the peer's address.
func (c *Conn) Remote() loop.Addr { return c.remote }

// SetKeepAlive sets TCP keep-alive.
func (c *Conn) SetKeepAlive(idle, interval time.Duration, count int) {
	if c.fd < 0 || c.family == unix.AF_UNIX {
		return
	}
	seconds := func(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }
	err := errors.Join(
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(idle)),
		unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(interval)),
		unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, max(1, count)),
	)
	if err != nil {
		c.r.log.Warn("keep-alive not set", "remote", c.remote.String(), "err", err)
	}
}

// LastAck is when the peer last acknowledged anything.
func (c *Conn) LastAck() loop.Instant {
	if c.fd < 0 || c.family == unix.AF_UNIX {
		return c.r.now
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return c.r.now
	}
	return c.r.now.Add(-time.Duration(info.Last_ack_recv) * time.Millisecond)
}
