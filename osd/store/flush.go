package store

import (
	"fmt"

	"holdfast/core/loop"
)

// The flusher moves data from the journal to blocks. How hard it works depends on how far back the oldest unflushed change reaches, in 1/256 of the journal.
const (
	flushStart = 64  // below, waiting pays: more writes of one block merge
	flushFull  = 160 // from here on it uses its whole depth
	roundStart = 112 // pages are written once the journal's tail is this old
	carryStart = 128 // and records carried forward
	longChain  = 128 // an object with so many unflushed changes is flushed whatever its age: reads walk them
	roundPages = 256 // pages in one round
	flushParts = 64  // pieces of one device write
)

// flusher is the state of the moves from the journal to blocks.
type flusher struct {
	ops     []*flushOp // idle ones
	running int
	skip    loop.Task // stands for a flush that the device does not need
	hot     []uint32  // dirty objects with long chains
	urgent  bool      // everything is to be flushed: closing, or idle
}

// flushOp is one device write of the flusher.
type flushOp struct {
	op    loop.DiskOp
	s     *Store
	dirty uint32
	vec   [flushParts][]byte
}

func (s *Store) newFlushOp() *flushOp {
	if n := len(s.fl.ops); n > 0 {
		f := s.fl.ops[n-1]
		s.fl.ops = s.fl.ops[:n-1]
		return f
	}
	f := &flushOp{s: s}
	f.op.Done = func(*loop.DiskOp) { f.s.flushed(f) }
	return f
}

// maintain keeps the journal from filling up: it starts flushes, rounds of page writes and carrying forward as the tail ages. It runs whenever any of them or a batch is done.
func (s *Store) maintain() {
	if s.failure != nil || s.o.ReadOnly || s.closed {
		return
	}
	s.j.advance()
	s.urge()
	s.nextMoves()
	s.flush()
	if s.closing {
		defer s.closeStep()
	}
	age := s.j.age(s.j.start())
	// The room that is kept for what is carried may be more than half of the journal: then a change waits for room long before the tail is old.
	if (age >= carryStart || s.j.stalled) && (s.j.stalled || s.closing || s.j.head-s.j.carriedAt > s.j.size/32) {
		s.j.carriedAt = s.j.head
		upTo := s.j.oldest + (s.j.seq-s.j.oldest)/8
		s.carry(upTo)
		if s.unstable > 0 {
			s.carryChains(upTo)
		}
	}
	if !s.round.active && s.t.dirtyLen > 0 && (age >= roundStart || s.j.stalled || s.fl.urgent && s.fl.running == 0) {
		s.startRound()
	}
	// Space that is free already counts only when a durable batch says so.
	used := s.j.head - s.j.freeFrom
	worth := used > s.j.size/2 || s.j.stalled && s.j.start()-s.j.freeFrom > 2*journalAlign // more than saying so takes
	if s.j.flying == 0 && s.j.oldest > s.j.tailKnown && (s.j.stalled || age >= carryStart || used > s.j.size/4*3) && worth {
		s.j.send(true)
	}
}

// depth is how many writes the flusher may have under way.
func (s *Store) depth() int {
	if s.fl.urgent {
		return s.o.FlushDepth
	}
	d := s.fifo.head
	if d == 0 {
		return 0
	}
	first := s.changes[s.dirty[d].first].batch
	age := s.j.age(s.j.batches[first].pos)
	if age < flushStart && !s.j.stalled {
		return 0
	}
	if s.throttle.On || s.j.stalled {
		return s.o.FlushDepth // clients wait for it already
	}
	return min(s.o.FlushDepth, 2+(age-flushStart)*s.o.FlushDepth/(flushFull-flushStart))
}

func (s *Store) flush() {
	for _, d := range s.fl.hot {
		if s.dirty[d].inList {
			s.flushObject(d)
		}
	}
	s.fl.hot = s.fl.hot[:0]
	for s.fifo.head != 0 && s.fl.running < s.depth() {
		s.flushObject(s.fifo.head)
	}
}

// flushObject writes what an object has in the journal to its block and folds it when that is done.
func (s *Store) flushObject(d uint32) {
	o := &s.dirty[d]
	if o.inList {
		s.fifo.remove(s, d)
	}
	cut := s.cut(o)
	if cut == 0 || o.carrying {
		return // waits for a commit; the next visible change brings it back
	}
	v := &s.foldView
	s.resolve(v, o.slot, d, cut)
	g := s.sb.Config.Granularity
	s.t.bump(o.slot)
	o.flushTo = cut
	for u, n := uint32(0), uint32(len(v.data)); u < n; u++ {
		if v.data[u] == 0 || !hasBit(v.present, u) {
			continue
		}
		if v.block == noBlock {
			panic(fmt.Sprintf("store: object %v has data and no block", s.t.object(o.slot)))
		}
		f := s.newFlushOp()
		f.dirty = d
		vec := f.vec[:0]
		start := u
		for ; u < n && v.data[u] != 0 && hasBit(v.present, u); u++ {
			p := v.data[u]
			if last := len(vec) - 1; last >= 0 && v.data[u-1]+g == p {
				vec[last] = vec[last][:len(vec[last])+int(g)]
				continue
			}
			if len(vec) == flushParts {
				break
			}
			vec = append(vec, s.j.mem[p:p+g:s.j.size])
		}
		u--
		f.op.Kind, f.op.Off = loop.DiskWrite, s.sb.blockOff(v.block)+int64(start)*int64(g)
		if len(vec) == 1 {
			f.op.Data, f.op.Vec = vec[0], nil
		} else {
			f.op.Data, f.op.Vec = nil, vec
		}
		o.flushing++
		s.fl.running++
		s.sendWrite(&f.op)
	}
	if o.flushing == 0 {
		s.foldFlushed(d)
	}
}

// flushed takes one finished write of the flusher.
func (s *Store) flushed(f *flushOp) {
	s.fl.running--
	if f.op.Err != nil {
		s.deviceFailed("data", &f.op)
	}
	clear(f.vec[:])
	s.fl.ops = append(s.fl.ops, f)
	d := f.dirty
	o := &s.dirty[d]
	if o.flushing--; o.flushing == 0 && s.failure == nil {
		s.foldFlushed(d)
	}
	s.l.Defer(&s.j.task)
	s.closeStep()
}

func (s *Store) foldFlushed(d uint32) {
	o := &s.dirty[d]
	s.fold(d, o.flushTo)
	o.flushTo = 0
	o.payloads = 0
	for i := o.first; i != 0 && s.changes[i].state == changeVisible; i = s.changes[i].next {
		if c := &s.changes[i]; c.resets(s.sb.Config.BlockSize) {
			o.payloads = 0
		} else if c.data != 0 {
			o.payloads++
		}
	}
	if o.payloads == 0 {
		s.foldNow(d)
	}
	if o.first != 0 && s.changes[o.first].state == changeVisible {
		s.fifo.push(s, d)
	}
	s.clean(d)
}

// carry writes records again that the tail is about to reach.
func (s *Store) carry(upTo uint64) {
	if len(s.j.records) > 0 {
		return // the last carrying is not through yet
	}
	s.pgs.carry(s, upTo)
	s.pairs.carry(s, upTo)
}
