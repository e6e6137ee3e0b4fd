package crash

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"

	"holdfast/core/sim"
	"holdfast/osd/store"
)

// base is a disk on which sequences begin.
type base struct {
	name    string
	layout  *layoutOf
	prelude string // done after the first objects were made; a space means: come to rest
	wrap    bool   // the journal's head is near the end of the ring
	crashed bool   // the power went after the prelude: it is in the journal only
	bare    bool   // no requests with an identity and no PG records, so that nothing but changes holds the journal's tail
}

// A journal of the smallest size goes round after some twenty batches with data.
var (
	layouts = []*layoutOf{
		{name: "plain", config: store.Config{BlockSize: 32 << 10, Granularity: 4096, JournalSize: 768 << 10}, sector: 512, size: 1472 << 10},
		{name: "fine", config: store.Config{BlockSize: 8 << 10, Granularity: 512, ChecksumBlock: 512, JournalSize: 576 << 10}, sector: 512, size: 1024 << 10, smallWrite: 4096},
		{name: "through", config: store.Config{BlockSize: 32 << 10, Granularity: 4096, JournalSize: 768 << 10}, sector: 512, size: 1472 << 10, writeThrough: true},
		{name: "sector", config: store.Config{BlockSize: 32 << 10, Granularity: 4096, ChecksumType: store.ChecksumNone, JournalSize: 768 << 10}, sector: 4096, size: 1472 << 10, smallWrite: 4096},
		{name: "fast", config: store.Config{BlockSize: 32 << 10, Granularity: 4096, JournalSize: 768 << 10}, sector: 512, size: 1472 << 10, others: []beside{{role: "m"}}},
		{name: "three", config: store.Config{BlockSize: 32 << 10, Granularity: 4096, JournalSize: 768 << 10}, sector: 512, size: 1472 << 10, smallWrite: 4096, throttle: store.Throttle{On: true, IOPS: 5000, MBs: 100, Parallelism: 1}, others: []beside{{"m", true}, {role: "j"}}},
	}
	bases = []*base{
		{name: "clean", layout: layouts[0]},
		{name: "dirty", layout: layouts[0], prelude: "sof2p", crashed: true},
		{name: "wrap", layout: layouts[0], prelude: "s", wrap: true},
		{name: "waiting", layout: layouts[0], prelude: "uUu", crashed: true},
		{name: "fine", layout: layouts[1], prelude: "of"},
		{name: "through", layout: layouts[2], prelude: "s2"},
		{name: "sector", layout: layouts[3], prelude: "of", crashed: true},
		{name: "fast", layout: layouts[4], prelude: "so2f", crashed: true},
		{name: "three", layout: layouts[5], prelude: "uUs"},
		{name: "bare", layout: layouts[0], bare: true},
		{name: "full", layout: layouts[0], prelude: "Es"},
	}
)

func baseOf(name string) *base {
	for _, b := range bases {
		if b.name == name {
			return b
		}
	}
	return nil
}

// ready is a base as it is on its disk.
type ready struct {
	*base
	image images
	h     *history
}

func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = io.WriteString(h, p+"\x00")
	}
	return h.Sum64()
}

// prepare makes the base. It is the same whoever makes it.
func (b *base) prepare() (*ready, error) {
	seed := hash("base", b.name)
	p := boot(seed, b.layout, nil)
	defer p.end()
	r := &runner{process: p, h: &history{version: 8}, rng: rand.New(rand.NewPCG(seed, 1)), bare: b.bare}
	if err := p.format(); err != nil {
		return nil, err
	}
	r.newSession()
	units := b.layout.units()
	for n := uint64(1); n <= 3; n++ {
		r.write(r.h.add(n, units), 0, units, false)
	}
	r.drain()
	r.submit(r.h.object(3), r.base(store.OpDelete, r.h.object(3)), nil)
	if !b.bare {
		r.putPG(1, false)
		r.putPG(2, false)
	}
	r.settle()
	if b.wrap {
		r.goRound()
	}
	r.reopen()
	for i := range b.prelude {
		letterOf(b.prelude[i]).do(r)
		r.drain()
	}
	if b.crashed {
		p.powerOff(sim.CrashDrop)
	} else if r.problem == nil {
		r.settle()
		r.problem = p.close()
	}
	if r.problem != nil {
		return nil, fmt.Errorf("prepare %s: %w", b.name, r.problem)
	}
	return &ready{b, p.images(), r.h.fork()}, nil
}

func (p *process) format() error {
	if err := p.start(); err != nil {
		return err
	}
	var err error
	done := false
	store.Format(p.l, p.disk, p.c.config, func(_ store.Superblock, e error) { err, done = e, true })
	p.w.RunUntil(func() bool { return done }, patience)
	if err != nil {
		return err
	}
	return p.open()
}

// goRound writes until the journal's head is near its end.
func (r *runner) goRound() {
	area := r.s.Superblock().Journal
	dev := r.devs[area.Device]
	rec := dev.Record()
	for range 10000 {
		r.write(r.a(), 1, 2, false)
		r.drain()
		last := rec.Ops[len(rec.Ops)-1]
		for i := len(rec.Ops) - 1; i >= 0 && (last.Off < area.Off || last.Off >= area.Off+area.Len); i-- {
			last = rec.Ops[i]
		}
		if end := last.Off + int64(len(last.Data)); end <= area.Off+area.Len && area.Off+area.Len-end < 40<<10 {
			break
		}
		if r.problem != nil {
			break
		}
	}
	dev.StopRecording()
}
