package sim

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"holdfast/core/loop"
)

const sector = 512

// bench is a process with a disk.
type bench struct {
	t    *testing.T
	w    *World
	l    *Loop
	d    *Disk
	disk loop.Disk
}

func newBench(t *testing.T, seed uint64) *bench {
	t.Helper()
	b := &bench{t: t, w: NewWorld(seed)}
	b.l = b.w.NewLoop("osd")
	b.d = b.w.NewDisk("d", 1<<20, sector)
	b.open(loop.DiskOptions{})
	return b
}

func (b *bench) open(o loop.DiskOptions) {
	b.t.Helper()
	var err error
	if b.disk, err = b.l.OpenDisk("d", o); err != nil {
		b.t.Fatal(err)
	}
}

// restart is a new process on the same disk.
func (b *bench) restart() {
	b.l.Kill()
	b.l = b.w.NewLoop("osd")
	b.open(loop.DiskOptions{})
}

// submit starts an operation; the write's bytes are all fill.
func (b *bench) submit(kind loop.DiskKind, off int64, n int, fill byte) *loop.DiskOp {
	op := &loop.DiskOp{Kind: kind, Off: off, Done: func(*loop.DiskOp) {}}
	if n > 0 {
		op.Data = b.l.Alloc(n).Bytes()
		for i := range op.Data {
			op.Data[i] = fill
		}
	}
	b.disk.Submit(op)
	return op
}

func (b *bench) do(kind loop.DiskKind, off int64, n int, fill byte) *loop.DiskOp {
	op := b.submit(kind, off, n, fill)
	done := false
	op.Done = func(*loop.DiskOp) { done = true }
	if !b.w.RunUntil(func() bool { return done }, time.Minute) {
		b.t.Fatalf("%s at %d does not complete", kind, off)
	}
	return op
}

// bytes is one letter per sector of what the disk shows.
func (b *bench) bytes(n int) string {
	p := make([]byte, n*sector)
	b.d.Peek(p, 0)
	var s []byte
	for i := range n {
		c := p[i*sector]
		if c == 0 {
			c = '.'
		}
		if !bytes.Equal(p[i*sector:(i+1)*sector], bytes.Repeat(p[i*sector:i*sector+1], sector)) {
			c = '?'
		}
		s = append(s, c)
	}
	return string(s)
}

func TestReadsSeeCompletedWrites(t *testing.T) {
	b := newBench(t, 1)
	b.do(loop.DiskWrite, 0, 1024, 'a')
	b.do(loop.DiskSync, 512, 512, 'b')
	op := b.do(loop.DiskRead, 0, 2048, 'x')
	want := append(append(bytes.Repeat([]byte{'a'}, 512), bytes.Repeat([]byte{'b'}, 512)...), make([]byte, 1024)...)
	if op.Err != nil || !bytes.Equal(op.Data, want) {
		t.Errorf("read %v, wrong bytes", op.Err)
	}
	vec := &loop.DiskOp{Kind: loop.DiskRead, Vec: [][]byte{b.l.Alloc(512).Bytes(), b.l.Alloc(1024).Bytes()}, Done: func(*loop.DiskOp) {}}
	b.disk.Submit(vec)
	b.w.Run(time.Second)
	if !bytes.Equal(vec.Vec[0], want[:512]) || !bytes.Equal(vec.Vec[1], want[512:1536]) {
		t.Error("a read into pieces differs")
	}
}

func TestFlushCoversWhatHadCompleted(t *testing.T) {
	b := newBench(t, 1)
	b.do(loop.DiskWrite, 0, sector, 'a')
	flush := b.submit(loop.DiskFlush, 0, 0, 0)
	b.d.SetLatency(loop.DiskWrite, 0, 1) // overtakes the flush
	b.d.SetLatency(loop.DiskFlush, time.Second, time.Second)
	late := b.do(loop.DiskWrite, sector, sector, 'b')
	b.do(loop.DiskSync, 2*sector, sector, 'c')
	b.w.Run(2 * time.Second)
	if flush.Err != nil || late.Err != nil {
		t.Fatal(flush.Err, late.Err)
	}
	b.l.Kill()
	b.d.Crash(CrashDrop)
	if got := b.bytes(4); got != "a.c." {
		t.Errorf("after the crash %s, want a.c.", got)
	}
}

func TestCrashKeepsDropsOrTearsBySector(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(5000) {
		b := newBench(t, seed)
		b.do(loop.DiskSync, 0, 4*sector, 'o')
		b.do(loop.DiskWrite, 0, 2*sector, 'n')
		b.submit(loop.DiskSync, 2*sector, 2*sector, 'm')
		b.l.Kill()
		b.d.Crash(CrashRandom)
		got := b.bytes(4)
		if bytes.ContainsAny([]byte(got), "?.") {
			t.Fatalf("seed %d: %s: a sector that is neither old nor new", seed, got)
		}
		seen[got] = true
	}
	if len(seen) != 16 {
		t.Errorf("5,000 crashes left %d different disks, want all 16", len(seen))
	}
}

