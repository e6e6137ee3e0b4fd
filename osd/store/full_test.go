package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

// fullStore is a store that takes no new object, and what is in it.
type fullStore struct {
	*rig
	rng     *rand.Rand
	objects map[uint64]*fullObject
	order   []uint64 // the keys, in order of making
	version layout.Version
	next    uint64 // number of the next object
	request uint64
}

type fullObject struct {
	version layout.Version
	data    []byte
}

func (f *fullStore) noise(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(f.rng.Uint32()) | 1
	}
	return p
}

// fillUp writes objects, of n bytes each, until the store has no space for another one.
func (f *fullStore) fillUp(n int) {
	f.t.Helper()
	for {
		f.version++
		p := f.noise(n)
		op := f.do(&Op{Kind: OpWrite, Object: obj(f.next), Version: f.version, Interval: 7, Len: uint32(n), Data: f.data(p)})
		if errors.Is(op.Err, ErrNoSpace) {
			return
		}
		if op.Err != nil {
			f.t.Fatal(op.Err)
		}
		f.objects[f.next] = &fullObject{f.version, append(p, make([]byte, int(f.c.BlockSize)-n)...)}
		f.order = append(f.order, f.next)
		f.next++
	}
}

func (f *fullStore) check(when string) {
	f.t.Helper()
	for _, n := range f.order {
		o := f.objects[n]
		op := f.must(&Op{Kind: OpRead, Object: obj(n), Len: f.c.BlockSize})
		if op.State.Version != o.version || !bytes.Equal(op.Data.Bytes(), o.data) {
			f.t.Fatalf("%s: object %d is at version %d, want %d, or its data differs", when, n, op.State.Version, o.version)
		}
		op.Data.Release()
	}
}

// turn makes one change that needs no space in the end. All of them must be taken.
func (f *fullStore) turn() {
	f.t.Helper()
	n := f.order[f.rng.IntN(len(f.order))]
	o := f.objects[n]
	f.version++
	f.request++
	op := &Op{Kind: OpWrite, Object: obj(n), Base: o.version, BaseInterval: 7, Version: f.version, Interval: 7, Pair: Pair{Session: 9, Sequence: f.request}, Low: f.request}
	change := func(off, length int) []byte {
		p := f.noise(length)
		op.Offset, op.Len, op.Data = uint32(off), uint32(length), f.data(p)
		return p
	}
	block := int(f.c.BlockSize)
	now := bytes.Clone(o.data)
	part := f.rng.IntN(block/4096) * 4096
	switch f.rng.IntN(8) {
	case 0:
		copy(now, change(0, block))
	case 1:
		op.Kind, op.Offset, op.Len, op.KeepWritten = OpZero, uint32(part), 4096, true
		if clear(now[part : part+4096]); allZero(now) {
			return // it would give its block back
		}
	case 2:
		copy(now[part:], change(part, 4096))
		op.Unstable = true
		f.must(op)
		f.must(&Op{Kind: OpCommit, Object: obj(n), Version: f.version})
		o.version, o.data = f.version, now
		return
	case 3:
		length := []int{4096, block}[f.rng.IntN(2)]
		if length == block {
			part = 0
		}
		change(part, length)
		op.Unstable = true
		f.must(op)
		f.must(&Op{Kind: OpRollback, Object: obj(n), Version: o.version})
		return
	case 4:
		all := bytes.Repeat([]byte{0xff}, f.s.sb.Config.BitmapLen())
		op.Kind, op.Bitmap, op.Present, op.Pair = OpReplace, all, all, Pair{}
		now = change(0, block)
		op.Offset, op.Len = 0, 0
	case 5:
		done := false
		f.s.PutPG(f.record(uint32(1+f.rng.IntN(8))), func(err error) {
			if done = true; err != nil {
				f.t.Fatal(err)
			}
		})
		f.until("a PG's record", func() bool { return done })
		return
	default:
		copy(now[part:], change(part, 4096))
	}
	f.must(op)
	o.version, o.data = f.version, now
}

func (f *fullStore) record(pg uint32) PGRecord {
	r := PGRecord{PG: layout.PGID{Pool: 1, Num: pg}, Generation: 1, Interval: layout.Interval(f.version), Primary: 1}
	for i := range 12 {
		r.Participants = append(r.Participants, Member{OSD: layout.OSDNum(i), Store: layout.StoreID{byte(i)}})
	}
	return r
}

