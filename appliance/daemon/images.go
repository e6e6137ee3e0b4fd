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
)

// OpenClient connects to the cluster for reading and changing images, and waits until its state is known.
func OpenClient(ctx context.Context, v *config.Values, log *slog.Logger) (*blocking.Conn, error) {
	key, err := Key(v)
	if err != nil {
		return nil, err
	}
	l, err := system.New(system.Options{Kind: v.String("loop"), Name: "client", Log: log})
	if err != nil {
		return nil, err
	}
	o := client.Defaults()
	o.Key, o.Instance, o.Name, o.Log = key, Instance(), "holdfast on "+Host(), log
	o.RetryInterval, o.RetryENOSPC, o.OpTTL = v.Duration("client_retry_interval"), v.Bool("client_retry_enospc"), v.Duration("op_ttl")
	o.Peer = func(p *peer.Options) { setPeerTimes(p, v) }
	ctx, cancel := context.WithTimeout(ctx, v.Duration("etcd_slow_timeout"))
	defer cancel()
	// A configuration without etcd addresses is found out before the loop runs.
	if len(v.List("etcd_address")) == 0 {
		l.Stop()
		return nil, noCluster()
	}
	conn, err := blocking.Open(ctx, blocking.Config{Runner: l, Client: o, Registry: func(l loop.Loop) (registry.Registry, error) { return OpenRegistry(l, v, log) }})
	if err != nil {
		return nil, Explain(v, err)
	}
	return conn, nil
}

func setPeerTimes(p *peer.Options, v *config.Values) {
	t := PeerOptions(v)
	p.ConnectTimeout, p.HandshakeTimeout, p.ConnectInterval, p.ConnectIntervalMax = t.ConnectTimeout, t.HandshakeTimeout, t.ConnectInterval, t.ConnectIntervalMax
	p.IdleTimeout, p.PingTimeout = t.IdleTimeout, t.PingTimeout
}

func noCluster() error {
	return &admin.Error{Kind: admin.Usage, What: "no cluster is named", Way: "give --config DIR/holdfast.conf, set HOLDFAST_CONFIG, or give --etcd_address HOST:PORT"}
}
