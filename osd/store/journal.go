package store

import (
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"holdfast/core/loop"
	"holdfast/core/planted"
)

// Limits of the journal.
const (
	batchData    = 1 << 20   // data in one batch, unless a single change has more
	batchEntries = 128 << 10 // bytes of entries in one batch, unless a single one has more
	batchesFlown = 2         // batches under way at once
	// A second batch goes out beside the first only when it is worth a device write of its own.
	secondBatch = 256 << 10
	// commitDelay is how long a commit waits for a change to share a device write with. Nobody waits for it but peering, where it comes once; so the next write of a client that makes one at a time does not wait
	// for the commit of the last. It covers the round trips and the read before that write.
	commitDelay = 2 * time.Millisecond
)

// journal is a ring of batches on the device, with a copy in memory that reads and the flusher use.
// Positions only grow; modulo the size they are offsets in the area.
type journal struct {
	s    *Store
	mem  []byte
	size uint64

	head      uint64 // where the next batch goes
	seq       uint64 // of the last batch built
	entry     uint64 // of the last entry built
	crc       uint32 // of the last batch built
	oldest    uint64 // the oldest batch that is still needed; seq+1 when none is
	batches   []batch
	freeFrom  uint64 // start of the tail that a durable batch has recorded: what is before may be overwritten
	tailKnown uint64 // that tail's batch

	settled      uint64 // batches up to this have been written,
	durable      uint64 // batches up to this are durable,
	durableEntry uint64 // and so are entries up to this

	queue     opList // changes to be written
	queued    int    // bytes of their data
	pressing  int    // those that somebody waits for: all but commits
	patience  loop.Timer
	overdue   bool // commits have waited for company long enough
	records   []record
	chains    []uint32 // dirty objects whose chain is to be written again
	flights   [batchesFlown]flight
	flying    int
	carriedAt uint64 // where the head was when records were last carried forward
	stalled   bool   // the queue waits for space
	torn      bool   // replay found batches behind the end
	task      loop.Task
}

// batch is what memory keeps of one batch in the ring.
type batch struct {
	pos  uint64
	refs int // changes, records and rounds that replay must still find in it
}

// record is an entry that is not a change of an object.
type record struct {
	data  []byte
	last  bool               // may use the last room
	valid func() bool        // asked before it is written; nil: it is. A record that is not is dropped
	done  func(batch uint32) // called when it is durable; may be nil. It owns one reference of the batch
}

// flight is a batch on its way to the device.
type flight struct {
	op        loop.DiskOp
	busy      bool
	done      bool
	soft      bool // not written through
	seq       uint64
	lastEntry uint64
	tail      uint64
	tailPos   uint64
	ops       opList
	records   []record
	carried   []carried
	chains    []uint32
}

func (j *journal) init(s *Store) {
	j.s = s
	j.size = uint64(s.sb.Journal.Len)
	j.mem = s.t.alloc(int(j.size))
	j.batches = make([]batch, j.size/journalAlign+2)
	j.task.Run = j.launch
	j.patience.Fire = func() {
		j.overdue = true
		s.l.Defer(&j.task)
	}
	for i := range j.flights {
		f := &j.flights[i]
		f.op.Done = func(*loop.DiskOp) { j.landed(f) }
	}
}

func (j *journal) at(seq uint64) *batch { return &j.batches[seq%uint64(len(j.batches))] }

// start is the position of the oldest batch that is still needed.
func (j *journal) start() uint64 {
	if j.oldest > j.seq {
		return j.head
	}
	return j.at(j.oldest).pos
}

// age is how far back the oldest batch reaches, in 1/256 of the journal.
func (j *journal) age(pos uint64) int { return int((j.head - pos) * 256 / j.size) }

// release lets go of a batch.
func (j *journal) release(b uint32) {
	p := &j.batches[b]
	if p.refs--; p.refs < 0 {
		panic(fmt.Sprintf("store: batch %d was released too often", b))
	}
}

