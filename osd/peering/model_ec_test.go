package peering

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/core/layout"
)

// The model with an erasure-coded pool. A write reaches any members, unstable; commits follow it on the same connections and arrive when they like, or never. It is acknowledged when it is on every
// member. Besides what the model checks of replicated pools it checks, whenever a PG begins to serve, that
//   - the truth about each object, whole or not, is what was acknowledged or read last, or a later write, and no write that was passed over before comes back,
//   - chunks of k roles, all of one version, are on stores that were heard: the object can be read at once (and is),
//   - nothing is unstable any more on members.
//
// In the end a PG must become whole although stores were lost for good, if k are left of each recorded set.
type modelEC struct {
	k, m    int // data chunks, 0 in a replicated pool; most parity chunks
	slots   []layout.OSDNum
	lazy    bool // commits wait for a sync,
	loses   bool // and a crash takes what was not synced; only what was synced counts as acknowledged then
	most    int  // chunks that recovery may put in place or remove before the interval ends; 0: any number
	pending []modelPending
	late    []modelLate

	committed, rolledBack, computed, strays, swaps, forgotten int // what happened
}

// modelPending is a commit on its way.
type modelPending struct {
	to    layout.OSDNum
	lock  modelLock
	chunk layout.ObjectID
	upTo  layout.Version
}

func newECModel(seed uint64) *model {
	w := &model{rng: rand.New(rand.NewPCG(seed, 21)), low: map[layout.ObjectID]int{}, dead: map[layout.ObjectID][][2]int{}, deletes: map[int]bool{}}
	w.ec.k, w.ec.m = 2+w.rng.IntN(2), 1+w.rng.IntN(2)
	w.ec.lazy = w.rng.IntN(4) == 0
	w.ec.loses = w.ec.lazy && w.rng.IntN(2) == 0
	for i := range w.ec.k + w.ec.m + w.rng.IntN(3) {
		o := &modelOSD{num: layout.OSDNum(i + 1), up: true}
		w.format(o)
		w.osds = append(w.osds, o)
	}
	for i := range 1 + w.rng.IntN(3) {
		w.objects = append(w.objects, layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: uint64(i) << 17})
	}
	w.record.Generation = 1
	w.move()
	return w
}

func chunkOf(id layout.ObjectID, role int) layout.ObjectID {
	return layout.ObjectID{Inode: id.Inode, Stripe: id.Stripe | uint64(role)}
}

// newest is what a store has of a chunk, committed or not.
func (s *modelStore) newest(chunk layout.ObjectID) modelCopy {
	if u := s.unstable[chunk]; len(u) > 0 {
		return u[len(u)-1]
	}
	return s.objects[chunk]
}

// listUnstable makes everything durable first, as a member does before it answers.
func (s *modelStore) listUnstable() (list []Entry) {
	for chunk, u := range s.unstable {
		s.synced[chunk] = len(u)
		for _, c := range u {
			c.Unstable = true
			list = append(list, c.Entry)
		}
	}
	return list
}

// keep makes what is unstable up to a version stable.
func (s *modelStore) keep(chunk layout.ObjectID, upTo layout.Version) {
	for len(s.unstable[chunk]) > 0 && s.unstable[chunk][0].Version <= upTo {
		s.objects[chunk] = s.unstable[chunk][0]
		s.unstable[chunk] = s.unstable[chunk][1:]
		s.synced[chunk] = max(0, s.synced[chunk]-1)
	}
}

func (s *modelStore) drop(chunk layout.ObjectID, left int) {
	s.unstable[chunk] = s.unstable[chunk][:left]
	s.synced[chunk] = min(s.synced[chunk], left)
}

// loseUnsynced drops what a crash may take.
func (w *model) loseUnsynced(o *modelOSD) {
	if !w.ec.loses {
		return
	}
	for _, id := range w.objects {
		for role := range w.ec.k + w.ec.m {
			chunk := chunkOf(id, role)
			if n, synced := len(o.store.unstable[chunk]), o.store.synced[chunk]; n > synced {
				o.store.drop(chunk, synced+w.rng.IntN(n-synced+1))
			}
		}
	}
}

