package sim

import (
	"testing"
	"time"

	"holdfast/core/layout"
)

// A primary that reaches etcd but not the other members hands its PGs over, and input and output go on.
func TestPrimaryWithoutItsMembersGivesThePGBack(t *testing.T) {
	c := start(t, Options{Seed: 5, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 3})
	defer c.W.Close()
	k := c.NewClient(77)
	for i := range 3 {
		k.Write(image, uint64(i)*128<<10, pattern(4096, byte(i)))
	}
	alone := c.Nodes[c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1})]
	for _, n := range c.Nodes {
		if n != alone {
			c.W.Net.Cut(alone.Loop, n.Loop)
		}
	}
	begin := c.W.Elapsed()
	k.Write(image, 0, pattern(4096, 99))
	if took := c.W.Elapsed() - begin; took > 8*time.Second {
		t.Errorf("the write took %v", took)
	}
	if p := c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1}); p == alone.Num {
		t.Errorf("OSD %d is still the primary", p)
	}
	k.Read(image, 128<<10, 4096)
}
