package blocking_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/wire"
)

const blockSize = 128 << 10

// fakeOSD is an OSD on a loop of its own that keeps objects in memory.
type fakeOSD struct {
	l       loop.Runner
	objects map[uint64][]byte // by stripe
	deaf    bool
}

func (o *fakeOSD) PeerUp(layout.OSDNum)          {}
func (o *fakeOSD) PeerDown(layout.OSDNum, error) {}
func (o *fakeOSD) IncomingDown(*peer.Incoming)   {}
func (o *fakeOSD) Serve(r *peer.Request) {
	var m wire.ReadWrite
	var z wire.Zero
	if r.Header.Op() == wire.OpZero && z.Decode(&r.Header) == nil {
		m = wire.ReadWrite{Op: wire.OpZero, Offset: z.Offset, Len: z.Len}
	} else if m.Decode(&r.Header) != nil {
		r.Fail(wire.EINVAL)
		return
	}
	if o.deaf {
		r.Drop()
		return
	}
	stripe, off := m.Offset/blockSize*blockSize, m.Offset%blockSize
	b := o.objects[stripe]
	if b == nil {
		b = make([]byte, blockSize)
		o.objects[stripe] = b
	}
	var h wire.Header
	switch m.Op {
	case wire.OpRead:
		(&wire.ReadWriteReply{Op: m.Op, Retval: int64(m.Len), Version: 1}).Encode(&h)
		ref := o.l.Alloc(int(m.Len))
		copy(ref.Bytes(), b[off:])
		r.Reply(&h, nil, []peer.Piece{{Ref: ref, Len: int(m.Len)}})
		ref.Release()
		return
	case wire.OpWrite:
		copy(b[off:], r.Data.Bytes())
		(&wire.ReadWriteReply{Op: m.Op, Retval: int64(m.Len), Version: 1}).Encode(&h)
	case wire.OpDelete:
		delete(o.objects, stripe)
		(&wire.DeleteReply{}).Encode(&h)
	case wire.OpZero:
		clear(b[off : off+uint64(m.Len)])
		(&wire.VersionReply{Op: m.Op, Retval: int64(m.Len), Version: 1}).Encode(&h)
	}
	r.Reply(&h, nil, nil)
}

func newLoop(t *testing.T, name string) loop.Runner {
	l, err := system.New(system.Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs an OSD on a real loop and gives a store that names it.
func start(t *testing.T) (*memory.Store, *fakeOSD) {
	l := newLoop(t, "osd")
	o := &fakeOSD{l: l, objects: map[uint64][]byte{}}
	hub := peer.New(l, peer.Options{Self: 1, Instance: 9, Config: func() wire.ConfigReply {
		return wire.ConfigReply{BlockSize: blockSize, BitmapGranularity: 4096, ImmediateCommit: wire.CommitAll}
	}}, o)
	ln, err := hub.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:0"}, loop.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var port string
	if _, err := fmt.Sscanf(ln.Addr().Address, "127.0.0.1:%s", &port); err != nil {
		t.Fatal(err)
	}
	store := memory.New(l)
	put := func(k, v string) registry.Op { return registry.Op{Kind: registry.Put, Key: k, Value: []byte(v)} }
	stored := make(chan error, 1)
	store.Open(l).Txn(registry.Txn{Then: []registry.Op{
		put(cluster.KeyPools, `{"1":{"name":"data","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1}}`),
		put(cluster.KeyPGConfig, `{"items":{"1":{"1":{"osd_set":[1],"primary":1}}}}`),
		put("pg/state/1/1", `{"primary":1,"state":["active"],"peers":[1]}`),
		put("osd/state/1", `{"state":"up","addresses":["127.0.0.1"],"port":`+port+`}`),
		put("config/inode/1/1", `{"name":"disk","size":16777216}`),
	}}, func(_ registry.TxnResult, err error) { stored <- err })
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	return store, o
}

func open(t *testing.T, store *memory.Store) *blocking.Conn {
	o := client.Defaults()
	o.Instance = 77
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := blocking.Open(ctx, blocking.Config{
		Runner:   newLoop(t, "client"),
		Registry: func(l loop.Loop) (registry.Registry, error) { return store.Open(l), nil },
		Client:   o,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConnReadsAndWrites(t *testing.T) {
	store, _ := start(t)
	c := open(t, store)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	im, err := c.OpenImage("disk")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 9<<20)
	for i := range p {
		p[i] = byte(i * 7 >> 3)
	}
	if err := im.WriteAt(ctx, p, 1000); err != nil {
		t.Fatal(err)
	}
	if err := im.Trim(ctx, 5000, 200000); err != nil {
		t.Fatal(err)
	}
	clear(p[4000:204000])
	if err := c.Delete(ctx, im.Inode, 1<<20, blockSize); err != nil {
		t.Fatal(err)
	}
	clear(p[1<<20-1000 : 1<<20-1000+blockSize])
	q := make([]byte, len(p))
	if err := im.ReadAt(ctx, q, 1000); err != nil || string(q) != string(p) {
		t.Fatalf("read back: %v", err)
	}
	if err := im.ReadAt(ctx, q, 16<<20-1); err == nil {
		t.Error("a read beyond the end succeeded")
	}
	res, err := c.Txn(ctx, registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: "config/inode/1/1"}}})
	if err != nil || len(res.Results) != 1 || len(res.Results[0]) != 1 {
		t.Errorf("transaction: %v, %v", res, err)
	}
	if c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1}) != 1 {
		t.Error("the snapshot has no primary")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.WriteAt(ctx, im.Inode, p, 0); !errors.Is(err, blocking.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
}

func TestContextEndsTheWait(t *testing.T) {
	store, o := start(t)
	done := make(chan struct{})
	o.l.Post(&loop.Task{Run: func() { o.deaf = true; close(done) }})
	<-done
	c := open(t, store)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.WriteAt(ctx, layout.MakeInode(1, 1), make([]byte, 4096), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context", err)
	}
	if err := c.ReadAt(ctx, layout.MakeInode(1, 1), make([]byte, 4096), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestOpenWithoutARegistry(t *testing.T) {
	_, err := blocking.Open(t.Context(), blocking.Config{
		Runner:   newLoop(t, "client"),
		Registry: func(loop.Loop) (registry.Registry, error) { return nil, errors.New("no etcd_address") },
		Client:   client.Options{Instance: 1},
	})
	if err == nil {
		t.Error("it opened")
	}
}
