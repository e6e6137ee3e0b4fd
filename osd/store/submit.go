package store

import (
	"fmt"
	"hash/crc32"
	"unsafe"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/planted"
)

// refHolder is a reference that may be empty.
type refHolder struct{ ref *buf.Ref }

func (h *refHolder) release() {
	if h.ref != nil {
		h.ref.Release()
		h.ref = nil
	}
}

var kindOfOp = [...]entryKind{OpWrite: entryWrite, OpZero: entryZero, OpDelete: entryDelete, OpReplace: entryReplace, OpVoid: entryVoid,
	OpForget: entryForget, OpCommit: entryCommit, OpRollback: entryRollback}

// change checks a change against the newest state and starts it. On an error nothing has happened.
func (s *Store) change(op *Op) error {
	if s.o.ReadOnly {
		return ErrReadOnly
	}
	if int(op.Kind) >= len(kindOfOp) || kindOfOp[op.Kind] == 0 {
		return fmt.Errorf("%w: operation kind %d", ErrUnsupported, op.Kind)
	}
	if op.Interval > maxInterval {
		return fmt.Errorf("%w: interval %d of object %v is above %d", ErrUnsupported, uint64(op.Interval), op.Object, uint64(maxInterval))
	}
	_, slot, d, ok := s.lookup(op.Object)
	var newest State
	hasBlock := false
	if ok && d != 0 {
		newest, hasBlock = s.dirty[d].newest, s.dirty[d].hasBlock
	} else if ok {
		v := slotView(s.t.slot(slot))
		newest, hasBlock = v.state(), v.block() != noBlock
	}
	op.impl.journaled, op.impl.block0, op.impl.lazy, op.impl.stamp = false, noBlock, false, 0
	c := change{kind: kindOfOp[op.Kind], state: changeReady, version: uint64(op.Version), interval: uint64(op.Interval), block: noBlock}
	if op.Unstable && op.Kind <= OpDelete {
		c.flags |= entryUnstable
	}
	switch op.Kind {
	case OpWrite, OpZero, OpDelete:
		switch {
		case newest.Flags&Void != 0:
			return ErrVoid
		case op.Base != newest.Version && !planted.UncleanChanged:
			return &BaseError{Object: op.Object, Have: newest, Want: op.Base}
		case op.Version <= op.Base:
			return fmt.Errorf("%w: version %x is not above %x", ErrUnsupported, op.Version, op.Base)
		case newest.Flags&Unstable != 0 && !op.Unstable:
			return fmt.Errorf("%w: a stable change of object %v over an unstable one", ErrUnsupported, op.Object)
		case op.Pair.Session != 0 && s.pairs.full(s):
			return ErrNoSpace
		}
	case OpReplace, OpVoid:
		if op.Base != newest.Version || op.Base != 0 && op.BaseInterval != newest.Interval {
			return &BaseError{Object: op.Object, Have: newest, Want: op.Base}
		}
		if newest.Flags&Unstable != 0 {
			return ErrUnsettled
		}
		if op.Kind == OpVoid {
			if op.Base == 0 {
				return &BaseError{Object: op.Object, Have: newest, Want: op.Base}
			}
			c.version, c.interval = uint64(newest.Version), uint64(newest.Interval)
		} else if planted.ReplaceKeepsNewer && op.Version < op.Base {
			op.State = newest
			s.finishOp(op, nil)
			return nil
		} else if op.Flags&Unstable != 0 {
			return fmt.Errorf("%w: replacing object %v by an unstable version", ErrUnsupported, op.Object)
		} else {
			c.stateFlags = op.Flags
			if s.pairs.n+len(op.Pairs) > s.pairs.limit(s) {
				return ErrNoSpace
			}
		}
	case OpForget:
		if op.Base != newest.Version || newest.Flags&Tombstone == 0 || newest.Flags&Unstable != 0 {
			return &BaseError{Object: op.Object, Have: newest, Want: op.Base}
		}
		c.version = uint64(newest.Version)
	case OpCommit:
		if op.Version > newest.Version {
			return &BaseError{Object: op.Object, Have: newest, Want: op.Version}
		}
		if d == 0 || !s.anyUnstable(&s.dirty[d], func(v uint64) bool { return v <= c.version }) {
			op.State = newest
			s.finishOp(op, nil)
			return nil
		}
		if o := &s.dirty[d]; planted.CommitUndurable && o.shown == o.submitted {
			for j := o.first; j != 0; j = s.changes[j].next {
				if s.changes[j].version <= c.version {
					s.settleUnstable(&s.changes[j])
				}
			}
			o.visible = stateAfter(o.visible, &c)
			o.newest = o.visible
			s.finishOp(op, nil)
			return nil
		}
	case OpRollback:
		stable := State{}
		if ok {
			stable = s.newestStable(slot, d)
		}
		if uint64(stable.Version) > c.version && !planted.RollbackStable {
			return &BaseError{Object: op.Object, Have: stable, Want: op.Version}
		}
		if d == 0 || !s.anyUnstable(&s.dirty[d], func(v uint64) bool { return v > c.version }) && !planted.RollbackStable {
			op.State = newest
			s.finishOp(op, nil)
			return nil
		}
	}
	direct, err := s.place(op, &c, hasBlock)
	if err != nil {
		return err
	}
	if op.impl.journaled {
		c.flags |= inJournal
	}
	op.impl.lazy, op.impl.start = s.isLazy(op, direct), s.l.Now()
	if !ok && s.t.slotFree.free <= s.slotReserve(op) {
		err = ErrNoSpace
	} else if c.flags&entryUnstable != 0 {
		s.crowd(s.weight(&c))
		if !s.roomForUnstable(d, &c) {
			err = ErrWaiting
		}
	}
	if err != nil {
		if c.block != noBlock && !planted.NoSpaceHalf {
			s.blocks.give(c.block)
		}
		return err
	}
	if s.fl.urgent = false; !s.idle.Armed() {
		s.armIdle()
	}
	d = s.makeDirty(op.Object)
	o := &s.dirty[d]
	if op.Kind == OpZero && hasBlock && o.shown == o.submitted && s.emptyWithout(d, c.off, c.length) {
		c.flags |= entryDropBlock
	}
	if planted.BlockFreedEarly && direct && op.Kind == OpWrite && o.first == 0 && slotView(s.t.slot(o.slot)).block() != noBlock {
		s.blocks.give(slotView(s.t.slot(o.slot)).block())
	}
	i := s.newChange()
	c.dirty = d
	op.impl.change, op.impl.block0 = i, c.block
	if direct {
		c.state = changeWriting
	}
	s.changes[i] = c
	s.ops[i] = op
	if c.flags&entryUnstable != 0 {
		s.changes[i].since = s.since()
		s.unstable += s.weight(&c)
	}
	if o.last == 0 {
		o.first = i
	} else {
		s.changes[o.last].next = i
	}
	o.last = i
	if o.unqueued == 0 {
		o.unqueued = i
	}
	o.submitted++
	if op.Kind == OpRollback {
		s.doom(o, i)
	} else {
		o.newest = stateAfter(o.newest, &c)
		o.hasBlock = blockAfter(o.hasBlock, &c, s.sb.Config.BlockSize)
	}
	if direct {
		s.writeBlock(op, c.block)
	} else {
		s.queueReady(o)
	}
	return nil
}

