package sim

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"

	"holdfast/core/loop"
)

func (b *bench) want(f Fault, n uint64) {
	b.t.Helper()
	if got := b.w.Faults()[f]; got != n {
		b.t.Errorf("%v was counted %d times, want %d", f, got, n)
	}
}

func TestLostWriteIsAcknowledgedAndNotThere(t *testing.T) {
	b := newBench(t, 1)
	b.do(loop.DiskSync, 0, 4*sector, 'o')
	b.d.LoseWrites(2)
	for i, kind := range []loop.DiskKind{loop.DiskWrite, loop.DiskSync, loop.DiskWrite} {
		if op := b.do(kind, int64(i)*sector, sector, 'n'); op.Err != nil {
			t.Fatal(op.Err)
		}
	}
	if got := b.bytes(4); got != "oono" {
		t.Errorf("the disk shows %s, want oono", got)
	}
	b.want(FaultLostWrite, 2)
}

func TestMisdirectedWriteLandsElsewhere(t *testing.T) {
	for seed := range uint64(20) {
		b := newBench(t, seed)
		b.do(loop.DiskSync, 0, 8*sector, 'o')
		b.d.MisdirectWrites(1)
		if op := b.do(loop.DiskWrite, 3*sector, 2*sector, 'n'); op.Err != nil {
			t.Fatal(op.Err)
		}
		p := make([]byte, b.d.Size())
		b.d.Peek(p, 0)
		at := bytes.IndexByte(p, 'n')
		if at < 0 || at == 3*sector || at%sector != 0 || bytes.Count(p, []byte{'n'}) != 2*sector || !bytes.Equal(p[at:at+2*sector], bytes.Repeat([]byte{'n'}, 2*sector)) {
			t.Errorf("seed %d: it landed at %d", seed, at)
		}
		b.want(FaultMisdirected, 1)
	}
}

func TestConfinedFaultsSpareTheRest(t *testing.T) {
	for seed := range uint64(20) {
		b := newBench(t, seed)
		b.do(loop.DiskSync, 0, 8*sector, 'o')
		b.d.Confine(4*sector, 4*sector)
		b.d.LoseWrites(1)
		b.d.MisdirectWrites(1)
		for i, want := range []string{"no", "no"} { // the first is lost, the second goes astray
			b.do(loop.DiskWrite, 0, sector, 'n')
			b.do(loop.DiskWrite, 3*sector, 2*sector, 'o') // not all of it is within
			b.do(loop.DiskWrite, int64(5+i)*sector, sector, 'x')
			if got := b.bytes(2); got != want {
				t.Errorf("seed %d: the disk shows %s, want %s", seed, got, want)
			}
		}
		p := make([]byte, b.d.Size())
		b.d.Peek(p, 0)
		if at := bytes.IndexByte(p, 'x'); at < 4*sector || at >= 8*sector || bytes.Count(p, []byte{'x'}) != sector {
			t.Errorf("seed %d: it landed at %d", seed, at)
		}
		b.want(FaultLostWrite, 1)
		b.want(FaultMisdirected, 1)
	}
}

