package peer

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

func TestPeerThatDoesNotReadItsRepliesIsNotServedFurther(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.AllowLegacy = anyone })
	var reads [][]byte
	for id := range uint64(64) {
		reads = append(reads, packet(id+1, &wire.ReadWrite{Op: wire.OpRead, Len: 1 << 20}))
	}
	r := dialRaw(t, w, osd.addr, reads...)
	w.After(0, func() { r.conn.Pause() })
	w.Run(10 * time.Second)
	if n := len(osd.seen); n == 0 || n > 8 {
		t.Fatalf("%d reads of 1 MiB were served to a client that takes nothing", n)
	}
	if len(osd.lost) != 0 {
		t.Fatal("it was given no time")
	}
	w.After(0, func() { r.conn.Resume() })
	if !w.RunUntil(func() bool { return len(osd.seen) == 64 && len(r.in) >= 64<<20 }, 10*time.Second) {
		t.Fatalf("%d of 64 were served after it read again", len(osd.seen))
	}
	r.conn.Close()

	r = dialRaw(t, w, osd.addr, reads...)
	w.After(0, func() { r.conn.Pause() })
	w.Run(2*tcpIdle + 2*time.Second)
	w.After(0, func() { r.conn.Resume() })
	w.Run(time.Second)
	if len(osd.lost) != 2 || osd.l.Live() != 0 {
		t.Fatalf("%d connections ended, %d buffers are held for it", len(osd.lost), osd.l.Live())
	}
}

func TestCallsWaitBehindAFullSendQueue(t *testing.T) {
	w, osd, client := pair(t)
	client.hub.Connect(1)
	w.Run(time.Second)
	b := client.l.Alloc(1 << 20)
	var calls []*Call
	for range 30 {
		c := write(0, b)
		calls = append(calls, c)
		client.hub.Call(1, c)
	}
	if calls[29].Sent() || !client.hub.Cancel(calls[29]) {
		t.Fatal("30 MiB were sent at once")
	}
	for _, c := range calls[:29] {
		await(t, w, c)
		if c.Err != nil {
			t.Fatal(c.Err)
		}
	}
	if len(osd.seen) != 29 {
		t.Fatalf("%d arrived", len(osd.seen))
	}
}

func TestEagerPeerIsDialledAgain(t *testing.T) {
	w, osd, client := pair(t)
	client.hub.Connect(1)
	w.Run(time.Second)
	for i := range 5 {
		w.Net.Reset(client.l, osd.l)
		w.Run(time.Second)
		if !client.hub.Connected(1) || len(client.down) != i+1 || client.up[1] != i+2 {
			t.Fatalf("reset %d: connected %t, down %d, up %d", i, client.hub.Connected(1), len(client.down), client.up[1])
		}
	}
	client.hub.Drop(1, errors.New("for a test"))
	w.Run(time.Second)
	if last := client.down[len(client.down)-1]; last.Error() != "for a test" || !client.hub.Connected(1) {
		t.Fatalf("down with %v, connected %t", last, client.hub.Connected(1))
	}
}

func TestNewAddressIsTriedAtOnce(t *testing.T) {
	w, osd, client := pair(t)
	silent := start(t, w, "silent", 9, nil)
	w.Net.Cut(client.l, silent.l)
	client.hub.SetPeer(1, []loop.Addr{silent.addr})
	c := read(0, 4096)
	client.hub.Call(1, c)
	w.Run(100 * time.Millisecond)
	client.hub.SetPeer(1, []loop.Addr{osd.addr})
	if !w.RunUntil(func() bool { return !c.Active() }, 100*time.Millisecond) || c.Err != nil {
		t.Fatalf("the call waits, or failed: %v", c.Err)
	}
	c.ReplyData.Release()
}

// TestFaults runs calls among four OSDs while connections are reset, cut, processes paused, killed and started again: each call completes once, as what it is, and
// nothing is left at the end.
func TestFaults(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { faults(t, seed) })
	}
}