// rollback drops what is unstable above versions; it reports whether all of it was done.
func (w *model) rollback(t *modelOSD, list []Entry) bool {
	for _, e := range list {
		u := t.store.unstable[e.Object]
		i := slices.IndexFunc(u, func(c modelCopy) bool { return c.same(e) })
		if c := t.store.objects[e.Object]; i < 0 && !c.same(e) {
			panic(fmt.Sprintf("OSD %d is told to roll back to %+v and has %+v, unstable %+v", t.num, e, c, u))
		}
		if w.fails(12) {
			return false
		}
		w.say("roll back on %d: chunk %s above %d.%x", t.num, chunkName(e.Object), e.Interval, uint64(e.Version))
		t.store.drop(e.Object, i+1)
		w.ec.rolledBack++
	}
	return true
}

// commit commits what is unstable up to versions; it reports whether all of it was done.
func (w *model) commit(t *modelOSD, list []Entry) bool {
	for _, e := range list {
		if u := t.store.unstable[e.Object]; !slices.ContainsFunc(u, func(c modelCopy) bool { return c.same(e) }) {
			panic(fmt.Sprintf("OSD %d is told to commit %+v and has %+v, unstable %+v", t.num, e, t.store.objects[e.Object], u))
		}
		if w.fails(12) {
			return false
		}
		w.say("commit on %d: chunk %s up to %d.%x", t.num, chunkName(e.Object), e.Interval, uint64(e.Version))
		t.store.keep(e.Object, e.Version)
		w.ec.committed++
	}
	return true
}

func chunkName(chunk layout.ObjectID) string {
	return fmt.Sprintf("%d/%d", chunk.Stripe>>17, chunk.Role())
}

// moveSlots chooses who has which role, and a primary.
func (w *model) moveSlots() {
	n := w.ec.k + 1 + w.rng.IntN(w.ec.m) // the pool's parity count may change
	if w.ec.slots = slices.Clone(w.ec.slots); w.ec.slots != nil && w.rng.IntN(3) == 0 {
		w.rng.Shuffle(len(w.ec.slots), func(i, j int) { w.ec.slots[i], w.ec.slots[j] = w.ec.slots[j], w.ec.slots[i] })
		w.ec.swaps++
	} else {
		w.ec.slots = nil
		left := n
		for _, i := range w.rng.Perm(len(w.osds))[:n] {
			osd := w.osds[i].num
			if left > w.ec.k && w.rng.IntN(6) == 0 {
				osd = 0
				left--
			}
			w.ec.slots = append(w.ec.slots, osd)
		}
		w.rng.Shuffle(n, func(i, j int) { w.ec.slots[i], w.ec.slots[j] = w.ec.slots[j], w.ec.slots[i] })
	}
	w.target = slices.DeleteFunc(slices.Clone(w.ec.slots), func(n layout.OSDNum) bool { return n == 0 })
	w.min = w.ec.k + w.rng.IntN(len(w.target)-w.ec.k+1)
	w.choose()
	w.say("slots %v k %d min %d primary %d", w.ec.slots, w.ec.k, w.min, w.primary)
}

// stepChunks does one of the things that happen to objects; r is below 27.
func (w *model) stepChunks(r int) {
	a := w.active()
	switch {
	case r < 6:
		w.arriveChunks()
	case a == nil:
	case r < 17:
		w.writeChunks(a)
	case r < 19 && w.ec.lazy:
		w.syncChunks(a)
	case r < 23:
		w.recoverOne(a)
	default:
		w.forgetChunks(a)
	}
}

