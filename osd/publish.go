package osd

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/wire"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// endPause is how long after the end of a gateway or tool its sessions' pairs are kept: far above op_ttl.
const endPause = time.Minute

// statsOps are the opcodes whose sums are published.
var statsOps = []wire.Opcode{wire.OpRead, wire.OpWrite, wire.OpSync, wire.OpDelete, wire.OpZero}

// statsValue is osd/stats.
func (s *OSD) statsValue() *cluster.OSDStats {
	st := s.o.Store.Stats()
	now := s.l.Wall()
	v := &cluster.OSDStats{
		Time:            fmt.Sprintf("%d.%03d", now.Unix(), now.Nanosecond()/1e6),
		BlockstoreReady: true,
		Size:            cluster.Number(st.Blocks * uint64(st.BlockSize)), Free: cluster.Number(secondary.Room(&st) * uint64(st.BlockSize)),
		DataBlockSize: cluster.Number(st.BlockSize), BitmapGranularity: cluster.Number(st.Granularity), ImmediateCommit: "all",
		Host: s.o.Host, Version: s.o.Version, ChecksumErrors: cluster.Number(st.ChecksumErrors), SlowOpsPrimary: cluster.Number(s.prim.SlowOps()), SlowOpsSecondary: cluster.Number(s.sec.SlowOps()),
		OpStats: map[string]cluster.OpStats{}, RecoveryStats: map[string]cluster.OpStats{},
	}
	for _, op := range statsOps {
		if o := s.prim.Stats(op); o.Count > 0 {
			v.OpStats[op.String()] = cluster.OpStats{Count: cluster.Number(o.Count), Usec: cluster.Number(o.Usec), Bytes: cluster.Number(o.Bytes)}
		}
	}
	for osd, n := range s.prim.BadCopies { // order: into a map
		if v.BadCopies == nil {
			v.BadCopies = map[string]cluster.Number{}
		}
		v.BadCopies[strconv.FormatUint(uint64(osd), 10)] = cluster.Number(n)
	}
	v.MendedCopies = cluster.Number(s.prim.Events.Mended)
	if n := s.prim.Scrubbed; n.Objects > 0 {
		v.Scrub = &cluster.ScrubSums{Objects: cluster.Number(n.Objects), Bytes: cluster.Number(n.Bytes), Bad: cluster.Number(n.Bad), Inconsistent: cluster.Number(n.Inconsistent)}
	}
	s.progress.rates(s.l.Now(), s.recovered(), v.RecoveryStats)
	return v
}

// publishStats writes what is for people and the monitor, without a lease.
func (s *OSD) publishStats() {
	if s.stopping || s.failed {
		return
	}
	s.l.Arm(&s.stats, s.l.Now().Add(s.statsPause()))
	if !s.leaseUp {
		return
	}
	space := cluster.OSDSpace{}
	s.o.Store.SpaceByInode(func(i layout.Inode, bytes int64) {
		pool := strconv.Itoa(int(i.Pool()))
		if space[pool] == nil {
			space[pool] = map[string]cluster.Number{}
		}
		space[pool][strconv.FormatUint(i.Num(), 10)] = cluster.Number(bytes)
	})
	t := registry.Txn{Then: []registry.Op{
		{Kind: registry.Put, Key: cluster.OSDStatsKey(s.o.Num), Value: cluster.Value(s.statsValue())},
		{Kind: registry.Put, Key: cluster.OSDSpaceKey(s.o.Num), Value: cluster.Value(space)},
	}}
	told := map[*pgRun]string{}
	for _, r := range s.sortedPGs() {
		if r.served != nil || r.haveState && r.waits() {
			v := r.statsValue()
			t.Then = append(t.Then, registry.Op{Kind: registry.Put, Key: cluster.PGStatsKey(r.id), Value: cluster.Value(v)})
			told[r] = v.Reason
		}
	}
	s.o.Registry.Txn(t, func(_ registry.TxnResult, err error) {
		if err != nil {
			s.log.Debug("statistics not written", "err", err)
			return
		}
		for r, why := range told { // order: each by itself
			r.said = why
		}
	})
	s.recordSequence(func() {})
	s.endStrangers()
	s.stray.look(s)
	s.stray.forgetUs(s)
}

// recordSequence writes down how far the store's journal is durable, so that a disk set back to an earlier state is recognized.
func (s *OSD) recordSequence(done func()) {
	old, ok := s.Snapshot().Stores.Get(s.o.Num)
	if !ok || !s.leaseUp || old.Store != s.self.Store {
		done()
		return
	}
	id := *old
	id.Boot, id.Sequence = s.o.Store.Superblock().Boot, s.o.Store.Stats().Sequence
	key := cluster.OSDIdentityKey(s.o.Num)
	t := registry.Txn{If: []registry.Compare{registry.Unchanged(key, old.Mod)}, Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&id)}}}
	s.o.Registry.Txn(t, func(registry.TxnResult, error) { done() })
}

