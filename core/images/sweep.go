package images

import (
	"errors"
	"fmt"
	"slices"

	"holdfast/core/client"
	"holdfast/core/layout"
)

const (
	// checkedAtOnce is how many objects are deleted after one look at the registry, where that is needed.
	checkedAtOnce = 256
	// maxPasses bounds how often the objects are listed until none is left.
	maxPasses = 20
)

// sweep deletes the objects of an inode from a stripe on, until a listing finds none.
//
// With check it is safe against somebody who has meanwhile the right to write there: the versions are read, then check must confirm that the right to delete is still ours,
// then each object is deleted only if it still has the version read.
type sweep struct {
	op    *Operation
	inode layout.Inode
	from  uint64
	check func(then func(error)) // nil: nobody may write there any more, for ever
	then  func()

	size    uint64 // of an object
	pass    int
	listing *client.Listing
	todo    []uint64
	next    int // in todo
	until   int // in todo: how far may be gone now
	version []layout.Version
	reading bool // versions, before the deletions
	running int
	workers []*worker
	last    client.Op
	waits   bool // check is under way
	err     error
}

type worker struct {
	s    *sweep
	op   client.Op
	busy bool
	at   int // in todo
}

func (op *Operation) purge(inode layout.Inode, from uint64, check func(func(error)), then func()) {
	g, err := op.c.Geometry(inode.Pool())
	if err != nil {
		op.finish(err)
		return
	}
	s := &sweep{op: op, inode: inode, from: from, check: check, then: then, size: g.ObjectSize()}
	op.sweep = s
	op.progress.Step = "deleting objects"
	if op.session == nil {
		op.session = op.c.NewSession(nil)
	}
	if op.began == 0 {
		op.began = op.l.Now()
	}
	for range op.o.Parallel {
		w := &worker{s: s}
		w.op.Done = func(*client.Op) { w.done() }
		s.workers = append(s.workers, w)
	}
	if check != nil || g.PGCount == 0 {
		s.list()
		return
	}
	// Each primary answers a delete only once it knows that the image is marked deleted: after one in every PG nothing is written any more, and the listing is complete.
	for pg := range uint64(g.PGCount) {
		s.todo = append(s.todo, pg*g.PGStripeSize)
	}
	s.until = len(s.todo)
	s.fill()
}

// list begins a pass.
func (s *sweep) list() {
	if s.pass++; s.pass > maxPasses {
		s.fail(fmt.Errorf("objects keep coming back after %d passes: somebody writes to it; stop its users and run it again", maxPasses))
		return
	}
	s.todo, s.next, s.until = s.todo[:0], 0, 0
	s.listing = s.op.c.ListObjects(s.inode, func(stripe uint64) {
		if stripe >= s.from {
			s.todo = append(s.todo, stripe)
		}
		s.op.advance()
	}, s.listed)
}

func (s *sweep) listed(err error) {
	s.listing = nil
	switch {
	case s.err != nil:
		s.end()
		return
	case errors.Is(err, client.ErrPGsChanged):
		s.list()
		return
	case err != nil:
		s.fail(err)
		return
	}
	s.op.advance()
	slices.Sort(s.todo)
	s.todo = slices.Compact(s.todo)
	s.op.progress.Total = s.op.progress.Objects + uint64(len(s.todo))
	if len(s.todo) == 0 {
		s.flush()
		return
	}
	s.batch()
}

// flush makes the deletions durable: what comes next may be that nobody remembers that they were to be made.
func (s *sweep) flush() {
	s.running++
	s.last = client.Op{Kind: client.Flush, Inode: s.inode, Done: func(op *client.Op) {
		s.running--
		switch {
		case s.err != nil:
			s.end()
		case op.Err != nil:
			s.fail(op.Err)
		default:
			s.op.sweep = nil
			s.then()
		}
	}}
	s.op.c.Submit(&s.last)
}

// batch begins the next batch, or the next pass.
func (s *sweep) batch() {
	s.next = s.until
	if s.next == len(s.todo) {
		s.list()
		return
	}
	s.until = len(s.todo)
	if s.check != nil {
		s.until = min(s.until, s.next+checkedAtOnce)
		s.version = slices.Grow(s.version[:0], s.until-s.next)[:s.until-s.next]
		s.reading = true
	}
	s.fill()
}

