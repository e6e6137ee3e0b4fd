package files

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/appliance/exports"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
	"holdfast/frontends/volume"
)

// Options say what a Tree needs.
type Options struct {
	Client  *client.Client                        // of the home loop, where the tree is made
	Lane    func(loop.Loop) *client.Client        // the client of a loop that asks
	Catalog *exports.Catalog                      // kept up to date on the home loop, which tells Changed
	Pool    func(*cluster.Snapshot) layout.PoolID // where new files go; nil: the pool with the lowest number
	Log     *slog.Logger
}

// Tree is the file tree. New, Changed, Ready and Stop are called on the home loop, the rest on any of the gateway's.
type Tree struct {
	o      Options
	c      *client.Client
	l      loop.Loop
	log    *slog.Logger
	view   atomic.Pointer[view]
	listed atomic.Pointer[listing]

	mu      sync.Mutex
	last    nfs.Time            // guarded by mu: the newest time given
	touched map[nfs.ID]nfs.Time // guarded by mu: when a file was last written to, as far as etcd does not know yet
	dirty   []nfs.ID            // guarded by mu: those to be written to etcd
	flush   loop.Task           // posted to the home loop when dirty becomes not empty

	// The rest belongs to the home loop.
	keys     keys
	stats    *cluster.Follower
	sizes    map[nfs.ID]*sizing
	flushing loop.Timer
	saving   int // transactions with times under way
	removing map[layout.Inode]bool
	stopped  bool
	idle     func() // Stop's, once saving is 0
}

var _ nfs.Tree = (*Tree)(nil)

// New makes the tree. It may be used when Ready says so.
func New(o Options) *Tree {
	if o.Pool == nil {
		o.Pool = firstPool
	}
	t := &Tree{
		o: o, c: o.Client, l: o.Client.Loop(), log: o.Log.With("component", "files"),
		touched: make(map[nfs.ID]nfs.Time), sizes: make(map[nfs.ID]*sizing), removing: make(map[layout.Inode]bool),
	}
	t.flush.Run = t.flushSoon
	t.flushing.Fire = t.save
	v := emptyView(o.Catalog.View())
	t.rebuild(v, t.now(t.l))
	t.view.Store(v)
	t.keys.start(t)
	t.stats = cluster.Follow(t.l, t.c.Registry(), cluster.SectionPoolStats|cluster.SectionInodeStats, (*statistics)(t))
	return t
}

func firstPool(s *cluster.Snapshot) layout.PoolID {
	for id := range s.Pools.All() {
		return id
	}
	return 0
}

// Ready calls done, later, once the tree knows the images and its keys.
func (t *Tree) Ready(done func()) {
	t.c.Await(func(s *cluster.Snapshot) bool { return s.Revision > 0 && s.ClusterID != nil }, func() {
		t.keys.await(1, func() {
			t.resumeRemovals()
			done()
		})
	})
}

// Stop writes what is not written yet and calls done.
func (t *Tree) Stop(done func()) {
	t.stopped = true
	t.stats.Stop()
	t.keys.stop()
	t.l.Disarm(&t.flushing)
	t.idle = done
	t.saving++
	t.save()
	t.saved()
}

// Cluster is nfs.Tree's.
func (t *Tree) Cluster() [16]byte { return t.o.Catalog.View().Cluster }

// now is a moment after every one that was given before.
func (t *Tree) now(l loop.Loop) nfs.Time {
	wall := nfs.Time(l.Wall().UnixNano())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = max(t.last+1, wall)
	return t.last
}

// touchedAt is when a file was written to after what etcd knows; 0: it was not.
func (t *Tree) touchedAt(id nfs.ID) nfs.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.touched[id]
}

// Changed takes over changes of the images.
func (t *Tree) Changed(changes []exports.Change) {
	images := t.o.Catalog.View()
	now := t.now(t.l)
	old := t.view.Load()
	v := *old
	v.images = images
	v.names++
	if images.Cluster != old.images.Cluster {
		t.rebuild(&v, now)
	} else {
		for _, c := range changes {
			switch {
			case c.Old == nil:
				v.count(c.New.Info.Name, 1, now)
			case c.New == nil:
				v.count(c.Old.Info.Name, -1, now)
			}
			if c.Old == nil {
				continue
			}
			_, lives := images.ByID(c.Old.ID)
			if i, ok := t.c.Snapshot().Inode(c.Old.Inode.ID); !lives && (!ok || bool(i.Deleted)) {
				t.forget(nfs.ID(c.Old.ID))
			}
		}
	}
	t.view.Store(&v)
}

