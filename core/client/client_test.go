package client_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/client/clienttest"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
)

func TestReadReturnsWhatWasWritten(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Want(0, 1<<20, 0)
	op := x.Do(x.Write(100<<10, 400<<10, 7)) // four objects
	if op.Version != 0 {
		t.Errorf("version %d of several objects, want 0", op.Version)
	}
	x.Want(100<<10, 400<<10, 7)
	x.Want(0, 100<<10, 0)
	x.Want(500<<10, 12<<10, 0)
	op = x.Do(x.Op(client.Read, 100<<10, 4096))
	if op.Version != 1 || len(op.Parts) != 1 || !op.Parts[0].Written(25) || op.Parts[0].Written(24) {
		t.Errorf("version %d, parts %+v", op.Version, op.Parts)
	}
	op.ReleaseParts()
	op = x.Do(x.Op(client.ReadBitmap, 0, 256<<10))
	if len(op.Parts) != 2 || op.Parts[0].Written(0) || !op.Parts[0].Written(31) || !op.Parts[1].Written(0) || op.Parts[1].Data != nil {
		t.Errorf("bitmap %+v", op.Parts)
	}
}

// TestUnalignedOperationsAgreeWithMemory runs random operations of every alignment, also overlapping and at once, against a byte slice.
func TestUnalignedOperationsAgreeWithMemory(t *testing.T) {
	const size = 1 << 20
	x := clienttest.New(t, 1, nil)
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
				op = x.Write(off, int(n), b)
				for i := range n {
					model[off+i] = b
				}
			} else {
				op = x.Op(client.Zero, off, n)
				clear(model[off : off+n])
			}
			ops = append(ops, op)
			x.Client.Submit(op)
		}
		x.Await(ops...)
		for _, op := range ops {
			if op.Err != nil {
				t.Fatal(op.Err)
			}
		}
		if !bytes.Equal(x.ReadAll(0, size), model) {
			t.Fatal("the image differs from the model")
		}
		off := uint64(rng.IntN(size - 1000))
		if !bytes.Equal(x.ReadAll(off, 999), model[off:off+999]) {
			t.Fatal("an unaligned read differs from the model")
		}
	}
	if x.Client.Stats.Conflicts != 0 {
		t.Errorf("%d conflicts with ourselves, want none", x.Client.Stats.Conflicts)
	}
}

func TestLostReplyTakesEffectOnce(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.OSDs[1].Lose = 3
	op := x.Do(x.Write(0, 4096, 1))
	if op.Version != 1 || len(x.Carried) != 1 {
		t.Errorf("version %d, carried out %q, want one write", op.Version, x.Carried)
	}
	if x.Client.Stats.Lost != 3 {
		t.Errorf("%d replies counted as lost, want 3", x.Client.Stats.Lost)
	}
	var seq []uint64
	for i := range x.OSDs[1].Seen {
		var m wire.ReadWrite
		_ = m.Decode(&x.OSDs[1].Seen[i])
		seq = append(seq, m.Sequence)
		if m.Session != x.Session.ID() || client.InstanceOf(m.Session) != 0xabcdef1234 {
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
	x := clienttest.New(t, 1, nil)
	x.OSDs[1].Lose = 1
	op := x.Write(0, 4096, 1)
	op.CAS = 1
	x.Do(op)
	x.OSDs[1].Lose = 2
	x.Do(x.Write(100, 512, 2)) // read lost, then the write
	x.Want(100, 512, 2)
	if x.Client.Stats.Conflicts != 0 || len(x.Carried) != 2 {
		t.Errorf("%d conflicts, carried out %q", x.Client.Stats.Conflicts, x.Carried)
	}
}

func TestCASConflictSaysVersion(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4096, 1))
	op := x.Write(0, 4096, 2)
	op.CAS = 1
	x.Finish(op)
	if e, ok := errors.AsType[*client.ConflictError](op.Err); !ok || e.Version != 1 {
		t.Fatalf("error %v, want a conflict with version 1", op.Err)
	}
	op = x.Write(0, 4096, 3)
	op.CAS = 2
	if x.Do(op); op.Version != 2 {
		t.Errorf("version %d, want 2", op.Version)
	}
	op = x.Write(0, 256<<10, 3)
	op.CAS = 2
	if x.Finish(op); !errors.Is(op.Err, client.ErrAlignment) {
		t.Errorf("CAS of two objects: %v, want ErrAlignment", op.Err)
	}
}

