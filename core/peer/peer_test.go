package peer

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

// node is one daemon of a test: a Hub and what it heard.
type node struct {
	t    *testing.T
	w    *sim.World
	l    *sim.Loop
	hub  *Hub
	addr loop.Addr

	serve func(*Request)
	held  []*Request
	up    map[layout.OSDNum]int
	down  []error
	lost  []*Incoming
	seen  []*Incoming // of requests
}

func (n *node) Serve(r *Request) {
	n.seen = append(n.seen, r.From)
	n.serve(r)
}
func (n *node) PeerUp(osd layout.OSDNum)              { n.up[osd]++ }
func (n *node) PeerDown(osd layout.OSDNum, err error) { n.down = append(n.down, err) }
func (n *node) IncomingDown(c *Incoming)              { n.lost = append(n.lost, c) }

var clusterKey = []byte("a cluster key of the tests")

func testConfig() wire.ConfigReply {
	return wire.ConfigReply{BlockSize: 131072, BitmapGranularity: 4096, PrimaryEnabled: true, BlockstoreEnabled: true, ImmediateCommit: wire.CommitAll, LeaseTimeout: 5}
}

func newWorld(t *testing.T) *sim.World {
	w := sim.NewWorld(uint64(len(t.Name())) * 7919)
	w.LogTo(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	return w
}

// start makes a node; it listens when self is not 0.
func start(t *testing.T, w *sim.World, name string, self layout.OSDNum, change func(*Options)) *node {
	t.Helper()
	n := &node{t: t, w: w, l: w.NewLoop(name), up: map[layout.OSDNum]int{}}
	n.serve = echo
	o := Options{Self: self, Instance: w.Rand().Uint64(), Client: name, Key: clusterKey}
	if self != 0 {
		o.Config = testConfig
	}
	if change != nil {
		change(&o)
	}
	n.hub = New(n.l, o, n)
	if self != 0 {
		n.addr = loop.Addr{Network: "tcp", Address: n.l.Host() + ":7000"}
		if _, err := n.hub.Listen(n.addr, loop.ListenOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// echo answers READ with a bitmap and data of the offset's low byte, and anything else with its length.
func echo(r *Request) {
	var m wire.ReadWrite
	if m.Decode(&r.Header) != nil {
		r.Fail(0)
		return
	}
	reply := wire.ReadWriteReply{Op: m.Op, Retval: int64(m.Len), Version: m.Version + 1}
	var h wire.Header
	if m.Op != wire.OpRead {
		reply.Encode(&h)
		r.Reply(&h, nil, nil)
		return
	}
	reply.BitmapLen = 4
	reply.Encode(&h)
	b := r.link.hub.l.Alloc(int(m.Len))
	for i := range b.Bytes() {
		b.Bytes()[i] = byte(m.Offset)
	}
	r.Reply(&h, []byte{1, 2, 3, 4}, []Piece{{b, 0, int(m.Len) / 2}, {b, int(m.Len) / 2, int(m.Len) - int(m.Len)/2}})
	b.Release()
}

func read(off uint64, n uint32) *Call {
	c := &Call{Done: func(*Call) {}}
	(&wire.ReadWrite{Op: wire.OpRead, Inode: 1<<48 | 1, Offset: off, Len: n}).Encode(&c.Header)
	return c
}

func write(off uint64, b *buf.Ref) *Call {
	c := &Call{Done: func(*Call) {}, Payload: []Piece{{b, 0, b.Len()}}}
	(&wire.ReadWrite{Op: wire.OpWrite, Inode: 1<<48 | 1, Offset: off, Len: uint32(b.Len())}).Encode(&c.Header)
	return c
}

// await runs the world until c is done.
func await(t *testing.T, w *sim.World, c *Call) {
	t.Helper()
	if !w.RunUntil(func() bool { return !c.Active() }, 10*time.Second) {
		t.Fatalf("call of %v is not done after 10 s", c.Header.Op())
	}
}

func pair(t *testing.T) (*sim.World, *node, *node) {
	w := newWorld(t)
	osd, client := start(t, w, "osd1", 1, nil), start(t, w, "client", 0, nil)
	client.hub.SetPeer(1, []loop.Addr{osd.addr})
	return w, osd, client
}

func disconnected(t *testing.T, err error, sent bool) *DisconnectedError {
	t.Helper()
	d, ok := errors.AsType[*DisconnectedError](err)
	if !ok || d.Sent != sent {
		t.Fatalf("error %v, want a DisconnectedError with Sent = %t", err, sent)
	}
	return d
}

func TestCallBringsReplyWithBitmapAndData(t *testing.T) {
	w, osd, client := pair(t)
	for _, n := range []uint32{4096, 0, 256 << 10, 5 << 20} {
		c := read(uint64(n)+77, n)
		client.hub.Call(1, c)
		if !c.Active() {
			t.Fatal("completed inside Call")
		}
		await(t, w, c)
		if c.Err != nil || c.Reply.Retval() != int64(n) || !bytes.Equal(c.ReplyMeta, []byte{1, 2, 3, 4}) {
			t.Fatalf("read of %d: %v, retval %d, bitmap %x", n, c.Err, c.Reply.Retval(), c.ReplyMeta)
		}
		if n == 0 {
			continue
		}
		if len(bytes.Trim(c.ReplyData.Bytes(), string([]byte{byte(n + 77)}))) != 0 || c.ReplyData.Len() != int(n) {
			t.Fatalf("read of %d brought other bytes", n)
		}
		c.ReplyData.Release()
	}
	w.Run(time.Second)
	if osd.l.Live() != 0 || client.l.Live() != 0 {
		t.Fatalf("buffers left: %d at the OSD, %d at the client", osd.l.Live(), client.l.Live())
	}
	if client.up[1] != 1 {
		t.Fatalf("PeerUp came %d times", client.up[1])
	}
	from := osd.seen[0]
	if !from.Authenticated || from.OSD != 0 || from.Role != RoleClient || from.Instance != client.hub.o.Instance || from.Client != "client" {
		t.Fatalf("the OSD saw %+v", from)
	}
}

func TestWritePayloadArrivesInOneBufferAndCanBeTaken(t *testing.T) {
	w, osd, client := pair(t)
	var taken *buf.Ref
	osd.serve = func(r *Request) {
		taken = r.TakeData()
		echo(r)
	}
	for _, n := range []int{512, 4096, 3<<20 + 512} {
		b := client.l.Alloc(n)
		for i := range b.Bytes() {
			b.Bytes()[i] = byte(i * 7)
		}
		c := write(0, b)
		client.hub.Call(1, c)
		await(t, w, c)
		if c.Err != nil || taken == nil || !bytes.Equal(taken.Bytes(), b.Bytes()) {
			t.Fatalf("write of %d: %v, other bytes arrived", n, c.Err)
		}
		taken.Release()
		b.Release()
	}
	if osd.l.Live() != 0 || client.l.Live() != 0 {
		t.Fatalf("buffers left: %d, %d", osd.l.Live(), client.l.Live())
	}
}

func TestRepliesOutOfOrderReachTheirCalls(t *testing.T) {
	w, osd, client := pair(t)
	osd.serve = func(r *Request) { osd.held = append(osd.held, r) }
	const n = 300
	var calls []*Call
	for i := range n {
		c := read(uint64(i), 4096)
		calls = append(calls, c)
		client.hub.Call(1, c)
	}
	w.RunUntil(func() bool { return len(osd.held) == n }, time.Second)
	for _, i := range w.Rand().Perm(n) {
		echo(osd.held[i])
	}
	for i, c := range calls {
		await(t, w, c)
		if c.Err != nil || c.ReplyData.Bytes()[0] != byte(i) {
			t.Fatalf("call %d: %v, data of %d", i, c.Err, c.ReplyData.Bytes()[0])
		}
		c.ReplyData.Release()
	}
}

func TestCallsOfALostConnectionFailAsSent(t *testing.T) {
	w, osd, client := pair(t)
	osd.serve = func(r *Request) { osd.held = append(osd.held, r) }
	var order []int
	for i := range 20 {
		c := read(uint64(i), 4096)
		c.Done = func(c *Call) {
			disconnected(t, c.Err, true)
			if len(client.down) != 0 {
				t.Error("PeerDown came before the calls failed")
			}
			order = append(order, i)
		}
		client.hub.Call(1, c)
	}
	w.RunUntil(func() bool { return len(osd.held) == 20 }, time.Second)
	w.Net.Reset(client.l, osd.l)
	w.Run(50 * time.Millisecond)
	if len(order) != 20 || len(client.down) != 1 {
		t.Fatalf("%d calls failed, PeerDown %d times", len(order), len(client.down))
	}
	for i, o := range order {
		if i != o {
			t.Fatalf("calls failed in the order %v", order)
		}
	}
	if len(osd.lost) != 1 || !osd.held[0].Gone() {
		t.Fatal("the OSD did not hear of the end")
	}
	for _, r := range osd.held {
		echo(r) // nobody waits any more
	}
	w.Run(time.Second)
	if osd.l.Live() != 0 {
		t.Fatalf("%d buffers left", osd.l.Live())
	}
}

func TestUnknownOSDAndCancel(t *testing.T) {
	w, _, client := pair(t)
	c := read(0, 4096)
	done := 0
	c.Done = func(*Call) { done++ }
	client.hub.Call(9, c)
	if done != 0 {
		t.Fatal("completed inside Call")
	}
	await(t, w, c)
	if !errors.Is(c.Err, ErrNoAddress) || done != 1 {
		t.Fatalf("error %v, done %d times", c.Err, done)
	}
	client.hub.Call(9, c)
	if !client.hub.Cancel(c) || c.Active() {
		t.Fatal("a failed call that was never sent can be taken back")
	}
	client.hub.Call(1, c)
	if !client.hub.Cancel(c) || client.hub.Cancel(c) {
		t.Fatal("a queued call can be taken back, once")
	}
	w.Run(time.Second)
	if done != 1 {
		t.Fatalf("done %d times", done)
	}
	client.hub.Call(1, c)
	if client.hub.Cancel(c) {
		t.Fatal("a sent call cannot be taken back")
	}
	await(t, w, c)
	c.ReplyData.Release()
}

func TestQueueIsBounded(t *testing.T) {
	w := newWorld(t)
	client := start(t, w, "client", 0, func(o *Options) { o.MaxQueue = 3 })
	client.hub.SetPeer(1, []loop.Addr{{Network: "tcp", Address: "10.9.9.9:1"}})
	var full int
	for range 5 {
		c := read(0, 4096)
		c.Done = func(c *Call) {
			if errors.Is(c.Err, ErrQueueFull) {
				full++
			}
		}
		client.hub.Call(1, c)
	}
	w.Run(time.Second)
	if full != 2 {
		t.Fatalf("%d calls did not fit, want 2", full)
	}
}

func TestReconnectGrowsAndStopsAtSuccess(t *testing.T) {
	w := newWorld(t)
	client := start(t, w, "client", 0, nil)
	osd := start(t, w, "osd1", 1, nil)
	addr := osd.addr
	osd.l.Kill()
	client.hub.SetPeer(1, []loop.Addr{addr})
	client.hub.Connect(1)
	p := client.hub.peers[1]
	var waits []time.Duration
	last := time.Duration(-1)
	w.RunUntil(func() bool {
		if p.state == dialWaiting && p.wait != last {
			last = p.wait
			waits = append(waits, p.wait)
		}
		return false
	}, 15*time.Second)
	want := []time.Duration{200, 400, 800, 1600, 3200, 5000}
	if len(waits) != len(want) {
		t.Fatalf("intervals %v, want %v ms", waits, want)
	}
	for i := range want {
		if waits[i] != want[i]*time.Millisecond {
			t.Fatalf("intervals %v, want %v ms", waits, want)
		}
	}
	start(t, w, "osd1", 1, nil)
	if !w.RunUntil(func() bool { return client.hub.Connected(1) }, 6*time.Second) || p.wait != 0 {
		t.Fatal("not connected to the OSD that came back")
	}
}

func TestQueuedCallFailsAfterTheLastAddress(t *testing.T) {
	w, osd, client := pair(t)
	nobody := loop.Addr{Network: "tcp", Address: osd.l.Host() + ":1"}
	client.hub.SetPeer(1, []loop.Addr{nobody, nobody})
	c := read(0, 4096)
	client.hub.Call(1, c)
	await(t, w, c)
	disconnected(t, c.Err, false)

	client.hub.SetPeer(1, []loop.Addr{nobody, osd.addr})
	client.hub.Call(1, c)
	await(t, w, c)
	if c.Err != nil {
		t.Fatalf("the second address was not tried: %v", c.Err)
	}
	c.ReplyData.Release()
}

func TestHalfOpenConnectionIsFoundByPing(t *testing.T) {
	for _, way := range []string{"both", "from the OSD", "to the OSD"} {
		t.Run(way, func(t *testing.T) {
			w, osd, client := pair(t)
			client.hub.Connect(1)
			w.RunUntil(func() bool { return client.hub.Connected(1) }, time.Second)
			w.Run(3 * time.Second) // pings keep it alive
			if !client.hub.Connected(1) || len(client.down) != 0 {
				t.Fatal("an idle connection was dropped")
			}
			if way != "to the OSD" {
				w.Net.CutOneWay(osd.l, client.l)
			}
			if way != "from the OSD" {
				w.Net.CutOneWay(client.l, osd.l)
			}
			c := read(0, 4096)
			client.hub.Call(1, c)
			if !w.RunUntil(func() bool { return !c.Active() }, 1600*time.Millisecond) {
				t.Fatal("still waiting after the idle and the ping timeout")
			}
			// The OSD, which does not hear us, may be first to close.
			if !errors.Is(c.Err, ErrSilent) && !(way == "to the OSD" && errors.Is(c.Err, errEOF)) || len(client.down) != 1 {
				t.Fatalf("error %v", c.Err)
			}
			if way == "both" && !w.RunUntil(func() bool { return len(osd.lost) == 1 }, 1600*time.Millisecond) {
				t.Fatal("the OSD still believes in the connection")
			}
		})
	}
}

func TestProcessThatStoodStillKeepsItsConnection(t *testing.T) {
	w, osd, client := pair(t)
	client.hub.Connect(1)
	w.Run(time.Second)
	client.l.Pause()
	w.Run(900 * time.Millisecond) // the OSD does not give up yet, as its own ping is answered in time
	client.l.Resume()
	w.Run(2 * time.Second)
	if len(client.down) != 0 || len(osd.lost) != 0 {
		t.Fatalf("connection lost: %v", client.down)
	}
}

func TestBackPressurePausesReading(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.MaxInFlight = 1 << 20 })
	client := start(t, w, "client", 0, nil)
	client.hub.SetPeer(1, []loop.Addr{osd.addr})
	osd.serve = func(r *Request) { osd.held = append(osd.held, r) }
	b := client.l.Alloc(128 << 10)
	done := 0
	for range 40 {
		c := write(0, b)
		c.Done = func(c *Call) {
			if c.Err != nil {
				t.Error(c.Err)
			}
			done++
		}
		client.hub.Call(1, c)
	}
	w.Run(5 * time.Second)
	if len(osd.held) != 8 {
		t.Fatalf("%d requests of 128 KiB are held, the limit is 1 MiB", len(osd.held))
	}
	if len(client.down)+len(osd.lost) != 0 {
		t.Fatal("back-pressure was taken for death")
	}
	osd.serve = echo
	for _, r := range osd.held {
		echo(r)
	}
	if !w.RunUntil(func() bool { return done == 40 }, 5*time.Second) {
		t.Fatalf("%d of 40 done", done)
	}
	if osd.seen[0].InFlight() != 0 {
		t.Fatalf("%d bytes in flight at the end", osd.seen[0].InFlight())
	}
}

func TestDeadlineIsNeverLaterThere(t *testing.T) {
	for _, ppm := range [][2]int64{{0, 0}, {150, -40}, {-150, 40}} { // of the OSD's clock, of the client's
		w, osd, client := pair(t)
		osd.l.SetClock(12345*time.Second, ppm[0])
		client.l.SetClock(0, ppm[1])
		client.hub.Connect(1)
		w.RunUntil(func() bool { return client.hub.Connected(1) }, time.Second)
		worst := time.Duration(0)
		for i := range 400 {
			w.Run(50 * time.Millisecond)
			ahead := time.Duration(i%3) * 2 * time.Second
			d, ok := client.hub.RemoteDeadline(1, client.l.Now().Add(ahead))
			if !ok {
				t.Fatal("no offset")
			}
			// What the OSD's clock will show when ours shows that: both run evenly.
			truth := osd.l.Now().Add(time.Duration(float64(ahead) * float64(1e6+ppm[0]) / float64(1e6+ppm[1])))
			early := truth.Sub(loop.Instant(d))
			if early < 0 {
				t.Fatalf("ppm %v, %v ahead: the deadline is %v too late", ppm, ahead, -early)
			}
			worst = max(worst, early)
		}
		if worst > 5*time.Millisecond {
			t.Fatalf("ppm %v: the deadline is up to %v early", ppm, worst)
		}
	}
}

func TestDeadlineIsWrittenInTheReceiversTime(t *testing.T) {
	w, osd, client := pair(t)
	osd.l.SetClock(12345*time.Second, 0)
	c := read(0, 4096)
	c.Deadline = client.l.Now().Add(time.Second)
	client.hub.Call(1, c) // waits for the connection first
	want := osd.l.Now().Add(time.Second)
	await(t, w, c)
	var m wire.ReadWrite
	if err := m.Decode(&c.Header); err != nil {
		t.Fatal(err)
	}
	if d := want.Sub(loop.Instant(m.Deadline)); d < 0 || d > 5*time.Millisecond {
		t.Fatalf("the deadline at the OSD is %v early", d)
	}
	c.ReplyData.Release()
}

func TestCloseFailsEverythingLater(t *testing.T) {
	w, osd, client := pair(t)
	osd.serve = func(r *Request) { osd.held = append(osd.held, r) }
	sent, queued := read(0, 4096), read(0, 4096)
	client.hub.Call(1, sent)
	w.RunUntil(func() bool { return len(osd.held) == 1 }, time.Second)
	client.hub.SetPeer(2, []loop.Addr{{Network: "tcp", Address: "10.9.9.9:1"}})
	client.hub.Call(2, queued)
	client.hub.Close()
	if !sent.Active() || !queued.Active() {
		t.Fatal("completed inside Close")
	}
	await(t, w, sent)
	await(t, w, queued)
	disconnected(t, sent.Err, true)
	disconnected(t, queued.Err, false)
	client.hub.Call(1, queued)
	await(t, w, queued)
	if !errors.Is(queued.Err, ErrClosed) {
		t.Fatal(queued.Err)
	}
	if len(client.down) != 0 {
		t.Fatal("the handler heard of it")
	}
	osd.held[0].Drop()
}

func TestRemovedPeerIsNotDialledAgain(t *testing.T) {
	w, osd, client := pair(t)
	client.hub.Connect(1)
	w.Run(time.Second)
	client.hub.RemovePeer(1)
	w.Run(20 * time.Second)
	if client.hub.Connected(1) || len(client.down) != 1 || len(osd.lost) != 1 || client.up[1] != 1 {
		t.Fatalf("connected %t, down %d, lost %d, up %d", client.hub.Connected(1), len(client.down), len(osd.lost), client.up[1])
	}
}
