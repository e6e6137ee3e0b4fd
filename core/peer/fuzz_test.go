package peer

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

func noKey(o *Options) { o.Key = nil }

// FuzzAcceptor sends bytes to an OSD, as a stranger or after a handshake. Whatever they are, the OSD must not panic, must not keep a buffer, and must serve others.
func FuzzAcceptor(f *testing.F) {
	f.Add(byte(0), showConfig(1, `{"features":{"check_sequencing":true}}`))
	f.Add(byte(0), append(packet(1, &wire.ReadWrite{Op: wire.OpWrite, Len: 512}), make([]byte, 512)...))
	f.Add(byte(1), packet(1, &wire.ReadWrite{Op: wire.OpRead, Len: 4096}))
	f.Add(byte(1), packet(9, &wire.List{PG: 1}))
	f.Add(byte(1), append(packet(9, &wire.SecVersions{Op: wire.OpSecStabilize, Len: 24}), make([]byte, 24)...))
	own := wire.Header{}
	(&wire.Ping{}).Encode(&own)
	own.SetOp(wire.FirstOwnOp)
	own.SetRequestLens(3, 5)
	f.Add(byte(1), append(own[:], "abcdefgh"...))
	first := &wire.ConfigRequest{OSDNum: 2, Holdfast: &wire.Hello{Version: 1, Role: RoleOSD, Instance: 5, Nonce: "000102030405060708090a0b0c0d0e0f"}}
	f.Fuzz(func(t *testing.T, how byte, p []byte) {
		w := sim.NewWorld(uint64(len(p)))
		w.LogTo(slog.DiscardHandler)
		osd := start(t, w, "osd1", 1, func(o *Options) { o.Key, o.AllowLegacy = nil, anyone })
		osd.serve = func(r *Request) { // whatever is answered must be what was asked for
			var m wire.ReadWrite
			if m.Decode(&r.Header) == nil && m.Op == wire.OpRead && m.Len <= 1<<20 {
				echo(r)
				return
			}
			r.Fail(wire.EPIPE)
		}
		r := dialRaw(t, w, osd.addr)
		if how&1 != 0 {
			r.then = append(hello(t, 1, first), hello(t, 2, first)...)
		}
		r.then = append(r.then, p...)
		w.Run(100 * time.Millisecond)
		r.conn.Close()
		w.Run(10 * time.Millisecond)
		if n := osd.l.Live(); n != 0 {
			t.Fatalf("%d buffers left", n)
		}
		if osd.hub.incoming.n != 0 || osd.hub.pending != 0 || osd.hub.failed.n != 0 {
			t.Fatalf("left over: %d connections, %d in handshake, %d calls", osd.hub.incoming.n, osd.hub.pending, osd.hub.failed.n)
		}
		client := start(t, w, "client", 0, noKey)
		client.hub.SetPeer(1, []loop.Addr{osd.addr})
		c := read(0, 512)
		client.hub.Call(1, c)
		await(t, w, c)
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		c.ReplyData.Release()
	})
}

// fakeOSD finishes the handshake of a keyless client and then says what the fuzzer wants.
type fakeOSD struct {
	raw
	rounds int
	say    []byte
}

func (o *fakeOSD) Accepted(c loop.Conn) loop.ConnHandler {
	if o.conn != nil {
		return nil
	}
	o.conn = c
	return o
}

func (o *fakeOSD) Received(c loop.Conn, p []byte) int {
	if o.rounds++; o.rounds > 2 {
		if o.rounds == 3 { // the calls have come
			c.Send(o.say)
		}
		return len(p)
	}
	var h wire.Header
	if copy(h[:], p) < wire.HeaderSize || len(p) < wire.HeaderSize+int(h[24])+int(h[25])<<8 {
		o.rounds--
		return 0
	}
	conf := wire.ConfigReply{OSDNum: 1, ProtocolVersion: 1, Holdfast: &wire.Hello{Version: 1, Role: RoleOSD, Nonce: "000102030405060708090a0b0c0d0e0f"}}
	text, _ := wire.AppendConfigReply(nil, &conf)
	c.Send(append(packet(h.ID(), &wire.PingReply{Op: wire.OpShowConfig, Retval: int64(len(text)), Clock: 5}), text...))
	return wire.HeaderSize + int(h[24]) + int(h[25])<<8
}

