package osd

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/planted"
	"holdfast/core/registry"
	"holdfast/osd/peering"
	"holdfast/osd/store"
)

// verification compares what our store knows of its PGs with etcd, each time that we come up: etcd may have been set back to an older state. What the store knew then was in etcd
// before, so an etcd that knows less now has forgotten it. Somebody must have forgotten other things too, which only stores that are not here may know: so all have to report.
type verification struct {
	at    registry.Revision // the state of etcd to compare with
	known []store.PGRecord
	done  func()
}

// verify calls done when etcd knows, at the revision, all of known, and every store has been asked to report if it did not. known is what our store knew before that revision was asked for: as
// soon as others see us up they lock us for intervals that are younger.
func (s *OSD) verify(at registry.Revision, known []store.PGRecord, done func()) {
	s.verifying = &verification{at: at, known: known, done: done}
	s.compareRecords()
}

// wentBack reports whether etcd has gone back to an earlier state: it is another copy, or, where that was not noticed, a record has gone back, which is only ever raised.
func wentBack(prev, next *cluster.Snapshot, keys []string) bool {
	for _, key := range keys {
		k, ok := cluster.ParseKey(key)
		if !ok || k.Kind != cluster.KindPGRecord {
			continue
		}
		old, was := prev.Records.Get(k.PG)
		now, is := next.Records.Get(k.PG)
		if was && is && now.Generation == old.Generation && (now.Interval < old.Interval || now.Activated < old.Activated) {
			return true
		}
	}
	return next.Copy != prev.Copy
}

// txn is a transaction whose answer is compared with what is applied here, or waited for until it is. What came of one that was sent to an etcd that has gone back since, or that an etcd has answered
// which knows less than what we had applied, is not known: its revision says nothing here.
func (s *OSD) txn(t registry.Txn, done func(registry.TxnResult, error)) {
	backs, applied := s.backs, s.Snapshot().Revision
	s.o.Registry.Txn(t, func(res registry.TxnResult, err error) {
		if err == nil && (backs != s.backs || res.Revision < applied) {
			err = fmt.Errorf("%w: it has gone back to an earlier state", registry.ErrUnavailable)
		}
		done(res, err)
	})
}

// wentBack says that etcd itself has gone back to an earlier state.
func (s *OSD) wentBack(prev, next *cluster.Snapshot) {
	s.backs++
	s.missing.seen = 0
	if st, ok := next.OSDStates.Get(s.o.Num); s.lease != nil && (!ok || st.Lease != s.lease.ID()) {
		s.leaseUp, s.verifying = false, nil // although the lease may be there
		s.l.Arm(&s.retry, s.l.Now())
	} else if s.verifying != nil {
		s.verifying.at = 0 // that revision was of before; what is there now is applied
	}
	for _, r := range s.sortedPGs() {
		r.rev, r.shown = 0, cluster.PGState{} // revisions count from there, and what is shown is of before
		if r.m.Phase != peering.Active {
			r.exec(r.m.Restart()) // by a record that etcd has no more
			continue
		}
		s.l.Defer(&r.report)
	}
	if !next.Restored.LaterThan(prev.Restored) {
		s.declare(fmt.Sprintf("OSD %d saw etcd go back from revision %d to %d", s.o.Num, prev.Revision, next.Revision))
	}
}

// declare has every store report. It is carried out once: whoever is first does it for all.
func (s *OSD) declare(reason string) {
	if s.declaring || s.Snapshot().Restoring != nil { // whoever restores has declared it
		return
	}
	s.declaring, s.undeclared = true, ""
	before := s.Snapshot().Restored
	s.log.Error("etcd was restored from an older state; every OSD must report what it knows before another PG becomes active", "reason", reason)
	id := strconv.FormatUint(s.l.Rand().Uint64()|1, 16)
	s.txn(cluster.DeclareRestored(s.Snapshot(), cluster.Restored{ID: id, Time: s.l.Wall().Unix(), Reason: reason}), func(res registry.TxnResult, err error) {
		s.declaring = false
		switch {
		case err != nil || !res.Succeeded:
			if s.Snapshot().Restored == before {
				s.undeclared = reason // unless the next look finds that somebody else has declared it
				s.undeclaredAfter = before
			}
			s.l.Arm(&s.restoredRetry, s.l.Now().Add(cleanPause))
		case s.verifying != nil:
			s.verifying.at = max(s.verifying.at, res.Revision)
		}
		s.compareRecords()
	})
}

