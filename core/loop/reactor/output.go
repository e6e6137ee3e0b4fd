package reactor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

const (
	// maxPieces is how many pieces one write takes.
	maxPieces = 64
	// copySize is the size of the buffers that Send copies into.
	copySize = 16 << 10
	// maxCopy is the largest buffer that Send takes at once.
	maxCopy = 1 << 20
)

// piece is a run of bytes to send; own says that the buffer is the connection's and may be appended to.
type piece struct {
	ref    *buf.Ref
	off, n int
	own    bool
}

// output is a connection's queue of pieces.
type output struct {
	pieces []piece
	first  int // pieces before it have left
	n      int // bytes
}

// Send queues a copy of p.
func (c *Conn) Send(p []byte) {
	if c.state > stateOpen || c.broken != nil || len(p) == 0 {
		return
	}
	c.grew(len(p))
	o := &c.out
	for len(p) > 0 {
		last := o.last()
		if last == nil || !last.own || last.off+last.n == last.ref.Len() {
			o.pieces = append(o.pieces, piece{ref: c.r.arena.Alloc(max(copySize, min(len(p), maxCopy))), own: true})
			continue
		}
		k := copy(last.ref.Bytes()[last.off+last.n:], p)
		last.n += k
		p = p[k:]
	}
}

// SendRef queues b[off:off+n] and takes a reference.
func (c *Conn) SendRef(b *buf.Ref, off, n int) {
	if off < 0 || n < 0 || off > b.Len()-n {
		panic(fmt.Sprintf("loop: SendRef of %d bytes at %d from a buffer of %d", n, off, b.Len()))
	}
	if c.state > stateOpen || c.broken != nil || n == 0 {
		return
	}
	c.grew(n)
	c.out.pieces = append(c.out.pieces, piece{ref: b.Retain(), off: off, n: n})
}

// Queued is the number of bytes that have not left.
func (c *Conn) Queued() int { return c.out.n }

func (c *Conn) grew(n int) {
	c.out.n += n
	if c.out.n > loop.HighWater {
		c.over = true
	}
	c.dirtied()
}

func (c *Conn) dirtied() { c.r.dirty.push(c, &c.node, true) }

func (o *output) last() *piece {
	if o.first == len(o.pieces) {
		return nil
	}
	return &o.pieces[len(o.pieces)-1]
}

// flush writes until everything has left or the socket is full.
func (c *Conn) flush() {
	if c.state != stateOpen && c.state != stateEnding {
		return
	}
	o := &c.out
	for o.n > 0 {
		if !c.writable {
			return
		}
		want := 0
		iov := c.r.iov[:0]
		for i := o.first; i < len(o.pieces) && len(iov) < maxPieces; i++ {
			p := &o.pieces[i]
			iov = append(iov, vec(p.ref.Bytes()[p.off:p.off+p.n]))
			want += p.n
		}
		n, _, e := unix.Syscall(unix.SYS_WRITEV, uintptr(c.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		clear(iov)
		switch {
		case e == unix.EINTR:
			continue
		case e == unix.EAGAIN:
			c.writable = false
			return
		case e != 0:
			c.writeFailed(e)
			return
		}
		o.left(int(n))
		if int(n) < want {
			c.writable = false // the socket is full; epoll says when it has room
			return
		}
	}
	c.sent()
}

// writeFailed drops the output. What the peer sent before it went away is still read, when somebody reads.
func (c *Conn) writeFailed(err error) {
	c.out.drop()
	if c.state != stateOpen || c.paused {
		c.fail(err)
		return
	}
	c.readable, c.hung, c.broken = true, true, err
	c.wake()
}

// left drops the first n bytes.
func (o *output) left(n int) {
	o.n -= n
	for n > 0 {
		p := &o.pieces[o.first]
		if n < p.n {
			p.off += n
			p.n -= n
			return
		}
		n -= p.n
		p.ref.Release()
		*p = piece{}
		o.first++
	}
	switch {
	case o.first == len(o.pieces):
		o.pieces, o.first = o.pieces[:0], 0
	case o.first >= 256 && o.first*2 >= len(o.pieces):
		k := copy(o.pieces, o.pieces[o.first:])
		clear(o.pieces[k:])
		o.pieces, o.first = o.pieces[:k], 0
	}
}

func (o *output) drop() {
	for i := o.first; i < len(o.pieces); i++ {
		o.pieces[i].ref.Release()
	}
	clear(o.pieces)
	o.pieces, o.first, o.n = o.pieces[:0], 0, 0
}

// vec describes p to the kernel; the caller keeps p reachable.
func vec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	return v
}
