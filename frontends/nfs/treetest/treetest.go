// Package treetest is the suite that every nfs.Tree passes: it says in tests what the comments of nfs.Tree say in words.
package treetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"holdfast/core/loop"
	"holdfast/frontends/nfs"
	"holdfast/frontends/volume"
)

// Env is an empty tree and how to use it.
type Env struct {
	Tree nfs.Tree
	// Loop is the loop that operations are submitted on.
	Loop loop.Loop
	// On runs f on Loop; it returns when f has returned.
	On func(f func())
	// Wait drives Loop, or waits for it, until cond, which it calls on Loop, is true. It reports whether that came about before it gave up.
	Wait func(cond func() bool) bool
}

// Run runs the suite; factory makes an Env with an empty tree for each test.
func Run(t *testing.T, factory func(t *testing.T) Env) {
	for _, tc := range []struct {
		name string
		f    func(*run)
	}{
		{"CompletionIsLater", completionIsLater},
		{"CreateModes", createModes},
		{"NamesAndErrors", namesAndErrors},
		{"RenameKeepsIdentity", renameKeepsIdentity},
		{"RemovedIsStaleForEver", removedIsStale},
		{"AttributesAndGuard", attributesAndGuard},
		{"DirectoriesChangeInOneStep", directoriesChange},
		{"ReadDirCookies", readDirCookies},
		{"SymbolicLinks", symbolicLinks},
		{"SizeToTheByte", sizes},
		{"CutOffDataIsGone", cutOff},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.f(&run{t, factory(t)}) })
	}
}

type run struct {
	*testing.T
	Env
}

// do carries out op and returns its error.
func (r *run) do(op *nfs.TreeOp) error {
	r.Helper()
	done := 0
	op.Loop = r.Loop
	op.Done = func(*nfs.TreeOp) { done++ }
	r.On(func() { r.Tree.Submit(op) })
	if !r.Wait(func() bool { return done > 0 }) {
		r.Fatalf("operation %d has not completed", op.Kind)
	}
	return op.Err
}

// want carries out op and checks its error.
func (r *run) want(err error, op *nfs.TreeOp) *nfs.TreeOp {
	r.Helper()
	if got := r.do(op); !errors.Is(got, err) {
		r.Errorf("operation %d on %q: %v, want %v", op.Kind, op.Name, got, err)
	}
	return op
}

func (r *run) create(dir nfs.ID, name string) nfs.Attr {
	r.Helper()
	return r.want(nil, &nfs.TreeOp{Kind: nfs.TreeCreate, ID: dir, Name: name, How: nfs.Guarded}).Attr
}

func (r *run) mkdir(dir nfs.ID, name string) nfs.Attr {
	r.Helper()
	return r.want(nil, &nfs.TreeOp{Kind: nfs.TreeMkdir, ID: dir, Name: name}).Attr
}

func (r *run) attr(id nfs.ID) nfs.Attr {
	r.Helper()
	return r.want(nil, &nfs.TreeOp{Kind: nfs.TreeAttr, ID: id}).Attr
}

func (r *run) lookup(dir nfs.ID, name string) nfs.ID {
	r.Helper()
	return r.want(nil, &nfs.TreeOp{Kind: nfs.TreeLookup, ID: dir, Name: name}).Attr.ID
}

func completionIsLater(r *run) {
	var inside, done bool
	op := &nfs.TreeOp{Kind: nfs.TreeAttr, Loop: r.Loop}
	op.Done = func(*nfs.TreeOp) { done = true }
	r.On(func() {
		r.Tree.Submit(op)
		inside = done
	})
	if inside {
		r.Error("the operation completed inside Submit")
	}
	if !r.Wait(func() bool { return done }) || op.Err != nil || op.Attr.Type != nfs.Directory || op.Attr.ID != nfs.Root {
		r.Errorf("the root is %+v, %v", op.Attr, op.Err)
	}
}

