package daemon

import (
	"context"
	"log/slog"

	"holdfast/core/admin"
	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/registry/etcd"
)

// OpenClient is OpenLive for a configuration that is not known to follow config/global.
func OpenClient(ctx context.Context, v *config.Values, log *slog.Logger) (*blocking.Conn, error) {
	return OpenLive(ctx, config.NewLive(v, config.Client, log), log)
}

// OpenLive connects to the cluster for reading and changing images, and waits until its state is known. Then live has config/global, and keeps it until the connection is closed,
// which must be the end of live, too.
func OpenLive(ctx context.Context, live *config.Live, log *slog.Logger) (*blocking.Conn, error) {
	v := live.Values()
	key, err := Key(v)
	if err != nil {
		return nil, err
	}
	l, err := system.New(system.Options{Kind: v.String("loop"), Name: "client", Log: log})
	if err != nil {
		return nil, err
	}
	o := client.Defaults()
	o.Key, o.Instance, o.Name, o.Host, o.Log = key, Instance(), "holdfast on "+Host(), Host(), log
	t := clientTuning(v)
	o.RetryInterval, o.EIORetryInterval, o.RetryENOSPC, o.OpTTL = t.RetryInterval, t.EIORetryInterval, t.RetryENOSPC, t.OpTTL
	o.MaxDirtyBytes, o.MaxDirtyOps = int(v.Bytes("client_max_dirty_bytes")), int(v.Int("client_max_dirty_ops"))
	o.Peer = func(p *peer.Options) { setPeerTimes(p, v) }
	ctx, cancel := context.WithTimeout(ctx, v.Duration("etcd_slow_timeout"))
	defer cancel()
	// A configuration without etcd addresses is found out before the loop runs.
	if len(v.List("etcd_address")) == 0 {
		l.Stop()
		return nil, noCluster()
	}
	var reg *etcd.Registry // on the loop
	conn, err := blocking.Open(ctx, blocking.Config{Runner: l, Client: o, Registry: func(l loop.Loop) (_ registry.Registry, err error) {
		reg, err = OpenRegistry(l, v, log)
		return reg, err
	}})
	if err != nil {
		return nil, Explain(v, err)
	}
	live.SetEtcd(conn.Snapshot().Global)
	part := live.Part(func(f func()) { l.Post(&loop.Task{Run: f}) })
	err = conn.Do(ctx, func(c *client.Client, _ *client.Session, done func(error)) {
		tuneRegistry(part, reg)
		tuneClient(part, c)
		Follow(l, reg, live)
		done(nil)
	})
	if err != nil {
		_ = conn.Close() // err is what matters
		return nil, Explain(v, err)
	}
	return conn, nil
}

func setPeerTimes(p *peer.Options, v *config.Values) {
	t := peerTimes(v)
	p.ConnectTimeout, p.HandshakeTimeout, p.ConnectInterval, p.ConnectIntervalMax = t.ConnectTimeout, t.HandshakeTimeout, t.ConnectInterval, t.ConnectIntervalMax
	p.IdleTimeout, p.PingTimeout = t.IdleTimeout, t.PingTimeout
}

func noCluster() error {
	return &admin.Error{Kind: admin.Usage, What: "no cluster is named", Way: "give --config DIR/holdfast.conf, set HOLDFAST_CONFIG, or give --etcd_address HOST:PORT"}
}
