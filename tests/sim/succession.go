package sim

import (
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/osd"
)

// patience is how long the operator lets an OSD wait with a disk that cannot be trusted, before replacing the disk.
const patience = 30 * time.Second

// readTries is how often in a row an OSD is started again that could not read its disk: more often than reads fail.
const readTries = 5

// heir is an OSD's process that waits to empty its disk, since that cannot be trusted.
type heir struct {
	m     *member
	cause error
	done  func()
	loop  *sim.Loop
	close func()
	over  bool
}

// succeed has an OSD whose store cannot be trusted empty it once nobody needs it, as the daemon does; when that takes too long, an operator puts an empty disk in its place.
func (m *member) succeed(cause error, done func()) {
	if !osd.Untrusted(cause) {
		if m.tries++; m.tries <= readTries {
			// It may be that reads failed, and nothing on the disk is damaged: nobody throws it away before having tried again. It may have the only copy, while another disk is filled.
			m.r.c.W.After(time.Second, done)
			return
		}
		m.tries = 0
		m.r.cover("damaged store replaced")
		m.newDisk(done)
		return
	}
	h := &heir{m: m, cause: cause, done: done}
	m.heir = h
	h.start()
	m.r.c.W.After(patience, func() {
		if h.over {
			return
		}
		m.r.cover("damaged store replaced")
		h.end(true)
	})
}

func (h *heir) start() {
	m, c := h.m, h.m.r.c
	h.loop = c.W.NewLoop(m.n.name())
	reg := c.open(h.loop)
	h.close = reg.Close
	l := h.loop
	osd.Succeed(l, osd.SuccessionOptions{
		Num: m.n.Num, Host: m.n.name(), Cause: h.cause, Registry: reg, Auto: true,
		OpenDisk: func(alone bool) (loop.Disk, error) {
			return l.OpenDisk(m.n.disk(), loop.DiskOptions{ReadOnly: !alone, Exclusive: alone})
		},
		Done: func(err error) {
			c.W.After(0, func() {
				if h.over || h.loop != l {
					return // the power went first
				}
				if err == nil {
					m.r.cover("damaged store emptied by its OSD")
				} else {
					m.r.logf("osd%d: %v", m.n.Num, err)
					m.r.cover("damaged store replaced")
				}
				h.end(err != nil)
			})
		},
	})
}

// end goes on with the disk, or with a new one.
func (h *heir) end(replace bool) {
	m := h.m
	h.over, m.heir = true, nil
	if h.loop != nil {
		h.close()
		h.loop.Kill()
	}
	m.n.Store, m.opened = nil, layout.StoreID{}
	if replace {
		m.newDisk(h.done)
		return
	}
	h.done()
}

// powerOff takes the process's power; it begins again a second later.
func (h *heir) powerOff() {
	if h == nil || h.loop == nil {
		return
	}
	h.close()
	h.loop.PowerOff()
	h.loop = nil
	h.m.r.cover("power failed while a store waited to be emptied")
	h.m.r.c.W.After(time.Second, func() {
		if !h.over {
			h.start()
		}
	})
}
