package gateway

import (
	"fmt"

	"holdfast/appliance/exports"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// device is an image, known by its identity: which inode that is may change.
type device struct {
	im *images
	id exports.ID
}

var _ volume.Device = (*device)(nil)

// Attach is volume.Device's. The handle's operations wait inside it until this lane has heard of the image as the catalog shows it, and until the session that it replaces cannot
// change anything any more.
func (d *device) Attach(l loop.Loop, s volume.Session) (volume.Handle, error) {
	i, ok := d.im.catalog.View().ByID(d.id)
	if !ok {
		return nil, volume.ErrGone
	}
	ln := d.im.lane(l)
	if ln == nil {
		return nil, fmt.Errorf("image %q: the loop is not one of this gateway's", i.Info.Name)
	}
	if ln.draining {
		return nil, volume.ErrShutdown
	}
	h := &handle{d: d, ln: ln, s: s, id: d.id, inode: i.Inode.ID, pools: []layout.PoolID{i.Inode.ID.Pool()}, session: ln.c.NewSession(s.Alive)}
	h.grace.Fire = h.cutOff
	h.describe(i)
	ln.handles[d.id] = append(ln.handles[d.id], h)
	h.gates = 1
	ln.await(i, h.heard)
	if s.Nexus != "" {
		d.im.takeOver(h)
	}
	return h, nil
}

// takeOver makes h the holder of its nexus and keeps it waiting until the one before can do nothing any more.
func (im *images) takeOver(h *handle) {
	key := nexusKey{h.id, h.s.Nexus}
	im.mu.Lock()
	old := im.nexus[key]
	im.nexus[key] = h
	im.mu.Unlock()
	if old == nil {
		return
	}
	h.gates++
	h.taking = true
	opened := &loop.Task{Run: h.tookOver}
	cut := &loop.Task{Run: func() {
		old.cut("another session of the same client took over", func() { h.ln.l.Post(opened) })
	}}
	if old.ln == h.ln {
		cut.Run() // so that nothing submitted to h finds the old one working
		return
	}
	old.ln.l.Post(cut)
}

// leaveNexus forgets h as the holder of its nexus.
func (im *images) leaveNexus(h *handle) {
	if h.s.Nexus == "" {
		return
	}
	key := nexusKey{h.id, h.s.Nexus}
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.nexus[key] == h {
		delete(im.nexus, key)
	}
}
