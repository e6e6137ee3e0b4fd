package osd

import (
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// misses is whom an OSD misses, as etcd has it.
func (b *bed) misses(n layout.OSDNum) []layout.OSDNum {
	if m, ok := b.osds[n].s.Snapshot().Missing.Get(n); ok {
		return m.OSDs
	}
	return nil
}

// A host is lost with a PG's primary: each member says so, and nobody else whom it has nothing to do with. With a map that has another primary, that one waits no longer for the lost one's lock.
func TestLostOSDIsMissed(t *testing.T) {
	b := newBed(t, 4)
	b.place(1, 1, 2, 3)
	b.wait("PG active", func() bool { return b.serves(1, 3) })
	b.w.Run(5 * time.Second)
	for n := range layout.OSDNum(4) {
		if list := b.misses(n + 1); list != nil {
			t.Fatalf("OSD %d misses %v, and all are there", n+1, list)
		}
	}
	lost, from := b.osds[1], b.admin.Loop().Now()
	for n := layout.OSDNum(2); n <= 4; n++ {
		b.w.Net.Cut(lost.l, b.osds[n].l)
	}
	lost.reg.Unreachable(true)
	b.wait("both members to miss it", func() bool {
		return slices.Equal(b.misses(2), []layout.OSDNum{1}) && slices.Equal(b.misses(3), []layout.OSDNum{1})
	})
	if took := b.admin.Loop().Now().Sub(from); took > 3*time.Second {
		t.Errorf("that took %v", took)
	}
	if s := b.osds[2].s.Snapshot(); !s.CutOff(1) || s.CutOff(2) || s.CutOff(4) {
		t.Error("OSD 1 is not cut off, or another one is")
	}
	if list := b.misses(4); list != nil {
		t.Errorf("OSD 4 misses %v", list)
	}
	from = b.admin.Loop().Now()
	b.put(cluster.PGStateKey(pg1), nil) // as the monitor does
	b.place(2, 1, 2, 3)
	b.wait("PG active on the others", func() bool { return b.serves(2, 2) })
	if took := b.admin.Loop().Now().Sub(from); took > 500*time.Millisecond {
		t.Errorf("the PG was served after %v: its new primary waited for one that is cut off", took)
	}
	b.w.Net.HealAll()
	lost.reg.Unreachable(false)
	b.wait("nobody to be missed", func() bool { return b.misses(2) == nil && b.misses(3) == nil && b.misses(1) == nil })
	b.wait("PG active on all", func() bool { return b.serves(2, 3) })
}

// An OSD that cannot say so when it wants to says it later, under whichever lease it has.
func TestMissingIsSaidUnderTheNextLease(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.w.Net.Cut(b.osds[1].l, b.osds[2].l)
	b.wait("OSD 1 to miss OSD 2", func() bool { return slices.Equal(b.misses(1), []layout.OSDNum{2}) })
	old := b.get(cluster.OSDMissingKey(1)).Lease
	b.reg.Expire(old)
	b.wait("it to be said again", func() bool {
		kv := b.get(cluster.OSDMissingKey(1))
		return kv.Key != "" && kv.Lease != old && kv.Lease == b.osds[1].s.lease.ID()
	})
	if b.osds[1].s.Snapshot().CutOff(2) {
		t.Error("one host's word is enough")
	}
	b.osds[1].reg.LoseReplies(true)
	b.w.Net.HealAll()
	b.w.Run(time.Second)
	b.osds[1].reg.LoseReplies(false)
	b.wait("nobody to be missed", func() bool { return b.get(cluster.OSDMissingKey(1)).Key == "" })
}

// An etcd that is set back has whom an OSD missed then.
func TestMissingIsSetRightWhenEtcdWentBack(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.w.Net.Cut(b.osds[1].l, b.osds[2].l)
	b.wait("OSD 1 to miss OSD 2", func() bool { return slices.Equal(b.misses(1), []layout.OSDNum{2}) })
	backup := b.reg.Backup()
	b.w.Net.HealAll()
	b.wait("nobody to be missed", func() bool { return b.misses(1) == nil })
	b.reg.Restore(backup, 0)
	b.wait("the old word to be back", func() bool { return b.misses(1) != nil })
	b.wait("nobody to be missed", func() bool { return b.misses(1) == nil && b.get(cluster.OSDMissingKey(1)).Key == "" })
}
