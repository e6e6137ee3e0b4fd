package nfs

import (
	"bytes"
	"unicode/utf8"

	"holdfast/frontends/nfs/xdr"
)

// The procedures that are named elsewhere (RFC 1813, section 3.3).
const (
	procRead     = 6
	procWrite    = 7
	numProcs     = 22
	procReadDirP = 17
)

// nfsProcs are the procedures of NFS version 3 by number (RFC 1813, section 3.3).
var nfsProcs = [numProcs]func(*request, *xdr.Decoder){
	null, getattr, setattr, lookup, access, readlink, read, write, create, mkdir, symlink, mknod, remove, rmdir, rename, link, readdir, readdir, fsstat, fsinfo, pathconf, commit,
}

// absent is, for each procedure, how many optional parts of a failed reply are marked absent when nothing is known: post_op_attr is one, wcc_data is two.
var absent = [numProcs]int{
	2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2, 13: 2, 14: 4, 15: 3, 16: 1, 17: 1, 18: 1, 19: 1, 20: 1, 21: 2,
}

// refuse answers with a status alone.
func (r *request) refuse(st Status) {
	e := r.start(st)
	for range absent[r.call.Procedure] {
		e.Bool(false)
	}
	r.reply()
}

// handle takes the handle fh as the object of r, or refuses r.
func (r *request) handle(fh []byte) bool {
	id, st := parseHandle(r.s.cluster, fh)
	if st != OK {
		r.refuse(st)
		return false
	}
	r.id = id
	return true
}

// dirName reads diropargs3 (RFC 1813, section 2.5).
func dirName(d *xdr.Decoder) (fh, name []byte) {
	return d.Opaque(maxHandle), d.Opaque(inlineRecord)
}

// checkName says what is wrong with a name that is to be created, removed or found.
func checkName(name []byte) Status {
	switch {
	case len(name) > maxName:
		return ErrStatNameLen
	case len(name) == 0, bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0, !utf8.Valid(name):
		return ErrStatInval
	}
	return OK
}

func isDot(name []byte) bool    { return string(name) == "." }
func isDotDot(name []byte) bool { return string(name) == ".." }

// fattr appends fattr3.
func (r *request) fattr(e *xdr.Encoder, a *Attr) {
	e.Uint32(uint32(a.Type))
	e.Uint32(a.Mode & 0o7777)
	e.Uint32(a.Nlink)
	e.Uint32(a.UID)
	e.Uint32(a.GID)
	e.Uint64(a.Size)
	e.Uint64(a.Used)
	e.Uint64(0) // rdev
	e.Uint64(r.s.fsid)
	e.Uint64(FileNumber(a.ID))
	putTime(e, a.Atime)
	putTime(e, a.Mtime)
	putTime(e, a.Ctime)
}

func putTime(e *xdr.Encoder, t Time) {
	e.Uint32(uint32(t / 1e9))
	e.Uint32(uint32(t % 1e9))
}

func getTime(d *xdr.Decoder) Time {
	sec, nsec := d.Uint32(), d.Uint32()
	if nsec >= 1e9 {
		d.Fail()
	}
	return Time(sec)*1e9 + Time(nsec)
}

// postAttr appends post_op_attr.
func (r *request) postAttr(e *xdr.Encoder, a *Attr) {
	e.Bool(a.Known())
	if a.Known() {
		r.fattr(e, a)
	}
}

// wcc appends wcc_data. before must have been observed in one step with the change, or not be known: a client keeps what it has cached if it sees its own change only.
func (r *request) wcc(e *xdr.Encoder, before, after *Attr) {
	e.Bool(before.Known())
	if before.Known() {
		e.Uint64(before.Size)
		putTime(e, before.Mtime)
		putTime(e, before.Ctime)
	}
	r.postAttr(e, after)
}

// postHandle appends post_op_fh3.
func (r *request) postHandle(e *xdr.Encoder, id ID) {
	e.Bool(true)
	h := MakeHandle(r.s.cluster, id)
	e.Opaque(h[:])
}

// result begins the reply to the tree operation that has completed; nil when the request was ended without an answer.
func (r *request) result() (e *xdr.Encoder, ok bool) {
	st, silent := r.status(r.tree.Err)
	if silent {
		r.silence(r.tree.Err)
		return nil, false
	}
	return r.start(st), st == OK
}

func null(r *request, _ *xdr.Decoder) {
	r.begin()
	r.reply()
}

// getattr is GETATTR (section 3.3.1).
func getattr(r *request, d *xdr.Decoder) {
	fh := d.Opaque(maxHandle)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	r.prepare(TreeAttr, r.id)
	r.submit(func(r *request) {
		e, ok := r.result()
		if e == nil {
			return
		}
		if ok {
			r.fattr(e, &r.tree.Attr)
		}
		r.reply()
	})
}

