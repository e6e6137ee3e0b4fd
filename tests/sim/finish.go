package sim

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/osd/primary"
	"holdfast/osd/store"
)

// Bounds of the end, in simulated time, once nothing goes wrong any more.
const (
	answersWithin = 60 * time.Second  // every operation is answered
	cleanWithin   = 150 * time.Second // everything is clean; a primary that gave its PG back is passed over for 30 s of it
	quietWithin   = 140 * time.Second // nothing is left of what has finished; OSDs keep the pairs of a client that has ended for a minute
)

// finish ends the faults and checks what must be true then.
func (r *run) finish() {
	if r.broken {
		return
	}
	w := r.c.W
	w.RunUntil(func() bool { return r.broken }, r.begun+seedTime-w.Elapsed())
	r.logf("the faults are over")
	r.calm()
	r.ending = true
	for _, s := range r.slots {
		if s.now.dead {
			s.start()
		} else {
			s.now.l.Post(&loop.Task{Run: s.now.pump})
		}
	}
	all := func() bool {
		for _, s := range r.slots {
			if s.next < len(s.queue) || s.now.running > 0 {
				return r.broken
			}
		}
		return r.broken || r.removing == 0
	}
	if !w.RunUntil(all, answersWithin) {
		for _, s := range r.slots {
			for _, x := range s.now.open {
				r.fail("op %d of client %d (%v of image %d at %d+%d) is not answered %v after the last fault", x.o.ID, s.n+1, x.o.Kind, x.o.Image, x.o.Off, x.o.Len, answersWithin)
			}
		}
		r.fail("%d removals of images are under way %v after the last fault; the cluster: %s", r.removing, answersWithin, r.c.describe())
	}
	if !r.broken && !w.RunUntil(func() bool { return r.broken || r.clean() }, cleanWithin) {
		r.fail("not everything is clean %v after the last fault: %s", cleanWithin, r.c.describe())
	}
	if !r.broken {
		r.flushLazy()
	}
	if !r.broken {
		r.readBack()
	}
	if !r.broken && r.plan.Draw >= lyingDraw {
		r.scrubAll()
	}
	if !r.broken {
		r.quiet()
	}
	if !r.broken {
		r.copiesAgree()
	}
	r.judge()
	for _, m := range r.nodes {
		m.collect()
	}
	for _, who := range r.gateways { // order: they are counted
		if bits.OnesCount(who) > 1 {
			r.cover("image written through two gateways")
		}
	}
	for i, n := range r.c.W.Faults() {
		if n > 0 {
			r.report.Did[sim.Fault(i)] = n
		}
	}
	r.report.Coverage["torn write at a power failure"] += r.c.W.Faults()[sim.FaultCacheTorn]
	r.report.Coverage["write lost at a power failure"] += r.c.W.Faults()[sim.FaultCacheLost]
}

// calm ends everything that is still wrong.
func (r *run) calm() {
	w := r.c.W
	w.Run(r.plan.Config.Longest) // the last faults end
	w.Net.HealAll()
	r.c.Reg.SetDown(false)
	for i, m := range r.nodes {
		m.holds = 0
		if m.heir != nil {
			m.holds = 1
		}
		m.rise()
		m.n.Loop.Resume()
		m.n.CutRegistry(false)
		r.disk(i).Stall(false)
		if r.plan.Draw >= lyingDraw {
			r.disk(i).Honest()
		}
		usualLatency(r.disk(i))
	}
}

// judge looks for an order that explains what clients were told.
func (r *run) judge() {
	v := r.history.Check()
	r.report.Acts = v.Acts
	for _, text := range v.Illegal {
		r.fail("%s", text)
	}
	for _, text := range v.GaveUp {
		r.report.GaveUp = true
		r.fail("%s", text)
	}
}

