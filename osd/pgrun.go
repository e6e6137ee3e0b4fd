package osd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/ec"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/registry"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/primary"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// lockTimeout is how long an OSD that does not answer holds up peering.
const lockTimeout = 500 * time.Millisecond

// A primary that cannot activate for giveBackAfter because members that are up cannot be reached gives the PG back, and is passed over for skipFor.
const (
	giveBackAfter = 3 * time.Second
	skipFor       = 30 * time.Second
)

// cleanPause is how long after etcd did not take a record it is offered again.
const cleanPause = time.Second

// readmitPause is the first pause before a member that was left out is tried again; it doubles up to readmitPauseMax.
const (
	readmitPause    = time.Second
	readmitPauseMax = 30 * time.Second
)

// pgRun drives one PG's peering machine: it carries out the effects and brings back what happened.
type pgRun struct {
	s    *OSD
	id   layout.PGID
	m    *peering.Machine
	size int // slots of the OSD set

	queue     []peering.Effect
	executing bool
	draining  bool

	generation uint64
	record     cluster.PGRecord  // as last read or written by us
	recordMod  registry.Revision // 0 when there is none
	haveState  bool              // pg/state is ours under the present lease
	rev        registry.Revision // the latest at which we know the record and whether the state key is ours: answers come in any order
	served     *primary.PG
	lent       lent
	lenderEnd  lenderEnd
	activeRev  registry.Revision // Activated waits until everything up to it is applied
	activeDone func()
	cleaning   bool
	cleanAgain uint64 // the round that has become whole meanwhile; 0: none

	warned   bool         // of waiting for so long
	idleFrom loop.Instant // since when the PG, though ours, has not served
	servedAt loop.Instant // when the PG last began to serve
	hasty    int          // intervals in a row that ended soon after
	storm    loop.Timer
	pending  func() // the take that waits for it

	busy    int             // transactions that may give us the state key, or take it away, under way
	shown   cluster.PGState // what the state key holds, as far as we know
	said    string          // the reason that etcd has
	putting bool
	report  loop.Task
	retry   loop.Timer
	round   uint64 // of the retry
	locking loop.Timer
	readmit loop.Timer
	clean   loop.Timer
	pause   time.Duration
	unfound time.Duration // the last pause before somebody else was asked for what is unfound
	lastWhy string

	scrub pgScrub

	askAt        loop.Instant // when OSDs that were full are asked again whether they have room
	refusedPause time.Duration
}

func (s *OSD) sortedPGs() []*pgRun {
	list := make([]*pgRun, 0, len(s.pgs))
	for _, r := range s.pgs { // order: sorted below
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *pgRun) int {
		return cmp.Or(cmp.Compare(a.id.Pool, b.id.Pool), cmp.Compare(a.id.Num, b.id.Num))
	})
	return list
}

// applyPGs compares the PG map with what we run.
func (s *OSD) applyPGs(_, next *cluster.Snapshot) {
	if s.stopping || !s.leaseUp && len(s.pgs) == 0 {
		return
	}
	if c := next.PGConfig; c != nil {
		s.prim.Stay(c.Backfillfull)
	}
	up := make(map[layout.OSDNum]layout.StoreID)
	for n, st := range next.OSDStates.All() {
		if !st.Store.IsZero() {
			up[n] = st.Store
		}
	}
	for poolID, pool := range next.Pools.All() {
		g, err := next.Geometry(poolID)
		sb := s.o.Store.Superblock().Config
		ours := err == nil && (pool.Scheme == cluster.Replicated || int(pool.PGSize) <= ec.MaxChunks) && g.BlockSize == sb.BlockSize && g.Granularity == sb.Granularity && next.Generation(poolID) != 0
		if ours {
			s.shard(poolID, store.Sharding{PGCount: g.PGCount, PGStripeSize: g.PGStripeSize})
		}
		for i := range g.PGCount {
			id := layout.PGID{Pool: poolID, Num: i + 1}
			t, _ := next.PGConfig.Target(id)
			r := s.pgs[id]
			if !ours || t.Primary != s.o.Num || t.Pause {
				if r != nil {
					r.exec(r.m.Unwant())
				} else {
					s.dropStray(id)
				}
				continue
			}
			if r == nil {
				r = s.newPG(id)
			}
			r.size = len(t.OSDSet)
			generation := uint64(next.Generation(poolID))
			if r.generation != generation && r.generation != 0 {
				r.exec(r.m.Unwant())
			}
			r.generation = generation
			cfg := peering.Config{MinSize: min(int(pool.PGMinSize), len(t.OSDSet)), Up: up} // the PG map comes after a change of pg_size
			for _, osd := range t.OSDSet {
				if osd != 0 {
					cfg.Target = append(cfg.Target, osd)
				}
			}
			if cfg.K = pool.DataChunks(); cfg.K > 1 {
				cfg.Slots = t.OSDSet
			}
			r.exec(r.m.Want(cfg))
			if r.served != nil && r.mayLend() && !r.served.MayLend() && s.unreported() == "" {
				r.exec(r.m.Restart()) // the record must say so first
			}
		}
	}
	for _, r := range s.sortedPGs() {
		r.missed(next)
		if _, ok := next.PGConfig.Target(r.id); !ok {
			r.exec(r.m.Unwant())
		} else if st, ok := next.PGStates.Get(r.id); ok && st.Primary != s.o.Num && r.m.Phase == peering.Active {
			s.log.Warn("another OSD has taken the PG over", "pg", r.id.String(), "primary", uint64(st.Primary))
			r.exec(r.m.Restart())
		} else if rec, ok := next.Records.Get(r.id); ok && rec.Mod > r.recordMod && r.m.Phase == peering.Waiting {
			r.exec(r.m.Restart()) // by a record that is not the last any more
		}
		if r.m.Phase == peering.Offline && r.busy == 0 {
			delete(s.pgs, r.id)
		}
	}
}

