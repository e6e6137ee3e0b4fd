package files

import (
	"bytes"
	"cmp"
	"hash/fnv"
	"slices"
	"strings"

	"holdfast/appliance/exports"
	"holdfast/core/cluster"
	"holdfast/frontends/nfs"
)

// view is the tree at one moment. It never changes.
type view struct {
	images *exports.View
	dirs   cluster.Map[string, *dir] // by path; the root is not among them
	dirIDs cluster.Map[nfs.ID, string]
	attrs  cluster.Map[nfs.ID, *record] // of files
	root   dir
	stats  *cluster.Snapshot // pool and inode statistics; nil before there are any
	names  uint64            // grows with each change of images or directories
}

// dir is a directory at one moment.
type dir struct {
	path    string
	id      nfs.ID
	below   int      // images and explicit directories below, at any depth
	rec     *record  // nil when it exists only because of what is below
	changed nfs.Time // when something in it came or went, as seen here
}

func emptyView(images *exports.View) *view {
	compareIDs := func(a, b nfs.ID) int { return bytes.Compare(a[:], b[:]) }
	return &view{
		images: images,
		dirs:   cluster.NewMap[string, *dir](strings.Compare),
		dirIDs: cluster.NewMap[nfs.ID, string](compareIDs),
		attrs:  cluster.NewMap[nfs.ID, *record](compareIDs),
	}
}

// dir finds a directory by its path.
func (v *view) dir(path string) (*dir, bool) {
	if path == "" {
		return &v.root, true
	}
	return v.dirs.Get(path)
}

// dirByID finds a directory by its identity.
func (v *view) dirByID(id nfs.ID) (*dir, bool) {
	if id == nfs.Root {
		return &v.root, true
	}
	path, ok := v.dirIDs.Get(id)
	if !ok {
		return nil, false
	}
	return v.dirs.Get(path)
}

func (v *view) file(id nfs.ID) (*exports.Image, bool) { return v.images.ByID(exports.ID(id)) }

// set changes a directory in a view that is being made; one that nothing keeps alive goes.
func (v *view) set(path string, now nfs.Time, edit func(*dir)) {
	if path == "" {
		edit(&v.root)
		return
	}
	d := dir{path: path, changed: now}
	if old, ok := v.dirs.Get(path); ok {
		d = *old
		if at, _ := v.dirIDs.Get(old.id); at == path { // it may have moved on already
			v.dirIDs = v.dirIDs.Without(old.id)
		}
	}
	edit(&d)
	if d.below == 0 && d.rec == nil {
		v.dirs = v.dirs.Without(path)
		return
	}
	d.id = dirID(v.images.Cluster, path, d.rec)
	v.dirs = v.dirs.With(path, &d)
	v.dirIDs = v.dirIDs.With(d.id, path)
}

// count notes that something at path came (1) or went (-1): its directories know how much is below them.
func (v *view) count(path string, by int, now nfs.Time) {
	parent, _ := split(path)
	v.set(parent, now, func(d *dir) { d.changed = max(d.changed+1, now) })
	for up := parent; up != ""; up, _ = split(up) {
		existed := v.exists(up)
		v.set(up, now, func(d *dir) { d.below += by })
		if v.exists(up) != existed {
			above, _ := split(up)
			v.set(above, now, func(d *dir) { d.changed = max(d.changed+1, now) })
		}
	}
}

func (v *view) exists(path string) bool {
	_, ok := v.dirs.Get(path)
	return ok
}

// record sets or, with nil, removes a directory's record.
func (v *view) record(path string, r *record, now nfs.Time) {
	had := false
	if d, ok := v.dir(path); ok {
		had = d.rec != nil
	}
	v.set(path, now, func(d *dir) { d.rec = r })
	if path != "" && had != (r != nil) {
		by := 1
		if r == nil {
			by = -1
		}
		v.count(path, by, now)
	}
}

// child finds what a name in a directory is. A file hides a directory of the same name.
func (v *view) child(d *dir, name string) (*exports.Image, *dir) {
	if name == "" || strings.Contains(name, "/") {
		return nil, nil
	}
	path := join(d.path, name)
	if i, ok := v.images.Image(path); ok {
		return i, nil
	}
	sub, _ := v.dirs.Get(path)
	return nil, sub
}

// entry is one name of a listing.
type entry struct {
	name   string
	cookie uint64
	image  *exports.Image
	dir    *dir
}

// list is the directory's entries by cookie. A cookie is the name's hash, so it stays good whatever comes and goes.
func (v *view) list(d *dir) (all []entry) {
	add := func(e entry) {
		e.cookie = cookieOf(e.name)
		all = append(all, e)
	}
	children(v.images.Names(), d.path, func(name string, i *exports.Image) { add(entry{name: name, image: i}) })
	children(v.dirs, d.path, func(name string, sub *dir) {
		if _, hidden := v.images.Image(sub.path); !hidden {
			add(entry{name: name, dir: sub})
		}
	})
	slices.SortFunc(all, func(a, b entry) int { return cmp.Or(cmp.Compare(a.cookie, b.cookie), strings.Compare(a.name, b.name)) })
	return all
}

func cookieOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	return h.Sum64()>>1 | 1
}

// children calls f with each entry of m whose path is directly in a directory.
func children[T any](m cluster.Map[string, T], path string, f func(name string, v T)) {
	base := path
	if base != "" {
		base += "/"
	}
	for from := base; ; {
		again := ""
		for k, v := range m.From(from) {
			rest, ok := strings.CutPrefix(k, base)
			if !ok {
				break
			}
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				again = base + rest[:i] + "0" // what follows everything below: '0' is next to '/'
				break
			}
			f(rest, v)
		}
		if again == "" {
			return
		}
		from = again
	}
}

// below calls f with each entry of m that is below a directory, at any depth, until f says no.
func below[T any](m cluster.Map[string, T], path string, f func(path string, v T) bool) {
	base := path + "/"
	for k, v := range m.From(base) {
		if !strings.HasPrefix(k, base) || !f(k, v) {
			return
		}
	}
}
