package osd

import (
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// Serve takes a request of a client or of another OSD.
func (s *OSD) Serve(r *peer.Request) {
	if s.failed || s.stopping && !r.Header.Op().IsOwn() {
		r.Fail(wire.EPIPE)
		return
	}
	switch op := r.Header.Op(); op {
	case wire.OpRead, wire.OpWrite, wire.OpDelete, wire.OpSync, wire.OpZero:
		s.prim.Request(r)
	case wire.OpSecList:
		s.prim.List(r)
	case wire.OpDescribe:
		s.prim.Describe(r)
	case wire.OpScrub:
		s.prim.Scrub(r)
	case wire.OpFix:
		s.prim.Fix(r)
	case wire.OpFence:
		s.fenceNow(r)
	case wire.OpSubDead:
		s.sec.Serve(r)
		s.borrowersDied()
	case wire.OpSubChange, wire.OpSubRead, wire.OpSubReplace, wire.OpSubVoid, wire.OpSubForget, wire.OpSubList, wire.OpSubLock, wire.OpSubRenew, wire.OpSubUnlock, wire.OpSubAnnounce, wire.OpSubSync,
		wire.OpSubReadRange, wire.OpSubCommit, wire.OpSubRollback, wire.OpSubDigest:
		s.sec.Serve(r)
	default:
		r.Fail(wire.EINVAL)
	}
}

// IncomingDown tells that somebody's connection has ended. Grants do not end with it: they run out, or are given back.
func (s *OSD) IncomingDown(c *peer.Incoming) { s.prim.Gone(c) }

// applyPeers keeps the addresses of the other OSDs.
func (s *OSD) applyPeers(prev, next *cluster.Snapshot) {
	for n, st := range next.OSDStates.All() {
		if n == s.o.Num {
			continue
		}
		if old, ok := prev.OSDStates.Get(n); ok && old.Mod == st.Mod {
			continue
		}
		s.hub.SetPeer(n, addressesOf(st))
		if old, ok := prev.OSDStates.Get(n); ok && old.Instance != st.Instance {
			s.hub.Drop(n, nil) // another process: what the old one was sent is lost
		}
	}
	for n := range prev.OSDStates.All() {
		if _, ok := next.OSDStates.Get(n); !ok && n != s.o.Num {
			s.hub.RemovePeer(n)
		}
	}
}

// endSessions forgets the pairs of gateways and tools whose end was published, a while after it, so that nothing of theirs can still be on its way.
func (s *OSD) endSessions(prev, next *cluster.Snapshot) {
	for name, g := range prev.Gateways.All() {
		if now, ok := next.Gateways.Get(name); ok && now.Instance == g.Instance {
			continue
		}
		instance := g.Instance
		t := &loop.Timer{Fire: func() {
			for _, g := range s.Snapshot().Gateways.All() {
				if g.Instance == instance {
					return // it had lost its lease, and lives
				}
			}
			s.o.Store.EndSessions(func(id uint64) bool { return id>>cluster.SessionBits == instance })
		}}
		s.l.Arm(t, s.l.Now().Add(endPause))
	}
}

// endStrangers forgets the pairs of instances that have not been registered for StrangerTime as far as we have seen: they ended while we were not running, or never registered. It is
// called now and then.
func (s *OSD) endStrangers() {
	now := s.l.Now()
	for _, g := range s.Snapshot().Gateways.All() {
		delete(s.strangers, g.Instance)
	}
	seen := map[uint64]loop.Instant{}
	s.o.Store.EndSessions(func(id uint64) bool {
		instance := id >> cluster.SessionBits
		for _, g := range s.Snapshot().Gateways.All() {
			if g.Instance == instance {
				return false
			}
		}
		since, ok := s.strangers[instance]
		if !ok {
			since = now
		}
		seen[instance] = since
		return now.Sub(since) >= s.o.StrangerTime
	})
	s.strangers = seen
}

// shard is whether the store's list of a pool's objects by PG is built.
type shard struct {
	want    store.Sharding
	built   store.Sharding
	running bool
	waiting []func()
}

// shard has the store sort a pool's objects by PG.
func (s *OSD) shard(pool layout.PoolID, want store.Sharding) {
	sh := s.shards[pool]
	if sh == nil {
		sh = &shard{}
		s.shards[pool] = sh
	}
	sh.want = want
	s.buildShard(pool, sh)
}

func (s *OSD) buildShard(pool layout.PoolID, sh *shard) {
	if sh.running || sh.want.PGCount == 0 {
		return
	}
	if sh.built == sh.want {
		waiting := sh.waiting
		sh.waiting = nil
		for _, f := range waiting {
			f()
		}
		return
	}
	sh.running = true
	want := sh.want
	s.o.Store.Shard(pool, want, func() {
		sh.running, sh.built = false, want
		s.buildShard(pool, sh)
	})
}

// sharded reports whether the pool's objects can be listed by PG. Of a pool that is being removed, or of which this OSD has not heard yet, they may never be.
func (s *OSD) sharded(pool layout.PoolID) bool {
	sh := s.shards[pool]
	return sh != nil && !sh.running && sh.want.PGCount != 0 && sh.built == sh.want
}

// whenSharded calls f once the pool's objects can be listed by PG.
func (s *OSD) whenSharded(pool layout.PoolID, f func()) {
	sh := s.shards[pool]
	if sh == nil {
		sh = &shard{}
		s.shards[pool] = sh
	}
	sh.waiting = append(sh.waiting, f)
	s.buildShard(pool, sh)
}
