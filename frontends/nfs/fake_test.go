package nfs_test

import (
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/loop/turn"
	"holdfast/frontends/nfs"
	"holdfast/frontends/nfs/memtree"
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/nfs/xdr"
)

// fakeLoop is a loop without sockets and threads: the test hands bytes to connections and turns it until nothing is left to do.
type fakeLoop struct {
	now      loop.Instant
	timers   turn.Timers
	deferred turn.Tasks
	posted   turn.Tasks
	arena    *buf.Arena
	lent     int64 // buffers lent before this loop began
	log      *slog.Logger
	rng      *rand.Rand
	accept   loop.ListenHandler
}

var _ loop.Loop = (*fakeLoop)(nil)

// arena is shared by all tests, which run one after the other: an arena keeps its memory for ever.
var arena = buf.NewArena()

func newFakeLoop(log *slog.Logger) *fakeLoop {
	return &fakeLoop{now: 1, arena: arena, lent: arena.Live(), log: log, rng: rand.New(rand.NewPCG(1, 1))}
}

func (l *fakeLoop) Now() loop.Instant                                    { return l.now }
func (l *fakeLoop) Wall() time.Time                                      { return time.Unix(1_700_000_000, int64(l.now)) }
func (l *fakeLoop) Rand() *rand.Rand                                     { return l.rng }
func (l *fakeLoop) Log() *slog.Logger                                    { return l.log }
func (l *fakeLoop) Arm(t *loop.Timer, at loop.Instant)                   { l.timers.Arm(t, at, l.now) }
func (l *fakeLoop) Disarm(t *loop.Timer)                                 { l.timers.Disarm(t) }
func (l *fakeLoop) Post(t *loop.Task)                                    { l.posted.Push(t) }
func (l *fakeLoop) Defer(t *loop.Task)                                   { l.deferred.Push(t) }
func (l *fakeLoop) Alloc(n int) *buf.Ref                                 { return l.arena.Alloc(n) }
func (l *fakeLoop) Dial(loop.Addr, loop.ConnHandler) loop.Conn           { panic("not dialled here") }
func (l *fakeLoop) OpenDisk(string, loop.DiskOptions) (loop.Disk, error) { panic("no disks here") }
func (l *fakeLoop) Addr() loop.Addr                                      { return loop.Addr{Network: "tcp", Address: "10.0.0.1:2049"} }
func (l *fakeLoop) Close()                                               {}
func (l *fakeLoop) Listen(_ loop.Addr, _ loop.ListenOptions, h loop.ListenHandler) (loop.Listener, error) {
	l.accept = h
	return l, nil
}

// live is the number of buffers lent.
func (l *fakeLoop) live() int64 { return l.arena.Live() - l.lent }

// step runs what is ready and reports whether there was anything.
func (l *fakeLoop) step() bool {
	did := false
	for t := l.posted.Pop(); t != nil; t = l.posted.Pop() {
		t.Run()
		did = true
	}
	for t := l.deferred.Pop(); t != nil; t = l.deferred.Pop() {
		t.Run()
		did = true
	}
	l.now++
	return did
}

// settle turns the loop until nothing is ready.
func (l *fakeLoop) settle() {
	for n := 0; l.step(); n++ {
		if n > 1_000_000 {
			panic("the loop does not come to rest")
		}
	}
}

// advance lets time pass, in steps from timer to timer.
func (l *fakeLoop) advance(d time.Duration) {
	end := l.now.Add(d)
	l.settle()
	for {
		at, ok := l.timers.Next()
		if !ok || at > end {
			break
		}
		l.now = max(l.now, at)
		l.timers.Fire(l.now)
		l.settle()
	}
	l.now = max(l.now, end)
}

// fakeConn is the server's end of a connection; the test plays the peer and the kernel.
type fakeConn struct {
	l      *fakeLoop
	h      loop.ConnHandler
	addr   string
	in     []byte // sent by the peer and not consumed
	fill   []byte
	filled int
	out    []byte // what the server sent, all taken at once unless stuck
	stuck  bool   // the peer takes nothing: what is sent stays queued
	queued int
	high   bool
	paused bool
	closed bool
	pump   loop.Task
}

var _ loop.Conn = (*fakeConn)(nil)

func (c *fakeConn) Send(p []byte) {
	if c.closed {
		return
	}
	c.out = append(c.out, p...)
	c.took(len(p))
}

func (c *fakeConn) SendRef(b *buf.Ref, off, n int) {
	if c.closed {
		return
	}
	c.out = append(c.out, b.Bytes()[off:off+n]...)
	c.took(n)
}

func (c *fakeConn) took(n int) {
	if c.stuck {
		c.queued += n
		c.high = c.high || c.queued > loop.HighWater
	}
}

// unstick lets everything queued leave.
func (c *fakeConn) unstick() {
	c.stuck, c.queued = false, 0
	if c.high {
		c.high = false
		c.h.Drained(c)
	}
	c.deliver()
	c.l.settle()
}

func (c *fakeConn) Queued() int   { return c.queued }
func (c *fakeConn) Fill(p []byte) { c.fill, c.filled = p, 0 }
func (c *fakeConn) Pause()        { c.paused = true }
func (c *fakeConn) Resume() {
	c.paused = false
	c.l.Defer(&c.pump)
}

func (c *fakeConn) Close() {
	if c.closed {
		return
	}
	c.closed = true
	c.l.Defer(&loop.Task{Run: func() { c.h.Closed(c, nil) }})
}
func (c *fakeConn) CloseAfterSend()                                { c.Close() }
func (c *fakeConn) Local() loop.Addr                               { return c.l.Addr() }
func (c *fakeConn) Remote() loop.Addr                              { return loop.Addr{Network: "tcp", Address: c.addr} }
func (c *fakeConn) SetKeepAlive(time.Duration, time.Duration, int) {}
func (c *fakeConn) LastAck() loop.Instant                          { return c.l.now }

