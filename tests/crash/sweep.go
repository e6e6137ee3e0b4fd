package crash

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"

	"holdfast/core/loop"
	"holdfast/osd/store"
)

// Fault is one device call that fails.
type Fault struct {
	Kind string // read, write or flush
	How  string // EIO, ENOSPC (nothing was written) or short (half of it was)
	N    int    // which call of that kind
}

func (f Fault) String() string { return fmt.Sprintf("%s %d fails with %s", f.Kind, f.N, f.How) }

// Faults are the ways in which a call can fail; N is for the sweep to set.
var Faults = []Fault{{"read", "EIO", 0}, {"write", "EIO", 0}, {"write", "ENOSPC", 0}, {"write", "short", 0}, {"flush", "EIO", 0}}

func (f Fault) err() error {
	switch f.How {
	case "EIO":
		return syscall.EIO
	case "ENOSPC":
		return syscall.ENOSPC
	}
	return io.ErrShortWrite
}

// faulty is a disk among those of which the n-th call of a kind fails.
type faulty struct {
	loop.Disk
	*faults
}

// faults is what faulty disks of one store have in common.
type faults struct {
	l     loop.Loop
	fault Fault
	calls int
	fired bool
	late  loop.Task
	half  loop.DiskOp
}

func (d *faulty) Submit(op *loop.DiskOp) {
	kind := "write"
	switch op.Kind {
	case loop.DiskRead:
		kind = "read"
	case loop.DiskFlush:
		kind = "flush"
	}
	if kind == d.fault.Kind {
		d.calls++
	}
	if kind != d.fault.Kind || d.calls != d.fault.N {
		d.Disk.Submit(op)
		return
	}
	d.fired = true
	fail := func() {
		op.Err = fmt.Errorf("%v at %d: %w", op.Kind, op.Off, d.fault.err())
		op.Done(op)
	}
	if d.fault.How != "short" {
		d.late.Run = fail
		d.l.Defer(&d.late)
		return
	}
	sector := d.Info().SectorSize
	data := op.Data
	if len(op.Vec) > 0 {
		data = op.Vec[0]
	}
	d.half = loop.DiskOp{Kind: loop.DiskWrite, Off: op.Off, Data: data[:(len(data)/2+sector-1)/sector*sector], Done: func(*loop.DiskOp) { fail() }}
	d.Disk.Submit(&d.half)
}

// Sweep does a sequence once for each n, with the n-th call of the fault's kind failing, until there are fewer calls than that. After each run the power goes, and what was acknowledged must be
// there. It returns how many runs had a failure.
func Sweep(base, sequence string, mode byte, f Fault) (runs int, err error) {
	w := newWorker()
	for f.N = 1; ; f.N++ {
		fired, err := w.fail(base, sequence, mode, f)
		if err != nil {
			return runs, fmt.Errorf("%s/%c/%s, where %v: %w", base, mode, sequence, f, err)
		}
		if !fired {
			return runs, nil
		}
		runs++
	}
}

func (w *worker) fail(name, sequence string, mode byte, f Fault) (fired bool, err error) {
	defer guard(&err)
	b, err := w.base(name)
	if err != nil {
		return false, err
	}
	seed := hash(name, sequence, string(mode), f.String())
	p := boot(seed, b.layout, b.image)
	defer p.end()
	d := &faults{fault: f}
	p.wrap = func(l loop.Loop, inner loop.Disk) loop.Disk {
		d.l = l
		return &faulty{inner, d}
	}
	if err := p.start(); err != nil {
		return false, err
	}
	before := p.images()
	r := &runner{process: p, h: b.h.fork(), rng: rand.New(rand.NewPCG(seed, 5)), lenient: true, bare: b.bare}
	r.rec = p.record()
	if err := p.open(); err != nil {
		if !d.fired {
			return false, err
		}
	} else if err := r.underFault(sequence, mode, d); err != nil {
		return false, err
	}
	t, err := newTape(before, r.rec, p.devs)
	if err != nil {
		return false, err
	}
	for variant := range uint64(3) {
		image, _ := t.cut(t.steps, variant, r.rng, nil)
		rc := &recorded{Case{name, mode, sequence, 0}, b, r.h, t, 0}
		if err := w.look(rc, seed+variant, r.rng, image, nil, t.steps, false); err != nil {
			return d.fired, fmt.Errorf("after the power was cut: %w", err)
		}
	}
	return d.fired, nil
}

// underFault does the sequence, reads and closes, and checks that the store says what is wrong and answers everybody.
func (r *runner) underFault(sequence string, mode byte, d *faults) error {
	r.run(sequence, mode)
	if r.problem == nil {
		r.problem = r.readUnderFault(d)
	}
	if r.problem == nil {
		r.problem = r.close()
	}
	failure := r.s.Failure()
	stopped := failure != nil
	switch {
	case r.problem != nil:
		return r.problem
	case r.running > 0:
		return fmt.Errorf("%d operations were never answered", r.running)
	case d.fired && d.fault.Kind != "read" && !stopped:
		return fmt.Errorf("the store goes on")
	case stopped && !d.fired:
		return fmt.Errorf("the store stopped without a reason: %w", failure)
	case stopped && !errors.Is(failure, d.fault.err()):
		return fmt.Errorf("the store stopped with %w, which does not say %v", failure, d.fault.err())
	case stopped != (r.stops == 1):
		return fmt.Errorf("OnFailure was called %d times, the failure is %v", r.stops, failure)
	}
	return nil
}

// readUnderFault reads every object: it is as the model says, or the reader is told.
func (r *runner) readUnderFault(d *faults) error {
	j := &judge{process: r.process, h: r.h, moment: never - 1, busy: true}
	for _, o := range r.h.objects {
		op := &store.Op{Kind: store.OpReadObject, Object: o.id}
		if err := r.do(op); err != nil {
			return err
		}
		_, media := errors.AsType[*store.MediaError](op.Err)
		var err error
		switch top := o.newest().top(); {
		case media && d.fired || errors.Is(op.Err, store.ErrFailed) && r.s.Failure() != nil:
		case top.Flags&store.Void != 0 || r.s.Failure() != nil:
		default:
			err = j.sameVersion(op, top)
		}
		release(op)
		if err != nil {
			return fmt.Errorf("object %v: %w", o.id, err)
		}
	}
	return nil
}
