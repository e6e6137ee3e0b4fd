package sim

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"holdfast/core/loop"
)

// Disk is a simulated disk with a volatile cache: a write is durable once a later flush has completed, or when it was a sync write. It outlives the processes that open it.
//
// Its operations take a drawn time each, so they complete in any order. Data of a write is read when it completes and must be what it was when it was submitted; the
// buffer of a read holds rubbish until then.
type Disk struct {
	w      *World
	name   string
	size   int64
	m      *media
	rng    *rand.Rand
	handle []*handle
	flight []*diskRun // in order of submission
	free   []*diskRun
	rec    *Recording

	times   *rand.Rand // sub-stream of latencies
	latency [loop.DiskDiscard + 1]Delay
	slow    float64 // 0 and 1: not slow
	faults  []*fault
	odds    diskFaults
	bad     []badRange
	space   int64 // of the backing file; 0: enough
	stalled bool
	atOnce  int        // for Info
	stalls  int        // times that Stall was called
	waiting []*diskRun // done when the stall ends

	toLose, toMisdirect int    // of the next writes
	from, length        int64  // where writes are lost and misdirected; a length of 0: everywhere
	anywhere            bool   // misdirected ones land on all of the disk
	lies                uint64 // writes lost and misdirected
	kept                kept   // see Remember

	// Counts is how many operations of each kind completed without error.
	Counts [loop.DiskDiscard + 1]uint64
}

// fault makes the next operations of a kind fail.
type fault struct {
	kind loop.DiskKind // 0: any
	skip int           // operations that come before
	n    int
	err  error
}

// badRange fails reads until it is written.
type badRange struct {
	off, n int64
	err    error
}

// diskRun is one operation on its way.
type diskRun struct {
	d          *Disk
	h          *handle
	op         *loop.DiskOp
	generation int
	bytes      int
	off        int64
	mark       uint64 // of a flush: the writes it covers
	sum        uint32 // of a write's data
	rec        int    // its index in the recording + 1
	lost       bool   // acknowledged, not applied
	astray     bool   // acknowledged, applied elsewhere
	err        error
}

// handle is a Disk opened by one loop.
type handle struct {
	l       *Loop
	d       *Disk
	o       loop.DiskOptions
	running int
	lost    bool // the disk crashed under it
	closing bool
	done    func()
}

var _ loop.Disk = (*handle)(nil)

// NewDisk makes an empty disk; sector is 512 or 4096 and size a multiple of it.
func (w *World) NewDisk(name string, size int64, sector int) *Disk {
	content := newSparse()
	return w.addDisk(name, size, &media{sector: sector, stable: content, current: content.clone()})
}

func (w *World) addDisk(name string, size int64, m *media) *Disk {
	if m.sector <= 0 || size%int64(m.sector) != 0 {
		panic(fmt.Sprintf("sim: disk %s: size %d is not a multiple of its sector size %d", name, size, m.sector))
	}
	if w.disks[name] != nil {
		panic("sim: there is a disk " + name + " already")
	}
	if m.tear == 0 {
		m.tear = m.sector
	}
	m.w = w
	d := &Disk{w: w, name: name, size: size, m: m, rng: w.Stream("disk/" + name + "/crash")}
	d.times = d.stream("time")
	d.SetLatency(loop.DiskRead, 20*time.Microsecond, 120*time.Microsecond)
	d.SetLatency(loop.DiskWrite, 10*time.Microsecond, 60*time.Microsecond)
	d.SetLatency(loop.DiskSync, 50*time.Microsecond, 250*time.Microsecond)
	d.SetLatency(loop.DiskFlush, 50*time.Microsecond, 400*time.Microsecond)
	d.SetLatency(loop.DiskDiscard, 10*time.Microsecond, 60*time.Microsecond)
	w.disks[name] = d
	return d
}

// Disk is the disk of this name, or nil.
func (w *World) Disk(name string) *Disk { return w.disks[name] }

