package sim

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"holdfast/core/loop"
)

var service = loop.Addr{Network: "tcp", Address: "127.0.0.1:7000"}

// echoListener sends back what it gets.
type echoListener struct{}

func (echoListener) Accepted(loop.Conn) loop.ConnHandler { return echo{} }

type echo struct{}

func (echo) Opened(loop.Conn) {}
func (echo) Received(c loop.Conn, p []byte) int {
	c.Send(p)
	return len(p)
}
func (echo) Filled(loop.Conn)        {}
func (echo) Drained(loop.Conn)       {}
func (echo) Closed(loop.Conn, error) {}

// client notes what happens to it.
type client struct {
	conn     loop.Conn
	opened   bool
	closed   int
	drained  int
	err      error
	got      []byte
	received func(c loop.Conn, p []byte) int
	filled   func(c loop.Conn)
}

func (h *client) Opened(loop.Conn) { h.opened = true }
func (h *client) Received(c loop.Conn, p []byte) int {
	if h.received != nil {
		return h.received(c, p)
	}
	h.got = append(h.got, p...)
	return len(p)
}
func (h *client) Filled(c loop.Conn) { h.filled(c) }
func (h *client) Drained(loop.Conn)  { h.drained++ }
func (h *client) Closed(_ loop.Conn, err error) {
	h.closed++
	h.err = err
}

// accepting hands every connection to h.
type accepting struct{ h *client }

func (a accepting) Accepted(c loop.Conn) loop.ConnHandler {
	a.h.conn = c
	return a.h
}

// pair is a connection between two processes.
func pair(t *testing.T, seed uint64) (w *World, a, b *Loop, ca, cb *client) {
	t.Helper()
	w = NewWorld(seed)
	a, b = w.NewLoop("a"), w.NewLoop("b")
	ca, cb = &client{}, &client{}
	if _, err := b.Listen(service, loop.ListenOptions{}, accepting{cb}); err != nil {
		t.Fatal(err)
	}
	ca.conn = a.Dial(service, ca)
	if !w.RunUntil(func() bool { return ca.opened && cb.conn != nil }, time.Second) {
		t.Fatal("not connected")
	}
	return w, a, b, ca, cb
}

func random(n int) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rng.Read(p)
	return p
}

func TestBytesArriveInOrderAndWhole(t *testing.T) {
	for seed := range uint64(20) {
		w, a, _, ca, cb := pair(t, seed)
		want := random(6 << 20)
		ref := a.Alloc(4 << 20)
		copy(ref.Bytes(), want[1<<20:])
		ca.conn.Send(want[:1<<20])
		ca.conn.SendRef(ref, 0, 4<<20)
		ca.conn.Send(want[5<<20 : 5<<20+100])
		ca.conn.Send(want[5<<20+100:])
		ref.Release()
		if ca.conn.Queued() != len(want) {
			t.Fatalf("queued %d, want %d", ca.conn.Queued(), len(want))
		}
		w.Run(time.Second)
		if !bytes.Equal(cb.got, want) {
			t.Fatalf("seed %d: %d bytes arrived, of %d", seed, len(cb.got), len(want))
		}
		if ca.drained != 1 || ca.conn.Queued() != 0 {
			t.Errorf("drained %d times with %d queued, want once with none", ca.drained, ca.conn.Queued())
		}
		w.CheckLeaks(t)
	}
}

// TestFillTakesOverFromReceived sends messages of a header with the length of a body, reads the header in Received and the body by Fill.
func TestFillTakesOverFromReceived(t *testing.T) {
	for seed := range uint64(50) {
		w, _, _, ca, cb := pair(t, seed)
		var bodies [][]byte
		var body []byte
		cb.received = func(c loop.Conn, p []byte) int {
			if len(p) < 4 {
				return 0
			}
			body = make([]byte, int(p[0])<<16|int(p[1])<<8|int(p[2]))
			c.Fill(body)
			return 4
		}
		cb.filled = func(loop.Conn) { bodies = append(bodies, body) }
		sizes := []int{1, 300_000, 0, 17, 70_000, 4096, 1}
		for _, n := range sizes {
			ca.conn.Send([]byte{byte(n >> 16), byte(n >> 8), byte(n), 0})
			ca.conn.Send(random(n))
		}
		w.Run(time.Second)
		if len(bodies) != len(sizes) {
			t.Fatalf("seed %d: %d messages, want %d", seed, len(bodies), len(sizes))
		}
		for i, n := range sizes {
			if !bytes.Equal(bodies[i], random(n)) {
				t.Errorf("seed %d: message %d differs", seed, i)
			}
		}
	}
}

