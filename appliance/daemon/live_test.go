package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry/etcd"
	"holdfast/monitor"
	"holdfast/osd"
	"holdfast/osd/primary"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// startEtcd runs a real etcd and returns a client of it and its address.
func startEtcd(t *testing.T) (*clientv3.Client, string) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "etcd")
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.UnsafeNoFsync = true
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = []url.URL{local}, []url.URL{local}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	srv, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	select {
	case <-srv.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd did not start")
	}
	address := srv.Clients[0].Addr().String()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, address
}

// running is one daemon of each kind, as processes of their own would run them.
type running struct {
	t      *testing.T
	etcd   *clientv3.Client
	log    *slog.Logger
	osd    *OSD
	mon    *Monitor
	gate   *Gateway
	client *blocking.Conn
	file   string // configuration of the OSD
	lives  map[config.Component]*config.Live
	levels map[config.Component]*slog.LevelVar
}

func startAll(t *testing.T) *running {
	t.Helper()
	x := &running{t: t, log: slog.New(slog.NewTextHandler(t.Output(), nil)), file: filepath.Join(t.TempDir(), "holdfast.conf"),
		lives: map[config.Component]*config.Live{}, levels: map[config.Component]*slog.LevelVar{}}
	var address string
	x.etcd, address = startEtcd(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	for _, c := range []config.Component{config.OSD, config.Monitor, config.Gateway, config.Client} {
		v, err := config.Load(config.Sources{FileName: x.file, Flags: map[string]string{
			"etcd_address": address, "loop": "portable", "gateway_loops": "2", "nbd_address": "127.0.0.1:0", "nfs_address": "", "iscsi_address": "",
		}})
		if err != nil {
			t.Fatal(err)
		}
		x.lives[c], x.levels[c] = config.NewLive(v, c, x.log), new(slog.LevelVar)
		FollowLevel(x.lives[c], x.levels[c])
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	x.osd, err = StartOSD(ctx, OSDOptions{Num: 1, Device: x.disk(), Config: x.lives[config.OSD], Bind: []loop.Addr{{Network: "tcp", Address: "127.0.0.1:0"}}, Host: "h", Version: "test", Log: x.log})
	check(err)
	t.Cleanup(x.osd.Kill)
	x.osd.Follow()
	x.mon, err = StartMonitor(MonitorOptions{Config: x.lives[config.Monitor], Host: "h", Log: x.log})
	check(err)
	t.Cleanup(func() { _ = x.mon.Stop(context.Background()) })
	x.mon.Follow()
	x.gate, err = StartGateway(ctx, GatewayOptions{Config: x.lives[config.Gateway], Host: "h", Version: "test", Log: x.log})
	check(err)
	t.Cleanup(func() { _ = x.gate.Stop(context.Background()) })
	x.gate.Follow()
	x.client, err = OpenLive(ctx, x.lives[config.Client], x.log)
	check(err)
	t.Cleanup(func() { _ = x.client.Close() })
	return x
}

// disk makes a formatted file.
func (x *running) disk() string {
	x.t.Helper()
	path := filepath.Join(x.t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		x.t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		x.t.Fatal(err)
	}
	th, err := NewThread("portable", "format", x.log)
	if err != nil {
		x.t.Fatal(err)
	}
	defer th.Stop()
	_, err = Await(context.Background(), th, func(done func(struct{}, error)) {
		d, err := OpenDisk(th, path, loop.DiskOptions{})
		if err != nil {
			done(struct{}{}, err)
			return
		}
		store.Format(th, d, store.Config{}, func(_ store.Superblock, err error) { d.Close(func() { done(struct{}{}, err) }) })
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return path
}

// put makes config/global what the JSON says; "" deletes it.
func (x *running) put(text string) {
	x.t.Helper()
	var err error
	if text == "" {
		_, err = x.etcd.Delete(context.Background(), "/vitastor/config/global")
	} else {
		_, err = x.etcd.Put(context.Background(), "/vitastor/config/global", text)
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

// inForce is what each daemon goes by, by parameter: not what its configuration says, but what the part that acts on it holds. Every parameter that changes online has an entry
// for every kind of daemon that uses it. Of the gateway it is what holds on one of its loops.
func (x *running) inForce(lane int) map[config.Component]map[string]any {
	out := map[config.Component]map[string]any{}
	add := func(c config.Component, values ...map[string]any) {
		out[c] = map[string]any{"log_level": x.levels[c].Level()}
		for _, v := range values {
			maps.Copy(out[c], v)
		}
	}
	ofEtcd := func(n etcd.Times) map[string]any {
		return map[string]any{"max_etcd_attempts": n.MaxAttempts, "etcd_quick_timeout": n.QuickTimeout, "etcd_slow_timeout": n.SlowTimeout, "etcd_ws_keepalive_interval": n.Progress}
	}
	ofPeer := func(n peer.Times) map[string]any {
		return map[string]any{"peer_connect_interval": n.ConnectInterval, "peer_connect_max_interval": n.ConnectIntervalMax, "peer_connect_timeout": [2]time.Duration{n.ConnectTimeout, n.HandshakeTimeout},
			"osd_idle_timeout": n.IdleTimeout, "osd_ping_timeout": n.PingTimeout}
	}
	ofPrimary := func(n primary.Tuning) map[string]any {
		r := n.Recovery
		return map[string]any{"recovery_queue_depth": r.Depth, "recovery_idle_queue_depth": r.IdleDepth, "recovery_sleep_us": r.Pause, "recovery_tune_interval": r.Interval,
			"recovery_tune_util_low": r.UtilLow, "recovery_tune_util_high": r.UtilHigh, "recovery_tune_client_util_low": r.ClientLow, "recovery_tune_client_util_high": r.ClientHigh,
			"recovery_tune_agg_interval": r.Samples, "recovery_tune_sleep_min_us": r.PauseMin, "recovery_tune_sleep_cutoff_us": r.PauseMax, "recovery_pg_switch": n.PGSwitch,
			"no_recovery": n.NoRecovery, "no_rebalance": n.NoRebalance, "slow_log_interval": n.SlowLog,
			"scrub_find_best": n.Scrub.FindBest, "scrub_ec_max_bruteforce": n.Scrub.MaxCombinations}
	}
	ofClient := func(n client.Tuning) map[string]any {
		return map[string]any{"client_retry_interval": n.RetryInterval, "client_eio_retry_interval": n.EIORetryInterval, "client_retry_enospc": n.RetryENOSPC, "op_ttl": n.OpTTL}
	}

	var o osd.Tuning
	var h store.Throttle
	x.osd.t.Do(func() { o, h = x.osd.osd.Tuning(), x.osd.st.Throttle() })
	throttle := map[string]any{"throttle_small_writes": h.On, "throttle_target_iops": h.IOPS, "throttle_target_mbs": h.MBs, "throttle_target_parallelism": h.Parallelism, "throttle_threshold_us": h.Threshold}
	add(config.OSD, throttle, ofEtcd(x.osd.reg.Times()), ofPeer(o.Peer), ofPrimary(o.Primary), map[string]any{"etcd_stats_interval": o.StatsInterval, "autosync_interval": o.Sync.Interval, "autosync_writes": o.Sync.Writes,
		"osd_full_ratio": o.Full.Full, "osd_backfillfull_ratio": o.Full.Backfill,
		"auto_scrub": o.Scrub.Auto, "scrub_interval": o.Scrub.Interval, "scrub_queue_depth": o.Scrub.Pass.Depth, "scrub_sleep": o.Scrub.Pass.Sleep, "scrub_list_limit": o.Scrub.Pass.ListLimit, "no_scrub": o.Scrub.Pass.Paused})

	var m monitor.Tuning
	x.mon.t.Do(func() { m = x.mon.mon.Tuning() })
	add(config.Monitor, ofEtcd(x.mon.reg.Times()), map[string]any{"mon_change_timeout": m.ChangeDelay, "mon_stats_timeout": m.StatsDelay, "osd_out_time": m.OSDOutTime, "noout": m.NoOut,
		"osd_nearfull_ratio": m.NearFull, "osd_full_ratio": m.Full, "osd_backfillfull_ratio": m.BackfillFull, "etcd_snapshot_interval": x.mon.keep.tuned.Load().interval, "etcd_snapshot_keep": x.mon.keep.tuned.Load().days})

	x.gate.threads[lane].Do(func() {
		a, c := x.gate.Allow(lane), x.gate.Client(lane).Tuning()
		add(config.Gateway, ofEtcd(x.gate.registries[lane].Times()), ofPeer(c.Peer), ofClient(c), map[string]any{"nbd_allow": a.NBD, "nfs_allow": a.NFS, "iscsi_allow": a.ISCSI})
	})

	err := x.client.Do(context.Background(), func(c *client.Client, _ *client.Session, done func(error)) {
		n := c.Tuning()
		// A command reads the last one when it needs it.
		add(config.Client, ofEtcd(c.Registry().(*etcd.Registry).Times()), ofPeer(n.Peer), ofClient(n), map[string]any{"client_wait_up_timeout": x.lives[config.Client].Values().Duration("client_wait_up_timeout")})
		done(nil)
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return out
}

// wait waits until what is in force is as wanted, on each of the gateway's loops: any of them may serve the next client.
func (x *running) wait(what string, want func(config.Component, *config.Param) any) {
	x.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var wrong []string
		for lane := range x.gate.threads {
			for c, values := range x.inForce(lane) {
				for name, got := range values {
					p, _ := config.Lookup(name)
					if w := want(c, p); !reflect.DeepEqual(got, w) {
						wrong = append(wrong, fmt.Sprintf("%v, loop %d: %s is %v, want %v", c, lane, name, got, w))
					}
				}
			}
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			slices.Sort(wrong)
			x.t.Fatalf("%s:\n%s", what, wrong)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// others are values that no parameter has by default: as etcd has them, and as they are in force.
var others = map[string]struct {
	text string
	want any
}{
	"max_etcd_attempts":          {`3`, 3},
	"etcd_quick_timeout":         {`"1100ms"`, 1100 * time.Millisecond},
	"etcd_slow_timeout":          {`6000`, 6 * time.Second},
	"etcd_ws_keepalive_interval": {`4`, 4 * time.Second},
	"log_level":                  {`1`, slog.LevelDebug},
	"peer_connect_interval":      {`0.3`, 300 * time.Millisecond},
	"peer_connect_max_interval":  {`6`, 6 * time.Second},
	"peer_connect_timeout":       {`"7"`, [2]time.Duration{7 * time.Second, 7 * time.Second}},
	"osd_idle_timeout":           {`0.7`, 700 * time.Millisecond},
	"osd_ping_timeout":           {`1.5`, 1500 * time.Millisecond},
	"etcd_stats_interval":        {`20`, 20 * time.Second},
	"recovery_queue_depth":       {`8`, 8},
	"recovery_idle_queue_depth":  {`32`, 32},
	"recovery_pg_switch":         {`16`, 16},
	"recovery_sleep_us":          {`50`, 50 * time.Microsecond},
	"recovery_tune_interval":     {`0.5`, 500 * time.Millisecond},
	"recovery_tune_util_low":     {`0.2`, 0.2},
	"recovery_tune_util_high":    {`0.9`, 0.9},

	"recovery_tune_client_util_low":  {`0.05`, 0.05},
	"recovery_tune_client_util_high": {`2`, 2.0},
	"recovery_tune_agg_interval":     {`5`, 5},
	"recovery_tune_sleep_min_us":     {`"1ms"`, time.Millisecond},
	"recovery_tune_sleep_cutoff_us":  {`1000000`, time.Second},

	"no_rebalance":                {`true`, true},
	"throttle_small_writes":       {`true`, true},
	"throttle_target_iops":        {`150`, 150},
	"throttle_target_mbs":         {`90`, 90},
	"throttle_target_parallelism": {`2`, 2},
	"throttle_threshold_us":       {`70`, 70 * time.Microsecond},
	"no_recovery":                 {`true`, true},
	"slow_log_interval":           {`3`, 3 * time.Second},
	"autosync_interval":           {`7`, 7 * time.Second},
	"autosync_writes":             {`99`, 99},
	"mon_change_timeout":          {`300`, 300 * time.Millisecond},
	"mon_stats_timeout":           {`400`, 400 * time.Millisecond},
	"osd_out_time":                {`"1h"`, time.Hour},
	"osd_nearfull_ratio":          {`0.8`, 0.8},
	"osd_full_ratio":              {`0.85`, 0.85},
	"osd_backfillfull_ratio":      {`0.9`, 0.9},
	"noout":                       {`1`, true},
	"op_ttl":                      {`3`, 3 * time.Second},
	"client_retry_interval":       {`70`, 70 * time.Millisecond},
	"client_eio_retry_interval":   {`0`, time.Duration(0)},
	"client_retry_enospc":         {`false`, false},
	"etcd_snapshot_interval":      {`"2h"`, 2 * time.Hour},
	"etcd_snapshot_keep":          {`3`, 3},
	"client_wait_up_timeout":      {`5`, 5 * time.Second},
	"nbd_allow":                   {`"10.0.0.0/8"`, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	"nfs_allow":                   {`["10.0.0.0/8"]`, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	"iscsi_allow":                 {`"10.1.2.3"`, []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32")}},
	"auto_scrub":                  {`true`, true},
	"scrub_interval":              {`"7d"`, 7 * 24 * time.Hour},
	"scrub_queue_depth":           {`4`, 4},
	"scrub_sleep":                 {`20`, 20 * time.Millisecond},
	"scrub_list_limit":            {`1000`, 1000},
	"scrub_find_best":             {`false`, false},
	"scrub_ec_max_bruteforce":     {`7`, 7},
	"no_scrub":                    {`true`, true},
}

// What an OSD in a test goes by is what one in a cluster does where nobody has set anything.
func TestDefaultTuningIsThatOfTheParameters(t *testing.T) {
	v, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if have, want := primary.DefaultTuning(), primaryTuning(v); have != want {
		t.Errorf("DefaultTuning() = %+v, the parameters say %+v", have, want)
	}
	if have, want := secondary.DefaultLimits(), osdLimits(v); have != want {
		t.Errorf("DefaultLimits() = %+v, the parameters say %+v", have, want)
	}
}

func TestEveryOnlineParameterChangesInEveryDaemonThatUsesIt(t *testing.T) {
	x := startAll(t)
	atStart := x.inForce(0)
	good, bad := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for _, p := range config.Params() {
		other, known := others[p.Name]
		if known != (p.Effect == config.Online) {
			t.Errorf("%s takes effect %v; in the test's table of what changes online: %t", p.Name, p.Effect, known)
		}
		if p.Effect != config.Online {
			continue
		}
		good[p.Name], bad[p.Name] = json.RawMessage(other.text), json.RawMessage(`"nonsense"`)
		for _, c := range []config.Component{config.OSD, config.Monitor, config.Gateway, config.Client} {
			if p.Used&c == 0 || strings.HasSuffix(p.Name, "full_ratio") && c == config.Client { // status reads that from the cluster's state each time
				continue
			}
			if got, ok := atStart[c][p.Name]; !ok {
				t.Errorf("nobody looks at what the %v does with %s", c, p.Name)
			} else if reflect.DeepEqual(got, other.want) {
				t.Errorf("%s = %v proves nothing: the %v has it anyway", p.Name, got, c)
			}
			if p.Name != "client_wait_up_timeout" && !slices.Contains(x.lives[c].Registered(), p.Name) {
				t.Errorf("%s changes online, and no part of the %v is told", p.Name, c)
			}
		}
	}
	put := func(m map[string]json.RawMessage) {
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		x.put(string(text))
	}
	asBefore := func(c config.Component, p *config.Param) any { return atStart[c][p.Name] }
	changed := func(_ config.Component, p *config.Param) any { return others[p.Name].want }

	x.greeted(true)
	put(good)
	x.wait("after the change in etcd", changed)
	x.greeted(false)
	bad["osd_out_time"] = json.RawMessage(`-1`)
	put(bad)
	// Something that shows when the daemons have seen it.
	bad["log_level"] = json.RawMessage(`-1`)
	put(bad)
	x.wait("after a change to what is not allowed", func(c config.Component, p *config.Param) any {
		if p.Name == "log_level" {
			return slog.LevelWarn
		}
		return changed(c, p)
	})
	x.put("")
	x.wait("after the key was deleted", asBefore)
	x.greeted(true)
}

// greeted checks whether the gateway talks to an NBD client from here.
func (x *running) greeted(want bool) {
	x.t.Helper()
	c, err := net.Dial("tcp", x.gate.Addresses().NBD[0])
	if err != nil {
		x.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 8)
	if _, err = io.ReadFull(c, b); (err == nil) != want {
		x.t.Errorf("greeting %q, %v; want one: %t", b, err, want)
	}
}

func TestHangupReadsTheFileAgain(t *testing.T) {
	x := startAll(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	OnHangup(ctx, x.lives[config.OSD])
	depth := func(want int) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for x.inForce(0)[config.OSD]["recovery_queue_depth"] != want {
			if time.Now().After(deadline) {
				t.Fatalf("recovery_queue_depth is %v, want %d", x.inForce(0)[config.OSD]["recovery_queue_depth"], want)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(x.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	depth(1) // there is no file yet
	write(`{"recovery_queue_depth": 4}`)
	depth(4)
	write(`{"recovery_queue_depth": 4000, "slow_log_interval": 2}`)
	depth(4)
	write(`{"recovery_queue_depth": 5`)
	depth(4)
	x.put(`{"recovery_queue_depth": 6}`)
	depth(6)
	write(`{"recovery_queue_depth": 7}`)
	depth(6) // etcd is stronger
	x.put(`{}`)
	depth(7)
}
