package nfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"holdfast/frontends/nfs"
	"holdfast/frontends/nfs/memtree"
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
)

// Each procedure with a handle that nobody made, one of another cluster, one of a file that is gone, and arguments cut short.
func TestEveryProcedureRefusesBadHandlesAndShortArguments(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	gone := p.create(root, "gone")
	if st, _ := p.call(12, args(root, "gone")); st != nfs.OK {
		t.Fatalf("REMOVE = %d", st)
	}
	rest := map[uint32][]byte{
		1: nil, 2: args(sattr{}, false), 3: args("x"), 4: args(1), 5: nil, 6: args(uint64(0), 512), 7: args(uint64(0), 4, 2, []byte("data")),
		8: args("x", 0, sattr{}), 9: args("x", sattr{}), 10: args("x", sattr{}, "y"), 11: args("x", 7), 12: args("x"), 13: args("x"),
		14: args("x", root, "y"), 15: args(root, "x"), 16: args(uint64(0), [8]byte{}, 4096), 17: args(uint64(0), [8]byte{}, 4096, 4096),
		18: nil, 19: nil, 20: nil, 21: args(uint64(0), 0),
	}
	optional := map[uint32]int{2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2, 13: 2, 14: 4, 15: 3, 16: 1, 17: 1, 18: 1, 19: 1, 20: 1, 21: 2}
	bad := root
	bad[39]++
	for proc := uint32(1); proc < 22; proc++ {
		for _, tc := range []struct {
			name string
			h    []byte
			want nfs.Status
		}{
			{"never made", bad[:], nfs.ErrStatBadFH}, {"empty", nil, nfs.ErrStatBadFH}, {"long", make([]byte, 64), nfs.ErrStatBadFH},
			{"of another cluster", slices.Clone(handleOf([16]byte{1})), nfs.ErrStatStale},
			{"of a removed file", gone[:], nfs.ErrStatStale},
		} {
			st, d := p.call(proc, append(args(tc.h), rest[proc]...))
			want := tc.want
			if tc.name == "of a removed file" && (proc == 11 || proc == 15) {
				want = nfs.ErrStatNotSupp // on anything
			}
			if st != want {
				t.Errorf("procedure %d with a handle %s = %d, want %d", proc, tc.name, st, want)
			}
			if len(d.Rest()) != 4*optional[proc] || slices.Max(append(d.Rest(), 0)) != 0 {
				t.Errorf("procedure %d with a handle %s: % x follows, want %d words of 0", proc, tc.name, d.Rest(), optional[proc])
			}
		}
		full := message(7, rpc.ProgramNFS, 3, proc, append(args(root), rest[proc]...))
		head := len(message(7, rpc.ProgramNFS, 3, proc, nil))
		for n := head; n < len(full); n += 4 {
			if (proc == 11 || proc == 15) && n >= head+44 {
				break // not supported, whatever follows the handle
			}
			p.raw(record(full[:n]))
			b.l.settle()
			r := p.replies()
			if len(r) != 1 || len(r[0]) != 24 || r[0][23] != byte(rpc.GarbageArgs) {
				t.Fatalf("procedure %d with %d of %d bytes of arguments: %x, want GARBAGE_ARGS", proc, n-head, len(full)-head, r)
			}
		}
	}
}

func handleOf(cluster [16]byte) []byte {
	h := nfs.MakeHandle(cluster, nfs.Root)
	return h[:]
}