// advance moves past batches that nobody needs.
func (j *journal) advance() {
	for j.oldest <= j.durable && j.at(j.oldest).refs == 0 {
		j.oldest++
	}
}

// keep is the room that changes leave to what is carried forward: twice what there is of that, since room comes back only when the oldest of it has been carried.
func (j *journal) keep() uint64 {
	return j.size/8 + 2*uint64(j.s.unstable+64*j.s.pairs.n+j.s.pgs.bytes)
}

// keepLast is the room that carrying leaves to the announcements of rounds and to the batches that record a new tail: without those two no room ever comes back. Each of them
// takes one unit.
func (j *journal) keepLast() uint64 { return j.size / 16 }

// room reports whether a batch of n bytes may be written now, and the gap to leave at the end of the ring.
func (j *journal) room(n int, keep uint64) (gap uint64, ok bool) {
	if left := j.size - j.head%j.size; uint64(n) > left {
		gap = left
	}
	if planted.RingReused {
		return gap, j.head+gap+uint64(n)+keep <= j.start()+j.size
	}
	return gap, j.head+gap+uint64(n)+keep <= j.freeFrom+j.size
}

// push queues a change whose data, if it went straight to its block, is durable.
func (j *journal) push(op *Op) {
	j.queue.push(op)
	if op.impl.journaled {
		j.queued += int(op.Len)
	}
	if !op.impl.lazy {
		j.s.lazy.hard++
	}
	if op.Kind != OpCommit {
		j.pressing++
	}
	j.s.l.Defer(&j.task)
}

// waits reports whether there is nothing but commits to write, and they may wait for company.
func (j *journal) waits() bool {
	s := j.s
	if j.queue.head == nil || j.pressing > 0 || len(j.records)+len(j.chains) > 0 || s.movesReady() || j.overdue || s.closing || s.lazy.due() {
		return false
	}
	if !j.patience.Armed() {
		s.l.Arm(&j.patience, s.l.Now().Add(commitDelay))
	}
	return true
}

// append queues a record.
func (j *journal) append(r record) {
	j.records = append(j.records, r)
	j.s.l.Defer(&j.task)
}

// announce queues a record before all others; it may use the last room.
func (j *journal) announce(r record) {
	r.last = true
	j.records = slices.Insert(j.records, 0, r)
	j.s.l.Defer(&j.task)
}

// launch sends what is queued.
func (j *journal) launch() {
	if j.s.closed {
		return
	}
	j.stalled = false
	for j.s.failure == nil && j.flying < batchesFlown {
		due := j.s.lazy.due()
		if j.queue.head == nil && len(j.records) == 0 && len(j.chains) == 0 && !j.s.movesReady() && !due || j.flying > 0 && j.queued < j.s.o.secondBatch || j.waits() {
			break
		}
		if !j.send(false) {
			break
		}
	}
	if j.queue.head == nil {
		j.overdue = false
		j.s.l.Disarm(&j.patience)
	}
	j.s.maintain()
}

// align rounds up to the journal's unit.
func align(n int) int { return (n + journalAlign - 1) &^ (journalAlign - 1) }

