package store

import (
	"unsafe"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/planted"
)

// Cursor is a place in a listing; the zero value is its beginning. It stays valid while objects come and go: an object that is there from the first call to the
// last is listed at least once.
type Cursor uint64

// poolLists say how a pool's objects go into PGs. A list is no more than a tag on each slot, which listing looks for: two bytes of memory for an object, and nothing moves when one is removed.
type poolLists struct {
	sh      Sharding
	objects []uint32 // of PG number i+1
	ready   bool
	built   uint32 // slots below are in the lists, others not yet
}

const (
	shardSlice = 16384   // slots looked at in one turn
	listSlice  = 1 << 19 // tags looked at in one call
)

func (sh Sharding) pg(stripe uint64) uint32 {
	if sh.PGStripeSize == 0 {
		return 0
	}
	return uint32((stripe &^ layout.RoleMask) / sh.PGStripeSize % uint64(sh.PGCount))
}

// tag is the mark of the slots of a PG, never 0. Others may have the same one.
func tag(pool layout.PoolID, pg uint32) uint16 {
	return uint16((uint64(pool)*40503+uint64(pg))%65535) + 1
}

// Shard sorts a pool's objects into PGs, so that List need not look at every object of the store, and keeps them sorted from then on. done is called later, when List can be used.
// Sharding a pool again replaces what was.
func (s *Store) Shard(pool layout.PoolID, sh Sharding, done func()) {
	sh.PGCount = max(sh.PGCount, 1)
	p := &poolLists{sh: sh, objects: make([]uint32, sh.PGCount)}
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
	first := b.p.built
	b.p.built = uint32(end)
	for i := first; uint64(i) < end; i++ {
		if s.t.slotFree.has(i) {
			if oid := s.t.object(i); oid.Inode.Pool() == b.pool {
				s.listAdd(i, oid)
			}
		}
	}
	if end < s.sb.Slots {
		s.l.Arm(&b.timer, s.l.Now())
		return
	}
	b.p.ready = true
	b.done()
}

// listAdd puts a new object on its list.
func (s *Store) listAdd(slot uint32, oid layout.ObjectID) {
	if p := s.lists[oid.Inode.Pool()]; p != nil && slot < p.built {
		pg := p.sh.pg(oid.Stripe)
		s.t.tags[slot] = tag(oid.Inode.Pool(), pg)
		p.objects[pg]++
	}
}

func (s *Store) listRemove(slot uint32, oid layout.ObjectID) {
	s.t.tags[slot] = 0
	if p := s.lists[oid.Inode.Pool()]; p != nil && slot < p.built {
		p.objects[p.sh.pg(oid.Stripe)]--
	}
}

// listObject appends the entries of the object in a slot: the newest stable version, if there is one, and each that waits for a commit above it, oldest first.
func (s *Store) listObject(dst []ListEntry, slot uint32) []ListEntry {
	oid := s.t.object(slot)
	_, _, d, ok := s.lookup(oid)
	if !ok {
		return dst
	}
	from := len(dst)
	st := slotView(s.t.slot(slot)).state()
	if d != 0 {
		o := &s.dirty[d]
		for i := o.first; i != 0 && o.lastVisible != 0; i = s.changes[i].next {
			c := &s.changes[i]
			if c.flags&entryUnstable != 0 {
				if len(dst) == from && st.Version != 0 && !planted.ListNewestOnly {
					dst = append(dst, ListEntry{oid, st})
				}
				if n := len(dst); n > from && uint64(dst[n-1].Version) == c.version {
					dst = dst[:n-1] // another part of it, see park.go
				}
				st = stateAfter(st, c)
				dst = append(dst, ListEntry{oid, st})
			} else {
				st, dst = stateAfter(st, c), dst[:from]
			}
			if i == o.lastVisible {
				break
			}
		}
	}
	if len(dst) == from && st.Version != 0 {
		dst = append(dst, ListEntry{oid, st})
	}
	return dst
}

// listUpTo is listObject for a page of at most max entries that begins at from in dst. full: the object belongs to the next page. One with more entries than any page has one for itself.
func (s *Store) listUpTo(dst []ListEntry, slot uint32, from, max int) (entries []ListEntry, full bool) {
	was := len(dst)
	if dst = s.listObject(dst, slot); len(dst)-from > max && was > from {
		return dst[:was], true
	}
	return dst, false
}

// List appends the entries of a PG's objects, tombstones and void ones included, the objects in no particular order (but always the same for the same history), those of one object together:
// the newest stable version, and then each that waits for a commit, oldest first. It appends up to max, or all of one object, which has at most maxChain+1. more says that there may be others from next on;
// a call looks at a bounded number of slots, so that it may return none and more. An object that is removed and made again, or others beside it, may show twice. The pool must have been sharded.
func (s *Store) List(dst []ListEntry, pg layout.PGID, after Cursor, max int) (entries []ListEntry, next Cursor, more bool) {
	p := s.lists[pg.Pool]
	if p == nil || !p.ready {
		panic("store: list of a pool that is not sharded")
	}
	if pg.Num == 0 || pg.Num > p.sh.PGCount {
		return dst, 0, false
	}
	want := tag(pg.Pool, pg.Num-1)
	i := uint64(after)
	end := min(i+listSlice, s.sb.Slots)
	for from := len(dst); len(dst)-from < max; i++ {
		if i = nextTag(s.t.tags[:end], i, want); i == end {
			break
		}
		oid := s.t.object(uint32(i))
		if oid.Inode.Pool() != pg.Pool || p.sh.pg(oid.Stripe) != pg.Num-1 {
			continue
		}
		var full bool
		if dst, full = s.listUpTo(dst, uint32(i), from, max); full {
			break
		}
	}
	return dst, Cursor(i), i < s.sb.Slots
}

// nextTag is the first place from i on with the tag want, or the end.
func nextTag(tags []uint16, i uint64, want uint16) uint64 {
	const low, high = 0x0001_0001_0001_0001, 0x8000_8000_8000_8000
	for n := uint64(len(tags)); i < n; {
		// Eight tags at a time: a tag that is found is 0 after the exclusive or, and the highest bit of x-1 &^ x is set for 0 (and for nothing else before it).
		for ; i%4 == 0 && i+8 <= n; i += 8 {
			p := (*[2]uint64)(unsafe.Pointer(&tags[i]))
			x, y := p[0]^low*uint64(want), p[1]^low*uint64(want)
			if ((x-low)&^x|(y-low)&^y)&high != 0 {
				break
			}
		}
		for end := min((i+8)&^3, n); i < end; i++ {
			if tags[i] == want {
				return i
			}
		}
	}
	return uint64(len(tags))
}

// ListInode appends up to max entries of objects of the inodes from first to last, as List does; one call looks at a bounded number of slots, so that it may return none and more.
func (s *Store) ListInode(dst []ListEntry, first, last layout.Inode, after Cursor, max int) (entries []ListEntry, next Cursor, more bool) {
	i := uint64(after)
	end := min(i+4*shardSlice, s.sb.Slots)
	for from := len(dst); i < end && len(dst)-from < max; i++ {
		if !s.t.slotFree.has(uint32(i)) {
			continue
		}
		oid := s.t.object(uint32(i))
		if oid.Inode < first || oid.Inode > last {
			continue
		}
		var full bool
		if dst, full = s.listUpTo(dst, uint32(i), from, max); full {
			break
		}
	}
	return dst, Cursor(i), i < s.sb.Slots
}
