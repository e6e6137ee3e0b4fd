package images

import (
	"errors"
	"fmt"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// ChildrenError says that layers above an image keep it from being removed.
type ChildrenError struct {
	Name     string
	Children []string
}

func (e *ChildrenError) Error() string {
	return fmt.Sprintf("%q is the parent of %q; remove or flatten them first", e.Name, e.Children)
}

// Remove deletes an image with all of its objects. An image whose removal was begun is still found by its name, so running Remove again goes on.
func Remove(c *client.Client, name string, o Options, done func(error)) *Operation {
	return start(c, o, fmt.Sprintf("remove image %q", name), done, func(op *Operation) {
		i, ok := c.Snapshot().Image(name)
		if !ok {
			op.finish(&NotFoundError{name})
			return
		}
		op.remove(i.ID, name)
	})
}

func (op *Operation) remove(id layout.Inode, name string) {
	var children []string
	for _, other := range op.c.Snapshot().Inodes.All() {
		if other.Parent() == id {
			children = append(children, other.Name)
		}
	}
	if len(children) > 0 {
		op.finish(&ChildrenError{name, children})
		return
	}
	key, index := cluster.InodeKey(id), cluster.ImageIndexKey(name)
	op.progress.Step = "marking the image deleted"
	mark := func(k keys) decision {
		cfg, err := readInode(k, key, name)
		switch {
		case err != nil:
			return decision{err: err}
		case bool(cfg.Deleted):
			return decision{}
		}
		t := cluster.MarkDeleted(cfg)
		return decision{txn: &t}
	}
	drop := func(k keys) decision {
		kv := k.get(key)
		if kv == nil {
			return decision{} // we, or somebody who did the same
		}
		cfg, err := cluster.ReadInode(*kv)
		if err != nil {
			return decision{err: err}
		}
		if !cfg.Deleted {
			return decision{err: errors.New("somebody took the mark of the removal back; its data is gone all the same")}
		}
		t := cluster.DeleteImage(cfg, k.get(cluster.ImageIndexKey(cfg.Name)))
		return decision{txn: &t}
	}
	op.reach([]string{key}, mark, func(rev registry.Revision) {
		// The deletes carry the revision of the mark.
		op.sync(rev, func(s *cluster.Snapshot) bool { i, ok := s.Inode(id); return !ok || bool(i.Deleted) }, func() {
			op.purge(id, 0, nil, func() {
				op.progress.Step = "removing the image's configuration"
				op.reach([]string{key, index}, drop, func(rev registry.Revision) {
					op.sync(rev, func(s *cluster.Snapshot) bool { _, ok := s.Inode(id); return !ok }, func() { op.finish(nil) })
				})
			})
		})
	})
}

// ResizeOptions say what Resize may do.
type ResizeOptions struct {
	Options
	// Shrink allows the size to become smaller: what lies beyond the new end is lost.
	Shrink bool
}

// Resize changes an image's size. A growing image has its size when done is called. A shrinking one is made smaller first, then the objects beyond its end are deleted;
// until that is finished it cannot grow, and every Resize finishes it before anything else.
func Resize(c *client.Client, name string, size uint64, o ResizeOptions, done func(error)) *Operation {
	return start(c, o.Options, fmt.Sprintf("resize image %q to %d bytes", name, size), done, func(op *Operation) {
		if err := cluster.CheckImageSize(size); err != nil {
			op.finish(err)
			return
		}
		i, ok := c.Snapshot().Image(name)
		if !ok {
			op.finish(&NotFoundError{name})
			return
		}
		r := &resize{op: op, id: i.ID, name: name, size: size, shrink: o.Shrink, key: cluster.InodeKey(i.ID), token: fmt.Sprintf("%016x", op.l.Rand().Uint64())}
		r.begin()
	})
}

// resize is one Resize. Whoever holds the token in the image's metadata may delete beyond its end.
type resize struct {
	op     *Operation
	id     layout.Inode
	name   string
	size   uint64 // wanted
	shrink bool
	key    string
	token  string
	end    uint64 // while we hold the token: the image's size
	purge  bool
}

func (r *resize) begin() {
	r.purge = false
	r.op.progress.Step = "changing the size"
	r.op.reach([]string{r.key}, func(k keys) decision {
		cfg, err := readInode(k, r.key, r.name)
		if err != nil {
			return decision{err: err}
		}
		holder, now := shrinkToken(cfg), uint64(cfg.Size)
		edit := withToken(r.size, "")
		switch {
		case bool(cfg.ReadOnly) || bool(cfg.Deleted):
			return decision{err: errors.New("it is read-only or being removed")}
		case holder == r.token:
			r.purge, r.end = true, now
			return decision{}
		case holder != "": // a shrinking that was not finished: ours now
			r.purge, r.end = true, now
			edit = withToken(now, r.token)
		case now == r.size:
			return decision{}
		case r.size > now:
		case !r.shrink:
			return decision{err: fmt.Errorf("it has %d bytes, and what lies beyond the new end would be lost; allow it explicitly", now)}
		case cfg.Parent() != 0:
			return decision{err: errors.New("it has a parent, whose data would come back when it grows again; flatten it first")}
		default:
			r.purge, r.end = true, r.size
			edit = withToken(r.size, r.token)
		}
		t := cluster.EditInode(cfg, edit)
		return decision{txn: &t}
	}, func(rev registry.Revision) {
		r.op.sync(rev, func(s *cluster.Snapshot) bool {
			i, ok := s.Inode(r.id)
			return !ok || r.purge && shrinkToken(i) == r.token || !r.purge && uint64(i.Size) == r.size
		}, func() {
			if r.purge {
				r.sweep()
				return
			}
			r.op.finish(nil)
		})
	})
}

// held asks the registry whether the token is still ours.
func (r *resize) held(then func(error)) {
	r.op.c.Registry().Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: r.key}}}, func(res registry.TxnResult, err error) {
		switch {
		case err != nil:
		case len(res.Results) != 1 || len(res.Results[0]) != 1:
			err = &NotFoundError{r.name}
		default:
			var cfg *cluster.Inode
			if cfg, err = cluster.ReadInode(res.Results[0][0]); err == nil && shrinkToken(cfg) != r.token {
				err = errors.New("another process has taken over and finishes it")
			}
		}
		then(err)
	})
}

