package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop/buf"
	"holdfast/core/sim"
)

// mver is one version of an object in the naive model: a value per unit instead of bytes.
type mver struct {
	State
	data             []uint64
	written, present []bool
}

// snap is what an object is after one change: stack[0] is the newest stable version (Version 0: nothing), the rest unstable ones above it. Never modified.
type snap struct{ stack []mver }

func (p snap) top() mver { return p.stack[len(p.stack)-1] }

type mpair struct {
	pair    Pair
	version layout.Version
	at      int // index in the object's history from which it is there
	until   int // index from which a rollback or replacement has dropped it; 0: none has
}

// mobject is an object's history: hist[i] is after i changes since the last restart.
type mobject struct {
	id    layout.ObjectID
	hist  []snap
	acked int
	pairs []mpair
}

func (o *mobject) newest() snap { return o.hist[len(o.hist)-1] }

// mpg is the history of one PG's record.
type mpg struct {
	hist  []*PGRecord // nil: dropped
	acked int
}

// model runs random ops against a store and a naive model of it.
type model struct {
	r        *rig
	rng      *rand.Rand
	units    int
	objects  []*mobject
	pgs      map[layout.PGID]*mpg
	pgIDs    []layout.PGID
	version  layout.Version
	tag      uint64
	sequence [4]uint64
	low      [4]uint64
	open     [4][]uint64 // sequences that are not acknowledged
	running  int
	acks     int
	refused  int
	counts   map[OpKind]int
	unstable bool
}

func newModel(r *rig, rng *rand.Rand, objects int) *model {
	m := &model{r: r, rng: rng, units: r.s.sb.Config.units(), pgs: map[layout.PGID]*mpg{}, counts: map[OpKind]int{}, unstable: rng.IntN(2) == 0}
	for i := range objects {
		m.objects = append(m.objects, &mobject{id: layout.ObjectID{Inode: layout.MakeInode(1, uint64(1+i%3)), Stripe: uint64(i) << 17}, hist: []snap{{[]mver{m.nothing()}}}})
	}
	return m
}

func (m *model) nothing() mver {
	return mver{data: make([]uint64, m.units), written: make([]bool, m.units), present: make([]bool, m.units)}
}

func (v mver) clone() mver {
	v.data, v.written, v.present = slices.Clone(v.data), slices.Clone(v.written), slices.Clone(v.present)
	return v
}

// bytes makes n units with their values, as lent memory. The caller's op releases it.
func (m *model) bytes(values []uint64) *buf.Ref {
	g := int(m.r.s.sb.Config.Granularity)
	ref := m.r.l.Alloc(len(values) * g)
	b := ref.Bytes()
	for u, v := range values {
		for i := 0; i < g; i += 8 {
			le.PutUint64(b[u*g+i:], v)
		}
	}
	return ref
}

func (m *model) values(b []byte) ([]uint64, bool) {
	g := int(m.r.s.sb.Config.Granularity)
	var out []uint64
	for u := 0; u < len(b); u += g {
		v := le.Uint64(b[u:])
		for i := 0; i < g; i += 8 {
			if le.Uint64(b[u+i:]) != v {
				return nil, false
			}
		}
		out = append(out, v)
	}
	return out, true
}

func boolsOf(b []byte, n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = hasBit(b, uint32(i))
	}
	return out
}

