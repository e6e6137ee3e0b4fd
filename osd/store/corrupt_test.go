package store

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
)

// quiet lets the store empty its journal.
func (r *rig) quiet() { r.w.Run(5 * time.Second) }

func TestFlippedDataIsAChecksumError(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	r.write(1, 0, 1, 0, fill(32<<10, 'a'))
	r.quiet()
	block := slotView(r.s.t.slot(0)).block()
	r.dev.Flip(r.s.sb.blockOff(block)+8192+5, 4)
	op := r.do(&Op{Kind: OpRead, Object: obj(1), Offset: 4096, Len: 12288})
	e, is := errors.AsType[*ChecksumError](op.Err)
	if !is || e.Offset != 8192 || e.Device != r.s.sb.blockOff(block)+8192 || op.Data != nil {
		t.Fatalf("read of flipped data: %v", op.Err)
	}
	if n := r.s.Stats().ChecksumErrors; n != 1 {
		t.Errorf("%d checksum errors counted", n)
	}
	if op := r.must(&Op{Kind: OpRead, Object: obj(1), Len: 8192}); op.Data.Bytes()[0] != 'a' {
		t.Error("the rest is not readable")
	}
	r.close()
	if n, text := r.check(); n != 1 || !strings.Contains(text, "checksum") {
		t.Errorf("check: %d, %s", n, text)
	}
	r.mustOpen()
	r.write(1, 1, 2, 8192, fill(4096, 'b')) // heals it
	r.expect(1, "2 aabaaaaa")
}

func TestMediaErrorIsTypedAndNotFatal(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	r.write(1, 0, 1, 0, fill(32<<10, 'a'))
	r.quiet()
	off := r.s.sb.blockOff(slotView(r.s.t.slot(0)).block())
	r.dev.FailRange(off+4096, 512, syscall.EIO)
	op := r.do(&Op{Kind: OpRead, Object: obj(1), Len: 8192})
	if e, is := errors.AsType[*MediaError](op.Err); !is || !errors.Is(e, syscall.EIO) || r.s.Failure() != nil {
		t.Fatalf("read: %v", op.Err)
	}
	r.write(2, 0, 1, 0, fill(4096, 'b'))
	r.expect(2, "1 b.......")
}

func TestFailedWriteOrFlushStopsTheStore(t *testing.T) {
	for _, kind := range []loop.DiskKind{loop.DiskWrite, loop.DiskSync, loop.DiskFlush} {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, 1, 8<<20, smallConfig)
			r.l.Kill()
			r.process()
			calls := 0
			r.o.OnFailure = func(error) { calls++ }
			r.mustOpen()
			r.dev.Fail(kind, 1, syscall.EIO)
			var ops []*Op
			completed := 0
			for i := range uint64(20) {
				op := &Op{Kind: OpWrite, Object: obj(i), Version: 1, Len: 4096, Data: r.data(fill(4096, 'a')), Done: func(*Op) { completed++ }}
				if i%3 == 0 {
					op.Len, op.Data = 32<<10, r.data(fill(32<<10, 'b'))
				}
				ops = append(ops, op)
				r.s.Submit(op)
				read := &Op{Kind: OpRead, Object: obj(i), Len: 4096, Done: func(*Op) { completed++ }}
				r.s.Submit(read)
			}
			r.quiet()
			r.until("completion", func() bool { return completed == 40 })
			if calls != 1 || r.s.Failure() == nil || !errors.Is(r.s.Failure(), syscall.EIO) {
				t.Fatalf("%d calls of OnFailure, failure %v", calls, r.s.Failure())
			}
			if e, is := errors.AsType[*DeviceError](r.s.Failure()); !is || e.Op != kind || e.Device != "d" || e.Errno() != syscall.EIO || kind != loop.DiskFlush && (e.Len == 0 || e.Of == "") {
				t.Errorf("the failure does not say what failed: %+v", r.s.Failure())
			}
			if op := r.do(&Op{Kind: OpRead, Object: obj(1), Len: 4096}); op.Err != ErrFailed {
				t.Errorf("a read afterwards: %v", op.Err)
			}
			r.close()
			r.crash(sim.CrashDrop)
			r.mustOpen()
			for i, op := range ops {
				if st, _ := r.s.State(obj(uint64(i))); op.Err == nil && st.Version != 1 {
					t.Errorf("acknowledged write %d is lost", i)
				}
			}
		})
	}
}

