// Package etcd is the registry on etcd v3, through its gRPC client.
//
// The client's calls run on goroutines of their own, which post what they learn to the loop; a Registry and its leases are touched on the loop only. Deadlines of leases are
// counted on the loop, from before the request was handed to the goroutine, so a slow network or a slow goroutine makes them shorter, never longer.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// Options says which etcd and how patiently.
type Options struct {
	Endpoints    []string      // host:port, with or without http:// or https:// before and /v3 behind
	Prefix       string        // of all keys; default /vitastor
	QuickTimeout time.Duration // of a request (etcd_quick_timeout); default 1 s
	SlowTimeout  time.Duration // of a large one (etcd_slow_timeout); default 5 s
	MaxAttempts  int           // of a request that changes nothing (max_etcd_attempts); default 5
	Progress     time.Duration // how often a watch is asked for a sign of life, which has to come within QuickTimeout; default 5 s
	TLS          *tls.Config
	User         string
	Password     string
	Log          *slog.Logger // default: the loop's
}

const (
	// maxInFlight bounds the requests that wait for etcd at once; the others wait for their turn within their timeout.
	maxInFlight = 256
	// maxMessage is the largest transaction that is sent; etcd has to be started with --max-request-bytes of it.
	maxMessage = 100 << 20
	// retryPause is the wait before an attempt that follows a failed one.
	retryPause = 200 * time.Millisecond
)

// Registry is one loop's connection to etcd.
type Registry struct {
	l      loop.Loop
	times  atomic.Pointer[patience]
	root   string // prefix with a slash at its end
	log    *slog.Logger
	closed bool // on the loop

	doubt   atomic.Pointer[chan struct{}] // closed when the watches are to be tried
	doubted loop.Instant                  // when that was last; on the loop
	again   loop.Timer                    // for a doubt that came too soon after the last

	o       Options
	members []member
	seat    atomic.Pointer[seat]

	ctx    context.Context // of everything that runs
	cancel context.CancelFunc
	slots  chan struct{}
	wg     sync.WaitGroup
}

var _ registry.Registry = (*Registry)(nil)

// Open makes a handle for l. It does not wait for etcd, unless a user has to log in.
func Open(l loop.Loop, o Options) (*Registry, error) {
	if o.Log == nil {
		o.Log = l.Log()
	}
	endpoints, err := Endpoints(o.Endpoints, o.TLS != nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{l: l, root: Root(o.Prefix), log: o.Log.With("component", "registry"), ctx: ctx, cancel: cancel, slots: make(chan struct{}, maxInFlight), o: o}
	for _, e := range endpoints {
		r.members = append(r.members, member{endpoint: e})
	}
	r.times.Store(&patience{Times{QuickTimeout: o.QuickTimeout, SlowTimeout: o.SlowTimeout, Progress: o.Progress, MaxAttempts: o.MaxAttempts}.fill(), make(chan struct{})})
	r.doubt.Store(new(make(chan struct{})))
	r.again.Fire = r.try
	first := rand.IntN(len(endpoints))
	for i := range endpoints {
		if _, err = r.client(first + i); err == nil {
			r.seat.Store(r.take(first + i))
			return r, nil
		}
	}
	cancel()
	return nil, fmt.Errorf("etcd at %s: %w", strings.Join(endpoints, ","), err)
}

// connect makes a client of one member.
func (r *Registry) connect(endpoint string) (*clientv3.Client, error) {
	o, times := &r.o, r.Times()
	return clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, TLS: o.TLS, Username: o.User, Password: o.Password, Context: r.ctx, Logger: zap.NewNop(), DialTimeout: times.SlowTimeout,
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 2 * time.Second, MaxCallSendMsgSize: maxMessage,
		// gRPC would wait up to two minutes before it tries a member again that was away.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: times.QuickTimeout,
		})},
	})
}

// Root is the prefix of all keys, with one slash before and behind.
func Root(prefix string) string {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		prefix = "vitastor"
	}
	return "/" + prefix + "/"
}

// Endpoints brings addresses into the form that the client wants.
func Endpoints(addresses []string, useTLS bool) ([]string, error) {
	var out []string
	for _, a := range addresses {
		a = strings.TrimSpace(a)
		scheme, host := "http", a
		if useTLS {
			scheme = "https"
		}
		if before, after, ok := strings.Cut(a, "://"); ok {
			scheme, host = before, after
		}
		host = strings.TrimSuffix(strings.TrimSuffix(host, "/"), "/v3")
		if _, _, err := net.SplitHostPort(host); err != nil || scheme != "http" && scheme != "https" {
			return nil, fmt.Errorf("etcd address %q: want host:port, or http://host:port", a)
		}
		if scheme == "https" && !useTLS {
			return nil, fmt.Errorf("etcd address %q asks for TLS, but no certificates are configured", a)
		}
		out = append(out, scheme+"://"+host)
	}
	if len(out) == 0 {
		return nil, errors.New("no etcd address is configured; set etcd_address")
	}
	return out, nil
}

func orDefault[T ~int | ~int64](d, def T) T {
	if d <= 0 {
		return def
	}
	return d
}

// Close ends the watches, forgets the leases (which run out; Revoke them first for a clean stop), and waits until nothing of it runs. It is called on the loop; no
// callback comes after it.
func (r *Registry) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.l.Disarm(&r.again)
	r.cancel()
	r.wg.Wait()
	for i := range r.members {
		c := r.members[i].client
		if c == nil {
			continue
		}
		if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
			r.log.Debug("etcd client closed", "err", err)
		}
	}
}

// post runs f on the loop, unless the registry is closed by then.
func (r *Registry) post(f func()) {
	r.l.Post(&loop.Task{Run: func() {
		if !r.closed {
			f()
		}
	}})
}

// call runs work on a goroutine, with a context that ends after the timeout, then done on the loop.
func (r *Registry) call(timeout time.Duration, work func(context.Context) error, done func(error)) {
	if r.closed {
		return
	}
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, timeout)
		defer cancel()
		var err error
		select {
		case r.slots <- struct{}{}:
			err = work(ctx)
			<-r.slots
		case <-ctx.Done():
			err = ctx.Err()
		}
		r.post(func() {
			if unanswered(err) {
				r.Doubt()
			}
			done(err)
		})
	})
}

// Doubt implements registry.Registry. The watches are tried once in QuickTimeout: a doubt that comes sooner has to wait, since the member may have begun to hang after they were.
func (r *Registry) Doubt() {
	now, next := r.l.Now(), r.doubted.Add(r.Times().QuickTimeout)
	switch {
	case r.closed || r.again.Armed():
	case r.doubted != 0 && now < next:
		r.l.Arm(&r.again, next)
	default:
		r.try()
	}
}

// try asks every watch for a sign of life, and the member that requests go to.
func (r *Registry) try() {
	r.doubted = r.l.Now()
	close(*r.doubt.Swap(new(make(chan struct{}))))
	r.probe()
}

// pause waits, or returns early when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
