package sim

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/loop"
)

// global follows config/global for an OSD, as its process does.
type global struct{ live *config.Live }

func (g global) Changed(_, next *cluster.Snapshot, _ []string) { g.live.SetEtcd(next.Global) }
func (g global) Fault(*cluster.KeyError)                       {}
func (g global) Unavailable(error)                             {}

// followGlobal has an OSD take recovery's limits and the slow log from config/global.
func (n *Node) followGlobal(log *bytes.Buffer) {
	v, err := config.Load(config.Sources{})
	if err != nil {
		n.c.T.Fatal(err)
	}
	live := config.NewLive(v, config.OSD, slog.New(slog.NewTextHandler(log, nil)))
	n.Loop.Post(&loop.Task{Run: func() {
		live.Part(func(f func()) { n.Loop.Post(&loop.Task{Run: f}) }).On(func(v *config.Values) {
			t := n.OSD.Tuning()
			t.Primary.Recovery.Depth, t.Primary.NoRecovery, t.Primary.SlowLog = int(v.Int("recovery_queue_depth")), v.Bool("no_recovery"), v.Duration("slow_log_interval")
			t.StatsInterval = v.Duration("etcd_stats_interval")
			n.OSD.Tune(t)
		}, "recovery_queue_depth", "no_recovery", "slow_log_interval", "etcd_stats_interval")
		cluster.Follow(n.Loop, n.reg, cluster.SectionGlobal, global{live})
	}})
}

func TestRecoveryIsHeldBackAndLetGoWhileRunning(t *testing.T) {
	c := start(t, Options{Seed: 11, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 2})
	c.put(cluster.KeyGlobal, []byte(`{"no_recovery": true}`))
	var log bytes.Buffer
	for _, n := range c.Nodes {
		n.followGlobal(&log)
	}
	k := c.NewClient(77)
	c.Nodes[3].Kill()
	for i := range 16 {
		k.Write(image, uint64(i)*128<<10, pattern(8192, byte(i)))
	}
	c.Nodes[3].Start()
	c.Wait("OSD 3 to be opened", 30*time.Second, func() bool { return c.Nodes[3].OSD != nil })
	c.Nodes[3].followGlobal(&log)
	c.Wait("the PGs to be degraded", 30*time.Second, func() bool { return c.Serving() && !c.States(cluster.StateActive) })
	c.W.Run(30 * time.Second)
	if c.States(cluster.StateActive) {
		t.Fatal("objects were copied in spite of no_recovery")
	}
	c.put(cluster.KeyGlobal, []byte(`{"no_recovery": "perhaps"}`))
	c.W.Run(10 * time.Second)
	if c.States(cluster.StateActive) || strings.Count(log.String(), `no_recovery is \"perhaps\", want true or false`) != len(c.Nodes) {
		t.Fatalf("a wrong value was taken, or not refused by each OSD:\n%s", log.String())
	}
	c.put(cluster.KeyGlobal, []byte(`{"recovery_queue_depth": 7}`))
	c.Wait("all PGs clean", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
	for _, n := range c.Nodes {
		if got := n.OSD.Tuning().Primary.Recovery.Depth; got != 7 {
			t.Errorf("OSD %d: recovery_queue_depth is %d, want 7", n.Num, got)
		}
	}
}

func TestStatisticsFollowTheirInterval(t *testing.T) {
	c := start(t, Options{Seed: 12, OSDs: 1, Replicas: 1, MinSize: 1, PGs: 1})
	var log bytes.Buffer
	c.Nodes[1].followGlobal(&log)
	at := func() string {
		st, _ := c.Snapshot().OSDStats.Get(1)
		return st.Time
	}
	c.W.Run(31 * time.Second)
	before := at()
	c.put(cluster.KeyGlobal, []byte(`{"etcd_stats_interval": 2}`))
	c.W.Run(3 * time.Second)
	if at() == before {
		t.Error("statistics are not written by the new interval")
	}
}
