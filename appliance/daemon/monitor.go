package daemon

import (
	"context"
	"log/slog"

	"holdfast/core/config"
	"holdfast/core/registry/etcd"
	"holdfast/monitor"
)

// MonitorOptions say how to run a monitor.
type MonitorOptions struct {
	Config *config.Live // with config/global
	Host   string
	Log    *slog.Logger
	// Snapshots is the folder for snapshots of etcd where etcd_snapshot_dir names none [DefaultSnapshots].
	Snapshots string
}

// Monitor is one running monitor on its own thread.
type Monitor struct {
	t    *Thread
	live *config.Live
	part *config.Part
	reg  *etcd.Registry
	mon  *monitor.Monitor
	keep *keeper
}

// StartMonitor starts a monitor; it leads when no other one does.
func StartMonitor(o MonitorOptions) (*Monitor, error) {
	v := o.Config.Values()
	t, err := NewThread(v.String("loop"), "monitor", o.Log)
	if err != nil {
		return nil, err
	}
	m := &Monitor{t: t, live: o.Config, part: o.Config.Part(t.Later)}
	t.Do(func() {
		if m.reg, err = OpenRegistry(t, v, o.Log); err != nil {
			return
		}
		n := monitorTuning(v)
		m.mon = monitor.Start(t, monitor.Options{
			Hostname: o.Host, IP: hostIPs(), Registry: m.reg, LeaseTime: v.Duration("etcd_mon_ttl"), ChangeDelay: n.ChangeDelay, StatsDelay: n.StatsDelay, OSDOutTime: n.OSDOutTime,
			NoOut: n.NoOut, NearFull: n.NearFull, Log: o.Log,
		})
		tuneRegistry(m.part, m.reg)
		tuneMonitor(m.part, m.mon)
	})
	if err != nil {
		m.part.End()
		t.Stop()
		return nil, err
	}
	m.keep = startKeeper(m, o)
	return m, nil
}

// Follow keeps the configuration as config/global is. One part of a process does that.
func (m *Monitor) Follow() { m.t.Do(func() { Follow(m.t, m.reg, m.live) }) }

// Stop gives the leadership up and ends the thread.
func (m *Monitor) Stop(ctx context.Context) error {
	m.keep.stop()
	m.part.End()
	_, err := Await(ctx, m.t, func(done func(struct{}, error)) { m.mon.Stop(func() { done(struct{}{}, nil) }) })
	m.t.Do(m.reg.Close)
	m.t.Stop()
	return err
}

func hostIPs() (ips []string) {
	local, err := localAddresses()
	if err != nil {
		return nil
	}
	return inNetworks(local, nil)
}