// RemoveDisk takes the disk away, as if pulled: operations in flight and later ones fail with EIO, and it cannot be opened.
func (w *World) RemoveDisk(name string) {
	if d := w.disks[name]; d != nil {
		w.inflict(FaultDiskGone, "-", "disk %s", name)
		d.lose()
		delete(w.disks, name)
	}
}

// Name is what OpenDisk finds the disk by.
func (d *Disk) Name() string { return d.name }

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// SetWriteThrough makes every completed write durable, and the disk say so. It is set before anything is written.
func (d *Disk) SetWriteThrough() {
	d.m.stable = d.m.current
}

// SetWritesAtOnce is what Info says the disk writes at once; it tears accordingly only with SetTearUnit.
func (d *Disk) SetWritesAtOnce(n int) { d.atOnce = n }

// WriteThrough reports whether every completed write is durable.
func (d *Disk) WriteThrough() bool { return d.m.stable == d.m.current }

// SetLatency sets how long operations of a kind take.
func (d *Disk) SetLatency(k loop.DiskKind, lo, hi time.Duration) {
	d.SetDelay(k, Delay{Min: lo, Max: hi})
}

// SetDelay sets how long operations of a kind take.
func (d *Disk) SetDelay(k loop.DiskKind, t Delay) { d.latency[k] = t }

// SetAllLatency sets how long operations of every kind take.
func (d *Disk) SetAllLatency(lo, hi time.Duration) {
	for k := loop.DiskRead; k <= loop.DiskDiscard; k++ {
		d.SetLatency(k, lo, hi)
	}
}

// Stall lets no operation complete until it is ended.
func (d *Disk) Stall(on bool) {
	d.stalls++
	if on && !d.stalled {
		d.w.inflict(FaultDiskStall, "-", "disk %s", d.name)
	}
	d.stalled = on
	if on {
		return
	}
	for _, r := range d.waiting {
		d.w.push(event{at: d.w.now.Add(soon), kind: evDiskDone, x: r, n: r.generation})
	}
	d.waiting = nil
}

// Fail makes the next n operations of kind (0: any) that are submitted fail with err. A failed write has been done, not done or torn by chance, except with ENOSPC: not done.
func (d *Disk) Fail(kind loop.DiskKind, n int, err error) {
	d.faults = append(d.faults, &fault{kind: kind, n: n, err: err})
}

// FailRange makes reads that touch [off, off+n) fail with err until that part is written again.
func (d *Disk) FailRange(off, n int64, err error) {
	d.bad = append(d.bad, badRange{off, n, err})
}

// Zero makes [off, off+n) zero, durably.
func (d *Disk) Zero(off, n int64) { d.m.zero(off, n) }

// Peek copies what a read at off would give, now.
func (d *Disk) Peek(p []byte, off int64) { d.m.current.read(p, off) }

// PeekStable copies what is durable at off.
func (d *Disk) PeekStable(p []byte, off int64) { d.m.stable.read(p, off) }

// Poke writes p at off durably, now.
func (d *Disk) Poke(p []byte, off int64) {
	d.m.flush(d.m.writes)
	d.m.write(off, p, true)
}

// Unflushed is the number of completed writes that a crash may lose.
func (d *Disk) Unflushed() int {
	n := 0
	for _, c := range d.m.cache {
		if !c.durable {
			n++
		}
	}
	return n
}

// InFlight is the number of operations that were submitted and have not completed.
func (d *Disk) InFlight() int { return len(d.flight) }

// Crash is loss of power: each write that no flush has covered, and each in flight, is kept, dropped or torn by the policy. Loops that had the disk open get EIO for everything from
// then on; usually they are killed first.
func (d *Disk) Crash(p CrashPolicy) {
	d.kept.list = nil // of what is lost with the power nothing is kept
	d.w.inflict(FaultDiskCrash, "-", "disk %s: crash with %d writes cached and %d operations in flight", d.name, len(d.m.cache), len(d.flight))
	var writes []flying
	for _, r := range d.flight {
		if (r.op.Kind == loop.DiskWrite || r.op.Kind == loop.DiskSync) && !r.lost {
			writes = append(writes, flying{r.off, joined(r.op)})
		}
	}
	d.m.crash(p, d.rng, writes)
	d.lose()
}

