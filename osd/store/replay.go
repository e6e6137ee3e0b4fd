package store

import (
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/planted"
)

// replay finds the journal's batches, decides where the journal ends, and applies what is in it.
//
// Every sector that claims to be a batch of this store is looked at. The newest of the present epoch says where replay starts. From there batches must follow one another by
// sequence, place and the checksum of the one before; the first that does not is the end. If a batch (or the superblock) knows that the missing one was durable, it
// is not a torn end but damage.
func (p *opening) replay() error {
	s := p.s
	j, sb := &s.j, &s.sb
	newest, known, err := p.newestBatch()
	if err != nil {
		return err
	}
	pos, seq := newest.tailPos, newest.tailSeq
	p.resets = map[layout.ObjectID]reset{}
	if p.o.salvage {
		p.salvageJournal(newest, known)
		return nil
	}
	p.scanResets(pos, seq)
	virtual := j.size + pos
	var last batchInfo
	for {
		h, err := p.nextBatch(pos, seq, &last)
		if err != nil && pos != 0 && last.seq != 0 {
			// The batch may not have fitted before the end of the ring.
			if h2, err2 := p.nextBatch(0, seq, &last); err2 == nil {
				virtual += j.size - virtual%j.size
				h, err = h2, nil
			}
		}
		if err != nil {
			if seq <= known {
				return &DamagedError{Area: "journal", Offset: sb.Journal.Off + int64(pos%j.size), What: fmt.Sprintf("batch %d was durable and is not there: %v", seq, err)}
			}
			break
		}
		bi := uint32(seq % uint64(len(j.batches)))
		j.batches[bi] = batch{pos: virtual}
		if seq == newest.tailSeq {
			j.oldest = seq
		}
		j.seq, j.durable, j.settled = seq, seq, seq
		b := j.mem[h.pos : h.pos+uint64(h.size())]
		err = h.entries(b, sb, func(e *entry, at uint32) error {
			j.entry = e.seq
			return p.apply(e, uint32(h.pos), at, bi)
		})
		if err != nil {
			return &DamagedError{Area: "journal", Offset: sb.Journal.Off + int64(h.pos), What: err.Error()}
		}
		j.entry = h.first + uint64(h.count) - 1
		last = h
		virtual += uint64(h.size())
		pos, seq = virtual%j.size, seq+1
	}
	j.torn = newest.seq >= seq
	j.head, j.crc, j.durableEntry = virtual, last.crc, j.entry
	j.freeFrom, j.tailKnown = j.at(newest.tailSeq).pos, newest.tailSeq
	s.round.last = max(s.round.last, s.round.done)
	for d := range s.dirty {
		if o := &s.dirty[d]; o.ghost {
			return &DamagedError{Area: "metadata", Offset: sb.pageOff(s.t.page(o.slot), 0), What: fmt.Sprintf("the journal changes object %v from a version that is not there", s.t.object(o.slot))}
		}
	}
	return nil
}

// newestBatch looks at every place of the journal: newest says where replay starts, known is the last batch that is known to have been durable.
func (p *opening) newestBatch() (newest batchInfo, known uint64, err error) {
	if p.newest != nil {
		return *p.newest, p.known, nil
	}
	s := p.s
	j, sb := &s.j, &s.sb
	known, newest = sb.endBatch, batchInfo{seq: sb.endBatch, tailSeq: sb.tailBatch, tailPos: sb.tailPos}
	for pos := uint64(0); pos < j.size; pos += journalAlign {
		h, err := decodeBatch(j.mem[pos:], sb, pos)
		if err != nil {
			continue
		}
		if h.epoch > sb.Boot {
			return newest, known, &DamagedError{Area: "superblock", Offset: 0, What: fmt.Sprintf("the journal has a batch of opening %d, the superblock knows %d: it is older than the journal", h.epoch, sb.Boot)}
		}
		if h.epoch == sb.Boot {
			known = max(known, h.durable) // an earlier opening's are all up to endBatch
			if h.counted && (!p.counted || h.roundDone >= p.countedTo) {
				p.counted, p.countedTo, p.sum = true, h.roundDone, h.pages
			}
		}
		s.round.done = max(s.round.done, h.roundDone)
		p.soft = p.soft || h.soft
		if h.epoch == sb.Boot && h.seq > newest.seq {
			newest = h
		}
	}
	p.newest, p.known = &newest, known
	return newest, known, nil
}