// rebuild makes the directories from the images and the records.
func (t *Tree) rebuild(v *view, now nfs.Time) {
	fresh := emptyView(v.images)
	fresh.attrs, fresh.stats, fresh.names = v.attrs, v.stats, v.names
	fresh.root = dir{rec: v.root.rec, changed: now}
	for name := range v.images.Names().All() {
		fresh.count(name, 1, now)
	}
	for path, d := range v.dirs.All() {
		if d.rec != nil {
			fresh.record(path, d.rec, now)
		}
	}
	*v = *fresh
}

// forget drops what is kept about a file that is gone.
func (t *Tree) forget(id nfs.ID) {
	t.mu.Lock()
	delete(t.touched, id)
	t.mu.Unlock()
	if _, ok := t.view.Load().attrs.Get(id); ok {
		t.c.Registry().Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Delete, Key: attrKey(id)}}}, func(registry.TxnResult, error) {}) // what stays harms nobody
	}
}

// statistics is the Tree as the follower of statistics sees it.
type statistics Tree

// Changed takes new statistics.
func (s *statistics) Changed(_, next *cluster.Snapshot, _ []string) {
	v := *(*Tree)(s).view.Load()
	v.stats = next
	(*Tree)(s).view.Store(&v)
}

// Fault and Unavailable are for the log; the client, which follows more important keys, says the same.
func (s *statistics) Fault(err *cluster.KeyError) {
	s.log.Warn("unusable statistics", "key", err.Key, "err", err)
}

// Unavailable implements cluster.Handler.
func (s *statistics) Unavailable(error) {}

// Submit is nfs.Tree's.
func (t *Tree) Submit(op *nfs.TreeOp) {
	switch op.Kind {
	case nfs.TreeCreate, nfs.TreeMkdir, nfs.TreeRemove, nfs.TreeRmdir, nfs.TreeRename, nfs.TreeSetAttr, nfs.TreeGrow:
		j := &job{t: t, op: op}
		j.task.Run = j.run
		t.l.Post(&j.task)
		return
	}
	if op.Task.Run == nil {
		op.Task.Run = func() { op.Complete(t.look(op)) }
	}
	op.Loop.Defer(&op.Task)
}

// look does what needs no transaction.
func (t *Tree) look(op *nfs.TreeOp) error {
	v := t.view.Load()
	switch op.Kind {
	case nfs.TreeAttr:
		return t.needAttr(v, op)
	case nfs.TreeOpen:
		if err := t.needAttr(v, op); err != nil {
			return err
		}
		i, ok := v.file(op.ID)
		if !ok {
			return nfs.ErrIsDir
		}
		op.Device = i.Device
		return nil
	case nfs.TreeTouch:
		return t.touch(v, op)
	case nfs.TreeFSStat:
		if c := t.o.Lane(op.Loop); c != nil { // not the home loop's snapshot, which changes there
			op.Space = v.space(t.o.Pool(c.Snapshot()))
		}
		return t.needAttr(v, op)
	}
	d, ok := v.dirByID(op.ID)
	if !ok {
		if _, file := v.file(op.ID); file {
			return nfs.ErrNotDir
		}
		return nfs.ErrStale
	}
	op.Dir = dirAttr(d)
	switch op.Kind {
	case nfs.TreeLookup:
		return t.lookup(v, d, op)
	case nfs.TreeReadDir:
		t.readDir(v, d, op)
		return nil
	}
	return volume.ErrUnsupported
}

func (t *Tree) needAttr(v *view, op *nfs.TreeOp) (err error) {
	var ok bool
	if op.Attr, ok = t.attr(v, op.ID); !ok {
		return nfs.ErrStale
	}
	return nil
}

func (t *Tree) lookup(v *view, d *dir, op *nfs.TreeOp) error {
	switch op.Name {
	case ".":
		op.Attr = op.Dir
		return nil
	case "..":
		parent, _ := split(d.path)
		up, _ := v.dir(parent)
		op.Attr = dirAttr(up)
		return nil
	}
	switch i, sub := v.child(d, op.Name); {
	case i != nil:
		op.Attr = t.fileAttr(v, i)
	case sub != nil:
		op.Attr = dirAttr(sub)
	default:
		return nfs.ErrNotFound
	}
	return nil
}

func (t *Tree) readDir(v *view, d *dir, op *nfs.TreeOp) {
	all := t.listing(v, d)
	first, _ := slices.BinarySearchFunc(all, op.Cookie+1, func(e entry, c uint64) int { return cmp.Compare(e.cookie, c) })
	all = all[first:]
	op.EOF = len(all) <= op.Max
	for _, e := range all[:min(len(all), op.Max)] {
		out := nfs.Entry{Name: e.name, Cookie: e.cookie}
		if e.image != nil {
			out.Attr = t.fileAttr(v, e.image)
		} else {
			out.Attr = dirAttr(e.dir)
		}
		op.Entries = append(op.Entries, out)
	}
	parent, _ := split(d.path)
	if up, ok := v.dir(parent); ok {
		op.Parent = up.id
	}
	op.CookieVerf = [8]byte{}
}

