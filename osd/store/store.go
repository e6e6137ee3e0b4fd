package store

import (
	"log/slog"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
)

// Options say how to open a store. None of them is kept on disk.
type Options struct {
	Log       *slog.Logger // nil: the loop's
	OnFailure func(error)  // called once, when a device error stops the store
	ReadOnly  bool         // nothing is written, not even the boot counter; changes are refused
	// AcceptDamage lets Open go on where it would return a *DamagedError: the store takes a new id and is empty.
	AcceptDamage bool
	// Owner is who opens the store. A store of somebody else is not opened, and not changed (*OwnerError); one that is nobody's yet becomes theirs. Zero: whoever it is.
	Owner Owner
	// SmallWrite is the largest first write of an object that goes through the journal instead of straight to its block; default 16 KiB.
	SmallWrite uint32
	// FlushDepth is the most writes that the flusher has under way; default 32.
	FlushDepth int
	// ParkAfter is how long a version at least waits for its commit, while much does, before its data is moved out of the journal; default 10 s.
	ParkAfter time.Duration
	Throttle  Throttle

	// MinDiscard has the free blocks discarded after the opening, in the background, where at least so many bytes of them are in a row; 0: none are.
	MinDiscard int64

	// For tests: pages in one round, and queued bytes that send a second batch beside the first.
	roundPages, secondBatch int

	salvage bool // go past damage
}

// Store is the block store of one disk. It belongs to one loop.
type Store struct {
	l    loop.Loop
	d    loop.Disk
	o    Options
	log  *slog.Logger
	sb   Superblock
	info loop.DiskInfo

	t      *table
	blocks *bitset
	// What is kept back of slots and blocks for deletes and replacements.
	keepSlots, keepBlocks uint64

	changes    []change // number 0 is not used
	changeFree uint32
	ops        []*Op // of the change with the same number, until it is done
	dirty      []dirtyObject
	dirtyFree  uint32
	dirtyLen   int
	fifo       dirtyList // objects with changes to flush, oldest first

	j        journal
	fl       flusher
	round    round
	lazy     lazy
	throttle throttle
	pairs    pairs
	pgs      pgRecords
	lists    map[layout.PoolID]*poolLists
	space    map[layout.Inode]*int64

	view      view // scratch of reads
	foldView  view // scratch of folds
	finished  opList
	finish    loop.Task
	unstable  int // weight of the changes that wait for a commit
	parking   parking
	reads     int // reads under way on the device
	direct    int // data writes under way on the device
	discards  int // discards under way
	discard   discard
	replaying bool
	failure   error
	closing   bool
	closed    bool
	onClosed  func()
	stage     closeStage
	idle      loop.Timer
	idleSeq   uint64

	objects, tombstones   uint64
	checksumErrors        uint64
	deviceWrites, flushes uint64
	syncWrites            uint64
	deviceBytes           uint64
	taken                 [OpSync + 1]uint64
}

// opList is a list of ops linked through their private part.
type opList struct{ head, tail *Op }

func (q *opList) push(op *Op) {
	op.impl.next = nil
	if q.tail == nil {
		q.head = op
	} else {
		q.tail.impl.next = op
	}
	q.tail = op
}

func (q *opList) pop() *Op {
	op := q.head
	if op != nil {
		if q.head = op.impl.next; q.head == nil {
			q.tail = nil
		}
		op.impl.next = nil
	}
	return op
}

// opImpl is the store's private part of an Op.
type opImpl struct {
	store  *Store
	next   *Op
	disk   loop.DiskOp
	bounce refHolder // an aligned copy of what is being written, when the caller's is not aligned
	change uint32
	want   uint64 // a waiting read starts when so many changes of the object are visible
	// A read on the device:
	slot        uint32
	gen         uint16
	block       uint32
	first, last uint32       // units being read
	journaled   bool         // the data travels in the journal
	block0      uint32       // the block the change gives to the object
	lazy        bool         // done before it is durable
	stamp       uint64       // the landing of its data, if that was written lazily
	start, due  loop.Instant // a small write: its submission, and its reply if that is held back
	busy        bool         // between Submit and Done
	onDevice    bool         // a read is
}

// ReadOnly reports whether the store was opened for looking only.
func (s *Store) ReadOnly() bool { return s.o.ReadOnly }

// Superblock says what the disk was formatted with.
func (s *Store) Superblock() Superblock { return s.sb }

// Failure is the device error that stopped the store, or nil.
func (s *Store) Failure() error { return s.failure }

// Stats are the store's figures now.
func (s *Store) Stats() Stats {
	c := &s.sb.Config
	st := Stats{Waiting: uint64(s.live()), MaxWaiting: uint64(max(0, s.maxLive())), Parked: uint64(s.parking.bytes), BlockSize: c.BlockSize, Granularity: c.Granularity, Blocks: s.sb.Blocks, KeptBlocks: s.keepBlocks, Objects: s.objects, Tombstones: s.tombstones,
		JournalBytes: uint64(s.sb.Journal.Len), DirtyByte: s.j.head - s.j.start(), ChecksumErrors: s.checksumErrors,
		DeviceWrites: s.deviceWrites, Flushes: s.flushes, SyncWrites: s.syncWrites, DeviceBytes: s.deviceBytes, Sequence: s.j.durableEntry,
		Pairs: uint64(s.pairs.n), MaxPairs: uint64(s.pairs.limit(s)), TornTail: s.j.torn, Taken: s.taken}
	if s.t != nil {
		st.Buffers = uint64(len(s.t.refs))
	}
	if s.t != nil && s.t.slotFree.free > s.keepSlots {
		st.FreeSlots = s.t.slotFree.free - s.keepSlots
	}
	if s.blocks != nil && s.blocks.free > s.keepBlocks {
		st.FreeBlocks = s.blocks.free - s.keepBlocks
	}
	return st
}

