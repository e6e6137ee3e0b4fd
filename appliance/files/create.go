package files

import (
	"crypto/rand"
	"encoding/hex"

	"holdfast/appliance/exports"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
)

// dirAfter fills in the directory's attributes as they are now.
func (j *job) dirAfter(path string) {
	if d, ok := j.t.view.Load().dir(path); ok {
		j.op.Dir = dirAttr(d)
	}
}

func (j *job) create() {
	op, t := j.op, j.t
	v := t.view.Load()
	d := j.dir(v, op.ID)
	if d == nil {
		return
	}
	op.Dir, op.DirPre = dirAttr(d), dirAttr(d)
	image, sub := v.child(d, op.Name)
	switch {
	case sub != nil:
		op.Attr = dirAttr(sub)
		j.end(nfs.ErrExists, 0)
		return
	case image != nil:
		j.taken(v, d, image)
		return
	}
	path := join(d.path, op.Name)
	if err := checkPath(path); err != nil {
		j.end(err, 0)
		return
	}
	size := uint64(0)
	if op.How != nfs.Exclusive && op.Set.Mask&nfs.SetSize != 0 {
		if size = op.Set.Size; size > cluster.MaxImageSize {
			j.end(nfs.ErrTooBig, 0)
			return
		}
	}
	if j.id == (nfs.ID{}) {
		_, _ = rand.Read(j.id[:]) // never fails
	}
	pool := t.o.Pool(t.c.Snapshot())
	if _, err := t.c.Geometry(pool); err != nil {
		t.log.Warn("no file can be created", "pool", pool, "err", err)
		j.end(nfs.ErrRefused, 0)
		return
	}
	now := t.now(t.l)
	a := nfs.Attr{Type: nfs.Regular, Mode: fileMode, UID: op.UID, GID: op.GID, ID: j.id, Atime: now, Mtime: now}
	if op.How != nfs.Exclusive {
		apply(&a, &op.Set, now)
	}
	a.Ctime = now
	rec := recordOf(&a, nil)
	if op.How == nfs.Exclusive {
		rec.Verifier = hex.EncodeToString(op.Verifier[:])
	}
	maxID := cluster.MaxIDKey(pool)
	j.read([]string{maxID}, func(found map[string]*registry.KV) {
		txn, _, err := cluster.CreateImage(cluster.NewImage{
			Pool: pool, Name: path, Size: size, Identity: layout.StoreID(j.id).String(), MaxID: found[maxID], Largest: largest(t.c.Snapshot(), pool),
		})
		if err != nil {
			t.log.Warn("a file cannot be created", "name", path, "err", err)
			j.end(nfs.ErrTooMany, 0)
			return
		}
		txn.If = append(txn.If, registry.Absent(attrKey(j.id)), registry.Absent(dirKey(path)))
		txn.Then = append(txn.Then, registry.Op{Kind: registry.Put, Key: attrKey(j.id), Value: rec.value()})
		j.txn(txn, func() { j.created(d.path) })
	})
}

func (j *job) created(dir string) {
	v := j.t.view.Load()
	if i, ok := v.file(j.id); ok {
		j.op.Attr = j.t.fileAttr(v, i)
	}
	j.dirAfter(dir)
	j.end(nil, j.t.heard())
}

// taken decides what a CREATE of a file that exists means.
func (j *job) taken(v *view, d *dir, i *exports.Image) {
	op, t := j.op, j.t
	op.Attr = t.fileAttr(v, i)
	rec, _ := v.attrs.Get(nfs.ID(i.ID))
	switch {
	case nfs.ID(i.ID) == j.id:
		j.created(d.path) // ours, whose answer was lost
	case op.How == nfs.Unchecked:
		if op.Set.Mask&nfs.SetSize == 0 {
			j.end(nil, 0)
			return
		}
		t.resize(nfs.ID(i.ID), op.Set.Size, true, func(err error) {
			v := t.view.Load()
			if i, ok := v.file(nfs.ID(i.ID)); ok {
				op.Attr = t.fileAttr(v, i)
			}
			j.dirAfter(d.path)
			j.end(err, t.heard())
		})
	case op.How == nfs.Exclusive && rec != nil && rec.Verifier == hex.EncodeToString(op.Verifier[:]):
		j.end(nil, 0)
	default:
		j.end(nfs.ErrExists, 0)
	}
}

// largest is the largest inode number of a pool that is known.
func largest(s *cluster.Snapshot, pool layout.PoolID) (last uint64) {
	for id := range s.Inodes.From(layout.MakeInode(pool, 0)) {
		if id.Pool() != pool {
			break
		}
		last = id.Num()
	}
	return last
}

func (j *job) mkdir() {
	op, t := j.op, j.t
	v := t.view.Load()
	d := j.dir(v, op.ID)
	if d == nil {
		return
	}
	op.Dir, op.DirPre = dirAttr(d), dirAttr(d)
	path := join(d.path, op.Name)
	if image, sub := v.child(d, op.Name); image != nil || sub != nil {
		if sub != nil {
			op.Attr = dirAttr(sub)
			if j.unknown && sub.id == j.id {
				j.end(nil, 0)
				return
			}
		}
		j.end(nfs.ErrExists, 0)
		return
	}
	if err := checkPath(path); err != nil {
		j.end(err, 0)
		return
	}
	if j.id == (nfs.ID{}) {
		_, _ = rand.Read(j.id[:]) // never fails
	}
	now := t.now(t.l)
	a := nfs.Attr{Type: nfs.Directory, Mode: dirMode, UID: op.UID, GID: op.GID, ID: j.id, Atime: now, Mtime: now}
	apply(&a, &op.Set, now)
	j.txn(registry.Txn{
		If:   []registry.Compare{registry.Absent(dirKey(path)), registry.Absent(cluster.ImageIndexKey(path))},
		Then: []registry.Op{{Kind: registry.Put, Key: dirKey(path), Value: recordOf(&a, nil).value()}},
	}, func() {
		if sub, ok := t.view.Load().dir(path); ok {
			op.Attr = dirAttr(sub)
		}
		j.dirAfter(d.path)
		j.end(nil, 0)
	})
}

func (j *job) rmdir() {
	op, t := j.op, j.t
	v := t.view.Load()
	d := j.dir(v, op.ID)
	if d == nil {
		return
	}
	op.Dir, op.DirPre = dirAttr(d), dirAttr(d)
	image, sub := v.child(d, op.Name)
	switch {
	case image != nil:
		j.end(nfs.ErrNotDir, 0)
	case sub == nil && j.unknown:
		j.end(nil, 0)
	case sub == nil:
		j.end(nfs.ErrNotFound, 0)
	case sub.below > 0:
		j.end(nfs.ErrNotEmpty, 0)
	default:
		key := dirKey(sub.path)
		txn := registry.Txn{If: []registry.Compare{registry.Unchanged(key, sub.rec.mod)}, Then: []registry.Op{{Kind: registry.Delete, Key: key}}}
		keep(&txn, v, d)
		j.txn(txn, func() {
			j.dirAfter(d.path)
			j.end(nil, 0)
		})
	}
}

// keep adds the steps that make a directory stay when the last thing in it goes.
func keep(txn *registry.Txn, v *view, d *dir) {
	if d.path == "" || d.rec != nil {
		return
	}
	a := dirAttr(d)
	key := dirKey(d.path)
	for _, o := range txn.Then {
		if o.Key == key {
			return
		}
	}
	txn.If = append(txn.If, registry.Absent(key))
	txn.Then = append(txn.Then, registry.Op{Kind: registry.Put, Key: key, Value: recordOf(&a, nil).value()})
}
