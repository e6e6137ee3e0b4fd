package primary

import (
	"errors"
	"slices"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// In a pool whose immediate_commit is not all, changes of clients that keep copies (stock clients, and our own that say so) are acknowledged when every member has taken them, and are durable on all of them when
// a later SYNC is answered (docs/adr/0014-lazy-sync.md). Everything else is durable as ever: what other clients write, what recovery copies, and what peering has listed.

// Syncing is how soon a primary makes durable what nobody asks for.
type Syncing struct {
	Interval time.Duration // autosync_interval: at the latest so long after it was acknowledged; 0: when a client asks
	Writes   int           // autosync_writes: when so many changes are acknowledged and not durable; 0: any number
}

// DefaultSyncing is what the parameters say where nobody has set them.
func DefaultSyncing() Syncing { return Syncing{Interval: 5 * time.Second, Writes: 128} }

// pgLazy is what of one PG is acknowledged and not durable.
type pgLazy struct {
	mode     store.Laziness    // of changes that may be lazy,
	as       *cluster.Snapshot // as of this
	unsynced bool              // something was acknowledged since the last sync began
	writers  []*peer.Incoming  // by whom
	tombs    []wire.SubEntry   // of that, deletions: they may be forgotten when they are durable

	// Of the sync under way:
	syncing   bool
	syncers   []*peer.Incoming
	syncTombs []wire.SubEntry

	chains chains
}

// errUnsynced ends the connections of clients that have to write again what was not synced.
var errUnsynced = errors.New("the PG is served anew: write again what was not synced")

// syncs makes durable on every member what was acknowledged before. One sync runs at a time; requests that come meanwhile have the next one.
type syncs struct {
	p       *Primary
	how     Syncing
	waiting []*op // those that wait for the next sync
	running []*op // and for this one
	ended   []*op // and, while they are told, for the last
	pgs     []*PG // under way
	left    int
	failed  bool
	writes  int // acknowledged and not durable
	local   store.Op
	free    *syncCall
	timer   loop.Timer
	task    loop.Task
}

func (s *syncs) init(p *Primary) {
	s.p, s.how = p, DefaultSyncing()
	s.task.Run = s.start
	s.timer.Fire = s.start
	s.local.Kind, s.local.Done = store.OpSync, func(op *store.Op) { s.answered(nil, op.Err) }
}

// TuneSync takes over how soon unsynced changes are made durable.
func (p *Primary) TuneSync(t Syncing) {
	p.syncs.how = t
	p.l.Disarm(&p.syncs.timer)
	if p.unsynced() {
		p.syncs.arm()
	}
}

// Syncing is what TuneSync has set.
func (p *Primary) Syncing() Syncing { return p.syncs.how }

// lazyMode is how the pool's changes may be acknowledged.
func (p *Primary) lazyMode(id layout.PoolID) store.Laziness {
	snap := p.host.Snapshot()
	pool, ok := snap.Pools.Get(id)
	if !ok {
		return store.Durable
	}
	switch snap.ImmediateCommit(pool) {
	case wire.CommitNone:
		return store.Lazy
	case wire.CommitSmall:
		return store.LazyBlocks
	}
	return store.Durable
}

// decide says how o may be acknowledged: as the pool says now, if its client keeps a copy until it has synced.
func (o *op) decide() {
	z := &o.q.lazy
	if o.how = store.Durable; o.trail.Session != 0 && !o.lazy {
		return
	}
	if snap := o.p.host.Snapshot(); snap != z.as {
		z.as, z.mode = snap, o.p.lazyMode(o.q.ID.Pool)
	}
	o.how = z.mode
}

// dirtied notes, before the client is told, that a change of its is on every member and perhaps not durable.
func (o *op) dirtied() {
	q := o.q
	if o.how == store.Durable {
		return
	}
	s, z := &q.p.syncs, &q.lazy
	z.unsynced = true
	if from := o.r.From; from != nil && !slices.Contains(z.writers, from) {
		z.writers = append(z.writers, from)
	}
	if s.writes++; s.how.Writes > 0 && s.writes >= s.how.Writes || q.coded != nil && q.p.crowded() {
		s.soon()
	}
	s.arm()
}

func (s *syncs) arm() {
	if s.how.Interval > 0 && !s.timer.Armed() {
		s.p.l.Arm(&s.timer, s.p.l.Now().Add(s.how.Interval))
	}
}

// unsynced reports whether anything was acknowledged that no sync has covered or is about to.
func (p *Primary) unsynced() bool {
	for _, id := range p.order {
		if p.pgs[id].lazy.unsynced {
			return true
		}
	}
	return false
}

// settled reports whether what o finds is durable, when its client is to be told, without a change of o's own, that it is: a deletion that finds nothing there must not stand on one that may be lost. If not, o goes on by
// itself after a sync.
func (o *op) settled() bool {
	z := &o.q.lazy
	if o.synced || o.how != store.Durable || !z.unsynced && !z.syncing || planted.DeletionUnsettled {
		return true
	}
	o.p.sync(o)
	return false
}

// sync takes a SYNC, or a change that waits for one.
func (p *Primary) sync(o *op) {
	s := &p.syncs
	s.waiting = append(s.waiting, o)
	s.soon()
}

// soon has a sync begin at the end of this turn, if none is under way.
func (s *syncs) soon() {
	if s.left == 0 {
		s.p.l.Defer(&s.task)
	}
}

// start begins a sync of everything that is acknowledged now, if none is under way.
func (s *syncs) start() {
	p := s.p
	if s.left > 0 {
		return
	}
	p.l.Disarm(&s.timer)
	s.running, s.waiting = s.waiting, s.running[:0]
	s.pgs, s.failed, s.writes = s.pgs[:0], false, 0
	s.left = 1
	for _, id := range p.order {
		q := p.pgs[id]
		z := &q.lazy
		if !z.unsynced {
			continue
		}
		z.unsynced, z.syncing = false, true
		z.syncers, z.writers = z.writers, z.syncers[:0]
		z.syncTombs, z.tombs = z.tombs, nil
		z.chains.begin()
		s.pgs = append(s.pgs, q)
		for _, osd := range q.others {
			if planted.SyncEarly {
				break
			}
			s.left++
			c := s.call()
			c.q, c.osd = q, osd
			m := wire.Sub{Op: wire.OpSubSync, Grant: q.grant}
			m.Encode(&c.c.Header)
			p.hub.Call(osd, &c.c)
		}
	}
	if len(s.pgs) > 0 {
		p.Events.Syncs++
		s.left++
		p.st.Submit(&s.local)
	}
	s.answered(nil, nil)
}

// syncCall is a SUB_SYNC under way.
type syncCall struct {
	c    peer.Call
	q    *PG
	osd  layout.OSDNum
	next *syncCall
}

func (s *syncs) call() *syncCall {
	c := s.free
	if c == nil {
		c = &syncCall{}
		c.c.Done = func(*peer.Call) { s.member(c) }
		return c
	}
	s.free, c.next = c.next, nil
	return c
}

// member takes a member's answer.
func (s *syncs) member(c *syncCall) {
	p, q, osd, err := s.p, c.q, c.osd, c.c.Err
	if err == nil {
		err = c.c.Reply.Err()
	}
	c.q, c.next, s.free = nil, s.free, c
	if err != nil && !q.stopped {
		p.l.Log().Warn("a member failed a sync", "pg", q.ID.String(), "peer", uint64(osd), "err", err)
		p.host.Lost(q.ID, osd, false)
	}
	s.answered(q, err)
}

// answered counts one answer. A PG that has stopped meanwhile does not matter: its writers' connections were ended with it, and the others have nothing in it.
func (s *syncs) answered(q *PG, err error) {
	if err != nil && (q == nil || q.lazy.syncing) {
		s.failed = true
	}
	if s.left--; s.left > 0 {
		return
	}
	p := s.p
	for _, q := range s.pgs {
		z := &q.lazy
		if !z.syncing {
			continue
		}
		z.syncing = false
		if s.failed {
			z.unsynced = true
			for _, c := range z.syncers {
				if !slices.Contains(z.writers, c) {
					z.writers = append(z.writers, c)
				}
			}
			z.tombs = append(z.syncTombs, z.tombs...)
			z.chains.failed()
		} else {
			q.commitChains()
			for _, e := range z.syncTombs {
				q.buried(e)
			}
		}
		clear(z.syncers)
		z.syncers, z.syncTombs = z.syncers[:0], nil
	}
	s.ended, s.running = s.running, s.ended[:0]
	for i, o := range s.ended {
		s.ended[i] = nil
		switch {
		case s.failed:
			p.refuse(o, wire.EPIPE)
		case o.code != wire.OpSync:
			o.synced = true
			o.admit()
		default:
			p.count(o, 0)
			var h wire.Header
			m := wire.BareReply{Op: wire.OpSync}
			m.Encode(&h)
			o.r.Reply(&h, nil, nil)
			p.put(o)
		}
	}
	if len(s.waiting) > 0 || s.how.Writes > 0 && s.writes >= s.how.Writes {
		p.l.Defer(&s.task)
	}
	if p.unsynced() {
		s.arm()
	}
}

// dropWriters ends the connections of those whose changes may be lost with the interval, so that they write again what they have not synced.
func (q *PG) dropWriters() {
	z := &q.lazy
	writers := append(z.writers, z.syncers...)
	z.unsynced, z.syncing, z.writers, z.syncers, z.tombs, z.syncTombs, z.chains = false, false, nil, nil, nil, nil, chains{}
	for _, c := range writers {
		if !c.Gone() && !planted.WritersKept {
			q.p.Events.Dropped++
			c.Close(errUnsynced)
		}
	}
}