func TestCompareWrite(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 8192, 1))
	compare := func(expect, set byte) error {
		op := x.Op(client.CompareWrite, 512, 1024)
		op.Pieces, op.Compare = x.Fill(1024, set), x.Fill(1024, expect)
		defer op.Pieces[0].Ref.Release()
		defer op.Compare[0].Ref.Release()
		x.Finish(op)
		return op.Err
	}
	if err := compare(1, 2); err != nil {
		t.Fatal(err)
	}
	x.Want(512, 1024, 2)
	if e, ok := errors.AsType[*client.MismatchError](compare(1, 3)); !ok || e.Offset != 0 {
		t.Error("no mismatch")
	}
	// Another writer comes between the read and the write.
	o := x.OSDs[1]
	op := x.Op(client.CompareWrite, 512, 1024)
	op.Pieces, op.Compare = x.Fill(1024, 4), x.Fill(1024, 2)
	defer op.Pieces[0].Ref.Release()
	defer op.Compare[0].Ref.Release()
	x.Client.Submit(op)
	n := len(o.Seen)
	x.Run("the read", func() bool { return len(o.Seen) > n })
	x.Objects[layout.ObjectID{Inode: clienttest.Disk}].Version += 5
	x.Await(op)
	if op.Err != nil || x.Client.Stats.Conflicts != 1 {
		t.Errorf("error %v after %d conflicts, want success after one", op.Err, x.Client.Stats.Conflicts)
	}
	x.Want(512, 1024, 4)
}

func TestPrimaryChangeIsFollowedAtOnce(t *testing.T) {
	x := clienttest.New(t, 2, nil)
	x.Do(x.Write(0, 4096, 1))
	x.OSDs[1].Hold = true
	op := x.Write(0, 4096, 2)
	x.Client.Submit(op)
	x.Run("the write at OSD 1", func() bool { return len(x.OSDs[1].Held) == 1 })
	for pg := 1; pg <= 4; pg++ {
		x.SetPrimary(pg, 2)
	}
	x.OSDs[1].Held[0].Fail(wire.EPIPE)
	start := x.W.Elapsed()
	x.Await(op)
	if op.Err != nil || op.Version != 2 || x.Client.Stats.Moved != 1 {
		t.Errorf("error %v, version %d, %d moved", op.Err, op.Version, x.Client.Stats.Moved)
	}
	if d := x.W.Elapsed() - start; d > 20*time.Millisecond {
		t.Errorf("it took %v, want it at once", d)
	}
	x.Want(0, 4096, 2)
}

func TestWriteWaitsForAPrimary(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.SetPrimary(1, 0)
	op := x.Write(0, 4096, 1)
	x.Client.Submit(op)
	x.W.Run(20 * time.Second)
	if !op.Active() {
		t.Fatalf("it ended without a primary: %v", op.Err)
	}
	x.Do(x.Write(128<<10, 4096, 1)) // another PG
	start := x.W.Elapsed()
	x.SetPrimary(1, 1)
	x.Await(op)
	if d := x.W.Elapsed() - start; op.Err != nil || d > 20*time.Millisecond {
		t.Errorf("error %v after %v", op.Err, d)
	}
}

func TestUnreachableOSDIsLeftWhenThePGMoves(t *testing.T) {
	x := clienttest.New(t, 2, nil)
	x.Do(x.Write(0, 4096, 1))
	x.W.Net.Isolate(x.OSDs[1].Loop)
	op := x.Write(0, 4096, 2)
	x.Client.Submit(op)
	x.W.Run(4 * time.Second)
	x.SetPrimary(1, 2)
	start := x.W.Elapsed()
	x.Await(op)
	if d := x.W.Elapsed() - start; op.Err != nil || d > 100*time.Millisecond {
		t.Errorf("error %v after %v", op.Err, d)
	}
}

