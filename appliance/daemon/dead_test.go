package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
	"holdfast/osd/secondary"
)

// TestReportedDeathRevokesTheLease: every key of the dead run goes, nothing that it has sent can come after that, and a later run of the OSD is left alone.
func TestReportedDeathRevokesTheLease(t *testing.T) {
	c, address := startEtcd(t)
	ctx := t.Context()
	v, err := config.Load(config.Sources{Flags: map[string]string{"etcd_address": address}, FileName: "none"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := Connect(v, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	lease, err := c.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, v any) error {
		_, err := c.Put(ctx, "/vitastor/"+key, string(cluster.Value(v)), clientv3.WithLease(lease.ID))
		return err
	}
	pgs := []string{cluster.PGStateKey(layout.PGID{Pool: 1, Num: 1}), cluster.PGStateKey(layout.PGID{Pool: 1, Num: 2})}
	for _, err := range []error{
		put(cluster.OSDStateKey(1), &cluster.OSDState{State: "up", Addresses: []string{"127.0.0.1"}, Host: "h", Port: 1, Instance: 7}),
		put(pgs[0], &cluster.PGState{Primary: 1, State: cluster.StateActive}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// An OSD that takes connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := c.Put(ctx, "/vitastor/"+cluster.OSDStateKey(2), string(cluster.Value(&cluster.OSDState{
		State: "up", Addresses: []string{"127.0.0.1"}, Host: "h", Port: cluster.Number(silent.Addr().(*net.TCPAddr).Port), Instance: 8,
	}))); err != nil {
		t.Fatal(err)
	}
	keys := func() int64 {
		res, err := c.Get(context.Background(), "/vitastor/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return res.Count - 1 // that of OSD 2
	}
	report := func(instance uint64) error {
		return k.ReportDeath(ctx, nil, secondary.Holder{OSD: 1, Instance: instance})
	}
	if err := report(6); err != nil || keys() != 2 {
		t.Errorf("the death of an earlier run: %v, and %d keys of the later one are left, want 2", err, keys())
	}
	reported := make(chan error, 1)
	go func() { reported <- report(7) }()
	for keys() != 0 {
		select {
		case err := <-reported:
			t.Fatalf("the report ended (%v), and %d keys are left", err, keys())
		case <-time.After(5 * time.Millisecond):
		}
	}
	select {
	case err := <-reported:
		t.Errorf("the lease was revoked only when OSD 2 had not answered for %v (%v)", announceTime, err)
	default:
	}
	if err := <-reported; err != nil {
		t.Error(err)
	}
	if err := put(pgs[1], &cluster.PGState{Primary: 1, State: cluster.StateActive}); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("what the dead run sent, and comes late: %v, want it refused", err)
	}
}
