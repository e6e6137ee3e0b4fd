// Package reactor is the common body of the real loops: turns, timers, tasks, buffers and sockets over epoll. The implementations add a disk engine and decide how to wait.
//
// A Reactor and everything made by it is touched on its own loop only, except Post, Stop and Wake. Sockets are non-blocking and edge-triggered: each connection remembers
// whether it is readable and writable, so that Pause, Resume and back-pressure cost no system call.
package reactor

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/loop/turn"
)

// Options say how to make a loop.
type Options struct {
	Name string       // attached to log lines; may be empty
	Log  *slog.Logger // nil: slog.Default
	Seed uint64       // of Rand; 0: drawn by the runtime
}

// Engine is what an implementation adds. All calls come on the loop's thread, Start first and Stop last.
type Engine interface {
	// Start prepares the engine on the thread that will drive the loop.
	Start() error
	// Ready reports whether Reap has something to do already, so that the loop must not sleep.
	Ready() bool
	// Wait starts what was submitted and waits until something has happened or d has passed; it calls Reactor.Poll at most once. 0 only looks.
	Wait(d time.Duration)
	// Reap completes the disk operations that are over.
	Reap()
	// Stop waits until the kernel holds no memory of ours any more and gives everything back. It calls no owner.
	Stop()
}

// maxSleep bounds one wait, so that a timer is late by at most this after the machine was suspended: CLOCK_BOOTTIME counts that time and the clock that waits go by does not.
const maxSleep = time.Second

const (
	maxEvents = 256
	// readSize is what one read takes at most besides a Fill.
	readSize = 256 << 10
	// maxRest is the longest piece that a handler may wait for.
	maxRest = 64 << 10
)

// Reactor is one loop without its disks.
type Reactor struct {
	engine Engine
	log    *slog.Logger
	rng    *rand.Rand
	arena  *buf.Arena
	now    loop.Instant
	ts     unix.Timespec // argument of system calls, on the heap
	wait   unix.Timespec

	timers   turn.Timers
	inbox    turn.Inbox
	deferred turn.Tasks

	epfd   int
	wakeFD int
	pwait2 bool // the kernel has epoll_pwait2
	events [maxEvents]unix.EpollEvent

	slots []slot
	spare []uint32 // free entries of slots
	ready list     // what has something to do in the next turn
	dirty list     // what has bytes to send at the end of this turn
	input *buf.Ref // receive buffer shared by all connections
	iov   [maxPieces]unix.Iovec

	sleeping atomic.Bool
	stopped  atomic.Bool
	running  bool
	turns    uint64
}

// slot is an entry of the table that epoll events point into. gen tells a late event for an earlier user of the entry.
type slot struct {
	gen uint32
	s   source
}

// source is a connection or a listener.
type source interface {
	event(mask uint32)
	step()
	abandon()
}