func TestPGCountChange(t *testing.T) {
	x := clienttest.New(t, 2, nil)
	x.OSDs[1].Hold = true
	var ops []*client.Op
	for i := range uint64(8) {
		op := x.Write(i*128<<10, 128<<10, byte(i+1))
		ops = append(ops, op)
		x.Client.Submit(op)
	}
	x.Run("the writes at OSD 1", func() bool { return len(x.OSDs[1].Held) == 8 })
	x.SetPGs(7)
	for pg := 1; pg <= 7; pg++ {
		x.SetPrimary(pg, 2)
	}
	x.OSDs[1].Release() // every request is answered EPIPE: not the primary any more
	x.Await(ops...)
	for i, op := range ops {
		if op.Err != nil {
			t.Fatal(op.Err)
		}
		x.Want(uint64(i)*128<<10, 128<<10, byte(i+1))
	}
	if len(x.Carried) != 8 {
		t.Errorf("carried out %d writes, want 8", len(x.Carried))
	}
}

func TestOverlappingWritesKeepTheirOrder(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	o := x.OSDs[1]
	o.Errno = []int64{wire.EPIPE, wire.EPIPE} // the first is the slowest
	first, second, third := x.Write(0, 8192, 1), x.Write(4096, 8192, 2), x.Write(8192, 4096, 3)
	apart := x.Write(64<<10, 4096, 4)
	var order []byte
	for i, op := range []*client.Op{first, second, third, apart} {
		done := op.Done
		op.Done = func(op *client.Op) { order = append(order, byte(i)); done(op) }
	}
	for _, op := range []*client.Op{first, second, third} {
		x.Client.Submit(op)
	}
	x.Run("EPIPE", func() bool { return len(o.Errno) == 1 })
	o.Errno = nil
	x.Client.Submit(apart)
	x.Await(first, second, third, apart)
	if !bytes.Equal(order, []byte{3, 0, 1, 2}) {
		t.Errorf("order %v, want 3 0 1 2", order)
	}
	x.Want(0, 4096, 1)
	x.Want(4096, 4096, 2)
	x.Want(8192, 4096, 3)
}

func TestWriteAfterLongZeroIsLater(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(60<<20, 4096, 1))
	zero := x.Op(client.Zero, 0, 64<<20) // 512 objects, more than are under way at once
	x.Client.Submit(zero)
	op, next := x.Write(60<<20, 4096, 2), x.Write(60<<20, 4096, 3)
	x.Client.Submit(op)
	x.Client.Submit(next)
	x.Await(zero, op, next)
	x.Want(60<<20, 4096, 3)
	if n := len(x.Carried); n != 512+3 {
		t.Errorf("carried out %d changes", n)
	}
}

func TestBackPressure(t *testing.T) {
	x := clienttest.New(t, 1, func(o *client.Options) { o.MaxBytes, o.MaxParts, o.MaxOps = 64<<10, 10, 40 })
	o := x.OSDs[1]
	o.Hold = true
	var ops []*client.Op
	for i := range uint64(40) {
		ops = append(ops, x.Write(i*8192, 8192, 1))
		x.Client.Submit(ops[i])
	}
	x.W.Run(100 * time.Millisecond)
	if len(o.Held) != 8 {
		t.Errorf("%d writes of 8 KiB are at the OSD, want 8 by MaxBytes of 64 KiB", len(o.Held))
	}
	over := x.Write(0, 4096, 1)
	if x.Finish(over); !errors.Is(over.Err, client.ErrBusy) {
		t.Errorf("operation 41: %v, want ErrBusy", over.Err)
	}
	o.Release()
	x.Await(ops...)
	if len(x.Carried) != 40 {
		t.Errorf("carried out %d", len(x.Carried))
	}
}

