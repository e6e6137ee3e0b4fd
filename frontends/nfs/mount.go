package nfs

import (
	"slices"
	"strings"

	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/nfs/xdr"
)

// mountProcs are the procedures of MOUNT version 3 by number (RFC 1813, section 5.2).
var mountProcs = [...]func(*request, *xdr.Decoder){null, mnt, mountDump, umnt, umntAll, export}

// mountEntry is a line of what DUMP shows. The list means nothing to the server (RFC 1813, section 5.2.2), so it lives here only and is bounded.
type mountEntry struct {
	host, path string
}

// The values of mountstat3 that differ from nfsstat3's have the same numbers (RFC 1813, section 5.1.5), so a Status serves both.

// mnt is MNT (section 5.2.1): the export is "/", and every directory in it may be mounted.
func mnt(r *request, d *xdr.Decoder) {
	path := d.Opaque(maxPath)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	r.path = string(path)
	r.mountAt = 0
	r.id = Root
	r.prepare(TreeAttr, Root)
	r.submit(mountStep)
}

// mountStep goes one component further down the path.
func mountStep(r *request) {
	if err := r.tree.Err; err != nil {
		st, silent := r.status(err)
		if silent {
			r.silence(err)
			return
		}
		r.begin().Uint32(uint32(st))
		r.reply()
		return
	}
	r.attr = r.tree.Attr
	for r.mountAt < len(r.path) && r.path[r.mountAt] == '/' {
		r.mountAt++
	}
	rest := r.path[r.mountAt:]
	if rest == "" {
		r.mounted()
		return
	}
	name, _, _ := strings.Cut(rest, "/")
	st := checkName([]byte(name))
	if name == "." || name == ".." {
		st = ErrStatInval
	}
	if st != OK {
		r.begin().Uint32(uint32(st))
		r.reply()
		return
	}
	r.mountAt += len(name)
	r.prepare(TreeLookup, r.attr.ID).Name = name
	r.submit(mountStep)
}

func (r *request) mounted() {
	if r.attr.Type != Directory {
		r.begin().Uint32(uint32(ErrStatNotDir))
		r.reply()
		return
	}
	m := mountEntry{r.cl.addr.String(), cleanPath(r.path)}
	if s := r.s; !slices.Contains(s.mounts, m) {
		if len(s.mounts) >= maxMounts {
			s.mounts = slices.Delete(s.mounts, 0, 1)
		}
		s.mounts = append(s.mounts, m)
	}
	e := r.begin()
	e.Uint32(uint32(OK))
	h := MakeHandle(r.s.cluster, r.attr.ID)
	e.Opaque(h[:])
	e.Uint32(2) // auth_flavors
	e.Uint32(rpc.AuthSys)
	e.Uint32(rpc.AuthNone)
	r.reply()
}

func cleanPath(p string) string {
	return "/" + strings.Trim(p, "/")
}

// mountDump is DUMP (section 5.2.2).
func mountDump(r *request, _ *xdr.Decoder) {
	e := r.begin()
	for _, m := range r.s.mounts {
		e.Bool(true)
		e.String(m.host)
		e.String(m.path)
	}
	e.Bool(false)
	r.reply()
}

// umnt is UMNT (section 5.2.3).
func umnt(r *request, d *xdr.Decoder) {
	path := d.Opaque(maxPath)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	m := mountEntry{r.cl.addr.String(), cleanPath(string(path))}
	r.s.mounts = slices.DeleteFunc(r.s.mounts, func(o mountEntry) bool { return o == m })
	r.begin()
	r.reply()
}

// umntAll is UMNTALL (section 5.2.4).
func umntAll(r *request, _ *xdr.Decoder) {
	host := r.cl.addr.String()
	r.s.mounts = slices.DeleteFunc(r.s.mounts, func(o mountEntry) bool { return o.host == host })
	r.begin()
	r.reply()
}

// export is EXPORT (section 5.2.5): one export, its groups are the allowed networks.
func export(r *request, _ *xdr.Decoder) {
	e := r.begin()
	e.Bool(true)
	e.String("/")
	for _, p := range r.s.o.Allow {
		e.Bool(true)
		e.String(p.String())
	}
	e.Bool(false)
	e.Bool(false)
	r.reply()
}
