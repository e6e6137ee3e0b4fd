package nfs_test

import (
	"holdfast/frontends/nfs"
	"holdfast/frontends/nfs/xdr"
)

// The test's own reading and writing of RFC 1813's types.

var root = nfs.MakeHandle([16]byte{'m', 'e', 'm', 't', 'r', 'e', 'e'}, nfs.Root)

// args builds arguments: uint32, uint64, bool, string (as XDR string), []byte (as opaque), nfs.Handle, [8]byte (fixed).
func args(vs ...any) []byte {
	var e xdr.Encoder
	for _, v := range vs {
		switch v := v.(type) {
		case int:
			e.Uint32(uint32(v))
		case uint32:
			e.Uint32(v)
		case uint64:
			e.Uint64(v)
		case bool:
			e.Bool(v)
		case string:
			e.String(v)
		case []byte:
			e.Opaque(v)
		case nfs.Handle:
			e.Opaque(v[:])
		case [8]byte:
			e.Fixed(v[:])
		case sattr:
			v.put(&e)
		default:
			panic("no such type of argument")
		}
	}
	return e.B
}

// sattr is sattr3; nil fields are not set.
type sattr struct {
	mode, uid, gid *uint32
	size           *uint64
	mtime          *[2]uint32
}

func (s sattr) put(e *xdr.Encoder) {
	for _, v := range []*uint32{s.mode, s.uid, s.gid} {
		e.Bool(v != nil)
		if v != nil {
			e.Uint32(*v)
		}
	}
	e.Bool(s.size != nil)
	if s.size != nil {
		e.Uint64(*s.size)
	}
	e.Uint32(0)
	if s.mtime == nil {
		e.Uint32(0)
		return
	}
	e.Uint32(2)
	e.Uint32(s.mtime[0])
	e.Uint32(s.mtime[1])
}

type fattr struct {
	ftype, mode, nlink, uid, gid uint32
	size, used, rdev, fsid, id   uint64
	atime, mtime, ctime          uint64 // seconds << 32 | nanoseconds
}

func getAttr(d *xdr.Decoder) (a fattr) {
	for _, v := range []*uint32{&a.ftype, &a.mode, &a.nlink, &a.uid, &a.gid} {
		*v = d.Uint32()
	}
	for _, v := range []*uint64{&a.size, &a.used, &a.rdev, &a.fsid, &a.id, &a.atime, &a.mtime, &a.ctime} {
		*v = d.Uint64()
	}
	return a
}

// postAttr reads post_op_attr; nil when absent.
func postAttr(d *xdr.Decoder) *fattr {
	if !d.Bool() {
		return nil
	}
	a := getAttr(d)
	return &a
}

type wccAttr struct{ size, mtime, ctime uint64 }

type wcc struct {
	before *wccAttr
	after  *fattr
}

func getWcc(d *xdr.Decoder) (w wcc) {
	if d.Bool() {
		w.before = &wccAttr{d.Uint64(), d.Uint64(), d.Uint64()}
	}
	w.after = postAttr(d)
	return w
}

func getHandle(d *xdr.Decoder) nfs.Handle { return nfs.Handle(d.Opaque(64)) }

// whole reports whether everything was read and nothing was left.
func whole(d *xdr.Decoder) bool { return d.OK() && len(d.Rest()) == 0 }

func ptr[T any](v T) *T { return &v }

// create makes a file and returns its handle.
func (p *peer) create(dir nfs.Handle, name string) nfs.Handle {
	p.b.t.Helper()
	st, d := p.call(8, args(dir, name, 1, sattr{}))
	if st != nfs.OK || !d.Bool() {
		p.b.t.Fatalf("CREATE %q = %d, want a handle", name, st)
	}
	return getHandle(&d)
}

// write writes and checks the reply.
func (p *peer) write(h nfs.Handle, off uint64, data []byte) {
	p.b.t.Helper()
	st, d := p.call(7, args(h, off, len(data), 0, data))
	w := getWcc(&d)
	n, how, verf := d.Uint32(), d.Uint32(), d.Uint64()
	if st != nfs.OK || n != uint32(len(data)) || how != 2 || verf == 0 || w.after == nil || !whole(&d) {
		p.b.t.Fatalf("WRITE of %d at %d = %d, count %d, committed %d", len(data), off, st, n, how)
	}
}

// read reads and checks the reply.
func (p *peer) read(h nfs.Handle, off uint64, n int) (data []byte, eof bool) {
	p.b.t.Helper()
	st, d := p.call(6, args(h, off, n))
	a := postAttr(&d)
	count := d.Uint32()
	eof = d.Bool()
	data = d.Opaque(1 << 20)
	if st != nfs.OK || a == nil || int(count) != len(data) || !whole(&d) {
		p.b.t.Fatalf("READ of %d at %d = %d, count %d, %d bytes", n, off, st, count, len(data))
	}
	return append([]byte(nil), data...), eof
}

func (p *peer) attr(h nfs.Handle) fattr {
	p.b.t.Helper()
	st, d := p.call(1, args(h))
	a := getAttr(&d)
	if st != nfs.OK || !whole(&d) {
		p.b.t.Fatalf("GETATTR = %d", st)
	}
	return a
}
