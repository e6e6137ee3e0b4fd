package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"holdfast/core/loop"
)

// DiskFaults are odds (0 to 1) that an operation meets a fault. Each kind draws from a sub-stream of its own.
type DiskFaults struct {
	ReadError  float64 // a read fails with EIO
	WriteError float64 // a write or sync write fails with EIO; it has been done, not done or torn by chance
	FlushError float64 // a flush fails with EIO; nothing became durable by it
	BitFlip    float64 // a bit of what a read is about to return has changed, and stays so
	Lost       float64 // a write is acknowledged and never applied
	Misdirect  float64 // a write is acknowledged and applied elsewhere
	Slow       float64 // an operation takes SlowBy longer
	SlowBy     Delay
}

// diskFaults is a disk's odds with their generators.
type diskFaults struct {
	DiskFaults
	read, write, flush, flip, lose, misdirect, slow *rand.Rand
}

// SetFaults sets the odds of faults from now on; the zero value ends them.
func (d *Disk) SetFaults(f DiskFaults) {
	d.odds = diskFaults{f, d.stream("read"), d.stream("write"), d.stream("flush"), d.stream("flip"), d.stream("lose"), d.stream("misdirect"), d.stream("slow")}
}

func (d *Disk) stream(what string) *rand.Rand { return d.w.Stream("disk/" + d.name + "/" + what) }

// meet draws the faults of an operation that begins.
func (d *Disk) meet(r *diskRun) (longer time.Duration) {
	f := &d.odds
	switch k := r.op.Kind; k {
	case loop.DiskRead:
		if r.err == nil && chance(f.ReadError, f.read) {
			r.err = r.failed(syscall.EIO)
		}
		if r.bytes > 0 && chance(f.BitFlip, f.flip) {
			d.FlipWithin(r.off, int64(r.bytes))
		}
	case loop.DiskWrite, loop.DiskSync:
		if r.err == nil && chance(f.WriteError, f.write) {
			r.err = r.failed(syscall.EIO)
		}
		if r.err == nil && d.confined(r) && (d.take(&d.toLose) || chance(f.Lost, f.lose)) {
			r.lost = true
		}
		if r.err == nil && !r.lost && d.confined(r) && int64(r.bytes) < d.size && (d.take(&d.toMisdirect) || chance(f.Misdirect, f.misdirect)) {
			r.astray = true
		}
	case loop.DiskFlush:
		if r.err == nil && chance(f.FlushError, f.flush) {
			r.err = r.failed(syscall.EIO)
		}
	}
	if chance(f.Slow, f.slow) {
		d.w.strike(FaultDiskSlow)
		return f.SlowBy.draw(f.slow)
	}
	return 0
}

func (d *Disk) take(n *int) bool {
	if *n == 0 {
		return false
	}
	*n--
	return true
}

// LoseWrites has the next n writes acknowledged and never applied.
func (d *Disk) LoseWrites(n int) { d.toLose += n }

// MisdirectWrites has the next n writes acknowledged and applied elsewhere on the disk.
func (d *Disk) MisdirectWrites(n int) { d.toMisdirect += n }

// Confine has only writes be lost and misdirected that lie within n bytes from off, and misdirected ones land there, too; n of 0 ends it.
func (d *Disk) Confine(off, n int64) { d.from, d.length, d.anywhere = off, n, false }

// ConfineFrom is Confine, but what is misdirected may land on all of the disk.
func (d *Disk) ConfineFrom(off, n int64) { d.from, d.length, d.anywhere = off, n, true }

// confined reports whether a write may be lost or misdirected.
func (d *Disk) confined(r *diskRun) bool {
	return d.length == 0 || r.off >= d.from && r.off+int64(r.bytes) < d.from+d.length
}

