package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/bootstrap"
	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
	"holdfast/osd/secondary"
)

// stopTime is how long a daemon may take to stop in order.
const stopTime = 15 * time.Second

// setup reads the configuration of a daemon, with etcd's part, and waits for etcd as long as it takes. name is the component in the log; empty when the part says it itself.
// The configuration changes with the file, at SIGHUP, from then on, and with etcd once a part follows that.
func (a *app) setup(ctx context.Context, name string, use config.Component) (*config.Live, *slog.Logger, error) {
	v, err := a.config()
	if err != nil {
		return nil, nil, err
	}
	log, level := daemon.Logger(v)
	if name != "" {
		log = log.With("component", name)
	}
	for _, w := range v.Warnings {
		log.Warn("a parameter has no effect", "what", w)
	}
	live := config.NewLive(v, use, log)
	daemon.FollowLevel(live, level)
	daemon.OnHangup(ctx, live)
	k, err := daemon.Connect(v, log)
	if err != nil {
		return nil, nil, err
	}
	defer k.Close()
	for {
		s, err := k.Global(ctx)
		if err == nil {
			if err := bootstrap.EnsureID(ctx, k, s); err != nil {
				return nil, nil, err
			}
			live.SetEtcd(s.Global)
			break
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		log.Warn("waiting for etcd", "err", err)
	}
	for _, e := range live.Values().Effective(use) {
		if e.From != config.FromDefault {
			log.Info("configured", "parameter", e.Name, "value", e.Value, "from", e.From.String())
		}
	}
	return live, log, nil
}

// ready says that the daemon runs, for people and scripts that wait for it.
func (a *app) ready(what string) { fmt.Fprintf(a.out, "%s\nup\n", what) }

// stopped is the end of a daemon that was asked to stop.
func stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (a *app) osd() *cobra.Command {
	var child bool
	c := &cobra.Command{
		Use: "osd --osd_num N --data_device FILE", Short: "Run one OSD", Args: args(0, 0, "no arguments"),
		Long: `osd serves one disk. It runs as a parent and a child: the child is the OSD; when it dies, the parent tells the other OSDs at once, so that input and output go on within a
second, and starts it again. SIGTERM stops both in order.`,
		Example: "  holdfast disk format /dev/sdb\n  holdfast osd --osd_num 1 --data_device /dev/sdb --etcd_address 10.0.0.1:2379\n  holdfast osd --osd_num 2 --data_device /dev/sdc --meta_device /dev/nvme0n1p2 --etcd_address 10.0.0.1:2379",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			v, err := a.config()
			if err != nil {
				return err
			}
			if v.Int("osd_num") == 0 {
				return &admin.Error{Kind: admin.Usage, What: "--osd_num is missing", Way: "give the OSD's number; `holdfast ls-osd` lists those in use"}
			}
			if v.String("data_device") == "" {
				return &admin.Error{Kind: admin.Usage, What: "--data_device is missing", Way: "give the OSD's disk, formatted by `holdfast disk format`"}
			}
			if child {
				return stopped(a.runOSD(ctx))
			}
			return a.runParent(ctx, v)
		},
	}
	c.Flags().BoolVar(&child, "child", false, "run the OSD itself, without a parent")
	c.Flags().Lookup("child").Hidden = true
	return a.withParams(c, config.OSD, "osd_num", "data_device", "meta_device", "journal_device", "bind_address", "bind_port")
}

// runParent runs the OSD in a child process.
func (a *app) runParent(ctx context.Context, v *config.Values) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	key, err := daemon.Key(v)
	if err != nil {
		return err
	}
	log, _ := daemon.Logger(v)
	log = log.With("component", "parent", "osd", v.Int("osd_num"))
	k, err := daemon.Connect(v, log)
	if err != nil {
		return err
	}
	defer k.Close()
	p := &daemon.Parent{
		Name: fmt.Sprintf("OSD %d", v.Int("osd_num")), Command: append([]string{self, "osd", "--child"}, a.flags()...), Log: log,
		Report: func(ctx context.Context, h secondary.Holder) error { return k.ReportDeath(ctx, key, h) },
		Failed: func(ctx context.Context, f *cluster.OSDFailure) error {
			return k.ReportFailure(ctx, layout.OSDNum(v.Int("osd_num")), f)
		},
	}
	code, err := p.Run(ctx)
	if err == nil && code != 0 {
		return &exitError{code}
	}
	return err
}

// flags are the parameters that were given, for a child.
func (a *app) flags() (out []string) {
	for name, value := range a.params {
		out = append(out, "--"+name+"="+value)
	}
	return out
}

// runOSD is the child.
func (a *app) runOSD(ctx context.Context) error {
	live, log, err := a.setup(ctx, "osd", config.OSD)
	if err != nil {
		return err
	}
	v := live.Values()
	key, err := daemon.Key(v)
	if err != nil {
		return err
	}
	bind, err := daemon.Bind(v)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	n := layout.OSDNum(v.Int("osd_num"))
	o := daemon.OSDOptions{
		Num: n, Device: v.String("data_device"), Config: live, Key: key, Bind: bind, Host: daemon.Host(), Version: Version, Log: log, Fatal: func(err error) { failed <- err },
	}
	halt := func(err error) error {
		f, err := o.Halt(err)
		if f != nil {
			if err := daemon.AnnounceFailure(f); err != nil {
				log.Warn("no parent", "err", err)
			}
		}
		return err
	}
	d, err := daemon.StartOSD(ctx, o)
	if err != nil {
		return halt(err)
	}
	if err := daemon.AnnounceSelf(d.Holder()); err != nil {
		log.Warn("no parent", "err", err)
	}
	d.Follow()
	go daemon.ReturnMemory(ctx)
	a.ready(fmt.Sprintf("OSD %d on %s", n, strings.Join(daemon.DisksOf(v, v.String("data_device")).Paths(), ", ")))
	select {
	case err := <-failed:
		// At once: what the disk did not take was not acknowledged, and the parent reports the death.
		d.Kill()
		return halt(err)
	case <-ctx.Done():
	}
	return a.stop(d.Stop)
}

// stop ends a daemon within stopTime.
func (a *app) stop(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := f(ctx); err != nil {
		return &admin.Error{Kind: admin.Failed, What: "did not stop in order", Err: err, Way: "nothing that was acknowledged is lost"}
	}
	return nil
}

func (a *app) mon() *cobra.Command {
	c := &cobra.Command{
		Use: "mon", Aliases: []string{"monitor"}, Short: "Run a monitor", Args: args(0, 0, "no arguments"),
		Long:    "mon places PGs, picks primaries and sums up statistics. Run two or three of them on different hosts: one leads, the others wait.",
		Example: "  holdfast mon --etcd_address 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			live, log, err := a.setup(ctx, "monitor", config.Monitor)
			if err != nil {
				return stopped(err)
			}
			m, err := daemon.StartMonitor(daemon.MonitorOptions{Config: live, Host: daemon.Host(), Log: log})
			if err != nil {
				return err
			}
			m.Follow()
			a.ready("monitor")
			<-ctx.Done()
			return a.stop(m.Stop)
		},
	}
	return a.withParams(c, config.Monitor)
}
