package osd

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/osd/store"
)

// crowded is a bed of two OSDs with one object that OSD 2 lacks, and refuses since deletions take its last places, while most of its blocks are free. uncrowd makes it forget them.
func crowded(t *testing.T) (b *bed, uncrowd func()) {
	b = newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[2]
	deleted := func(i uint64) layout.ObjectID {
		return layout.ObjectID{Inode: layout.MakeInode(9, 1), Stripe: i << 17}
	}
	n, left := uint64(0), 0
	for full := false; !full; {
		o.run(func() {
			for range 256 {
				n, left = n+1, left+1
				o.st.Submit(&store.Op{Kind: store.OpDelete, Object: deleted(n), Version: 1, Interval: 1, Done: func(op *store.Op) {
					left--
					full = full || errors.Is(op.Err, store.ErrNoSpace)
				}})
			}
		})
		b.wait("deletions", func() bool { return left == 0 })
	}
	if st := o.st.Stats(); st.FreeBlocks < st.Blocks/2 {
		t.Fatalf("%d blocks of %d are free", st.FreeBlocks, st.Blocks)
	}
	b.w.Run(time.Minute) // statistics are written
	if n := b.free(); n != 0 {
		t.Fatalf("%d bytes are said to be free", n)
	}
	interval := layout.Interval(b.record().Activated)
	b.osds[1].write(layout.ObjectID{Inode: layout.MakeInode(1, 1)}, 0, layout.Version(interval)<<layout.VersionCounterBits+1, 0, interval)
	b.osds[1].run(func() { b.osds[1].s.pgs[pg1].exec(b.osds[1].s.pgs[pg1].m.Restart()) })
	return b, func() {
		o.run(func() {
			for i := range n {
				o.st.Submit(&store.Op{Kind: store.OpForget, Object: deleted(i + 1), Base: 1, Done: func(*store.Op) {}})
			}
		})
	}
}

// refused is crowded after recovery was refused although OSD 2 had not said that it would be: its PG is on OSD 1 alone.
func refused(t *testing.T) (b *bed, uncrowd func()) {
	b, uncrowd = crowded(t)
	b.wait("the PG without the OSD that refuses", func() bool {
		b.deaf()
		return b.serves(1, 1)
	})
	return b, uncrowd
}

// deaf has OSD 1 go by it that OSD 2 has space for what recovery brings, whatever that one says.
func (b *bed) deaf() { b.osds[1].s.prim.RecoverySpace(2, 1000) }

// free is what OSD 2 says it has free.
func (b *bed) free() cluster.Number {
	b.t.Helper()
	var v cluster.OSDStats
	if kv := b.get(cluster.OSDStatsKey(2)); json.Unmarshal(kv.Value, &v) != nil {
		b.t.Fatalf("statistics %q", kv.Value)
	}
	return v.Free
}

// TestRoomIsWhatAStoreCanTake: an OSD whose blocks are free, but not its places for objects, is published as full and is a member again only when it has places.
func TestRoomIsWhatAStoreCanTake(t *testing.T) {
	b, uncrowd := refused(t)
	b.never("a member without room", 3*time.Minute, func() bool { return b.serves(1, 2) })
	uncrowd()
	b.w.Run(90 * time.Second) // statistics are written, and asked for
	b.wait("the PG on both, whole", func() bool { return b.serves(1, 2) && len(b.record().Sets) == 1 })
	if n := b.free(); n < 16<<20 {
		t.Errorf("%d bytes are said to be free", n)
	}
}

// TestRefusalsEndFewIntervals has an OSD refuse whenever it is a member, though it says that it has room. It is asked more and more seldom.
func TestRefusalsEndFewIntervals(t *testing.T) {
	b, uncrowd := refused(t)
	before := b.record().Interval
	lie := &cluster.OSDStats{Size: 16 << 20, Free: 16 << 20, DataBlockSize: 128 << 10}
	for range 600 {
		b.put(cluster.OSDStatsKey(2), lie)
		b.w.RunUntil(func() bool {
			b.deaf()
			return false
		}, time.Second)
	}
	if n := b.record().Interval - before; n < 10 || n > 50 {
		t.Errorf("%d intervals in 10 minutes", n)
	}
	uncrowd()
	b.w.Run(90 * time.Second) // statistics are written, and asked for
	b.wait("the PG on both, whole", func() bool { return b.serves(1, 2) && len(b.record().Sets) == 1 })
}

// TestObjectsWaitForSpaceOnAMember: an OSD says that it has no space, and stays a member of its PGs. What it lacks waits, with a reason, and is brought when it has space.
func TestObjectsWaitForSpaceOnAMember(t *testing.T) {
	b, uncrowd := crowded(t)
	interval := func() layout.Interval { return layout.Interval(b.record().Interval) }
	b.wait("the PG on both", func() bool { return b.serves(1, 2) })
	at := interval()
	b.never("recovery of what cannot be kept", 2*time.Minute, func() bool { return b.osds[1].s.pgs[pg1].served.Counts().Left == 0 })
	if now := interval(); now != at || !b.serves(1, 2) {
		t.Errorf("interval %d has become %d, or OSD 2 is no member", at, now)
	}
	if why := b.osds[1].s.pgs[pg1].reason(); !strings.Contains(why, "OSD 2 has no space for what recovery brings") {
		t.Errorf("reason: %q", why)
	}
	uncrowd()
	b.wait("the PG on both, whole", func() bool { return b.serves(1, 2) && len(b.record().Sets) == 1 })
	if now := interval(); now != at {
		t.Errorf("interval %d has become %d", at, now)
	}
}
