package files

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/appliance/exports"
	"holdfast/core/client"
	"holdfast/core/client/clienttest"
	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
	"holdfast/frontends/volume"
)

// bench is a tree over fake OSDs in the simulator.
type bench struct {
	*testing.T
	x    *clienttest.Cluster
	tree *Tree
}

type device struct{ exports.ID }

func (device) Attach(loop.Loop, volume.Session) (volume.Handle, error) {
	return nil, volume.ErrUnsupported
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, x: clienttest.New(t, 1, nil)}
	b.x.Put(cluster.KeyClusterID, `{"id":"000102030405060708090a0b0c0d0e0f"}`)
	b.x.Put("config/inode/1/1", "")
	b.tree = b.open()
	return b
}

// open makes another tree on the same cluster, as another gateway would.
func (b *bench) open() *Tree {
	b.Helper()
	catalog := exports.New(func(id exports.ID) volume.Device { return device{id} })
	o := client.Defaults()
	o.Registry, o.Key, o.Instance = b.x.Registry, clienttest.Key, 77+uint64(b.x.Loop.Rand().IntN(1000))
	c := client.New(b.x.Loop, o)
	var tree *Tree
	c.OnChange(func(_, next *cluster.Snapshot, keys []string) {
		changes := catalog.Update(next, keys)
		if tree != nil {
			tree.Changed(changes)
		}
	})
	tree = New(Options{Client: c, Lane: func(loop.Loop) *client.Client { return c }, Catalog: catalog, Log: slog.New(slog.NewTextHandler(b.Output(), nil))})
	ready := false
	tree.Ready(func() { ready = true })
	b.x.Run("the tree", func() bool { return ready })
	b.Cleanup(func() {
		done := false
		tree.Stop(func() { c.Close(func() { done = true }) })
		b.x.Run("the end of the tree", func() bool { return done })
	})
	return tree
}

func (b *bench) do(op *nfs.TreeOp) *nfs.TreeOp { return b.on(b.tree, op) }

func (b *bench) on(tree *Tree, op *nfs.TreeOp) *nfs.TreeOp {
	b.Helper()
	done := false
	op.Loop, op.Done = b.x.Loop, func(*nfs.TreeOp) { done = true }
	tree.Submit(op)
	if done {
		b.Error("completion inside Submit")
	}
	b.x.Run("an operation on the tree", func() bool { return done })
	return op
}

func (b *bench) ok(op *nfs.TreeOp) *nfs.TreeOp {
	b.Helper()
	if b.do(op); op.Err != nil {
		b.Fatalf("operation %d on %q: %v", op.Kind, op.Name, op.Err)
	}
	return op
}

func (b *bench) fails(op *nfs.TreeOp, want error) *nfs.TreeOp {
	b.Helper()
	if b.do(op); !errors.Is(op.Err, want) {
		b.Errorf("operation %d on %q: %v, want %v", op.Kind, op.Name, op.Err, want)
	}
	return op
}

func (b *bench) lookup(path string) *nfs.Attr {
	b.Helper()
	id := nfs.Root
	var a nfs.Attr
	for name := range strings.SplitSeq(path, "/") {
		op := b.do(&nfs.TreeOp{Kind: nfs.TreeLookup, ID: id, Name: name})
		if op.Err != nil {
			return &nfs.Attr{}
		}
		a, id = op.Attr, op.Attr.ID
	}
	return &a
}

func (b *bench) names(dir nfs.ID) (names []string) {
	b.Helper()
	for cookie := uint64(0); ; {
		op := b.ok(&nfs.TreeOp{Kind: nfs.TreeReadDir, ID: dir, Cookie: cookie, Max: 2})
		for _, e := range op.Entries {
			names = append(names, e.Name)
			cookie = e.Cookie
		}
		if op.EOF {
			slices.Sort(names)
			return names
		}
	}
}

func create(dir nfs.ID, name string) *nfs.TreeOp {
	return &nfs.TreeOp{Kind: nfs.TreeCreate, ID: dir, Name: name, How: nfs.Guarded, UID: 7}
}

// image is an image's configuration by its name, as etcd has it.
func (b *bench) image(name string) *cluster.Inode {
	i, _ := b.tree.c.Snapshot().Image(name)
	return i
}

