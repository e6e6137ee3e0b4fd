package peer

import (
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/core/wire"
)

// real runs an OSD and a client, a Hub each, on one loop of the machine; body runs on it once they are connected and calls done at its end.
func real(t testing.TB, body func(client *Hub, l loop.Loop, done func())) {
	l, err := system.New(system.Options{Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := &realOSD{bitmap: make([]byte, 4)}
	task := loop.Task{Run: func() {
		osd := New(l, Options{Self: 1, Instance: 1, Key: clusterKey, Config: testConfig}, h)
		h.pieces = []Piece{{l.Alloc(4096), 0, 4096}}
		ln, err := osd.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:0"}, loop.ListenOptions{})
		if err != nil {
			t.Error(err)
			l.Stop()
			return
		}
		up := &upThen{body: func(b *Hub) { body(b, l, l.Stop) }}
		client := New(l, Options{Instance: 2, Key: clusterKey}, up)
		up.hub = client
		client.SetPeer(1, []loop.Addr{ln.Addr()})
		client.Connect(1)
	}}
	l.Post(&task)
	watch := time.AfterFunc(20*time.Second, l.Stop)
	defer watch.Stop()
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
}

// realOSD answers from one buffer.
type realOSD struct {
	nobody
	bitmap []byte
	pieces []Piece
	h      wire.Header
}

func (o *realOSD) Serve(r *Request) {
	var m wire.ReadWrite
	if m.Decode(&r.Header) != nil {
		r.Fail(wire.EINVAL)
		return
	}
	reply := wire.ReadWriteReply{Op: m.Op, Retval: int64(m.Len)}
	if m.Op == wire.OpWrite {
		reply.Encode(&o.h)
		r.Reply(&o.h, nil, nil)
		return
	}
	reply.BitmapLen = 4
	reply.Encode(&o.h)
	r.Reply(&o.h, o.bitmap, o.pieces)
}

// upThen starts the body.
type upThen struct {
	nobody
	body func(*Hub)
	hub  *Hub
}

func (u *upThen) PeerUp(layout.OSDNum) { u.body(u.hub) }

func TestOnTheMachinesLoop(t *testing.T) {
	finished := 0
	var begun unix.Timespec // on the clock of both ends
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &begun); err != nil {
		t.Fatal(err)
	}
	real(t, func(client *Hub, l loop.Loop, done func()) {
		big := l.Alloc(3 << 20)
		for i := range 200 {
			c := read(0, 4096)
			if i%20 == 0 {
				c = write(0, big)
			}
			c.Done = func(c *Call) {
				if c.Err != nil || c.Reply.Err() != nil {
					t.Error(c.Err, c.Reply.Err())
				}
				if c.ReplyData != nil {
					c.ReplyData.Release()
				}
				if finished++; finished == 200 {
					// It falls short by no more than a request and its answer took, and what the clocks may have moved apart since.
					lag := l.Now().Sub(loop.Instant(begun.Nano())) + time.Millisecond
					if d, ok := client.RemoteDeadline(1, l.Now()); !ok || loop.Instant(d) > l.Now() || loop.Instant(d) < l.Now().Add(-lag) {
						t.Errorf("now, %d, is %d there (%t), more than %v less: it is the same clock", l.Now(), d, ok, lag)
					}
					done()
				}
			}
			client.Call(1, c)
		}
	})
	if finished != 200 {
		t.Fatalf("%d of 200 calls are done", finished)
	}
}

func BenchmarkCall(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(map[int]string{1: "read/4k/depth=1", 32: "read/4k/depth=32"}[depth], func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(4096)
			real(b, func(client *Hub, l loop.Loop, done func()) {
				left, running := b.N, 0
				again := func(c *Call) {
					if c.ReplyData != nil {
						c.ReplyData.Release()
						c.ReplyData = nil
					}
					if left > 0 {
						left--
						client.Call(1, c)
						return
					}
					if running--; running == 0 {
						b.StopTimer()
						done()
					}
				}
				b.ResetTimer()
				for range min(depth, b.N) {
					c := read(0, 4096)
					c.Done = again
					running++
					left--
					client.Call(1, c)
				}
			})
		})
	}
}
