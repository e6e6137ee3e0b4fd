package volumetest

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/loop/turn"
)

// Loop is a loop without sockets and disks, whose time is made up and which the test turns by hand. It runs on the test's goroutine; only Post may come from others.
type Loop struct {
	now    loop.Instant
	timers turn.Timers
	defers turn.Tasks
	inbox  turn.Inbox
	rng    *rand.Rand
	log    *slog.Logger
	arena  *buf.Arena
}

var _ loop.Loop = (*Loop)(nil)

// NewLoop makes a loop whose time starts at one second.
func NewLoop(seed uint64, log *slog.Logger) *Loop {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Loop{now: loop.Instant(time.Second), rng: rand.New(rand.NewPCG(seed, 1)), log: log, arena: buf.NewArena()}
}

// Turn runs what is due, after moving time to the next timer when nothing else is, and reports whether anything ran.
func (l *Loop) Turn() bool {
	if l.inbox.Len() == 0 && l.defers.Len() == 0 {
		at, ok := l.timers.Next()
		if !ok {
			return false
		}
		l.now = max(l.now, at)
	}
	l.now++
	l.timers.Fire(l.now)
	l.inbox.Run()
	l.defers.RunDeferred()
	return true
}

// Idle turns until nothing is left to do but timers later than the given moment.
func (l *Loop) Idle(until loop.Instant) {
	for {
		if l.inbox.Len() == 0 && l.defers.Len() == 0 {
			at, ok := l.timers.Next()
			if !ok || at > until {
				l.now = max(l.now, until)
				return
			}
		}
		l.Turn()
	}
}

// Live is the number of buffers that are lent.
func (l *Loop) Live() int64 { return l.arena.Live() }

func (l *Loop) Now() loop.Instant                  { return l.now }
func (l *Loop) Wall() time.Time                    { return time.Unix(0, int64(l.now)) }
func (l *Loop) Rand() *rand.Rand                   { return l.rng }
func (l *Loop) Log() *slog.Logger                  { return l.log }
func (l *Loop) Arm(t *loop.Timer, at loop.Instant) { l.timers.Arm(t, at, l.now) }
func (l *Loop) Disarm(t *loop.Timer)               { l.timers.Disarm(t) }
func (l *Loop) Post(t *loop.Task)                  { l.inbox.Post(t) }
func (l *Loop) Defer(t *loop.Task)                 { l.defers.Push(t) }
func (l *Loop) Alloc(n int) *buf.Ref               { return l.arena.Alloc(n) }
func (l *Loop) Dial(loop.Addr, loop.ConnHandler) loop.Conn {
	panic("volumetest.Loop has no sockets")
}

func (l *Loop) Listen(loop.Addr, loop.ListenOptions, loop.ListenHandler) (loop.Listener, error) {
	return nil, errors.New("volumetest.Loop has no sockets")
}

func (l *Loop) OpenDisk(string, loop.DiskOptions) (loop.Disk, error) {
	return nil, errors.New("volumetest.Loop has no disks")
}
