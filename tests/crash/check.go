package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"holdfast/core/layout"
	"holdfast/osd/store"
)

// judge compares a store that was opened after a cut with what was done before.
type judge struct {
	*process
	h      *history
	moment int  // of the cut; what was acknowledged before must be there
	busy   bool // the store has worked since it was opened: until it comes to rest, blocks that were replaced may be taken still
	whole  bool // no power was lost: what was acknowledged lazily must be there too
}

// judgeAll checks everything and returns what was found, as a history of its own: from now on that is what must be there.
func (j *judge) judgeAll() (*history, error) {
	found := &history{version: j.h.version, tag: j.h.tag}
	at := map[*object]*object{}
	var others []other
	for _, o := range j.h.objects {
		times := (*step).times
		if j.whole || j.busy {
			times = (*step).seen
		}
		lo, hi := window(o.hist, j.moment, times)
		fits, err := j.judgeObject(o, lo, hi)
		if err != nil {
			return nil, err
		}
		f := &object{o.id, []step{{o.hist[fits[0]].snap, 0, -1, -1, -1}}}
		for _, i := range fits[1:] {
			others = append(others, other{f, o.hist[i].snap})
		}
		at[o] = f
		found.objects = append(found.objects, f)
	}
	for _, p := range j.h.pgs {
		lo, hi := window(p.hist, j.moment, (*pgStep).times)
		i, err := j.judgePG(p, lo, hi)
		if err != nil {
			return nil, err
		}
		found.pgs = append(found.pgs, &pgHistory{p.id, []pgStep{{p.hist[i].rec, -1, -1}}})
	}
	if n := len(j.s.PGs()); n != j.recorded(found) {
		return nil, fmt.Errorf("the store has %d PG records, %d were made", n, j.recorded(found))
	}
	for _, x := range j.h.sent {
		x.object, x.submitted = at[x.object], -1
		found.sent = append(found.sent, x)
	}
	for _, s := range j.h.sessions {
		c := *s
		if c.ended != never {
			if c.ended < j.moment {
				c.ended = -1
			} else {
				c.ended = never
			}
		}
		if c.endedSure <= j.moment {
			c.endedSure = -1
		} else {
			c.endedSure = never
		}
		found.sessions = append(found.sessions, &c)
	}
	if err := j.judgeLists(found); err != nil {
		return nil, err
	}
	if j.busy {
		return found, nil
	}
	err := j.judgeSpace(found, false)
	// A deletion looks the same from above whether it is stable or waits for its commit, if something waits above it. Only the block of what it deletes tells.
	for i := 0; err != nil && i < len(others); i++ {
		o := &others[i]
		o.snap, o.object.hist[0].snap = o.object.hist[0].snap, o.snap
		if j.judgeSpace(found, false) == nil {
			return found, nil
		}
		o.snap, o.object.hist[0].snap = o.object.hist[0].snap, o.snap
	}
	return found, err
}

// other is another state that an object may be in.
type other struct {
	object *object
	snap   snap
}

func (j *judge) recorded(h *history) (n int) {
	for _, p := range h.pgs {
		if p.hist[0].rec != nil {
			n++
		}
	}
	return n
}

// judgeObject finds out which of entries lo to hi of an object's history is on the disk: those that nothing speaks against, the last one first.
func (j *judge) judgeObject(o *object, lo, hi int) (fits []int, err error) {
	op := &store.Op{Kind: store.OpReadObject, Object: o.id}
	if err := j.do(op); err != nil {
		return nil, err
	}
	defer release(op)
	state, there := j.s.State(o.id)
	if n, ok := j.s.Newest(o.id); n != state || ok != there {
		return nil, fmt.Errorf("object %v: State says %+v, Newest %+v", o.id, state, n)
	}
	var why []string
	for i := hi; i >= lo; i-- {
		err := j.same(o, op, state, o.hist[i].snap)
		if err == nil {
			fits = append(fits, i)
			continue
		}
		why = append(why, fmt.Sprintf("change %d: %v", i, err))
	}
	if len(fits) > 0 {
		return fits, nil
	}
	return nil, fmt.Errorf("object %v is nothing between change %d, the last one acknowledged, and %d, the last one submitted: %q", o.id, lo, hi, why)
}