// readBack reads every block with a client of its own: what it sees is part of the history.
func (r *run) readBack() {
	left := 0
	for _, im := range r.images {
		per := r.plan.Config.Object()
		for off := uint64(0); off < im.size; off += per {
			s := &slot{r: r, n: seedSlots, known: map[blockKey]block{}}
			p := &process{s: s, l: r.admin.Loop().(*sim.Loop), c: r.admin}
			s.now = p
			o := &PlannedOp{ID: 1<<30 + uint32(left), Kind: opRead, Image: im.n, Off: off, Len: per}
			x := &running{p: p, o: o, image: im}
			x.reads()
			left++
			x.cop = client.Op{Kind: client.Read, Inode: im.id, Offset: off, Len: per, Done: func(*client.Op) {
				left--
				if x.cop.Err != nil {
					r.fail("reading image %d at %d back: %v", im.n, off, x.cop.Err)
					return
				}
				for i := range x.cop.Parts {
					x.take(x.cop.Parts[i].Offset, x.cop.Parts[i].Bytes())
				}
				x.told()
				x.cop.ReleaseParts()
			}}
			r.operator(func() { r.admin.Submit(&x.cop) })
		}
	}
	if !r.c.W.RunUntil(func() bool { return left == 0 || r.broken }, answersWithin) {
		r.fail("%d objects could not be read back within %v: %s", left, answersWithin, r.c.describe())
	}
}

// quiet ends the clients and waits until nothing is left of what they did.
func (r *run) quiet() {
	closing := 0
	for _, s := range r.slots {
		p := s.now
		p.sizes()
		closing++
		p.l.Post(&loop.Task{Run: func() {
			p.close(func() {
				if n := p.c.Pending(); n != (client.Pending{}) {
					r.fail("client %d is closed and still has %+v", s.n+1, n)
				}
				if n := p.l.Live(); n != 0 {
					r.fail("client %d is closed and has not given back %d buffers", s.n+1, n)
				}
				r.cover("buffers of a client counted")
				p.kill()
				closing--
			})
		}})
	}
	if !r.c.W.RunUntil(func() bool { return closing == 0 || r.broken }, 30*time.Second) {
		r.fail("%d clients do not close", closing)
		return
	}
	r.put(cluster.GatewayKey("operator"), nil)
	left := ""
	rest := func() bool {
		left = r.leftOver()
		return left == ""
	}
	for end := r.c.W.Elapsed() + quietWithin; !r.broken && !rest(); {
		if r.c.W.Elapsed() > end {
			r.fail("left %v after everything has ended: %s", quietWithin, left)
			return
		}
		r.c.W.Run(1913 * time.Millisecond) // not in step with anything that comes again and again
	}
}

// close ends a client in order.
func (p *process) close(done func()) {
	left := len(p.handles) + 1
	one := func() {
		if left--; left == 0 {
			if p.lane != nil {
				p.lane.Close(done)
				return
			}
			p.c.Close(done)
		}
	}
	for _, h := range p.handles {
		h.Detach(one)
	}
	one()
}

// leftOver says what has not gone yet that must.
func (r *run) leftOver() string {
	if !r.clean() {
		return "not every PG is clean: " + r.c.describe()
	}
	for _, pg := range slices.SortedFunc(maps.Keys(r.probes), func(a, b layout.PGID) int { return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Num, b.Num)) }) {
		last := r.probes[pg]
		if r.removed[pg.Pool] {
			continue
		}
		if n := r.c.Nodes[last.osd]; n.boots != last.boots {
			return fmt.Sprintf("OSD %d has not served PG %v since it was started again", last.osd, pg) // its key is there until its lease has run out
		}
	}
	for _, m := range r.nodes {
		n := m.n
		if n.OSD == nil || n.Store == nil {
			return fmt.Sprintf("OSD %d is not up", n.Num)
		}
		st := n.Store.Stats()
		switch {
		case st.Tombstones > r.removedTombstones(n.Store):
			return fmt.Sprintf("OSD %d has %d tombstones: %v", n.Num, st.Tombstones, r.tombstones(n.Store))
		case st.Pairs > 0:
			return fmt.Sprintf("OSD %d remembers %d requests", n.Num, st.Pairs)
		case n.OSD.Pending() != (primary.Pending{}):
			return fmt.Sprintf("OSD %d has under way %+v", n.Num, n.OSD.Pending())
		case r.disk(m.i).InFlight() > 0:
			return fmt.Sprintf("OSD %d has %d operations of its disk under way", n.Num, r.disk(m.i).InFlight())
		case n.Loop.Live() != int64(st.Buffers):
			return fmt.Sprintf("OSD %d has %d buffers, of which its store keeps %d: not every request has given back what it borrowed", n.Num, n.Loop.Live(), st.Buffers)
		}
	}
	return ""
}