func TestPauseHoldsBytesBack(t *testing.T) {
	w, _, _, ca, cb := pair(t, 3)
	cb.conn.Pause()
	ca.conn.Send(random(3 << 20))
	ca.conn.CloseAfterSend()
	w.Run(time.Second)
	if len(cb.got) != 0 || cb.closed != 0 {
		t.Errorf("%d bytes and %d ends came to a paused connection", len(cb.got), cb.closed)
	}
	if q := ca.conn.Queued(); q != 2<<20 {
		t.Errorf("%d bytes queued behind a paused reader, want all but the window", q)
	}
	cb.conn.Resume()
	if len(cb.got) != 0 {
		t.Error("Resume called the handler at once")
	}
	w.Run(time.Second)
	if len(cb.got) != 3<<20 || cb.closed != 1 || cb.err != nil || ca.closed != 1 || ca.err != nil {
		t.Errorf("after Resume: %d bytes, closed %d (%v) and %d (%v)", len(cb.got), cb.closed, cb.err, ca.closed, ca.err)
	}
}

func TestCloseDropsTheQueueAndTellsBothEnds(t *testing.T) {
	w, _, _, ca, cb := pair(t, 4)
	ca.conn.Send([]byte("lost"))
	ca.conn.Close()
	ca.conn.Close()
	if ca.closed != 0 {
		t.Error("Closed ran inside Close")
	}
	w.Run(time.Second)
	if ca.closed != 1 || cb.closed != 1 || ca.err != nil || cb.err != nil || len(cb.got) != 0 {
		t.Errorf("closed %d (%v) and %d (%v), got %q", ca.closed, ca.err, cb.closed, cb.err, cb.got)
	}
}

func TestDialNobody(t *testing.T) {
	w := NewWorld(1)
	l := w.NewLoop("a")
	c := &client{}
	c.conn = l.Dial(service, c)
	bad := &client{}
	bad.conn = l.Dial(loop.Addr{Network: "tcp", Address: "nonsense"}, bad)
	w.Run(time.Second)
	if c.closed != 1 || !errors.Is(c.err, syscall.ECONNREFUSED) || bad.closed != 1 || bad.err == nil {
		t.Errorf("closed %d: %v; %d: %v", c.closed, c.err, bad.closed, bad.err)
	}
}

func TestCutIsSilenceUntilHeal(t *testing.T) {
	w, a, b, ca, cb := pair(t, 5)
	w.Net.CutOneWay(a, b)
	ca.conn.Send([]byte("one"))
	cb.conn.Send([]byte("two"))
	late := &client{}
	late.conn = a.Dial(service, late)
	w.Run(time.Minute)
	if len(cb.got) != 0 || string(ca.got) != "two" || ca.closed+cb.closed+late.closed != 0 || late.opened {
		t.Errorf("during the cut: %q and %q arrived, late opened %t", cb.got, ca.got, late.opened)
	}
	ca.conn.Send([]byte("three"))
	w.Net.Heal(a, b)
	w.Run(time.Second)
	if string(cb.got) != "onethree" || !late.opened {
		t.Errorf("after the cut: %q, late opened %t", cb.got, late.opened)
	}
}

func TestDialToSilenceTimesOut(t *testing.T) {
	w, a, b, _, _ := pair(t, 5)
	w.Net.Cut(a, b)
	c := &client{}
	c.conn = a.Dial(service, c)
	w.Run(5 * time.Minute)
	if c.closed != 1 || !errors.Is(c.err, syscall.ETIMEDOUT) {
		t.Errorf("closed %d: %v", c.closed, c.err)
	}
	w.Net.HealAll()
	w.Run(time.Minute)
	if c.closed != 1 || c.opened {
		t.Error("the dial came back to life")
	}
}

