// Package portable is the event loop for kernels and containers without io_uring: sockets by epoll, disks by a bounded pool of threads that call preadv and pwritev.
package portable

import (
	"runtime"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/device"
	"holdfast/core/loop/reactor"
)

const (
	// workers is the number of disk operations that run at a time in one loop.
	workers = 32
	// procs is the least GOMAXPROCS with which the pool works: a thread in a system call keeps its processor until the scheduler's monitor takes it away, and with two
	// processors that stalls the loop for up to 166 ms.
	procs = 16
)

// Loop is the portable loop.
type Loop struct {
	*reactor.Reactor
	pool  pool
	ready device.Jobs // over without any I/O
	disks []*device.Disk
}

var _ loop.Runner = (*Loop)(nil)

// New makes a loop.
func New(o reactor.Options) (*Loop, error) {
	r, err := reactor.New(o)
	if err != nil {
		return nil, err
	}
	l := &Loop{Reactor: r}
	l.pool.init(r.Wake)
	r.Use((*engine)(l))
	return l, nil
}

// Kind is "portable".
func (l *Loop) Kind() string { return "portable" }

// OpenDisk opens a device or file.
func (l *Loop) OpenDisk(path string, o loop.DiskOptions) (loop.Disk, error) {
	d, err := device.Open(path, o, (*queue)(l))
	if err != nil {
		return nil, err
	}
	if runtime.GOMAXPROCS(0) < procs {
		runtime.GOMAXPROCS(procs)
	}
	l.disks = append(l.disks, d)
	return d, nil
}

// engine is the loop as its reactor sees it.
type engine Loop

func (e *engine) Start() error { return nil }

func (e *engine) Ready() bool { return e.ready.Len() > 0 || e.pool.finished() }

func (e *engine) Wait(d time.Duration) { e.Poll(d) }

func (e *engine) Reap() {
	e.pool.take(&e.ready)
	for n := e.ready.Len(); n > 0; n-- {
		j := e.ready.Pop()
		j.Disk.Finish(j)
	}
}

func (e *engine) Stop() {
	e.pool.stop()
	for _, d := range e.disks {
		d.Abandon()
	}
}

// queue is the loop as its disks see it.
type queue Loop

func (q *queue) Start(j *device.Job) { q.pool.start(j) }

func (q *queue) Complete(j *device.Job) { q.ready.Push(j) }
