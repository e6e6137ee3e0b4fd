package client_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
)

func TestReadReturnsWhatWasWritten(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.want(0, 1<<20, 0)
	op := x.do(x.write(100<<10, 400<<10, 7)) // four objects
	if op.Version != 0 {
		t.Errorf("version %d of several objects, want 0", op.Version)
	}
	x.want(100<<10, 400<<10, 7)
	x.want(0, 100<<10, 0)
	x.want(500<<10, 12<<10, 0)
	op = x.do(x.op(client.Read, 100<<10, 4096))
	if op.Version != 1 || len(op.Parts) != 1 || !op.Parts[0].Written(25) || op.Parts[0].Written(24) {
		t.Errorf("version %d, parts %+v", op.Version, op.Parts)
	}
	op.ReleaseParts()
	op = x.do(x.op(client.ReadBitmap, 0, 256<<10))
	if len(op.Parts) != 2 || op.Parts[0].Written(0) || !op.Parts[0].Written(31) || !op.Parts[1].Written(0) || op.Parts[1].Data != nil {
		t.Errorf("bitmap %+v", op.Parts)
	}
}

// TestUnalignedOperationsAgreeWithMemory runs random operations of every alignment, also overlapping and at once, against a byte slice.
func TestUnalignedOperationsAgreeWithMemory(t *testing.T) {
	const size = 1 << 20
	x := newWorld(t, 1, nil)
	model := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var ops []*client.Op
		for range 1 + rng.IntN(6) {
			off := uint64(rng.IntN(size))
			n := uint64(1 + rng.IntN(min(300<<10, size-int(off))))
			if rng.IntN(2) == 0 {
				off, n = off&^511, (n+511)&^511
				n = min(n, size-off)
			}
			var op *client.Op
			if rng.IntN(3) > 0 {
				b := byte(1 + rng.IntN(255))
				op = x.write(off, int(n), b)
				for i := range n {
					model[off+i] = b
				}
			} else {
				op = x.op(client.Zero, off, n)
				clear(model[off : off+n])
			}
			ops = append(ops, op)
			x.c.Submit(op)
		}
		x.await(ops...)
		for _, op := range ops {
			if op.Err != nil {
				t.Fatal(op.Err)
			}
		}
		if !bytes.Equal(x.readAll(0, size), model) {
			t.Fatal("the image differs from the model")
		}
		off := uint64(rng.IntN(size - 1000))
		if !bytes.Equal(x.readAll(off, 999), model[off:off+999]) {
			t.Fatal("an unaligned read differs from the model")
		}
	}
	if x.c.Stats.Conflicts != 0 {
		t.Errorf("%d conflicts with ourselves, want none", x.c.Stats.Conflicts)
	}
}

func TestLostReplyTakesEffectOnce(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.osds[1].lose = 3
	op := x.do(x.write(0, 4096, 1))
	if op.Version != 1 || len(x.carried) != 1 {
		t.Errorf("version %d, carried out %q, want one write", op.Version, x.carried)
	}
	if x.c.Stats.Lost != 3 {
		t.Errorf("%d replies counted as lost, want 3", x.c.Stats.Lost)
	}
	var seq []uint64
	for i := range x.osds[1].seen {
		var m wire.ReadWrite
		_ = m.Decode(&x.osds[1].seen[i])
		seq = append(seq, m.Sequence)
		if m.Session != x.s.ID() || client.InstanceOf(m.Session) != 0xabcdef1234 {
			t.Errorf("session %x", m.Session)
		}
	}
	for _, s := range seq {
		if s != seq[0] {
			t.Errorf("sequences %v, want one", seq)
		}
	}
}

func TestLostReplyOfCASIsNoConflict(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.osds[1].lose = 1
	op := x.write(0, 4096, 1)
	op.CAS = 1
	x.do(op)
	x.osds[1].lose = 2
	x.do(x.write(100, 512, 2)) // read lost, then the write
	x.want(100, 512, 2)
	if x.c.Stats.Conflicts != 0 || len(x.carried) != 2 {
		t.Errorf("%d conflicts, carried out %q", x.c.Stats.Conflicts, x.carried)
	}
}