// TestSessionDoesNotRunAhead has one write wait for its answer while others of its session are answered: OSDs remember those as long as that one waits, so they end somewhere. Another
// session goes on.
func TestSessionDoesNotRunAhead(t *testing.T) {
	const window = 4096
	x := clienttest.New(t, 1, func(o *client.Options) { o.MaxOps = 2 * window })
	o := x.OSDs[1]
	o.Hold = true
	first := x.Write(0, 4096, 1)
	x.Client.Submit(first)
	x.Run("the first write to be held", func() bool { return len(o.Held) == 1 })
	o.Hold = false
	var ops []*client.Op
	done := 0
	for i := range uint64(window + 100) {
		op := x.Write(4096*(1+i%31), 4096, 2)
		then := op.Done
		op.Done = func(op *client.Op) {
			done++
			if then != nil {
				then(op)
			}
		}
		ops = append(ops, op)
		x.Client.Submit(op)
	}
	x.W.Run(3 * time.Second)
	if done != window-1 {
		t.Errorf("%d writes are done behind one that is not answered, want %d", done, window-1)
	}
	own := x.Session
	x.Session = x.Client.NewSession(nil)
	x.Do(x.Write(1<<20, 4096, 3))
	x.Session = own
	before := x.W.Elapsed()
	o.Release()
	x.Await(append(ops, first)...)
	if waited := x.W.Elapsed() - before; waited > 500*time.Millisecond {
		t.Errorf("the rest was done %v after the answer", waited)
	}
	x.Want(0, 4096, 1)
	x.Want(4096, 4096, 2)
}

func TestSilentClientsWriteExpires(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4096, 1))
	life := x.Loop.Now()
	x.Session = x.Client.NewSession(func() loop.Instant { return life })
	x.SetPrimary(1, 0)
	never, sent := x.Write(0, 4096, 2), x.Write(4096, 4096, 3)
	x.Client.Submit(never)
	x.Run("expiry", func() bool { return !never.Active() })
	if !errors.Is(never.Err, client.ErrExpired) {
		t.Fatalf("error %v, want ErrExpired", never.Err)
	}
	// One that was sent is asked for until it is known, and not begun late.
	life = x.Loop.Now()
	x.SetPrimary(1, 1)
	x.OSDs[1].Hold = true
	x.Client.Submit(sent)
	x.Run("the write at the OSD", func() bool { return len(x.OSDs[1].Held) == 1 })
	x.SetPrimary(1, 0)
	x.OSDs[1].Held[0].Fail(wire.EPIPE)
	x.OSDs[1].Held, x.OSDs[1].Hold = nil, false
	x.W.Run(6 * time.Second)
	if !sent.Active() {
		t.Fatalf("it ended although its fate is not known: %v", sent.Err)
	}
	x.SetPrimary(1, 1)
	x.Await(sent)
	if !errors.Is(sent.Err, client.ErrExpired) || len(x.Carried) != 1 {
		t.Errorf("error %v, carried out %q; want ErrExpired and nothing late", sent.Err, x.Carried)
	}
	x.Want(4096, 4096, 0)
	life = x.Loop.Now()
	x.Do(x.Write(0, 4096, 5))
}

func TestLateWriteOfALivingClientIsSentAgain(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.OSDs[1].Errno = []int64{wire.ETIMEDOUT, wire.ETIMEDOUT}
	x.Do(x.Write(0, 4096, 1))
	if x.Client.Stats.Late != 2 || len(x.Carried) != 1 {
		t.Errorf("%d late, carried out %q", x.Client.Stats.Late, x.Carried)
	}
}

func TestDoneWriteIsFoundAfterItsDeadline(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4096, 1))
	life := x.Loop.Now()
	x.Session = x.Client.NewSession(func() loop.Instant { return life })
	x.OSDs[1].Lose = 1
	op := x.Write(0, 4096, 2)
	x.Client.Submit(op)
	x.Run("the write", func() bool { return len(x.Carried) == 2 })
	x.SetPrimary(1, 0)
	x.W.Run(10 * time.Second)
	x.SetPrimary(1, 1)
	if x.Await(op); op.Err != nil || op.Version != 2 {
		t.Errorf("error %v, version %d, want success with version 2", op.Err, op.Version)
	}
}

