package sim

import (
	"testing"
	"time"

	"holdfast/core/loop"
)

// TestOneKindOfFaultLeavesTheDrawsOfTheOthersAlone does the same to a disk and a connection with and without faults that change no timing by themselves: everything else is as before.
func TestOneKindOfFaultLeavesTheDrawsOfTheOthersAlone(t *testing.T) {
	type outcome struct {
		took      time.Duration
		disk, net string
		flips     uint64
	}
	run := func(f DiskFaults) outcome {
		b := newBench(t, 9)
		b.d.SetFaults(f)
		for i := range 50 {
			b.do(loop.DiskWrite, int64(i%8)*sector, sector, byte('a'+i%26))
			b.do(loop.DiskRead, 64*sector, sector, 0)
		}
		took := b.w.Elapsed()
		b.l.Kill()
		b.d.Crash(CrashRandom)
		w, _, _, ca, cb := pair(t, 9)
		if f.BitFlip > 0 {
			w.Rand().Uint64() // the test's own draws, and streams, are nobody else's business
			w.Stream("test").Uint64()
		}
		ca.conn.Send(random(5000))
		w.RunUntil(func() bool { return len(cb.got) == 5000 }, time.Second)
		return outcome{took, b.bytes(8), w.Elapsed().String(), b.w.Faults()[FaultBitFlip]}
	}
	with, without := run(DiskFaults{BitFlip: 0.5, ReadError: 0.2}), run(DiskFaults{})
	if with.flips == 0 || without.flips != 0 {
		t.Fatalf("%d and %d bits flipped", with.flips, without.flips)
	}
	with.flips = 0
	if with != without {
		t.Errorf("with bit flips %+v, without %+v", with, without)
	}
}

func TestStreamsAreKnownByTheirNames(t *testing.T) {
	a, b := NewWorld(1), NewWorld(1)
	b.Stream("other").Uint64()
	if x, y := a.Stream("x").Uint64(), b.Stream("x").Uint64(); x != y {
		t.Errorf("one name gave %d and %d", x, y)
	}
	first := a.Stream("x")
	if first != a.Stream("x") || a.Stream("y").Uint64() == NewWorld(2).Stream("y").Uint64() {
		t.Error("a stream starts anew, or does not depend on the seed")
	}
}

func TestHashTellsRunsApart(t *testing.T) {
	run := func(extra bool) uint64 {
		w, _, _, ca, _ := pair(t, 3)
		ca.conn.Send(random(100))
		if extra {
			w.After(time.Millisecond, func() {})
		}
		w.Run(time.Second)
		return w.Hash()
	}
	if a, b := run(false), run(false); a != b {
		t.Errorf("one run has the hashes %x and %x", a, b)
	}
	if run(false) == run(true) {
		t.Error("one event more is not in the hash")
	}
}