func TestRPCReplies(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	denied := message(9, rpc.ProgramNFS, 3, 0, nil)
	denied[11] = 3 // RPC version
	badCred := message(9, rpc.ProgramNFS, 3, 0, nil)
	badCred[27] = 6 // RPCSEC_GSS
	for _, tc := range []struct {
		name string
		msg  []byte
		want []uint32 // after the xid
	}{
		{"null", message(9, rpc.ProgramNFS, 3, 0, nil), []uint32{1, 0, 0, 0, 0}},
		{"mount null", message(9, rpc.ProgramMount, 3, 0, nil), []uint32{1, 0, 0, 0, 0}},
		{"portmap null", message(9, rpc.ProgramPortmap, 2, 0, nil), []uint32{1, 0, 0, 0, 0}},
		{"other program", message(9, 100021, 4, 0, nil), []uint32{1, 0, 0, 0, 1}},
		{"NFS version 4", message(9, rpc.ProgramNFS, 4, 0, nil), []uint32{1, 0, 0, 0, 2, 3, 3}},
		{"MOUNT version 1", message(9, rpc.ProgramMount, 1, 0, nil), []uint32{1, 0, 0, 0, 2, 3, 3}},
		{"rpcbind version 4", message(9, rpc.ProgramPortmap, 4, 3, nil), []uint32{1, 0, 0, 0, 2, 2, 2}},
		{"no such procedure", message(9, rpc.ProgramNFS, 3, 22, nil), []uint32{1, 0, 0, 0, 3}},
		{"huge procedure", message(9, rpc.ProgramMount, 3, 1<<31, nil), []uint32{1, 0, 0, 0, 3}},
		{"CALLIT", message(9, rpc.ProgramPortmap, 2, 5, nil), []uint32{1, 0, 0, 0, 3}},
		{"garbage", message(9, rpc.ProgramNFS, 3, 1, []byte{0, 0, 0, 65}), []uint32{1, 0, 0, 0, 4}},
		{"RPC version 3", denied, []uint32{1, 1, 0, 2, 2}},
		{"RPCSEC_GSS", badCred, []uint32{1, 1, 1, 1}},
		{"long record that is no WRITE", message(9, rpc.ProgramNFS, 3, 1, make([]byte, 20_000)), []uint32{1, 0, 0, 0, 4}},
		{"long record for another program", message(9, 1, 3, 1, make([]byte, 20_000)), []uint32{1, 0, 0, 0, 1}},
	} {
		p.raw(record(tc.msg))
		b.l.settle()
		r := p.replies()
		want := args(9)
		for _, v := range tc.want {
			want = append(want, args(v)...)
		}
		if len(r) != 1 || !bytes.Equal(r[0], want) {
			t.Errorf("%s: %x, want %x", tc.name, r, want)
		}
	}
	if st, _ := p.call(0, nil); p.c.closed || st != 0 {
		t.Error("the connection did not survive")
	}
}

func TestCreateModes(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	verf, other := [8]byte{1, 2, 3}, [8]byte{9}
	size := uint64(1_234_567)
	for _, tc := range []struct {
		name string
		args []byte
		want nfs.Status
		size uint64
	}{
		{"unchecked, new", args(root, "a", 0, sattr{size: &size, mode: ptr(uint32(0o600))}), nfs.OK, size},
		{"unchecked, existing", args(root, "a", 0, sattr{}), nfs.OK, size},
		{"unchecked, existing, emptied", args(root, "a", 0, sattr{size: ptr(uint64(0))}), nfs.OK, 0},
		{"guarded, existing", args(root, "a", 1, sattr{}), nfs.ErrStatExist, 0},
		{"guarded, new", args(root, "b", 1, sattr{}), nfs.OK, 0},
		{"exclusive, new", args(root, "c", 2, verf), nfs.OK, 0},
		{"exclusive, repeated", args(root, "c", 2, verf), nfs.OK, 0},
		{"exclusive, another's", args(root, "c", 2, other), nfs.ErrStatExist, 0},
		{"exclusive, not created so", args(root, "b", 2, [8]byte{}), nfs.ErrStatExist, 0},
		{"dot", args(root, ".", 0, sattr{}), nfs.ErrStatExist, 0},
		{"slash", args(root, "x/y", 0, sattr{}), nfs.ErrStatInval, 0},
		{"no name", args(root, "", 0, sattr{}), nfs.ErrStatInval, 0},
		{"not UTF-8", args(root, "\xff", 0, sattr{}), nfs.ErrStatInval, 0},
		{"longest name", args(root, strings.Repeat("n", 255), 0, sattr{}), nfs.OK, 0},
		{"longer name", args(root, strings.Repeat("n", 256), 0, sattr{}), nfs.ErrStatNameLen, 0},
		{"too large", args(root, "d", 0, sattr{size: ptr(uint64(1) << 50)}), nfs.ErrStatFBig, 0},
	} {
		st, d := p.call(8, tc.args)
		if st != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, st, tc.want)
			continue
		}
		if st == nfs.OK {
			d.Bool()
			h := getHandle(&d)
			a := postAttr(&d)
			if a == nil || a.size != tc.size || *a != p.attr(h) || a.ftype != 1 {
				t.Errorf("%s: attributes %+v, want size %d and what GETATTR says", tc.name, a, tc.size)
			}
		}
		w := getWcc(&d)
		if !whole(&d) || st == nfs.OK && (w.before == nil || w.after == nil || *w.after != p.attr(root)) {
			t.Errorf("%s: the directory's attributes are %+v", tc.name, w)
		}
	}
}

