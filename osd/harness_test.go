package osd

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// bed is a few OSDs on the simulator's loops and disks, around a registry in memory. There is no monitor: the test writes the PG map, so that every sequence can be had exactly.
type bed struct {
	t     *testing.T
	w     *sim.World
	reg   *memory.Store
	admin *memory.Handle
	osds  map[layout.OSDNum]*node
	log   bytes.Buffer
}

// node is one OSD.
type node struct {
	b    *bed
	num  layout.OSDNum
	l    *sim.Loop
	reg  *memory.Handle
	st   *store.Store
	s    *OSD
	boot uint64
	err  error
	from layout.OSDNum // the disk that it runs on [num]
	at   layout.OSDNum // the host that it runs on [num]

	readOnly bool
}

var pg1 = layout.PGID{Pool: 1, Num: 1}

// newBed starts n OSDs and makes pool 1 with one PG and no place for it.
func newBed(t *testing.T, n int) *bed {
	b := &bed{t: t, w: sim.NewWorld(1), osds: map[layout.OSDNum]*node{}}
	t.Cleanup(b.w.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.log.String())
		}
	})
	b.w.LogTo(slog.NewTextHandler(&b.log, nil))
	b.reg = memory.New(b.w.NewLoop("registry"))
	b.admin = b.reg.Open(b.w.NewLoop("admin"))
	pool := &cluster.Pool{ID: 1, Name: "p", Scheme: cluster.Replicated, PGSize: 2, PGMinSize: 1, PGCount: 1, FailureDomain: "osd"}
	txn, err := cluster.SetPool(nil, 1, pool)
	if err != nil {
		t.Fatal(err)
	}
	b.txn(txn)
	b.txn(registry.Txn{Then: []registry.Op{cluster.CreatePoolIdentity(pool, 0, nil, layout.Geometry{})}})
	for i := range n {
		o := &node{b: b, num: layout.OSDNum(i + 1)}
		b.osds[o.num] = o
		o.format()
		o.start()
	}
	for i := range n {
		o := b.osds[layout.OSDNum(i+1)]
		b.wait("the OSDs to come up", func() bool { return o.s != nil && o.s.leaseUp })
	}
	return b
}

func (o *node) disk() string { return fmt.Sprintf("disk%d", cmp.Or(o.from, o.num)) }

func (o *node) format() {
	w := o.b.w
	w.NewDisk(o.disk(), 32<<20, 4096)
	l := w.NewLoop("format")
	d, err := l.OpenDisk(o.disk(), loop.DiskOptions{})
	if err != nil {
		o.b.t.Fatal(err)
	}
	done := false
	store.Format(l, d, store.Config{JournalSize: 4 << 20}, func(_ store.Superblock, err error) {
		if err != nil {
			o.b.t.Fatal(err)
		}
		d.Close(func() { done = true })
	})
	o.b.wait("the format", func() bool { return done })
	l.Kill()
}

// start begins a new process; it runs as the world does.
func (o *node) start() {
	b := o.b
	host := cmp.Or(o.at, o.num)
	o.l = b.w.NewLoop(fmt.Sprintf("osd%d", host))
	o.reg, o.st, o.s, o.err = b.reg.Open(o.l), nil, nil, nil
	o.boot++
	d, err := o.l.OpenDisk(o.disk(), loop.DiskOptions{ReadOnly: o.readOnly})
	if err != nil {
		b.t.Fatal(err)
	}
	store.Open(o.l, d, store.Options{ReadOnly: o.readOnly, OnFailure: func(err error) { o.err = err }}, func(st *store.Store, err error) {
		if Untrusted(err) {
			o.err = err
			d.Close(nil)
			return
		}
		if err != nil {
			b.t.Fatal(err)
		}
		o.st = st
		o.s, err = Start(o.l, Options{
			Num: o.num, Instance: uint64(o.num)<<32 | o.boot, Host: fmt.Sprintf("h%d", host), Bind: []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", host)}},
			AllowLegacy: func(loop.Addr) bool { return true }, Registry: o.reg, Store: st, Fatal: func(err error) { o.err = err },
		})
		if err != nil {
			b.t.Fatal(err)
		}
	})
}

func (o *node) kill() {
	o.reg.Close()
	o.l.Kill()
}

// run calls f on the OSD's loop and waits for it.
func (o *node) run(f func()) {
	o.b.t.Helper()
	done := false
	o.l.Post(&loop.Task{Run: func() { f(); done = true }})
	o.b.wait("a turn of the OSD's loop", func() bool { return done })
}

func (b *bed) wait(what string, cond func() bool) {
	b.t.Helper()
	if !b.w.RunUntil(cond, 30*time.Second) {
		text := ""
		for n := range len(b.osds) {
			if o := b.osds[layout.OSDNum(n+1)]; o.s != nil && o.l.Alive() {
				text += fmt.Sprintf("OSD %d (%v):\n%s", o.num, o.err, o.s.Describe())
			}
		}
		b.t.Fatalf("not within 30 s: %s\n%s", what, text)
	}
}