// fallsShort says how etcd's record of a PG falls short of that of an OSD's store, or "".
func fallsShort(snap *cluster.Snapshot, num layout.OSDNum, known *store.PGRecord) string {
	rec, ok := snap.Records.Get(known.PG)
	if g := snap.Generation(known.PG.Pool); uint64(g) != known.Generation {
		_, exists := snap.Pools.Get(known.PG.Pool)
		switch id, _ := snap.Identities.Get(known.PG.Pool); {
		case exists && g != 0 && uint64(g) < known.Generation:
			return fmt.Sprintf("pool %d in etcd is of generation %d; the store of OSD %d knows of %d", known.PG.Pool, g, num, known.Generation)
		case exists && g != 0 && id.Forgot(int64(known.Generation)):
			return fmt.Sprintf("pool %d was given generation %d by an etcd that did not know of %d; the store of OSD %d does", known.PG.Pool, g, known.Generation, num)
		case g == 0 && !(ok && uint64(rec.Generation) >= known.Generation) && uint64(snap.LastGeneration(known.PG.Pool, snap.Revision)) < known.Generation:
			return fmt.Sprintf("no PG of pool %d has a record of generation %d in etcd; the store of OSD %d was locked for PG %v", known.PG.Pool, known.Generation, num, known.PG)
		}
		return "" // a pool that was removed, or made anew
	}
	switch {
	case !ok || uint64(rec.Generation) != known.Generation:
		return fmt.Sprintf("PG %v has no record in etcd; the store of OSD %d was locked for its interval %d", known.PG, num, known.Interval)
	case rec.Activated < known.TookPart:
		return fmt.Sprintf("etcd's record of PG %v ends at interval %d; the store of OSD %d knows of %d", known.PG, rec.Activated, num, known.TookPart)
	case rec.Interval < known.Interval:
		return fmt.Sprintf("etcd's record of PG %v ends at interval %d; the store of OSD %d was locked for %d", known.PG, rec.Interval, num, known.Interval)
	}
	return ""
}

// compareRecords reports when that is asked for, and goes on with the verification, as far as what is applied allows.
func (s *OSD) compareRecords() {
	if s.declaring || s.reporting || s.stopping || s.failed || s.restoredRetry.Armed() || s.Snapshot().Restoring != nil {
		return // half of a restored etcd may lack the pool of what we know
	}
	if s.undeclared != "" {
		if s.Snapshot().Restored == s.undeclaredAfter {
			s.declare(s.undeclared)
			return
		}
		s.undeclared = ""
	}
	v := s.verifying
	own, ok := s.Snapshot().Stores.Get(s.o.Num)
	if !ok || own.Store != s.self.Store || v != nil && s.Snapshot().Revision < v.at {
		return // our registration is not applied yet
	}
	if r := s.Snapshot().Restored; r != nil && own.Reported != r.ID {
		s.report(own, r)
		return
	}
	if v == nil {
		return
	}
	for i := range v.known {
		if why := fallsShort(s.Snapshot(), s.o.Num, &v.known[i]); why != "" {
			s.declare(why)
			return
		}
	}
	s.verifying = nil
	v.done()
}