func TestNames(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	st, d := p.call(9, args(root, "vm", sattr{mode: ptr(uint32(0o700))}))
	if st != nfs.OK || !d.Bool() {
		t.Fatalf("MKDIR = %d", st)
	}
	vm := getHandle(&d)
	disk := p.create(vm, "disk")
	p.write(disk, 0, []byte("content"))
	lookup := func(dir nfs.Handle, name string) (nfs.Handle, nfs.Status) {
		st, d := p.call(3, args(dir, name))
		var h nfs.Handle
		if st == nfs.OK {
			h = getHandle(&d)
			if a := postAttr(&d); a == nil || *a != p.attr(h) {
				t.Errorf("LOOKUP %q: attributes %+v", name, a)
			}
		}
		if a := postAttr(&d); a == nil && st != nfs.ErrStatInval && st != nfs.ErrStatNotDir || !whole(&d) {
			t.Errorf("LOOKUP %q = %d: no attributes of the directory", name, st)
		}
		return h, st
	}
	for _, tc := range []struct {
		dir  nfs.Handle
		name string
		want nfs.Handle
		st   nfs.Status
	}{
		{root, "vm", vm, 0}, {vm, "disk", disk, 0}, {vm, "..", root, 0}, {vm, ".", vm, 0}, {root, "..", root, 0}, {root, "disk", nfs.Handle{}, nfs.ErrStatNoEnt},
		{disk, "x", nfs.Handle{}, nfs.ErrStatNotDir}, {disk, ".", nfs.Handle{}, nfs.ErrStatNotDir}, {root, "a/b", nfs.Handle{}, nfs.ErrStatInval},
	} {
		if h, st := lookup(tc.dir, tc.name); h != tc.want || st != tc.st {
			t.Errorf("LOOKUP %q = %x, %d; want %x, %d", tc.name, h, st, tc.want, tc.st)
		}
	}
	status := func(want nfs.Status, proc uint32, what string, a []byte) {
		t.Helper()
		if st, _ := p.call(proc, a); st != want {
			t.Errorf("%s = %d, want %d", what, st, want)
		}
	}
	status(nfs.ErrStatExist, 9, "MKDIR of what exists", args(root, "vm", sattr{}))
	status(nfs.ErrStatNotEmpt, 13, "RMDIR of a full directory", args(root, "vm"))
	status(nfs.ErrStatNotDir, 13, "RMDIR of a file", args(vm, "disk"))
	status(nfs.ErrStatIsDir, 12, "REMOVE of a directory", args(root, "vm"))
	status(nfs.ErrStatInval, 13, "RMDIR .", args(vm, "."))
	status(nfs.ErrStatExist, 13, "RMDIR ..", args(vm, ".."))
	status(nfs.ErrStatNoEnt, 12, "REMOVE of nothing", args(vm, "nothing"))
	status(nfs.ErrStatInval, 14, "RENAME to .", args(vm, "disk", root, "."))
	status(nfs.ErrStatInval, 14, "RENAME into itself", args(root, "vm", vm, "vm"))
	st, d = p.call(10, args(vm, "link", sattr{}, "../vm/disk"))
	if st != nfs.OK || !d.Bool() {
		t.Fatalf("SYMLINK = %d", st)
	}
	link := getHandle(&d)
	if a := p.attr(link); a.ftype != 5 || a.size != 10 {
		t.Errorf("a symbolic link has the attributes %+v", a)
	}
	st, d = p.call(5, args(link))
	if a := postAttr(&d); st != nfs.OK || a == nil || string(d.Opaque(4096)) != "../vm/disk" || !whole(&d) {
		t.Errorf("READLINK = %d", st)
	}
	status(nfs.ErrStatInval, 6, "READ of a symbolic link", args(link, uint64(0), 10))
	status(nfs.ErrStatExist, 10, "SYMLINK of what exists", args(vm, "link", sattr{}, "x"))
	status(nfs.ErrStatInval, 10, "SYMLINK to nothing", args(vm, "l", sattr{}, ""))
	status(nfs.ErrStatNameLen, 10, "SYMLINK to more than a path", args(vm, "l", sattr{}, strings.Repeat("x", 4097)))
	status(nfs.OK, 12, "REMOVE of a symbolic link", args(vm, "link"))
	status(nfs.ErrStatNotSupp, 11, "MKNOD", args(root, "l", 7))
	status(nfs.ErrStatNotSupp, 15, "LINK", args(disk, root, "l"))
	status(nfs.ErrStatInval, 5, "READLINK", args(disk))

	victim := p.create(root, "old")
	st, d = p.call(14, args(vm, "disk", root, "old"))
	from, to := getWcc(&d), getWcc(&d)
	if st != nfs.OK || from.after == nil || to.after == nil || from.before == nil || to.before == nil || !whole(&d) {
		t.Fatalf("RENAME over a file = %d, %+v, %+v", st, from, to)
	}
	status(nfs.ErrStatStale, 1, "GETATTR of the replaced file", args(victim))
	if data, _ := p.read(disk, 0, 100); string(data) != "content" {
		t.Errorf("the renamed file reads %q by its handle, want its content", data)
	}
	status(nfs.OK, 13, "RMDIR", args(root, "vm"))
	status(nfs.ErrStatStale, 16, "READDIR of a removed directory", args(vm, uint64(0), [8]byte{}, 4096))
	status(nfs.OK, 12, "REMOVE", args(root, "old"))
	status(nfs.ErrStatStale, 6, "READ of a removed file", args(disk, uint64(0), 4096))
	status(nfs.ErrStatStale, 7, "WRITE of a removed file", args(disk, uint64(0), 4, 2, []byte("data")))
}

