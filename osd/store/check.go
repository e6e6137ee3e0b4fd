package store

import (
	"errors"
	"fmt"
	"io"

	"holdfast/core/loop"
)

// checkDepth is how many objects Check reads at once.
const checkDepth = 16

// Check verifies everything on a device without changing it: both superblocks, both copies of each metadata page, the journal, that no block has two owners, and each data
// checksum. It writes a line per problem to w. progress (which may be nil) is called now and then with the objects checked and their number. done gets
// the number of problems; its error says why the check could not be made at all.
func Check(l loop.Loop, d loop.Disk, w io.Writer, progress func(checked, total uint64), done func(problems int, err error)) {
	c := &checker{w: w, progress: progress, done: done}
	x := newDeviceIO(l, d)
	x.readSuper(func(st superState, _ error) {
		x.release()
		if !st.ok {
			if damage, is := errors.AsType[*DamagedError](st.failure()); is {
				c.problem("%v", damage)
				c.end(nil)
				return
			}
			done(0, st.failure())
			return
		}
		for i, err := range st.errs {
			if err != nil {
				c.problem("copy %d of the superblock: %v; the next opening for writing mends it", i, err)
			}
		}
		open(l, d, Options{ReadOnly: true}, func(p *opening) { c.pages(p) }, func(s *Store, err error) {
			if damage, is := errors.AsType[*DamagedError](err); is {
				c.problem("%v", damage)
				c.end(nil)
				return
			}
			if err != nil {
				c.end(err)
				return
			}
			c.s = s
			c.total = s.objects
			c.running = 1 // this call's own
			for range checkDepth {
				op := &Op{Kind: OpReadObject, Done: c.read}
				c.next(op)
			}
			c.finish()
		})
	})
}

type checker struct {
	s        *Store
	w        io.Writer
	progress func(checked, total uint64)
	done     func(int, error)
	problems int
	slot     uint32
	checked  uint64
	total    uint64
	running  int
	err      error
}

func (c *checker) problem(format string, args ...any) {
	c.problems++
	if _, err := fmt.Fprintf(c.w, format+"\n", args...); err != nil && c.err == nil {
		c.err = err
	}
}

// pages notes page copies that are not good. Those of an unfinished round are in order: the power went while they were written.
func (c *checker) pages(p *opening) {
	for _, b := range p.bad {
		if a, ok := p.live[b.page]; !ok || a.round <= p.s.round.done {
			c.problem("metadata page %d at device offset %d: %v", b.page, b.off, b.err)
		}
	}
}

// next reads the object in the next used slot.
func (c *checker) next(op *Op) {
	for ; uint64(c.slot) < c.s.sb.Slots && c.err == nil; c.slot++ {
		if c.s.t.slotFree.has(c.slot) {
			op.Object = c.s.t.object(c.slot)
			c.slot++
			c.running++
			c.s.Submit(op)
			return
		}
	}
}

func (c *checker) read(op *Op) {
	if op.Err != nil && op.Err != ErrVoid {
		c.problem("%v", op.Err)
	}
	if op.Data != nil {
		op.Data.Release()
		op.Data = nil
	}
	if op.State.Flags&Unstable != 0 {
		// The versions below are kept, too: down to the newest stable one.
		op.Kind, op.Offset, op.Len, op.AtMost, op.Bounded, op.Exact = OpRead, 0, c.s.sb.Config.BlockSize, op.State.Version-1, true, true
		c.s.Submit(op)
		return
	}
	op.Kind, op.AtMost, op.Bounded = OpReadObject, 0, false
	if c.checked++; c.progress != nil && (c.checked%1024 == 0 || c.checked == c.total) {
		c.progress(c.checked, c.total)
	}
	c.next(op)
	c.finish()
}

// finish ends the check when nothing runs any more.
func (c *checker) finish() {
	if c.running--; c.running == 0 {
		c.s.Close(func() { c.end(nil) })
	}
}

func (c *checker) end(err error) {
	if err == nil {
		err = c.err
	}
	c.done(c.problems, err)
}