func TestCASConflictSaysVersion(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(0, 4096, 1))
	op := x.write(0, 4096, 2)
	op.CAS = 1
	x.finish(op)
	if e, ok := errors.AsType[*client.ConflictError](op.Err); !ok || e.Version != 1 {
		t.Fatalf("error %v, want a conflict with version 1", op.Err)
	}
	op = x.write(0, 4096, 3)
	op.CAS = 2
	if x.do(op); op.Version != 2 {
		t.Errorf("version %d, want 2", op.Version)
	}
	op = x.write(0, 256<<10, 3)
	op.CAS = 2
	if x.finish(op); !errors.Is(op.Err, client.ErrAlignment) {
		t.Errorf("CAS of two objects: %v, want ErrAlignment", op.Err)
	}
}

func TestCompareWrite(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(0, 8192, 1))
	compare := func(expect, set byte) error {
		op := x.op(client.CompareWrite, 512, 1024)
		op.Pieces, op.Compare = x.fill(1024, set), x.fill(1024, expect)
		defer op.Pieces[0].Ref.Release()
		defer op.Compare[0].Ref.Release()
		x.finish(op)
		return op.Err
	}
	if err := compare(1, 2); err != nil {
		t.Fatal(err)
	}
	x.want(512, 1024, 2)
	if e, ok := errors.AsType[*client.MismatchError](compare(1, 3)); !ok || e.Offset != 0 {
		t.Error("no mismatch")
	}
	// Another writer comes between the read and the write.
	o := x.osds[1]
	op := x.op(client.CompareWrite, 512, 1024)
	op.Pieces, op.Compare = x.fill(1024, 4), x.fill(1024, 2)
	defer op.Pieces[0].Ref.Release()
	defer op.Compare[0].Ref.Release()
	x.c.Submit(op)
	n := len(o.seen)
	x.run("the read", func() bool { return len(o.seen) > n })
	x.objects[layout.ObjectID{Inode: disk}].version += 5
	x.await(op)
	if op.Err != nil || x.c.Stats.Conflicts != 1 {
		t.Errorf("error %v after %d conflicts, want success after one", op.Err, x.c.Stats.Conflicts)
	}
	x.want(512, 1024, 4)
}

func TestPrimaryChangeIsFollowedAtOnce(t *testing.T) {
	x := newWorld(t, 2, nil)
	x.do(x.write(0, 4096, 1))
	x.osds[1].hold = true
	op := x.write(0, 4096, 2)
	x.c.Submit(op)
	x.run("the write at OSD 1", func() bool { return len(x.osds[1].held) == 1 })
	for pg := 1; pg <= 4; pg++ {
		x.setPrimary(pg, 2)
	}
	x.osds[1].held[0].Fail(wire.EPIPE)
	start := x.w.Elapsed()
	x.await(op)
	if op.Err != nil || op.Version != 2 || x.c.Stats.Moved != 1 {
		t.Errorf("error %v, version %d, %d moved", op.Err, op.Version, x.c.Stats.Moved)
	}
	if d := x.w.Elapsed() - start; d > 20*time.Millisecond {
		t.Errorf("it took %v, want it at once", d)
	}
	x.want(0, 4096, 2)
}

func TestWriteWaitsForAPrimary(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.setPrimary(1, 0)
	op := x.write(0, 4096, 1)
	x.c.Submit(op)
	x.w.Run(20 * time.Second)
	if !op.Active() {
		t.Fatalf("it ended without a primary: %v", op.Err)
	}
	x.do(x.write(128<<10, 4096, 1)) // another PG
	start := x.w.Elapsed()
	x.setPrimary(1, 1)
	x.await(op)
	if d := x.w.Elapsed() - start; op.Err != nil || d > 20*time.Millisecond {
		t.Errorf("error %v after %v", op.Err, d)
	}
}

