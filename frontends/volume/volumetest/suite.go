// Package volumetest is the conformance suite of volume.Device: every implementation passes Run.
package volumetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
)

// Env is one device on one loop, for one test.
type Env struct {
	Loop loop.Loop
	// Device holds at least 1 MiB, all of it zero, and nobody is attached.
	Device volume.Device
	// On runs f on the loop and returns when it has run.
	On func(f func())
	// Wait drives the loop until cond, which is evaluated on the loop, holds; false when that does not happen.
	Wait func(cond func() bool) bool
	// Live is the number of buffers that the loop has lent.
	Live func() int64

	// Resize and Remove change the device; nil when this implementation cannot be made to.
	Resize func(size uint64)
	Remove func()
}

// Manual is the Env of a device on a Loop of this package.
func Manual(l *Loop, d volume.Device) Env {
	return Env{
		Loop: l, Device: d, Live: l.Live,
		On: func(f func()) { f() },
		Wait: func(cond func() bool) bool {
			for range 100_000 {
				if cond() {
					return true
				}
				if !l.Turn() {
					return cond()
				}
			}
			return false
		},
	}
}

// Running is the Env of a device on a loop that another goroutine runs.
func Running(l loop.Loop, live func() int64, d volume.Device) Env {
	on := func(f func()) {
		done := make(chan struct{})
		l.Post(&loop.Task{Run: func() {
			f()
			close(done)
		}})
		<-done
	}
	return Env{
		Loop: l, Device: d, Live: live, On: on,
		Wait: func(cond func() bool) bool {
			for end := time.Now().Add(10 * time.Second); ; {
				ok := false
				on(func() { ok = cond() })
				if ok || time.Now().After(end) {
					return ok
				}
				runtime.Gosched()
			}
		},
	}
}

// Run runs the suite; each test gets an Env of its own from factory.
func Run(t *testing.T, factory func(t *testing.T) Env) {
	for _, c := range []struct {
		name string
		f    func(*run)
	}{
		{"ReadYourWrites", readYourWrites},
		{"WrongRangesAreRefused", wrongRanges},
		{"EmptyOperations", emptyOperations},
		{"ZeroTrimAndExtents", zeroTrimExtents},
		{"CompareAndWrite", compareAndWrite},
		{"LentBuffers", lentBuffers},
		{"CompletionIsLaterAndOnce", completionIsLater},
		{"ManyInFlight", manyInFlight},
		{"RandomAgainstSlice", randomAgainstSlice},
		{"Cancel", cancel},
		{"ReadOnlySession", readOnlySession},
		{"LaterSessionFencesEarlier", fencing},
		{"DetachWaits", detachWaits},
		{"Resize", resize},
		{"Remove", remove},
		{"Decorators", decorators},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &run{T: t, Env: factory(t)}
			before := r.Live()
			r.h = r.attach(volume.Session{Protocol: "test", Client: "volumetest"})
			c.f(r)
			r.detach(r.h)
			if n := r.Live(); n != before {
				t.Errorf("%d buffers are still lent after Detach, want %d as before Attach", n, before)
			}
		})
	}
}

// run is one test of the suite under way.
type run struct {
	*testing.T
	Env
	h volume.Handle
}

func (r *run) attach(s volume.Session) volume.Handle {
	r.Helper()
	var h volume.Handle
	var err error
	r.On(func() { h, err = r.Device.Attach(r.Loop, s) })
	if err != nil {
		r.Fatalf("Attach(%+v): %v", s, err)
	}
	return h
}

func (r *run) detach(h volume.Handle) {
	r.Helper()
	done := false
	r.On(func() {
		h.Detach(func() { done = true })
		if done {
			r.Error("Detach called done before it returned")
		}
	})
	r.wait("Detach", &done)
}

func (r *run) wait(what string, done *bool) {
	r.Helper()
	if !r.Wait(func() bool { return *done }) {
		r.Fatalf("%s did not end", what)
	}
}

// do runs op on h and returns its error.
func (r *run) do(h volume.Handle, op *volume.Op) error {
	r.Helper()
	done := false
	op.Done = func(*volume.Op) { done = true }
	r.On(func() {
		h.Submit(op)
		if done {
			r.Error("completion inside Submit")
		}
	})
	r.wait("operation", &done)
	return op.Err
}

