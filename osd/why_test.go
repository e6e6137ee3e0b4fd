package osd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd/primary"
	"holdfast/osd/store"
)

// tune changes what every OSD goes by.
func (b *bed) tune(f func(*primary.Tuning)) {
	b.t.Helper()
	for n := range len(b.osds) {
		o := b.osds[layout.OSDNum(n+1)]
		o.run(func() {
			t := o.s.Tuning()
			f(&t.Primary)
			o.s.Tune(t)
		})
	}
}

// stats is pgstats as etcd has it.
func (b *bed) stats() (v cluster.PGStats) {
	b.t.Helper()
	if kv := b.get(cluster.PGStatsKey(pg1)); kv.Key != "" {
		if err := json.Unmarshal(kv.Value, &v); err != nil {
			b.t.Fatal(err)
		}
	}
	return v
}

// put has an OSD hold an object, behind its back.
func put(o *node, object layout.ObjectID, interval layout.Interval) {
	o.b.t.Helper()
	data := o.l.Alloc(4096)
	op := &store.Op{Kind: store.OpWrite, Object: object, Len: 4096, Version: 1, Interval: interval, Data: data}
	done := false
	op.Done = func(*store.Op) { done = true }
	o.run(func() { o.st.Submit(op) })
	o.b.wait("a write", func() bool { return done })
	data.Release()
	if op.Err != nil {
		o.b.t.Fatal(op.Err)
	}
}

// A PG of two copies moves from OSDs 1,2 to 1,3: what both had is misplaced, what only one had is degraded.
func TestWhatIsNotWholeIsPublished(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	interval := b.record().Interval
	for i := range uint64(8) {
		object := layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: i << 17}
		put(b.osds[1], object, interval)
		if i < 5 {
			put(b.osds[2], object, interval)
		}
	}
	b.tune(func(t *primary.Tuning) { t.NoRecovery = true })
	b.place(1, 1, 3)
	b.wait("the counts in etcd", func() bool { return b.stats().RecoveryLeft == 8 })
	v := b.stats()
	if v.ObjectCount != 8 || v.MisplacedCount != 5 || v.DegradedCount != 3 || v.CleanCount != 0 || v.RecoveryTotal != 8 || v.UnfoundCount != 0 || !strings.Contains(v.Reason, "no_recovery holds recovery back") {
		t.Errorf("pgstats = %+v", v)
	}
	var st cluster.PGState
	if err := json.Unmarshal(b.get(cluster.PGStateKey(pg1)).Value, &st); err != nil || st.State != cluster.StateActive|cluster.StateHasDegraded|cluster.StateHasMisplaced {
		t.Errorf("state = %v, %v", st.State, err)
	}
	b.never("objects were copied", 6*time.Second, func() bool { return b.stats().RecoveryLeft != 8 })
	b.tune(func(t *primary.Tuning) { t.NoRecovery, t.NoRebalance = false, true })
	b.wait("what misses copies recovered", func() bool { return b.stats().RecoveryLeft == 5 })
	if v := b.stats(); v.MisplacedCount != 5 || v.DegradedCount != 0 || v.RecoveryMisplaced != 5 || v.Reason != "no_rebalance holds misplaced objects back: set it to false" {
		t.Errorf("pgstats = %+v", v)
	}
	b.never("objects were moved", 6*time.Second, func() bool { return b.stats().RecoveryLeft != 5 })
	b.tune(func(t *primary.Tuning) { t.NoRebalance = false })
	b.wait("the PG whole, and no reason", func() bool {
		v := b.stats()
		return v.Reason == "" && v.RecoveryLeft == 0 && v.CleanCount == 8 && v.MisplacedCount == 0 && v.DegradedCount == 0
	})
	var sums cluster.OSDStats
	b.wait("the sums in etcd", func() bool {
		sums = cluster.OSDStats{}
		if kv := b.get(cluster.OSDStatsKey(1)); kv.Key != "" && json.Unmarshal(kv.Value, &sums) != nil {
			t.Fatal("osd/stats cannot be read")
		}
		return sums.RecoveryStats["misplaced"].Count > 0
	})
	if d, m := sums.RecoveryStats["degraded"], sums.RecoveryStats["misplaced"]; d.Count != 3 || m.Count != 5 || m.Iops == 0 || m.Bps == 0 || d.Bytes == 0 {
		t.Errorf("recovery_stats = %+v", sums.RecoveryStats)
	}
}

