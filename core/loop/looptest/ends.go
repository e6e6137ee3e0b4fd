package looptest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"time"

	"holdfast/core/loop"
)

// end is a connection's handler with a function for each event; a missing Received keeps everything in got.
type end struct {
	g        *rig
	conn     loop.Conn
	got      []byte
	opens    int
	closes   int
	err      error
	opened   *signal
	closed   *signal
	received func(c loop.Conn, p []byte) int
	filled   func(c loop.Conn)
	drained  func(c loop.Conn)
	onOpen   func(c loop.Conn)
}

func (g *rig) end() *end {
	return &end{g: g, opened: g.signal("Opened"), closed: g.signal("Closed")}
}

func (e *end) Opened(c loop.Conn) {
	e.conn = c
	if e.opens++; e.opens > 1 || e.closes > 0 {
		e.g.Errorf("Opened called %d times, after %d Closed", e.opens, e.closes)
	}
	if e.onOpen != nil {
		e.onOpen(c)
	}
	e.opened.fire()
}

func (e *end) Received(c loop.Conn, p []byte) int {
	if e.closes > 0 {
		e.g.Error("Received after Closed")
	}
	if len(p) == 0 {
		e.g.Error("Received without bytes")
	}
	if e.received != nil {
		return e.received(c, p)
	}
	e.got = append(e.got, p...)
	return len(p)
}

func (e *end) Filled(c loop.Conn) {
	if e.closes > 0 {
		e.g.Error("Filled after Closed")
	}
	e.filled(c)
}

func (e *end) Drained(c loop.Conn) {
	if e.drained != nil {
		e.drained(c)
	}
}

func (e *end) Closed(c loop.Conn, err error) {
	if e.closes++; e.closes > 1 {
		e.g.Errorf("Closed called %d times", e.closes)
	}
	e.err = err
	e.closed.fire()
}

// accepter hands each accepted connection to next.
type accepter func(c loop.Conn) loop.ConnHandler

func (a accepter) Accepted(c loop.Conn) loop.ConnHandler { return a(c) }

// addresses has one of each kind of listening address that this machine has.
func (g *rig) addresses() []loop.Addr {
	list := []loop.Addr{{Network: "tcp", Address: "127.0.0.1:0"}, {Network: "unix", Address: filepath.Join(g.TempDir(), "s")}}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		list = append(list, loop.Addr{Network: "tcp", Address: "[::1]:0"})
	}
	return list
}

var tcp = loop.Addr{Network: "tcp", Address: "127.0.0.1:0"}

// listen listens on the loop until the test's end.
func (g *rig) listen(a loop.Addr, accept accepter) loop.Listener {
	g.Helper()
	var l loop.Listener
	g.do(func() {
		var err error
		if l, err = g.Listen(a, loop.ListenOptions{}, accept); err != nil {
			g.Errorf("Listen(%v): %v", a, err)
		}
	})
	if l == nil {
		g.FailNow()
	}
	return l
}

// outside connects to a from outside the loop, by Go's net package.
func (g *rig) outside(a loop.Addr) net.Conn {
	g.Helper()
	c, err := net.Dial(a.Network, a.Address)
	if err != nil {
		g.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	g.Cleanup(func() { c.Close() })
	return c
}

// serve accepts one connection for e, and returns the outside end of it.
func (g *rig) serve(e *end) net.Conn {
	g.Helper()
	l := g.listen(tcp, func(c loop.Conn) loop.ConnHandler {
		e.conn = c
		e.opened.fire()
		if e.onOpen != nil {
			e.onOpen(c)
		}
		return e
	})
	c := g.outside(l.Addr())
	e.opened.wait()
	return c
}

// random is n bytes that differ.
func random(n int) []byte {
	p := make([]byte, n)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(p)
	return p
}

// writeAll writes on a goroutine of its own, in pieces of the given size.
func (g *rig) writeAll(c net.Conn, p []byte, piece int) {
	go func() {
		for len(p) > 0 {
			n := min(piece, len(p))
			if _, err := c.Write(p[:n]); err != nil {
				g.Errorf("write to the loop: %v", err)
				return
			}
			p = p[n:]
		}
	}()
}

func (g *rig) readAll(c io.Reader, n int) []byte {
	g.Helper()
	p := make([]byte, n)
	if k, err := io.ReadFull(c, p); err != nil {
		g.Fatalf("read from the loop: %v after %d of %d bytes", err, k, n)
	}
	return p
}

func (g *rig) same(got, want []byte) {
	g.Helper()
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		g.Fatalf("got %d bytes, want %d; they differ at %d", len(got), len(want), at)
	}
}
