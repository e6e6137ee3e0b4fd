package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// TestReasonOfAWaitingPGReachesEtcdAndGoesAway: a write reaches OSD 1 or 2 alone; then only the other is up. etcd says what it waits for, and no more once it has come.
func TestReasonOfAWaitingPGReachesEtcdAndGoesAway(t *testing.T) {
	c := start(t, Options{Seed: 8, OSDs: 2, Replicas: 2, MinSize: 1, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(77)
	k.Write(image, 0, pattern(4096, 1))
	pg := layout.PGID{Pool: 1, Num: 1}
	c.Nodes[1].Kill()
	k.Write(image, 0, pattern(4096, 2))
	record, _ := c.Snapshot().Records.Get(pg)
	stats := func() *cluster.PGStats {
		st, ok := c.Snapshot().PGStats.Get(pg)
		if !ok {
			return &cluster.PGStats{}
		}
		return st
	}
	c.Wait("every object degraded", 30*time.Second, func() bool { st := stats(); return st.DegradedCount == 1 && st.CleanCount == 0 })
	c.Nodes[2].Kill()
	c.W.Run(time.Second)
	c.Nodes[1].Start()
	want := "by OSD 2 while 1 was away; start OSD 2"
	c.Wait("the reason in etcd", 30*time.Second, func() bool { return strings.Contains(stats().Reason, want) })
	if st := stats(); !strings.Contains(st.Reason, fmt.Sprintf("written in interval %d ", record.Activated)) || st.IncompleteCount != 1 || st.CleanCount != 0 {
		t.Errorf("pgstats = %+v, want it written in interval %d", st, record.Activated)
	}
	if st, ok := c.Snapshot().PGStates.Get(pg); !ok || st.State != cluster.StateIncomplete || st.Primary != 1 {
		t.Errorf("pg/state = %+v", st)
	}
	c.Nodes[2].Start()
	c.Wait("the PG clean, and no reason", 30*time.Second, func() bool {
		st := stats()
		return c.States(cluster.StateActive) && st.Reason == "" && st.RecoveryLeft == 0 && st.CleanCount == 1
	})
	k.Read(image, 0, 4096)
}
