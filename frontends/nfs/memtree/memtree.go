// Package memtree is an nfs.Tree in this process's memory over volume/memory devices, for tests and benchmarks of the NFS server.
//
// It may be used from several loops at once. It can be stalled, to see what a server does while storage is away. Nothing survives the process.
package memtree

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"holdfast/frontends/nfs"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
)

// Options describe a Tree. The zero value of a field asks for the default.
type Options struct {
	Cluster  [16]byte // default "memtree"
	Capacity uint64   // bytes that all files may have together; default 1 << 50
	MaxSize  uint64   // bytes of one file; default 1 << 46
	// Device is the pattern for the devices of new files; Name, Size and ID are filled in.
	Device memory.Options
}

// Tree is a file tree in memory.
type Tree struct {
	o Options

	mu      sync.Mutex
	nodes   map[nfs.ID]*node // guarded by mu
	root    *node
	serial  uint64        // guarded by mu: of ids and cookies
	last    nfs.Time      // guarded by mu: the newest time given
	used    uint64        // guarded by mu: sum of sizes
	stalled bool          // guarded by mu
	parked  []*nfs.TreeOp // guarded by mu
}

var _ nfs.Tree = (*Tree)(nil)

// node is a file or a directory; everything in it is guarded by Tree.mu.
type node struct {
	attr     nfs.Attr
	name     string
	parent   *node
	children map[string]*node // of a directory
	cookie   uint64
	device   *memory.Device // of a file
	target   string         // of a symbolic link
	verifier [8]byte
	excl     bool // created with verifier
}

const sector = 512

// New makes an empty tree.
func New(o Options) *Tree {
	if o.Cluster == ([16]byte{}) {
		copy(o.Cluster[:], "memtree")
	}
	o.Capacity = cmp.Or(o.Capacity, 1<<50)
	o.MaxSize = cmp.Or(o.MaxSize, 1<<46)
	t := &Tree{o: o, nodes: make(map[nfs.ID]*node), last: 1}
	t.root = &node{attr: nfs.Attr{Type: nfs.Directory, Mode: 0o755, Nlink: 2, Mtime: 1, Ctime: 1, Atime: 1}, children: make(map[string]*node)}
	t.root.parent = t.root
	t.nodes[nfs.Root] = t.root
	return t
}

// Cluster is nfs.Tree's.
func (t *Tree) Cluster() [16]byte { return t.o.Cluster }

// Submit is nfs.Tree's: op takes effect and completes at the end of the turn, or when the tree is no longer stalled.
func (t *Tree) Submit(op *nfs.TreeOp) {
	if op.Task.Run == nil {
		op.Task.Run = func() { t.complete(op) }
	}
	op.Loop.Defer(&op.Task)
}

func (t *Tree) complete(op *nfs.TreeOp) {
	t.mu.Lock()
	if t.stalled {
		t.parked = append(t.parked, op)
		t.mu.Unlock()
		return
	}
	err := t.doLocked(op)
	t.mu.Unlock()
	op.Complete(err)
}

// Stall makes operations wait (true), or lets them go on (false). It may be called from any goroutine.
func (t *Tree) Stall(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stalled = on
	if !on {
		for _, op := range t.parked {
			op.Loop.Post(&op.Task)
		}
		t.parked = nil
	}
}

// Parked is the number of operations that wait for Stall(false).
func (t *Tree) Parked() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.parked)
}

// Device is the device behind a file, by its path; nil if there is none.
func (t *Tree) Device(path string) *memory.Device {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n.device
}

func (t *Tree) doLocked(op *nfs.TreeOp) error {
	now := max(t.last+1, nfs.Time(op.Loop.Wall().UnixNano()))
	t.last = now
	n := t.nodes[op.ID]
	if n == nil {
		return nfs.ErrStale
	}
	switch op.Kind {
	case nfs.TreeAttr:
		op.Attr = n.attr
		return nil
	case nfs.TreeFSStat:
		op.Attr = n.attr
		op.Space = nfs.Space{
			TotalBytes: t.o.Capacity, FreeBytes: t.o.Capacity - t.used, AvailBytes: t.o.Capacity - t.used,
			TotalFiles: 1 << 20, FreeFiles: 1<<20 - uint64(len(t.nodes)), AvailFiles: 1<<20 - uint64(len(t.nodes)), MaxFileSize: t.o.MaxSize, Symlinks: true,
		}
		return nil
	case nfs.TreeOpen:
		op.Attr = n.attr
		if n.device == nil {
			return n.noData()
		}
		op.Device = n.device
		return nil
	case nfs.TreeReadLink:
		op.Attr = n.attr
		if n.attr.Type != nfs.Symlink {
			return nfs.ErrInvalid
		}
		op.Target = n.target
		return nil
	case nfs.TreeSetAttr:
		return t.setAttrLocked(op, n, now)
	case nfs.TreeGrow:
		op.Pre, op.Attr = n.attr, n.attr
		if n.device == nil {
			return n.noData()
		}
		if op.Size > n.attr.Size {
			if err := t.resizeLocked(n, op.Size); err != nil {
				return err
			}
			n.changed(now)
		}
		op.Attr = n.attr
		return nil
	case nfs.TreeTouch:
		op.Pre = n.attr
		n.changed(now)
		op.Attr = n.attr
		return nil
	}
	return t.dirOpLocked(op, n, now)
}

