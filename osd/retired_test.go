package osd

import (
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// An OSD is given up while it runs without etcd: `holdfast etcd lost`, as it was the only one that did not report. The others went on by what they know. When it sees etcd again it must not
// bring back what it did in between: that would overrule what was acknowledged since.
func TestGivenUpStoreIsNotTrustedWhenItsOSDSeesEtcdAgain(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	backup := b.reg.Backup()
	b.osds[1].kill()
	b.place(2, 2)
	b.wait("PG on OSD 2 alone", func() bool { return b.serves(2, 1) })
	two := b.osds[2]
	for range 4 { // so that its intervals are above those that OSD 1 takes
		was := b.record().Activated
		two.run(func() { two.s.pgs[pg1].exec(two.s.pgs[pg1].m.Restart()) })
		b.wait("another interval", func() bool { return b.serves(2, 1) && b.record().Activated > was })
	}
	later := b.record().Activated
	id := two.st.Superblock().StoreID

	two.reg.Unreachable(true)
	b.reg.Restore(backup, 1000)
	b.txn(cluster.DeclareRestored(&cluster.Snapshot{}, cluster.Restored{ID: "r", Time: b.osds[1].l.Wall().Unix(), Reason: "by a test"}))
	b.wait("the end of the leases of before", func() bool {
		return b.get(cluster.OSDStateKey(2)).Key == "" && b.get(cluster.PGStateKey(pg1)).Key == ""
	})
	one := b.osds[1]
	one.start()
	b.wait("OSD 1 to report", func() bool {
		if one.s == nil {
			return false
		}
		list := one.s.Snapshot().Unreported()
		return len(list) == 1 && list[0] == 2
	})
	lost, ok := cluster.DeclareLost(one.s.Snapshot(), 2)
	if !ok {
		t.Fatal("nothing to give up")
	}
	b.txn(lost)
	b.place(1, 1)
	b.wait("PG on OSD 1", func() bool { return b.serves(1, 1) })
	now, _ := one.s.Snapshot().Records.Get(pg1)
	if now.Activated >= later {
		t.Fatalf("interval %d, want one below %d", now.Activated, later)
	}
	object := layout.ObjectID{Inode: layout.MakeInode(1, 1)}
	one.write(object, 0, layout.Version(now.Activated)<<layout.VersionCounterBits+1, 0, now.Activated)

	two.reg.Unreachable(false)
	b.w.RunUntil(func() bool { return two.err != nil }, 20*time.Second)
	if !Untrusted(two.err) {
		t.Errorf("OSD 2 goes on: %v", two.err)
	}
	if rec, _ := one.s.Snapshot().Records.Get(pg1); rec.Names(id) && rec.Activated >= later {
		t.Errorf("what was given up overrules interval %d: %+v", now.Activated, rec)
	}
	if own := b.identity(2); own.Store == id {
		t.Errorf("the store that was given up has taken its place again: %+v", own)
	}
}

// A virtual machine is set back with its memory, so the OSD goes on without opening its disk again: it has to see from what etcd knows that its store is an earlier state.
func TestStoreThatIsSetBackUnderARunningOSD(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	two := b.osds[2]
	two.reg.Unreachable(true)
	b.wait("the end of its lease", func() bool { return b.get(cluster.OSDStateKey(2)).Key == "" })
	own := b.identity(2) // as it would be if it had gone on from here and written
	own.Sequence += 1000
	b.put(cluster.OSDIdentityKey(2), &own)
	two.reg.Unreachable(false)
	b.w.RunUntil(func() bool { return two.err != nil }, 20*time.Second)
	if !Untrusted(two.err) {
		t.Errorf("OSD 2 goes on: %v", two.err)
	}
	if now := b.identity(2); now.Sequence < own.Sequence {
		t.Errorf("what etcd knows of the store went back: %+v", now)
	}
}

// An OSD starts while etcd is being restored, and its identity is not there yet. What it says when it is there counts as if it always had been.
func TestStoreThatIsSetBackStartsInHalfAnEtcd(t *testing.T) {
	for _, back := range []bool{true, false} {
		b := newBed(t, 1)
		o := b.osds[1]
		o.kill()
		b.wait("the end of its lease", func() bool { return b.get(cluster.OSDStateKey(1)).Key == "" })
		own := b.identity(1)
		b.put(cluster.KeyRestoring, &cluster.Restoring{ID: "1", File: "f"})
		b.put(cluster.OSDIdentityKey(1), nil)
		o.start()
		b.w.Run(10 * time.Second)
		if back {
			own.Boot = o.st.Superblock().Boot // of an opening that this disk does not know
		}
		b.put(cluster.OSDIdentityKey(1), &own)
		b.put(cluster.KeyRestoring, nil)
		b.w.RunUntil(func() bool { return o.err != nil || o.s.leaseUp }, 20*time.Second)
		if Untrusted(o.err) != back || o.s.leaseUp == back {
			t.Errorf("set back %v: %v, up %v", back, o.err, o.s.leaseUp)
		}
	}
}
