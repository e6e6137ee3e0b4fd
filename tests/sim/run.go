package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
	"holdfast/osd/primary"
)

// Report is what a seed's run came to.
type Report struct {
	Plan       *Plan
	Violations []string
	Simulated  time.Duration
	Real       time.Duration
	Ops        int            // operations checked
	Acts       int            // their parts, by block
	Faults     map[string]int // planned ones that happened, by kind
	Did        sim.FaultCounts
	Struck     int // all of them
	Overlaps   int // of them, those that began while another was on
	Moot       int // faults that could not happen
	Coverage   map[string]uint64
	GaveUp     bool   // a check did not come to a result
	Hash       uint64 // of everything that happened
	Steps      uint64
}

// enough says whether as many faults happened, and began while another was on, as a seed must have.
func (r *Report) enough() bool { return r.Struck >= seedFaults && r.Overlaps >= seedOverlaps }

// run is one seed under way. It is the TB of its cluster.
type run struct {
	plan    *Plan
	c       *Cluster
	rng     *rand.Rand // what a fault does
	history *History
	slots   []*slot
	liars   []int // the OSDs whose disks may lie
	scrubs  int   // times that scrub was asked for
	images  []*sharedImage
	admin   *client.Client
	out     io.Writer // readable event log, nil for none
	begun   time.Duration
	ending  bool // faults are over
	refill  bool // a disk was replaced, and not everything has been whole since

	checked  int
	nodes    []*member
	regDown  int
	probes   map[layout.PGID]*reign
	recorded map[layout.PGID]*cluster.PGRecord // as last seen in the registry
	versions map[layout.ObjectID]layout.Version
	changed  map[asked]layout.Version // by requests, those of the lazy client excepted
	fenced   map[uint64]bool          // instances whose fence is complete
	rates    map[int]int64
	acks     int
	gateways map[int]uint // by image: the slots of gateways that have written to it
	removing int          // images that are being removed or resized
	resizing map[int]bool
	sizing   bool                   // the pool has another pg_size than planned
	netSlow  int                    // faults that make the network slow
	making   int                    // faults under way that change what operators have in etcd
	adding   int                    // pools that are being made
	removed  map[layout.PoolID]bool // pools that there are not any more
	passed   map[layout.PoolID]bool // and those whose numbers have been used again
	back     etcdBack
	lasting  int  // faults that are on
	moot     bool // the fault that begins cannot happen

	report *Report
	broken bool
}

// stopped is thrown to end a run that cannot go on.
type stopped struct{}

func (r *run) Helper() {}

// Error implements TB.
func (r *run) Error(args ...any) { r.fail("%s", fmt.Sprint(args...)) }

// Errorf implements TB.
func (r *run) Errorf(format string, args ...any) { r.fail(format, args...) }

// Fatal implements TB.
func (r *run) Fatal(args ...any) {
	r.fail("%s", fmt.Sprint(args...))
	panic(stopped{})
}

// Fatalf implements TB.
func (r *run) Fatalf(format string, args ...any) {
	r.fail(format, args...)
	panic(stopped{})
}

const maxViolations = 12

// fail notes a violation; the run ends soon.
func (r *run) fail(format string, args ...any) {
	r.broken = true
	text := fmt.Sprintf("%v: ", r.elapsed()) + fmt.Sprintf(format, args...)
	r.logf("VIOLATION %s", text)
	if len(r.report.Violations) < maxViolations {
		r.report.Violations = append(r.report.Violations, text)
	}
}

func (r *run) elapsed() time.Duration {
	if r.c == nil {
		return 0
	}
	return r.c.W.Elapsed()
}

// logf writes a line of the readable event log.
func (r *run) logf(format string, args ...any) {
	if r.out != nil {
		t := r.elapsed()
		fmt.Fprintf(r.out, "%4d.%06d ", t/time.Second, t%time.Second/time.Microsecond)
		fmt.Fprintf(r.out, format, args...)
		_, _ = io.WriteString(r.out, "\n")
	}
}

func (r *run) cover(what string) { r.report.Coverage[what]++ }

