package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

func (r *rig) examine() Examination {
	r.t.Helper()
	var out Examination
	done := false
	Examine(r.l, r.disk, r.o, func(e Examination, err error) {
		if err != nil {
			r.t.Fatal(err)
		}
		out, done = e, true
	})
	r.until("examine", func() bool { return done })
	return out
}

// startAccept begins an acceptance; *done is set when it is over.
func (r *rig) startAccept(keep bool) (done *bool, result *error) {
	done, result = new(bool), new(error)
	d, e := done, result
	Accept(r.l, r.disk, keep, r.o, func(_ Superblock, err error) { *e, *d = err, true })
	return done, result
}

func (r *rig) accept(keep bool) error {
	r.t.Helper()
	done, err := r.startAccept(keep)
	r.until("accept", func() bool { return *done })
	return *err
}

// holed makes a store whose journal misses a batch in the middle: object 1 has a change in it, object 2 has changes around it, object 3 changes before it only.
func holed(t testing.TB, seed uint64) (*rig, layout.StoreID) {
	r := newRig(t, seed, 8<<20, smallConfig)
	r.write(9, 0, 1, 0, fill(32<<10, 'z'))
	r.w.Run(5e9)
	r.write(1, 0, 1, 0, fill(4096, 'a'))
	r.write(2, 0, 1, 0, fill(4096, 'a'))
	r.write(3, 0, 1, 0, fill(4096, 'a'))
	r.write(1, 1, 2, 4096, fill(4096, 'b')) // lost
	lost := r.s.j.seq
	r.write(2, 1, 2, 4096, fill(4096, 'b'))
	r.write(1, 2, 3, 8192, fill(4096, 'c'))
	id := r.s.sb.StoreID
	r.crash(sim.CrashDrop)
	for _, b := range r.batches() {
		if b.seq == lost {
			r.dev.Flip(superRegion+int64(b.pos)+200, 1)
		}
	}
	return r, id
}

func TestExamineSaysWhatIsDamagedAndChangesNothing(t *testing.T) {
	r, _ := holed(t, 1)
	before := make([]byte, r.dev.Size())
	r.dev.Peek(before, 0)
	e := r.examine()
	after := make([]byte, r.dev.Size())
	r.dev.Peek(after, 0)
	if string(before) != string(after) {
		t.Error("it changed the device")
	}
	if len(e.Gaps) != 1 || e.Gaps[0].Entries != 1 || e.Gaps[0].After != 2 || e.Gaps[0].Length < journalAlign || e.Gaps[0].Opening != e.Superblock.Boot {
		t.Errorf("gaps %+v", e.Gaps)
	}
	if !e.Damaged() || e.Older != 1 || e.Objects == 0 || e.NotKept != nil || e.Accepted != "" {
		t.Errorf("%+v", e)
	}
	if err := r.open(); err == nil {
		t.Errorf("the store opens: %v", err)
	}
}

func TestAcceptedStoreIsEmptyUnderANewID(t *testing.T) {
	r, id := holed(t, 1)
	if err := r.accept(false); err != nil {
		t.Fatal(err)
	}
	r.mustOpen()
	if sb := r.s.Superblock(); sb.StoreID == id || sb.Boot < 3 {
		t.Errorf("id %v, boot %d", sb.StoreID, sb.Boot)
	}
	for n := range uint64(10) {
		r.expect(n, "0 ........")
	}
	r.close()
	if n, text := r.check(); n != 0 {
		t.Errorf("check: %s", text)
	}
}

func TestKeptStoreLosesOnlyWhatHangsOnTheDamage(t *testing.T) {
	for seed := range uint64(8) {
		r, id := holed(t, seed)
		if err := r.accept(true); err != nil {
			t.Fatal(err)
		}
		if n, text := r.check(); n != 0 {
			t.Errorf("check: %s", text)
		}
		for range 2 {
			r.mustOpen()
			if sb := r.s.Superblock(); sb.StoreID != id {
				t.Errorf("id %v, want %v", sb.StoreID, id)
			}
			r.expect(9, "1 zzzzzzzz")
			r.expect(1, "1 a.......")
			r.expect(2, "2 ab......")
			r.expect(3, "1 a.......")
			r.crash(sim.CrashDrop)
		}
		r.mustOpen()
		r.write(1, 1, 7, 4096, fill(4096, 'y'))
		r.crash(sim.CrashDrop)
		r.mustOpen()
		r.expect(1, "7 ay......")
		if e := r.examine(); e.Damaged() {
			t.Errorf("still damaged: %+v", e.Findings)
		}
	}
}