func bitsOf(v []bool) []byte {
	b := make([]byte, (len(v)+7)/8)
	for i, x := range v {
		if x {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

func (m *model) pick() *mobject { return m.objects[m.rng.IntN(len(m.objects))] }

// submit sends op and, when the store takes it, adds next to the object's history.
func (m *model) submit(o *mobject, op *Op, next snap) {
	op.Object = o.id
	if op.Kind == OpWrite || op.Kind == OpZero || op.Kind == OpDelete {
		if s := m.rng.IntN(6); s < 4 {
			m.sequence[s]++
			op.Pair = Pair{uint64(100 + s), m.sequence[s]}
			op.Low = m.low[s]
		}
	}
	taken := false
	op.Done = func(op *Op) {
		if op.Data != nil {
			op.Data.Release()
		}
		m.running--
		if !taken {
			return
		}
		if op.Err != nil {
			m.r.t.Fatalf("op %d of %v: %v", op.Kind, op.Object, op.Err)
		}
		m.acks++
		o.acked++
		if op.Pair.Session != 0 {
			s := op.Pair.Session - 100
			i := slices.Index(m.open[s], op.Pair.Sequence)
			m.open[s] = slices.Delete(m.open[s], i, i+1)
			if m.rng.IntN(2) == 0 {
				m.low[s] = m.sequence[s] + 1
				if len(m.open[s]) > 0 {
					m.low[s] = slices.Min(m.open[s])
				}
			}
		}
	}
	m.running++
	m.r.s.Submit(op)
	if op.Err != nil {
		if !errors.Is(op.Err, ErrNoSpace) && !errors.Is(op.Err, ErrWaiting) {
			m.r.t.Fatalf("op %d of %v, base %x, over %+v: %v", op.Kind, op.Object, op.Base, o.newest().top().State, op.Err)
		}
		m.refused++
		return
	}
	taken = true
	m.counts[op.Kind]++
	o.hist = append(o.hist, next)
	at := len(o.hist) - 1
	if op.Kind == OpRollback || op.Kind == OpReplace {
		for i := range o.pairs {
			if p := &o.pairs[i]; (p.version > op.Version || op.Kind == OpReplace) && p.until == 0 {
				p.until = at
			}
		}
	}
	if op.Pair.Session != 0 {
		m.open[op.Pair.Session-100] = append(m.open[op.Pair.Session-100], op.Pair.Sequence)
		o.pairs = append(o.pairs, mpair{pair: op.Pair, version: op.Version, at: at})
	}
}

// with is the history's newest state with v on top: in place of the stable version, or above it.
func (p snap) with(v mver, unstable bool) snap {
	if !unstable {
		return snap{[]mver{v}}
	}
	v.Flags |= Unstable
	return snap{append(slices.Clone(p.stack), v)}
}

// one submits one random op.
func (m *model) one() {
	o := m.pick()
	if m.rng.IntN(4) == 0 {
		m.read(o)
		return
	}
	was := o.newest()
	top := was.top()
	m.version += layout.Version(1 + m.rng.IntN(3))
	iv := layout.Interval(m.rng.IntN(5))
	units := m.units
	from := m.rng.IntN(units)
	n := 1 + m.rng.IntN(min(3, units-from))
	switch m.rng.IntN(8) {
	case 0:
		from, n = 0, units
	case 1:
		n = 1 + m.rng.IntN(units-from)
	}
	g := m.r.s.sb.Config.Granularity
	op := &Op{Base: top.Version, BaseInterval: top.Interval, Version: m.version, Interval: iv, Offset: uint32(from) * g, Len: uint32(n) * g}
	next := top.clone()
	if top.Flags&Tombstone != 0 {
		next = m.nothing()
	}
	next.State = State{Version: m.version, Interval: iv}
	stableOnly := top.Flags&Unstable == 0
	op.Unstable = !stableOnly || m.unstable && m.rng.IntN(4) == 0
	x := m.rng.IntN(100)
	if top.Flags&Void != 0 && x < 70 {
		x = 80
	}
	if top.Flags&Tombstone != 0 && stableOnly && x < 30 {
		x = 92
	}
	switch {
	case x < 55:
		op.Kind = OpWrite
		if m.rng.IntN(20) == 0 {
			op.Len, n = 0, 0
		}
		values := make([]uint64, n)
		for i := range values {
			m.tag++
			values[i] = m.tag
			next.data[from+i], next.written[from+i], next.present[from+i] = m.tag, true, true
		}
		if n > 0 {
			op.Data = m.bytes(values)
		}
		if m.rng.IntN(10) == 0 {
			for i := range next.written {
				next.written[i] = m.rng.IntN(2) == 0
			}
			op.Bitmap = bitsOf(next.written)
		}
		m.submit(o, op, was.with(next, op.Unstable))
	case x < 66:
		op.Kind = OpZero
		op.KeepWritten = m.rng.IntN(2) == 0
		for i := from; i < from+n; i++ {
			next.data[i], next.written[i], next.present[i] = 0, op.KeepWritten, false
		}
		m.submit(o, op, was.with(next, op.Unstable))
	case x < 70:
		op.Kind = OpDelete
		next = m.nothing()
		next.State = State{Version: m.version, Interval: iv, Flags: Tombstone}
		m.submit(o, op, was.with(next, op.Unstable))
	case x < 84 && !stableOnly:
		m.refuse(o, op, ErrUnsettled)
	case x < 76:
		if top.Version == 0 || top.Flags&Void != 0 {
			return
		}
		v := top.clone()
		v.Flags = v.Flags&^Unstable | Void
		op.Kind = OpVoid
		m.submit(o, op, snap{[]mver{v}})
	case x < 84:
		op.Kind = OpReplace
		next = m.nothing()
		switch m.rng.IntN(6) {
		case 0:
			op.Version = 0
		case 1:
			next.State = State{Version: m.version, Interval: iv, Flags: Tombstone}
		case 2:
			op.Version = layout.Version(1 + m.rng.Uint64N(uint64(m.version))) // may be lower
			fallthrough
		default:
			for i := range next.data {
				if next.written[i] = m.rng.IntN(2) == 0; next.written[i] && m.rng.IntN(3) > 0 {
					m.tag++
					next.data[i], next.present[i] = m.tag, true
				}
			}
			next.State = State{Version: op.Version, Interval: iv}
		}
		op.Flags = next.Flags
		op.Bitmap, op.Present = bitsOf(next.written), bitsOf(next.present)
		op.Data = m.bytes(next.data)
		m.submit(o, op, snap{[]mver{next}})
	case x < 88:
		// commit some of the unstable versions
		if stableOnly {
			return
		}
		i := 1 + m.rng.IntN(len(was.stack)-1)
		op.Kind, op.Version = OpCommit, was.stack[i].Version
		v := was.stack[i].clone()
		v.Flags &^= Unstable
		m.submit(o, op, snap{append([]mver{v}, was.stack[i+1:]...)})
	case x < 91:
		if stableOnly {
			return
		}
		i := m.rng.IntN(len(was.stack) - 1)
		op.Kind, op.Version = OpRollback, was.stack[i].Version
		m.submit(o, op, snap{slices.Clone(was.stack[:i+1])})
	case x < 94:
		if top.Flags&Tombstone == 0 || !stableOnly || top.Flags&Void != 0 {
			return
		}
		op.Kind = OpForget
		m.submit(o, op, snap{[]mver{m.nothing()}})
	case x < 96:
		m.putPG()
	default:
		m.read(o)
	}
}

// refuse tries to replace or void an object whose newest version waits for its commit.
func (m *model) refuse(o *mobject, op *Op, want error) {
	op.Kind, op.Object = OpVoid, o.id
	if m.rng.IntN(2) == 0 {
		op.Kind, op.Bitmap, op.Present = OpReplace, make([]byte, (m.units+7)/8), make([]byte, (m.units+7)/8)
	}
	op.Done = func(*Op) {}
	if m.r.s.Submit(op); !errors.Is(op.Err, want) {
		m.r.t.Fatalf("op %d of %v over %+v: %v, want %v", op.Kind, o.id, o.newest().top().State, op.Err, want)
	}
}

func (m *model) putPG() {
	id := layout.PGID{Pool: 1, Num: uint32(1 + m.rng.IntN(5))}
	p := m.pgs[id]
	if p == nil {
		p = &mpg{hist: []*PGRecord{nil}}
		m.pgs[id] = p
		m.pgIDs = append(m.pgIDs, id)
	}
	m.running++
	done := func(err error) {
		m.running--
		if err != nil {
			m.r.t.Fatalf("put %v: %v", id, err)
		}
		p.acked++
	}
	if m.rng.IntN(4) == 0 {
		p.hist = append(p.hist, nil)
		m.r.s.DropPG(id, done)
		return
	}
	rec := PGRecord{PG: id, Generation: m.rng.Uint64(), Interval: layout.Interval(m.rng.Uint64()), Primary: 3, Instance: m.rng.Uint64(), TookPart: 5, Floor: m.version,
		PrimaryStore: layout.StoreID{1, byte(m.rng.IntN(256))}, Participants: []Member{{OSD: 1, Store: layout.StoreID{1, byte(m.rng.IntN(256))}}, {OSD: 2}}}
	for n := m.rng.IntN(3); n > 0; n-- {
		rec.Sets = append(rec.Sets, PGSet{Interval: layout.Interval(m.rng.Uint64()), Members: []Member{{OSD: 9, Store: layout.StoreID{7}}}})
	}
	p.hist = append(p.hist, &rec)
	m.r.s.PutPG(rec, done)
}

// read reads an object while other ops run: the answer must be one of its states from the newest submitted before the read to the newest now.
func (m *model) read(o *mobject) {
	from := len(o.hist) - 1
	op := &Op{Kind: OpReadObject, Object: o.id}
	m.running++
	op.Done = func(op *Op) {
		m.running--
		var problem string
		for i := len(o.hist) - 1; i >= from; i-- {
			if problem = m.matches(op, o.hist[i].top()); problem == "" {
				break
			}
		}
		if problem != "" {
			m.r.t.Fatalf("read of %v while running: %s", o.id, problem)
		}
		if op.Data != nil {
			op.Data.Release()
		}
	}
	m.r.s.Submit(op)
}

// matches compares a finished OpReadObject with a version of the model.
func (m *model) matches(op *Op, v mver) string {
	if op.State != v.State {
		return fmt.Sprintf("state %+v, want %+v", op.State, v.State)
	}
	if v.Flags&Void != 0 {
		if op.Err != ErrVoid {
			return fmt.Sprintf("a void object reads with %v", op.Err)
		}
		return ""
	}
	if op.Err != nil {
		return op.Err.Error()
	}
	values, ok := m.values(op.Data.Bytes())
	if !ok {
		return "a torn unit"
	}
	if !slices.Equal(values, v.data) {
		return fmt.Sprintf("version %x reads %v, want %v", v.Version, values, v.data)
	}
	if !slices.Equal(boolsOf(op.Bitmap, m.units), v.written) {
		return fmt.Sprintf("version %x: bitmap %x, want %x", v.Version, op.Bitmap, bitsOf(v.written))
	}
	if !slices.Equal(boolsOf(op.Present, m.units), v.present) {
		return fmt.Sprintf("version %x: present %x, want %x", v.Version, op.Present, bitsOf(v.present))
	}
	return ""
}

// check compares the whole store with the model, where between the acknowledged and the submitted changes of an object any state is right, and takes what it finds for the truth.
func (m *model) check(exact bool) {
	t := m.r.t
	t.Helper()
	var entries []ListEntry
	for _, o := range m.objects {
		op := m.r.do(&Op{Kind: OpReadObject, Object: o.id})
		found, problems := -1, []string{}
		for i := len(o.hist) - 1; i >= o.acked; i-- {
			p := m.matches(op, o.hist[i].top())
			if p == "" {
				p = m.pairProblem(o, op, i)
			}
			if p == "" {
				p = m.olderProblem(o, o.hist[i])
			}
			if p == "" {
				found = i
				break
			}
			problems = append(problems, p)
		}
		if found < 0 || exact && found != len(o.hist)-1 {
			t.Fatalf("object %v (acknowledged %d of %d): %q", o.id, o.acked, len(o.hist)-1, problems)
		}
		st, there := m.r.s.State(o.id)
		if there != (o.hist[found].top().Version != 0) || st != o.hist[found].top().State {
			t.Fatalf("State(%v) = %+v, %v, want %+v", o.id, st, there, o.hist[found].top().State)
		}
		if n, _ := m.r.s.Newest(o.id); n != st {
			t.Fatalf("Newest(%v) = %+v, State %+v", o.id, n, st)
		}
		for _, v := range o.hist[found].stack {
			if v.Version != 0 {
				entries = append(entries, ListEntry{o.id, v.State})
			}
		}
		if op.Data != nil {
			op.Data.Release()
		}
		keep := o.pairs[:0]
		for _, p := range o.pairs {
			if _, _, ok := m.r.s.FindPair(p.pair); ok {
				p.at, p.until = 0, 0
				keep = append(keep, p)
			}
		}
		o.pairs = keep
		o.hist, o.acked = []snap{o.hist[found]}, 0
	}
	for _, id := range m.pgIDs {
		p := m.pgs[id]
		rec, ok := m.r.s.PG(id)
		found := -1
		for i := len(p.hist) - 1; i >= p.acked && found < 0; i-- {
			if h := p.hist[i]; h == nil && !ok || h != nil && ok && reflect.DeepEqual(*h, rec) {
				found = i
			}
		}
		if found < 0 {
			t.Fatalf("PG %v: %+v, %v is none of its records", id, rec, ok)
		}
		p.hist, p.acked = []*PGRecord{p.hist[found]}, 0
	}
	m.open = [4][]uint64{}
	m.checkLists(entries)
	m.checkBlocks()
}

// pairProblem compares the pairs of an object that was found to be as it was at index found of its history.
func (m *model) pairProblem(o *mobject, op *Op, found int) string {
	for _, p := range o.pairs {
		there := p.at <= found && (p.until == 0 || found < p.until)
		id, v, ok := m.r.s.FindPair(p.pair)
		low := m.low[p.pair.Session-100]
		switch {
		case ok && (!there || id != o.id || v != p.version):
			return fmt.Sprintf("pair %v of %v is found as %v version %x, the model has %+v at %d", p.pair, o.id, id, v, p, found)
		case !ok && there && p.pair.Sequence >= low:
			return fmt.Sprintf("pair %v of %v is lost (low %d): %+v at %d", p.pair, o.id, low, p, found)
		}
		if ok && op.Err == nil && !slices.Contains(op.Pairs, PairVersion{p.pair, p.version}) {
			return fmt.Sprintf("pair %v is not among those of %v", p.pair, o.id)
		}
	}
	return ""
}

// olderProblem compares the older versions of an unstable chain.
func (m *model) olderProblem(o *mobject, p snap) string {
	if stable := p.stack[0].Version; stable != 0 && p.stack[0].Flags&Void == 0 {
		if op := m.r.do(&Op{Kind: OpRead, Object: o.id, AtMost: stable - 1, Bounded: true}); op.Err != ErrVersionGone {
			return fmt.Sprintf("a read at most %x, below what is stable, ends with %v", stable-1, op.Err)
		}
	}
	for i, v := range p.stack {
		if v.Flags&Void != 0 {
			continue
		}
		at := v.Version
		if i+1 < len(p.stack) {
			at += layout.Version(m.rng.Uint64N(uint64(p.stack[i+1].Version - at)))
		}
		op := m.r.do(&Op{Kind: OpRead, Object: o.id, Len: m.r.s.sb.Config.BlockSize, AtMost: at, Bounded: true, Exact: true})
		problem := m.matches(op, v)
		if op.Data != nil {
			op.Data.Release()
		}
		if problem != "" {
			return fmt.Sprintf("read at most %x: %s", at, problem)
		}
	}
	return ""
}

func (m *model) checkLists(want []ListEntry) {
	t := m.r.t
	done := false
	m.r.s.Shard(1, Sharding{PGCount: 3, PGStripeSize: 1 << 18}, func() { done = true })
	m.r.until("shard", func() bool { return done })
	var have, byInode []ListEntry
	for pg := uint32(1); pg <= 3; pg++ {
		more := true
		for at := Cursor(0); more; {
			have, at, more = m.r.s.List(have, layout.PGID{Pool: 1, Num: pg}, at, 2)
		}
	}
	more := true
	for at := Cursor(0); more; {
		byInode, at, more = m.r.s.ListInode(byInode, 0, ^layout.Inode(0), at, 2)
	}
	less := func(a, b ListEntry) int {
		switch {
		case a.Object.Less(b.Object):
			return -1
		case b.Object.Less(a.Object):
			return 1
		}
		return 0
	}
	// The entries of an object keep their order, and lie beside one another.
	for _, l := range [][]ListEntry{have, byInode} {
		for i := range l {
			if k := slices.IndexFunc(l, func(e ListEntry) bool { return e.Object == l[i].Object }); k < i && l[i-1].Object != l[i].Object {
				t.Fatalf("the entries of %v are apart: %+v", l[i].Object, l)
			}
		}
	}
	slices.SortStableFunc(want, less)
	slices.SortStableFunc(have, less)
	slices.SortStableFunc(byInode, less)
	if !slices.Equal(have, want) || !slices.Equal(byInode, want) {
		t.Fatalf("lists %+v and %+v, want %+v", have, byInode, want)
	}
}

// checkBlocks compares the allocator with what is referenced.
func (m *model) checkBlocks() {
	s := m.r.s
	used := map[uint32]layout.ObjectID{}
	add := func(b uint32, oid layout.ObjectID) {
		if other, ok := used[b]; ok && other != oid {
			m.r.t.Fatalf("block %d is used by %v and %v", b, oid, other)
		}
		if b != noBlock {
			used[b] = oid
		}
	}
	slots := 0
	for i := uint32(0); uint64(i) < s.sb.Slots; i++ {
		if v := slotView(s.t.slot(i)); s.t.slotFree.has(i) {
			slots++
			if v.used() {
				add(v.block(), s.t.object(i))
			}
		}
	}
	for d := range s.dirty {
		for i := s.dirty[d].first; i != 0; i = s.changes[i].next {
			add(s.changes[i].block, s.t.object(s.dirty[d].slot))
		}
	}
	if n := s.sb.Blocks - s.blocks.free; n != uint64(len(used)) {
		m.r.t.Fatalf("%d blocks are taken, %d are referenced", n, len(used))
	}
	if n := s.sb.Slots - s.t.slotFree.free; n != uint64(slots) {
		m.r.t.Fatalf("%d slots are taken, %d are referenced", n, slots)
	}
}

// drain waits for everything under way.
func (m *model) drain() {
	m.r.t.Helper()
	m.r.until("the last op", func() bool { return m.running == 0 })
}

// forget starts again after a crash: what was under way will never complete.
func (m *model) forget() { m.running = 0 }

// Seeds above drawnSeeds have objects of fewer than 8 units: a bitmap is not a whole byte.
const drawnSeeds, modelSeeds = 60, 72

// modelConfig draws a configuration.
func modelConfig(rng *rand.Rand, seed uint64) (Config, int64) {
	c := Config{Granularity: 4096, BlockSize: 32 << 10, JournalSize: 1 << 20}
	switch rng.IntN(5) {
	case 0:
		c.BlockSize = 128 << 10
		c.JournalSize = 2 << 20
	case 1:
		c.Granularity, c.ChecksumBlock, c.BlockSize = 512, 512, 8192
	case 2:
		c.ChecksumType = ChecksumNone
	case 3:
		c.Granularity, c.ChecksumBlock = 4096, 1024
	}
	if seed > drawnSeeds {
		c.Granularity, c.ChecksumBlock, c.BlockSize = 4096, 0, 16<<10>>(seed%3)
	}
	if rng.IntN(2) == 0 {
		c.JournalSize = minJournal(c.BlockSize)
	}
	size := superRegion + c.JournalSize + 256<<10 + int64(c.BlockSize)*int64(12+rng.IntN(60))
	return c, size &^ 4095
}

func TestStoreMatchesANaiveModel(t *testing.T) {
	for seed := uint64(1); seed <= modelSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			c, size := modelConfig(rng, seed)
			r := newRigOn(t, seed, size, c, splits[seed%uint64(len(splits))])
			if seed%4 == 0 {
				r.s.SetThrottle(Throttle{On: true, IOPS: 20000, MBs: 100, Parallelism: 2})
			}
			m := newModel(r, rng, 4+rng.IntN(30))
			for range 6 {
				depth := 1 + rng.IntN(40)
				for range 150 {
					m.one()
					if m.running >= depth {
						r.until("an op", func() bool { return m.running < depth })
					}
					if rng.IntN(10) == 0 {
						r.w.Run(time.Duration(rng.IntN(400)) * time.Microsecond)
					}
				}
				m.drain()
				m.check(true)
				switch rng.IntN(4) {
				case 0:
					r.close()
					r.mustOpen()
					m.check(true)
				case 1:
					r.w.Run(3 * time.Second)
					m.check(true)
				}
			}
		})
	}
}

