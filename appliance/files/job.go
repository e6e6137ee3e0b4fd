package files

import (
	"errors"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
)

// job is one change under way, on the home loop.
type job struct {
	t    *Tree
	op   *nfs.TreeOp
	task loop.Task

	id      nfs.ID // of what is created
	unknown bool   // an earlier try may have been carried out
	pause   loop.Timer
}

const (
	conflictPause = 5 * time.Millisecond
	outagePause   = 200 * time.Millisecond
)

// run begins the change, or begins it again after a conflict.
func (j *job) run() {
	switch j.op.Kind {
	case nfs.TreeCreate:
		j.create()
	case nfs.TreeMkdir:
		j.mkdir()
	case nfs.TreeRemove:
		j.remove()
	case nfs.TreeRmdir:
		j.rmdir()
	case nfs.TreeRename:
		j.rename()
	case nfs.TreeSetAttr:
		j.setAttr()
	case nfs.TreeGrow:
		j.grow()
	}
}

// again runs the job once more, a little later.
func (j *job) again(after time.Duration) {
	j.pause.Fire = j.run
	j.t.l.Arm(&j.pause, j.t.l.Now().Add(after))
}

// txn runs a transaction that decides the job; then is called when it has succeeded and the view shows it. A conflict or an outage begins the job again: an outage makes it wait.
func (j *job) txn(t registry.Txn, then func()) {
	sent := j.t.c.Snapshot()
	j.t.c.Registry().Txn(t, func(res registry.TxnResult, err error) {
		if _, refused := errors.AsType[*registry.RequestError](err); refused {
			j.t.log.Error("the registry refused a change of files", "err", err)
			j.end(nfs.ErrRefused, 0)
			return
		}
		switch {
		case err != nil:
			j.unknown = true
			j.again(outagePause)
		case !res.Succeeded:
			j.again(conflictPause)
		default:
			j.t.shown(t, sent.Moment(res.Revision), res.Revision, then)
		}
	})
}

// read reads keys, by name.
func (j *job) read(names []string, then func(map[string]*registry.KV)) {
	t := registry.Txn{}
	for _, n := range names {
		t.Then = append(t.Then, registry.Op{Kind: registry.Get, Key: n})
	}
	j.t.c.Registry().Txn(t, func(res registry.TxnResult, err error) {
		if err != nil || len(res.Results) != len(names) {
			j.again(outagePause)
			return
		}
		found := make(map[string]*registry.KV, len(names))
		for i, n := range names {
			if len(res.Results[i]) == 1 {
				found[n] = &res.Results[i][0]
			}
		}
		then(found)
	})
}

// shown calls then, later, once the view shows what a transaction of ours changed at rev, or etcd has forgotten it.
func (t *Tree) shown(txn registry.Txn, at cluster.Moment, rev registry.Revision, then func()) {
	ours, images := false, false
	for _, o := range txn.Then {
		ours = ours || o.Writes() && strings.HasPrefix(o.Key, prefix)
		images = images || o.Writes() && strings.HasPrefix(o.Key, cluster.PrefixInode)
	}
	if ours && !t.c.Snapshot().Lost(at) {
		next := then
		then = func() { t.keys.await(rev, next) }
	}
	if images {
		t.c.Await(func(s *cluster.Snapshot) bool { return s.Past(at) }, then)
		return
	}
	then()
}

// end answers the job, on the loop that asked, once that has heard of revision rev, if not 0, or either loop has found that etcd has gone back to an earlier state.
func (j *job) end(err error, rev registry.Revision) {
	op := j.op
	op.Loop.Post(&loop.Task{Run: func() {
		c := j.t.o.Lane(op.Loop)
		if rev == 0 || c == nil {
			op.Complete(err)
			return
		}
		etcd := c.Snapshot().Copy
		c.Await(func(s *cluster.Snapshot) bool { return s.Revision >= rev || s.Copy != etcd || j.t.heard() < rev }, func() { op.Complete(err) })
	}})
}

// heard is the revision that the asking loop has to know before it is answered: the newest that changed images.
func (t *Tree) heard() registry.Revision { return t.view.Load().images.Revision }

// dir finds the directory that an operation is in, and ends the job if there is none.
func (j *job) dir(v *view, id nfs.ID) *dir {
	d, ok := v.dirByID(id)
	if ok {
		return d
	}
	if _, file := v.file(id); file {
		j.end(nfs.ErrNotDir, 0)
	} else {
		j.end(nfs.ErrStale, 0)
	}
	return nil
}

// checkPath says whether something may have a path.
func checkPath(path string) error {
	if len(path) > cluster.MaxImageName {
		return nfs.ErrNameTooLong
	}
	if cluster.CheckImageName(path) != nil || hidden(path) {
		return nfs.ErrName
	}
	return nil
}