// report writes what our store knows of each PG into etcd, where it is more than what etcd knows, and then that we have reported.
func (s *OSD) report(own *cluster.OSDIdentity, restored *cluster.Restored) {
	s.reporting = true
	known := s.o.Store.PGs()
	ended := func() {
		s.reporting = false
		s.compareRecords()
	}
	failed := func() {
		s.reporting = false
		s.l.Arm(&s.restoredRetry, s.l.Now().Add(cleanPause))
	}
	raised, fences := 0, s.fences.unshown()
	var next func(i int)
	next = func(i int) {
		for ; i < len(known); i++ {
			if t, why := s.laterPool(&known[i], restored); why != "" {
				s.log.Error("what the store knows cannot be reported, and no PG becomes active before it is", "why", why)
				failed()
				return
			} else if t.Then != nil {
				t.If = append(t.If, registry.Unchanged(cluster.OSDIdentityKey(s.o.Num), own.Mod))
				s.o.Registry.Txn(t, func(registry.TxnResult, error) { failed() }) // look again when that is applied
				return
			}
			t, more := s.raise(&known[i], restored)
			if !more {
				continue
			}
			t.If = append(t.If, registry.Unchanged(cluster.OSDIdentityKey(s.o.Num), own.Mod)) // what was given up has no say
			s.o.Registry.Txn(t, func(res registry.TxnResult, err error) {
				switch {
				case s.stopping || s.failed:
				case err != nil:
					failed()
				case !res.Succeeded:
					failed() // somebody else raised it: look again when that is applied
				default:
					raised++
					next(i + 1)
				}
			})
			return
		}
		if len(fences) > 0 {
			k := fences[0]
			fences = fences[1:]
			s.reportFence(k, own, restored, func(ok bool) {
				switch {
				case s.stopping || s.failed:
				case !ok:
					failed()
				default:
					next(i)
				}
			})
			return
		}
		id := *own
		id.Reported = restored.ID
		key := cluster.OSDIdentityKey(s.o.Num)
		t := registry.Txn{If: []registry.Compare{registry.Unchanged(key, own.Mod), restored.Mark()}, Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&id)}}}
		s.txn(t, func(res registry.TxnResult, err error) {
			switch {
			case s.stopping || s.failed:
			case err != nil || !res.Succeeded:
				failed()
			default:
				s.log.Warn("reported what the store knows, since etcd was restored", "pgs", len(known), "records_raised", raised)
				if s.verifying != nil {
					s.verifying.at = max(s.verifying.at, res.Revision)
				}
				ended()
			}
		})
	}
	next(0)
}

// reportFence puts a fence that etcd does not show into it: it may have forgotten it, and before a PG begins another interval every OSD must know it, one that is started only then, too.
func (s *OSD) reportFence(k *fence, own *cluster.OSDIdentity, restored *cluster.Restored, done func(ok bool)) {
	key, mod, value := cluster.FenceKey(k.name), registry.Revision(0), *k.fence
	if now, ok := s.Snapshot().Fences.Get(k.name); ok {
		if k.fence.Within(now) || now.Session != k.fence.Session || now.Gateway != k.fence.Gateway {
			done(true) // a name that was given to another fence is that one's
			return
		}
		mod, value = now.Mod, value.Join(now)
	}
	s.o.Registry.Txn(registry.Txn{
		If:   []registry.Compare{registry.Unchanged(key, mod), restored.Mark(), registry.Unchanged(cluster.OSDIdentityKey(s.o.Num), own.Mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&value)}},
		Else: []registry.Op{{Kind: registry.Get, Key: key}},
	}, func(res registry.TxnResult, err error) {
		if err == nil && !res.Succeeded && len(res.Results[0]) > 0 {
			found := &cluster.Fence{}
			bad := json.Unmarshal(res.Results[0][0].Value, found)
			if bad != nil {
				s.log.Error("a fence that etcd has forgotten cannot be put back, as its key is unusable: correct the key", "key", key, "err", bad)
			}
			done(bad != nil || k.fence.Within(found)) // another OSD has reported it
			return
		}
		done(err == nil && res.Succeeded)
	})
}

