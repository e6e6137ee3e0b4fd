package uring

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The constants and layouts are those of include/uapi/linux/io_uring.h (Linux 6.1); none of them has changed since it appeared.
const (
	setupCQSize       = 1 << 3
	setupClamp        = 1 << 4
	setupDisabled     = 1 << 6
	setupSubmitAll    = 1 << 7  // Linux 5.18
	setupCoopTaskrun  = 1 << 8  // Linux 5.19
	setupSingleIssuer = 1 << 12 // Linux 6.0
	setupDeferTaskrun = 1 << 13 // Linux 6.1

	featSingleMmap   = 1 << 0
	featNoDrop       = 1 << 1
	featSubmitStable = 1 << 2
	featExtArg       = 1 << 8 // Linux 5.11

	offSQRing = 0
	offSQEs   = 0x10000000

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	registerEnableRings = 12

	opReadv     = 1
	opWritev    = 2
	opFsync     = 3
	opPollAdd   = 6
	opFallocate = 17
	opRead      = 22
	opWrite     = 23

	fsyncDataSync = 1
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sqOff                                                                  struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cqOff struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

// sqe is struct io_uring_sqe.
type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off           uint64
	addr          uint64
	len           uint32
	opFlags       uint32 // rw_flags, fsync_flags, poll32_events
	userData      uint64
	_             [3]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// waitArg is struct io_uring_getevents_arg.
type waitArg struct {
	sigmask     uint64
	sigmaskSize uint32
	_           uint32
	ts          uint64
}

// ring is one submission and completion queue. It is made disabled, so that any thread may make it; the one that calls enable is its only user from then on.
type ring struct {
	fd     int
	mem    []byte // both rings
	sqeMem []byte
	sqes   []sqe
	cqes   []cqe

	sqHead, sqTail, cqHead, cqTail *uint32
	sqMask, cqMask                 uint32
	tail                           uint32 // our side of sqTail; published by enter

	// Arguments of enter, on the heap because the kernel reads them.
	arg waitArg
	ts  unix.Timespec
}

// modes are the ways to set a ring up, best first.
var modes = []uint32{setupSingleIssuer | setupDeferTaskrun | setupSubmitAll, setupCoopTaskrun | setupSubmitAll, 0}

// newRing makes a disabled ring with the best mode that the kernel has.
func newRing(entries, completions uint32) (*ring, error) {
	var err error
	for _, flags := range modes {
		var r *ring
		if r, err = setup(entries, completions, flags|setupDisabled|setupCQSize|setupClamp); err == nil {
			return r, nil
		}
		if err != unix.EINVAL {
			break
		}
	}
	switch err {
	case unix.ENOSYS:
		return nil, fmt.Errorf("the kernel has no io_uring: %w", err)
	case unix.EPERM:
		return nil, fmt.Errorf("io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a seccomp filter): %w", err)
	case unix.ENOMEM:
		return nil, fmt.Errorf("no memory for a ring (RLIMIT_MEMLOCK): %w", err)
	}
	return nil, fmt.Errorf("make a ring: %w", err)
}

func setup(entries, completions, flags uint32) (*ring, error) {
	p := &params{flags: flags, cqEntries: completions}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	if e != 0 {
		return nil, e
	}
	r := &ring{fd: int(fd)}
	if err := r.mapRings(p); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ring) mapRings(p *params) (err error) {
	const need = featSingleMmap | featNoDrop | featSubmitStable | featExtArg
	if p.features&need != need {
		return fmt.Errorf("io_uring of this kernel is too old (features %#x, needed %#x: Linux 5.11)", p.features, need)
	}
	size := max(p.sqOff.array+4*p.sqEntries, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	const prot, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.mem, err = unix.Mmap(r.fd, offSQRing, int(size), prot, how); err != nil {
		return fmt.Errorf("map the rings: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), prot, how); err != nil {
		return fmt.Errorf("map the submission entries: %w", err)
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[off])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sqOff.head), word(p.sqOff.tail), *word(p.sqOff.ringMask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cqOff.head), word(p.cqOff.tail), *word(p.cqOff.ringMask)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.mem[p.cqOff.cqes])), p.cqEntries)
	array := unsafe.Slice(word(p.sqOff.array), p.sqEntries)
	for i := range array {
		array[i] = uint32(i) // entry i of the queue is always sqe i
	}
	r.tail = *r.sqTail
	return nil
}

// enable makes the calling thread the ring's user; it must be locked to its goroutine.
func (r *ring) enable() error {
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerEnableRings, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("enable the ring: %w", e)
	}
	return nil
}

// get is the next free submission entry, or nil when the queue is full. The caller overwrites it as a whole.
func (r *ring) get() *sqe {
	if r.queued() == uint32(len(r.sqes)) {
		return nil
	}
	s := &r.sqes[r.tail&r.sqMask]
	r.tail++
	return s
}

// queued is the number of entries that the kernel has not taken.
func (r *ring) queued() uint32 { return r.tail - atomic.LoadUint32(r.sqHead) }

// enter submits everything queued and waits until there is a completion or d has passed; 0 does not wait. It may return early for any reason: the caller looks at
// the queues. It goes through Syscall6, so the scheduler may use the processor meanwhile.
func (r *ring) enter(d time.Duration) {
	atomic.StoreUint32(r.sqTail, r.tail)
	least := uintptr(0)
	if d > 0 {
		least = 1
	}
	r.ts = unix.NsecToTimespec(int64(d))
	r.arg = waitArg{ts: uint64(uintptr(unsafe.Pointer(&r.ts)))}
	_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.queued()), least, enterGetEvents|enterExtArg, uintptr(unsafe.Pointer(&r.arg)), unsafe.Sizeof(r.arg))
	switch e {
	case 0, unix.ETIME, unix.EINTR, unix.EAGAIN, unix.EBUSY:
	default:
		panic(fmt.Sprintf("uring: io_uring_enter: %v", e))
	}
}

// next takes one completion.
func (r *ring) next() (userData uint64, res int32, ok bool) {
	head := *r.cqHead // only we write it
	if head == atomic.LoadUint32(r.cqTail) {
		return 0, 0, false
	}
	c := &r.cqes[head&r.cqMask]
	userData, res = c.userData, c.res
	atomic.StoreUint32(r.cqHead, head+1)
	return userData, res, true
}

// close gives the ring back. Nothing may be under way that uses memory of ours.
func (r *ring) close() {
	if r.sqeMem != nil {
		_ = unix.Munmap(r.sqeMem)
	}
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
	}
	_ = unix.Close(r.fd)
	r.sqeMem, r.mem, r.sqes, r.cqes = nil, nil, nil, nil
}
