package memory

import (
	"math/rand/v2"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// Faults are odds (0 to 1) of what happens to a handle's requests and watches.
type Faults struct {
	LoseRequest float64 // a request never arrives
	LoseReply   float64 // a request is carried out, and its answer is lost
	LateRequest float64 // a request that a cut or an outage stops arrives when that ends, though nobody waits for it any more
	Slow        float64 // a request takes SlowBy longer to arrive
	SlowBy      func() time.Duration
	BreakWatch  float64 // a watch breaks off before it shows a revision, and has to start again from there
	SlowWatch   float64 // a watch is late by SlowWatchBy
	SlowWatchBy func() time.Duration
}

// odd is one kind of fault with the generator that it draws from.
type odd struct {
	p   float64
	rng *rand.Rand
}

func (o odd) strikes() bool { return o.p > 0 && o.rng.Float64() < o.p }

type handleFaults struct {
	Faults
	request, reply, late, slow, watch, slowWatch odd
}

// SetFaults sets the odds from now on. Each kind of fault draws from the generator that stream has for it.
func (h *Handle) SetFaults(f Faults, stream func(kind string) *rand.Rand) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.odds = handleFaults{
		f, odd{f.LoseRequest, stream("request")}, odd{f.LoseReply, stream("reply")}, odd{f.LateRequest, stream("late")}, odd{f.Slow, stream("slow")},
		odd{f.BreakWatch, stream("watch")}, odd{f.SlowWatch, stream("slow watch")},
	}
	if f.SlowBy == nil {
		h.odds.slow.p = 0
	}
	if f.SlowWatchBy == nil {
		h.odds.slowWatch.p = 0
	}
}

// SetDown stops the whole registry, as when it has no leader, or starts it again: then every lease gets its whole time to live anew, as etcd's new leader gives it.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	if s.down == down {
		s.mu.Unlock()
		return
	}
	s.down = down
	if down {
		s.act(ActDown, nil, "", 0)
	} else {
		s.act(ActUp, nil, "", 0)
		for _, le := range s.leases {
			le.renewed = true
		}
	}
	s.breakLocked()
	var late []*request
	if !down {
		late = s.takeLate(nil)
	}
	s.mu.Unlock()
	for _, r := range late {
		s.l.Post(&loop.Task{Run: r.arrive})
	}
	s.l.Post(&s.rearm)
}

// BreakWatches breaks every watch off; each starts again by itself where it was.
func (s *Store) BreakWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakLocked()
}

func (s *Store) breakLocked() {
	for _, w := range s.watches {
		w.broken.Store(true)
		w.wake()
	}
}

// Backup is a copy of a Store.
type Backup struct {
	rev, compacted registry.Revision
	kvs            []*registry.KV
	history        []change
	leases         []lease
}

// Revision is the copy's revision.
func (b *Backup) Revision() registry.Revision { return b.rev }

// Backup copies everything, as etcd's snapshots do.
func (s *Store) Backup() *Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &Backup{rev: s.rev, compacted: s.compacted, kvs: append([]*registry.KV(nil), s.kvs...), history: append([]change(nil), s.history...)}
	for _, le := range s.leases {
		b.leases = append(b.leases, *le)
	}
	return b
}

// Restore puts an operator's older copy in the place of everything: the revision goes back, changes since are gone, leases of the copy have their whole time to live again. Watches
// break off; what they find when they start again is in locate.
//
// bump, when it is not 0, raises the revision by so much and forgets all history, as etcdutl's --bump-revision with --mark-compacted does.
func (s *Store) Restore(b *Backup, bump registry.Revision) {
	s.mu.Lock()
	s.rev, s.compacted = b.rev, b.compacted
	s.kvs = append([]*registry.KV(nil), b.kvs...)
	s.history = append([]change(nil), b.history...)
	s.leases = nil
	for _, le := range b.leases {
		le.renewed = true
		s.leases = append(s.leases, &le)
	}
	if bump > 0 {
		s.rev += bump
		s.compacted, s.history = s.rev, nil
	}
	s.copies++
	s.act(ActRestore, nil, "", int64(s.rev))
	s.breakLocked()
	s.mu.Unlock()
	s.l.Post(&s.rearm)
}

// Act is what happened in the registry, for logs and counters.
type Act uint8

// What can happen.
const (
	ActTxn         Act = iota + 1 // a transaction ran its Then; n is the revision
	ActElse                       // a transaction ran its Else; n is the revision
	ActRefused                    // a request was refused
	ActGrant                      // n is the lease
	ActRenew                      // n is the lease
	ActLeaseOver                  // a lease ran out or was revoked; n is the lease
	ActExpire                     // a lease was ended from outside; n is the lease
	ActEvents                     // a watch showed revision n
	ActReset                      // a watch was reset to revision n
	ActCut                        // a handle was cut off
	ActJoin                       // a handle was joined again
	ActDown                       // the registry stopped
	ActUp                         // the registry started again
	ActRequestLost                // a request was lost
	ActReplyLost                  // a request was carried out, its answer is lost
	ActSlow                       // a request takes n nanoseconds to arrive
	ActWatchBroken                // a watch broke off
	ActWatchSlow                  // a watch is n nanoseconds late
	ActCompact                    // history up to n is gone
	ActRestore                    // an older copy took the place of everything; n is the revision
)

var actNames = [...]string{
	ActTxn: "transaction", ActElse: "transaction (else)", ActRefused: "refused", ActGrant: "lease granted", ActRenew: "lease kept alive", ActLeaseOver: "lease over",
	ActExpire: "lease ended", ActEvents: "watch shows revision", ActReset: "watch reset to", ActCut: "cut off", ActJoin: "joined", ActDown: "down", ActUp: "up",
	ActRequestLost: "request lost", ActReplyLost: "answer lost", ActSlow: "slow request", ActWatchBroken: "watch broken", ActWatchSlow: "slow watch", ActCompact: "compacted to",
	ActRestore: "restored at",
}

func (a Act) String() string { return actNames[a] }

// Observe has f told of everything that happens, where it happens; f must not call back. l is the handle's loop, nil for what concerns all; key the first key of a transaction.
func (s *Store) Observe(f func(a Act, l loop.Loop, key string, n int64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe = f
}

func (s *Store) act(a Act, l loop.Loop, key string, n int64) {
	if s.observe != nil {
		s.observe(a, l, key, n)
	}
}

func (s *Store) actTxn(l loop.Loop, t registry.Txn, res registry.TxnResult, err error) {
	if s.observe == nil {
		return
	}
	ops, a := t.Then, ActTxn
	switch {
	case err != nil:
		a = ActRefused
	case !res.Succeeded:
		ops, a = t.Else, ActElse
	}
	key := ""
	switch {
	case len(ops) > 0:
		key = ops[0].Key
	case len(t.If) > 0:
		key = t.If[0].Key
	}
	s.act(a, l, key, int64(res.Revision))
}
