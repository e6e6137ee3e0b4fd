package store

import (
	"errors"
	"testing"

	"holdfast/core/layout"
)

// TestRememberedDeletionsTakeNoRoom deletes objects, each by a request that has to be remembered, until the store can remember no more: what is free of its blocks can be used all the same.
func TestRememberedDeletionsTakeNoRoom(t *testing.T) {
	for name, size := range map[string]int64{"default slots": 24 << 20, "few blocks": 9 << 20} {
		t.Run(name, func(t *testing.T) {
			c := smallConfig
			c.JournalSize = 768 << 10
			r := newRig(t, 1, size, c)
			n := uint64(0)
			for ; ; n++ {
				op := r.do(&Op{Kind: OpDelete, Object: obj(n), Version: 1, Interval: 7, Pair: Pair{Session: 9, Sequence: n + 1}, Low: 1})
				if errors.Is(op.Err, ErrNoSpace) {
					break
				}
				if op.Err != nil {
					t.Fatal(op.Err)
				}
			}
			st := r.s.Stats()
			if n < st.MaxPairs*7/8 || st.Tombstones != n {
				t.Fatalf("%d deletions are remembered, %d tombstones kept; %d can be", n, st.Tombstones, st.MaxPairs)
			}
			free := st.FreeBlocks
			if st.FreeSlots < free {
				t.Errorf("%d blocks are free, and places of %d objects", free, st.FreeSlots)
			}
			for i := range free {
				r.write(n+i, 0, layout.Version(1), 0, fill(4096, 'a'))
			}
			if st := r.s.Stats(); st.FreeBlocks != 0 {
				t.Errorf("%d blocks are free", st.FreeBlocks)
			}
			r.close()
			r.mustOpen()
			if st := r.s.Stats(); st.Tombstones != n || st.Objects != n+free {
				t.Errorf("opened again, it has %d tombstones of %d objects; want %d of %d", st.Tombstones, st.Objects, n, n+free)
			}
		})
	}
}

// TestSpareSlots lays devices out: the slots for remembered deletions are there, whatever the size, and take no large part of it.
func TestSpareSlots(t *testing.T) {
	for _, c := range []struct {
		name string
		Config
		size  int64
		every bool // each remembered request has a slot
	}{
		{"1 GiB", Config{}, 1 << 30, true},
		{"10 GiB", Config{}, 10 << 30, true},
		{"4 TiB", Config{}, 4 << 40, true},
		{"4 TiB, 4 MiB blocks", Config{BlockSize: 4 << 20}, 4 << 40, true},
		{"4 GiB, 4 MiB blocks", Config{BlockSize: 4 << 20}, 4 << 30, false},
	} {
		full := c.withDefaults(c.size)
		sb, err := layOut(full, c.size, 512)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		spare := sb.Slots - sb.Blocks
		if spare < sb.Blocks/8 || c.every && spare < uint64(full.maxPairs()) {
			t.Errorf("%s: %d slots for %d blocks, with %d requests to remember", c.name, sb.Slots, sb.Blocks, full.maxPairs())
		}
		if most := c.size/spareMost + int64(sb.Blocks+sb.Blocks/8+64)/int64(sb.slotsPerPage())*int64(2*sb.PageSize) + 1<<20; sb.Meta.Len > most {
			t.Errorf("%s: metadata of %d bytes, more than %d", c.name, sb.Meta.Len, most)
		}
		if err := sb.validate(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if lost := sb.Data.Off + sb.Data.Len; c.size-lost > 2*int64(full.BlockSize)+2<<20 {
			t.Errorf("%s: %d bytes of the device are not used", c.name, c.size-lost)
		}
	}
}