func createModes(r *run) {
	verf := [8]byte{1, 2, 3}
	op := func(how nfs.CreateHow, verifier [8]byte, set nfs.SetAttr) *nfs.TreeOp {
		return &nfs.TreeOp{Kind: nfs.TreeCreate, Name: "f", How: how, Verifier: verifier, Set: set, UID: 7, GID: 8}
	}
	first := r.want(nil, op(nfs.Exclusive, verf, nfs.SetAttr{})).Attr
	if first.Type != nfs.Regular || first.Size != 0 || first.UID != 7 || first.GID != 8 || first.Nlink != 1 || first.ID == nfs.Root {
		r.Errorf("created %+v", first)
	}
	if again := r.want(nil, op(nfs.Exclusive, verf, nfs.SetAttr{})).Attr; again.ID != first.ID {
		r.Error("EXCLUSIVE with the same verifier gives another file")
	}
	r.want(nfs.ErrExists, op(nfs.Exclusive, [8]byte{9}, nfs.SetAttr{}))
	r.want(nfs.ErrExists, op(nfs.Guarded, [8]byte{}, nfs.SetAttr{}))
	if got := r.want(nil, op(nfs.Unchecked, [8]byte{}, nfs.SetAttr{Mask: nfs.SetSize, Size: 1_000_001})).Attr; got.ID != first.ID || got.Size != 1_000_001 {
		r.Errorf("UNCHECKED over a file gives %+v, want the same one of 1000001 bytes", got)
	}
	if got := r.want(nil, op(nfs.Unchecked, [8]byte{}, nfs.SetAttr{Mask: nfs.SetMode, Mode: 0o111})).Attr; got.Size != 1_000_001 {
		r.Errorf("UNCHECKED without a size changed it to %d", got.Size)
	}
	r.mkdir(nfs.Root, "d")
	r.want(nfs.ErrExists, &nfs.TreeOp{Kind: nfs.TreeCreate, Name: "d", How: nfs.Unchecked})
}

func namesAndErrors(r *run) {
	d, f := r.mkdir(nfs.Root, "d"), r.create(nfs.Root, "f")
	inner := r.create(d.ID, "inner")
	if r.lookup(d.ID, "inner") != inner.ID || r.lookup(d.ID, "..") != nfs.Root || r.lookup(nfs.Root, "..") != nfs.Root {
		r.Error("LOOKUP finds something else")
	}
	op := func(k nfs.TreeKind, dir nfs.ID, name string) *nfs.TreeOp {
		return &nfs.TreeOp{Kind: k, ID: dir, Name: name}
	}
	for _, tc := range []struct {
		want error
		op   *nfs.TreeOp
	}{
		{nfs.ErrNotFound, op(nfs.TreeLookup, d.ID, "f")},
		{nfs.ErrNotDir, op(nfs.TreeLookup, f.ID, "x")},
		{nfs.ErrNotDir, op(nfs.TreeCreate, f.ID, "x")},
		{nfs.ErrNotDir, op(nfs.TreeReadDir, f.ID, "")},
		{nfs.ErrExists, op(nfs.TreeMkdir, nfs.Root, "f")},
		{nfs.ErrExists, op(nfs.TreeMkdir, nfs.Root, "d")},
		{nfs.ErrIsDir, op(nfs.TreeRemove, nfs.Root, "d")},
		{nfs.ErrNotDir, op(nfs.TreeRmdir, nfs.Root, "f")},
		{nfs.ErrNotEmpty, op(nfs.TreeRmdir, nfs.Root, "d")},
		{nfs.ErrNotFound, op(nfs.TreeRemove, nfs.Root, "nothing")},
		{nfs.ErrNotFound, op(nfs.TreeRmdir, nfs.Root, "nothing")},
		{nfs.ErrNotFound, &nfs.TreeOp{Kind: nfs.TreeRename, Name: "nothing", ToName: "x"}},
		{nfs.ErrExists, &nfs.TreeOp{Kind: nfs.TreeRename, Name: "f", ToName: "d"}},
		{nfs.ErrInvalid, &nfs.TreeOp{Kind: nfs.TreeRename, Name: "d", ToID: d.ID, ToName: "x"}},
		{nfs.ErrIsDir, op(nfs.TreeOpen, d.ID, "")},
		{nfs.ErrIsDir, &nfs.TreeOp{Kind: nfs.TreeSetAttr, ID: d.ID, Set: nfs.SetAttr{Mask: nfs.SetSize}}},
		{nil, op(nfs.TreeRemove, d.ID, "inner")},
		{nil, op(nfs.TreeRmdir, nfs.Root, "d")},
	} {
		r.want(tc.want, tc.op)
	}
}