func TestUnreachableOSDIsLeftWhenThePGMoves(t *testing.T) {
	x := newWorld(t, 2, nil)
	x.do(x.write(0, 4096, 1))
	x.w.Net.Isolate(x.osds[1].l)
	op := x.write(0, 4096, 2)
	x.c.Submit(op)
	x.w.Run(4 * time.Second)
	x.setPrimary(1, 2)
	start := x.w.Elapsed()
	x.await(op)
	if d := x.w.Elapsed() - start; op.Err != nil || d > 100*time.Millisecond {
		t.Errorf("error %v after %v", op.Err, d)
	}
}

func TestPGCountChange(t *testing.T) {
	x := newWorld(t, 2, nil)
	x.osds[1].hold = true
	var ops []*client.Op
	for i := range uint64(8) {
		op := x.write(i*128<<10, 128<<10, byte(i+1))
		ops = append(ops, op)
		x.c.Submit(op)
	}
	x.run("the writes at OSD 1", func() bool { return len(x.osds[1].held) == 8 })
	x.setPGs(7)
	for pg := 1; pg <= 7; pg++ {
		x.setPrimary(pg, 2)
	}
	x.osds[1].release() // every request is answered EPIPE: not the primary any more
	x.await(ops...)
	for i, op := range ops {
		if op.Err != nil {
			t.Fatal(op.Err)
		}
		x.want(uint64(i)*128<<10, 128<<10, byte(i+1))
	}
	if len(x.carried) != 8 {
		t.Errorf("carried out %d writes, want 8", len(x.carried))
	}
}

func TestOverlappingWritesKeepTheirOrder(t *testing.T) {
	x := newWorld(t, 1, nil)
	o := x.osds[1]
	o.errno = []int64{wire.EPIPE, wire.EPIPE} // the first is the slowest
	first, second, third := x.write(0, 8192, 1), x.write(4096, 8192, 2), x.write(8192, 4096, 3)
	apart := x.write(64<<10, 4096, 4)
	var order []byte
	for i, op := range []*client.Op{first, second, third, apart} {
		done := op.Done
		op.Done = func(op *client.Op) { order = append(order, byte(i)); done(op) }
	}
	for _, op := range []*client.Op{first, second, third} {
		x.c.Submit(op)
	}
	x.run("EPIPE", func() bool { return len(o.errno) == 1 })
	o.errno = nil
	x.c.Submit(apart)
	x.await(first, second, third, apart)
	if !bytes.Equal(order, []byte{3, 0, 1, 2}) {
		t.Errorf("order %v, want 3 0 1 2", order)
	}
	x.want(0, 4096, 1)
	x.want(4096, 4096, 2)
	x.want(8192, 4096, 3)
}

func TestWriteAfterLongZeroIsLater(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(60<<20, 4096, 1))
	zero := x.op(client.Zero, 0, 64<<20) // 512 objects, more than are under way at once
	x.c.Submit(zero)
	op, next := x.write(60<<20, 4096, 2), x.write(60<<20, 4096, 3)
	x.c.Submit(op)
	x.c.Submit(next)
	x.await(zero, op, next)
	x.want(60<<20, 4096, 3)
	if n := len(x.carried); n != 512+3 {
		t.Errorf("carried out %d changes", n)
	}
}

func TestBackPressure(t *testing.T) {
	x := newWorld(t, 1, func(o *client.Options) { o.MaxBytes, o.MaxParts, o.MaxOps = 64<<10, 10, 40 })
	o := x.osds[1]
	o.hold = true
	var ops []*client.Op
	for i := range uint64(40) {
		ops = append(ops, x.write(i*8192, 8192, 1))
		x.c.Submit(ops[i])
	}
	x.w.Run(100 * time.Millisecond)
	if len(o.held) != 8 {
		t.Errorf("%d writes of 8 KiB are at the OSD, want 8 by MaxBytes of 64 KiB", len(o.held))
	}
	over := x.write(0, 4096, 1)
	if x.finish(over); !errors.Is(over.Err, client.ErrBusy) {
		t.Errorf("operation 41: %v, want ErrBusy", over.Err)
	}
	o.release()
	x.await(ops...)
	if len(x.carried) != 40 {
		t.Errorf("carried out %d", len(x.carried))
	}
}

