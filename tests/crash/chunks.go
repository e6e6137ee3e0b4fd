package crash

import (
	"math/rand/v2"
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/osd/store"
)

// chunkLetters are what erasure-coded pools do besides, in sequences of their own (Chunks).
var chunkLetters = []letter{
	{'1', "unstable write of nothing", func(r *runner) { r.write(r.a(), 0, 0, true) }},
	{'3', "first unstable write of nothing", func(r *runner) { r.write(r.fresh(), 0, 0, true) }},
	{'4', "unstable write with a bitmap", func(r *runner) { r.unstableParity(r.a(), 3) }},
	{'5', "unstable bitmap without data", func(r *runner) { r.unstableParity(r.a(), 0) }},
	{'6', "lazy unstable small write", func(r *runner) { r.lazyUnstable(r.a(), 2, 2) }},
	{'7', "lazy unstable whole write", func(r *runner) { r.lazyUnstable(r.a(), 0, r.c.units()) }},
	{'8', "roll back to what waits", func(r *runner) {
		p := r.a().newest()
		r.settleAt(store.OpRollback, p.stack[len(p.stack)/2].Version)
	}},
	{'9', "roll back what is stable", func(r *runner) {
		if v := r.a().newest().stack[0].Version; v > 0 {
			r.settleAt(store.OpRollback, v-1)
		}
	}},
	{'A', "reads of every version", func(r *runner) { r.readVersions() }},
	{'J', "lazy unstable write, sync and commit", func(r *runner) {
		r.lazyUnstable(r.a(), 1, 3)
		r.sync()
		r.settleAt(store.OpCommit, r.a().newest().top().Version)
	}},
	{'K', "stabilize what is not there", func(r *runner) { r.settleAt(store.OpCommit, r.h.version+5) }},
	{'Q', "writes that each go out behind the commit of the last", func(r *runner) {
		for range 3 {
			r.write(r.a(), r.rng.IntN(r.c.units()-2), 2, true)
			r.settleAt(store.OpCommit, r.a().newest().top().Version)
			r.readVersions()
		}
	}},
	{'X', "unstable write over an unstable deletion", func(r *runner) {
		op := r.base(store.OpDelete, r.a())
		op.Unstable = true
		r.submit(r.a(), op, nil)
		r.write(r.a(), 1, 2, true)
	}},
	{'M', "unstable writes until the store takes no more", func(r *runner) {
		for was := r.refused; r.refused == was && r.problem == nil && r.failures == 0; {
			before := r.a().newest().top().Version
			if r.write(r.a(), 1, 3, true); r.a().newest().top().Version == before && r.refused == was {
				break // it is void
			}
		}
		r.settleAt(store.OpCommit, r.a().newest().top().Version)
	}},
	{'G', "unstable writes until the store takes no more, which then wait for long", func(r *runner) {
		r.waitForLong()
		r.readVersions()
	}},
	{'H', "the same, of another object as well, and their end", func(r *runner) {
		was := r.b().newest().top().Version
		r.write(r.b(), 3, 2, true)
		r.waitForLong()
		op := r.base(store.OpRollback, r.b())
		op.Version = was
		r.submit(r.b(), op, nil)
		r.write(r.b(), 0, 1, true)
		r.settleAt(store.OpCommit, r.a().newest().top().Version)
	}},
}

// chunkPartners are the others that they meet.
const chunkPartners = "uUykjrCiVms"

func (r *runner) settleAt(kind store.OpKind, v layout.Version) {
	op := r.base(kind, r.a())
	op.Version = v
	r.submit(r.a(), op, nil)
}

// waitForLong fills the room for what waits with versions that hold data here and there, and then lets the store park them.
func (r *runner) waitForLong() {
	o, n := r.a(), r.c.units()
	if r.rng.IntN(3) == 0 {
		o = r.fresh()
	}
	for was := r.refused; r.refused == was && r.problem == nil && r.failures == 0; {
		before := o.newest().top().Version
		from := r.rng.IntN(n - 1)
		if r.write(o, from, 1+r.rng.IntN(n-1-from), true); o.newest().top().Version == before && r.refused == was {
			break // it is void
		}
	}
	r.drain()
	r.w.Run(time.Duration(r.rng.IntN(30)) * time.Millisecond)
}

// unstableParity writes n units and says which count as written.
func (r *runner) unstableParity(o *object, n int) {
	op := r.base(store.OpWrite, o)
	op.Unstable = true
	op.Offset, op.Len = 2*r.c.config.Granularity, uint32(n)*r.c.config.Granularity
	written := make([]bool, r.c.units())
	for u := range written {
		written[u] = r.rng.IntN(2) == 0
	}
	op.Bitmap = bitmapOf(written)
	r.submit(o, op, r.values(n))
}

func (r *runner) lazyUnstable(o *object, from, n int) {
	g := r.c.config.Granularity
	op := r.base(store.OpWrite, o)
	op.Lazy, op.Unstable = store.Lazy, true
	op.Offset, op.Len = uint32(from)*g, uint32(n)*g
	r.submit(o, op, r.values(n))
}

