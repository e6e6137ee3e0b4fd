package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"

	"holdfast/appliance/gateway"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/registry/etcd"
)

// maxGatewayLoops is how many loops a gateway has at most when gateway_loops does not say.
const maxGatewayLoops = 8

// GatewayOptions say how to run a gateway.
type GatewayOptions struct {
	Config  *config.Values // with config/global
	Key     []byte
	Host    string
	Version string
	Log     *slog.Logger
}

// Gateway is one running gateway on its own threads.
type Gateway struct {
	*gateway.Gateway
	threads    []*Thread
	registries []*etcd.Registry // each touched on its thread's loop
}

// StartGateway starts a gateway; it returns when everything is being served.
func StartGateway(ctx context.Context, o GatewayOptions) (*Gateway, error) {
	n := int(o.Config.Int("gateway_loops"))
	if n == 0 {
		n = min(runtime.NumCPU(), maxGatewayLoops)
	}
	g := &Gateway{}
	loops := make([]loop.Runner, n)
	at := map[loop.Loop]int{}
	for i := range n {
		t, err := NewThread(o.Config.String("loop"), fmt.Sprintf("gateway.%d", i), o.Log)
		if err != nil {
			g.end()
			return nil, err
		}
		g.threads, g.registries = append(g.threads, t), append(g.registries, nil)
		loops[i] = t.Runner
		at[t.Runner] = i
	}
	// Addresses of etcd that cannot be used are found out here, so that opening cannot fail below.
	if err := g.open(o); err != nil {
		g.end()
		return nil, err
	}
	var err error
	g.Gateway, err = gateway.Start(gateway.Options{
		Loops: loops, Registry: func(l loop.Loop) registry.Registry { return g.registries[at[l]] }, Key: o.Key, Instance: Instance(), Config: o.Config, Host: o.Host, Version: o.Version,
		Log: o.Log, Peer: func(p *peer.Options) { setPeerTimes(p, o.Config) }, Canceled: ctx.Done(),
	})
	if err != nil {
		g.end()
		return nil, err
	}
	return g, nil
}

// open connects every loop to etcd.
func (g *Gateway) open(o GatewayOptions) (err error) {
	for i, t := range g.threads {
		t.Do(func() { g.registries[i], err = OpenRegistry(t, o.Config, o.Log) })
		if err != nil {
			g.registries[i] = nil
			return err
		}
	}
	return nil
}

// Stop ends the gateway in order, and its threads.
func (g *Gateway) Stop(ctx context.Context) error {
	done := make(chan struct{})
	g.Gateway.Stop(func() { close(done) })
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.end()
	return err
}

func (g *Gateway) end() {
	for i, t := range g.threads {
		if r := g.registries[i]; r != nil {
			t.Do(r.Close)
		}
		t.Stop()
	}
}