// fill gives every idle worker an object.
func (s *sweep) fill() {
	for _, w := range s.workers {
		for !w.busy && s.next < s.until && s.err == nil {
			w.at = s.next
			s.next++
			w.begin()
		}
	}
	if s.running == 0 && !s.waits {
		s.drained()
	}
}

func (w *worker) begin() {
	s := w.s
	op := &w.op
	op.Session, op.Inode, op.Offset, op.Len, op.CAS = s.op.session, s.inode, s.todo[w.at], s.size, 0
	op.Kind, op.Lazy = client.Delete, true
	switch first := s.first(); {
	case s.check == nil:
	case s.reading:
		op.Kind = client.ReadBitmap
	case s.version[w.at-first] == 0: // gone
		return
	default:
		op.CAS = s.version[w.at-first] + 1
	}
	w.busy = true
	s.running++
	s.op.c.Submit(op)
}

// first is where the present batch begins in todo.
func (s *sweep) first() int { return s.until - len(s.version) }

func (w *worker) done() {
	s := w.s
	w.busy = false
	s.running--
	err := w.op.Err
	switch _, conflict := errors.AsType[*client.ConflictError](err); {
	case conflict: // another look in the next pass
	case err != nil:
		if s.err == nil {
			s.err = fmt.Errorf("object %v: %w", layout.ObjectID{Inode: s.inode, Stripe: s.todo[w.at]}, err)
		}
	case s.reading:
		s.version[w.at-s.first()] = w.op.Version
	default:
		s.op.progress.Objects++
		s.op.progress.Bytes += s.size
		if d := s.op.l.Now().Sub(s.op.began); d > 0 {
			s.op.progress.Rate = float64(s.op.progress.Bytes) / d.Seconds()
		}
	}
	w.op.ReleaseParts()
	s.op.advance()
	s.fill()
}

// drained is called when nothing is under way and the batch is through, or the sweep is to end.
func (s *sweep) drained() {
	switch {
	case s.err != nil:
		s.end()
	case s.reading:
		s.waits = true
		s.check(func(err error) {
			s.waits = false
			s.reading = false
			if s.err == nil {
				s.err = err
			}
			s.next = s.first()
			s.fill()
		})
	case s.pass == 0:
		// What stood in the way of the first listing were no objects that anybody counts.
		s.op.progress.Objects, s.op.progress.Bytes, s.op.progress.Rate = 0, 0, 0
		s.list()
	default:
		s.batch()
	}
}

// look notes what the sweep waits for.
func (s *sweep) look() {
	if s.op.l.Now().Sub(s.op.moved) < progressInterval {
		return
	}
	if s.listing != nil {
		if pg, ok := s.listing.Waiting(); ok {
			s.op.progress.Waiting = fmt.Sprintf("PG %v, which has no active primary", pg)
			return
		}
	}
	for _, w := range s.workers {
		if !w.busy {
			continue
		}
		stripe := s.todo[w.at]
		g, err := s.op.c.Geometry(s.inode.Pool())
		if err != nil || g.PGCount == 0 {
			continue
		}
		pg := layout.PGID{Pool: s.inode.Pool(), Num: g.PG(stripe)}
		if s.op.c.Snapshot().Primary(pg) == 0 {
			s.op.progress.Waiting = fmt.Sprintf("PG %v, which has no active primary", pg)
			return
		}
		s.op.progress.Waiting = fmt.Sprintf("the answer of OSD %d for PG %v", s.op.c.Snapshot().Primary(pg), pg)
	}
}

// halt ends the sweep for Stop.
func (s *sweep) halt() { s.fail(ErrStopped) }

// fail ends the sweep once nothing is under way. What waits for a PG is given up: a delete that comes late harms nobody, as the objects are to go anyway, or have a version
// to compare.
func (s *sweep) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	if s.listing != nil {
		s.listing.Stop()
	}
	s.op.session.Fence()
	if s.running == 0 && !s.waits && s.listing == nil {
		s.op.after(0, s.end)
	}
}

func (s *sweep) end() {
	s.op.sweep = nil
	s.op.stop = false
	s.op.finish(s.err)
}
