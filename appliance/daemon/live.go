package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"holdfast/appliance/gateway"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/registry/etcd"
	"holdfast/monitor"
	"holdfast/osd"
	"holdfast/osd/primary"
	"holdfast/osd/scrub"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// Follow keeps live as config/global is, on l, until the registry is closed. One part of a process does that for all.
func Follow(l loop.Loop, r registry.Registry, live *config.Live) {
	cluster.Follow(l, r, cluster.SectionGlobal, feed{live})
}

// feed is a Live as a Follower sees it.
type feed struct{ live *config.Live }

// Changed takes config/global over.
func (f feed) Changed(_, next *cluster.Snapshot, _ []string) { f.live.SetEtcd(next.Global) }

// Fault is named by the part's own follower of the cluster.
func (f feed) Fault(*cluster.KeyError) {}

// Unavailable too.
func (f feed) Unavailable(error) {}

// OnHangup has the configuration file read again at each SIGHUP, until ctx ends.
func OnHangup(ctx context.Context, live *config.Live) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP)
	go func() { // ends with ctx
		defer signal.Stop(got)
		for {
			select {
			case <-got:
				live.Reload()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// FollowLevel keeps the level of a process's log as configured.
func FollowLevel(live *config.Live, level *slog.LevelVar) {
	live.Part(func(f func()) { f() }).On(func(v *config.Values) { level.Set(Level(v)) }, "log_level")
}

// The functions below tie the parts of daemons to what they take over while they run. Each is called on the loop of its part.

func tuneRegistry(p *config.Part, r *etcd.Registry) {
	p.On(func(v *config.Values) { r.SetTimes(etcdTimes(v)) }, "max_etcd_attempts", "etcd_quick_timeout", "etcd_slow_timeout", "etcd_ws_keepalive_interval")
}

func etcdTimes(v *config.Values) etcd.Times {
	return etcd.Times{QuickTimeout: v.Duration("etcd_quick_timeout"), SlowTimeout: v.Duration("etcd_slow_timeout"), Progress: v.Duration("etcd_ws_keepalive_interval"),
		MaxAttempts: int(v.Int("max_etcd_attempts"))}
}

// peerNames are what peerTimes reads.
var peerNames = []string{"peer_connect_interval", "peer_connect_max_interval", "peer_connect_timeout", "osd_idle_timeout", "osd_ping_timeout"}

func peerTimes(v *config.Values) peer.Times {
	return peer.Times{
		ConnectTimeout: v.Duration("peer_connect_timeout"), HandshakeTimeout: v.Duration("peer_connect_timeout"), ConnectInterval: v.Duration("peer_connect_interval"),
		ConnectIntervalMax: v.Duration("peer_connect_max_interval"), IdleTimeout: v.Duration("osd_idle_timeout"), PingTimeout: v.Duration("osd_ping_timeout"),
	}
}

func tuneOSD(p *config.Part, s *osd.OSD) {
	p.On(func(v *config.Values) {
		s.Tune(osd.Tuning{
			StatsInterval: v.Duration("etcd_stats_interval"), Peer: peerTimes(v),
			Primary: primaryTuning(v),
			Sync:    primary.Syncing{Interval: v.Duration("autosync_interval"), Writes: int(v.Int("autosync_writes"))},
			Scrub: osd.Scrubbing{Auto: v.Bool("auto_scrub"), Interval: v.Duration("scrub_interval"), Pass: scrub.Tuning{Depth: int(v.Int("scrub_queue_depth")), Sleep: v.Duration("scrub_sleep"),
				ListLimit: int(v.Int("scrub_list_limit")), Paused: v.Bool("no_scrub")}},
			Full: osdLimits(v),
		})
	}, slices.Concat([]string{"etcd_stats_interval", "autosync_interval", "autosync_writes", "osd_full_ratio", "osd_backfillfull_ratio",
		"auto_scrub", "scrub_interval", "scrub_queue_depth", "scrub_sleep", "scrub_list_limit", "no_scrub"}, primaryNames, peerNames)...)
}

func osdLimits(v *config.Values) secondary.Limits {
	return secondary.Limits{Full: v.Float("osd_full_ratio"), Backfill: v.Float("osd_backfillfull_ratio")}
}

// throttleNames are what throttle reads.
var throttleNames = []string{"throttle_small_writes", "throttle_target_iops", "throttle_target_mbs", "throttle_target_parallelism", "throttle_threshold_us"}

func throttle(v *config.Values) store.Throttle {
	return store.Throttle{On: v.Bool("throttle_small_writes"), IOPS: int(v.Int("throttle_target_iops")), MBs: int(v.Int("throttle_target_mbs")),
		Parallelism: int(v.Int("throttle_target_parallelism")), Threshold: v.Duration("throttle_threshold_us")}
}

func tuneStore(p *config.Part, s *store.Store) {
	p.On(func(v *config.Values) { s.SetThrottle(throttle(v)) }, throttleNames...)
}

// primaryNames are what primaryTuning reads.
var primaryNames = []string{"recovery_queue_depth", "recovery_idle_queue_depth", "recovery_pg_switch", "recovery_sleep_us", "recovery_tune_interval", "recovery_tune_util_low",
	"recovery_tune_util_high", "recovery_tune_client_util_low", "recovery_tune_client_util_high", "recovery_tune_agg_interval", "recovery_tune_sleep_min_us",
	"recovery_tune_sleep_cutoff_us", "no_recovery", "no_rebalance", "slow_log_interval", "scrub_find_best", "scrub_ec_max_bruteforce"}

func primaryTuning(v *config.Values) primary.Tuning {
	return primary.Tuning{
		Recovery: primary.Pacing{
			Depth: int(v.Int("recovery_queue_depth")), IdleDepth: int(v.Int("recovery_idle_queue_depth")), Pause: v.Duration("recovery_sleep_us"), Interval: v.Duration("recovery_tune_interval"),
			UtilLow: v.Float("recovery_tune_util_low"), UtilHigh: v.Float("recovery_tune_util_high"),
			ClientLow: v.Float("recovery_tune_client_util_low"), ClientHigh: v.Float("recovery_tune_client_util_high"), Samples: int(v.Int("recovery_tune_agg_interval")),
			PauseMin: v.Duration("recovery_tune_sleep_min_us"), PauseMax: v.Duration("recovery_tune_sleep_cutoff_us"),
		},
		PGSwitch: int(v.Int("recovery_pg_switch")), NoRecovery: v.Bool("no_recovery"), NoRebalance: v.Bool("no_rebalance"), SlowLog: v.Duration("slow_log_interval"),
		Scrub: primary.Scrubbing{FindBest: v.Bool("scrub_find_best"), MaxCombinations: int(v.Int("scrub_ec_max_bruteforce"))},
	}
}

func tuneMonitor(p *config.Part, m *monitor.Monitor) {
	p.On(func(v *config.Values) { m.Tune(monitorTuning(v)) }, "mon_change_timeout", "mon_stats_timeout", "osd_out_time", "noout", "osd_nearfull_ratio", "osd_full_ratio", "osd_backfillfull_ratio")
}

func monitorTuning(v *config.Values) monitor.Tuning {
	return monitor.Tuning{ChangeDelay: v.Duration("mon_change_timeout"), StatsDelay: v.Duration("mon_stats_timeout"), OSDOutTime: v.Duration("osd_out_time"), NoOut: v.Bool("noout"),
		NearFull: v.Float("osd_nearfull_ratio"), Full: v.Float("osd_full_ratio"), BackfillFull: v.Float("osd_backfillfull_ratio")}
}

func tuneClient(p *config.Part, c *client.Client) {
	p.On(func(v *config.Values) { c.Tune(clientTuning(v)) },
		append([]string{"client_retry_interval", "client_eio_retry_interval", "client_retry_enospc", "op_ttl"}, peerNames...)...)
}

func clientTuning(v *config.Values) client.Tuning {
	return client.Tuning{RetryInterval: v.Duration("client_retry_interval"), EIORetryInterval: v.Duration("client_eio_retry_interval"), RetryENOSPC: v.Bool("client_retry_enospc"),
		OpTTL: v.Duration("op_ttl"), Peer: peerTimes(v)}
}

func tuneLane(p *config.Part, g *gateway.Gateway, lane int) {
	tuneClient(p, g.Client(lane))
	p.On(func(v *config.Values) {
		g.SetAllow(lane, gateway.Allow{NBD: v.Networks("nbd_allow"), NFS: v.Networks("nfs_allow"), ISCSI: v.Networks("iscsi_allow")})
	}, "nbd_allow", "nfs_allow", "iscsi_allow")
}