// removedTombstones counts the deletions that a store remembers of pools that were removed: what stores have of those stays, and the number of such a pool is not given away (core/admin, CreatePool).
func (r *run) removedTombstones(st *store.Store) (n uint64) {
	if len(r.passed) == 0 {
		return 0
	}
	var entries []store.ListEntry
	var cursor store.Cursor
	for more := true; more; {
		entries, cursor, more = st.ListInode(entries, 0, 1<<64-1, cursor, 1<<16)
	}
	for _, e := range entries {
		if r.passed[e.Object.Inode.Pool()] && e.Flags&store.Tombstone != 0 {
			n++
		}
	}
	return n
}

// tombstones are the deletions that a store remembers, with their PGs.
func (r *run) tombstones(st *store.Store) (list []string) {
	var entries []store.ListEntry
	var cursor store.Cursor
	for more := true; more; {
		entries, cursor, more = st.ListInode(entries, 0, 1<<64-1, cursor, 1<<16)
	}
	for _, e := range entries {
		if g, err := r.c.Snapshot().Geometry(e.Object.Inode.Pool()); err == nil && e.Flags&store.Tombstone != 0 && !r.passed[e.Object.Inode.Pool()] {
			list = append(list, fmt.Sprintf("%v of PG %d, version %x, flags %d", e.Object, g.PG(e.Object.Stripe), uint64(e.Version), e.Flags))
		}
	}
	return list
}

// copyOf is one OSD's copy of an object.
type copyOf struct {
	osd layout.OSDNum
	op  store.Op
}