func (r *run) fill(n int, f func(i int) byte) *buf.Ref {
	var b *buf.Ref
	r.On(func() {
		b = r.Loop.Alloc(n)
		for i := range b.Bytes() {
			b.Bytes()[i] = f(i)
		}
	})
	return b
}

func (r *run) write(off uint64, n int, v byte) {
	r.Helper()
	b := r.fill(n, func(int) byte { return v })
	defer b.Release()
	if err := r.do(r.h, &volume.Op{Kind: volume.Write, Offset: off, Length: uint64(n), Pieces: []volume.Piece{{Ref: b, Len: n}}}); err != nil {
		r.Fatalf("write %d bytes at %d: %v", n, off, err)
	}
}

// read returns a copy of n bytes at off.
func (r *run) read(h volume.Handle, off uint64, n int) []byte {
	r.Helper()
	op := &volume.Op{Kind: volume.Read, Offset: off, Length: uint64(n)}
	if err := r.do(h, op); err != nil {
		r.Fatalf("read %d bytes at %d: %v", n, off, err)
	}
	var got []byte
	r.On(func() {
		got = collect(op)
		op.ReleasePieces()
	})
	if len(got) != n {
		r.Fatalf("read of %d bytes brought pieces of %d bytes", n, len(got))
	}
	return got
}

func collect(op *volume.Op) []byte {
	got := []byte{}
	for _, p := range op.Pieces {
		if p.Ref == nil {
			got = append(got, make([]byte, p.Len)...)
		} else {
			got = append(got, p.Bytes()...)
		}
	}
	return got
}

func (r *run) want(off uint64, n int, v byte) {
	r.Helper()
	for i, b := range r.read(r.h, off, n) {
		if b != v {
			r.Fatalf("byte %d is %#x, want %#x (read of %d at %d)", off+uint64(i), b, v, n, off)
		}
	}
}

func readYourWrites(r *run) {
	r.want(0, 8192, 0)
	r.write(4096, 8192, 0x11)
	r.write(8192-512, 1024, 0x22)
	r.want(0, 4096, 0)
	r.want(4096, 4096-512, 0x11)
	r.want(8192-512, 1024, 0x22)
	r.want(8192+512, 4096-512, 0x11)
	r.want(12288, 4096, 0)
	if err := r.do(r.h, &volume.Op{Kind: volume.Flush}); err != nil {
		r.Errorf("flush: %v", err)
	}
	b := r.fill(512, func(int) byte { return 0x33 })
	defer b.Release()
	// One write from several pieces: memory, zeroes, a part of the same memory.
	op := &volume.Op{Kind: volume.Write, Offset: 4096, Length: 1536, FUA: true,
		Pieces: []volume.Piece{{Ref: b, Len: 512}, {Len: 768}, {Ref: b, Off: 100, Len: 256}}}
	if err := r.do(r.h, op); err != nil {
		r.Fatalf("write of pieces with FUA: %v", err)
	}
	got := r.read(r.h, 4096, 1536)
	want := append(append(bytes.Repeat([]byte{0x33}, 512), make([]byte, 768)...), bytes.Repeat([]byte{0x33}, 256)...)
	if !bytes.Equal(got, want) {
		r.Error("a write of several pieces reads back differently")
	}
	size := r.size()
	r.write(size-512, 512, 0x44)
	r.want(size-512, 512, 0x44)
}

func (r *run) size() uint64 { return r.info().Size }

func (r *run) info() volume.Info {
	var i volume.Info
	r.On(func() { i = r.h.Info() })
	return i
}