// SpaceByInode calls f for each inode that has data blocks, in order, with the bytes of those blocks.
func (s *Store) SpaceByInode(f func(inode layout.Inode, bytes int64)) {
	for _, inode := range sortedKeys(s.space) {
		if n := *s.space[inode]; n != 0 {
			f(inode, n)
		}
	}
}

func (s *Store) addSpace(inode layout.Inode, bytes int64) {
	p := s.space[inode]
	if p == nil {
		p = new(int64)
		s.space[inode] = p
	}
	if *p += bytes; *p == 0 {
		delete(s.space, inode)
	}
}

// State is what the store holds of an object: its newest change that is visible, and durable but for those with Op.Lazy.
func (s *Store) State(oid layout.ObjectID) (State, bool) {
	_, slot, d, ok := s.lookup(oid)
	if !ok {
		return State{}, false
	}
	if d != 0 {
		st := s.dirty[d].visible
		return st, st.Version != 0
	}
	return slotView(s.t.slot(slot)).state(), true
}

// Newest is State including changes that were submitted and are not durable yet: the version that the next change must be based on.
func (s *Store) Newest(oid layout.ObjectID) (State, bool) {
	_, slot, d, ok := s.lookup(oid)
	if !ok {
		return State{}, false
	}
	if d != 0 {
		st := s.dirty[d].newest
		return st, st.Version != 0
	}
	return slotView(s.t.slot(slot)).state(), true
}

// HasBlock reports whether an object has a data block, with all that was submitted: what is written to it then needs no other one that stays.
func (s *Store) HasBlock(oid layout.ObjectID) bool {
	_, slot, d, ok := s.lookup(oid)
	if ok && d != 0 {
		return s.dirty[d].hasBlock
	}
	return ok && slotView(s.t.slot(slot)).block() != noBlock
}

// lookup finds an object: its place in the index, its slot, and its dirty object if it has one.
func (s *Store) lookup(oid layout.ObjectID) (at, slot, dirty uint32, ok bool) {
	t := s.t
	for i := t.home(oid); ; {
		v := t.index[i]
		if v == 0 {
			return 0, 0, 0, false
		}
		v--
		d := uint32(0)
		if v&dirtyBit != 0 {
			d = v &^ dirtyBit
			v = s.dirty[d].slot
		}
		if t.object(v) == oid {
			return i, v, d, true
		}
		if i++; int(i) == len(t.index) {
			i = 0
		}
	}
}

// objectOfIndex is the object that an index value stands for.
func (s *Store) objectOfIndex(v uint32) layout.ObjectID {
	if v&dirtyBit != 0 {
		v = s.dirty[v&^dirtyBit].slot
	}
	return s.t.object(v)
}

// Submit starts an op; op.Done is called later, once.
func (s *Store) Submit(op *Op) {
	op.Err, op.State = nil, State{}
	op.impl.store, op.impl.busy = s, true
	switch {
	case s.failure != nil:
		s.finishOp(op, ErrFailed)
	case s.closing:
		s.finishOp(op, ErrClosed)
	case op.Kind == OpRead || op.Kind == OpReadObject:
		s.read(op)
	case op.Kind == OpSync:
		s.sync(op)
	default:
		if err := s.change(op); err != nil {
			s.finishOp(op, err)
			return
		}
		s.taken[op.Kind]++
	}
}

// sendWrite submits a write and counts it.
func (s *Store) sendWrite(op *loop.DiskOp) {
	s.deviceWrites++
	if op.Kind == loop.DiskSync {
		s.syncWrites++
	}
	s.deviceBytes += uint64(op.Bytes())
	s.d.Submit(op)
}

// finishOp completes an op at the end of the turn.
func (s *Store) finishOp(op *Op, err error) {
	op.Err = err
	s.finished.push(op)
	s.l.Defer(&s.finish)
}

func (s *Store) runFinished() {
	q := s.finished
	s.finished = opList{}
	for op := q.pop(); op != nil; op = q.pop() {
		op.impl.busy = false
		op.Done(op)
	}
	s.closeStep()
}

// fail stops the store for good: a device that lost a write cannot be trusted with the next one.
func (s *Store) fail(err *DeviceError) {
	if s.failure != nil {
		return
	}
	s.failure = err
	s.log.Error("store stopped after a device error", "err", err, "device", err.Device, "operation", err.Op.String(), "offset", err.Off, "len", err.Len, "errno", int(err.Errno()))
	s.j.queue = opList{}
	s.releaseHeld(true)
	for i, op := range s.ops {
		if op != nil && s.changes[i].state != changeWriting {
			s.ops[i] = nil
			s.finishOp(op, ErrFailed)
		}
	}
	for i := range s.dirty {
		for op := s.dirty[i].waiters.pop(); op != nil; op = s.dirty[i].waiters.pop() {
			s.finishOp(op, ErrFailed)
		}
	}
	for op := s.lazy.syncs.pop(); op != nil; op = s.lazy.syncs.pop() {
		s.finishOp(op, ErrFailed)
	}
	s.pgs.fail(s, ErrFailed)
	if s.o.OnFailure != nil {
		s.o.OnFailure(err)
	}
}
