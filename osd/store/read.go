package store

import (
	"hash/crc32"

	"holdfast/core/loop"
	"holdfast/core/planted"
)

// read starts a read, or lets it wait until the changes submitted before it are visible.
func (s *Store) read(op *Op) {
	c := &s.sb.Config
	if op.Kind == OpReadObject {
		op.Offset, op.Len, op.AtMost, op.Bounded = 0, c.BlockSize, 0, false
	}
	op.Data = nil
	if op.Offset%c.Granularity != 0 || op.Len%c.Granularity != 0 || op.Offset > c.BlockSize || op.Len > c.BlockSize-op.Offset {
		s.finishOp(op, ErrNotAligned)
		return
	}
	_, _, d, _ := s.lookup(op.Object)
	if d != 0 {
		if o := &s.dirty[d]; o.shown != o.submitted {
			if op.impl.want = s.awaited(o, op); op.impl.want > o.shown {
				o.waiters.push(op)
				return
			}
		}
	}
	s.startRead(op)
}

// awaited is how many of an object's changes must be visible before a read: up to the last that makes a difference to it.
func (s *Store) awaited(o *dirtyObject, op *Op) uint64 {
	if op.Kind == OpReadObject {
		return o.submitted
	}
	n, want := o.shown, uint64(0)
	for i := o.first; i != 0; i = s.changes[i].next {
		c := &s.changes[i]
		if c.state == changeVisible || c.state == changeSoft {
			continue
		}
		n++
		switch c.kind {
		case entryCommit:
		case entryWrite, entryZero, entryDelete:
			if !op.bounded() || c.version <= uint64(op.AtMost) {
				want = n
			}
		default:
			want = n
		}
	}
	return want
}

// bounded reports whether an op reads the newest version up to AtMost, and not the newest.
func (op *Op) bounded() bool { return op.Bounded || op.AtMost != 0 }

// wake starts the reads that waited for changes that are visible now.
func (s *Store) wake(d uint32) {
	q := s.dirty[d].waiters
	s.dirty[d].waiters = opList{}
	for op := q.pop(); op != nil; op = q.pop() {
		if op.impl.want <= s.dirty[d].shown {
			s.startRead(op)
		} else {
			s.dirty[d].waiters.push(op)
		}
	}
}

// upTo is the last change that belongs to the newest version at or below the given one; 0: none. Versions below the newest stable one are gone: their data may have been written over.
func (s *Store) upTo(d uint32, version uint64) (last uint32) {
	o := &s.dirty[d]
	above := false
	for i := o.first; i != 0 && o.lastVisible != 0; i = s.changes[i].next {
		switch c := &s.changes[i]; {
		case c.flags&entryUnstable == 0:
			last, above = i, false
		case c.version > version || above:
			above = true
		default:
			last = i
		}
		if i == o.lastVisible {
			break
		}
	}
	return last
}

// look resolves an object into s.view for a read. ok is false when the op has been completed with an error.
func (s *Store) look(op *Op) (slot uint32, there, ok bool) {
	v := &s.view
	_, slot, d, there := s.lookup(op.Object)
	if !there {
		v.clear()
		return 0, false, true
	}
	last, bounded := uint32(0), op.bounded() && !planted.AtMostIgnored
	if d != 0 {
		last = s.dirty[d].lastVisible
		if bounded {
			last = s.upTo(d, uint64(op.AtMost))
		}
	}
	s.resolve(v, slot, d, last)
	if v.state.Flags&Void != 0 {
		op.State = v.state
		s.finishOp(op, ErrVoid)
		return 0, true, false
	}
	if bounded && v.state.Version > op.AtMost {
		op.State = v.state
		s.finishOp(op, ErrVersionGone)
		return 0, true, false
	}
	return slot, true, true
}

func (s *Store) startRead(op *Op) {
	slot, there, ok := s.look(op)
	if !ok {
		return
	}
	if op.Len > 0 {
		op.Data = s.l.Alloc(int(op.Len))
	}
	v := &s.view
	g := s.sb.Config.Granularity
	u0, u1 := op.Offset/g, (op.Offset+op.Len)/g
	first, last := u1, u0
	for u := u0; there && u < u1; u++ {
		if hasBit(v.present, u) && v.data[u] == 0 {
			first, last = min(first, u), u+1
		}
	}
	if first == u1 {
		s.assemble(op, u0, u0)
		return
	}
	if v.block == noBlock {
		panic("store: data is present in no block")
	}
	x := &op.impl
	x.slot, x.gen, x.block, x.first, x.last = slot, s.t.gen(slot), v.block, first, last
	io := &x.disk
	io.Kind, io.Off, io.Data, io.Vec = loop.DiskRead, s.sb.blockOff(v.block)+int64(first)*int64(g), op.Data.Bytes()[(first-u0)*g:(last-u0)*g], nil
	if io.Done == nil {
		io.Done = func(*loop.DiskOp) { op.impl.store.deviceDone(op) }
	}
	s.reads++
	x.onDevice = true
	s.d.Submit(io)
}