func TestSilentClientsWriteExpires(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(0, 4096, 1))
	life := x.l.Now()
	x.s = x.c.NewSession(func() loop.Instant { return life })
	x.setPrimary(1, 0)
	never, sent := x.write(0, 4096, 2), x.write(4096, 4096, 3)
	x.c.Submit(never)
	x.run("expiry", func() bool { return !never.Active() })
	if !errors.Is(never.Err, client.ErrExpired) {
		t.Fatalf("error %v, want ErrExpired", never.Err)
	}
	// One that was sent is asked for until it is known, and not begun late.
	life = x.l.Now()
	x.setPrimary(1, 1)
	x.osds[1].hold = true
	x.c.Submit(sent)
	x.run("the write at the OSD", func() bool { return len(x.osds[1].held) == 1 })
	x.setPrimary(1, 0)
	x.osds[1].held[0].Fail(wire.EPIPE)
	x.osds[1].held, x.osds[1].hold = nil, false
	x.w.Run(6 * time.Second)
	if !sent.Active() {
		t.Fatalf("it ended although its fate is not known: %v", sent.Err)
	}
	x.setPrimary(1, 1)
	x.await(sent)
	if !errors.Is(sent.Err, client.ErrExpired) || len(x.carried) != 1 {
		t.Errorf("error %v, carried out %q; want ErrExpired and nothing late", sent.Err, x.carried)
	}
	x.want(4096, 4096, 0)
	life = x.l.Now()
	x.do(x.write(0, 4096, 5))
}

func TestLateWriteOfALivingClientIsSentAgain(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.osds[1].errno = []int64{wire.ETIMEDOUT, wire.ETIMEDOUT}
	x.do(x.write(0, 4096, 1))
	if x.c.Stats.Late != 2 || len(x.carried) != 1 {
		t.Errorf("%d late, carried out %q", x.c.Stats.Late, x.carried)
	}
}

func TestDoneWriteIsFoundAfterItsDeadline(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(0, 4096, 1))
	life := x.l.Now()
	x.s = x.c.NewSession(func() loop.Instant { return life })
	x.osds[1].lose = 1
	op := x.write(0, 4096, 2)
	x.c.Submit(op)
	x.run("the write", func() bool { return len(x.carried) == 2 })
	x.setPrimary(1, 0)
	x.w.Run(10 * time.Second)
	x.setPrimary(1, 1)
	if x.await(op); op.Err != nil || op.Version != 2 {
		t.Errorf("error %v, version %d, want success with version 2", op.Err, op.Version)
	}
}

func TestFencedSessionEnds(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(0, 4096, 1))
	x.fenced[x.s.ID()] = true
	x.setPrimary(2, 0)
	op, waiting, other := x.write(0, 4096, 2), x.write(128<<10, 4096, 2), x.write(0, 4096, 3)
	other.Session = x.c.NewSession(nil)
	x.c.Submit(waiting)
	x.c.Submit(op)
	x.c.Submit(other)
	x.await(op, waiting, other)
	if !errors.Is(op.Err, client.ErrFenced) || !errors.Is(waiting.Err, client.ErrFenced) || other.Err != nil {
		t.Errorf("errors %v, %v, %v; want fenced, fenced, nil", op.Err, waiting.Err, other.Err)
	}
	if !x.s.Fenced() || other.Session.Fenced() {
		t.Error("the wrong session is fenced")
	}
	late := x.write(0, 4096, 4)
	if x.finish(late); !errors.Is(late.Err, client.ErrFenced) {
		t.Errorf("later write: %v", late.Err)
	}
	x.want2(other.Session, 0, 4096, 3)
}

func (x *world) want2(s *client.Session, off, n uint64, b byte) {
	x.t.Helper()
	x.s = s
	x.want(off, n, b)
}

