package store

import (
	"cmp"
	"fmt"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/planted"
)

// pgRecords are the PG records, which live in the journal and are carried forward in it.
type pgRecords struct {
	m       map[layout.PGID]*pgState
	bytes   int       // of their entries
	waiting []*pgWait // not durable yet
}

type pgState struct {
	rec   PGRecord
	batch uint32 // holds the newest durable entry
	held  bool   // batch is meaningful
}

type pgWait struct {
	done func(error)
}

func (r *PGRecord) clone() PGRecord {
	c := *r
	c.Participants, c.Sets = slices.Clone(r.Participants), slices.Clone(r.Sets)
	for i := range c.Sets {
		c.Sets[i].Members = slices.Clone(c.Sets[i].Members)
	}
	return c
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (g *pgRecords) sorted() []layout.PGID {
	ids := make([]layout.PGID, 0, len(g.m))
	for id := range g.m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b layout.PGID) int {
		switch {
		case a.Less(b):
			return -1
		case b.Less(a):
			return 1
		}
		return 0
	})
	return ids
}

// PutPG replaces what is remembered of a PG. PG and PGs see it at once; done (which may be nil) is called later, when it is durable.
func (s *Store) PutPG(rec PGRecord, done func(error)) {
	if err := s.refusePG(&rec); err != nil {
		s.later(done, err)
		return
	}
	p := s.pgs.m[rec.PG]
	if p == nil {
		if s.pgs.bytes+rec.bytes() > s.pgLimit() {
			s.later(done, fmt.Errorf("%w: its journal has no room for the records of more PGs than %d; format it with a larger one (--journal_size)", ErrNoSpace, len(s.pgs.m)))
			return
		}
		p = &pgState{}
		s.pgs.m[rec.PG] = p
		s.pgs.bytes += rec.bytes()
	} else {
		s.pgs.bytes += rec.bytes() - p.rec.bytes()
	}
	p.rec = rec.clone()
	s.appendPG(p, done)
}

// pgLimit is how much of the journal the records may take before another PG is refused: they are carried forward in it, and must leave room for changes.
func (s *Store) pgLimit() int { return int(s.j.size / 8) }

func (s *Store) refusePG(rec *PGRecord) error {
	switch {
	case s.failure != nil:
		return ErrFailed
	case s.closing:
		return ErrClosed
	case s.o.ReadOnly:
		return ErrReadOnly
	case rec.bytes() > maxPGEntry:
		return fmt.Errorf("%w: the record of PG %v takes more than %d bytes", ErrUnsupported, rec.PG, maxPGEntry)
	}
	return nil
}

// appendPG queues the journal entry of a record. When it is durable it takes the place of the one before.
func (s *Store) appendPG(p *pgState, done func(error)) {
	if planted.PGRecordEarly {
		s.later(done, nil)
		done = nil
	}
	w := s.pgs.wait(done)
	s.j.append(record{data: encodePG(&p.rec), done: func(batch uint32) {
		s.pgs.unwait(w)
		if s.pgs.m[p.rec.PG] != p {
			s.j.release(batch) // dropped since
		} else {
			if p.held {
				s.j.release(p.batch)
			}
			p.batch, p.held = batch, true
		}
		if done != nil {
			done(nil)
		}
	}})
}

// DropPG forgets a PG; done (which may be nil) is called later, when that is durable.
func (s *Store) DropPG(pg layout.PGID, done func(error)) {
	if err := s.refusePG(&PGRecord{PG: pg}); err != nil {
		s.later(done, err)
		return
	}
	s.pgs.remove(s, pg)
	w := s.pgs.wait(done)
	s.j.append(record{data: encodePGDrop(pg), done: func(batch uint32) {
		s.pgs.unwait(w)
		s.j.release(batch)
		if done != nil {
			done(nil)
		}
	}})
}

func (g *pgRecords) remove(s *Store, pg layout.PGID) {
	if p := g.m[pg]; p != nil {
		if p.held {
			s.j.release(p.batch)
		}
		g.bytes -= p.rec.bytes()
		delete(g.m, pg)
	}
}

// later calls done with err in a later callback of the loop.
func (s *Store) later(done func(error), err error) {
	if done != nil {
		op := &Op{Done: func(op *Op) { done(op.Err) }}
		s.finishOp(op, err)
	}
}

func (g *pgRecords) wait(done func(error)) *pgWait {
	if done == nil {
		return nil
	}
	w := &pgWait{done}
	g.waiting = append(g.waiting, w)
	return w
}

func (g *pgRecords) unwait(w *pgWait) {
	if i := slices.Index(g.waiting, w); w != nil && i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
}

// fail completes what waits, when the store stops.
func (g *pgRecords) fail(s *Store, err error) {
	for _, w := range g.waiting {
		s.later(w.done, err)
	}
	g.waiting = nil
}

// PG is what is remembered of a PG, including what is not durable yet.
func (s *Store) PG(pg layout.PGID) (PGRecord, bool) {
	if p := s.pgs.m[pg]; p != nil {
		return p.rec.clone(), true
	}
	return PGRecord{}, false
}

// PGs are all records, in order.
func (s *Store) PGs() []PGRecord {
	recs := make([]PGRecord, 0, len(s.pgs.m))
	for _, id := range s.pgs.sorted() {
		recs = append(recs, s.pgs.m[id].rec.clone())
	}
	return recs
}

// carry writes again the records whose batch is at or before the given one.
func (g *pgRecords) carry(s *Store, upTo uint64) {
	for _, id := range g.sorted() {
		if p := g.m[id]; p.held && s.j.seqOf(p.batch) <= upTo {
			s.appendPG(p, nil)
		}
	}
}
