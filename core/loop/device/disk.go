package device

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// Engine moves the bytes of jobs.
type Engine interface {
	// Start begins j. The engine later calls Result with the outcome and, when the job is over, hands it to Finish on the loop.
	Start(j *Job)
	// Complete hands j to Finish later, on the loop, without any I/O.
	Complete(j *Job)
}

// Disk is a loop.Disk over an Engine. It is touched on its loop only.
type Disk struct {
	engine  Engine
	file    *os.File
	fd      int
	opts    loop.DiskOptions
	info    loop.DiskInfo
	block   bool
	running int
	closing bool
	closed  func()
	marker  loop.DiskOp // completes a Close that had nothing to wait for
	free    Jobs
}

var _ loop.Disk = (*Disk)(nil)

// Open opens path for the engine.
func Open(path string, o loop.DiskOptions, e Engine) (*Disk, error) {
	f, info, block, err := open(path, o)
	if err != nil {
		return nil, err
	}
	return &Disk{engine: e, file: f, fd: int(f.Fd()), opts: o, info: info, block: block}, nil
}

// FD is the file descriptor; it stays open while a job runs.
func (d *Disk) FD() int { return d.fd }

// Block reports whether the disk is a block device.
func (d *Disk) Block() bool { return d.block }

// Info says what is known of the disk.
func (d *Disk) Info() loop.DiskInfo { return d.info }

// Submit starts op.
func (d *Disk) Submit(op *loop.DiskOp) {
	op.Err = nil
	op.Impl = loop.DiskOpImpl{}
	j := d.job(op)
	if err := d.check(op); err != nil {
		op.Err = d.wrap(op, err)
		d.engine.Complete(j)
		return
	}
	if op.Kind == loop.DiskFlush && d.opts.NoFlush {
		d.engine.Complete(j)
		return
	}
	d.engine.Start(j)
}

func (d *Disk) job(op *loop.DiskOp) *Job {
	j := d.free.Pop()
	if j == nil {
		j = &Job{Disk: d}
	}
	j.Op = op
	d.running++
	return j
}

// Finish calls the owner of a job that is over. Only the engine calls it, on the loop.
func (d *Disk) Finish(j *Job) {
	op := j.Op
	j.Op = nil
	clear(j.Iov)
	d.free.Push(j)
	d.running--
	if op != &d.marker {
		op.Done(op)
	}
	if d.closing && d.running == 0 && d.file != nil {
		d.Abandon()
		if d.closed != nil {
			d.closed()
		}
	}
}

// Close waits for running operations, then calls done.
func (d *Disk) Close(done func()) {
	if d.closing {
		panic("device: disk " + d.file.Name() + " closed twice")
	}
	d.closing, d.closed = true, done
	d.engine.Complete(d.job(&d.marker))
}

// Abandon closes the file at once; the engine calls it when the loop has stopped and nothing runs.
func (d *Disk) Abandon() {
	if d.file != nil {
		_ = d.file.Close() // flushes were asked for by name; closing promises nothing
		d.file = nil
	}
	d.closing = true
}

var errAlign = errors.New("not aligned")

// check refuses what the kernel would refuse, or take wrongly.
func (d *Disk) check(op *loop.DiskOp) error {
	if d.closing {
		return os.ErrClosed
	}
	sector := int64(d.info.SectorSize)
	switch op.Kind {
	case loop.DiskFlush:
		return nil
	case loop.DiskDiscard:
		if op.Len <= 0 {
			return fmt.Errorf("length %d is not positive", op.Len)
		}
		if d.opts.ReadOnly {
			return unix.EROFS
		}
		if op.Off%sector != 0 || op.Len%sector != 0 {
			return fmt.Errorf("offset %d or length %d: %w to %d bytes", op.Off, op.Len, errAlign, sector)
		}
		return inRange(op.Off, op.Len)
	case loop.DiskRead, loop.DiskWrite, loop.DiskSync:
	default:
		return errors.New("unknown kind")
	}
	if op.Kind != loop.DiskRead && d.opts.ReadOnly {
		return unix.EROFS
	}
	n := int64(op.Bytes())
	if n == 0 {
		return errors.New("no data")
	}
	if op.Off%sector != 0 {
		return fmt.Errorf("offset %d: %w to %d bytes", op.Off, errAlign, sector)
	}
	if len(op.Vec) == 0 {
		if err := checkPiece(op.Data, sector); err != nil {
			return err
		}
	}
	for _, p := range op.Vec {
		if err := checkPiece(p, sector); err != nil {
			return err
		}
	}
	return inRange(op.Off, n)
}

func checkPiece(p []byte, sector int64) error {
	if int64(len(p))%sector != 0 {
		return fmt.Errorf("length %d: %w to %d bytes", len(p), errAlign, sector)
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(sector) != 0 {
		return fmt.Errorf("memory: %w to %d bytes", errAlign, sector)
	}
	return nil
}

func inRange(off, n int64) error {
	if off < 0 || off > math.MaxInt64-n {
		return fmt.Errorf("offset %d is out of range", off)
	}
	return nil
}

// wrap names the disk and the operation; nil stays nil.
func (d *Disk) wrap(op *loop.DiskOp, err error) error {
	if err == nil {
		return nil
	}
	name := d.info.Identity
	if d.file != nil {
		name = d.file.Name()
	}
	e := &loop.DiskError{Disk: name, Kind: op.Kind, Off: op.Off, Len: int64(op.Bytes()), Err: err}
	if op.Kind == loop.DiskDiscard {
		e.Len = op.Len
	}
	return e
}