// send builds one batch and writes it. Without force it does so only when there is something to write. It reports whether a batch went out.
func (j *journal) send(force bool) bool {
	s := j.s
	j.records = slices.DeleteFunc(j.records, func(r record) bool { return r.valid != nil && !r.valid() })
	j.chains = slices.DeleteFunc(j.chains, func(d uint32) bool { return !s.mayCarry(d) })
	z := &s.lazy
	moves := s.movesReady()
	hard := force || z.hard > 0 || len(j.records) > 0 || len(j.chains) > 0 || moves || z.due()
	if hard && !z.clear() {
		s.flushSoft()
		return false
	}
	header, data, ops, records, chains := batchHeader, 0, 0, 0, 0
	for records < len(j.records) && header < batchEntries {
		n, keep := len(j.records[records].data), j.keepLast()
		if j.records[records].last {
			keep = journalAlign
		}
		if _, ok := j.room(align(header+n)+align(data), keep); !ok {
			break
		}
		header += n
		records++
	}
	for _, d := range j.chains {
		h, n := s.chainSize(d)
		if records+chains > 0 && (header+h > batchEntries || data+n > batchData) {
			break
		}
		if _, ok := j.room(align(header+h)+align(data+n), j.keepLast()); !ok {
			break
		}
		header, data, chains = header+h, data+n, chains+1
	}
	for i := 0; moves && i < movers; i++ {
		m := &s.parking.movers[i]
		if !m.ready || s.dirty[m.dirty].carrying || slices.Contains(j.chains, m.dirty) {
			continue
		}
		h, n := s.chainSize(m.dirty)
		if records+chains > 0 && (header+h > batchEntries || data+n > batchData) {
			break
		}
		// It is no pressing matter, and leaves what changes do.
		if _, ok := j.room(align(header+h)+align(data+n), j.keep()); !ok {
			j.stalled = true
			break
		}
		j.chains = slices.Insert(j.chains, chains, m.dirty)
		header, data, chains = header+h, data+n, chains+1
	}
	for op := j.queue.head; op != nil; op = op.impl.next {
		if hard && op.impl.stamp > z.covered {
			s.flushSoft()
			break
		}
		h, d := s.entrySize(op), 0
		if op.impl.journaled {
			d = int(op.Len)
		}
		if ops+chains > 0 && (header+h > batchEntries || data+d > batchData) {
			break
		}
		if _, ok := j.room(align(header+h)+align(data+d), j.keep()); !ok {
			j.stalled = true
			break
		}
		header, data, ops = header+h, data+d, ops+1
	}
	if ops+records+chains == 0 && !force && !z.due() {
		return false
	}
	gap, ok := j.room(align(header)+align(data), 0)
	if !ok {
		return false
	}
	var f *flight
	for i := range j.flights {
		if !j.flights[i].busy {
			f = &j.flights[i]
			break
		}
	}
	f.soft = !hard
	j.build(f, gap, header, data, ops, records, chains)
	j.flying++
	s.sendWrite(&f.op)
	if planted.JournalLate {
		j.settle(f)
		f.busy, j.flying = true, j.flying+1
	}
	return true
}

// build puts a batch together in the ring's memory.
func (j *journal) build(f *flight, gap uint64, header, data, ops, records, chains int) {
	s := j.s
	j.head += gap
	j.seq++
	pos := j.head % j.size
	bi := uint32(j.seq % uint64(len(j.batches)))
	b := &j.batches[bi]
	*b = batch{pos: j.head}
	z := &s.lazy
	size := align(header) + align(data)
	mem := j.mem[pos : pos+uint64(size)]
	h := batchInfo{seq: j.seq, epoch: s.sb.Boot, first: j.entry + 1, durable: j.durable, pos: pos, soft: f.soft, roundDone: s.round.done, pages: s.round.sum, counted: true, prevCRC: j.crc,
		headerLen: uint32(header), dataOff: uint32(align(header)), dataLen: uint32(align(data))}
	at, dataAt := batchHeader, align(header)
	f.busy, f.done, f.ops, f.records = true, false, opList{}, append(f.records[:0], j.records[:records]...)
	for _, d := range j.chains[:chains] {
		var n int
		at, dataAt, n = j.putChain(f, d, mem, at, dataAt, uint32(pos))
		b.refs += n
		h.count += uint32(n)
	}
	j.chains = j.chains[:copy(j.chains, j.chains[chains:])]
	for _, r := range f.records {
		j.entry++
		copy(mem[at:], r.data)
		le.PutUint64(mem[at+8:], j.entry)
		sealEntry(mem[at:], len(r.data))
		at += len(r.data)
		b.refs++
		h.count++
	}
	n := copy(j.records, j.records[records:])
	clear(j.records[n:])
	j.records = j.records[:n]
	for ; ops > 0; ops-- {
		op := j.queue.pop()
		j.entry++
		n, d := s.putOp(op, mem, at, dataAt, j.entry, uint32(pos))
		c := &s.changes[op.impl.change]
		c.state, c.batch = changeLogged, bi
		if op.impl.journaled {
			j.queued -= int(op.Len)
		}
		if !op.impl.lazy {
			z.hard--
		}
		if op.Kind != OpCommit {
			j.pressing--
		}
		at, dataAt = at+n, dataAt+d
		b.refs++
		h.count++
		f.ops.push(op)
	}
	if f.soft {
		z.batches++
		z.batch = j.seq
	} else {
		z.flying++
		h.durable = max(h.durable, z.batch) // send has seen to it
	}
	clear(mem[at:align(header)])
	clear(mem[dataAt:])
	h.dataCRC = crc32.Checksum(mem[h.dataOff:], castagnoli)
	j.advance()
	tail := min(j.oldest, j.durable) // a batch that is durable, so that a missing one is always damage
	h.tailSeq, h.tailPos = tail, j.at(tail).pos%j.size
	h.encode(mem, &s.sb.secret)
	j.crc = h.crc
	j.head += uint64(size)
	f.seq, f.lastEntry, f.tail, f.tailPos = j.seq, j.entry, tail, j.at(tail).pos
	f.op.Kind, f.op.Off, f.op.Data = loop.DiskSync, s.sb.Journal.at(int64(pos)), mem
	if planted.FlushMissing || f.soft {
		f.op.Kind = loop.DiskWrite
	}
}