// sattr reads sattr3 (section 2.5).
func sattr(d *xdr.Decoder) (s SetAttr) {
	if d.Bool() {
		s.Mask |= SetMode
		s.Mode = d.Uint32() & 0o7777
	}
	if d.Bool() {
		s.Mask |= SetUID
		s.UID = d.Uint32()
	}
	if d.Bool() {
		s.Mask |= SetGID
		s.GID = d.Uint32()
	}
	if d.Bool() {
		s.Mask |= SetSize
		s.Size = d.Uint64()
	}
	switch d.Uint32() { // time_how: DONT_CHANGE, SET_TO_SERVER_TIME, SET_TO_CLIENT_TIME
	case 0:
	case 1:
		s.Mask |= SetAtimeNow
	case 2:
		s.Mask |= SetAtime
		s.Atime = getTime(d)
	default:
		d.Fail()
	}
	switch d.Uint32() {
	case 0:
	case 1:
		s.Mask |= SetMtimeNow
	case 2:
		s.Mask |= SetMtime
		s.Mtime = getTime(d)
	default:
		d.Fail()
	}
	return s
}

// setattr is SETATTR (section 3.3.2).
func setattr(r *request, d *xdr.Decoder) {
	fh, set := d.Opaque(maxHandle), sattr(d)
	guard, ctime := d.Bool(), Time(0)
	if guard {
		ctime = getTime(d)
	}
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	if set.Mask&SetSize != 0 && set.Size > 1<<63-1 {
		r.refuse(ErrStatFBig)
		return
	}
	if !r.once() {
		return
	}
	op := r.prepare(TreeSetAttr, r.id)
	op.Set, op.Guard, op.GuardCtime = set, guard, ctime
	r.submit(func(r *request) {
		if e, _ := r.result(); e != nil {
			r.wcc(e, &r.tree.Pre, &r.tree.Attr)
			r.reply()
		}
	})
}

// lookup is LOOKUP (section 3.3.3).
func lookup(r *request, d *xdr.Decoder) {
	fh, name := dirName(d)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	if isDot(name) {
		r.prepare(TreeAttr, r.id)
		r.submit(func(r *request) {
			if r.tree.Err == nil && r.tree.Attr.Type != Directory {
				r.tree.Err = ErrNotDir
			}
			r.tree.Dir = r.tree.Attr
			lookedUp(r)
		})
		return
	}
	if st := checkName(name); st != OK {
		r.refuse(st)
		return
	}
	r.prepare(TreeLookup, r.id).Name = string(name)
	r.submit(lookedUp)
}

func lookedUp(r *request) {
	e, ok := r.result()
	if e == nil {
		return
	}
	if ok {
		h := MakeHandle(r.s.cluster, r.tree.Attr.ID)
		e.Opaque(h[:])
		r.postAttr(e, &r.tree.Attr)
	}
	r.postAttr(e, &r.tree.Dir)
	r.reply()
}

// The bits of ACCESS (section 3.3.4).
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessDelete  = 0x10
	accessExecute = 0x20
)

// access is ACCESS: everything that makes sense for the type of the object, as access is granted by network.
func access(r *request, d *xdr.Decoder) {
	fh := d.Opaque(maxHandle)
	r.access = d.Uint32()
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	r.prepare(TreeAttr, r.id)
	r.submit(func(r *request) {
		e, ok := r.result()
		if e == nil {
			return
		}
		r.postAttr(e, &r.tree.Attr)
		if ok {
			allowed := uint32(accessRead | accessModify | accessExtend)
			if r.tree.Attr.Type == Directory {
				allowed |= accessLookup | accessDelete
			} else if r.tree.Attr.Mode&0o111 != 0 {
				allowed |= accessExecute
			}
			e.Uint32(r.access & allowed)
		}
		r.reply()
	})
}

// readlink is READLINK (section 3.3.5).
func readlink(r *request, d *xdr.Decoder) {
	r.withAttr(d, TreeReadLink, func(r *request) {
		e, ok := r.result()
		if e == nil {
			return
		}
		r.postAttr(e, &r.tree.Attr)
		if ok {
			e.String(r.tree.Target)
		}
		r.reply()
	})
}

// create is CREATE (section 3.3.8).
func create(r *request, d *xdr.Decoder) {
	fh, name := dirName(d)
	how := d.Uint32()
	var set SetAttr
	var verifier [8]byte
	switch CreateHow(how) {
	case Unchecked, Guarded:
		set = sattr(d)
	case Exclusive:
		copy(verifier[:], d.Fixed(len(verifier)))
	default:
		d.Fail()
	}
	if how > uint32(Exclusive) || !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.enterDir(fh, name) {
		return
	}
	if set.Mask&SetSize != 0 && set.Size > 1<<63-1 {
		r.refuse(ErrStatFBig)
		return
	}
	if !r.once() {
		return
	}
	op := r.prepare(TreeCreate, r.id)
	op.Name, op.How, op.Verifier, op.Set = string(name), CreateHow(how), verifier, set
	r.submit(created)
}

