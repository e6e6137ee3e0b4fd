package client_test

import (
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/client/clienttest"
	"holdfast/core/cluster"
	"holdfast/core/wire"
)

// lazyCluster is one with a pool in which changes may be lazy.
func lazyCluster(t *testing.T, n int, change func(*client.Options)) *clienttest.Cluster {
	x := clienttest.New(t, n, change)
	x.Put(cluster.KeyGlobal, `{"immediate_commit":"none"}`)
	x.W.Run(10 * time.Millisecond)
	return x
}

// lazily is a write that need not be durable when it is done.
func lazily(x *clienttest.Cluster, off uint64, n int, tag byte) {
	op := x.Write(off, n, tag)
	op.Lazy = true
	x.Do(op)
}

func last(o *clienttest.OSD) (m wire.ReadWrite) {
	_ = m.Decode(&o.Seen[len(o.Seen)-1])
	return m
}

func TestLazyChangesAreWrittenAgain(t *testing.T) {
	for _, moved := range []bool{false, true} {
		x := lazyCluster(t, 2, nil)
		x.Do(x.Write(0, 8192, 9))
		lazily(x, 0, 4096, 1)
		lazily(x, 0, 8192, 2)
		lazily(x, 4096, 4096, 3)
		lazily(x, 1<<20, 4096, 4)
		first := last(x.OSDs[1]).Sequence - 3
		if m := last(x.OSDs[1]); m.Low != first || m.Flags&wire.FlagLazy == 0 {
			t.Errorf("low mark %d, flags %x; want %d while nothing is synced, lazy", m.Low, m.Flags, first)
		}
		if n := x.Unsynced(); n != 4 {
			t.Fatalf("%d changes are unsynced, want 4", n)
		}
		x.LosePower()
		if moved {
			for pg := 1; pg <= 4; pg++ {
				x.SetPrimary(pg, 2)
			}
		} else {
			x.OSDs[1].Reset()
		}
		x.Want(4096, 4096, 3) // waits for the copies
		x.Want(0, 4096, 2)
		x.Want(1<<20, 4096, 4)
		if n := x.Client.Stats.Replayed; n != 4 {
			t.Errorf("%d changes were sent again, want 4", n)
		}
		x.Do(x.Op(client.Flush, 0, 0))
		if n := x.Unsynced(); n != 0 || x.Syncs == 0 {
			t.Errorf("%d changes are unsynced after a flush, %d syncs", n, x.Syncs)
		}
		x.LosePower()
		lazily(x, 0, 4096, 5)
		o := x.OSDs[1]
		if moved {
			o = x.OSDs[2]
		}
		if m := last(o); m.Low != m.Sequence {
			t.Errorf("low mark %d after a flush, sequence %d", m.Low, m.Sequence)
		}
	}
}

func TestLazyChangeThatWasNotLostIsNotRepeated(t *testing.T) {
	x := lazyCluster(t, 1, nil)
	lazily(x, 0, 4096, 1)
	carried := len(x.Carried)
	x.OSDs[1].Reset()
	x.Want(0, 4096, 1)
	if len(x.Carried) != carried {
		t.Errorf("carried out: %q", x.Carried)
	}
	x.Do(x.Op(client.Flush, 0, 0))
}

func TestLazyChangeIsNotWrittenOverAnother(t *testing.T) {
	x := lazyCluster(t, 1, nil)
	x.Do(x.Write(0, 4096, 9))
	lazily(x, 0, 4096, 1)
	lazily(x, 8192, 4096, 2)
	x.LosePower()
	for _, o := range x.Objects {
		o.Version = 100
		for i := range 4096 {
			o.Data[i] = 7
		}
	}
	x.OSDs[1].Reset()
	op := x.Op(client.Flush, 0, 0)
	x.Finish(op)
	if op.Err != client.ErrOvertaken {
		t.Errorf("the flush ends with %v", op.Err)
	}
	x.Do(x.Op(client.Flush, 0, 0))
	x.Want(0, 4096, 7)
	if n := x.Client.Stats.Overtaken; n != 2 {
		t.Errorf("%d changes were overtaken, want 2", n)
	}
}

func TestKeptCopiesAreBounded(t *testing.T) {
	x := lazyCluster(t, 1, func(o *client.Options) { o.MaxDirtyOps, o.MaxDirtyBytes = 4, 1<<20 })
	for i := range uint64(20) {
		lazily(x, i*4096, 4096, byte(i+1))
		if n := x.Unsynced(); n > 4 {
			t.Fatalf("%d changes are unsynced, want 4 at most", n)
		}
	}
	var ops []*client.Op
	for i := range uint64(20) {
		op := x.Write(i*4096, 4096, byte(i+1))
		op.Lazy = true
		ops = append(ops, op)
	}
	x.Finish(ops...)
	if n := x.Unsynced(); n > 4 {
		t.Fatalf("%d changes are unsynced, want 4 at most", n)
	}
	if x.Syncs < 4 {
		t.Errorf("%d syncs", x.Syncs)
	}
	x.LosePower()
	x.OSDs[1].Reset()
	for i := range uint64(20) {
		x.Want(i*4096, 4096, byte(i+1))
	}
}

func TestFlushSaysWhatCouldNotBeKept(t *testing.T) {
	x := lazyCluster(t, 1, nil)
	lazily(x, 0, 4096, 1)
	x.LosePower()
	x.Fenced[x.Session.ID()] = true
	x.OSDs[1].Reset()
	op := x.Op(client.Flush, 0, 0)
	op.Session = nil
	x.Finish(op)
	if op.Err == nil {
		t.Error("a flush succeeds although a change is lost")
	}
}

func TestChangesWithoutLazinessStayDurable(t *testing.T) {
	x := lazyCluster(t, 1, nil)
	x.Do(x.Write(0, 4096, 1))
	op := x.Write(100, 50, 2) // becomes a read and a conditional write
	op.Lazy = true
	x.Do(op)
	if m := last(x.OSDs[1]); x.Unsynced() != 0 || m.Flags&wire.FlagLazy != 0 {
		t.Errorf("%d changes are unsynced, flags %x", x.Unsynced(), m.Flags)
	}
}

func TestLazyChangeThatChangedNothingIsNotRepeated(t *testing.T) {
	x := lazyCluster(t, 1, nil)
	remove := x.Op(client.Delete, 0, 128<<10)
	remove.Lazy = true
	x.Do(remove)
	lazily(x, 0, 4096, 1)
	x.OSDs[1].Reset()
	x.Want(0, 4096, 1)
	if n := x.Client.Stats.Replayed; n != 1 {
		t.Errorf("%d changes were sent again, want 1", n)
	}
}