func wrongRanges(r *run) {
	size := r.size()
	b := r.fill(4096, func(int) byte { return 0xee })
	defer b.Release()
	for _, c := range []struct {
		name        string
		off, length uint64
		want        error
	}{
		{"offset not aligned", 100, 512, volume.ErrAlignment},
		{"length not aligned", 512, 100, volume.ErrAlignment},
		{"across the end", size - 512, 1024, volume.ErrRange},
		{"beyond the end", size + 4096, 512, volume.ErrRange},
		{"sum overflows", ^uint64(0) - 511, 1024, volume.ErrRange},
	} {
		for _, kind := range []volume.Kind{volume.Read, volume.Write, volume.Zero, volume.Trim, volume.Extents, volume.CompareAndWrite} {
			op := &volume.Op{Kind: kind, Offset: c.off, Length: c.length}
			if kind == volume.Write || kind == volume.CompareAndWrite {
				op.Pieces = []volume.Piece{{Ref: b, Len: int(c.length)}}
			}
			if kind == volume.CompareAndWrite {
				op.Compare = []volume.Piece{{Ref: b, Len: int(c.length)}}
			}
			if err := r.do(r.h, op); !errors.Is(err, c.want) {
				r.Errorf("%s, kind %d: %v, want %v", c.name, kind, err, c.want)
			}
		}
	}
	info := r.info()
	if info.Size > uint64(info.MaxTransfer) {
		err := r.do(r.h, &volume.Op{Kind: volume.Read, Length: uint64(info.MaxTransfer) + uint64(info.BlockSize)})
		if !errors.Is(err, volume.ErrTooLong) {
			r.Errorf("read longer than MaxTransfer: %v, want %v", err, volume.ErrTooLong)
		}
	}
	if err := r.do(r.h, &volume.Op{Kind: 77}); !errors.Is(err, volume.ErrUnsupported) {
		r.Errorf("unknown kind: %v, want %v", err, volume.ErrUnsupported)
	}
	r.want(0, 65536, 0)
}

func emptyOperations(r *run) {
	for _, kind := range []volume.Kind{volume.Read, volume.Write, volume.Zero, volume.Trim, volume.Extents} {
		if err := r.do(r.h, &volume.Op{Kind: kind, Offset: 4096}); err != nil {
			r.Errorf("kind %d of length 0: %v", kind, err)
		}
	}
}

func zeroTrimExtents(r *run) {
	r.write(0, 65536, 0x55)
	if err := r.do(r.h, &volume.Op{Kind: volume.Trim, Offset: 4096, Length: 8192}); err != nil {
		r.Fatalf("trim: %v", err)
	}
	if err := r.do(r.h, &volume.Op{Kind: volume.Zero, Offset: 16384, Length: 4096, NoHole: true}); err != nil {
		r.Fatalf("zero without holes: %v", err)
	}
	if err := r.do(r.h, &volume.Op{Kind: volume.Zero, Offset: 24576, Length: 4608}); err != nil {
		r.Fatalf("zero: %v", err)
	}
	if err := r.do(r.h, &volume.Op{Kind: volume.Zero, Offset: 32768, Length: 4096, Fast: true}); err != nil && !errors.Is(err, volume.ErrUnsupported) {
		r.Fatalf("fast zero: %v, want nil or %v", err, volume.ErrUnsupported)
	} else if err != nil {
		r.want(32768, 4096, 0x55)
	} else {
		r.want(32768, 4096, 0)
	}
	r.want(0, 4096, 0x55)
	r.want(4096, 8192, 0)
	r.want(12288, 4096, 0x55)
	r.want(16384, 4096, 0)
	r.want(20480, 4096, 0x55)
	r.want(24576, 4608, 0)
	r.want(29184, 512, 0x55)

	// Whatever the device's granularity, extents cover the range in order and what they call zero reads as zero.
	const length = 128 << 10
	data := r.read(r.h, 0, length)
	at := uint64(0)
	for at < length {
		op := &volume.Op{Kind: volume.Extents, Offset: at, Length: length - at}
		if err := r.do(r.h, op); err != nil || len(op.Extents) == 0 {
			r.Fatalf("extents at %d: %d of them, %v", at, len(op.Extents), err)
		}
		for _, e := range op.Extents {
			if e.Length == 0 || e.Length > length-at {
				r.Fatalf("extent at %d has length %d of %d", at, e.Length, length-at)
			}
			if e.Hole && !e.Zero {
				r.Errorf("extent at %d is a hole that does not read as zeroes", at)
			}
			if e.Zero && len(bytes.Trim(data[at:at+e.Length], "\x00")) != 0 {
				r.Errorf("extent at %d, length %d is said to be zero and is not", at, e.Length)
			}
			at += e.Length
		}
	}
	op := &volume.Op{Kind: volume.Extents, Length: length, MaxExtents: 1}
	if err := r.do(r.h, op); err != nil || len(op.Extents) != 1 {
		r.Errorf("extents, at most one: %d of them, %v", len(op.Extents), err)
	}
}

