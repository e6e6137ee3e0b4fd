package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/registry"
	"holdfast/core/registry/etcd"
)

// Link is a connection to a cluster from ordinary code: a command of the CLI, or the start of a daemon.
type Link struct {
	*Thread
	Registry *etcd.Registry
	Config   *config.Values
	part     *config.Part // nil without Keep
}

// Connect makes a Link. It does not wait for the cluster.
func Connect(v *config.Values, log *slog.Logger) (*Link, error) {
	t, err := NewThread(v.String("loop"), "admin", log)
	if err != nil {
		return nil, err
	}
	k := &Link{Thread: t, Config: v}
	t.Do(func() { k.Registry, err = OpenRegistry(t, v, log) })
	if err != nil {
		t.Stop()
		return nil, err
	}
	return k, nil
}

// Keep keeps live as config/global is, and goes by it.
func (k *Link) Keep(live *config.Live) {
	k.part = live.Part(k.Later)
	k.Do(func() {
		tuneRegistry(k.part, k.Registry)
		Follow(k.Thread, k.Registry, live)
	})
}

// Close ends the link.
func (k *Link) Close() {
	if k.part != nil {
		k.part.End()
	}
	k.Do(k.Registry.Close)
	k.Stop()
}

// waiter follows the cluster until it is as somebody wants it.
type waiter struct {
	f    *cluster.Follower
	cond func(*cluster.Snapshot) bool
	done func(*cluster.Snapshot, error)
}

// Changed looks at the next state.
func (w *waiter) Changed(_, next *cluster.Snapshot, _ []string) {
	if w.done != nil && w.cond(next) {
		w.end(next)
	}
}

func (w *waiter) end(s *cluster.Snapshot) {
	if w.done != nil {
		w.done(s, nil)
		w.done = nil
		w.f.Stop()
	}
}

// Fault is seen in the snapshot.
func (w *waiter) Fault(*cluster.KeyError) {}

// Unavailable is seen as time passes.
func (w *waiter) Unavailable(error) {}

// Until follows sections of the cluster's state until cond, which runs on the loop, is true of a snapshot. When ctx ends first, the error says so.
func (k *Link) Until(ctx context.Context, s cluster.Sections, cond func(*cluster.Snapshot) bool) (*cluster.Snapshot, error) {
	var w *waiter
	snap, err := Await(ctx, k.Thread, func(done func(*cluster.Snapshot, error)) {
		w = &waiter{cond: cond, done: done}
		w.f = cluster.Follow(k.Thread, k.Registry, s, w)
	})
	if err != nil {
		k.Do(func() {
			if w != nil {
				w.end(nil)
			}
		})
	}
	return snap, err
}

// Snapshot reads the sections of the cluster's state once.
func (k *Link) Snapshot(ctx context.Context, s cluster.Sections) (*cluster.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, k.Config.Duration("etcd_slow_timeout"))
	defer cancel()
	snap, err := k.Until(ctx, s, func(*cluster.Snapshot) bool { return true })
	return snap, k.Explain(err)
}

// Global reads config/global.
func (k *Link) Global(ctx context.Context) (*cluster.Snapshot, error) {
	return k.Snapshot(ctx, cluster.SectionConfig)
}

// Txn runs a transaction.
func (k *Link) Txn(ctx context.Context, t registry.Txn) (registry.TxnResult, error) {
	res, err := Await(ctx, k.Thread, func(done func(registry.TxnResult, error)) { k.Registry.Txn(t, done) })
	return res, k.Explain(err)
}

// Explain turns the silence of etcd into an error that says what to do.
func (k *Link) Explain(err error) error { return Explain(k.Config, err) }

// Explain turns the silence of etcd into an error that says what to do.
func Explain(v *config.Values, err error) error {
	if err == nil || !errors.Is(err, registry.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &admin.Error{Kind: admin.Unreachable, What: fmt.Sprintf("the cluster's etcd at %s does not answer", strings.Join(v.List("etcd_address"), ",")), Err: err,
		Way: "is the cluster running (`holdfast up`), and is --config or --etcd_address right?"}
}
