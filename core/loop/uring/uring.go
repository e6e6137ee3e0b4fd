// Package uring is the event loop over io_uring: disks by our own small ring, sockets by epoll beside it.
//
// While no disk operation runs, the loop waits in epoll. While one does, it waits in the ring, which then also watches the epoll instance: everything that was submitted
// in a turn and the wait for the next turn are one system call. (The other way round, the ring's descriptor in the epoll set, costs a call more per turn, and in a
// trial with DEFER_TASKRUN wake-ups did not arrive.) Memory that the kernel uses (data, vectors, arguments) is on the heap or mapped, never on a stack, and
// stays reachable through the table of running jobs until its completion.
package uring

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
	"holdfast/core/loop/device"
	"holdfast/core/loop/reactor"
)

const (
	entries = 256 // submission queue
	// maxRunning is how many operations the kernel has at a time; further ones wait here.
	maxRunning  = 1024
	completions = 2 * maxRunning // so that the completion queue cannot overflow
	// pollData marks the completion of the watch on epoll; jobs have their index.
	pollData = 1 << 63
)

// Loop is the io_uring loop.
type Loop struct {
	*reactor.Reactor
	ring    *ring
	todo    device.Jobs   // not yet in the ring
	ready   device.Jobs   // over
	jobs    []*device.Job // in the ring, by Index
	free    []int         // free entries of jobs
	running int
	armed   bool // the ring watches epoll
	disks   []*device.Disk
}

var _ loop.Runner = (*Loop)(nil)

// New makes a loop, or says why this machine cannot have one.
func New(o reactor.Options) (*Loop, error) {
	rg, err := newRing(entries, completions)
	if err != nil {
		return nil, err
	}
	r, err := reactor.New(o)
	if err != nil {
		rg.close()
		return nil, err
	}
	l := &Loop{Reactor: r, ring: rg}
	r.Use((*engine)(l))
	return l, nil
}

// Kind is "uring".
func (l *Loop) Kind() string { return "uring" }

// OpenDisk opens a device or file.
func (l *Loop) OpenDisk(path string, o loop.DiskOptions) (loop.Disk, error) {
	d, err := device.Open(path, o, (*queue)(l))
	if err != nil {
		return nil, err
	}
	l.disks = append(l.disks, d)
	return d, nil
}

// queue is the loop as its disks see it.
type queue Loop

func (q *queue) Start(j *device.Job) { q.todo.Push(j) }

func (q *queue) Complete(j *device.Job) { q.ready.Push(j) }

// engine is the loop as its reactor sees it.
type engine Loop

func (e *engine) Start() error { return e.ring.enable() }

func (e *engine) Ready() bool { return e.ready.Len() > 0 }

func (e *engine) Wait(d time.Duration) {
	e.fill()
	switch {
	case e.armed: // waiting elsewhere would leave its completion behind, to end a later wait for nothing
	case e.running == 0:
		e.Poll(d)
		return
	default:
		e.watchEpoll()
	}
	e.ring.enter(d)
	if e.harvest() {
		e.Poll(0)
	}
}

func (e *engine) Reap() {
	for n := e.ready.Len(); n > 0; n-- {
		j := e.ready.Pop()
		j.Disk.Finish(j)
	}
}

// Stop waits for what the kernel has. What it has not got yet is dropped.
func (e *engine) Stop() {
	for e.running > 0 {
		e.ring.enter(time.Second)
		e.harvest()
	}
	e.ring.close()
	for _, d := range e.disks {
		d.Abandon()
	}
}

// fill moves jobs into the ring while it has room, leaving an entry for the watch on epoll.
func (e *engine) fill() {
	for e.todo.Len() > 0 && e.running < maxRunning && int(e.ring.queued()) < len(e.ring.sqes)-1 {
		j := e.todo.Pop()
		i := len(e.jobs)
		if n := len(e.free); n > 0 {
			i, e.free = e.free[n-1], e.free[:n-1]
			e.jobs[i] = j
		} else {
			e.jobs = append(e.jobs, j)
		}
		j.Index = i
		e.running++
		describe(e.ring.get(), j)
	}
}

// describe fills in the whole entry, so that nothing is left of an earlier one.
func describe(s *sqe, j *device.Job) {
	*s = sqe{fd: int32(j.Disk.FD()), userData: uint64(j.Index)}
	switch j.Op.Kind {
	case loop.DiskFlush:
		s.opcode, s.opFlags = opFsync, fsyncDataSync
		return
	case loop.DiskDiscard:
		// io_uring_enter(2): off is the offset, addr the length, len the mode. On a block device the kernel discards or zeroes without writing, or refuses.
		s.opcode, s.off, s.addr = opFallocate, uint64(j.Op.Off), uint64(j.Op.Len)
		s.len = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		return
	}
	s.off = uint64(j.Prepare())
	one := len(j.Iov) == 1
	switch {
	case j.Op.Kind == loop.DiskRead && one:
		s.opcode = opRead
	case j.Op.Kind == loop.DiskRead:
		s.opcode = opReadv
	case one:
		s.opcode = opWrite
	default:
		s.opcode = opWritev
	}
	if one {
		s.addr, s.len = uint64(uintptr(unsafe.Pointer(j.Iov[0].Base))), uint32(j.Iov[0].Len)
	} else {
		s.addr, s.len = uint64(uintptr(unsafe.Pointer(&j.Iov[0]))), uint32(len(j.Iov))
	}
	if j.Sync() {
		s.opFlags = unix.RWF_DSYNC
	}
}

// watchEpoll has the ring complete once when epoll has something, also when it has it already.
func (e *engine) watchEpoll() {
	s := e.ring.get()
	if s == nil {
		return // the queue is full of jobs: the next turn is soon
	}
	*s = sqe{opcode: opPollAdd, fd: int32(e.EpollFD()), opFlags: unix.EPOLLIN, userData: pollData}
	e.armed = true
}

// harvest takes all completions and reports whether epoll has something.
func (e *engine) harvest() (sockets bool) {
	for {
		data, res, ok := e.ring.next()
		if !ok {
			return sockets
		}
		if data == pollData {
			e.armed, sockets = false, true
			continue
		}
		j := e.jobs[data]
		e.jobs[data] = nil
		e.free = append(e.free, int(data))
		e.running--
		var err error
		if res < 0 {
			res, err = 0, unix.Errno(-res)
		}
		if j.Result(int(res), err) {
			e.ready.Push(j)
		} else {
			e.todo.Push(j)
		}
	}
}
