package crash

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"holdfast/core/loop"
	"holdfast/core/sim"
)

// tape is a recording of a store's disks, made ready for being cut. All of them lose power at one moment; what each keeps is its own.
//
// What loss of power may leave, by the promises of loop.Disk: a sync write that has completed is there. A write that completed before a flush was submitted is there if the flush has
// completed. Any other that was submitted may be there, or not, or some of its sectors. Of two writes of one sector the later counts, if the earlier had completed when the later
// was submitted; otherwise either may.
type tape struct {
	before images  // durable when the recording began
	writes []taped // in the order in which the device did them; those that never completed last
	steps  int
	flush  []taped // flushes; off and data mean nothing

	// folded has the first writes of the list, which are durable at the moment below and were not under way with any other then.
	folded  images
	nFolded int
	at      int
}

// taped is one write. Its moments are the steps of its submission and its completion.
type taped struct {
	dev              int // the disk
	off              int64
	data             []byte
	sync             bool
	submitted, ended int
	failed           bool
	durable          int // the step after which it can no longer be lost
}

func newTape(before images, rec *sim.Recording, devs []*sim.Disk) (*tape, error) {
	t := &tape{before: before, steps: len(rec.Log)}
	all := make([]taped, len(rec.Ops))
	for i, op := range rec.Ops {
		dev := slices.Index(devs, op.Disk)
		all[i] = taped{dev: dev, off: op.Off, data: op.Data, sync: devs[dev].WriteThrough() || op.Kind == loop.DiskSync, ended: never, durable: never, failed: op.Err != nil}
	}
	var order []int
	for i, s := range rec.Log {
		if !s.Complete {
			all[s.Op].submitted = i
			continue
		}
		all[s.Op].ended = i
		order = append(order, s.Op)
	}
	for i := range all {
		if all[i].ended == never {
			order = append(order, i)
		}
	}
	for _, i := range order {
		switch rec.Ops[i].Kind {
		case loop.DiskWrite, loop.DiskSync:
			t.writes = append(t.writes, all[i])
		case loop.DiskFlush:
			if !all[i].failed {
				t.flush = append(t.flush, all[i])
			}
		default:
			return nil, fmt.Errorf("the store did a %v, which this tester does not know", rec.Ops[i].Kind)
		}
	}
	for i := range t.writes {
		w := &t.writes[i]
		if w.sync && !w.failed {
			w.durable = w.ended
		}
		for _, f := range t.flush {
			if w.dev == f.dev && w.ended < f.submitted && f.ended != never && !w.failed {
				w.durable = min(w.durable, f.ended)
			}
		}
	}
	return t, nil
}

// fold takes what no cut at m or later can change into one image.
func (t *tape) fold(m int) {
	if t.folded == nil || m < t.at {
		t.folded, t.nFolded = t.before.Clone(), 0
	}
	t.at = m
	first := m
	for i := t.nFolded; i < len(t.writes); i++ {
		if w := &t.writes[i]; w.submitted < m && w.ended >= m {
			first = min(first, w.submitted)
		}
	}
	for ; t.nFolded < len(t.writes); t.nFolded++ {
		w := &t.writes[t.nFolded]
		if w.durable >= m || w.ended >= first {
			return
		}
		t.folded[w.dev].WriteAt(w.data, w.off)
	}
}

// losses counts what was done to writes that could be lost.
type losses struct {
	Kept, Lost, Torn, Swapped int
	Points                    int // cuts with something to lose
}

func (l *losses) add(m losses) {
	l.Kept += m.Kept
	l.Lost += m.Lost
	l.Torn += m.Torn
	l.Swapped += m.Swapped
	l.Points += m.Points
}

func (l losses) String() string {
	return fmt.Sprintf("%d writes kept, %d lost, %d torn, %d done in another order, at %d points", l.Kept, l.Lost, l.Torn, l.Swapped, l.Points)
}

// fate is what becomes of one write: which of its sectors are there.
type fate struct {
	keep    bool
	sectors []bool // instead, when it is torn
}

// unsure are the writes that may be lost by a cut before step m.
func (t *tape) unsure(m int) (n int) {
	for i := range t.writes {
		if w := &t.writes[i]; w.submitted < m && w.durable >= m {
			n++
		}
	}
	return n
}

// cut makes what is left of the disk when the power goes before step m. Variant 0 loses what it can, 1 keeps everything, the others draw. With log, each write's fate is written there.
func (t *tape) cut(m int, variant uint64, rng *rand.Rand, log *lines) (images, losses) {
	var l losses
	t.fold(m)
	image := t.folded.Clone()
	type placed struct {
		*taped
		fate
	}
	var list []placed
	keep, tear := 1+rng.IntN(8), rng.IntN(5)
	// With several disks, often one of them loses or keeps everything, whatever the others do.
	whole := make([]uint64, len(image))
	for i := range whole {
		if whole[i] = variant; variant > 1 && len(image) > 1 {
			whole[i] = rng.Uint64N(4)
		}
	}
	for i := t.nFolded; i < len(t.writes); i++ {
		w := &t.writes[i]
		if w.submitted >= m {
			continue
		}
		if w.durable < m {
			list = append(list, placed{w, fate{keep: true}})
			continue
		}
		var f fate
		switch {
		case whole[w.dev] == 0:
		case whole[w.dev] == 1:
			f.keep = true
		case rng.IntN(5) < tear:
			f.sectors = torn(rng, len(w.data)/image[w.dev].Sector())
		default:
			f.keep = rng.IntN(9) < keep
		}
		switch {
		case f.keep:
			l.Kept++
		case f.sectors != nil:
			l.Torn++
		default:
			l.Lost++
		}
		if log != nil {
			log.say("disk %d: write %d bytes at %d (submitted %d, ended %s, sync %v): keep %v, sectors %v", w.dev, len(w.data), w.off, w.submitted, when(w.ended), w.sync, f.keep, f.sectors)
		}
		// A write that was under way may have reached the medium before others that were under way with it.
		at := len(list)
		if variant > 1 && w.ended >= m {
			for at > 0 && list[at-1].ended >= w.submitted && rng.IntN(2) == 0 {
				at--
			}
			if at < len(list) {
				l.Swapped++
			}
		}
		list = slices.Insert(list, at, placed{w, f})
	}
	for _, p := range list {
		disk := image[p.dev]
		if p.keep {
			disk.WriteAt(p.data, p.off)
			continue
		}
		for i, there := range p.sectors {
			if there {
				at := i * disk.Sector()
				disk.WriteAt(p.data[at:at+disk.Sector()], p.off+int64(at))
			}
		}
	}
	if l.Kept+l.Lost+l.Torn > 0 {
		l.Points = 1
	}
	return image, l
}

func when(m int) string {
	if m == never {
		return "never"
	}
	return fmt.Sprint(m)
}

// torn draws which of n sectors were written: a beginning, an end, all but some in the middle, or any.
func torn(rng *rand.Rand, n int) []bool {
	s := make([]bool, n)
	at := rng.IntN(n + 1)
	end := at + rng.IntN(n-at+1)
	shape := rng.IntN(4)
	for i := range s {
		switch shape {
		case 0:
			s[i] = i < at
		case 1:
			s[i] = i >= at
		case 2:
			s[i] = i < at || i >= end
		case 3:
			s[i] = rng.IntN(2) == 0
		}
	}
	return s
}
