package memory

import (
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// Handle is one loop's view of a Store, with the faults that tests want. Its methods are called on its loop, but what it asks for is done on the store's: a request that has been
// sent goes on when its process is stopped or dies.
type Handle struct {
	s *Store
	l loop.Loop

	// Latency, when set, is asked for the time of each way between this handle and the store.
	Latency func() time.Duration
	// WatchLatency, when set, is asked instead for how late a watch is.
	WatchLatency func() time.Duration

	watches []*watch // of the handle's loop

	noRequests  bool // guarded by the store's mu, as everything below
	noReplies   bool
	loseReplies bool
	closed      bool
	odds        handleFaults
}

var _ registry.Registry = (*Handle)(nil)

// Open makes a handle for l.
func (s *Store) Open(l loop.Loop) *Handle { return &Handle{s: s, l: l} }

// Loop is the loop that the handle belongs to.
func (h *Handle) Loop() loop.Loop { return h.l }

// Unreachable cuts the handle off, or joins it again: transactions end with ErrUnavailable after their timeout without having been carried out, watches are silent and
// catch up later, leases run out.
func (h *Handle) Unreachable(cut bool) { h.Cut(cut, cut) }

// Cut cuts one way or both, or joins them again. Without replies, transactions are carried out and leases kept alive without anybody here learning of it, and watches are silent.
func (h *Handle) Cut(requests, replies bool) {
	s := h.s
	s.mu.Lock()
	was := h.noRequests || h.noReplies
	h.noRequests, h.noReplies = requests, replies
	var late []*request
	if !requests {
		late = s.takeLate(h)
	}
	cut := requests || replies
	switch {
	case cut && !was:
		s.act(ActCut, h.l, "", 0)
	case !cut && was:
		s.act(ActJoin, h.l, "", 0)
	}
	s.mu.Unlock()
	for _, r := range late {
		s.l.Post(&loop.Task{Run: r.arrive})
	}
	for _, w := range h.watches {
		if cut {
			w.lost = true
		}
		w.wake()
	}
}

// LoseReplies makes transactions happen, but end with ErrUnavailable.
func (h *Handle) LoseReplies(lose bool) {
	h.s.mu.Lock()
	h.loseReplies = lose
	h.s.mu.Unlock()
}

// Close ends the watches and stops keeping leases alive, as the death of a process does: nothing is called any more.
func (h *Handle) Close() {
	h.s.mu.Lock()
	h.closed = true
	h.s.mu.Unlock()
	for len(h.watches) > 0 {
		h.watches[0].stop()
	}
}

func (h *Handle) isClosed() bool {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.closed
}

// silent reports whether nothing comes from the store.
func (h *Handle) silent() bool {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.noReplies || h.noRequests || h.closed || h.s.down
}

func (h *Handle) latency() time.Duration {
	if h.Latency == nil {
		return 0
	}
	return h.Latency()
}

func (h *Handle) watchLatency() time.Duration {
	if h.WatchLatency == nil {
		return h.latency()
	}
	return h.WatchLatency()
}

// Doubt implements registry.Registry. There are no members here that watches could be stuck at.
func (h *Handle) Doubt() {}

// Txn implements registry.Registry.
func (h *Handle) Txn(t registry.Txn, done func(registry.TxnResult, error)) {
	var res registry.TxnResult
	do := func() (err error) {
		res, err = h.s.txnLocked(t)
		h.s.actTxn(h.l, t, res, err)
		return err
	}
	h.request(t.Timeout, do, func(err error) {
		if err != nil {
			done(registry.TxnResult{}, err)
			return
		}
		done(res, nil)
	})
}
