package images_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/client/clienttest"
	"holdfast/core/cluster"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/wire"
)

const object = 128 << 10

// wait runs until an operation has called the function that it returns.
type wait struct {
	x    *clienttest.Cluster
	over bool
	err  error
}

func (w *wait) done(err error) { w.over, w.err = true, err }

func (w *wait) end() error {
	w.x.T.Helper()
	w.x.Run("the operation", func() bool { return w.over })
	return w.err
}

func create(x *clienttest.Cluster, name string, size uint64) (layout.Inode, error) {
	x.T.Helper()
	w := &wait{x: x}
	var id layout.Inode
	images.Create(x.Client, images.New{Name: name, Size: size, Pool: "data", Identity: [16]byte{1, byte(len(name))}}, func(i layout.Inode, err error) {
		id = i
		w.done(err)
	})
	err := w.end()
	return id, err
}

func remove(x *clienttest.Cluster, name string, o images.Options) error {
	x.T.Helper()
	w := &wait{x: x}
	images.Remove(x.Client, name, o, w.done)
	return w.end()
}

func resize(x *clienttest.Cluster, name string, size uint64, shrink bool) error {
	x.T.Helper()
	w := &wait{x: x}
	images.Resize(x.Client, name, size, images.ResizeOptions{Shrink: shrink}, w.done)
	return w.end()
}

func TestCreateListRename(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	id, err := create(x, "vm/root", 1<<30)
	if err != nil || id != layout.MakeInode(1, 2) {
		t.Fatalf("inode %v, error %v", id, err)
	}
	info, ok := images.Find(x.Client.Snapshot(), "vm/root")
	if !ok || info.Size != 1<<30 || info.Pool != "data" || !strings.HasPrefix(info.Identity, "0107") {
		t.Errorf("found %+v, %t", info, ok)
	}
	if _, err := create(x, "vm/root", 4096); !is[*images.ExistsError](err) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := create(x, "disk", 4096); !is[*images.ExistsError](err) {
		t.Errorf("created over one without an index: %v", err)
	}
	if _, err := create(x, "large", 1<<63); err == nil {
		t.Error("created an image that no protocol can count")
	}
	w := &wait{x: x}
	images.Rename(x.Client, "vm/root", "disk", w.done)
	if err := w.end(); !is[*images.ExistsError](err) {
		t.Errorf("renamed to a name that is taken: %v", err)
	}
	w = &wait{x: x}
	images.Rename(x.Client, "vm/root", "vm/boot", w.done)
	if err := w.end(); err != nil {
		t.Error(err)
	}
	w = &wait{x: x}
	images.Rename(x.Client, "vm/root", "vm/other", w.done)
	if err := w.end(); !is[*images.NotFoundError](err) || !strings.Contains(err.Error(), `rename image "vm/root" to "vm/other"`) {
		t.Errorf("renamed what is not there: %v", err)
	}
	if l := images.List(x.Client.Snapshot(), "vm/"); len(l) != 1 || l[0].Name != "vm/boot" || l[0].Inode != id {
		t.Errorf("list %+v", l)
	}
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// TestLostAnswerOfTheRegistry runs each operation while the registry carries transactions out, but its answers are lost at first.
func TestLostAnswerOfTheRegistry(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	lose := func() {
		// The look is answered, the transaction after it is not.
		x.W.After(300*time.Microsecond, func() { x.Registry.LoseReplies(true) })
		x.W.After(3*time.Second, func() { x.Registry.LoseReplies(false) })
	}
	x.Registry.Latency = func() time.Duration { return 150 * time.Microsecond }
	lose()
	start := x.W.Elapsed()
	id, err := create(x, "a", 1<<20)
	if d := x.W.Elapsed() - start; d < time.Second {
		t.Errorf("done after %v: no answer was lost", d)
	}
	if err != nil {
		t.Fatal(err)
	}
	if l := images.List(x.Client.Snapshot(), ""); len(l) != 2 || id != l[0].Inode {
		t.Errorf("list %+v", l)
	}
	x.W.Run(3 * time.Second)
	lose()
	w := &wait{x: x}
	images.Rename(x.Client, "a", "b", w.done)
	if err := w.end(); err != nil {
		t.Error(err)
	}
	x.W.Run(3 * time.Second)
	lose()
	if err := resize(x, "b", 4<<20, false); err != nil {
		t.Error(err)
	}
	x.W.Run(3 * time.Second)
	lose()
	if err := resize(x, "b", 1<<20, true); err != nil {
		t.Error(err)
	}
	x.W.Run(3 * time.Second)
	lose()
	if err := remove(x, "b", images.Options{}); err != nil {
		t.Error(err)
	}
	if l := images.List(x.Client.Snapshot(), ""); len(l) != 1 {
		t.Errorf("list %+v", l)
	}
}

func TestRemoveDeletesEveryObject(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4<<20, 1))
	x.Do(x.Write(60<<20, 3<<20, 1))
	other, err := create(x, "other", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	keep := x.Write(0, 4096, 1)
	keep.Inode = other
	x.Do(keep)
	var last images.Progress
	if err := remove(x, "disk", images.Options{Progress: func(p images.Progress) { last = p }}); err != nil {
		t.Fatal(err)
	}
	if len(x.Objects) != 1 || x.Objects[layout.ObjectID{Inode: other}] == nil {
		t.Errorf("%d objects are left, want that of the other image", len(x.Objects))
	}
	if _, ok := images.Find(x.Client.Snapshot(), "disk"); ok {
		t.Error("the image is still there")
	}
	// Four objects stood where the barrier deleted.
	if last.Objects != 32+24-4 || last.Bytes != last.Objects*object || last.Rate == 0 {
		t.Errorf("progress %+v", last)
	}
	if err := remove(x, "disk", images.Options{}); !is[*images.NotFoundError](err) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestRemoveWaitsForAPGAndGoesOn(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4<<20, 1))
	x.SetPrimary(3, 0)
	err := remove(x, "disk", images.Options{Patience: 5 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "PG 1/3") {
		t.Fatalf("error %v, want one that names PG 1/3", err)
	}
	if i, ok := images.Find(x.Client.Snapshot(), "disk"); !ok || !i.Deleted {
		t.Errorf("image %+v, want it marked deleted", i)
	}
	w := &wait{x: x}
	op := images.Remove(x.Client, "disk", images.Options{}, w.done)
	x.W.Run(10 * time.Second)
	if p := op.Progress(); w.over || !strings.Contains(p.Waiting, "PG 1/3") {
		t.Errorf("progress %+v, over %t", p, w.over)
	}
	op.Stop()
	if err := w.end(); !errors.Is(err, images.ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	w = &wait{x: x}
	images.Remove(x.Client, "disk", images.Options{}, w.done)
	x.W.Run(time.Second)
	x.SetPrimary(3, 1)
	if err := w.end(); err != nil || len(x.Objects) != 0 {
		t.Errorf("error %v, %d objects", err, len(x.Objects))
	}
}

func TestParentIsNotRemoved(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Put("config/inode/1/9", `{"name":"clone","size":4096,"parent_id":1}`)
	x.W.Run(10 * time.Millisecond)
	if err := remove(x, "disk", images.Options{}); !is[*images.ChildrenError](err) {
		t.Errorf("error %v", err)
	}
	if err := resize(x, "clone", 8192, false); err != nil {
		t.Error(err)
	}
	if err := resize(x, "clone", 4096, true); err == nil {
		t.Error("shrank a layer over a parent")
	}
}

func TestShrinkLosesWhatIsBeyondTheEnd(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 10*object, 1))
	x.Do(x.Write(63<<20, 1<<20, 1))
	const end = 3*object + 12345
	if err := resize(x, "disk", end, false); err == nil {
		t.Fatal("shrank without leave")
	}
	if err := resize(x, "disk", end, true); err != nil {
		t.Fatal(err)
	}
	if i, _ := images.Find(x.Client.Snapshot(), "disk"); i.Size != end || len(x.Objects) != 4 {
		t.Errorf("size %d, %d objects", i.Size, len(x.Objects))
	}
	if err := resize(x, "disk", 64<<20, false); err != nil {
		t.Fatal(err)
	}
	x.Want(0, end, 1)
	x.Want(end, 20*object, 0)
	x.Want(63<<20, 1<<20, 0)
	if i, _ := images.Find(x.Client.Snapshot(), "disk"); i.Shrink || i.Size != 64<<20 {
		t.Errorf("image %+v", i)
	}
}