func TestCreateLookupList(t *testing.T) {
	b := newBench(t)
	made := b.ok(&nfs.TreeOp{Kind: nfs.TreeCreate, Name: "a.img", How: nfs.Guarded, UID: 7, Set: nfs.SetAttr{Mask: nfs.SetMode | nfs.SetSize, Mode: 0o600, Size: 12345}})
	a := made.Attr
	if a.Size != 12345 || a.Mode != 0o600 || a.UID != 7 || a.Type != nfs.Regular || a.ID == nfs.Root || a.Ctime == 0 {
		t.Errorf("a new file: %+v", a)
	}
	if made.DirPre.Ctime >= made.Dir.Ctime {
		t.Error("the directory's ctime has not grown")
	}
	if i := b.image("a.img"); i == nil || uint64(i.Size) != 12345 || i.Identity() != fmt.Sprintf("%x", a.ID[:]) {
		t.Errorf("the image: %+v", i)
	}
	b.fails(create(nfs.Root, "a.img"), nfs.ErrExists)
	b.fails(create(nfs.Root, "x\x01"), nfs.ErrName)
	b.fails(create(nfs.Root, strings.Repeat("x", 201)), nfs.ErrNameTooLong)
	b.fails(create(nfs.ID{1}, "x"), nfs.ErrStale)
	b.fails(create(a.ID, "x"), nfs.ErrNotDir)
	if got := b.lookup("a.img"); *got != a {
		t.Errorf("lookup: %+v, want %+v", got, a)
	}
	b.x.Put("config/inode/1/50", `{"name":"vm/one/disk","size":8192}`)
	b.x.Put("config/inode/1/51", `{"name":"vm/two","size":8192}`)
	b.x.Put("config/inode/1/52", `{"name":"vm-old","size":8192}`)
	b.x.Run("the images", func() bool { return b.lookup("vm/two").Known() })
	if got := b.names(nfs.Root); !slices.Equal(got, []string{"a.img", "vm", "vm-old"}) {
		t.Errorf("names in /: %q", got)
	}
	vm := b.lookup("vm")
	if got := b.names(vm.ID); vm.Type != nfs.Directory || !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("names in /vm: %q", got)
	}
	if up := b.ok(&nfs.TreeOp{Kind: nfs.TreeLookup, ID: b.lookup("vm/one").ID, Name: ".."}); up.Attr.ID != vm.ID {
		t.Error("/vm/one/.. is not /vm")
	}
	again := b.open()
	if op := b.on(again, &nfs.TreeOp{Kind: nfs.TreeAttr, ID: vm.ID}); op.Err != nil || op.Attr.Type != nfs.Directory {
		t.Errorf("another gateway does not know the directory: %v", op.Err)
	}
	if op := b.on(again, &nfs.TreeOp{Kind: nfs.TreeAttr, ID: a.ID}); op.Err != nil || op.Attr != a {
		t.Errorf("another gateway says %+v, %v, want %+v", op.Attr, op.Err, a)
	}
}

func TestExclusiveCreate(t *testing.T) {
	b := newBench(t)
	op := func(v byte) *nfs.TreeOp {
		return &nfs.TreeOp{Kind: nfs.TreeCreate, Name: "x", How: nfs.Exclusive, Verifier: [8]byte{v}}
	}
	first := b.ok(op(1)).Attr
	if got := b.ok(op(1)).Attr; got.ID != first.ID {
		t.Error("the same verifier made another file")
	}
	b.fails(op(2), nfs.ErrExists)
	if op := b.on(b.open(), op(1)); op.Err != nil || op.Attr.ID != first.ID {
		t.Errorf("the verifier on another gateway: %v", op.Err)
	}
	if op := b.ok(&nfs.TreeOp{Kind: nfs.TreeCreate, Name: "x", How: nfs.Unchecked, Set: nfs.SetAttr{Mask: nfs.SetSize, Size: 99}}); op.Attr.ID != first.ID || op.Attr.Size != 99 {
		t.Errorf("unchecked create of a file that exists: %+v", op.Attr)
	}
}