func (s *OSD) newPG(id layout.PGID) *pgRun {
	r := &pgRun{s: s, id: id, m: peering.New(peering.Member{OSD: s.o.Num, Store: s.self.Store})}
	r.report.Run = r.publish
	r.retry.Fire = func() { r.exec(r.m.Retry(r.round)) }
	r.locking.Fire = r.lockTimedOut
	r.storm.Fire = func() {
		if f := r.pending; f != nil {
			r.pending = nil
			f()
		}
	}
	r.readmit.Fire = r.tryReadmit
	r.lent.timer.Fire = r.recalled
	r.clean.Fire = r.recovered
	if rec, ok := s.Snapshot().Records.Get(id); ok {
		r.record, r.recordMod = *rec, rec.Mod
	}
	s.pgs[id] = r
	return r
}

// exec carries out effects in order; effects that arise meanwhile queue up behind them.
func (r *pgRun) exec(effects []peering.Effect) {
	r.queue = append(r.queue, effects...)
	if r.executing {
		return
	}
	r.executing = true
	for len(r.queue) > 0 {
		e := r.queue[0]
		r.queue = r.queue[1:]
		r.do(e)
	}
	r.executing = false
	r.queue = nil
}

func (r *pgRun) do(e peering.Effect) {
	s, round := r.s, r.m.Round
	switch e.Do {
	case peering.Drain:
		s.l.Disarm(&r.readmit)
		s.l.Disarm(&r.locking)
		s.l.Disarm(&r.clean)
		r.activeDone = nil
		if r.draining {
			return
		}
		r.draining = true
		s.scrubs.left(r)
		r.served = nil
		s.prim.Stop(r.id, func() {
			r.recall(func() {
				r.draining = false
				r.exec(r.m.Drained())
			})
		})
	case peering.Take:
		if pause := r.calm(); pause > 0 {
			r.pending = func() { r.take(round, e.Above) }
			s.l.Arm(&r.storm, s.l.Now().Add(pause))
			return
		}
		r.take(round, e.Above)
	case peering.Lock:
		r.lock(round, e.OSD, e.Interval)
	case peering.List:
		r.list(round, e.OSD, nil, 0)
	case peering.Void:
		r.judgeBy(round, e.OSD, e.Rollback, e.Entries)
	case peering.Commit:
		r.commit(round, e.OSD, e.Entries)
	case peering.Activate:
		r.afterLender(round, func() { r.activate(round, e.Record) })
	case peering.Announce:
		r.announce(round, e.OSD, e.Interval)
	case peering.Serve:
		r.serve(e)
	case peering.Retry:
		r.round = round
		r.considerGivingBack()
		s.l.Arm(&r.retry, s.l.Now().Add(e.After))
	case peering.Release:
		r.release()
	case peering.Report:
		if why := r.m.Reason; why != r.lastWhy {
			r.lastWhy = why
			if why != "" {
				s.log.Info("PG waits", "pg", r.id.String(), "interval", uint64(r.m.Interval), "reason", why)
			}
		}
		s.l.Defer(&r.report)
	}
}

// calm is how long to wait before the next interval: nothing as a rule, and longer each time when intervals end as soon as they have begun.
func (r *pgRun) calm() time.Duration {
	if r.servedAt == 0 || r.s.l.Now().Sub(r.servedAt) > time.Second {
		r.hasty = 0
		return 0
	}
	r.hasty++
	if r.hasty < 4 {
		return 0
	}
	return min(10*time.Millisecond<<min(r.hasty-4, 8), time.Second)
}

// considerGivingBack hands the PG to another OSD when members that are up have been out of our reach for too long.
func (r *pgRun) considerGivingBack() {
	s := r.s
	now := s.l.Now()
	if r.idleFrom == 0 {
		r.idleFrom = now
	}
	if now.Sub(r.idleFrom) < giveBackAfter {
		return
	}
	if !r.warned {
		r.warned = true
		s.log.Warn("PG still waits", "pg", r.id.String(), "interval", uint64(r.m.Interval), "reason", r.m.Reason)
	}
	if s.lease == nil || !r.haveState {
		return
	}
	unreachable := false
	for _, osd := range r.m.Failed() {
		unreachable = unreachable || osd != s.o.Num && !s.hub.Connected(osd)
	}
	t, _ := s.Snapshot().PGConfig.Target(r.id)
	other := false
	for _, osd := range t.OSDSet {
		_, up := s.Snapshot().OSDStates.Get(osd)
		other = other || up && osd != s.o.Num
	}
	if !unreachable || !other {
		return
	}
	r.idleFrom = now
	wall := s.l.Wall().UnixMilli()
	skip := cluster.PGSkip{OSDs: []cluster.SkippedOSD{{OSD: s.o.Num, Until: wall + skipFor.Milliseconds()}}}
	if old, ok := s.Snapshot().Skips.Get(r.id); ok {
		for _, o := range old.OSDs {
			if o.OSD != s.o.Num && o.Until > wall {
				skip.OSDs = append(skip.OSDs, o)
			}
		}
	}
	s.log.Warn("giving the PG back: members that are up cannot be reached from here", "pg", r.id.String(), "unreachable", r.m.Failed())
	s.o.Registry.Txn(registry.Txn{
		If:   []registry.Compare{registry.HeldBy(cluster.PGStateKey(r.id), s.lease.ID())},
		Then: []registry.Op{{Kind: registry.Put, Key: cluster.PGSkipKey(r.id), Value: cluster.Value(&skip)}},
	}, func(registry.TxnResult, error) {})
}

