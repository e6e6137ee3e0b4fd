package portable

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
	"holdfast/core/loop/device"
)

// pool is the bounded set of threads. Goroutines are started as they are needed and stay until stop.
type pool struct {
	wake    func()
	mu      sync.Mutex
	work    sync.Cond
	todo    device.Jobs // guarded by mu
	done    device.Jobs // guarded by mu
	idle    int         // guarded by mu
	started int         // guarded by mu
	closed  bool        // guarded by mu
	gone    sync.WaitGroup
}

func (p *pool) init(wake func()) {
	p.wake = wake
	p.work.L = &p.mu
}

func (p *pool) start(j *device.Job) {
	p.mu.Lock()
	p.todo.Push(j)
	if p.idle < p.todo.Len() && p.started < workers {
		p.started++
		p.gone.Go(p.run)
	}
	p.mu.Unlock()
	p.work.Signal()
}

// run is one worker. It returns after stop, when nothing is left to do.
func (p *pool) run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		j := p.todo.Pop()
		if j == nil {
			if p.closed {
				return
			}
			p.idle++
			p.work.Wait()
			p.idle--
			continue
		}
		p.mu.Unlock()
		for !j.Result(perform(j)) {
		}
		p.mu.Lock()
		p.done.Push(j)
		if p.done.Len() == 1 {
			p.mu.Unlock()
			p.wake()
			p.mu.Lock()
		}
	}
}

func (p *pool) finished() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done.Len() > 0
}

// take moves what is done to the end of to.
func (p *pool) take(to *device.Jobs) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for j := p.done.Pop(); j != nil; j = p.done.Pop() {
		to.Push(j)
	}
}

func (p *pool) stop() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.work.Broadcast()
	p.gone.Wait()
}

// perform does one system call's worth of j.
func perform(j *device.Job) (int, error) {
	fd := j.Disk.FD()
	switch j.Op.Kind {
	case loop.DiskFlush:
		return 0, unix.Fdatasync(fd)
	case loop.DiskDiscard:
		return 0, discard(j)
	case loop.DiskRead:
		return transfer(unix.SYS_PREADV, j, 0)
	case loop.DiskSync:
		if j.Sync() {
			return writeSync(j)
		}
	}
	return transfer(unix.SYS_PWRITEV, j, 0)
}

// writeSync writes durably: pwritev2 with RWF_DSYNC (Linux 4.7), else a write and fdatasync.
func writeSync(j *device.Job) (int, error) {
	n, err := transfer(unix.SYS_PWRITEV2, j, unix.RWF_DSYNC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
		return n, err
	}
	if n, err = transfer(unix.SYS_PWRITEV, j, 0); err != nil {
		return n, err
	}
	return n, unix.Fdatasync(j.Disk.FD())
}

func transfer(call uintptr, j *device.Job, flags uintptr) (int, error) {
	off := j.Prepare()
	n, _, e := unix.Syscall6(call, uintptr(j.Disk.FD()), uintptr(unsafe.Pointer(&j.Iov[0])), uintptr(len(j.Iov)), uintptr(off), uintptr(uint64(off)>>32), flags)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func discard(j *device.Job) error {
	if j.Disk.Block() {
		span := [2]uint64{uint64(j.Op.Off), uint64(j.Op.Len)}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(j.Disk.FD()), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))); e != 0 {
			return e
		}
		return nil
	}
	return unix.Fallocate(j.Disk.FD(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, j.Op.Off, j.Op.Len)
}