func compareAndWrite(r *run) {
	r.write(4096, 512, 0x66)
	old := r.fill(512, func(int) byte { return 0x66 })
	next := r.fill(512, func(int) byte { return 0x77 })
	defer old.Release()
	defer next.Release()
	op := func() *volume.Op {
		return &volume.Op{Kind: volume.CompareAndWrite, Offset: 4096, Length: 512,
			Compare: []volume.Piece{{Ref: old, Len: 512}}, Pieces: []volume.Piece{{Ref: next, Len: 512}}}
	}
	if err := r.do(r.h, op()); err != nil {
		r.Fatalf("compare and write: %v", err)
	}
	r.want(4096, 512, 0x77)
	r.On(func() {
		copy(old.Bytes(), next.Bytes())
		old.Bytes()[301] ^= 1
	})
	err := r.do(r.h, op())
	if e, ok := errors.AsType[*volume.MiscompareError](err); !ok || e.Offset != 301 {
		r.Errorf("compare with byte 301 different: %v, want a MiscompareError at 301", err)
	}
	r.want(4096, 512, 0x77)
	zeroes := op()
	zeroes.Offset, zeroes.Compare = 8192, []volume.Piece{{Len: 512}}
	if err := r.do(r.h, zeroes); err != nil {
		r.Errorf("compare with zeroes: %v", err)
	}
	r.want(8192, 512, 0x77)
	long := r.fill(2*volume.MaxCompare, func(int) byte { return 0 })
	defer long.Release()
	for _, c := range []struct{ off, length uint64 }{{0, volume.MaxCompare + 512}, {uint64(r.info().OptimalSize) - 512, 1024}} {
		if c.off+c.length > r.size() {
			continue
		}
		op := &volume.Op{Kind: volume.CompareAndWrite, Offset: c.off, Length: c.length,
			Compare: []volume.Piece{{Ref: long, Len: int(c.length)}}, Pieces: []volume.Piece{{Ref: long, Len: int(c.length)}}}
		if err := r.do(r.h, op); !errors.Is(err, volume.ErrTooLong) {
			r.Errorf("compare and write of %d at %d: %v, want %v", c.length, c.off, err, volume.ErrTooLong)
		}
	}
}

func lentBuffers(r *run) {
	r.write(0, 4096, 0x12)
	b := r.fill(8192, func(int) byte { return 0xff })
	defer b.Release()
	op := &volume.Op{Kind: volume.Read, Length: 8192, Pieces: []volume.Piece{{Ref: b, Len: 2048}, {Ref: b, Off: 2048, Len: 6144}}}
	if err := r.do(r.h, op); err != nil {
		r.Fatalf("read into lent buffers: %v", err)
	}
	if len(op.Pieces) != 2 || op.Pieces[0].Ref != b || op.Pieces[1].Ref != b {
		r.Fatal("the device replaced the caller's pieces")
	}
	want := append(bytes.Repeat([]byte{0x12}, 4096), make([]byte, 4096)...)
	if !bytes.Equal(b.Bytes(), want) {
		r.Error("the lent buffers do not hold what was written")
	}
}

func completionIsLater(r *run) {
	const n = 100
	counts := [n]int{}
	left := n
	r.On(func() {
		for i := range counts {
			op := &volume.Op{Kind: volume.Read, Offset: uint64(i) * 512, Length: 512}
			op.Done = func(op *volume.Op) {
				op.ReleasePieces()
				counts[i]++
				left--
			}
			r.h.Submit(op)
		}
		if left != n {
			r.Error("completion inside Submit")
		}
	})
	if !r.Wait(func() bool { return left <= 0 }) {
		r.Fatalf("%d operations did not complete", left)
	}
	for range 3 { // another turn or three: nobody comes twice
		flushed := r.do(r.h, &volume.Op{Kind: volume.Flush})
		if flushed != nil {
			r.Errorf("flush: %v", flushed)
		}
	}
	for i, c := range counts {
		if c != 1 {
			r.Errorf("operation %d completed %d times", i, c)
		}
	}
}

