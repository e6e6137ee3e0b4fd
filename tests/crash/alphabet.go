package crash

import (
	"math/rand/v2"
	"time"

	"holdfast/core/layout"
	"holdfast/osd/store"
)

// letter is one operation of a sequence. Most act on object 1, so that they meet; what a letter cannot do in the state it finds must be refused as the model says.
type letter struct {
	id   byte
	name string
	do   func(r *runner)
}

func (r *runner) a() *object { return r.h.object(1) }
func (r *runner) b() *object { return r.h.object(2) }

func (r *runner) fresh() *object { return r.h.add(uint64(len(r.h.objects)+1), r.c.units()) }

// lower is a version that recovery may bring over a newer one.
func lower(v layout.Version) layout.Version { return max(1, v/2) }

// Alphabet is every operation that sequences are made of.
var alphabet = []letter{
	{'w', "whole write", func(r *runner) { r.write(r.a(), 0, r.c.units(), false) }},
	{'n', "first write of a whole object", func(r *runner) { r.write(r.fresh(), 0, r.c.units(), false) }},
	{'s', "small write", func(r *runner) { r.write(r.a(), 2, 1, false) }},
	{'o', "overlapping small write", func(r *runner) { r.write(r.a(), 1, 3, false) }},
	{'f', "first small write", func(r *runner) { r.write(r.fresh(), 1, 2, false) }},
	{'F', "first large write", func(r *runner) { r.write(r.fresh(), 1, r.c.units()-2, false) }},
	{'0', "write of nothing", func(r *runner) { r.write(r.a(), 0, 0, false) }},
	{'b', "write with a bitmap", func(r *runner) { r.parity(r.a()) }},
	{'2', "writes of two objects", func(r *runner) {
		r.write(r.a(), 3, 2, false)
		r.write(r.b(), 3, 2, false)
	}},
	{'m', "two batches at once", func(r *runner) { r.burst() }},
	{'z', "zero of a part", func(r *runner) { r.zero(r.a(), 2, 3, false) }},
	{'Z', "explicit zeroes", func(r *runner) { r.zero(r.a(), 0, r.c.units(), true) }},
	{'t', "trim of the object", func(r *runner) { r.zero(r.a(), 0, r.c.units(), false) }},
	{'d', "delete", func(r *runner) { r.submit(r.a(), r.base(store.OpDelete, r.a()), nil) }},
	{'D', "delete of another", func(r *runner) { r.submit(r.b(), r.base(store.OpDelete, r.b()), nil) }},
	{'g', "forget of a tombstone", func(r *runner) { r.forget() }},
	{'c', "write for another version", func(r *runner) {
		op := r.base(store.OpWrite, r.a())
		op.Base += 1000
		op.Len = r.c.config.Granularity
		r.submit(r.a(), op, r.values(1))
	}},
	{'u', "unstable small write", func(r *runner) { r.write(r.a(), 2, 2, true) }},
	{'U', "unstable whole write", func(r *runner) { r.write(r.a(), 0, r.c.units(), true) }},
	{'Y', "unstable zero", func(r *runner) {
		op := r.base(store.OpZero, r.a())
		op.Unstable = true
		op.Offset, op.Len = r.c.config.Granularity, 2*r.c.config.Granularity
		r.submit(r.a(), op, nil)
	}},
	{'y', "unstable delete", func(r *runner) {
		op := r.base(store.OpDelete, r.a())
		op.Unstable = true
		r.submit(r.a(), op, nil)
	}},
	{'k', "stabilize", func(r *runner) {
		op := r.base(store.OpCommit, r.a())
		op.Version = r.a().newest().top().Version
		r.submit(r.a(), op, nil)
	}},
	{'j', "stabilize the oldest", func(r *runner) {
		op := r.base(store.OpCommit, r.a())
		p := r.a().newest()
		op.Version = p.stack[min(1, len(p.stack)-1)].Version
		r.submit(r.a(), op, nil)
	}},
	{'r', "roll back", func(r *runner) {
		op := r.base(store.OpRollback, r.a())
		op.Version = r.a().newest().stack[0].Version
		r.submit(r.a(), op, nil)
	}},
	{'l', "replace by a lower version", func(r *runner) { r.replace(r.a(), lower(r.a().newest().top().Version)) }},
	{'e', "replace by an equal version", func(r *runner) { r.replace(r.a(), max(1, r.a().newest().top().Version)) }},
	{'h', "replace by a higher version", func(r *runner) { r.replace(r.a(), r.next()) }},
	{'x', "replace by nothing", func(r *runner) { r.replace(r.a(), 0) }},
	{'v', "void", func(r *runner) { r.submit(r.a(), r.base(store.OpVoid, r.a()), nil) }},
	{'p', "PG record", func(r *runner) { r.putPG(1, false) }},
	{'P', "PG dropped", func(r *runner) { r.putPG(1, true) }},
	{'q', "end of the session", func(r *runner) { r.endSession() }},
	{'W', "lazy whole write", func(r *runner) { r.lazy(r.a(), 0, r.c.units(), store.Lazy) }},
	{'S', "lazy small write", func(r *runner) { r.lazy(r.a(), 2, 2, store.Lazy) }},
	{'N', "lazy first write of a whole object", func(r *runner) { r.lazy(r.fresh(), 0, r.c.units(), store.Lazy) }},
	{'L', "lazy writes of two objects", func(r *runner) {
		r.lazy(r.b(), 0, r.c.units(), store.Lazy)
		r.lazy(r.a(), 3, 2, store.Lazy)
	}},
	{'B', "whole write, lazy for blocks", func(r *runner) { r.lazy(r.a(), 0, r.c.units(), store.LazyBlocks) }},
	{'O', "small write, lazy for blocks", func(r *runner) { r.lazy(r.a(), 1, 3, store.LazyBlocks) }},
	{'T', "lazy delete", func(r *runner) {
		op := r.base(store.OpDelete, r.b())
		op.Lazy = store.Lazy
		r.submit(r.b(), op, nil)
	}},
	{'V', "sync", func(r *runner) { r.sync() }},
	{'i', "flusher and round", func(r *runner) { r.settle() }},
	{'C', "close and reopen", func(r *runner) { r.reopen() }},
	{'E', "writes until the disk is full", func(r *runner) { r.fillUp() }},
}