// RunPlan runs a plan. The readable event log goes to out, when that is not nil, with what the processes log from level on.
func RunPlan(p *Plan, out io.Writer, level slog.Level) (rep *Report) {
	rep = &Report{Plan: p, Faults: map[string]int{}, Coverage: map[string]uint64{}}
	r := &run{plan: p, rng: rand.New(rand.NewPCG(p.Seed, 0x66617574)), history: newHistory(), out: out, report: rep,
		probes: map[layout.PGID]*reign{}, recorded: map[layout.PGID]*cluster.PGRecord{}, versions: map[layout.ObjectID]layout.Version{}, changed: map[asked]layout.Version{}, fenced: map[uint64]bool{}, rates: map[int]int64{}, gateways: map[int]uint{}, resizing: map[int]bool{}, removed: map[layout.PoolID]bool{}, passed: map[layout.PoolID]bool{},
		back: etcdBack{before: map[layout.PGID]*cluster.PGRecord{}, weights: map[int]float64{}, fences: map[string]*fenced{}}}
	start := time.Now()
	defer func() {
		if x := recover(); x != nil {
			if _, ok := x.(stopped); !ok {
				r.fail("panic: %v\n%s", x, debug.Stack())
			}
		}
		if r.c != nil {
			rep.Simulated, rep.Steps = r.c.W.Elapsed(), r.c.W.Steps()
			h := fnv.New64a()
			fmt.Fprintln(h, rep.Simulated, rep.Steps, r.history.tick, r.checked, r.c.W.Hash())
			rep.Hash = h.Sum64()
			r.c.W.Close()
		}
		rep.Ops, rep.Real = r.checked, time.Since(start)
	}()
	r.logf("seed %d: %v", p.Seed, &p.Config)
	for i := range p.Faults {
		r.logf("plan: %v", &p.Faults[i])
	}
	r.setUp(level)
	r.drive()
	r.finish()
	return rep
}

// setUp makes the cluster, its images and its clients.
func (r *run) setUp(level slog.Level) {
	c := &r.plan.Config
	o := Options{
		Seed: r.plan.Seed, OSDs: c.osds(), Replicas: c.Replicas, Parity: c.Parity, XOR: c.XOR, MinSize: c.MinSize, PGs: c.PGs, DiskSize: c.DiskSize, Sector: c.Sector, OutTime: c.OutTime,
		LockTime: c.LockTime, Stranger: 30 * time.Second, Monitors: c.Monitors, Store: c.Store, Depth: c.Depth, Down: r.down, Opened: func(n *Node) { r.nodes[n.Num-1].remember() },
		Commit: c.Commit, Reads: c.Reads, Probe: func(n *Node) primary.Probe { return &probe{r, n, n.boots} },
	}
	if c.Store.Granularity < 4096 {
		o.Sector = int(c.Store.Granularity)
	}
	if r.out != nil {
		o.Logs, o.LogLevel = r.out, level
	}
	for i := range c.osds() {
		r.rates[i] = r.drawRate()
	}
	for i := range c.osds() {
		r.nodes = append(r.nodes, &member{r: r, i: i})
	}
	r.drawLiars()
	r.c = New(r, o)
	for i, m := range r.nodes {
		m.n = r.c.Nodes[layout.OSDNum(i+1)]
		r.drift(m.n.Loop, i)
	}
	r.c.onChange = func(keys []string) {
		for _, key := range keys {
			r.raised(key)
			if strings.HasPrefix(key, cluster.PrefixPGSkip) {
				r.cover("PG given back")
			}
		}
	}
	r.usualNet()
	r.watchRights()
	r.c.onOpen = func(h *memory.Handle) {
		if r.regDown > 0 {
			h.Unreachable(true)
		}
	}
	if c.Second {
		r.addPool(2, 1, 1)
	}
	r.c.Wait("all PGs active", 30*time.Second, r.clean)
	l := r.c.W.NewLoop("operator")
	co := client.Defaults()
	co.Registry, co.Key, co.Instance, co.RetryENOSPC = r.c.open(l), r.c.Key, 900, false
	r.admin = client.New(l, co)
	r.put(cluster.GatewayKey("operator"), cluster.Value(&cluster.Gateway{Instance: 900, Host: "operator"}))
	var id cluster.ClusterID
	id.ID[0] = 7
	r.put(cluster.KeyClusterID, cluster.Value(&id))
	for i := range c.Images {
		im := &sharedImage{n: i, name: fmt.Sprintf("disk%d", i), size: uint64(c.Objects) * c.Object()}
		pool := "p"
		if c.Second && i == 1 {
			pool = "pool2"
		}
		im.id = r.createImage(im.name, pool, im.size)
		r.images = append(r.images, im)
	}
	for i := range seedSlots {
		s := &slot{r: r, n: i, gateway: i < c.Gateways, lazy: i == c.lazySlot(), known: map[blockKey]block{}}
		r.slots = append(r.slots, s)
	}
	for i := range r.plan.Ops {
		o := &r.plan.Ops[i]
		s := r.slots[o.Slot]
		s.queue = append(s.queue, o)
	}
}

