package store

import (
	"hash/crc32"
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
)

// Nobody commits what belongs to a PG that has lost too many of its members, for as long as they are away. So that others' changes find room beside it, what has waited for long while it crowds the journal is parked: data that
// it has in the journal is moved to blocks of its own, and what is left, its entries, counts apart.
//
// A write that is parked becomes one that gives the object a new block, with all that the object holds after it; its chain is written again with that, as when it is carried forward. Where an object holds data here and there,
// each run of units has an entry of its own, of the same version: the first names the block, the last has the bitmap. They are entries as they always were, so that nothing is new in the format.

const (
	// parkAfter is how long a version waits at least before it is parked, if Options do not say. In a PG that works, peering included, it is committed much sooner, also in a lazy pool: there, a primary syncs as soon as
	// a store is crowded.
	parkAfter = 10 * time.Second
	// parkPause is how often what waits is looked through when it has crowded the journal.
	parkPause = time.Second
	// movers is how many objects are moved at once.
	movers = 4
	// parkSpace is the part of the blocks, 1/parkSpace, that parking leaves free besides what is kept back: it goes on where clients and recovery find the disk full.
	parkSpace = 128
)

// moving is set in change.flags (in memory only) while a mover has to do with the change; it waits for a commit.
const moving = 0x20

// parked is change.since of a change that counts apart.
const parked = ^uint32(0)

// parking is what goes on to park changes.
type parking struct {
	bytes  int // weight of what is parked, of s.unstable
	timer  loop.Timer
	queue  []uint32 // dirty objects to look at
	movers [movers]mover
}

// mover moves the data of one object's changes from the journal to blocks.
type mover struct {
	dirty uint32 // 0: idle
	void  bool   // what it has moved is settled
	ready bool   // all is moved; the chain is to be written again
	over  int    // of the moves, those that are in the journal
	read  Op
	write loop.DiskOp
	moves []move // in the order of the chain; of the last the data is under way if it is not ready
}

// move is what becomes of a change.
type move struct {
	change, block uint32
	bitmap, sums  []byte // of the whole block
	present       []byte
}

// live is the weight of what waits for a commit and is not parked; it may be maxLive.
func (s *Store) live() int    { return s.unstable - s.parking.bytes }
func (s *Store) maxLive() int { return s.unstableLimit() - s.parking.bytes }

// since is the loop's clock as change.since has it: milliseconds, which go round in 49 days, and parked is none of them.
func (s *Store) since() uint32 {
	return min(uint32(int64(s.l.Now())/int64(time.Millisecond)), parked-1)
}

// crowd has what waits looked through, soon, if with n bytes more there is so much of it that primaries make room.
func (s *Store) crowd(n int) {
	if s.live()+n > s.maxLive()/2 {
		s.parkSoon()
	}
}

func (s *Store) parkSoon() {
	if t := &s.parking.timer; !t.Armed() && !s.closing {
		t.Fire = s.park
		s.l.Arm(t, s.l.Now().Add(min(parkPause, s.o.ParkAfter)))
	}
}

// park looks for what has waited long, until there is room again.
func (s *Store) park() {
	if s.failure != nil || s.closing || s.live() <= s.maxLive()/4 {
		return
	}
	s.parkSoon()
	s.parking.queue = s.parking.queue[:0]
	for d := range s.dirty {
		data := false
		for i := s.dirty[d].first; i != 0; i = s.changes[i].next {
			if c := &s.changes[i]; s.long(c) && c.data == 0 {
				s.setApart(c)
			} else if s.long(c) {
				data = true
			}
		}
		if data {
			s.parking.queue = append(s.parking.queue, uint32(d))
		}
	}
	s.l.Defer(&s.j.task)
}

// long reports whether a change has waited for long, and is not parked.
func (s *Store) long(c *change) bool {
	return c.state == changeVisible && c.flags&entryUnstable != 0 && c.since != parked && time.Duration(s.since()-c.since)*time.Millisecond >= s.o.ParkAfter
}

// setApart counts a change that waits as parked; it has no data in the journal.
func (s *Store) setApart(c *change) {
	c.since = parked
	s.parking.bytes += s.weight(c)
}

// nextMoves gives idle movers something to do.
func (s *Store) nextMoves() {
	p := &s.parking
	for i := range p.movers {
		m := &p.movers[i]
		for !s.closing && m.dirty == 0 && len(p.queue) > 0 {
			d := p.queue[0]
			p.queue = p.queue[1:]
			if o := &s.dirty[d]; o.inList && s.cut(o) != 0 {
				s.fl.hot = append(s.fl.hot, d) // first what is stable; we come back to it
			} else if p.mover(d) == nil && s.mayCarry(d) {
				m.dirty, m.void, m.over, m.moves = d, false, 0, m.moves[:0]
				s.moveNext(m)
			}
		}
	}
}

