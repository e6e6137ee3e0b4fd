package store

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
)

// lazily writes without asking for durability.
func (r *rig) lazily(how Laziness, n uint64, base, version layout.Version, off uint32, p []byte) *Op {
	r.t.Helper()
	op := &Op{Kind: OpWrite, Object: obj(n), Base: base, Version: version, Interval: 7, Offset: off, Len: uint32(len(p)), Data: r.data(p), Lazy: how}
	defer op.Data.Release()
	return r.must(op)
}

func TestLazyChangesCostNoFlush(t *testing.T) {
	c := smallConfig
	c.JournalSize = 16 << 20
	r := newRig(t, 1, 64<<20, c)
	before := r.s.Stats()
	for i := range uint64(50) {
		r.lazily(Lazy, i%5, layout.Version(i/5), layout.Version(i/5+1), 0, fill(4096<<(i%2*3), byte('a'+i%26)))
	}
	st := r.s.Stats()
	if st.Flushes != before.Flushes || st.SyncWrites != before.SyncWrites {
		t.Errorf("50 lazy changes took %d flushes and %d durable writes", st.Flushes-before.Flushes, st.SyncWrites-before.SyncWrites)
	}
	if st.Sequence != before.Sequence || r.s.Unsynced() != 50 {
		t.Errorf("%d changes are not durable, the last durable entry is %d after %d", r.s.Unsynced(), st.Sequence, before.Sequence)
	}
	r.must(&Op{Kind: OpSync})
	if st = r.s.Stats(); st.Flushes != before.Flushes+1 || st.SyncWrites != before.SyncWrites+1 || r.s.Unsynced() != 0 {
		t.Errorf("a sync took %d flushes and %d durable writes, %d changes are not durable", st.Flushes-before.Flushes, st.SyncWrites-before.SyncWrites, r.s.Unsynced())
	}
	flushes := st.Flushes
	r.must(&Op{Kind: OpSync})
	if r.s.Stats().Flushes != flushes {
		t.Error("a sync with nothing to do flushes")
	}
	r.crash(sim.CrashDrop)
	r.mustOpen()
	if v, _ := r.s.State(obj(4)); v.Version != 10 {
		t.Errorf("object 4 has version %d, want 10", v.Version)
	}
}

func TestSmallIsLazyForBlocksOnly(t *testing.T) {
	r := newRig(t, 1, 16<<20, smallConfig)
	r.lazily(LazyBlocks, 0, 0, 1, 0, fill(32<<10, 'a'))
	if r.s.Unsynced() != 1 {
		t.Fatal("a whole block is durable at once")
	}
	r.lazily(LazyBlocks, 0, 1, 2, 4096, fill(4096, 'b'))
	if r.s.Unsynced() != 0 {
		t.Fatal("a small write is done and not durable")
	}
	r.crash(sim.CrashDrop)
	r.mustOpen()
	r.expect(0, "2 abaaaaaa")
}

func TestUnsyncedChangesAreLostFromTheEnd(t *testing.T) {
	r := newRig(t, 1, 16<<20, smallConfig)
	r.write(0, 0, 1, 0, fill(32<<10, 'a'))
	r.lazily(Lazy, 0, 1, 2, 0, fill(32<<10, 'b'))
	r.lazily(Lazy, 0, 2, 3, 4096, fill(4096, 'c'))
	r.expect(0, "3 bcbbbbbb")
	r.l.Kill() // the device keeps what it has
	r.process()
	r.mustOpen()
	r.expect(0, "3 bcbbbbbb")
	r.lazily(Lazy, 0, 3, 4, 0, fill(32<<10, 'd'))
	r.crash(sim.CrashDrop)
	r.mustOpen()
	r.expect(0, "3 bcbbbbbb")
}

func TestOneQuietSecondMakesEverythingDurable(t *testing.T) {
	r := newRig(t, 1, 16<<20, smallConfig)
	r.lazily(Lazy, 0, 0, 1, 0, fill(32<<10, 'a'))
	r.w.Run(3 * time.Second)
	if r.s.Unsynced() != 0 {
		t.Error("it is not")
	}
}

func TestFailedFlushFailsTheSync(t *testing.T) {
	r := newRig(t, 1, 16<<20, smallConfig)
	r.lazily(Lazy, 0, 0, 1, 0, fill(32<<10, 'a'))
	r.dev.Fail(loop.DiskFlush, 1, syscall.EIO)
	if op := r.do(&Op{Kind: OpSync}); !errors.Is(op.Err, ErrFailed) || r.s.Failure() == nil {
		t.Errorf("the sync ends with %v, the store's failure is %v", op.Err, r.s.Failure())
	}
}