// A disk that was pulled answers reads with these, and the end of the device within its size: no other sector will do better.
func TestReadFromADeviceThatIsGoneStopsTheStore(t *testing.T) {
	for _, err := range []error{syscall.ENODEV, syscall.ENXIO, io.ErrUnexpectedEOF} {
		r := newRig(t, 1, 8<<20, smallConfig)
		r.write(1, 0, 1, 0, fill(32<<10, 'a'))
		r.dev.Fail(loop.DiskRead, 1, err)
		if op := r.do(&Op{Kind: OpRead, Object: obj(1), Len: 8192}); op.Err != ErrFailed || !errors.Is(r.s.Failure(), err) {
			t.Errorf("read: %v, failure %v", op.Err, r.s.Failure())
		}
		r.close()
		r.l.Kill()
		r.process()
		r.dev.Fail(loop.DiskRead, 1000, err)
		opened := r.open()
		if _, gone := BrokenDevice(opened); !gone || !errors.Is(opened, err) {
			t.Errorf("the opening of a device that is gone says %v", opened)
		}
	}
}

// batches lists what is in the journal.
func (r *rig) batches() []batchInfo {
	mem := make([]byte, r.c.JournalSize)
	r.dev.Peek(mem, superRegion)
	hd := make([]byte, superSize)
	r.dev.Peek(hd, 0)
	sb, err := decodeSuperblock(hd)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []batchInfo
	for pos := uint64(0); pos < uint64(len(mem)); pos += journalAlign {
		if h, err := decodeBatch(mem[pos:], &sb, pos); err == nil {
			out = append(out, h)
		}
	}
	return out
}

func TestDamageInTheMiddleOfTheJournalIsTold(t *testing.T) {
	for _, at := range []int64{9, 40, 200, 4096 + 77} { // magic, header, entry, data
		r := newRig(t, 1, 8<<20, smallConfig)
		for i := range layout.Version(6) {
			r.write(1, i, i+1, uint32(i)*4096, fill(4096, 'a'+byte(i)))
		}
		id := r.s.sb.StoreID
		r.crash(sim.CrashDrop)
		bs := r.batches()
		r.dev.Flip(superRegion+int64(bs[3].pos)+at, 1)
		err := r.open()
		e, is := errors.AsType[*DamagedError](err)
		if !is || e.Area != "journal" {
			t.Fatalf("flip at %d: %v", at, err)
		}
		if n, text := r.check(); n == 0 || !strings.Contains(text, "journal") {
			t.Errorf("check: %d, %s", n, text)
		}
		r.o.AcceptDamage = true
		r.mustOpen()
		if sb := r.s.Superblock(); sb.StoreID == id || sb.Boot < 3 {
			t.Errorf("after accepting: id %v, boot %d", sb.StoreID, sb.Boot)
		}
		r.expect(1, "0 ........")
		r.write(1, 0, 1, 0, fill(4096, 'z'))
	}
}

func TestTornTailIsNotDamageAndStaysDead(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	for i := range layout.Version(4) {
		r.write(1, i, i+1, uint32(i)*4096, fill(4096, 'a'+byte(i)))
	}
	r.crash(sim.CrashDrop)
	bs := r.batches()
	last := bs[len(bs)-1]
	r.dev.Flip(superRegion+int64(last.pos)+int64(last.dataOff)+5, 1) // as if the end had not been written
	r.mustOpen()
	if !r.s.Stats().TornTail {
		t.Error("a torn journal is said to be whole")
	}
	r.expect(1, "3 abc.....")
	r.write(1, 3, 9, 4096, fill(4096, 'x'))
	r.crash(sim.CrashDrop)
	r.dev.Flip(superRegion+int64(last.pos)+int64(last.dataOff)+5, 1)
	r.mustOpen() // the flip hit what took the torn batch's place: the end again
	if got := r.letters(1); got != "3 abc....." && got != "9 axc....." {
		t.Errorf("object reads %q", got)
	}
	r = newRig(t, 1, 8<<20, smallConfig)
	r.write(1, 0, 1, 0, fill(4096, 'a'))
	r.crash(sim.CrashDrop)
	if r.mustOpen(); r.s.Stats().TornTail {
		t.Error("a whole journal is said to be torn")
	}
}

