package allinone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/appliance/bootstrap"
	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd"
)

const (
	// stopTime is how long each part may take to stop in order.
	stopTime = 5 * time.Second
	// slowStart is after how long it is said what the start waits for.
	slowStart = 10 * time.Second
)

// Cluster is a running cluster.
type Cluster struct {
	o       Options
	dir     *bootstrap.Dir
	v       *config.Values // as it was at the start
	live    *config.Live   // of all parts
	key     []byte
	log     *slog.Logger
	level   slog.LevelVar
	logFile *os.File
	etcd    *etcd
	link    *daemon.Link
	mon     *daemon.Monitor
	gate    *daemon.Gateway

	mu    sync.Mutex
	osds  map[layout.OSDNum]*daemon.OSD // guarded by mu; those that run
	early map[layout.OSDNum]bool        // guarded by mu; those that failed before they were in osds
	bury  sync.WaitGroup                // reports of deaths
	ctx   context.Context               // of heirs; ends with Stop
	end   context.CancelFunc            // called with mu
	heirs sync.WaitGroup                // OSDs that wait with a disk that cannot be trusted; added to with mu, while ctx lasts
	ended chan error                    // the cluster cannot go on
}

// Up starts a cluster and returns when it serves: every PG is active and the gateway listens. On an error everything has been stopped again.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	if len(o.Image) > 1 {
		if _, _, err := parseImage(o.Image); err != nil {
			return nil, err
		}
	}
	d, err := bootstrap.OpenDir(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{o: o, dir: d, osds: map[layout.OSDNum]*daemon.OSD{}, early: map[layout.OSDNum]bool{}, ended: make(chan error, 1)}
	c.ctx, c.end = context.WithCancel(context.Background())
	if err := c.up(ctx); err != nil {
		c.stop(func(string, ...any) {})
		return nil, err
	}
	return c, nil
}

func (c *Cluster) up(ctx context.Context) error {
	d, o := c.dir, &c.o
	if err := shape(d, o); err != nil {
		return err
	}
	global, err := c.configure()
	if err != nil {
		return err
	}
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if c.link, err = daemon.Connect(c.v, c.log); err != nil {
		return err
	}
	s, err := c.link.Snapshot(ctx, cluster.SectionConfig|cluster.SectionOSDs|cluster.SectionPGs)
	if err != nil {
		return err
	}
	if err := bootstrap.InitCluster(ctx, c.link, s, global); err != nil {
		return err
	}
	if s, err = c.link.Snapshot(ctx, cluster.SectionConfig|cluster.SectionOSDs|cluster.SectionPGs|cluster.SectionOSDStats); err != nil {
		return err
	}
	for key, f := range s.Faults.All() {
		o.Say("warning: etcd key %s cannot be used: %v; %s", key, f.Reason, f.Action)
	}
	c.live = config.NewLive(c.v, config.All, c.log)
	c.live.SetEtcd(s.Global)
	c.v = c.live.Values()
	daemon.FollowLevel(c.live, &c.level)
	c.link.Keep(c.live)
	for _, e := range c.v.Effective(config.All) {
		c.log.Info("configured", "parameter", e.Name, "value", e.Value, "from", e.From.String())
	}
	if err := c.buryOld(ctx, s); err != nil {
		return err
	}
	if err := c.startOSDs(ctx); err != nil {
		return err
	}
	if err := c.firstPool(ctx, s); err != nil {
		return err
	}
	if c.mon, err = daemon.StartMonitor(daemon.MonitorOptions{Config: c.live, Host: daemon.Host(), Log: c.log.With("component", "monitor"), Snapshots: c.dir.File("snapshots")}); err != nil {
		return err
	}
	if err := c.wait(ctx); err != nil {
		return err
	}
	if err := c.firstImage(ctx); err != nil {
		return err
	}
	if c.gate, err = daemon.StartGateway(ctx, daemon.GatewayOptions{Config: c.live, Key: c.key, Host: daemon.Host(), Version: c.o.Version, Log: c.log}); err != nil {
		return err
	}
	d.Shape.Ready = true
	return d.Save()
}