func TestFencedSessionEnds(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4096, 1))
	x.Fenced[x.Session.ID()] = true
	x.SetPrimary(2, 0)
	op, waiting, other := x.Write(0, 4096, 2), x.Write(128<<10, 4096, 2), x.Write(0, 4096, 3)
	other.Session = x.Client.NewSession(nil)
	x.Client.Submit(waiting)
	x.Client.Submit(op)
	x.Client.Submit(other)
	x.Await(op, waiting, other)
	if !errors.Is(op.Err, client.ErrFenced) || !errors.Is(waiting.Err, client.ErrFenced) || other.Err != nil {
		t.Errorf("errors %v, %v, %v; want fenced, fenced, nil", op.Err, waiting.Err, other.Err)
	}
	if !x.Session.Fenced() || other.Session.Fenced() {
		t.Error("the wrong session is fenced")
	}
	late := x.Write(0, 4096, 4)
	if x.Finish(late); !errors.Is(late.Err, client.ErrFenced) {
		t.Errorf("later write: %v", late.Err)
	}
	want2(x, other.Session, 0, 4096, 3)
}

func want2(x *clienttest.Cluster, s *client.Session, off, n uint64, b byte) {
	x.T.Helper()
	x.Session = s
	x.Want(off, n, b)
}

func TestFullPool(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.OSDs[1].Errno = []int64{wire.ENOSPC, wire.ENOSPC}
	start := x.W.Elapsed()
	x.Do(x.Write(0, 4096, 1))
	if d := x.W.Elapsed() - start; d < 2*time.Second || x.Client.Stats.Full != 2 {
		t.Errorf("done after %v and %d refusals", d, x.Client.Stats.Full)
	}
	x = clienttest.New(t, 1, func(o *client.Options) { o.RetryENOSPC, o.EIORetryInterval = false, 0 })
	x.OSDs[1].Errno = []int64{wire.ENOSPC, wire.EIO, wire.EROFS, wire.EINVAL}
	for _, want := range []error{client.ErrNoSpace, client.ErrIO, client.ErrReadOnly, wire.Errno(wire.EINVAL)} {
		op := x.Write(0, 4096, 1)
		if x.Finish(op); !errors.Is(op.Err, want) {
			t.Errorf("error %v, want %v", op.Err, want)
		}
	}
}

func TestRetryLimit(t *testing.T) {
	x := clienttest.New(t, 1, func(o *client.Options) { o.RetryLimit = 3 })
	x.SetPrimary(1, 0)
	op := x.Op(client.Read, 0, 4096)
	x.Finish(op)
	if e, ok := errors.AsType[*client.UnreachableError](op.Err); !ok || e.PG != (layout.PGID{Pool: 1, Num: 1}) || e.Tries != 3 {
		t.Errorf("error %v", op.Err)
	}
}

func TestCancel(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.SetPrimary(2, 0)
	waiting, both, blocked := x.Write(128<<10, 4096, 1), x.Write(0, 256<<10, 1), x.Write(128<<10, 4096, 2)
	x.Client.Submit(waiting)
	x.Client.Submit(both)
	x.Client.Submit(blocked)
	x.Run("the first part", func() bool { return len(x.Carried) == 1 })
	x.W.Run(time.Second)
	x.Client.Cancel(waiting)
	x.Client.Cancel(both) // too late: half of it is done
	x.Client.Cancel(blocked)
	x.W.Run(time.Second)
	if !errors.Is(waiting.Err, client.ErrCanceled) || waiting.Active() || !errors.Is(blocked.Err, client.ErrCanceled) || !both.Active() {
		t.Fatalf("errors %v, %v, the third active: %t", waiting.Err, blocked.Err, both.Active())
	}
	x.SetPrimary(2, 1)
	x.Await(both)
	if both.Err != nil {
		t.Error(both.Err)
	}
}

func TestImageThatIsGone(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4096, 1))
	x.SetPrimary(2, 0)
	op := x.Op(client.Read, 128<<10, 4096)
	x.Client.Submit(op)
	x.Put("config/inode/1/1", `{"name":"disk","size":67108864,"deleted":true}`)
	x.Await(op)
	write := x.Write(0, 4096, 1)
	x.Finish(write)
	if !errors.Is(op.Err, client.ErrGone) || !errors.Is(write.Err, client.ErrGone) {
		t.Errorf("errors %v, %v, want ErrGone", op.Err, write.Err)
	}
	if x.Do(x.Op(client.Delete, 0, 128<<10)); len(x.Objects) != 0 {
		t.Error("the object is still there")
	}
}