func TestFullPool(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.osds[1].errno = []int64{wire.ENOSPC, wire.ENOSPC}
	start := x.w.Elapsed()
	x.do(x.write(0, 4096, 1))
	if d := x.w.Elapsed() - start; d < 2*time.Second || x.c.Stats.Full != 2 {
		t.Errorf("done after %v and %d refusals", d, x.c.Stats.Full)
	}
	x = newWorld(t, 1, func(o *client.Options) { o.RetryENOSPC, o.EIORetryInterval = false, 0 })
	x.osds[1].errno = []int64{wire.ENOSPC, wire.EIO, wire.EROFS, wire.EINVAL}
	for _, want := range []error{client.ErrNoSpace, client.ErrIO, client.ErrReadOnly, wire.Errno(wire.EINVAL)} {
		op := x.write(0, 4096, 1)
		if x.finish(op); !errors.Is(op.Err, want) {
			t.Errorf("error %v, want %v", op.Err, want)
		}
	}
}

func TestRetryLimit(t *testing.T) {
	x := newWorld(t, 1, func(o *client.Options) { o.RetryLimit = 3 })
	x.setPrimary(1, 0)
	op := x.op(client.Read, 0, 4096)
	x.finish(op)
	if e, ok := errors.AsType[*client.UnreachableError](op.Err); !ok || e.PG != (layout.PGID{Pool: 1, Num: 1}) || e.Tries != 3 {
		t.Errorf("error %v", op.Err)
	}
}

func TestCancel(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.setPrimary(2, 0)
	waiting, both, blocked := x.write(128<<10, 4096, 1), x.write(0, 256<<10, 1), x.write(128<<10, 4096, 2)
	x.c.Submit(waiting)
	x.c.Submit(both)
	x.c.Submit(blocked)
	x.run("the first part", func() bool { return len(x.carried) == 1 })
	x.w.Run(time.Second)
	x.c.Cancel(waiting)
	x.c.Cancel(both) // too late: half of it is done
	x.c.Cancel(blocked)
	x.w.Run(time.Second)
	if !errors.Is(waiting.Err, client.ErrCanceled) || waiting.Active() || !errors.Is(blocked.Err, client.ErrCanceled) || !both.Active() {
		t.Fatalf("errors %v, %v, the third active: %t", waiting.Err, blocked.Err, both.Active())
	}
	x.setPrimary(2, 1)
	x.await(both)
	if both.Err != nil {
		t.Error(both.Err)
	}
}

func TestImageThatIsGone(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(0, 4096, 1))
	x.setPrimary(2, 0)
	op := x.op(client.Read, 128<<10, 4096)
	x.c.Submit(op)
	x.put("config/inode/1/1", `{"name":"disk","size":67108864,"deleted":true}`)
	x.await(op)
	write := x.write(0, 4096, 1)
	x.finish(write)
	if !errors.Is(op.Err, client.ErrGone) || !errors.Is(write.Err, client.ErrGone) {
		t.Errorf("errors %v, %v, want ErrGone", op.Err, write.Err)
	}
	if x.do(x.op(client.Delete, 0, blockSize)); len(x.objects) != 0 {
		t.Error("the object is still there")
	}
}

func TestLayerWithParent(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.do(x.write(0, 4096, 1))
	x.put("config/inode/1/1", `{"name":"disk","size":67108864,"parent_id":2}`)
	x.w.Run(10 * time.Millisecond)
	i, _ := x.c.Snapshot().Inode(disk)
	x.do(x.op(client.Zero, 0, 4096))
	x.want(0, 4096, 0)
	seen := x.osds[1].seen
	var z wire.Zero
	var r wire.ReadWrite
	_ = z.Decode(&seen[len(seen)-2])
	_ = r.Decode(&seen[len(seen)-1])
	if z.Flags != wire.ZeroKeepWritten || r.MetaRevision != uint64(i.Mod) {
		t.Errorf("zero flags %d, revision %d; want explicit zeroes and %d", z.Flags, r.MetaRevision, i.Mod)
	}
}