// serves notes that what an object is was told to somebody, and checks that it may be.
func (w *model) told(id layout.ObjectID, c modelCopy) {
	low := w.low[id]
	switch {
	case c.Void:
		panic(fmt.Sprintf("object %d reads as what is void: content %d (%+v)", id.Stripe>>17, c.content, c.Entry))
	case c.Version == 0 && low != 0 && !w.deletes[low]:
		panic(fmt.Sprintf("object %d is gone, but content %d was acknowledged or read", id.Stripe>>17, low))
	case c.Version != 0 && c.content < low:
		panic(fmt.Sprintf("object %d reads as content %d (%+v), but content %d was acknowledged or read", id.Stripe>>17, c.content, c.Entry, low))
	}
	for _, d := range w.dead[id] {
		if c.content > d[0] && c.content <= d[1] {
			panic(fmt.Sprintf("object %d reads as content %d (%+v), but after that was begun content %d was served", id.Stripe>>17, c.content, c.Entry, d[0]))
		}
	}
	if n := len(w.dead[id]); n == 0 || w.dead[id][n-1] != [2]int{c.content, w.writes} {
		w.dead[id] = append(w.dead[id], [2]int{c.content, w.writes})
	}
	if !w.ec.loses {
		w.low[id] = max(low, c.content)
	}
}

// servedChunks checks what a PG begins to serve with.
func (w *model) servedChunks(o *modelOSD, e Effect) {
	for _, s := range o.m.Record.Sets {
		if n := len(slices.DeleteFunc(slices.Clone(s.Members), func(a Member) bool { return !slices.Contains(o.m.Record.Participants, a) })); n < w.ec.k {
			panic(fmt.Sprintf("only %d participants are left of the set of interval %d, %v; participants %v", n, s.Interval, nums(s.Members), nums(o.m.Record.Participants)))
		}
	}
	for role, osd := range e.Roles {
		if osd != 0 && !slices.Contains(nums(e.Members), osd) {
			panic(fmt.Sprintf("role %d is OSD %d's, which is no member: %v", role, osd, nums(e.Members)))
		}
	}
	for _, a := range e.Members {
		for _, id := range w.objects {
			for role := range w.ec.k + w.ec.m {
				if u := w.osd(a.OSD).store.unstable[chunkOf(id, role)]; len(u) > 0 {
					panic(fmt.Sprintf("interval %d is served, and OSD %d has unstable %+v", e.Interval, a.OSD, u))
				}
			}
		}
	}
	for _, id := range w.objects {
		if o.unclean[id] == nil {
			w.checkChunks(o, id)
		} else if c, readable := w.compute(o, id); readable {
			w.told(id, c)
		} else if u := o.unclean[id]; u.Roles() < w.ec.k && !u.Truth.Tombstone { // otherwise somebody was lost since it was judged
			panic(fmt.Sprintf("object %d cannot be read: %+v", id.Stripe>>17, *o.unclean[id]))
		}
	}
}

// compute reads an object that is not whole, as a client may that reads it before it is recovered.
func (w *model) compute(o *modelOSD, id layout.ObjectID) (truth modelCopy, readable bool) {
	u := o.unclean[id]
	if u.Truth.Version == 0 {
		return truth, true
	}
	roles := map[int]bool{}
	for _, ch := range u.Chunks {
		t := w.osd(ch.OSD)
		c := t.store.objects[chunkOf(id, ch.Role)]
		if !t.up || t.lock != o.right() {
			continue
		}
		if !c.same(u.Truth) || c.Void || c.Tombstone != u.Truth.Tombstone || truth.content != 0 && truth.content != c.content {
			panic(fmt.Sprintf("object %d: the truth is %+v, content %d; OSD %d, which has it, has %+v, content %d", id.Stripe>>17, u.Truth, truth.content, t.num, c.Entry, c.content))
		}
		truth = c
		roles[ch.Role] = true
	}
	w.ec.computed++
	return truth, len(roles) >= w.ec.k || truth.Tombstone
}

