package client_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

const (
	blockSize   = 128 << 10
	granularity = 4 << 10
)

var key = []byte("a cluster key of the tests")

// pair is a session's request that was carried out.
type pair struct{ session, sequence uint64 }

// object is what all OSDs of a test hold of one object.
type object struct {
	data    []byte
	bitmap  []byte
	version uint64
}

// world is a cluster of fake OSDs that share their objects, and one client.
type world struct {
	t       *testing.T
	w       *sim.World
	reg     *memory.Handle
	osds    map[layout.OSDNum]*osd
	objects map[layout.ObjectID]*object
	pairs   map[pair]uint64 // version
	fenced  map[uint64]bool
	c       *client.Client
	l       *sim.Loop
	s       *client.Session
	carried []string // what was carried out, in order
}

// osd is a fake primary: it knows objects, pairs and CAS, and can be told to misbehave.
type osd struct {
	w     *world
	num   layout.OSDNum
	l     *sim.Loop
	hub   *peer.Hub
	lose  int     // replies to lose from now on, together with the connection
	errno []int64 // answers to give instead of doing anything
	hold  bool    // keep requests
	held  []*peer.Request
	seen  []wire.Header

	quick  bool // answer at once, without memory of anything
	bitmap []byte
	pieces []peer.Piece
}

func (o *osd) PeerUp(layout.OSDNum)          {}
func (o *osd) PeerDown(layout.OSDNum, error) {}
func (o *osd) IncomingDown(*peer.Incoming)   {}
func (o *osd) Serve(r *peer.Request) {
	if o.quick {
		m := wire.ReadWriteReply{Op: r.Header.Op(), Retval: 8192, Version: 1}
		var h wire.Header
		if m.Op == wire.OpRead {
			m.BitmapLen = uint32(len(o.bitmap))
			m.Encode(&h)
			r.Reply(&h, o.bitmap, o.pieces)
			return
		}
		m.Encode(&h)
		r.Reply(&h, nil, nil)
		return
	}
	o.seen = append(o.seen, r.Header)
	if o.hold {
		o.held = append(o.held, r)
		return
	}
	o.serve(r)
}

// release carries out what was held, in order.
func (o *osd) release() {
	o.hold = false
	held := o.held
	o.held = nil
	for _, r := range held {
		o.serve(r)
	}
}

func (o *osd) serve(r *peer.Request) {
	if len(o.errno) > 0 {
		e := o.errno[0]
		o.errno = o.errno[1:]
		r.Fail(e)
		return
	}
	w := o.w
	snap := w.c.Snapshot()
	if r.Header.Op() == wire.OpSecList {
		o.list(r)
		return
	}
	var m wire.ReadWrite
	flags := uint32(0)
	if r.Header.Op() == wire.OpZero {
		var z wire.Zero
		_ = z.Decode(&r.Header)
		m = wire.ReadWrite{Op: wire.OpZero, Inode: z.Inode, Offset: z.Offset, Len: z.Len, Version: z.Version, Trailer: z.Trailer}
		flags = z.Flags
	} else if m.Decode(&r.Header) != nil {
		r.Fail(wire.EINVAL)
		return
	}
	stripe := m.Offset / blockSize * blockSize
	off := m.Offset - stripe
	g, _ := snap.Geometry(m.Inode.Pool())
	if snap.Primary(layout.PGID{Pool: m.Inode.Pool(), Num: g.PG(stripe)}) != o.num {
		r.Fail(wire.EPIPE)
		return
	}
	id := layout.ObjectID{Inode: m.Inode, Stripe: stripe}
	obj := w.objects[id]
	if m.Op == wire.OpRead {
		o.read(r, m, obj, off)
		return
	}
	if w.fenced[m.Session] {
		r.Fail(wire.ESTALE)
		return
	}
	version, done := w.pairs[pair{m.Session, m.Sequence}]
	current := uint64(0)
	if obj != nil {
		current = obj.version
	}
	switch {
	case done:
	case m.Deadline != 0 && uint64(o.l.Now()) > m.Deadline:
		r.Fail(wire.ETIMEDOUT)
		return
	case m.Version != 0 && m.Version != current+1:
		o.answer(r, m, wire.EINTR, current)
		return
	default:
		if m.Sequence == 0 || m.Low == 0 || m.Low > m.Sequence {
			w.t.Errorf("sequence %d with low mark %d", m.Sequence, m.Low)
		}
		version = current + 1
		w.pairs[pair{m.Session, m.Sequence}] = version
		w.carried = append(w.carried, fmt.Sprintf("%v %d+%d", m.Op, m.Offset, m.Len))
		if m.Op == wire.OpDelete {
			delete(w.objects, id)
			break
		}
		if obj == nil {
			obj = &object{data: make([]byte, blockSize), bitmap: make([]byte, blockSize/granularity/8)}
			w.objects[id] = obj
		}
		obj.version = version
		if m.Op == wire.OpZero {
			clear(obj.data[off : off+uint64(m.Len)])
		} else {
			copy(obj.data[off:], r.Data.Bytes())
		}
		for u := off / granularity; u < (off+uint64(m.Len))/granularity; u++ {
			obj.bitmap[u/8] |= 1 << (u % 8)
			if m.Op == wire.OpZero && flags&wire.ZeroKeepWritten == 0 {
				obj.bitmap[u/8] &^= 1 << (u % 8)
			}
		}
	}
	retval := int64(m.Len)
	if m.Op == wire.OpDelete {
		retval = 0
	}
	o.answer(r, m, retval, version)
}