func TestLayerWithParent(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Do(x.Write(0, 4096, 1))
	x.Put("config/inode/1/1", `{"name":"disk","size":67108864,"parent_id":2}`)
	x.W.Run(10 * time.Millisecond)
	i, _ := x.Client.Snapshot().Inode(clienttest.Disk)
	x.Do(x.Op(client.Zero, 0, 4096))
	x.Want(0, 4096, 0)
	seen := x.OSDs[1].Seen
	var z wire.Zero
	var r wire.ReadWrite
	_ = z.Decode(&seen[len(seen)-2])
	_ = r.Decode(&seen[len(seen)-1])
	if z.Flags != wire.ZeroKeepWritten || r.MetaRevision != uint64(i.Mod) {
		t.Errorf("zero flags %d, revision %d; want explicit zeroes and %d", z.Flags, r.MetaRevision, i.Mod)
	}
}

func TestChangesInLazyPoolsAreDurable(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.Put(cluster.KeyGlobal, `{"immediate_commit":"none"}`)
	x.W.Run(10 * time.Millisecond)
	x.Do(x.Write(0, 4096, 1))
	seen := x.OSDs[1].Seen
	var r wire.ReadWrite
	_ = r.Decode(&seen[len(seen)-1])
	if r.Session == 0 || r.Flags&wire.FlagLazy != 0 {
		t.Errorf("session %x, flags %x: the OSD would acknowledge it before it is durable", r.Session, r.Flags)
	}
	x.Do(x.Op(client.Flush, 0, 0))
}

func TestListObjects(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	for _, i := range []uint64{0, 1, 5, 77} {
		x.Do(x.Write(i*128<<10, 4096, 1))
	}
	x.SetPrimary(3, 0)
	found := map[uint64]bool{}
	done := false
	s := x.Client.ListObjects(clienttest.Disk, func(stripe uint64) { found[stripe>>17] = true }, func(err error) {
		if err != nil {
			t.Error(err)
		}
		done = true
	})
	x.W.Run(time.Second)
	if pg, ok := s.Waiting(); !ok || pg.Num != 3 || done {
		t.Errorf("waits for %v %t, done %t", pg, ok, done)
	}
	x.SetPrimary(3, 1)
	x.Run("the list", func() bool { return done })
	if len(found) != 4 || !found[0] || !found[1] || !found[5] || !found[77] {
		t.Errorf("found %v", found)
	}
	done = false
	x.SetPrimary(3, 0)
	s = x.Client.ListObjects(clienttest.Disk, func(uint64) {}, func(err error) { done = errors.Is(err, client.ErrCanceled) })
	x.W.Run(time.Second)
	s.Stop()
	x.Run("the stop", func() bool { return done })
}

func TestListingOfManyObjects(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.OSDs[1].MaxList = 3
	const n = 40
	for i := range uint64(n) {
		x.Objects[layout.ObjectID{Inode: clienttest.Disk, Stripe: i * i << 17}] = &clienttest.Object{Version: 1}
	}
	x.Objects[layout.ObjectID{Inode: clienttest.Disk, Stripe: 1 << 60}] = &clienttest.Object{Version: 1}
	found := map[uint64]int{}
	done := false
	x.Client.ListObjects(clienttest.Disk, func(stripe uint64) { found[stripe]++ }, func(err error) {
		if err != nil {
			t.Error(err)
		}
		done = true
	})
	x.Run("the list", func() bool { return done })
	for stripe, times := range found {
		if times != 1 {
			t.Errorf("stripe %x was listed %d times", stripe, times)
		}
	}
	if len(found) != n+1 {
		t.Errorf("%d objects were listed, want %d", len(found), n+1)
	}
	x.OSDs[1].Errno = []int64{wire.EINVAL}
	done = false
	x.Client.ListObjects(clienttest.Disk, func(uint64) {}, func(err error) { done = err == nil })
	x.Run("the list after a refusal", func() bool { return done })
}