// blockAfter says whether the object has a block after c.
func blockAfter(has bool, c *change, blockSize uint32) bool {
	switch c.kind {
	case entryWrite:
		return has || c.block != noBlock
	case entryZero:
		return has && !c.dropsBlock(blockSize)
	case entryReplace:
		return c.block != noBlock
	case entryDelete, entryForget:
		return false
	}
	return has
}

// place decides where a change's data goes and takes the block for it. direct: to that block, before the journal.
func (s *Store) place(op *Op, c *change, hasBlock bool) (direct bool, err error) {
	cfg := &s.sb.Config
	switch op.Kind {
	case OpWrite, OpZero:
		if op.Offset%cfg.Granularity != 0 || op.Len%cfg.Granularity != 0 || op.Offset > cfg.BlockSize || op.Len > cfg.BlockSize-op.Offset {
			return false, ErrNotAligned
		}
		if len(op.Bitmap) != 0 && op.Kind == OpWrite && len(op.Bitmap) != cfg.BitmapLen() {
			return false, fmt.Errorf("%w: a bitmap of %d bytes, %d are meant", ErrUnsupported, len(op.Bitmap), cfg.BitmapLen())
		}
		c.off, c.length = op.Offset, op.Len
		if op.Kind == OpZero {
			if op.KeepWritten {
				c.flags |= entryKeepWritten
			}
			return false, nil
		}
		if op.Len == 0 {
			return false, nil
		}
		if op.Data == nil || op.DataOff < 0 || op.Data.Len()-op.DataOff < int(op.Len) {
			return false, fmt.Errorf("%w: a write of %d bytes lends fewer", ErrUnsupported, op.Len)
		}
		whole := op.Len == cfg.BlockSize
		if hasBlock && (!whole || op.Len <= s.o.SmallWrite) {
			op.impl.journaled = true
			return false, nil
		}
		keep := s.keepBlocks + uint64(op.Leave)
		if hasBlock {
			keep = s.keepBlocks / 2
		}
		block, ok := s.takeBlock(keep)
		if !ok && hasBlock {
			op.impl.journaled = true // a whole block, but there is none to redirect it to
			return false, nil
		}
		if !ok {
			return false, ErrNoSpace
		}
		c.block = block
		if op.Len <= s.o.SmallWrite {
			op.impl.journaled = true
			return false, nil
		}
		return true, nil
	case OpReplace:
		bm := cfg.BitmapLen()
		if op.Version == 0 {
			return false, nil
		}
		if len(op.Bitmap) != bm || len(op.Present) != bm {
			return false, fmt.Errorf("%w: bitmaps of %d and %d bytes, %d are meant", ErrUnsupported, len(op.Bitmap), len(op.Present), bm)
		}
		c.off, c.length = presentRange(op.Present, cfg.Granularity)
		if c.off+c.length > cfg.BlockSize {
			return false, fmt.Errorf("%w: a bitmap with bits behind those of %d units", ErrUnsupported, cfg.units())
		}
		if c.length == 0 {
			return false, nil
		}
		if op.Data == nil || op.DataOff < 0 || op.Data.Len()-op.DataOff < int(cfg.BlockSize) {
			return false, fmt.Errorf("%w: a replacement lends less than a whole block", ErrUnsupported)
		}
		keep := uint64(0)
		if !hasBlock {
			keep = s.keepBlocks / 2
		}
		block, ok := s.takeBlock(keep)
		if !ok {
			return false, ErrNoSpace
		}
		c.block = block
		return true, nil
	}
	return false, nil
}