func TestReadDirGivesEachNameOnceWhileOthersComeAndGo(t *testing.T) {
	for _, proc := range []uint32{16, 17} {
		t.Run(fmt.Sprint("procedure ", proc), func(t *testing.T) {
			b := newBench(t, nil, nfs.Options{})
			defer b.close()
			p := b.local()
			want := map[string]nfs.Handle{".": root, "..": root}
			for i := range 100 {
				name := fmt.Sprintf("image-%03d", i)
				want[name] = p.create(root, name)
			}
			seen := map[string]bool{}
			cookie, verf := uint64(0), [8]byte{}
			for round := 0; ; round++ {
				a := args(root, cookie, verf, 1000)
				if proc == 17 {
					a = args(root, cookie, verf, 500, 2000)
				}
				st, d := p.call(proc, a)
				if st != nfs.OK || len(d.Rest()) > 2000 {
					t.Fatalf("= %d, %d bytes", st, len(d.Rest()))
				}
				postAttr(&d)
				copy(verf[:], d.Fixed(8))
				for d.Bool() {
					id, name := d.Uint64(), string(d.Opaque(255))
					cookie = d.Uint64()
					if seen[name] {
						t.Fatalf("%q came twice", name)
					}
					seen[name] = true
					if h, ours := want[name]; ours && id != p.attr(h).id {
						t.Fatalf("%q has fileid %d, want %d", name, id, p.attr(h).id)
					}
					if proc == 17 {
						at := postAttr(&d)
						if !d.Bool() {
							t.Fatalf("%q comes without a handle", name)
						}
						h := getHandle(&d)
						if w, ours := want[name]; ours && (h != w || name != ".." && *at != p.attr(h)) {
							t.Fatalf("%q has the handle %x, want %x", name, h, w)
						}
					}
				}
				eof := d.Bool()
				if !whole(&d) {
					t.Fatal("the reply cannot be read")
				}
				p.call(8, args(root, fmt.Sprint("new-", round), 0, sattr{}))
				p.call(12, args(root, fmt.Sprint("new-", round-1)))
				if eof {
					break
				}
			}
			for name := range want {
				if !seen[name] {
					t.Errorf("%q did not come", name)
				}
			}
			small := args(root, uint64(2), verf, 110)
			if proc == 17 {
				small = args(root, uint64(2), verf, 4096, 200)
			}
			if st, _ := p.call(proc, small); st != nfs.ErrStatSmall {
				t.Errorf("without room for one entry = %d, want TOOSMALL", st)
			}
		})
	}
}

