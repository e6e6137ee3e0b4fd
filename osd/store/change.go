package store

import (
	"holdfast/core/layout"
	"holdfast/core/planted"
)

// change is one change of one object between Submit and the moment it is durable in a metadata page. It holds no pointers.
type change struct {
	next       uint32 // in the object's chain, then in its page's
	dirty      uint32
	kind       entryKind
	flags      uint8
	stateFlags StateFlags
	state      changeState
	since      uint32 // when it began to wait for a commit, see park.go
	version    uint64
	interval   uint64
	seq        uint64
	entry      uint32 // where its entry is in the journal
	data       uint32 // where its data is in the journal; 0 for none
	off        uint32
	length     uint32
	block      uint32
	batch      uint32
}

type changeState uint8

const (
	changeWriting changeState = iota + 1 // its data is on the way to its block
	changeReady                          // waits for the journal
	changeLogged                         // in a batch under way
	changeSoft                           // visible and acknowledged, not durable
	changeVisible                        // durable
)

// doomed is set in change.flags (in memory only) when a rollback that drops the change was submitted.
const doomed = 0x80

// inJournal is set in change.flags (in memory only) when the data of the change travels in the journal.
const inJournal = 0x40

// dirtyObject is an object with changes that are not folded into its slot.
type dirtyObject struct {
	slot        uint32
	first, last uint32 // chain of changes in the order of Submit
	lastVisible uint32
	unqueued    uint32 // first change that the journal has not been given
	newest      State  // with everything submitted
	hasBlock    bool   // with everything submitted
	visible     State
	submitted   uint64 // changes ever submitted since the object became dirty
	shown       uint64 // of those, visible
	payloads    int    // visible changes whose data is in the journal only
	flushing    int    // device writes of the flusher under way
	flushTo     uint32 // what those will make foldable
	inList      bool
	carrying    bool // its chain is being written again
	ghost       bool // replay: a change of an object that a later one removed, see replay.go
	prev, next  uint32
	waiters     opList // reads
}

func (s *Store) newChange() uint32 {
	i := s.changeFree
	if i != 0 {
		s.changeFree = s.changes[i].next
		return i
	}
	s.changes = append(s.changes, change{})
	s.ops = append(s.ops, nil)
	return uint32(len(s.changes) - 1)
}

func (s *Store) freeChange(i uint32) {
	s.changes[i] = change{next: s.changeFree}
	s.changeFree = i
}

// makeDirty returns the dirty object of oid, making it (and its slot) when needed. The caller has checked that a slot is free.
func (s *Store) makeDirty(oid layout.ObjectID) uint32 {
	at, slot, d, ok := s.lookup(oid)
	if d != 0 {
		return d
	}
	d = s.dirtyFree
	if d != 0 {
		s.dirtyFree = s.dirty[d].next
	} else {
		s.dirty = append(s.dirty, dirtyObject{})
		d = uint32(len(s.dirty) - 1)
	}
	s.dirtyLen++
	if !ok {
		var got bool
		if slot, got = s.t.slotFree.alloc(); !got {
			panic("store: no slot where one was reserved")
		}
		b := slotView(s.t.slot(slot))
		clear(b)
		b.set(oid, 0, 0, noBlock)
		s.t.insert(oid, d|dirtyBit)
		s.listAdd(slot, oid)
	} else {
		s.t.index[at] = d | dirtyBit + 1
	}
	v := slotView(s.t.slot(slot))
	v.setDirty(true)
	s.dirty[d] = dirtyObject{slot: slot, newest: v.state(), visible: v.state(), hasBlock: v.block() != noBlock}
	return d
}

