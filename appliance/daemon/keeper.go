package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"holdfast/appliance/etcdsnapshot"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/registry"
)

const (
	// DefaultSnapshots is where a monitor writes its snapshots of etcd.
	DefaultSnapshots = "/var/lib/holdfast/snapshots"
	// firstSnapshot is how long after its start a monitor writes the first one, so that one that is started again and again does not push good ones out.
	firstSnapshot = time.Minute
	// snapshotTime bounds one snapshot.
	snapshotTime = time.Minute
	// snapshotRetry is the longest wait after one that failed.
	snapshotRetry = time.Minute
)

// keeper writes a snapshot of etcd every etcd_snapshot_interval. Every monitor has one, not the leading one alone: then the files of several hosts survive the loss of one, and there is no gap
// where the leader has changed.
type keeper struct {
	m      *Monitor
	o      MonitorOptions
	log    *slog.Logger
	part   *config.Part
	dir    string
	tuned  atomic.Pointer[keeping]
	wake   chan struct{} // tuned has changed; 1 deep
	cancel context.CancelFunc
	ended  chan struct{}
	note   cluster.EtcdSnapshot // of run
}

// keeping is what may change while it runs.
type keeping struct {
	interval time.Duration // 0: never
	days     int
}

func startKeeper(m *Monitor, o MonitorOptions) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{m: m, o: o, log: o.Log, wake: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{}), note: cluster.EtcdSnapshot{Host: o.Host}}
	k.dir = cmp.Or(o.Config.Values().String("etcd_snapshot_dir"), o.Snapshots, DefaultSnapshots)
	k.part = o.Config.Part(func(f func()) { f() })
	k.part.On(func(v *config.Values) {
		k.tuned.Store(&keeping{v.Duration("etcd_snapshot_interval"), int(v.Int("etcd_snapshot_keep"))})
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}, "etcd_snapshot_interval", "etcd_snapshot_keep")
	go k.run(ctx)
	return k
}

// stop ends it; a file that is being written is finished or removed.
func (k *keeper) stop() {
	k.part.End()
	k.cancel()
	<-k.ended
}

// run is the keeper's goroutine, until stop.
func (k *keeper) run(ctx context.Context) {
	defer close(k.ended)
	started := time.Now()
	var last time.Time // of the last try
	failed := false
	for {
		interval := k.tuned.Load().interval
		due := started.Add(min(interval, firstSnapshot))
		switch {
		case failed:
			due = last.Add(min(interval, snapshotRetry))
		case !last.IsZero():
			due = last.Add(interval)
		}
		t := time.NewTimer(time.Until(due))
		if interval == 0 {
			t.Stop() // until the parameter changes
		}
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-k.wake:
			t.Stop()
			continue
		case <-t.C:
		}
		last = time.Now()
		failed = !k.once(ctx)
	}
}

// once writes one; ok is whether it is there.
func (k *keeper) once(ctx context.Context) (ok bool) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	s, err := etcdsnapshot.Take(ctx, k, time.Now())
	path := ""
	if err == nil {
		path, err = etcdsnapshot.Add(k.dir, s, k.tuned.Load().days)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	if path != "" {
		k.log.Info("wrote a snapshot of etcd", "file", path, "revision", int64(s.Revision), "keys", s.Keys)
		k.note.Time, k.note.File, k.note.Revision, k.note.Keys = s.Time.Unix(), path, s.Revision, s.Keys
	}
	before := k.note.Error
	if k.note.Error = ""; err != nil {
		k.note.Error = err.Error()
	}
	if err != nil && before != k.note.Error {
		k.log.Error("no snapshot of etcd could be written; it is tried again", "folder", k.dir, "err", err)
	}
	note := k.note
	k.m.t.Later(func() { k.m.mon.Note(note) })
	return path != ""
}

// Txn is etcdsnapshot.Registry's.
func (k *keeper) Txn(ctx context.Context, t registry.Txn) (registry.TxnResult, error) {
	return Await(ctx, k.m.t, func(done func(registry.TxnResult, error)) { k.m.reg.Txn(t, done) })
}
