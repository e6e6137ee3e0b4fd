package store

import (
	"errors"
	"fmt"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/planted"
)

// Open reads a formatted disk and calls done with the store, ready for use. The disk stays the caller's, to be closed after the store.
func Open(l loop.Loop, d loop.Disk, o Options, done func(*Store, error)) {
	open(l, d, o, nil, done)
}

// open is Open; loaded (which may be nil) is called when everything has been read.
func open(l loop.Loop, d loop.Disk, o Options, loaded func(*opening), done func(*Store, error)) {
	if o.Log == nil {
		o.Log = l.Log()
	}
	if o.SmallWrite == 0 {
		o.SmallWrite = 16 << 10
	}
	if o.FlushDepth <= 0 {
		o.FlushDepth = 32
	}
	if o.ParkAfter == 0 {
		o.ParkAfter = parkAfter
	}
	if o.roundPages == 0 {
		o.roundPages = roundPages
	}
	if o.secondBatch == 0 {
		o.secondBatch = secondBatch
	}
	x := newDeviceIO(l, d)
	x.readSuper(func(st superState, _ error) {
		if !st.ok {
			x.release()
			done(nil, fmt.Errorf("open store: %w", st.failure()))
			return
		}
		if !st.sb.Owner.admits(o.Owner) && !planted.OwnerIgnored {
			x.release()
			done(nil, fmt.Errorf("open store: %w", &OwnerError{Store: st.sb.StoreID, Has: st.sb.Owner, Want: o.Owner}))
			return
		}
		if st.sb.accept != acceptNone && !o.salvage {
			x.release()
			carryOut(l, d, st, o, loaded, done)
			return
		}
		op := &opening{x: x, st: st, o: o, loaded: loaded, done: done}
		op.s = newStore(l, d, o, st.sb)
		op.start()
	})
}

func newStore(l loop.Loop, d loop.Disk, o Options, sb Superblock) *Store {
	s := &Store{l: l, d: d, o: o, log: o.Log, sb: sb, info: d.Info(), changes: make([]change, 1), ops: make([]*Op, 1), dirty: make([]dirtyObject, 1),
		lists: map[layout.PoolID]*poolLists{}, space: map[layout.Inode]*int64{}}
	s.finish.Run = s.runFinished
	s.fl.skip.Run = s.roundFlushed
	s.idle.Fire = s.idleStep
	s.throttle.Throttle = o.Throttle
	s.throttle.timer.Fire = func() { s.releaseHeld(false) }
	s.pgs.m = map[layout.PGID]*pgState{}
	s.round.batch = noBlock
	s.view.init(&sb.Config)
	s.foldView.init(&sb.Config)
	s.keepBlocks = max(2, min(sb.Blocks/64, 256))
	s.keepSlots = s.keepBlocks + 8
	return s
}

// opening is an Open under way.
type opening struct {
	s      *Store
	x      *deviceIO
	st     superState
	o      Options
	done   func(*Store, error)
	loaded func(*opening)
	bad    []badPage
	resets map[layout.ObjectID]reset
	live   map[uint32]announced // what the journal says of pages
	max    uint64               // highest entry sequence in any page
	newest *batchInfo           // found by newestBatch,
	known  uint64               // with it
	// What the last opening counted of the pages: the sum of their generations, as of a round.
	counted   bool
	countedTo uint64
	sum       uint32
	soft      bool // batches that were not written through are there
	// softEnd is the first batch of which data was lost that nobody was told is durable; 0: none. The journal ends before it.
	softEnd uint64

	// Of a salvage.
	found    []Finding
	findings int // with those beyond found
	gaps     []Gap
	broken   map[uint64]batchInfo // batches of which only the header is good
	ghosts   map[uint32]uint64    // dirty objects that are changed from a version that is not there: from which entry on
	wrecks   []uint32             // pages of which neither copy is good
	older    uint64
	lost     uint64
}

// badPage is a page of which one copy is not good.
type badPage struct {
	page uint32
	off  int64
	err  error
}

// announced is the newest announcement of a page.
type announced struct {
	gen   uint32
	round uint64
	batch uint32
	now   bool // by the last opening
}