func (s *Store) takeBlock(keep uint64) (uint32, bool) {
	if s.blocks.free <= keep {
		return 0, false
	}
	return s.blocks.alloc()
}

// slotReserve is how many free slots an op must leave.
func (s *Store) slotReserve(op *Op) uint64 {
	switch op.Kind {
	case OpWrite, OpZero:
		return s.keepSlots + uint64(op.Leave)
	case OpReplace:
		return s.keepSlots / 2
	}
	return 0
}

// presentRange is the smallest range that holds every unit of a bitmap.
func presentRange(present []byte, granularity uint32) (off, length uint32) {
	first, last := ^uint32(0), uint32(0)
	for u := uint32(0); u < uint32(len(present))*8; u++ {
		if hasBit(present, u) {
			first, last = min(first, u), u
		}
	}
	if first == ^uint32(0) {
		return 0, 0
	}
	return first * granularity, (last + 1 - first) * granularity
}

// anyUnstable reports whether a version that matches waits for a commit. One that a replacement or a forget has removed, or that a void has ended, does so no more.
func (s *Store) anyUnstable(o *dirtyObject, match func(uint64) bool) bool {
	any := false
	for i := o.first; i != 0; i = s.changes[i].next {
		switch c := &s.changes[i]; {
		case c.kind == entryReplace || c.kind == entryForget || c.kind == entryVoid:
			any = false
		case c.flags&(entryUnstable|doomed) == entryUnstable && match(c.version):
			any = true
		}
	}
	return any
}

// newestStable is the newest version that is stable, or will be by what was submitted.
func (s *Store) newestStable(slot, d uint32) State {
	if d == 0 {
		return slotView(s.t.slot(slot)).state()
	}
	o := &s.dirty[d]
	st := slotView(s.t.slot(o.slot)).state()
	committed := uint64(0)
	for i := o.first; i != 0; i = s.changes[i].next {
		if c := &s.changes[i]; c.kind == entryCommit {
			committed = max(committed, c.version)
		}
	}
	for i := o.first; i != 0; i = s.changes[i].next {
		c := &s.changes[i]
		if c.kind == entryCommit || c.kind == entryRollback || c.flags&entryUnstable != 0 && c.version > committed {
			continue
		}
		st = stateAfter(st, c)
	}
	return st
}

