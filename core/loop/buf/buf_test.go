package buf

import (
	"math/bits"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if p := recover(); p == nil || !strings.Contains(p.(string), want) {
			t.Errorf("panic %v, want one that says %q", p, want)
		}
	}()
	f()
}

func newArena(t testing.TB) *Arena {
	a := NewArena()
	t.Cleanup(func() {
		if n := a.Live(); n != 0 {
			t.Errorf("%d buffers were not released", n)
		}
		a.Close()
	})
	return a
}

func TestSizesAndAlignment(t *testing.T) {
	a := newArena(t)
	for _, n := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 128 << 10, 128<<10 + 1, 1<<maxClass - 1, 1 << maxClass, 1<<maxClass + 1, 9 << 20} {
		r := a.Alloc(n)
		if r.Len() != n || len(r.Bytes()) != n {
			t.Errorf("Alloc(%d) has %d bytes", n, r.Len())
		}
		at := uintptr(unsafe.Pointer(unsafe.SliceData(r.whole)))
		want := uintptr(4096)
		if n < 4096 {
			want = 512
		}
		if at%want != 0 {
			t.Errorf("Alloc(%d) is at %#x, want a multiple of %d", n, at, want)
		}
		if size := len(r.whole); n <= 1<<maxClass && (bits.OnesCount(uint(size)) != 1 || size < n || size > max(512, 2*n)) || n > 1<<maxClass && (size < n || size%4096 != 0) {
			t.Errorf("Alloc(%d) takes %d bytes", n, size)
		}
		for i := range r.Bytes() {
			r.Bytes()[i] = byte(n)
		}
		r.Release()
	}
}

func TestNoTwoHoldersShareMemory(t *testing.T) {
	a := newArena(t)
	rng := rand.New(rand.NewPCG(1, 1))
	type held struct {
		r    *Ref
		mark byte
	}
	var all []held
	check := func(h held) {
		for i, b := range h.r.Bytes() {
			if b != h.mark {
				t.Fatalf("byte %d of a buffer of %d is %d, its holder wrote %d", i, h.r.Len(), b, h.mark)
			}
		}
	}
	for i := range 3000 {
		if len(all) > 60 || len(all) > 0 && rng.IntN(3) == 0 {
			n := rng.IntN(len(all))
			check(all[n])
			all[n].r.Release()
			all[n] = all[len(all)-1]
			all = all[:len(all)-1]
			continue
		}
		h := held{a.Alloc(rng.IntN(1 << (6 + rng.IntN(10)))), byte(i)}
		for j := range h.r.Bytes() {
			h.r.Bytes()[j] = h.mark
		}
		all = append(all, h)
	}
	for _, h := range all {
		check(h)
		h.r.Release()
	}
}

func TestMemoryComesHomeWithTheLastReference(t *testing.T) {
	a := newArena(t)
	r := a.Alloc(4096)
	r.Retain().Retain()
	first := &r.Bytes()[0]
	for left := range 2 {
		r.Release()
		if other := a.Alloc(4096); &other.Bytes()[0] == first {
			t.Fatalf("lent again after %d of 3 releases", left+1)
		} else {
			other.Release()
		}
	}
	if a.Live() != 1 {
		t.Errorf("%d live", a.Live())
	}
	r.Release()
	if again := a.Alloc(4000); &again.Bytes()[0] != first || again.Len() != 4000 {
		t.Error("the memory is not used again")
	} else {
		again.Release()
	}
}

func TestTrimIsForgottenWithTheHolder(t *testing.T) {
	a := newArena(t)
	r := a.Alloc(4096)
	r.Trim(10)
	if r.Len() != 10 {
		t.Errorf("%d bytes after Trim(10)", r.Len())
	}
	r.Release()
	if r = a.Alloc(4096); r.Len() != 4096 {
		t.Errorf("the next holder gets %d bytes", r.Len())
	}
	r.Release()
}

func TestReleasingTooOftenPanics(t *testing.T) {
	for _, n := range []int{512, 4096, 1 << maxClass, 1<<maxClass + 1} {
		a := NewArena()
		r := a.Alloc(n)
		r.Release()
		mustPanic(t, "released more often", r.Release)
		a.Close()
	}
}

func TestRetainingWhatIsReleasedPanics(t *testing.T) {
	a := NewArena()
	defer a.Close()
	r := a.Alloc(512)
	r.Release()
	mustPanic(t, "after the last release", func() { r.Retain() })
}

func TestLargestClassIsGivenBackBeyondALimit(t *testing.T) {
	a := newArena(t)
	const n = keepBytes>>maxClass + 4
	var all []*Ref
	for range n {
		all = append(all, a.Alloc(1<<maxClass))
	}
	for _, r := range all {
		r.Release()
	}
	a.mu.Lock()
	kept, maps := a.kept[maxClass], len(a.maps)
	a.mu.Unlock()
	if kept != keepBytes>>maxClass || maps != kept {
		t.Errorf("%d buffers of 4 MiB are kept in %d mappings, want %d", kept, maps, keepBytes>>maxClass)
	}
	huge := a.Alloc(1<<maxClass + 1)
	huge.Release()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.maps) != maps {
		t.Error("a buffer beyond the largest class is kept")
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	a := newArena(t)
	for _, n := range []int{100, 4096, 128 << 10, 1 << 20, 1 << maxClass} {
		if got := testing.AllocsPerRun(100, func() {
			r, s := a.Alloc(n), a.Alloc(n)
			r.Retain()
			s.Release()
			r.Release()
			r.Release()
		}); got != 0 {
			t.Errorf("%d bytes: %v allocations", n, got)
		}
	}
}

// TestReleaseFromManyGoroutines shares each buffer between goroutines, each with a reference of its own; -race sees what is not ordered.
func TestReleaseFromManyGoroutines(t *testing.T) {
	a := newArena(t)
	var all sync.WaitGroup
	for range 500 {
		r := a.Alloc(4096)
		clear(r.Bytes())
		for i := range 4 {
			r.Retain()
			all.Add(1)
			go func() {
				defer all.Done()
				r.Bytes()[i] = 1
				r.Release()
			}()
		}
		r.Release()
	}
	all.Wait()
}
