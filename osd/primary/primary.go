// Package primary executes clients' requests on the primary of each PG: order per object, versions, every change on every member before it is acknowledged, reads that
// see only what every member has, each request once; and it makes objects whole again that some member lacks.
//
// osd drives it: it says when a PG serves and with whom, and takes it away. Everything belongs to the OSD's loop. A request is acknowledged only in the interval it was
// begun in; when the interval ends, what is unacknowledged is answered EPIPE, and the client asks again under the same session and sequence.
package primary

import (
	"time"

	"holdfast/core/cluster"
	"holdfast/core/ec"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// Host is what the primary needs of the daemon around it.
type Host interface {
	// Snapshot is the state of the cluster as applied.
	Snapshot() *cluster.Snapshot
	// Valid reports whether the OSD's grant to us is in force now, by our clock.
	Valid(osd layout.OSDNum) bool
	// Confirm asks the OSD whether its grants to us are in force; ok is its answer, given after the question was put.
	Confirm(osd layout.OSDNum, done func(ok bool))
	// Lost says that a member of a PG failed us: the interval must end. full says that it refuses writes for lack of space.
	Lost(pg layout.PGID, osd layout.OSDNum, full bool)
	// NoRoom says that a member has no space for what recovery brings. The interval ends if the PG can go on without it.
	NoRoom(pg layout.PGID, osd layout.OSDNum)
	// Fenced reports whether a session's requests are refused.
	Fenced(session uint64, pool layout.PoolID) bool
	// Recovered says that every object of the PG is whole on its acting set.
	Recovered(pg layout.PGID)
	// Unfound says that of some objects nobody who was heard can give what is true.
	Unfound(pg layout.PGID)
	// Restated says that the PG's first object cannot be found now, or its last such object has been found.
	Restated(pg layout.PGID)
}

// Options are the primary's limits.
type Options struct {
	Self          layout.OSDNum
	Instance      uint64
	RecoveryDepth int // recovery_queue_depth at first; 0: as by default
	// LockConfirm has every member confirm its grant before a client is told something that only our own copy says: the clock may have stood still since the last renewal.
	LockConfirm bool
	Probe       Probe
}

// Primary is the request execution of one OSD.
type Primary struct {
	l    loop.Loop
	hub  *peer.Hub
	sec  *secondary.Server
	st   *store.Store
	host Host
	o    Options

	pgs            map[layout.PGID]*PG
	order          []layout.PGID // of pgs, sorted
	codes          ec.Codes
	zero           []byte
	free           *op
	freeCopy       *copyJob
	freeComparison *comparison
	freeCommit     *commitCall
	freeBurial     *burial
	space          map[layout.OSDNum]uint64 // how many changes that need space we may have under way on other OSDs, as their replies say
	backfill       map[layout.OSDNum]uint64 // how many objects recovery may bring there
	taking         int                      // changes that need space under way, over all PGs
	short          []*op                    // changes that wait for one of them to end
	again          loop.Task                // has them try
	staying        []layout.PoolID          // see Stay
	requests       map[layout.OSDNum]uint64 // how many more requests they can remember
	stats          [64]OpStat

	tuning     Tuning
	slow       secondary.Watch[*op] // clients' operations that have no answer yet
	syncs      syncs
	recovering int // objects under background recovery
	complaints int // primaries that are being told of bad copies of ours
	queues     queues
	throttle   throttle
	kickTask   loop.Task
	retry      loop.Timer
	forget     loop.Timer
	Recovery   RecoveryStat // all of it
	Moved      RecoveryStat // of that, objects that were only misplaced
	Scrubbed   ScrubStat
	BadCopies  map[layout.OSDNum]uint64 // by OSD: copies that could not be read, or were found to be wrong
	Events     Events
}

// OpStat sums up one opcode since the start.
type OpStat struct{ Count, Usec, Bytes uint64 }

// RecoveryStat sums up recovery since the start.
type RecoveryStat struct{ Objects, Bytes, Usec uint64 }

// add counts one object.
func (r *RecoveryStat) add(bytes int, took time.Duration) {
	r.Objects++
	r.Bytes += uint64(bytes)
	r.Usec += uint64(took.Microseconds())
}

// Without is r less what part of it sums up.
func (r RecoveryStat) Without(part RecoveryStat) RecoveryStat {
	return RecoveryStat{r.Objects - part.Objects, r.Bytes - part.Bytes, r.Usec - part.Usec}
}

// New makes a primary without PGs.
func New(l loop.Loop, hub *peer.Hub, sec *secondary.Server, st *store.Store, host Host, o Options) *Primary {
	p := &Primary{l: l, hub: hub, sec: sec, st: st, host: host, o: o, pgs: map[layout.PGID]*PG{}, space: map[layout.OSDNum]uint64{}, backfill: map[layout.OSDNum]uint64{}, requests: map[layout.OSDNum]uint64{}}
	p.tuning = DefaultTuning()
	if o.RecoveryDepth > 0 {
		p.tuning.Recovery.Depth = o.RecoveryDepth
	}
	p.throttle.now = p.throttle.pacer.decide(&p.tuning.Recovery)
	p.throttle.tick.Fire = p.repace
	p.throttle.rested.Fire = p.recoverSome
	p.slow.Init(l, p.tuning.SlowLog, p.nameSlow)
	p.syncs.init(p)
	p.kickTask.Run = p.recoverSome
	p.again.Run = p.tryShort
	p.retry.Fire = p.rested
	p.forget.Fire = p.forgetAll
	return p
}

// Stats is the sum for an opcode.
func (p *Primary) Stats(op wire.Opcode) OpStat { return p.stats[op&63] }

// PG is one PG while we serve it as its primary.
type PG struct {
	ID       layout.PGID
	Interval layout.Interval
	Geometry layout.Geometry
	Table    *pg.Table

	p       *Primary
	coded   *coding         // nil in replicated pools
	others  []layout.OSDNum // members besides us
	members []layout.OSDNum
	size    int // of a whole set, as the pool says
	grant   wire.Grant
	lazy    pgLazy
	lends   lends
	floor   layout.Version
	stopped bool
	running int // local store operations under way
	drained func()

	backlog   backlog
	resting   []layout.ObjectID                    // could not be recovered, and are tried again when Primary.retry fires
	held      []layout.ObjectID                    // a member has no space for them
	unclean   []peering.Unclean                    // as peering found them, by object; those that are whole by now included
	spoiled   map[layout.ObjectID]*peering.Unclean // found later; nil as a rule
	left      int                                  // objects that are not whole
	total     int
	misplaced int                      // of left
	unfound   map[layout.ObjectID]bool // of left; nil as a rule
	corrupted int                      // of left
	// inconsistent are of left those whose copies differ.
	inconsistent int
	meter        meter
	clean        bool // the record says so: tombstones may go
	tombs        []wire.SubEntry
	waiting      []wire.SubEntry // tombstones made while not clean
	tidyAt       int             // how many of these there are when tidy is due
	reported     bool

	// In erasure-coded pools, versions that every member has, and which are not committed yet:
	commits    []wire.Versioned
	graves     []wire.SubEntry  // deletions among those
	versions   []wire.Versioned // of one member, as it calls them
	commitTask loop.Task
	ownCommit  func(error)
}

// Serve begins to serve a PG in an interval. lend says that its members may be given the right to answer reads.
//
// roles has the member of each role in erasure-coded pools, 0 where there is none.
func (p *Primary) Serve(id layout.PGID, interval layout.Interval, g layout.Geometry, members []peering.Member, roles []layout.OSDNum, v *peering.Verdict, lend bool) (*PG, error) {
	q := &PG{ID: id, Interval: interval, Geometry: g, Table: pg.NewTable(), p: p, floor: v.Floor,
		grant: wire.Grant{PG: id, Interval: interval, Instance: p.o.Instance}}
	if roles != nil {
		var err error
		if q.coded, err = p.coding(g, roles); err != nil {
			return nil, err
		}
		lend = false
	}
	q.commitTask.Run, q.ownCommit = q.sendCommits, q.committedHere
	q.lazy.mode, q.lends.on = p.lazyMode(id.Pool), lend
	for _, m := range members {
		q.members = append(q.members, m.OSD)
		if m.OSD != p.o.Self {
			q.others = append(q.others, m.OSD)
		}
	}
	if pool, ok := p.host.Snapshot().Pools.Get(id.Pool); ok {
		q.size = int(pool.PGSize)
	}
	for i := range v.Unclean {
		u := &v.Unclean[i]
		o := q.Table.Open(u.Object, u.Truth.Version, u.Truth.Version == 0 || u.Truth.Tombstone)
		o.Unclean = u
		q.enqueue(u)
		if q.misplacedBy(u) {
			q.misplaced++
		}
	}
	q.unclean, q.left, q.total = v.Unclean, len(v.Unclean), len(v.Unclean)
	q.meter.since = p.l.Now()
	for _, e := range v.Tombstones {
		q.waiting = append(q.waiting, wire.SubEntry{Object: e.Object, Version: e.Version, Interval: e.Interval})
	}
	p.pgs[id] = q
	p.sortPGs()
	p.watchLoad()
	p.kick()
	if b := p.o.Probe; b != nil {
		b.Serving(id, interval, members)
	}
	return q, nil
}

// Left is the number of objects that are not whole, and Total how many there were when the PG began to serve.
func (q *PG) Left() (left, total int) { return q.left, q.total }

// SetClean says that the PG's record needs nobody but the present set: tombstones may be forgotten.
func (q *PG) SetClean() {
	q.clean = true
	q.tombs = append(q.tombs, q.waiting...)
	q.waiting = nil
	q.p.armForget()
}

// Stop ends the serving of a PG. Every request under way is answered EPIPE now; drained is called when our store has finished what was under way.
func (p *Primary) Stop(id layout.PGID, drained func()) {
	q := p.pgs[id]
	if q == nil {
		drained()
		return
	}
	delete(p.pgs, id)
	p.sortPGs()
	q.clearBacklog()
	q.stopped = true
	if b := p.o.Probe; b != nil {
		b.Stopped(id, q.Interval)
	}
	q.drained = drained
	q.Table.Abandon(func(c *pg.Change) { c.Committed() })
	q.dropWriters()
	p.l.Defer(&p.again)
	if q.running == 0 {
		q.drained = nil
		drained()
	}
}

func (q *PG) begin() { q.running++ }

func (q *PG) end() {
	q.running--
	if q.running == 0 && q.drained != nil {
		f := q.drained
		q.drained = nil
		f()
	}
}

// valid reports whether every member's grant is in force; if not, the interval ends.
func (q *PG) valid() bool {
	if q.stopped {
		return false
	}
	for _, osd := range q.others {
		if !q.p.host.Valid(osd) {
			q.p.Events.Lapsed++
			q.p.host.Lost(q.ID, osd, false)
			return false
		}
	}
	return true
}

// lookup is what our store holds of an object, as the order of its changes begins.
func (q *PG) open(id layout.ObjectID) *pg.Object {
	if o := q.Table.Get(id); o != nil {
		return o
	}
	s, ok := q.p.st.State(q.mine(id))
	return q.Table.Open(id, s.Version, !ok || s.Version == 0 || s.Flags&store.Tombstone != 0)
}