// laterPool compares the generation of a PG that our store knows with that of its pool in etcd. A pool whose identity etcd never had, that was restored without one (cluster.UnknownGeneration), or that
// was given another one before anybody had said that etcd was set back, gets ours by t. One that etcd knows as an earlier pool of the number cannot be set right by us: its configuration is another
// one's; nor can one that has been in use under its new generation. As long as it is so, why says what to do: other stores would serve it as an empty pool.
func (s *OSD) laterPool(known *store.PGRecord, restored *cluster.Restored) (t registry.Txn, why string) {
	snap, pool, ours := s.Snapshot(), known.PG.Pool, int64(known.Generation)
	if _, exists := snap.Pools.Get(pool); !exists {
		return t, ""
	}
	id, is := snap.Identities.Get(pool)
	next, mod := cluster.PoolIdentity{Given: ours}, registry.Revision(0)
	switch {
	case !is:
		if snap.LastGeneration(pool, restored.Mod) >= ours {
			return t, "" // etcd knew that pool, and that it was removed: this one has not begun yet
		}
	case id.Generation() < ours && id.Name != "":
		return t, fmt.Sprintf("the store has PG %v of generation %d, and pool %d in etcd is an earlier one, of generation %d: put \"generation\":%d into the key pool/identity/%d and correct the pool's configuration, or remove the pool",
			known.PG, ours, pool, id.Generation(), ours, pool)
	case id.Forgot(ours) && snap.LastGeneration(pool, snap.Revision) >= id.Generation():
		return t, fmt.Sprintf("the store has PG %v of generation %d, which etcd had forgotten when pool %d was given generation %d, and PGs of that have been taken since: to go on with these, and lose what the store has of the pool, "+
			"take \"earlier\" out of the key pool/identity/%d; to keep it on the disks, remove the pool", known.PG, ours, pool, id.Generation(), pool)
	case id.Generation() < ours || id.Forgot(ours):
		mod = id.Mod
	default:
		return t, ""
	}
	key := cluster.PoolIdentityKey(pool)
	return registry.Txn{If: []registry.Compare{registry.Unchanged(key, mod), restored.Mark()}, Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&next)}}}, ""
}

// raise is the transaction that brings a PG's record in etcd up to what our store knows; more is false when there is nothing to bring.
func (s *OSD) raise(known *store.PGRecord, restored *cluster.Restored) (t registry.Txn, more bool) {
	snap := s.Snapshot()
	g := snap.Generation(known.PG.Pool)
	_, exists := snap.Pools.Get(known.PG.Pool)
	gone := g == 0 && !exists // a pool that was removed, or that etcd has forgotten: a later one of the number must be known for another one
	if uint64(g) != known.Generation && !gone || planted.ReportEmpty {
		return t, false
	}
	ours := cluster.PGRecord{Generation: int64(known.Generation), Interval: known.Interval, Primary: known.Primary, Instance: known.Instance, Activated: known.TookPart, Floor: known.Floor,
		Participants: members[cluster.PGMember](known.Participants), Lender: cluster.AnyLender}
	for _, set := range known.Sets {
		ours.Sets = append(ours.Sets, cluster.PGSet{Interval: set.Interval, Members: members[cluster.PGMember](set.Members)})
	}
	var mod registry.Revision
	next := ours
	if rec, ok := snap.Records.Get(known.PG); ok {
		mod = rec.Mod
		if gone && rec.Generation > ours.Generation {
			return t, false
		}
		if rec.Generation == ours.Generation {
			old := *rec
			old.Meta = cluster.Meta{}
			if next = old.Newer(ours); reflect.DeepEqual(next, old) {
				return t, false
			}
		}
	}
	key := cluster.PGRecordKey(known.PG)
	return registry.Txn{If: []registry.Compare{registry.Unchanged(key, mod), restored.Mark()}, Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&next)}}}, true
}

// forgotten has every store report when a pool has been given an identity by an etcd that did not know of what our store has of it, although nobody has said that etcd was set back.
func (s *OSD) forgotten(keys []string) {
	own, ok := s.Snapshot().Stores.Get(s.o.Num)
	if r := s.Snapshot().Restored; !ok || own.Store != s.self.Store || r != nil && own.Reported != r.ID {
		return // it will report anyway
	}
	for _, key := range keys {
		k, ok := cluster.ParseKey(key)
		if !ok || k.Kind != cluster.KindPoolIdentity {
			continue
		}
		for _, known := range s.o.Store.PGs() {
			if id, ok := s.Snapshot().Identities.Get(k.Pool); !ok || known.PG.Pool != k.Pool || !id.Forgot(int64(known.Generation)) {
				continue
			}
			if why := fallsShort(s.Snapshot(), s.o.Num, &known); why != "" {
				s.declare(why)
				return
			}
		}
	}
}