func TestDirectories(t *testing.T) {
	b := newBench(t)
	d := b.ok(&nfs.TreeOp{Kind: nfs.TreeMkdir, Name: "d"}).Attr
	b.fails(&nfs.TreeOp{Kind: nfs.TreeMkdir, Name: "d"}, nfs.ErrExists)
	b.fails(create(nfs.Root, "d"), nfs.ErrExists)
	b.ok(create(d.ID, "f"))
	b.fails(&nfs.TreeOp{Kind: nfs.TreeRmdir, Name: "d"}, nfs.ErrNotEmpty)
	b.fails(&nfs.TreeOp{Kind: nfs.TreeRemove, Name: "d"}, nfs.ErrIsDir)
	b.fails(&nfs.TreeOp{Kind: nfs.TreeRmdir, ID: d.ID, Name: "f"}, nfs.ErrNotDir)
	b.ok(&nfs.TreeOp{Kind: nfs.TreeRemove, ID: d.ID, Name: "f"})
	b.ok(&nfs.TreeOp{Kind: nfs.TreeRmdir, Name: "d"})
	b.fails(&nfs.TreeOp{Kind: nfs.TreeAttr, ID: d.ID}, nfs.ErrStale)

	// A directory that only an image made stays when that image goes, with its identity.
	b.x.Put("config/inode/1/50", `{"name":"vm/one/disk","size":8192}`)
	b.x.Run("the image", func() bool { return b.lookup("vm/one/disk").Known() })
	one := b.lookup("vm/one")
	b.ok(&nfs.TreeOp{Kind: nfs.TreeRemove, ID: one.ID, Name: "disk"})
	if got := b.lookup("vm/one"); got.ID != one.ID {
		t.Errorf("/vm/one is %+v after its file was removed, want identity %x", got, one.ID)
	}
	vm := b.lookup("vm")
	b.ok(&nfs.TreeOp{Kind: nfs.TreeRmdir, ID: vm.ID, Name: "one"})
	b.ok(&nfs.TreeOp{Kind: nfs.TreeRmdir, Name: "vm"})
	if got := b.names(nfs.Root); len(got) != 0 {
		t.Errorf("left over: %q", got)
	}
}

func TestRemoveFreesNameAndDeletesData(t *testing.T) {
	b := newBench(t)
	f := b.ok(create(nfs.Root, "f")).Attr
	b.ok(&nfs.TreeOp{Kind: nfs.TreeGrow, ID: f.ID, Size: 1 << 20})
	inode := b.image("f").ID
	s := b.tree.c.NewSession(nil)
	op := &client.Op{Kind: client.Write, Session: s, Inode: inode, Len: 4096, Pieces: []client.Piece{{Len: 4096}}}
	written := false
	op.Done = func(*client.Op) { written = true }
	b.tree.c.Submit(op)
	b.x.Run("a write", func() bool { return written })
	b.ok(&nfs.TreeOp{Kind: nfs.TreeRemove, Name: "f"})
	b.fails(&nfs.TreeOp{Kind: nfs.TreeAttr, ID: f.ID}, nfs.ErrStale)
	again := b.ok(create(nfs.Root, "f")).Attr
	if again.ID == f.ID {
		t.Error("the new file has the old one's identity")
	}
	b.x.Run("the deletion of the data", func() bool { _, ok := b.tree.c.Snapshot().Inode(inode); return !ok })
	for id, o := range b.x.Objects {
		if id.Inode == inode && o.Version != 0 {
			t.Errorf("object %v is still there", id)
		}
	}
}