// copiesAgree reads every object from every store and compares: versions, bitmaps and bytes, and the space that it takes.
func (r *run) copiesAgree() {
	w := r.c.W
	copies := map[layout.ObjectID][]*copyOf{}
	left := 0
	for _, m := range r.nodes {
		var entries []store.ListEntry
		var cursor store.Cursor
		for more := true; more; {
			entries, cursor, more = m.n.Store.ListInode(entries, 0, 1<<64-1, cursor, 1<<16)
		}
		for _, e := range entries {
			if r.passed[e.Object.Inode.Pool()] {
				continue
			}
			if e.Flags != 0 {
				r.fail("OSD %d holds object %v with flags %v", m.n.Num, e.Object, e.Flags)
				continue
			}
			c := &copyOf{osd: m.n.Num}
			copies[e.Object] = append(copies[e.Object], c)
			left++
			st, tries := m.n.Store, 0
			c.op = store.Op{Kind: store.OpReadObject, Object: e.Object}
			c.op.Done = func(op *store.Op) {
				if _, media := errors.AsType[*store.MediaError](op.Err); media && tries < 8 {
					tries++ // errors that were to come are used up
					st.Submit(op)
					return
				}
				left--
			}
			m.n.Loop.Post(&loop.Task{Run: func() { st.Submit(&c.op) }})
		}
	}
	if !w.RunUntil(func() bool { return left == 0 }, time.Minute) {
		r.fail("%d copies could not be read from their stores", left)
		return
	}
	ids := make([]layout.ObjectID, 0, len(copies))
	for id := range copies {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b layout.ObjectID) int {
		return cmp.Or(cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Stripe, b.Stripe))
	})
	blocks := map[layout.OSDNum]map[layout.Inode]int64{}
	known := map[layout.Inode]bool{}
	for _, im := range r.images {
		known[im.id] = true
	}
	s := r.c.Snapshot()
	for _, id := range ids {
		list := copies[id]
		if r.coded(id.Inode.Pool()) {
			if known[id.Inode] && id.Role() == 0 || copies[id.Whole()] == nil {
				r.chunksAgree(id.Whole(), copies)
			}
			for _, c := range list {
				if c.op.Err == nil && !allZero(c.op.Present) {
					if blocks[c.osd] == nil {
						blocks[c.osd] = map[layout.Inode]int64{}
					}
					blocks[c.osd][id.Inode] += int64(r.plan.Config.Store.BlockSize)
				}
			}
			continue
		}
		first := &list[0].op
		g, err := s.Geometry(id.Inode.Pool())
		if err != nil || !known[id.Inode] {
			r.fail("object %v belongs to no image", id)
			continue
		}
		target, _ := s.PGConfig.Target(layout.PGID{Pool: id.Inode.Pool(), Num: g.PG(id.Stripe)})
		var on []layout.OSDNum
		for _, c := range list {
			op := &c.op
			on = append(on, c.osd)
			if op.Err != nil {
				if !r.excused(r.nodes[int(c.osd)-1]) {
					r.fail("object %v cannot be read on OSD %d: %v", id, c.osd, op.Err)
				}
				continue
			}
			if first.Err != nil {
				first = op
			}
			if op.State.Version != first.State.Version || !bytes.Equal(op.Bitmap, first.Bitmap) || !sameBytes(op, first) {
				r.fail("object %v is version %x on OSD %d and version %x on OSD %d, or its bytes or bitmaps differ", id, op.State.Version, c.osd, first.State.Version, list[0].osd)
			}
			if !allZero(op.Present) {
				if blocks[c.osd] == nil {
					blocks[c.osd] = map[layout.Inode]int64{}
				}
				blocks[c.osd][id.Inode] += int64(g.BlockSize)
			}
		}
		want := slices.Clone(target.OSDSet)
		slices.Sort(want)
		slices.Sort(on)
		if !slices.Equal(want, on) {
			r.fail("object %v is on OSDs %v, its PG on %v", id, on, want)
		}
	}
	if r.broken && r.out != nil {
		r.logf("the cluster: %s", r.c.describe())
		for _, m := range r.nodes {
			for _, rec := range m.n.Store.PGs() {
				r.logf("osd%d remembers of pg %v: %+v", m.n.Num, rec.PG, rec)
			}
		}
	}
	for _, m := range r.nodes {
		damaged := r.excused(m)
		taken := int64(0) // by all inodes
		m.n.Store.SpaceByInode(func(inode layout.Inode, n int64) {
			taken += n
			if r.passed[inode.Pool()] {
				return
			}
			if have := blocks[m.n.Num][inode]; have != n && !damaged {
				// An object that became empty by several holes, none of which was all of it, keeps its block: that is decided when a hole is submitted, so that a replay decides the same.
				empty := int64(0)
				for _, id := range ids {
					for _, c := range copies[id] {
						if id.Inode == inode && c.osd == m.n.Num && allZero(c.op.Present) {
							empty += int64(r.plan.Config.Store.BlockSize)
						}
					}
				}
				if n > have && n <= have+empty {
					return
				}
				r.fail("OSD %d counts %d bytes for inode %v, its objects take %d", m.n.Num, n, inode, have)
			}
		})
		if st := m.n.Store.Stats(); !damaged && st.FreeBlocks > 0 {
			if n := int64(st.Blocks-st.FreeBlocks-st.KeptBlocks) * int64(st.BlockSize); n != taken {
				r.fail("OSD %d has %d bytes of blocks that are not free, its objects take %d: the others are lost", m.n.Num, n, taken)
			}
			r.cover("blocks of a store counted")
		}
	}
	for _, id := range ids {
		for _, c := range copies[id] {
			if c.op.Data != nil {
				c.op.Data.Release()
			}
		}
	}
}

func sameBytes(a, b *store.Op) bool {
	switch {
	case a.Data == nil || b.Data == nil:
		return a.Data == b.Data
	}
	return bytes.Equal(a.Data.Bytes(), b.Data.Bytes())
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