// configure merges flags and the folder's configuration, refuses addresses that cannot be listened on, and only then writes anything.
func (c *Cluster) configure() (map[string]json.RawMessage, error) {
	file, global, err := configuration(c.dir, &c.o)
	if err != nil {
		return nil, err
	}
	if c.v, err = loadFile(file, c.dir.ConfigFile()); err != nil {
		return nil, err
	}
	for _, w := range c.v.Warnings {
		c.o.Say("warning: %s", w)
	}
	for _, a := range c.v.List("etcd_address") {
		if err := loopbackOnly(a); err != nil {
			return nil, err
		}
	}
	for _, one := range []struct{ flag, param string }{{"etcd", "etcd_address"}, {"nbd", "nbd_address"}, {"nfs", "nfs_address"}, {"iscsi", "iscsi_address"}} {
		for _, a := range c.v.List(one.param) {
			if err := checkAddress(one.flag, a); err != nil {
				return nil, err
			}
		}
	}
	if err := c.dir.CheckSpace(); err != nil {
		return nil, err
	}
	// Only a folder whose start got so far is a cluster: a refused start leaves nothing to be repaired.
	if err := c.dir.Save(); err != nil {
		return nil, err
	}
	if _, ok := file["cluster_key_file"]; ok || !c.dir.Shape.Ready {
		key, err := c.dir.MakeKey()
		if err != nil {
			return nil, err
		}
		file["cluster_key_file"] = text(key)
	}
	if err := c.dir.WriteConfiguration(file); err != nil {
		return nil, err
	}
	if c.v, err = loadFile(file, c.dir.ConfigFile()); err != nil {
		return nil, err
	}
	if c.key, err = daemon.Key(c.v); err != nil {
		return nil, err
	}
	c.level.Set(daemon.Level(c.v))
	if c.log, c.logFile, err = openLog(c.dir.File("holdfast.log"), &c.level, c.o.Errors); err != nil {
		return nil, &admin.Error{Kind: admin.Failed, What: "cannot write the log", Err: err}
	}
	return global, nil
}

// loadFile is the configuration that a file with this content, and the environment, make.
func loadFile(file map[string]json.RawMessage, name string) (*config.Values, error) {
	b, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	v, err := config.Load(config.Sources{Environ: os.Environ(), File: b, FileName: name})
	if err != nil {
		return nil, &admin.Error{Kind: admin.Usage, What: "wrong configuration", Err: err, Way: "`holdfast help parameters` lists what is allowed"}
	}
	return v, nil
}

// loopbackOnly refuses addresses of etcd that others can reach: it has no users and no TLS here.
func loopbackOnly(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err == nil {
		if a, e := netip.ParseAddr(host); host == "localhost" || e == nil && a.IsLoopback() {
			return nil
		}
		err = errors.New("it is not a loopback address, and the etcd of `holdfast up` lets everybody in")
	}
	return &admin.Error{Kind: admin.Usage, What: "--etcd " + address, Err: err, Way: "give 127.0.0.1:PORT; for a cluster of several hosts run etcd by itself, and `holdfast osd`, `mon` and `gateway`"}
}

func (c *Cluster) startEtcd(ctx context.Context) (err error) {
	c.etcd, err = startEtcd(ctx, c.dir.File("etcd"), c.dir.File("etcd.log"), c.v.List("etcd_address"))
	if err != nil {
		return &admin.Error{Kind: admin.Failed, What: "the embedded etcd does not start", Err: err, Way: "see " + c.dir.File("etcd.log")}
	}
	go func() {
		if err, ok := <-c.etcd.failed(); ok && err != nil {
			c.fail(fmt.Errorf("the embedded etcd has failed: %w", err))
		}
	}()
	return nil
}

