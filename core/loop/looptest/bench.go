package looptest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// Bench measures a loop: disk writes and reads of 4 KiB, echoes, and echoes that wait for a disk write of 4 KiB. Besides the time it reports cpu-us/op, the processor time of the whole process.
func Bench(b *testing.B, fresh func(b *testing.B) loop.Runner) {
	for _, kind := range []loop.DiskKind{loop.DiskWrite, loop.DiskRead} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("Disk/op=%v/size=4KiB/depth=%d", kind, depth), func(b *testing.B) { benchDisk(b, fresh(b), kind, depth) })
		}
	}
	for _, conns := range []int{1, 32} {
		b.Run(fmt.Sprintf("Echo/size=100/conns=%d", conns), func(b *testing.B) { benchEcho(b, fresh(b), conns, false) })
		b.Run(fmt.Sprintf("EchoAfterWrite/size=4KiB/conns=%d", conns), func(b *testing.B) { benchEcho(b, fresh(b), conns, true) })
	}
}

// drive runs the loop for the time of the benchmark.
func drive(b *testing.B, r loop.Runner) {
	ended := make(chan error, 1)
	go func() { ended <- r.Run() }()
	b.Cleanup(func() {
		r.Stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
}

func onLoop(r loop.Runner, f func()) {
	done := make(chan struct{})
	r.Post(&loop.Task{Run: func() { f(); close(done) }})
	<-done
}

// cpu is the process's processor time in microseconds.
func cpu() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1000
}

const benchSpan = 64 << 20

// benchFile opens a file of benchSpan bytes that has its blocks.
func benchFile(b *testing.B, r loop.Runner) loop.Disk {
	path := filepath.Join(b.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, benchSpan), 0o600); err != nil {
		b.Fatal(err)
	}
	var d loop.Disk
	var err error
	onLoop(r, func() { d, err = r.OpenDisk(path, loop.DiskOptions{}) })
	if err != nil {
		b.Skip(err)
	}
	return d
}

func benchDisk(b *testing.B, r loop.Runner, kind loop.DiskKind, depth int) {
	const size = 4096
	drive(b, r)
	d := benchFile(b, r)
	done := make(chan struct{})
	ops := make([]loop.DiskOp, depth)
	left, running, next := 0, 0, int64(0)
	submit := func(op *loop.DiskOp) {
		left--
		running++
		op.Off = next
		next = (next + 37*size) % benchSpan
		d.Submit(op)
	}
	over := func(op *loop.DiskOp) {
		if op.Err != nil {
			b.Error(op.Err)
		}
		running--
		switch {
		case left > 0:
			submit(op)
		case running == 0:
			close(done)
		}
	}
	mem := r.Alloc(size * depth)
	for i := range ops {
		ops[i] = loop.DiskOp{Kind: kind, Data: mem.Bytes()[i*size : (i+1)*size], Done: over}
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	left = b.N
	r.Post(&loop.Task{Run: func() {
		for i := range ops[:min(depth, left)] {
			submit(&ops[i])
		}
	}})
	<-done
	b.ReportMetric((cpu()-before)/float64(b.N), "cpu-us/op")
}

// benchServer echoes; with a disk it writes 4 KiB before each reply.
type benchServer struct {
	r    loop.Runner
	disk loop.Disk
	next int64
}

func (s *benchServer) Accepted(c loop.Conn) loop.ConnHandler {
	e := &benchEnd{s: s, c: c}
	e.op = loop.DiskOp{Kind: loop.DiskWrite, Done: e.written}
	if s.disk != nil {
		e.op.Data = s.r.Alloc(4096).Bytes()
	}
	return e
}

// benchEnd serves one connection with one request at a time.
type benchEnd struct {
	s     *benchServer
	c     loop.Conn
	op    loop.DiskOp
	reply [100]byte
}

func (e *benchEnd) written(*loop.DiskOp) { e.c.Send(e.reply[:]) }

func (e *benchEnd) Received(c loop.Conn, p []byte) int {
	switch {
	case e.s.disk == nil:
		c.Send(p)
	case len(p) < len(e.reply):
		return 0
	default:
		e.op.Off = e.s.next
		e.s.next = (e.s.next + 37*4096) % benchSpan
		e.s.disk.Submit(&e.op)
	}
	return len(p)
}

func (*benchEnd) Opened(loop.Conn)        {}
func (*benchEnd) Filled(loop.Conn)        {}
func (*benchEnd) Drained(loop.Conn)       {}
func (*benchEnd) Closed(loop.Conn, error) {}

// benchEcho has the server on the loop under test and one client goroutine per connection on Go's net package, whose processor time is counted too.
func benchEcho(b *testing.B, r loop.Runner, conns int, write bool) {
	drive(b, r)
	srv := &benchServer{r: r}
	if write {
		srv.disk = benchFile(b, r)
	}
	var l loop.Listener
	var err error
	onLoop(r, func() { l, err = r.Listen(tcp, loop.ListenOptions{}, srv) })
	if err != nil {
		b.Fatal(err)
	}
	clients := make([]net.Conn, conns)
	for i := range clients {
		if clients[i], err = net.Dial("tcp", l.Addr().Address); err != nil {
			b.Fatal(err)
		}
		defer clients[i].Close()
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	results := make(chan error, conns)
	for i, c := range clients {
		n := b.N / conns
		if i == 0 {
			n = b.N - n*(conns-1)
		}
		go func() {
			p := make([]byte, 100)
			for range n {
				if _, err := c.Write(p); err != nil {
					results <- err
					return
				}
				for k := 0; k < len(p); {
					m, err := c.Read(p[k:])
					if err != nil {
						results <- err
						return
					}
					k += m
				}
			}
			results <- nil
		}()
	}
	for range clients {
		if err := <-results; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpu()-before)/float64(b.N), "cpu-us/op")
	if t, ok := r.(interface{ Turns() uint64 }); ok {
		var n uint64
		onLoop(r, func() { n = t.Turns() })
		b.ReportMetric(float64(n)/float64(b.N), "turns/op")
	}
}