// grantOf names the right of the present interval.
func (r *pgRun) grantOf(interval layout.Interval) wire.Grant {
	return wire.Grant{PG: r.id, Interval: interval, Instance: r.s.o.Instance}
}

// state is what the PG's state key says of these bits.
func (r *pgRun) state(bits wire.PGState) cluster.PGState {
	st := cluster.PGState{Primary: r.s.o.Num, State: cluster.StateBits(bits)}
	for _, a := range r.m.Acting {
		st.Peers = append(st.Peers, a.OSD)
	}
	return st
}

// showed says what the state key holds since revision at. Answers and watches tell of it in any order.
func (r *pgRun) showed(st cluster.PGState, at registry.Revision) {
	if at > r.shown.Mod {
		r.shown, r.shown.Mod = st, at
	}
}

// shows reports whether the state key holds these bits, and the members of this interval.
func (r *pgRun) shows(bits wire.PGState) bool {
	return r.shown.State == cluster.StateBits(bits) && r.shown.Primary == r.s.o.Num &&
		slices.EqualFunc(r.shown.Peers, r.m.Acting, func(osd layout.OSDNum, m peering.Member) bool { return osd == m.OSD })
}

// txn is a transaction on the PG's keys.
func (r *pgRun) txn(t registry.Txn, done func(registry.TxnResult, error)) { r.s.txn(t, done) }

// take raises the interval and makes the PG's state key ours.
func (r *pgRun) take(round uint64, above layout.Interval) {
	s := r.s
	if s.leaving || round != r.m.Round || r.m.Phase != peering.Taking {
		return
	}
	if !s.leaseUp {
		r.exec(r.m.TakeFailed(round, "no lease in etcd"))
		return
	}
	rec := r.record
	if why := s.unreported(); why != "" {
		r.exec(r.m.TakeFailed(round, why))
		return
	}
	if uint64(rec.Generation) > r.generation {
		r.exec(r.m.TakeFailed(round, "the pool was made anew, which has not been applied here yet"))
		return
	}
	id, ok := s.Snapshot().Identities.Get(r.id.Pool)
	if !ok || uint64(id.Generation()) != r.generation {
		r.exec(r.m.TakeFailed(round, "the pool was removed, or made anew"))
		return
	}
	if planted.GenerationIgnored {
		rec.Generation = int64(r.generation)
	}
	if uint64(rec.Generation) != r.generation {
		// A pool made anew under the number of an earlier one: its PGs have no past.
		rec = cluster.PGRecord{Generation: int64(r.generation), Interval: rec.Interval}
	}
	rec.Interval = max(rec.Interval, above) + 1
	rec.Primary, rec.Instance = s.o.Num, s.o.Instance
	if planted.UnactivatedBinds {
		set := cluster.PGSet{Interval: rec.Interval}
		t, _ := s.Snapshot().PGConfig.Target(r.id)
		for _, osd := range t.OSDSet {
			if st, up := s.Snapshot().OSDStates.Get(osd); up {
				set.Members = append(set.Members, cluster.PGMember{OSD: osd, Store: st.Store})
			}
		}
		rec.Activated, rec.Sets, rec.Participants = rec.Interval, append(slices.Clone(rec.Sets), set), set.Members
	}
	stateKey, recordKey := cluster.PGStateKey(r.id), cluster.PGRecordKey(r.id)
	held := registry.Absent(stateKey)
	if r.haveState {
		held = registry.HeldBy(stateKey, s.lease.ID())
	}
	lease, state := s.lease, r.state(wire.PGStarting)
	t := registry.Txn{
		If: []registry.Compare{registry.HeldBy(cluster.OSDStateKey(s.o.Num), lease.ID()), held, registry.Unchanged(recordKey, r.recordMod), s.Snapshot().Restored.Mark(),
			registry.Unchanged(cluster.PoolIdentityKey(r.id.Pool), id.Mod)}, // what a later identity says of earlier ones is so (PoolIdentity.Forgot)
		Then: []registry.Op{
			{Kind: registry.Put, Key: stateKey, Value: cluster.Value(&state), Lease: lease.ID()},
			{Kind: registry.Put, Key: recordKey, Value: cluster.Value(&rec)},
		},
		Else: []registry.Op{{Kind: registry.Get, Key: recordKey}, {Kind: registry.Get, Key: stateKey}},
	}
	if planted.IntervalTwice {
		t.If = t.If[:1]
	}
	r.busy++
	r.txn(t, func(res registry.TxnResult, err error) {
		defer r.settle()
		switch {
		case err != nil:
			r.busy++
			r.refresh(func() {
				r.exec(r.m.TakeFailed(round, "etcd does not answer: "+err.Error()))
				r.settle()
			})
			return
		case !res.Succeeded:
			r.adopt(res)
		case res.Revision > r.rev:
			if s.lease == lease {
				r.haveState = true
				r.showed(state, res.Revision)
			}
			r.record, r.recordMod, r.rev = rec, res.Revision, res.Revision
		}
		switch {
		case round != r.m.Round: // what it says is known now, and nobody waits for it
		case res.Succeeded && r.recordMod == res.Revision:
			r.exec(r.m.Taken(round, r.peeringRecord()))
		case !res.Succeeded && !r.haveState && len(res.Results[1]) > 0:
			r.unlockAll()
			r.exec(r.m.TakeFailed(round, "another OSD holds the PG in etcd"))
		default:
			r.exec(r.m.TakeFailed(round, "the record in etcd has changed"))
		}
	})
}

