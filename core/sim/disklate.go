package sim

// Extent is a range of a disk.
type Extent struct{ Off, Len int64 }

func (e Extent) end() int64 { return e.Off + e.Len }

func (e Extent) touches(o Extent) bool { return e.Off < o.end() && o.Off < e.end() }

func (e Extent) holds(o Extent) bool { return o.Off >= e.Off && o.end() <= e.end() }

// kept are writes that can be undone.
type kept struct {
	log, rest Extent
	most      int
	list      []overwrite // oldest first
}

// overwrite is what a write replaced.
type overwrite struct {
	Extent
	before []byte
}

// Remember has the disk keep what writes to a log, and to the rest, replace: of the last ones, that LoseLate may undo; most of 0 ends it.
func (d *Disk) Remember(log, rest Extent, most int) { d.kept = kept{log: log, rest: rest, most: most} }

// note notes what a write is about to replace. What it replaces of earlier ones cannot be undone any more.
func (k *kept) note(m *media, off int64, n int) {
	if k.most == 0 || n == 0 {
		return
	}
	at := Extent{off, int64(n)}
	list := k.list[:0]
	for _, w := range k.list {
		if !at.touches(w.Extent) {
			list = append(list, w)
		}
	}
	if k.list = list; !k.log.holds(at) && !k.rest.holds(at) {
		return
	}
	if len(k.list) == k.most {
		k.list = append(k.list[:0], k.list[1:]...)
	}
	before := make([]byte, n)
	m.current.read(before, off)
	k.list = append(k.list, overwrite{at, before})
}

// LoseLate undoes a write to the log, or to the rest, that Remember has kept: the disk acknowledged it and lost it, and nobody has looked since. In the log, newest later ones at least have followed it. With astray it
// lands elsewhere besides, where none of those newest lies. It says where the write was; ok is false when there is none.
func (d *Disk) LoseLate(log bool, newest int, astray bool) (lost Extent, ok bool) {
	k := &d.kept
	var of, last []overwrite
	for _, w := range k.list {
		if k.log.holds(w.Extent) {
			last = append(last, w)
		} else if !log {
			of = append(of, w)
		}
	}
	if len(last) < newest {
		return Extent{}, false
	}
	if log {
		of = last[:len(last)-newest]
	}
	if last = last[len(last)-newest:]; len(of) == 0 {
		return Extent{}, false
	}
	w := of[d.where().IntN(len(of))]
	written := make([]byte, w.Len)
	d.m.current.read(written, w.Off)
	k.note(d.m, w.Off, int(w.Len))
	d.m.restore(w.Off, w.before)
	if !astray {
		d.w.inflict(FaultLostWrite, "-", "disk %s: %d+%d, noticed late", d.name, w.Off, w.Len)
		return w.Extent, true
	}
	for {
		at := Extent{d.elsewhere(w.Off, int(w.Len)), w.Len}
		clear := true
		for _, l := range last {
			clear = clear && !at.touches(l.Extent)
		}
		if clear {
			d.w.inflict(FaultMisdirected, "-", "disk %s: %d+%d has gone to %d, noticed late", d.name, w.Off, w.Len, at.Off)
			k.note(d.m, at.Off, int(at.Len))
			d.m.restore(at.Off, written)
			return w.Extent, true
		}
	}
}

// Lies is how many writes the disk has lost or misdirected since it was told to.
func (d *Disk) Lies() uint64 { return d.lies }

// Honest ends what was asked of the disk by LoseWrites, MisdirectWrites and Fail, and the odds of faults. What is spoilt stays so.
func (d *Disk) Honest() {
	d.toLose, d.toMisdirect, d.faults, d.odds = 0, 0, nil, diskFaults{}
}
