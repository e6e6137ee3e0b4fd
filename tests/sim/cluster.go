// Package sim builds whole clusters inside the simulator for tests: OSDs, a monitor and clients that speak the wire protocol, unchanged, on simulated disks and networks.
package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
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
	"holdfast/osd/store"
)

var logs = flag.Bool("logs", false, "show what the simulated processes log")

// Options shape a cluster.
type Options struct {
	Seed     uint64
	OSDs     int
	Replicas int
	MinSize  int
	PGs      int
	DiskSize int64
	OutTime  time.Duration // osd_out_time; 0 is the default
}

// Cluster is one simulated cluster.
type Cluster struct {
	T     *testing.T
	W     *sim.World
	O     Options
	Reg   *memory.Store
	Nodes map[layout.OSDNum]*Node
	Key   []byte

	adminLoop *sim.Loop
	admin     *memory.Handle
	follower  *cluster.Follower
	monLoop   *sim.Loop
	mon       *monitor.Monitor
}

// Node is one OSD with its disk.
type Node struct {
	c     *Cluster
	Num   layout.OSDNum
	Loop  *sim.Loop
	OSD   *osd.OSD
	Store *store.Store
	boots uint64
	reg   *memory.Handle
	Err   error
}

type quiet struct{}

func (quiet) Changed(_, _ *cluster.Snapshot, _ []string) {}
func (quiet) Fault(err *cluster.KeyError)                { panic(err) }
func (quiet) Unavailable(error)                          {}

// New makes a cluster with formatted disks, started OSDs and a monitor, and waits for nothing.
func New(t *testing.T, o Options) *Cluster {
	t.Helper()
	w := sim.NewWorld(o.Seed)
	if *logs {
		w.LogTo(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c := &Cluster{T: t, W: w, O: o, Nodes: map[layout.OSDNum]*Node{}, Key: []byte("a cluster key for tests")}
	regLoop := w.NewLoop("registry")
	c.Reg = memory.New(regLoop)
	c.adminLoop = w.NewLoop("admin")
	c.admin = c.Reg.Open(c.adminLoop)
	c.follower = cluster.Follow(c.adminLoop, c.admin, cluster.ForMonitor, quiet{})
	pool := &cluster.Pool{ID: 1, Name: "p", Scheme: cluster.Replicated, PGSize: cluster.Number(o.Replicas), PGMinSize: cluster.Number(o.MinSize), PGCount: cluster.Number(o.PGs), FailureDomain: "osd"}
	txn, err := cluster.SetPool(nil, 1, pool)
	if err != nil {
		t.Fatal(err)
	}
	c.Txn(txn)
	c.StartMonitor()
	for i := range o.OSDs {
		n := &Node{c: c, Num: layout.OSDNum(i + 1)}
		c.Nodes[n.Num] = n
		w.NewDisk(n.disk(), o.DiskSize, 4096)
		l := w.NewLoop(n.name())
		d, err := l.OpenDisk(n.disk(), loop.DiskOptions{})
		if err != nil {
			t.Fatal(err)
		}
		done := false
		store.Format(l, d, store.Config{}, func(_ store.Superblock, err error) {
			if err != nil {
				t.Fatal(err)
			}
			d.Close(func() { done = true })
		})
		if !w.RunUntil(func() bool { return done }, time.Minute) {
			t.Fatal("format does not end")
		}
		n.Start()
	}
	return c
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

// Snapshot is the cluster's state as the admin sees it.
func (c *Cluster) Snapshot() *cluster.Snapshot { return c.follower.Snapshot() }

// StartMonitor starts the monitor again.
func (c *Cluster) StartMonitor() {
	c.monLoop = c.W.NewLoop("mon")
	c.mon = monitor.Start(c.monLoop, monitor.Options{Hostname: "mon", Registry: c.Reg.Open(c.monLoop), OSDOutTime: c.O.OutTime})
}

func (n *Node) name() string { return fmt.Sprintf("osd%d", n.Num) }
func (n *Node) disk() string { return fmt.Sprintf("disk%d", n.Num) }

// Start opens the store and starts the OSD process; it runs as the world does.
func (n *Node) Start() {
	c := n.c
	l := c.W.NewLoop(n.name())
	n.Loop, n.Err = l, nil
	n.boots++
	d, err := l.OpenDisk(n.disk(), loop.DiskOptions{Exclusive: true})
	if err != nil {
		c.T.Fatal(err)
	}
	n.reg = c.Reg.Open(l)
	reg := n.reg
	instance := uint64(n.Num)<<32 | n.boots
	store.Open(l, d, store.Options{OnFailure: func(err error) { n.Err = err }}, func(st *store.Store, err error) {
		if err != nil {
			c.T.Fatalf("OSD %d: open: %v", n.Num, err)
		}
		n.Store = st
		o, err := osd.Start(l, osd.Options{
			Num: n.Num, Instance: instance, Host: n.name(), Bind: []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", n.Num)}}, Key: c.Key,
			Registry: reg, Store: st, Fatal: func(err error) { n.Err = err }, RecoveryDepth: 4,
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
func (c *Cluster) KillMonitor() { c.monLoop.Kill() }

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

// States reports whether every PG is in the state.
func (c *Cluster) States(want cluster.StateBits) bool {
	s := c.Snapshot()
	if s.PGStates.Len() != c.O.PGs {
		return false
	}
	for _, st := range s.PGStates.All() {
		if st.State != want {
			return false
		}
	}
	return true
}

// Serving reports whether every PG is active, in whatever way.
func (c *Cluster) Serving() bool {
	s := c.Snapshot()
	if s.PGStates.Len() != c.O.PGs {
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
	Tries   int
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
		out.Retval = call.Reply.Retval()
		if m.Op == wire.OpDelete {
			var r wire.DeleteReply
			_ = r.Decode(&call.Reply)
			out.Version = r.Version
		} else {
			var r wire.ReadWriteReply
			_ = r.Decode(&call.Reply)
			out.Version = r.Version
		}
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
