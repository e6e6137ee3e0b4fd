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
	Config *config.Values // with config/global
	Host   string
	Log    *slog.Logger
}

// Monitor is one running monitor on its own thread.
type Monitor struct {
	t   *Thread
	reg *etcd.Registry
	mon *monitor.Monitor
}

// StartMonitor starts a monitor; it leads when no other one does.
func StartMonitor(o MonitorOptions) (*Monitor, error) {
	t, err := NewThread(o.Config.String("loop"), "monitor", o.Log)
	if err != nil {
		return nil, err
	}
	m := &Monitor{t: t}
	v := o.Config
	t.Do(func() {
		if m.reg, err = OpenRegistry(t, v, o.Log); err != nil {
			return
		}
		m.mon = monitor.Start(t, monitor.Options{
			Hostname: o.Host, IP: hostIPs(), Registry: m.reg, LeaseTime: v.Duration("etcd_mon_ttl"), ChangeDelay: v.Duration("mon_change_timeout"),
			StatsDelay: v.Duration("mon_stats_timeout"), OSDOutTime: v.Duration("osd_out_time"), Log: o.Log,
		})
	})
	if err != nil {
		t.Stop()
		return nil, err
	}
	return m, nil
}

// Stop gives the leadership up and ends the thread.
func (m *Monitor) Stop(ctx context.Context) error {
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
