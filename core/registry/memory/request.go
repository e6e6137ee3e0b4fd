package memory

import (
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// quickTimeout and slowTimeout are what a request waits for its answer, as etcd_quick_timeout and etcd_slow_timeout say.
const (
	quickTimeout = time.Second
	slowTimeout  = 5 * time.Second
)

// request is one way to the store, do, and the way back. do runs on the store's loop, with the store locked; done on the handle's.
type request struct {
	h    *Handle
	do   func() error
	done func(error)
	back time.Duration // how long the answer takes
	err  error
	over bool // it was answered, or given up; of the handle's loop

	timeout loop.Timer // of the handle's loop
	there   loop.Timer // of the store's loop, as home
	home    loop.Timer
}

func (h *Handle) request(timeout time.Duration, do func() error, done func(error)) {
	switch timeout {
	case 0:
		timeout = quickTimeout
	case registry.Slow:
		timeout = slowTimeout
	}
	r := &request{h: h, do: do, done: done, back: h.latency()}
	r.timeout.Fire = func() { r.answer(registry.ErrUnavailable) }
	r.there.Fire = r.arrive
	r.home.Fire = r.goHome
	h.l.Arm(&r.timeout, h.l.Now().Add(timeout))
	there := h.latency()
	h.s.mu.Lock()
	if h.odds.slow.strikes() {
		there += h.odds.SlowBy()
		h.s.act(ActSlow, h.l, "", int64(there))
	}
	h.s.mu.Unlock()
	l := h.s.l
	l.Post(&loop.Task{Run: func() {
		if there > 0 {
			l.Arm(&r.there, l.Now().Add(there))
		} else {
			r.arrive()
		}
	}})
}

// arrive runs on the store's loop.
func (r *request) arrive() {
	h, s := r.h, r.h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down, h.noRequests:
		if h.odds.late.strikes() {
			s.late = append(s.late, r)
		}
		return
	case h.odds.request.strikes():
		s.act(ActRequestLost, h.l, "", 0)
		return
	}
	r.err = r.do()
	if h.loseReplies || h.odds.reply.strikes() {
		s.act(ActReplyLost, h.l, "", 0)
		return
	}
	if r.back > 0 {
		s.l.Arm(&r.home, s.l.Now().Add(r.back))
		return
	}
	r.post()
}

// takeLate is what cuts and outages hold of a handle, or with nil of all.
func (s *Store) takeLate(h *Handle) (late []*request) {
	left := s.late[:0]
	for _, r := range s.late {
		if h == nil || r.h == h {
			late = append(late, r)
		} else {
			left = append(left, r)
		}
	}
	clear(s.late[len(left):])
	s.late = left
	return late
}

func (r *request) goHome() {
	r.h.s.mu.Lock()
	defer r.h.s.mu.Unlock()
	r.post()
}

// post brings the answer, with the store locked.
func (r *request) post() {
	if !r.h.noReplies {
		r.h.l.Post(&loop.Task{Run: func() { r.answer(r.err) }})
	}
}

// answer runs on the handle's loop.
func (r *request) answer(err error) {
	if r.over {
		return
	}
	r.over = true
	r.h.l.Disarm(&r.timeout)
	if r.done != nil && !r.h.isClosed() {
		r.done(err)
	}
}
