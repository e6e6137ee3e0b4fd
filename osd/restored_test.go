package osd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry/memory"
	"holdfast/osd/store"
)

// etcd is set back with its revisions raised, as etcdutl --bump-revision does, so that nobody sees it go back. The OSD whose store alone knows a later interval goes on running; it is the
// member that the next primary asks. That one must have everybody report instead of waiting for what nobody will do.
func TestRestoreThatOnlyAMemberContradictsIsDeclared(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	backup := b.reg.Backup()
	b.place(2, 2)
	b.wait("PG on OSD 2 alone", func() bool { return b.serves(2, 1) })
	later := b.record().Activated
	b.reg.Restore(backup, 1000)
	b.place(3, 2, 3)
	b.wait("PG active on OSD 3", func() bool { return b.serves(3, 2) })
	if rec := b.record(); rec.Activated <= later {
		t.Errorf("the PG is active in interval %d; OSD 2 was in %d", rec.Activated, later)
	}
	if b.get(cluster.KeyRestored).Key == "" {
		t.Error("the restore was not declared")
	}
}

// etcd is set back to a backup that holds an older declaration, with which every OSD has reported. That says nothing of this time.
func TestAnOlderDeclarationInABackupIsNotTakenForANewOne(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	declare := func(id string) {
		at := b.osds[1].s.Snapshot()
		b.txn(cluster.DeclareRestored(at, cluster.Restored{ID: id, Time: b.osds[1].l.Wall().Unix(), Reason: "by a test"}))
		b.wait("the reports", func() bool {
			s := b.osds[1].s.Snapshot()
			return s.Restored != nil && s.Restored.ID == id && len(s.Unreported()) == 0
		})
	}
	declare("first")
	b.w.Run(10 * time.Second)
	backup := b.reg.Backup()
	declare("second")
	b.osds[2].kill()
	b.wait("PG on OSD 1 alone", func() bool { return b.serves(1, 1) })
	for range 5 {
		b.put("other", "x") // so that the revision goes back in any case
	}
	b.reg.Restore(backup, 0)
	b.wait("OSD 1 to see it", func() bool { r := b.osds[1].s.Snapshot().Restored; return r != nil && r.ID != "second" })
	b.wait("a new declaration", func() bool { return b.osds[1].s.Snapshot().Restored.ID != "first" })
	if list := b.osds[1].s.Snapshot().Unreported(); len(list) == 0 {
		t.Error("OSD 2 is not waited for")
	}
}

// The backup was made while a PG changed its primary: in it, the first one's key is still there, and its lease lives. Nobody but its process can remove it.
func TestStateKeyThatARestoreBringsBackIsRemoved(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.osds[1].reg.Unreachable(true) // it has not heard of the new PG map
	b.place(2, 1, 2)
	backup := b.reg.Backup()
	b.osds[1].reg.Unreachable(false)
	b.wait("PG active on OSD 2", func() bool { return b.serves(2, 2) })
	b.reg.Restore(backup, 0)
	b.wait("all reports", func() bool {
		s := b.osds[2].s.Snapshot()
		return s.Restored != nil && len(s.Unreported()) == 0
	})
	b.wait("PG active on OSD 2 again", func() bool { return b.serves(2, 2) })
}

// The state key of an active PG is not in the backup, although its primary's lease is: clients would find nobody.
func TestStateKeyThatARestoreTakesAwayIsMadeAgain(t *testing.T) {
	b := newBed(t, 2)
	backup := b.reg.Backup()
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.reg.Restore(backup, 0)
	b.place(1, 1, 2)
	b.wait("PG active again", func() bool { return b.get(cluster.PGStateKey(pg1)).Key != "" && b.serves(1, 2) })
}