// adopt takes over the record and state that a failed transaction found, unless what we know is later.
func (r *pgRun) adopt(res registry.TxnResult) {
	if res.Revision < r.rev {
		return
	}
	found := res.Results
	r.rev = res.Revision
	r.record, r.recordMod = cluster.PGRecord{}, 0
	if len(found[0]) > 0 {
		kv := found[0][0]
		r.recordMod = kv.Mod
		if err := json.Unmarshal(kv.Value, &r.record); err != nil {
			r.s.log.Error("the PG's record cannot be read; correct the key", "key", kv.Key, "err", err)
			r.recordMod = -1 // no transaction will succeed on it
		}
	}
	r.haveState = len(found[1]) > 0 && r.s.lease != nil && found[1][0].Lease == r.s.lease.ID() && r.s.lease.ID() != 0
	if r.haveState {
		var st cluster.PGState
		_ = json.Unmarshal(found[1][0].Value, &st) // what is not a state is not the one that we show
		r.showed(st, found[1][0].Mod)
	}
}

// refresh reads the record and state again after a transaction whose outcome is unknown.
func (r *pgRun) refresh(then func()) {
	t := registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: cluster.PGRecordKey(r.id)}, {Kind: registry.Get, Key: cluster.PGStateKey(r.id)}}}
	r.txn(t, func(res registry.TxnResult, err error) {
		if err == nil {
			r.adopt(res)
		}
		then()
	})
}

func (r *pgRun) peeringRecord() peering.Record {
	c := &r.record
	out := peering.Record{Generation: uint64(c.Generation), Interval: c.Interval, Primary: c.Primary, Instance: c.Instance, Activated: c.Activated, Floor: c.Floor, Participants: members[peering.Member](c.Participants)}
	for _, set := range c.Sets {
		out.Sets = append(out.Sets, peering.Set{Interval: set.Interval, Members: members[peering.Member](set.Members), Silent: members[peering.Member](set.Silent), First: set.First, Last: set.Last})
	}
	return out
}

// members are a set's members in another room's words.
func members[To, From cluster.PGMember | peering.Member | store.Member](list []From) (out []To) {
	for _, m := range list {
		out = append(out, To(m))
	}
	return out
}

func fromPeering(rec peering.Record) cluster.PGRecord {
	c := cluster.PGRecord{Generation: int64(rec.Generation), Interval: rec.Interval, Primary: rec.Primary, Instance: rec.Instance, Activated: rec.Activated, Floor: rec.Floor, Participants: members[cluster.PGMember](rec.Participants)}
	for _, set := range rec.Sets {
		c.Sets = append(c.Sets, cluster.PGSet{Interval: set.Interval, Members: members[cluster.PGMember](set.Members), Silent: members[cluster.PGMember](set.Silent), First: set.First, Last: set.Last})
	}
	return c
}

// lock asks an OSD, or our own store, for its grant.
func (r *pgRun) lock(round uint64, osd layout.OSDNum, interval layout.Interval) {
	s := r.s
	q := secondary.LockRequest{Holder: s.self, PG: r.id, Generation: r.generation, Interval: interval}
	if id, ok := s.Snapshot().Identities.Get(r.id.Pool); ok && uint64(id.Generation()) == r.generation {
		q.Earlier = id.Earlier
	}
	s.whenSharded(r.id.Pool, func() {
		if round != r.m.Round {
			return
		}
		if osd == s.o.Num {
			s.locks.Lock(q, func(retval int64, a secondary.LockReply) { r.lockAnswered(round, osd, interval, retval, a) })
			return
		}
		if s.Snapshot().CutOff(osd) && !s.hub.Connected(osd) {
			s.hub.Connect(osd) // to be asked again when it is back
			r.exec(r.m.Refused(round, osd, 0))
			return
		}
		if !r.locking.Armed() {
			s.l.Arm(&r.locking, s.l.Now().Add(lockTimeout))
		}
		s.callJSON(osd, wire.OpSubLock, r.grantOf(interval), q, func(retval int64, meta []byte, err error) {
			var a secondary.LockReply
			if err != nil || len(meta) > 0 && json.Unmarshal(meta, &a) != nil {
				r.exec(r.m.Refused(round, osd, 0))
				return
			}
			r.lockAnswered(round, osd, interval, retval, a)
		})
	})
}

func (r *pgRun) lockAnswered(round uint64, osd layout.OSDNum, interval layout.Interval, retval int64, a secondary.LockReply) {
	s := r.s
	if retval == wire.ESTALE {
		// A grant that lapsed is never revived, and an interval that the store has seen is not new to it: only a higher one will do.
		a.Seen = max(a.Seen, interval) + 1
	}
	if retval != 0 {
		r.exec(r.m.Refused(round, osd, a.Seen))
		return
	}
	if round != r.m.Round {
		r.unlock(osd, interval) // too late: nobody wants it any more
		return
	}
	r.contradicted(osd, a.TookPart)
	if osd == s.o.Num {
		r.exec(r.m.Granted(round, osd, a.Store, a.Seen, a.TookPart))
		return
	}
	s.peer(osd).granted(r.id, interval, a.Instance, func(ok bool) {
		if !ok {
			r.exec(r.m.Refused(round, osd, 0))
			return
		}
		r.exec(r.m.Granted(round, osd, a.Store, a.Seen, a.TookPart))
		if r.m.Phase == peering.Active && r.m.Record.IsClean() {
			r.unlockOthers() // it came when the others were clean already
		}
	})
}

