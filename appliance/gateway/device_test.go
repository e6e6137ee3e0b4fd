package gateway

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/client/clienttest"
	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/volumetest"
)

// bench is a lane over fake OSDs in the simulator.
type bench struct {
	x      *clienttest.Cluster
	im     *images
	ln     *lane
	fenced []uint64
	size   uint64
}

const diskSize = 8 << 20

func newBench(t *testing.T) *bench {
	b := &bench{x: clienttest.New(t, 2, nil), size: diskSize}
	b.put()
	b.im = newImages(slog.New(slog.DiscardHandler))
	b.im.fence = func(ln *lane, f cluster.Fence, done func()) {
		if len(f.Pools) != 1 || f.Pools[0] != 1 {
			t.Errorf("a session of pool 1 is fenced in pools %v", f.Pools)
		}
		b.fenced = append(b.fenced, f.Session)
		ln.l.Post(&loop.Task{Run: func() {
			b.x.Fenced[f.Session] = true
			done()
		}})
	}
	o := client.Defaults()
	o.Registry, o.Key, o.Instance = b.x.Registry, clienttest.Key, 77
	b.ln = b.im.newLane(b.x.Loop, o, nil)
	b.x.Run("the first snapshot", b.ln.c.Ready)
	t.Cleanup(func() {
		closed := false
		b.ln.c.Close(func() { closed = true })
		b.x.Run("close", func() bool { return closed })
	})
	return b
}

func (b *bench) put() {
	b.x.Put("config/inode/1/1", fmt.Sprintf(`{"name":"disk","size":%d,"meta":{"holdfast_id":"000102030405060708090a0b0c0d0e0f"}}`, b.size))
}

func (b *bench) device(t *testing.T) volume.Device {
	d, _, ok := b.im.catalog.Lookup("disk")
	if !ok {
		t.Fatal("the image is not in the catalog")
	}
	return d
}

func (b *bench) env(t *testing.T) volumetest.Env {
	return volumetest.Env{
		Loop: b.x.Loop, Device: b.device(t), Live: b.x.Loop.Live, On: func(f func()) { f() },
		Wait:   func(cond func() bool) bool { return b.x.W.RunUntil(cond, time.Minute) },
		Remove: func() { b.x.Put("config/inode/1/1", "") },
	}
}

func TestConformance(t *testing.T) {
	volumetest.Run(t, func(t *testing.T) volumetest.Env { return newBench(t).env(t) })
}

func (b *bench) attach(t *testing.T, s volume.Session) *handle {
	t.Helper()
	h, err := b.device(t).Attach(b.x.Loop, s)
	if err != nil {
		t.Fatal(err)
	}
	return h.(*handle)
}

type events []volume.Event

func (e *events) VolumeEvent(v volume.Event) { *e = append(*e, v) }

func TestHandleFollowsItsImage(t *testing.T) {
	b := newBench(t)
	h := b.attach(t, volume.Session{Protocol: "nbd"})
	var seen events
	h.Events(&seen)
	id := h.Info().ID
	b.x.Put("config/inode/1/1", `{"name":"other","size":8390000,"meta":{"holdfast_id":"000102030405060708090a0b0c0d0e0f"}}`)
	b.x.Run("two events", func() bool { return len(seen) == 2 })
	if i := h.Info(); i.Name != "other" || i.Size != 8390000&^511 || i.ID != id {
		t.Errorf("after rename and growth: %+v", i)
	}
	if nfs, _ := h.d.Attach(b.x.Loop, volume.Session{Protocol: "nfs"}); nfs.Info().Size != (8390000+511)&^511 {
		t.Errorf("NFS sees %d bytes, want whole sectors that cover 8390000", nfs.Info().Size)
	}
	// A snapshot: the identity goes to a new inode, and the handle with it.
	b.x.Put("config/inode/1/2", `{"name":"other","size":8390000,"parent_id":1,"meta":{"holdfast_id":"000102030405060708090a0b0c0d0e0f"}}`)
	b.x.Run("the new inode", func() bool { return h.inode.Num() == 2 })
	b.x.Put("config/inode/1/2", `{"name":"other","size":8390000,"deleted":true,"meta":{"holdfast_id":"000102030405060708090a0b0c0d0e0f"}}`)
	b.x.Run("removal", func() bool { return seen[len(seen)-1] == volume.Gone })
}