// The registry does not answer when an OSD has seen that it went back: the OSD declares it later.
func TestDeclarationIsTriedAgain(t *testing.T) {
	b := newBed(t, 1)
	backup := b.reg.Backup()
	b.place(1, 1)
	b.wait("PG active", func() bool { return b.serves(1, 1) })
	o := b.osds[1]
	high := o.s.Snapshot().Revision
	b.reg.Restore(backup, 0)
	b.wait("the OSD to see it", func() bool { return o.s.Snapshot().Revision < high })
	o.reg.Unreachable(true)
	b.w.Run(3 * time.Second)
	o.reg.Unreachable(false)
	b.wait("the declaration", func() bool { return b.get(cluster.KeyRestored).Key != "" })
}

// One key that cannot be read must not hold up every PG of the cluster.
func TestReportIsNotHeldUpByAnUnreadableRecord(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.put(cluster.PGRecordKey(pg1), "{")
	b.txn(cluster.DeclareRestored(b.osds[1].s.Snapshot(), cluster.Restored{ID: "test", Time: 1, Reason: "by a test"}))
	b.wait("the reports", func() bool {
		s := b.osds[1].s.Snapshot()
		return s.Restored != nil && len(s.Unreported()) == 0
	})
}

// A copy is voided by a record that its store does not know yet. Should etcd forget the record, the store must not stand for an older set with what is left: so it knows the record first.
func TestStoreKnowsTheRecordBeforeItsCopiesAreVoided(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.place(2, 1, 2)
	b.wait("PG active on OSD 2", func() bool { return b.serves(2, 2) })
	object := layout.ObjectID{Inode: layout.MakeInode(1, 1)}
	now := b.record().Interval
	b.osds[2].write(object, 0, layout.Version(now)<<layout.VersionCounterBits+1, 0, now)
	b.osds[2].kill()
	b.place(1, 1, 2)
	b.wait("PG on OSD 1 alone", func() bool { return b.serves(1, 1) })
	without := b.record().Activated
	b.osds[2].start()
	b.wait("the copy to be void", func() bool {
		return b.osds[2].st != nil && b.osds[2].st.Sharded(1) && b.osds[2].has(object).Flags&store.Void != 0
	})
	if rec, _ := b.osds[2].st.PG(pg1); rec.TookPart < without || len(rec.Sets) == 0 || rec.Sets[len(rec.Sets)-1].Interval != without {
		t.Errorf("the copy is void, and the store knows of interval %d and sets %v; it was judged by %d", rec.TookPart, rec.Sets, without)
	}
	b.wait("PG whole again", func() bool { return b.serves(1, 2) && b.osds[2].has(object).Version == 0 })
}

// An empty disk under the number of a store that has not reported would have the others go on without it, and nobody has said that it is lost.
func TestAnotherStoreDoesNotTakeThePlaceOfOneThatHasNotReported(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.osds[2].kill()
	b.wait("OSD 2 to be gone", func() bool { return b.get(cluster.OSDStateKey(2)).Key == "" })
	b.txn(cluster.DeclareRestored(b.osds[1].s.Snapshot(), cluster.Restored{ID: "test", Time: 1, Reason: "by a test"}))
	b.wait("the report of OSD 1", func() bool { s := b.osds[1].s.Snapshot(); return s.Restored != nil && len(s.Unreported()) == 1 })
	b.w.RemoveDisk("disk2")
	b.osds[2].format()
	b.osds[2].start()
	b.never("the new disk has taken the place of the old one", 15*time.Second, func() bool { return len(b.osds[1].s.Snapshot().Unreported()) == 0 })
	lost, ok := cluster.DeclareLost(b.osds[1].s.Snapshot(), 2)
	if !ok {
		t.Fatal("there is no store to give up")
	}
	b.txn(lost)
	b.wait("PG active with the new disk", func() bool { return b.serves(1, 2) })
}

// halfMade is a pool that was copied while it was being made, with config/pools and without its identity, and that OSDs 1 and 2 have served since; OSD 3 knows nothing of it.
type halfMade struct {
	*bed
	backup  *memory.Backup
	object  layout.ObjectID // written since
	version layout.Version
}

