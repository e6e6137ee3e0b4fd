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

// Bench measures a loop: disk writes and reads of 4 KiB, and echoes. Besides the time it reports cpu-us/op, the processor time of the whole process.
func Bench(b *testing.B, fresh func(b *testing.B) loop.Runner) {
	for _, kind := range []loop.DiskKind{loop.DiskWrite, loop.DiskRead} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("Disk/op=%v/size=4KiB/depth=%d", kind, depth), func(b *testing.B) { benchDisk(b, fresh(b), kind, depth) })
		}
	}
	for _, conns := range []int{1, 32} {
		b.Run(fmt.Sprintf("Echo/size=100/conns=%d", conns), func(b *testing.B) { benchEcho(b, fresh(b), conns) })
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

func benchDisk(b *testing.B, r loop.Runner, kind loop.DiskKind, depth int) {
	const size, span = 4096, 64 << 20
	path := filepath.Join(b.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, span), 0o600); err != nil {
		b.Fatal(err)
	}
	drive(b, r)
	var d loop.Disk
	var err error
	onLoop(r, func() { d, err = r.OpenDisk(path, loop.DiskOptions{}) })
	if err != nil {
		b.Skip(err)
	}
	done := make(chan struct{})
	ops := make([]loop.DiskOp, depth)
	left, running, next := 0, 0, int64(0)
	var submit func(op *loop.DiskOp)
	submit = func(op *loop.DiskOp) {
		left--
		running++
		op.Off = next
		next = (next + 37*size) % span
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

type benchServer struct{}

func (benchServer) Accepted(loop.Conn) loop.ConnHandler { return benchServer{} }
func (benchServer) Opened(loop.Conn)                    {}
func (benchServer) Received(c loop.Conn, p []byte) int  { c.Send(p); return len(p) }
func (benchServer) Filled(loop.Conn)                    {}
func (benchServer) Drained(loop.Conn)                   {}
func (benchServer) Closed(loop.Conn, error)             {}

// benchEcho has the server on the loop under test and one client goroutine per connection on Go's net package, whose processor time is counted too.
func benchEcho(b *testing.B, r loop.Runner, conns int) {
	drive(b, r)
	var l loop.Listener
	var err error
	onLoop(r, func() { l, err = r.Listen(tcp, loop.ListenOptions{}, benchServer{}) })
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
}
