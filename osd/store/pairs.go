package store

import (
	"holdfast/core/layout"
	"holdfast/core/planted"
)

// pairs remembers which request made which version, so that a request sent again is not executed again.
// Each session has a low mark; pairs below it are forgotten. Nothing here holds pointers.
type pairs struct {
	nodes    []pairNode // number 0 is not used
	free     uint32
	n        int
	byPair   hash128 // -> node
	byObject hash128 // -> first node of the object
	sessions hash128 // -> session record
	list     []sessionRec
	listFree uint32
}

type pairNode struct {
	pair       Pair
	object     layout.ObjectID
	version    uint64
	batch      uint32
	next, prev uint32 // of the session, oldest first
	objNext    uint32
	objPrev    uint32
}

type sessionRec struct {
	id         uint64
	low        uint64
	head, tail uint32
	free       uint32
	n          int
}

func (p *pairs) limit(s *Store) int { return s.sb.Config.maxPairs() }

func (p *pairs) full(s *Store) bool { return p.n+len(s.ops)/8 >= p.limit(s) }

// FindPair looks up what a request made. It knows requests whose change is durable and whose session has not moved its low mark past them.
func (s *Store) FindPair(pair Pair) (layout.ObjectID, layout.Version, bool) {
	i := s.pairs.byPair.get(pair.Session, pair.Sequence)
	if i == 0 {
		return layout.ObjectID{}, 0, false
	}
	n := &s.pairs.nodes[i]
	if r := s.pairs.sessions.get(pair.Session, 0); r != 0 && pair.Sequence < s.pairs.list[r].low {
		return layout.ObjectID{}, 0, false
	}
	return n.object, layout.Version(n.version), true
}

// SessionPairs is how many requests of a session are remembered.
func (s *Store) SessionPairs(session uint64) int {
	if r := s.pairs.sessions.get(session, 0); r != 0 {
		return s.pairs.list[r].n
	}
	return 0
}

// EndSession drops a session's pairs: the session has ended, its requests are never sent again.
func (s *Store) EndSession(session uint64) {
	if s.failure != nil || s.closing || s.o.ReadOnly || s.pairs.sessions.get(session, 0) == 0 {
		return
	}
	s.pairs.end(s, session)
	s.j.append(record{data: encodeSessionEnd(session)})
}

func (p *pairs) end(s *Store, session uint64) {
	r := p.sessions.get(session, 0)
	if r == 0 {
		return
	}
	for p.list[r].head != 0 {
		p.drop(s, p.list[r].head)
		if p.sessions.get(session, 0) == 0 {
			return
		}
	}
	p.endRec(r)
}

func (p *pairs) endRec(r uint32) {
	p.sessions.remove(p.list[r].id, 0)
	p.list[r] = sessionRec{free: p.listFree}
	p.listFree = r
}

// add records a pair; the batch holds its entry.
func (p *pairs) add(s *Store, object layout.ObjectID, pair Pair, low, version uint64, batch uint32) {
	if len(p.nodes) == 0 {
		p.nodes, p.list = make([]pairNode, 1), make([]sessionRec, 1)
	}
	if i := p.byPair.get(pair.Session, pair.Sequence); i != 0 {
		p.drop(s, i)
	}
	r := p.sessions.get(pair.Session, 0)
	if r == 0 {
		if r = p.listFree; r != 0 {
			p.listFree = p.list[r].free
		} else {
			p.list = append(p.list, sessionRec{})
			r = uint32(len(p.list) - 1)
		}
		p.list[r] = sessionRec{id: pair.Session}
		p.sessions.put(pair.Session, 0, r)
	}
	i := p.free
	if i != 0 {
		p.free = p.nodes[i].next
	} else {
		p.nodes = append(p.nodes, pairNode{})
		i = uint32(len(p.nodes) - 1)
	}
	rec := &p.list[r]
	rec.low = max(rec.low, low)
	n := &p.nodes[i]
	*n = pairNode{pair: pair, object: object, version: version, batch: batch, prev: rec.tail}
	if rec.tail != 0 {
		p.nodes[rec.tail].next = i
	} else {
		rec.head = i
	}
	rec.tail = i
	rec.n++
	first := p.byObject.get(uint64(object.Inode), object.Stripe)
	n.objNext = first
	if first != 0 {
		p.nodes[first].objPrev = i
	}
	p.byObject.put(uint64(object.Inode), object.Stripe, i)
	p.byPair.put(pair.Session, pair.Sequence, i)
	p.n++
	s.j.batches[batch].refs++
	for rec.head != i && (p.nodes[rec.head].pair.Sequence < rec.low || planted.PairDropped && p.nodes[rec.head].pair.Sequence == rec.low) {
		p.drop(s, rec.head)
	}
}

