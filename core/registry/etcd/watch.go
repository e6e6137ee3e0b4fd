package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"holdfast/core/registry"
)

// watch is one logical watch: one etcd watch over what its prefixes have in common, filtered here, because etcd keeps several watches in no common order.
type watch struct {
	r        *Registry
	w        registry.Watcher
	prefixes []string
	next     int64  // the next revision to ask for; of the goroutine
	cluster  uint64 // etcd's id of itself, which a restored copy has another of; of the goroutine
	out      bool   // Unavailable was said and nothing came since; of the goroutine
	stopped  bool   // of the loop
	number   int    // of the member that is asked, in turn; of the goroutine
	client   *clientv3.Client
}

var (
	errSilent = errors.New("etcd did not answer on the watch")
	errOther  = errors.New("etcd is another cluster now, such as a restored copy")
)

// Watch implements registry.Registry.
func (r *Registry) Watch(prefixes []string, from registry.Revision, to registry.Watcher) (stop func()) {
	w := &watch{r: r, w: to, prefixes: prefixes, next: int64(from), number: rand.IntN(1 << 20)}
	ctx, cancel := context.WithCancel(r.ctx)
	if !r.closed {
		r.wg.Go(func() { w.run(ctx) })
	}
	return func() {
		w.stopped = true
		cancel()
	}
}

// run is the watch's goroutine, which ends with ctx. It alone touches next and out.
func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.locate(ctx)
		if err == nil {
			err = w.stream(ctx)
		}
		if err != nil && ctx.Err() == nil {
			if !w.out {
				w.out = true
				err := fmt.Errorf("%w: watch from revision %d: %w", registry.ErrUnavailable, w.next, err)
				w.deliver(ctx, func() { w.w.Unavailable(err) })
			}
			w.number++
			pause(ctx, retryPause)
		}
	}
}

// locate asks etcd for its revision, by quorum: to start at the next one, or to find that etcd was restored from an older copy, which a watch would not tell.
func (w *watch) locate(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, w.r.Times().QuickTimeout)
	defer cancel()
	var err error
	if w.client, err = w.r.client(w.number); err != nil {
		return err
	}
	resp, err := w.client.Get(ask, w.r.root, clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	now := resp.Header.Revision
	other := w.cluster != 0 && resp.Header.ClusterId != w.cluster
	w.cluster = resp.Header.ClusterId
	if other || w.next > now+1 {
		rev := registry.Revision(now)
		if other {
			rev = 0 // what was seen proves nothing about this copy, whatever its revision is by now
		}
		w.deliver(ctx, func() { w.w.Reset(rev) })
		w.next = now + 1
	}
	if w.next == 0 {
		w.next = now + 1
	}
	return nil
}

// stream delivers what comes until the watch breaks.
func (w *watch) stream(parent context.Context) error {
	// The client lets watches share a stream if their contexts carry the same. Each of ours has its own, so that what is said of one member's silence holds for this watch alone.
	own := metadata.AppendToOutgoingContext(parent, "holdfast-watch", strconv.Itoa(w.number))
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(own))
	defer cancel()
	times, doubt := w.r.times.Load(), *w.r.doubt.Load()
	ch := w.client.Watch(ctx, w.root(), clientv3.WithPrefix(), clientv3.WithRev(w.next), clientv3.WithFragment(), clientv3.WithCreatedNotify())
	tick, limit := time.NewTicker(times.Progress), time.NewTimer(times.QuickTimeout)
	defer tick.Stop()
	defer limit.Stop()
	waits := true // for a sign of life; the first is that the watch stands
	for {
		within := times.QuickTimeout
		select {
		case resp, ok := <-ch:
			switch {
			case !ok:
				return errors.New("the watch was closed")
			case resp.Header.ClusterId != 0 && resp.Header.ClusterId != w.cluster:
				return errOther // the client went on with the watch by itself, at an etcd that knows nothing of what was seen
			case resp.CompactRevision != 0:
				rev := resp.CompactRevision
				w.next = rev + 1
				w.deliver(parent, func() { w.w.Reset(registry.Revision(rev)) })
				return nil
			case resp.Err() != nil:
				return resp.Err()
			}
			waits, w.out = false, false
			limit.Stop()
			w.events(parent, resp.Events)
			continue
		case <-limit.C:
			return errSilent
		case <-times.over:
			times = w.r.times.Load()
			within = times.QuickTimeout
			tick.Reset(times.Progress)
			waits = false // by the limit of before
		case <-tick.C:
		case <-doubt:
			doubt = *w.r.doubt.Load()
			within = times.QuickTimeout / 2 // there is a reason to think that none will come
		}
		if waits {
			continue
		}
		if err := w.progress(ctx, within); err != nil {
			return err
		}
		waits = true
		limit.Reset(within)
	}
}

// progress asks for a sign of life on the stream of ctx.
func (w *watch) progress(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return w.client.RequestProgress(ctx)
}

// events delivers them revision by revision. The client puts fragments together, and etcd never splits a revision over two responses.
func (w *watch) events(ctx context.Context, evs []*clientv3.Event) {
	for len(evs) > 0 {
		rev, n := evs[0].Kv.ModRevision, 1
		for n < len(evs) && evs[n].Kv.ModRevision == rev {
			n++
		}
		var out []registry.Event
		for _, ev := range evs[:n] {
			if kv := w.r.kv(ev.Kv); w.wants(kv.Key) {
				out = append(out, registry.Event{Deleted: ev.Type == clientv3.EventTypeDelete, KV: kv})
			}
		}
		evs, w.next = evs[n:], rev+1
		if len(out) > 0 {
			w.deliver(ctx, func() { w.w.Events(registry.Revision(rev), out) })
		}
	}
}

// root is the longest prefix that covers everything wanted: for a single key that spares us what happens to all others.
func (w *watch) root() string {
	if len(w.prefixes) == 0 {
		return w.r.root
	}
	common := w.prefixes[0]
	for _, p := range w.prefixes[1:] {
		n := 0
		for n < min(len(p), len(common)) && p[n] == common[n] {
			n++
		}
		common = common[:n]
	}
	return w.r.root + common
}

func (w *watch) wants(key string) bool {
	for _, p := range w.prefixes {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

// deliver runs f on the loop and waits for it, so that a slow loop slows the watch down instead of filling memory.
func (w *watch) deliver(ctx context.Context, f func()) {
	done := make(chan struct{})
	w.r.post(func() {
		if !w.stopped {
			f()
		}
		close(done)
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}