// doom marks what rollback i drops and works out what the newest state is without it.
func (s *Store) doom(o *dirtyObject, i uint32) {
	version := s.changes[i].version
	v := slotView(s.t.slot(o.slot))
	o.newest, o.hasBlock = v.state(), v.block() != noBlock
	for j := o.first; j != i; j = s.changes[j].next {
		c := &s.changes[j]
		if c.flags&entryUnstable != 0 && c.version > version {
			c.flags |= doomed
		}
		if c.flags&doomed == 0 && c.kind != entryRollback {
			o.newest = stateAfter(o.newest, c)
			o.hasBlock = blockAfter(o.hasBlock, c, s.sb.Config.BlockSize)
		}
	}
}

// emptyWithout reports whether nothing is present in an object whose changes are all visible when a range of it is zeroed.
func (s *Store) emptyWithout(d uint32, off, length uint32) bool {
	o, v, g := &s.dirty[d], &s.foldView, s.sb.Config.Granularity
	s.resolve(v, o.slot, d, o.lastVisible)
	clearBits(v.present, off/g, (off+length)/g)
	return allZero(v.present)
}

// queueReady gives the journal the object's changes in order, up to one whose data is still on its way.
func (s *Store) queueReady(o *dirtyObject) {
	for o.unqueued != 0 {
		c := &s.changes[o.unqueued]
		if c.state != changeReady {
			return
		}
		s.j.push(s.ops[o.unqueued])
		o.unqueued = c.next
	}
}

// writeBlock sends a change's data to its new block; the change goes to the journal when it is durable there.
func (s *Store) writeBlock(op *Op, block uint32) {
	off, length := s.changes[op.impl.change].off, s.changes[op.impl.change].length
	from := op.DataOff
	if op.Kind == OpReplace {
		from += int(off)
	}
	data := op.Data.Bytes()[from : from+int(length)]
	if uintptr(unsafe.Pointer(unsafe.SliceData(data)))%uintptr(max(512, s.info.SectorSize)) != 0 {
		r := s.l.Alloc(int(length))
		copy(r.Bytes(), data)
		op.impl.bounce.ref, data = r, r.Bytes()
	}
	io := &op.impl.disk
	io.Kind, io.Off, io.Data, io.Vec = loop.DiskSync, s.sb.blockOff(block)+int64(off), data, nil
	if op.impl.lazy && s.sb.Config.ChecksumType != ChecksumNone {
		io.Kind = loop.DiskWrite
	}
	if io.Done == nil {
		io.Done = func(*loop.DiskOp) { op.impl.store.deviceDone(op) }
	}
	s.direct++
	s.sendWrite(io)
}

// deviceDone takes an op's own device request that has finished.
func (s *Store) deviceDone(op *Op) {
	if op.Kind == OpRead || op.Kind == OpReadObject {
		s.readDone(op)
		s.closeStep()
		return
	}
	s.direct--
	op.impl.bounce.release()
	io := &op.impl.disk
	if io.Err != nil {
		s.deviceFailed("data", io)
	}
	if io.Kind == loop.DiskWrite {
		op.impl.stamp = s.lazy.landed()
	}
	c := &s.changes[op.impl.change]
	c.state = changeReady
	if s.failure != nil {
		if s.ops[op.impl.change] != nil {
			s.ops[op.impl.change] = nil
			s.finishOp(op, ErrFailed)
		}
		return
	}
	s.queueReady(&s.dirty[c.dirty])
}

// entrySize is the size of an op's journal entry.
func (s *Store) entrySize(op *Op) int {
	cfg := &s.sb.Config
	switch op.Kind {
	case OpWrite:
		n := len(op.Bitmap)
		if cfg.ChecksumType != ChecksumNone {
			n += 4 * int(op.Len/cfg.ChecksumBlock)
		}
		return objectEntrySize(n)
	case OpReplace:
		pairs := 0
		for i := range op.Pairs {
			if op.Pairs[i].Version <= op.Version {
				pairs++
			}
		}
		return objectEntrySize(2*cfg.BitmapLen() + 4*cfg.sums() + pairs*pairBytes)
	}
	return objectEntrySize(0)
}