// readVersions reads object 1 up to each of its versions, one that is gone, and one that is not there yet.
func (r *runner) readVersions() {
	p := r.a().newest()
	for _, v := range p.stack {
		r.readUpTo(r.a(), v.Version)
	}
	r.readUpTo(r.a(), max(1, p.stack[0].Version)-1)
	r.readUpTo(r.a(), p.top().Version+1)
}

// readUpTo reads what o is at a version or below, while other operations run.
func (r *runner) readUpTo(o *object, at layout.Version) {
	// It waits for what makes a difference, and may see what comes later.
	from := len(o.hist) - 1
	for from > 0 && o.hist[from].acked == never && (o.hist[from].kind == store.OpCommit || o.hist[from].kind <= store.OpDelete && o.hist[from].top().Version > at) {
		from--
	}
	r.running++
	op := upTo(o, at, r.c)
	op.Done = func(op *store.Op) {
		r.running--
		var err error
		for i := len(o.hist) - 1; i >= from; i-- {
			if err = r.sameUpTo(op, o.hist[i].snap, at); err == nil {
				break
			}
		}
		release(op)
		switch {
		case err != nil && r.lenient && op.Err != nil:
			r.failures++
		case err != nil:
			r.wrong("read of object %v up to version %x: %w", o.id, at, err)
		}
	}
	r.s.Submit(op)
}

func upTo(o *object, at layout.Version, c *layoutOf) *store.Op {
	return &store.Op{Kind: store.OpRead, Object: o.id, Len: c.config.BlockSize, AtMost: at, Bounded: true, Exact: true}
}

// sameUpTo compares what was read up to a version with a state of the object. Whether a version waits for its commit may be seen late.
func (p *process) sameUpTo(op *store.Op, s snap, at layout.Version) error {
	j := &judge{process: p}
	switch stable := s.stack[0]; {
	case stable.Flags&store.Void != 0:
		return j.ended(op, store.ErrVoid)
	case stable.Version > at:
		return j.ended(op, store.ErrVersionGone)
	}
	want := s.stack[0]
	for _, v := range s.stack[1:] {
		if v.Version <= at {
			want = v
		}
	}
	want.Flags = want.Flags&^store.Unstable | op.State.Flags&store.Unstable
	return j.sameVersion(op, want)
}

// Chunks is every pair of operations of which one at least is of erasure-coded pools, on a base and in a mode that are drawn.
func Chunks(seed uint64) func(i int) (Case, bool) {
	var pairs []string
	for _, l := range chunkLetters {
		pairs = append(pairs, string(l.id))
		for _, m := range chunkLetters {
			pairs = append(pairs, string([]byte{l.id, m.id}))
		}
		for _, m := range []byte(chunkPartners) {
			pairs = append(pairs, string([]byte{l.id, m}), string([]byte{m, l.id}))
		}
	}
	return func(i int) (Case, bool) {
		if i >= len(pairs) {
			return Case{}, false
		}
		c := Case{Sequence: pairs[i], Seed: seed}
		draw := rand.New(rand.NewPCG(seed, hash(c.String())))
		c.Base, c.Mode = bases[draw.IntN(len(bases))].name, allModes[draw.IntN(len(allModes))]
		return c, true
	}
}

// chunkStyles are what long sequences of such pools are made of.
var chunkStyles = []string{
	"QQQQuUkk4A5r1y8J",
	"uuUU4517XMmm2228kjrA9",
	"67J67V6kAQJ1rX8",
	"GGHHuuUU4kjr8Ai2",
}

// DrawnChunks is any sequence of the lengths from lo to hi, without end.
func DrawnChunks(lo, hi int, seed uint64) func(i int) (Case, bool) {
	return func(i int) (Case, bool) {
		rng := rand.New(rand.NewPCG(seed, hash("chunks")+uint64(i)))
		c := Case{Base: bases[rng.IntN(len(bases))].name, Mode: allModes[rng.IntN(len(allModes))], Seed: seed}
		often := chunkStyles[rng.IntN(len(chunkStyles))]
		b := make([]byte, lo+rng.IntN(hi-lo+1))
		for k := range b {
			switch {
			case rng.IntN(6) > 0:
				b[k] = often[rng.IntN(len(often))]
			case rng.IntN(2) == 0:
				b[k] = chunkLetters[rng.IntN(len(chunkLetters))].id
			default:
				b[k] = alphabet[rng.IntN(len(alphabet))].id
			}
		}
		c.Sequence = string(b)
		return c, true
	}
}

// Every takes each n-th case from b, the others from a.
func Every(n int, a, b func(int) (Case, bool)) func(int) (Case, bool) {
	return func(i int) (Case, bool) {
		if i%n == n-1 {
			return b(i / n)
		}
		return a(i - i/n)
	}
}

func chunkLetterOf(id byte) *letter {
	if i := slices.IndexFunc(chunkLetters, func(l letter) bool { return l.id == id }); i >= 0 {
		return &chunkLetters[i]
	}
	return nil
}
