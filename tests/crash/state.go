package crash

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"holdfast/core/loop"
	"holdfast/osd/store"
)

// Case is one run of a sequence.
type Case struct {
	Base     string
	Mode     byte // s, c or g, see runner.run
	Sequence string
	Seed     uint64
}

func (c Case) String() string { return fmt.Sprintf("%s/%c/%s/%d", c.Base, c.Mode, c.Sequence, c.Seed) }

// State is a cut of a case: what the disk may hold when the power goes before step Moment.
type State struct {
	Case
	Moment  int
	Variant uint64
}

func (s State) String() string { return fmt.Sprintf("%v@%d.%d", s.Case, s.Moment, s.Variant) }

// ParseState reads what String writes.
func ParseState(name string) (State, error) {
	bad := func(what string) (State, error) {
		return State{}, fmt.Errorf("state %q: %s; a state is base/mode/sequence/seed@moment.variant", name, what)
	}
	run, at, ok := strings.Cut(name, "@")
	parts := strings.Split(run, "/")
	if !ok || len(parts) != 4 {
		return bad("a part is missing")
	}
	s := State{Case: Case{Base: parts[0], Sequence: parts[2]}}
	if baseOf(s.Base) == nil {
		return bad("no such base")
	}
	if parts[1] != "s" && parts[1] != "c" && parts[1] != "g" {
		return bad("the mode is not s, c or g")
	}
	s.Mode = parts[1][0]
	for i := range s.Sequence {
		if letterOf(s.Sequence[i]) == nil {
			return bad(fmt.Sprintf("no operation %q", s.Sequence[i]))
		}
	}
	moment, variant, _ := strings.Cut(at, ".")
	var err error
	if s.Seed, err = strconv.ParseUint(parts[3], 10, 64); err != nil {
		return bad("the seed is not a number")
	}
	if s.Moment, err = strconv.Atoi(moment); err != nil || s.Moment < 0 {
		return bad("the moment is not a number")
	}
	if s.Variant, err = strconv.ParseUint(variant, 10, 64); err != nil {
		return bad("the variant is not a number")
	}
	return s, nil
}

// Violation is a state that must not be, or a run that went wrong.
type Violation struct {
	State  string // what replays it
	Err    error
	After  time.Duration // since the Run began
	States int           // looked at before
}

func (v *Violation) Error() string {
	return fmt.Sprintf("%v\n    seen again by: make crash STATE='%s'", v.Err, v.State)
}

// recorded is a case that has been run.
type recorded struct {
	Case
	base *ready
	h    *history
	tape *tape
	ops  int
}

// worker runs cases one after the other; each has its own.
type worker struct {
	ready map[string]*ready
	Counts
	log *lines // nil: nobody reads along
}

// Counts says what was done.
type Counts struct {
	Sequences, States, Nested, Killed, Reopened, Filled, Rotten, Checked, Operations int
	Losses                                                                           losses
}

func (c *Counts) add(d Counts) {
	c.Sequences += d.Sequences
	c.States += d.States
	c.Nested += d.Nested
	c.Killed += d.Killed
	c.Reopened += d.Reopened
	c.Filled += d.Filled
	c.Rotten += d.Rotten
	c.Checked += d.Checked
	c.Operations += d.Operations
	c.Losses.add(d.Losses)
}

func newWorker() *worker { return &worker{ready: map[string]*ready{}} }

func (w *worker) say(format string, args ...any) {
	if w.log != nil {
		w.log.say(format, args...)
	}
}

// guard turns a panic of the store into an error.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

func (w *worker) base(name string) (*ready, error) {
	if b := w.ready[name]; b != nil {
		return b, nil
	}
	b, err := baseOf(name).prepare()
	if err == nil {
		w.ready[name] = b
	}
	return b, err
}

