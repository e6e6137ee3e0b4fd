// Package clienttest is a cluster for tests of what stands on core/client: fake OSDs in the simulator that share their objects, and one client.
//
// The tests of core/client and core/images use it. The OSDs know objects, pairs of session and sequence, and CAS, and can be told to lose replies, refuse, and hold requests.
package clienttest

import (
	"bytes"
	"cmp"
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

// Key is the cluster key.
var Key = []byte("a cluster key of the tests")

// Pair is a session's request that was carried out.
type Pair struct{ Session, Sequence uint64 }

// Object is what all OSDs of a test hold of one object.
type Object struct {
	Data    []byte
	Bitmap  []byte
	Version uint64
}

// Cluster is fake OSDs that share their objects, and one client.
type Cluster struct {
	T        *testing.T
	W        *sim.World
	Store    *memory.Store
	Registry *memory.Handle
	OSDs     map[layout.OSDNum]*OSD
	Objects  map[layout.ObjectID]*Object
	Pairs    map[Pair]uint64            // version
	floor    map[layout.ObjectID]uint64 // version of a deleted object: a new one is above it
	Fenced   map[uint64]bool
	Client   *client.Client
	Loop     *sim.Loop
	Session  *client.Session
	Carried  []string // what was carried out, in order
	unsynced []func() // what loss of power undoes, in order
	Syncs    int      // SYNCs that were answered
}

// OSD is a fake primary: it knows objects, pairs and CAS, and can be told to misbehave.
type OSD struct {
	w     *Cluster
	Num   layout.OSDNum
	Loop  *sim.Loop
	hub   *peer.Hub
	Lose  int             // replies to lose from now on, together with the connection
	Errno []int64         // answers to give instead of doing anything
	Hold  bool            // keep requests
	Only  wire.Opcode     // when not 0: keep only these
	Held  []*peer.Request // since then
	Seen  []wire.Header   // requests

	Lent bool // may answer reads of PGs that others are primary of

	MaxList int // objects in the answer to a listing; 0: no limit

	Quick  bool // answer at once, as if 8192 bytes were asked for, without memory of anything
	Bitmap []byte
	Pieces []peer.Piece
}

// PeerUp, PeerDown and IncomingDown implement peer.Handler.
func (o *OSD) PeerUp(layout.OSDNum)          {}
func (o *OSD) PeerDown(layout.OSDNum, error) {}
func (o *OSD) IncomingDown(*peer.Incoming)   {}

// Serve implements peer.Handler.
func (o *OSD) Serve(r *peer.Request) {
	if o.Quick {
		m := wire.ReadWriteReply{Op: r.Header.Op(), Retval: 8192, Version: 1}
		var h wire.Header
		if m.Op == wire.OpRead {
			m.BitmapLen = uint32(len(o.Bitmap))
			m.Encode(&h)
			r.Reply(&h, o.Bitmap, o.Pieces)
			return
		}
		m.Encode(&h)
		r.Reply(&h, nil, nil)
		return
	}
	o.Seen = append(o.Seen, r.Header)
	if o.Hold && (o.Only == 0 || o.Only == r.Header.Op()) {
		o.Held = append(o.Held, r)
		return
	}
	o.serve(r)
}

// Release carries out what was held, in order.
func (o *OSD) Release() {
	o.Hold = false
	held := o.Held
	o.Held = nil
	for _, r := range held {
		o.serve(r)
	}
}

func (o *OSD) serve(r *peer.Request) {
	if len(o.Errno) > 0 {
		e := o.Errno[0]
		o.Errno = o.Errno[1:]
		r.Fail(e)
		return
	}
	w := o.w
	snap := w.Client.Snapshot()
	switch r.Header.Op() {
	case wire.OpSecList:
		o.list(r)
		return
	case wire.OpSync:
		w.unsynced = nil
		w.Syncs++
		var h wire.Header
		(&wire.BareReply{Op: wire.OpSync}).Encode(&h)
		r.Reply(&h, nil, nil)
		return
	}
	var m wire.ReadWrite
	flags := uint32(0)
	if r.Header.Op() == wire.OpZero {
		var z wire.Zero
		_ = z.Decode(&r.Header)
		m = wire.ReadWrite{Op: wire.OpZero, Inode: z.Inode, Offset: z.Offset, Len: z.Len, Flags: z.Flags, Version: z.Version, Trailer: z.Trailer}
		flags = z.Flags
	} else if m.Decode(&r.Header) != nil {
		r.Fail(wire.EINVAL)
		return
	}
	stripe := m.Offset / blockSize * blockSize
	off := m.Offset - stripe
	g, _ := snap.Geometry(m.Inode.Pool())
	if snap.Primary(layout.PGID{Pool: m.Inode.Pool(), Num: g.PG(stripe)}) != o.Num && !(o.Lent && m.Op == wire.OpRead) {
		r.Fail(wire.EPIPE)
		return
	}
	id := layout.ObjectID{Inode: m.Inode, Stripe: stripe}
	obj := w.Objects[id]
	if m.Op == wire.OpRead {
		o.read(r, m, obj, off)
		return
	}
	if w.Fenced[m.Session] {
		r.Fail(wire.ESTALE)
		return
	}
	version, done := w.Pairs[Pair{m.Session, m.Sequence}]
	current := uint64(0)
	if obj != nil {
		current = obj.Version
	}
	switch {
	case done:
	case obj == nil && m.Op == wire.OpDelete: // nothing to do
	case m.Deadline != 0 && uint64(o.Loop.Now()) > m.Deadline:
		r.Fail(wire.ETIMEDOUT)
		return
	case m.Flags&wire.FlagReplay != 0 && max(current, w.floor[id]) > m.Version:
		r.Fail(wire.EEXIST)
		return
	case m.Flags&wire.FlagReplay == 0 && m.Version != 0 && m.Version != current+1:
		o.answer(r, m, wire.EINTR, current)
		return
	default:
		if m.Sequence == 0 || m.Low == 0 || m.Low > m.Sequence {
			w.T.Errorf("sequence %d with low mark %d", m.Sequence, m.Low)
		}
		if m.Flags&wire.FlagLazy == 0 {
			w.unsynced = nil
		} else {
			w.unsynced = append(w.unsynced, w.undo(id, Pair{m.Session, m.Sequence}))
		}
		version = max(current, w.floor[id]) + 1
		w.Pairs[Pair{m.Session, m.Sequence}] = version
		w.Carried = append(w.Carried, fmt.Sprintf("%v %d+%d", m.Op, m.Offset, m.Len))
		if m.Op == wire.OpDelete {
			delete(w.Objects, id)
			w.floor[id] = version
			break
		}
		if obj == nil {
			obj = &Object{Data: make([]byte, blockSize), Bitmap: make([]byte, blockSize/granularity/8)}
			w.Objects[id] = obj
		}
		obj.Version = version
		if m.Op == wire.OpZero {
			clear(obj.Data[off : off+uint64(m.Len)])
		} else {
			copy(obj.Data[off:], r.Data.Bytes())
		}
		for u := off / granularity; u < (off+uint64(m.Len))/granularity; u++ {
			obj.Bitmap[u/8] |= 1 << (u % 8)
			if m.Op == wire.OpZero && flags&wire.ZeroKeepWritten == 0 {
				obj.Bitmap[u/8] &^= 1 << (u % 8)
			}
		}
	}
	retval := int64(m.Len)
	if m.Op == wire.OpDelete {
		retval = 0
	}
	o.answer(r, m, retval, version)
}

// undo is what loss of power does to the change that is about to be made.
func (x *Cluster) undo(id layout.ObjectID, pair Pair) func() {
	var was *Object
	if obj := x.Objects[id]; obj != nil {
		was = &Object{slices.Clone(obj.Data), slices.Clone(obj.Bitmap), obj.Version}
	}
	floor, had := x.floor[id]
	return func() {
		delete(x.Pairs, pair)
		delete(x.Objects, id)
		if was != nil {
			x.Objects[id] = was
		}
		if delete(x.floor, id); had {
			x.floor[id] = floor
		}
	}
}

// LosePower undoes what no SYNC and no durable change has covered.
func (x *Cluster) LosePower() {
	for len(x.unsynced) > 0 {
		last := len(x.unsynced) - 1
		x.unsynced[last]()
		x.unsynced = x.unsynced[:last]
	}
}

// Unsynced is how many changes loss of power would undo.
func (x *Cluster) Unsynced() int { return len(x.unsynced) }

// Reset ends the client's connection to the OSD.
func (o *OSD) Reset() { o.w.W.Net.Reset(o.Loop, o.w.Loop) }

func (o *OSD) lost(r *peer.Request) bool {
	if o.Lose == 0 {
		return false
	}
	o.Lose--
	r.Drop()
	o.w.W.Net.Reset(o.Loop, o.w.Loop)
	return true
}

func (o *OSD) answer(r *peer.Request, m wire.ReadWrite, retval int64, version uint64) {
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

func (o *OSD) read(r *peer.Request, m wire.ReadWrite, obj *Object, off uint64) {
	if o.lost(r) {
		return
	}
	reply := wire.ReadWriteReply{Op: m.Op, Retval: int64(m.Len), BitmapLen: blockSize / granularity / 8}
	bitmap := make([]byte, reply.BitmapLen)
	var pieces []peer.Piece
	if obj != nil {
		reply.Version = obj.Version
		copy(bitmap, obj.Bitmap)
	}
	if m.Len > 0 {
		b := o.Loop.Alloc(int(m.Len))
		defer b.Release()
		clear(b.Bytes())
		if obj != nil {
			copy(b.Bytes(), obj.Data[off:])
		}
		pieces = []peer.Piece{{Ref: b, Len: int(m.Len)}}
	}
	var h wire.Header
	reply.Encode(&h)
	r.Reply(&h, bitmap, pieces)
}

func (o *OSD) list(r *peer.Request) {
	var m wire.List
	_ = m.Decode(&r.Header)
	g, _ := o.w.Client.Snapshot().Geometry(m.MinInode.Pool())
	if o.w.Client.Snapshot().Primary(layout.PGID{Pool: m.MinInode.Pool(), Num: m.PG}) != o.Num {
		r.Fail(wire.EPIPE)
		return
	}
	var b []byte
	n := int64(0)
	var ids []layout.ObjectID
	for id := range o.w.Objects {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b layout.ObjectID) int { return cmp.Compare(a.Stripe, b.Stripe) })
	for _, id := range ids {
		if id.Inode == m.MinInode && g.PG(id.Stripe) == m.PG && id.Stripe >= m.MinStripe && id.Stripe <= m.LastStripe() {
			b = wire.AppendVersioned(b, wire.Versioned{OID: id})
			n++
		}
	}
	if o.MaxList > 0 && n > int64(o.MaxList) {
		r.Fail(wire.ERANGE)
		return
	}
	var h wire.Header
	(&wire.ListReply{Retval: n, StableCount: uint64(n), Flags: wire.ListPrimary}).Encode(&h)
	if n == 0 {
		r.Reply(&h, nil, nil)
		return
	}
	ref := o.Loop.Alloc(len(b))
	copy(ref.Bytes(), b)
	r.Reply(&h, nil, []peer.Piece{{Ref: ref, Len: len(b)}})
	ref.Release()
}

// New makes a cluster of n OSDs and a pool of 4 PGs, all served by OSD 1, with an image of 64 MiB (inode 1).
func New(t *testing.T, n int, change func(*client.Options)) *Cluster {
	w := sim.NewWorld(uint64(len(t.Name())) * 104729)
	w.LogTo(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	x := &Cluster{T: t, W: w, OSDs: map[layout.OSDNum]*OSD{}, Objects: map[layout.ObjectID]*Object{}, Pairs: map[Pair]uint64{}, floor: map[layout.ObjectID]uint64{}, Fenced: map[uint64]bool{}}
	x.Loop = w.NewLoop("client")
	st := memory.New(w.NewLoop("registry"))
	x.Store, x.Registry = st, st.Open(x.Loop)
	x.Put(cluster.KeyPools, `{"1":{"name":"data","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":4}}`)
	x.SetPGs(4)
	for i := 1; i <= n; i++ {
		x.StartOSD(layout.OSDNum(i))
	}
	for pg := 1; pg <= 4; pg++ {
		x.SetPrimary(pg, 1)
	}
	x.Put("config/inode/1/1", `{"name":"disk","size":67108864}`)
	o := client.Defaults()
	o.Registry, o.Key, o.Instance, o.Name = x.Registry, Key, 0xabcdef1234, "test"
	if change != nil {
		change(&o)
	}
	x.Client = client.New(x.Loop, o)
	x.Run("the first snapshot", x.Client.Ready)
	x.Session = x.Client.NewSession(nil)
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		closed := false
		x.Client.Close(func() { closed = true })
		x.Run("close", func() bool { return closed })
		w.Run(time.Second)
		if n := x.Loop.Live(); n != 0 {
			t.Errorf("%d buffers of the client were not released", n)
		}
	})
	return x
}