func TestKeptStoreSurvivesTheLossOfItsWholeJournal(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	r.write(1, 0, 1, 0, fill(32<<10, 'a'))
	r.w.Run(5e9)
	r.write(1, 1, 2, 0, fill(4096, 'b'))
	r.crash(sim.CrashDrop)
	sb := r.super()
	r.dev.Zero(sb.Journal.Off, sb.Journal.Len)
	if e := r.examine(); len(e.Gaps) != 1 || e.Objects != 1 {
		t.Errorf("%+v", e)
	}
	if err := r.accept(true); err != nil {
		t.Fatal(err)
	}
	r.mustOpen()
	r.expect(1, "1 aaaaaaaa")
	r.write(1, 1, 5, 0, fill(4096, 'c'))
	r.crash(sim.CrashDrop)
	r.mustOpen()
	r.expect(1, "5 caaaaaaa")
}

func TestKeptStoreWithDamagedPages(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(r *rig, sb *Superblock)
		first  string // object 1, in page 0
	}{
		{"one copy", func(r *rig, sb *Superblock) { r.dev.Flip(sb.pageOff(0, 0)+100, 1) }, ""},
		{"the other copy", func(r *rig, sb *Superblock) { r.dev.Flip(sb.pageOff(0, 1)+100, 1) }, ""},
		{"one unreadable", func(r *rig, sb *Superblock) { r.dev.FailRange(sb.pageOff(0, 1), 512, syscall.EIO) }, ""},
		{"both copies", func(r *rig, sb *Superblock) { r.dev.Flip(sb.pageOff(0, 0)+100, 1); r.dev.Flip(sb.pageOff(0, 1)+100, 1) }, "0 ........"},
		{"both zeroed", func(r *rig, sb *Superblock) { r.dev.Zero(sb.pageOff(0, 0), 4096); r.dev.Zero(sb.pageOff(0, 1), 4096) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 1, 8<<20, smallConfig)
			for v := range layout.Version(3) {
				for n := range uint64(60) {
					r.write(n, v, v+1, 0, fill(4096, 'a'+byte(v)))
				}
				r.w.Run(5e9)
			}
			r.close()
			sb := r.super()
			c.damage(r, &sb)
			if err := r.open(); err == nil && c.name != "both zeroed" {
				t.Fatal("the damage is not noticed")
			}
			if err := r.accept(true); err != nil {
				t.Fatal(err)
			}
			r.mustOpen()
			if c.first != "" {
				r.expect(0, c.first)
			}
			for n := uint64(50); n < 60; n++ {
				r.expect(n, "3 c.......")
			}
			for n := range uint64(60) {
				st, _ := r.s.Newest(obj(n))
				r.write(n, st.Version, 9, 0, fill(4096, 'x'))
			}
			r.crash(sim.CrashDrop)
			r.mustOpen()
			for n := range uint64(60) {
				r.expect(n, "9 x.......")
			}
			r.close()
			if n, text := r.check(); n != 0 {
				t.Errorf("check: %s", text)
			}
		})
	}
}

