package gateway

import (
	"slices"

	"holdfast/appliance/exports"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// handle is one session's use of an image on one lane.
type handle struct {
	d       *device
	ln      *lane
	s       volume.Session
	id      exports.ID
	inode   layout.Inode    // that the image is now
	pools   []layout.PoolID // in which it has been since the handle was attached
	session *client.Session
	info    volume.Info
	events  volume.EventHandler

	gates   int         // what has to come about before the first operation may be sent
	taking  bool        // one of them: the session before has to be out of the way
	taken   []func()    // called when it is
	waiting requestList // for that
	running requestList // the client has them
	changes int         // of them, those that change something

	gone     bool // the image was removed
	fenced   bool // another session has taken over, or the handle was cut off
	leaving  bool // Detach was called
	closing  bool // and the session is being closed
	detached func()
	fencing  bool     // the session's fence is being written
	outcome  []func() // called when it is in force
	grace    loop.Timer
}

var _ volume.Handle = (*handle)(nil)

// detachGrace is how long beyond op_ttl a detached handle's operations may take before they are given up and the session is fenced.
const detachGrace = 1e9

// Info is volume.Handle's.
func (h *handle) Info() volume.Info { return h.info }

// Events is volume.Handle's.
func (h *handle) Events(e volume.EventHandler) { h.events = e }

func (h *handle) event(e volume.Event) {
	if h.events != nil {
		h.events.VolumeEvent(e)
	}
}

// describe takes over what the image is.
func (h *handle) describe(i *exports.Image) {
	h.info = i.Info
	h.fit(uint64(i.Inode.Size), bool(i.Inode.ReadOnly))
}

// fit sets what depends on the session. A file's last sector may be unfinished; NFS, which knows where the file ends, gets all of it, so that what lies behind the end stays zero.
func (h *handle) fit(size uint64, readOnly bool) {
	if h.s.Protocol == "nfs" {
		size += exports.Sector - 1
	}
	h.info.Size = size &^ (exports.Sector - 1)
	h.info.ReadOnly = readOnly || h.s.ReadOnly
}

// refresh looks at what the image is in a newer snapshot.
func (h *handle) refresh(next *cluster.Snapshot) {
	if h.gone {
		return
	}
	i, ok := next.Inode(h.inode)
	if !ok || bool(i.Deleted) {
		h.gone = true
		h.refuseWaiting(volume.ErrGone)
		h.event(volume.Gone)
		return
	}
	if uint64(i.Mod) <= h.info.Generation {
		return
	}
	old := h.info
	h.info.Name, h.info.Generation = i.Name, uint64(i.Mod)
	h.fit(uint64(i.Size), bool(i.ReadOnly))
	if h.info.Size != old.Size || h.info.ReadOnly != old.ReadOnly {
		h.event(volume.Resized)
	}
	if h.info.Name != old.Name {
		h.event(volume.Renamed)
	}
}

// heard opens the first gate: this lane has heard of the image. It may have changed since.
func (h *handle) heard() {
	h.refresh(h.ln.c.Snapshot())
	h.opened()
}

// opened opens a gate; with the last one what has waited begins.
func (h *handle) opened() {
	if h.gates--; h.gates > 0 {
		return
	}
	for r := h.waiting.pop(); r != nil; r = h.waiting.pop() {
		h.start(r)
	}
	h.maybeClose()
}

// tookOver opens the gate of the session before.
func (h *handle) tookOver() {
	h.taking = false
	taken := h.taken
	h.taken = nil
	for _, f := range taken {
		f()
	}
	h.opened()
}

// refuseWaiting fails what has not been sent.
func (h *handle) refuseWaiting(err error) {
	for r := h.waiting.pop(); r != nil; r = h.waiting.pop() {
		h.ln.refuse(r, err)
	}
}

// cut ends the session at once, and calls done when none of its changes, nor of those it took over from, can take effect any more.
func (h *handle) cut(reason string, done func()) {
	if h.taking {
		last := done
		done = func() {
			if h.taking {
				h.taken = append(h.taken, last)
				return
			}
			last()
		}
	}
	if h.fencing {
		h.outcome = append(h.outcome, done)
		return
	}
	under := h.changes > 0
	if !h.fenced {
		h.fenced = true
		h.refuseWaiting(volume.ErrFenced)
		h.session.Fence()
	}
	if !under || h.session.ID() == 0 {
		done()
		return
	}
	h.fencing, h.outcome = true, append(h.outcome, done)
	h.ln.im.fence(h.ln, cluster.Fence{Session: h.session.ID(), Pools: slices.Clone(h.pools), Reason: reason}, func() {
		h.fencing = false
		outcome := h.outcome
		h.outcome = nil
		for _, f := range outcome {
			f()
		}
		h.maybeClose()
	})
}

// Detach is volume.Handle's. What is under way may take op_ttl and a second more, in which each change is done or can no longer start; then the session is fenced.
func (h *handle) Detach(done func()) {
	if h.leaving {
		panic("gateway: a handle was detached twice")
	}
	h.leaving, h.detached, h.events = true, done, nil
	h.ln.l.Arm(&h.grace, h.ln.l.Now().Add(h.ln.c.Tuning().OpTTL+detachGrace))
	h.maybeClose()
}

// cutOff gives up what is still under way after Detach.
func (h *handle) cutOff() {
	if !h.closing {
		h.cut("its client has left with changes under way", func() {})
		h.maybeClose()
	}
}

// maybeClose ends the handle once it is detached and nothing of it is left. As long as a fence is awaited it stays the holder of its nexus, so that a successor waits, too.
func (h *handle) maybeClose() {
	if !h.leaving || h.closing || h.fencing || h.taking || h.running.first != nil || h.waiting.first != nil {
		return
	}
	h.closing = true
	h.ln.l.Disarm(&h.grace)
	h.d.im.leaveNexus(h)
	list := slices.DeleteFunc(h.ln.handles[h.id], func(o *handle) bool { return o == h })
	if len(list) == 0 {
		delete(h.ln.handles, h.id)
	} else {
		h.ln.handles[h.id] = list
	}
	h.session.Close(h.detached)
}
