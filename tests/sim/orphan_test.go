package sim

import (
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry/memory"
)

// TestGivenUpPGIsFreeOnceEtcdAnswers: etcd does not answer a primary for a while that is shorter than its lease, just when the PG is placed elsewhere. The state key may not stay.
func TestGivenUpPGIsFreeOnceEtcdAnswers(t *testing.T) {
	c := start(t, Options{Seed: 6, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(77)
	k.Write(image, 0, pattern(4096, 1))
	pg := layout.PGID{Pool: 1, Num: 1}
	primary := c.Snapshot().Primary(pg)
	stream := func(string) *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }
	c.Nodes[primary].reg.SetFaults(memory.Faults{LoseRequest: 1}, stream)
	skip := cluster.PGSkip{OSDs: []cluster.SkippedOSD{{OSD: primary, Until: 1 << 60}}}
	c.put(cluster.PGSkipKey(pg), cluster.Value(&skip))
	c.W.Run(3500 * time.Millisecond)
	c.Nodes[primary].reg.SetFaults(memory.Faults{}, stream)
	c.Wait("the PG active elsewhere", 30*time.Second, func() bool { return c.Snapshot().Primary(pg) != primary && c.States(cluster.StateActive) })
	k.Write(image, 0, pattern(4096, 2))
}