// elsewhere is where a misdirected write lands: mostly somewhere that was written before, since that is where it hurts.
func (d *Disk) elsewhere(off int64, n int) int64 {
	rng, sector := d.where(), int64(d.m.sector)
	from, length := d.from, d.length
	if length == 0 || d.anywhere {
		from, length = 0, d.size
	}
	for {
		at := from + rng.Int64N((length-int64(n))/sector+1)*sector
		if rng.IntN(4) > 0 {
			if page, ok := d.anyPage(rng); ok {
				at = min(max(page*pageSize+rng.Int64N(pageSize/sector)*sector, from), from+length-int64(n))
			}
		}
		if at != off {
			return at
		}
	}
}

// where draws the places of flips and misdirected writes.
func (d *Disk) where() *rand.Rand { return d.stream("where") }

// anyPage draws a page that holds something.
func (d *Disk) anyPage(rng *rand.Rand) (int64, bool) {
	pages := d.m.current.pages
	if len(pages) == 0 {
		return 0, false
	}
	return slices.Sorted(maps.Keys(pages))[rng.IntN(len(pages))], true
}

// Flip inverts the bits of mask in the byte at off, durably.
func (d *Disk) Flip(off int64, mask byte) {
	d.w.inflict(FaultBitFlip, "-", "disk %s: bits %#02x of byte %d", d.name, mask, off)
	d.m.flip(off, mask)
}

// FlipWithin flips one bit, drawn, of [off, off+n) and says in which byte.
func (d *Disk) FlipWithin(off, n int64) int64 {
	rng := d.where()
	at := off + rng.Int64N(n)
	d.Flip(at, 1<<rng.IntN(8))
	return at
}

// FlipAnywhere flips one bit, drawn, of what was ever written and says in which byte; false when nothing was.
func (d *Disk) FlipAnywhere() (int64, bool) {
	page, ok := d.anyPage(d.where())
	if !ok {
		return 0, false
	}
	return d.FlipWithin(page*pageSize, min(pageSize, d.size-page*pageSize)), true
}

// FailNth makes the k-th operation from now of a kind (0: any), counted from 1, fail with err. For testers that fail each operation in turn.
func (d *Disk) FailNth(kind loop.DiskKind, k int, err error) {
	d.faults = append(d.faults, &fault{kind: kind, skip: max(k-1, 0), n: 1, err: err})
}

// SetSpace limits what the disk's backing file can hold, in bytes, counted in pieces of 16 KiB; 0 ends the limit. A write that needs more fails with ENOSPC and does nothing.
func (d *Disk) SetSpace(n int64) { d.space = n }

// Used is how much the backing file holds, for SetSpace.
func (d *Disk) Used() int64 { return int64(len(d.m.current.pages)) * pageSize }

// full reports whether a write at off has no room in the backing file.
func (d *Disk) full(off int64, n int) bool {
	if d.space == 0 {
		return false
	}
	need := int64(0)
	for page := off / pageSize; page*pageSize < off+int64(n); page++ {
		if d.m.current.pages[page] == nil {
			need++
		}
	}
	return need > 0 && d.Used()+need*pageSize > d.space
}

// SetTearUnit sets what a crash tears writes into, in bytes: 512 is a disk that shows bigger sectors than it writes at once. It is the sector size at first.
func (d *Disk) SetTearUnit(n int) {
	if n <= 0 || d.m.sector%n != 0 {
		panic(fmt.Sprintf("sim: disk %s: sectors of %d bytes cannot tear into pieces of %d", d.name, d.m.sector, n))
	}
	d.m.tear = n
}

// SetSlow makes every operation take factor times as long; 1 ends it.
func (d *Disk) SetSlow(factor float64) {
	if factor != 1 {
		d.w.inflict(FaultDiskSlow, "-", "disk %s: %g times", d.name, factor)
	}
	d.slow = factor
}

// StallFor lets no operation complete for dur; what it started last counts.
func (d *Disk) StallFor(dur time.Duration) {
	d.Stall(true)
	n := d.stalls
	d.w.After(dur, func() {
		if d.stalls == n {
			d.Stall(false)
		}
	})
}
