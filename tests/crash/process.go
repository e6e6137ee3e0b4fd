package crash

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/osd/store"
)

// patience is how much simulated time anything may take; nothing here needs a second.
const patience = time.Hour

// process is an OSD's store on a disk of its own world.
type process struct {
	w     *sim.World
	l     *sim.Loop
	dev   *sim.Disk
	disk  loop.Disk
	wrap  func(loop.Loop, loop.Disk) loop.Disk // put between the store and the disk; may be nil
	s     *store.Store
	c     *layoutOf
	stops int // how often OnFailure was called
}

// layoutOf is one way to lay a store out.
type layoutOf struct {
	name         string
	config       store.Config
	sector       int
	size         int64
	writeThrough bool
	smallWrite   uint32
}

func (c *layoutOf) units() int { return int(c.config.BlockSize / c.config.Granularity) }

// boot starts a process in a new world whose disk holds the image (nil: nothing).
func boot(seed uint64, c *layoutOf, image *sim.Image) *process {
	p := &process{w: sim.NewWorld(seed), c: c}
	if image != nil {
		p.dev = p.w.NewDiskFrom("d", image)
	} else {
		p.dev = p.w.NewDisk("d", c.size, c.sector)
	}
	if c.writeThrough {
		p.dev.SetWriteThrough()
	}
	return p
}

func (p *process) end() { p.w.Close() }

// start makes a process on the disk; one before must be dead.
func (p *process) start() error {
	p.l = p.w.NewLoop("osd")
	disk, err := p.l.OpenDisk("d", loop.DiskOptions{})
	if err != nil {
		return err
	}
	if p.wrap != nil {
		disk = p.wrap(p.l, disk)
	}
	p.disk = disk
	return nil
}

func (p *process) options() store.Options {
	return store.Options{Log: slog.New(slog.DiscardHandler), SmallWrite: p.c.smallWrite, OnFailure: func(error) { p.stops++ }}
}

// begin calls Open and returns before it is done.
func (p *process) begin(done func(error)) {
	p.s = nil
	store.Open(p.l, p.disk, p.options(), func(s *store.Store, err error) {
		p.s = s
		done(err)
	})
}

func (p *process) open() error {
	var err error
	ready := false
	p.begin(func(e error) { err, ready = e, true })
	if !p.w.RunUntil(func() bool { return ready }, patience) {
		return fmt.Errorf("open does not come to an end")
	}
	return err
}

func (p *process) close() error {
	done := false
	p.s.Close(func() { done = true })
	if !p.w.RunUntil(func() bool { return done }, patience) {
		return fmt.Errorf("close does not come to an end")
	}
	return nil
}

// check lets store.Check look at the device: loss of power is no damage.
func (p *process) check() error {
	var out strings.Builder
	var problems int
	var err error
	done := false
	store.Check(p.l, p.disk, &out, nil, func(n int, e error) { problems, err, done = n, e, true })
	if !p.w.RunUntil(func() bool { return done }, patience) {
		return fmt.Errorf("a check does not come to an end")
	}
	if err == nil && problems > 0 {
		err = fmt.Errorf("a check finds %d problems: %s", problems, out.String())
	}
	return err
}

// do runs one operation to its end.
func (p *process) do(op *store.Op) error {
	done := false
	op.Done = func(*store.Op) { done = true }
	p.s.Submit(op)
	if !p.w.RunUntil(func() bool { return done }, patience) {
		return fmt.Errorf("operation %d of object %v does not come to an end", op.Kind, op.Object)
	}
	return nil
}

func release(op *store.Op) {
	if op.Data != nil {
		op.Data.Release()
		op.Data = nil
	}
}