// hold makes the OSD keep what it gets, and submits a write that it then has.
func (b *bench) writeUnderWay(t *testing.T, h *handle) *volume.Op {
	t.Helper()
	osd := b.x.OSDs[1]
	osd.Hold = true
	ref := b.x.Loop.Alloc(4096)
	op := &volume.Op{Kind: volume.Write, Length: 4096, Pieces: []volume.Piece{{Ref: ref, Len: 4096}}}
	op.Done = func(*volume.Op) { ref.Release(); op.User = true }
	h.Submit(op)
	b.x.Run("the write at the OSD", func() bool { return len(osd.Held) == 1 })
	return op
}

func TestSuccessorWaitsForTheFenceOfWhatIsUnderWay(t *testing.T) {
	b := newBench(t)
	old := b.attach(t, volume.Session{Protocol: "iscsi", Nexus: "n"})
	write := b.writeUnderWay(t, old)
	next := b.attach(t, volume.Session{Protocol: "iscsi", Nexus: "n"})
	if len(b.fenced) != 1 || b.fenced[0] != old.session.ID() {
		t.Fatalf("fenced sessions: %v, want that of the old handle, %d", b.fenced, old.session.ID())
	}
	done := false
	read := &volume.Op{Kind: volume.Read, Length: 4096, Done: func(op *volume.Op) { done = true; op.ReleasePieces() }}
	next.Submit(read)
	osd := b.x.OSDs[1]
	osd.Hold = false
	osd.Release()
	b.x.Run("the successor's read", func() bool { return done && write.User != nil })
	if write.Err != volume.ErrFenced && write.Err != nil {
		t.Errorf("the old write: %v", write.Err)
	}
	if read.Err != nil {
		t.Errorf("the successor's read: %v", read.Err)
	}
	b.leave(old, next)
}

func (b *bench) leave(handles ...*handle) {
	n := 0
	for _, h := range handles {
		h.Detach(func() { n++ })
	}
	b.x.Run("detach", func() bool { return n == len(handles) })
}

