package gateway

import (
	"log/slog"
	"slices"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
)

const (
	// fenceRetry is the wait before a fence that etcd did not confirm is written again.
	fenceRetry = 200 * time.Millisecond
	// fenceLife is how long a fence is kept: far longer than anything of its session can be on its way, since each change carries a deadline of at most op_ttl.
	fenceLife = 10 * time.Minute
)

// fences writes fences of sessions of this gateway. It belongs to the first loop.
type fences struct {
	l       loop.Loop
	r       registry.Registry
	c       *client.Client
	lock    time.Duration
	log     *slog.Logger
	timers  []*loop.Timer // armed, to be disarmed at the end
	waits   []*client.Fencing
	stopped bool
}

// newFences makes it over the client of the loop. lock is pg_lock_time.
func newFences(c *client.Client, lock time.Duration, log *slog.Logger) *fences {
	return &fences{l: c.Loop(), r: c.Registry(), c: c, lock: lock, log: log}
}

// put has the OSDs refuse a session, and calls done when all do that may have something of it (client.AwaitFence).
func (f *fences) put(fence cluster.Fence, done func()) {
	if f.stopped {
		return
	}
	name := cluster.FenceSessionName(fence.Session)
	key := cluster.FenceKey(name)
	f.r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&fence)}}}, func(res registry.TxnResult, err error) {
		switch {
		case f.stopped:
		case err != nil:
			f.log.Warn("a fence could not be written yet; the session that waits for it goes on waiting", "session", fence.Session, "err", err)
			f.after(fenceRetry, func() { f.put(fence, done) })
		default:
			f.log.Info("session fenced", "session", fence.Session, "reason", fence.Reason)
			f.await(name, fence, res.Revision, done)
		}
	})
}

func (f *fences) await(name string, fence cluster.Fence, rev registry.Revision, done func()) {
	var w *client.Fencing
	w = f.c.AwaitFence(name, fence, rev, f.lock, func(err error) {
		f.waits = slices.DeleteFunc(f.waits, func(o *client.Fencing) bool { return o == w })
		if err != nil {
			f.log.Warn("a session is fenced again, and waits for that", "session", fence.Session, "err", err)
			f.after(fenceRetry, func() { f.put(fence, done) })
			return
		}
		f.after(fenceLife, func() { f.drop(cluster.FenceKey(name)) })
		done()
	})
	f.waits = append(f.waits, w)
}

// drop removes an old fence. One that outlives its gateway does no harm.
func (f *fences) drop(key string) {
	f.r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Delete, Key: key}}}, func(_ registry.TxnResult, err error) {
		if err != nil && !f.stopped {
			f.after(fenceLife, func() { f.drop(key) })
		}
	})
}

func (f *fences) after(d time.Duration, do func()) {
	t := &loop.Timer{}
	t.Fire = func() {
		for i, o := range f.timers {
			if o == t {
				f.timers = append(f.timers[:i], f.timers[i+1:]...)
				break
			}
		}
		do()
	}
	f.timers = append(f.timers, t)
	f.l.Arm(t, f.l.Now().Add(d))
}

func (f *fences) stop() {
	f.stopped = true
	for _, t := range f.timers {
		f.l.Disarm(t)
	}
	for _, w := range f.waits {
		w.Stop()
	}
}