// mover is the one that has to do with an object.
func (p *parking) mover(d uint32) *mover {
	for i := range p.movers {
		if m := &p.movers[i]; m.dirty == d && d != 0 {
			return m
		}
	}
	return nil
}

// moveVoid is called when a change that a mover has to do with is committed or dropped.
func (s *Store) moveVoid(d uint32) {
	s.parking.mover(d).void = true
	for i := s.dirty[d].first; i != 0; i = s.changes[i].next {
		s.changes[i].flags &^= moving
	}
	s.l.Defer(&s.j.task)
}

// moveNext reads what the object is after its next change to be moved.
func (s *Store) moveNext(m *mover) {
	i := s.dirty[m.dirty].first
	for i != 0 && (!s.long(&s.changes[i]) || s.changes[i].data == 0 || s.changes[i].flags&moving != 0) {
		i = s.changes[i].next
	}
	block, ok := noBlock, false
	if i != 0 {
		block, ok = s.takeBlock(s.keepBlocks + s.sb.Blocks/parkSpace)
	}
	if !ok {
		// There are no more, or they stay where they are.
		if m.ready = len(m.moves) > 0; !m.ready {
			s.endMove(m)
		}
		s.l.Defer(&s.j.task)
		return
	}
	c := &s.changes[i]
	c.flags |= moving
	m.moves = append(m.moves, move{change: i, block: block})
	m.read.Reset()
	m.read.Kind, m.read.Object, m.read.AtMost, m.read.Bounded, m.read.Len = OpRead, s.t.object(s.dirty[m.dirty].slot), layout.Version(c.version), true, s.sb.Config.BlockSize
	m.read.Done = func(*Op) { s.moveWrite(m) }
	s.Submit(&m.read)
}

// moveWrite writes it to the new block.
func (s *Store) moveWrite(m *mover) {
	at := &m.moves[len(m.moves)-1]
	if m.read.Err != nil || m.void || s.failure != nil || s.closing || uint64(m.read.State.Version) != s.changes[at.change].version {
		s.moveFailed(m)
		return
	}
	cfg, data := &s.sb.Config, m.read.Data.Bytes()
	at.bitmap, at.present = slices.Clone(m.read.Bitmap), slices.Clone(m.read.Present)
	parts := 0
	s.moveParts(at, func(_, length uint32, _ int, _ bool) {
		parts += s.weight(&change{kind: entryWrite, length: length, state: changeVisible})
	})
	if parts > s.weight(&s.changes[at.change]) {
		s.moveFailed(m) // its pieces are so many that nothing is gained
		return
	}
	off, length := presentRange(at.present, cfg.Granularity)
	if cfg.ChecksumType != ChecksumNone {
		at.sums = make([]byte, 0, 4*cfg.sums())
		for i := 0; i < len(data); i += int(cfg.ChecksumBlock) {
			at.sums = le.AppendUint32(at.sums, crc32.Checksum(data[i:i+int(cfg.ChecksumBlock)], castagnoli))
		}
	}
	m.write.Kind, m.write.Off, m.write.Data = loop.DiskSync, s.sb.blockOff(at.block)+int64(off), data[off:off+length]
	m.write.Done = func(*loop.DiskOp) { s.moveWritten(m) }
	s.direct++
	s.sendWrite(&m.write)
}

func (s *Store) moveWritten(m *mover) {
	s.direct--
	if m.write.Err != nil {
		s.deviceFailed("data", &m.write)
	}
	if m.void || s.failure != nil || s.closing {
		s.moveFailed(m)
	} else {
		m.read.Data.Release()
		m.read.Data = nil
		s.moveNext(m)
	}
	s.closeStep()
}

// moveFailed leaves everything as it is, and has it wait as long again: what cannot be read, or is in many pieces, is not read all the time.
func (s *Store) moveFailed(m *mover) {
	if m.read.Data != nil {
		m.read.Data.Release()
		m.read.Data = nil
	}
	for _, x := range m.moves {
		s.blocks.give(x.block)
		if !m.void { // else the change may be another one by now
			c := &s.changes[x.change]
			c.flags, c.since = c.flags&^moving, s.since()
		}
	}
	s.endMove(m)
}

func (s *Store) endMove(m *mover) {
	m.dirty, m.ready = 0, false
	clear(m.moves)
	s.l.Defer(&s.j.task)
}

