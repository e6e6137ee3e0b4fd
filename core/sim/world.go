// Package sim is the deterministic implementation of core/loop: loops, network and disks in simulated time, all on the caller's goroutine.
//
// One seed gives one run: the order of events, latencies, the pieces in which bytes arrive and what a crash leaves of a disk are drawn from named streams of it (World.Stream), so a
// failing seed fails again. World.Trace writes a log that a person can read, World.Hash is its fingerprint, World.Faults counts the faults by kind.
// Unit tests of everything that runs on a loop use it, and the simulator of whole clusters grows from it. A test here also reads the source of the rooms that must run in it.
//
// Only Loop.Post may be called from other goroutines; everything else belongs to the goroutine that drives the world.
//
// Time passes only between events. Each event is one turn of its loop: the completion, timers or posted task, then the deferred tasks, then what was sent leaves. A turn takes no
// time, but what a loop asks of itself (a post, a timer that is due already, a Closed) comes at least a microsecond later, so a loop that waits by polling makes progress.
package sim

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/core/loop"
)

const (
	// epoch is the boot time of every host when the world starts, so that an Instant of 0 is never a moment of the run.
	epoch = loop.Instant(1000 * time.Second)
	// soon is how long anything takes that a loop asks of itself.
	soon = time.Microsecond
)

// wallStart is the time of day when the world starts.
var wallStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// World is simulated time and everything that lives in it.
type World struct {
	// Net is the network between the loops.
	Net *Net

	seed    uint64
	now     loop.Instant
	seq     uint64 // of the newest event
	queue   eventQueue
	rng     *rand.Rand
	hash    uint64
	loops   []*Loop           // in order of creation, dead ones too
	names   map[string]int    // their numbers
	hosts   map[string]string // by process name
	clocks  map[string]*clock // by host
	streams map[string]*rand.Rand
	faults  FaultCounts
	disks   map[string]*Disk
	ids     int // of the newest connection
	ports   int // given to the newest connection or listener

	trace      io.Writer
	traceTurns bool
	line       []byte // the log's line in the making
	logTo      slog.Handler
	chunks     [][]byte // free buffers for Send
	steps      uint64
	busy       bool // an event is running

	drive sync.Mutex // held by Loop.Run around each step

	inbox   sync.Mutex
	wakeup  *sync.Cond    // on inbox; a post came or a loop was stopped
	posts   []posted      // guarded by inbox, as are the Queued and Next of their tasks
	taken   []posted      // the slice to swap posts with
	waiting atomic.Bool   // posts is not empty
	stops   atomic.Uint64 // counts Stop
}

// posted is a task on its way from any goroutine.
type posted struct {
	l *Loop
	t *loop.Task
}

// NewWorld makes an empty world.
func NewWorld(seed uint64) *World {
	w := &World{
		seed:    seed,
		now:     epoch,
		rng:     rand.New(rand.NewPCG(seed, 0x486f6c6466617374)),
		hosts:   map[string]string{},
		names:   map[string]int{},
		clocks:  map[string]*clock{},
		streams: map[string]*rand.Rand{},
		hash:    seed,
		disks:   map[string]*Disk{},
		ports:   40000,
		logTo:   slog.DiscardHandler,
	}
	w.wakeup = sync.NewCond(&w.inbox)
	w.Net = newNet(w)
	return w
}

// Seed is what the world was made with; print it when a test fails.
func (w *World) Seed() uint64 { return w.seed }

// Rand is a generator for the test's own faults and workloads; the world itself draws nothing from it. See Stream for more.
func (w *World) Rand() *rand.Rand { return w.rng }

// Elapsed is the time since the world started.
func (w *World) Elapsed() time.Duration { return w.now.Sub(epoch) }

// Steps is the number of events that have run.
func (w *World) Steps() uint64 { return w.steps }

// LogTo sends the logs of loops made from now on to h, with simulated times. Without it they are dropped.
func (w *World) LogTo(h slog.Handler) { w.logTo = h }

// After runs f in d, outside every loop: for faults and other acts of the test.
func (w *World) After(d time.Duration, f func()) {
	w.push(event{at: w.now.Add(max(d, 0)), kind: evCall, x: f})
}

// Close gives the memory of the world's processes back; nothing of the world may be used afterwards. Programs that make many worlds call it, single tests need not.
func (w *World) Close() {
	w.queue = nil
	for _, l := range w.loops {
		l.dead = true
		l.arena.Close()
	}
}

// Step runs the next event, however late it is, and reports whether there was one.
func (w *World) Step() bool {
	for {
		w.takePosts()
		if len(w.queue) == 0 {
			return false
		}
		if w.runNext() {
			return true
		}
	}
}

// Run lets d of simulated time pass, counted from now, and runs everything that is due in it.
func (w *World) Run(d time.Duration) {
	w.RunUntil(nil, d)
}

// RunUntil runs until cond holds, at most for limit of simulated time counted from now, and reports whether cond holds. It asks before the first event and after each.
func (w *World) RunUntil(cond func() bool, limit time.Duration) bool {
	end := w.now.Add(limit)
	for {
		if cond != nil && cond() {
			return true
		}
		for {
			w.takePosts()
			if len(w.queue) == 0 || w.queue[0].at > end {
				w.now = max(w.now, end)
				return false
			}
			if w.runNext() {
				break
			}
		}
	}
}

// runNext takes the first event and reports whether anything ran: events of the dead, of stopped processes and timers that were moved do nothing.
func (w *World) runNext() bool {
	if w.busy {
		panic("sim: the world was driven from inside one of its own events")
	}
	w.busy = true
	defer func() { w.busy = false }()
	e := w.queue.pop()
	w.now = max(w.now, e.at)
	ran := w.dispatch(e)
	if ran {
		w.steps++
	}
	return ran
}

func (w *World) push(e event) {
	w.seq++
	e.seq = w.seq
	w.queue.push(e)
}

// dispatch runs e now: on its loop as one turn, or outside every loop.
func (w *World) dispatch(e event) bool {
	l := e.l
	switch {
	case l == nil:
		return w.outside(e)
	case l.dead:
		return false
	case l.paused:
		l.held = append(l.held, e)
		return false
	case e.kind == evTimers && !l.timersDue(e):
		return false
	}
	w.mixEvent(&e)
	if w.shows(e.kind) {
		w.tracef(l.name, "%s", e.describe())
	}
	l.turn(e)
	return true
}

// outside runs an event that is no process's: the network's and the disks' own work, and acts of the test.
func (w *World) outside(e event) bool {
	switch e.kind {
	case evCall:
		w.mixEvent(&e)
		if w.trace != nil && w.traceTurns {
			w.tracef("-", "call")
		}
		e.x.(func())()
		return true
	case evArrive:
		return w.Net.arrive(e)
	case evWritable:
		return w.Net.writable(e)
	case evProbe:
		return w.Net.probe(e)
	case evDialTimeout:
		return w.Net.dialTimeout(e.x.(*conn))
	case evDiskDone:
		r := e.x.(*diskRun)
		return r.d.complete(r, e.n)
	}
	panic(fmt.Sprintf("sim: event %d belongs to a loop", e.kind))
}

// takePosts turns what was posted into events.
func (w *World) takePosts() {
	if !w.waiting.Load() {
		return
	}
	w.inbox.Lock()
	w.posts, w.taken = w.taken[:0], w.posts
	w.waiting.Store(false)
	w.inbox.Unlock()
	for i, p := range w.taken {
		w.push(event{at: w.now.Add(soon), l: p.l, kind: evPost, x: p.t})
		w.taken[i] = posted{}
	}
}
