// Package loop defines the event loop that every daemon's work runs on: timers, posted tasks, sockets, disks and reference-counted buffers.
//
// One loop is one thread (or the simulator). Everything a loop owns is touched only from that loop's own callbacks, so nothing on it needs a lock.
// Implementations: core/loop/uring (our own small ring), core/loop/portable (a pool of pread/pwrite workers), both over the epoll sockets of core/loop/reactor, core/sim (deterministic).
// core/loop/looptest is the conformance suite that each of them passes.
//
// Laws that hold for each implementation:
//   - A completion never runs inside the call that started it; it runs later on the same loop.
//   - Each operation completes exactly once.
//   - Now is fixed for one turn, but that it moves on with each read of a socket: what has come is never looked at with a clock of before. A turn is: ready completions, due timers, posted tasks, then deferred tasks; what was sent in a turn leaves at its end.
//   - In steady state nothing here allocates.
//   - Only Post may be called from other goroutines.
package loop

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"holdfast/core/loop/buf"
)

// Instant is a moment of CLOCK_BOOTTIME (or of simulated time) in nanoseconds. It never goes back.
type Instant int64

// Add is i moved by d.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub is the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Loop is what rooms that run on a loop see of it.
type Loop interface {
	// Now is the current turn's moment, or that of the turn's last read of a socket, by CLOCK_BOOTTIME.
	Now() Instant
	// Wall is the time of day; for people and statistics, never for decisions about safety.
	Wall() time.Time
	// Rand is this loop's generator, seeded in the simulator.
	Rand() *rand.Rand
	// Log is where the loop's own events go.
	Log() *slog.Logger

	// Arm sets t to fire once at the given moment (or in the next turn when that has passed); an armed timer is moved.
	Arm(t *Timer, at Instant)
	// Disarm takes the timer back; it does not fire after this. A timer that is not armed is left alone.
	Disarm(t *Timer)
	// Post queues t.Run from any goroutine. A task already queued is not queued twice.
	Post(t *Task)
	// Defer queues t.Run for the end of this turn (of the next one when called outside a turn). A task already deferred is not queued twice.
	Defer(t *Task)

	// Alloc lends a buffer of exactly n bytes, with one reference, whose memory is aligned to 4096 bytes when n is at least 4096, pinned, and not cleared.
	Alloc(n int) *buf.Ref

	// Dial starts a connection. h.Opened or h.Closed is called later.
	Dial(a Addr, h ConnHandler) Conn
	// Listen binds and listens now; accepted connections go to h.
	Listen(a Addr, o ListenOptions, h ListenHandler) (Listener, error)
	// OpenDisk opens a block device or a file for direct I/O. It may block (start-up only).
	OpenDisk(path string, o DiskOptions) (Disk, error)
}

// Runner is a loop together with the thread that drives it.
type Runner interface {
	Loop
	// Run drives the loop on the calling goroutine until Stop; it locks the thread where the implementation needs that.
	Run() error
	// Stop makes Run return after the current turn; it may be called from any goroutine. Open connections and disks are closed.
	Stop()
	// Kind names the implementation: "uring", "portable", "sim".
	Kind() string
}

// Timer is embedded in its owner. Fire is set once, before the first Arm.
type Timer struct {
	Fire func()

	// The rest belongs to the loop.
	At    Instant
	Index int // position in the loop's heap + 1; 0 when not armed
	Seq   uint64
}

// Armed reports whether the timer will fire.
func (t *Timer) Armed() bool { return t.Index != 0 }

// Task is a callback embedded in its owner. Run is set once, before the first Post or Defer.
type Task struct {
	Run func()

	// The rest belongs to the loop; Queued is guarded by the loop's own lock for Post.
	Next   *Task
	Queued bool
}

// Addr is a stream address: Network "tcp" with Address "host:port" (IPv4 or IPv6 literal), or "unix" with a path.
type Addr struct {
	Network string
	Address string
}

func (a Addr) String() string { return a.Network + ":" + a.Address }

// Conn is one stream connection, owned by its loop.
type Conn interface {
	// Send queues a copy of p.
	Send(p []byte)
	// SendRef queues the bytes b[off:off+n] without copying; the connection takes its own reference and releases it when they have left.
	SendRef(b *buf.Ref, off, n int)
	// Queued is the number of bytes that were handed to Send or SendRef and have not left this process.
	Queued() int
	// Fill asks that the next len(p) bytes of the stream be put into p instead of being shown to Received. Allowed inside Received (it takes effect for
	// the bytes after those that this call of Received consumes) and inside Filled; p stays lent until Filled or Closed.
	Fill(p []byte)
	// Pause stops reading (back-pressure); bytes already received are held back too. Resume goes on. Neither calls the handler at once.
	Pause()
	Resume()
	// Close ends the connection; queued bytes are dropped. Closed is called later, once. Closing twice is allowed.
	Close()
	// CloseAfterSend closes once everything queued has left.
	CloseAfterSend()
	// Local and Remote name the ends, for logs and access rules; valid after Opened.
	Local() Addr
	Remote() Addr
	// SetKeepAlive sets TCP keep-alive idle and interval; a no-op on other networks.
	SetKeepAlive(idle, interval time.Duration, count int)
	// LastAck is when the peer last acknowledged anything, keep-alive probes included (tcpi_last_ack_recv); Now on other networks.
	LastAck() Instant
}