// clean forgets a dirty object that has no changes left, and the object when there is nothing of it.
func (s *Store) clean(d uint32) {
	o := &s.dirty[d]
	if o.first != 0 || o.flushing != 0 || o.waiters.head != nil || o.ghost {
		return
	}
	if o.inList {
		s.fifo.remove(s, d)
	}
	slot := o.slot
	oid := s.t.object(slot)
	at, _, _, ok := s.lookup(oid)
	if !ok {
		panic("store: a dirty object is not in the index")
	}
	if v := slotView(s.t.slot(slot)); v.used() {
		v.setDirty(false)
		s.t.index[at] = slot + 1
	} else {
		s.t.remove(at, s.objectOfIndex)
		s.listRemove(slot, oid)
		s.t.slotFree.give(slot)
	}
	*o = dirtyObject{next: s.dirtyFree}
	s.dirtyFree = d
	s.dirtyLen--
}

// dirtyList is a list of dirty objects in the order they were added.
type dirtyList struct{ head, tail uint32 }

func (q *dirtyList) push(s *Store, d uint32) {
	o := &s.dirty[d]
	if o.inList {
		return
	}
	o.inList, o.prev, o.next = true, q.tail, 0
	if q.tail != 0 {
		s.dirty[q.tail].next = d
	} else {
		q.head = d
	}
	q.tail = d
}

func (q *dirtyList) remove(s *Store, d uint32) {
	o := &s.dirty[d]
	if o.prev != 0 {
		s.dirty[o.prev].next = o.next
	} else {
		q.head = o.next
	}
	if o.next != 0 {
		s.dirty[o.next].prev = o.prev
	} else {
		q.tail = o.prev
	}
	o.inList, o.prev, o.next = false, 0, 0
}

// view is an object as it is with some of its changes applied.
type view struct {
	state   State
	block   uint32
	written []byte
	present []byte
	data    []uint32 // per unit: where it is in the journal; 0: in the block
	sums    []uint32 // per unit: where its checksums are in the journal; 0: in the slot
}

func (v *view) init(c *Config) {
	v.written, v.present = make([]byte, c.BitmapLen()), make([]byte, c.BitmapLen())
	v.data, v.sums = make([]uint32, c.units()), make([]uint32, c.units())
}

func (v *view) clear() {
	v.state, v.block = State{}, noBlock
	clear(v.written)
	clear(v.present)
}

// resolve fills v with the slot's state and the object's visible changes up to and including the change last (0: none).
func (s *Store) resolve(v *view, slot, d, last uint32) {
	b := slotView(s.t.slot(slot))
	bm := s.t.bitmap
	if b.used() {
		v.state, v.block = b.state(), b.block()
		copy(v.written, b.written(bm))
		copy(v.present, b.present(bm))
	} else {
		v.clear()
	}
	clear(v.data)
	clear(v.sums)
	if d == 0 || last == 0 {
		return
	}
	for i := s.dirty[d].first; i != 0; i = s.changes[i].next {
		s.apply(v, &s.changes[i])
		if i == last {
			return
		}
	}
	panic("store: the end of a chain was not in it")
}

