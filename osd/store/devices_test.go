package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
)

// images are the contents of all disks of a rig.
func (r *rig) images() (out [3][]byte) {
	for i, name := range []string{"d", "m", "j"} {
		d := r.w.Disk(name)
		out[i] = make([]byte, d.Size())
		d.Peek(out[i], 0)
	}
	return out
}

// TestStoreOnSeveralDevices does a bit of everything on each layout, checks, dumps and accepts.
func TestStoreOnSeveralDevices(t *testing.T) {
	for _, p := range splits[1:] {
		t.Run(p.String(), func(t *testing.T) {
			r := newRigOn(t, 1, 8<<20, smallConfig, p)
			sb := r.s.Superblock()
			if sb.Data.Device != 0 || (sb.Meta.Device != 0) != (p.meta == "m") || (sb.Journal.Device != 0) != (p.journal == "j" || p.journal == "" && p.meta == "m") {
				t.Fatalf("data on %v, metadata on %v, journal on %v", sb.Data, sb.Meta, sb.Journal)
			}
			mixed(r)
			r.crash(sim.CrashDrop)
			r.mustOpen()
			checkMixed(r)
			r.close()
			before := r.images()
			if n, text := r.check(); n != 0 {
				t.Errorf("%d problems: %s", n, text)
			}
			var out bytes.Buffer
			done := false
			Dump(r.l, r.disk, &out, false, func(err error) {
				if err != nil {
					t.Error(err)
				}
				done = true
			})
			r.until("dump", func() bool { return done })
			for _, want := range []string{"batch", obj(1).String(), "sim-m"} {
				if p.meta == "" && want == "sim-m" {
					want = "sim-j"
				}
				if !strings.Contains(out.String(), want) {
					t.Errorf("the dump does not mention %q:\n%s", want, out.String())
				}
			}
			if !sameImages(r.images(), before) {
				t.Error("looking has changed a device")
			}
			for _, keep := range []bool{true, false} {
				done := false
				Accept(r.l, r.disk, keep, r.o, func(now Superblock, err error) {
					if err != nil || (now.StoreID == sb.StoreID) != keep {
						t.Errorf("accept, keep %v: %v, store %v of %v", keep, err, now.StoreID, sb.StoreID)
					}
					done = true
				})
				r.until("accept", func() bool { return done })
				r.mustOpen()
				if keep {
					checkMixed(r)
				} else {
					r.expect(1, "0 ........")
				}
				r.close()
			}
		})
	}
}

