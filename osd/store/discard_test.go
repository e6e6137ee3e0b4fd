package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
)

func TestRunsOfFreeNumbers(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rng.Uint64N(300)
		b := newBitset(n)
		for range rng.IntN(int(n)) {
			b.take(uint32(rng.Uint64N(n)))
		}
		at, most := uint32(rng.Uint64N(n+1)), 1+uint32(rng.IntN(100))
		from := at
		for uint64(from) < n && b.has(from) {
			from++
		}
		end := from
		for uint64(end) < n && !b.has(end) {
			end++
		}
		gotFrom, gotN, whole, ok := b.run(at, most)
		if ok != (uint64(from) < n) || ok && (gotFrom != from || gotN != min(end-from, most) || whole != end-from) {
			t.Fatalf("seed %d: run(%d, %d) = %d, %d, %d, %v, want %d and %d in a row", seed, at, most, gotFrom, gotN, whole, ok, from, end-from)
		}
	}
}

// Free space is discarded, in pieces that are long enough, while clients write; nothing that is stored is touched, also when the power goes in the middle.
func TestDiscardTouchesFreeBlocksOnly(t *testing.T) {
	discarded, mended := 0, 0
	for seed := uint64(1); seed <= 12; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newRig(t, seed, 8<<20, smallConfig)
			rng := rand.New(rand.NewPCG(seed, 2))
			versions := map[uint64]layout.Version{}
			write := func(n uint64) {
				r.write(n, versions[n], versions[n]+1, 0, fill(32<<10, byte('a'+versions[n])))
				versions[n]++
			}
			for n := range uint64(60) {
				write(n)
			}
			for n := range uint64(60) {
				if rng.IntN(2) == 0 {
					r.must(&Op{Kind: OpDelete, Object: obj(n), Base: versions[n], Version: versions[n] + 1, Interval: 7})
					versions[n]++
				}
			}
			r.close()
			r.l.Kill()
			// What is free holds something else, which a discard may take away.
			junk := fill(32<<10, 'J')
			for b := range uint32(r.s.sb.Blocks) {
				if !r.s.blocks.has(b) {
					r.dev.Poke(junk, r.s.sb.blockOff(b))
				}
			}
			for round := range 3 {
				r.process()
				r.o.MinDiscard = 64 << 10
				r.dev.SetFaults(sim.DiskFaults{Slow: 0.3, SlowBy: sim.Delay{Max: 20 * time.Millisecond}}) // so that discards end after writes that began later
				r.mustOpen()
				for range 40 {
					n := 100*uint64(round+1) + rng.Uint64N(30)
					write(n)
					if rng.IntN(4) == 0 {
						r.must(&Op{Kind: OpDelete, Object: obj(n), Base: versions[n], Version: versions[n] + 1, Interval: 7})
						versions[n]++
					}
				}
				check := func() {
					t.Helper()
					for n, v := range versions { // order: each by itself
						st, _ := r.s.State(obj(n))
						if st.Version != v || st.Flags&Tombstone != 0 {
							if st.Version != v {
								t.Fatalf("object %d is at %d, want %d", n, st.Version, v)
							}
							continue
						}
						op := r.do(&Op{Kind: OpRead, Object: obj(n), Len: 32 << 10})
						if op.Err != nil || !bytes.Equal(op.Data.Bytes(), fill(32<<10, byte('a'+v-1))) {
							t.Fatalf("object %d after a discard: %v", n, op.Err)
						}
						op.Data.Release()
					}
				}
				check()
				if round < 2 {
					r.crash(sim.CrashRandom)
					r.l.Kill()
					continue
				}
				r.dev.SetFaults(sim.DiskFaults{})
				r.until("the end of the discards", func() bool { return !r.s.discard.timer.Armed() && r.s.discards == 0 })
				check()
				b := make([]byte, 32<<10)
				for block := range uint32(r.s.sb.Blocks) {
					if r.dev.Peek(b, r.s.sb.blockOff(block)); !r.s.blocks.has(block) && bytes.Equal(b, make([]byte, len(b))) {
						discarded++
					} else if !r.s.blocks.has(block) && bytes.Equal(b, junk) {
						mended++
					}
				}
				if free := r.s.blocks.free; free != r.s.sb.Blocks-uint64(taken(r.s)) {
					t.Errorf("%d blocks are free, %d of %d taken", free, taken(r.s), r.s.sb.Blocks)
				}
				r.close()
			}
		})
	}
	if discarded == 0 {
		t.Error("nothing was discarded")
	}
	t.Logf("%d free blocks were discarded, %d hold what they did", discarded, mended)
}

func taken(s *Store) (n int) {
	for b := range uint32(s.sb.Blocks) {
		if s.blocks.has(b) {
			n++
		}
	}
	return n
}

// Pieces that are too short, a read-only store, and a device that refuses, are left alone.
func TestDiscardsThatAreNotMade(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	for n := range uint64(200) {
		op := r.do(&Op{Kind: OpWrite, Object: obj(n), Version: 1, Interval: 7, Len: 32 << 10, Data: r.data(fill(32<<10, 'a'))})
		if op.Err != nil {
			break
		}
	}
	for n := uint64(0); n < 100; n += 2 {
		if _, there := r.s.State(obj(n)); there {
			r.must(&Op{Kind: OpDelete, Object: obj(n), Base: 1, Version: 2, Interval: 7})
		}
	}
	open := func(least int64, readOnly bool) int {
		r.close()
		r.l.Kill()
		r.process()
		r.o.MinDiscard, r.o.ReadOnly = least, readOnly
		before := r.dev.Counts[loop.DiskDiscard]
		r.mustOpen()
		r.w.Run(10 * time.Second)
		return int(r.dev.Counts[loop.DiskDiscard] - before)
	}
	if n := open(4<<20, false); n != 0 {
		t.Errorf("%d discards of less than the least", n)
	}
	if n := open(32<<10, true); n != 0 {
		t.Errorf("%d discards by a store that is read-only", n)
	}
	if n := open(32<<10, false); n < 40 {
		t.Errorf("%d discards of about 50 free blocks that stand alone", n)
	}
	r.dev.Fail(loop.DiskDiscard, 100, syscall.EIO)
	if n := open(32<<10, false); n != 0 || r.s.Failure() != nil {
		t.Errorf("a device that refuses: %d discards, failure %v", n, r.s.Failure())
	}
	r.expect(1, "1 aaaaaaaa")
	r.close()
}