// sweep deletes what lies beyond the end, makes the rest of the last object zeroes, and gives the token back.
func (r *resize) sweep() {
	g, err := r.op.c.Geometry(r.id.Pool())
	if err != nil {
		r.op.finish(err)
		return
	}
	last := g.Stripe(r.end)
	from := last
	if r.end != last {
		from += g.ObjectSize()
	}
	r.op.purge(r.id, from, r.held, func() {
		if from == last {
			r.release()
			return
		}
		t := &tail{r: r, from: r.end &^ (uint64(g.Granularity) - 1), end: from}
		t.op.Done = func(*client.Op) { t.done() }
		t.read()
	})
}

// release gives the token back; when another size is wanted, that comes next.
func (r *resize) release() {
	r.op.reach([]string{r.key}, func(k keys) decision {
		cfg, err := readInode(k, r.key, r.name)
		switch {
		case err != nil:
			return decision{err: err}
		case shrinkToken(cfg) != r.token:
			return decision{} // given back by a transaction whose answer was lost, or taken over by somebody who finishes it
		}
		t := cluster.EditInode(cfg, withToken(uint64(cfg.Size), ""))
		return decision{txn: &t}
	}, func(registry.Revision) {
		if r.end != r.size {
			r.begin()
			return
		}
		r.op.finish(nil)
	})
}

// tail makes what lies beyond the end in the last object zeroes, under the same guard as the deletions: read, check, write if nothing changed.
type tail struct {
	r         *resize
	op        client.Op
	from, end uint64 // from is where the granule of the image's end begins
	writing   bool
	tries     int
}

func (t *tail) read() {
	if t.r.op.ended() {
		return
	}
	t.writing = false
	t.op.Kind, t.op.Session, t.op.Inode, t.op.Offset, t.op.Len, t.op.CAS = client.Read, t.r.op.session, t.r.id, t.from, t.end-t.from, 0
	t.r.op.c.Submit(&t.op)
}

func (t *tail) done() {
	op := t.r.op
	_, conflict := errors.AsType[*client.ConflictError](t.op.Err)
	err := t.op.Err
	if t.writing {
		for _, p := range t.op.Pieces {
			p.Ref.Release()
		}
		t.op.Pieces = nil
	}
	switch {
	case op.ended():
		t.op.ReleaseParts()
		return
	case conflict:
		if t.tries++; t.tries > maxConflicts {
			op.finish(fmt.Errorf("the object at its end keeps changing: %w", err))
			return
		}
		t.read()
		return
	case err != nil:
		op.finish(err)
		return
	case t.writing || t.op.Version == 0:
		t.op.ReleaseParts()
		t.r.release()
		return
	}
	data, version := t.op.Parts[0].Data.Retain(), t.op.Version
	t.op.ReleaseParts()
	clear(data.Bytes()[t.r.end-t.from:])
	t.r.held(func(err error) {
		if err == nil && op.ended() {
			err = ErrStopped
		}
		if err != nil {
			data.Release()
			op.finish(err)
			return
		}
		t.writing = true
		t.op.Kind, t.op.CAS = client.Write, version+1
		t.op.Pieces = append(t.op.Pieces[:0], client.Piece{Ref: data, Len: data.Len()})
		op.c.Submit(&t.op)
	})
}
