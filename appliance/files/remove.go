package files

import (
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
)

// trash is what the name of an image begins with whose file was removed: the file's name is free at once, the data is deleted in the background. Such an image is marked deleted, so
// nothing serves it.
const trash = ".holdfast-removed/"

// removeRetry is after how long a removal that failed is tried again.
const removeRetry = 10 * time.Second

func (j *job) remove() {
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
		j.end(nfs.ErrIsDir, 0)
		return
	case image == nil && j.unknown, image != nil && j.id != (nfs.ID{}) && nfs.ID(image.ID) != j.id:
		j.end(nil, 0) // done by a transaction whose answer was lost
		return
	case image == nil:
		j.end(nfs.ErrNotFound, 0)
		return
	}
	j.id = nfs.ID(image.ID)
	inode := image.Inode
	if t.hasChildren(inode.ID) {
		t.log.Warn("a file cannot be removed: other images are based on it", "name", inode.Name)
		j.end(nfs.ErrRefused, 0)
		return
	}
	index := cluster.ImageIndexKey(inode.Name)
	j.read([]string{index}, func(found map[string]*registry.KV) {
		var txn registry.Txn
		discard(&txn, inode)
		release(&txn, inode, found)
		if d.below <= 1 {
			keep(&txn, v, d)
		}
		j.txn(txn, func() {
			t.purge(inode.ID)
			j.dirAfter(d.path)
			j.end(nil, t.heard())
		})
	})
}

func (t *Tree) hasChildren(id layout.Inode) bool {
	for _, i := range t.c.Snapshot().Inodes.All() {
		if i.Parent() == id {
			return true
		}
	}
	return false
}

// discard adds the steps that take an image out of service.
func discard(txn *registry.Txn, i *cluster.Inode) {
	edit := cluster.EditInode(i, func(c *cluster.Inode) {
		c.Name = trash + i.ID.String()
		c.Deleted = true
	})
	txn.If = append(txn.If, edit.If...)
	txn.Then = append(txn.Then, edit.Then...)
}

// holds reports whether an index entry is an image's.
func holds(kv *registry.KV, i *cluster.Inode) bool {
	if kv == nil {
		return false
	}
	x, err := cluster.ReadImageIndex(kv.Value)
	return err == nil && x.Inode() == i.ID
}

// release adds the steps that free an image's name.
func release(txn *registry.Txn, i *cluster.Inode, found map[string]*registry.KV) {
	key := cluster.ImageIndexKey(i.Name)
	txn.If = append(txn.If, unchanged(key, found[key]))
	if holds(found[key], i) {
		txn.Then = append(txn.Then, registry.Op{Kind: registry.Delete, Key: key})
	}
}

func unchanged(key string, kv *registry.KV) registry.Compare {
	if kv == nil {
		return registry.Absent(key)
	}
	return registry.Unchanged(key, kv.Mod)
}

// purge deletes the data of a removed file, in the background, however long that takes.
func (t *Tree) purge(id layout.Inode) {
	i, ok := t.c.Snapshot().Inode(id)
	if !ok || t.removing[id] || t.stopped {
		return
	}
	t.removing[id] = true
	images.Remove(t.c, i.Name, images.Options{}, func(err error) {
		delete(t.removing, id)
		if err == nil || t.stopped {
			return
		}
		t.log.Warn("the data of a removed file could not be deleted yet", "inode", id.String(), "err", err)
		again := &loop.Timer{Fire: func() { t.purge(id) }}
		t.l.Arm(again, t.l.Now().Add(removeRetry))
	})
}

// resumeRemovals goes on with what an earlier run, or another gateway, left.
func (t *Tree) resumeRemovals() {
	for id, i := range t.c.Snapshot().Inodes.All() {
		if bool(i.Deleted) && strings.HasPrefix(i.Name, trash) {
			t.purge(id)
		}
	}
}
