package memory

import (
	"math/rand/v2"
	"slices"
	"time"

	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// handle is a session's use of a Device. Everything but what names the Device's mutex belongs to the loop l.
type handle struct {
	d *Device
	l loop.Loop
	s volume.Session

	fenced bool           // guarded by d.mu
	news   []volume.Event // guarded by d.mu: not told yet
	tell   loop.Task
	events volume.EventHandler

	running  int          // operations submitted and not completed
	ready    []*volume.Op // to be done at the end of the turn, in order
	spare    []*volume.Op // the other half of ready, empty
	work     loop.Task
	late     map[*volume.Op]*delayed
	pool     []*delayed
	rng      *rand.Rand
	detached func()
	closing  bool
}

// delayed is an operation that waits for its moment.
type delayed struct {
	op    *volume.Op
	timer loop.Timer
}

func newHandle(d *Device, l loop.Loop, s volume.Session) *handle {
	h := &handle{d: d, l: l, s: s}
	h.tell.Run = h.deliver
	h.work.Run = h.runReady
	if d.o.MaxDelay > 0 {
		h.late = make(map[*volume.Op]*delayed)
		h.rng = rand.New(rand.NewPCG(d.o.Seed, uint64(len(d.handles))))
	}
	return h
}

func (h *handle) Info() volume.Info {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.infoLocked()
}

func (h *handle) infoLocked() volume.Info {
	info := h.d.info
	info.ReadOnly = info.ReadOnly || h.s.ReadOnly
	return info
}

func (h *handle) Submit(op *volume.Op) {
	h.running++
	if h.rng != nil {
		w := h.takeDelayed()
		w.op = op
		h.late[op] = w
		h.l.Arm(&w.timer, h.l.Now().Add(time.Duration(h.rng.Int64N(int64(h.d.o.MaxDelay)+1))))
		return
	}
	h.ready = append(h.ready, op)
	h.l.Defer(&h.work)
}

func (h *handle) takeDelayed() *delayed {
	if n := len(h.pool); n > 0 {
		w := h.pool[n-1]
		h.pool = h.pool[:n-1]
		return w
	}
	w := new(delayed)
	w.timer.Fire = func() {
		op := w.op
		h.putDelayed(w)
		h.finish(op, h.perform(op))
	}
	return w
}

func (h *handle) putDelayed(w *delayed) {
	delete(h.late, w.op)
	w.op = nil
	h.pool = append(h.pool, w)
}

// runReady does what was submitted in this turn. What its completions submit waits for the next round.
func (h *handle) runReady() {
	todo := h.ready
	h.ready = h.spare[:0]
	for i, op := range todo {
		todo[i] = nil
		if op != nil {
			h.finish(op, h.perform(op))
		}
	}
	h.spare = todo[:0]
	h.maybeDetached()
}

func (h *handle) finish(op *volume.Op, err error) {
	h.running--
	op.Complete(err)
	h.maybeDetached()
}

// Cancel recalls what has not taken effect, which is everything that has not completed.
func (h *handle) Cancel(op *volume.Op) {
	if w := h.late[op]; w != nil {
		h.l.Disarm(&w.timer)
		h.putDelayed(w)
		w = nil
		h.canceled(op)
		return
	}
	if i := slices.Index(h.ready, op); i >= 0 {
		h.ready[i] = nil
		h.canceled(op)
	}
}

// canceled completes op in its own task: never inside Cancel, and few enough that the allocation does not matter.
func (h *handle) canceled(op *volume.Op) {
	h.l.Defer(&loop.Task{Run: func() { h.finish(op, volume.ErrCanceled) }})
}

func (h *handle) Events(e volume.EventHandler) { h.events = e }

func (h *handle) deliver() {
	h.d.mu.Lock()
	news := h.news
	h.news = nil
	h.d.mu.Unlock()
	for _, e := range news {
		if h.events != nil {
			h.events.VolumeEvent(e)
		}
	}
}

func (h *handle) Detach(done func()) {
	if done == nil {
		done = func() {}
	}
	h.closing, h.detached, h.events = true, done, nil
	h.l.Defer(&h.work)
}

// maybeDetached ends the detaching when nothing runs. It must not be called inside Submit or Detach.
func (h *handle) maybeDetached() {
	if !h.closing || h.running > 0 || h.detached == nil {
		return
	}
	h.d.mu.Lock()
	h.d.handles = slices.DeleteFunc(h.d.handles, func(o *handle) bool { return o == h })
	if h.d.nexus[h.s.Nexus] == h {
		delete(h.d.nexus, h.s.Nexus)
	}
	h.d.mu.Unlock()
	done := h.detached
	h.detached = nil
	done()
}