// same compares an object that was read with one of its states.
func (j *judge) same(o *object, op *store.Op, state store.State, want snap) error {
	top := want.top()
	if state != top.State {
		return fmt.Errorf("its state is %+v, not %+v", state, top.State)
	}
	if top.Flags&store.Void != 0 {
		if op.Err != store.ErrVoid {
			return fmt.Errorf("a void object reads with %v", op.Err)
		}
	} else if err := j.sameVersion(op, top); err != nil {
		return err
	}
	if err := j.samePairs(o, op, want); err != nil {
		return err
	}
	if len(want.stack) == 1 {
		return nil
	}
	for i := range want.stack {
		at := want.stack[i].Version
		if i == 0 && at > 0 {
			at-- // that is gone
			if err := j.readsUpTo(o, want, at); err != nil {
				return err
			}
			at++
		}
		if err := j.readsUpTo(o, want, at); err != nil {
			return err
		}
	}
	return nil
}

// readsUpTo reads an object up to a version and compares it.
func (j *judge) readsUpTo(o *object, want snap, at layout.Version) error {
	op := upTo(o, at, j.c)
	if err := j.do(op); err != nil {
		return err
	}
	defer release(op)
	if err := j.sameUpTo(op, want, at); err != nil {
		return fmt.Errorf("read up to %x: %w", at, err)
	}
	return nil
}

// ended compares how a read ended.
func (j *judge) ended(op *store.Op, want error) error {
	if op.Err != want {
		return fmt.Errorf("a read ends with %v, not %v", op.Err, want)
	}
	return nil
}

func (j *judge) sameVersion(op *store.Op, want version) error {
	if op.Err != nil {
		return op.Err
	}
	if op.State != want.State {
		return fmt.Errorf("it reads as %+v, not %+v", op.State, want.State)
	}
	if have := bools(op.Bitmap, len(want.written)); !slices.Equal(have, want.written) {
		return fmt.Errorf("its bitmap is %v, not %v", have, want.written)
	}
	if have := bools(op.Present, len(want.present)); !slices.Equal(have, want.present) {
		return fmt.Errorf("the units that hold data are %v, not %v", have, want.present)
	}
	g := int(j.c.config.Granularity)
	for u, v := range want.data {
		unit := op.Data.Bytes()[u*g : (u+1)*g]
		first := binary.LittleEndian.Uint64(unit)
		for i := 8; i < g && !bytes.Equal(unit[8:], unit[:g-8]); i += 8 {
			if binary.LittleEndian.Uint64(unit[i:]) != first {
				return fmt.Errorf("unit %d is torn: %d at its beginning, %d at byte %d", u, first, binary.LittleEndian.Uint64(unit[i:]), i)
			}
		}
		if first != v {
			return fmt.Errorf("unit %d holds %d, not %d", u, first, v)
		}
	}
	return nil
}

// samePairs compares the requests that the store knows of an object. One below its session's low mark, or of a session that ended, may be forgotten.
func (j *judge) samePairs(o *object, op *store.Op, want snap) error {
	for i := range j.h.sent {
		x := &j.h.sent[i]
		if x.object != o {
			continue
		}
		k := slices.IndexFunc(want.pairs, func(p store.PairVersion) bool { return p.Pair == x.pair })
		id, v, ok := j.s.FindPair(x.pair)
		switch forgotten, sure := j.forgotten(x.pair); {
		case ok && k < 0:
			return fmt.Errorf("request %v is known (version %x of %v), but its change is not there", x.pair, v, id)
		case ok && (id != o.id || v != want.pairs[k].Version):
			return fmt.Errorf("request %v is known as version %x of %v, not %x of %v", x.pair, v, id, want.pairs[k].Version, o.id)
		case ok && sure:
			return fmt.Errorf("request %v is known, but its session ended before something was acknowledged", x.pair)
		case !ok && k >= 0 && !forgotten:
			return fmt.Errorf("request %v is not known, but version %x that it made is there", x.pair, want.pairs[k].Version)
		case ok && op.Err == nil && !slices.Contains(op.Pairs, want.pairs[k]):
			return fmt.Errorf("request %v is not among those of the object", x.pair)
		}
	}
	for _, p := range op.Pairs {
		if op.Err == nil && !slices.Contains(want.pairs, p) {
			return fmt.Errorf("request %v of version %x is among those of the object", p.Pair, p.Version)
		}
	}
	return nil
}

