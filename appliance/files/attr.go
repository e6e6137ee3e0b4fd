package files

import (
	"holdfast/appliance/exports"
	"holdfast/core/layout"
	"holdfast/frontends/nfs"
)

// The modes of what nobody has set one for.
const (
	fileMode     = 0o644
	readOnlyMode = 0o444
	dirMode      = 0o755
)

// fileAttr are an image's attributes as a file.
func (t *Tree) fileAttr(v *view, i *exports.Image) nfs.Attr {
	id := nfs.ID(i.ID)
	a := nfs.Attr{Type: nfs.Regular, Mode: fileMode, Nlink: 1, Size: uint64(i.Inode.Size), Used: v.used(i), ID: id}
	if i.Inode.ReadOnly {
		a.Mode = readOnlyMode
	}
	rec, _ := v.attrs.Get(id)
	if rec != nil {
		a.Mode, a.UID, a.GID = rec.Mode, rec.UID, rec.GID
		a.Atime, a.Mtime, a.Ctime = rec.Atime, rec.Mtime, rec.Ctime
	} else {
		// Nobody has noted when it was made: its revision at least grows with each change and is the same on every gateway.
		at := nfs.Time(i.Inode.Mod) * 1000
		a.Atime, a.Mtime, a.Ctime = at, at, at
	}
	if at := t.touchedAt(id); at > a.Ctime {
		a.Mtime, a.Ctime = at, at
	}
	return a
}

// used is how much an image takes up, as its clients count: not more than once for each copy.
func (v *view) used(i *exports.Image) uint64 {
	size := uint64(i.Inode.Size)
	if v.stats == nil {
		return size
	}
	s, ok := v.stats.InodeStats.Get(i.Inode.ID)
	if !ok {
		return 0
	}
	used := uint64(s.RawUsed)
	if p, ok := v.stats.PoolStats.Get(i.Inode.ID.Pool()); ok && p.RawToUsable > 0 {
		used = uint64(float64(used) / float64(p.RawToUsable))
	}
	return used
}

// dirAttr are a directory's attributes.
func dirAttr(d *dir) nfs.Attr {
	a := nfs.Attr{Type: nfs.Directory, Mode: dirMode, Nlink: 2, Size: 4096, Used: 4096, ID: d.id, Atime: d.changed, Mtime: d.changed, Ctime: d.changed}
	if r := d.rec; r != nil {
		a.Mode, a.UID, a.GID = r.Mode, r.UID, r.GID
		a.Atime, a.Mtime, a.Ctime = r.Atime, max(r.Mtime, d.changed), max(r.Ctime, d.changed)
	}
	return a
}

// attr are the attributes of whatever has the identity.
func (t *Tree) attr(v *view, id nfs.ID) (nfs.Attr, bool) {
	if i, ok := v.file(id); ok {
		return t.fileAttr(v, i), true
	}
	if d, ok := v.dirByID(id); ok {
		return dirAttr(d), true
	}
	return nfs.Attr{}, false
}

// recordOf is the record that says what a does.
func recordOf(a *nfs.Attr, old *record) *record {
	r := &record{Mode: a.Mode, UID: a.UID, GID: a.GID, Atime: a.Atime, Mtime: a.Mtime, Ctime: a.Ctime}
	if old != nil {
		r.Verifier, r.ID, r.mod = old.Verifier, old.ID, old.mod
	}
	if a.Type == nfs.Directory {
		r.ID = layout.StoreID(a.ID).String()
	}
	return r
}

// apply changes a as s asks, size aside.
func apply(a *nfs.Attr, s *nfs.SetAttr, now nfs.Time) {
	a.Ctime = now
	if s.Mask&nfs.SetMode != 0 {
		a.Mode = s.Mode & 0o7777
	}
	if s.Mask&nfs.SetUID != 0 {
		a.UID = s.UID
	}
	if s.Mask&nfs.SetGID != 0 {
		a.GID = s.GID
	}
	switch {
	case s.Mask&nfs.SetAtime != 0:
		a.Atime = max(0, s.Atime)
	case s.Mask&nfs.SetAtimeNow != 0:
		a.Atime = now
	}
	switch {
	case s.Mask&nfs.SetMtime != 0:
		a.Mtime = max(0, s.Mtime)
	case s.Mask&nfs.SetMtimeNow != 0:
		a.Mtime = now
	}
}