// never fails the test if cond holds within d.
func (b *bed) never(what string, d time.Duration, cond func() bool) {
	b.t.Helper()
	if b.w.RunUntil(cond, d) {
		b.t.Fatal(what)
	}
}

// txn runs a transaction from outside; it must succeed.
func (b *bed) txn(t registry.Txn) registry.TxnResult {
	b.t.Helper()
	res, err := b.try(b.admin, t)
	if err != nil || !res.Succeeded {
		b.t.Fatalf("transaction: %+v %v", res, err)
	}
	return res
}

func (b *bed) try(h *memory.Handle, t registry.Txn) (res registry.TxnResult, err error) {
	b.t.Helper()
	done := false
	h.Txn(t, func(r registry.TxnResult, e error) { res, err, done = r, e, true })
	b.wait("a transaction", func() bool { return done })
	return res, err
}

// put writes a key, or deletes it when v is nil.
func (b *bed) put(key string, v any) registry.Revision {
	b.t.Helper()
	op := registry.Op{Kind: registry.Put, Key: key}
	switch v := v.(type) {
	case nil:
		op.Kind = registry.Delete
	case string:
		op.Value = []byte(v)
	default:
		op.Value = cluster.Value(v)
	}
	return b.txn(registry.Txn{Then: []registry.Op{op}}).Revision
}

// get is a key as etcd has it; Key is "" when it does not exist.
func (b *bed) get(key string) registry.KV {
	for _, kv := range b.reg.Dump() {
		if kv.Key == key {
			return kv
		}
	}
	return registry.KV{}
}

// place puts the PG on a set with a primary.
func (b *bed) place(primary layout.OSDNum, set ...layout.OSDNum) {
	b.t.Helper()
	b.put(cluster.KeyPGConfig, &cluster.PGConfig{Pools: map[layout.PoolID][]cluster.PGTarget{1: {{OSDSet: set, Primary: primary}}}})
}

// serves reports whether an OSD serves the PG with so many members, and etcd says so.
func (b *bed) serves(n layout.OSDNum, members int) bool {
	o := b.osds[n]
	if o.s == nil || !o.l.Alive() {
		return false
	}
	r := o.s.pgs[pg1]
	if r == nil || r.served == nil || len(r.m.Acting) != members {
		return false
	}
	st, ok := o.s.Snapshot().PGStates.Get(pg1)
	return ok && st.Primary == n && st.State&cluster.StateActive != 0
}

func (b *bed) record() *cluster.PGRecord {
	for n := range len(b.osds) {
		if o := b.osds[layout.OSDNum(n+1)]; o.s != nil && o.l.Alive() {
			rec, _ := o.s.Snapshot().Records.Get(pg1)
			return rec
		}
	}
	return nil
}

// written is the data of each write.
var written = [4096]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}

// write puts a copy of an object straight into an OSD's store, as a change of an interval would that reached only this one.
func (o *node) write(object layout.ObjectID, base, version layout.Version, baseInterval, interval layout.Interval) {
	o.b.t.Helper()
	data := o.l.Alloc(len(written))
	copy(data.Bytes(), written[:])
	op := &store.Op{Kind: store.OpWrite, Object: object, Len: uint32(len(written)), Base: base, BaseInterval: baseInterval, Version: version, Interval: interval, Data: data}
	done := false
	op.Done = func(*store.Op) { done = true }
	o.run(func() { o.st.Submit(op) })
	o.b.wait("a write", func() bool { return done })
	data.Release()
	if op.Err != nil {
		o.b.t.Fatal(op.Err)
	}
}

// has is what an OSD's store has of an object of pg1; its Version is 0 when it has none.
func (o *node) has(object layout.ObjectID) store.ListEntry {
	list, _, _ := o.st.List(nil, pg1, 0, 100)
	for _, e := range list {
		if e.Object == object {
			return e
		}
	}
	return store.ListEntry{}
}

// grant has an OSD grant the PG to a stranger.
func (b *bed) grant(n layout.OSDNum, interval layout.Interval) {
	b.t.Helper()
	o := b.osds[n]
	gen := uint64(o.s.Snapshot().Generation(1))
	q := secondary.LockRequest{Holder: secondary.Holder{OSD: 99, Instance: 99, Store: layout.StoreID{99}}, PG: pg1, Generation: gen, Interval: interval}
	retval := int64(-1)
	o.run(func() { o.s.locks.Lock(q, func(r int64, _ secondary.LockReply) { retval = r }) })
	b.wait("a grant", func() bool { return retval == 0 })
}
