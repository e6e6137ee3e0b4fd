package store

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/system"
)

// The benchmark's device: a file whose blocks are allocated, as fio would use it. HOLDFAST_BENCH_DISK names another one, which is formatted.
const benchSize = 2 << 30

// realRig is a store on a real loop, in the calling goroutine's service.
type realRig struct {
	b *testing.B
	r loop.Runner
	d loop.Disk
	s *Store
}

// on runs f on the loop and waits until it calls done.
func (r *realRig) on(f func(done func())) {
	end := make(chan struct{})
	r.r.Post(&loop.Task{Run: func() { f(func() { close(end) }) }})
	<-end
}

func newRealRig(b *testing.B) *realRig {
	path := os.Getenv("HOLDFAST_BENCH_DISK")
	if path == "" {
		path = filepath.Join(b.TempDir(), "disk")
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		zero := make([]byte, 4<<20)
		for range benchSize / len(zero) {
			if _, err := f.Write(zero); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	r := &realRig{b: b}
	var err error
	if r.r, err = system.New(system.Options{Log: slog.New(slog.DiscardHandler)}); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.r.Run() }()
	b.Cleanup(func() {
		r.on(func(done func()) { r.s.Close(func() { r.d.Close(done) }) })
		r.r.Stop()
		<-ended
	})
	r.on(func(done func()) {
		if r.d, err = r.r.OpenDisk(path, loop.DiskOptions{}); err != nil {
			done()
			return
		}
		Format(r.r, r.d, Config{Force: true}, func(_ Superblock, e error) {
			if err = e; err != nil {
				done()
				return
			}
			Open(r.r, r.d, Options{Log: slog.New(slog.DiscardHandler)}, func(s *Store, e error) { r.s, err = s, e; done() })
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// load is a stream of random 4 KiB ops at some depth.
type load struct {
	s        *Store
	kind     OpKind
	objects  uint64
	left     int
	running  int
	versions []layout.Version
	busy     []bool
	rnd      uint64
	done     func()
	ops      []*Op
	err      error

	waiting bool  // writes wait for commits, which nobody waits for
	commits []*Op // idle ones
}

func (l *load) run(depth, n int, data func() []byte) {
	l.left = n
	for range depth {
		op := &Op{Kind: l.kind}
		if l.kind == OpWrite {
			op.Data = l.s.l.Alloc(4096)
			copy(op.Data.Bytes(), data())
		}
		op.Done = l.next
		l.ops = append(l.ops, op)
	}
	for _, op := range l.ops {
		if l.left > 0 {
			l.start(op)
		}
	}
}

func (l *load) start(op *Op) {
	l.left--
	l.running++
	var n uint64
	for {
		l.rnd = l.rnd*6364136223846793005 + 1442695040888963407
		n = (l.rnd >> 33) % l.objects
		if !l.busy[n] || l.kind == OpRead {
			break
		}
	}
	l.busy[n] = true
	op.Object = layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: n << 17}
	op.Offset, op.Len = uint32(l.rnd>>20)%32*4096, 4096
	if l.kind == OpWrite {
		op.Base = l.versions[n]
		l.versions[n]++
		op.Version, op.Unstable = l.versions[n], l.waiting
	}
	l.s.Submit(op)
}

// commit is what a primary does when a write is done everywhere.
func (l *load) commit(op *Op) {
	var c *Op
	if n := len(l.commits); n > 0 {
		c, l.commits = l.commits[n-1], l.commits[:n-1]
	} else {
		c = &Op{Kind: OpCommit, Done: func(c *Op) {
			if c.Err != nil {
				l.err = c.Err
			}
			l.commits = append(l.commits, c)
		}}
	}
	c.Object, c.Version = op.Object, op.Version
	l.s.Submit(c)
}

func (l *load) next(op *Op) {
	if op.Err != nil {
		l.err = op.Err
	}
	if l.kind == OpRead && op.Data != nil {
		op.Data.Release()
		op.Data = nil
	}
	if op.Unstable {
		l.commit(op)
	}
	l.busy[op.Object.Stripe>>17] = false
	l.running--
	if l.left > 0 {
		l.start(op)
	} else if l.running == 0 {
		for _, op := range l.ops {
			if op.Data != nil {
				op.Data.Release()
			}
		}
		l.done()
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStore reports 4 KiB random I/O over 1 GiB of a 2 GiB device: on an empty image, on a full one, and reads.
// Unstable ones are each committed when they are done, as chunks of erasure-coded pools are. Beside the rate: flushes and device writes per op, processor time, and heap objects.
func BenchmarkStore(b *testing.B) {
	for _, depth := range []int{1, 32} {
		for _, what := range []string{"write/empty", "write/full", "unstable/full", "read/full"} {
			b.Run(fmt.Sprintf("%s/size=4KiB/depth=%d", what, depth), func(b *testing.B) { benchStore(b, what, depth) })
		}
	}
}

func benchStore(b *testing.B, what string, depth int) {
	r := newRealRig(b)
	const objects = 8192
	l := &load{s: r.s, kind: OpWrite, objects: objects, versions: make([]layout.Version, objects), busy: make([]bool, objects), rnd: 1}
	r.on(func(done func()) {
		if strings.HasSuffix(what, "full") {
			r.fill(l, done)
			return
		}
		done()
	})
	l.waiting = strings.HasPrefix(what, "unstable")
	if strings.HasPrefix(what, "read") {
		l.kind = OpRead
	}
	var before, after runtime.MemStats
	var st0, st1 Stats
	runtime.ReadMemStats(&before)
	b.SetBytes(4096)
	b.ResetTimer()
	cpu := cpuTime()
	r.on(func(done func()) {
		st0 = r.s.Stats()
		l.done = done
		l.run(depth, b.N, func() []byte { return []byte("holdfast") })
	})
	cpu = cpuTime() - cpu
	b.StopTimer()
	if l.err != nil {
		b.Fatal(l.err)
	}
	runtime.ReadMemStats(&after)
	st1 = r.s.Stats()
	n := float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "IOPS")
	b.ReportMetric(float64(st1.Flushes-st0.Flushes+st1.SyncWrites-st0.SyncWrites)/n, "flushes/op")
	b.ReportMetric(float64(st1.DeviceWrites-st0.DeviceWrites)/n, "device-writes/op")
	b.ReportMetric(float64(st1.DeviceBytes-st0.DeviceBytes)/n/4096, "amplification")
	b.ReportMetric(float64(cpu.Microseconds())/n, "cpu-us/op")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/op")
}

// fill writes every object once, whole.
func (r *realRig) fill(l *load, done func()) {
	next, running := uint64(0), 0
	start := func(op *Op) {
		if next == l.objects {
			if running == 0 {
				done()
			}
			op.Data.Release()
			return
		}
		op.Object = layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: next << 17}
		l.versions[next] = 1
		next++
		running++
		r.s.Submit(op)
	}
	for range 16 {
		op := &Op{Kind: OpWrite, Version: 1, Len: 128 << 10, Data: r.r.Alloc(128 << 10)}
		op.Done = func(op *Op) {
			running--
			if op.Err != nil {
				l.err = op.Err
			}
			start(op)
		}
		start(op)
	}
}