// realGeneration is that of a halfMade pool, and anew that of an identity that is made after etcd was set back.
const realGeneration, anewGeneration = 5_000_000, 6_000_000

func newHalfMade(t *testing.T) *halfMade {
	b := &halfMade{bed: newBed(t, 3), object: layout.ObjectID{Inode: layout.MakeInode(1, 1)}}
	b.put(cluster.PoolIdentityKey(1), nil)
	b.backup = b.reg.Backup()
	b.identify(realGeneration, 0)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	interval := b.record().Interval
	b.version = layout.Version(interval)<<layout.VersionCounterBits + 1
	b.osds[1].write(b.object, 0, b.version, 0, interval)
	b.osds[2].write(b.object, 0, b.version, 0, interval)
	return b
}

// identify writes the pool's identity, as a monitor does that knows of earlier pools of the number up to a generation.
func (b *bed) identify(generation, earlier int64) {
	b.put(cluster.PoolIdentityKey(1), &cluster.PoolIdentity{Name: "p", Given: generation, Earlier: &earlier})
}

// kept waits until OSD 3 serves the pool, with what was written.
func (b *halfMade) kept() {
	b.t.Helper()
	b.place(3, 3)
	b.wait("PG active on OSD 3, with what was written", func() bool { return b.serves(3, 1) && b.osds[3].has(b.object).Version == b.version })
	if g := b.osds[3].s.Snapshot().Generation(1); g != realGeneration {
		b.t.Errorf("generation %d, was %d", g, realGeneration)
	}
}

// The snapshot that was put back was taken while a pool was being made: it has the pool and not its identity. What was written since must not count as that of an earlier pool of the number.
func TestPoolThatWasRestoredWithoutItsIdentityIsTheSameOne(t *testing.T) {
	for _, is := range []bool{true, false} { // by `holdfast etcd restore`, and by etcd's own means
		b := newHalfMade(t)
		b.reg.Restore(b.backup, 1000)
		if is {
			id := cluster.UnknownGeneration(nil)
			b.put(cluster.PoolIdentityKey(1), &id)
		}
		b.txn(cluster.DeclareRestored(&cluster.Snapshot{}, cluster.Restored{ID: "r", Time: b.osds[1].l.Wall().Unix(), Reason: "by a test"}))
		b.kept()
	}
}

// Nobody has said that etcd was set back when a monitor, which has just been started, gives the pool an identity: the pool is the same one all the same.
func TestPoolThatWasGivenAnIdentityAnewAfterARestoreIsTheSameOne(t *testing.T) {
	t.Run("OSDs see it go back", func(t *testing.T) {
		b := newHalfMade(t)
		b.reg.Restore(b.backup, 1000)
		b.identify(anewGeneration, 0)
		b.kept()
	})
	t.Run("OSDs run, and see keys change", func(t *testing.T) {
		b := newHalfMade(t)
		b.put(cluster.PGRecordKey(pg1), nil)
		b.identify(anewGeneration, 0)
		b.kept()
	})
	t.Run("OSDs start afterwards", func(t *testing.T) {
		b := newHalfMade(t)
		b.setBack()
		b.identify(anewGeneration, 0)
		for _, n := range []layout.OSDNum{2, 1, 3} {
			b.osds[n].start()
		}
		b.kept()
	})
	t.Run("OSDs start before", func(t *testing.T) {
		b := newHalfMade(t)
		b.setBack()
		for _, n := range []layout.OSDNum{2, 1, 3} {
			b.osds[n].start()
		}
		b.wait("the declaration", func() bool { return b.get(cluster.KeyRestored).Key != "" })
		b.kept()
	})
}

// setBack puts the copy back while nobody runs.
func (b *halfMade) setBack() {
	b.t.Helper()
	for n := range layout.OSDNum(3) {
		b.osds[n+1].kill()
	}
	b.reg.Restore(b.backup, 1000)
	b.wait("no OSD in etcd", func() bool { return b.stateOf(1)+b.stateOf(2)+b.stateOf(3) == "" })
}

