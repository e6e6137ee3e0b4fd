package nfs

import (
	"encoding/binary"

	"holdfast/frontends/nfs/xdr"
)

// On the wire "." and ".." come first, with the cookies 1 and 2; the Tree's cookies follow, moved by dotCookies.
const dotCookies = 2

// sizes of parts of a READDIR reply, bytes (RFC 1813, sections 3.3.16 and 3.3.17).
const (
	dirHeader = 4 + 4 + 84 + 8      // status, attributes of the directory, cookie verifier
	dirTail   = 4 + 4               // no more entries, end of file
	plusSize  = 4 + 84 + 4 + 4 + 40 // attributes and handle of an entry
	entrySize = 4 + 8 + 4 + 8       // follows, fileid, length of the name, cookie
)

// readdir is READDIR and READDIRPLUS (sections 3.3.16 and 3.3.17).
func readdir(r *request, d *xdr.Decoder) {
	fh, cookie := d.Opaque(maxHandle), d.Uint64()
	verf := d.Fixed(8)
	r.plus = r.call.Procedure == procReadDirP
	r.dirCount = maxDirBytes
	if r.plus {
		r.dirCount = d.Uint32()
	}
	r.maxCount = min(d.Uint32(), maxDirBytes)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	r.offset = cookie
	least := entrySize + 4
	if r.plus {
		least += plusSize
	}
	op := r.prepare(TreeReadDir, r.id)
	op.Max = max(1, (int(r.maxCount)-dirHeader)/least)
	if cookie > dotCookies {
		op.Cookie = cookie - dotCookies
		copy(op.CookieVerf[:], verf)
	}
	r.submit(listed)
}

func listed(r *request) {
	e, ok := r.result()
	if e == nil {
		return
	}
	op := &r.tree
	r.postAttr(e, &op.Dir)
	if !ok {
		r.reply()
		return
	}
	e.Uint64(binary.BigEndian.Uint64(op.CookieVerf[:]))
	l := listing{r: r, e: e, left: int(r.maxCount) - dirHeader - dirTail, names: int(r.dirCount)}
	all := op.EOF
	if r.offset < 1 {
		l.add(".", 1, op.Dir.ID, &op.Dir)
	}
	if r.offset < 2 {
		l.add("..", 2, op.Parent, &Attr{})
	}
	for i := range op.Entries {
		entry := &op.Entries[i]
		if !l.add(entry.Name, entry.Cookie+dotCookies, entry.Attr.ID, &entry.Attr) {
			break
		}
	}
	if l.full && l.n == 0 {
		e = r.start(ErrStatSmall)
		r.postAttr(e, &op.Dir)
		r.reply()
		return
	}
	e.Bool(false)
	e.Bool(all && !l.full)
	r.reply()
}

// listing is a list of entries being written within its limits.
type listing struct {
	r     *request
	e     *xdr.Encoder
	left  int // bytes of the whole reply
	names int // bytes of names, fileids and cookies
	n     int
	full  bool
}

// add appends an entry; false when there is no room for it.
func (l *listing) add(name string, cookie uint64, id ID, a *Attr) bool {
	size := entrySize + len(name) + xdr.Pad(len(name))
	whole := size
	if l.r.plus {
		whole += plusSize
	}
	if l.full || whole > l.left || size > l.names && l.n > 0 {
		l.full = true
		return false
	}
	l.left -= whole
	l.names -= size
	l.n++
	e := l.e
	e.Bool(true)
	e.Uint64(FileNumber(id))
	e.String(name)
	e.Uint64(cookie)
	if l.r.plus {
		l.r.postAttr(e, a)
		l.r.postHandle(e, id)
	}
	return true
}