func TestRename(t *testing.T) {
	b := newBench(t)
	f := b.ok(create(nfs.Root, "f")).Attr
	d := b.ok(&nfs.TreeOp{Kind: nfs.TreeMkdir, Name: "d"}).Attr
	move := func(from nfs.ID, name string, to nfs.ID, toName string) *nfs.TreeOp {
		return &nfs.TreeOp{Kind: nfs.TreeRename, ID: from, Name: name, ToID: to, ToName: toName}
	}
	b.ok(move(nfs.Root, "f", d.ID, "g"))
	if got := b.lookup("d/g"); got.ID != f.ID || b.image("d/g") == nil || b.image("f") != nil {
		t.Errorf("after the rename: %+v", got)
	}
	b.fails(move(nfs.Root, "f", nfs.Root, "h"), nfs.ErrNotFound)
	b.fails(move(nfs.Root, "d", d.ID, "e"), nfs.ErrInvalid)
	other := b.ok(create(nfs.Root, "other")).Attr
	b.ok(move(nfs.Root, "other", d.ID, "g"))
	if got := b.lookup("d/g"); got.ID != other.ID {
		t.Error("the file in the way was not replaced")
	}
	b.fails(&nfs.TreeOp{Kind: nfs.TreeAttr, ID: f.ID}, nfs.ErrStale)
	// A directory with what is in it.
	sub := b.ok(&nfs.TreeOp{Kind: nfs.TreeMkdir, ID: d.ID, Name: "sub"}).Attr
	b.ok(create(sub.ID, "deep"))
	empty := b.ok(&nfs.TreeOp{Kind: nfs.TreeMkdir, Name: "empty"}).Attr
	b.ok(move(nfs.Root, "d", nfs.Root, "empty"))
	if got := b.lookup("empty"); got.ID != d.ID {
		t.Error("the directory has another identity")
	}
	if b.lookup("empty/sub").ID != sub.ID || !b.lookup("empty/sub/deep").Known() || b.lookup("d").Known() {
		t.Error("what was in the directory is not where it should be")
	}
	b.fails(&nfs.TreeOp{Kind: nfs.TreeAttr, ID: empty.ID}, nfs.ErrStale)
	b.fails(move(nfs.Root, "empty", b.lookup("empty/sub").ID, "x"), nfs.ErrInvalid)
}

func TestSizesAndTimes(t *testing.T) {
	b := newBench(t)
	f := b.ok(create(nfs.Root, "f")).Attr
	// Growths that come together.
	left := 20
	for i := range left {
		op := &nfs.TreeOp{Kind: nfs.TreeGrow, ID: f.ID, Size: uint64(i+1) * 1000, Loop: b.x.Loop}
		op.Done = func(op *nfs.TreeOp) {
			left--
			if op.Err != nil || op.Attr.Size < op.Size {
				t.Errorf("growth to %d: size %d, %v", op.Size, op.Attr.Size, op.Err)
			}
		}
		b.tree.Submit(op)
	}
	b.x.Run("growth", func() bool { return left == 0 })
	if i := b.image("f"); uint64(i.Size) != 20000 {
		t.Errorf("size in etcd: %d", i.Size)
	}
	before := b.ok(&nfs.TreeOp{Kind: nfs.TreeAttr, ID: f.ID}).Attr
	b.fails(&nfs.TreeOp{Kind: nfs.TreeSetAttr, ID: f.ID, Guard: true, GuardCtime: 1, Set: nfs.SetAttr{Mask: nfs.SetMode}}, nfs.ErrNotSync)
	cut := b.ok(&nfs.TreeOp{Kind: nfs.TreeSetAttr, ID: f.ID, Guard: true, GuardCtime: before.Ctime, Set: nfs.SetAttr{Mask: nfs.SetSize | nfs.SetMode | nfs.SetMtime, Size: 777, Mode: 0o640, Mtime: 5e9}})
	if a := cut.Attr; a.Size != 777 || a.Mode != 0o640 || a.Mtime != 5e9 || a.Ctime <= before.Ctime || cut.Pre != before {
		t.Errorf("after SETATTR: %+v, before %+v", a, cut.Pre)
	}
	touched := b.ok(&nfs.TreeOp{Kind: nfs.TreeTouch, ID: f.ID})
	if touched.Attr.Mtime <= 5e9 || touched.Attr.Ctime <= cut.Attr.Ctime || touched.Pre != cut.Attr {
		t.Errorf("after a write: %+v", touched.Attr)
	}
	b.x.W.Run(saveDelay + time.Second)
	if op := b.on(b.open(), &nfs.TreeOp{Kind: nfs.TreeAttr, ID: f.ID}); op.Attr != touched.Attr {
		t.Errorf("another gateway says %+v, want %+v", op.Attr, touched.Attr)
	}
	b.fails(&nfs.TreeOp{Kind: nfs.TreeGrow, ID: f.ID, Size: 1 << 63}, nfs.ErrTooBig)
	b.fails(&nfs.TreeOp{Kind: nfs.TreeGrow, ID: nfs.Root, Size: 1}, nfs.ErrIsDir)
}