// checkChunks reads an object if it is whole.
func (w *model) checkChunks(o *modelOSD, id layout.ObjectID) {
	if o.m.Phase != Active || o.unclean[id] != nil {
		return
	}
	var c modelCopy
	first := true
	roles := o.m.Roles()
	for role, osd := range roles {
		if osd == 0 {
			continue
		}
		d := w.osd(osd).store.newest(chunkOf(id, role))
		if first {
			c, first = d, false
		}
		if !d.same(c.Entry) || d.content != c.content || d.Tombstone != c.Tombstone || d.Void {
			panic(fmt.Sprintf("object %d is not unclean, but OSD %d has %+v content %d, and another %+v content %d", id.Stripe>>17, osd, d, d.content, c, c.content))
		}
		for other := range w.ec.k + w.ec.m {
			if s := w.osd(osd).store.newest(chunkOf(id, other)); other != role && s.Version != 0 {
				panic(fmt.Sprintf("object %d is not unclean, but OSD %d has chunk %d beside its own, %d", id.Stripe>>17, osd, other, role))
			}
		}
	}
	w.told(id, c)
}

// flow carries out the commits of a chunk that were sent to an OSD before.
func (w *model) flow(to layout.OSDNum, chunk layout.ObjectID) {
	w.ec.pending = slices.DeleteFunc(w.ec.pending, func(p modelPending) bool {
		if p.to != to || p.chunk != chunk {
			return false
		}
		if t := w.osd(to); t.up && t.lock == p.lock {
			t.store.keep(chunk, p.upTo)
		}
		return true
	})
}

// writeChunks begins a few changes of one object, one after the other.
func (w *model) writeChunks(o *modelOSD) {
	id := w.objects[w.rng.IntN(len(w.objects))]
	if o.unclean[id] != nil {
		if c, readable := w.compute(o, id); readable {
			w.told(id, c)
		}
		return
	}
	w.checkChunks(o, id)
	roles := o.m.Roles()
	for range 1 + w.rng.IntN(3) {
		on := make([]bool, len(roles))
		failing := w.fails(4)
		for role := range roles {
			on[role] = !failing || w.rng.IntN(2) == 0
		}
		if !w.change(o, id, w.rng.IntN(3) == 0, w.rng.IntN(8) == 0, on, failing) {
			return
		}
	}
	for role, osd := range roles {
		if osd != 0 && w.rng.IntN(2) == 0 {
			w.flow(osd, chunkOf(id, role))
		}
	}
}

// change begins one change, which reaches some roles. It is acknowledged unless it is failing; otherwise the interval ends.
func (w *model) change(o *modelOSD, id layout.ObjectID, tombstone, hot bool, on []bool, failing bool) bool {
	roles := o.m.Roles()
	base, chain := modelCopy{}, 0
	for role, osd := range roles {
		if osd != 0 {
			base, chain = w.osd(osd).store.newest(chunkOf(id, role)), len(w.osd(osd).store.unstable[chunkOf(id, role)])
		}
	}
	if w.ec.lazy && chain >= 4 {
		return false
	}
	w.writes++
	v := max(base.Version, o.floor, layout.Version(o.m.Interval)<<layout.VersionCounterBits) + 1
	if hot { // a hot object's counter reaches into a later interval's versions
		v = max(v, layout.Version(uint64(o.m.Interval)+1+w.rng.Uint64N(3))<<layout.VersionCounterBits+1)
	}
	w.deletes[w.writes] = tombstone
	for role, osd := range roles {
		if osd == 0 {
			continue
		}
		t, chunk := w.osd(osd), chunkOf(id, role)
		c := modelCopy{Entry{Object: chunk, Version: v, Interval: o.m.Interval, Tombstone: tombstone}, w.writes}
		if !on[role] {
			if !w.calm && w.rng.IntN(2) == 0 {
				w.ec.late = append(w.ec.late, modelLate{osd, t.lock, base.Version, c})
			}
			continue
		}
		w.flow(osd, chunk)
		if s := t.store; t.lock != o.right() || s.newest(chunk).Version != base.Version || !w.ec.lazy && len(s.unstable[chunk]) > 0 {
			panic(fmt.Sprintf("OSD %d refuses a write on base %x: it has %+v, unstable %+v", osd, base.Version, s.objects[chunk], s.unstable[chunk]))
		}
		t.store.unstable[chunk] = append(slices.Clip(t.store.unstable[chunk]), c)
	}
	w.say("write %d: content %d, version %d.%x, on %v of %v, failing %v", id.Stripe>>17, w.writes, o.m.Interval, uint64(v), on, roles, failing)
	if failing {
		w.put(o, o.m.Restart())
		if w.fails(2) {
			w.crash(w.osd(o.num))
		}
		return false
	}
	w.acked++
	if !w.ec.loses {
		w.low[id] = w.writes
	}
	if !w.ec.lazy {
		w.sendCommits(o, id, v)
	}
	return true
}