func TestDetachFencesWhatCannotBeRecalled(t *testing.T) {
	b := newBench(t)
	h := b.attach(t, volume.Session{Protocol: "nbd"})
	write := b.writeUnderWay(t, h)
	detached := false
	h.Detach(func() {
		detached = true
		if write.User == nil {
			t.Error("Detach was done before the write")
		}
	})
	b.x.W.Run(2 * time.Second)
	if detached || len(b.fenced) != 0 {
		t.Errorf("after 2 s: detached %v, fenced %v; the write may still end by itself", detached, b.fenced)
	}
	b.x.W.Run(5 * time.Second)
	if len(b.fenced) != 1 {
		t.Errorf("after 7 s fenced are %v, want the session", b.fenced)
	}
	osd := b.x.OSDs[1]
	osd.Hold = false
	osd.Release()
	b.x.Run("detach", func() bool { return detached })
	quiet := b.attach(t, volume.Session{Protocol: "nbd"})
	b.leave(quiet)
	if len(b.fenced) != 1 {
		t.Error("a session without changes under way was fenced")
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	b := newBench(t)
	h := b.attach(t, volume.Session{Protocol: "nbd"})
	o := b.x.OSDs[1]
	quick := o.Loop.Alloc(8192)
	const depth = 8
	left := 0
	done := func(op *volume.Op) {
		left--
		if op.Kind == volume.Read {
			op.ReleasePieces()
		}
		if op.Err != nil {
			t.Error(op.Err)
		}
	}
	data := b.x.Loop.Alloc(8192)
	defer data.Release()
	var ops []*volume.Op
	for i := range depth {
		ops = append(ops, &volume.Op{Kind: volume.Write, Offset: uint64(i) * 8192, Length: 8192, Pieces: []volume.Piece{{Ref: data, Len: 8192}}, Done: done})
		ops = append(ops, &volume.Op{Kind: volume.Read, Offset: uint64(i) * 8192, Length: 8192, Done: done})
	}
	ended := func() bool { return left == 0 }
	round := func() {
		left = len(ops)
		for _, op := range ops {
			h.Submit(op)
		}
		b.x.W.RunUntil(ended, time.Minute)
	}
	o.Quick, o.Pieces, o.Bitmap = true, []peer.Piece{{Ref: quick, Len: 8192}}, make([]byte, 4)
	for range 50 {
		round()
	}
	if n := testing.AllocsPerRun(50, round); n > 0 {
		t.Errorf("%.2f allocations in %d operations, want none", n, len(ops))
	}
	b.leave(h)
}

func TestCatalog(t *testing.T) {
	b := newBench(t)
	c := b.im.catalog
	first, info, _ := c.Lookup("disk")
	want := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if info.ID != want || info.Size != diskSize || info.OptimalSize != 128<<10 || info.PreferredSize != 4096 {
		t.Errorf("info: %+v", info)
	}
	b.x.Put("config/inode/1/1", `{"name":"a/b","size":4096,"meta":{"holdfast_id":"000102030405060708090a0b0c0d0e0f"}}`)
	b.x.Put("config/inode/1/7", `{"name":"stock","size":4096}`)
	b.x.Run("two names", func() bool { return len(c.Names()) == 2 })
	if got := fmt.Sprint(c.Names()); got != "[a/b stock]" {
		t.Errorf("names: %s", got)
	}
	again, _, _ := c.Lookup("a/b")
	if again != first {
		t.Error("a renamed image has another device")
	}
	_, stock, _ := c.Lookup("stock")
	if stock.ID == ([16]byte{}) || stock.ID == want {
		t.Errorf("identity of an image without one: %x", stock.ID)
	}
	b.x.Put("config/inode/1/1", "")
	b.x.Put("config/pools", `{}`)
	b.x.Run("no names", func() bool { return len(c.Names()) == 0 })
}

func TestSuccessorOfASuccessorWaitsToo(t *testing.T) {
	b := newBench(t)
	var release func()
	b.im.fence = func(ln *lane, f cluster.Fence, done func()) { release = done }
	first := b.attach(t, volume.Session{Protocol: "iscsi", Nexus: "n"})
	write := b.writeUnderWay(t, first)
	second := b.attach(t, volume.Session{Protocol: "iscsi", Nexus: "n"})
	left := false
	second.Detach(func() { left = true })
	b.x.W.Run(time.Second)
	if left {
		t.Error("the second session has ended, so that nobody knows of the fence that is awaited")
	}
	third := b.attach(t, volume.Session{Protocol: "iscsi", Nexus: "n"})
	done := false
	read := &volume.Op{Kind: volume.Read, Length: 4096, Done: func(op *volume.Op) { done = true; op.ReleasePieces() }}
	third.Submit(read)
	osd := b.x.OSDs[1]
	osd.Hold = false
	osd.Release()
	b.x.W.Run(time.Second)
	if done {
		t.Error("the third session was served before the first was fenced")
	}
	release()
	b.x.Run("the third session's read", func() bool { return done && write.User != nil })
	b.leave(first, third)
}

func TestSuccessorOfALeaverWaitsForItsFence(t *testing.T) {
	b := newBench(t)
	var release func()
	b.im.fence = func(ln *lane, f cluster.Fence, done func()) { release = done }
	h := b.attach(t, volume.Session{Protocol: "iscsi", Nexus: "n"})
	write := b.writeUnderWay(t, h)
	left := false
	h.Detach(func() { left = true })
	b.x.W.Run(7 * time.Second)
	osd := b.x.OSDs[1]
	osd.Hold = false
	osd.Release()
	b.x.Run("the end of the write", func() bool { return write.User != nil })
	next := b.attach(t, volume.Session{Protocol: "iscsi", Nexus: "n"})
	done := false
	read := &volume.Op{Kind: volume.Read, Length: 4096, Done: func(op *volume.Op) { done = true; op.ReleasePieces() }}
	next.Submit(read)
	b.x.W.Run(time.Second)
	if done || left {
		t.Errorf("before the fence is in force: the successor's read done %v, the leaver gone %v", done, left)
	}
	release()
	b.x.Run("the successor's read", func() bool { return done && left })
	b.leave(next)
}