func faults(t *testing.T, seed uint64) {
	w := sim.NewWorld(seed)
	w.LogTo(slog.DiscardHandler)
	rng := w.Rand()
	const n = 4
	var nodes [n]*node
	tell := func(osd *node) {
		for i, a := range nodes {
			for j, b := range nodes {
				if i != j && a != nil && b != nil && (a == osd || b == osd) {
					a.hub.SetPeer(layout.OSDNum(j+1), []loop.Addr{b.addr})
				}
			}
		}
	}
	begin := func(i int) {
		o := start(t, w, fmt.Sprintf("osd%d", i+1), layout.OSDNum(i+1), func(o *Options) { o.MaxInFlight = 256 << 10 })
		o.serve = func(r *Request) { // some answers come late, in any order
			o.held = append(o.held, r)
			for len(o.held) > 0 && rng.IntN(3) > 0 {
				k := rng.IntN(len(o.held))
				late := o.held[k]
				o.held = append(o.held[:k], o.held[k+1:]...)
				echo(late)
			}
		}
		nodes[i] = o
		tell(o)
	}
	for i := range n {
		begin(i)
	}
	type job struct {
		c    *Call
		from *node
		done int
	}
	var jobs []*job
	var ok, lost int
	issue := func() {
		from := nodes[rng.IntN(n)]
		j := &job{from: from}
		if rng.IntN(2) == 0 {
			j.c = read(rng.Uint64(), uint32(rng.IntN(64)*4096))
		} else {
			b := from.l.Alloc(4096 * (1 + rng.IntN(32)))
			j.c = write(0, b) // released by Done
		}
		done := j.c
		j.c.Done = func(c *Call) {
			j.done++
			if c.Err != nil {
				lost++
				if _, isD := errors.AsType[*DisconnectedError](c.Err); !isD {
					t.Errorf("error of type %T", c.Err)
				}
			} else {
				ok++
				var m wire.ReadWrite
				if m.Decode(&done.Header) == nil && m.Op == wire.OpRead && m.Len > 0 && c.ReplyData.Bytes()[m.Len-1] != byte(m.Offset) {
					t.Error("another call's data")
				}
			}
			if c.ReplyData != nil {
				c.ReplyData.Release()
				c.ReplyData = nil
			}
			for _, p := range c.Payload {
				p.Ref.Release()
			}
		}
		to := layout.OSDNum(rng.IntN(n) + 1)
		jobs = append(jobs, j)
		from.hub.Call(to, j.c)
	}
	for range 300 {
		for range rng.IntN(8) {
			issue()
		}
		a, b := rng.IntN(n), rng.IntN(n)
		switch {
		case a == b:
		case rng.IntN(20) == 0:
			w.Net.Reset(nodes[a].l, nodes[b].l)
		case rng.IntN(20) == 0:
			w.Net.Cut(nodes[a].l, nodes[b].l)
			x, y := nodes[a].l, nodes[b].l
			w.After(time.Duration(rng.IntN(4000))*time.Millisecond, func() { w.Net.Heal(x, y) })
		case rng.IntN(30) == 0:
			l := nodes[a].l
			l.Pause()
			w.After(time.Duration(rng.IntN(3000))*time.Millisecond, l.Resume)
		case rng.IntN(60) == 0:
			nodes[a].l.Kill()
			begin(a)
		}
		w.Run(time.Duration(rng.IntN(40)) * time.Millisecond)
	}
	w.Net.HealAll()
	w.Run(20 * time.Second)
	for _, o := range nodes {
		for _, r := range o.held {
			echo(r)
		}
		o.held = nil
	}
	w.Run(20 * time.Second)
	for _, o := range nodes {
		for _, r := range o.held { // came from connections healed since
			echo(r)
		}
		o.held = nil
	}
	w.Run(time.Second)
	for i, j := range jobs {
		if want := 1; j.from.l.Alive() && j.done != want || j.done > want {
			t.Errorf("call %d completed %d times", i, j.done)
		}
	}
	for i, o := range nodes {
		if o.l.Live() != 0 {
			t.Errorf("OSD %d: %d buffers left", i+1, o.l.Live())
		}
		for c := o.hub.incoming.first; c != nil; c = c.next {
			if c.inFlight != 0 {
				t.Errorf("OSD %d: %d bytes in flight of %v", i+1, c.inFlight, c)
			}
		}
	}
	if ok < 100 || t.Failed() {
		t.Errorf("seed %d: %d calls done, %d lost", seed, ok, lost)
	}
}
