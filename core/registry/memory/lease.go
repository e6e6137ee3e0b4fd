package memory

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

func (s *Store) leaseLocked(id registry.LeaseID) (int, bool) {
	return slices.BinarySearchFunc(s.leases, id, func(l *lease, id registry.LeaseID) int { return cmp.Compare(l.id, id) })
}

// grantLocked makes a lease that runs out ttl after now. It runs on the store's loop.
func (s *Store) grantLocked(ttl time.Duration) registry.LeaseID {
	s.lastLease++
	s.leases = append(s.leases, &lease{id: s.lastLease, ttl: ttl, expires: s.l.Now().Add(ttl)})
	s.l.Post(&s.rearm)
	return s.lastLease
}

// renewLocked reports whether the lease exists, and if so lets it live on. It runs on the store's loop.
func (s *Store) renewLocked(id registry.LeaseID) bool {
	i, ok := s.leaseLocked(id)
	if ok {
		s.leases[i].expires = max(s.leases[i].expires, s.l.Now().Add(s.leases[i].ttl))
	}
	return ok
}

// Expire ends a lease now, as an operator or another client could.
func (s *Store) Expire(id registry.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.leaseLocked(id); ok {
		s.act(ActExpire, nil, "", int64(id))
		s.endLocked(i)
	}
}

// Leases are the leases that exist, by id.
func (s *Store) Leases() []registry.LeaseID {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]registry.LeaseID, 0, len(s.leases))
	for _, le := range s.leases {
		out = append(out, le.id)
	}
	return out
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

// expire runs on the store's loop: it ends the leases whose time is over and sets the timer for the next. While the registry is down no lease ends.
func (s *Store) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return
	}
	now := s.l.Now()
	for _, le := range s.leases {
		if le.renewed {
			le.renewed, le.expires = false, now.Add(le.ttl)
		}
	}
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
		s.act(ActLeaseOver, nil, "", int64(s.leases[first].id))
		s.endLocked(first)
	}
}

// heldLease is a lease as its holder knows it; it lives on the handle's loop. Its keep-alives are requests like others: slow, lost, and counted from when they were sent.
type heldLease struct {
	h       *Handle
	ttl     time.Duration
	handler registry.LeaseHandler
	id      registry.LeaseID
	until   loop.Instant // the lease lives at least that long, by the last answer
	next    loop.Instant // when to send the next keep-alive
	asking  bool         // a request is under way
	ended   bool
	timer   loop.Timer
}

// retryLease is how long a holder waits before it asks again after no answer came.
const retryLease = 100 * time.Millisecond

// Grant implements registry.Registry.
func (h *Handle) Grant(ttl time.Duration, handler registry.LeaseHandler) registry.Lease {
	le := &heldLease{h: h, ttl: ttl, handler: handler, next: h.l.Now()}
	le.timer.Fire = le.tick
	le.tick()
	return le
}

func (le *heldLease) ID() registry.LeaseID { return le.id }

func (le *heldLease) Until() loop.Instant { return le.until }

// tick does what is due: it asks for the lease, keeps it alive, or finds that it may be over.
func (le *heldLease) tick() {
	now := le.h.l.Now()
	switch {
	case le.ended:
		return
	case le.id != 0 && now >= le.until:
		le.lose(registry.ErrUnavailable)
		return
	case !le.asking && now >= le.next:
		le.asking = true
		le.next = now.Add(le.ttl * 3 / 10)
		if le.id == 0 {
			le.grant(now)
		} else {
			le.renew(now)
		}
	}
	le.arm()
}

// arm sets the timer for what comes first. While a request is under way only the end of the lease counts.
func (le *heldLease) arm() {
	switch {
	case le.ended:
	case !le.asking && (le.id == 0 || le.next < le.until):
		le.h.l.Arm(&le.timer, le.next)
	case le.id != 0:
		le.h.l.Arm(&le.timer, le.until)
	}
}

func (le *heldLease) grant(sent loop.Instant) {
	s := le.h.s
	var id registry.LeaseID
	le.h.request(0, func() error {
		id = s.grantLocked(le.ttl)
		s.act(ActGrant, le.h.l, "", int64(id))
		return nil
	}, func(err error) {
		le.asking = false
		switch {
		case le.ended && err == nil:
			le.h.Revoke(id, nil)
		case le.ended:
		case err != nil:
			le.retry()
		case le.h.l.Now() >= sent.Add(le.ttl): // it took that long
			le.h.Revoke(id, nil)
			le.retry()
		default:
			le.id, le.until = id, sent.Add(le.ttl)
			le.arm()
			le.handler.Granted(le)
		}
	})
}

func (le *heldLease) renew(sent loop.Instant) {
	s := le.h.s
	le.h.request(min(quickTimeout, le.until.Sub(sent)), func() error {
		if !s.renewLocked(le.id) {
			return registry.ErrNoLease
		}
		s.act(ActRenew, le.h.l, "", int64(le.id))
		return nil
	}, func(err error) {
		le.asking = false
		switch {
		case le.ended:
		case errors.Is(err, registry.ErrNoLease):
			le.lose(err)
		case err != nil:
			le.retry()
		default:
			le.until = max(le.until, sent.Add(le.ttl))
			le.arm()
		}
	})
}

// retry asks again soon.
func (le *heldLease) retry() {
	le.next = le.h.l.Now().Add(retryLease)
	le.arm()
}

func (le *heldLease) lose(err error) {
	le.ended = true
	le.h.l.Disarm(&le.timer)
	if !le.h.isClosed() {
		le.handler.Lost(le, err)
	}
}

// Revoke implements registry.Lease.
func (le *heldLease) Revoke(done func(error)) {
	le.ended = true
	le.h.l.Disarm(&le.timer)
	if le.id == 0 { // not granted yet: if it is, it is given back then
		le.h.l.Post(&loop.Task{Run: func() {
			if done != nil {
				done(nil)
			}
		}})
		return
	}
	le.h.Revoke(le.id, done)
}

// Revoke implements registry.Registry.
func (h *Handle) Revoke(id registry.LeaseID, done func(error)) {
	s := h.s
	h.request(0, func() error {
		if i, ok := s.leaseLocked(id); ok {
			s.act(ActLeaseOver, h.l, "", int64(id))
			s.endLocked(i)
		}
		return nil
	}, done)
}
