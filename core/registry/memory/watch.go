package memory

import (
	"slices"
	"strings"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// watch is one logical watch. The store's list of watches is guarded by its lock; everything else belongs to the handle's loop.
type watch struct {
	h        *Handle
	prefixes []string
	next     registry.Revision // the next revision to look at
	w        registry.Watcher
	task     loop.Task  // there is something to deliver
	timer    loop.Timer // delivers it after the handle's latency
	stopped  bool
	lost     bool // Unavailable has to be said
}

// Watch implements registry.Registry.
func (h *Handle) Watch(prefixes []string, from registry.Revision, to registry.Watcher) (stop func()) {
	w := &watch{h: h, prefixes: slices.Clone(prefixes), next: max(from, 2), w: to} // nothing has revision 1
	w.task.Run = w.woken
	w.timer.Fire = w.deliver
	h.watches = append(h.watches, w)
	h.s.mu.Lock()
	if from == 0 {
		w.next = h.s.rev + 1
	}
	h.s.watches = append(h.s.watches, w)
	h.s.mu.Unlock()
	w.wake()
	return w.stop
}

func (w *watch) wake() { w.h.l.Post(&w.task) }

func (w *watch) woken() {
	switch d := w.h.latency(); {
	case w.stopped || w.timer.Armed():
	case d > 0:
		w.h.l.Arm(&w.timer, w.h.l.Now().Add(d))
	default:
		w.deliver()
	}
}

func (w *watch) stop() {
	if w.stopped {
		return
	}
	w.stopped = true
	w.h.l.Disarm(&w.timer)
	w.h.watches = slices.DeleteFunc(w.h.watches, func(o *watch) bool { return o == w })
	w.h.s.mu.Lock()
	defer w.h.s.mu.Unlock()
	w.h.s.watches = slices.DeleteFunc(w.h.s.watches, func(o *watch) bool { return o == w })
}

// deliver tells the watcher everything that it has not seen.
func (w *watch) deliver() {
	if w.stopped {
		return
	}
	if w.lost {
		w.lost = false
		w.w.Unavailable(registry.ErrUnavailable)
	}
	for !w.stopped && !w.h.cut() {
		ch, compacted, ok := w.take()
		switch {
		case compacted != 0:
			w.w.Reset(compacted)
		case !ok:
			return
		case len(ch.evs) > 0:
			w.w.Events(ch.rev, ch.evs)
		}
	}
}

// take moves the watch on by one revision: it returns what of it the watch wants, or the revision to start again from when the history is gone.
func (w *watch) take() (ch change, compacted registry.Revision, ok bool) {
	s := w.h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.next > s.rev {
		return ch, 0, false
	}
	if w.next <= s.compacted {
		w.next = s.compacted + 1
		return ch, s.compacted, true
	}
	all := s.history[w.next-s.compacted-1]
	w.next++
	ch.rev = all.rev
	if w.wantsAll(all.evs) {
		ch.evs = all.evs
		return ch, 0, true
	}
	for _, ev := range all.evs {
		if w.wants(ev.KV.Key) {
			ch.evs = append(ch.evs, ev)
		}
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