func TestCloseEndsEverything(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	x.SetPrimary(2, 0)
	x.OSDs[1].Hold = true
	ops := []*client.Op{x.Write(0, 4096, 1), x.Write(128<<10, 4096, 1), x.Op(client.Read, 0, 1<<20), x.Op(client.Zero, 0, 64<<20)}
	for _, op := range ops {
		x.Client.Submit(op)
	}
	ended := false
	x.Session.Close(func() { ended = true })
	x.W.Run(10 * time.Millisecond)
	closed := false
	x.Client.Close(func() { closed = true })
	x.Await(ops...)
	for _, op := range ops {
		if !errors.Is(op.Err, client.ErrClosed) {
			t.Errorf("%v: %v", op.Kind, op.Err)
		}
	}
	x.Run("close", func() bool { return closed && ended })
	x.Client, x.OSDs[1].Hold = client.New(x.Loop, client.Options{Registry: x.Registry, Key: clienttest.Key, Instance: 5}), false
}

// TestFaultsNeitherLoseNorRepeat writes overlapping ranges of every alignment while replies are lost, connections reset, requests refused and PGs moved.
func TestFaultsNeitherLoseNorRepeat(t *testing.T) {
	const size = 2 << 20
	for seed := range uint64(8) {
		x := clienttest.New(t, 3, nil)
		rng := rand.New(rand.NewPCG(seed, 9))
		model := make([]byte, size)
		primary := layout.OSDNum(1)
		var ops []*client.Op
		parts := 0
		for i := range 150 {
			off := uint64(rng.IntN(size))
			n := uint64(1 + rng.IntN(min(200<<10, size-int(off))))
			if rng.IntN(2) == 0 {
				off &^= 4095
				n = min((n+4095)&^4095, size-off)
			}
			op := x.Write(off, int(n), byte(i+1))
			for j := range n {
				model[off+j] = byte(i + 1)
			}
			parts += int((off+n-1)/(128<<10)-off/(128<<10)) + 1
			ops = append(ops, op)
			x.Client.Submit(op)
			o := x.OSDs[primary]
			switch rng.IntN(12) {
			case 0:
				o.Lose++
			case 1:
				o.Errno = append(o.Errno, wire.EPIPE)
			case 2:
				o.Errno = append(o.Errno, wire.ETIMEDOUT, wire.ENOSPC, wire.EIO)
			case 3:
				x.W.Net.Reset(o.Loop, x.Loop)
			case 4:
				primary = layout.OSDNum(1 + rng.IntN(3))
				for pg := 1; pg <= 4; pg++ {
					x.SetPrimary(pg, primary)
				}
			case 5:
				pg := 1 + rng.IntN(4)
				x.SetPrimary(pg, 0)
				x.W.Run(time.Duration(rng.IntN(3000)) * time.Millisecond)
				x.SetPrimary(pg, primary)
			}
			x.W.Run(time.Duration(rng.IntN(2000)) * time.Microsecond)
		}
		x.Await(ops...)
		for _, op := range ops {
			if op.Err != nil {
				t.Fatalf("seed %d: %v", seed, op.Err)
			}
		}
		for _, o := range x.OSDs {
			o.Errno, o.Lose = nil, 0
		}
		if !bytes.Equal(x.ReadAll(0, size), model) {
			t.Fatalf("seed %d: the image differs from the model", seed)
		}
		if len(x.Carried) != parts {
			t.Errorf("seed %d: %d changes were carried out, want %d", seed, len(x.Carried), parts)
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	const depth = 16
	var writes, reads []*client.Op
	for i := range uint64(depth) {
		writes = append(writes, x.Op(client.Write, i*8192, 8192))
		writes[i].Pieces = x.Fill(8192, 1)
		reads = append(reads, x.Op(client.Read, i*8192, 8192))
	}
	round := func() {
		for i := range depth {
			x.Client.Submit(writes[i])
			x.Client.Submit(reads[i])
		}
		for i := range depth {
			for writes[i].Active() || reads[i].Active() {
				x.W.Step()
			}
			reads[i].ReleaseParts()
		}
	}
	o := x.OSDs[1]
	b := o.Loop.Alloc(8192)
	o.Quick, o.Pieces, o.Bitmap = true, []peer.Piece{{Ref: b, Len: 8192}}, make([]byte, 4)
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
