package sim

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/sim"
)

// OSDs that discard their free space at each start are killed again and again, while a client writes new objects into that space, and discards end after writes that began later.
func TestDiscardAtTheStartHarmsNothing(t *testing.T) {
	c := start(t, Options{Seed: 3, OSDs: 2, Replicas: 2, MinSize: 1, PGs: 2, DiskSize: 256 << 20, Discard: 128 << 10})
	k := c.NewClient(77)
	const size = 128 << 10
	for round := range 8 {
		n := c.Nodes[1]
		if round%2 == 1 {
			n = c.Nodes[2]
		}
		n.Kill()
		d := c.W.Disk(n.disk())
		d.SetFaults(sim.DiskFaults{Slow: 1, SlowBy: sim.Delay{Min: 8 * time.Second, Max: 9 * time.Second}})
		n.Start()
		c.Wait("the disk to be open", 10*time.Minute, func() bool { return n.Store != nil })
		c.W.Run(time.Millisecond)
		d.SetFaults(sim.DiskFaults{}) // the first discard is under way, and what comes now is faster
		for i := range 12 {
			k.Write(image, uint64(round*12+i)*size, pattern(size, byte(round*12+i)))
		}
	}
	for i := range 8 * 12 {
		if r := k.Read(image, uint64(i)*size, size); !bytes.Equal(r.Data, pattern(size, byte(i))) {
			t.Fatalf("object %d is not what was written", i)
		}
	}
	c.W.Run(10 * time.Second)
	for _, n := range c.Nodes {
		if sum := n.Store.Stats(); sum.ChecksumErrors != 0 {
			t.Errorf("OSD %d found %d damaged copies", n.Num, sum.ChecksumErrors)
		}
	}
}
