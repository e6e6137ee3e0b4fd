package osd

import (
	"testing"
	"time"

	"holdfast/core/cluster"
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
