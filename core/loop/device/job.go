package device

import (
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// Job is one running operation; engines keep it in a table or a list, so that the operation and its memory stay reachable while the kernel uses them.
type Job struct {
	Op   *loop.DiskOp
	Disk *Disk
	// Iov are the pieces still to be transferred, valid after Prepare.
	Iov   []unix.Iovec
	Index int // the engine's
	next  *Job
}

// maxIov is IOV_MAX: a longer vector goes in several transfers.
const maxIov = 1024

// maxTransfer is what one read or write moves at most (MAX_RW_COUNT, rounded down to 1 GiB).
const maxTransfer = 1 << 30

// Prepare fills Iov with what has not been transferred yet and returns where that goes.
func (j *Job) Prepare() (off int64) {
	j.Iov = j.Iov[:0]
	skip, total := j.Op.Impl.Done, 0
	add := func(p []byte) {
		if skip >= len(p) {
			skip -= len(p)
			return
		}
		p = p[skip:]
		skip = 0
		p = p[:min(len(p), maxTransfer-total)]
		if len(p) == 0 || len(j.Iov) == maxIov {
			return
		}
		v := unix.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		j.Iov = append(j.Iov, v)
		total += len(p)
	}
	if len(j.Op.Vec) == 0 {
		add(j.Op.Data)
	} else {
		for _, p := range j.Op.Vec {
			add(p)
		}
	}
	return j.Op.Off + int64(j.Op.Impl.Done)
}

// Sync reports whether the transfer must be durable when it completes.
func (j *Job) Sync() bool { return j.Op.Kind == loop.DiskSync && !j.Disk.opts.NoFlush }

// maxTries bounds how often one transfer is started again after EINTR or EAGAIN without progress.
const maxTries = 100

// Result takes the outcome of a transfer, flush or discard, and reports whether the operation is over; if not, the engine starts the rest.
func (j *Job) Result(n int, err error) (over bool) {
	op := j.Op
	switch op.Kind {
	case loop.DiskFlush:
		if err == unix.EINTR && j.again() {
			return false
		}
		op.Err = j.Disk.wrap(op, err)
		return true
	case loop.DiskDiscard:
		// Best effort: content is unspecified in either case.
		if err != nil && err != unix.EOPNOTSUPP && err != unix.ENOSYS && err != unix.ENOTTY && err != unix.EINVAL {
			op.Err = j.Disk.wrap(op, err)
		}
		return true
	}
	if err == unix.EINTR || err == unix.EAGAIN {
		if j.again() {
			return false
		}
	}
	if err != nil {
		op.Err = j.Disk.wrap(op, err)
		return true
	}
	op.Impl.Done += n
	switch {
	case op.Impl.Done >= op.Bytes():
		return true
	case n == 0 && op.Kind != loop.DiskRead:
		op.Err = j.Disk.wrap(op, io.ErrShortWrite)
		return true
	case n == 0, n%j.Disk.info.SectorSize != 0 && op.Kind == loop.DiskRead:
		op.Err = j.Disk.wrap(op, io.ErrUnexpectedEOF) // the end of the file, which need not be on a sector
		return true
	}
	op.Impl.Tries = 0
	return false
}

func (j *Job) again() bool {
	j.Op.Impl.Tries++
	return j.Op.Impl.Tries < maxTries
}

// Jobs is a first-in first-out list of jobs.
type Jobs struct {
	head, tail *Job
	n          int
}

// Len is the number of jobs in the list.
func (l *Jobs) Len() int { return l.n }

// Push adds j at the end.
func (l *Jobs) Push(j *Job) {
	j.next = nil
	if l.tail == nil {
		l.head = j
	} else {
		l.tail.next = j
	}
	l.tail = j
	l.n++
}

// Pop takes the oldest, or returns nil.
func (l *Jobs) Pop() *Job {
	j := l.head
	if j == nil {
		return nil
	}
	l.head = j.next
	if l.head == nil {
		l.tail = nil
	}
	j.next = nil
	l.n--
	return j
}
