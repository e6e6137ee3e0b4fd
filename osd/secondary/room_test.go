package secondary

import (
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
	"holdfast/osd/store"
)

// TestRoomIsSharedNearTheEnd: clients leave what the ratio says, 32 blocks at least; near the end each primary is told its share, and 0 only when there is nothing left.
func TestRoomIsSharedNearTheEnd(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	for _, c := range []struct {
		name            string
		limits          Limits
		st              store.Stats
		primaries       int
		client, recover uint64
	}{
		{"much", DefaultLimits(), store.Stats{Blocks: 1 << 20, FreeBlocks: 1 << 19, FreeSlots: 1 << 20}, 4, 1<<19 - 31457, 1<<19 - 10485},
		{"few places", DefaultLimits(), store.Stats{Blocks: 1 << 20, FreeBlocks: 1 << 19, FreeSlots: 1 << 15}, 1, 1<<15 - 31457, 1<<15 - 10485},
		{"near the end", DefaultLimits(), store.Stats{Blocks: 10000, FreeBlocks: 1300, FreeSlots: 1 << 20}, 4, 250, 1200},
		{"the last block", DefaultLimits(), store.Stats{Blocks: 10000, FreeBlocks: 301, FreeSlots: 1 << 20}, 4, 1, 201},
		{"full", DefaultLimits(), store.Stats{Blocks: 10000, FreeBlocks: 300, FreeSlots: 1 << 20}, 4, 0, 200},
		{"full for recovery", DefaultLimits(), store.Stats{Blocks: 10000, FreeBlocks: 100, FreeSlots: 1 << 20}, 4, 0, 0},
		{"small", DefaultLimits(), store.Stats{Blocks: 100, FreeBlocks: 40, FreeSlots: 1 << 20}, 2, 4, 39},
		{"all of it", Limits{1, 1}, store.Stats{Blocks: 10000, FreeBlocks: 33, FreeSlots: 1 << 20}, 1, 1, 33},
		{"nothing known", Limits{}, store.Stats{Blocks: 10000, FreeBlocks: 10000, FreeSlots: 1 << 20}, 1, 0, 0},
	} {
		locks := NewLocks(w.NewLoop(c.name), nil, Holder{OSD: 1, Instance: 1}, ttl, nil)
		for i := range c.primaries {
			h := Holder{OSD: layout.OSDNum(2 + i), Instance: 1}
			locks.pairs[h.OSD] = &pair{holder: h, expires: locks.l.Now().Add(ttl)}
		}
		s := &Server{Locks: locks, Limits: c.limits}
		if client, recover := s.ClientRoom(&c.st), s.RecoveryRoom(&c.st); client != c.client || recover != c.recover {
			t.Errorf("%s: %d for clients and %d for recovery, want %d and %d", c.name, client, recover, c.client, c.recover)
		}
	}
}
