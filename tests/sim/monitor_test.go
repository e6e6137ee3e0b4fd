package sim

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/monitor"
)

// A dead OSD's PGs move to others after osd_out_time, with everything in them, and what it held of them is removed when it returns.
func TestDeadOSDIsReplacedAfterItsTime(t *testing.T) {
	c := start(t, Options{Seed: 6, OSDs: 4, Replicas: 2, MinSize: 1, PGs: 8, OutTime: 40 * time.Second})
	defer c.W.Close()
	k := c.NewClient(77)
	for i := range 32 {
		k.Write(image, uint64(i)*128<<10, pattern(4096, byte(i)))
	}
	dead := c.Nodes[2]
	dead.Kill()
	uses := func() bool {
		for _, t := range c.Snapshot().PGConfig.Pools[1] {
			for _, n := range t.OSDSet {
				if n == dead.Num {
					return true
				}
			}
		}
		return false
	}
	c.Wait("the dead OSD out of the PG map", 2*time.Minute, func() bool { return !uses() })
	c.Wait("all PGs whole without it", time.Minute, func() bool { return c.States(cluster.StateActive) })
	dead.Start()
	c.Wait("the returned OSD in the PG map", time.Minute, uses)
	c.Wait("all PGs whole with it", time.Minute, func() bool { return c.States(cluster.StateActive) })
	c.W.Run(20 * time.Second)
	for i := range 32 {
		if r := k.Read(image, uint64(i)*128<<10, 4096); !bytes.Equal(r.Data, pattern(4096, byte(i))) {
			t.Fatalf("block %d reads back differently", i)
		}
	}
	// Every OSD holds what the PG map gives it, and nothing else.
	for _, n := range c.Nodes {
		for _, rec := range n.Store.PGs() {
			member := false
			target, _ := c.Snapshot().PGConfig.Target(rec.PG)
			for _, osd := range target.OSDSet {
				member = member || osd == n.Num
			}
			if count := n.Store.CountPG(rec.PG); !member && count > 0 {
				t.Errorf("OSD %d still holds %d objects of pg %v, which is on %v", n.Num, count, rec.PG, target.OSDSet)
			}
		}
	}
}

// A standby monitor takes over when the leader is gone.
func TestMonitorTakesOver(t *testing.T) {
	c := start(t, Options{Seed: 7, OSDs: 3, Replicas: 2, MinSize: 1, PGs: 4})
	defer c.W.Close()
	l := c.W.NewLoop("mon2")
	standby := monitor.Start(l, monitor.Options{Hostname: "mon2", Registry: c.Reg.Open(l)})
	c.W.Run(3 * time.Second)
	if standby.Leading() {
		t.Fatal("two monitors lead")
	}
	c.KillMonitor()
	c.Wait("the standby leads", 20*time.Second, standby.Leading)
	c.Nodes[1].Kill()
	c.Wait("the PGs served without OSD 1", 20*time.Second, func() bool {
		for pg := range c.Snapshot().PGStates.All() {
			if p := c.Snapshot().Primary(pg); p == 0 || p == layout.OSDNum(1) {
				return false
			}
		}
		return c.Serving()
	})
}