// moved is the move of a change whose chain is to be written again, if it has one.
func (s *Store) moved(i uint32) *move {
	if c := &s.changes[i]; c.flags&moving != 0 {
		if m := s.parking.mover(c.dirty); m.ready {
			for k := range m.moves {
				if m.moves[k].change == i {
					return &m.moves[k]
				}
			}
		}
	}
	return nil
}

// movesReady reports whether data was moved and its journal is to say so; what became void meanwhile is dropped.
func (s *Store) movesReady() bool {
	any := false
	for i := range s.parking.movers {
		m := &s.parking.movers[i]
		switch {
		case !m.ready || s.dirty[m.dirty].carrying:
		case m.void || s.closing || !s.mayCarry(m.dirty):
			s.moveFailed(m)
		default:
			any = true
		}
	}
	return any
}

// nextRun is the next run of bits that are set, of n, from u on; from is n when there is none.
func nextRun(b []byte, u, n uint32) (from, to uint32) {
	for from = u; from < n && !hasBit(b, from); from++ {
	}
	for to = from; to < n && hasBit(b, to); to++ {
	}
	return from, to
}

// moveParts calls f with the place in the block, and the size of the entry, of each part of a change that was moved.
func (s *Store) moveParts(x *move, f func(off, length uint32, size int, last bool)) {
	cfg := &s.sb.Config
	n := uint32(cfg.units())
	for from, to := nextRun(x.present, 0, n); from < n; {
		next, end := nextRun(x.present, to, n)
		size := 4 * int(to-from) * cfg.sumsPerUnit()
		if next == n {
			size += len(x.bitmap)
		}
		f(from*cfg.Granularity, (to-from)*cfg.Granularity, objectEntrySize(size), next == n)
		from, to = next, end
	}
}

// movedSize is what the entries of a change take that was moved.
func (s *Store) movedSize(x *move) (n int) {
	s.moveParts(x, func(_, _ uint32, size int, _ bool) { n += size })
	return n
}

// putMoved writes the entries of a change that was moved into a batch being built. They are like the one that it has, old, but for where the data is; all but the first belong to the block that the first names.
func (j *journal) putMoved(f *flight, i uint32, x *move, old, mem []byte, at int, pos uint32) (end int) {
	s := j.s
	step := uint32(4 * s.sb.Config.sumsPerUnit())
	block := x.block
	s.moveParts(x, func(off, length uint32, size int, last bool) {
		b := mem[at : at+size]
		clear(b[copy(b, old[:objectEntry]):])
		rest := b[objectEntry:]
		le.PutUint32(b, uint32(size))
		le.PutUint32(b[20:], 0)
		if block == noBlock {
			copy(b[40:48], b[48:]) // it is made for the version that the first has made
		}
		if last {
			le.PutUint32(b[20:], uint32(len(x.bitmap)))
			rest = rest[copy(rest, x.bitmap):]
		}
		le.PutUint32(b[88:], off)
		le.PutUint32(b[92:], length)
		le.PutUint32(b[96:], 0)
		le.PutUint32(b[100:], block)
		u, g := off/s.sb.Config.Granularity, s.sb.Config.Granularity
		copy(rest, x.sums[u*step:(u+length/g)*step])
		f.carried = append(f.carried, carried{change: i, entry: pos + uint32(at), moved: true, block: block, off: off, length: length})
		block = noBlock
		at += size
	})
	return at
}

// movedOver is called when the journal says where the data of a change is: the first part of it stands for the change,
func (s *Store) movedOver(i uint32, m *carried) {
	c := &s.changes[i]
	s.unstable -= s.weight(c)
	if c.block != noBlock {
		s.freeBlock(c.block) // it was to take the data
	}
	c.off, c.length, c.block, c.data = m.off, m.length, m.block, 0
	c.flags &^= moving
	s.unstable += s.weight(c)
	s.setApart(c)
	o := &s.dirty[c.dirty]
	o.payloads--
	s.t.bump(o.slot)
	mv := s.parking.mover(c.dirty)
	if mv.over++; mv.over == len(mv.moves) {
		s.endMove(mv)
	}
}

// and each other follows it.
func (s *Store) addPart(prev uint32, m *carried) uint32 {
	i := s.newChange()
	p := &s.changes[prev]
	c := *p
	c.off, c.length, c.block = m.off, m.length, noBlock
	p.next, s.changes[i] = i, c
	o := &s.dirty[c.dirty]
	if o.last == prev {
		o.last = i
	}
	if o.lastVisible == prev {
		o.lastVisible = i
	}
	s.unstable += s.weight(&c)
	s.parking.bytes += s.weight(&c)
	return i
}