// record runs a case. An error means that the store did something wrong without any loss of power.
func (w *worker) record(c Case) (out *recorded, err error) {
	defer guard(&err)
	b, err := w.base(c.Base)
	if err != nil {
		return nil, err
	}
	seed := hash(c.String())
	p := boot(seed, b.layout, b.image)
	defer p.end()
	if err := p.start(); err != nil {
		return nil, err
	}
	if err := p.open(); err != nil {
		return nil, err
	}
	r := &runner{process: p, h: b.h.fork(), rng: rand.New(rand.NewPCG(seed, 2)), bare: b.bare}
	before := p.images()
	r.rec = p.record()
	r.run(c.Sequence, c.Mode)
	if r.problem != nil {
		return nil, r.problem
	}
	if p.s.Failure() != nil {
		return nil, fmt.Errorf("the store stopped: %w", p.s.Failure())
	}
	found, err := (&judge{process: p, h: r.h, moment: never - 1, busy: true}).judgeAll()
	if err != nil {
		return nil, err
	}
	if err := (&judge{process: p, h: r.h, moment: never - 1, busy: true}).judgeSpace(found, true); err != nil {
		return nil, err
	}
	t, err := newTape(before, r.rec, p.devs)
	if err != nil {
		return nil, err
	}
	w.Sequences++
	w.Operations += r.acked
	return &recorded{c, b, r.h, t, r.acked}, nil
}

// state cuts the power and looks at what is left.
func (w *worker) state(rc *recorded, moment int, variant uint64) (err error) {
	defer guard(&err)
	w.States++
	name := State{rc.Case, moment, variant}.String()
	seed := hash(name)
	rng := rand.New(rand.NewPCG(seed, 3))
	var image images
	var volatile []*taped
	killed := rng.IntN(8) == 0 && !rc.base.layout.writeThrough
	if killed {
		// The process dies and the power stays: what the disk holds in its cache can be read, and be lost later.
		w.Killed++
		image, _ = rc.tape.cut(moment, 0, rng, nil)
		volatile = rc.tape.cached(moment)
		w.say("process killed before step %d of %d; %d writes in the disk's cache", moment, rc.tape.steps, len(volatile))
	} else {
		w.say("power cut before step %d of %d", moment, rc.tape.steps)
		var l losses
		image, l = rc.tape.cut(moment, variant, rng, w.log)
		w.Losses.add(l)
	}
	return w.look(rc, seed, rng, image, volatile, moment, killed)
}

// cached are the completed writes that are not durable before step m, but those that a durable one has replaced.
func (t *tape) cached(m int) (out []*taped) {
	for i := range t.writes {
		w := &t.writes[i]
		if w.ended >= m || w.durable < m {
			continue
		}
		replaced := false
		for k := i + 1; k < len(t.writes); k++ {
			v := &t.writes[k]
			replaced = replaced || v.durable < m && v.dev == w.dev && v.off < w.off+int64(len(w.data)) && w.off < v.off+int64(len(v.data))
		}
		if !replaced {
			out = append(out, w)
		}
	}
	return out
}