// TestFullStoreGoesOn fills a store, and has it go on with all that needs no space in the end for several laps of its journal. New objects are refused all the time, replacements go where writes may not, and what
// is deleted gives its space back.
func TestFullStoreGoesOn(t *testing.T) {
	for seed := range uint64(2) {
		for _, part := range []int{4096, 32 << 10} {
			t.Run(fmt.Sprintf("seed %d, objects of %d bytes", seed, part), func(t *testing.T) {
				f := &fullStore{rig: newRig(t, seed, 6<<20, smallConfig), rng: rand.New(rand.NewPCG(seed, 1)), objects: map[uint64]*fullObject{}}
				before := f.s.Stats()
				f.fillUp(part)
				if st := f.s.Stats(); st.FreeBlocks != 0 || uint64(len(f.order)) < before.FreeBlocks {
					t.Fatalf("%d blocks are free after %d objects, %d before", st.FreeBlocks, len(f.order), before.FreeBlocks)
				}
				for i := range 900 {
					f.turn()
					if i%100 == 0 {
						f.version++
						op := f.do(&Op{Kind: OpWrite, Object: obj(f.next), Version: f.version, Interval: 7, Len: 4096, Data: f.data(f.noise(4096))})
						if !errors.Is(op.Err, ErrNoSpace) {
							t.Fatalf("after %d turns a new object is answered %v", i, op.Err)
						}
					}
				}
				f.check("full")
				// Recovery has some space left.
				all := bytes.Repeat([]byte{0xff}, f.s.sb.Config.BitmapLen())
				brought := 0
				for {
					p := f.noise(int(f.c.BlockSize))
					f.version++
					op := f.do(&Op{Kind: OpReplace, Object: obj(f.next), Version: f.version, Interval: 7, Data: f.data(p), Bitmap: all, Present: all})
					if errors.Is(op.Err, ErrNoSpace) {
						break
					}
					if op.Err != nil {
						t.Fatal(op.Err)
					}
					f.objects[f.next] = &fullObject{f.version, p}
					f.order = append(f.order, f.next)
					f.next++
					brought++
				}
				if brought == 0 {
					t.Error("nothing is kept back for recovery")
				}
				for range 300 {
					f.turn()
				}
				f.check("full of what recovery brought")
				f.crash(sim.CrashRandom)
				f.mustOpen()
				f.check("full, after a crash")
				for range 100 {
					f.turn()
				}
				for _, n := range f.order {
					f.version++
					f.request++
					f.must(&Op{Kind: OpDelete, Object: obj(n), Base: f.objects[n].version, Version: f.version, Interval: 8, Pair: Pair{Session: 9, Sequence: f.request}, Low: f.request})
					f.must(&Op{Kind: OpForget, Object: obj(n), Base: f.version})
				}
				if st := f.s.Stats(); st.FreeBlocks != before.FreeBlocks || st.FreeSlots != before.FreeSlots || st.Objects != 0 {
					t.Errorf("empty again, it has %d blocks and %d places free, %d and %d before, and %d objects", st.FreeBlocks, st.FreeSlots, before.FreeBlocks, before.FreeSlots, st.Objects)
				}
				f.order = nil
				f.fillUp(part)
				f.check("full again")
			})
		}
	}
}

// TestRecordsOfManyPGs has a store remember PGs until it refuses another one. It says why, goes on with those that it has for several laps of its journal, and remembers more when some were dropped.
func TestRecordsOfManyPGs(t *testing.T) {
	f := &fullStore{rig: newRig(t, 5, 6<<20, smallConfig), rng: rand.New(rand.NewPCG(5, 1)), objects: map[uint64]*fullObject{}}
	f.fillUp(32 << 10)
	put := func(pg uint32) (err error) {
		done := false
		f.version++
		f.s.PutPG(f.record(pg), func(e error) { err, done = e, true })
		f.until("a PG's record", func() bool { return done })
		return err
	}
	n := uint32(0)
	for {
		err := put(n + 1)
		if errors.Is(err, ErrNoSpace) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n < 100 {
		t.Fatalf("only %d PGs are remembered", n)
	}
	for range 4 {
		for pg := range n {
			if err := put(pg + 1); err != nil {
				t.Fatalf("a PG that is remembered: %v", err)
			}
			f.turn()
		}
	}
	f.check("with many PGs")
	f.crash(sim.CrashRandom)
	f.mustOpen()
	if have := len(f.s.PGs()); have != int(n) {
		t.Fatalf("%d PGs are remembered after a crash, want %d", have, n)
	}
	if err := put(n + 1); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("one more PG after a crash: %v", err)
	}
	f.s.DropPG(layout.PGID{Pool: 1, Num: 1}, nil)
	if err := put(n + 1); err != nil {
		t.Fatalf("one more PG when another was dropped: %v", err)
	}
	f.check("at last")
}

// Changes find room also where more than half of the journal is kept for what is carried forward.
func TestJournalGoesOnWhereMostOfItIsKept(t *testing.T) {
	r := newRig(t, 2, 64<<20, Config{BlockSize: 16 << 10, Granularity: 4096, JournalSize: 640 << 10})
	n := uint64(0)
	for st := r.s.Stats(); n < st.MaxPairs-r.s.Stats().Pairs; n++ {
		op := r.do(&Op{Kind: OpWrite, Object: chunk(n, 1), Version: 3, Interval: 7, Unstable: true, Pair: Pair{10, 1 + n}})
		if errors.Is(op.Err, ErrWaiting) {
			break
		}
	}
	o := obj(999)
	for v := layout.Version(1); ; v++ {
		if op := r.do(&Op{Kind: OpWrite, Object: o, Base: v - 1, Version: v, Pair: Pair{11, uint64(v)}}); op.Err != nil {
			break
		}
	}
	if keep := r.s.j.keep(); keep <= r.s.j.size/2 {
		t.Errorf("%d bytes are kept, the journal has %d", keep, r.s.j.size)
	}
	was := r.s.deviceWrites
	for range 300 {
		st, _ := r.s.Newest(o)
		r.must(&Op{Kind: OpWrite, Object: o, Base: st.Version, Version: st.Version + 1, Len: 12 << 10, Data: r.data(fill(12<<10, 'y'))})
	}
	if w := r.s.deviceWrites - was; w > 300*20 {
		t.Errorf("%d device writes for 300 changes", w)
	}
}
