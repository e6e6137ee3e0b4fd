package sim

import (
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
)

// In pools whose immediate_commit is not all, all clients but one have every change durable when it is acknowledged, and the checks hold for them as ever. That one (Config.lazySlot) keeps copies, and is alone on its
// image: what it is told must be explained by an order as well, whatever loses its power, since it writes again what was lost. It is not killed, as what it has not synced would end with it.

// lazyAck is a lazy change that its client was told of.
type lazyAck struct {
	pg       layout.PGID
	interval layout.Interval
	object   layout.ObjectID
	version  layout.Version
}

// lazyOf is the client that a session belongs to, if its changes may be lazy.
func (r *run) lazyOf(session uint64) *slot {
	for _, s := range r.slots {
		if s.lazy && s.now != nil && session>>cluster.SessionBits == s.now.instance {
			return s
		}
	}
	return nil
}

// mayBeLazy reports whether changes of a session may be acknowledged before they are durable: those of the lazy client, and deletions of removed images.
func (r *run) mayBeLazy(session uint64) bool {
	return r.plan.Config.Commit != "" && (r.lazyOf(session) != nil || session>>cluster.SessionBits == 900)
}

// acknowledged notes a lazy change of one object that has ended.
func (x *running) acknowledged() {
	s, r, c := x.p.s, x.p.s.r, &x.cop
	g, err := x.p.c.Geometry(c.Inode.Pool())
	if !s.lazy || c.Version == 0 || err != nil || x.o.Kind != opWrite {
		return // a deletion is forgotten when nobody needs it any more
	}
	object := layout.ObjectID{Inode: c.Inode, Stripe: g.Stripe(c.Offset)}
	pg := layout.PGID{Pool: c.Inode.Pool(), Num: g.PG(object.Stripe)}
	if last := r.probes[pg]; last != nil {
		s.acked = lazyAck{pg, last.interval, object, c.Version}
	}
}

// flushed looks whether the last change that was acknowledged before a Flush, which has ended, is durable now.
func (x *running) flushed() {
	r, a := x.p.s.r, x.synced
	last := r.probes[a.pg]
	if !x.p.s.lazy || a.version == 0 || last == nil || last.interval != a.interval || r.versions[a.object] != a.version {
		return // another interval may have other members
	}
	r.cover("synced change looked at")
	r.checkDurable(a.pg, a.object, a.version)
}

// flushLazy has the lazy client sync what it has written.
func (r *run) flushLazy() {
	for _, s := range r.slots {
		if !s.lazy {
			continue
		}
		p, done := s.now, false
		op := &client.Op{Kind: client.Flush, Inode: r.images[len(r.images)-1].id, Done: func(op *client.Op) {
			if done = true; op.Err != nil {
				r.fail("the last flush of client %d: %v", s.n+1, op.Err)
			}
		}}
		p.l.Post(&loop.Task{Run: func() { p.c.Submit(op) }})
		if !r.c.W.RunUntil(func() bool { return done || r.broken }, time.Minute) {
			r.fail("the last flush of client %d does not end", s.n+1)
		}
	}
}