// drop forgets a pair.
func (p *pairs) drop(s *Store, i uint32) {
	n := &p.nodes[i]
	r := p.sessions.get(n.pair.Session, 0)
	rec := &p.list[r]
	if n.prev != 0 {
		p.nodes[n.prev].next = n.next
	} else {
		rec.head = n.next
	}
	if n.next != 0 {
		p.nodes[n.next].prev = n.prev
	} else {
		rec.tail = n.prev
	}
	switch {
	case n.objPrev != 0:
		p.nodes[n.objPrev].objNext = n.objNext
	case n.objNext != 0:
		p.byObject.put(uint64(n.object.Inode), n.object.Stripe, n.objNext)
	default:
		p.byObject.remove(uint64(n.object.Inode), n.object.Stripe)
	}
	if n.objNext != 0 {
		p.nodes[n.objNext].objPrev = n.objPrev
	}
	p.byPair.remove(n.pair.Session, n.pair.Sequence)
	s.j.release(n.batch)
	*n = pairNode{next: p.free}
	p.free = i
	p.n--
	rec.n--
	if rec.head == 0 {
		p.endRec(r)
	}
}

// dropAbove forgets an object's pairs whose version is above the given one.
func (p *pairs) dropAbove(s *Store, object layout.ObjectID, version uint64) {
	for i := p.byObject.get(uint64(object.Inode), object.Stripe); i != 0; {
		next := p.nodes[i].objNext
		if p.nodes[i].version > version {
			p.drop(s, i)
		}
		i = next
	}
}

// dropAll forgets an object's pairs as its copy is replaced: those of the new one come with it. What was replaced may have been false, and what made it never done.
func (p *pairs) dropAll(s *Store, object layout.ObjectID) {
	if planted.UndoneAnswered {
		return
	}
	for i := p.byObject.get(uint64(object.Inode), object.Stripe); i != 0; {
		next := p.nodes[i].objNext
		p.drop(s, i)
		i = next
	}
}

// of appends an object's pairs.
func (p *pairs) of(dst []PairVersion, object layout.ObjectID) []PairVersion {
	for i := p.byObject.get(uint64(object.Inode), object.Stripe); i != 0; i = p.nodes[i].objNext {
		n := &p.nodes[i]
		if r := p.sessions.get(n.pair.Session, 0); n.pair.Sequence >= p.list[r].low {
			dst = append(dst, PairVersion{n.pair, layout.Version(n.version)})
		}
	}
	return dst
}

// carry writes again the pairs whose batch is at or before the given one.
func (p *pairs) carry(s *Store, upTo uint64) {
	for i := range p.nodes {
		n := &p.nodes[i]
		if n.pair.Session == 0 || s.j.seqOf(n.batch) > upTo {
			continue
		}
		pair, object, version, old := n.pair, n.object, n.version, n.batch
		current := func() uint32 {
			j := p.byPair.get(pair.Session, pair.Sequence)
			if j == 0 || p.nodes[j].batch != old || p.nodes[j].object != object || p.nodes[j].version != version {
				return 0 // dropped, or made again, in the meantime
			}
			return j
		}
		// A change in a batch under way may drop the pair; an entry behind it would bring it back in a replay. Then a later turn carries it.
		valid := func() bool { return current() != 0 && !s.anyLogged(object) }
		s.j.append(record{data: encodePair(object, pair, version), valid: valid, done: func(batch uint32) {
			j := current()
			if j == 0 {
				s.j.release(batch)
				return
			}
			s.j.release(old)
			p.nodes[j].batch = batch
		}})
	}
}

// anyLogged reports whether a change of the object is in a batch under way.
func (s *Store) anyLogged(oid layout.ObjectID) bool {
	_, _, d, _ := s.lookup(oid)
	if d == 0 {
		return false
	}
	for i := s.dirty[d].first; i != 0; i = s.changes[i].next {
		if s.changes[i].state == changeLogged {
			return true
		}
	}
	return false
}
