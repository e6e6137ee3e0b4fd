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
	Config  *config.Live // with config/global
	Key     []byte
	Host    string
	Version string
	Log     *slog.Logger
}

// Gateway is one running gateway on its own threads.
type Gateway struct {
	*gateway.Gateway
	live       *config.Live
	threads    []*Thread
	parts      []*config.Part
	registries []*etcd.Registry // each touched on its thread's loop
}

// StartGateway starts a gateway; it returns when everything is being served.
func StartGateway(ctx context.Context, o GatewayOptions) (*Gateway, error) {
	v := o.Config.Values()
	n := int(v.Int("gateway_loops"))
	if n == 0 {
		n = min(runtime.NumCPU(), maxGatewayLoops)
	}
	g := &Gateway{live: o.Config}
	loops := make([]loop.Runner, n)
	at := map[loop.Loop]int{}
	for i := range n {
		t, err := NewThread(v.String("loop"), fmt.Sprintf("gateway.%d", i), o.Log)
		if err != nil {
			g.end()
			return nil, err
		}
		g.threads, g.registries = append(g.threads, t), append(g.registries, nil)
		loops[i] = t.Runner
		at[t.Runner] = i
	}
	// Addresses of etcd that cannot be used are found out here, so that opening cannot fail below.
	if err := g.open(v, o.Log); err != nil {
		g.end()
		return nil, err
	}
	var err error
	g.Gateway, err = gateway.Start(gateway.Options{
		Loops: loops, Registry: func(l loop.Loop) registry.Registry { return g.registries[at[l]] }, Key: o.Key, Instance: Instance(), Config: v, Host: o.Host, Version: o.Version,
		Log: o.Log, Peer: func(p *peer.Options) { setPeerTimes(p, v) }, Canceled: ctx.Done(),
	})
	if err != nil {
		g.end()
		return nil, err
	}
	for i, t := range g.threads {
		part := o.Config.Part(t.Later)
		g.parts = append(g.parts, part)
		t.Do(func() {
			tuneRegistry(part, g.registries[i])
			tuneLane(part, g.Gateway, i)
		})
	}
	return g, nil
}

// Follow keeps the configuration as config/global is. One part of a process does that.
func (g *Gateway) Follow() {
	g.threads[0].Do(func() { Follow(g.threads[0], g.registries[0], g.live) })
}

// open connects every loop to etcd.
func (g *Gateway) open(v *config.Values, log *slog.Logger) (err error) {
	for i, t := range g.threads {
		t.Do(func() { g.registries[i], err = OpenRegistry(t, v, log) })
		if err != nil {
			g.registries[i] = nil
			return err
		}
	}
	return nil
}

// Stop ends the gateway in order, and its threads.
func (g *Gateway) Stop(ctx context.Context) error {
	for _, p := range g.parts {
		p.End()
	}
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
