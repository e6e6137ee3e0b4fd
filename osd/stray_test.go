package osd

import (
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/osd/store"
)

// What a store holds of a PG is removed only when nothing at all speaks against it.
func TestUnneeded(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.place(1, 1)
	b.wait("PG on OSD 1", func() bool { return b.serves(1, 1) })
	s := b.osds[3].s
	b.w.Run(100 * time.Millisecond)
	rec := *b.record()
	key := cluster.PGRecordKey(pg1)
	mine := store.PGRecord{PG: pg1, Generation: uint64(rec.Generation), Interval: rec.Interval - 1, TookPart: rec.Interval - 1}
	if !s.unneeded(mine) {
		t.Fatal("a clean PG that lives elsewhere and is newer needs something of this store")
	}
	self := cluster.PGMember{OSD: 3, Store: s.self.Store}
	state := b.get(cluster.PGStateKey(pg1))
	for _, c := range []struct {
		name string
		mine func(*store.PGRecord)
		now  func(*cluster.PGRecord)
		do   func()
		undo func()
	}{
		{name: "of another generation", mine: func(m *store.PGRecord) { m.Generation++ }},
		{name: "locked for a later interval", mine: func(m *store.PGRecord) { m.Interval = rec.Interval + 1 }},
		{name: "without a record", mine: func(m *store.PGRecord) { m.PG.Num = 2 }},
		{name: "not activated", now: func(r *cluster.PGRecord) { r.Interval++ }},
		{name: "with an older set", now: func(r *cluster.PGRecord) {
			r.Sets = append([]cluster.PGSet{{Interval: 1, Members: []cluster.PGMember{{OSD: 2, Store: layout.StoreID{2}}}}}, r.Sets...)
		}},
		{name: "on this store", now: func(r *cluster.PGRecord) {
			r.Sets = []cluster.PGSet{{Interval: r.Activated, Members: []cluster.PGMember{self}}}
			r.Participants = []cluster.PGMember{self}
		}},
		{name: "with this store as a participant", now: func(r *cluster.PGRecord) { r.Participants = append([]cluster.PGMember{self}, r.Participants...) }},
		{name: "with another participant", now: func(r *cluster.PGRecord) {
			r.Participants = append([]cluster.PGMember{{OSD: 2, Store: layout.StoreID{2}}}, r.Participants...)
		}},
		{name: "that nobody serves", do: func() { b.put(cluster.PGStateKey(pg1), nil) }, undo: func() { b.put(cluster.PGStateKey(pg1), string(state.Value)) }},
		{name: "that is not served yet", do: func() {
			b.put(cluster.PGStateKey(pg1), &cluster.PGState{Primary: 1, State: cluster.StatePeering})
		}, undo: func() { b.put(cluster.PGStateKey(pg1), string(state.Value)) }},
		{name: "that is to be here", do: func() { b.place(0, 3) }, undo: func() { b.place(0, 1) }},
		{name: "granted to somebody", do: func() { b.grant(3, rec.Interval) }},
	} {
		b.osds[1].l.Kill() // changes nothing any more
		m, now := mine, rec
		if c.mine != nil {
			c.mine(&m)
		}
		if c.now != nil {
			c.now(&now)
			b.put(key, &now)
		}
		if c.do != nil {
			c.do()
		}
		b.w.Run(100 * time.Millisecond)
		if s.unneeded(m) {
			t.Errorf("a PG %s needs nothing of this store", c.name)
		}
		b.put(key, &rec)
		if c.undo != nil {
			c.undo()
		}
		b.w.Run(100 * time.Millisecond)
		if c.name != "granted to somebody" && !s.unneeded(mine) {
			t.Fatalf("after %q the PG needs something of the store", c.name)
		}
	}
}