func (w *model) sendCommits(o *modelOSD, id layout.ObjectID, v layout.Version) {
	for role, osd := range o.m.Roles() {
		if osd != 0 {
			w.ec.pending = append(w.ec.pending, modelPending{osd, w.osd(osd).lock, chunkOf(id, role), v})
		}
	}
}

// arriveChunks lets something reach its OSD that was on its way; what was sent under a grant that has ended is refused.
func (w *model) arriveChunks() {
	if n := len(w.ec.pending); n > 0 && w.rng.IntN(2) == 0 {
		p := w.ec.pending[w.rng.IntN(n)]
		w.flow(p.to, p.chunk)
		return
	}
	if len(w.ec.late) == 0 {
		return
	}
	i := w.rng.IntN(len(w.ec.late))
	l := w.ec.late[i]
	w.ec.late = slices.Delete(w.ec.late, i, i+1)
	t, chunk := w.osd(l.to), l.write.Object
	if !t.up || t.lock != l.lock {
		return
	}
	w.flow(l.to, chunk)
	if c := t.store.newest(chunk); c.Version == l.base && !c.Void {
		w.say("late write on %d: chunk %s content %d", t.num, chunkName(chunk), l.write.content)
		t.store.unstable[chunk] = append(slices.Clip(t.store.unstable[chunk]), l.write)
	}
}

// syncChunks makes lazy changes durable on every member, and commits them.
func (w *model) syncChunks(o *modelOSD) {
	roles := o.m.Roles()
	for _, osd := range roles {
		if osd == 0 {
			continue
		}
		if w.fails(12) {
			w.put(o, o.m.Restart())
			return
		}
		for chunk, u := range w.osd(osd).store.unstable {
			w.osd(osd).store.synced[chunk] = len(u)
		}
	}
	for _, id := range w.objects {
		role := slices.IndexFunc(roles, func(n layout.OSDNum) bool { return n != 0 })
		c := w.osd(roles[role]).store.newest(chunkOf(id, role))
		if o.unclean[id] != nil || c.Version == 0 {
			continue
		}
		w.low[id] = max(w.low[id], c.content)
		w.sendCommits(o, id, c.Version)
	}
	w.say("synced")
}

// recoverChunks makes objects whole, or part of them; it reports whether the interval goes on.
func (w *model) recoverChunks(o *modelOSD) bool {
	for _, id := range w.objects {
		u := o.unclean[id]
		if u == nil || w.fails(2) {
			continue
		}
		truth, readable := w.compute(o, id)
		if u.Truth.Version != 0 && (!readable || truth.Version == 0) {
			w.put(o, o.m.Readmit())
			return false // until somebody who has chunks is back
		}
		put := func(l Lack, c modelCopy) bool {
			t, chunk := w.osd(l.OSD), l.Have.Object
			if s := t.store; t.lock != o.right() || !s.objects[chunk].same(l.Have) || len(s.unstable[chunk]) > 0 {
				panic(fmt.Sprintf("OSD %d refuses a replacement: it has %+v, unstable %+v, expected %+v", t.num, s.objects[chunk].Entry, s.unstable[chunk], l.Have))
			}
			if w.fails(8) {
				w.put(o, o.m.Restart())
				return false
			}
			if c.Object = chunk; c.Version == 0 {
				delete(t.store.objects, chunk)
			} else {
				t.store.objects[chunk] = c
			}
			if w.ec.most--; w.ec.most == 0 {
				w.put(o, o.m.Restart())
				return false
			}
			return true
		}
		for _, l := range u.Lacks {
			if !put(l, truth) {
				return false
			}
		}
		for _, l := range u.Strays {
			if !put(l, modelCopy{}) {
				return false
			}
			w.ec.strays++
		}
		delete(o.unclean, id)
		w.say("recovered %d: content %d", id.Stripe>>17, truth.content)
		w.check(o, id)
	}
	return true
}