// strayJob removes what this store still holds of PGs that need nothing of it any more. The PG's record stays, and says to whom the PG was given: should etcd be set back to before, this
// store must not pass for a member that has everything.
type strayJob struct {
	s       *OSD
	running bool
	pg      layout.PGID
	at      store.Cursor // objects before are removed
	some    bool         // something was found since the beginning of the listing
	left    int
	failed  bool
	next    loop.Task
	// forgetting are the PGs whose histories are being written.
	forgetting map[layout.PGID]bool
	empty      map[layout.PGID]layout.Interval // nothing is left of the PG since it was locked for the interval, the last one
}

// strayBatch is how many objects are removed at once.
const strayBatch = 64

// unneeded reports whether a PG needs nothing of this store: its record is clean and active, does not name the store, and is newer than anything the store was locked for. Our
// view of the registry may be old; the last condition holds back a removal that a later record, which we have not seen, would forbid. The PG must be served, too: then its members know
// the record, so that it is not forgotten if etcd is set back. And what is to be a member again soon would only be copied back.
func (s *OSD) unneeded(rec store.PGRecord) bool {
	now, ok := s.Snapshot().Records.Get(rec.PG)
	if !ok || uint64(now.Generation) != rec.Generation || !now.Active() || len(now.Sets) != 1 || now.Activated < rec.Interval || s.pgs[rec.PG] != nil || s.locks.Granted(rec.PG) {
		return false
	}
	if st, ok := s.Snapshot().PGStates.Get(rec.PG); !ok || st.State&cluster.StateActive == 0 {
		return false
	}
	if t, ok := s.Snapshot().PGConfig.Target(rec.PG); ok && slices.Contains(t.OSDSet, s.o.Num) {
		return false
	}
	return !now.Names(s.self.Store) && len(now.Participants) == len(now.Sets[0].Members)
}

// waitingOf are the objects of a listing with versions that wait for a commit, and what they are without them.
func waitingOf(entries []wire.SubEntry) (list []wire.Versioned) {
	for i, e := range entries {
		switch {
		case store.StateFlags(e.Flags)&store.Unstable == 0:
		case i == 0 || entries[i-1].Object != e.Object:
			list = append(list, wire.Versioned{OID: e.Object})
		case store.StateFlags(entries[i-1].Flags)&store.Unstable == 0:
			list = append(list, wire.Versioned{OID: e.Object, Version: uint64(entries[i-1].Version)})
		}
	}
	return list
}

// look starts the removal for one PG that needs nothing of our store.
func (j *strayJob) look(s *OSD) {
	if j.running || s.failed || s.stopping {
		return
	}
	j.s = s
	for _, rec := range s.o.Store.PGs() {
		if last, ok := j.empty[rec.PG]; ok && last == rec.Interval || !s.sharded(rec.PG.Pool) || !s.unneeded(rec) {
			continue
		}
		j.running, j.failed, j.pg, j.at, j.some = true, false, rec.PG, 0, false
		j.step()
		return
	}
}

// givenUp is our record of a PG that lives elsewhere now.
func (s *OSD) givenUp(rec store.PGRecord) store.PGRecord {
	now, _ := s.Snapshot().Records.Get(rec.PG)
	rec.Interval, rec.TookPart, rec.Floor = max(rec.Interval, now.Activated), now.Activated, max(rec.Floor, now.Floor)
	rec.Participants, rec.Sets = members[store.Member](now.Participants), nil
	for _, set := range now.Sets {
		rec.Sets = append(rec.Sets, store.PGSet{Interval: set.Interval, Members: members[store.Member](set.Members)})
	}
	return rec
}

func (j *strayJob) step() {
	s := j.s
	rec, ok := s.o.Store.PG(j.pg)
	if !ok || !s.unneeded(rec) || !s.sharded(j.pg.Pool) || s.failed || j.failed {
		j.running = false
		return
	}
	if now := s.givenUp(rec); !reflect.DeepEqual(now, rec) {
		s.o.Store.PutPG(now, func(err error) {
			j.failed = err != nil
			j.step()
		})
		return
	}
	entries, next, more := s.sec.List(j.pg, j.at, strayBatch)
	if waiting := waitingOf(entries); len(waiting) > 0 {
		s.sec.Rollback(j.pg, waiting, func(err error) {
			j.failed = err != nil
			j.step()
		})
		return
	}
	j.at, j.some = next, j.some || len(entries) > 0
	if !more && j.some {
		more, j.at, j.some = true, 0, false // until nothing is found from the beginning to the end
	}
	if len(entries) == 0 && more {
		j.next.Run = j.step
		s.l.Post(&j.next)
		return
	}
	if len(entries) == 0 {
		if j.empty == nil {
			j.empty = map[layout.PGID]layout.Interval{}
		}
		j.running, j.empty[j.pg] = false, rec.Interval
		s.log.Info("nothing is left of a PG that lives elsewhere", "pg", j.pg.String(), "interval", rec.TookPart)
		if h, ok := s.Snapshot().Histories.Get(j.pg); ok {
			j.forgetUsIn(s, j.pg, h)
		}
		j.look(s)
		return
	}
	j.left = len(entries)
	for _, e := range entries {
		op := &store.Op{Object: e.Object, Base: e.Version, BaseInterval: e.Interval}
		op.Done = func(op *store.Op) {
			s.sec.Changed(j.pg)
			j.failed = j.failed || op.Err != nil
			if j.left--; j.left == 0 {
				j.step()
			}
		}
		s.sec.Replace(j.pg, op)
	}
}