func renameKeepsIdentity(r *run) {
	d := r.mkdir(nfs.Root, "d")
	f, victim := r.create(nfs.Root, "f"), r.create(d.ID, "g")
	op := r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRename, Name: "f", ToID: d.ID, ToName: "g"})
	if !op.Dir.Known() || !op.ToDir.Known() {
		r.Error("RENAME gives no attributes of the directories")
	}
	if got := r.lookup(d.ID, "g"); got != f.ID {
		r.Errorf("the renamed file has the id %x, want %x", got, f.ID)
	}
	r.attr(f.ID)
	r.want(nfs.ErrStale, &nfs.TreeOp{Kind: nfs.TreeAttr, ID: victim.ID})
	r.want(nfs.ErrNotFound, &nfs.TreeOp{Kind: nfs.TreeLookup, Name: "f"})
	r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRename, ID: d.ID, Name: "g", ToID: d.ID, ToName: "g"}) // to itself
	if r.lookup(d.ID, "g") != f.ID {
		r.Error("RENAME to the same name lost the file")
	}
	r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRename, Name: "d", ToName: "e"})
	if e := r.lookup(nfs.Root, "e"); r.lookup(e, "g") != f.ID {
		r.Error("the file in a renamed directory is another one")
	}
}

func removedIsStale(r *run) {
	f := r.create(nfs.Root, "f")
	r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRemove, Name: "f"})
	for _, k := range []nfs.TreeKind{nfs.TreeAttr, nfs.TreeOpen, nfs.TreeGrow, nfs.TreeTouch, nfs.TreeSetAttr} {
		r.want(nfs.ErrStale, &nfs.TreeOp{Kind: k, ID: f.ID, Size: 1})
	}
	if again := r.create(nfs.Root, "f"); again.ID == f.ID {
		r.Error("an id was used again")
	}
	r.want(nfs.ErrStale, &nfs.TreeOp{Kind: nfs.TreeAttr, ID: f.ID})
	d := r.mkdir(nfs.Root, "d")
	r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRmdir, Name: "d"})
	r.want(nfs.ErrStale, &nfs.TreeOp{Kind: nfs.TreeReadDir, ID: d.ID, Max: 1})
	r.want(nfs.ErrStale, &nfs.TreeOp{Kind: nfs.TreeCreate, ID: d.ID, Name: "x"})
}

func attributesAndGuard(r *run) {
	f := r.create(nfs.Root, "f")
	set := nfs.SetAttr{Mask: nfs.SetMode | nfs.SetUID | nfs.SetGID | nfs.SetMtime | nfs.SetAtime, Mode: 0o640, UID: 5, GID: 6, Mtime: 7, Atime: 8}
	op := r.want(nil, &nfs.TreeOp{Kind: nfs.TreeSetAttr, ID: f.ID, Set: set, Guard: true, GuardCtime: f.Ctime})
	a := op.Attr
	if a.Mode != 0o640 || a.UID != 5 || a.GID != 6 || a.Mtime != 7 || a.Atime != 8 || a.Ctime <= f.Ctime || op.Pre.Known() && op.Pre.Ctime != f.Ctime {
		r.Errorf("SETATTR gives %+v after %+v", a, op.Pre)
	}
	if got := r.attr(f.ID); got != a {
		r.Errorf("GETATTR gives %+v, SETATTR gave %+v", got, a)
	}
	r.want(nfs.ErrNotSync, &nfs.TreeOp{Kind: nfs.TreeSetAttr, ID: f.ID, Set: nfs.SetAttr{Mask: nfs.SetMode}, Guard: true, GuardCtime: f.Ctime})
	if got := r.attr(f.ID); got != a {
		r.Errorf("a refused SETATTR changed %+v to %+v", a, got)
	}
	last := a
	for range 3 {
		op := r.want(nil, &nfs.TreeOp{Kind: nfs.TreeTouch, ID: f.ID})
		if op.Attr.Ctime <= last.Ctime || op.Attr.Mtime <= last.Mtime || op.Pre.Known() && op.Pre.Ctime != last.Ctime {
			r.Errorf("a write moves the times from %+v to %+v", last, op.Attr)
		}
		last = op.Attr
	}
}