// apply makes v what it is after c.
func (s *Store) apply(v *view, c *change) {
	cfg := &s.sb.Config
	unstable := StateFlags(0)
	if c.flags&entryUnstable != 0 {
		unstable = Unstable
	}
	u0, u1 := c.off/cfg.Granularity, (c.off+c.length)/cfg.Granularity
	switch c.kind {
	case entryWrite:
		if c.block != noBlock {
			v.block = c.block
			clear(v.present)
		}
		given := le.Uint32(s.j.mem[c.entry+20:])
		sums := c.entry + objectEntry + given
		step := 4 * uint32(cfg.sumsPerUnit())
		for u := u0; u < u1; u++ {
			if c.data != 0 {
				v.data[u] = c.data + (u-u0)*cfg.Granularity
			} else {
				v.data[u] = 0
			}
			v.sums[u] = sums + (u-u0)*step
		}
		setBits(v.present, u0, u1)
		if given != 0 {
			copy(v.written, s.j.mem[c.entry+objectEntry:])
		} else {
			setBits(v.written, u0, u1)
		}
		if planted.BitmapWithoutData {
			setBits(v.written, u0, min(u1+1, uint32(cfg.units())))
		}
	case entryZero:
		clearBits(v.present, u0, u1)
		if c.flags&entryKeepWritten != 0 {
			setBits(v.written, u0, u1)
		} else {
			clearBits(v.written, u0, u1)
		}
		if c.dropsBlock(cfg.BlockSize) {
			v.block = noBlock
		}
	case entryDelete:
		v.clear()
		unstable |= Tombstone
	case entryReplace:
		if c.version == 0 {
			v.clear()
			return
		}
		bm := uint32(s.t.bitmap)
		at := c.entry + objectEntry
		copy(v.written, s.j.mem[at:at+bm])
		copy(v.present, s.j.mem[at+bm:at+2*bm])
		clear(v.data)
		step := 4 * uint32(cfg.sumsPerUnit())
		for u := range v.sums {
			v.sums[u] = at + 2*bm + uint32(u)*step
		}
		v.block = c.block
		v.state = State{Version: layout.Version(c.version), Interval: layout.Interval(c.interval), Flags: c.stateFlags}
		return
	case entryVoid:
		v.state.Flags = v.state.Flags&^Unstable | Void
		return
	case entryForget:
		v.clear()
		return
	case entryCommit, entryRollback:
		return
	}
	v.state = State{Version: layout.Version(c.version), Interval: layout.Interval(c.interval), Flags: unstable}
}

// stateAfter is the state part of apply.
func stateAfter(st State, c *change) State {
	flags := StateFlags(0)
	if c.flags&entryUnstable != 0 {
		flags = Unstable
	}
	switch c.kind {
	case entryDelete:
		flags |= Tombstone
	case entryReplace:
		if c.version == 0 {
			return State{}
		}
		flags = c.stateFlags
	case entryVoid:
		st.Flags = st.Flags&^Unstable | Void
		return st
	case entryForget:
		return State{}
	case entryCommit:
		if uint64(st.Version) <= c.version {
			st.Flags &^= Unstable
		}
		return st
	}
	return State{Version: layout.Version(c.version), Interval: layout.Interval(c.interval), Flags: flags}
}

// dropsBlock reports whether the object has no block after a zero. It is decided when the zero is submitted, so that replay finds what later changes counted on.
func (c *change) dropsBlock(blockSize uint32) bool {
	return c.kind == entryZero && (c.length == blockSize || c.flags&entryDropBlock != 0)
}

// resets reports whether nothing before c matters any more once it is stable.
func (c *change) resets(blockSize uint32) bool {
	switch c.kind {
	case entryReplace, entryForget:
		return true
	case entryDelete:
		return c.flags&entryUnstable == 0
	case entryWrite:
		return c.flags&entryUnstable == 0 && c.block != noBlock && c.length == blockSize
	}
	return false
}

// cut is the last visible change up to which an object can be folded: nothing up to there waits for a commit. 0: none.
func (s *Store) cut(o *dirtyObject) uint32 {
	cut, waiting := uint32(0), false
	for i := o.first; i != 0; i = s.changes[i].next {
		c := &s.changes[i]
		if c.state != changeVisible {
			break
		}
		switch {
		case c.kind == entryReplace || c.kind == entryForget || c.kind == entryVoid:
			waiting = false
		case c.flags&entryUnstable != 0:
			waiting = true
		}
		if !waiting {
			cut = i
		}
	}
	return cut
}

