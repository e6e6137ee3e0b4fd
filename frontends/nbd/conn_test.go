package nbd

import (
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
	"holdfast/frontends/volume/volumetest"
)

// script is a connection without a network: the test feeds it, what is sent is counted and dropped.
type script struct {
	l       *volumetest.Loop
	h       loop.ConnHandler
	in      []byte // not consumed
	fill    []byte // the part of a lent buffer that is still to be filled
	paused  bool
	closing bool
	sent    int
	keep    bool
	out     []byte // what was sent, if keep
}

func (s *script) Send(p []byte) {
	s.sent += len(p)
	if s.keep {
		s.out = append(s.out, p...)
	}
}
func (s *script) SendRef(b *buf.Ref, off, n int)                 { s.Send(b.Bytes()[off : off+n]) }
func (s *script) Queued() int                                    { return 0 }
func (s *script) Fill(p []byte)                                  { s.fill = p }
func (s *script) Pause()                                         { s.paused = true }
func (s *script) Resume()                                        { s.paused = false }
func (s *script) Close()                                         { s.closing = true }
func (s *script) CloseAfterSend()                                { s.closing = true }
func (s *script) Local() loop.Addr                               { return address }
func (s *script) Remote() loop.Addr                              { return address }
func (s *script) SetKeepAlive(time.Duration, time.Duration, int) {}
func (s *script) LastAck() loop.Instant                          { return s.l.Now() }

// feed lets p arrive and everything happen that follows from it.
func (s *script) feed(p []byte) {
	s.in = append(s.in, p...)
	for progress := true; progress && !s.closing; {
		progress = false
		if !s.paused && s.fill != nil {
			n := copy(s.fill, s.in)
			s.in, s.fill = s.in[:copy(s.in, s.in[n:])], s.fill[n:]
			if len(s.fill) == 0 {
				s.fill, progress = nil, true
				s.h.Filled(s)
			}
		} else if !s.paused && len(s.in) > 0 {
			n := s.h.Received(s, s.in)
			s.in = s.in[:copy(s.in, s.in[n:])]
			progress = n > 0
		}
		before := s.l.Now()
		s.l.Idle(before)
		progress = progress || s.l.Now() != before
	}
}

func scripted(mo memory.Options, o Options) (*volumetest.Loop, *memory.Device, *Server, *script) {
	mo.Name, mo.Size = "disk", 1<<20
	l := volumetest.NewLoop(1, nil)
	d := memory.New(mo)
	srv := New(l, o, memory.NewCatalog(d))
	s := &script{l: l}
	s.h = srv.Accepted(s)
	return l, d, srv, s
}

func goDisk(structured bool) []byte {
	b := []byte{0, 0, 0, 3}
	if structured {
		b = append(b, option(optStructuredReply, nil)...)
		b = append(b, option(optSetMetaContext, append(append(str("disk"), 0, 0, 0, 1), str(baseAllocation)...))...)
	}
	return append(b, option(optGo, append(str("disk"), 0, 0))...)
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for _, structured := range []bool{false, true} {
		_, _, srv, s := scripted(memory.Options{}, Options{})
		s.feed(goDisk(structured))
		var stream []byte
		for i := range uint64(8) {
			stream = append(append(stream, request1(cmdWrite, cmdFlagFUA, i, i*4096, 4096)...), pattern(4096, 1)...)
			stream = append(stream, request1(cmdRead, 0, i, 512, 65536)...)
			stream = append(stream, request1(cmdTrim, 0, i, 4096, 512)...)
			stream = append(stream, request1(cmdFlush, 0, i, 0, 0)...)
			if structured {
				stream = append(stream, request1(cmdBlockStatus, 0, i, 0, 65536)...)
			}
		}
		if n := testing.AllocsPerRun(100, func() { s.feed(stream) }); n != 0 {
			t.Errorf("structured=%v: %d requests allocate %v times", structured, len(stream), n)
		}
		if st := srv.Stats(); st.Errors != 0 || st.Requests[cmdWrite] < 800 {
			t.Errorf("%+v", st)
		}
	}
}

// Whatever a client sends, in whatever pieces: the server neither panics nor keeps anything of it, and another client's bytes stay what they are.
func FuzzServer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3}, uint64(1))
	for _, structured := range []bool{false, true} {
		b := goDisk(structured)
		b = append(append(b, request1(cmdWrite, 0, 1, 4096, 512)...), pattern(512, 5)...)
		b = append(b, request1(cmdRead, 0, 2, 0, 8192)...)
		b = append(append(b, request1(cmdWrite, 0, 3, 100, 100)...), pattern(100, 5)...)
		b = append(b, request1(cmdBlockStatus, cmdFlagReqOne, 4, 0, 1<<20)...)
		b = append(b, request1(cmdWriteZeroes, cmdFlagNoHole, 5, 0, 4096)...)
		f.Add(append(b, request1(cmdDisc, 0, 6, 0, 0)...), uint64(2))
	}
	f.Add(append([]byte{0, 0, 0, 3}, option(optInfo, append(str(""), 0, 2, 0, 1, 0, 3))...), uint64(3))
	f.Add(append([]byte{0, 0, 0, 1}, option(optList, nil)...), uint64(4))
	f.Add(append(append([]byte{0, 0, 0, 1}, option(9999, make([]byte, 100))...), option(optAbort, nil)...), uint64(5))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0))
		mo := memory.Options{Seed: seed}
		if seed%2 == 0 {
			mo.MaxDelay = time.Millisecond
		}
		l, d, srv, s := scripted(mo, Options{MaxInFlight: 4, MaxBytes: 1 << 20})
		other, _ := d.Attach(l, volume.Session{ReadOnly: true})
		for len(stream) > 0 && !s.closing {
			n := 1 + rng.IntN(len(stream))
			s.feed(stream[:n])
			stream = stream[n:]
			if rng.IntN(2) == 0 {
				l.Idle(l.Now().Add(time.Millisecond))
			}
			if live := l.Live(); live > 4*256+8 {
				t.Fatalf("%d buffers are lent", live)
			}
		}
		s.h.Closed(s, nil)
		other.Detach(nil)
		l.Idle(l.Now().Add(time.Minute))
		if d.Sessions() != 0 || len(srv.conns) != 0 || srv.bytes != 0 || l.Live() != 1 { // the server's zeroes
			t.Fatalf("afterwards: %d sessions, %d connections, %d bytes, %d buffers", d.Sessions(), len(srv.conns), srv.bytes, l.Live())
		}
		closed := false
		srv.Close(func() { closed = true })
		l.Idle(l.Now())
		if !closed || l.Live() != 0 {
			t.Fatalf("closed: %v, %d buffers", closed, l.Live())
		}
	})
}
