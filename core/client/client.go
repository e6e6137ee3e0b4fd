package client

import (
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/wire"
)

// Options say who the client is and how patient it is. Zero values mean the defaults in brackets.
type Options struct {
	Registry registry.Registry // of the client's loop
	Key      []byte            // cluster key; nil: none
	// Instance is the upper 40 bits of the ids of all sessions, at most MaxInstance, not 0. It is drawn at random for each run of a process and never used again.
	Instance uint64
	// Lane and Lanes share an Instance between the Clients of several loops of one process: each has its own Lane below Lanes [0 of 1].
	Lane, Lanes int
	Name        string // for people, in OSDs' logs
	Host        string // name of our host in the placement tree, for pools whose local_reads is nearest; "": nowhere in it

	RetryInterval    time.Duration // client_retry_interval: after EPIPE, a lost connection [50 ms]
	EIORetryInterval time.Duration // client_eio_retry_interval: after EIO, and after ENOSPC (1 s when this is 0); 0: return ErrIO
	RetryENOSPC      bool          // client_retry_enospc: wait for space instead of returning ErrNoSpace
	RetryLimit       int           // client_retry_limit: tries of one part without an answer; 0: for ever
	OpTTL            time.Duration // op_ttl: see Client.NewSession [4 s]

	MaxBytes int // of data in requests that are sent and not answered; the others wait for their turn [256 MiB]
	MaxParts int // such requests [4096]
	// Of changes with Op.Lazy that are not durable, copies are kept. Others are durable when they complete; the copies are synced when there is half of this.
	MaxDirtyBytes int // client_max_dirty_bytes [32 MiB]
	MaxDirtyOps   int // client_max_dirty_ops [1024]

	MaxOps int // operations that are submitted and not done; more fail with ErrBusy [65536]

	// AllowLegacy says at which addresses an OSD without our handshake is accepted; nil means nowhere. Such an OSD keeps none of the promises about sessions.
	AllowLegacy func(loop.Addr) bool
	Peer        func(*peer.Options) // changes the Hub's options before it is made; nil: nothing
	Log         *slog.Logger        // [the loop's]
}

// Defaults are Options with the documented values.
func Defaults() Options {
	return Options{RetryInterval: 50 * time.Millisecond, EIORetryInterval: time.Second, RetryENOSPC: true, OpTTL: 4 * time.Second}
}

func (o *Options) fill(l loop.Loop) {
	def(&o.Lanes, 1)
	def(&o.RetryInterval, 50*time.Millisecond)
	def(&o.OpTTL, 4*time.Second)
	def(&o.MaxBytes, 256<<20)
	def(&o.MaxParts, 4096)
	def(&o.MaxOps, 65536)
	def(&o.MaxDirtyBytes, 32<<20)
	def(&o.MaxDirtyOps, 1024)
	if o.Log == nil {
		o.Log = l.Log()
	}
}

