// Package sim builds whole clusters inside the simulator for tests: OSDs, a monitor and clients that speak the wire protocol, unchanged, on simulated disks and networks.
package sim

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/monitor"
	"holdfast/osd"
	"holdfast/osd/primary"
	"holdfast/osd/store"
)

var logs = flag.Bool("logs", false, "show what the simulated processes log")

// TB is what a cluster tells of what cannot go on: a *testing.T, or the run of a seed.
type TB interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Options shape a cluster. The zero value of a field is its default.
type Options struct {
	Seed     uint64
	OSDs     int
	Replicas int
	Parity   int  // of Replicas, which are chunks then: the pool is erasure-coded,
	XOR      bool // with the scheme xor
	MinSize  int
	PGs      int
	DiskSize int64
	Sector   int           // of the disks [4096]
	OutTime  time.Duration // osd_out_time
	LockTime time.Duration // pg_lock_time
	Confirm  bool          // lock_confirm
	Stranger time.Duration // osd.Options.StrangerTime
	Commit   string        // immediate_commit of the pool [all]
	Reads    string        // local_reads of the pool [primary]
	Monitors int           // [1]
	Store    store.Config  // what disks are formatted with; the pool has the same block size and granularity
	Depth    int           // recovery_queue_depth [4]
	Discard  int64         // min_discard_size with discard_on_start; 0: off
	Probe    func(n *Node) primary.Probe
	// Down is told when an OSD's process ended by itself: it could not open its store, or gave up. Nil: that fails the test.
	Down func(n *Node, err error)
	// Opened is told when an OSD has opened its store.
	Opened func(n *Node)
	// Logs go here with LogLevel.
	Logs     io.Writer
	LogLevel slog.Level
}

// Cluster is one simulated cluster.
type Cluster struct {
	T     TB
	W     *sim.World
	O     Options
	Reg   *sim.Registry
	Nodes map[layout.OSDNum]*Node
	Key   []byte

	pgs       int              // of all pools
	handles   []*memory.Handle // of living processes and dead ones
	onOpen    func(*memory.Handle)
	onChange  func(keys []string) // of the registry, as the admin sees it
	adminLoop *sim.Loop
	admin     *memory.Handle
	follower  *cluster.Follower
	mons      []*monNode
}

// monNode is one monitor.
type monNode struct {
	loop *sim.Loop
	mon  *monitor.Monitor
	reg  *memory.Handle
}

// Node is one OSD with its disk.
type Node struct {
	c       *Cluster
	Num     layout.OSDNum
	Loop    *sim.Loop
	OSD     *osd.OSD
	Store   *store.Store
	boots   uint64
	counted uint64 // the boot that coverage was taken from
	reg     *memory.Handle
	Err     error
}

// quiet follows the cluster for the admin.
type quiet struct{ c *Cluster }

func (q quiet) Changed(_, _ *cluster.Snapshot, keys []string) {
	if q.c.onChange != nil {
		q.c.onChange(keys)
	}
}
func (quiet) Fault(err *cluster.KeyError) { panic(err) }
func (quiet) Unavailable(error)           {}

