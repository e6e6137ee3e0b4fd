package files

import (
	"strings"

	"holdfast/appliance/exports"
	"holdfast/core/cluster"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
)

// maxMoved is how many images and directories may be in a directory that is renamed: all of them change in one transaction, and etcd takes 128 steps in one (--max-txn-ops).
const maxMoved = 40

// rename is one RENAME as it was decided.
type rename struct {
	j         *job
	v         *view
	from, to  *dir
	name      string // the new path
	files     []*exports.Image
	target    *exports.Image // to be replaced
	targetDir *dir           // to be replaced: an empty one
	movedDir  *dir
	newPath   func(string) string
	subdirs   []*dir
}

func (j *job) rename() {
	op, t := j.op, j.t
	v := t.view.Load()
	from := j.dir(v, op.ID)
	if from == nil {
		return
	}
	to := j.dir(v, op.ToID)
	if to == nil {
		return
	}
	op.Dir, op.DirPre, op.ToDir, op.ToDirPre = dirAttr(from), dirAttr(from), dirAttr(to), dirAttr(to)
	r := &rename{j: j, v: v, from: from, to: to, name: join(to.path, op.ToName)}
	image, sub := v.child(from, op.Name)
	target, targetDir := v.child(to, op.ToName)
	switch {
	case j.unknown && (target != nil && nfs.ID(target.ID) == j.id || targetDir != nil && targetDir.id == j.id):
		r.ended() // done by a transaction whose answer was lost
		return
	case image == nil && sub == nil:
		j.end(nfs.ErrNotFound, 0)
		return
	case image != nil && image == target, sub != nil && sub == targetDir:
		j.end(nil, 0)
		return
	}
	if err := checkPath(r.name); err != nil {
		j.end(err, 0)
		return
	}
	var err error
	if image != nil {
		j.id = nfs.ID(image.ID)
		err = r.file(image, target, targetDir)
	} else {
		j.id = sub.id
		err = r.directory(sub, target, targetDir)
	}
	if err != nil {
		j.end(err, 0)
		return
	}
	r.carryOut()
}

// file decides the renaming of a file.
func (r *rename) file(i, target *exports.Image, targetDir *dir) error {
	switch {
	case targetDir != nil:
		return nfs.ErrExists
	case target != nil && r.j.t.hasChildren(target.Inode.ID):
		return nfs.ErrRefused
	}
	r.files, r.target = []*exports.Image{i}, target
	r.newPath = func(string) string { return r.name }
	return nil
}

// directory decides the renaming of a directory, with everything below it.
func (r *rename) directory(d *dir, target *exports.Image, targetDir *dir) error {
	switch {
	case r.to.path == d.path || strings.HasPrefix(r.to.path, d.path+"/"):
		return nfs.ErrInvalid // into itself
	case target != nil, targetDir != nil && targetDir.below > 0:
		return nfs.ErrExists
	}
	r.movedDir, r.targetDir = d, targetDir
	r.newPath = func(path string) string { return r.name + strings.TrimPrefix(path, d.path) }
	var err error
	look := func(path string) bool {
		if len(r.files)+len(r.subdirs) >= maxMoved {
			r.j.t.log.Warn("a directory cannot be renamed: too much is in it", "directory", d.path, "limit", maxMoved)
			err = nfs.ErrRefused
		} else if e := checkPath(r.newPath(path)); e != nil {
			err = e
		}
		return err == nil
	}
	below(r.v.images.Names(), d.path, func(path string, i *exports.Image) bool {
		r.files = append(r.files, i)
		return look(path)
	})
	below(r.v.dirs, d.path, func(path string, sub *dir) bool {
		if sub.rec != nil {
			r.subdirs = append(r.subdirs, sub)
			return look(path)
		}
		return err == nil
	})
	return err
}

// carryOut reads the names' index and writes everything in one transaction.
func (r *rename) carryOut() {
	var names []string
	for _, i := range r.files {
		names = append(names, cluster.ImageIndexKey(i.Inode.Name), cluster.ImageIndexKey(r.newPath(i.Inode.Name)))
	}
	if len(names) == 0 {
		r.commit(nil)
		return
	}
	r.j.read(names, r.commit)
}

func (r *rename) commit(found map[string]*registry.KV) {
	j, t := r.j, r.j.t
	var txn registry.Txn
	for _, i := range r.files {
		path := r.newPath(i.Inode.Name)
		key := cluster.ImageIndexKey(path)
		if kv := found[key]; kv != nil && (r.target == nil || !holds(kv, r.target.Inode)) {
			j.again(conflictPause) // the view does not show yet who has the name
			return
		}
		edit := cluster.EditInode(i.Inode, func(c *cluster.Inode) { c.Name = path })
		txn.If = append(append(txn.If, edit.If...), unchanged(key, found[key]))
		x := cluster.ImageIndex{ID: cluster.Number(i.Inode.ID.Num()), PoolID: cluster.Number(i.Inode.ID.Pool())}
		txn.Then = append(append(txn.Then, edit.Then...), registry.Op{Kind: registry.Put, Key: key, Value: cluster.Value(x)})
		release(&txn, i.Inode, found)
	}
	if r.target != nil {
		discard(&txn, r.target.Inode)
	}
	for _, d := range r.subdirs {
		moveDir(&txn, d, r.newPath(d.path), nil)
	}
	if r.movedDir != nil {
		moveDir(&txn, r.movedDir, r.name, r.targetDir)
	}
	if r.from.below <= 1+len(r.files) && r.to.path != r.from.path && !strings.HasPrefix(r.to.path, r.from.path+"/") {
		keep(&txn, r.v, r.from)
	}
	j.txn(txn, func() {
		if r.target != nil {
			t.purge(r.target.Inode.ID)
		}
		r.ended()
	})
}

// moveDir adds the steps that move a directory's record, or give it one, so that it keeps its identity. over is the empty directory that it replaces, or nil.
func moveDir(txn *registry.Txn, d *dir, path string, over *dir) {
	a := dirAttr(d)
	rec := recordOf(&a, d.rec)
	key := dirKey(path)
	if over != nil && over.rec != nil {
		txn.If = append(txn.If, registry.Unchanged(key, over.rec.mod))
	} else {
		txn.If = append(txn.If, registry.Absent(key))
	}
	txn.Then = append(txn.Then, registry.Op{Kind: registry.Put, Key: key, Value: rec.value()})
	if d.rec != nil {
		txn.If = append(txn.If, registry.Unchanged(dirKey(d.path), d.rec.mod))
		txn.Then = append(txn.Then, registry.Op{Kind: registry.Delete, Key: dirKey(d.path)})
	}
}

func (r *rename) ended() {
	j := r.j
	v := j.t.view.Load()
	j.dirAfter(r.from.path)
	if d, ok := v.dir(r.to.path); ok {
		j.op.ToDir = dirAttr(d)
	}
	j.end(nil, j.t.heard())
}