// lose ends every handle: what is in flight ends with EIO.
func (d *Disk) lose() {
	for _, h := range d.handle {
		h.lost = true
	}
	d.handle = nil
	for _, r := range d.flight {
		r.generation++
		r.err = r.failed(syscall.EIO)
		d.w.push(event{at: d.w.now.Add(soon), l: r.h.l, kind: evDisk, x: r})
	}
	d.flight, d.waiting = nil, nil
}

func (d *Disk) open(l *Loop, o loop.DiskOptions) (loop.Disk, error) {
	for _, h := range d.handle {
		if o.Exclusive && h.o.Exclusive {
			return nil, fmt.Errorf("open disk %s: in use by %s: %w", d.name, h.l.name, syscall.EWOULDBLOCK)
		}
	}
	h := &handle{l: l, d: d, o: o}
	d.handle = append(d.handle, h)
	l.disks = append(l.disks, h)
	return h, nil
}

// Info is what is known of the disk.
func (h *handle) Info() loop.DiskInfo {
	d := h.d
	return loop.DiskInfo{Size: d.size, SectorSize: d.m.sector, WritesAtOnce: d.atOnce, WriteThrough: d.WriteThrough(), Identity: "sim-" + d.name}
}

// Submit starts op.
func (h *handle) Submit(op *loop.DiskOp) {
	if h.l.dead {
		return
	}
	if h.closing {
		panic("sim: disk " + h.d.name + ": an operation after Close")
	}
	d := h.d
	h.running++
	r := d.newRun()
	*r = diskRun{d: d, h: h, op: op, generation: r.generation, bytes: op.Bytes(), off: op.Off}
	op.Err = nil
	if err := h.check(op); err != nil {
		r.err = r.failed(err)
		d.w.push(event{at: d.w.now.Add(soon), l: h.l, kind: evDisk, x: r})
		return
	}
	switch op.Kind {
	case loop.DiskRead:
		each(op, poison)
	case loop.DiskWrite, loop.DiskSync:
		r.sum = sum(op)
	case loop.DiskFlush:
		r.mark = d.m.writes
	}
	if err := d.drawFault(op.Kind); err != nil {
		r.err = r.failed(err)
	}
	t := d.latency[op.Kind].draw(d.times)
	if d.slow > 1 {
		t = time.Duration(float64(t) * d.slow)
	}
	t += d.meet(r)
	d.rec.submit(r)
	d.flight = append(d.flight, r)
	d.w.push(event{at: d.w.now.Add(t), kind: evDiskDone, x: r, n: r.generation})
}

func (d *Disk) newRun() *diskRun {
	if k := len(d.free); k > 0 {
		r := d.free[k-1]
		d.free = d.free[:k-1]
		return r
	}
	return &diskRun{}
}

func (r *diskRun) failed(err error) error {
	e := &loop.DiskError{Disk: r.d.name, Kind: r.op.Kind, Off: r.op.Off, Len: int64(r.bytes), Err: err}
	if r.op.Kind == loop.DiskDiscard {
		e.Len = r.op.Len
	}
	return e
}

var (
	errRange = errors.New("beyond the end of the disk")
	errAlign = errors.New("offset, length or memory is not a multiple of the sector size")
)

