package sim

import (
	"testing"
	"time"

	"holdfast/core/cluster"
)

// TestInputAndOutputGoOnWhenEtcdComesBack: etcd as a whole is away for longer than the leases, whose time it starts anew when it is back. The keys of the old leases are still there
// when the OSDs come with their new ones.
func TestInputAndOutputGoOnWhenEtcdComesBack(t *testing.T) {
	c := start(t, Options{Seed: 32, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 4})
	defer c.W.Close()
	k := c.NewClient(7)
	slowest := time.Duration(0)
	write := func(times int) {
		for i := range times {
			at := c.W.Elapsed()
			k.Write(image, uint64(i%8)*128<<10, pattern(4096, byte(i)))
			slowest = max(slowest, c.W.Elapsed()-at)
			c.W.Run(100 * time.Millisecond)
		}
	}
	c.Reg.SetDown(true)
	write(80)
	c.Reg.SetDown(false)
	write(150)
	c.Wait("all PGs active", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
	if slowest > 500*time.Millisecond {
		t.Errorf("a write took %v", slowest)
	}
}