// fold puts the object's changes up to last into its slot. The data of those changes is in the object's block.
func (s *Store) fold(d, last uint32) {
	o := &s.dirty[d]
	v := &s.foldView
	s.resolve(v, o.slot, d, last)
	b := slotView(s.t.slot(o.slot))
	oid := s.t.object(o.slot)
	old := noBlock
	if b.used() {
		old = b.block()
		s.count(b.state(), ^uint64(0))
	}
	page := s.t.page(o.slot)
	seq := s.changes[last].seq
	for i := o.first; ; {
		c := &s.changes[i]
		next := c.next
		if c.block != noBlock && c.block != v.block {
			s.freeBlock(c.block)
		}
		s.settleUnstable(c)
		c.next = s.t.pageFirst[page]
		s.t.pageFirst[page] = i
		if i == last {
			o.first = next
			break
		}
		i = next
	}
	if o.first == 0 {
		o.last = 0
	}
	if o.lastVisible == last {
		o.lastVisible = 0
	}
	if old != noBlock && old != v.block {
		if !planted.BlockFreedEarly || s.replaying || s.blocks.has(old) {
			s.freeBlock(old)
		}
		s.addSpace(oid.Inode, -int64(s.sb.Config.BlockSize))
	}
	if v.block != noBlock && old != v.block {
		s.addSpace(oid.Inode, int64(s.sb.Config.BlockSize))
	}
	s.t.bump(o.slot)
	s.storeView(b, v)
	if s.t.seqs != nil {
		s.t.seqs[o.slot] = seq
	}
	s.count(b.state(), 1)
	s.dirtyPage(page, seq)
}

// storeView writes v into a slot.
func (s *Store) storeView(b slotView, v *view) {
	b.setFlags(0)
	if v.state.Version != 0 {
		b.setFlags(byte(v.state.Flags) | slotUsed)
	}
	b.set(b.object(), uint64(v.state.Version), uint64(v.state.Interval), v.block)
	bm := s.t.bitmap
	copy(b.written(bm), v.written)
	copy(b.present(bm), v.present)
	step := uint32(4 * s.sb.Config.sumsPerUnit())
	if step == 0 {
		return
	}
	sums := b.sums(bm)
	for u := range v.sums {
		at := uint32(u) * step
		switch {
		case !hasBit(v.present, uint32(u)):
			clear(sums[at : at+step])
		case v.sums[u] != 0:
			copy(sums[at:at+step], s.j.mem[v.sums[u]:])
		}
	}
}

// count keeps the numbers of Stats.
func (s *Store) count(st State, n uint64) {
	if st.Version != 0 {
		s.objects += n
		if st.Flags&Tombstone != 0 {
			s.tombstones += n
		}
	}
}

// freeBlock gives a block back. Replay knows what is free only at its end.
func (s *Store) freeBlock(block uint32) {
	if !s.replaying {
		s.blocks.give(block)
	}
}

// foldNow folds what needs no data moved.
func (s *Store) foldNow(d uint32) {
	o := &s.dirty[d]
	if o.flushing != 0 || o.first == 0 || o.carrying || o.ghost {
		return
	}
	cut := s.cut(o)
	if cut == 0 {
		return
	}
	v := &s.foldView
	s.resolve(v, o.slot, d, cut)
	for u := range v.data {
		if v.data[u] != 0 && hasBit(v.present, uint32(u)) {
			return
		}
	}
	s.fold(d, cut)
}

// show makes a durable change visible. Changes come here in journal order, when running as in replay.
func (s *Store) show(i uint32) {
	c := &s.changes[i]
	d := c.dirty
	o := &s.dirty[d]
	c.state = changeVisible
	o.shown++
	switch c.kind {
	case entryCommit:
		s.commit(d, i)
	case entryRollback:
		s.rollback(d, i)
	default:
		o.visible = stateAfter(o.visible, c)
		o.lastVisible = i
		s.payload(o, c)
	}
	s.ripen(d)
}

// payload counts a durable change whose data is in the journal only.
func (s *Store) payload(o *dirtyObject, c *change) {
	if c.resets(s.sb.Config.BlockSize) {
		o.payloads = 0
	} else if c.data != 0 {
		o.payloads++
	}
}

