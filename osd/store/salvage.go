package store

import (
	"cmp"
	"fmt"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/loop"
)

// A salvage is an opening that goes past damage: it takes what of the store is whole, and notes what is not. Nothing that is read is trusted further than elsewhere; what is uncertain is left
// out. It happens only when an operator asks what damage there is (Examine), or has accepted it and wants the rest kept (Accept).

// Finding is one thing that is damaged.
type Finding struct {
	Area   string `json:"area"` // "superblock", "journal", "metadata", "object"
	Offset int64  `json:"offset"`
	What   string `json:"what"`
}

// Gap is a range of the journal that was durable and is not there.
type Gap struct {
	Offset  int64  `json:"offset"` // on the device
	Length  int64  `json:"length"`
	First   uint64 `json:"first_batch"`
	Last    uint64 `json:"last_batch"`
	Entry   uint64 `json:"first_entry"`       // the first entry that is missing; 0: not known
	Entries uint64 `json:"entries,omitempty"` // entries that are missing; 0: not known
	After   uint64 `json:"entries_after"`     // entries that are there behind it
	Opening uint64 `json:"opening"`           // of the store, in which what is missing was written; 0: not known
}

// salvageJump is how far entry numbers go on behind everything that is known: those of lost entries are not used again, and the cluster does not take the store for one that was set back.
const salvageJump = 1 << 32

// maxFindings bounds the list; the rest is counted.
const maxFindings = 1000

// tolerate notes damage when this is a salvage; otherwise it returns it.
func (p *opening) tolerate(err error) error {
	e, is := err.(*DamagedError)
	if !is || !p.o.salvage {
		return err
	}
	p.note(e.Area, e.Offset, e.What)
	return nil
}

func (p *opening) note(area string, off int64, what string) {
	if p.findings++; len(p.found) < maxFindings {
		p.found = append(p.found, Finding{area, off, what})
	}
}

// readLoose reads [off, off+len(b)) of an area in units of 4096, clearing those that cannot be read.
func (p *opening) readLoose(area string, off int64, b []byte, then func()) {
	at := 0
	var step func()
	step = func() {
		if at == len(b) {
			then()
			return
		}
		unit := p.x.ref.Bytes()[:min(journalAlign, len(b)-at)]
		p.x.run(loop.DiskRead, off+int64(at), unit, func(err error) {
			if err != nil {
				p.note(area, offsetOf(off)+int64(at), err.Error())
				clear(unit)
			}
			at += copy(b[at:], unit)
			step()
		})
	}
	step()
}

// whole is a batch of which everything is good.
type whole struct {
	batchInfo
	virtual uint64
}

// collect finds the batches that count, in order: those from the tail on that fit together. Of what was never known to be durable only an unbroken continuation counts.
func (p *opening) collect(newest batchInfo, known uint64) []whole {
	s := p.s
	j, sb := &s.j, &s.sb
	var all []whole
	for pos := uint64(0); pos < j.size; pos += journalAlign {
		h, err := decodeBatch(j.mem[pos:], sb, pos)
		if err != nil || h.seq < newest.tailSeq || p.softEnd != 0 && h.seq >= p.softEnd || (h.epoch == sb.Boot) != (h.seq > sb.endBatch) {
			continue
		}
		b := j.mem[pos : pos+uint64(h.size())]
		if h.checkData(b) != nil || h.entries(b, sb, func(*entry, uint32) error { return nil }) != nil {
			p.broken[h.seq] = h
			continue
		}
		virtual := j.size + pos
		if pos < newest.tailPos {
			virtual += j.size
		}
		all = append(all, whole{h, virtual})
	}
	slices.SortFunc(all, func(a, b whole) int {
		return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.virtual, b.virtual))
	})
	// From the newest backwards: what contradicts a newer one is a left-over.
	var out []whole
	for i := len(all) - 1; i >= 0; i-- {
		if b := all[i]; len(out) == 0 || p.precedes(b, out[len(out)-1]) {
			out = append(out, b)
		}
	}
	slices.Reverse(out)
	last := known
	return slices.DeleteFunc(out, func(b whole) bool {
		if b.seq > known && b.seq != last+1 {
			return true
		}
		last = max(last, b.seq)
		return false
	})
}

func (p *opening) precedes(b, next whole) bool {
	first := b.first + uint64(b.count)
	if b.seq == p.s.sb.endBatch {
		first = p.s.sb.endEntry + 1 // an earlier salvage may have gone on with higher numbers
	}
	return b.seq < next.seq && b.epoch <= next.epoch && b.virtual+uint64(b.size()) <= next.virtual && first <= next.first &&
		(b.seq+1 != next.seq || next.prevCRC == b.crc && next.first == first)
}

