package sim

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/loop/turn"
)

// Loop is one simulated process with one event loop.
type Loop struct {
	w      *World
	id     int // index in World.loops, from 1
	name   string
	number int // of the name, from 1: a successor has it too
	host   string
	rng    *rand.Rand
	log    *slog.Logger
	arena  *buf.Arena

	clock *clock // of the host
	read  bool   // Now was asked

	timers   turn.Timers
	deferred turn.Tasks
	wake     struct { // the timer event that counts; others in the queue are stale
		at  loop.Instant
		seq uint64
	}
	waking bool // an evWake is queued
	inTurn bool

	paused bool
	held   []event // what came while paused

	dead    bool
	silent  bool // dead without a trace on the network: the host lost power
	stopped bool

	conns     []*conn
	dirty     []*conn // have something to send at the end of the turn
	listeners []*listener
	disks     []*handle
}

var (
	_ loop.Loop   = (*Loop)(nil)
	_ loop.Runner = (*Loop)(nil)
)

// NewLoop starts a process. Its host is the one of an earlier process of this name, else a new one; see SetHost.
func (w *World) NewLoop(name string) *Loop {
	host, ok := w.hosts[name]
	if !ok {
		n := len(w.hosts) + 1
		host = fmt.Sprintf("10.0.%d.%d", n>>8, n&0xff)
		w.hosts[name] = host
	}
	if w.names[name] == 0 {
		w.names[name] = len(w.names) + 1
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%d", name, len(w.loops))
	l := &Loop{w: w, id: len(w.loops) + 1, name: name, number: w.names[name], host: host, clock: w.clockOf(host), rng: rand.New(rand.NewPCG(w.seed, h.Sum64())), arena: buf.NewArena()}
	l.log = slog.New(clockHandler{w.logTo, l}).With("loop", name)
	w.loops = append(w.loops, l)
	return l
}

// Name is what the loop was made with.
func (l *Loop) Name() string { return l.name }

// Host is the address of the host that the process runs on.
func (l *Loop) Host() string { return l.host }

// SetHost moves the process, and later ones of its name, to a host; several loops may share one.
func (l *Loop) SetHost(host string) *Loop {
	l.host = host
	l.clock = l.w.clockOf(host)
	l.w.hosts[l.name] = host
	return l
}

// World is the world the loop lives in.
func (l *Loop) World() *World { return l.w }

// Alive reports whether the process was neither killed nor stopped.
func (l *Loop) Alive() bool { return !l.dead }

// Now is the moment of the current turn by this process's clock.
func (l *Loop) Now() loop.Instant {
	t := l.clock.at(l.w.now)
	l.clock.seen = max(l.clock.seen, t)
	l.read = true
	return t
}

// Wall is the time of day by this process's clock.
func (l *Loop) Wall() time.Time { return wallStart.Add(l.w.Elapsed() + l.clock.wall) }

// Rand is this loop's generator.
func (l *Loop) Rand() *rand.Rand { return l.rng }

// Log is the loop's logger.
func (l *Loop) Log() *slog.Logger { return l.log }

// Arm sets t to fire once at the given moment, or in the next turn when that has passed.
func (l *Loop) Arm(t *loop.Timer, at loop.Instant) {
	if l.dead {
		return
	}
	l.timers.Arm(t, at, l.Now())
	if !l.inTurn {
		l.schedule()
	}
}

// Disarm takes the timer back.
func (l *Loop) Disarm(t *loop.Timer) {
	if !l.dead {
		l.timers.Disarm(t)
	}
}

// Post queues t.Run from any goroutine.
func (l *Loop) Post(t *loop.Task) {
	w := l.w
	w.inbox.Lock()
	if !t.Queued {
		t.Queued = true
		w.posts = append(w.posts, posted{l, t})
		w.waiting.Store(true)
		w.wakeup.Broadcast()
	}
	w.inbox.Unlock()
}

// Defer queues t.Run for the end of this turn, or of one that follows at once.
func (l *Loop) Defer(t *loop.Task) {
	if l.dead {
		return
	}
	l.deferred.Push(t)
	l.needTurn()
}

// Alloc lends a buffer. Its content is the same in each run, and its beginning not zero.
func (l *Loop) Alloc(n int) *buf.Ref {
	r := l.arena.Alloc(n)
	poison(r.Bytes())
	return r
}

// Live is the number of buffers lent by Alloc that have not come back.
func (l *Loop) Live() int64 { return l.arena.Live() }

// rubbish is what memory begins with that nobody has written. To write more of it than this would touch every page of a store's journal at each start of a process, which was a
// fifth of all the time.
var rubbish = bytes.Repeat([]byte{0xa5}, 4096)

// poison makes memory that nobody has written recognizable.
func poison(b []byte) { copy(b, rubbish) }

// needTurn makes a turn follow soon when there is none now.
func (l *Loop) needTurn() {
	if l.inTurn || l.waking || l.dead {
		return
	}
	l.waking = true
	l.w.push(event{at: l.w.now.Add(soon), l: l, kind: evWake})
}

// schedule makes sure that an event is queued for the earliest timer.
func (l *Loop) schedule() {
	at, ok := l.timers.Next()
	if !ok {
		return
	}
	when := max(l.clock.when(at), l.w.now.Add(soon))
	if l.wake.seq != 0 && l.wake.at <= when {
		return
	}
	l.w.push(event{at: when, l: l, kind: evTimers})
	l.wake.at, l.wake.seq = when, l.w.seq
}

// timersDue reports whether a timer event still counts; when its timer has moved it queues another.
func (l *Loop) timersDue(e event) bool {
	if e.seq != l.wake.seq {
		return false
	}
	l.wake.seq = 0
	if at, ok := l.timers.Next(); ok && at > l.Now() {
		l.schedule()
		return false
	} else if !ok {
		return false
	}
	return true
}

// turn runs one event, the deferred tasks and what they sent.
func (l *Loop) turn(e event) {
	l.inTurn = true
	switch e.kind {
	case evAccept:
		e.x.(*conn).accept()
	case evOpened:
		e.x.(*conn).establish()
	case evRead:
		e.x.(*conn).read()
	case evFlush:
		e.x.(*conn).touch()
	case evDrained:
		e.x.(*conn).drained()
	case evFailed:
		f := e.x.(*connError)
		f.c.fail(f.err)
	case evClosed:
		e.x.(*conn).finish(nil)
	case evDisk:
		e.x.(*diskRun).finish()
	case evDiskClosed:
		e.x.(*handle).done()
	case evWake:
		l.waking = false
	case evTimers:
		l.timers.Fire(l.Now())
	case evPost:
		t := e.x.(*loop.Task)
		l.w.inbox.Lock()
		t.Queued = false
		l.w.inbox.Unlock()
		t.Run()
	default:
		panic(fmt.Sprintf("sim: event %d is not a loop's", e.kind))
	}
	l.runDeferred()
	for i := 0; i < len(l.dirty) && !l.dead; i++ { // flush may not make others dirty
		l.dirty[i].flush()
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
	l.inTurn = false
	if l.dead {
		return
	}
	if l.deferred.Len() > 0 {
		l.needTurn()
	}
	l.schedule()
}

// runDeferred is turn.Tasks.RunDeferred, but ends when a task kills its own process.
func (l *Loop) runDeferred() {
	for round := 0; round < 16 && l.deferred.Len() > 0; round++ {
		for n := l.deferred.Len(); n > 0; n-- {
			if l.dead {
				return
			}
			l.deferred.Pop().Run()
		}
	}
}

// Pause stops the process as SIGSTOP does: its clock and the kernel's side of its connections and disks go on.
func (l *Loop) Pause() {
	if l.paused || l.dead {
		return
	}
	l.note("pause")
	l.w.strike(FaultPause)
	l.paused = true
}

// PauseFor pauses the process and lets it go on after d.
func (l *Loop) PauseFor(d time.Duration) {
	l.Pause()
	l.w.After(d, l.Resume)
}

// Resume lets a paused process go on. What came meanwhile is handled first, completions before timers before posted tasks, as a loop that wakes up late does.
func (l *Loop) Resume() {
	if !l.paused {
		return
	}
	l.note("resume")
	l.paused = false
	slices.SortStableFunc(l.held, func(a, b event) int { return turnOrder(a.kind) - turnOrder(b.kind) })
	for i, e := range l.held {
		at := e.seq
		e.at = l.w.now.Add(soon)
		l.w.push(e)
		if e.kind == evTimers && at == l.wake.seq {
			l.wake.at, l.wake.seq = e.at, l.w.seq
		}
		l.held[i] = event{}
	}
	l.held = l.held[:0]
}

func turnOrder(k eventKind) int { return int(max(k, evWake)) }

// Kill ends the process at once: nothing of it runs again, peers of its connections see a reset after a delay, and its writes in flight are done or not by chance.
func (l *Loop) Kill() {
	if l.dead {
		return
	}
	l.note("kill")
	l.w.strike(FaultKill)
	l.die(true)
	for _, c := range l.conns {
		c.abandon()
	}
	l.conns = nil
}

// PowerOff ends the process as loss of the host's power does: as Kill, but nobody is told, and the host's disks must be crashed as well. Peers learn by their own timeouts, or
// by a reset when they send while another process runs on the host.
func (l *Loop) PowerOff() {
	if l.dead {
		return
	}
	l.note("power off")
	l.w.strike(FaultPowerOff)
	l.silent = true
	l.die(true)
	for _, c := range l.conns {
		c.closed = true
	}
	l.conns = nil
}

// die ends everything of the process but its connections; chance decides about its writes in flight.
func (l *Loop) die(chance bool) {
	l.dead = true
	for _, s := range l.listeners {
		s.drop()
	}
	l.listeners = nil
	for _, h := range l.disks {
		h.abandon(chance)
	}
	l.disks = nil
	l.held = nil
	l.deferred = turn.Tasks{}
	l.timers = turn.Timers{}
}

// Dial starts a connection from this process's host.
func (l *Loop) Dial(a loop.Addr, h loop.ConnHandler) loop.Conn { return l.w.Net.dial(l, a, h) }

// Listen takes an address of the network. A port of 0 chooses one; a loopback address is reachable from every host, which keeps tests short.
func (l *Loop) Listen(a loop.Addr, o loop.ListenOptions, h loop.ListenHandler) (loop.Listener, error) {
	return l.w.Net.listen(l, a, o, h)
}

// OpenDisk opens the world's disk of this name.
func (l *Loop) OpenDisk(name string, o loop.DiskOptions) (loop.Disk, error) {
	d := l.w.disks[name]
	if d == nil {
		return nil, fmt.Errorf("open disk %s: %w", name, syscall.ENOENT)
	}
	return d.open(l, o)
}

// Kind is "sim".
func (l *Loop) Kind() string { return "sim" }

// Run drives the whole world until this loop is stopped, as fast as it can, waiting for posts when nothing else is to come. Several loops of a world may be run from several
// goroutines; they take turns.
func (l *Loop) Run() error {
	w := l.w
	for {
		seen := w.stops.Load()
		w.drive.Lock()
		if l.stopped || l.dead {
			w.drive.Unlock()
			return nil
		}
		ran := w.Step()
		w.drive.Unlock()
		if ran {
			continue
		}
		w.inbox.Lock()
		for len(w.posts) == 0 && w.stops.Load() == seen {
			w.wakeup.Wait()
		}
		w.inbox.Unlock()
	}
}

// Stop makes Run return and ends the process in order: its connections and disks are closed. It may be called from any goroutine while Run drives the world, and from inside a turn.
func (l *Loop) Stop() {
	l.Post(&loop.Task{Run: l.stop})
}

func (l *Loop) stop() {
	l.stopped = true
	for _, c := range slices.Clone(l.conns) {
		c.Close()
		c.finish(nil)
	}
	l.die(false)
	l.w.stops.Add(1)
	l.w.inbox.Lock()
	l.w.wakeup.Broadcast()
	l.w.inbox.Unlock()
}

// clockHandler gives log records the simulated time.
type clockHandler struct {
	slog.Handler
	l *Loop
}

func (h clockHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Time = h.l.Wall()
	return h.Handler.Handle(ctx, r)
}

func (h clockHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return clockHandler{h.Handler.WithAttrs(attrs), h.l}
}

func (h clockHandler) WithGroup(name string) slog.Handler {
	return clockHandler{h.Handler.WithGroup(name), h.l}
}