func TestOutageMakesChangesWait(t *testing.T) {
	b := newBench(t)
	b.x.Registry.LoseReplies(true)
	done := false
	op := create(nfs.Root, "f")
	op.Loop, op.Done = b.x.Loop, func(*nfs.TreeOp) { done = true }
	b.tree.Submit(op)
	b.x.W.Run(5 * time.Second)
	if done {
		t.Fatalf("answered during an outage: %v", op.Err)
	}
	b.x.Registry.LoseReplies(false)
	b.x.Run("the creation", func() bool { return done })
	if op.Err != nil || !op.Attr.Known() {
		t.Errorf("after the outage: %+v, %v; the file was made once, by us", op.Attr, op.Err)
	}
}

func TestFSStatIsThePoolsSpace(t *testing.T) {
	b := newBench(t)
	b.x.Put("pool/stats/1", `{"used_raw_tb":1.5,"total_raw_tb":6,"pg_real_size":3,"raw_to_usable":3,"space_efficiency":0.99}`)
	b.x.Run("the statistics", func() bool {
		return b.ok(&nfs.TreeOp{Kind: nfs.TreeFSStat}).Space.TotalBytes != 0
	})
	s := b.ok(&nfs.TreeOp{Kind: nfs.TreeFSStat}).Space
	if s.TotalBytes != 2<<40 || s.FreeBytes != 3<<39 || s.AvailBytes != s.FreeBytes || s.MaxFileSize != cluster.MaxImageSize {
		t.Errorf("space: %+v, want 2 TiB with 1.5 free", s)
	}
}

func TestNothingIsForgottenOfFilesThatCannotBeServedForNow(t *testing.T) {
	b := newBench(t)
	f := b.ok(&nfs.TreeOp{Kind: nfs.TreeCreate, Name: "f", Set: nfs.SetAttr{Mask: nfs.SetMode, Mode: 0o600}}).Attr
	pools := `{"1":{"name":"data","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":4}}`
	b.x.Put("config/pools", `{}`)
	b.x.Run("the file's absence", func() bool { return !b.lookup("f").Known() })
	b.x.W.Run(time.Second)
	b.x.Put("config/pools", pools)
	b.x.Run("the file", func() bool { return b.lookup("f").Known() })
	if got := b.lookup("f"); got.Mode != 0o600 || got.ID != f.ID {
		t.Errorf("the file is %+v now, was %+v", got, f)
	}
}

func TestListingInPartsShowsEachNameOnceWhateverComesAndGoes(t *testing.T) {
	b := newBench(t)
	for i := range 200 {
		b.x.Put(fmt.Sprintf("config/inode/1/%d", i+10), fmt.Sprintf(`{"name":"d/%03d","size":4096}`, i))
	}
	b.x.Run("the images", func() bool { return b.lookup("d/199").Known() })
	dir := b.lookup("d").ID
	seen := map[string]int{}
	cookie, part := uint64(0), 0
	for {
		op := b.ok(&nfs.TreeOp{Kind: nfs.TreeReadDir, ID: dir, Cookie: cookie, Max: 7})
		for _, e := range op.Entries {
			seen[e.Name]++
			cookie = e.Cookie
		}
		if op.EOF {
			break
		}
		b.x.Put(fmt.Sprintf("config/inode/1/%d", 1000+part), fmt.Sprintf(`{"name":"d/new%d","size":4096}`, part))
		part++
	}
	for i := range 200 {
		if n := seen[fmt.Sprintf("%03d", i)]; n != 1 {
			t.Errorf("%03d was listed %d times", i, n)
		}
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte(`{"id":"000102030405060708090a0b0c0d0e0f","mode":493,"mtime":1}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRecord(kvOf(b))
		if err != nil {
			return
		}
		again, err := readRecord(kvOf(r.value()))
		if err != nil || *again != *r {
			t.Errorf("%q reads as %+v, which reads as %+v, %v", b, r, again, err)
		}
	})
}

func kvOf(b []byte) registry.KV { return registry.KV{Key: dirKey("d"), Value: b} }
