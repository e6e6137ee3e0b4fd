package memory

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// restartWatch is how long a watch that broke off waits before it starts again.
const restartWatch = 200 * time.Millisecond

// watch is one logical watch. The store's list of watches is guarded by its lock; everything else belongs to the handle's loop.
type watch struct {
	h        *Handle
	prefixes []string
	next     registry.Revision // the next revision to look at
	upTo     registry.Revision // what the timer delivers
	copies   int               // Store.copies when it last started
	w        registry.Watcher
	task     loop.Task  // there is something to deliver
	timer    loop.Timer // delivers it after the handle's latency
	restart  loop.Timer
	stopped  bool
	lost     bool        // Unavailable has to be said
	astray   bool        // it has to find its place before it goes on
	broken   atomic.Bool // it has to break off; of any loop
}

// Watch implements registry.Registry.
func (h *Handle) Watch(prefixes []string, from registry.Revision, to registry.Watcher) (stop func()) {
	w := &watch{h: h, prefixes: slices.Clone(prefixes), next: max(from, 2), w: to} // nothing has revision 1
	w.task.Run = w.woken
	w.timer.Fire = w.deliver
	w.restart.Fire = w.woken
	h.watches = append(h.watches, w)
	h.s.mu.Lock()
	if from == 0 {
		w.next = h.s.rev + 1
	}
	w.copies = h.s.copies
	w.astray = true
	h.s.watches = append(h.s.watches, w)
	h.s.mu.Unlock()
	w.wake()
	return w.stop
}

func (w *watch) wake() { w.h.l.Post(&w.task) }

func (w *watch) woken() {
	switch {
	case w.stopped:
		return
	case w.broken.Swap(false):
		w.breakOff()
		return
	case w.lost:
		w.lost, w.astray = false, true
		w.w.Unavailable(registry.ErrUnavailable)
		if w.stopped {
			return
		}
	}
	if w.timer.Armed() || w.restart.Armed() {
		return
	}
	s := w.h.s
	d := w.h.watchLatency()
	s.mu.Lock()
	w.upTo = s.rev
	if w.h.odds.slowWatch.strikes() {
		d += w.h.odds.SlowWatchBy()
		s.act(ActWatchSlow, w.h.l, w.prefixes[0], int64(d))
	}
	s.mu.Unlock()
	if d > 0 {
		w.h.l.Arm(&w.timer, w.h.l.Now().Add(d))
		return
	}
	w.deliver()
}

// breakOff ends the stream of a watch; it starts again soon.
func (w *watch) breakOff() {
	s := w.h.s
	s.mu.Lock()
	s.act(ActWatchBroken, w.h.l, w.prefixes[0], int64(w.next))
	s.mu.Unlock()
	w.astray = true
	w.h.l.Disarm(&w.timer)
	w.h.l.Arm(&w.restart, w.h.l.Now().Add(restartWatch))
	w.w.Unavailable(registry.ErrUnavailable)
}

func (w *watch) stop() {
	if w.stopped {
		return
	}
	w.stopped = true
	w.h.l.Disarm(&w.timer)
	w.h.l.Disarm(&w.restart)
	w.h.watches = slices.DeleteFunc(w.h.watches, func(o *watch) bool { return o == w })
	w.h.s.mu.Lock()
	defer w.h.s.mu.Unlock()
	w.h.s.watches = slices.DeleteFunc(w.h.s.watches, func(o *watch) bool { return o == w })
}

// locate finds out, when a watch starts or starts again, whether the registry is another one than before: an older copy, which a watch as such would not tell. It returns the
// revision to reset the watcher to.
func (w *watch) locate() (back registry.Revision, reset bool) {
	s := w.h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.astray || s.down {
		return 0, false
	}
	w.astray = false
	if reset = w.next > s.rev+1 || w.copies != s.copies; reset {
		if back = s.rev; w.copies != s.copies {
			back = 0 // what was seen proves nothing about this copy, whatever its revision is by now
		}
		w.copies = s.copies
		w.next = s.rev + 1
		s.act(ActReset, w.h.l, w.prefixes[0], int64(back))
	}
	return back, reset
}

// deliver tells the watcher everything that it has not seen.
func (w *watch) deliver() {
	for !w.stopped && !w.h.silent() && !w.broken.Load() {
		if back, reset := w.locate(); reset {
			w.w.Reset(back)
			continue
		}
		ch, compacted, ok := w.take()
		switch {
		case compacted != 0:
			w.w.Reset(compacted)
		case !ok:
			if w.broken.Load() || w.behind() {
				w.wake()
			}
			return
		case len(ch.evs) > 0:
			w.w.Events(ch.rev, ch.evs)
		}
	}
}

// behind reports whether there is more than what the watch was to deliver.
func (w *watch) behind() bool {
	w.h.s.mu.Lock()
	defer w.h.s.mu.Unlock()
	return w.next <= w.h.s.rev
}

// take moves the watch on by one revision: it returns what of it the watch wants, or the revision to start again from when the history is gone.
func (w *watch) take() (ch change, compacted registry.Revision, ok bool) {
	s := w.h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.next > min(s.rev, w.upTo) {
		return ch, 0, false
	}
	if w.next <= s.compacted {
		w.next = s.compacted + 1
		s.act(ActReset, w.h.l, w.prefixes[0], int64(s.compacted))
		return ch, s.compacted, true
	}
	all := s.history[w.next-s.compacted-1]
	if w.h.odds.watch.strikes() {
		w.broken.Store(true)
		return ch, 0, false
	}
	w.next++
	ch.rev = all.rev
	if w.wantsAll(all.evs) {
		ch.evs = all.evs
	} else {
		for _, ev := range all.evs {
			if w.wants(ev.KV.Key) {
				ch.evs = append(ch.evs, ev)
			}
		}
	}
	if len(ch.evs) > 0 {
		s.act(ActEvents, w.h.l, ch.evs[0].KV.Key, int64(ch.rev))
	}
	return ch, 0, true
}

func (w *watch) wants(key string) bool {
	for _, p := range w.prefixes {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

func (w *watch) wantsAll(evs []registry.Event) bool {
	for _, ev := range evs {
		if !w.wants(ev.KV.Key) {
			return false
		}
	}
	return true
}