func TestAcknowledgedChangesSurvivePowerLoss(t *testing.T) {
	policies := []sim.CrashPolicy{sim.CrashDrop, sim.CrashKeep, sim.CrashRandom}
	acks := 0
	for seed := uint64(1); seed <= modelSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			c, size := modelConfig(rng, seed)
			r := newRigOn(t, seed, size, c, splits[seed%uint64(len(splits))])
			m := newModel(r, rng, 3+rng.IntN(20))
			for range 12 {
				depth := 1 + rng.IntN(40)
				for range rng.IntN(200) {
					m.one()
					if m.running >= depth {
						r.until("an op", func() bool { return m.running < depth })
					}
					if rng.IntN(10) == 0 {
						r.w.Run(time.Duration(rng.IntN(400)) * time.Microsecond)
					}
				}
				if rng.IntN(8) == 0 {
					r.w.Run(time.Duration(rng.IntN(1500)) * time.Millisecond)
				}
				if rng.IntN(10) == 0 {
					r.s.Close(func() {})
				}
				r.w.Run(time.Duration(rng.IntN(500)) * time.Microsecond)
				if rng.IntN(5) == 0 {
					r.l.Kill()
					r.process()
				} else {
					r.crash(policies[rng.IntN(len(policies))])
				}
				m.forget()
				if rng.IntN(3) == 0 {
					// Cut it again while it opens.
					Open(r.l, r.disk, r.o, func(*Store, error) {})
					r.w.Run(time.Duration(rng.IntN(3000)) * time.Microsecond)
					r.crash(policies[rng.IntN(len(policies))])
				}
				r.mustOpen()
				m.check(false)
			}
			acks += m.acks
		})
	}
	t.Logf("%d changes acknowledged", acks)
}