func TestKillResetsPeers(t *testing.T) {
	w, a, b, ca, cb := pair(t, 6)
	_ = a
	b.Kill()
	w.Run(time.Second)
	if ca.closed != 1 || !errors.Is(ca.err, syscall.ECONNRESET) || cb.closed != 0 {
		t.Errorf("peer closed %d: %v; the dead one %d", ca.closed, ca.err, cb.closed)
	}
	again := w.NewLoop("b")
	if again.Host() != b.Host() {
		t.Error("the successor runs elsewhere")
	}
	if _, err := again.Listen(service, loop.ListenOptions{}, echoListener{}); err != nil {
		t.Error(err)
	}
}

func TestPowerOffIsNoticedByKeepAlive(t *testing.T) {
	w, _, b, ca, _ := pair(t, 6)
	ca.conn.SetKeepAlive(time.Second, 500*time.Millisecond, 3)
	w.Run(10 * time.Second)
	if d := ca.conn.(*conn).l.Now().Sub(ca.conn.LastAck()); ca.closed != 0 || d > time.Second {
		t.Fatalf("closed %d on a living peer, last heard %v ago", ca.closed, d)
	}
	b.PowerOff()
	w.Run(time.Second)
	if ca.closed != 0 {
		t.Error("a host without power sent something")
	}
	w.Run(3 * time.Second)
	if ca.closed != 1 || !errors.Is(ca.err, syscall.ETIMEDOUT) {
		t.Errorf("closed %d: %v", ca.closed, ca.err)
	}
}

func TestResetReachesBothEnds(t *testing.T) {
	w, a, b, ca, cb := pair(t, 7)
	ca.conn.Send([]byte("x"))
	w.Net.Reset(a, b)
	w.Run(time.Second)
	if ca.closed != 1 || cb.closed != 1 || !errors.Is(ca.err, syscall.ECONNRESET) || !errors.Is(cb.err, syscall.ECONNRESET) {
		t.Errorf("closed %d: %v; %d: %v", ca.closed, ca.err, cb.closed, cb.err)
	}
}

func TestListenRules(t *testing.T) {
	w := NewWorld(1)
	a, b := w.NewLoop("a"), w.NewLoop("b")
	any := loop.Addr{Network: "tcp", Address: "0.0.0.0:5000"}
	if _, err := a.Listen(any, loop.ListenOptions{}, echoListener{}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Listen(any, loop.ListenOptions{}, echoListener{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listening twice: %v", err)
	}
	s, err := b.Listen(any, loop.ListenOptions{}, echoListener{})
	if err != nil {
		t.Errorf("the same port on another host: %v", err)
	}
	zero, err := a.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:0"}, loop.ListenOptions{}, echoListener{})
	if err != nil || zero.Addr().Address == "127.0.0.1:0" {
		t.Errorf("port 0: %v, %v", zero, err)
	}
	c := &client{}
	c.conn = a.Dial(loop.Addr{Network: "tcp", Address: b.Host() + ":5000"}, c)
	w.Run(time.Second)
	if !c.opened {
		t.Errorf("a host's own address does not reach it: %v", c.err)
	}
	s.Close()
	refused := &client{}
	refused.conn = a.Dial(loop.Addr{Network: "tcp", Address: b.Host() + ":5000"}, refused)
	w.Run(time.Second)
	if refused.closed != 1 || c.closed != 0 {
		t.Error("a closed listener accepts, or took its connections along")
	}
}

func TestEchoAllocatesNothing(t *testing.T) {
	w, a, _, _, _ := pair(t, 9)
	e := w.NewLoop("e")
	if _, err := e.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:7"}, loop.ListenOptions{}, echoListener{}); err != nil {
		t.Fatal(err)
	}
	c := &client{}
	n := 0
	c.received = func(c loop.Conn, p []byte) int { n += len(p); return len(p) }
	c.conn = a.Dial(loop.Addr{Network: "tcp", Address: "127.0.0.1:7"}, c)
	p := random(5000)
	got := testing.AllocsPerRun(200, func() {
		n = 0
		c.conn.Send(p)
		w.RunUntil(func() bool { return n == len(p) }, time.Second)
	})
	if got > 0 {
		t.Errorf("%v allocations per echo, want 0", got)
	}
}