// putOp writes an op's entry at mem[at:] and its data, if it travels in the journal, at mem[dataAt:]; pos is where mem begins in the ring. It returns the bytes of both.
func (s *Store) putOp(op *Op, mem []byte, at, dataAt int, seq uint64, pos uint32) (int, int) {
	cfg := &s.sb.Config
	c := &s.changes[op.impl.change]
	c.seq, c.entry, c.data = seq, pos+uint32(at), 0
	e := entry{kind: c.kind, flags: c.flags &^ (doomed | inJournal | moving), seq: seq, object: op.Object, base: uint64(op.Base), version: c.version, interval: c.interval, stateFlags: c.stateFlags,
		low: op.Low, off: c.off, length: c.length, block: c.block}
	if op.Kind == OpWrite || op.Kind == OpZero || op.Kind == OpDelete {
		e.pair = op.Pair
	}
	size := s.entrySize(op)
	if op.Kind != OpWrite && op.Kind != OpReplace {
		putObject(mem[at:], &e, size, 0)
		sealEntry(mem[at:], size)
		return size, 0
	}
	var data []byte
	if c.length > 0 {
		data = op.Data.Bytes()[op.DataOff:]
	}
	n := 0
	if op.impl.journaled {
		n = copy(mem[dataAt:], data[:c.length])
		data = mem[dataAt : dataAt+n]
		e.data = uint32(dataAt)
		c.data = pos + uint32(dataAt)
	}
	if op.Kind == OpWrite {
		putObject(mem[at:], &e, size, len(op.Bitmap))
		rest := mem[at+objectEntry:]
		rest = rest[copy(rest, op.Bitmap):]
		if cfg.ChecksumType != ChecksumNone {
			for i := uint32(0); i < c.length; i += cfg.ChecksumBlock {
				le.PutUint32(rest, crc32.Checksum(data[i:i+cfg.ChecksumBlock], castagnoli))
				rest = rest[4:]
			}
		}
	} else {
		s.putReplace(op, &e, mem[at:], size, data)
	}
	sealEntry(mem[at:], size)
	return size, n
}

func (s *Store) putReplace(op *Op, e *entry, b []byte, size int, data []byte) {
	cfg := &s.sb.Config
	pairs := 0
	for i := range op.Pairs {
		if op.Pairs[i].Version <= op.Version {
			pairs++
		}
	}
	putObject(b, e, size, pairs)
	rest := b[objectEntry:]
	bm := cfg.BitmapLen()
	if op.Version != 0 {
		copy(rest, op.Bitmap)
		copy(rest[bm:], op.Present)
	}
	sums := rest[2*bm:]
	if e.length > 0 && cfg.ChecksumType != ChecksumNone {
		for u := uint32(0); u < uint32(cfg.units()); u++ {
			if hasBit(op.Present, u) {
				s.sumUnit(sums[int(u)*4*cfg.sumsPerUnit():], data[u*cfg.Granularity:(u+1)*cfg.Granularity])
			}
		}
	}
	rest = sums[4*cfg.sums():]
	for i := range op.Pairs {
		if p := &op.Pairs[i]; p.Version <= op.Version {
			le.PutUint64(rest, p.Session)
			le.PutUint64(rest[8:], p.Sequence)
			le.PutUint64(rest[16:], uint64(p.Version))
			rest = rest[pairBytes:]
		}
	}
}

// sumUnit writes the checksums of one unit of data.
func (s *Store) sumUnit(dst, data []byte) {
	step := int(s.sb.Config.ChecksumBlock)
	for i := 0; i < len(data); i += step {
		le.PutUint32(dst, crc32.Checksum(data[i:i+step], castagnoli))
		dst = dst[4:]
	}
}

// written completes a change whose entry, and everything before it, is durable; soft: has landed in the device.
func (s *Store) written(op *Op, soft bool) {
	i := op.impl.change
	s.ops[i] = nil
	c := &s.changes[i]
	d := c.dirty
	switch op.Kind {
	case OpWrite, OpZero, OpDelete:
		if op.Pair.Session != 0 {
			s.pairs.add(s, op.Object, op.Pair, op.Low, c.version, c.batch)
		}
	case OpReplace:
		s.pairs.dropAll(s, op.Object)
		for k := range op.Pairs {
			if p := &op.Pairs[k]; p.Version <= op.Version && p.Session != 0 {
				s.pairs.add(s, op.Object, p.Pair, 0, uint64(p.Version), c.batch)
			}
		}
	}
	if soft {
		s.reveal(op)
	} else {
		s.show(i)
	}
	op.State = s.dirty[d].visible
	s.wake(d)
	s.clean(d)
	s.reply(op)
}