// look opens the store on an image, judges it, works with it and cuts the power again.
func (w *worker) look(rc *recorded, seed uint64, rng *rand.Rand, image images, volatile []*taped, moment int, killed bool) error {
	p := boot(seed, rc.base.layout, image)
	defer p.end()
	if err := p.start(); err != nil {
		return err
	}
	rec := p.record()
	p.rewrite(volatile)
	from := len(rec.Log)
	if rng.IntN(16) == 0 {
		w.Checked++
		if err := p.check(); err != nil {
			return err
		}
		if len(rec.Log) != from {
			return fmt.Errorf("a check writes to the device")
		}
	}
	if err := p.open(); err != nil {
		return err
	}
	opened := len(rec.Log)
	found, err := (&judge{process: p, h: rc.h, moment: moment, whole: killed}).judgeAll()
	if err != nil {
		return err
	}
	w.say("opened; what was acknowledged is there")
	after := found.fork()
	r := &runner{process: p, h: after, rng: rng, rec: rec, bare: rc.base.bare}
	if err := w.work(r, rc.Case); err != nil {
		return fmt.Errorf("after the store was opened again: %w", err)
	}
	if rng.IntN(3) > 0 {
		return nil
	}
	w.Nested++
	t, err := newTape(image, rec, p.devs)
	if err != nil {
		return err
	}
	second := from + rng.IntN(t.steps-from+1)
	w.say("power cut a second time, before step %d of %d; the store was open from step %d on", second, t.steps, opened)
	again, l := t.cut(second, rng.Uint64N(8), rng, w.log)
	w.Losses.add(l)
	q := boot(seed+1, rc.base.layout, again)
	defer q.end()
	if err := q.start(); err != nil {
		return err
	}
	if err := q.open(); err != nil {
		return fmt.Errorf("after a second cut: %w", err)
	}
	j := &judge{process: q, h: rc.h, moment: moment}
	if second >= opened {
		j = &judge{process: q, h: after, moment: second}
	}
	if found, err = j.judgeAll(); err != nil {
		return fmt.Errorf("after a second cut: %w", err)
	}
	q.w.Run(settleTime)
	if err := j.judgeSpace(found, true); err != nil {
		return fmt.Errorf("after a second cut: %w", err)
	}
	return nil
}

// rewrite puts writes into the disk's cache.
func (p *process) rewrite(writes []*taped) {
	for _, v := range writes {
		done := false
		ref := p.l.Alloc(len(v.data))
		copy(ref.Bytes(), v.data)
		p.disks[v.dev].Submit(&loop.DiskOp{Kind: loop.DiskWrite, Off: v.off, Data: ref.Bytes(), Done: func(*loop.DiskOp) { done = true }})
		p.w.RunUntil(func() bool { return done }, patience)
		ref.Release()
	}
}

// work does a little of everything on a store and compares it with the model afterwards. Often it does again what was lost, so that new batches lie where older ones were.
func (w *worker) work(r *runner, c Case) error {
	if n := len(c.Sequence); r.rng.IntN(2) == 0 {
		from := r.rng.IntN(n)
		for i := from; i < min(n, from+3); i++ {
			if l := letterOf(c.Sequence[i]); l.id != 'E' && l.id != 'C' {
				l.do(r)
			}
			if c.Mode == 's' {
				r.drain()
			}
		}
		r.drain()
	}
	for _, o := range r.h.objects[:2] {
		if top := o.newest().top(); top.Flags&(store.Void|store.Unstable) == 0 {
			r.write(o, r.rng.IntN(r.c.units()-1), 2, false)
		}
	}
	if r.s.Stats().FreeBlocks > 0 {
		r.write(r.fresh(), 0, r.c.units(), false)
	}
	if !r.bare {
		r.putPG(2, false)
	}
	r.drain()
	filled := false
	switch r.rng.IntN(12) {
	case 0:
		r.settle()
		st, was := r.s.Stats(), len(r.h.objects)
		free := int(st.FreeBlocks)
		if !r.bare && int(st.Pairs)+2*free >= int(st.MaxPairs) {
			break // there is no room for the requests of so many writes, which is no matter of blocks
		}
		w.Filled++
		r.fillUp()
		r.drain()
		if n := len(r.h.objects) - was - 1; n != free && r.problem == nil {
			return fmt.Errorf("%d blocks are free, %d new objects could be written", free, n)
		}
		filled = true
	case 1, 2:
		w.Reopened++
		r.reopen()
	}
	if r.problem != nil {
		return r.problem
	}
	settled := filled || r.rng.IntN(3) == 0
	if settled {
		r.settle()
	}
	j := &judge{process: r.process, h: r.h, moment: never - 1, busy: true}
	found, err := j.judgeAll()
	if err == nil && settled {
		err = j.judgeSpace(found, true)
	}
	if err == nil && r.rng.IntN(6) == 0 {
		w.Rotten++
		err = r.rot(found, r.rng)
	}
	return err
}
