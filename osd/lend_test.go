package osd

import (
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/osd/peering"
)

// lendReads has the members of pool 1 answer reads.
func (b *bed) lendReads() {
	b.t.Helper()
	pool, _ := b.osds[1].s.Snapshot().Pools.Get(1)
	now, kv := *pool, b.get(cluster.KeyPools)
	now.LocalReads = "random"
	txn, err := cluster.SetPool(&kv, 1, &now)
	if err != nil {
		b.t.Fatal(err)
	}
	b.txn(txn)
}

// lent reports whether an OSD may answer reads of the PG as a member.
func (o *node) lent() bool {
	_, ok := o.s.locks.Right(pg1)
	return ok
}

// etcd is set back to before the interval that is served, and an OSD that is down cannot report. What is served goes on being served: its record does not say any more who lends, and the interval must
// not end for that, as the next one could not begin.
func TestWhatIsServedOutlivesARestoreWhereReadsAreLent(t *testing.T) {
	b := newBed(t, 3)
	b.lendReads()
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.osds[1].reg.Unreachable(true)
	b.put(cluster.PGStateKey(pg1), nil) // the primary has to make it anew, and looks at the record for that
	backup := b.reg.Backup()
	b.osds[1].reg.Unreachable(false)
	b.osds[3].kill()
	b.osds[1].run(func() { b.osds[1].s.pgs[pg1].exec(b.osds[1].s.pgs[pg1].m.Restart()) })
	b.wait("OSD 2 to be lent reads in the next interval", func() bool { return b.serves(1, 2) && b.record().Activated > 1 && b.osds[2].lent() })
	b.reg.Restore(backup, 1000)
	b.wait("the declaration", func() bool { return b.get(cluster.KeyRestored).Key != "" })
	b.never("the PG is not served any more", 20*time.Second, func() bool { r := b.osds[1].s.pgs[pg1]; return r == nil || r.served == nil })
}

// A member of an earlier version would not wait, as the next primary, for what it does not know of.
func TestNothingIsLentBesideAMemberOfAnEarlierVersion(t *testing.T) {
	b := newBed(t, 2)
	b.lendReads()
	b.place(1, 1, 2)
	b.wait("OSD 2 to be lent reads", func() bool { return b.serves(1, 2) && b.osds[2].lent() })
	b.osds[1].run(func() {
		p := b.osds[1].s.peer(2)
		g := p.pgs[pg1]
		g.instance = 0 // as its answer to SUB_LOCK said
		p.pgs[pg1] = g
	})
	b.wait("the right to run out", func() bool { return !b.osds[2].lent() })
	b.never("it is lent again", 5*time.Second, b.osds[2].lent)
}

// No right outlives the earliest of the grants, whichever member has given that, and one whose grant is over is none.
func TestNothingIsLentBesideAGrantThatIsOver(t *testing.T) {
	b := newBed(t, 4)
	b.lendReads()
	b.place(1, 1, 2, 3, 4)
	b.wait("OSD 3 to be lent reads", func() bool { return b.serves(1, 4) && b.osds[3].lent() })
	b.osds[1].run(func() {
		s := b.osds[1].s
		if list := s.peer(3).lend(); len(list) != 1 || list[0].For <= 0 {
			t.Errorf("OSD 3 is lent %+v", list)
		}
		for _, osd := range []layout.OSDNum{2, 3, 4} {
			was := s.peer(osd).until
			s.peer(osd).until = s.l.Now().Add(time.Millisecond)
			if list := s.peer(3).lend(); len(list) != 1 || list[0].For > time.Millisecond {
				t.Errorf("OSD 3 is lent %+v while the grant of OSD %d ends in 1 ms", list, osd)
			}
			s.peer(osd).until = 0
			if list := s.peer(3).lend(); len(list) > 0 {
				t.Errorf("OSD 3 is lent %+v while the grant of OSD %d is over", list, osd)
			}
			s.peer(osd).until = was
		}
	})
}

// A primary that takes over from one that may have lent reads, and cannot reach a borrower, waits T. Rounds of peering that end meanwhile do not prolong that.
func TestWaitForALenderIsOneWait(t *testing.T) {
	b := newBed(t, 3)
	b.lendReads()
	b.place(1, 1, 2, 3)
	b.wait("OSD 3 to be lent reads", func() bool { return b.osds[3].lent() })
	b.w.Net.Cut(b.osds[2].l, b.osds[3].l)
	b.w.Net.Reset(b.osds[2].l, b.osds[3].l)
	b.osds[1].kill()
	b.put(cluster.OSDStateKey(1), nil)
	b.put(cluster.PGStateKey(pg1), nil)
	r := func() *pgRun { return b.osds[2].s.pgs[pg1] }
	b.place(2, 1, 2, 3)
	b.wait("OSD 2 to wait", func() bool { return r() != nil && r().lenderEnd.at != 0 })
	at, lock := r().lenderEnd.at, b.osds[2].s.o.LockTime
	for range 4 {
		b.w.Run(lock / 5)
		b.osds[2].run(func() { r().exec(r().m.Restart()) })
	}
	b.wait("a round that has heard all that it can", func() bool { return r().m.Phase == peering.Activating })
	heard := b.osds[2].l.Now()
	b.wait("PG active", func() bool { return b.serves(2, 1) })
	if now := b.osds[2].l.Now(); now < at || now > max(at, heard).Add(lock/5) {
		t.Errorf("the rights ran out at %v, all were heard at %v, and it served at %v", at, heard, now)
	}
}

// Stores report an interval that etcd has forgotten. They do not know whether its primary lends, so whoever is next must wait as if it did.
func TestReportedIntervalMayHaveALender(t *testing.T) {
	b := newBed(t, 2)
	b.lendReads()
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	backup := b.reg.Backup()
	b.osds[1].run(func() { b.osds[1].s.pgs[pg1].exec(b.osds[1].s.pgs[pg1].m.Restart()) })
	b.wait("OSD 2 to be lent reads in the next interval", func() bool { return b.serves(1, 2) && b.record().Activated > 1 && b.osds[2].lent() })
	later := b.record().Activated
	b.reg.Restore(backup, 1000)
	b.wait("the reports", func() bool { s := b.osds[2].s.Snapshot(); return s.Restored != nil && len(s.Unreported()) == 0 })
	if rec := b.record(); rec.Activated != later || rec.Lender.Instance == 0 || rec.Lender.OSD == 2 {
		t.Errorf("the record of interval %d says of %d that %+v may have lent", rec.Activated, later, rec.Lender)
	}
}