func directoriesChange(r *run) {
	last := r.attr(nfs.Root)
	for i, op := range []*nfs.TreeOp{
		{Kind: nfs.TreeCreate, Name: "f"},
		{Kind: nfs.TreeMkdir, Name: "d"},
		{Kind: nfs.TreeRename, Name: "f", ToName: "g"},
		{Kind: nfs.TreeRemove, Name: "g"},
		{Kind: nfs.TreeRmdir, Name: "d"},
	} {
		r.want(nil, op)
		now := r.attr(nfs.Root)
		if now.Ctime <= last.Ctime || now.Mtime <= last.Mtime {
			r.Errorf("step %d left the directory's times", i)
		}
		if op.Dir.Known() && op.Dir != now || op.DirPre.Known() && op.DirPre.Ctime != last.Ctime {
			r.Errorf("step %d gives the directory as %+v after %+v, want %+v after %+v", i, op.Dir, op.DirPre, now, last)
		}
		last = now
	}
}

func readDirCookies(r *run) {
	for i := range 10 {
		r.create(nfs.Root, fmt.Sprint("file", i))
	}
	seen := map[string]nfs.ID{}
	op := &nfs.TreeOp{Kind: nfs.TreeReadDir, Max: 3}
	for round := 0; ; round++ {
		r.want(nil, op)
		if len(op.Entries) > 3 || len(op.Entries) == 0 && !op.EOF || op.Parent != nfs.Root {
			r.Fatalf("%d entries of at most 3, EOF %v", len(op.Entries), op.EOF)
		}
		for _, e := range op.Entries {
			if _, twice := seen[e.Name]; twice || e.Cookie == 0 || e.Cookie >= 1<<63 {
				r.Fatalf("%q came twice, or with the cookie %d", e.Name, e.Cookie)
			}
			seen[e.Name] = e.Attr.ID
			op.Cookie = e.Cookie
		}
		if op.EOF {
			break
		}
		op.Entries = op.Entries[:0]
		r.create(nfs.Root, fmt.Sprint("new", round))
		r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRemove, Name: fmt.Sprint("new", round)})
		if round > 20 {
			r.Fatal("no end of the directory")
		}
	}
	for i := range 10 {
		name := fmt.Sprint("file", i)
		if seen[name] != r.lookup(nfs.Root, name) {
			r.Errorf("%q came as %x", name, seen[name])
		}
	}
}

func symbolicLinks(r *run) {
	f := r.create(nfs.Root, "f")
	r.want(nfs.ErrInvalid, &nfs.TreeOp{Kind: nfs.TreeReadLink, ID: f.ID})
	op := &nfs.TreeOp{Kind: nfs.TreeSymlink, Name: "l", Target: "where/ever"}
	if has := r.want(nil, &nfs.TreeOp{Kind: nfs.TreeFSStat}).Space.Symlinks; !has {
		r.want(volume.ErrUnsupported, op)
		return
	}
	l := r.want(nil, op).Attr
	if l.Type != nfs.Symlink || l.Size != 10 {
		r.Errorf("a symbolic link is %+v", l)
	}
	if got := r.want(nil, &nfs.TreeOp{Kind: nfs.TreeReadLink, ID: l.ID}).Target; got != "where/ever" {
		r.Errorf("it says %q", got)
	}
	r.want(nfs.ErrInvalid, &nfs.TreeOp{Kind: nfs.TreeOpen, ID: l.ID})
	r.want(nfs.ErrExists, &nfs.TreeOp{Kind: nfs.TreeSymlink, Name: "f", Target: "x"})
	r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRename, Name: "l", ToName: "f"}) // links and files replace each other
	r.want(nfs.ErrStale, &nfs.TreeOp{Kind: nfs.TreeAttr, ID: f.ID})
	r.want(nil, &nfs.TreeOp{Kind: nfs.TreeRemove, Name: "f"})
	r.want(nfs.ErrStale, &nfs.TreeOp{Kind: nfs.TreeReadLink, ID: l.ID})
}

