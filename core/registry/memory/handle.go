package memory

import (
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// quickTimeout and slowTimeout are what an unreachable handle waits before it gives up, as etcd_quick_timeout and etcd_slow_timeout say.
const (
	quickTimeout = time.Second
	slowTimeout  = 5 * time.Second
)

// Handle is one loop's view of a Store, with the faults that tests want. All of its methods are called on its loop.
type Handle struct {
	s *Store
	l loop.Loop

	// Latency, when set, is asked for the time of each way between this handle and the store.
	Latency func() time.Duration

	unreachable bool
	loseReplies bool
	closed      bool
	watches     []*watch
}

var _ registry.Registry = (*Handle)(nil)

// Open makes a handle for l.
func (s *Store) Open(l loop.Loop) *Handle { return &Handle{s: s, l: l} }

// Unreachable cuts the handle off, or joins it again: transactions end with ErrUnavailable after their timeout without having been carried out, watches are silent and
// catch up later, leases run out.
func (h *Handle) Unreachable(cut bool) {
	h.unreachable = cut
	for _, w := range h.watches {
		if cut {
			w.lost = true
			h.l.Post(&w.task)
		} else {
			w.wake()
		}
	}
}

// LoseReplies makes transactions happen, but end with ErrUnavailable.
func (h *Handle) LoseReplies(lose bool) { h.loseReplies = lose }

// Close ends the watches and stops keeping leases alive, as the death of a process does: nothing is called any more.
func (h *Handle) Close() {
	h.closed = true
	for len(h.watches) > 0 {
		h.watches[0].stop()
	}
}

func (h *Handle) cut() bool { return h.unreachable || h.closed }

func (h *Handle) latency() time.Duration {
	if h.Latency == nil {
		return 0
	}
	return h.Latency()
}

// Txn implements registry.Registry.
func (h *Handle) Txn(t registry.Txn, done func(registry.TxnResult, error)) {
	var res registry.TxnResult
	do := func() (err error) {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		res, err = h.s.txnLocked(t)
		return err
	}
	h.request(t.Timeout, do, func(err error) {
		if err != nil {
			res = registry.TxnResult{}
		}
		done(res, err)
	})
}

// request is one way to the store, do, and the way back.
func (h *Handle) request(timeout time.Duration, do func() error, done func(error)) {
	switch timeout {
	case 0:
		timeout = quickTimeout
	case registry.Slow:
		timeout = slowTimeout
	}
	start := h.l.Now()
	answer := func(err error) {
		if !h.closed && done != nil {
			done(err)
		}
	}
	giveUp := func() { h.after(start.Add(timeout), func() { answer(registry.ErrUnavailable) }) }
	arrive := func() {
		if h.cut() {
			giveUp()
			return
		}
		err := do()
		if h.loseReplies {
			giveUp()
			return
		}
		h.after(h.l.Now().Add(h.latency()), func() { answer(err) })
	}
	if there := h.latency(); there > 0 {
		h.after(start.Add(there), arrive)
	} else {
		arrive()
	}
}

// after calls f on the loop at the given moment, and never inside this call.
func (h *Handle) after(at loop.Instant, f func()) {
	if at <= h.l.Now() {
		h.l.Post(&loop.Task{Run: f})
		return
	}
	h.l.Arm(&loop.Timer{Fire: f}, at)
}
