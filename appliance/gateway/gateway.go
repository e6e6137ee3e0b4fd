package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/appliance/exports"
	"holdfast/appliance/files"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/frontends/iscsi"
	"holdfast/frontends/nbd"
	"holdfast/frontends/nfs"
	"holdfast/frontends/volume"
)

// Options say what Start needs.
type Options struct {
	// Loops serve; they must be running, on goroutines of the caller's, who stops them after Stop has called its done. At least one.
	Loops []loop.Runner
	// Registry opens the registry for a loop; it is called on that loop, once for each. The caller closes it after Stop.
	Registry func(l loop.Loop) registry.Registry
	Key      []byte         // cluster key; nil: none
	Instance uint64         // of this run, at most client.MaxInstance and never used before; 0: drawn
	Config   *config.Values // read at start
	Host     string
	Version  string
	Log      *slog.Logger // nil: the first loop's
	// Peer changes the options of the connections to OSDs; nil: nothing.
	Peer func(*peer.Options)
	// Canceled, when closed, makes Start give up waiting for the cluster. Nil: it waits until the cluster answers.
	Canceled <-chan struct{}
}

// Addresses are where a gateway listens, as host:port, or unix:PATH.
type Addresses struct {
	NBD, NFS, ISCSI []string
}

// ErrCanceled says that Options.Canceled was closed before the cluster answered.
var ErrCanceled = errors.New("gateway: canceled while waiting for the cluster")

// stopLimit bounds Stop: what has not ended by then is cut off by the end of the process, as by a crash.
const stopLimit = 15 * time.Second

// Gateway is a running gateway.
type Gateway struct {
	o       Options
	log     *slog.Logger
	im      *images
	lanes   []*served
	tree    *files.Tree
	address Addresses
	reg     *registration
	fences  *fences
	lock    time.Duration // pg_lock_time

	stop    sync.Once
	stopped chan struct{} // closed at the end of Stop
}

// served is a lane with its servers. It is touched on the lane's loop only, after Start.
type served struct {
	*lane
	nbd       *nbd.Server
	nfs       *nfs.Server
	iscsi     *iscsi.Server
	listeners []loop.Listener    // those that the servers do not close themselves
	filters   map[string]*filter // by parameter
	left      int                // servers that have not closed
}

// Start serves the cluster's images at the addresses that the configuration names. It returns once everything is being served, so it must not be called on one of the loops; an
// address that is taken is reported at once, before the cluster is asked anything.
func Start(o Options) (*Gateway, error) {
	if len(o.Loops) == 0 {
		return nil, errors.New("gateway: no loops")
	}
	if o.Log == nil {
		o.Log = o.Loops[0].Log()
	}
	if o.Instance == 0 {
		o.Instance = draw()
	}
	ports, err := readPorts(o.Config, len(o.Loops) > 1)
	if err != nil {
		return nil, err
	}
	g := &Gateway{o: o, log: o.Log.With("component", "gateway"), lock: o.Config.Duration("pg_lock_time"), stopped: make(chan struct{})}
	g.im = newImages(g.log)
	g.im.fence = g.fence
	if err := g.begin(); err != nil {
		return nil, err
	}
	if err := g.serve(ports); err != nil {
		stopped := make(chan struct{})
		g.Stop(func() { close(stopped) })
		<-stopped
		return nil, err
	}
	g.on(0, func() { g.reg.start(g.address) })
	g.log.Info("serving", "nbd", g.address.NBD, "nfs", g.address.NFS, "iscsi", g.address.ISCSI, "loops", len(o.Loops), "instance", o.Instance)
	return g, nil
}

// Addresses are where the gateway listens.
func (g *Gateway) Addresses() Addresses { return g.address }

// Catalog is what is served over NBD and iSCSI. Its devices may be attached on the gateway's loops only.
func (g *Gateway) Catalog() volume.Catalog { return g.im.catalog }

// draw makes an instance. 40 random bits are not drawn twice within the minutes in which an OSD remembers one.
func draw() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if n := binary.LittleEndian.Uint64(b[:]) & client.MaxInstance; n != 0 {
			return n
		}
	}
}

// on runs f on a loop and waits for it.
func (g *Gateway) on(i int, f func()) {
	done := make(chan struct{})
	g.o.Loops[i].Post(&loop.Task{Run: func() {
		f()
		close(done)
	}})
	<-done
}

// begin makes the lanes and waits until each knows the cluster.
func (g *Gateway) begin() error {
	g.lanes = make([]*served, len(g.o.Loops))
	ready := make(chan struct{}, len(g.o.Loops)+1)
	for i, l := range g.o.Loops {
		g.on(i, func() {
			o := g.clientOptions(i)
			o.Registry = g.o.Registry(l)
			s := &served{}
			g.lanes[i] = s
			if i == 0 {
				g.reg = newRegistration(l, o.Registry, g.o, g.log)
				s.lane = g.im.newLane(l, o, g.changed)
				g.fences = newFences(s.c, g.lock, g.log)
				g.tree = files.New(files.Options{Client: s.c, Lane: g.laneClient, Catalog: g.im.catalog, Log: g.log})
			} else {
				s.lane = g.im.newLane(l, o, nil)
			}
			s.c.Await(func(s *cluster.Snapshot) bool { return s.Revision > 0 && s.ClusterID != nil }, func() { ready <- struct{}{} })
			if i == 0 {
				identify(s.c, g.log)
			}
		})
	}
	remind := time.NewTicker(10 * time.Second)
	defer remind.Stop()
	asked := false
	for left := len(g.o.Loops) + 1; left > 0; {
		if left == 1 && !asked {
			asked = true
			g.on(0, func() { g.tree.Ready(func() { ready <- struct{}{} }) })
		}
		select {
		case <-ready:
			left--
		case <-remind.C:
			g.log.Warn("still waiting for the cluster: etcd does not answer", "etcd", g.o.Config.List("etcd_address"))
			continue
		case <-g.o.Canceled:
			stopped := make(chan struct{})
			g.Stop(func() { close(stopped) })
			<-stopped
			return ErrCanceled
		}
	}
	return nil
}