// ConnHandler is told what happens on a connection.
type ConnHandler interface {
	// Opened says a dialled connection is established. It is not called for accepted ones.
	Opened(c Conn)
	// Received shows the bytes that have arrived and not been consumed; p is valid during the call. It returns how many it consumed; the rest is shown again
	// together with what comes next. Implementations show at least 64 KiB when that much is there; a handler must not wait for more than 64 KiB in one piece
	// (use Fill for that).
	Received(c Conn, p []byte) (consumed int)
	// Filled says that the buffer given to Fill is full.
	Filled(c Conn)
	// Drained says that Queued has fallen to 0 after it had been above HighWater.
	Drained(c Conn)
	// Closed is the last call: err is nil after an orderly end by either side.
	Closed(c Conn, err error)
}

// HighWater is the number of queued bytes above which a handler should Pause until Drained.
const HighWater = 4 << 20

// ListenOptions says how to listen.
type ListenOptions struct {
	// Share lets several loops listen on one address, each getting some of the connections (SO_REUSEPORT).
	Share bool
}

// ListenHandler takes accepted connections. Accepted returns who handles it, or nil to refuse.
type ListenHandler interface {
	Accepted(c Conn) ConnHandler
}

// Listener is a listening socket.
type Listener interface {
	// Addr is the bound address, with the port that was chosen when 0 was asked for.
	Addr() Addr
	Close()
}

// DiskOptions says how to open a disk.
type DiskOptions struct {
	ReadOnly bool
	// NoFlush promises that the device's cache survives power loss, or that the operator accepts the risk: Flush and Sync writes do not reach the device's flush.
	NoFlush bool
	// Buffered opens without O_DIRECT, for file systems that refuse it (tmpfs).
	Buffered bool
	// Exclusive refuses a device or file that another process has open the same way (flock).
	Exclusive bool
}

// DiskInfo is what is known of a disk.
type DiskInfo struct {
	Size         int64 // bytes
	SectorSize   int   // smallest unit and alignment of I/O, bytes: 512 or 4096
	WritesAtOnce int   // bytes that the device writes at once: a smaller write may damage its neighbours when the power goes. 0: not known
	WriteThrough bool  // the device reports no volatile cache, so that a completed write is durable
	Identity     string
}

// Disk is one open disk on its loop.
type Disk interface {
	Info() DiskInfo
	// Submit starts op; op.Done is called later, once. The op and its buffers are lent until then.
	Submit(op *DiskOp)
	// Close waits for running operations, then calls done (which may be nil).
	Close(done func())
}

// DiskKind is what a DiskOp does.
type DiskKind uint8

// The kinds of a DiskOp.
const (
	DiskRead    DiskKind = iota + 1
	DiskWrite            // durable only after a later Flush has completed
	DiskSync             // a write that is durable when it completes (RWF_DSYNC)
	DiskFlush            // every write completed before this was submitted is durable when it completes
	DiskDiscard          // [Off, Off+Len) has unspecified content afterwards; may do nothing
)

func (k DiskKind) String() string {
	switch k {
	case DiskRead:
		return "read"
	case DiskWrite:
		return "write"
	case DiskSync:
		return "sync write"
	case DiskFlush:
		return "flush"
	case DiskDiscard:
		return "discard"
	}
	return fmt.Sprintf("disk operation %d", uint8(k))
}

// DiskOp is one request to a disk. The owner embeds and reuses it; Done is set once.
type DiskOp struct {
	Kind DiskKind
	Off  int64  // multiple of SectorSize
	Data []byte // for reads and writes; length a multiple of SectorSize, address aligned to SectorSize (Alloc gives such memory)
	// Vec, when not empty, is used instead of Data: the pieces in order, each aligned as Data is.
	Vec  [][]byte
	Len  int64 // for discards
	Done func(*DiskOp)
	// Err is the result: nil means all bytes were transferred.
	Err error

	// Impl belongs to the disk between Submit and Done.
	Impl DiskOpImpl
}

// DiskError says what a disk did not do.
type DiskError struct {
	Disk string // its path
	Kind DiskKind
	Off  int64 // not of a flush
	Len  int64
	Err  error
}

func (e *DiskError) Error() string {
	if e.Kind == DiskFlush {
		return fmt.Sprintf("%s: flush: %v", e.Disk, e.Err)
	}
	return fmt.Sprintf("%s: %v %d bytes at %d: %v", e.Disk, e.Kind, e.Len, e.Off, e.Err)
}

// Unwrap is the cause.
func (e *DiskError) Unwrap() error { return e.Err }

// DiskOpImpl is an implementation's private part of a DiskOp.
type DiskOpImpl struct {
	Next  *DiskOp
	Index int
	Tries int
	Done  int // bytes so far, when a transfer was short
	Start Instant
}

// Bytes is the length of the transfer.
func (op *DiskOp) Bytes() int {
	if len(op.Vec) == 0 {
		return len(op.Data)
	}
	n := 0
	for _, v := range op.Vec {
		n += len(v)
	}
	return n
}
