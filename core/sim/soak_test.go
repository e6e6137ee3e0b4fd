package sim

import (
	"fmt"
	"testing"
	"time"

	"holdfast/core/loop"
)

// stream counts up: each end sends the bytes 0, 1, 2 ... 250, 0 ... and checks that it gets a beginning of the same.
type stream struct {
	t        *testing.T
	l        *Loop
	conn     loop.Conn
	sent     int
	got      int
	filling  []byte
	closed   int
	dialled  bool
	opened   bool
	closedBy bool // Close was called here
}

func (s *stream) send(n int) {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte((s.sent + i) % 251)
	}
	s.sent += n
	if n%2 == 0 {
		ref := s.l.Alloc(n + 10)
		copy(ref.Bytes()[10:], p)
		s.conn.SendRef(ref, 10, n)
		ref.Release()
		return
	}
	s.conn.Send(p)
}

func (s *stream) check(p []byte) {
	if s.closed > 0 || s.closedBy || !s.l.Alive() || s.dialled && !s.opened {
		s.t.Fatal("bytes came to a connection that is closed, dead or not open")
	}
	for i, b := range p {
		if b != byte((s.got+i)%251) {
			s.t.Fatalf("byte %d of the stream is %d", s.got+i, b)
		}
	}
	s.got += len(p)
}

func (s *stream) Opened(loop.Conn) { s.opened = true }
func (s *stream) Received(c loop.Conn, p []byte) int {
	rng := s.l.Rand()
	n := len(p)
	switch rng.IntN(4) {
	case 0:
		n = rng.IntN(n + 1)
		if n == 0 && len(p) == show {
			n = 1
		}
	case 1:
		s.filling = make([]byte, rng.IntN(100_000))
		n = rng.IntN(n + 1)
		c.Fill(s.filling)
	}
	s.check(p[:n])
	return n
}

func (s *stream) Filled(c loop.Conn) {
	s.check(s.filling)
	s.filling = nil
	if s.l.Rand().IntN(3) == 0 {
		s.filling = make([]byte, s.l.Rand().IntN(1000))
		c.Fill(s.filling)
	}
}
func (s *stream) Drained(loop.Conn) {}
func (s *stream) Closed(loop.Conn, error) {
	s.closed++
	if s.closed > 1 || !s.l.Alive() {
		s.t.Fatal("closed twice, or after death")
	}
}

type streams struct {
	t   *testing.T
	l   *Loop
	all *[]*stream
}

func (h streams) Accepted(c loop.Conn) loop.ConnHandler {
	if h.l.Rand().IntN(10) == 0 {
		return nil
	}
	s := &stream{t: h.t, l: h.l, conn: c}
	*h.all = append(*h.all, s)
	return s
}

// TestStreamsStayWholeUnderFaults throws every network and process fault at a few processes; what arrives is always a beginning of what was sent, and each connection ends once.
func TestStreamsStayWholeUnderFaults(t *testing.T) {
	for seed := range uint64(60) {
		w := NewWorld(seed)
		rng := w.Rand()
		var loops [4]*Loop
		var all []*stream
		start := func(i int) {
			l := w.NewLoop(fmt.Sprint("p", i))
			loops[i] = l
			if _, err := l.Listen(loop.Addr{Network: "tcp", Address: l.Host() + ":1"}, loop.ListenOptions{}, streams{t, l, &all}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range loops {
			start(i)
		}
		got := 0
		for range 400 {
			a, b := loops[rng.IntN(4)], loops[rng.IntN(4)]
			switch rng.IntN(24) {
			case 0, 1, 2:
				s := &stream{t: t, l: a, dialled: true}
				s.conn = a.Dial(loop.Addr{Network: "tcp", Address: b.Host() + ":1"}, s)
				if rng.IntN(2) == 0 {
					s.conn.SetKeepAlive(100*time.Millisecond, 20*time.Millisecond, 3)
				}
				all = append(all, s)
			case 3:
				w.Net.Cut(a, b)
			case 4:
				w.Net.CutOneWay(a, b)
			case 5, 6:
				w.Net.Heal(a, b)
			case 7:
				a.Pause()
			case 8, 9:
				a.Resume()
			case 10:
				w.Net.Reset(a, b)
			case 11:
				i := rng.IntN(4)
				if rng.IntN(2) == 0 {
					loops[i].Kill()
				} else {
					loops[i].PowerOff()
				}
				start(i)
			case 12:
				a.Stop()
				w.Run(time.Millisecond)
				for i := range loops {
					if !loops[i].Alive() {
						start(i)
					}
				}
			default:
				if len(all) == 0 {
					continue
				}
				s := all[rng.IntN(len(all))]
				if !s.l.Alive() || s.closed > 0 {
					continue
				}
				switch rng.IntN(12) {
				case 0:
					s.closedBy = true
					s.conn.Close()
				case 1:
					s.conn.CloseAfterSend()
				case 2:
					s.conn.Pause()
				case 3, 4:
					s.conn.Resume()
				default:
					s.send(1 + rng.IntN(1<<uint(rng.IntN(20))))
				}
			}
			w.Run(time.Duration(rng.IntN(int(3 * time.Millisecond))))
		}
		for _, l := range loops {
			l.Resume()
		}
		w.Net.HealAll()
		w.Run(5 * time.Second)
		for _, s := range all {
			got += s.got
			if s.l.Alive() && s.closed == 0 {
				s.conn.Close()
			}
		}
		w.Run(5 * time.Second)
		for _, s := range all {
			if s.l.Alive() && s.closed != 1 {
				t.Errorf("seed %d: a connection of %s closed %d times", seed, s.l.Name(), s.closed)
			}
		}
		if got == 0 {
			t.Errorf("seed %d: nothing was transferred", seed)
		}
		w.CheckLeaks(t)
		w.Close()
	}
}