// check refuses what a kernel would.
func (h *handle) check(op *loop.DiskOp) error {
	d := h.d
	sector := int64(d.m.sector)
	n := int64(op.Bytes())
	switch op.Kind {
	case loop.DiskFlush:
		n = 0
	case loop.DiskDiscard:
		n = op.Len
	case loop.DiskRead, loop.DiskWrite, loop.DiskSync:
		aligned := true
		each(op, func(p []byte) {
			aligned = aligned && len(p)%d.m.sector == 0 && (h.o.Buffered || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(d.m.sector) == 0)
		})
		if !aligned {
			return fmt.Errorf("%w: %w", syscall.EINVAL, errAlign)
		}
	default:
		return syscall.EOPNOTSUPP
	}
	switch {
	case h.lost:
		return syscall.EIO
	case h.o.ReadOnly && op.Kind != loop.DiskRead && op.Kind != loop.DiskFlush:
		return syscall.EBADF
	case op.Kind != loop.DiskFlush && (op.Off%sector != 0 || n%sector != 0):
		return fmt.Errorf("%w: %w", syscall.EINVAL, errAlign)
	case op.Kind != loop.DiskFlush && (op.Off < 0 || n < 0 || op.Off > d.size-n):
		return fmt.Errorf("%w: %w", syscall.EINVAL, errRange)
	}
	return nil
}