func def[T ~int | ~int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

const (
	// partsPerOp bounds the parts of one Op under way; a long Zero is cut as it goes.
	partsPerOp = 256
	// recheck is how often a part without a primary looks again, besides at each change of the cluster.
	recheck = time.Second
	// zeroPiece is the memory that stands for pieces without a Ref.
	zeroPiece = 64 << 10
)

// Stats count what happened since the start.
type Stats struct {
	Ops, Parts uint64
	Bytes      uint64
	Retries    uint64 // parts sent again
	Lost       uint64 // of them, after a connection was lost that had brought no answer to a change
	Moved      uint64 // of them, to another primary
	Late       uint64 // changes refused as too late
	Conflicts  uint64 // rewrites begun again because another writer was faster
	Full       uint64 // refusals for lack of space
	Failed     uint64 // Ops that ended with an error
	Replayed   uint64 // lazy changes sent again
	Overtaken  uint64 // of them, refused because another client had written since
	Local      uint64 // reads answered by a member that is not the primary
	Redirected uint64 // reads that such a member left to the primary
}

// Client is image I/O on one loop.
type Client struct {
	l    loop.Loop
	o    Options
	log  *slog.Logger
	hub  *peer.Hub
	f    *cluster.Follower
	snap *cluster.Snapshot
	live bool // the first snapshot is here

	pools    map[layout.PoolID]*pool
	shun     map[layout.PGID]loop.Instant // whose primary alone is asked to read, until then
	distance map[layout.OSDNum]int        // see far
	handlers []*changeHandler
	awaiting []awaited
	looked   *cluster.Snapshot // by wake
	sessions uint64

	order   order
	keep    keeper
	changes opList // with parts to come, in the order of submission
	reads   opList
	ready   partList
	calling partList
	waiting partList
	blocked partList
	free    partList
	dropped []*part
	pumping bool
	flying  int
	bytes   int
	ops     int
	zeros   *buf.Ref

	done     *Op // completed, by next
	doneLast *Op
	closing  []*Session
	task     loop.Task
	lists    []*Listing
	closed   bool
	onClosed func()
	Stats    Stats
}

// pool is what operations need of a pool.
type pool struct {
	g     layout.Geometry
	size  uint64 // of an object
	lazy  bool   // immediate_commit is not all
	reads nearness
	err   error
}

type changeHandler struct {
	f func(prev, next *cluster.Snapshot, keys []string)
}

type awaited struct {
	cond func(*cluster.Snapshot) bool
	done func()
}

// New makes a client, which begins to follow the cluster. What is submitted before the first snapshot waits for it.
func New(l loop.Loop, o Options) *Client {
	o.fill(l)
	if o.Instance == 0 || o.Instance > MaxInstance {
		panic("client: Options.Instance is not set, or too large")
	}
	if o.Lane < 0 || o.Lane >= o.Lanes {
		panic("client: Options.Lane is not below Lanes")
	}
	c := &Client{l: l, o: o, log: o.Log.With("component", "client"), pools: map[layout.PoolID]*pool{}, shun: map[layout.PGID]loop.Instant{}, distance: map[layout.OSDNum]int{}}
	c.task.Run = c.complete
	c.free.which, c.ready.which = inQueue, inQueue
	c.order.grow()
	c.zeros = l.Alloc(zeroPiece)
	clear(c.zeros.Bytes())
	po := peer.Options{Role: peer.RoleClient, Instance: o.Instance<<SessionBits | uint64(o.Lane), Client: o.Name, Key: o.Key, AllowLegacy: o.AllowLegacy, Log: c.log}
	if o.Peer != nil {
		o.Peer(&po)
	}
	c.keep.objects, c.keep.timer.Fire = map[layout.ObjectID]*keptObject{}, c.syncKept
	c.hub = peer.New(l, po, keeperHandler{c})
	c.f = cluster.Follow(l, o.Registry, cluster.ForClient, (*follower)(c))
	c.snap = c.f.Snapshot()
	return c
}

// Loop is the client's loop.
func (c *Client) Loop() loop.Loop { return c.l }

// Registry is what the client was made with.
func (c *Client) Registry() registry.Registry { return c.o.Registry }

// Log is the client's logger.
func (c *Client) Log() *slog.Logger { return c.log }

// Ready reports whether the state of the cluster is known.
func (c *Client) Ready() bool { return c.live }

// Snapshot is the state of the cluster; before Ready an empty one.
func (c *Client) Snapshot() *cluster.Snapshot { return c.snap }

// Geometry is a pool's; an error says why the pool cannot be used.
func (c *Client) Geometry(id layout.PoolID) (layout.Geometry, error) {
	p, err := c.pool(id)
	if err != nil {
		return layout.Geometry{}, err
	}
	return p.g, nil
}

// OnChange calls f after each change of the snapshot, the first one included, until stop. keys are the changed ones, sorted.
func (c *Client) OnChange(f func(prev, next *cluster.Snapshot, keys []string)) (stop func()) {
	h := &changeHandler{f}
	c.handlers = append(c.handlers, h)
	return func() { h.f = nil }
}

// Await calls done, later, once the snapshot satisfies the condition, or the Client is closed.
func (c *Client) Await(cond func(*cluster.Snapshot) bool, done func()) {
	c.awaiting = append(c.awaiting, awaited{cond, done})
	c.looked = nil
	c.l.Defer(&c.task)
}

// Close ends everything: operations fail with ErrClosed, done (which may be nil) is called when all have completed.
func (c *Client) Close(done func()) {
	if c.closed {
		return
	}
	c.closed, c.onClosed = true, done
	c.f.Stop()
	for _, s := range c.lists {
		s.err = ErrClosed
	}
	c.hub.Close()
	c.closeKept()
	c.drop(func(*Op) bool { return true }, ErrClosed)
	c.l.Defer(&c.task)
}

// dropSession ends what a session has under way, as far as that is possible.
func (c *Client) dropSession(s *Session, err error) {
	c.drop(func(op *Op) bool { return op.Session == s }, err)
	c.pump()
}

// drop fails the Ops that the condition holds for. What the Hub has is waited for.
func (c *Client) drop(which func(*Op) bool, err error) {
	var hit []*Op // a rare path: may allocate
	for _, l := range [...]*opList{&c.changes, &c.reads} {
		for op := l.first; op != nil; op = op.next {
			if which(op) {
				hit = append(hit, op)
			}
		}
	}
	for _, l := range [...]*partList{&c.ready, &c.calling, &c.waiting, &c.blocked} {
		for p := l.first; p != nil; p = p.links[inQueue].next {
			if p.op.list == nil && which(p.op) && p.op.first == p {
				hit = append(hit, p.op)
			}
		}
	}
	for _, op := range hit {
		if !op.submitted {
			continue
		}
		op.fail(err)
		for p := op.first; p != nil; p = p.links[inOp].next {
			if p.state == partCalling && c.hub.Cancel(&p.call) {
				p.move(partReady)
			}
		}
		if op.active > 0 {
			op.active++ // keeps it from completing while its parts go
			c.abandon(op)
			op.active--
		}
		c.advance(op)
	}
}

// follower is the Client as its Follower sees it.
type follower Client

// Changed takes a new snapshot.
func (f *follower) Changed(prev, next *cluster.Snapshot, keys []string) {
	c := (*Client)(f)
	first := !c.live
	c.live, c.snap = true, next
	var config, pgs bool
	for _, key := range keys {
		switch {
		case strings.HasPrefix(key, cluster.PrefixOSDState):
			c.setPeer(next, key)
			clear(c.distance)
			pgs = true
		case key == cluster.KeyPools, key == cluster.KeyGlobal, key == cluster.KeyPGConfig:
			config, pgs = true, true
		case key == cluster.KeyPlacement:
			clear(c.distance)
		case strings.HasPrefix(key, cluster.PrefixPGState), strings.HasPrefix(key, cluster.PrefixInode):
			pgs = true
		}
	}
	if config || first {
		c.readPools()
	}
	if first {
		c.startAll()
	}
	if pgs {
		c.reconsider()
	}
	for i := 0; i < len(c.handlers); i++ {
		if h := c.handlers[i]; h.f != nil {
			h.f(prev, next, keys)
		}
	}
	kept := c.handlers[:0]
	for _, h := range c.handlers {
		if h.f != nil {
			kept = append(kept, h)
		}
	}
	clear(c.handlers[len(kept):])
	c.handlers = kept
	c.l.Defer(&c.task)
}

// Fault names a key that cannot be used.
func (f *follower) Fault(err *cluster.KeyError) {
	f.log.Error("unusable key", "key", err.Key, "err", err)
}

// Unavailable says that the registry is out of reach: I/O goes on with what is known.
func (f *follower) Unavailable(err error) { f.log.Warn("registry out of reach", "err", err) }

// setPeer keeps an OSD's addresses.
func (c *Client) setPeer(s *cluster.Snapshot, key string) {
	k, ok := cluster.ParseKey(key)
	if !ok {
		return
	}
	st, ok := s.OSDStates.Get(k.OSD)
	if !ok {
		c.hub.RemovePeer(k.OSD)
		return
	}
	var addrs []loop.Addr
	for _, a := range st.Addresses {
		addrs = append(addrs, loop.Addr{Network: "tcp", Address: net.JoinHostPort(a, strconv.FormatUint(uint64(st.Port), 10))})
	}
	c.hub.SetPeer(k.OSD, addrs)
}

// readPools takes over what operations need of the pools.
func (c *Client) readPools() {
	clear(c.pools)
	for id, p := range c.snap.Pools.All() {
		q := &pool{lazy: c.snap.ImmediateCommit(p) != wire.CommitAll, reads: readsOf(p)}
		q.g, q.err = c.snap.Geometry(id)
		if q.size = q.g.ObjectSize(); q.err == nil && q.size > 1<<31 {
			q.err = errors.New("its objects have " + strconv.FormatUint(q.size, 10) + " bytes, this version serves at most 2 GiB: make another pool with a smaller block_size")
		}
		c.pools[id] = q
	}
}

func (c *Client) pool(id layout.PoolID) (*pool, error) {
	p := c.pools[id]
	switch {
	case p == nil:
		return nil, &PoolError{id, errors.New("does not exist")}
	case p.err != nil:
		return nil, &PoolError{id, p.err}
	}
	return p, nil
}

// primary is who serves an object now, or 0.
func (c *Client) primary(inode layout.Inode, stripe uint64) (layout.PGID, layout.OSDNum) {
	p := c.pools[inode.Pool()]
	if p == nil || p.g.PGCount == 0 {
		return layout.PGID{Pool: inode.Pool()}, 0
	}
	pg := layout.PGID{Pool: inode.Pool(), Num: p.g.PG(stripe)}
	if t, ok := c.snap.PGConfig.Target(pg); ok && t.Pause {
		return pg, 0
	}
	return pg, c.snap.Primary(pg)
}

// complete runs at the end of a turn: it hands results out.
func (c *Client) complete() {
	op := c.done
	c.done, c.doneLast = nil, nil // what ends meanwhile waits for the next turn
	for op != nil {
		next := op.next
		op.next = nil
		op.submitted = false
		c.ops--
		if s := op.Session; s != nil {
			if s.ops--; s.ops == 0 && s.closed {
				c.closing = append(c.closing, s)
			}
		}
		op.Done(op)
		op = next
	}
	for len(c.closing) > 0 {
		s := c.closing[0]
		c.closing = c.closing[1:]
		if f := s.done; f != nil && s.ops == 0 {
			s.done = nil
			f()
		}
	}
	if c.looked != c.snap || c.closed {
		c.looked = c.snap
		c.wake()
	}
	if c.closed {
		c.finishLists()
		if c.ops == 0 && len(c.lists) == 0 && c.zeros != nil {
			c.zeros.Release()
			c.zeros = nil
			if f := c.onClosed; f != nil {
				f()
			}
		}
	}
}

// wake looks at who awaits something of the snapshot.
func (c *Client) wake() {
	for i := 0; i < len(c.awaiting); {
		if a := c.awaiting[i]; c.closed || a.cond(c.snap) {
			c.awaiting = append(c.awaiting[:i], c.awaiting[i+1:]...)
			a.done()
			continue
		}
		i++
	}
}
