package files

import (
	"errors"

	"holdfast/appliance/exports"
	"holdfast/core/cluster"
	"holdfast/core/images"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
	"holdfast/frontends/volume"
)

// sizing is what is to become of one file's size, in order. Growths that follow each other share a transaction.
type sizing struct {
	running bool
	wants   []want
}

type want struct {
	size  uint64
	exact bool // otherwise: at least
	done  func(error)
}

// resize makes a file's size what is wanted, durably, and calls done when the view shows it.
func (t *Tree) resize(id nfs.ID, size uint64, exact bool, done func(error)) {
	s := t.sizes[id]
	if s == nil {
		s = &sizing{}
		t.sizes[id] = s
	}
	s.wants = append(s.wants, want{size, exact, done})
	t.nextSize(id, s)
}

// nextSize begins what comes next.
func (t *Tree) nextSize(id nfs.ID, s *sizing) {
	if s.running {
		return
	}
	if len(s.wants) == 0 {
		delete(t.sizes, id)
		return
	}
	s.running = true
	n, size := 1, s.wants[0].size
	if !s.wants[0].exact {
		for n < len(s.wants) && !s.wants[n].exact {
			size = max(size, s.wants[n].size)
			n++
		}
	}
	now := append([]want(nil), s.wants[:n]...)
	s.wants = s.wants[n:]
	z := &change{t: t, id: id, size: size, exact: now[0].exact}
	z.done = func(err error) {
		s.running = false
		for _, w := range now {
			w.done(err)
		}
		t.nextSize(id, s)
	}
	z.pause.Fire = z.run
	z.run()
}

// change is one change of a size under way.
type change struct {
	t     *Tree
	id    nfs.ID
	size  uint64
	exact bool
	pause loop.Timer
	done  func(error)
}

func (z *change) run() {
	t := z.t
	i, ok := t.view.Load().file(z.id)
	switch {
	case !ok:
		z.done(nfs.ErrStale)
	case z.size > cluster.MaxImageSize:
		z.done(nfs.ErrTooBig)
	case uint64(i.Inode.Size) == z.size, !z.exact && uint64(i.Inode.Size) > z.size:
		z.done(nil)
	case bool(i.Inode.ReadOnly):
		z.done(volume.ErrReadOnly)
	case z.size > uint64(i.Inode.Size) && i.Inode.ImageMeta[images.MetaShrink] == nil:
		z.grow(i)
	default:
		z.administrate(i)
	}
}

// grow is the short way: one transaction.
func (z *change) grow(i *exports.Image) {
	t := z.t
	txn, err := cluster.ResizeImage(i.Inode, z.size)
	if err != nil {
		z.done(err)
		return
	}
	sent := t.c.Snapshot()
	t.c.Registry().Txn(txn, func(res registry.TxnResult, err error) {
		switch {
		case err != nil:
			t.l.Arm(&z.pause, t.l.Now().Add(outagePause))
		case !res.Succeeded:
			t.l.Arm(&z.pause, t.l.Now().Add(conflictPause))
		default:
			t.shown(txn, sent.Moment(res.Revision), res.Revision, func() {
				t.mark(z.id)
				z.done(nil)
			})
		}
	})
}

// administrate is the long way: what is cut off is deleted, so that it does not come back when the file grows again. It also finishes a shrinking that somebody left.
func (z *change) administrate(i *exports.Image) {
	t := z.t
	images.Resize(t.c, i.Inode.Name, z.size, images.ResizeOptions{Shrink: true}, func(err error) {
		if _, gone := errors.AsType[*images.NotFoundError](err); gone {
			t.l.Arm(&z.pause, t.l.Now().Add(conflictPause)) // renamed or removed meanwhile
			return
		}
		if err != nil {
			t.log.Warn("a file's size could not be changed", "name", i.Inode.Name, "err", err)
			z.done(volume.ErrIO)
			return
		}
		t.mark(z.id)
		z.done(nil)
	})
}

// mark moves a file's times because it was changed.
func (t *Tree) mark(id nfs.ID) {
	op := &nfs.TreeOp{ID: id, Loop: t.l}
	_ = t.touch(t.view.Load(), op) // gone is gone
}

func (j *job) grow() {
	op, t := j.op, j.t
	v := t.view.Load()
	i, ok := v.file(op.ID)
	if !ok {
		if _, ok := v.dirByID(op.ID); ok {
			j.end(nfs.ErrIsDir, 0)
			return
		}
		j.end(nfs.ErrStale, 0)
		return
	}
	op.Pre = t.fileAttr(v, i)
	t.resize(op.ID, op.Size, false, func(err error) {
		op.Attr, _ = t.attr(t.view.Load(), op.ID)
		j.end(err, t.heard())
	})
}

func (j *job) setAttr() {
	op, t := j.op, j.t
	v := t.view.Load()
	a, ok := t.attr(v, op.ID)
	if !ok {
		j.end(nfs.ErrStale, 0)
		return
	}
	if !j.unknown {
		op.Pre, op.Attr = a, a
	}
	switch {
	case op.Guard && op.GuardCtime != a.Ctime && !j.unknown:
		j.end(nfs.ErrNotSync, 0)
	case op.Set.Mask&nfs.SetSize == 0:
		j.setRest()
	case a.Type == nfs.Directory:
		j.end(nfs.ErrIsDir, 0)
	default:
		t.resize(op.ID, op.Set.Size, true, func(err error) {
			if err != nil {
				j.end(err, t.heard())
				return
			}
			op.Set.Mask &^= nfs.SetSize
			op.Guard = false
			if op.Set.Mask != 0 {
				j.setRest()
				return
			}
			t.mark(op.ID) // also when the size was so already (RFC 1813, section 3.3.2)
			op.Attr, _ = t.attr(t.view.Load(), op.ID)
			j.end(nil, t.heard())
		})
	}
}

// setRest changes everything but the size.
func (j *job) setRest() {
	op, t := j.op, j.t
	v := t.view.Load()
	a, ok := t.attr(v, op.ID)
	if !ok {
		j.end(nfs.ErrStale, 0)
		return
	}
	now := max(t.now(t.l), a.Ctime+1)
	apply(&a, &op.Set, now)
	key, old := attrKey(op.ID), (*record)(nil)
	if d, ok := v.dirByID(op.ID); ok {
		key, old = dirKey(d.path), d.rec
	} else {
		old, _ = v.attrs.Get(op.ID)
	}
	rec := recordOf(&a, old)
	j.txn(registry.Txn{
		If:   []registry.Compare{registry.Unchanged(key, rec.mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: key, Value: rec.value()}},
	}, func() {
		op.Attr, _ = t.attr(t.view.Load(), op.ID)
		j.end(nil, t.heard())
	})
}