// listing is one directory's entries by cookie. It never changes.
type listing struct {
	names   uint64 // of the view
	path    string
	entries []entry
}

// listing lists a directory; the last one listed is kept, since a large one is asked for in many parts.
func (t *Tree) listing(v *view, d *dir) []entry {
	if l := t.listed.Load(); l != nil && l.names == v.names && l.path == d.path {
		return l.entries
	}
	l := &listing{v.names, d.path, v.list(d)}
	t.listed.Store(l)
	return l.entries
}

// touch moves a file's times.
func (t *Tree) touch(v *view, op *nfs.TreeOp) error {
	i, ok := v.file(op.ID)
	if !ok {
		return nfs.ErrStale
	}
	op.Pre = t.fileAttr(v, i)
	wall := nfs.Time(op.Loop.Wall().UnixNano())
	t.mu.Lock()
	t.last = max(t.last+1, wall, op.Pre.Ctime+1)
	_, known := t.touched[op.ID]
	t.touched[op.ID] = t.last
	if !known {
		t.dirty = append(t.dirty, op.ID)
	}
	t.mu.Unlock()
	if !known {
		t.l.Post(&t.flush)
	}
	op.Attr = t.fileAttr(v, i)
	return nil
}

// space is the room of the file system: that of the pool where new files go.
func (v *view) space(pool layout.PoolID) nfs.Space {
	const files = 1 << 32
	s := nfs.Space{TotalFiles: files, MaxFileSize: cluster.MaxImageSize}
	s.FreeFiles = files - uint64(v.images.Names().Len())
	s.AvailFiles = s.FreeFiles
	if v.stats == nil {
		return s
	}
	if p, ok := v.stats.PoolStats.Get(pool); ok && p.RawToUsable > 0 {
		const tb = 1 << 40
		s.TotalBytes = uint64(float64(p.TotalRawTB) / float64(p.RawToUsable) * tb)
		used := uint64(float64(p.UsedRawTB) / float64(p.RawToUsable) * tb)
		s.FreeBytes = s.TotalBytes - min(used, s.TotalBytes)
		s.AvailBytes = s.FreeBytes
	}
	return s
}

// saveDelay is after how long at most the times of files written to are in etcd.
const saveDelay = 2 * time.Second

func (t *Tree) flushSoon() {
	if !t.stopped && !t.flushing.Armed() {
		t.l.Arm(&t.flushing, t.l.Now().Add(saveDelay))
	}
}

// save writes the times of the files that were written to.
func (t *Tree) save() {
	t.mu.Lock()
	ids := t.dirty
	t.dirty = nil
	t.mu.Unlock()
	for _, id := range ids {
		t.saveTimes(id)
	}
}

func (t *Tree) saveTimes(id nfs.ID) {
	v := t.view.Load()
	i, ok := v.file(id)
	if !ok {
		return
	}
	a := t.fileAttr(v, i)
	old, _ := v.attrs.Get(id)
	rec := recordOf(&a, old)
	t.saving++
	t.put(attrKey(id), rec, func(res registry.TxnResult, err error) {
		if err == nil && res.Succeeded && !t.stopped {
			t.keys.await(res.Revision, func() {
				t.mu.Lock()
				if t.touched[id] <= rec.Ctime {
					delete(t.touched, id)
				} else {
					t.dirty = append(t.dirty, id)
				}
				again := len(t.dirty) > 0
				t.mu.Unlock()
				if again {
					t.flushSoon()
				}
				t.saved()
			})
			return
		}
		if !t.stopped { // somebody else changed it, or no answer: again later, with what is known then
			t.mu.Lock()
			t.dirty = append(t.dirty, id)
			t.mu.Unlock()
			t.flushSoon()
		}
		t.saved()
	})
}

func (t *Tree) saved() {
	if t.saving--; t.saving == 0 && t.idle != nil {
		done := t.idle
		t.idle = nil
		done()
	}
}

// put writes a record if it is as it was known.
func (t *Tree) put(key string, r *record, done func(registry.TxnResult, error)) {
	t.c.Registry().Txn(registry.Txn{
		If:   []registry.Compare{registry.Unchanged(key, r.mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: key, Value: r.value()}},
	}, done)
}

func hidden(name string) bool { return strings.HasPrefix(name, trash) }