// lockTimedOut goes on without those who have not answered.
func (r *pgRun) lockTimedOut() {
	for _, osd := range r.m.Pending() {
		r.exec(r.m.Refused(r.m.Round, osd, 0))
	}
}

func (r *pgRun) unlock(osd layout.OSDNum, interval layout.Interval) {
	s := r.s
	if osd == s.o.Num {
		s.locks.Unlock(r.grantOf(interval))
		return
	}
	s.peer(osd).dropped(r.id, interval)
	s.callJSON(osd, wire.OpSubUnlock, r.grantOf(interval), nil, func(int64, []byte, error) {})
}

// unlockAll gives back what this PG holds anywhere.
func (r *pgRun) unlockAll() {
	r.s.locks.GiveBack(r.id)
	for _, p := range r.s.sortedPeers() {
		if interval, ok := p.pgs[r.id]; ok {
			r.unlock(p.osd, interval.interval)
		}
	}
}

// unlockOthers gives back the grants of stores that were heard and are not members: the PG needs nothing of them any more, and they may clear away what they hold.
func (r *pgRun) unlockOthers() {
	for _, p := range r.s.sortedPeers() {
		g, held := p.pgs[r.id]
		if held && !slices.ContainsFunc(r.m.Acting, func(a peering.Member) bool { return a.OSD == p.osd }) {
			r.unlock(p.osd, g.interval)
		}
	}
}

// list brings the objects of a heard store, page by page.
func (r *pgRun) list(round uint64, osd layout.OSDNum, sofar []peering.Entry, after store.Cursor) {
	s := r.s
	take := func(e wire.SubEntry) {
		f := store.StateFlags(e.Flags)
		sofar = append(sofar, peering.Entry{Object: e.Object, Version: e.Version, Interval: e.Interval, Tombstone: f&store.Tombstone != 0, Void: f&store.Void != 0, Unstable: f&store.Unstable != 0})
	}
	if osd == s.o.Num && after == 0 && len(sofar) == 0 && s.o.Store.Unsynced() > 0 {
		s.sec.Sync(func(err error) { // as a member does before it answers
			switch {
			case round != r.m.Round:
			case err != nil:
				r.exec(r.m.Restart())
			default:
				r.list(round, osd, nil, after)
			}
		})
		return
	}
	if osd == s.o.Num {
		entries, next, more := s.sec.List(r.id, after, secondary.ListLimit)
		for _, e := range entries {
			take(e)
		}
		if more {
			t := &loop.Task{Run: func() {
				if round == r.m.Round {
					r.list(round, osd, sofar, next)
				}
			}}
			s.l.Post(t)
			return
		}
		r.exec(r.m.Listed(round, osd, sofar))
		return
	}
	m := wire.Sub{Op: wire.OpSubList, Grant: r.grantOf(r.m.Interval), Object: layout.ObjectID{Stripe: uint64(after)}, Limit: secondary.ListLimit}
	c := &peer.Call{}
	m.Encode(&c.Header)
	c.Done = func(c *peer.Call) {
		if round != r.m.Round {
			return
		}
		var a wire.SubReply
		if c.Err != nil || a.Decode(&c.Reply) != nil || a.Retval < 0 || wire.SubEntries(c.ReplyMeta, take) != nil {
			s.log.Warn("listing failed", "pg", r.id.String(), "peer", uint64(osd), "err", c.Err, "retval", a.Retval)
			r.exec(r.m.Restart())
			return
		}
		if a.Flags&wire.SubResume != 0 {
			r.list(round, osd, sofar, store.Cursor(a.Object.Stripe))
			return
		}
		r.exec(r.m.Listed(round, osd, sofar))
	}
	s.hub.Call(osd, c)
}

// judgeBy has a store write down the record by which its copies are false, then void them: if etcd forgets that record, a store with void copies must not stand for an older set.
func (r *pgRun) judgeBy(round uint64, osd layout.OSDNum, rollback, entries []peering.Entry) {
	void := func() {
		r.settleChunks(wire.OpSubRollback, round, osd, rollback, func() { r.void(round, osd, entries) })
	}
	if r.m.Record.Activated == 0 {
		void()
		return
	}
	r.tell(osd, r.m.Interval, r.m.Record, func(ok bool) {
		switch {
		case round != r.m.Round:
		case !ok:
			r.exec(r.m.Restart())
		default:
			void()
		}
	})
}

// commit has a store commit what peering found true.
func (r *pgRun) commit(round uint64, osd layout.OSDNum, entries []peering.Entry) {
	r.settleChunks(wire.OpSubCommit, round, osd, entries, func() { r.exec(r.m.Committed(round, osd)) })
}

// settleChunks has a store commit versions of chunks, or roll them back; then goes on when that is durable.
func (r *pgRun) settleChunks(op wire.Opcode, round uint64, osd layout.OSDNum, entries []peering.Entry, then func()) {
	s := r.s
	n := min(len(entries), wire.MaxMeta/wire.VersionedSize)
	if n == 0 {
		then()
		return
	}
	var list []wire.Versioned
	var meta []byte
	for _, e := range entries[:n] {
		v := wire.Versioned{OID: e.Object, Version: uint64(e.Version)}
		list = append(list, v)
		meta = wire.AppendVersioned(meta, v)
	}
	done := func(err error) {
		switch {
		case round != r.m.Round:
		case err != nil:
			s.log.Warn("settling chunks failed", "pg", r.id.String(), "on", uint64(osd), "commit", op == wire.OpSubCommit, "err", err)
			r.exec(r.m.Restart())
		default:
			r.settleChunks(op, round, osd, entries[n:], then)
		}
	}
	switch {
	case osd != s.o.Num:
		m := wire.Sub{Op: op, Grant: r.grantOf(r.m.Interval), Meta: len(meta)}
		c := &peer.Call{Meta: meta}
		m.Encode(&c.Header)
		c.Done = func(c *peer.Call) {
			err := c.Err
			if err == nil {
				err = c.Reply.Err()
			}
			done(err)
		}
		s.hub.Call(osd, c)
	case op == wire.OpSubCommit:
		s.sec.Commit(r.id, list, done)
	default:
		s.sec.Rollback(r.id, list, done)
	}
}