// noData says why n has none.
func (n *node) noData() error {
	if n.children != nil {
		return nfs.ErrIsDir
	}
	return nfs.ErrInvalid
}

// changed moves the times that follow a change of content.
func (n *node) changed(now nfs.Time) { n.attr.Mtime, n.attr.Ctime = now, now }

func (t *Tree) setAttrLocked(op *nfs.TreeOp, n *node, now nfs.Time) error {
	op.Pre, op.Attr = n.attr, n.attr
	if op.Guard && op.GuardCtime != n.attr.Ctime {
		return nfs.ErrNotSync
	}
	if err := t.applyLocked(n, &op.Set, now); err != nil {
		return err
	}
	op.Attr = n.attr
	return nil
}

func (t *Tree) applyLocked(n *node, s *nfs.SetAttr, now nfs.Time) error {
	if s.Mask&nfs.SetSize != 0 {
		if n.device == nil {
			return n.noData()
		}
		if err := t.resizeLocked(n, s.Size); err != nil {
			return err
		}
		n.attr.Mtime = now
	}
	a := &n.attr
	a.Ctime = now
	if s.Mask&nfs.SetMode != 0 {
		a.Mode = s.Mode
	}
	if s.Mask&nfs.SetUID != 0 {
		a.UID = s.UID
	}
	if s.Mask&nfs.SetGID != 0 {
		a.GID = s.GID
	}
	switch {
	case s.Mask&nfs.SetAtime != 0:
		a.Atime = s.Atime
	case s.Mask&nfs.SetAtimeNow != 0:
		a.Atime = now
	}
	switch {
	case s.Mask&nfs.SetMtime != 0:
		a.Mtime = s.Mtime
	case s.Mask&nfs.SetMtimeNow != 0:
		a.Mtime = now
	}
	return nil
}

// resizeLocked gives a file another size. What lies beyond it in its last block becomes zero.
func (t *Tree) resizeLocked(n *node, size uint64) error {
	if size > t.o.MaxSize {
		return nfs.ErrTooBig
	}
	if t.used-n.attr.Size+size > t.o.Capacity {
		return volume.ErrNoSpace
	}
	t.used += size - n.attr.Size
	blocks := (size + sector - 1) &^ (sector - 1)
	if n.device.Info().Size != blocks {
		n.device.Resize(blocks)
	}
	if tail := size % sector; tail != 0 && size < n.attr.Size {
		var b [sector]byte
		n.device.ReadAt(b[:], size-tail)
		clear(b[tail:])
		n.device.WriteAt(b[:], size-tail)
	}
	n.attr.Size, n.attr.Used = size, blocks
	return nil
}

func (t *Tree) dirOpLocked(op *nfs.TreeOp, dir *node, now nfs.Time) error {
	if dir.children == nil {
		return nfs.ErrNotDir
	}
	op.Dir, op.DirPre = dir.attr, dir.attr
	var err error
	switch op.Kind {
	case nfs.TreeLookup:
		child := dir.children[op.Name]
		if op.Name == ".." {
			child = dir.parent
		}
		if child == nil {
			return nfs.ErrNotFound
		}
		op.Attr = child.attr
		return nil
	case nfs.TreeReadDir:
		t.listLocked(op, dir)
		return nil
	case nfs.TreeCreate, nfs.TreeMkdir, nfs.TreeSymlink:
		err = t.createLocked(op, dir, now)
	case nfs.TreeRemove, nfs.TreeRmdir:
		err = t.removeLocked(op, dir, now)
	case nfs.TreeRename:
		err = t.renameLocked(op, dir, now)
	default:
		return volume.ErrUnsupported
	}
	op.Dir = dir.attr
	return err
}

func (t *Tree) listLocked(op *nfs.TreeOp, dir *node) {
	all := make([]*node, 0, len(dir.children))
	for _, c := range dir.children {
		if c.cookie > op.Cookie {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *node) int { return cmp.Compare(a.cookie, b.cookie) })
	op.EOF = len(all) <= op.Max
	for _, c := range all[:min(len(all), op.Max)] {
		op.Entries = append(op.Entries, nfs.Entry{Name: c.name, Cookie: c.cookie, Attr: c.attr})
	}
	op.Parent = dir.parent.attr.ID
	op.CookieVerf = [8]byte{}
}

