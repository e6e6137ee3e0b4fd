package memory

import (
	"cmp"
	"slices"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

func (s *Store) leaseLocked(id registry.LeaseID) (int, bool) {
	return slices.BinarySearchFunc(s.leases, id, func(l *lease, id registry.LeaseID) int { return cmp.Compare(l.id, id) })
}

// grant makes a lease that runs out ttl after now.
func (s *Store) grant(ttl time.Duration, now loop.Instant) registry.LeaseID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastLease++
	s.leases = append(s.leases, &lease{id: s.lastLease, ttl: ttl, expires: now.Add(ttl)})
	s.l.Post(&s.rearm)
	return s.lastLease
}

// renew reports whether the lease exists, and if so lets it live on.
func (s *Store) renew(id registry.LeaseID, now loop.Instant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.leaseLocked(id)
	if ok {
		s.leases[i].expires = max(s.leases[i].expires, now.Add(s.leases[i].ttl))
	}
	return ok
}

// Expire ends a lease now, as an operator or another client could.
func (s *Store) Expire(id registry.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.leaseLocked(id); ok {
		s.endLocked(i)
	}
}

// endLocked removes the lease and its keys, which is one revision.
func (s *Store) endLocked(i int) {
	id := s.leases[i].id
	s.leases = slices.Delete(s.leases, i, i+1)
	ch := change{rev: s.rev + 1}
	for i := 0; i < len(s.kvs); {
		if s.kvs[i].Lease == id {
			ch.evs = append(ch.evs, s.deleteLocked(i, i+1, ch.rev)...)
		} else {
			i++
		}
	}
	s.commitLocked(ch)
}

// expire runs on the store's loop: it ends the leases whose time is over and sets the timer for the next.
func (s *Store) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.l.Now()
	for {
		first := -1
		for i, le := range s.leases {
			if first < 0 || le.expires < s.leases[first].expires {
				first = i
			}
		}
		if first < 0 {
			return
		}
		if s.leases[first].expires > now {
			s.l.Arm(&s.expiry, s.leases[first].expires)
			return
		}
		s.endLocked(first)
	}
}

// heldLease is a lease as its holder knows it; it lives on the handle's loop.
type heldLease struct {
	h       *Handle
	ttl     time.Duration
	handler registry.LeaseHandler
	id      registry.LeaseID
	until   loop.Instant
	ended   bool
	timer   loop.Timer
}

// retryGrant is how long an unreachable handle waits before it asks for a lease again.
const retryGrant = 100 * time.Millisecond

// Grant implements registry.Registry.
func (h *Handle) Grant(ttl time.Duration, handler registry.LeaseHandler) registry.Lease {
	le := &heldLease{h: h, ttl: ttl, handler: handler}
	le.timer.Fire = le.tick
	h.l.Arm(&le.timer, h.l.Now().Add(h.latency()))
	return le
}

func (le *heldLease) ID() registry.LeaseID { return le.id }

func (le *heldLease) Until() loop.Instant { return le.until }

// tick asks for the lease, keeps it alive, or finds that it is lost.
func (le *heldLease) tick() {
	now := le.h.l.Now()
	switch {
	case le.ended || le.h.closed:
	case le.id == 0 && le.h.cut():
		le.h.l.Arm(&le.timer, now.Add(retryGrant))
	case le.id == 0:
		le.id, le.until = le.h.s.grant(le.ttl, now), now.Add(le.ttl)
		le.h.l.Arm(&le.timer, now.Add(le.ttl/3))
		le.handler.Granted(le)
	case now >= le.until:
		le.lose(registry.ErrUnavailable)
	case le.h.cut():
		le.h.l.Arm(&le.timer, min(now.Add(le.ttl/10), le.until))
	case !le.h.s.renew(le.id, now):
		le.lose(registry.ErrNoLease)
	default:
		le.until = now.Add(le.ttl)
		le.h.l.Arm(&le.timer, now.Add(le.ttl/3))
	}
}

func (le *heldLease) lose(err error) {
	le.ended = true
	le.handler.Lost(le, err)
}

// Revoke implements registry.Lease.
func (le *heldLease) Revoke(done func(error)) {
	le.ended = true
	le.h.l.Disarm(&le.timer)
	le.h.request(0, func() error {
		if le.id != 0 {
			le.h.s.Expire(le.id)
		}
		return nil
	}, done)
}
