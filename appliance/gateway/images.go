package gateway

import (
	"log/slog"
	"slices"
	"sync"

	"holdfast/appliance/exports"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// images are the devices of one gateway, on all of its lanes.
type images struct {
	catalog *exports.Catalog
	// fence has a session refused by the OSDs and calls done, on the lane's loop, when that is certain. It may be called on any lane's loop.
	fence func(ln *lane, f cluster.Fence, done func())
	log   *slog.Logger

	mu    sync.Mutex
	lanes map[loop.Loop]*lane  // guarded by mu
	nexus map[nexusKey]*handle // guarded by mu: who holds each identity that can be taken over
}

type nexusKey struct {
	id    exports.ID
	nexus string
}

func newImages(log *slog.Logger) *images {
	im := &images{log: log, lanes: make(map[loop.Loop]*lane), nexus: make(map[nexusKey]*handle)}
	im.catalog = exports.New(func(id exports.ID) volume.Device { return &device{im, id} })
	return im
}

// lane is one loop's share of the gateway. Everything in it is touched on that loop only.
type lane struct {
	im *images
	l  loop.Loop
	c  *client.Client

	handles  map[exports.ID][]*handle
	free     *request
	done     requestList // completed without the client's help, until the end of the turn
	task     loop.Task
	draining bool
}

// newLane makes the lane of a loop, on that loop. The first lane made keeps the catalog up to date and calls changed after each change of it.
func (im *images) newLane(l loop.Loop, o client.Options, changed func(next *cluster.Snapshot, keys []string, changes []exports.Change)) *lane {
	ln := &lane{im: im, l: l, handles: make(map[exports.ID][]*handle)}
	ln.task.Run = ln.finish
	im.mu.Lock()
	im.lanes[l] = ln
	first := len(im.lanes) == 1
	im.mu.Unlock()
	ln.c = client.New(l, o)
	ln.c.OnChange(func(prev, next *cluster.Snapshot, keys []string) {
		var changes []exports.Change
		if first {
			changes = im.catalog.Update(next, keys)
		}
		ln.changed(next, keys)
		if first && changed != nil {
			changed(next, keys, changes)
		}
	})
	return ln
}

// lane finds the lane of a loop.
func (im *images) lane(l loop.Loop) *lane {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.lanes[l]
}

// changed tells the handles of this lane what became of their images.
func (ln *lane) changed(next *cluster.Snapshot, keys []string) {
	touched := ln.follow(next, keys)
	for _, h := range touched {
		h.refresh(next)
	}
}

func appendNew(list []layout.PoolID, p layout.PoolID) []layout.PoolID {
	if slices.Contains(list, p) {
		return list
	}
	return append(list, p)
}

// follow moves handles to the inodes that now have their image's identity, and returns those that something may have changed for.
func (ln *lane) follow(next *cluster.Snapshot, keys []string) (touched []*handle) {
	if len(ln.handles) == 0 {
		return nil
	}
	var id [16]byte
	if next.ClusterID != nil {
		id = [16]byte(next.ClusterID.ID)
	}
	var inodes []layout.Inode
	for _, key := range keys {
		k, ok := cluster.ParseKey(key)
		if !ok || k.Kind != cluster.KindInode {
			continue
		}
		inodes = append(inodes, k.Inode)
		if i, ok := next.Inode(k.Inode); ok && !bool(i.Deleted) && !bool(i.ReadOnly) {
			for _, h := range ln.handles[exports.Identity(id, i)] {
				h.inode = k.Inode
				h.pools = appendNew(h.pools, k.Inode.Pool())
			}
		}
	}
	for _, inode := range inodes {
		if i, ok := next.Inode(inode); ok && !bool(i.Deleted) {
			touched = append(touched, ln.handles[exports.Identity(id, i)]...)
			continue
		}
		for _, list := range ln.handles { // rare; the order among images does not matter
			for _, h := range list {
				if h.inode == inode {
					touched = append(touched, h)
				}
			}
		}
	}
	return touched
}

// finish hands back what completed without the client.
func (ln *lane) finish() {
	for r := ln.done.pop(); r != nil; r = ln.done.pop() {
		r.end(r.err)
	}
}

// await calls then, later, on this lane's loop, when the lane's snapshot shows an image as the catalog does, or either has found that etcd has gone back to an earlier state.
func (ln *lane) await(i *exports.Image, then func()) {
	etcd, rev := ln.c.Snapshot().Copy, i.Inode.Mod
	ln.c.Await(func(s *cluster.Snapshot) bool {
		now, ok := ln.im.catalog.View().ByID(i.ID)
		return s.Revision >= rev || s.Copy != etcd || !ok || now.Inode.Mod < rev
	}, then)
}

// drain tells every handle that the gateway is about to stop.
func (ln *lane) drain() {
	ln.draining = true
	for _, h := range ln.all() {
		h.event(volume.Draining)
	}
}

// all are the lane's handles.
func (ln *lane) all() (all []*handle) {
	for _, list := range ln.handles {
		all = append(all, list...)
	}
	return all
}