// buryOld removes the keys of our OSDs' last run. The folder's lock says that nothing of it runs any more.
func (c *Cluster) buryOld(ctx context.Context, s *cluster.Snapshot) error {
	for n, st := range s.OSDStates.All() {
		if n <= layout.OSDNum(c.dir.Shape.OSDs) {
			if err := c.link.Bury(ctx, s, daemon.HolderOf(n, st)); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstPool makes the pool of a new cluster.
func (c *Cluster) firstPool(ctx context.Context, s *cluster.Snapshot) error {
	if c.dir.Shape.Ready || s.Pools.Len() > 0 {
		return nil
	}
	p, err := admin.NewPool{Name: PoolName, Replicas: c.dir.Shape.Replicas, PGCount: DefaultPGs, FailureDomain: "osd", Force: true}.Pool(s)
	if err != nil {
		return err
	}
	_, err = daemon.Await(ctx, c.link.Thread, func(done func(layout.PoolID, error)) { admin.CreatePool(c.link.Registry, s, p, done) })
	return c.link.Explain(err)
}

// startOSDs makes the disks that are missing, starts every OSD, and waits until they are up, so that the monitor places PGs once. One that cannot start is named and left out, as
// long as there is another one.
func (c *Cluster) startOSDs(ctx context.Context) error {
	n := c.dir.Shape.OSDs
	errs, opened := make([]error, n), make([]*daemon.OSD, n)
	var wg sync.WaitGroup
	for i := range n {
		num := layout.OSDNum(i + 1)
		if errs[i] = c.dir.MakeDisk(ctx, c.link.Thread, num, c.v); errs[i] != nil {
			if !slices.Contains(c.dir.Shape.Made, i+1) {
				return errs[i]
			}
			continue
		}
		wg.Go(func() { opened[i], errs[i] = c.openOSD(ctx, num) })
	}
	wg.Wait()
	// They come up together: an OSD that were alone for a moment would begin intervals of its own where the pool allows that, and be needed by them.
	for i, d := range opened {
		if d != nil {
			wg.Go(func() { errs[i] = c.serveOSD(d) })
		}
	}
	wg.Wait()
	waiting := false
	for i, err := range errs {
		if err != nil {
			c.reportFailure(layout.OSDNum(i+1), c.say(layout.OSDNum(i+1), err))
		}
		if osd.Untrusted(err) && !c.v.Bool("readonly") {
			waiting = true
			c.succeed(layout.OSDNum(i+1), err)
		}
	}
	if len(c.running()) == 0 && !waiting {
		return errors.Join(errs...)
	}
	limit, cancel := context.WithTimeout(ctx, slowStart)
	defer cancel()
	_, err := c.link.Until(limit, cluster.SectionOSDs, func(s *cluster.Snapshot) bool {
		for n, instance := range c.running() {
			if st, ok := s.OSDStates.Get(n); !ok || uint64(st.Instance) != instance {
				return false
			}
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.o.Say("waiting: not every OSD is up yet")
	}
	return nil
}

func (c *Cluster) openOSD(ctx context.Context, n layout.OSDNum) (*daemon.OSD, error) {
	return daemon.OpenOSD(ctx, c.osdOptions(n))
}

func (c *Cluster) osdOptions(n layout.OSDNum) daemon.OSDOptions {
	return daemon.OSDOptions{
		Num: n, Device: c.dir.OSDFile(n), Config: c.live, Key: c.key, Bind: []loop.Addr{{Network: "tcp", Address: "127.0.0.1:0"}}, Host: daemon.Host(), Version: c.o.Version,
		Log: c.log.With("component", "osd"), Fatal: func(err error) { c.lost(n, err) },
	}
}

// succeed waits until the disk of an OSD that cannot be trusted is emptied or accepted, then starts the OSD.
func (c *Cluster) succeed(n layout.OSDNum, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return // stop waits for the others
	}
	c.heirs.Go(func() {
		err := daemon.Succeed(c.ctx, c.osdOptions(n), cause)
		for err == nil {
			var d *daemon.OSD
			d, err = c.openOSD(c.ctx, n)
			if daemon.InUse(err) { // the command that has accepted it ends in a moment
				select {
				case <-time.After(time.Second):
					err = nil
					continue
				case <-c.ctx.Done():
				}
			}
			if err == nil {
				c.mu.Lock()
				c.early[n] = false
				c.mu.Unlock()
				if err = c.serveOSD(d); err == nil {
					return
				}
			}
			if osd.Untrusted(err) {
				err = daemon.Succeed(c.ctx, c.osdOptions(n), err)
			}
		}
		if c.ctx.Err() == nil {
			c.reportFailure(n, c.say(n, err))
		}
	})
}

func (c *Cluster) serveOSD(d *daemon.OSD) error {
	if err := d.Serve(); err != nil {
		return err
	}
	c.mu.Lock()
	failed := c.early[d.Num]
	if !failed {
		c.osds[d.Num] = d
	}
	c.mu.Unlock()
	if failed {
		d.Kill()
		return fmt.Errorf("OSD %d has failed while it started", d.Num)
	}
	return nil
}

// say tells the user why an OSD has ended or does not start. What it returns is for reportFailure.
func (c *Cluster) say(n layout.OSDNum, err error) *cluster.OSDFailure {
	o := c.osdOptions(n)
	f, err := o.Halt(err)
	c.o.Say("warning: %v", err)
	return f
}

// reportFailure has `holdfast status` say why an OSD has stopped, if it does not start again by itself.
func (c *Cluster) reportFailure(n layout.OSDNum, f *cluster.OSDFailure) {
	if f == nil {
		return
	}
	ctx, cancel := stopContext()
	defer cancel()
	if err := c.link.ReportFailure(ctx, n, f); err != nil {
		c.log.Warn("`holdfast status` cannot say why the OSD has stopped", "osd", uint64(n), "err", err)
	}
}

// lost ends an OSD that cannot go on, and tells the others, so that they go on at once. It is called on the OSD's loop.
func (c *Cluster) lost(n layout.OSDNum, err error) {
	c.bury.Go(func() {
		f := c.say(n, err)
		defer c.reportFailure(n, f)
		c.mu.Lock()
		d := c.osds[n]
		delete(c.osds, n)
		c.early[n] = d == nil
		c.mu.Unlock()
		if d != nil {
			d.Kill()
		}
		if osd.Untrusted(err) && !c.v.Bool("readonly") {
			c.succeed(n, err)
		}
		if d == nil {
			return
		}
		ctx, cancel := stopContext()
		defer cancel()
		if err := c.link.ReportDeath(ctx, c.key, d.Holder()); err != nil {
			c.log.Warn("the loss of an OSD was not reported", "osd", uint64(n), "err", err)
		}
	})
}

// running is the instances of the OSDs that run.
func (c *Cluster) running() map[layout.OSDNum]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[layout.OSDNum]uint64{}
	for n, d := range c.osds {
		out[n] = d.Instance
	}
	return out
}

// wait waits until every PG of every pool is served, and says what it waits for when that takes long. Then a pool that is served is enough: one that lacks OSDs must not keep
// the others from being used.
func (c *Cluster) wait(ctx context.Context) error {
	for said := ""; ; {
		step, cancel := context.WithTimeout(ctx, slowStart)
		_, err := c.link.Until(step, cluster.SectionConfig|cluster.SectionOSDs|cluster.SectionPGs, func(s *cluster.Snapshot) bool { return serves(s, c.running()) })
		cancel()
		if err == nil {
			c.settle(ctx)
			return nil
		}
		select {
		case err := <-c.ended:
			return err
		default:
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s, err := c.link.Snapshot(ctx, admin.Sections)
		if err != nil {
			c.o.Say("waiting: %v", err)
			continue
		}
		st := admin.Report(s)
		if now := strings.Join(st.Warnings, "; "); now != said {
			said = now
			for _, w := range st.Warnings {
				c.o.Say("warning: %s", w)
			}
		}
		if st.PoolsUp > 0 {
			return nil
		}
	}
}

// settleTime is how long the start waits for members that came up a moment late.
const settleTime = 3 * time.Second

// settle waits a little for every PG to be whole, so that a cluster that is stopped right after its start does not depend on the OSDs that were first.
func (c *Cluster) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if len(c.running()) < c.dir.Shape.OSDs {
		return
	}
	_, err := c.link.Until(ctx, cluster.SectionPGs, func(s *cluster.Snapshot) bool {
		for _, st := range s.PGStates.All() {
			if !st.State.Whole() {
				return false
			}
		}
		return true
	})
	if err != nil {
		c.log.Info("up before every PG is whole", "err", err)
	}
}

// serves reports whether all PGs of all pools are active under the OSDs' present runs.
func serves(s *cluster.Snapshot, running map[layout.OSDNum]uint64) bool {
	for id := range s.Pools.All() {
		n := s.PGConfig.Count(id)
		if n == 0 {
			return false
		}
		for num := uint32(1); num <= n; num++ {
			pg, ok := s.PGStates.Get(layout.PGID{Pool: id, Num: num})
			if !ok || pg.State&cluster.StateActive == 0 {
				return false
			}
			if instance, ours := running[pg.Primary]; ours {
				if st, ok := s.OSDStates.Get(pg.Primary); !ok || uint64(st.Instance) != instance || st.Lease != pg.Lease {
					return false
				}
			}
		}
	}
	return s.Pools.Len() > 0
}

// firstImage makes the image of a new cluster, or one that was asked for.
func (c *Cluster) firstImage(ctx context.Context) error {
	spec := c.o.Image
	if spec == "" && !c.dir.Shape.Ready {
		spec = DefaultImage
	}
	if spec == "" || spec == "-" {
		return nil
	}
	name, size, err := parseImage(spec)
	if err != nil {
		return err
	}
	conn, err := daemon.OpenClient(ctx, c.v, c.log)
	if err != nil {
		return err
	}
	defer conn.Close()
	if i, ok := conn.Snapshot().Image(name); ok {
		if c.o.Image != "" && uint64(i.Size) != size {
			return refuse("--image %s: the image exists and has %s", "change its size with `holdfast modify "+name+" --resize SIZE`, or leave --image out", spec, admin.Size(int64(i.Size)))
		}
		return nil
	}
	return createImage(ctx, conn, images.New{Name: name, Size: size, Pool: PoolName, Identity: bootstrap.Identity()})
}

func createImage(ctx context.Context, conn *blocking.Conn, n images.New) error {
	return conn.Do(ctx, func(cl *client.Client, _ *client.Session, done func(error)) {
		images.Create(cl, n, func(_ layout.Inode, err error) { done(err) })
	})
}

func stopContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), stopTime)
}