// landed takes a batch that the device has finished; changes are acknowledged in the order of the batches.
func (j *journal) landed(f *flight) {
	s := j.s
	if f.op.Err != nil {
		s.deviceFailed("the journal", &f.op)
	}
	f.done = true
	if f.soft {
		s.lazy.batches--
		s.lazy.stamp = s.lazy.landed()
	} else {
		s.lazy.flying--
	}
	if planted.JournalLate && f.seq <= j.durable {
		f.busy, j.flying = false, j.flying-1
	}
	for {
		var next *flight
		for i := range j.flights {
			if g := &j.flights[i]; g.busy && (g.seq == j.settled+1 || planted.AckOutOfOrder && g.done) {
				next = g
			}
		}
		if next == nil || !next.done {
			break
		}
		j.settle(next)
		if s.failure != nil {
			break
		}
	}
	if s.failure != nil {
		// Nothing is settled any more, also what has landed before and waited for this one.
		for i := range j.flights {
			if g := &j.flights[i]; g.busy && g.done {
				g.busy = false
				j.flying--
			}
		}
	}
	s.l.Defer(&j.task)
	s.closeStep()
}

// settle acknowledges what is in a durable batch.
func (j *journal) settle(f *flight) {
	s := j.s
	f.busy = false
	j.flying--
	if s.failure != nil {
		return
	}
	j.settled = f.seq
	if f.soft {
		ops := f.ops
		f.ops = opList{}
		for op := ops.pop(); op != nil; op = ops.pop() {
			s.written(op, true)
		}
		return
	}
	j.durable, j.durableEntry = f.seq, f.lastEntry
	s.harden()
	if f.tail > j.tailKnown {
		j.tailKnown, j.freeFrom = f.tail, f.tailPos
	}
	ops := f.ops
	f.ops = opList{}
	bi := uint32(f.seq % uint64(len(j.batches)))
	j.carriedOver(f, bi)
	for i := range f.records {
		r := f.records[i]
		f.records[i] = record{}
		if r.done != nil {
			r.done(bi)
		} else {
			j.release(bi)
		}
	}
	for op := ops.pop(); op != nil; op = ops.pop() {
		s.written(op, false)
	}
}

// seqOf is the sequence of a batch by its number in batches.
func (j *journal) seqOf(b uint32) uint64 {
	n := uint64(len(j.batches))
	seq := j.seq - j.seq%n + uint64(b)
	if seq > j.seq {
		seq -= n
	}
	return seq
}
