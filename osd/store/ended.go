package store

import "holdfast/core/layout"

// EndSessions drops the pairs of every session that over reports as ended; it is called for each session once.
func (s *Store) EndSessions(over func(session uint64) bool) {
	for i := range s.pairs.list {
		if id := s.pairs.list[i].id; id != 0 && over(id) {
			s.EndSession(id)
		}
	}
}

// CountPG is the number of objects of a PG, tombstones included; 0 when the pool is not sharded.
func (s *Store) CountPG(pg layout.PGID) int {
	p := s.lists[pg.Pool]
	if p == nil || pg.Num == 0 || int(pg.Num) > len(p.objects) {
		return 0
	}
	return int(p.objects[pg.Num-1])
}

// Remembers reports whether a request is remembered that made a version of an object, or one below it: whoever sent it may ask for it again.
func (s *Store) Remembers(object layout.ObjectID, version layout.Version) bool {
	for i := s.pairs.byObject.get(uint64(object.Inode), object.Stripe); i != 0; i = s.pairs.nodes[i].objNext {
		n := &s.pairs.nodes[i]
		if r := s.pairs.sessions.get(n.pair.Session, 0); n.version <= uint64(version) && n.pair.Sequence >= s.pairs.list[r].low {
			return true
		}
	}
	return false
}