// reset is what a look ahead in the journal found of one object.
type reset struct {
	last    uint64 // sequence of the last entry before which nothing matters; 0 when there is none
	nothing bool   // that entry leaves nothing of the object
	chained bool   // it has entries that wait for a commit, or belong to a chain
}

// scanResets looks ahead for the entries of each object before which nothing matters.
//
// An object whose page shows that it is gone, because a later entry of the journal removed it and that page is durable already, has lost its slot, perhaps to another object. Its entries up
// to that one must not ask for a slot again: there may be none.
func (p *opening) scanResets(pos, seq uint64) {
	p.walk(pos, seq, p.noteResets)
}

// walk calls f for each batch that follows one another from the given one on, up to the first that does not; where the end is, and whether that is damage, replay itself judges. An error of f
// ends it.
func (p *opening) walk(pos, seq uint64, f func(*batchInfo) error) {
	s := p.s
	virtual := s.j.size + pos
	var last batchInfo
	for {
		h, err := p.nextBatch(pos, seq, &last)
		if err != nil && pos != 0 && last.seq != 0 {
			if h2, err2 := p.nextBatch(0, seq, &last); err2 == nil {
				virtual += s.j.size - virtual%s.j.size
				h, err = h2, nil
			}
		}
		if err != nil || f(&h) != nil {
			return
		}
		last = h
		virtual += uint64(h.size())
		pos, seq = virtual%s.j.size, seq+1
	}
}

// noteResets is scanResets for one batch.
func (p *opening) noteResets(h *batchInfo) error {
	s := p.s
	return h.entries(s.j.mem[h.pos:h.pos+uint64(h.size())], &s.sb, func(e *entry, _ uint32) error {
		switch e.kind {
		case entryPair, entrySessionEnd, entryPG, entryPGDrop, entryPages:
			return nil
		}
		r := p.resets[e.object]
		c := change{kind: e.kind, flags: e.flags, block: e.block, length: e.length}
		if c.resets(s.sb.Config.BlockSize) {
			r.last = e.seq
			r.nothing = e.kind == entryForget || e.kind == entryReplace && e.version == 0
		}
		if e.flags&(entryUnstable|entryChainStart|entryCarried) != 0 || e.kind == entryCommit || e.kind == entryRollback {
			r.chained = true
		}
		p.resets[e.object] = r
		return nil
	})
}

// nextBatch is the batch at pos, if it is the one that must follow.
func (p *opening) nextBatch(pos, seq uint64, last *batchInfo) (batchInfo, error) {
	s := p.s
	h, err := decodeBatch(s.j.mem[pos:], &s.sb, pos)
	switch {
	case p.softEnd != 0 && seq >= p.softEnd:
		return h, fmt.Errorf("data of batch %d, which was never durable, is not there", p.softEnd)
	case err != nil:
		return h, err
	case h.seq != seq:
		return h, fmt.Errorf("batch %d is in its place", h.seq)
	case last.seq != 0 && (h.prevCRC != last.crc || h.first != last.first+uint64(last.count)):
		return h, fmt.Errorf("the batch there does not follow batch %d", last.seq)
	case (h.epoch == s.sb.Boot) != (seq > s.sb.endBatch):
		return h, fmt.Errorf("the batch there is a left-over of opening %d", h.epoch)
	}
	if planted.TornTail {
		return h, nil
	}
	return h, h.checkData(s.j.mem[pos : pos+uint64(h.size())])
}