// TestSlowShrinkDoesNotDeleteNewData holds the deletions of a shrinking back, while another process finishes it, the image grows and is written again.
func TestSlowShrinkDoesNotDeleteNewData(t *testing.T) {
	x := clienttest.New(t, 2, nil)
	x.Do(x.Write(0, 10*object, 1))
	o := x.OSDs[1]
	o.Hold, o.Only = true, wire.OpDelete
	slow := &wait{x: x}
	images.Resize(x.Client, "disk", object, images.ResizeOptions{Shrink: true}, slow.done)
	x.Run("the deletions", func() bool { return len(o.Held) == 9 })
	if i, _ := images.Find(x.Client.Snapshot(), "disk"); !i.Shrink || i.Size != object {
		t.Fatalf("image %+v, want it in the middle of shrinking", i)
	}
	for pg := 1; pg <= 4; pg++ {
		x.SetPrimary(pg, 2)
	}
	// Another process, with a client of its own, is asked to let it grow: it finishes the shrinking first.
	co := client.Defaults()
	co.Registry, co.Key, co.Instance = x.Registry, clienttest.Key, 99
	second := client.New(x.Loop, co)
	grown := &wait{x: x}
	images.Resize(second, "disk", 64<<20, images.ResizeOptions{}, grown.done)
	if err := grown.end(); err != nil {
		t.Fatal(err)
	}
	if len(x.Objects) != 1 {
		t.Fatalf("it grew over %d objects", len(x.Objects)-1)
	}
	op := x.Write(0, 10*object, 2)
	op.Session = second.NewSession(nil)
	second.Submit(op)
	x.Await(op)
	if op.Err != nil {
		t.Fatal(op.Err)
	}
	o.Release() // OSD 1 is not the primary any more, so they are sent to OSD 2
	if err := slow.end(); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("the slow one ended with %v", err)
	}
	x.Want(0, 10*object, 2)
	closed := false
	second.Close(func() { closed = true })
	x.Run("close", func() bool { return closed })
}

func TestNoAnswerFromTheRegistry(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Registry.Unreachable(true)
	w := &wait{x: x}
	images.Create(x.Client, images.New{Name: "a", Size: 4096, Pool: "data"}, func(_ layout.Inode, err error) { w.done(err) })
	if err := w.end(); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("error %v", err)
	}
	w = &wait{x: x}
	images.Rename(x.Client, "disk", "b", w.done).Stop()
	if err := w.end(); !errors.Is(err, images.ErrStopped) {
		t.Errorf("error %v", err)
	}
	x.Registry.Unreachable(false)
}

func TestUnknownPool(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	w := &wait{x: x}
	images.Create(x.Client, images.New{Name: "a", Size: 4096, Pool: "fast"}, func(_ layout.Inode, err error) { w.done(err) })
	if err := w.end(); err == nil || !strings.Contains(err.Error(), `no pool "fast"`) {
		t.Errorf("error %v", err)
	}
	x.Put(cluster.KeyPools, `{}`)
}