// void has a store void false copies.
func (r *pgRun) void(round uint64, osd layout.OSDNum, entries []peering.Entry) {
	s := r.s
	n := min(len(entries), secondary.ListLimit)
	if n == 0 {
		r.exec(r.m.Voided(round, osd))
		return
	}
	var list []wire.SubEntry
	var meta []byte
	for _, e := range entries[:n] {
		w := wire.SubEntry{Object: e.Object, Version: e.Version, Interval: e.Interval}
		list = append(list, w)
		meta = wire.AppendSubEntry(meta, w)
	}
	s.log.Info("voiding copies that were never acknowledged", "pg", r.id.String(), "on", uint64(osd), "objects", len(entries))
	done := func(ok bool) {
		switch {
		case round != r.m.Round:
		case !ok:
			r.exec(r.m.Restart())
		case n < len(entries):
			r.void(round, osd, entries[n:])
		default:
			r.exec(r.m.Voided(round, osd))
		}
	}
	if osd == s.o.Num {
		s.sec.Mark(wire.OpSubVoid, r.id, list, func(err error) { done(err == nil) })
		return
	}
	m := wire.Sub{Op: wire.OpSubVoid, Grant: r.grantOf(r.m.Interval), Meta: len(meta)}
	c := &peer.Call{Meta: meta}
	m.Encode(&c.Header)
	c.Done = func(c *peer.Call) { done(c.Err == nil && c.Reply.Err() == nil) }
	s.hub.Call(osd, c)
}

// activate records the set and its participants; afterwards everything up to that revision must be applied before the PG serves.
func (r *pgRun) activate(round uint64, rec peering.Record) {
	s := r.s
	next := fromPeering(rec)
	if r.mayLend() {
		next.Lender = s.lender()
	}
	if planted.ActiveEarly {
		r.exec(r.m.Activated(round, true))
	}
	r.putRecord(next, func(rev registry.Revision, ok bool) {
		if round != r.m.Round {
			return
		}
		if !ok {
			r.exec(r.m.Activated(round, false))
			return
		}
		if r.activeRev = rev; planted.ServeUnapplied {
			r.activeRev = 0
		}
		r.activeDone = func() { r.exec(r.m.Activated(round, true)) }
		r.applied(s.Snapshot().Revision)
	})
}

// putRecord writes the record if it is still as we know it and the PG is ours.
func (r *pgRun) putRecord(next cluster.PGRecord, done func(rev registry.Revision, ok bool)) {
	s := r.s
	if !r.haveState || s.lease == nil {
		done(0, false)
		return
	}
	recordKey, stateKey := cluster.PGRecordKey(r.id), cluster.PGStateKey(r.id)
	t := registry.Txn{
		If:   []registry.Compare{registry.HeldBy(stateKey, s.lease.ID()), registry.Unchanged(recordKey, r.recordMod), s.Snapshot().Restored.Mark()},
		Then: []registry.Op{{Kind: registry.Put, Key: recordKey, Value: cluster.Value(&next)}, {Kind: registry.Put, Key: cluster.PGHistoryKey(r.id), Value: cluster.Value(s.history(r.id, &next))}, {Kind: registry.Get, Key: cluster.PGScrubKey(r.id)}},
		Else: []registry.Op{{Kind: registry.Get, Key: recordKey}, {Kind: registry.Get, Key: stateKey}},
	}
	if planted.ActivateUncompared {
		t.If = nil
	}
	r.txn(t, func(res registry.TxnResult, err error) {
		switch {
		case err != nil:
			r.refresh(func() { done(0, false) })
		case !res.Succeeded:
			r.adopt(res)
			done(0, false)
		default:
			if res.Revision > r.rev {
				r.record, r.recordMod, r.rev = next, res.Revision, res.Revision
			}
			if !r.scrub.known {
				r.adoptScrub(res.Results[2])
			}
			done(res.Revision, true)
		}
	})
}

// applied says that everything up to rev is applied.
func (r *pgRun) applied(rev registry.Revision) {
	if r.activeDone != nil && rev >= r.activeRev {
		f := r.activeDone
		r.activeDone = nil
		f()
	}
}

// announce has a heard store write down that it takes part.
func (r *pgRun) announce(round uint64, osd layout.OSDNum, interval layout.Interval) {
	r.tell(osd, interval, r.m.Record, func(ok bool) {
		if round != r.m.Round {
			return
		}
		if !ok {
			r.exec(r.m.Restart())
			return
		}
		r.exec(r.m.Announced(round, osd))
	})
}

// tell has a store write down the PG's record.
func (r *pgRun) tell(osd layout.OSDNum, interval layout.Interval, rec peering.Record, done func(ok bool)) {
	s := r.s
	q := secondary.AnnounceRequest{PG: r.id, Interval: interval, Activated: rec.Activated, Instance: s.o.Instance, Floor: rec.Floor, Participants: members[store.Member](rec.Participants)}
	for _, set := range rec.Sets {
		q.Sets = append(q.Sets, store.PGSet{Interval: set.Interval, Members: members[store.Member](set.Members)})
	}
	if osd == s.o.Num {
		s.locks.Announce(q, func(retval int64) { done(retval == 0) })
		return
	}
	s.callJSON(osd, wire.OpSubAnnounce, r.grantOf(interval), q, func(retval int64, _ []byte, err error) { done(err == nil && retval == 0) })
}