func (g *Gateway) clientOptions(lane int) client.Options {
	o := client.Defaults()
	o.Key, o.Instance, o.Lane, o.Lanes, o.Name, o.Peer = g.o.Key, g.o.Instance, lane, len(g.o.Loops), "gateway "+g.o.Host, g.o.Peer
	o.Host = g.o.Host
	v := g.o.Config
	o.RetryInterval, o.RetryENOSPC, o.OpTTL = v.Duration("client_retry_interval"), v.Bool("client_retry_enospc"), v.Duration("op_ttl")
	o.EIORetryInterval = v.Duration("client_eio_retry_interval")
	o.MaxOps = 1 << 20 // the servers have limits of their own
	o.Log = g.log
	return o
}

// changed is called on the first loop after each change of the catalog.
func (g *Gateway) changed(next *cluster.Snapshot, keys []string, changes []exports.Change) {
	if g.tree != nil {
		g.tree.Changed(changes)
	}
	if slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, cluster.PrefixInode) }) {
		g.reg.shows(next.Revision)
	}
}

// laneClient is the client of a loop.
func (g *Gateway) laneClient(l loop.Loop) *client.Client {
	if ln := g.im.lane(l); ln != nil {
		return ln.c
	}
	return nil
}

// fence implements images.fence.
func (g *Gateway) fence(ln *lane, f cluster.Fence, done func()) {
	back := &loop.Task{Run: done}
	g.o.Loops[0].Post(&loop.Task{Run: func() {
		g.fences.put(f, func() { ln.l.Post(back) })
	}})
}

// Stop ends the gateway: it stops listening, tells every session, finishes what is under way, gives the registration up and closes the clients, in at most stopLimit. Then it calls done,
// on some goroutine. It may be called from any goroutine, also again.
func (g *Gateway) Stop(done func()) {
	g.stop.Do(g.beginStop)
	go func() { // ends within stopLimit
		<-g.stopped
		done()
	}()
}

func (g *Gateway) beginStop() {
	var once sync.Once
	limit := time.AfterFunc(stopLimit, func() {
		once.Do(func() {
			g.log.Warn("stopping took too long; what is still under way is given up", "limit", stopLimit)
			close(g.stopped)
		})
	})
	var lanes sync.WaitGroup
	for _, s := range g.lanes {
		if s == nil || s.lane == nil {
			continue
		}
		lanes.Add(1)
		s.l.Post(&loop.Task{Run: func() { s.close(lanes.Done) }})
	}
	go func() { // ends when the lanes have, or with the process
		lanes.Wait()
		g.end(func() {
			limit.Stop()
			once.Do(func() { close(g.stopped) })
		})
	}()
}

// close ends the lane's servers.
func (s *served) close(done func()) {
	s.drain()
	for _, ln := range s.listeners {
		ln.Close()
	}
	s.left = 1
	one := func() {
		if s.left--; s.left == 0 {
			done()
		}
	}
	if s.nbd != nil {
		s.left++
		s.nbd.Close(one)
	}
	if s.nfs != nil {
		s.left++
		s.nfs.Close(one)
	}
	if s.iscsi != nil {
		s.left++
		s.iscsi.Close(one)
	}
	one()
}

// end closes what the lanes share, then their clients.
func (g *Gateway) end(done func()) {
	home := g.lanes[0]
	if home == nil || home.lane == nil {
		done()
		return
	}
	home.l.Post(&loop.Task{Run: func() {
		g.tree.Stop(func() {
			g.reg.stop(func() {
				g.fences.stop()
				var clients sync.WaitGroup
				for _, s := range g.lanes {
					if s == nil || s.lane == nil {
						continue
					}
					clients.Add(1)
					s.l.Post(&loop.Task{Run: func() { s.c.Close(clients.Done) }})
				}
				go func() { // ends with the clients
					clients.Wait()
					done()
				}()
			})
		})
	}})
}

// identify gives the cluster its identity if it has none yet: everything that clients recognize an image by derives from it.
func identify(c *client.Client, log *slog.Logger) {
	retry := &loop.Timer{}
	try := func() {
		if s := c.Snapshot(); s.ClusterID != nil {
			return
		}
		var id cluster.ClusterID
		_, _ = rand.Read(id.ID[:]) // never fails
		t := registry.Txn{If: []registry.Compare{registry.Absent(cluster.KeyClusterID)}, Then: []registry.Op{{Kind: registry.Put, Key: cluster.KeyClusterID, Value: cluster.Value(&id)}}}
		c.Registry().Txn(t, func(res registry.TxnResult, err error) {
			switch {
			case err != nil:
				log.Warn("the cluster's identity could not be written yet", "err", err)
				c.Loop().Arm(retry, c.Loop().Now().Add(time.Second))
			case res.Succeeded:
				log.Info("the cluster has got its identity", "id", id.ID.String())
			}
		})
	}
	retry.Fire = try
	c.Await(func(s *cluster.Snapshot) bool { return s.Revision > 0 }, try)
}