func TestLazyPoolIsRefused(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.put(cluster.KeyGlobal, `{"immediate_commit":"none"}`)
	x.w.Run(10 * time.Millisecond)
	op := x.write(0, 4096, 1)
	x.finish(op)
	if _, ok := errors.AsType[*client.PoolError](op.Err); !ok {
		t.Errorf("error %v, want a PoolError", op.Err)
	}
	x.put(cluster.KeyGlobal, `{"immediate_commit":"all"}`)
	x.w.Run(10 * time.Millisecond)
	x.do(x.write(0, 4096, 1))
	x.do(x.op(client.Flush, 0, 0))
}

func TestListObjects(t *testing.T) {
	x := newWorld(t, 1, nil)
	for _, i := range []uint64{0, 1, 5, 77} {
		x.do(x.write(i*128<<10, 4096, 1))
	}
	x.setPrimary(3, 0)
	found := map[uint64]bool{}
	done := false
	s := x.c.ListObjects(disk, func(stripe uint64) { found[stripe>>17] = true }, func(err error) {
		if err != nil {
			t.Error(err)
		}
		done = true
	})
	x.w.Run(time.Second)
	if pg, ok := s.Waiting(); !ok || pg.Num != 3 || done {
		t.Errorf("waits for %v %t, done %t", pg, ok, done)
	}
	x.setPrimary(3, 1)
	x.run("the list", func() bool { return done })
	if len(found) != 4 || !found[0] || !found[1] || !found[5] || !found[77] {
		t.Errorf("found %v", found)
	}
	done = false
	x.setPrimary(3, 0)
	s = x.c.ListObjects(disk, func(uint64) {}, func(err error) { done = errors.Is(err, client.ErrCanceled) })
	x.w.Run(time.Second)
	s.Stop()
	x.run("the stop", func() bool { return done })
}

func TestCloseEndsEverything(t *testing.T) {
	x := newWorld(t, 1, nil)
	x.setPrimary(2, 0)
	x.osds[1].hold = true
	ops := []*client.Op{x.write(0, 4096, 1), x.write(128<<10, 4096, 1), x.op(client.Read, 0, 1<<20), x.op(client.Zero, 0, 64<<20)}
	for _, op := range ops {
		x.c.Submit(op)
	}
	ended := false
	x.s.Close(func() { ended = true })
	x.w.Run(10 * time.Millisecond)
	closed := false
	x.c.Close(func() { closed = true })
	x.await(ops...)
	for _, op := range ops {
		if !errors.Is(op.Err, client.ErrClosed) {
			t.Errorf("%v: %v", op.Kind, op.Err)
		}
	}
	x.run("close", func() bool { return closed && ended })
	x.c, x.osds[1].hold = client.New(x.l, client.Options{Registry: x.reg, Key: key, Instance: 5}), false
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	x := newWorld(t, 1, nil)
	const depth = 16
	var writes, reads []*client.Op
	for i := range uint64(depth) {
		writes = append(writes, x.op(client.Write, i*8192, 8192))
		writes[i].Pieces = x.fill(8192, 1)
		reads = append(reads, x.op(client.Read, i*8192, 8192))
	}
	round := func() {
		for i := range depth {
			x.c.Submit(writes[i])
			x.c.Submit(reads[i])
		}
		for i := range depth {
			for writes[i].Active() || reads[i].Active() {
				x.w.Step()
			}
			reads[i].ReleaseParts()
		}
	}
	o := x.osds[1]
	b := o.l.Alloc(8192)
	o.quick, o.pieces, o.bitmap = true, []peer.Piece{{Ref: b, Len: 8192}}, make([]byte, 4)
	for range 50 {
		round()
	}
	if n := testing.AllocsPerRun(50, round); n > 0 {
		t.Errorf("%.2f allocations in %d operations, want none", n, 2*depth)
	}
	for _, op := range writes {
		op.Pieces[0].Ref.Release()
	}
}