// ripen folds an object or hands it to the flusher after one of its changes has become durable.
func (s *Store) ripen(d uint32) {
	o := &s.dirty[d]
	if o.payloads == 0 {
		s.foldNow(d)
	}
	if o.first != 0 && o.flushing == 0 && !o.carrying && s.changes[o.first].state == changeVisible {
		s.fifo.push(s, d)
		if o.payloads > 0 && o.payloads%longChain == 0 {
			s.fl.hot = append(s.fl.hot, d)
		}
	}
}

// commit makes the unstable changes up to the version of change i stable, and drops i, which has no effect of its own.
func (s *Store) commit(d, i uint32) {
	o := &s.dirty[d]
	version := s.changes[i].version
	for j := o.first; j != 0 && j != i; j = s.changes[j].next {
		if c := &s.changes[j]; c.version <= version {
			s.settleUnstable(c)
		}
	}
	if uint64(o.visible.Version) <= version {
		o.visible.Flags &^= Unstable
	}
	s.unlink(d, i)
}

// settleUnstable notes that a change waits for a commit no longer.
func (s *Store) settleUnstable(c *change) {
	if c.flags&entryUnstable != 0 {
		s.unstable -= s.weight(c)
		if c.since == parked {
			s.parking.bytes -= s.weight(c)
		}
		if c.flags&moving != 0 {
			s.moveVoid(c.dirty)
		}
		c.flags &^= entryUnstable
	}
}

// rollback drops the unstable changes above the version of change i, and i.
func (s *Store) rollback(d, i uint32) {
	o := &s.dirty[d]
	version := s.changes[i].version
	for j := o.first; j != 0 && j != i; {
		next := s.changes[j].next
		if c := &s.changes[j]; (c.flags&entryUnstable != 0 || planted.RollbackStable) && c.version > version {
			if c.block != noBlock {
				s.freeBlock(c.block)
			}
			if c.data != 0 {
				o.payloads--
			}
			s.settleUnstable(c)
			s.unlink(d, j)
		}
		j = next
	}
	s.unlink(d, i)
	if o.first == 0 {
		o.ghost = false // replay: what was not understood is gone
	}
	s.t.bump(o.slot)
	o.visible = slotView(s.t.slot(o.slot)).state()
	o.lastVisible = 0
	for j := o.first; j != 0 && s.changes[j].state == changeVisible; j = s.changes[j].next {
		o.visible = stateAfter(o.visible, &s.changes[j])
		o.lastVisible = j
	}
	if !planted.PairsKept {
		s.pairs.dropAbove(s, s.t.object(o.slot), version)
	}
}

// unlink takes a durable change out of its object's chain and lets go of its batch.
func (s *Store) unlink(d, i uint32) {
	o := &s.dirty[d]
	prev := uint32(0)
	for j := o.first; j != i; j = s.changes[j].next {
		prev = j
	}
	next := s.changes[i].next
	if prev == 0 {
		o.first = next
	} else {
		s.changes[prev].next = next
	}
	if o.last == i {
		o.last = prev
	}
	s.j.release(s.changes[i].batch)
	s.freeChange(i)
}

// Bits, least significant first.

func hasBit(b []byte, i uint32) bool { return b[i/8]>>(i%8)&1 != 0 }

func setBits(b []byte, from, to uint32) {
	for ; from < to && from%8 != 0; from++ {
		b[from/8] |= 1 << (from % 8)
	}
	for ; from+8 <= to; from += 8 {
		b[from/8] = 0xff
	}
	for ; from < to; from++ {
		b[from/8] |= 1 << (from % 8)
	}
}

func clearBits(b []byte, from, to uint32) {
	for ; from < to; from++ {
		b[from/8] &^= 1 << (from % 8)
	}
}

func allZero(b []byte) bool {
	for ; len(b) >= 32; b = b[32:] {
		if le.Uint64(b)|le.Uint64(b[8:])|le.Uint64(b[16:])|le.Uint64(b[24:]) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