func TestSetAttr(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	before := p.attr(f)
	st, d := p.call(2, args(f, sattr{mode: ptr(uint32(0o640)), uid: ptr(uint32(3)), gid: ptr(uint32(4)), size: ptr(uint64(777)), mtime: &[2]uint32{5, 6}}, false))
	w := getWcc(&d)
	if st != nfs.OK || !whole(&d) || w.before == nil || w.before.ctime != before.ctime {
		t.Fatalf("SETATTR = %d, %+v", st, w)
	}
	a := p.attr(f)
	if a != *w.after || a.mode != 0o640 || a.uid != 3 || a.gid != 4 || a.size != 777 || a.mtime != 5<<32|6 || a.ctime == before.ctime {
		t.Errorf("after SETATTR: %+v", a)
	}
	if st, _ := p.call(2, args(f, sattr{size: ptr(uint64(1))}, true, before.ctime)); st != nfs.ErrStatNotSync {
		t.Errorf("SETATTR guarded by an old ctime = %d, want NOT_SYNC", st)
	}
	if st, _ := p.call(2, args(f, sattr{size: ptr(uint64(1))}, true, a.ctime)); st != nfs.OK || p.attr(f).size != 1 {
		t.Errorf("SETATTR guarded by the present ctime = %d, size %d", st, p.attr(f).size)
	}
	if st, _ := p.call(2, args(root, sattr{size: ptr(uint64(1))}, false)); st != nfs.ErrStatIsDir {
		t.Errorf("size of a directory = %d, want ISDIR", st)
	}
	if st, _ := p.call(2, args(f, sattr{size: ptr(^uint64(0))}, false)); st != nfs.ErrStatFBig {
		t.Errorf("size 2^64-1 = %d, want FBIG", st)
	}
}

func TestFactsOfTheFileSystem(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	st, d := p.call(18, args(root))
	if postAttr(&d) == nil || st != nfs.OK || d.Uint64() != 1<<50 {
		t.Errorf("FSSTAT = %d", st)
	}
	st, d = p.call(19, args(root))
	if postAttr(&d); st != nfs.OK || d.Uint32() != 1<<20 || d.Uint32() != 1<<20 || d.Uint32() != 4096 || d.Uint32() != 1<<20 || len(d.Rest()) != 8+4+8+8+4 {
		t.Errorf("FSINFO = %d", st)
	}
	st, d = p.call(20, args(root))
	if postAttr(&d); st != nfs.OK || d.Uint32() != 1 || d.Uint32() != 255 || !d.Bool() || !d.Bool() || d.Bool() || !d.Bool() || !whole(&d) {
		t.Errorf("PATHCONF = %d", st)
	}
	for _, tc := range []struct {
		h         nfs.Handle
		ask, want uint32
	}{{root, 0x3f, 0x1f}, {f, 0x3f, 0x0d}, {f, 0x01, 0x01}} {
		st, d = p.call(4, args(tc.h, tc.ask))
		if postAttr(&d); st != nfs.OK || d.Uint32() != tc.want || !whole(&d) {
			t.Errorf("ACCESS %#x = %d, want %#x", tc.ask, st, tc.want)
		}
	}
	if st, d = p.call(21, args(f, uint64(0), 0)); st != nfs.OK {
		t.Errorf("COMMIT = %d", st)
	}
	getWcc(&d)
	verf := d.Uint64()
	_, d = p.call(7, args(f, uint64(0), 1, 0, []byte{1}))
	getWcc(&d)
	if d.Uint64(); d.Uint64() != verf {
		t.Error("WRITE and COMMIT have different verifiers")
	}
	if a := p.attr(f); a.fsid != p.attr(root).fsid || a.id == p.attr(root).id {
		t.Errorf("fsid and fileid: %+v", a)
	}
}