// attach opens a file.
func (r *run) attach(id nfs.ID) volume.Handle {
	r.Helper()
	op := r.want(nil, &nfs.TreeOp{Kind: nfs.TreeOpen, ID: id})
	var h volume.Handle
	var err error
	r.On(func() { h, err = op.Device.Attach(r.Loop, volume.Session{Protocol: "nfs", Client: "test"}) })
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		done := false
		r.On(func() { h.Detach(func() { done = true }) })
		r.Wait(func() bool { return done })
	})
	return h
}

func (r *run) io(h volume.Handle, k volume.Kind, off uint64, p []byte) {
	r.Helper()
	done := false
	op := &volume.Op{Kind: k, Offset: off, Length: uint64(len(p)), FUA: k == volume.Write, Done: func(*volume.Op) { done = true }}
	r.On(func() {
		ref := r.Loop.Alloc(len(p))
		copy(ref.Bytes(), p)
		op.Pieces = append(op.Pieces, volume.Piece{Ref: ref, Len: len(p)})
		h.Submit(op)
	})
	if !r.Wait(func() bool { return done }) || op.Err != nil {
		r.Fatalf("operation %d at %d: %v", k, off, op.Err)
	}
	copy(p, op.Pieces[0].Bytes())
	r.On(op.ReleasePieces)
}

func sizes(r *run) {
	f := r.create(nfs.Root, "f")
	h := r.attach(f.ID)
	for _, tc := range []struct {
		kind       nfs.TreeKind
		size, want uint64
	}{
		{nfs.TreeGrow, 1, 1}, {nfs.TreeGrow, 513, 513}, {nfs.TreeGrow, 100, 513}, {nfs.TreeSetAttr, 1_234_567, 1_234_567}, {nfs.TreeSetAttr, 7, 7}, {nfs.TreeSetAttr, 0, 0}, {nfs.TreeGrow, 5 << 20, 5 << 20},
	} {
		op := r.want(nil, &nfs.TreeOp{Kind: tc.kind, ID: f.ID, Size: tc.size, Set: nfs.SetAttr{Mask: nfs.SetSize, Size: tc.size}})
		var held uint64
		var unit uint64
		r.On(func() { info := h.Info(); held, unit = info.Size, uint64(info.BlockSize) })
		if op.Attr.Size != tc.want || r.attr(f.ID).Size != tc.want || held < tc.want || held%unit != 0 {
			r.Errorf("after size %d: %d bytes, the open device has %d; want %d, in whole blocks on the device", tc.size, op.Attr.Size, held, tc.want)
		}
	}
	r.want(nfs.ErrTooBig, &nfs.TreeOp{Kind: nfs.TreeGrow, ID: f.ID, Size: 1<<63 - 1})
}

// What a file loses when it shrinks does not come back when it grows.
func cutOff(r *run) {
	f := r.create(nfs.Root, "f")
	setSize := func(n uint64) {
		r.want(nil, &nfs.TreeOp{Kind: nfs.TreeSetAttr, ID: f.ID, Set: nfs.SetAttr{Mask: nfs.SetSize, Size: n}})
	}
	setSize(8192)
	h := r.attach(f.ID)
	r.io(h, volume.Write, 0, bytes.Repeat([]byte{0xee}, 8192))
	setSize(700)
	setSize(8192)
	got := bytes.Repeat([]byte{1}, 8192)
	r.io(h, volume.Read, 0, got)
	if want := append(bytes.Repeat([]byte{0xee}, 700), make([]byte, 8192-700)...); !bytes.Equal(got, want) {
		r.Error("what was cut off is there again")
	}
}