func (p *opening) finish(err error) {
	s := p.s
	if damage, is := errors.AsType[*DamagedError](err); is && p.o.AcceptDamage && !p.o.ReadOnly {
		s.log.Warn("damage accepted: the store starts again empty under a new id", "store", s.sb.StoreID.String(), "err", damage)
		l, d, o, done := s.l, s.d, p.o, p.done
		o.AcceptDamage = false
		s.t.free()
		p.x.release()
		acceptAs(l, d, acceptEmpty, func(err error) {
			if err != nil {
				done(nil, err)
				return
			}
			Open(l, d, o, done)
		})
		return
	}
	p.x.release()
	if err != nil {
		if s.t != nil {
			s.t.free()
		}
		p.done(nil, fmt.Errorf("open store %v: %w", s.sb.StoreID, err))
		return
	}
	s.t.opened()
	s.startDiscard()
	p.done(s, nil)
}

func (p *opening) start() {
	s := p.s
	for i, err := range p.st.errs {
		if err != nil {
			s.log.Warn("a copy of the superblock is not good; the other one is used", "copy", i, "err", err)
		}
	}
	if err := s.fits(); err != nil {
		p.x.release()
		p.done(nil, fmt.Errorf("open store %v: %w", s.sb.StoreID, err))
		return
	}
	if s.sb.Config.Identity != s.info.Identity && s.info.Identity != "" {
		s.log.Warn("the store was formatted on another device; was the disk copied?", "formatted", s.sb.Config.Identity, "device", s.info.Identity)
	}
	s.t = newTable(s.l, &s.sb)
	s.j.init(s)
	p.loadPages(0)
}

// fits checks that the devices can hold the store.
func (s *Store) fits() error {
	parts, _, _ := partsOf(s.d)
	for i, p := range parts {
		if need := s.sb.end(uint32(i)); need > p.info.Size {
			return fmt.Errorf("the device %s has %d bytes, the store needs %d: it was cut off or is not the whole device", p.Name, p.info.Size, need)
		}
	}
	if int(s.sb.Sector) < s.info.SectorSize && int(s.sb.Config.Granularity) < s.info.SectorSize {
		return fmt.Errorf("the device has sectors of %d bytes, the store was made for %d, with a bitmap_granularity of %d: put it on a device with such sectors, or make a new one with a larger bitmap_granularity",
			s.info.SectorSize, s.sb.Sector, s.sb.Config.Granularity)
	}
	return nil
}

// loadPages reads both copies of the pages from the given one on, some at a time.
func (p *opening) loadPages(from uint32) {
	s := p.s
	size := int(s.sb.PageSize)
	n := min(s.sb.pages()-int(from), max(1, ioChunk/2/size))
	if n == 0 {
		p.loadJournal()
		return
	}
	if p.o.salvage {
		n = 1
	}
	b := p.x.ref.Bytes()
	if 2*n*size > len(b) {
		// Pages of a megabyte or more: a buffer of their own.
		b = s.t.alloc(2 * n * size)
	}
	first, second := b[:n*size], b[n*size:2*n*size]
	p.x.run(loop.DiskRead, s.sb.pageAt(from, 0), first, func(err error) {
		var unread [2]error
		if err != nil {
			unread[0] = err
			clear(first)
			if err = p.tolerate(&DamagedError{Area: "metadata", Offset: s.sb.pageOff(from, 0), What: err.Error()}); err != nil {
				p.finish(err)
				return
			}
		}
		p.x.run(loop.DiskRead, s.sb.pageAt(from, 1), second, func(err error) {
			if err != nil {
				unread[1] = err
				clear(second)
				err = p.tolerate(&DamagedError{Area: "metadata", Offset: s.sb.pageOff(from, 1), What: err.Error()})
			}
			for i := 0; i < n && err == nil; i++ {
				err = p.loadPage(from+uint32(i), [2][]byte{first[i*size : (i+1)*size], second[i*size : (i+1)*size]}, unread)
			}
			if err != nil {
				p.finish(err)
				return
			}
			p.loadPages(from + uint32(n))
		})
	})
}

