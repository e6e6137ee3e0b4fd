package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry/memory"
)

// Registry is the world's registry: etcd's semantics (core/registry/memory) on a process of its own, whose clock may drift and which may be paused, with delays and faults drawn from
// the world's seed and written to its log.
type Registry struct {
	*memory.Store

	w       *World
	l       *Loop
	delay   Delay
	watches Delay
	faults  RegistryFaults
	handles []*registryHandle
}

// RegistryFaults are odds (0 to 1) of what happens to requests and watches.
type RegistryFaults struct {
	LoseRequest float64 // a request never arrives
	LoseReply   float64 // a request is carried out and its answer is lost
	LateRequest float64 // a request that a cut stops arrives when the cut ends, though nobody waits for it any more
	Slow        float64 // a request takes SlowBy longer to arrive
	SlowBy      Delay
	BreakWatch  float64 // a watch breaks off before a revision and starts again from there
	SlowWatch   float64 // a watch is late by SlowWatchBy
	SlowWatchBy Delay
}

// registryHandle is one process's handle with its generators.
type registryHandle struct {
	*memory.Handle
	l *Loop
}

// NewRegistry starts an empty registry on a new process of this name.
func NewRegistry(w *World, name string) *Registry {
	l := w.NewLoop(name)
	r := &Registry{Store: memory.New(l), w: w, l: l, delay: Delay{Min: 200 * time.Microsecond, Max: time.Millisecond, Worst: 10 * time.Millisecond, Rare: 0.01}}
	r.watches = r.delay
	r.Observe(r.note)
	return r
}

// Loop is the registry's process.
func (r *Registry) Loop() *Loop { return r.l }

// Open makes a handle for a process. When the process dies its requests on the way still arrive; the harness may call Close, but need not.
func (r *Registry) Open(l *Loop) *memory.Handle {
	h := &registryHandle{r.Store.Open(l), l}
	there, watch := r.w.Stream("registry/delay/"+l.name), r.w.Stream("registry/watch delay/"+l.name)
	h.Latency = func() time.Duration { return r.delay.draw(there) }
	h.WatchLatency = func() time.Duration { return r.watches.draw(watch) }
	r.arm(h)
	live := r.handles[:0]
	for _, o := range r.handles {
		if o.l.Alive() {
			live = append(live, o)
		} else {
			o.Close()
		}
	}
	r.handles = append(live, h)
	return h.Handle
}

// SetDelay sets how long requests take, each way.
func (r *Registry) SetDelay(d Delay) { r.delay = d }

// SetWatchDelay sets how late watches are.
func (r *Registry) SetWatchDelay(d Delay) { r.watches = d }

// SetFaults sets the odds of faults for every process, those that open it later too; the zero value ends them.
func (r *Registry) SetFaults(f RegistryFaults) {
	r.faults = f
	for _, h := range r.handles {
		r.arm(h)
	}
}

func (r *Registry) arm(h *registryHandle) {
	f := &r.faults
	stream := func(kind string) *rand.Rand { return r.w.Stream("registry/" + kind + "/" + h.l.name) }
	slow, late := stream("slow by"), stream("slow watch by")
	slowBy, slowWatchBy := f.SlowBy, f.SlowWatchBy
	h.SetFaults(memory.Faults{
		LoseRequest: f.LoseRequest, LoseReply: f.LoseReply, LateRequest: f.LateRequest, Slow: f.Slow, BreakWatch: f.BreakWatch, SlowWatch: f.SlowWatch,
		SlowBy: func() time.Duration { return slowBy.draw(slow) }, SlowWatchBy: func() time.Duration { return slowWatchBy.draw(late) },
	}, stream)
}

// Cut cuts a process's handles off from the registry, or joins them again: its requests, the answers and watches, or both.
func (r *Registry) Cut(l *Loop, requests, replies bool) {
	for _, h := range r.handles {
		if h.l == l {
			h.Cut(requests, replies)
		}
	}
}

// HealAll joins every process again and starts the registry if it is down; odds of faults stay.
func (r *Registry) HealAll() {
	r.SetDown(false)
	for _, h := range r.handles {
		h.Cut(false, false)
	}
}

// actFaults are the acts that are faults.
var actFaults = map[memory.Act]Fault{
	memory.ActCut: FaultRegistryCut, memory.ActDown: FaultRegistryDown, memory.ActRequestLost: FaultRequestLost, memory.ActReplyLost: FaultReplyLost, memory.ActSlow: FaultRegistrySlow,
	memory.ActWatchBroken: FaultWatchBroken, memory.ActWatchSlow: FaultWatchSlow, memory.ActCompact: FaultCompaction, memory.ActExpire: FaultLeaseEnded, memory.ActRestore: FaultRestore,
}

// note writes what happens to the log and counts the faults.
func (r *Registry) note(a memory.Act, l loop.Loop, key string, n int64) {
	w, who := r.w, r.l.name
	if l, ok := l.(*Loop); ok {
		who = l.name
	}
	w.mix(uint64(n)<<8 | uint64(a))
	what := ""
	f, isFault := actFaults[a]
	if isFault {
		w.strike(f)
		what = "fault: "
	}
	if w.trace != nil {
		if key != "" {
			key = fmt.Sprintf(" %q", key)
		}
		w.tracef(who, "%sregistry: %v %d%s", what, a, n, key)
	}
}