// A pool was removed and made anew, and etcd is set back to when the new one had no identity yet. What stores know of the earlier one does not come back, and says nothing against the new one.
func TestPoolThatWasRemovedDoesNotComeBackWithARestore(t *testing.T) {
	b := newHalfMade(t)
	b.put(cluster.PoolIdentityKey(1), nil)
	b.reg.Restore(b.reg.Backup(), 1000)
	b.txn(cluster.DeclareRestored(&cluster.Snapshot{}, cluster.Restored{ID: "r", Time: b.osds[1].l.Wall().Unix(), Reason: "by a test"}))
	b.wait("the reports", func() bool { s := b.osds[3].s.Snapshot(); return s.Restored != nil && len(s.Unreported()) == 0 })
	if kv := b.get(cluster.PoolIdentityKey(1)); kv.Key != "" {
		t.Fatalf("the identity of the removed pool has come back: %s", kv.Value)
	}
	b.anew()
}

// etcd is set back to before a pool was made, and another one is made under its number when all have reported: it is empty, and no OSD takes it for the one that etcd has forgotten.
func TestPoolThatIsMadeAfterARestoreIsNotTheOneThatEtcdHasForgotten(t *testing.T) {
	b := newHalfMade(t)
	pools := b.get(cluster.KeyPools).Value
	b.reg.Restore(b.backup, 1000)
	b.put(cluster.KeyPools, map[string]any{})
	b.txn(cluster.DeclareRestored(&cluster.Snapshot{}, cluster.Restored{ID: "r", Time: b.osds[1].l.Wall().Unix(), Reason: "by a test"}))
	b.wait("the reports", func() bool { s := b.osds[3].s.Snapshot(); return s.Restored != nil && len(s.Unreported()) == 0 })
	if b.record().Generation != realGeneration {
		t.Error("etcd does not know that there was a pool")
	}
	b.put(cluster.KeyPools, json.RawMessage(pools))
	b.anew()
}

// anew gives the pool an identity that is above the earlier one's, and sees to it that the pool is empty, and that nobody takes that for a restore, whoever is started.
func (b *halfMade) anew() {
	b.t.Helper()
	first := b.get(cluster.KeyRestored).Mod
	b.identify(anewGeneration, realGeneration)
	b.osds[2].kill()
	b.place(1, 1)
	b.wait("PG active on OSD 1", func() bool { return b.serves(1, 1) })
	b.osds[2].start()
	b.wait("OSD 2 to be up", func() bool { return b.osds[2].s != nil && b.osds[2].s.leaseUp })
	b.place(3, 3)
	b.wait("PG active on OSD 3", func() bool { return b.serves(3, 1) })
	if e := b.osds[3].has(b.object); e.Version != 0 {
		b.t.Errorf("the new pool has an object of the earlier one, of version %v", e.Version)
	}
	if b.get(cluster.KeyRestored).Mod != first {
		b.t.Errorf("a restore was declared: %s", b.get(cluster.KeyRestored).Value)
	}
}

// Under the generation that the pool was given anew its PG has been served by an OSD that knew nothing of it: what is acknowledged there would be lost with the other. So nobody goes on, and whoever knows better says so.
func TestPoolThatWasInUseUnderAnotherGenerationIsNotServed(t *testing.T) {
	b := newHalfMade(t)
	b.setBack()
	b.identify(anewGeneration, 0)
	b.place(3, 3)
	b.osds[3].start()
	b.wait("PG active on OSD 3", func() bool { return b.serves(3, 1) && b.record().Generation == anewGeneration })
	b.osds[1].start()
	b.osds[2].start()
	b.wait("the declaration", func() bool { return b.get(cluster.KeyRestored).Key != "" })
	b.place(1, 1, 2)
	b.never("the pool is served", 10*time.Second, func() bool { return b.serves(1, 2) })
	if !strings.Contains(b.log.String(), `take \"earlier\" out of the key pool/identity/1`) {
		t.Errorf("nobody says what to do: %s", b.log.String())
	}
	b.put(cluster.PoolIdentityKey(1), &cluster.PoolIdentity{Name: "p", Given: anewGeneration})
	b.wait("PG active on OSD 1", func() bool { return b.serves(1, 2) })
}