func TestBlockWithTwoOwnersGoesToTheLaterOne(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	r.write(1, 0, 1, 0, fill(32<<10, 'a'))
	for n := range uint64(r.s.t.perPage) { // so that their slots are in two pages, one of which may be older than the other
		r.write(100+n, 0, 1, 0, fill(4<<10, 'c'))
	}
	r.write(2, 0, 1, 0, fill(32<<10, 'b'))
	r.w.Run(5e9)
	_, s1, _, _ := r.s.lookup(obj(1))
	_, s2, _, _ := r.s.lookup(obj(2))
	if r.s.t.page(s1) == r.s.t.page(s2) {
		t.Fatal("both objects are in one page")
	}
	slotView(r.s.t.slot(s1)).setBlock(slotView(r.s.t.slot(s2)).block())
	r.s.dirtyPage(r.s.t.page(s1), 0)
	r.close()
	if e, is := errors.AsType[*DamagedError](r.open()); !is || !strings.Contains(e.What, "another one") {
		t.Fatalf("open: %v", e)
	}
	if err := r.accept(true); err != nil {
		t.Fatal(err)
	}
	r.mustOpen()
	r.expect(1, "0 ........")
	r.expect(2, "1 bbbbbbbb")
}

func TestStoreWithoutASuperblockIsNotAccepted(t *testing.T) {
	r, _ := holed(t, 1)
	r.dev.Flip(60, 1)
	r.dev.Flip(superCopy+60, 1)
	for _, keep := range []bool{false, true} {
		if _, is := errors.AsType[*DamagedError](r.accept(keep)); !is {
			t.Error("accepted")
		}
	}
}

// TestInterruptedAcceptance cuts the power at every request to the device, again and again: the store is either as it was, or accepted, and an accepted one opens.
func TestInterruptedAcceptance(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			steps, before, after := 0, 0, 0
			for cut := 0; ; cut++ {
				r, id := holed(t, uint64(cut%5))
				rng := rand.New(rand.NewPCG(uint64(cut), 1))
				done, _ := r.startAccept(keep)
				for n := 0; n < cut && !*done; n++ {
					if !r.w.Step() {
						break
					}
				}
				over := *done
				r.crash(sim.CrashRandom)
				accepted := r.super().StoreID != id || r.super().accept != acceptNone
				// The first openings are interrupted, too.
				for range rng.IntN(3) {
					opened := false
					Open(r.l, r.disk, r.o, func(*Store, error) { opened = true })
					for n := rng.IntN(400); n > 0 && !opened && r.w.Step(); n-- {
					}
					r.crash(sim.CrashRandom)
				}
				err := r.open()
				switch _, damaged := errors.AsType[*DamagedError](err); {
				case err == nil && !keep && r.s.sb.StoreID != id:
					after++
					r.expect(2, "0 ........")
					r.expect(9, "0 ........")
				case err == nil && keep && r.s.sb.StoreID == id:
					after++
					r.expect(9, "1 zzzzzzzz")
					r.expect(1, "1 a.......")
					r.expect(2, "2 ab......")
				case damaged && !accepted && !over:
					before++
					if err := r.accept(keep); err != nil {
						t.Errorf("cut %d: accepting again: %v", cut, err)
					}
					r.mustOpen()
				default:
					t.Fatalf("cut %d: %v (over %v, written down %v)", cut, err, over, accepted)
				}
				r.write(7, 0, 1, 0, fill(4096, 'n'))
				r.crash(sim.CrashDrop)
				r.mustOpen()
				r.expect(7, "1 n.......")
				r.w.Close()
				if steps = cut; over {
					break
				}
			}
			if before == 0 || after == 0 {
				t.Errorf("%d cuts left the store as it was, %d accepted", before, after)
			}
			t.Logf("%d cuts: %d as before, %d accepted", steps, before, after)
		})
	}
}

// super is the superblock that counts.
func (r *rig) super() (best Superblock) {
	b := make([]byte, superSize)
	for _, off := range []int64{0, superCopy} {
		r.dev.Peek(b, off)
		if sb, err := decodeSuperblock(b); err == nil && sb.seq >= best.seq {
			best = sb
		}
	}
	return best
}

