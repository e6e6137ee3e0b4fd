package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// lease is a lease that this side holds. Everything of it belongs to the loop.
type lease struct {
	r       *Registry
	ttl     time.Duration
	handler registry.LeaseHandler
	id      registry.LeaseID
	until   loop.Instant // the lease lives at least that long, by the last answer
	next    loop.Instant // when to send the next keep-alive
	asking  bool         // a request is under way
	ended   bool
	timer   loop.Timer
}

// Grant implements registry.Registry. etcd counts whole seconds, and grants no less than about twice its election timeout; the lease is held to the shorter of what was asked
// for and what was granted.
func (r *Registry) Grant(ttl time.Duration, h registry.LeaseHandler) registry.Lease {
	le := &lease{r: r, ttl: ttl, handler: h}
	le.timer.Fire = le.tick
	le.next = r.l.Now()
	le.tick()
	return le
}

func (le *lease) ID() registry.LeaseID { return le.id }

func (le *lease) Until() loop.Instant { return le.until }

// tick does what is due: it asks for the lease, keeps it alive, or finds that it may be over.
func (le *lease) tick() {
	now := le.r.l.Now()
	switch {
	case le.ended || le.r.closed:
		return
	case le.id != 0 && now >= le.until:
		le.lose(fmt.Errorf("%w: no keep-alive was answered for %v", registry.ErrUnavailable, le.ttl))
		return
	case !le.asking && now >= le.next:
		le.asking = true
		le.next = now.Add(le.ttl * 3 / 10)
		if le.id == 0 {
			le.grant(now)
		} else {
			le.renew(now)
		}
	}
	le.arm()
}

// arm sets the timer for what comes first. While a request is under way only the end of the lease counts.
func (le *lease) arm() {
	switch {
	case le.ended:
	case !le.asking && (le.id == 0 || le.next < le.until):
		le.r.l.Arm(&le.timer, le.next)
	case le.id != 0:
		le.r.l.Arm(&le.timer, le.until)
	}
}

func (le *lease) grant(sent loop.Instant) {
	var resp *clientv3.LeaseGrantResponse
	seconds := int64((le.ttl + time.Second - 1) / time.Second)
	le.r.call(le.r.Times().QuickTimeout, func(ctx context.Context) error {
		return le.r.at(ctx, func(ctx context.Context, c *clientv3.Client) (err error) {
			resp, err = c.Grant(ctx, seconds)
			return err
		})
	}, func(err error) {
		le.asking = false
		if err == nil && le.ended {
			le.r.Revoke(registry.LeaseID(resp.ID), nil)
			return
		}
		if le.ended {
			return
		}
		if err != nil {
			if err = classify("a lease", err); registry.IsRequestError(err) {
				le.lose(err)
				return
			}
			le.retry()
			return
		}
		le.id = registry.LeaseID(resp.ID)
		le.until = sent.Add(min(le.ttl, time.Duration(resp.TTL)*time.Second))
		if le.r.l.Now() >= le.until { // it took that long
			le.r.Revoke(le.id, nil)
			le.id = 0
			le.retry()
			return
		}
		le.arm()
		le.handler.Granted(le)
	})
}

func (le *lease) renew(sent loop.Instant) {
	var resp *clientv3.LeaseKeepAliveResponse
	id := le.id
	le.r.call(min(le.r.Times().QuickTimeout, le.until.Sub(sent)), func(ctx context.Context) error {
		return le.r.at(ctx, func(ctx context.Context, c *clientv3.Client) (err error) {
			resp, err = c.KeepAliveOnce(ctx, clientv3.LeaseID(id))
			return err
		})
	}, func(err error) {
		le.asking = false
		if le.ended {
			return
		}
		if err != nil {
			if err = classify("a keep-alive", err); errors.Is(err, registry.ErrNoLease) {
				le.lose(err)
				return
			}
			le.retry()
			return
		}
		le.until = max(le.until, sent.Add(min(le.ttl, time.Duration(resp.TTL)*time.Second)))
		le.arm()
	})
}

// retry asks again soon.
func (le *lease) retry() {
	le.next = le.r.l.Now().Add(retryPause)
	le.arm()
}

func (le *lease) lose(err error) {
	le.ended = true
	le.r.l.Disarm(&le.timer)
	le.handler.Lost(le, err)
}

// Revoke implements registry.Lease.
func (le *lease) Revoke(done func(error)) {
	le.ended = true
	le.r.l.Disarm(&le.timer)
	if le.id == 0 { // not granted yet: if it is, it is given back then
		le.r.post(func() {
			if done != nil {
				done(nil)
			}
		})
		return
	}
	le.r.Revoke(le.id, done)
}

// Revoke implements registry.Registry.
func (r *Registry) Revoke(id registry.LeaseID, done func(error)) {
	r.call(r.Times().QuickTimeout, func(ctx context.Context) error {
		return r.at(ctx, func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Revoke(ctx, clientv3.LeaseID(id))
			return err
		})
	}, func(err error) {
		if err != nil {
			if err = classify("the end of a lease", err); errors.Is(err, registry.ErrNoLease) {
				err = nil // it is over already
			}
		}
		if done != nil {
			done(err)
		}
	})
}