// parity writes a unit and says which units count as written, as a parity chunk does.
func (r *runner) parity(o *object) {
	op := r.base(store.OpWrite, o)
	op.Offset, op.Len = 4*r.c.config.Granularity, r.c.config.Granularity
	written := make([]bool, r.c.units())
	for u := range written {
		written[u] = r.rng.IntN(2) == 0
	}
	op.Bitmap = bitmapOf(written)
	r.submit(o, op, r.values(1))
}

// forget removes the tombstone of the first object that has one; object 3 begins as one.
func (r *runner) forget() {
	o := r.h.object(3)
	for _, x := range r.h.objects {
		if x.newest().top().Flags&store.Tombstone != 0 {
			o = x
			break
		}
	}
	r.submit(o, r.base(store.OpForget, o), nil)
}

// burst puts so much beside a batch under way that a second one goes out at once.
func (r *runner) burst() {
	r.write(r.b(), 0, 1, false)
	r.w.Run(5 * time.Microsecond)
	n := r.c.units() - 1
	for sent := 0; sent < 260<<10; sent += n * int(r.c.config.Granularity) {
		o := r.a()
		if r.rng.IntN(2) == 0 {
			o = r.b()
		}
		r.write(o, r.rng.IntN(2), n, false)
	}
}

// fillUp writes new objects until the store refuses one.
func (r *runner) fillUp() {
	for was := r.refused; r.refused == was && r.problem == nil && r.failures == 0; {
		r.write(r.fresh(), 0, r.c.units(), false)
		if r.rng.IntN(4) == 0 {
			r.drain()
		}
	}
}

func letterOf(id byte) *letter {
	for i := range alphabet {
		if alphabet[i].id == id {
			return &alphabet[i]
		}
	}
	return chunkLetterOf(id)
}

// run does a sequence. Mode s waits for each operation, c for none, g for a drawn moment. In the end the store comes to rest.
func (r *runner) run(sequence string, mode byte) {
	for i := 0; i < len(sequence) && r.problem == nil; i++ {
		letterOf(sequence[i]).do(r)
		switch mode {
		case 's':
			r.drain()
		case 'g':
			r.w.Run(time.Duration(r.rng.IntN(300)) * time.Microsecond)
		}
	}
	r.settle()
}

// styles are the letters that long sequences are mostly made of: writes, versions that wait for long while the journal goes round, objects that come and go, replacements.
var styles = []string{
	"wwssssoooobb2222mmnfFzzZtuuUYkkjrdgpphlex",
	"uuuuUYY2222222mmmmmmmmffDppkjr",
	"nnnfffFwsddddDDggggxtZ22mphE",
	"hhhlllleeexvssww22mmuUkrdgq",
	"WWSSNNLLBBOOTVVwsnd2mz",
	"WSNLBOTLNSW",
}

// randomSequence draws a long sequence in one of the styles, so that the journal goes round and the disk fills up.
func randomSequence(rng *rand.Rand, n int) string {
	often := styles[rng.IntN(len(styles))]
	b := make([]byte, n)
	for i := range b {
		if b[i] = often[rng.IntN(len(often))]; rng.IntN(8) == 0 {
			b[i] = alphabet[rng.IntN(len(alphabet))].id
		}
	}
	return string(b)
}