func (o *osd) lost(r *peer.Request) bool {
	if o.lose == 0 {
		return false
	}
	o.lose--
	r.Drop()
	o.w.w.Net.Reset(o.l, o.w.l)
	return true
}

func (o *osd) answer(r *peer.Request, m wire.ReadWrite, retval int64, version uint64) {
	if o.lost(r) {
		return
	}
	var h wire.Header
	switch m.Op {
	case wire.OpDelete:
		(&wire.DeleteReply{Retval: retval, Flags: wire.SupportLeftOnDead, Version: version}).Encode(&h)
	case wire.OpZero:
		(&wire.VersionReply{Op: m.Op, Retval: retval, Version: version}).Encode(&h)
	default:
		(&wire.ReadWriteReply{Op: m.Op, Retval: retval, Version: version}).Encode(&h)
	}
	r.Reply(&h, nil, nil)
}

func (o *osd) read(r *peer.Request, m wire.ReadWrite, obj *object, off uint64) {
	if o.lost(r) {
		return
	}
	reply := wire.ReadWriteReply{Op: m.Op, Retval: int64(m.Len), BitmapLen: blockSize / granularity / 8}
	bitmap := make([]byte, reply.BitmapLen)
	var pieces []peer.Piece
	if obj != nil {
		reply.Version = obj.version
		copy(bitmap, obj.bitmap)
	}
	if m.Len > 0 {
		b := o.l.Alloc(int(m.Len))
		defer b.Release()
		clear(b.Bytes())
		if obj != nil {
			copy(b.Bytes(), obj.data[off:])
		}
		pieces = []peer.Piece{{Ref: b, Len: int(m.Len)}}
	}
	var h wire.Header
	reply.Encode(&h)
	r.Reply(&h, bitmap, pieces)
}

func (o *osd) list(r *peer.Request) {
	var m wire.List
	_ = m.Decode(&r.Header)
	g, _ := o.w.c.Snapshot().Geometry(m.MinInode.Pool())
	if o.w.c.Snapshot().Primary(layout.PGID{Pool: m.MinInode.Pool(), Num: m.PG}) != o.num {
		r.Fail(wire.EPIPE)
		return
	}
	var b []byte
	n := int64(0)
	for id := range o.w.objects {
		if id.Inode == m.MinInode && g.PG(id.Stripe) == m.PG {
			b = wire.AppendVersioned(b, wire.Versioned{OID: id})
			n++
		}
	}
	var h wire.Header
	(&wire.ListReply{Retval: n, StableCount: uint64(n), Flags: wire.ListPrimary}).Encode(&h)
	if n == 0 {
		r.Reply(&h, nil, nil)
		return
	}
	ref := o.l.Alloc(len(b))
	copy(ref.Bytes(), b)
	r.Reply(&h, nil, []peer.Piece{{Ref: ref, Len: len(b)}})
	ref.Release()
}

// newWorld makes a cluster of n OSDs and a pool of 4 PGs, all served by OSD 1, with an image of 64 MiB (inode 1).
func newWorld(t *testing.T, n int, change func(*client.Options)) *world {
	w := sim.NewWorld(uint64(len(t.Name())) * 104729)
	w.LogTo(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	x := &world{t: t, w: w, osds: map[layout.OSDNum]*osd{}, objects: map[layout.ObjectID]*object{}, pairs: map[pair]uint64{}, fenced: map[uint64]bool{}}
	x.l = w.NewLoop("client")
	st := memory.New(w.NewLoop("registry"))
	x.reg = st.Open(x.l)
	x.put(cluster.KeyPools, `{"1":{"name":"data","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":4}}`)
	x.setPGs(4)
	for i := 1; i <= n; i++ {
		x.startOSD(layout.OSDNum(i))
	}
	for pg := 1; pg <= 4; pg++ {
		x.setPrimary(pg, 1)
	}
	x.put("config/inode/1/1", `{"name":"disk","size":67108864}`)
	o := client.Defaults()
	o.Registry, o.Key, o.Instance, o.Name = x.reg, key, 0xabcdef1234, "test"
	if change != nil {
		change(&o)
	}
	x.c = client.New(x.l, o)
	x.run("the first snapshot", x.c.Ready)
	x.s = x.c.NewSession(nil)
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		closed := false
		x.c.Close(func() { closed = true })
		x.run("close", func() bool { return closed })
		w.Run(time.Second)
		if n := x.l.Live(); n != 0 {
			t.Errorf("%d buffers of the client were not released", n)
		}
	})
	return x
}