// loadPage takes the newer good copy of a page; unread says which ones the device could not read.
func (p *opening) loadPage(page uint32, copies [2][]byte, unread [2]error) error {
	s, t := p.s, p.s.t
	var info [2]pageInfo
	var errs [2]error
	for i := range copies {
		if info[i], errs[i] = decodePage(copies[i], &s.sb, page, i); unread[i] != nil {
			errs[i] = unread[i]
		}
	}
	best := -1
	for i := range copies {
		if errs[i] == nil && (best < 0 || info[i].gen > info[best].gen) {
			best = i
		}
	}
	for i := range copies {
		bad := errs[i]
		switch {
		case bad == errPageEmpty && (best < 0 || best == 1 && info[1].gen == 1):
			bad = nil // not written yet
		case bad == errPageEmpty && best < 0:
			bad = nil
		case bad == nil && i != best && info[best].gen-info[i].gen != 1:
			bad = fmt.Errorf("its generation %d does not go with %d of the other copy", info[i].gen, info[best].gen)
		}
		if bad != nil {
			p.bad = append(p.bad, badPage{page, s.sb.pageOff(page, i), bad})
		}
	}
	if best < 0 {
		if errs[0] != errPageEmpty || errs[1] != errPageEmpty {
			p.wrecks = append(p.wrecks, page)
		}
		return nil
	}
	t.pageGen[page], t.pageMax[page] = info[best].gen, info[best].maxSeq
	p.max = max(p.max, info[best].maxSeq)
	for i := uint32(0); i < t.perPage; i++ {
		b := copies[best][pageHeader+int(i)*t.diskSize:][:t.diskSize]
		if b[slotFlags]&slotUsed != 0 {
			seq, err := decodeSlot(t.scratch, b)
			if err == nil {
				t.pageMax[page] = max(t.pageMax[page], seq)
				err = p.loadSlot(page*t.perPage+i, t.scratch, seq)
			}
			if err != nil {
				if err = p.tolerate(&DamagedError{Area: "metadata", Offset: s.sb.pageOff(page, best), What: err.Error()}); err != nil {
					return err
				}
				p.lost++
				s.dirtyPage(page, 0)
			}
		}
	}
	return nil
}

func (p *opening) loadSlot(slot uint32, v slotView, seq uint64) error {
	s, t := p.s, p.s.t
	oid := v.object()
	if b := v.block(); b != noBlock && uint64(b) >= s.sb.Blocks {
		return fmt.Errorf("object %v has block %d of %d", oid, b, s.sb.Blocks)
	}
	if v.version() == 0 || v.block() == noBlock && !allZero(v.present(t.bitmap)) {
		return fmt.Errorf("the entry of object %v is impossible", oid)
	}
	if at, other, _, ok := s.lookup(oid); ok {
		// The object was removed and made again in another page, and only that page became durable: the newer one counts, the other is cleared for good.
		stale := slot
		if t.seqs[other] < seq {
			stale = other
			s.forgetSlot(other)
			t.index[at] = slot + 1
			s.takeSlot(slot, v, seq)
		}
		s.dirtyPage(t.page(stale), 0)
		return nil
	}
	s.takeSlot(slot, v, seq)
	t.insert(oid, slot)
	return nil
}

func (s *Store) takeSlot(slot uint32, v slotView, seq uint64) {
	copy(s.t.slot(slot), v)
	s.t.seqs[slot] = seq
	s.t.slotFree.take(slot)
	s.count(v.state(), 1)
	if v.block() != noBlock {
		s.addSpace(v.object().Inode, int64(s.sb.Config.BlockSize))
	}
}

func (s *Store) forgetSlot(slot uint32) {
	v := slotView(s.t.slot(slot))
	s.count(v.state(), ^uint64(0))
	if v.block() != noBlock {
		s.addSpace(v.object().Inode, -int64(s.sb.Config.BlockSize))
	}
	clear(v)
	s.t.slotFree.give(slot)
}

func (p *opening) loadJournal() {
	s := p.s
	p.x.each(s.sb.Journal.at(0), s.sb.Journal.Len, func(at int64, b []byte) error {
		copy(s.j.mem[at:], b)
		return nil
	}, func(err error) {
		switch {
		case err == nil:
			p.checkSoft(p.build)
		case p.o.salvage:
			p.readLoose("journal", s.sb.Journal.at(0), s.j.mem, func() { p.checkSoft(p.build) })
		default:
			p.finish(&DamagedError{Area: "journal", Offset: s.sb.Journal.Off, What: err.Error()})
		}
	})
}