// deliver shows the peer's bytes to the handler as a loop does.
func (c *fakeConn) deliver() {
	for !c.closed && !c.paused && len(c.in) > 0 {
		if c.fill != nil {
			n := copy(c.fill[c.filled:], c.in)
			c.filled += n
			c.in = c.in[n:]
			if c.filled < len(c.fill) {
				return
			}
			c.fill = nil
			c.h.Filled(c)
			continue
		}
		n := c.h.Received(c, c.in)
		if n == 0 && c.fill == nil {
			return
		}
		c.in = c.in[n:]
	}
	if len(c.in) == 0 && c.fill == nil {
		c.in = nil
	}
}

// bench is a server on a fake loop.
type bench struct {
	t    testing.TB
	l    *fakeLoop
	tree *memtree.Tree
	s    *nfs.Server
}

func newBench(t testing.TB, tree *memtree.Tree, o nfs.Options) *bench {
	if tree == nil {
		tree = memtree.New(memtree.Options{})
	}
	b := &bench{t: t, l: newFakeLoop(slog.New(slog.DiscardHandler)), tree: tree}
	b.s = nfs.New(b.l, o, tree)
	if _, err := b.s.Listen(loop.Addr{Network: "tcp", Address: "10.0.0.1:2049"}, loop.ListenOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// close ends the server and checks that it gives everything back.
func (b *bench) close() {
	b.t.Helper()
	done := false
	b.s.Close(func() { done = true })
	b.l.settle()
	b.l.advance(10 * time.Second)
	if !done {
		b.t.Fatal("Close has not ended")
	}
	if n := b.l.live(); n != 0 {
		b.t.Errorf("%d buffers were not given back", n)
	}
}

// peer is an NFS client.
type peer struct {
	b   *bench
	c   *fakeConn
	xid uint32
}

func (b *bench) dial(from string) *peer {
	b.t.Helper()
	c := &fakeConn{l: b.l, addr: from}
	c.pump.Run = c.deliver
	c.h = b.l.accept.Accepted(c)
	if c.h == nil {
		return nil
	}
	return &peer{b: b, c: c, xid: 100}
}

// local is a peer that is allowed by default.
func (b *bench) local() *peer {
	b.t.Helper()
	p := b.dial("127.0.0.1:800")
	if p == nil {
		b.t.Fatal("a connection from 127.0.0.1 was refused")
	}
	return p
}

// raw gives bytes to the server, without turning the loop.
func (p *peer) raw(in []byte) {
	p.c.in = append(p.c.in, in...)
	p.c.deliver()
}

// message is a call without its record mark.
func message(xid, program, version, procedure uint32, args []byte) []byte {
	var e xdr.Encoder
	for _, v := range []uint32{xid, 0, 2, program, version, procedure} {
		e.Uint32(v)
	}
	var cred xdr.Encoder
	cred.Uint32(7)
	cred.String("tester")
	cred.Uint32(0)
	cred.Uint32(0)
	cred.Uint32(0)
	e.Uint32(rpc.AuthSys)
	e.Opaque(cred.B)
	e.Uint32(0)
	e.Uint32(0)
	return append(e.B, args...)
}

func record(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(msg))|1<<31), msg...)
}

// send sends an NFS call and returns its xid.
func (p *peer) send(procedure uint32, args []byte) uint32 {
	p.xid++
	p.raw(record(message(p.xid, rpc.ProgramNFS, 3, procedure, args)))
	return p.xid
}

// replies takes the records that the server has sent.
func (p *peer) replies() (all [][]byte) {
	p.b.t.Helper()
	for len(p.c.out) > 0 {
		n, last := rpc.Mark(p.c.out)
		if !last || len(p.c.out) < 4+n {
			p.b.t.Fatalf("the server sent a bad record: mark %d, last %v, %d bytes follow", n, last, len(p.c.out)-4)
		}
		all = append(all, p.c.out[4:4+n])
		p.c.out = p.c.out[4+n:]
	}
	return all
}

// result checks the header of a reply that was accepted and returns its results.
func (p *peer) result(reply []byte, xid uint32) xdr.Decoder {
	p.b.t.Helper()
	d := xdr.NewDecoder(reply)
	want := [6]uint32{xid, 1, 0, 0, 0, 0}
	var got [6]uint32
	for i := range got {
		got[i] = d.Uint32()
	}
	if got != want || !d.OK() {
		p.b.t.Fatalf("reply header %v, want %v", got, want)
	}
	return xdr.NewDecoder(d.Rest())
}

// call sends a call of any program, turns the loop and returns the results.
func (p *peer) callTo(program, version, procedure uint32, args []byte) xdr.Decoder {
	p.b.t.Helper()
	p.xid++
	p.raw(record(message(p.xid, program, version, procedure, args)))
	p.b.l.settle()
	r := p.replies()
	if len(r) != 1 {
		p.b.t.Fatalf("%d replies to program %d procedure %d, want 1 (closed: %v)", len(r), program, procedure, p.c.closed)
	}
	return p.result(r[0], p.xid)
}

// call sends an NFS call and returns its status and what follows.
func (p *peer) call(procedure uint32, args []byte) (nfs.Status, xdr.Decoder) {
	p.b.t.Helper()
	d := p.callTo(rpc.ProgramNFS, 3, procedure, args)
	st := nfs.Status(d.Uint32())
	return st, xdr.NewDecoder(d.Rest())
}