func (x *world) run(what string, cond func() bool) {
	x.t.Helper()
	if !x.w.RunUntil(cond, 30*time.Second) {
		x.t.Fatalf("%s: not within 30 s", what)
	}
}

func (x *world) put(key, value string) {
	x.t.Helper()
	done := false
	op := registry.Op{Kind: registry.Put, Key: key, Value: []byte(value)}
	if value == "" {
		op = registry.Op{Kind: registry.Delete, Key: key}
	}
	x.reg.Txn(registry.Txn{Then: []registry.Op{op}}, func(res registry.TxnResult, err error) {
		if err != nil {
			x.t.Errorf("put %s: %v", key, err)
		}
		done = true
	})
	x.run("put "+key, func() bool { return done })
}

func (x *world) setPGs(n int) {
	var b bytes.Buffer
	b.WriteString(`{"items":{"1":{`)
	for i := 1; i <= n; i++ {
		if i > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%d":{"osd_set":[1],"primary":1}`, i)
	}
	b.WriteString(`}}}`)
	x.put(cluster.KeyPGConfig, b.String())
}

func (x *world) setPrimary(pg int, osd layout.OSDNum) {
	k := fmt.Sprintf("pg/state/1/%d", pg)
	if osd == 0 {
		x.put(k, "")
		return
	}
	x.put(k, fmt.Sprintf(`{"primary":%d,"state":["active"],"peers":[%d]}`, osd, osd))
}

func (x *world) startOSD(num layout.OSDNum) *osd {
	x.t.Helper()
	o := &osd{w: x, num: num, l: x.w.NewLoop(fmt.Sprintf("osd%d", num))}
	o.hub = peer.New(o.l, peer.Options{Self: num, Instance: uint64(num)<<32 | 7, Key: key, Config: func() wire.ConfigReply {
		return wire.ConfigReply{BlockSize: blockSize, BitmapGranularity: granularity, PrimaryEnabled: true, BlockstoreEnabled: true, ImmediateCommit: wire.CommitAll, LeaseTimeout: 5}
	}}, o)
	if _, err := o.hub.Listen(loop.Addr{Network: "tcp", Address: o.l.Host() + ":7000"}, loop.ListenOptions{}); err != nil {
		x.t.Fatal(err)
	}
	x.osds[num] = o
	x.put(fmt.Sprintf("osd/state/%d", num), fmt.Sprintf(`{"state":"up","addresses":["%s"],"host":"h","port":7000,"primary_enabled":true,"blockstore_enabled":true}`, o.l.Host()))
	return o
}

const disk = layout.Inode(1<<48 | 1)

// op makes an operation on the image.
func (x *world) op(k client.Kind, off, n uint64) *client.Op {
	return &client.Op{Kind: k, Session: x.s, Inode: disk, Offset: off, Len: n, Done: func(*client.Op) {}}
}

// fill makes data of n bytes.
func (x *world) fill(n int, b byte) []client.Piece {
	r := x.l.Alloc(n)
	for i := range r.Bytes() {
		r.Bytes()[i] = b
	}
	return []client.Piece{{Ref: r, Len: n}}
}

func (x *world) write(off uint64, n int, b byte) *client.Op {
	op := x.op(client.Write, off, uint64(n))
	op.Pieces = x.fill(n, b)
	ref := op.Pieces[0].Ref
	op.Done = func(*client.Op) { ref.Release() }
	return op
}

// do submits and waits for success.
func (x *world) do(op *client.Op) *client.Op {
	x.t.Helper()
	x.finish(op)
	if op.Err != nil {
		x.t.Fatalf("%v %d+%d: %v", op.Kind, op.Offset, op.Len, op.Err)
	}
	return op
}

func (x *world) finish(ops ...*client.Op) {
	x.t.Helper()
	for _, op := range ops {
		if !op.Active() {
			x.c.Submit(op)
		}
	}
	x.await(ops...)
}

func (x *world) await(ops ...*client.Op) {
	x.t.Helper()
	x.run("operations", func() bool { return !slices.ContainsFunc(ops, func(o *client.Op) bool { return o.Active() }) })
}

// readAll reads a range as bytes.
func (x *world) readAll(off, n uint64) []byte {
	x.t.Helper()
	op := x.do(x.op(client.Read, off, n))
	var b []byte
	at := off
	for i := range op.Parts {
		p := &op.Parts[i]
		if p.Offset != at {
			x.t.Fatalf("part %d is at %d, want %d", i, p.Offset, at)
		}
		at += uint64(p.Len)
		b = append(b, p.Bytes()...)
	}
	op.ReleaseParts()
	if uint64(len(b)) != n {
		x.t.Fatalf("read %d bytes, want %d", len(b), n)
	}
	return b
}

// want checks that a range holds one byte throughout.
func (x *world) want(off, n uint64, b byte) {
	x.t.Helper()
	for i, have := range x.readAll(off, n) {
		if have != b {
			x.t.Fatalf("byte %d is %d, want %d", off+uint64(i), have, b)
		}
	}
}