// build makes the store of what was read.
func (p *opening) build() {
	s := p.s
	p.live = map[uint32]announced{}
	s.replaying = true
	err := p.replay()
	s.replaying = false
	if err == nil && p.loaded != nil && !p.o.salvage {
		p.loaded(p)
	}
	if err == nil {
		err = p.judgePages()
	}
	if err == nil {
		p.unfinished()
		if p.o.salvage {
			err = p.salvageBlocks()
		} else {
			err = s.takeBlocks(nil)
		}
	}
	if err == nil && p.loaded != nil && p.o.salvage {
		p.loaded(p)
	}
	switch {
	case err != nil || p.o.ReadOnly:
		p.finish(err)
	case p.o.salvage:
		p.clearWrecks(func(err error) {
			if err != nil {
				p.finish(err)
				return
			}
			p.bootUp()
		})
	default:
		p.bootUp()
	}
}

// bootUp makes this opening durable: the boot counter, which is the epoch of the batches to come, and what of the journal counts. What was read may so far be in the
// device's cache only (when a process died and the power did not go), so that must be flushed before anything builds on it.
func (p *opening) bootUp() {
	s := p.s
	if !s.info.WriteThrough {
		p.x.run(loop.DiskFlush, 0, nil, func(err error) {
			if err != nil {
				p.finish(err)
				return
			}
			p.writeBoot()
		})
		return
	}
	p.writeBoot()
}

func (p *opening) writeBoot() {
	s := p.s
	j := &s.j
	s.sb.Boot++
	s.sb.Owner.claim(p.o.Owner)
	s.sb.endBatch, s.sb.endEntry, s.sb.endCRC = j.seq, j.entry, j.crc
	j.advance()
	s.sb.tailBatch = min(j.oldest, j.seq)
	pos := j.at(s.sb.tailBatch).pos
	s.sb.tailPos, s.sb.headPos = pos%j.size, j.head%j.size
	j.tailKnown, j.freeFrom = s.sb.tailBatch, pos
	p.x.writeSuper(&s.sb, func(err error) {
		if err == nil {
			s.l.Defer(&j.task)
			s.armIdle()
		}
		p.finish(err)
	})
}

// unfinished puts the pages of rounds that were not durable before all others that are to be written. They fit into the first round, so that when a later round is durable these are too.
func (p *opening) unfinished() {
	s, t := p.s, p.s.t
	var first []uint32
	for _, page := range sortedKeys(p.live) {
		if p.live[page].round > s.round.done {
			first = append(first, page)
		}
	}
	var others []uint32
	for t.dirtyLen > 0 {
		if page := t.popDirtyPage(); !slices.Contains(first, page) {
			others = append(others, page)
		}
	}
	for _, page := range append(first, others...) {
		s.dirtyPage(page, 0)
	}
}

// judgePages decides about pages with a bad copy: one that was being written when the power went is mended from the journal, any other is damage.
func (p *opening) judgePages() error {
	s := p.s
	for _, b := range p.bad {
		a, ok := p.live[b.page]
		if !ok || a.round <= s.round.done || a.gen != s.t.pageGen[b.page]+1 {
			what := "one copy of page %d is bad, and the other may be older: %v"
			if slices.Contains(p.wrecks, b.page) {
				what = "page %d, with up to " + fmt.Sprint(s.t.perPage) + " objects, is bad: %v"
			}
			if err := p.tolerate(&DamagedError{Area: "metadata", Offset: b.off, What: fmt.Sprintf(what, b.page, b.err)}); err != nil {
				return err
			}
			s.dirtyPage(b.page, 0)
			continue
		}
		// Its announcement must be found again until the copy is good.
		i := s.newChange()
		s.changes[i] = change{next: s.t.pageFirst[b.page], batch: a.batch, state: changeVisible}
		s.t.pageFirst[b.page] = i
		s.j.batches[a.batch].refs++
	}
	for _, page := range sortedKeys(p.live) {
		a := p.live[page]
		if a.round <= s.round.done && s.t.pageGen[page] < a.gen {
			err := p.tolerate(&DamagedError{Area: "metadata", Offset: s.sb.pageOff(page, int(a.gen&1)), What: fmt.Sprintf("page %d has generation %d where %d was written: the device lost a write", page, s.t.pageGen[page], a.gen)})
			if err != nil {
				return err
			}
		}
	}
	if err := p.countPages(); err != nil {
		return err
	}
	if p.max > s.j.entry {
		return &DamagedError{Area: "journal", Offset: s.sb.Journal.Off, What: fmt.Sprintf("the metadata knows entry %d, the journal ends at %d", p.max, s.j.entry)}
	}
	return nil
}