// Run runs the world until the condition holds.
func (x *Cluster) Run(what string, cond func() bool) {
	x.T.Helper()
	if !x.W.RunUntil(cond, 30*time.Second) {
		x.T.Fatalf("%s: not within 30 s", what)
	}
}

// Put sets a key, or deletes it when value is empty.
func (x *Cluster) Put(key, value string) {
	x.T.Helper()
	done := false
	op := registry.Op{Kind: registry.Put, Key: key, Value: []byte(value)}
	if value == "" {
		op = registry.Op{Kind: registry.Delete, Key: key}
	}
	x.Registry.Txn(registry.Txn{Then: []registry.Op{op}}, func(res registry.TxnResult, err error) {
		if err != nil {
			x.T.Errorf("put %s: %v", key, err)
		}
		done = true
	})
	x.Run("put "+key, func() bool { return done })
}

// SetPGs makes n PGs.
func (x *Cluster) SetPGs(n int) {
	var b bytes.Buffer
	b.WriteString(`{"items":{"1":{`)
	for i := 1; i <= n; i++ {
		if i > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%d":{"osd_set":[1],"primary":1}`, i)
	}
	b.WriteString(`}}}`)
	x.Put(cluster.KeyPGConfig, b.String())
}

// SetPrimary makes an OSD the primary of an active PG; 0: the PG is down.
func (x *Cluster) SetPrimary(pg int, osd layout.OSDNum) {
	k := fmt.Sprintf("pg/state/1/%d", pg)
	if osd == 0 {
		x.Put(k, "")
		return
	}
	x.Put(k, fmt.Sprintf(`{"primary":%d,"state":["active"],"peers":[%d]}`, osd, osd))
}