// serve begins to serve clients.
func (r *pgRun) serve(e peering.Effect) {
	s := r.s
	s.l.Disarm(&r.locking)
	g, err := s.Snapshot().Geometry(r.id.Pool)
	if err != nil {
		r.exec(r.m.Restart())
		return
	}
	r.servedAt, r.idleFrom, r.warned = s.l.Now(), 0, false
	served, err := s.prim.Serve(r.id, e.Interval, g, e.Members, e.Roles, e.Verdict, r.lends())
	if err != nil {
		s.log.Error("the pool's code cannot be had", "pg", r.id.String(), "err", err)
		r.exec(r.m.Restart())
		return
	}
	r.served = served
	r.doubt()
	s.l.Defer(&s.scrubs.looking)
	s.log.Info("PG active", "pg", r.id.String(), "interval", uint64(e.Interval), "members", len(e.Members), "of", r.size, "objects", e.Verdict.Objects, "unclean", len(e.Verdict.Unclean))
	if !r.haveState && s.leaseUp {
		r.reclaim() // the lease was lost and another one is here since the take: whoever made keys again then passed us by
	}
	if r.m.Record.IsClean() {
		r.served.SetClean()
		r.unlockOthers()
	}
	if len(e.Members) < r.size {
		r.pause = min(max(r.pause*2, readmitPause), readmitPauseMax)
		s.l.Arm(&r.readmit, s.l.Now().Add(r.pause))
	} else {
		r.pause = 0
	}
}

// tryReadmit starts a new interval if a member that was left out can be reached now.
func (r *pgRun) tryReadmit() {
	s := r.s
	for _, osd := range r.m.LeftOut() {
		if s.hub.Connected(osd) {
			r.exec(r.m.Readmit())
			return
		}
		s.hub.Connect(osd)
	}
	if full := r.m.Full(); len(full) > 0 {
		r.askRoom(full)
	}
	if r.m.Phase == peering.Active {
		s.l.Arm(&r.readmit, s.l.Now().Add(max(r.pause, readmitPause)))
	}
}

// recovered records that the PG needs nobody but its present set.
func (r *pgRun) recovered() {
	s := r.s
	if r.m.Phase != peering.Active {
		return
	}
	if len(r.m.Acting) == r.size {
		r.refusedPause = 0
	}
	if r.cleaning {
		r.cleanAgain = r.m.Round // an earlier interval's record is still on its way
		return
	}
	r.unfound = 0
	if r.m.Record.IsClean() {
		r.served.SetClean()
		s.l.Defer(&r.report)
		return
	}
	round := r.m.Round
	r.cleaning = true
	clean := r.m.Record.Clean()
	next := fromPeering(clean)
	if next.Lender = r.record.Lender; r.served.MayLend() {
		next.Lender = r.s.lender() // whatever an etcd that was set back says
	}
	r.putRecord(next, func(_ registry.Revision, ok bool) {
		r.cleaning = false
		again := r.cleanAgain == r.m.Round && r.served != nil
		r.cleanAgain = 0
		if round != r.m.Round || r.served == nil {
			if again {
				r.recovered()
			}
			return
		}
		if !ok && r.record.Interval == r.m.Interval {
			// Nobody else has taken the PG: etcd did not answer, or the lease is being made again. That must not stop what is served.
			s.l.Arm(&r.clean, s.l.Now().Add(cleanPause))
			return
		}
		if !ok {
			r.exec(r.m.Restart())
			return
		}
		r.m.Cleaned(round, clean)
		// The members know it before anything is forgotten: if etcd is set back, a store that missed deletions must not be listened to by their word.
		left := len(r.m.Acting)
		for _, a := range r.m.Acting {
			r.tell(a.OSD, r.m.Interval, clean, func(ok bool) {
				if round != r.m.Round || r.served == nil {
					return
				}
				if !ok {
					r.exec(r.m.Restart())
					return
				}
				if left--; left > 0 {
					return
				}
				r.unlockOthers()
				r.served.SetClean()
				s.log.Info("PG clean", "pg", r.id.String(), "interval", uint64(r.m.Interval))
				s.l.Defer(&r.report)
			})
		}
	})
}

// release gives the PG up: the members are unlocked, the state key is removed.
func (r *pgRun) release() {
	s := r.s
	s.l.Disarm(&r.retry)
	r.unlockAll()
	r.dropState()
	s.checkStopped()
}

// dropState removes the state key if it is ours, and tries again while the registry does not answer. It removes what is known to be there, and nothing that is put later: it may reach etcd after
// the PG was taken again.
func (r *pgRun) dropState() {
	s := r.s
	if !r.haveState || s.lease == nil || s.lease.ID() == 0 {
		r.haveState = false
		return
	}
	r.busy++
	key := cluster.PGStateKey(r.id)
	t := registry.Txn{
		If:   []registry.Compare{registry.HeldBy(key, s.lease.ID()), registry.Unchanged(key, r.shown.Mod)},
		Then: []registry.Op{{Kind: registry.Delete, Key: key}},
		Else: []registry.Op{{Kind: registry.Get, Key: cluster.PGRecordKey(r.id)}, {Kind: registry.Get, Key: key}},
	}
	r.haveState = false
	r.txn(t, func(res registry.TxnResult, err error) {
		switch {
		case err != nil:
			r.refresh(r.settle)
			return
		case !res.Succeeded:
			r.adopt(res)
		}
		r.settle()
	})
}