func manyInFlight(r *run) {
	const n = 256
	left := n
	var bufs []*buf.Ref
	r.On(func() {
		for i := range n {
			b := r.Loop.Alloc(4096)
			for j := range b.Bytes() {
				b.Bytes()[j] = byte(i + 1)
			}
			bufs = append(bufs, b)
			op := &volume.Op{Kind: volume.Write, Offset: uint64(i) * 4096, Length: 4096, Pieces: []volume.Piece{{Ref: b, Len: 4096}}}
			op.Done = func(op *volume.Op) {
				left--
				b.Release()
				if op.Err != nil {
					r.Errorf("write %d: %v", i, op.Err)
				}
			}
			r.h.Submit(op)
		}
	})
	if !r.Wait(func() bool { return left == 0 }) {
		r.Fatalf("%d of %d writes did not complete", left, n)
	}
	for i := range n {
		r.want(uint64(i)*4096, 4096, byte(i+1))
	}
}

func randomAgainstSlice(r *run) {
	const size = 256 << 10
	model := make([]byte, size)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range 300 {
		off := rng.IntN(size/512) * 512
		n := 512 * (1 + rng.IntN(min(64, (size-off)/512)))
		switch rng.IntN(5) {
		case 0, 1:
			v := byte(1 + rng.IntN(255))
			r.write(uint64(off), n, v)
			for j := range n {
				model[off+j] = v
			}
		case 2:
			kind := []volume.Kind{volume.Zero, volume.Trim}[rng.IntN(2)]
			if err := r.do(r.h, &volume.Op{Kind: kind, Offset: uint64(off), Length: uint64(n), NoHole: rng.IntN(2) == 0}); err != nil {
				r.Fatalf("step %d: %v", i, err)
			}
			clear(model[off : off+n])
		default:
			if !bytes.Equal(r.read(r.h, uint64(off), n), model[off:off+n]) {
				r.Fatalf("step %d: read of %d bytes at %d differs from the model", i, n, off)
			}
		}
	}
}

func cancel(r *run) {
	b := r.fill(4096, func(int) byte { return 0x99 })
	defer b.Release()
	done := false
	op := &volume.Op{Kind: volume.Write, Length: 4096, Pieces: []volume.Piece{{Ref: b, Len: 4096}}}
	op.Done = func(*volume.Op) { done = true }
	r.On(func() {
		r.h.Submit(op)
		r.h.Cancel(op)
		if done {
			r.Error("completion inside Cancel")
		}
	})
	r.wait("canceled write", &done)
	switch {
	case op.Err == nil:
		r.want(0, 4096, 0x99)
	case errors.Is(op.Err, volume.ErrCanceled):
		r.want(0, 4096, 0)
	default:
		r.Errorf("canceled write: %v, want nil or %v", op.Err, volume.ErrCanceled)
	}
}

func readOnlySession(r *run) {
	h := r.attach(volume.Session{Protocol: "test", Client: "reader", ReadOnly: true})
	defer r.detach(h)
	var info volume.Info
	r.On(func() { info = h.Info() })
	if !info.ReadOnly {
		r.Error("Info().ReadOnly is false for a read-only session")
	}
	for _, kind := range []volume.Kind{volume.Zero, volume.Trim, volume.Write} {
		op := &volume.Op{Kind: kind, Length: 512}
		if kind == volume.Write {
			op.Pieces = []volume.Piece{{Len: 512}}
		}
		if err := r.do(h, op); !errors.Is(err, volume.ErrReadOnly) {
			r.Errorf("kind %d: %v, want %v", kind, err, volume.ErrReadOnly)
		}
	}
	r.write(0, 512, 0xab)
	if got := r.read(h, 0, 512); got[0] != 0xab {
		r.Errorf("the reader sees %#x, want 0xab", got[0])
	}
	if err := r.do(h, &volume.Op{Kind: volume.Flush}); err != nil {
		r.Errorf("flush of a reader: %v", err)
	}
}

