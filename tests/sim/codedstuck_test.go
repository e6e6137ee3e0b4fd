package sim

import (
	"maps"
	"slices"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// What an incomplete PG of chunks leaves waiting for its commit fills the room for that on an OSD, and stays for as long as the PG's members are away. The changes of whole PGs there go on all the same; when the
// members are back, the PG serves again.
func TestIncompletePGLeavesRoomToOthers(t *testing.T) {
	c := start(t, Options{Seed: 408, OSDs: 6, Replicas: 3, Parity: 1, MinSize: 2, PGs: 16, OutTime: time.Hour, Store: store.Config{BlockSize: 16 << 10, Granularity: 4096, JournalSize: 768 << 10}})
	defer c.W.Close()
	const object = 32 << 10
	k := c.NewClient(7)
	s := c.Snapshot()
	g, _ := s.Geometry(1)
	setOf := func(pg uint32) []layout.OSDNum {
		to, _ := s.PGConfig.Target(layout.PGID{Pool: 1, Num: pg})
		return to.OSDSet
	}
	// Two PGs with one OSD in common: the other members of stuck die.
	var whole, stuck uint32
	var dead []layout.OSDNum
	for a := uint32(1); a <= 16; a++ {
		for b := uint32(1); b <= 16; b++ {
			d := slices.DeleteFunc(slices.Clone(setOf(b)), func(n layout.OSDNum) bool { return slices.Contains(setOf(a), n) })
			if len(d) == 2 {
				whole, stuck, dead = a, b, d
			}
		}
	}
	if dead == nil {
		t.Fatal("no two PGs have one OSD in common")
	}
	var at []uint64 // of each, objects
	var offsets []uint64
	for i := range uint64(900) {
		switch g.PG(i * object) {
		case whole:
			at = append(at, i*object)
		case stuck:
			offsets = append(offsets, i*object)
		}
	}
	k.Write(image, at[0], pattern(object, 1))
	k.Write(image, offsets[50], pattern(object, 4))
	c.W.Disk(c.Nodes[dead[0]].disk()).Stall(true)
	for _, off := range offsets[:40] {
		k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: off, Len: 4096}, pattern(4096, 3), func(Result) {})
	}
	c.W.Run(200 * time.Millisecond)
	for _, n := range dead {
		c.Nodes[n].Kill()
	}
	c.W.Run(5 * time.Second)
	full := slices.ContainsFunc(slices.Sorted(maps.Keys(c.Nodes)), func(n layout.OSDNum) bool {
		if !c.Nodes[n].Loop.Alive() {
			return false
		}
		st := c.Nodes[n].Store.Stats()
		return st.Waiting > st.MaxWaiting/10*9
	})
	if !full {
		t.Error("no OSD has its room for what waits used up")
	}
	for i := range 20 {
		r, ok := k.Do(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: at[i%4], Len: object}, pattern(object, byte(10+i)), 2*time.Minute)
		if !ok || r.Retval != object {
			t.Fatalf("write %d of a whole PG: %d, ended %v", i, r.Retval, ok)
		}
	}
	c.W.Disk(c.Nodes[dead[0]].disk()).Stall(false)
	for _, n := range dead {
		c.Nodes[n].Start()
	}
	for _, off := range []uint64{offsets[0], offsets[39], offsets[50]} {
		if r, ok := k.Do(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: off, Len: object}, pattern(object, 5), 2*time.Minute); !ok || r.Retval != object {
			t.Fatalf("write to the PG that was incomplete: %d, ended %v", r.Retval, ok)
		}
	}
	c.W.Run(time.Minute)
	for _, n := range slices.Sorted(maps.Keys(c.Nodes)) {
		if st := c.Nodes[n].Store.Stats(); st.Waiting+st.Parked != 0 {
			t.Errorf("OSD %d: %d bytes wait, %d are parked", n, st.Waiting, st.Parked)
		}
	}
}