// salvageJournal replays what there is of the journal.
func (p *opening) salvageJournal(newest batchInfo, known uint64) {
	s := p.s
	j, sb := &s.j, &s.sb
	p.broken = map[uint64]batchInfo{}
	p.ghosts = map[uint32]uint64{}
	batches := p.collect(newest, known)
	for i := range batches {
		b := &batches[i]
		if p.noteResets(&b.batchInfo) != nil {
			panic("store: a batch that was good is not")
		}
	}
	end := j.size + newest.tailPos
	seq, follows := newest.tailSeq, uint64(0) // the batch and the entry that must come next; 0: not known
	gap := func(to uint64, upTo uint64, after *whole) {
		g := Gap{Offset: sb.Journal.Off + int64(end%j.size), First: seq, Last: to, Entry: follows}
		g.Length = int64(upTo - end)
		if after != nil {
			g.Opening = after.epoch
			if follows != 0 {
				g.Entries = after.first - follows
			}
		}
		for n := seq; n <= to; n++ {
			if h, ok := p.broken[n]; ok {
				g.Opening = h.epoch
				j.entry = max(j.entry, h.first+uint64(h.count)-1)
				if first := h.first; follows == 0 && n == seq {
					g.Entry = first
				}
				if after == nil && n == seq && to == seq {
					g.Entries = uint64(h.count)
				}
			}
			j.batches[n%uint64(len(j.batches))] = batch{pos: end}
		}
		p.gaps = append(p.gaps, g)
		p.note("journal", g.Offset, fmt.Sprintf("batches %d to %d were durable and are not there", g.First, g.Last))
	}
	j.oldest = newest.tailSeq
	for i := range batches {
		b := &batches[i]
		if b.seq != seq {
			gap(b.seq-1, b.virtual, b)
		}
		bi := uint32(b.seq % uint64(len(j.batches)))
		j.batches[bi] = batch{pos: b.virtual}
		j.seq, j.durable, j.settled = b.seq, b.seq, b.seq
		mem := j.mem[b.pos : b.pos+uint64(b.size())]
		_ = b.entries(mem, sb, func(e *entry, at uint32) error {
			j.entry = max(j.entry, e.seq)
			if err := p.apply(e, uint32(b.pos), at, bi); err != nil {
				p.note("journal", sb.Journal.Off+int64(b.pos), fmt.Sprintf("entry %d: %v; it is left out", e.seq, err))
			}
			return nil
		})
		j.crc = b.crc
		end, seq, follows = b.virtual+uint64(b.size()), b.seq+1, b.first+uint64(b.count)
		for g := range p.gaps {
			p.gaps[g].After += uint64(b.count)
		}
	}
	if seq <= known {
		upTo := end
		for n := seq; n <= known; n++ {
			if h, ok := p.broken[n]; ok {
				v := j.size + h.pos
				if h.pos < newest.tailPos {
					v += j.size
				}
				upTo = max(upTo, v+uint64(h.size()))
			}
		}
		gap(known, max(upTo, end+journalAlign), nil)
		j.seq = known
	}
	j.seq = max(j.seq, known)
	j.head = end
	j.entry = max(j.entry, p.max, sb.endEntry)
	if !p.o.ReadOnly {
		j.entry += salvageJump
	}
	j.durable, j.durableEntry, j.settled = j.seq, j.entry, j.seq
	j.freeFrom, j.tailKnown = j.size+newest.tailPos, newest.tailSeq
	s.round.last = max(s.round.last, s.round.done)
	for d := range s.dirty {
		if o := &s.dirty[d]; o.ghost {
			oid := s.t.object(o.slot)
			p.note("object", sb.pageOff(s.t.page(o.slot), 0), fmt.Sprintf("object %v: its changes from entry %d on are for a version that is not there; they are left out", oid, p.ghosts[uint32(d)]))
			p.older++
			o.ghost = false
			s.dropChain(uint32(d), p.ghosts[uint32(d)])
		}
	}
}

// salvageBlocks finds out which blocks are in use; of two objects that claim one block the one that was changed later keeps it.
func (p *opening) salvageBlocks() error {
	s := p.s
	for {
		owner := map[uint32]layout.ObjectID{}
		var loser *layout.ObjectID
		err := s.takeBlocks(func(block uint32, oid layout.ObjectID) error {
			other, taken := owner[block]
			if !taken {
				owner[block] = oid
				return nil
			}
			out := oid
			if s.lastEntry(other) < s.lastEntry(oid) {
				out = other
			}
			loser = &out
			p.note("object", s.sb.blockOff(block), fmt.Sprintf("block %d belongs to object %v and to object %v; object %v is left out", block, other, oid, out))
			return errTwoOwners
		})
		if loser == nil {
			return err
		}
		p.lost++
		s.dropObject(*loser)
	}
}

var errTwoOwners = fmt.Errorf("a block has two owners")

// lastEntry is the sequence of an object's newest change.
func (s *Store) lastEntry(oid layout.ObjectID) uint64 {
	_, slot, d, ok := s.lookup(oid)
	switch {
	case !ok:
		return 0
	case d != 0 && s.dirty[d].last != 0:
		return s.changes[s.dirty[d].last].seq
	}
	return s.t.seqs[slot]
}

// dropObject forgets an object as if it had never been.
func (s *Store) dropObject(oid layout.ObjectID) {
	if _, _, d, ok := s.lookup(oid); ok && d != 0 {
		s.dirty[d].ghost = false
		s.dropChain(d, 0)
	}
	if at, slot, d, ok := s.lookup(oid); ok && d == 0 {
		s.t.remove(at, s.objectOfIndex)
		s.listRemove(slot, oid)
		s.forgetSlot(slot)
		s.dirtyPage(s.t.page(slot), 0)
	}
}

// clearWrecks empties the pages of which neither copy is good, so that their copies go with each other again.
func (p *opening) clearWrecks(then func(error)) {
	s := p.s
	if len(p.wrecks) == 0 {
		then(nil)
		return
	}
	page := p.wrecks[0]
	p.wrecks = p.wrecks[1:]
	p.x.zero(s.sb.pageAt(page, 0), int64(s.sb.PageSize), func(err error) {
		if err != nil {
			then(err)
			return
		}
		p.x.zero(s.sb.pageAt(page, 1), int64(s.sb.PageSize), func(err error) {
			if err != nil {
				then(err)
				return
			}
			p.clearWrecks(then)
		})
	})
}