// A PG has moved to stores that joined after a backup of etcd was made. The backup names only the set of before, whose stores have removed what they held: they must not serve the PG
// while the others are down. That holds for one that was away during the move, too, and never heard of it from the PG's primary.
func TestStoreKeepsToWhomItGaveAPG(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	object := layout.ObjectID{Inode: layout.MakeInode(1, 1)}
	interval := b.record().Interval
	for n := range 2 {
		b.osds[layout.OSDNum(n+1)].write(object, 0, layout.Version(interval)<<layout.VersionCounterBits+1, 0, interval)
	}
	b.w.Run(2 * time.Second)
	backup := b.reg.Backup()
	b.osds[1].kill()
	for n := range 2 {
		b.osds[layout.OSDNum(n+3)] = &node{b: b, num: layout.OSDNum(n + 3)}
		b.osds[layout.OSDNum(n+3)].format()
		b.osds[layout.OSDNum(n+3)].start()
	}
	b.wait("OSDs 3 and 4 to come up", func() bool {
		return b.osds[3].s != nil && b.osds[3].s.leaseUp && b.osds[4].s != nil && b.osds[4].s.leaseUp
	})
	b.place(3, 3, 4)
	b.wait("PG active on OSDs 3 and 4", func() bool { return b.serves(3, 2) })
	b.wait("the object on both", func() bool { return b.osds[3].has(object).Version != 0 && b.osds[4].has(object).Version != 0 })
	b.osds[1].start()
	b.wait("what is left on OSDs 1 and 2 to be removed", func() bool {
		return b.osds[1].st != nil && b.osds[1].st.Sharded(1) && b.osds[1].has(object).Version == 0 && b.osds[2].has(object).Version == 0
	})
	b.w.Run(10 * time.Second) // until nothing more is done about it
	for _, n := range []layout.OSDNum{2, 3, 4} {
		b.osds[n].kill()
	}
	b.w.Run(10 * time.Second)
	b.reg.Restore(backup, 0)
	b.wait("the restore to be declared", func() bool { return b.osds[1].s.Snapshot().Restored != nil })
	b.wait("what the backup holds of OSDs 1 and 2 to end", func() bool {
		_, reported := slices.BinarySearch(b.osds[1].s.Snapshot().Unreported(), 1)
		return b.get(cluster.OSDStateKey(2)).Key == "" && !reported
	})
	lost, ok := cluster.DeclareLost(b.osds[1].s.Snapshot(), 2)
	if !ok {
		t.Fatal("there is no OSD 2 to give up")
	}
	b.txn(lost)
	b.place(1, 1, 2)
	b.never("an OSD serves a PG that it gave up, empty", 30*time.Second, func() bool { return b.serves(1, 1) })
	b.place(3, 3, 4)
	b.osds[3].start()
	b.wait("PG active on OSD 3", func() bool { return b.serves(3, 1) })
	if b.osds[3].has(object).Version == 0 {
		t.Error("the object is gone")
	}
}

// A pool that is removed before an OSD has sorted its objects holds up neither the removal of what is left of other PGs there,
func TestPoolNeverSortedHoldsUpNoRemoval(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	gone := layout.PGID{Pool: 2, Num: 1}
	self := cluster.PGMember{OSD: 1, Store: b.osds[1].s.self.Store}
	b.put(cluster.PGRecordKey(gone), &cluster.PGRecord{Generation: 5, Interval: 2, Primary: 1, Instance: 1, Activated: 2,
		Sets: []cluster.PGSet{{Interval: 2, Members: []cluster.PGMember{self}, First: 2, Last: 2}}, Participants: []cluster.PGMember{self}})
	b.put(cluster.PGStateKey(gone), &cluster.PGState{Primary: 1, State: cluster.StateActive})
	known := false
	b.osds[2].run(func() {
		b.osds[2].st.PutPG(store.PGRecord{PG: gone, Generation: 5, Interval: 1, TookPart: 1}, func(err error) { known = err == nil })
	})
	b.wait("the record of the PG", func() bool { return known })
	if rec, _ := b.osds[2].st.PG(gone); !b.osds[2].s.unneeded(rec) {
		t.Fatal("the PG needs something of OSD 2")
	}
	b.w.Run(10 * time.Second)
	object := layout.ObjectID{Inode: layout.MakeInode(1, 1)}
	interval := b.record().Interval
	for n := range 2 {
		b.osds[layout.OSDNum(n+1)].write(object, 0, layout.Version(interval)<<layout.VersionCounterBits+1, 0, interval)
	}
	b.place(1, 1, 3)
	b.wait("PG on OSDs 1 and 3", func() bool { return b.serves(1, 2) && b.osds[3].has(object).Version != 0 })
	b.wait("what is left on OSD 2 to be removed", func() bool { return b.osds[2].has(object).Version == 0 })
}

// nor, while an OSD hears nothing of etcd and does not know the pool, the start of its PGs: they need no interval more than they would without that OSD.
func TestPoolUnknownToAMemberIsServedWithoutIt(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.osds[2].reg.Unreachable(true)
	pool := &cluster.Pool{ID: 2, Name: "q", Scheme: cluster.Replicated, PGSize: 3, PGMinSize: 2, PGCount: 1, FailureDomain: "osd"}
	kv := b.get(cluster.KeyPools)
	txn, err := cluster.SetPool(&kv, 2, pool)
	if err != nil {
		t.Fatal(err)
	}
	b.txn(txn)
	b.txn(registry.Txn{Then: []registry.Op{cluster.CreatePoolIdentity(pool, 0, nil, layout.Geometry{})}})
	b.put(cluster.KeyPGConfig, &cluster.PGConfig{Pools: map[layout.PoolID][]cluster.PGTarget{1: {{OSDSet: []layout.OSDNum{1, 2}, Primary: 1}}, 2: {{OSDSet: []layout.OSDNum{1, 2, 3}, Primary: 1}}}})
	id := layout.PGID{Pool: 2, Num: 1}
	run := func() *pgRun { return b.osds[1].s.pgs[id] }
	if !b.w.RunUntil(func() bool { return run() != nil && run().served != nil }, time.Second) {
		t.Fatalf("the PG waits for a member that does not know its pool: %s", run().m.Describe())
	}
	if n := run().m.Interval; n > 2 {
		t.Errorf("that took %d intervals", n)
	}
	b.osds[2].reg.Unreachable(false)
	b.wait("the whole set", func() bool { return len(run().m.Acting) == 3 && run().served != nil })
}