// createImage makes an image and waits for it.
func (r *run) createImage(name, pool string, size uint64) layout.Inode {
	var made layout.Inode
	done := false
	n := images.New{Name: name, Size: size, Pool: pool}
	copy(n.Identity[:], name)
	r.admin.Loop().Post(&loop.Task{Run: func() {
		images.Create(r.admin, n, func(id layout.Inode, err error) {
			if err != nil {
				r.fail("create image %s: %v", name, err)
			}
			made, done = id, true
		})
	}})
	r.c.Wait("image "+name, time.Minute, func() bool { return done })
	return made
}

// addPool makes another pool.
func (r *run) addPool(id layout.PoolID, size, pgs int) {
	c := &r.plan.Config
	pool := &cluster.Pool{ID: id, Name: fmt.Sprintf("pool%d", id), Scheme: cluster.Replicated, PGSize: cluster.Number(size), PGMinSize: cluster.Number(min(size, c.MinSize)), PGCount: cluster.Number(pgs), FailureDomain: "osd",
		ImmediateCommit: c.Commit, LocalReads: c.Reads, BlockSize: cluster.Number(c.Store.BlockSize), Granularity: cluster.Number(c.Store.Granularity)}
	r.adding++
	var try func()
	try = func() {
		var kv *registry.KV
		for _, k := range r.c.Reg.Dump() {
			if k.Key == cluster.KeyPools {
				kv = &k
			}
		}
		if pools, _, err := cluster.ReadPools(kv.Value); err != nil || pools[id] != nil {
			r.c.pgs += pgs
			r.adding--
			return
		}
		t, err := cluster.SetPool(kv, id, pool)
		if err != nil {
			r.Fatal(err)
		}
		r.c.admin.Txn(t, func(registry.TxnResult, error) { r.c.W.After(0, try) })
	}
	try()
}

// put writes a key from the admin's side; it is there when the world goes on.
func (r *run) put(key string, value []byte) { r.c.put(key, value) }

// drive starts the clients and runs the planned time.
func (r *run) drive() {
	w := r.c.W
	r.begun = w.Elapsed()
	for _, s := range r.slots {
		s.start()
	}
	for i := range r.plan.Faults {
		f := &r.plan.Faults[i]
		w.After(f.At, func() { r.strike(f) })
	}
	w.RunUntil(func() bool { return r.broken }, seedTime)
}

func (r *run) drawRate() int64 {
	if d := r.plan.Config.Drift; d > 0 {
		return r.rng.Int64N(2*d+1) - d
	}
	return 0
}

// drift sets how fast a process's host's clock runs; its successors keep that.
func (r *run) drift(l *sim.Loop, host int) {
	if _, ok := r.rates[host]; !ok {
		r.rates[host] = r.drawRate()
	}
	if ppm := r.rates[host]; ppm != 0 {
		l.SetDrift(ppm)
	}
}

// clean reports whether every PG is active and nothing else.
func (r *run) clean() bool { return r.c.States(cluster.StateActive) }

// Summary is a line about the run.
func (rep *Report) Summary() string {
	v := "ok"
	if n := len(rep.Violations); n > 0 {
		v = fmt.Sprintf("%d VIOLATIONS", n)
	}
	return fmt.Sprintf("seed %d: %s; %d operations, %d faults, %.1f s simulated in %.2f s [draw %d, %s]", rep.Plan.Seed, v, rep.Ops, len(rep.Plan.Faults), rep.Simulated.Seconds(), rep.Real.Seconds(), rep.Plan.Draw, strings.Join(rep.Plan.Config.Name, ", "))
}