// unreported says why no PG may activate now, or "".
func (s *OSD) unreported() string {
	if (s.declaring || s.undeclared != "") && !planted.RestoreNotAwaited {
		return "etcd was restored from an older state, which is not declared yet"
	}
	list := s.Snapshot().Unreported()
	if len(list) == 0 || planted.RestoreNotAwaited {
		return ""
	}
	return "etcd was restored from an older state: " + describeOSDs(list) + " must report first; start them, or declare what is gone lost (`holdfast etcd lost`)"
}

// describeOSDs names OSDs for people, at most eight of them.
func describeOSDs(list []layout.OSDNum) string {
	var names []string
	for _, n := range list[:min(len(list), 8)] {
		names = append(names, strconv.FormatUint(uint64(n), 10))
	}
	text := "OSD " + strings.Join(names, ", ")
	if len(list) > 8 {
		text += fmt.Sprintf(" and %d more", len(list)-8)
	}
	return text
}

// contradicted has every store report when one took part in a later interval than the last that etcd knows of, although all have reported: etcd was set back, and what would tell it of
// that interval runs and was not asked.
func (r *pgRun) contradicted(osd layout.OSDNum, part layout.Interval) {
	s := r.s
	snap := s.Snapshot()
	rec, ok := snap.Records.Get(r.id)
	if !ok || uint64(rec.Generation) != r.generation || rec.Mod != r.recordMod || part <= rec.Activated || len(snap.Unreported()) > 0 {
		return
	}
	s.declare(fmt.Sprintf("OSD %d took part in interval %d of PG %v; etcd's record ends at %d", osd, part, r.id, rec.Activated))
}

// missed looks whether the state key of a PG that we serve is still there: an earlier state of etcd may lack it, although our lease is in it, and clients would find nobody. A key that says
// something else than what is so, as one does whose transaction was given up and came late, is put again.
func (r *pgRun) missed(next *cluster.Snapshot) {
	if !r.haveState || r.s.lease == nil {
		return
	}
	st, ok := next.PGStates.Get(r.id)
	if ok && st.Lease == r.s.lease.ID() {
		if r.showed(*st, st.Mod); !r.shows(r.bits()) {
			r.s.l.Defer(&r.report)
		}
	}
	if !ok && r.m.Phase == peering.Active && next.Revision >= r.rev {
		r.haveState = false
		r.reclaim()
	}
}

// mayStay reports whether etcd's record, as just read, leaves the interval that we serve to us: it is our take of it, or one of before.
func (r *pgRun) mayStay() bool {
	rec := &r.record
	return uint64(rec.Generation) == r.generation && (rec.Interval < r.m.Interval || rec.Interval == r.m.Interval && rec.Primary == r.s.o.Num && rec.Instance == r.s.o.Instance)
}

// dropStray removes the state key of a PG that we do nothing about and that our lease holds: an earlier state of etcd has brought it back, and nobody else can be the PG's primary while
// it is there.
func (s *OSD) dropStray(id layout.PGID) {
	st, ok := s.Snapshot().PGStates.Get(id)
	if !ok || s.lease == nil || s.lease.ID() == 0 || st.Lease != s.lease.ID() {
		return
	}
	key := cluster.PGStateKey(id)
	s.o.Registry.Txn(registry.Txn{
		If:   []registry.Compare{registry.Unchanged(key, st.Mod), registry.HeldBy(key, s.lease.ID())},
		Then: []registry.Op{{Kind: registry.Delete, Key: key}},
	}, func(registry.TxnResult, error) {}) // looked for again with every change that is applied
}