func fencing(r *run) {
	old := r.attach(volume.Session{Protocol: "test", Client: "a", Nexus: "nexus"})
	other := r.attach(volume.Session{Protocol: "test", Client: "b", Nexus: "another"})
	next := r.attach(volume.Session{Protocol: "test", Client: "a again", Nexus: "nexus"})
	write := func(h volume.Handle) error {
		return r.do(h, &volume.Op{Kind: volume.Zero, Length: 512})
	}
	if err := write(next); err != nil {
		r.Errorf("the new session: %v", err)
	}
	if err := write(old); !errors.Is(err, volume.ErrFenced) {
		r.Errorf("the old session: %v, want %v", err, volume.ErrFenced)
	}
	if err := write(other); err != nil {
		r.Errorf("another nexus: %v", err)
	}
	r.detach(old)
	if err := write(next); err != nil {
		r.Errorf("the new session after the old one left: %v", err)
	}
	r.detach(next)
	r.detach(other)
}

func detachWaits(r *run) {
	h := r.attach(volume.Session{Protocol: "test", Client: "leaver"})
	left, detached := 10, false
	r.On(func() {
		for i := range 10 {
			op := &volume.Op{Kind: volume.Read, Offset: uint64(i) * 4096, Length: 4096}
			op.Done = func(op *volume.Op) {
				op.ReleasePieces()
				left--
				if detached {
					r.Error("completion after Detach was done")
				}
			}
			h.Submit(op)
		}
		h.Detach(func() {
			detached = true
			if left != 0 {
				r.Errorf("Detach was done with %d operations under way", left)
			}
		})
	})
	r.wait("Detach", &detached)
}

type events []volume.Event

func (e *events) VolumeEvent(v volume.Event) { *e = append(*e, v) }

func resize(r *run) {
	if r.Resize == nil {
		r.Skip("this device cannot be resized here")
	}
	var seen events
	r.On(func() { r.h.Events(&seen) })
	before := r.info()
	r.write(before.Size-4096, 4096, 0x5a)
	r.Resize(before.Size + 65536)
	if !r.Wait(func() bool { return len(seen) > 0 }) || seen[0] != volume.Resized {
		r.Fatalf("events %v, want Resized", seen)
	}
	after := r.info()
	if after.Size != before.Size+65536 || after.Generation <= before.Generation {
		r.Errorf("after the resize: size %d, generation %d; before: %d, %d", after.Size, after.Generation, before.Size, before.Generation)
	}
	r.want(before.Size-4096, 4096, 0x5a)
	r.want(before.Size, 65536, 0)
	r.write(before.Size, 512, 0x5b)
	r.Resize(before.Size)
	if !r.Wait(func() bool { return len(seen) > 1 }) {
		r.Fatal("no event for the second resize")
	}
	if err := r.do(r.h, &volume.Op{Kind: volume.Zero, Offset: before.Size, Length: 512}); !errors.Is(err, volume.ErrRange) {
		r.Errorf("write beyond the new end: %v, want %v", err, volume.ErrRange)
	}
	r.Resize(before.Size + 65536)
	if !r.Wait(func() bool { return len(seen) > 2 }) {
		r.Fatal("no event for the third resize")
	}
	r.want(before.Size, 65536, 0) // what was cut off does not come back
}

func remove(r *run) {
	if r.Remove == nil {
		r.Skip("this device cannot be removed here")
	}
	var seen events
	r.On(func() { r.h.Events(&seen) })
	r.Remove()
	if !r.Wait(func() bool { return len(seen) > 0 }) || seen[0] != volume.Gone {
		r.Fatalf("events %v, want Gone", seen)
	}
	for _, kind := range []volume.Kind{volume.Read, volume.Zero, volume.Flush, volume.Extents} {
		if err := r.do(r.h, &volume.Op{Kind: kind, Length: 512}); !errors.Is(err, volume.ErrGone) {
			r.Errorf("kind %d: %v, want %v", kind, err, volume.ErrGone)
		}
	}
}

func decorators(r *run) {
	var order []string
	op := &volume.Op{Kind: volume.Zero, Length: 512}
	for _, name := range []string{"outer", "inner"} {
		op.Push(func(op *volume.Op) {
			order = append(order, name)
			op.Complete(op.Err)
		})
	}
	if err := r.do(r.h, op); err != nil {
		r.Fatal(err)
	}
	if len(order) != 2 || order[0] != "inner" || order[1] != "outer" {
		r.Errorf("completions ran as %v, want inner, outer", order)
	}
}