func TestKillLeavesWritesInFlightToChance(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(100) {
		b := newBench(t, seed)
		b.do(loop.DiskWrite, 0, 2*sector, 'o')
		b.submit(loop.DiskWrite, 0, 2*sector, 'n')
		b.restart()
		first := b.bytes(2)
		b.w.Run(time.Second)
		if got := b.bytes(2); got != first {
			t.Fatalf("seed %d: the dead process's write came later: %s then %s", seed, first, got)
		}
		seen[first] = true
	}
	if len(seen) != 4 {
		t.Errorf("saw %v, want oo, on, no, nn", seen)
	}
}

func TestDiskFaults(t *testing.T) {
	b := newBench(t, 1)
	b.do(loop.DiskSync, 0, 4*sector, 'a')
	b.d.Fail(loop.DiskWrite, 1, syscall.ENOSPC)
	if op := b.do(loop.DiskWrite, 0, sector, 'b'); !errors.Is(op.Err, syscall.ENOSPC) || b.bytes(1) != "a" {
		t.Errorf("full disk: %v, holds %s", op.Err, b.bytes(1))
	}
	if op := b.do(loop.DiskWrite, 0, sector, 'b'); op.Err != nil || b.bytes(1) != "b" {
		t.Errorf("after the fault: %v, holds %s", op.Err, b.bytes(1))
	}
	b.d.FailRange(sector, 2*sector, syscall.EIO)
	b.do(loop.DiskWrite, sector, sector, 'c')
	if op := b.do(loop.DiskRead, 0, 2*sector, 0); op.Err != nil {
		t.Errorf("a rewritten bad sector: %v", op.Err)
	}
	if op := b.do(loop.DiskRead, 0, 4*sector, 0); !errors.Is(op.Err, syscall.EIO) {
		t.Errorf("a bad sector: %v", op.Err)
	}
	b.d.Flip(3*sector+7, 0x10)
	b.d.Zero(0, sector)
	if got := b.bytes(4); got != ".ca?" {
		t.Errorf("damaged disk shows %s, want .ca?", got)
	}
	b.d.Fail(loop.DiskFlush, 1, syscall.EIO)
	if op := b.do(loop.DiskFlush, 0, 0, 0); !errors.Is(op.Err, syscall.EIO) || b.d.Unflushed() == 0 {
		t.Errorf("failed flush: %v, %d not flushed", op.Err, b.d.Unflushed())
	}
	b.d.Stall(true)
	op := b.submit(loop.DiskRead, 0, sector, 0)
	done := false
	op.Done = func(*loop.DiskOp) { done = true }
	b.w.Run(time.Minute)
	if done {
		t.Error("an operation completed on a stalled disk")
	}
	b.d.Stall(false)
	b.w.Run(time.Second)
	if !done {
		t.Error("the stall does not end")
	}
}

func TestBadOperationsAreRefused(t *testing.T) {
	b := newBench(t, 1)
	mem := b.l.Alloc(4096).Bytes()
	for _, c := range []struct {
		name string
		op   loop.DiskOp
	}{
		{"past the end", loop.DiskOp{Kind: loop.DiskRead, Off: 1 << 20, Data: mem[:512]}},
		{"negative offset", loop.DiskOp{Kind: loop.DiskRead, Off: -512, Data: mem[:512]}},
		{"odd offset", loop.DiskOp{Kind: loop.DiskWrite, Off: 1, Data: mem[:512]}},
		{"odd length", loop.DiskOp{Kind: loop.DiskWrite, Data: mem[:100]}},
		{"odd memory", loop.DiskOp{Kind: loop.DiskWrite, Data: mem[8:520]}},
		{"no kind", loop.DiskOp{Data: mem[:512]}},
		{"discard past the end", loop.DiskOp{Kind: loop.DiskDiscard, Len: 2 << 20}},
	} {
		done := 0
		c.op.Done = func(*loop.DiskOp) { done++ }
		b.disk.Submit(&c.op)
		if done != 0 {
			t.Errorf("%s: done inside Submit", c.name)
		}
		b.w.Run(time.Second)
		if done != 1 || c.op.Err == nil {
			t.Errorf("%s: done %d times, err %v", c.name, done, c.op.Err)
		}
	}
	if _, err := b.l.OpenDisk("other", loop.DiskOptions{}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a disk that is not there: %v", err)
	}
	closed := false
	b.disk.Close(func() { closed = true })
	b.w.Run(time.Second)
	if !closed {
		t.Error("Close does not end")
	}
	b.open(loop.DiskOptions{Exclusive: true, ReadOnly: true})
	if _, err := b.l.OpenDisk("d", loop.DiskOptions{Exclusive: true}); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("opened twice: %v", err)
	}
	if op := b.do(loop.DiskWrite, 0, sector, 'x'); !errors.Is(op.Err, syscall.EBADF) {
		t.Errorf("write to a read-only disk: %v", op.Err)
	}
}