func TestMountAndPortmap(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	st, d := p.call(9, args(root, "a", sattr{}))
	if st != nfs.OK || !d.Bool() {
		t.Fatal(st)
	}
	a := getHandle(&d)
	p.create(a, "file")
	for _, tc := range []struct {
		path string
		want nfs.Status
		h    nfs.Handle
	}{{"/", 0, root}, {"", 0, root}, {"/a", 0, a}, {"//a//", 0, a}, {"/a/file", nfs.ErrStatNotDir, a}, {"/b", nfs.ErrStatNoEnt, a}, {"/a/..", nfs.ErrStatInval, a}} {
		d := p.callTo(rpc.ProgramMount, 3, 1, args(tc.path))
		if st := nfs.Status(d.Uint32()); st != tc.want {
			t.Errorf("MNT %q = %d, want %d", tc.path, st, tc.want)
		} else if st == nfs.OK {
			if h := getHandle(&d); h != tc.h || d.Uint32() != 2 || d.Uint32() != 1 || d.Uint32() != 0 || !whole(&d) {
				t.Errorf("MNT %q gives the handle %x, want %x, and the flavors AUTH_SYS, AUTH_NONE", tc.path, h, tc.h)
			}
		}
	}
	if d := p.callTo(rpc.ProgramMount, 3, 2, nil); !bytes.Equal(d.Rest(), args(true, "127.0.0.1", "/", true, "127.0.0.1", "/a", false)) {
		t.Errorf("DUMP = %x", d.Rest())
	}
	p.callTo(rpc.ProgramMount, 3, 3, args("/a"))
	if d := p.callTo(rpc.ProgramMount, 3, 2, nil); !bytes.Equal(d.Rest(), args(true, "127.0.0.1", "/", false)) {
		t.Errorf("DUMP after UMNT = %x", d.Rest())
	}
	p.callTo(rpc.ProgramMount, 3, 4, nil)
	if d := p.callTo(rpc.ProgramMount, 3, 2, nil); !bytes.Equal(d.Rest(), args(false)) {
		t.Errorf("DUMP after UMNTALL = %x", d.Rest())
	}
	if d := p.callTo(rpc.ProgramMount, 3, 5, nil); !bytes.Equal(d.Rest(), args(true, "/", true, "127.0.0.0/8", true, "::1/128", false, false)) {
		t.Errorf("EXPORT = %x", d.Rest())
	}
	for _, tc := range []struct{ prog, vers, proto, want uint32 }{{rpc.ProgramNFS, 3, 6, 2049}, {rpc.ProgramMount, 3, 6, 2049}, {rpc.ProgramNFS, 4, 6, 0}, {rpc.ProgramNFS, 3, 17, 0}, {100021, 4, 6, 0}} {
		if d := p.callTo(rpc.ProgramPortmap, 2, 3, args(tc.prog, tc.vers, tc.proto, 0)); d.Uint32() != tc.want {
			t.Errorf("GETPORT %+v: another port", tc)
		}
	}
	if d := p.callTo(rpc.ProgramPortmap, 2, 4, nil); len(d.Rest()) != 3*20+4 {
		t.Errorf("portmap DUMP = %x", d.Rest())
	}
	if d := p.callTo(rpc.ProgramPortmap, 2, 1, args(rpc.ProgramNFS, 3, 6, 1)); d.Bool() {
		t.Error("SET was granted")
	}
}