func TestFaultsStrikeByTheirOdds(t *testing.T) {
	for _, c := range []struct {
		f    DiskFaults
		kind loop.DiskKind
		want Fault
		err  error
	}{
		{DiskFaults{ReadError: 0.25}, loop.DiskRead, FaultReadError, syscall.EIO},
		{DiskFaults{WriteError: 0.25}, loop.DiskWrite, FaultWriteError, syscall.EIO},
		{DiskFaults{WriteError: 0.25}, loop.DiskSync, FaultWriteError, syscall.EIO},
		{DiskFaults{FlushError: 0.25}, loop.DiskFlush, FaultFlushError, syscall.EIO},
		{DiskFaults{BitFlip: 0.25}, loop.DiskRead, FaultBitFlip, nil},
		{DiskFaults{Lost: 0.25}, loop.DiskSync, FaultLostWrite, nil},
		{DiskFaults{Misdirect: 0.25}, loop.DiskWrite, FaultMisdirected, nil},
		{DiskFaults{Slow: 0.25, SlowBy: Delay{Min: time.Second, Max: time.Second}}, loop.DiskRead, FaultDiskSlow, nil},
	} {
		b := newBench(t, 5)
		b.d.SetFaults(c.f)
		failed, slow := 0, 0
		for range 400 {
			n := sector
			if c.kind == loop.DiskFlush {
				n = 0
			}
			start := b.w.Elapsed()
			if op := b.do(c.kind, 0, n, 'x'); op.Err != nil {
				if failed++; !errors.Is(op.Err, c.err) {
					t.Errorf("%v: %v", c.want, op.Err)
				}
			}
			if b.w.Elapsed()-start > time.Second {
				slow++
			}
		}
		got := int(b.w.Faults()[c.want])
		if got < 50 || got > 150 {
			t.Errorf("%v struck %d times of 400 with odds of 1/4", c.want, got)
		}
		if c.err != nil && failed != got || c.want == FaultDiskSlow && slow != got {
			t.Errorf("%v was counted %d times: %d operations failed, %d were slow", c.want, got, failed, slow)
		}
		for f, n := range b.w.Faults() {
			if n != 0 && Fault(f) != c.want {
				t.Errorf("%v: there was also %v", c.want, Fault(f))
			}
		}
		b.d.SetFaults(DiskFaults{})
		if op := b.do(c.kind, 0, 0, 0); op.Err != nil {
			t.Errorf("%v does not end: %v", c.want, op.Err)
		}
	}
}

func TestFlippedBitStays(t *testing.T) {
	b := newBench(t, 1)
	if _, ok := b.d.FlipAnywhere(); ok {
		t.Error("a bit of an empty disk was flipped")
	}
	b.do(loop.DiskSync, 0, 4*sector, 0)
	b.do(loop.DiskWrite, 4*sector, 4*sector, 0) // still in the cache
	at := b.d.FlipWithin(4*sector, 4*sector)
	for range 2 {
		op := b.do(loop.DiskRead, 4*sector, 4*sector, 0)
		if n := bytes.Count(op.Data, []byte{0}); n != 4*sector-1 || op.Data[at-4*sector] == 0 {
			t.Errorf("%d bytes of %d are unchanged", n, 4*sector)
		}
		b.do(loop.DiskFlush, 0, 0, 0)
		b.d.Crash(CrashDrop)
		b.restart()
	}
	if _, ok := b.d.FlipAnywhere(); !ok {
		t.Error("no bit was flipped")
	}
	b.want(FaultBitFlip, 2)
}

func TestBackingFileGetsFull(t *testing.T) {
	b := newBench(t, 1)
	b.do(loop.DiskSync, 0, sector, 'a')
	b.d.SetSpace(2 * pageSize)
	if op := b.do(loop.DiskWrite, pageSize, sector, 'b'); op.Err != nil {
		t.Errorf("there was room: %v", op.Err)
	}
	op := b.do(loop.DiskSync, 2*pageSize, sector, 'c')
	if !errors.Is(op.Err, syscall.ENOSPC) || b.d.Used() != 2*pageSize {
		t.Errorf("err = %v with %d used", op.Err, b.d.Used())
	}
	if op := b.do(loop.DiskWrite, 8*sector, sector, 'd'); op.Err != nil {
		t.Errorf("overwriting needs no room: %v", op.Err)
	}
	b.d.SetSpace(0)
	if op := b.do(loop.DiskSync, 2*pageSize, sector, 'c'); op.Err != nil {
		t.Errorf("there is room again: %v", op.Err)
	}
	b.want(FaultNoSpace, 1)
}