// enterDir takes fh as the directory that something called name is to be made in, or refuses r.
func (r *request) enterDir(fh, name []byte) bool {
	if !r.handle(fh) {
		return false
	}
	st := checkName(name)
	if isDot(name) || isDotDot(name) {
		st = ErrStatExist
	}
	if st != OK {
		r.refuse(st)
		return false
	}
	return true
}

// created answers CREATE, MKDIR and SYMLINK.
func created(r *request) {
	e, ok := r.result()
	if e == nil {
		return
	}
	if ok {
		r.postHandle(e, r.tree.Attr.ID)
		r.postAttr(e, &r.tree.Attr)
	}
	r.wcc(e, &r.tree.DirPre, &r.tree.Dir)
	r.reply()
}

// mkdir is MKDIR (section 3.3.9).
func mkdir(r *request, d *xdr.Decoder) {
	fh, name := dirName(d)
	set := sattr(d)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.enterDir(fh, name) || !r.once() {
		return
	}
	op := r.prepare(TreeMkdir, r.id)
	op.Name, op.Set = string(name), set
	op.Set.Mask &^= SetSize
	r.submit(created)
}

// symlink is SYMLINK (section 3.3.10).
func symlink(r *request, d *xdr.Decoder) {
	fh, name := dirName(d)
	set := sattr(d)
	target := d.Opaque(inlineRecord)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.enterDir(fh, name) {
		return
	}
	switch {
	case len(target) > maxTarget:
		r.refuse(ErrStatNameLen)
		return
	case len(target) == 0, bytes.IndexByte(target, 0) >= 0, !utf8.Valid(target):
		r.refuse(ErrStatInval)
		return
	}
	if !r.once() {
		return
	}
	op := r.prepare(TreeSymlink, r.id)
	op.Name, op.Target, op.Set = string(name), string(target), set
	op.Set.Mask &^= SetSize
	r.submit(created)
}

// mknod and link are MKNOD and LINK (sections 3.3.11 and 3.3.15): an image has one name, and nothing here is a device.
func mknod(r *request, d *xdr.Decoder) { r.unsupported(d) }
func link(r *request, d *xdr.Decoder)  { r.unsupported(d) }

func (r *request) unsupported(d *xdr.Decoder) {
	fh := d.Opaque(maxHandle)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if r.handle(fh) {
		r.refuse(ErrStatNotSupp)
	}
}

// remove is REMOVE (section 3.3.12).
func remove(r *request, d *xdr.Decoder) { r.unlink(d, TreeRemove, ErrStatInval) }

// rmdir is RMDIR (section 3.3.13, which asks for EXIST at "..").
func rmdir(r *request, d *xdr.Decoder) { r.unlink(d, TreeRmdir, ErrStatExist) }

func (r *request) unlink(d *xdr.Decoder, k TreeKind, dotdot Status) {
	fh, name := dirName(d)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	st := checkName(name)
	if isDot(name) {
		st = ErrStatInval
	} else if isDotDot(name) {
		st = dotdot
	}
	if st != OK {
		r.refuse(st)
		return
	}
	if !r.once() {
		return
	}
	r.prepare(k, r.id).Name = string(name)
	r.submit(func(r *request) {
		if e, _ := r.result(); e != nil {
			r.wcc(e, &r.tree.DirPre, &r.tree.Dir)
			r.reply()
		}
	})
}

// rename is RENAME (section 3.3.14).
func rename(r *request, d *xdr.Decoder) {
	fh, name := dirName(d)
	toFH, toName := dirName(d)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	to, st := parseHandle(r.s.cluster, toFH)
	for _, n := range [][]byte{name, toName} {
		if st == OK {
			st = checkName(n)
		}
		if st == OK && (isDot(n) || isDotDot(n)) {
			st = ErrStatInval
		}
	}
	if st != OK {
		r.refuse(st)
		return
	}
	if !r.once() {
		return
	}
	op := r.prepare(TreeRename, r.id)
	op.Name, op.ToID, op.ToName = string(name), to, string(toName)
	r.submit(func(r *request) {
		if e, _ := r.result(); e != nil {
			r.wcc(e, &r.tree.DirPre, &r.tree.Dir)
			r.wcc(e, &r.tree.ToDirPre, &r.tree.ToDir)
			r.reply()
		}
	})
}