// readDone takes the device's answer. When what was read may have moved meanwhile, the read starts again.
func (s *Store) readDone(op *Op) {
	s.reads--
	x := &op.impl
	x.onDevice = false
	retry := func() {
		op.Data.Release()
		op.Data = nil
		s.startRead(op)
	}
	switch {
	case s.failure != nil:
		s.dropRead(op, ErrFailed)
		return
	case s.t.gen(x.slot) != x.gen:
		retry()
		return
	case x.disk.Err != nil && gone(x.disk.Err):
		s.deviceFailed("data", &x.disk)
		s.dropRead(op, ErrFailed)
		return
	case x.disk.Err != nil:
		s.dropRead(op, &MediaError{Object: op.Object, Device: x.disk.Off, Len: len(x.disk.Data), Err: x.disk.Err})
		return
	}
	data := op.Data
	_, there, ok := s.look(op)
	if !ok {
		data.Release()
		op.Data = nil
		return
	}
	g := s.sb.Config.Granularity
	v := &s.view
	for u := op.Offset / g; u < (op.Offset+op.Len)/g; u++ {
		if !there || hasBit(v.present, u) && v.data[u] == 0 && (v.block != x.block || u < x.first || u >= x.last) {
			retry()
			return
		}
	}
	s.assemble(op, x.first, x.last)
}

func (s *Store) dropRead(op *Op, err error) {
	op.Data.Release()
	op.Data = nil
	s.finishOp(op, err)
}

// assemble completes a read from s.view: units [first, last) of the block are in op.Data already.
func (s *Store) assemble(op *Op, first, last uint32) {
	v, c := &s.view, &s.sb.Config
	g := c.Granularity
	u0, u1 := op.Offset/g, (op.Offset+op.Len)/g
	var data []byte
	if op.Data != nil {
		data = op.Data.Bytes()
	}
	for u := u0; u < u1; u++ {
		unit := data[(u-u0)*g : (u-u0+1)*g]
		switch {
		case !hasBit(v.present, u):
			clear(unit)
		case v.data[u] != 0:
			copy(unit, s.j.mem[v.data[u]:])
		default:
			if err := s.verify(op, u, unit); err != nil {
				s.dropRead(op, err)
				return
			}
		}
	}
	op.State = v.state
	bm := c.BitmapLen()
	if cap(op.Bitmap) < bm {
		op.Bitmap = make([]byte, bm)
	}
	if cap(op.Present) < bm {
		op.Present = make([]byte, bm)
	}
	op.Bitmap, op.Present = op.Bitmap[:bm], op.Present[:bm]
	copy(op.Bitmap, v.written)
	copy(op.Present, v.present)
	if planted.HoleTold && op.Kind == OpRead && op.Len == 0 {
		for u, at := range v.data {
			if at != 0 {
				op.Bitmap[u>>3] &^= 1 << (u & 7)
			}
		}
	}
	if op.Kind == OpReadObject {
		op.Pairs = s.pairs.of(op.Pairs[:0], op.Object)
	} else if op.State.Flags&Tombstone != 0 && !op.Exact {
		op.State.Version = 0
	}
	s.finishOp(op, nil)
}

// verify compares one unit read from the block of s.view with its checksums.
func (s *Store) verify(op *Op, u uint32, unit []byte) error {
	c := &s.sb.Config
	n := uint32(c.sumsPerUnit())
	if n == 0 || planted.ChecksumUnverified {
		return nil
	}
	v := &s.view
	var want []byte
	if v.sums[u] != 0 {
		want = s.j.mem[v.sums[u]:]
	} else {
		want = slotView(s.t.slot(op.impl.slot)).sums(s.t.bitmap)[u*n*4:]
	}
	for i := uint32(0); i < n; i++ {
		part := unit[i*c.ChecksumBlock : (i+1)*c.ChecksumBlock]
		if have := crc32.Checksum(part, castagnoli); have != le.Uint32(want[4*i:]) {
			s.checksumErrors++
			off := u*c.Granularity + i*c.ChecksumBlock
			return &ChecksumError{Object: op.Object, Offset: off, Device: s.sb.blockOff(v.block) + int64(off), Want: le.Uint32(want[4*i:]), Have: have}
		}
	}
	return nil
}