// StartOSD starts one.
func (x *Cluster) StartOSD(num layout.OSDNum) *OSD {
	x.T.Helper()
	o := &OSD{w: x, Num: num, Loop: x.W.NewLoop(fmt.Sprintf("osd%d", num))}
	o.hub = peer.New(o.Loop, peer.Options{Self: num, Instance: uint64(num)<<32 | 7, Key: Key, Config: func() wire.ConfigReply {
		return wire.ConfigReply{BlockSize: blockSize, BitmapGranularity: granularity, PrimaryEnabled: true, BlockstoreEnabled: true, ImmediateCommit: wire.CommitAll, LeaseTimeout: 5}
	}}, o)
	if _, err := o.hub.Listen(loop.Addr{Network: "tcp", Address: o.Loop.Host() + ":7000"}, loop.ListenOptions{}); err != nil {
		x.T.Fatal(err)
	}
	x.OSDs[num] = o
	x.Put(fmt.Sprintf("osd/state/%d", num), fmt.Sprintf(`{"state":"up","addresses":["%s"],"host":"h","port":7000,"primary_enabled":true,"blockstore_enabled":true}`, o.Loop.Host()))
	return o
}

// Disk is the image's inode.
const Disk = layout.Inode(1<<48 | 1)

// Op makes an operation on the image.
func (x *Cluster) Op(k client.Kind, off, n uint64) *client.Op {
	return &client.Op{Kind: k, Session: x.Session, Inode: Disk, Offset: off, Len: n, Done: func(*client.Op) {}}
}

