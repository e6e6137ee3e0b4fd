package nfs

import "holdfast/frontends/nfs/xdr"

// withAttr reads the only argument of a procedure, a handle, and answers with then.
func (r *request) withAttr(d *xdr.Decoder, k TreeKind, then func(*request)) {
	fh := d.Opaque(maxHandle)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	r.prepare(k, r.id)
	r.submit(then)
}

// fsstat is FSSTAT (RFC 1813, section 3.3.18).
func fsstat(r *request, d *xdr.Decoder) {
	r.withAttr(d, TreeFSStat, func(r *request) {
		e, ok := r.result()
		if e == nil {
			return
		}
		r.postAttr(e, &r.tree.Attr)
		if ok {
			s := &r.tree.Space
			e.Uint64(s.TotalBytes)
			e.Uint64(s.FreeBytes)
			e.Uint64(s.AvailBytes)
			e.Uint64(s.TotalFiles)
			e.Uint64(s.FreeFiles)
			e.Uint64(s.AvailFiles)
			e.Uint32(0) // invarsec: may change at any moment
		}
		r.reply()
	})
}

// Properties of the file system (RFC 1813, section 3.3.19). Hard links (FSF3_LINK) are not among them.
const (
	fsSymlink     = 0x02 // FSF3_SYMLINK
	fsHomogeneous = 0x08 // FSF3_HOMOGENEOUS: PATHCONF is the same everywhere
	fsCanSetTime  = 0x10 // FSF3_CANSETTIME
)

// fsinfo is FSINFO (section 3.3.19).
func fsinfo(r *request, d *xdr.Decoder) {
	r.withAttr(d, TreeFSStat, func(r *request) {
		e, ok := r.result()
		if e == nil {
			return
		}
		r.postAttr(e, &r.tree.Attr)
		if ok {
			for range 2 { // rtmax, rtpref, rtmult, then the same for writes
				e.Uint32(MaxTransfer)
				e.Uint32(MaxTransfer)
				e.Uint32(4096)
			}
			e.Uint32(maxDirBytes)
			e.Uint64(r.tree.Space.MaxFileSize)
			e.Uint32(0) // time_delta: one nanosecond
			e.Uint32(1)
			properties := uint32(fsHomogeneous | fsCanSetTime)
			if r.tree.Space.Symlinks {
				properties |= fsSymlink
			}
			e.Uint32(properties)
		}
		r.reply()
	})
}

// pathconf is PATHCONF (section 3.3.20).
func pathconf(r *request, d *xdr.Decoder) {
	r.withAttr(d, TreeAttr, func(r *request) {
		e, ok := r.result()
		if e == nil {
			return
		}
		r.postAttr(e, &r.tree.Attr)
		if ok {
			e.Uint32(1) // linkmax
			e.Uint32(maxName)
			e.Bool(true)  // no_trunc: longer names are refused
			e.Bool(true)  // chown_restricted
			e.Bool(false) // case_insensitive
			e.Bool(true)  // case_preserving
		}
		r.reply()
	})
}
