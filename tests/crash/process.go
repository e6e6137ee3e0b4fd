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

// process is an OSD's store on disks of its own world.
type process struct {
	w     *sim.World
	l     *sim.Loop
	devs  []*sim.Disk // the first has the data
	disks []loop.Disk
	disk  loop.Disk                            // all of them
	wrap  func(loop.Loop, loop.Disk) loop.Disk // put between the store and each disk; may be nil
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
	throttle     store.Throttle
	others       []beside // disks besides the one with the data
}

// beside is a disk with metadata, the journal, or both.
type beside struct {
	role         string // m: metadata, and the journal unless there is a j; j: the journal
	writeThrough bool
}

// images are what is on a store's disks.
type images []*sim.Image

// Clone is images with the same content.
func (i images) Clone() images {
	out := make(images, len(i))
	for k := range i {
		out[k] = i[k].Clone()
	}
	return out
}

func (c *layoutOf) units() int { return int(c.config.BlockSize / c.config.Granularity) }

// boot starts a process in a new world whose disks hold the images (nil: nothing).
func boot(seed uint64, c *layoutOf, all images) *process {
	p := &process{w: sim.NewWorld(seed), c: c}
	for i, o := range append([]beside{{"d", c.writeThrough}}, c.others...) {
		var d *sim.Disk
		if all != nil {
			d = p.w.NewDiskFrom(o.role, all[i])
		} else {
			d = p.w.NewDisk(o.role, c.size, c.sector)
		}
		if o.writeThrough {
			d.SetWriteThrough()
		}
		p.devs = append(p.devs, d)
	}
	return p
}

// images are what is durable on the disks now.
func (p *process) images() (out images) {
	for _, d := range p.devs {
		out = append(out, d.Image())
	}
	return out
}

// record records all disks from now on.
func (p *process) record() *sim.Recording {
	rec := p.devs[0].Record()
	for _, d := range p.devs[1:] {
		rec.Also(d)
	}
	return rec
}

// powerOff ends the process and the power of all disks.
func (p *process) powerOff(how sim.CrashPolicy) {
	p.l.PowerOff()
	for _, d := range p.devs {
		d.Crash(how)
	}
}

func (p *process) end() { p.w.Close() }

// start makes a process on the disk; one before must be dead.
func (p *process) start() error {
	p.l = p.w.NewLoop("osd")
	p.disks = nil
	var d store.Devices
	for _, dev := range p.devs {
		disk, err := p.l.OpenDisk(dev.Name(), loop.DiskOptions{})
		if err != nil {
			return err
		}
		if p.wrap != nil {
			disk = p.wrap(p.l, disk)
		}
		p.disks = append(p.disks, disk)
		this := store.Device{Disk: disk, Name: dev.Name()}
		switch dev.Name() {
		case "d":
			d.Data = this
		case "m":
			d.Meta = this
		case "j":
			d.Journal = this
		}
	}
	p.disk = d.Join(p.l)
	return nil
}

func (p *process) options() store.Options {
	return store.Options{Log: slog.New(slog.DiscardHandler), SmallWrite: p.c.smallWrite, Throttle: p.c.throttle, ParkAfter: time.Millisecond, OnFailure: func(error) { p.stops++ }}
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