// TestAnyDamageCanBeTakenOut flips bits, clears pieces and puts old ones back, in the journal and the metadata: the store can be kept each time, and serves and survives as any other.
func TestAnyDamageCanBeTakenOut(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 15
	}
	damaged := 0
	for seed := range seeds {
		r := newRig(t, seed, 8<<20, smallConfig)
		rng := rand.New(rand.NewPCG(seed, 2))
		mixed(r)
		old := make([]byte, r.dev.Size())
		for range 2 {
			for i := range uint64(30 + rng.IntN(200)) {
				n := i%50 + 20
				st, _ := r.s.Newest(obj(n))
				size := []uint32{4096, 32 << 10}[rng.IntN(2)]
				op := &Op{Kind: OpWrite, Object: obj(n), Base: st.Version, Version: st.Version + 1, Interval: 7, Len: size, Data: r.data(fill(int(size), 'a'+byte(i%26))), Pair: Pair{5, i + 1}, Low: i / 2,
					Unstable: n%5 == 0 || st.Flags&Unstable != 0}
				if rng.IntN(9) == 0 && st.Version != 0 {
					op.Kind, op.Len, op.Data = OpDelete, 0, nil
				}
				if r.do(op); op.Err != nil && op.Err != ErrNoSpace && op.Err != ErrWaiting {
					t.Fatalf("seed %d: %v", seed, op.Err)
				}
				if rng.IntN(20) == 0 && op.Unstable {
					r.do(&Op{Kind: OpCommit, Object: obj(n), Version: st.Version + 1, Interval: 7})
				}
			}
			if rng.IntN(2) == 0 {
				r.w.Run(3e9)
			}
			if old[0] == 0 {
				r.dev.Peek(old, 0)
			}
		}
		r.crash(sim.CrashRandom)
		sb := r.super()
		for range 1 + rng.IntN(6) {
			area := sb.Journal
			if rng.IntN(2) == 0 {
				area = sb.Meta
			}
			off := area.Off + rng.Int64N(area.Len)
			page := off &^ 4095
			switch rng.IntN(3) {
			case 0:
				r.dev.Flip(off, 1<<rng.IntN(8))
			case 1:
				r.dev.Zero(page, 4096<<rng.IntN(3))
			case 2:
				r.dev.Poke(old[page:page+4096], page)
			}
		}
		if e := r.examine(); e.Damaged() {
			damaged++
		}
		if err := r.accept(true); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for round := range 3 {
			if err := r.open(); err != nil {
				t.Fatalf("seed %d: round %d: %v", seed, round, err)
			}
			for n := range uint64(80) {
				if op := r.do(&Op{Kind: OpReadObject, Object: obj(n)}); op.Data != nil {
					op.Data.Release()
				}
			}
			for n := uint64(100); n < 110; n++ {
				st, _ := r.s.Newest(obj(n))
				if st.Version != layout.Version(round) {
					t.Errorf("seed %d: object %d has version %d in round %d", seed, n, st.Version, round)
				}
				r.write(n, st.Version, st.Version+1, 0, fill(4096, 'q'))
			}
			r.crash(sim.CrashRandom)
		}
		r.w.Close()
	}
	if damaged < int(seeds)/4 {
		t.Errorf("only %d of %d stores were damaged", damaged, seeds)
	}
	t.Logf("%d of %d stores were damaged", damaged, seeds)
}

func TestStoreThatWasSetBackStaysRefusedUntilAccepted(t *testing.T) {
	for _, keep := range []bool{false, true} {
		r := newRig(t, 1, 8<<20, smallConfig)
		r.write(1, 0, 1, 0, fill(4096, 'a'))
		seq := r.s.Stats().Sequence
		done := false
		r.s.Condemn(func(err error) {
			if err != nil {
				t.Error(err)
			}
			done = true
		})
		r.until("condemn", func() bool { return done })
		for range 2 {
			r.crash(sim.CrashDrop)
			if _, is := errors.AsType[*SetBackError](r.open()); !is {
				t.Fatal("it opens")
			}
		}
		if e := r.examine(); !e.SetBack || e.Damaged() || e.Objects == 0 {
			t.Errorf("%+v", e)
		}
		if err := r.accept(keep); err != nil {
			t.Fatal(err)
		}
		r.mustOpen()
		r.expect(1, map[bool]string{false: "0 ........", true: "1 a......."}[keep])
		if have := r.s.Stats().Sequence; keep && have < seq+salvageJump {
			t.Errorf("sequence %d after %d: another copy of the disk may pass for it", have, seq)
		}
	}
}
