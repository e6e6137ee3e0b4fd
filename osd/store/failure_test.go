package store

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
)

// A direct write fails while two batches are under way. When the later of them lands first, it waits for the earlier one, which is not settled any more: Close must not wait for it.
func TestCloseEndsAfterAFailureBetweenTwoBatches(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &rig{t: t, w: sim.NewWorld(seed), c: smallConfig, round: 1}
			t.Cleanup(r.w.Close)
			r.dev = r.w.NewDisk("d", 8<<20, 512)
			r.process()
			if _, err := r.format(smallConfig); err != nil {
				t.Fatal(err)
			}
			r.mustOpen()
			r.write(1, 0, 1, 0, fill(32<<10, 'a'))
			running, failed := 0, 0
			submit := func(n uint64, base layout.Version, off, length int) {
				op := &Op{Kind: OpWrite, Object: obj(n), Base: base, Version: base + 1, Interval: 7, Offset: uint32(off), Len: uint32(length), Data: r.data(fill(length, 'b'))}
				op.Done = func(op *Op) {
					running--
					op.Data.Release()
					if errors.Is(op.Err, ErrFailed) {
						failed++
					} else if op.Err != nil {
						t.Errorf("write of object %d: %v", n, op.Err)
					}
				}
				running++
				r.s.Submit(op)
			}
			submit(1, 1, 0, 4096)
			r.w.Run(5 * time.Microsecond)
			submit(1, 2, 8192, 8192)
			r.w.Run(5 * time.Microsecond)
			r.dev.Fail(loop.DiskSync, 1, syscall.EIO)
			submit(2, 0, 0, 32<<10)
			r.until("the writes", func() bool { return running == 0 })
			if failed == 0 || !errors.Is(r.s.Failure(), syscall.EIO) {
				t.Fatalf("%d writes failed, the store says %v", failed, r.s.Failure())
			}
			r.close()
		})
	}
}

// A rollback finds nothing to do where an earlier one and a replacement have removed the unstable version, also when all are still on their way to the journal: the requests of the versions before stay known.
func TestRollbackOverARemovedVersionKeepsRequests(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	pair := Pair{100, 1}
	r.must(&Op{Kind: OpWrite, Object: obj(1), Version: 1, Interval: 7, Len: 4096, Data: r.data(fill(4096, 'a')), Pair: pair})
	running := 0
	for _, op := range []*Op{
		{Kind: OpWrite, Base: 1, Version: 2, Len: 4096, Data: r.data(fill(4096, 'b')), Unstable: true},
		{Kind: OpRollback, Version: 1},
		{Kind: OpReplace, Base: 1, Version: 3, Bitmap: []byte{0}, Present: []byte{0}, Pairs: []PairVersion{{pair, 1}}},
		{Kind: OpDelete, Base: 3, Version: 4},
		{Kind: OpForget, Base: 4},
		{Kind: OpRollback, Version: 0},
	} {
		op.Object, op.Interval, op.BaseInterval = obj(1), 7, 7
		op.Done = func(op *Op) {
			running--
			if op.Err != nil {
				t.Errorf("op %d: %v", op.Kind, op.Err)
			}
		}
		running++
		r.s.Submit(op)
	}
	r.until("the ops", func() bool { return running == 0 })
	if _, v, ok := r.s.FindPair(pair); !ok || v != 1 {
		t.Errorf("the request of version 1 is known: %v, as version %x", ok, v)
	}
}

// A store on several devices addresses them as one; what failed is named as the device has it.
func TestDeviceErrorNamesThePlaceOnTheDevice(t *testing.T) {
	e := deviceError("metadata", &loop.DiskOp{Kind: loop.DiskWrite, Off: 1<<deviceShift | 8192, Data: make([]byte, 4096), Err: &loop.DiskError{Disk: "/dev/fast", Kind: loop.DiskWrite, Off: 8192, Len: 4096, Err: syscall.EIO}})
	if want := "write of 4096 bytes of metadata to /dev/fast at 8192: input/output error"; e.Error() != want {
		t.Errorf("it says %q, want %q", e, want)
	}
}