// What was put back holds an earlier pool of the number. Stores that have never heard of the later one must not serve it as an empty pool.
func TestEarlierPoolOfTheNumberIsNotServedInThePlaceOfALaterOne(t *testing.T) {
	b := newBed(t, 3)
	backup := b.reg.Backup()
	b.put(cluster.PoolIdentityKey(1), &cluster.PoolIdentity{Name: "p", Given: 5_000_000})
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.reg.Restore(backup, 1000)
	b.txn(cluster.DeclareRestored(&cluster.Snapshot{}, cluster.Restored{ID: "r", Time: b.osds[1].l.Wall().Unix(), Reason: "by a test"}))
	b.place(3, 3)
	b.never("the earlier pool is served", 20*time.Second, func() bool { return b.serves(3, 1) })
	b.put(cluster.PoolIdentityKey(1), &cluster.PoolIdentity{Name: "p", Given: 5_000_000})
	b.wait("PG active on OSD 3", func() bool { return b.serves(3, 1) && b.record().Activated > 1 })
}

// Nobody ran when etcd was set back to an earlier pool of the number. A store that knows the later one has the restore declared.
func TestEarlierPoolOfTheNumberTellsThatEtcdWasSetBack(t *testing.T) {
	b := newBed(t, 2)
	backup := b.reg.Backup()
	b.put(cluster.PoolIdentityKey(1), &cluster.PoolIdentity{Name: "p", Given: 5_000_000})
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.osds[1].kill()
	b.osds[2].kill()
	b.reg.Restore(backup, 1000)
	b.osds[1].start()
	b.wait("the declaration", func() bool { return b.get(cluster.KeyRestored).Key != "" })
	first := b.get(cluster.KeyRestored).Mod
	b.never("it is up, or declares it again", 20*time.Second, func() bool { return b.osds[1].s.leaseUp || b.get(cluster.KeyRestored).Mod != first })
}

// The backup was made between an OSD's lease and its registration: the lease goes on, and nobody else says that the key is gone. The OSD has applied its registration before etcd goes back, or still
// waits for its revision.
func TestOSDThatABackupDoesNotShowRegistersAgain(t *testing.T) {
	t.Run("up", func(t *testing.T) { registersAgain(t, true) })
	t.Run("registered", func(t *testing.T) { registersAgain(t, false) })
}

func registersAgain(t *testing.T, applied bool) {
	b := newBed(t, 1)
	o := b.osds[1]
	b.put(cluster.KeyRestoring, &cluster.Restoring{ID: "1", File: "f"}) // it asks for a lease, and waits
	o.run(func() { o.s.lease.Revoke(nil) })
	o.kill()
	b.wait("the key to go", func() bool { return b.stateOf(1) == "" })
	o.start()
	b.wait("a lease", func() bool { return o.s != nil && o.s.lease != nil && o.s.lease.ID() != 0 })
	backup := b.reg.Backup()
	up := func() bool { return o.s.leaseUp && b.stateOf(1) != "" }
	for range 100 {
		b.put("other", "x")
	}
	b.put(cluster.KeyRestoring, nil)
	if applied {
		b.wait("the OSD to be up", up)
	} else {
		b.w.Run(100 * time.Millisecond)
		o.reg.WatchLatency = func() time.Duration { return time.Minute }
		b.wait("the registration", func() bool { return b.stateOf(1) != "" && o.s.verifying != nil })
		o.reg.WatchLatency = nil
	}
	b.reg.Restore(backup, 0)
	b.put(cluster.KeyRestoring, nil)
	b.wait("the OSD to be up again", up)
}