// forgotten says whether a request may be forgotten, and whether it must be.
func (j *judge) forgotten(pair store.Pair) (may, must bool) {
	for i := range j.h.sent {
		if y := &j.h.sent[i]; y.pair.Session == pair.Session && y.submitted < j.moment && y.low > pair.Sequence {
			may = true
		}
	}
	for _, s := range j.h.sessions {
		if s.id == pair.Session {
			may = may || s.ended < j.moment
			must = s.endedSure <= j.moment
		}
	}
	return may, must
}

func (j *judge) judgePG(p *pgHistory, lo, hi int) (int, error) {
	have, there := j.s.PG(p.id)
	for i := hi; i >= lo; i-- {
		want := p.hist[i].rec
		if want == nil && !there || want != nil && there && fmt.Sprint(*want) == fmt.Sprint(have) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("the record of PG %v (%v, %+v) is none of those from number %d to number %d", p.id, there, have, lo, hi)
}

// judgeLists compares the listing with what was found: every object once, with all of its versions in order, nothing else.
func (j *judge) judgeLists(found *history) error {
	var have, want []store.ListEntry
	for _, o := range found.objects {
		for _, v := range o.newest().stack {
			if v.Version != 0 {
				want = append(want, store.ListEntry{Object: o.id, State: v.State})
			}
		}
	}
	more := true
	for at := store.Cursor(0); more; {
		have, at, more = j.s.ListInode(have, 0, ^layout.Inode(0), at, 3)
	}
	order := func(a, b store.ListEntry) int {
		switch {
		case a.Object.Less(b.Object):
			return -1
		case b.Object.Less(a.Object):
			return 1
		}
		return 0
	}
	slices.SortStableFunc(have, order)
	slices.SortStableFunc(want, order)
	if !slices.Equal(have, want) {
		return fmt.Errorf("the store lists %+v, not %+v", have, want)
	}
	return nil
}

// kept is how many blocks Stats.FreeBlocks leaves out on disks as small as ours.
const kept = 2

// judgeSpace checks that as many blocks are taken as the objects need. settled: everything has been folded, so that the space of each inode is known.
func (j *judge) judgeSpace(found *history, settled bool) error {
	least, most := 0, 0
	waiting := map[layout.Inode]bool{}
	need := map[layout.Inode][2]int{}
	for _, o := range found.objects {
		p := o.newest()
		l, m := p.blocks()
		least, most = least+l, most+m
		need[o.id.Inode] = [2]int{l, m}
		waiting[o.id.Inode] = len(p.stack) > 1
	}
	st := j.s.Stats()
	taken := int(st.Blocks - st.FreeBlocks - kept)
	if st.FreeBlocks == 0 {
		taken = min(max(taken, least), int(st.Blocks)) // up to kept blocks more may be taken
	}
	if taken < least || taken > most {
		return fmt.Errorf("%d blocks are taken, the objects need %d to %d", taken, least, most)
	}
	if !settled {
		return nil
	}
	sum, chains := 0, 0
	bad := error(nil)
	j.s.SpaceByInode(func(inode layout.Inode, bytes int64) {
		n := int(bytes / int64(st.BlockSize))
		sum += n
		if !waiting[inode] && (n < need[inode][0] || n > need[inode][1]) {
			bad = fmt.Errorf("inode %x has %d blocks, it needs %d to %d", inode, n, need[inode][0], need[inode][1])
		}
	})
	var objects, tombstones uint64
	for _, o := range found.objects {
		p := o.newest()
		if len(p.stack) > 1 {
			chains++
		}
		if p.stack[0].Version != 0 {
			objects++
			if p.stack[0].Flags&store.Tombstone != 0 {
				tombstones++
			}
		}
	}
	switch {
	case bad != nil:
		return bad
	case chains == 0 && st.FreeBlocks > 0 && taken != sum:
		return fmt.Errorf("%d blocks are taken, %d by objects: the others are lost", taken, sum)
	case chains == 0 && (st.Objects != objects || st.Tombstones != tombstones):
		return fmt.Errorf("the store counts %d objects and %d tombstones, there are %d and %d", st.Objects, st.Tombstones, objects, tombstones)
	}
	return nil
}
