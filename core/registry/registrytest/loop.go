package registrytest

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/loop/turn"
)

// Loop is a loop for tests of registries: it has timers and tasks, but no sockets and disks, and turns only inside Until, on the test's goroutine, so tests need no locks.
type Loop struct {
	t       testing.TB
	virtual bool
	now     loop.Instant
	timers  turn.Timers
	inbox   turn.Inbox
	late    turn.Tasks
	wake    chan struct{}
	log     *slog.Logger
}

var _ loop.Loop = (*Loop)(nil)

// NewLoop makes a loop. With virtual time it jumps to the next timer when there is nothing to do, and everything on it happens in the same order each time.
func NewLoop(t testing.TB, virtual bool) *Loop {
	l := &Loop{t: t, virtual: virtual, wake: make(chan struct{}, 1), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	l.clock()
	return l
}

func (l *Loop) clock() {
	if l.virtual {
		l.now++
		return
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		l.t.Fatal(err)
	}
	l.now = max(l.now+1, loop.Instant(ts.Nano()))
}

// Until turns until cond holds. The test fails when that takes more than limit.
func (l *Loop) Until(what string, limit time.Duration, cond func() bool) {
	l.t.Helper()
	deadline := l.now.Add(limit)
	for !cond() {
		if l.now > deadline {
			l.t.Fatalf("waited %v for: %s", limit, what)
		}
		l.turn(deadline)
	}
}

// Run turns for d.
func (l *Loop) Run(d time.Duration) {
	end := l.now.Add(d)
	for l.now < end {
		l.turn(end)
	}
}

func (l *Loop) turn(deadline loop.Instant) {
	if l.inbox.Len() == 0 && l.late.Len() == 0 {
		l.sleep(deadline)
	}
	l.clock()
	l.timers.Fire(l.now)
	l.inbox.Run()
	l.late.RunDeferred()
}

// poll is how long a turn waits at most, since Until's condition may ask something outside the loop.
const poll = 10 * time.Millisecond

// sleep waits for the next timer, a posted task, or the deadline.
func (l *Loop) sleep(deadline loop.Instant) {
	at, ok := l.timers.Next()
	deadline = min(deadline, l.now.Add(poll))
	if !ok || at > deadline {
		at = deadline
	}
	if l.virtual {
		l.now = max(l.now, at)
		return
	}
	t := time.NewTimer(at.Sub(l.now))
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.wake:
	}
}

// Now implements loop.Loop.
func (l *Loop) Now() loop.Instant { return l.now }

// Wall implements loop.Loop.
func (l *Loop) Wall() time.Time { return time.Unix(0, int64(l.now)) }

// Rand implements loop.Loop.
func (l *Loop) Rand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// Log implements loop.Loop.
func (l *Loop) Log() *slog.Logger { return l.log }

// Arm implements loop.Loop.
func (l *Loop) Arm(t *loop.Timer, at loop.Instant) { l.timers.Arm(t, at, l.now) }

// Disarm implements loop.Loop.
func (l *Loop) Disarm(t *loop.Timer) { l.timers.Disarm(t) }

// Post implements loop.Loop.
func (l *Loop) Post(t *loop.Task) {
	l.inbox.Post(t)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Defer implements loop.Loop.
func (l *Loop) Defer(t *loop.Task) { l.late.Push(t) }

// Alloc, Dial, Listen and OpenDisk are what registries do not use.
func (l *Loop) Alloc(int) *buf.Ref { panic("registrytest: this loop has no memory") }

// Dial is not there.
func (l *Loop) Dial(loop.Addr, loop.ConnHandler) loop.Conn {
	panic("registrytest: this loop has no sockets")
}

// Listen is not there.
func (l *Loop) Listen(loop.Addr, loop.ListenOptions, loop.ListenHandler) (loop.Listener, error) {
	panic("registrytest: this loop has no sockets")
}

// OpenDisk is not there.
func (l *Loop) OpenDisk(string, loop.DiskOptions) (loop.Disk, error) {
	panic("registrytest: this loop has no disks")
}