// New makes a reactor. The caller sets its engine with Use before anything else.
func New(o Options) (*Reactor, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Name != "" {
		o.Log = o.Log.With("loop", o.Name)
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	r := &Reactor{log: o.Log, rng: rand.New(rand.NewPCG(o.Seed, 0)), arena: buf.NewArena(), pwait2: true}
	var err error
	if r.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	if r.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		_ = unix.Close(r.epfd)
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	r.slots = make([]slot, 1, 64) // entry 0 is the eventfd
	// Edge-triggered, so it need not be read: each write is an event.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
	if err := unix.EpollCtl(r.epfd, unix.EPOLL_CTL_ADD, r.wakeFD, &ev); err != nil {
		r.closeFDs()
		return nil, fmt.Errorf("watch the eventfd: %w", err)
	}
	r.input = r.arena.Alloc(readSize + maxRest)
	r.now = r.clock()
	return r, nil
}

// Use sets the engine.
func (r *Reactor) Use(e Engine) { r.engine = e }

// EpollFD is the epoll instance, for an engine that waits for it in its own way.
func (r *Reactor) EpollFD() int { return r.epfd }

// Lent is the number of buffers that are not back; leak tests read it. The loop's own receive buffer is not counted.
func (r *Reactor) Lent() int64 { return r.arena.Live() - 1 }

// Turns is the number of turns so far.
func (r *Reactor) Turns() uint64 { return r.turns }

// Now is the current turn's moment, or that of the last read of a socket.
func (r *Reactor) Now() loop.Instant { return r.now }

// Wall is the time of day.
func (r *Reactor) Wall() time.Time { return time.Now() }

// Rand is the loop's generator.
func (r *Reactor) Rand() *rand.Rand { return r.rng }

// Log is where the loop's events go.
func (r *Reactor) Log() *slog.Logger { return r.log }

// Arm sets t.
func (r *Reactor) Arm(t *loop.Timer, at loop.Instant) { r.timers.Arm(t, at, r.now) }

// Disarm takes t back.
func (r *Reactor) Disarm(t *loop.Timer) { r.timers.Disarm(t) }

// Defer queues t for the end of the turn.
func (r *Reactor) Defer(t *loop.Task) { r.deferred.Push(t) }

// Alloc lends a buffer.
func (r *Reactor) Alloc(n int) *buf.Ref { return r.arena.Alloc(n) }

// Post queues t from any goroutine.
func (r *Reactor) Post(t *loop.Task) {
	if r.inbox.Post(t) {
		r.Wake()
	}
}

// Wake ends the loop's wait, if it waits. Any goroutine may call it after it has published what the loop shall find.
func (r *Reactor) Wake() {
	if r.sleeping.CompareAndSwap(true, false) {
		one := [8]byte{1}
		_, _ = unix.Write(r.wakeFD, one[:]) // can only fail when the counter is full, and then the event is there
	}
}

// Stop makes Run return after the current turn.
func (r *Reactor) Stop() {
	r.stopped.Store(true)
	r.Wake()
}

// Run drives the loop until Stop, on a locked thread.
func (r *Reactor) Run() error {
	if r.running {
		panic("loop: Run called twice")
	}
	r.running = true
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := r.engine.Start(); err != nil {
		r.shutDown()
		return err
	}
	// A panic of a callback is not recovered, and nothing is tidied up behind it: the state is not to be trusted.
	for !r.stopped.Load() {
		r.engine.Wait(r.patience())
		r.sleeping.Store(false)
		r.turn()
	}
	r.shutDown()
	return nil
}

// tick moves Now on after a read: if the process stood still since the turn began, what has come meanwhile must not find rights in force that have run out.
func (r *Reactor) tick() { r.now = max(r.clock(), r.now) }

func (r *Reactor) turn() {
	r.now = max(r.clock(), r.now+1)
	r.turns++
	r.engine.Reap()
	for n := r.ready.n; n > 0; n-- {
		r.ready.pop(false).step()
	}
	r.timers.Fire(r.now)
	r.inbox.Run()
	r.deferred.RunDeferred()
	for c := r.dirty.pop(true); c != nil; c = r.dirty.pop(true) {
		c.(*Conn).flush()
	}
}

// patience is how long the loop may wait now. When it is not 0, Wake writes to the eventfd from here on.
func (r *Reactor) patience() time.Duration {
	if r.ready.n > 0 || r.dirty.n > 0 || r.deferred.Len() > 0 {
		return 0
	}
	d := maxSleep
	if at, ok := r.timers.Next(); ok {
		d = min(d, at.Sub(r.clock()))
		if d <= 0 {
			return 0
		}
	}
	// Published work is either seen by the checks after this store, or its publisher sees the store and writes.
	r.sleeping.Store(true)
	if r.inbox.Len() > 0 || r.stopped.Load() || r.engine.Ready() {
		return 0
	}
	return d
}

// Poll takes what epoll has, waiting at most d for it.
func (r *Reactor) Poll(d time.Duration) {
	n := r.epoll(d)
	for i := range r.events[:max(n, 0)] {
		ev := &r.events[i]
		if ev.Fd == 0 {
			continue // woken
		}
		if s := &r.slots[ev.Fd]; s.gen == uint32(ev.Pad) && s.s != nil {
			s.s.event(ev.Events)
		}
	}
}

// epoll is epoll_pwait2 (Linux 5.11), or epoll_wait with milliseconds. It may block, so it goes through Syscall6, which lets the scheduler have the processor.
func (r *Reactor) epoll(d time.Duration) int {
	for r.pwait2 {
		r.wait = unix.NsecToTimespec(int64(d))
		n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(r.epfd), uintptr(unsafe.Pointer(&r.events[0])), maxEvents, uintptr(unsafe.Pointer(&r.wait)), 0, 0)
		switch e {
		case 0:
			return int(n)
		case unix.EINTR:
			return 0
		case unix.ENOSYS, unix.EPERM: // an older kernel, or a filter
			r.pwait2 = false
		default:
			panic(fmt.Sprintf("loop: epoll_pwait2: %v", e))
		}
	}
	n, err := unix.EpollWait(r.epfd, r.events[:], int((d+time.Millisecond-1)/time.Millisecond))
	if err != nil && err != unix.EINTR {
		panic(fmt.Sprintf("loop: epoll_wait: %v", err))
	}
	return n
}

func (r *Reactor) clock() loop.Instant {
	if _, _, e := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&r.ts)), 0); e != 0 {
		panic(fmt.Sprintf("loop: clock_gettime(CLOCK_BOOTTIME): %v", e))
	}
	return loop.Instant(r.ts.Nano())
}

// watch puts fd under epoll for s.
func (r *Reactor) watch(fd int, s source, mask uint32) (uint32, error) {
	var i uint32
	if n := len(r.spare); n > 0 {
		i, r.spare = r.spare[n-1], r.spare[:n-1]
	} else {
		i = uint32(len(r.slots))
		r.slots = append(r.slots, slot{})
	}
	e := &r.slots[i]
	e.gen++
	e.s = s
	ev := unix.EpollEvent{Events: mask | unix.EPOLLET, Fd: int32(i), Pad: int32(e.gen)}
	if err := unix.EpollCtl(r.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		r.forget(i)
		return 0, fmt.Errorf("watch a socket: %w", err)
	}
	return i, nil
}

// forget frees a slot; events for it that are still on their way are recognized by the generation.
func (r *Reactor) forget(i uint32) {
	r.slots[i].s = nil
	r.slots[i].gen++
	r.spare = append(r.spare, i)
}

func (r *Reactor) shutDown() {
	r.engine.Stop()
	for i := range r.slots {
		if s := r.slots[i].s; s != nil {
			s.abandon()
		}
	}
	r.closeFDs()
}

func (r *Reactor) closeFDs() {
	_ = unix.Close(r.epfd)
	// The eventfd stays open: Post and Stop may still come from other goroutines, and a closed number could be somebody else's by then. The finalizer closes it.
	runtime.AddCleanup(r, func(fd int) { _ = unix.Close(fd) }, r.wakeFD)
}