func TestDamagedMetadataPage(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	r.write(1, 0, 1, 0, fill(4096, 'a'))
	r.quiet()
	r.write(1, 1, 2, 0, fill(4096, 'b'))
	r.quiet()
	r.close()
	for copyNum := range 2 {
		hd := make([]byte, superSize)
		r.dev.Peek(hd, 0)
		sb, err := decodeSuperblock(hd)
		if err != nil {
			t.Fatal(err)
		}
		off := sb.pageOff(0, copyNum) + 100
		r.dev.Flip(off, 1)
		err = r.open()
		if e, is := errors.AsType[*DamagedError](err); !is || e.Area != "metadata" {
			t.Errorf("a flip in copy %d: %v", copyNum, err)
		}
		if n, text := r.check(); n == 0 || !strings.Contains(text, "page 0") {
			t.Errorf("check: %d, %s", n, text)
		}
		r.dev.Flip(off, 1)
	}
	r.mustOpen()
	r.expect(1, "2 b.......")
}

func TestOneGoodSuperblockIsEnough(t *testing.T) {
	for _, off := range []int64{0, superCopy} {
		r := newRig(t, 1, 8<<20, smallConfig)
		r.write(1, 0, 1, 0, fill(4096, 'a'))
		r.crash(sim.CrashDrop)
		r.dev.Flip(off+60, 1)
		r.mustOpen()
		r.expect(1, "1 a.......")
		r.crash(sim.CrashDrop)
		if n, text := r.check(); n != 0 {
			t.Errorf("it was not mended: %s", text)
		}
		r.dev.Flip(0+60, 1)
		r.dev.Flip(superCopy+60, 1)
		if e, is := errors.AsType[*DamagedError](r.open()); !is || e.Area != "superblock" {
			t.Error("two bad superblocks open")
		}
	}
}

func TestAnythingZeroedIsFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		off, n func(sb *Superblock) int64
	}{
		{"metadata", func(sb *Superblock) int64 { return sb.Meta.Off }, func(sb *Superblock) int64 { return sb.Meta.Len }},
		{"journal", func(sb *Superblock) int64 { return sb.Journal.Off }, func(sb *Superblock) int64 { return sb.Journal.Len }},
		{"superblocks", func(sb *Superblock) int64 { return 0 }, func(sb *Superblock) int64 { return superRegion }},
	} {
		r := newRig(t, 1, 8<<20, smallConfig)
		for i := range uint64(9) {
			r.write(i, 0, 1, 0, fill(4096, 'a'))
		}
		r.quiet()
		r.write(1, 1, 2, 0, fill(4096, 'b'))
		r.quiet()
		sb := r.s.Superblock()
		r.crash(sim.CrashDrop)
		r.dev.Zero(c.off(&sb), c.n(&sb))
		if err := r.open(); err == nil {
			t.Errorf("a store with zeroed %s opens", c.name)
		} else {
			t.Log(err)
		}
	}
}

func TestFullStoreRefusesAndStillDeletes(t *testing.T) {
	r := newRig(t, 1, 3<<20, smallConfig)
	n := uint64(0)
	for ; ; n++ {
		op := r.do(&Op{Kind: OpWrite, Object: obj(n), Version: 1, Len: 32 << 10, Data: r.data(fill(32<<10, 'a'))})
		if op.Err != nil {
			if op.Err != ErrNoSpace {
				t.Fatal(op.Err)
			}
			break
		}
	}
	if st, ok := r.s.State(obj(n)); ok {
		t.Errorf("the refused object is %+v", st)
	}
	for i := range n {
		r.write(i, 1, 2, 0, fill(32<<10, 'b')) // overwrites are not refused
		r.write(i, 2, 3, 4096, fill(4096, 'c'))
	}
	r.must(&Op{Kind: OpReplace, Object: obj(0), Base: 3, BaseInterval: 7, Version: 9, Bitmap: []byte{255}, Present: []byte{255}, Data: r.data(fill(32<<10, 'd'))})
	r.expect(0, "9 dddddddd")
	r.expect(1, "3 bcbbbbbb")
	r.must(&Op{Kind: OpDelete, Object: obj(0), Base: 9, Version: 10})
	r.must(&Op{Kind: OpForget, Object: obj(0), Base: 10})
	r.must(&Op{Kind: OpWrite, Object: obj(n), Version: 1, Len: 4096, Data: r.data(fill(4096, 'e'))})
	r.crash(sim.CrashDrop)
	r.mustOpen()
	r.expect(n, "1 e.......")
}