// New makes a cluster with formatted disks, started OSDs and a monitor, and waits for nothing.
func New(t TB, o Options) *Cluster {
	t.Helper()
	if o.Sector == 0 {
		o.Sector = 4096
	}
	if o.Depth == 0 {
		o.Depth = 4
	}
	w := sim.NewWorld(o.Seed)
	switch {
	case o.Logs != nil:
		w.LogTo(slog.NewTextHandler(o.Logs, &slog.HandlerOptions{Level: o.LogLevel}))
	case *logs:
		w.LogTo(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c := &Cluster{T: t, W: w, O: o, pgs: o.PGs, Nodes: map[layout.OSDNum]*Node{}, Key: []byte("a cluster key for tests")}
	c.Reg = sim.NewRegistry(w, "registry")
	c.adminLoop = w.NewLoop("admin")
	c.admin = c.open(c.adminLoop)
	c.follower = cluster.Follow(c.adminLoop, c.admin, cluster.ForMonitor, quiet{c})
	pool := &cluster.Pool{ID: 1, Name: "p", Scheme: cluster.Replicated, PGSize: cluster.Number(o.Replicas), PGMinSize: cluster.Number(o.MinSize), PGCount: cluster.Number(o.PGs), FailureDomain: "osd",
		ImmediateCommit: o.Commit, LocalReads: o.Reads, BlockSize: cluster.Number(o.Store.BlockSize), Granularity: cluster.Number(o.Store.Granularity)}
	if o.Parity > 0 {
		pool.Scheme, pool.ParityChunks = cluster.EC, cluster.Number(o.Parity)
	}
	if o.XOR {
		pool.Scheme = cluster.XOR
	}
	txn, err := cluster.SetPool(nil, 1, pool)
	if err != nil {
		t.Fatal(err)
	}
	c.Txn(txn)
	for i := range max(o.Monitors, 1) {
		c.mons = append(c.mons, &monNode{})
		c.startMonitor(i)
	}
	formatted := 0
	for i := range o.OSDs {
		n := &Node{c: c, Num: layout.OSDNum(i + 1)}
		c.Nodes[n.Num] = n
		n.format(func() { formatted++ })
	}
	if !w.RunUntil(func() bool { return formatted == o.OSDs }, time.Minute) {
		t.Fatal("format does not end")
	}
	for i := range o.OSDs {
		c.Nodes[layout.OSDNum(i+1)].Start()
	}
	return c
}

// format puts an empty store on a new disk.
func (n *Node) format(done func()) {
	c := n.c
	c.W.NewDisk(n.disk(), c.O.DiskSize, c.O.Sector)
	l := c.W.NewLoop(n.name())
	d, err := l.OpenDisk(n.disk(), loop.DiskOptions{})
	if err != nil {
		c.T.Fatal(err)
	}
	store.Format(l, d, c.O.Store, func(_ store.Superblock, err error) {
		if err != nil {
			c.T.Fatal(err)
		}
		d.Close(func() {
			l.Kill()
			done()
		})
	})
}

// open gives a process its way to the registry.
func (c *Cluster) open(l *sim.Loop) *memory.Handle {
	h := c.Reg.Open(l)
	c.handles = append(c.handles, h)
	if c.onOpen != nil {
		c.onOpen(h)
	}
	return h
}

// Txn runs a transaction from the admin's side and waits for it.
func (c *Cluster) Txn(t registry.Txn) registry.TxnResult {
	c.T.Helper()
	var res registry.TxnResult
	var err error
	done := false
	c.admin.Txn(t, func(r registry.TxnResult, e error) { res, err, done = r, e, true })
	if !c.W.RunUntil(func() bool { return done }, time.Minute) || err != nil || !res.Succeeded {
		c.T.Fatalf("transaction: %+v %v", res, err)
	}
	return res
}

// put writes a key from the admin's side and waits for nothing; an empty value deletes it.
func (c *Cluster) put(key string, value []byte) {
	op := registry.Op{Kind: registry.Put, Key: key, Value: value}
	if len(value) == 0 {
		op = registry.Op{Kind: registry.Delete, Key: key}
	}
	c.admin.Txn(registry.Txn{Then: []registry.Op{op}}, func(registry.TxnResult, error) {})
}

// Snapshot is the cluster's state as the admin sees it.
func (c *Cluster) Snapshot() *cluster.Snapshot { return c.follower.Snapshot() }

// StartMonitor starts the first monitor again.
func (c *Cluster) StartMonitor() { c.startMonitor(0) }

func (c *Cluster) startMonitor(i int) {
	m, name := c.mons[i], "mon"
	if i > 0 {
		name = fmt.Sprintf("mon%d", i+1)
	}
	m.loop = c.W.NewLoop(name)
	m.reg = c.open(m.loop)
	m.mon = monitor.Start(m.loop, monitor.Options{Hostname: name, Registry: m.reg, OSDOutTime: c.O.OutTime})
}

// instance is that of the present process.
func (n *Node) instance() uint64 { return uint64(n.Num)<<32 | n.boots }

func (n *Node) name() string { return fmt.Sprintf("osd%d", n.Num) }
func (n *Node) disk() string { return fmt.Sprintf("disk%d", n.Num) }

// Start opens the store and starts the OSD process; it runs as the world does.
func (n *Node) Start() {
	c := n.c
	l := c.W.NewLoop(n.name())
	n.Loop, n.Err, n.Store, n.OSD = l, nil, nil, nil
	n.boots++
	d, err := l.OpenDisk(n.disk(), loop.DiskOptions{Exclusive: true})
	if err != nil {
		c.T.Fatal(err)
	}
	n.reg = c.open(l)
	reg := n.reg
	instance := n.instance()
	storeFailed := func(err error) {
		n.Err = err
		if n.OSD != nil && c.O.Down != nil {
			n.OSD.StoreFailed(err)
		}
	}
	fatal := func(err error) {
		n.Err = err
		if c.O.Down != nil {
			c.O.Down(n, err)
		}
	}
	var probe primary.Probe
	if c.O.Probe != nil {
		probe = c.O.Probe(n)
	}
	store.Open(l, d, store.Options{OnFailure: storeFailed, MinDiscard: c.O.Discard}, func(st *store.Store, err error) {
		if err != nil {
			if c.O.Down == nil {
				c.T.Fatalf("OSD %d: open: %v", n.Num, err)
			}
			n.Err = err
			c.O.Down(n, err)
			return
		}
		n.Store = st
		if c.O.Opened != nil {
			c.O.Opened(n)
		}
		o, err := osd.Start(l, osd.Options{
			Num: n.Num, Instance: instance, Host: n.name(), Bind: []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", n.Num)}}, Key: c.Key,
			Registry: reg, Store: st, Fatal: fatal, RecoveryDepth: c.O.Depth,
			StrangerTime: c.O.Stranger, LockTime: c.O.LockTime, LockConfirm: c.O.Confirm, Probe: probe,
		})
		if err != nil {
			c.T.Fatal(err)
		}
		n.OSD = o
	})
}

// Kill ends the process at once; the disk keeps what was flushed, the kernel finishes what was under way.
func (n *Node) Kill() {
	n.reg.Close()
	n.Loop.Kill()
}

// PowerOff ends the process and its machine: what the disk's cache had not written is kept, lost or torn by chance.
func (n *Node) PowerOff() {
	n.reg.Close()
	n.Loop.PowerOff()
	n.c.W.Disk(n.disk()).Crash(sim.CrashRandom)
}

// CutRegistry takes the OSD's contact with the registry away, or gives it back.
func (n *Node) CutRegistry(cut bool) { n.reg.Unreachable(cut) }

// KillMonitor ends the monitor's process.
func (c *Cluster) KillMonitor() { c.mons[0].loop.Kill() }

// Wait runs the world until cond, at most limit.
func (c *Cluster) Wait(what string, limit time.Duration, cond func() bool) {
	c.T.Helper()
	if !c.W.RunUntil(cond, limit) {
		c.T.Fatalf("after %v: %s has not come about; %s", limit, what, c.describe())
	}
}

func (c *Cluster) describe() string {
	text := ""
	for id, st := range c.Snapshot().PGStates.All() {
		text += fmt.Sprintf("\n  pg %v: %v primary %d peers %v", id, st.State, st.Primary, st.Peers)
	}
	for id, r := range c.Snapshot().Records.All() {
		text += fmt.Sprintf("\n  record %v: %+v", id, *r)
	}
	for i := range c.O.OSDs {
		n := c.Nodes[layout.OSDNum(i+1)]
		if n.OSD != nil && n.Loop.Alive() {
			text += fmt.Sprintf("\nOSD %d (error %v):\n%s", n.Num, n.Err, n.OSD.Describe())
		}
	}
	return text
}

// States reports whether every PG is in the state; what only lies about on OSDs that are down does not matter.
func (c *Cluster) States(want cluster.StateBits) bool {
	s := c.Snapshot()
	if s.PGStates.Len() != c.pgs {
		return false
	}
	for _, st := range s.PGStates.All() {
		if st.State&^cluster.StateLeftOnDead != want {
			return false
		}
	}
	return true
}

// Serving reports whether every PG is active, in whatever way.
func (c *Cluster) Serving() bool {
	s := c.Snapshot()
	if s.PGStates.Len() != c.pgs {
		return false
	}
	for _, st := range s.PGStates.All() {
		if st.State&cluster.StateActive == 0 {
			return false
		}
	}
	return true
}

// Client speaks the wire protocol for tests, one request at a time, with the retries a real client makes.
type Client struct {
	c       *Cluster
	Loop    *sim.Loop
	hub     *peer.Hub
	session uint64
	seq     uint64
	ttl     time.Duration // how long a change may take to begin; 0: for ever
}

// NewClient connects nothing yet.
func (c *Cluster) NewClient(session uint64) *Client {
	l := c.W.NewLoop(fmt.Sprintf("client%d", session))
	k := &Client{c: c, Loop: l, session: session}
	k.hub = peer.New(l, peer.Options{Instance: session + 1<<50, Key: c.Key}, nil)
	return k
}

// Result is the answer to a request.
type Result struct {
	Retval  int64
	Version uint64
	Data    []byte
	Bitmap  []byte
	Tries   int
	Reply   wire.Header
}

// Do sends one READ, WRITE or DELETE until it is answered with something else than EPIPE, and runs the world meanwhile.
func (k *Client) Do(m wire.ReadWrite, data []byte, limit time.Duration) (Result, bool) {
	var out Result
	done := false
	k.Begin(m, data, func(r Result) { out, done = r, true })
	ok := k.c.W.RunUntil(func() bool { return done }, limit)
	return out, ok
}

// Begin is Do without waiting: done is called with the answer.
func (k *Client) Begin(m wire.ReadWrite, data []byte, done func(Result)) {
	var out Result
	if m.Op != wire.OpRead && m.Session == 0 {
		k.seq++
		m.Trailer = wire.Trailer{Session: k.session, Sequence: k.seq, Low: k.seq}
	}
	var ref *buf.Ref
	if data != nil {
		ref = k.Loop.Alloc(len(data))
		copy(ref.Bytes(), data)
	}
	var try func()
	retry := &loop.Timer{}
	call := &peer.Call{}
	call.Done = func(*peer.Call) {
		out.Tries++
		if call.Err != nil || call.Reply.Retval() == wire.EPIPE {
			k.Loop.Arm(retry, k.Loop.Now().Add(50*time.Millisecond))
			return
		}
		out.Retval, out.Reply = call.Reply.Retval(), call.Reply
		if m.Op == wire.OpDelete {
			var r wire.DeleteReply
			_ = r.Decode(&call.Reply)
			out.Version = r.Version
		} else {
			var r wire.ReadWriteReply
			_ = r.Decode(&call.Reply)
			out.Version = r.Version
		}
		out.Bitmap = bytes.Clone(call.ReplyMeta)
		if call.ReplyData != nil {
			out.Data = append([]byte(nil), call.ReplyData.Bytes()...)
			call.ReplyData.Release()
			call.ReplyData = nil
		}
		if ref != nil {
			ref.Release()
		}
		done(out)
	}
	try = func() {
		s := k.c.Snapshot()
		g, err := s.Geometry(m.Inode.Pool())
		if err != nil || g.PGCount == 0 {
			k.Loop.Arm(retry, k.Loop.Now().Add(50*time.Millisecond))
			return
		}
		osdNum := s.Primary(layout.PGID{Pool: m.Inode.Pool(), Num: g.PG(g.Stripe(m.Offset))})
		if osdNum == 0 {
			k.Loop.Arm(retry, k.Loop.Now().Add(50*time.Millisecond))
			return
		}
		k.hub.SetPeer(osdNum, []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", osdNum)}})
		m.Encode(&call.Header)
		if call.Deadline = 0; k.ttl > 0 {
			call.Deadline = k.Loop.Now().Add(k.ttl)
		}
		call.Payload = nil
		if ref != nil {
			call.Payload = []peer.Piece{{Ref: ref, Len: len(data)}}
		}
		k.hub.Call(osdNum, call)
	}
	retry.Fire = try
	start := &loop.Task{Run: try}
	k.Loop.Post(start)
}

// Write writes whole units and fails the test when that does not succeed.
func (k *Client) Write(inode layout.Inode, offset uint64, data []byte) Result {
	k.c.T.Helper()
	r, ok := k.Do(wire.ReadWrite{Op: wire.OpWrite, Inode: inode, Offset: offset, Len: uint32(len(data))}, data, time.Minute)
	if !ok || r.Retval != int64(len(data)) {
		k.c.T.Fatalf("write at %d: %+v answered %v; %s", offset, r, ok, k.c.describe())
	}
	return r
}

// Read reads whole units and fails the test when that does not succeed.
func (k *Client) Read(inode layout.Inode, offset uint64, n int) Result {
	k.c.T.Helper()
	r, ok := k.Do(wire.ReadWrite{Op: wire.OpRead, Inode: inode, Offset: offset, Len: uint32(n)}, nil, time.Minute)
	if !ok || r.Retval != int64(n) || len(r.Data) != n {
		k.c.T.Fatalf("read at %d: retval %d, %d bytes, answered %v; %s", offset, r.Retval, len(r.Data), ok, k.c.describe())
	}
	return r
}
