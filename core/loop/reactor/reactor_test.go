package reactor

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// idle is an engine without disks.
type idle struct{ r *Reactor }

func (idle) Start() error           { return nil }
func (idle) Ready() bool            { return false }
func (e idle) Wait(d time.Duration) { e.r.Poll(d) }
func (idle) Reap()                  {}
func (idle) Stop()                  {}

func TestTimersWithoutEpollPwait2(t *testing.T) {
	r, err := New(Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.Use(idle{r})
	r.pwait2 = false
	start := r.clock()
	tm := loop.Timer{Fire: r.Stop}
	r.Arm(&tm, start.Add(1500*time.Microsecond))
	if err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if took := r.clock().Sub(start); took < 1500*time.Microsecond {
		t.Errorf("the timer fired after %v, want 1.5 ms at least", took)
	}
	if r.Turns() > 10 {
		t.Errorf("%d turns for one timer", r.Turns())
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		addr   loop.Addr
		family int
		back   string // "" when it is refused
	}{
		{loop.Addr{Network: "tcp", Address: "127.0.0.1:80"}, unix.AF_INET, "tcp:127.0.0.1:80"},
		{loop.Addr{Network: "tcp", Address: "[::1]:80"}, unix.AF_INET6, "tcp:[::1]:80"},
		{loop.Addr{Network: "tcp", Address: "[::ffff:10.0.0.1]:80"}, unix.AF_INET6, "tcp:10.0.0.1:80"},
		{loop.Addr{Network: "tcp", Address: "[::1%lo]:80"}, unix.AF_INET6, "tcp:[::1%lo]:80"},
		{loop.Addr{Network: "tcp", Address: ":80"}, unix.AF_INET6, "tcp:[::]:80"},
		{loop.Addr{Network: "unix", Address: "/run/x"}, unix.AF_UNIX, "unix:/run/x"},
		{loop.Addr{Network: "tcp", Address: "::1:80"}, 0, ""},
		{loop.Addr{Network: "tcp", Address: "localhost:80"}, 0, ""},
		{loop.Addr{Network: "tcp", Address: "127.0.0.1:-1"}, 0, ""},
		{loop.Addr{Network: "tcp", Address: "[::1%nope]:80"}, 0, ""},
	} {
		family, sa, err := resolve(c.addr)
		if c.back == "" {
			if err == nil {
				t.Errorf("resolve(%v): no error", c.addr)
			}
			continue
		}
		if err != nil || family != c.family || describe(sa).String() != c.back {
			t.Errorf("resolve(%v) = %d, %v, %v; want family %d, %s", c.addr, family, sa, err, c.family, c.back)
		}
	}
}

func TestLateEventsForAnEarlierUserOfASlotAreDropped(t *testing.T) {
	r, err := New(Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.Use(idle{r})
	var pair [2]int
	if pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { err = errors.Join(unix.Close(pair[0]), unix.Close(pair[1])) }()
	first, second := &Conn{r: r, fd: -1}, &Conn{r: r, fd: -1}
	slot, err := r.watch(pair[0], first, connMask)
	if err != nil {
		t.Fatal(err)
	}
	r.forget(slot) // the descriptor stays watched, as if its event were under way
	again, err := r.watch(pair[1], second, unix.EPOLLIN)
	if err != nil || again != slot {
		t.Fatalf("watch = %d, %v; want slot %d again", again, err, slot)
	}
	r.Poll(0)
	if second.writable || first.writable {
		t.Error("an event for the slot's earlier user reached a connection")
	}
	r.closeFDs()
}

// stall stands still at the first byte that comes, as a stopped process does, while the other connection is sent another one.
type stall struct {
	t        *testing.T
	r        *Reactor
	conns    []loop.Conn
	peers    [2]net.Conn
	accepted loop.Task
	sent     loop.Instant // when that was
	seen     bool
}

func (s *stall) send(p net.Conn) {
	if _, err := p.Write([]byte{1}); err != nil {
		s.t.Error(err)
	}
}

func (s *stall) Accepted(c loop.Conn) loop.ConnHandler {
	if s.conns = append(s.conns, c); len(s.conns) == 2 {
		s.r.Post(&s.accepted)
	}
	return s
}

func (s *stall) Received(c loop.Conn, p []byte) int {
	if s.sent != 0 {
		if now := s.r.Now(); now < s.sent {
			s.t.Errorf("what came is looked at with a clock of %v before it was sent", s.sent.Sub(now))
		}
		if s.seen = s.seen || len(p) == 2; s.seen {
			s.r.Stop()
		}
		return len(p)
	}
	time.Sleep(20 * time.Millisecond)
	for _, other := range s.peers {
		s.send(other)
	}
	s.sent = s.r.clock()
	return len(p)
}

func (*stall) Opened(loop.Conn)        {}
func (*stall) Filled(loop.Conn)        {}
func (*stall) Drained(loop.Conn)       {}
func (*stall) Closed(loop.Conn, error) {}

// What comes while the process stands still within a turn must not be looked at with the clock of before: rights may have run out.
func TestClockIsNotOlderThanWhatIsReceived(t *testing.T) {
	r, err := New(Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.Use(idle{r})
	s := &stall{t: t, r: r}
	// On a unix socket what was written is there at once; over TCP the kernel may deliver it later.
	ln, err := r.Listen(loop.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}, loop.ListenOptions{}, s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.peers {
		if s.peers[i], err = net.Dial("unix", ln.Addr().Address); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.peers[i].Close() }()
	}
	s.accepted.Run = func() {
		for _, p := range s.peers {
			s.send(p)
		}
	}
	tooLate := loop.Timer{Fire: r.Stop}
	r.Arm(&tooLate, r.clock().Add(10*time.Second))
	if err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if !s.seen {
		t.Error("nothing came while the process stood still: nothing is shown")
	}
}
