package store

import (
	"slices"

	"holdfast/core/loop"
	"holdfast/core/planted"
)

// round writes a set of metadata pages:
//
//  1. the pages are copied as they are now; the journal announces them, and the data they speak of is flushed;
//  2. each goes to the older of its two copies;
//  3. a flush; then the journal no longer needs the changes that are in them.
//
// The announcement tells a later Open which pages may have a torn copy; any other bad copy is damage.
type round struct {
	active  bool
	done    uint64 // rounds up to this number are durable
	pages   []uint32
	chains  []uint32 // changes to release, per page
	buf     []byte
	waits   int
	io      int    // device requests under way
	last    uint64 // the last number given to a round
	sum     uint32 // of the generations of all pages, as of the rounds that are durable,
	next    uint32 // and with the present one
	batch   uint32
	flushOp loop.DiskOp
	writes  []*loop.DiskOp
}

// dirtyPage notes that a page must be written; seq is the newest entry in it.
func (s *Store) dirtyPage(page uint32, seq uint64) {
	t := s.t
	t.pageMax[page] = max(t.pageMax[page], seq)
	if t.pageDirty[page] {
		return
	}
	t.pageDirty[page] = true
	t.pageNext[page] = 0
	if t.dirtyTail != 0 {
		t.pageNext[t.dirtyTail-1] = page + 1
	} else {
		t.dirtyHead = page + 1
	}
	t.dirtyTail = page + 1
	t.dirtyLen++
}

func (t *table) popDirtyPage() uint32 {
	page := t.dirtyHead - 1
	if t.dirtyHead = t.pageNext[page]; t.dirtyHead == 0 {
		t.dirtyTail = 0
	}
	t.pageDirty[page] = false
	t.dirtyLen--
	return page
}

// foldedTo is a sequence that the object's folded entries do not exceed, and its others do.
func (s *Store) foldedTo(v slotView, page uint32) uint64 {
	seq := s.t.pageMax[page]
	if v.dirty() && !planted.FoldedTooFar {
		if _, _, d, _ := s.lookup(v.object()); s.dirty[d].first != 0 {
			if next := s.changes[s.dirty[d].first].seq; next != 0 {
				seq = min(seq, next-1)
			}
		}
	}
	return seq
}

// encodePageTo puts a page's slots and header into b.
func (s *Store) encodePageTo(b []byte, page uint32) {
	t := s.t
	clear(b)
	for i := range t.perPage {
		if v := slotView(t.slot(page*t.perPage + i)); v.used() {
			encodeSlot(b[pageHeader+int(i)*t.diskSize:][:t.diskSize], v, s.foldedTo(v, page))
		}
	}
	encodePage(b, &s.sb, page, pageInfo{gen: t.pageGen[page], maxSeq: t.pageMax[page]})
}

func (s *Store) startRound() {
	r, t := &s.round, s.t
	size := int(s.sb.PageSize)
	most := max(1, min(s.o.roundPages, 4<<20/size))
	if r.buf == nil {
		r.buf = t.alloc(most * size)
		r.flushOp.Done = func(*loop.DiskOp) { s.roundFlushed() }
	}
	r.active = true
	r.pages, r.chains = r.pages[:0], r.chains[:0]
	for len(r.pages) < most && t.dirtyLen > 0 {
		r.pages = append(r.pages, t.popDirtyPage())
	}
	slices.Sort(r.pages)
	announce := make([]byte, 32+8*len(r.pages))
	startEntry(announce, len(announce), entryPages, 0, 0, len(r.pages))
	r.last++
	r.next = r.sum
	le.PutUint64(announce[24:], r.last)
	for i, page := range r.pages {
		r.chains = append(r.chains, t.pageFirst[page])
		t.pageFirst[page] = 0
		r.next -= t.pageGen[page]
		if t.pageGen[page]++; t.pageGen[page] == 0 {
			t.pageGen[page] = 2 // wrapped: keep 0 for a page that was never written, and the parity
		}
		r.next += t.pageGen[page]
		s.encodePageTo(r.buf[i*size:(i+1)*size], page)
		le.PutUint32(announce[32+8*i:], page)
		le.PutUint32(announce[36+8*i:], t.pageGen[page])
	}
	r.waits = 2
	s.j.announce(record{data: announce, done: func(batch uint32) {
		r.batch = batch
		s.roundStep()
	}})
	s.flushDevice()
}

// flushDevice makes what was written durable; roundFlushed is called later in any case.
func (s *Store) flushDevice() {
	op := &s.round.flushOp
	op.Kind = loop.DiskFlush
	s.round.io++
	if s.info.WriteThrough {
		op.Err = nil
		s.l.Defer(&s.fl.skip)
		return
	}
	s.flushes++
	s.d.Submit(op)
}

func (s *Store) roundFlushed() {
	s.round.io--
	if s.round.flushOp.Err != nil && planted.FlushTriedAgain {
		s.flushDevice()
		return
	}
	if s.round.flushOp.Err != nil {
		s.deviceFailed("", &s.round.flushOp)
	}
	s.roundStep()
}

// roundStep goes on when everything the present step waits for has happened. The steps are told apart by whether pages have been sent.
func (s *Store) roundStep() {
	r := &s.round
	if r.waits--; r.waits > 0 {
		return
	}
	if s.failure != nil {
		r.active = false
		s.closeStep()
		return
	}
	switch {
	case len(r.pages) > 0:
		s.writePages()
	case r.batch != noBlock:
		b := r.batch
		r.batch = noBlock // the last step: the pages are durable
		for _, i := range r.chains {
			for i != 0 {
				next := s.changes[i].next
				s.j.release(s.changes[i].batch)
				s.freeChange(i)
				i = next
			}
		}
		s.j.release(b)
		r.done, r.sum = r.last, r.next
		r.active = false
		s.l.Defer(&s.j.task)
		s.closeStep()
	}
}

// writePages sends the round's pages, neighbours together.
func (s *Store) writePages() {
	r := &s.round
	size := int(s.sb.PageSize)
	n := 0
	for i := 0; i < len(r.pages); {
		page := r.pages[i]
		copyNum := int(s.t.pageGen[page] & 1)
		k := i + 1
		for k < len(r.pages) && r.pages[k] == page+uint32(k-i) && int(s.t.pageGen[r.pages[k]]&1) == copyNum {
			k++
		}
		if n == len(r.writes) {
			op := &loop.DiskOp{}
			op.Done = func(*loop.DiskOp) {
				s.round.io--
				if op.Err != nil {
					s.deviceFailed("metadata", op)
				}
				if s.round.waits == 1 && s.failure == nil && !planted.PagesUnflushed {
					s.round.waits++
					s.flushDevice()
				}
				s.roundStep()
			}
			r.writes = append(r.writes, op)
		}
		op := r.writes[n]
		op.Kind, op.Off, op.Data = loop.DiskWrite, s.sb.pageAt(page, copyNum), r.buf[i*size:k*size]
		n++
		i = k
	}
	r.waits = n
	r.pages = r.pages[:0]
	for _, op := range r.writes[:n] {
		r.io++
		s.sendWrite(op)
	}
}