// apply takes one entry; pos is its batch's place, at the entry's within the batch.
func (p *opening) apply(e *entry, pos, at, bi uint32) error {
	s := p.s
	switch e.kind {
	case entryPair:
		s.pairs.add(s, e.object, e.pair, 0, e.version, bi)
		return nil
	case entrySessionEnd:
		s.pairs.end(s, e.pair.Session)
		return nil
	case entryPG:
		s.pgs.remove(s, e.pg.PG)
		s.pgs.m[e.pg.PG] = &pgState{rec: e.pg, batch: bi, held: true}
		s.pgs.bytes += e.pg.bytes()
		s.j.batches[bi].refs++
		return nil
	case entryPGDrop:
		s.pgs.remove(s, e.pg.PG)
		return nil
	case entryPages:
		s.round.last = max(s.round.last, e.round)
		for b := e.pages; len(b) > 0; b = b[8:] {
			page := le.Uint32(b)
			if int(page) >= s.sb.pages() {
				return fmt.Errorf("page %d of %d is announced", page, s.sb.pages())
			}
			p.live[page] = announced{gen: le.Uint32(b[4:]), round: e.round, batch: bi, now: s.j.seq > s.sb.endBatch}
		}
		return nil
	}
	p.applyPairs(e, bi)
	_, slot, d, ok := s.lookup(e.object)
	if ok && slotView(s.t.slot(slot)).used() && s.t.seqs[slot] >= e.seq {
		return nil // folded before
	}
	if !ok && (e.kind == entryCommit || e.kind == entryRollback) {
		return nil
	}
	if r := p.resets[e.object]; !ok && !r.chained && (e.seq < r.last || e.seq == r.last && r.nothing) {
		return nil // gone, and what is left of it afterwards does not depend on this
	}
	if e.flags&entryChainStart != 0 && d != 0 {
		s.dropChain(d, e.low)
		_, _, _, ok = s.lookup(e.object)
	}
	if !ok && s.t.slotFree.free == 0 {
		return fmt.Errorf("there is no slot left for object %v", e.object)
	}
	d = s.makeDirty(e.object)
	o := &s.dirty[d]
	if e.kind != entryCommit && e.kind != entryRollback && uint64(o.visible.Version) != e.base && !o.ghost {
		// Either the object is not there because a later entry removes it and the page without it is durable already, or the beginning of its chain is beyond the tail
		// because the chain was carried forward. That later entry must come.
		o.ghost = true
		if p.ghosts != nil {
			p.ghosts[d] = e.seq
		}
	}
	i := s.newChange()
	c := change{dirty: d, kind: e.kind, flags: e.flags &^ (entryChainStart | entryCarried), stateFlags: e.stateFlags, version: e.version, interval: e.interval, seq: e.seq, entry: pos + at,
		off: e.off, length: e.length, block: e.block, batch: bi, state: changeLogged}
	if e.data != 0 {
		c.data = pos + e.data
	}
	s.changes[i] = c
	s.j.batches[bi].refs++
	if c.flags&entryUnstable != 0 {
		s.changes[i].state, s.changes[i].since = changeVisible, s.since()
		s.unstable += s.weight(&s.changes[i])
	}
	o = &s.dirty[d]
	if o.last == 0 {
		o.first = i
	} else {
		s.changes[o.last].next = i
	}
	o.last = i
	o.submitted++
	if c.resets(s.sb.Config.BlockSize) {
		o.ghost = false
	}
	s.show(i)
	s.dirty[d].newest = s.dirty[d].visible
	s.clean(d)
	return nil
}

func (p *opening) applyPairs(e *entry, bi uint32) {
	s := p.s
	if e.flags&entryCarried != 0 {
		return
	}
	switch e.kind {
	case entryWrite, entryZero, entryDelete:
		if e.pair.Session != 0 {
			s.pairs.add(s, e.object, e.pair, e.low, e.version, bi)
		}
	case entryReplace:
		s.pairs.dropAll(s, e.object)
		for b := e.pairs; len(b) > 0; b = b[pairBytes:] {
			if session := le.Uint64(b); session != 0 {
				s.pairs.add(s, e.object, Pair{session, le.Uint64(b[8:])}, 0, le.Uint64(b[16:]), bi)
			}
		}
	case entryRollback:
		s.pairs.dropAbove(s, e.object, e.version)
	}
}

// dropChain forgets an object's unfolded changes from the given sequence on.
func (s *Store) dropChain(d uint32, from uint64) {
	o := &s.dirty[d]
	o.visible = slotView(s.t.slot(o.slot)).state()
	o.lastVisible, o.payloads = 0, 0
	for i := o.first; i != 0; {
		c := &s.changes[i]
		next := c.next
		if c.seq >= from {
			s.settleUnstable(c)
			s.unlink(d, i)
		} else {
			o.visible, o.lastVisible = stateAfter(o.visible, c), i
			if c.data != 0 {
				o.payloads++
			}
		}
		i = next
	}
	if o.first == 0 {
		o.ghost = false
	}
	s.clean(d)
}