// settle is called when such a transaction has ended: what it left behind for a PG that is no longer ours is cleared away.
func (r *pgRun) settle() {
	s := r.s
	r.busy--
	if r.m.Phase == peering.Offline && r.haveState && r.busy == 0 {
		r.dropState()
	}
	if r.busy == 0 && r.m.Phase == peering.Offline {
		s.checkStopped()
		if !s.stopping {
			s.applyPGs(s.Snapshot(), s.Snapshot())
		}
	}
}

// reclaim makes the state key again after the lease was lost, if nobody took the PG meanwhile; the interval goes on.
func (r *pgRun) reclaim() {
	s := r.s
	if r.haveState || r.m.Phase != peering.Active || s.lease == nil {
		return
	}
	lease, round := s.lease, r.m.Round
	stateKey, recordKey := cluster.PGStateKey(r.id), cluster.PGRecordKey(r.id)
	state := r.state(r.bits())
	t := registry.Txn{
		If:   []registry.Compare{registry.Unchanged(recordKey, r.recordMod), registry.HeldBy(cluster.OSDStateKey(s.o.Num), lease.ID())},
		Then: []registry.Op{{Kind: registry.Put, Key: stateKey, Value: cluster.Value(&state), Lease: lease.ID()}},
		Else: []registry.Op{{Kind: registry.Get, Key: recordKey}, {Kind: registry.Get, Key: stateKey}, {Kind: registry.Get, Key: cluster.OSDStateKey(s.o.Num)}},
	}
	r.txn(t, func(res registry.TxnResult, err error) {
		if round != r.m.Round || s.lease != lease {
			return
		}
		switch {
		case err != nil:
			r.refresh(func() {
				if round == r.m.Round && !r.haveState {
					s.l.Arm(&s.retry, s.l.Now().Add(200*time.Millisecond))
					r.reclaim()
				}
			})
		case !res.Succeeded:
			r.adopt(res)
			if !r.haveState && len(res.Results[1]) == 0 && r.recordMod >= 0 && r.mayStay() {
				if own := res.Results[2]; len(own) > 0 && own[0].Lease == lease.ID() {
					r.reclaim()
				}
				return // the lease is over, or the key is made with the next one
			}
			r.exec(r.m.Restart())
		default:
			if res.Revision > r.rev {
				r.haveState, r.rev = true, res.Revision
			}
			r.showed(state, res.Revision)
		}
	})
}

// bits is the PG's state as the registry shows it.
func (r *pgRun) bits() wire.PGState {
	if r.waits() {
		return wire.PGIncomplete
	}
	switch r.m.Phase {
	case peering.Draining:
		if r.m.Wanted() {
			return wire.PGRepeering
		}
		return wire.PGStopping
	case peering.Taking:
		return wire.PGStarting
	case peering.Active:
		b := wire.PGActive
		if len(r.m.Acting) < r.size {
			b |= wire.PGDegraded
		}
		if r.served != nil {
			b |= r.served.Counts().State()
		}
		if r.s.scrubs.r == r {
			b |= wire.PGScrubbing
		}
		if len(r.s.Snapshot().LeftOnDead(r.id)) > 0 {
			b |= wire.PGLeftOnDead
		}
		return b
	}
	return wire.PGPeering
}

// publish writes the state key, and what is known of the PG, when what they say has changed.
func (r *pgRun) publish() {
	s := r.s
	bits, why := r.bits(), r.reason()
	if !r.haveState || r.putting || r.shows(bits) && why == r.said || s.lease == nil || r.m.Phase == peering.Offline {
		return
	}
	r.putting = true
	s.hurryStats()
	key := cluster.PGStateKey(r.id)
	t := registry.Txn{If: []registry.Compare{registry.HeldBy(key, s.lease.ID())}, Then: []registry.Op{
		{Kind: registry.Put, Key: cluster.PGStatsKey(r.id), Value: cluster.Value(r.statsValue())},
	}}
	state, put := r.state(bits), !r.shows(bits)
	if put {
		t.Then = append(t.Then, registry.Op{Kind: registry.Put, Key: key, Value: cluster.Value(&state), Lease: s.lease.ID()})
	}
	r.txn(t, func(res registry.TxnResult, err error) {
		r.putting = false
		switch {
		case err == nil && res.Succeeded:
			r.said = why
			if put {
				r.showed(state, res.Revision)
			}
		case err != nil && put:
			r.shown.State = 0 // it may have been put
		}
		if r.haveState && !r.shows(r.bits()) {
			s.l.Defer(&r.report)
		}
	})
}

// Describe says for people what each PG that this OSD should serve is doing.
func (s *OSD) Describe() string {
	var b strings.Builder
	for _, r := range s.sortedPGs() {
		fmt.Fprintf(&b, "pg %v: %v interval %d round %d %s\n", r.id, r.m.Phase, r.m.Interval, r.m.Round, r.m.Describe())
		fmt.Fprintf(&b, "  retry armed %v, locking armed %v, state key ours %v, draining %v\n", r.retry.Armed(), r.locking.Armed(), r.haveState, r.draining)
	}
	for _, p := range s.sortedPeers() {
		fmt.Fprintf(&b, "peer %d: %d grants, valid for %v, renewing %v, waiting %d+%d, connected %v\n", p.osd, len(p.pgs), p.until.Sub(s.l.Now()), p.renewing, len(p.waiting), len(p.inFlight), s.hub.Connected(p.osd))
	}
	b.WriteString(s.locks.Describe())
	return b.String()
}