// fail ends the cluster.
func (c *Cluster) fail(err error) {
	select {
	case c.ended <- err:
	default:
	}
}

// Ended tells when the cluster cannot go on by itself.
func (c *Cluster) Ended() <-chan error { return c.ended }

// Live is the configuration of all parts.
func (c *Cluster) Live() *config.Live { return c.live }

// Stop ends everything in order, with a line for each step.
func (c *Cluster) Stop() { c.stop(c.o.Say) }

func (c *Cluster) stop(say func(string, ...any)) {
	c.mu.Lock()
	c.end()
	c.mu.Unlock()
	c.heirs.Wait()
	late := func(what string, err error) {
		if err != nil {
			c.log.Warn("did not stop in order; nothing that was acknowledged is lost", "what", what, "err", err)
		}
	}
	if c.gate != nil {
		say("stopping the gateway")
		x, cancel := stopContext()
		late("gateway", c.gate.Stop(x))
		cancel()
	}
	if c.mon != nil {
		say("stopping the monitor")
		x, cancel := stopContext()
		late("monitor", c.mon.Stop(x))
		cancel()
	}
	c.mu.Lock()
	osds := c.osds
	c.osds = map[layout.OSDNum]*daemon.OSD{}
	c.mu.Unlock()
	if len(osds) > 0 {
		say("stopping %d OSDs", len(osds))
		x, cancel := stopContext()
		for n, d := range osds {
			late(fmt.Sprintf("OSD %d", n), d.Leave(x))
		}
		var wg sync.WaitGroup
		for n, d := range osds {
			wg.Go(func() { late(fmt.Sprintf("OSD %d", n), d.Stop(x)) })
		}
		wg.Wait()
		cancel()
	}
	c.bury.Wait()
	if c.link != nil {
		c.link.Close()
	}
	if c.etcd != nil {
		say("stopping etcd")
		if !c.etcd.close() {
			c.log.Warn("etcd did not end in time; what it acknowledged is on the disk")
		}
	}
	if c.logFile != nil {
		c.logFile.Close()
	}
	c.dir.Close()
	say("stopped")
}
