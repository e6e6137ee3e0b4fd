package store

import (
	"math/bits"
	"time"

	"holdfast/core/loop"
	"holdfast/core/planted"
)

// Discards of free blocks after an opening (discard_on_start).
const (
	// discardMost is what one discard covers at most: a device that does nothing else meanwhile is soon back at clients' work.
	discardMost = 64 << 20
	// discardPart of the free blocks, 1/discardPart, is kept from writes meanwhile at most.
	discardPart = 8
	// discardRest is the shortest pause between two: after each the device rests as long as it worked.
	discardRest = time.Millisecond
)

// discard tells the device, once after an opening, which blocks hold nothing, one run of neighbours after the other. A run is taken as if it were written to, for as long as its discard is under way, so that nothing else is;
// a block is free for this only when it is free for a write, which is when nothing that is durable, or could become it, is in it. So a crash at any point changes nothing.
type discard struct {
	s     *Store
	op    loop.DiskOp
	timer loop.Timer
	next  uint32 // blocks before have been looked at
	from  uint32 // the run under way,
	n     uint32 // and how many blocks it has; 0: none is
	start loop.Instant
	runs  uint64
	bytes uint64
}

// startDiscard begins, if the options say so.
func (s *Store) startDiscard() {
	if s.o.MinDiscard <= 0 || s.o.ReadOnly {
		return
	}
	d := &s.discard
	d.s = s
	d.op.Kind, d.op.Done = loop.DiskDiscard, func(*loop.DiskOp) { d.done() }
	d.timer.Fire = d.step
	s.l.Arm(&d.timer, s.l.Now())
}

// step sends the next run that is worth it.
func (d *discard) step() {
	s := d.s
	if s.failure != nil || s.closing {
		return
	}
	size := uint64(s.sb.Config.BlockSize)
	most := uint32(min(discardMost/size+1, (s.blocks.free-min(s.blocks.free, s.keepBlocks))/discardPart))
	if most == 0 {
		d.end("the disk is nearly full")
		return
	}
	from, n, whole, ok := s.blocks.run(d.next, most)
	for goes := d.n > 0 && from == d.next; ok && !goes && uint64(whole)*size < uint64(s.o.MinDiscard); {
		from, n, whole, ok = s.blocks.run(from+whole, most)
	}
	if !ok {
		d.end("")
		return
	}
	if !planted.DiscardTaken {
		for b := from; b < from+n; b++ {
			s.blocks.take(b)
		}
	}
	d.from, d.n, d.next, d.start = from, n, from+n, s.l.Now()
	d.op.Off, d.op.Len = s.sb.blockOff(from), int64(n)*int64(size)
	s.discards++
	s.d.Submit(&d.op)
}

func (d *discard) done() {
	s := d.s
	s.discards--
	if !planted.DiscardTaken {
		for b := d.from; b < d.from+d.n; b++ {
			s.blocks.give(b)
		}
	}
	switch {
	case d.op.Err != nil && gone(d.op.Err):
		s.deviceFailed("", &d.op)
	case d.op.Err != nil:
		// What it did not do does no harm.
		s.log.Warn("free space is not discarded any more: the device does not do it", "err", d.op.Err)
	default:
		d.runs++
		d.bytes += uint64(d.op.Len)
		s.l.Arm(&d.timer, s.l.Now().Add(max(discardRest, s.l.Now().Sub(d.start))))
	}
	s.closeStep()
}

func (d *discard) end(early string) {
	args := []any{"bytes", d.bytes, "pieces", d.runs}
	if early != "" {
		args = append(args, "ended_early", early)
	}
	d.s.log.Info("free space was discarded", args...)
}

// run finds the first free numbers from at on: n of them in a row, at most the given number, of whole free ones in a row.
func (b *bitset) run(at, most uint32) (from, n, whole uint32, ok bool) {
	from = b.skip(at, false)
	if uint64(from) >= b.n {
		return 0, 0, 0, false
	}
	whole = b.skip(from, true) - from
	return from, min(whole, most), whole, true
}

// skip is the first number from at on that is taken, or free; n when there is none.
func (b *bitset) skip(at uint32, taken bool) uint32 {
	words := b.levels[0]
	for i := uint64(at) / 64; i < uint64(len(words)); i++ {
		w := words[i]
		if !taken {
			w = ^w
		}
		if i == uint64(at)/64 {
			w &^= 1<<(at%64) - 1
		}
		if w != 0 {
			return uint32(min(i*64+uint64(bits.TrailingZeros64(w)), b.n))
		}
	}
	return uint32(b.n)
}