// What a waiting PG says goes on being said while it is tried again and again, without being written anew.
func TestReasonIsWrittenOnce(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.osds[1].kill()
	b.place(2, 1, 2)
	b.wait("PG on OSD 2", func() bool { return b.serves(2, 1) })
	b.osds[2].kill()
	b.w.Run(10 * time.Second)
	b.osds[1].start()
	b.place(1, 1, 2)
	b.wait("the reason", func() bool { return strings.Contains(b.stats().Reason, "by OSD 2 while 1 was away; start OSD 2") })
	b.w.Run(time.Second)
	before := b.get(cluster.PGStatsKey(pg1)).Mod
	b.never("the same reason was written again", 10*time.Second, func() bool { return b.get(cluster.PGStatsKey(pg1)).Mod != before })
	b.osds[2].start()
	b.wait("PG active, without a reason", func() bool { return b.serves(1, 2) && b.stats().Reason == "" })
}

// The same holds while an OSD that is up does not answer, which takes a while each time.
func TestStateOfAWaitingPGDoesNotFlap(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.osds[1].kill()
	b.place(2, 1, 2)
	b.wait("PG on OSD 2", func() bool { return b.serves(2, 1) })
	b.osds[1].start()
	b.w.Net.Cut(b.osds[1].l, b.osds[2].l)
	b.wait("OSD 1 up", func() bool { return b.osds[1].s != nil && b.osds[1].s.leaseUp })
	b.place(1, 1, 2)
	b.wait("the reason", func() bool { return strings.Contains(b.stats().Reason, "OSD 2, up, does not give OSD 1 the lock") })
	b.w.Run(time.Second)
	state, stats := b.get(cluster.PGStateKey(pg1)), b.get(cluster.PGStatsKey(pg1))
	if !strings.Contains(string(state.Value), "incomplete") {
		t.Errorf("pg/state = %s", state.Value)
	}
	b.never("the state or the reason was written again", 10*time.Second, func() bool {
		return b.get(cluster.PGStateKey(pg1)).Mod != state.Mod || b.get(cluster.PGStatsKey(pg1)).Mod != stats.Mod
	})
}

func TestRatesOfRecovery(t *testing.T) {
	second := func(n int) loop.Instant { return loop.Instant(n) * loop.Instant(time.Second) }
	var p progress
	rates := func(at int, degraded, misplaced primary.RecoveryStat) map[string]cluster.OpStats {
		to := map[string]cluster.OpStats{}
		p.rates(second(at), recovered{degraded, misplaced}, to)
		return to
	}
	if v := rates(1, primary.RecoveryStat{Objects: 10, Bytes: 100, Usec: 1000}, primary.RecoveryStat{}); len(v) != 1 || v["degraded"].Iops != 0 || v["degraded"].Count != 10 {
		t.Errorf("the first time: %+v", v)
	}
	if v := rates(6, primary.RecoveryStat{Objects: 60, Bytes: 5100, Usec: 2000}, primary.RecoveryStat{})["degraded"]; v.Iops != 10 || v.Bps != 1000 || v.Lat != 20 || v.Count != 60 || v.Bytes != 5100 {
		t.Errorf("50 objects in 5 s: %+v", v)
	}
	v := rates(11, primary.RecoveryStat{Objects: 60, Bytes: 5100, Usec: 2000}, primary.RecoveryStat{Objects: 5, Bytes: 50, Usec: 5})
	if d, m := v["degraded"], v["misplaced"]; d.Iops != 0 || d.Bps != 0 || d.Lat != 0 || m != (cluster.OpStats{Count: 5, Bytes: 50, Usec: 5, Iops: 1, Bps: 10, Lat: 1}) {
		t.Errorf("5 objects moved: %+v", v)
	}
}