func sameImages(a, b [3][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// TestWrongDevicesAreRefused opens a store on what is not its devices: the message names device and way out, and nothing is written.
func TestWrongDevicesAreRefused(t *testing.T) {
	three := split{meta: "m", journal: "j"}
	for _, c := range []struct {
		name   string
		split  split
		before func(r *rig) // with the store closed, or its process dead
		data   string
		given  split
		device string
		what   string
		way    string
	}{
		{"no devices", three, nil, "d", split{}, "sim-d", "metadata of store STORE is on another device, which was sim-m", "--meta_device"},
		{"no journal device", split{journal: "j"}, nil, "d", split{}, "sim-d", "journal of store STORE is on another device, which was sim-j", "--journal_device"},
		{"no third device", three, nil, "d", split{meta: "m"}, "d", "journal of store STORE is on another device, which was sim-j", "--journal_device"},
		{"one too many", split{}, nil, "d", split{journal: "j"}, "j", "has its journal on the data device", "give --journal_device"},
		{"a meta device too many", split{}, nil, "d", split{meta: "m"}, "m", "has its metadata on the data device", "leave out"},
		{"the journal is with the metadata", split{meta: "m"}, nil, "d", three, "j", "nothing on a third device", "leave it out"},
		{"swapped", three, nil, "d", split{meta: "j", journal: "m"}, "j", "it has the journal of store STORE and is given for its metadata", "swapped"},
		{"the data device is another", three, nil, "m", split{meta: "d", journal: "j"}, "m", "it has the metadata of store STORE, not its data", "as the data device"},
		{"empty", three, func(r *rig) { r.w.Disk("j").Zero(0, 8<<20) }, "d", three, "j", "nothing of a store is on it, not the journal of store STORE, which was on sim-j", "the whole store is lost"},
		{"too small", three, nil, "d", split{meta: "m", journal: "tiny"}, "tiny", "nothing of a store is on it", "right device"},
		{"damaged", three, func(r *rig) { r.w.Disk("m").Flip(60, 1); r.w.Disk("m").Flip(superCopy+60, 1) }, "d", three, "m", "neither copy is good", "right device"},
		{"of another store", three, nil, "d", split{meta: "m", journal: "other j"}, "other j", "not the journal of store STORE", "right device"},
		{"another one-device store", three, nil, "d", split{meta: "m", journal: "alone"}, "alone", "it has the data and metadata and journal of store", "right device"},
		{"an old journal", three, func(r *rig) { r.restoreAfterReopening("j") }, "d", three, "j", "an older state of the journal", "last used"},
		{"old metadata", three, func(r *rig) { r.restoreAfterReopening("m") }, "d", three, "m", "an older state of the metadata", "last used"},
		{"old data", three, func(r *rig) { r.restoreAfterReopening("d") }, "d", three, "d", "an older state of the data", "last used"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRigOn(t, 1, 8<<20, smallConfig, c.split)
			id := r.s.Superblock().StoreID.String()
			r.write(1, 0, 1, 0, fill(4096, 'a'))
			r.close()
			r.w.NewDisk("tiny", 64<<10, 512)
			for _, name := range []string{"alone", "other", "other m", "other j"} {
				r.w.NewDisk(name, 8<<20, 512)
			}
			mine := r.disk
			for _, r.disk = range []loop.Disk{r.join(split{meta: "other m", journal: "other j"}, "other"), r.join(split{}, "alone")} {
				if _, err := r.format(smallConfig); err != nil {
					t.Fatal(err)
				}
			}
			if r.disk = mine; c.before != nil {
				c.before(r)
			}
			r.disk = r.join(c.given, c.data)
			before := r.images()
			err := r.open()
			e, is := errors.AsType[*WrongDeviceError](err)
			if want := strings.ReplaceAll(c.what, "STORE", id); !is || e.Name != c.device || !strings.Contains(e.What, want) || !strings.Contains(e.Way, c.way) {
				t.Fatalf("open: %v (%+v); want something about device %q, %q and %q", err, e, c.device, want, c.way)
			}
			// Neither emptying what is damaged nor looking at it is possible.
			r.o.AcceptDamage = true
			if err := r.open(); !errors.As(err, new(*WrongDeviceError)) {
				t.Errorf("open, accepting damage: %v", err)
			}
			done := 0
			Accept(r.l, r.disk, false, r.o, func(_ Superblock, err error) {
				if !errors.As(err, new(*WrongDeviceError)) {
					t.Errorf("accept: %v", err)
				}
				done++
			})
			Examine(r.l, r.disk, r.o, func(_ Examination, err error) {
				if !errors.As(err, new(*WrongDeviceError)) {
					t.Errorf("examine: %v", err)
				}
				done++
			})
			Check(r.l, r.disk, new(bytes.Buffer), nil, func(_ int, err error) {
				if !errors.As(err, new(*WrongDeviceError)) {
					t.Errorf("check: %v", err)
				}
				done++
			})
			r.until("looking", func() bool { return done == 3 })
			if _, err := r.format(smallConfig); !errors.As(err, new(*OccupiedError)) && c.data == "d" {
				t.Errorf("format over it: %v", err)
			}
			if !sameImages(r.images(), before) {
				t.Error("something was written")
			}
		})
	}
}

// restoreAfterReopening brings a disk back to what it was before the store was opened again.
func (r *rig) restoreAfterReopening(name string) {
	d := r.w.Disk(name)
	b := make([]byte, d.Size())
	d.Peek(b, 0)
	for range 2 { // two writes of the superblock: one may be half done
		r.mustOpen()
		r.close()
	}
	d.Poke(b, 0)
}

// TestOpeningMayBeCutBetweenSuperblocks cuts the power at each of the writes that begin an opening.
func TestOpeningMayBeCutBetweenSuperblocks(t *testing.T) {
	for n := 1; n <= 40; n++ {
		r := newRigOn(t, uint64(n), 8<<20, smallConfig, split{meta: "m", journal: "j"})
		r.write(1, 0, 1, 0, fill(4096, 'a'))
		r.close()
		for k := range 3 {
			done := false
			Open(r.l, r.disk, r.o, func(*Store, error) { done = true })
			for steps := 0; !done && steps < n*(k+1); {
				if before := r.counts(); r.w.Step() && r.counts() != before {
					steps++
				}
			}
			r.crash(sim.CrashRandom)
		}
		r.mustOpen()
		r.expect(1, "1 a.......")
	}
}

func (r *rig) counts() (n uint64) {
	for _, name := range []string{"d", "m", "j"} {
		for _, c := range r.w.Disk(name).Counts {
			n += c
		}
	}
	return n
}

// TestFlushGoesWhereItIsNeeded counts the flushes of each device.
func TestFlushGoesWhereItIsNeeded(t *testing.T) {
	r := newRigOn(t, 1, 8<<20, smallConfig, split{meta: "m", journal: "j"})
	d := r.disk
	do := func(kind loop.DiskKind, addr int64) {
		t.Helper()
		done := false
		ref := r.data(fill(4096, 'x'))
		defer ref.Release()
		d.Submit(&loop.DiskOp{Kind: kind, Off: addr, Data: ref.Bytes(), Done: func(op *loop.DiskOp) {
			if done = true; op.Err != nil {
				t.Error(op.Err)
			}
		}})
		if done {
			t.Error("an operation is done inside Submit")
		}
		r.until("an operation", func() bool { return done })
	}
	flushes := func() string {
		out := ""
		for _, name := range []string{"d", "m", "j"} {
			out += fmt.Sprint(r.w.Disk(name).Counts[loop.DiskFlush], " ")
		}
		return strings.TrimSpace(out)
	}
	r.close()
	do(loop.DiskFlush, 0)
	for _, c := range []struct {
		kind   loop.DiskKind
		device int64
		want   [3]int
	}{{loop.DiskWrite, 0, [3]int{1, 0, 0}}, {loop.DiskWrite, 1, [3]int{0, 1, 0}}, {loop.DiskWrite, 2, [3]int{0, 0, 1}}, {loop.DiskSync, 2, [3]int{}}, {loop.DiskRead, 1, [3]int{}}} {
		var before, after [3]int
		fmt.Sscan(flushes(), &before[0], &before[1], &before[2])
		do(c.kind, c.device<<deviceShift+4<<20)
		do(loop.DiskFlush, 0)
		do(loop.DiskFlush, 0)
		fmt.Sscan(flushes(), &after[0], &after[1], &after[2])
		for i := range after {
			if after[i]-before[i] != c.want[i] {
				t.Errorf("after a %v on device %d: flushes %v, then %v", c.kind, c.device, before, after)
				break
			}
		}
	}
	r.w.Disk("m").Fail(loop.DiskFlush, 1, errors.New("no"))
	do(loop.DiskWrite, 0)
	do(loop.DiskWrite, 1<<deviceShift+4<<20)
	var err error
	done := false
	d.Submit(&loop.DiskOp{Kind: loop.DiskFlush, Done: func(op *loop.DiskOp) { err, done = op.Err, true }})
	r.until("a flush", func() bool { return done })
	if e, is := errors.AsType[*loop.DiskError](err); !is || e.Disk != "m" {
		t.Errorf("a flush that failed on one device: %v", err)
	}
}

// TestFormatOnSmallDevices says what is needed.
func TestFormatOnSmallDevices(t *testing.T) {
	for _, p := range splits[1:] {
		r := &rig{t: t, w: sim.NewWorld(1)}
		defer r.w.Close()
		r.dev = r.w.NewDisk("d", 512<<20, 512)
		r.w.NewDisk("m", 1<<20, 512)
		r.w.NewDisk("j", 256<<10, 512)
		r.split = p
		r.process()
		_, err := r.format(Config{JournalSize: 8 << 20})
		if err == nil || !strings.Contains(err.Error(), "are needed beside a data device of 536870912 bytes") {
			t.Errorf("%v: %v", p, err)
		}
	}
}

// TestDamageOnOneDeviceIsDamage flips and zeroes the journal and the metadata where they are: that is told with the offset on that device, and can be accepted.
func TestDamageOnOneDeviceIsDamage(t *testing.T) {
	for _, p := range splits[1:] {
		for _, area := range []string{"journal", "metadata"} {
			for _, keep := range []bool{false, true} {
				r := newRigOn(t, 1, 8<<20, smallConfig, p)
				for n := uint64(1); n <= 5; n++ {
					r.write(n, 0, 1, 0, fill(32<<10, 'a'))
					r.write(n, 1, 2, 0, fill(4096, 'b'))
				}
				r.quiet()
				r.write(1, 2, 3, 4096, fill(4096, 'c'))
				r.write(2, 2, 3, 4096, fill(4096, 'c'))
				r.crash(sim.CrashDrop)
				sb := r.s.sb
				at, where := sb.Meta, sb.pageOff(0, 0)
				if area == "journal" {
					at, where = sb.Journal, sb.Journal.Off
				}
				d := r.used()[at.Device]
				if area == "journal" {
					d.Zero(at.Off, at.Len)
				} else {
					d.Flip(sb.pageOff(0, 0)+100, 1)
					d.Flip(sb.pageOff(0, 1)+100, 1)
				}
				err := r.open()
				if e, is := errors.AsType[*DamagedError](err); !is || e.Area != area || e.Offset < where || e.Offset >= at.end() {
					t.Errorf("%v, %s: %v", p, area, err)
				}
				done := false
				Accept(r.l, r.disk, keep, r.o, func(_ Superblock, err error) {
					if done = true; err != nil {
						t.Errorf("%v, %s, keep %v: %v", p, area, keep, err)
					}
				})
				r.until("accept", func() bool { return done })
				r.mustOpen()
				if n, text := r.check(); n != 0 {
					t.Errorf("%v, %s, keep %v: %s", p, area, keep, text)
				}
				st, _ := r.s.Newest(obj(9))
				r.write(9, st.Version, st.Version+1, 0, fill(4096, 'd'))
				r.close()
			}
		}
	}
}

// TestDeviceSetBackWithinAnOpening brings the metadata, or the journal, back to a state of the same opening: its superblock is the same, and still it is told.
func TestDeviceSetBackWithinAnOpening(t *testing.T) {
	for _, name := range []string{"m", "j"} {
		r := newRigOn(t, 1, 8<<20, smallConfig, split{meta: "m", journal: "j"})
		versions := map[uint64]layout.Version{}
		work := func(first uint64, n int) {
			for i := range uint64(n) {
				k := first + i%8
				r.write(k, versions[k], versions[k]+1, uint32(i%8)*4096, fill(4096, 'a'))
				versions[k]++
			}
			r.quiet()
		}
		work(1, 8)
		d := r.w.Disk(name)
		old := make([]byte, d.Size())
		d.Peek(old, 0)
		work(1, 40)
		work(11, 400) // the journal goes round: nothing in it speaks of the first objects any more
		r.l.Kill()
		d.Poke(old, 0)
		r.process()
		err := r.open()
		if e, is := errors.AsType[*DamagedError](err); !is {
			t.Errorf("%s set back: %v", name, err)
		} else {
			t.Logf("%s set back: %v", name, e)
		}
		for _, keep := range []bool{true, false} {
			done := false
			Accept(r.l, r.disk, keep, r.o, func(_ Superblock, err error) {
				if done = true; err != nil {
					t.Logf("%s set back, accept with keep %v: %v", name, keep, err)
				}
			})
			r.until("accept", func() bool { return done })
		}
		r.mustOpen()
		r.write(1, 0, 1, 0, fill(4096, 'b'))
		r.close()
		r.mustOpen()
		r.expect(1, "1 b.......")
	}
}
