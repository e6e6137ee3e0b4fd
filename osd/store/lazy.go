package store

import (
	"holdfast/core/loop"
	"holdfast/core/planted"
)

// Laziness says when a change may be acknowledged.
type Laziness uint8

// The values of Op.Lazy.
const (
	Durable    Laziness = iota // when it is durable
	LazyBlocks                 // like Lazy if its data goes straight to a block, else when it is durable
	Lazy                       // when the device has taken it: it is durable when a later OpSync, or a later durable change, is done
)

// softAge is how far back the oldest change that is not durable may reach, in 1/256 of the journal, before the store makes it durable by itself: until then nothing of it can be flushed.
const softAge = 32

// lazy is what has been acknowledged and is not durable yet.
//
// Lazy changes travel in soft batches, which are written without being written through. When such a batch and all before it have landed in the device, its changes are visible and done, but they stay in
// their chains: they are not folded and their data is not moved, since the journal might lose them. A hard batch (one with a change that must be durable, a record, or nothing at all but
// an OpSync that waits for it) goes out only after a flush that covers every soft batch before it and all data that its own changes have in blocks; its header says that those are durable. When it is
// durable, so is everything before it. So replay finds a prefix of what was done, whatever the device kept of the soft batches at the end.
//
// The data of a lazy change that went straight to a block may be lost where the batch with its entry is not. Replay compares it with its checksums if no later batch says that the batch was durable
// (opening.checkSoft); where data has no checksums it is written through.
type lazy struct {
	changes  []uint32 // visible and not durable, in the order of the journal
	batches  int      // soft batches under way
	batch    uint64   // the last one built
	landings uint64   // soft batches and data that have landed, ever
	stamp    uint64   // the landing of the last soft batch
	covered  uint64   // landings that a flush covers
	hard     int      // changes in the journal's queue that must be durable
	flying   int      // hard batches under way
	syncs    opList   // OpSync that wait
	want     bool     // the store itself wants everything durable
	flushing bool
	mark     uint64 // the landings that the flush under way covers
	op       loop.DiskOp
}

// Unsynced is how many changes are acknowledged and not durable.
func (s *Store) Unsynced() int { return len(s.lazy.changes) }

// isLazy decides for a change whether it may be done before it is durable; direct: its data goes straight to a block.
func (s *Store) isLazy(op *Op, direct bool) bool {
	if op.Kind > OpDelete || s.info.WriteThrough {
		return false
	}
	return op.Lazy == Lazy || op.Lazy == LazyBlocks && direct
}

// sync completes op when everything that is acknowledged now is durable.
func (s *Store) sync(op *Op) {
	if len(s.lazy.changes) == 0 || planted.SyncUnflushed {
		s.finishOp(op, nil)
		return
	}
	s.lazy.syncs.push(op)
	s.l.Defer(&s.j.task)
}

// due reports whether a hard batch must go out for the sake of what is visible already.
func (z *lazy) due() bool {
	return (z.syncs.head != nil || z.want) && len(z.changes) > 0 && z.flying == 0
}

// clear reports whether a flush covers every soft batch.
func (z *lazy) clear() bool { return z.batches == 0 && z.stamp <= z.covered }

// flushSoft makes durable what has landed, unless something is on its way that must be covered too: then that calls again.
func (s *Store) flushSoft() {
	z := &s.lazy
	if z.flushing || z.batches > 0 {
		return
	}
	if z.op.Done == nil {
		z.op.Kind = loop.DiskFlush
		z.op.Done = func(*loop.DiskOp) { s.softFlushed() }
	}
	z.flushing, z.mark = true, z.landings
	s.flushes++
	s.d.Submit(&z.op)
}

func (s *Store) softFlushed() {
	z := &s.lazy
	z.flushing = false
	if z.op.Err != nil {
		s.deviceFailed("", &z.op)
	} else {
		z.covered = z.mark
	}
	s.l.Defer(&s.j.task)
	s.closeStep()
}

// landed counts something that a later flush must cover, and returns its number.
func (z *lazy) landed() uint64 {
	z.landings++
	return z.landings
}

// reveal makes a change visible that is not durable.
func (s *Store) reveal(op *Op) {
	i := op.impl.change
	c := &s.changes[i]
	o := &s.dirty[c.dirty]
	c.state = changeSoft
	o.shown++
	o.visible = stateAfter(o.visible, c)
	o.lastVisible = i
	s.lazy.changes = append(s.lazy.changes, i)
}

// harden is called when everything visible has become durable.
func (s *Store) harden() {
	z := &s.lazy
	for _, i := range z.changes {
		c := &s.changes[i]
		d := c.dirty
		c.state = changeVisible
		s.payload(&s.dirty[d], c)
		s.ripen(d)
		s.clean(d)
	}
	z.changes, z.want = z.changes[:0], false
	for op := z.syncs.pop(); op != nil; op = z.syncs.pop() {
		s.finishOp(op, nil)
	}
}

// urge makes everything durable when it would stand in the way otherwise.
func (s *Store) urge() {
	z := &s.lazy
	if len(z.changes) == 0 || z.want {
		return
	}
	first := s.j.batches[s.changes[z.changes[0]].batch].pos
	if s.j.stalled || s.closing || s.fl.urgent || s.j.age(first) >= softAge {
		z.want = true
		s.l.Defer(&s.j.task)
	}
}

// softLeft reports whether a Close has to wait for something here.
func (z *lazy) softLeft() bool { return len(z.changes) > 0 || z.batches > 0 || z.syncs.head != nil }