// forgetChunks drops the tombstones of a clean PG.
func (w *model) forgetChunks(o *modelOSD) {
	if !o.m.Record.IsClean() {
		return
	}
	roles := o.m.Roles()
	for _, id := range w.objects {
		w.check(o, id)
		var c modelCopy
		waits := o.unclean[id] != nil
		for role, osd := range roles {
			if osd != 0 {
				w.flow(osd, chunkOf(id, role))
				c = w.osd(osd).store.newest(chunkOf(id, role))
				waits = waits || len(w.osd(osd).store.unstable[chunkOf(id, role)]) > 0
			}
		}
		if waits || !c.Tombstone || uint64(c.Version)>>layout.VersionCounterBits > uint64(o.m.Interval) {
			continue
		}
		o.floor = max(o.floor, c.Version)
		w.low[id] = max(w.low[id], c.content)
		for role, osd := range roles {
			if osd == 0 {
				continue
			}
			if w.fails(6) {
				w.put(o, o.m.Restart())
				return
			}
			delete(w.osd(osd).store.objects, chunkOf(id, role))
		}
		w.say("forgotten %d", id.Stripe>>17)
		w.ec.forgotten++
	}
}

// enough reports whether of each recorded set k stores are left that can be heard: then the PG must not wait, whatever else was lost.
func (w *model) enough(p *modelOSD) bool {
	var all []Member
	for _, o := range w.osds {
		all = append(all, o.member())
	}
	return p.m != nil && len(w.record.Unheard(all, w.ec.k)) == 0
}

// TestRandomChunkHistoriesLoseNothing is TestRandomHistoriesLoseNothing for erasure-coded pools.
func TestRandomChunkHistoriesLoseNothing(t *testing.T) { randomChunkHistories(t, false) }

// As above, and etcd is set back to an earlier state now and then, which is declared.
func TestRandomChunkHistoriesWithRestoresLoseNothing(t *testing.T) { randomChunkHistories(t, true) }

func randomChunkHistories(t *testing.T, back bool) {
	n := *histories
	if testing.Short() {
		n = min(n, 2000)
	}
	var sum modelEC
	serves, acked, backs, failed := 0, 0, 0, 0
	var cut [Waiting + 1]int
	for seed := *first; seed < *first+n; seed++ {
		w := newECModel(seed)
		ok := w.live(t, seed, *steps, back)
		serves, acked, backs = serves+w.serves, acked+w.acked, backs+w.backs
		sum.committed += w.ec.committed
		sum.rolledBack += w.ec.rolledBack
		sum.computed += w.ec.computed
		sum.strays += w.ec.strays
		sum.swaps += w.ec.swaps
		sum.forgotten += w.ec.forgotten
		for p, c := range w.cut {
			cut[p] += c
		}
		if !ok {
			if failed++; failed == 3 {
				break
			}
		}
	}
	t.Logf("%d histories: %d intervals served, %d writes acknowledged, %d restores, peering committed %d chunks and rolled back %d, %d reads of objects that were not whole, %d strays removed, %d changes of roles, %d deletions forgotten; primaries stopped by phase: %v",
		n, serves, acked, backs, sum.committed, sum.rolledBack, sum.computed, sum.strays, sum.swaps, sum.forgotten, cut)
	if few := int(n); serves < few || acked < few || back && backs < few || sum.committed < few/2 || sum.rolledBack < few/2 || sum.computed < few || sum.strays < few/2 || sum.swaps < few/2 {
		t.Errorf("the histories do too little")
	}
	for p := Taking; p <= Active; p++ {
		least := int(n) / 50
		if p == Voiding || p == Committing {
			least = int(n) / 400
		}
		if cut[p] < least {
			t.Errorf("only %d times a primary was replaced or crashed while %v", cut[p], p)
		}
	}
}
