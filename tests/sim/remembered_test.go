package sim

import (
	"testing"
	"time"

	"holdfast/core/wire"
	"holdfast/osd/store"
)

// TestRememberedDeletionsTakeRoom makes and deletes objects faster than deletions are forgotten. When there is no place for another object, the client is told so, and the PG goes on: the
// intervals that a store's refusal ended never lasted long enough for anything to be forgotten (draw 3, seed 40172).
// With bits as small as these the store has fewer places than requests that it remembers.
func TestRememberedDeletionsTakeRoom(t *testing.T) {
	c := start(t, Options{Seed: 10, OSDs: 2, Replicas: 2, MinSize: 2, PGs: 1, DiskSize: 3 << 20, Sector: 512, Store: store.Config{BlockSize: 32 << 10, Granularity: 512, JournalSize: 768 << 10}})
	defer c.W.Close()
	k := c.NewClient(5)
	k.Write(image, 0, pattern(4096, 1))
	before, _ := c.Snapshot().Histories.Get(onlyPG)
	full := 0
	for i := range 600 {
		r := k.do(t, wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: uint64(i+1) * 32 << 10, Len: 4096}, pattern(4096, byte(i)))
		if r.Retval == wire.ENOSPC {
			full++
			break
		}
		k.do(t, wire.ReadWrite{Op: wire.OpDelete, Inode: image, Offset: uint64(i+1) * 32 << 10}, nil)
	}
	if full == 0 {
		t.Fatal("there was room all the time: the test shows nothing")
	}
	if after, _ := c.Snapshot().Histories.Get(onlyPG); after.Epoch != before.Epoch {
		t.Errorf("interval %d was ended, now it is %d", before.Epoch, after.Epoch)
	}
	c.W.Run(3 * time.Second)
	k.Write(image, 1<<20, pattern(4096, 2))
}