func TestErrorsOfOps(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	r.write(1, 0, 5, 0, fill(4096, 'a'))
	r.quiet()
	data := r.data(fill(4096, 'x'))
	is := func(op *Op, want error) {
		t.Helper()
		if r.do(op); !errors.Is(op.Err, want) {
			t.Errorf("op %d: %v, want %v", op.Kind, op.Err, want)
		}
	}
	base := func(op *Op) {
		t.Helper()
		if e, ok := errors.AsType[*BaseError](r.do(op).Err); !ok || e.Have.Version != 5 {
			t.Errorf("op %d: %v, want a BaseError", op.Kind, op.Err)
		}
	}
	base(&Op{Kind: OpWrite, Object: obj(1), Base: 4, Version: 6, Len: 4096, Data: data})
	base(&Op{Kind: OpZero, Object: obj(1), Base: 6, Version: 7, Len: 4096})
	base(&Op{Kind: OpDelete, Object: obj(1), Base: 0, Version: 6})
	base(&Op{Kind: OpReplace, Object: obj(1), Base: 5, BaseInterval: 6})
	base(&Op{Kind: OpVoid, Object: obj(1), Base: 5, BaseInterval: 8})
	base(&Op{Kind: OpForget, Object: obj(1), Base: 5})
	base(&Op{Kind: OpRollback, Object: obj(1), Version: 4})
	is(&Op{Kind: OpWrite, Object: obj(1), Base: 5, Version: 6, Offset: 512, Len: 4096, Data: data}, ErrNotAligned)
	is(&Op{Kind: OpWrite, Object: obj(1), Base: 5, Version: 6, Offset: 32 << 10, Len: 4096, Data: data}, ErrNotAligned)
	is(&Op{Kind: OpRead, Object: obj(1), Offset: 4096, Len: 32 << 10}, ErrNotAligned)
	is(&Op{Kind: OpWrite, Object: obj(1), Base: 5, Version: 5, Len: 4096, Data: data}, ErrUnsupported)
	is(&Op{Kind: OpWrite, Object: obj(1), Base: 5, Version: 6, Len: 8192, Data: data}, ErrUnsupported)
	is(&Op{Kind: OpRead, Object: obj(1), Len: 4096, AtMost: 4}, ErrVersionGone)
	is(&Op{Kind: 99, Object: obj(1)}, ErrUnsupported)
	is(&Op{Kind: OpSync}, nil)
	r.must(&Op{Kind: OpVoid, Object: obj(1), Base: 5, BaseInterval: 7})
	is(&Op{Kind: OpRead, Object: obj(1), Len: 4096}, ErrVoid)
	is(&Op{Kind: OpWrite, Object: obj(1), Base: 5, Version: 6, Len: 4096, Data: data}, ErrVoid)
	r.must(&Op{Kind: OpReplace, Object: obj(1), Base: 5, BaseInterval: 7, Version: 0})
	r.expect(1, "0 ........")
}

func TestSessionsEnd(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	for i := range uint64(5) {
		r.must(&Op{Kind: OpWrite, Object: obj(i), Version: 1, Len: 4096, Data: r.data(fill(4096, 'a')), Pair: Pair{7, i + 1}, Low: i / 2})
	}
	if _, _, ok := r.s.FindPair(Pair{7, 1}); ok {
		t.Error("a pair below the low mark is found")
	}
	if o, v, ok := r.s.FindPair(Pair{7, 3}); !ok || o != obj(2) || v != 1 {
		t.Errorf("pair 3: %v %v %v", o, v, ok)
	}
	r.s.EndSession(7)
	r.write(9, 0, 1, 0, fill(4096, 'b'))
	for range 2 {
		for i := range uint64(5) {
			if _, _, ok := r.s.FindPair(Pair{7, i + 1}); ok {
				t.Errorf("pair %d of an ended session is found", i+1)
			}
		}
		r.crash(sim.CrashDrop)
		r.mustOpen()
	}
	if r.s.pairs.n != 0 {
		t.Errorf("%d pairs left", r.s.pairs.n)
	}
}