func TestEachOperationCanFailInTurn(t *testing.T) {
	for k := 1; ; k++ {
		b := newBench(t, 1)
		b.d.FailNth(0, k, syscall.EIO)
		failed := 0
		for i, kind := range []loop.DiskKind{loop.DiskWrite, loop.DiskFlush, loop.DiskRead, loop.DiskSync} {
			n := sector
			if kind == loop.DiskFlush {
				n = 0
			}
			if op := b.do(kind, 0, n, 'x'); op.Err != nil {
				if failed = i + 1; failed != k {
					t.Errorf("operation %d failed, want %d", failed, k)
				}
			}
		}
		if failed == 0 {
			if k != 5 {
				t.Errorf("the sweep ended at %d, want 5", k)
			}
			return
		}
	}
}

func TestCrashTearsIntoTheTearUnit(t *testing.T) {
	whole, torn := 0, 0
	for seed := range uint64(100) {
		w := NewWorld(seed)
		l, d := w.NewLoop("osd"), w.NewDisk("d", 1<<20, 4096)
		if seed%2 == 0 {
			d.SetTearUnit(512)
		}
		disk, err := l.OpenDisk("d", loop.DiskOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ref := l.Alloc(8192)
		for i := range ref.Bytes() {
			ref.Bytes()[i] = 'n'
		}
		disk.Submit(&loop.DiskOp{Kind: loop.DiskWrite, Data: ref.Bytes(), Done: func(*loop.DiskOp) {}})
		w.Run(time.Second)
		l.Kill()
		d.Crash(CrashTear)
		p := make([]byte, 8192)
		d.Peek(p, 0)
		switch n := bytes.Count(p, []byte{'n'}); {
		case n%512 != 0:
			t.Fatalf("%d bytes were written", n)
		case n%4096 == 0:
			whole++
		case seed%2 == 1:
			t.Fatalf("a sector of 4096 was torn: %d bytes were written", n)
		default:
			torn++
		}
	}
	if torn < 20 || whole < 50 {
		t.Errorf("%d were torn inside of a sector, %d not", torn, whole)
	}
}

func TestCrashMayKeepTheNewerOfTwoWritesAndLoseTheOlder(t *testing.T) {
	seen := map[string]bool{}
	var faults FaultCounts
	for seed := range uint64(60) {
		b := newBench(t, seed)
		b.do(loop.DiskWrite, 0, sector, 'a')
		b.do(loop.DiskWrite, sector, sector, 'b')
		b.l.Kill()
		b.d.Crash(CrashPolicy{Keep: 1, Drop: 1})
		seen[b.bytes(2)] = true
		faults.Add(b.w.Faults())
	}
	for _, s := range []string{"ab", "a.", ".b", ".."} {
		if !seen[s] {
			t.Errorf("never saw %s", s)
		}
	}
	if faults[FaultReordered] == 0 || faults[FaultCacheKept] == 0 || faults[FaultCacheLost] == 0 || faults[FaultDiskCrash] != 60 {
		t.Errorf("counted: %v", faults)
	}
}

func TestDiskSlowsDownAndStalls(t *testing.T) {
	b := newBench(t, 1)
	b.d.SetAllLatency(time.Millisecond, time.Millisecond)
	took := func() time.Duration {
		start := b.w.Elapsed()
		b.do(loop.DiskRead, 0, sector, 0)
		return b.w.Elapsed() - start
	}
	if d := took(); d > 2*time.Millisecond {
		t.Errorf("took %v", d)
	}
	b.d.SetSlow(50)
	if d := took(); d < 50*time.Millisecond {
		t.Errorf("50 times slower it took %v", d)
	}
	b.d.SetSlow(1)
	b.d.StallFor(time.Second)
	b.d.StallFor(3 * time.Second)
	if d := took(); d < 3*time.Second || d > 3100*time.Millisecond {
		t.Errorf("stalled for 3s it took %v", d)
	}
	if d := took(); d > 2*time.Millisecond {
		t.Errorf("after the stall it took %v", d)
	}
	b.want(FaultDiskStall, 1)
	b.want(FaultDiskSlow, 1)
}