// countPages compares the sum of the pages' generations with what the last opening wrote into the journal: a page write that the device lost leaves no other trace when both copies are good and the journal
// does not reach back to it. Of a round of which that opening has not said that it is durable either copy may count.
func (p *opening) countPages() error {
	s := p.s
	sum, wrapped := uint32(0), uint32(0)
	for page, gen := range s.t.pageGen {
		s.round.sum += gen
		sum += gen
		if a, ok := p.live[uint32(page)]; ok && a.now && a.round > p.countedTo && gen == a.gen {
			sum-- // it was one less before
			if gen == 2 {
				wrapped = 1<<32 - 2 // or the highest, of one page
			}
		}
	}
	if !p.counted || sum == p.sum || sum+wrapped == p.sum {
		return nil
	}
	return p.tolerate(&DamagedError{Area: "metadata", Offset: s.sb.pageOff(0, 0), What: fmt.Sprintf("the generations of all pages add up to %d, and %d were written: the device lost a write", sum, p.sum)})
}

// takeBlocks finds out which blocks are in use. claim, if not nil, is asked about each claim of a block.
func (s *Store) takeBlocks(claim func(block uint32, oid layout.ObjectID) error) error {
	s.blocks = newBitset(s.sb.Blocks)
	take := func(block uint32, oid layout.ObjectID) error {
		if claim != nil && block != noBlock {
			if err := claim(block, oid); err != nil {
				return err
			}
		}
		if block != noBlock && !s.blocks.take(block) {
			return &DamagedError{Area: "metadata", Offset: s.sb.blockOff(block), What: fmt.Sprintf("block %d of object %v belongs to another one too", block, oid)}
		}
		return nil
	}
	for d := range s.dirty {
		if s.dirty[d].first != 0 {
			if err := s.takeDirty(uint32(d), take); err != nil {
				return err
			}
		}
	}
	for i := uint32(0); uint64(i) < s.sb.Slots; i++ {
		v := slotView(s.t.slot(i))
		if !v.used() || v.block() == noBlock || claim == nil && s.blocks.take(v.block()) {
			continue
		}
		if _, _, d, _ := s.lookup(s.t.object(i)); d != 0 && s.dirty[d].first != 0 {
			continue // taken with its changes
		}
		if err := take(v.block(), s.t.object(i)); err != nil {
			return err
		}
	}
	return nil
}

// takeDirty takes the blocks of an object with unfolded changes. What lies before the newest stable state may have been folded, and its blocks given away, before the power
// went: only the block of that state and those of the unstable changes after it are the object's.
func (s *Store) takeDirty(d uint32, take func(uint32, layout.ObjectID) error) error {
	o := &s.dirty[d]
	oid := s.t.object(o.slot)
	base := slotView(s.t.slot(o.slot))
	if cut := s.cut(o); cut != 0 {
		s.resolve(&s.view, o.slot, d, cut)
		live := s.view.block
		// The change that gave the object its live block; an earlier one, or the slot, may name the same block from a former life.
		giver := uint32(0)
		for i := o.first; ; i = s.changes[i].next {
			if live != noBlock && s.changes[i].block == live {
				giver = i
			}
			if i == cut {
				break
			}
		}
		if old := base.block(); base.used() && old != noBlock && (old != live || giver != 0) {
			base.setBlock(noBlock)
			clear(base.present(s.t.bitmap)) // a change up to the cut replaces all of it
			s.addSpace(oid.Inode, -int64(s.sb.Config.BlockSize))
		}
		if err := take(live, oid); err != nil {
			return err
		}
		for i := o.first; ; i = s.changes[i].next {
			if i != giver {
				s.changes[i].block = noBlock
			}
			if i == cut {
				break
			}
		}
		for i := s.changes[cut].next; i != 0; i = s.changes[i].next {
			if err := take(s.changes[i].block, oid); err != nil {
				return err
			}
		}
	} else {
		if base.used() {
			if err := take(base.block(), oid); err != nil {
				return err
			}
		}
		for i := o.first; i != 0; i = s.changes[i].next {
			if err := take(s.changes[i].block, oid); err != nil {
				return err
			}
		}
	}
	s.resolve(&s.view, o.slot, d, o.lastVisible)
	o.hasBlock = s.view.block != noBlock
	o.newest = o.visible
	return nil
}
