package sim

import (
	"math/bits"
	"math/rand/v2"
	"slices"

	"holdfast/core/loop"
)

// cacheLimit is how much a disk's volatile cache holds before it writes the oldest back, as real ones do.
const cacheLimit = 64 << 20

// media is a disk without its loop: what a read sees, what is durable, and the writes between the two.
type media struct {
	w       *World
	sector  int
	tear    int // what a crash tears writes into
	current *sparse
	stable  *sparse // current itself when the disk is write-through
	cache   []cached
	bytes   int          // in cache
	spare   [32][][]byte // free memory for cached data, by log2 of its size
	writes  uint64       // completed so far; a flush covers those up to the count at its submission
}

// cached is a completed write that is not in stable.
type cached struct {
	n       uint64 // media.writes when it completed
	off     int64
	data    []byte
	durable bool // survives a crash although older ones before it may not
}

// write completes a write; p is copied.
func (m *media) write(off int64, p []byte, durable bool) {
	m.writes++
	if len(p) == 0 {
		return
	}
	m.current.write(p, off)
	switch {
	case m.stable == m.current:
	case durable && len(m.cache) == 0:
		m.stable.write(p, off)
	default:
		m.cache = append(m.cache, cached{m.writes, off, m.copyOf(p), durable})
		m.bytes += len(p)
		for m.bytes > cacheLimit {
			m.flush(m.cache[0].n)
		}
	}
}

// flush makes the first n completed writes durable.
func (m *media) flush(n uint64) {
	k := 0
	for ; k < len(m.cache) && m.cache[k].n <= n; k++ {
		c := &m.cache[k]
		m.stable.write(c.data, c.off)
		m.bytes -= len(c.data)
		class := bits.Len(uint(cap(c.data))) - 1
		m.spare[class] = append(m.spare[class], c.data)
	}
	m.cache = slices.Delete(m.cache, 0, k)
}

func (m *media) copyOf(p []byte) []byte {
	class := bits.Len(uint(len(p) - 1))
	if s := m.spare[class]; len(s) > 0 {
		m.spare[class] = s[:len(s)-1]
		return append(s[len(s)-1][:0], p...)
	}
	return append(make([]byte, 0, 1<<class), p...)
}

// zero makes a range zero whatever happens later, for discards and damage.
func (m *media) zero(off, n int64) {
	m.current.zero(off, n)
	if m.stable != m.current {
		m.stable.zero(off, n)
	}
	for i := range m.cache {
		c := &m.cache[i]
		lo, hi := max(off, c.off), min(off+n, c.off+int64(len(c.data)))
		if lo < hi {
			clear(c.data[lo-c.off : hi-c.off])
		}
	}
}

// restore puts p at off whatever happens later, as if nothing had been written there since.
func (m *media) restore(off int64, p []byte) {
	m.current.write(p, off)
	if m.stable != m.current {
		m.stable.write(p, off)
	}
	for i := range m.cache {
		c := &m.cache[i]
		lo, hi := max(off, c.off), min(off+int64(len(p)), c.off+int64(len(c.data)))
		if lo < hi {
			copy(c.data[lo-c.off:hi-c.off], p[lo-off:])
		}
	}
}

// flip inverts bits of one byte wherever it is held.
func (m *media) flip(off int64, mask byte) {
	m.current.own(off / pageSize).data[off%pageSize] ^= mask
	if m.stable != m.current {
		m.stable.own(off / pageSize).data[off%pageSize] ^= mask
	}
	for i := range m.cache {
		if c := &m.cache[i]; off >= c.off && off < c.off+int64(len(c.data)) {
			c.data[off-c.off] ^= mask
		}
	}
}

func (m *media) clone() *media {
	c := *m
	c.spare = [32][][]byte{}
	c.stable = m.stable.clone()
	if m.stable == m.current {
		c.current = c.stable
	} else {
		c.current = m.current.clone()
	}
	c.cache = make([]cached, len(m.cache))
	for i, w := range m.cache {
		w.data = c.copyOf(w.data)
		c.cache[i] = w
	}
	return &c
}

// CrashPolicy says what a crash does with each write that no flush has covered, as odds: kept whole, dropped whole, or torn at sector borders. Since each write has its own coin,
// a newer one may be there and an older one not: that is what reordering by the disk looks like. Writes that had completed keep their order where they overlap, those in flight do not.
type CrashPolicy struct{ Keep, Drop, Tear int }

// Crash policies for most tests.
var (
	CrashKeep   = CrashPolicy{Keep: 1}
	CrashDrop   = CrashPolicy{Drop: 1}
	CrashTear   = CrashPolicy{Tear: 1}
	CrashRandom = CrashPolicy{Keep: 2, Drop: 2, Tear: 1}
)

// draw is what happens to one write.
func (p CrashPolicy) draw(rng *rand.Rand) (keep, tear bool) {
	total := p.Keep + p.Drop + p.Tear
	if total <= 0 {
		return false, false
	}
	switch k := rng.IntN(total); {
	case k < p.Keep:
		return true, false
	case k < p.Keep+p.Drop:
		return false, false
	}
	return false, true
}

// flying is a write that was submitted and has not completed.
type flying struct {
	off  int64
	data []byte
}

// crash leaves what is durable, and of the rest what the policy and the coin keep.
func (m *media) crash(p CrashPolicy, rng *rand.Rand, inFlight []flying) {
	missing := false // a write was not kept whole
	for _, c := range m.cache {
		if c.durable {
			m.stable.write(c.data, c.off)
		} else {
			m.partly(p, rng, c.off, c.data, &missing)
		}
	}
	rng.Shuffle(len(inFlight), func(i, j int) { inFlight[i], inFlight[j] = inFlight[j], inFlight[i] })
	for _, f := range inFlight {
		m.partly(p, rng, f.off, f.data, &missing)
	}
	m.cache, m.bytes = nil, 0
	if m.stable != m.current {
		m.current = m.stable.clone()
	}
}

// partly puts what the coin keeps of one write into stable.
func (m *media) partly(p CrashPolicy, rng *rand.Rand, off int64, data []byte, missing *bool) {
	keep, tear := p.draw(rng)
	switch {
	case keep:
		m.stable.write(data, off)
		m.w.faults[FaultCacheKept]++
		if *missing {
			m.w.faults[FaultReordered]++
		}
		return
	case !tear:
		m.w.faults[FaultCacheLost]++
		*missing = true
		return
	}
	m.w.faults[FaultCacheTorn]++
	*missing = true
	for _, r := range torn(rng, m.tear, len(data)) {
		m.stable.write(data[r[0]:r[1]], off+int64(r[0]))
	}
}

// torn draws which parts of n bytes were written: a beginning, an end, or any sectors.
func torn(rng *rand.Rand, sector, n int) [][2]int {
	sectors := n / sector
	at := 0
	if sectors > 0 {
		at = rng.IntN(sectors+1) * sector
	}
	switch rng.IntN(4) {
	case 0, 1:
		return [][2]int{{0, at}}
	case 2:
		return [][2]int{{at, n}}
	}
	var parts [][2]int
	for s := 0; s < n; s += sector {
		if rng.IntN(2) == 0 {
			parts = append(parts, [2]int{s, min(s+sector, n)})
		}
	}
	return parts
}

// joined is the data of a write in one piece; op keeps the ownership when it already is.
func joined(op *loop.DiskOp) []byte {
	if len(op.Vec) == 0 {
		return op.Data
	}
	p := make([]byte, 0, op.Bytes())
	for _, v := range op.Vec {
		p = append(p, v...)
	}
	return p
}