func (d *Disk) drawFault(k loop.DiskKind) error {
	for i, f := range d.faults {
		if f.kind != 0 && f.kind != k {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		if f.n--; f.n <= 0 {
			d.faults = slices.Delete(d.faults, i, i+1)
		}
		return f.err
	}
	return nil
}

// complete does the disk's part of an operation and lets the loop know.
func (d *Disk) complete(r *diskRun, generation int) bool {
	if r.generation != generation {
		return false
	}
	if d.stalled {
		d.waiting = append(d.waiting, r)
		return false
	}
	d.unflight(r)
	d.effect(r)
	d.rec.complete(r)
	return d.w.dispatch(event{at: d.w.now, l: r.h.l, kind: evDisk, x: r})
}

func (d *Disk) unflight(r *diskRun) {
	i := slices.Index(d.flight, r)
	d.flight = slices.Delete(d.flight, i, i+1)
}

func (d *Disk) effect(r *diskRun) {
	op := r.op
	switch op.Kind {
	case loop.DiskRead:
		d.read(r)
	case loop.DiskWrite, loop.DiskSync:
		if sum(op) != r.sum {
			panic(fmt.Sprintf("sim: the data of a %s of %d bytes at %d of disk %s was changed while it was lent", op.Kind, r.bytes, r.off, d.name))
		}
		if r.err == nil && d.full(r.off, r.bytes) {
			r.err = r.failed(syscall.ENOSPC)
		}
		if r.err != nil {
			if !errors.Is(r.err, syscall.ENOSPC) {
				d.w.strike(FaultWriteError)
				d.maybeWrite(r)
			} else {
				d.w.strike(FaultNoSpace)
			}
			return
		}
		if r.lost || r.astray {
			d.lies++
		}
		if r.lost {
			d.w.inflict(FaultLostWrite, r.h.l.name, "disk %s: %d+%d", d.name, r.off, r.bytes)
			break
		}
		if r.astray {
			off := r.off
			r.off = d.elsewhere(off, r.bytes)
			d.w.inflict(FaultMisdirected, r.h.l.name, "disk %s: %d+%d goes to %d", d.name, off, r.bytes, r.off)
		}
		d.mend(r.off, int64(r.bytes))
		d.put(r, op.Kind == loop.DiskSync && !r.h.o.NoFlush)
	case loop.DiskFlush:
		switch {
		case r.err != nil:
			d.w.strike(FaultFlushError)
		case !r.h.o.NoFlush:
			d.m.flush(r.mark)
		}
	case loop.DiskDiscard:
		if r.err == nil && d.stream("discard").IntN(2) == 0 {
			d.m.zero(op.Off, op.Len)
		}
	}
	if r.err == nil {
		d.Counts[op.Kind]++
	}
}

func (d *Disk) read(r *diskRun) {
	if r.err != nil {
		d.w.strike(FaultReadError)
		return
	}
	for _, b := range d.bad {
		if r.off < b.off+b.n && b.off < r.off+int64(r.bytes) {
			d.w.strike(FaultReadError)
			r.err = r.failed(b.err)
			return
		}
	}
	off := r.off
	each(r.op, func(p []byte) {
		d.m.current.read(p, off)
		off += int64(len(p))
	})
}

// put writes a whole operation into the media.
func (d *Disk) put(r *diskRun, durable bool) {
	d.kept.note(d.m, r.off, r.bytes)
	off := r.off
	each(r.op, func(p []byte) {
		d.m.write(off, p, durable)
		off += int64(len(p))
	})
}

// maybeWrite leaves a write that failed, or whose process died, to chance.
func (d *Disk) maybeWrite(r *diskRun) {
	if r.lost {
		return
	}
	switch keep, tear := CrashRandom.draw(d.rng); {
	case keep:
		d.put(r, false)
	case tear:
		p := joined(r.op)
		d.kept.note(d.m, r.off, len(p))
		for _, part := range torn(d.rng, d.m.tear, len(p)) {
			if part[0] < part[1] {
				d.m.write(r.off+int64(part[0]), p[part[0]:part[1]], false)
			}
		}
	}
}

// mend ends read errors where [off, off+n) was written.
func (d *Disk) mend(off, n int64) {
	if len(d.bad) == 0 {
		return
	}
	var left []badRange
	for _, b := range d.bad {
		if off >= b.off+b.n || b.off >= off+n {
			left = append(left, b)
			continue
		}
		if b.off < off {
			left = append(left, badRange{b.off, off - b.off, b.err})
		}
		if end := b.off + b.n; end > off+n {
			left = append(left, badRange{off + n, end - off - n, b.err})
		}
	}
	d.bad = left
}

// finish tells the owner.
func (r *diskRun) finish() {
	op, h := r.op, r.h
	op.Err = r.err
	r.generation++
	r.op, r.h, r.err = nil, nil, nil
	r.d.free = append(r.d.free, r)
	h.running--
	closing := h.closing // if op.Done closes it, Close has seen that nothing runs
	op.Done(op)
	if closing && h.running == 0 && !h.l.dead {
		h.l.w.push(event{at: h.l.w.now.Add(soon), l: h.l, kind: evDiskClosed, x: h})
	}
}

// Close waits for running operations, then calls done.
func (h *handle) Close(done func()) {
	if h.closing || h.l.dead {
		return
	}
	h.closing = true
	h.done = func() {
		h.gone()
		if done != nil {
			done()
		}
	}
	if h.running == 0 {
		h.l.w.push(event{at: h.l.w.now.Add(soon), l: h.l, kind: evDiskClosed, x: h})
	}
}

func (h *handle) gone() {
	is := func(o *handle) bool { return o == h }
	h.d.handle = slices.DeleteFunc(h.d.handle, is)
	h.l.disks = slices.DeleteFunc(h.l.disks, is)
}

// abandon ends the handle of a process that ended; what it had in flight is done, or left to chance.
func (h *handle) abandon(chance bool) {
	d := h.d
	is := func(o *handle) bool { return o == h }
	d.handle = slices.DeleteFunc(d.handle, is)
	d.waiting = slices.DeleteFunc(d.waiting, func(r *diskRun) bool { return r.h == h })
	var left []*diskRun
	for _, r := range d.flight {
		if r.h != h {
			left = append(left, r)
			continue
		}
		r.generation++
		switch {
		case !chance:
			d.effect(r)
		case r.op.Kind == loop.DiskWrite || r.op.Kind == loop.DiskSync:
			d.maybeWrite(r)
		}
	}
	if len(left) < len(d.flight) {
		d.rec = nil // what chance did is not in it
	}
	d.flight = left
}

// each calls f for the pieces of op.
func each(op *loop.DiskOp, f func(p []byte)) {
	if len(op.Vec) == 0 {
		f(op.Data)
		return
	}
	for _, p := range op.Vec {
		f(p)
	}
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func sum(op *loop.DiskOp) uint32 {
	if len(op.Vec) == 0 {
		return crc32.Checksum(op.Data, crcTable)
	}
	var s uint32
	for _, p := range op.Vec {
		s = crc32.Update(s, crcTable, p)
	}
	return s
}
