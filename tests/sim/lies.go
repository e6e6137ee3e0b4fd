package sim

import (
	"slices"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

// Disks that lie: they spoil what they hold, lose writes that they have acknowledged, or do them elsewhere. In a run as many may at a time as every acknowledged write can do without: it is on pg_minsize members, and a number of
// those is enough to read it. Which disks these are changes: one that has been replaced, and filled again from the others, is as good as any, and another one lies from then on.

// lyingDraw is the first in which more than one disk may lie, and others later.
const lyingDraw = 7

// liars is how many disks may lie at a time.
func (c *Config) liars() int { return max(1, c.MinSize-c.Data()) }

// drawLiars says whose disks lie first.
func (r *run) drawLiars() {
	if r.plan.Draw < lyingDraw {
		r.liars = []int{int(r.plan.Seed % seedOSDs)}
		return
	}
	for i := range r.plan.Config.liars() {
		r.liars = append(r.liars, (int(r.plan.Seed%uint64(len(r.nodes)))+i)%len(r.nodes))
	}
}

// liar is the member whose disk a fault has lie.
func (r *run) liar(f *PlannedFault) *member {
	i := int(f.N >> 40 % uint64(len(r.liars)))
	r.passOn(i)
	return r.nodes[r.liars[i]]
}

// lies reports whether an OSD's disk is one of those that lie.
func (r *run) lies(osd int) bool { return slices.Contains(r.liars, osd) }

// excused says whose copies need not be right in the end: in earlier draws nobody has scrubbed.
func (r *run) excused(m *member) bool { return m.hurt && r.plan.Draw < lyingDraw }

// hurtDisks is how many disks, besides one, are not to be relied on.
func (r *run) hurtDisks(but int) (n int) {
	for _, m := range r.nodes {
		if m.hurt && m.i != but {
			n++
		}
	}
	return n
}

// hurts notes that a member's disk is not to be relied on from now on.
func (m *member) hurts() {
	m.hurt, m.lied = true, m.store()
}

// passOn has another disk lie in the place of one that was replaced and is whole again.
func (r *run) passOn(i int) {
	m := r.nodes[r.liars[i]]
	if r.plan.Draw < lyingDraw || !m.hurt || m.down || m.heir != nil || m.store().IsZero() || m.store() == m.lied || m.store() != m.seen || r.disk(m.i).Lies() != m.strayed || !r.allWhole() {
		return
	}
	r.disk(m.i).Honest()
	m.hurt = false
	r.cover("another disk lies")
	next := m.i
	for r.lies(next) { // there are more OSDs than liars
		next = (next + 1) % len(r.nodes)
	}
	r.liars[i] = next
}

// besides is how many copies other pools have: enough for as many disks as may lie.
func (r *run) besides() int {
	if r.plan.Draw < lyingDraw {
		return min(2, r.plan.Config.Replicas)
	}
	return min(1+len(r.liars), r.plan.Config.Replicas)
}

// allWhole reports whether every object is whole on stores that are all known.
func (r *run) allWhole() bool {
	records := r.records()
	if len(records) != r.c.pgs || !r.clean() || r.unsure() {
		return false
	}
	for _, rec := range records {
		if !rec.Active() || len(rec.Sets) != 1 {
			return false
		}
		for _, mem := range rec.Sets[0].Members {
			if r.nodes[int(mem.OSD)-1].store() != mem.Store {
				return false
			}
		}
	}
	return true
}

// spoils reports whether what a disk holds may be spoilt now: not while a disk that was replaced is filled, since this may have the only copy.
func (r *run) spoils(m *member) bool {
	return !m.down && m.n.Store != nil && !r.refilling() && !m.store().IsZero()
}

// refilling reports whether a disk was replaced, and not everything has been whole since. That etcd calls every PG clean is not enough: it does, too, until the lease of who served has run out.
func (r *run) refilling() bool {
	whole := r.clean
	if r.plan.Draw >= lyingDraw {
		whole = r.allWhole
	}
	r.refill = r.refill && !whole()
	return r.refill
}

// places are where a disk holds what it has of an object.
func (r *run) places(m *member, object layout.ObjectID) (list []int64) {
	for role := range r.plan.Config.Replicas {
		id := object
		if r.coded(id.Inode.Pool()) {
			id.Stripe |= uint64(role)
		} else if role > 0 {
			break
		}
		if off, ok := m.n.Store.Place(id); ok {
			list = append(list, off)
		}
	}
	return list
}

// spoilObject turns bits in what lying disks have of one object: each of them, or one. Sometimes another OSD falls then: what it lacks when it comes back is computed, and copied, with what is spoilt at hand.
func (r *run) spoilObject(f *PlannedFault) func() {
	var disks []*member
	for i := range r.liars {
		if m := r.nodes[r.liars[i]]; r.spoils(m) {
			disks = append(disks, m)
		}
	}
	if first := r.liar(f); len(disks) < 2 || f.N&9 == 0 {
		disks = slices.DeleteFunc(disks, func(m *member) bool { return m != first })
	}
	im, at := r.images[0], 0 // what most operations fall on
	if f.N&4 != 0 {
		im, at = r.images[r.rng.IntN(len(r.images))], r.rng.IntN(r.plan.Config.Objects)
	}
	object, hit := layout.ObjectID{Inode: im.id, Stripe: r.plan.Config.Object() * uint64(at)}, 0
	if len(disks) > 1 { // one that as many as may be have something of
		best := 0
		for _, im := range r.images {
			for at := range r.plan.Config.Objects {
				id, have := layout.ObjectID{Inode: im.id, Stripe: r.plan.Config.Object() * uint64(at)}, 0
				for _, m := range disks {
					have += min(1, len(r.places(m, id)))
				}
				if have > best {
					object, best = id, have
				}
			}
		}
	}
	for _, m := range disks {
		for _, off := range r.places(m, object) {
			m.hurts()
			hit++
			for at := int64(0); at < int64(r.plan.Config.Store.BlockSize); at += 1024 << (f.N >> 8 % 4) {
				r.disk(m.i).Flip(off+at+r.rng.Int64N(512), byte(1)<<r.rng.IntN(8))
			}
		}
	}
	switch {
	case hit == 0:
		return r.cannot()
	case hit > 1:
		r.cover("object spoilt on several disks")
	}
	if f.N&2 != 0 && !r.lies(f.A) {
		return r.fall(f.A, false, sim.CrashPolicy{})
	}
	return nil
}

// loseLate has a disk lose a write to its journal or its metadata, or do it elsewhere, as it turns out when the OSD starts the next time. Of the journal's batches it is none of the newest, which look like batches that never were
// written.
func (r *run) loseLate(f *PlannedFault, astray bool) func() {
	m := r.liar(f)
	if !r.spoils(m) {
		return r.cannot()
	}
	journal := f.N>>16&1 != 0
	lost, ok := r.disk(m.i).LoseLate(journal, lateNewest, astray)
	if !ok {
		return r.cannot()
	}
	m.hurts()
	what := "metadata"
	if journal {
		what = "journal"
	}
	r.logf("osd%d: a write to the %s, at %d+%d, was never done there", m.i+1, what, lost.Off, lost.Len)
	r.cover("write to the " + what + " found to be lost")
	return r.fall(m.i, f.N&8 != 0, crashes[f.N>>4%3])
}

// lateNewest is how many of the last writes to the journal are not lost late; lateKept writes are kept.
const (
	lateNewest = 4
	lateKept   = 48
)

// replaceLiar puts an empty disk in the place of one that has lied, as an operator does.
func (r *run) replaceLiar(f *PlannedFault) func() {
	m := r.liar(f)
	if !m.hurt || m.store() != m.lied {
		return r.cannot()
	}
	g := *f
	g.A = m.i
	return r.replaceDisk(&g)
}

// remember has a disk of a lying draw keep what its journal and metadata had before.
func (m *member) remember() {
	if m.r.plan.Draw < lyingDraw || !astrayFits(&m.r.plan.Config) {
		return
	}
	sb := m.n.Store.Superblock()
	if sb.StoreID != m.seen {
		m.seen, m.strayed = sb.StoreID, m.r.disk(m.i).Lies()
	}
	m.r.disk(m.i).Remember(sim.Extent{Off: sb.Journal.Off, Len: sb.Journal.Len}, sim.Extent{Off: sb.Meta.Off, Len: sb.Meta.Len}, lateKept)
}

// lies of a run's disks, of the seventh draw.
func lyingFaults() []faultKind {
	several := func(c *Config) bool { return astrayFits(c) }
	return []faultKind{
		{8, "object spoilt", several, (*run).spoilObject},
		{6, "write found to be lost", several, func(r *run, f *PlannedFault) func() { return r.loseLate(f, false) }},
		{4, "write found elsewhere", several, func(r *run, f *PlannedFault) func() { return r.loseLate(f, true) }},
		{4, "data of a disk goes anywhere", several, func(r *run, f *PlannedFault) func() {
			return r.astrayOn(f, func(d *sim.Disk, off, n int64) {
				d.ConfineFrom(off, n)
				d.MisdirectWrites(1 + int(f.N%2))
			})
		}},
		{8, "lying disk replaced", several, (*run).replaceLiar},
		{5, "everything scrubbed", nil, (*run).scrubNow},
		{4, "pg_size changed", func(c *Config) bool { return sizesFit(c) && c.Back != backEtcd }, (*run).changePoolSize}, // who sets etcd back does an operator's work again only where he knows how
	}
}