// Random reads, writes and sizes of one file, against a byte slice.
func TestDataAgreesWithAByteSlice(t *testing.T) {
	for _, transfer := range []uint32{0, 4096} { // the device's largest request
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("transfer=%d/seed=%d", transfer, seed), func(t *testing.T) {
				tree := memtree.New(memtree.Options{Device: memory.Options{MaxTransfer: transfer}})
				b := newBench(t, tree, nfs.Options{})
				defer b.close()
				p := b.local()
				f := p.create(root, "f")
				var model []byte
				rng := rand.New(rand.NewPCG(seed, 7))
				for range 300 {
					off := rng.Uint64N(300_000)
					n := 1 + rng.IntN(1<<rng.IntN(18))
					if rng.IntN(2) == 0 {
						off &^= 511
						n = (n + 511) &^ 511
					}
					switch rng.IntN(10) {
					case 0:
						size := rng.Uint64N(400_000)
						if st, _ := p.call(2, args(f, sattr{size: &size}, false)); st != nfs.OK {
							t.Fatalf("SETATTR size %d = %d", size, st)
						}
						model = append(model, make([]byte, max(0, int(size)-len(model)))...)[:size]
						clear(model[size:cap(model)])
					case 1, 2, 3, 4:
						data := make([]byte, n)
						for i := range data {
							data[i] = byte(rng.Uint32())
						}
						p.write(f, off, data)
						if end := int(off) + n; end > len(model) {
							model = append(model, make([]byte, end-len(model))...)
						}
						copy(model[off:], data)
					default:
						got, eof := p.read(f, off, n)
						want := model[min(int(off), len(model)):min(int(off)+n, len(model))]
						if !bytes.Equal(got, want) || eof != (int(off)+len(want) >= len(model)) {
							t.Fatalf("READ of %d at %d of %d: %d bytes, eof %v; want %d (first difference at %d)", n, off, len(model), len(got), eof, len(want), differs(got, want))
						}
					}
					if size := p.attr(f).size; size != uint64(len(model)) {
						t.Fatalf("size %d, want %d", size, len(model))
					}
				}
			})
		}
	}
}

func differs(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestErrorsOfTheStore(t *testing.T) {
	var fail error
	tree := memtree.New(memtree.Options{Capacity: 1 << 20, Device: memory.Options{Fail: func(*volume.Op) error { return fail }}})
	b := newBench(t, tree, nfs.Options{})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	p.write(f, 0, make([]byte, 5000))
	for _, tc := range []struct {
		err  error
		want nfs.Status
	}{{volume.ErrNoSpace, nfs.ErrStatNoSpc}, {volume.ErrIO, nfs.ErrStatIO}, {volume.ErrReadOnly, nfs.ErrStatROFS}} {
		fail = tc.err
		for _, call := range []struct {
			proc uint32
			args []byte
		}{{6, args(f, uint64(1), 600)}, {7, args(f, uint64(0), 512, 0, make([]byte, 512))}, {7, args(f, uint64(5), 1100, 2, make([]byte, 1100))}, {21, args(f, uint64(0), 0)}} {
			if st, d := p.call(call.proc, call.args); st != tc.want || len(d.Rest()) > 4+88 {
				t.Errorf("procedure %d when the store says %q = %d, want %d", call.proc, tc.err, st, tc.want)
			}
		}
	}
	fail = nil
	if st, _ := p.call(7, args(f, uint64(2<<20), 4, 2, []byte("data"))); st != nfs.ErrStatNoSpc {
		t.Errorf("WRITE beyond the capacity = %d, want NOSPC", st)
	}
	if st, _ := p.call(7, args(f, ^uint64(0)-2, 4, 2, []byte("data"))); st != nfs.ErrStatFBig {
		t.Errorf("WRITE beyond 2^64 = %d, want FBIG", st)
	}
	fail = volume.ErrFenced
	p.send(7, args(f, uint64(0), 512, 2, make([]byte, 512)))
	b.l.settle()
	if !p.c.closed || len(p.replies()) != 0 {
		t.Error("a fenced write was answered; the client must send it again elsewhere")
	}
	fail = nil
	p = b.local()
	p.write(f, 0, []byte("again")) // with a new session
}

func TestWccLetsAClientSeeOnlyItsOwnChange(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	for _, off := range []uint64{0, 100, 10_000} { // growing, within, growing
		before := p.attr(f)
		_, d := p.call(7, args(f, off, 4, 2, []byte("data")))
		w := getWcc(&d)
		if w.before == nil || w.before.ctime != before.ctime || w.before.size != before.size || *w.after != p.attr(f) || w.after.ctime == before.ctime {
			t.Errorf("WRITE at %d: wcc %+v, before %+v", off, w, before)
		}
	}
}
