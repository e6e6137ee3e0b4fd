package store

import (
	"holdfast/core/layout"
	"holdfast/core/loop"
)

// Cursor is a place in a listing; the zero value is its beginning. It stays valid while objects come and go: an object that is there from the first call to the
// last is listed at least once.
type Cursor uint64

// poolLists are the objects of a pool by PG.
type poolLists struct {
	sh    Sharding
	pgs   [][]uint32 // slots of PG number i+1
	ready bool
	built uint32 // slots below have been looked at
}

const shardSlice = 16384 // slots looked at in one turn

func (sh Sharding) pg(stripe uint64) uint32 {
	if sh.PGStripeSize == 0 {
		return 0
	}
	return uint32((stripe &^ layout.RoleMask) / sh.PGStripeSize % uint64(sh.PGCount))
}

// Shard sorts a pool's objects into PGs, so that List need not walk the whole store, and keeps them sorted from then on. done is called later, when List can be used.
// Sharding a pool again replaces what was.
func (s *Store) Shard(pool layout.PoolID, sh Sharding, done func()) {
	sh.PGCount = max(sh.PGCount, 1)
	if old := s.lists[pool]; old != nil {
		for _, pg := range old.pgs {
			for _, slot := range pg {
				s.t.position[slot] = 0
			}
		}
	}
	p := &poolLists{sh: sh, pgs: make([][]uint32, sh.PGCount)}
	s.lists[pool] = p
	b := &shardBuild{s: s, pool: pool, p: p, done: done}
	b.timer.Fire = b.step
	s.l.Arm(&b.timer, s.l.Now())
}

// Sharded reports whether a pool's objects can be listed by PG.
func (s *Store) Sharded(pool layout.PoolID) bool {
	p := s.lists[pool]
	return p != nil && p.ready
}

// shardBuild fills a pool's lists in slices.
type shardBuild struct {
	s     *Store
	pool  layout.PoolID
	p     *poolLists
	done  func()
	timer loop.Timer
}

func (b *shardBuild) step() {
	s := b.s
	if s.closed || s.lists[b.pool] != b.p {
		return // sharded again since
	}
	end := min(uint64(b.p.built)+shardSlice, s.sb.Slots)
	for i := b.p.built; uint64(i) < end; i++ {
		if s.t.slotFree.has(i) {
			if oid := s.t.object(i); oid.Inode.Pool() == b.pool {
				s.listAdd(i, oid)
			}
		}
	}
	b.p.built = uint32(end)
	if end < s.sb.Slots {
		s.l.Arm(&b.timer, s.l.Now())
		return
	}
	b.p.ready = true
	b.done()
}

func (s *Store) listAdd(slot uint32, oid layout.ObjectID) {
	p := s.lists[oid.Inode.Pool()]
	if p == nil || s.t.position[slot] != 0 {
		return
	}
	pg := &p.pgs[p.sh.pg(oid.Stripe)]
	*pg = append(*pg, slot)
	s.t.position[slot] = uint32(len(*pg))
}

// listRemove puts the last object of the list in the removed one's place. List goes from the end to the start, so that it misses nobody by this.
func (s *Store) listRemove(slot uint32, oid layout.ObjectID) {
	p := s.lists[oid.Inode.Pool()]
	at := s.t.position[slot]
	if p == nil || at == 0 {
		return
	}
	pg := &p.pgs[p.sh.pg(oid.Stripe)]
	last := len(*pg) - 1
	moved := (*pg)[last]
	(*pg)[at-1] = moved
	s.t.position[moved] = at
	s.t.position[slot] = 0
	*pg = (*pg)[:last]
}

// slotState is the visible state of the object in a slot.
func (s *Store) slotState(slot uint32) ListEntry {
	oid := s.t.object(slot)
	st, _ := s.State(oid)
	return ListEntry{oid, st}
}

// List appends up to max objects of a PG, tombstones and void ones included, in no particular order (but always the same for the same history). more says that there are others from next on.
// An object that is removed and made again, or others beside it, may show twice. The pool must have been sharded.
func (s *Store) List(dst []ListEntry, pg layout.PGID, after Cursor, max int) (entries []ListEntry, next Cursor, more bool) {
	p := s.lists[pg.Pool]
	if p == nil || !p.ready {
		panic("store: list of a pool that is not sharded")
	}
	if pg.Num == 0 || pg.Num > p.sh.PGCount {
		return dst, 0, false
	}
	list := p.pgs[pg.Num-1]
	i := len(list)
	if after != 0 && int(after)-1 < i {
		i = int(after) - 1
	}
	for n := 0; i > 0 && n < max; {
		i--
		if e := s.slotState(list[i]); e.Version != 0 {
			dst = append(dst, e)
			n++
		}
	}
	return dst, Cursor(i + 1), i > 0
}

// ListInode appends up to max objects of the inodes from first to last, as List does; one call looks at a bounded number of slots, so that it may return none and more.
func (s *Store) ListInode(dst []ListEntry, first, last layout.Inode, after Cursor, max int) (entries []ListEntry, next Cursor, more bool) {
	i := uint64(after)
	end := min(i+4*shardSlice, s.sb.Slots)
	for n := 0; i < end && n < max; i++ {
		if !s.t.slotFree.has(uint32(i)) {
			continue
		}
		oid := s.t.object(uint32(i))
		if oid.Inode < first || oid.Inode > last {
			continue
		}
		if e := s.slotState(uint32(i)); e.Version != 0 {
			dst = append(dst, e)
			n++
		}
	}
	return dst, Cursor(i), i < s.sb.Slots
}