func (t *Tree) createLocked(op *nfs.TreeOp, dir *node, now nfs.Time) error {
	if !utf8.ValidString(op.Name) {
		return nfs.ErrName
	}
	if old := dir.children[op.Name]; old != nil {
		op.Attr = old.attr
		switch {
		case op.Kind != nfs.TreeCreate || old.device == nil:
			return nfs.ErrExists
		case op.How == nfs.Unchecked:
			set := nfs.SetAttr{Mask: op.Set.Mask & nfs.SetSize, Size: op.Set.Size}
			if set.Mask != 0 {
				if err := t.applyLocked(old, &set, now); err != nil {
					return err
				}
			}
			op.Attr = old.attr
			return nil
		case op.How == nfs.Exclusive && old.excl && old.verifier == op.Verifier:
			return nil
		}
		return nfs.ErrExists
	}
	t.serial++
	n := &node{name: op.Name, parent: dir, cookie: t.serial}
	n.attr = nfs.Attr{Type: nfs.Regular, Mode: 0o644, Nlink: 1, UID: op.UID, GID: op.GID, ID: t.newIDLocked(), Atime: now, Mtime: now, Ctime: now}
	switch op.Kind {
	case nfs.TreeMkdir:
		n.attr.Type, n.attr.Mode, n.attr.Nlink = nfs.Directory, 0o755, 2
		n.children = make(map[string]*node)
	case nfs.TreeSymlink:
		n.attr.Type, n.attr.Mode, n.attr.Size, n.target = nfs.Symlink, 0o777, uint64(len(op.Target)), op.Target
	default:
		o := t.o.Device
		o.Name, o.Size, o.ID = op.Name, 0, n.attr.ID
		n.device = memory.New(o)
		n.excl, n.verifier = op.How == nfs.Exclusive, op.Verifier
	}
	if err := t.applyLocked(n, &op.Set, now); err != nil {
		return err
	}
	if n.children != nil {
		dir.attr.Nlink++
	}
	dir.children[n.name] = n
	t.nodes[n.attr.ID] = n
	dir.changed(now)
	op.Attr = n.attr
	return nil
}

// newIDLocked draws an id that no file of this tree had before.
func (t *Tree) newIDLocked() (id nfs.ID) {
	h := fnv.New128a()
	_, _ = h.Write(t.o.Cluster[:]) // a hash takes everything
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, t.serial))
	h.Sum(id[:0])
	return id
}

func (t *Tree) removeLocked(op *nfs.TreeOp, dir *node, now nfs.Time) error {
	n := dir.children[op.Name]
	switch {
	case n == nil:
		return nfs.ErrNotFound
	case op.Kind == nfs.TreeRemove && n.children != nil:
		return nfs.ErrIsDir
	case op.Kind == nfs.TreeRmdir && n.children == nil:
		return nfs.ErrNotDir
	case len(n.children) > 0:
		return nfs.ErrNotEmpty
	}
	t.dropLocked(dir, n)
	dir.changed(now)
	return nil
}

func (t *Tree) dropLocked(dir, n *node) {
	delete(dir.children, n.name)
	delete(t.nodes, n.attr.ID)
	if n.device != nil {
		t.used -= n.attr.Size
		n.device.Remove()
	}
	if n.children != nil {
		dir.attr.Nlink--
	}
}

func (t *Tree) renameLocked(op *nfs.TreeOp, dir *node, now nfs.Time) error {
	to := t.nodes[op.ToID]
	switch {
	case to == nil:
		return nfs.ErrStale
	case to.children == nil:
		return nfs.ErrNotDir
	case !utf8.ValidString(op.ToName):
		return nfs.ErrName
	}
	op.ToDir, op.ToDirPre = to.attr, to.attr
	n := dir.children[op.Name]
	if n == nil {
		return nfs.ErrNotFound
	}
	for up := to; up != t.root; up = up.parent {
		if up == n {
			return nfs.ErrInvalid // into itself
		}
	}
	old := to.children[op.ToName]
	if old == n {
		return nil
	}
	if old != nil {
		if (old.children == nil) != (n.children == nil) || len(old.children) > 0 {
			return nfs.ErrExists
		}
		t.dropLocked(to, old)
	}
	delete(dir.children, n.name)
	if n.children != nil {
		dir.attr.Nlink--
		to.attr.Nlink++
	}
	t.serial++
	n.name, n.parent, n.cookie = op.ToName, to, t.serial
	to.children[n.name] = n
	n.attr.Ctime = now
	dir.changed(now)
	to.changed(now)
	op.ToDir = to.attr
	if n.device != nil {
		n.device.Rename(n.name)
	}
	return nil
}