// FuzzDialler lets an OSD answer a client with any bytes. Each call completes once, and no buffer stays.
func FuzzDialler(f *testing.F) {
	ok := packet(3, &wire.ReadWriteReply{Op: wire.OpRead, Retval: 4096, BitmapLen: 8})
	f.Add(append(ok, make([]byte, 4104)...))
	f.Add(append(packet(4, &wire.ReadWriteReply{Op: wire.OpWrite, Retval: 512}), ok...))
	f.Add(append(packet(5, &wire.ListReply{Retval: 2}), make([]byte, 48)...))
	f.Add(packet(1, &wire.Ping{}))
	f.Add(bytes.Repeat([]byte{0x53, 0x45, 0x43}, 60))
	f.Fuzz(func(t *testing.T, p []byte) {
		w := sim.NewWorld(uint64(len(p)))
		fake := &fakeOSD{raw: raw{t: t, w: w}, say: p}
		l := w.NewLoop("fake")
		addr := loop.Addr{Network: "tcp", Address: l.Host() + ":7000"}
		if _, err := l.Listen(addr, loop.ListenOptions{}, fake); err != nil {
			t.Fatal(err)
		}
		client := start(t, w, "client", 0, noKey)
		client.hub.SetPeer(1, []loop.Addr{addr})
		done := 0
		finish := func(c *Call) {
			done++
			if c.ReplyData != nil {
				c.ReplyData.Release()
			}
		}
		b := client.l.Alloc(512)
		list := &Call{Done: finish}
		(&wire.List{PG: 1}).Encode(&list.Header)
		calls := []*Call{read(0, 4096), write(0, b), list}
		for _, c := range calls {
			c.Done = finish
			client.hub.Call(1, c)
		}
		w.Run(time.Second)
		client.hub.RemovePeer(1)
		w.Run(time.Millisecond)
		b.Release()
		if client.up[1] != 1 {
			t.Fatal("no handshake")
		}
		if done != len(calls) || client.l.Live() != 0 {
			t.Fatalf("%d of %d done, %d buffers left", done, len(calls), client.l.Live())
		}
	})
}

// FuzzCallTable compares the table with a map.
func FuzzCallTable(f *testing.F) {
	f.Add([]byte{1, 1, 1, 0, 2, 1, 1})
	f.Fuzz(checkCallTable)
}

func TestCallTableAtRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		p := make([]byte, 2000)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		checkCallTable(t, p)
	}
}

// checkCallTable puts and takes as p says; takes ask for ids lately given, so that gaps appear everywhere.
func checkCallTable(t *testing.T, p []byte) {
	var table callTable
	naive := map[uint64]*Call{}
	id := uint64(0)
	for i, op := range p[:min(len(p), 2000)] {
		if op&3 != 0 {
			id += uint64(op>>4) + 1
			c := &Call{}
			c.impl.id = id
			table.put(c)
			naive[id] = c
			continue
		}
		ask := id - min(id, uint64(op>>2)*uint64(i%5))
		if got := table.take(ask); got != naive[ask] {
			t.Fatalf("take(%d) = %p, want %p", ask, got, naive[ask])
		}
		delete(naive, ask)
	}
	for id, c := range naive {
		if table.take(id) != c {
			t.Fatalf("call %d is lost", id)
		}
	}
	if table.n != 0 {
		t.Fatalf("%d left", table.n)
	}
}

// pump sends one read and one write around, forever.
type pump struct {
	hub  *Hub
	c    *Call
	left int
}

func (p *pump) done(c *Call) {
	if c.ReplyData != nil {
		c.ReplyData.Release()
		c.ReplyData = nil
	}
	if p.left--; p.left > 0 {
		p.hub.Call(layout.OSDNum(1), c)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	w := sim.NewWorld(1)
	osd, client := start(t, w, "osd1", 1, nil), start(t, w, "client", 0, nil)
	osd.serve = plainEcho(osd)
	client.hub.SetPeer(1, []loop.Addr{osd.addr})
	b := client.l.Alloc(16 << 10)
	var pumps []*pump
	for i := range 16 {
		p := &pump{hub: client.hub, c: read(0, 8192)}
		if i&1 != 0 {
			p.c = write(0, b)
		}
		p.c.Done = p.done
		pumps = append(pumps, p)
	}
	busy := func() bool {
		for _, p := range pumps {
			if p.left > 0 {
				return true
			}
		}
		return false
	}
	idle := func() bool { return !busy() }
	run := func(n int) {
		for _, p := range pumps {
			p.left = n
			client.hub.Call(1, p.c)
		}
		if !w.RunUntil(idle, time.Minute) {
			t.Fatal("not done in a minute")
		}
	}
	run(300)
	const n = 50
	allocs := testing.AllocsPerRun(20, func() { run(n) }) / float64(n*len(pumps))
	if allocs > 0.01 {
		t.Fatalf("%.3f allocations per call", allocs)
	}
}

func plainEcho(n *node) func(*Request) {
	data := n.l.Alloc(8192)
	pieces := []Piece{{data, 0, 8192}}
	bitmap := []byte{1, 2, 3, 4}
	var h wire.Header
	return func(r *Request) {
		n.seen = n.seen[:0]
		var m wire.ReadWrite
		if err := m.Decode(&r.Header); err != nil {
			panic(err)
		}
		reply := wire.ReadWriteReply{Op: m.Op, Retval: int64(m.Len)}
		if m.Op == wire.OpWrite {
			reply.Encode(&h)
			r.Reply(&h, nil, nil)
			return
		}
		reply.BitmapLen = 4
		reply.Encode(&h)
		r.Reply(&h, bitmap, pieces)
	}
}
