package store

import (
	"cmp"
	"slices"
)

// Changes that wait for a commit cannot be folded, and would hold the journal's tail for as long as they wait. When the tail comes near, the whole chain of such an object is
// written again, in one batch, marked so that a replay forgets what it has read of the object's chain before.

// carried is one change on its way to a new place in the journal.
type carried struct {
	change      uint32
	entry, data uint32
	seq         uint64
	moved       bool // its data was, to block, or with the part before if that is noBlock
	block       uint32
	off, length uint32
}

// unstableLimit is how much of the journal such changes may take; more are refused.
func (s *Store) unstableLimit() int { return int(s.j.size / 8) }

// chainLimit is how much those of one object may take: they must fit into one batch within the room that is kept back.
func (s *Store) chainLimit() int { return int(s.j.size*3/32) - 2*journalAlign }

// maxChain is how many versions of one object may wait: reads walk them, and one page of a listing has them all.
const maxChain = 512

// weight is what a change that waits for a commit takes in the journal.
func (s *Store) weight(c *change) int {
	n := objectEntry + s.sb.Config.BitmapLen() + 8
	if c.kind == entryWrite {
		n += 4 * int(c.length/s.sb.Config.Granularity) * s.sb.Config.sumsPerUnit()
	}
	if c.data != 0 || c.state != changeVisible && s.opJournaled(c) {
		n += int(c.length)
	}
	return n
}

func (s *Store) opJournaled(c *change) bool { return c.kind == entryWrite && c.flags&inJournal != 0 }

// roomForUnstable reports whether one more unstable change of an object can be taken. One alone always can: the room that is kept back for carrying it grows with it.
func (s *Store) roomForUnstable(d uint32, c *change) bool {
	chain, waiting, n := 0, 0, s.weight(c)
	if d != 0 {
		for i := s.dirty[d].first; i != 0; i = s.changes[i].next {
			if x := &s.changes[i]; x.flags&entryUnstable != 0 { // what is stable is flushed, and not carried
				chain += s.weight(x)
				waiting++
			}
		}
	}
	return s.live() == 0 && s.unstable+n <= max(n, s.unstableLimit()) || waiting < maxChain && chain+n <= s.chainLimit() && s.unstable+n <= s.unstableLimit()
}

// carryChains queues the chains whose oldest change is in a batch up to the given one.
func (s *Store) carryChains(upTo uint64) {
	if len(s.j.chains) > 0 {
		return
	}
	for d := range s.dirty {
		o := &s.dirty[d]
		if o.first != 0 && s.changes[o.first].state == changeVisible && s.j.seqOf(s.changes[o.first].batch) <= upTo && s.mayCarry(uint32(d)) {
			s.j.chains = append(s.j.chains, uint32(d))
		}
	}
	slices.SortStableFunc(s.j.chains, func(a, b uint32) int {
		return cmp.Compare(s.j.seqOf(s.changes[s.dirty[a].first].batch), s.j.seqOf(s.changes[s.dirty[b].first].batch))
	})
	if len(s.j.chains) > 0 {
		s.l.Defer(&s.j.task)
	}
}

// mayCarry reports whether an object's chain can go into the next batch: nothing of it is under way anywhere, and it cannot be folded.
func (s *Store) mayCarry(d uint32) bool {
	o := &s.dirty[d]
	if o.first == 0 || o.flushing != 0 || o.carrying || s.changes[o.first].state != changeVisible || s.cut(o) != 0 {
		return false
	}
	for i := o.first; i != 0; i = s.changes[i].next {
		if st := s.changes[i].state; st == changeLogged || st == changeSoft {
			return false
		}
	}
	return true
}

// chainSize is what an object's visible changes take in a batch.
func (s *Store) chainSize(d uint32) (header, data int) {
	for i := s.dirty[d].first; i != 0 && s.changes[i].state == changeVisible; i = s.changes[i].next {
		c := &s.changes[i]
		if x := s.moved(i); x != nil {
			header += s.movedSize(x)
			continue
		}
		header += int(le.Uint32(s.j.mem[c.entry:]))
		if c.data != 0 {
			data += int(c.length)
		}
	}
	return header, data
}

// putChain copies an object's visible changes into a batch being built at mem, which is at pos in the ring.
func (j *journal) putChain(f *flight, d uint32, mem []byte, at, dataAt int, pos uint32) (int, int, int) {
	s := j.s
	o := &s.dirty[d]
	o.carrying = true
	first := len(f.carried)
	for i := o.first; i != 0 && s.changes[i].state == changeVisible; i = s.changes[i].next {
		c := &s.changes[i]
		n := len(f.carried)
		old := j.mem[c.entry:]
		old = old[:le.Uint32(old)]
		if x := s.moved(i); x != nil {
			at = j.putMoved(f, i, x, old, mem, at, pos)
		} else {
			b := mem[at : at+len(old)]
			copy(b, old)
			m := carried{change: i, entry: pos + uint32(at)}
			if c.data != 0 {
				copy(mem[dataAt:], j.mem[c.data:c.data+c.length])
				le.PutUint32(b[96:], uint32(dataAt))
				m.data = pos + uint32(dataAt)
				dataAt += int(c.length)
			}
			f.carried = append(f.carried, m)
			at += len(old)
		}
		for ; n < len(f.carried); n++ {
			m := &f.carried[n]
			b := mem[m.entry-pos:]
			j.entry++
			m.seq = j.entry
			le.PutUint64(b[8:], j.entry)
			flags := c.flags&^(doomed|inJournal|moving) | entryCarried
			if n == first {
				flags |= entryChainStart
			}
			b[17] = flags
			clear(b[64:88]) // its pair is carried by itself
			le.PutUint64(b[80:], c.seq)
			sealEntry(b, int(le.Uint32(b)))
		}
	}
	f.chains = append(f.chains, d)
	return at, dataAt, len(f.carried) - first
}

// carriedOver takes a batch's carried changes to their new places.
func (j *journal) carriedOver(f *flight, batch uint32) {
	s := j.s
	last := uint32(0)
	for k := range f.carried {
		m := &f.carried[k]
		if m.moved && m.block == noBlock {
			last = s.addPart(last, m)
		} else {
			last = m.change
			j.release(s.changes[last].batch)
			if m.moved {
				s.movedOver(last, m)
			}
		}
		c := &s.changes[last]
		c.entry, c.data, c.seq, c.batch = m.entry, m.data, m.seq, batch
	}
	for _, d := range f.chains {
		s.dirty[d].carrying = false
		s.foldNow(d)
		s.fifo.push(s, d)
	}
	f.carried, f.chains = f.carried[:0], f.chains[:0]
}