// Fill makes data of n bytes.
func (x *Cluster) Fill(n int, b byte) []client.Piece {
	r := x.Loop.Alloc(n)
	for i := range r.Bytes() {
		r.Bytes()[i] = b
	}
	return []client.Piece{{Ref: r, Len: n}}
}

// Write makes a write of one byte repeated, which gives its buffer back.
func (x *Cluster) Write(off uint64, n int, b byte) *client.Op {
	op := x.Op(client.Write, off, uint64(n))
	op.Pieces = x.Fill(n, b)
	ref := op.Pieces[0].Ref
	op.Done = func(*client.Op) { ref.Release() }
	return op
}

// Do submits and waits for success.
func (x *Cluster) Do(op *client.Op) *client.Op {
	x.T.Helper()
	x.Finish(op)
	if op.Err != nil {
		x.T.Fatalf("%v %d+%d: %v", op.Kind, op.Offset, op.Len, op.Err)
	}
	return op
}

// Finish submits and waits.
func (x *Cluster) Finish(ops ...*client.Op) {
	x.T.Helper()
	for _, op := range ops {
		if !op.Active() {
			x.Client.Submit(op)
		}
	}
	x.Await(ops...)
}

// Await waits.
func (x *Cluster) Await(ops ...*client.Op) {
	x.T.Helper()
	x.Run("operations", func() bool { return !slices.ContainsFunc(ops, func(o *client.Op) bool { return o.Active() }) })
}

// ReadAll reads a range as bytes.
func (x *Cluster) ReadAll(off, n uint64) []byte {
	x.T.Helper()
	op := x.Do(x.Op(client.Read, off, n))
	var b []byte
	at := off
	for i := range op.Parts {
		p := &op.Parts[i]
		if p.Offset != at {
			x.T.Fatalf("part %d is at %d, want %d", i, p.Offset, at)
		}
		at += uint64(p.Len)
		b = append(b, p.Bytes()...)
	}
	op.ReleaseParts()
	if uint64(len(b)) != n {
		x.T.Fatalf("read %d bytes, want %d", len(b), n)
	}
	return b
}

// Want checks that a range holds one byte throughout.
func (x *Cluster) Want(off, n uint64, b byte) {
	x.T.Helper()
	for i, have := range x.ReadAll(off, n) {
		if have != b {
			x.T.Fatalf("byte %d is %d, want %d", off+uint64(i), have, b)
		}
	}
}
