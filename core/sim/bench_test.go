package sim

import (
	"testing"
	"time"

	"holdfast/core/loop"
)

// BenchmarkEcho says what a simulated second costs: one message there and back, about five events.
func BenchmarkEcho(b *testing.B) {
	w := NewWorld(1)
	s, l := w.NewLoop("s"), w.NewLoop("l")
	if _, err := s.Listen(service, loop.ListenOptions{}, echoListener{}); err != nil {
		b.Fatal(err)
	}
	n := 0
	c := &client{received: func(_ loop.Conn, p []byte) int { n += len(p); return len(p) }}
	c.conn = l.Dial(service, c)
	p := random(4096)
	back := func() bool { return n == len(p) }
	b.ReportAllocs()
	for b.Loop() {
		n = 0
		c.conn.Send(p)
		w.RunUntil(back, time.Second)
	}
	b.ReportMetric(float64(w.Steps())/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkDiskWrite is one 4 KiB write with its flush.
func BenchmarkDiskWrite(b *testing.B) {
	w := NewWorld(1)
	l := w.NewLoop("l")
	w.NewDisk("d", 1<<30, 4096)
	disk, err := l.OpenDisk("d", loop.DiskOptions{})
	if err != nil {
		b.Fatal(err)
	}
	done := false
	op := &loop.DiskOp{Data: l.Alloc(4096).Bytes(), Done: func(*loop.DiskOp) { done = true }}
	finished := func() bool { return done }
	b.ReportAllocs()
	for b.Loop() {
		for _, k := range []loop.DiskKind{loop.DiskWrite, loop.DiskFlush} {
			done = false
			op.Kind, op.Off = k, (op.Off+4096)%(1<<28)
			disk.Submit(op)
			w.RunUntil(finished, time.Second)
		}
	}
}
