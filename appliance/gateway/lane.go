package gateway

import (
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// Lane is what a gateway does with images on one loop, without its servers, its threads and its registration: devices over the cluster, sessions, take-over and fencing.
// Everything belongs to the loop. The simulator of whole clusters runs it.
type Lane struct {
	ln *lane
	f  *fences
}

// NewLane makes a Lane. lock is pg_lock_time.
func NewLane(l loop.Loop, o client.Options, lock time.Duration) *Lane {
	log := o.Log
	if log == nil {
		log = l.Log()
	}
	x := &Lane{}
	im := newImages(log)
	im.fence = func(_ *lane, f cluster.Fence, done func()) { x.f.put(f, done) }
	x.ln = im.newLane(l, o, nil)
	x.f = newFences(x.ln.c, lock, log)
	return x
}

// Client is the lane's client.
func (x *Lane) Client() *client.Client { return x.ln.c }

// Catalog is what the lane serves.
func (x *Lane) Catalog() volume.Catalog { return x.ln.im.catalog }

// Close ends the lane; its handles have been detached. done is called when nothing of it is under way any more.
func (x *Lane) Close(done func()) {
	x.f.stop()
	x.ln.c.Close(done)
}
