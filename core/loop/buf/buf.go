// Package buf is reference-counted, page-aligned memory outside Go's heap, for what goes to disks and sockets.
//
// An Arena belongs to one loop; a Ref may be passed to another loop only together with its last reference, and comes home through Release, which is safe from any
// goroutine. Memory is not cleared when lent. Releasing more often than retaining panics.
package buf

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	minClass  = 9  // 512 bytes
	maxClass  = 22 // 4 MiB; larger requests are mapped one by one
	chunkSize = 4 << 20
	// keepBytes is how much of one class an arena keeps for reuse before giving memory back to the system.
	keepBytes = 64 << 20
)

// Ref is a piece of memory with a reference count.
type Ref struct {
	b     []byte // len = what was asked for
	whole []byte // the class's full size
	refs  atomic.Int32
	class int8
	arena *Arena
	next  *Ref
}

// Bytes is the memory. It must not be used after the holder's Release.
func (r *Ref) Bytes() []byte { return r.b }

// Len is the number of bytes.
func (r *Ref) Len() int { return len(r.b) }

// Retain adds a reference.
func (r *Ref) Retain() *Ref {
	if r.refs.Add(1) <= 1 {
		panic("buf: retain after the last release")
	}
	return r
}

// Release gives one reference back; the last one returns the memory to its arena.
func (r *Ref) Release() {
	switch n := r.refs.Add(-1); {
	case n == 0:
		r.arena.put(r)
	case n < 0:
		panic("buf: released more often than retained")
	}
}

// Trim shortens the visible bytes to n, for a buffer that was only partly used.
func (r *Ref) Trim(n int) { r.b = r.b[:n] }

// Arena hands out Refs in classes of powers of two.
type Arena struct {
	mu   sync.Mutex
	free [maxClass + 1]*Ref // guarded by mu
	kept [maxClass + 1]int  // guarded by mu; entries of free
	maps map[*byte][]byte   // guarded by mu; every mapping by its first byte
	live atomic.Int64       // Refs lent
}

// NewArena makes an empty arena.
func NewArena() *Arena { return &Arena{maps: map[*byte][]byte{}} }

// Close gives all memory back to the system, also what is still lent: no Ref of the arena may be used afterwards. It is for loops that have ended, and for simulated processes that died.
func (a *Arena) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.maps {
		_ = unix.Munmap(m) // the mapping is ours and whole: the only error is a bug, which the next use would show
	}
	clear(a.maps)
	a.free, a.kept = [maxClass + 1]*Ref{}, [maxClass + 1]int{}
}

// Live is the number of Refs that were lent and not come back; leak tests read it.
func (a *Arena) Live() int64 { return a.live.Load() }

// Alloc lends n bytes with one reference. Memory of 4096 bytes and more is aligned to 4096, less to 512. n must not be negative.
func (a *Arena) Alloc(n int) *Ref {
	class := minClass
	if n > 1<<minClass {
		class = bits.Len(uint(n - 1))
	}
	a.live.Add(1)
	if class > maxClass {
		size := (n + 4095) &^ 4095
		r := &Ref{whole: mapMemory(size), class: -1, arena: a}
		a.mu.Lock()
		a.maps[&r.whole[0]] = r.whole
		a.mu.Unlock()
		r.b = r.whole[:n]
		r.refs.Store(1)
		return r
	}
	a.mu.Lock()
	r := a.free[class]
	if r == nil {
		a.grow(class)
		r = a.free[class]
	}
	a.free[class] = r.next
	a.kept[class]--
	a.mu.Unlock()
	r.next = nil
	r.b = r.whole[:n]
	r.refs.Store(1)
	return r
}

// grow adds at least one free Ref of the class. The caller holds mu.
func (a *Arena) grow(class int) {
	size := 1 << class
	total := max(size, min(chunkSize, 64*size))
	mem := mapMemory(total)
	a.maps[&mem[0]] = mem
	refs := make([]Ref, total/size)
	for i := range refs {
		r := &refs[i]
		r.whole = mem[i*size : (i+1)*size : (i+1)*size]
		r.class = int8(class)
		r.arena = a
		r.next = a.free[class]
		a.free[class] = r
		a.kept[class]++
	}
}

func (a *Arena) put(r *Ref) {
	a.live.Add(-1)
	if r.class < 0 {
		mem := r.whole
		a.mu.Lock()
		delete(a.maps, &mem[0])
		a.mu.Unlock()
		r.whole, r.b = nil, nil
		_ = unix.Munmap(mem) // the mapping is ours and whole: the only error is a bug, which the next use would show
		return
	}
	a.mu.Lock()
	big := r.class >= maxClass && a.kept[r.class]<<r.class >= keepBytes
	if big {
		delete(a.maps, &r.whole[0])
	} else {
		r.next = a.free[r.class]
		a.free[r.class] = r
		a.kept[r.class]++
	}
	a.mu.Unlock()
	if big {
		_ = unix.Munmap(r.whole[:cap(r.whole)])
		r.whole, r.b = nil, nil
	}
}

func mapMemory(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(fmt.Sprintf("buf: out of memory: mapping %d bytes: %v", n, err))
	}
	return b
}