func TestChangingALentBufferPanics(t *testing.T) {
	b := newBench(t, 1)
	op := b.submit(loop.DiskWrite, 0, sector, 'a')
	op.Data[5]++
	defer func() {
		if recover() == nil {
			t.Error("nobody noticed")
		}
	}()
	b.w.Run(time.Second)
}

// TestPlayerAgreesWithTheDisk crashes a replayed recording at each step and compares with what must and may be there.
func TestPlayerAgreesWithTheDisk(t *testing.T) {
	b := newBench(t, 1)
	b.do(loop.DiskWrite, 0, sector, 'o')
	rec := b.d.Record()
	b.do(loop.DiskWrite, sector, sector, 'a')
	b.do(loop.DiskFlush, 0, 0, 0)
	b.do(loop.DiskSync, 2*sector, sector, 'b')
	b.submit(loop.DiskWrite, 3*sector, sector, 'c')
	b.w.Run(time.Second)
	if len(rec.Ops) != 4 || len(rec.Log) != 8 {
		t.Fatalf("%d operations and %d steps recorded, want 4 and 8", len(rec.Ops), len(rec.Log))
	}
	for _, policy := range []struct {
		name string
		p    CrashPolicy
		want []string // after each step
	}{
		{"drop", CrashDrop, []string{"....", "....", "....", "....", "oa..", "oa..", "oab.", "oab.", "oab."}},
		{"keep", CrashKeep, []string{"o...", "oa..", "oa..", "oa..", "oa..", "oab.", "oab.", "oabc", "oabc"}},
	} {
		p := rec.Player()
		for i, want := range policy.want {
			p.Seek(i)
			w := NewWorld(uint64(i))
			c := bench{w: w, d: p.Crash(w, "copy", policy.p, rand.New(rand.NewPCG(1, 1)))}
			if got := c.bytes(4); got != want {
				t.Errorf("%s at step %d: %s, want %s", policy.name, i, got, want)
			}
			c.d.Poke(bytes.Repeat([]byte{'z'}, sector), 0) // must not reach the player's disk
		}
		if p.Step() {
			t.Error("a step after the end")
		}
	}
}

func TestCrashUnderALivingProcessGivesErrors(t *testing.T) {
	b := newBench(t, 1)
	op := b.submit(loop.DiskWrite, 0, sector, 'a')
	b.d.Crash(CrashKeep)
	b.w.Run(time.Second)
	if !errors.Is(op.Err, syscall.EIO) {
		t.Errorf("in flight: %v", op.Err)
	}
	if op := b.do(loop.DiskRead, 0, sector, 0); !errors.Is(op.Err, syscall.EIO) {
		t.Errorf("later: %v", op.Err)
	}
}

// TestDiskAgainstPlainBytes runs random operations one at a time against a byte slice.
func TestDiskAgainstPlainBytes(t *testing.T) {
	b := newBench(t, 5)
	rng := b.w.Rand()
	want := make([]byte, 1<<20)
	for i := range 2000 {
		n := (1 + rng.IntN(300)) * sector
		off := int64(rng.IntN((len(want)-n)/sector+1)) * sector
		switch rng.IntN(5) {
		case 0:
			op := b.do(loop.DiskRead, off, n, 0)
			if !bytes.Equal(op.Data, want[off:off+int64(n)]) {
				t.Fatalf("read %d at %d differs", n, off)
			}
		case 1, 2:
			b.do(loop.DiskWrite, off, n, byte(i))
			copy(want[off:], bytes.Repeat([]byte{byte(i)}, n))
		case 3:
			b.do(loop.DiskSync, off, n, byte(i))
			copy(want[off:], bytes.Repeat([]byte{byte(i)}, n))
		case 4:
			b.do(loop.DiskFlush, 0, 0, 0)
		}
	}
	b.do(loop.DiskFlush, 0, 0, 0)
	b.l.Kill()
	b.d.Crash(CrashDrop)
	got := make([]byte, len(want))
	b.d.Peek(got, 0)
	if !bytes.Equal(got, want) {
		t.Error("flushed bytes did not survive the crash")
	}
}

func TestDiskOperationsAllocateNothing(t *testing.T) {
	b := newBench(t, 1)
	done := false
	op := &loop.DiskOp{Data: b.l.Alloc(4096).Bytes(), Done: func(*loop.DiskOp) { done = true }}
	finished := func() bool { return done }
	got := testing.AllocsPerRun(500, func() {
		for _, k := range []loop.DiskKind{loop.DiskWrite, loop.DiskSync, loop.DiskRead, loop.DiskFlush} {
			done = false
			op.Kind = k
			b.disk.Submit(op)
			b.w.RunUntil(finished, time.Second)
		}
	})
	if got > 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}
