package store

import (
	"errors"
	"fmt"

	"holdfast/core/loop"
)

// acceptance is what was decided about a store, by an operator or by its OSD (osd.Succession); the superblock says it until it is done. It is taken in one write of the superblock, and whoever opens the store for writing next
// carries it out: an interruption leaves the store as it was, or accepted.
type acceptance uint64

const (
	acceptNone  acceptance = 0
	acceptEmpty acceptance = 1 // the store has a new id; its areas are to be emptied
	acceptKeep  acceptance = 2 // what is whole is kept under the old id; what is damaged is to be taken out
	condemned   acceptance = 3 // the cluster knows a newer state of the store: nobody may use it before it was accepted
)

// String names an acceptance that was begun.
func (a acceptance) String() string {
	switch a {
	case acceptEmpty:
		return "empty"
	case acceptKeep:
		return "keep"
	}
	return ""
}

// UnfinishedError says that damage was accepted, and that the store was not opened for writing since.
type UnfinishedError struct{ Accepted string }

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("its damage was accepted (%s), and is not taken out yet: the OSD does so when it starts, or `holdfast disk accept`", e.Accepted)
}

// SetBackError says that the cluster knows a newer state of the store.
type SetBackError struct{}

func (e *SetBackError) Error() string {
	return "the cluster knows a newer state of the store: the disk was set back, or copied; `holdfast disk accept` says what may be lost, and makes it usable"
}

// Condemn writes down that the cluster knows a newer state of the store, or has given it up: each opening changes the disk a little, and must not let it pass for that newer state in the end. The store may only
// be given up afterwards.
func (s *Store) Condemn(done func(error)) {
	x := newDeviceIO(s.l, s.d)
	x.readSuper(func(st superState, _ error) {
		if !st.ok || s.o.ReadOnly {
			x.release()
			done(st.failure())
			return
		}
		st.sb.accept = condemned
		x.writeSuper(&st.sb, func(err error) {
			x.release()
			done(err)
		})
	})
}

// Examination is what there is on a disk, whatever its state.
type Examination struct {
	Superblock Superblock
	Accepted   string // "empty" or "keep": an acceptance that was begun and is not finished
	SetBack    bool   // an OSD found that the cluster knows a newer state
	Findings   []Finding
	More       int // findings beyond those
	Gaps       []Gap
	Objects    uint64     // tombstones included, that are whole, as far as the metadata and the journal say
	Bytes      uint64     // of the blocks they use
	Older      uint64     // objects that fall back to an older version, or to none, when the store is kept
	Lost       uint64     // objects that are left out altogether when the store is kept
	Sequence   uint64     // last entry that is there
	NotKept    error      // why nothing can be kept; nil when it can
	PGs        []PGRecord // what the store knows of its PGs, as far as that is whole
}

// Damaged reports whether Open would refuse the store.
func (e *Examination) Damaged() bool { return len(e.Findings) > 0 }

// Same reports whether b was read from the disk in the same state as sb: nobody has opened or accepted the store between.
func (sb *Superblock) Same(b *Superblock) bool {
	return sb.StoreID == b.StoreID && sb.seq == b.seq && sb.accept == b.accept
}

// Peek reads a store's superblock, changing nothing.
func Peek(l loop.Loop, d loop.Disk, done func(Superblock, error)) {
	x := newDeviceIO(l, d)
	x.readSuper(func(st superState, _ error) {
		x.release()
		if !st.ok {
			done(Superblock{}, st.failure())
			return
		}
		done(st.sb, nil)
	})
}

// Examine looks at all of a store's own structures and notes each damage, changing nothing. The error says why it could not look: no store, or no superblock.
func Examine(l loop.Loop, d loop.Disk, o Options, done func(Examination, error)) {
	x := newDeviceIO(l, d)
	x.readSuper(func(st superState, _ error) {
		x.release()
		e := Examination{Superblock: st.sb, Accepted: st.sb.accept.String(), SetBack: st.sb.accept == condemned}
		if !st.ok || st.sb.accept == acceptEmpty {
			var err error
			if !st.ok {
				err = st.failure()
			}
			done(e, err)
			return
		}
		o.ReadOnly, o.salvage, o.OnFailure = true, true, nil
		open(l, d, o, func(p *opening) {
			e.Findings, e.More, e.Gaps, e.Older, e.Lost = p.found, p.findings-len(p.found), p.gaps, p.older, p.lost
			for d := range p.s.dirty {
				if o := &p.s.dirty[d]; o.first != 0 && o.visible.Version != 0 && !slotView(p.s.t.slot(o.slot)).used() {
					e.Objects++ // in the journal only
				}
			}
			e.Objects += p.s.objects
			e.Bytes, e.Sequence = (p.s.sb.Blocks-p.s.blocks.free)*uint64(p.s.sb.Config.BlockSize), p.s.j.entry
			e.PGs = p.s.PGs()
		}, func(s *Store, err error) {
			if damage, is := errors.AsType[*DamagedError](err); is {
				e.Findings = append(e.Findings, Finding{damage.Area, damage.Offset, damage.What})
				e.NotKept, err = damage, nil
			}
			if s == nil {
				done(e, err)
				return
			}
			s.Close(func() { done(e, nil) })
		})
	})
}

// Accept takes damage out of a store, or makes an end of a store that is older than the cluster remembers. With keep everything that is whole stays under the same store id; without, the store
// takes a new id and is empty. It returns what the store is now.
func Accept(l loop.Loop, d loop.Disk, keep bool, o Options, done func(Superblock, error)) {
	o.salvage, o.ReadOnly, o.AcceptDamage = false, false, false
	finish := func(err error) {
		if err != nil {
			done(Superblock{}, fmt.Errorf("accept: %w", err))
			return
		}
		Open(l, d, o, func(s *Store, err error) {
			if err != nil {
				done(Superblock{}, err)
				return
			}
			s.Close(func() { done(s.sb, s.failure) })
		})
	}
	if !keep {
		acceptAs(l, d, acceptEmpty, finish)
		return
	}
	Examine(l, d, o, func(e Examination, err error) {
		switch {
		case err == nil && e.Accepted == acceptEmpty.String():
			err = errors.New("the store was accepted as empty before: nothing of it is left to keep")
		case err == nil:
			err = e.NotKept
		}
		if err != nil {
			finish(err)
			return
		}
		acceptAs(l, d, acceptKeep, finish)
	})
}

// acceptAs writes the decision down.
func acceptAs(l loop.Loop, d loop.Disk, a acceptance, done func(error)) {
	x := newDeviceIO(l, d)
	finish := func(err error) {
		x.release()
		done(err)
	}
	x.readSuper(func(st superState, _ error) {
		if !st.ok {
			finish(st.failure())
			return
		}
		sb := st.sb
		sb.accept = a
		if a == acceptEmpty {
			sb.renew(l)
			sb.Boot++
		}
		x.writeSuper(&sb, finish)
	})
}

// carryOut does what was accepted, then opens the store.
func carryOut(l loop.Loop, d loop.Disk, st superState, o Options, loaded func(*opening), done func(*Store, error)) {
	fail := func(err error) { done(nil, fmt.Errorf("open store %v: %w", st.sb.StoreID, err)) }
	if st.sb.accept == condemned {
		fail(&SetBackError{})
		return
	}
	if o.ReadOnly {
		fail(&UnfinishedError{st.sb.accept.String()})
		return
	}
	if st.sb.accept == acceptEmpty {
		x := newDeviceIO(l, d)
		sb := st.sb
		x.good = st.good
		x.wipe(&sb, func(err error) {
			if err != nil {
				x.release()
				fail(err)
				return
			}
			x.accepted(&sb, func(err error) {
				if err != nil {
					fail(err)
					return
				}
				open(l, d, o, loaded, done)
			})
		})
		return
	}
	salvage := o
	salvage.salvage, salvage.OnFailure, salvage.AcceptDamage, salvage.MinDiscard = true, nil, false, 0
	open(l, d, salvage, nil, func(s *Store, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		// One batch more than closing needs: the last one's tail is then this one, and no later opening looks at what is before.
		s.j.send(true)
		s.Close(func() {
			if s.failure != nil {
				fail(s.failure)
				return
			}
			x := newDeviceIO(l, d)
			x.readSuper(func(st superState, _ error) {
				if !st.ok {
					x.release()
					fail(st.failure())
					return
				}
				x.accepted(&st.sb, func(err error) {
					if err != nil {
						fail(err)
						return
					}
					open(l, d, o, loaded, done)
				})
			})
		})
	})
}

// accepted notes that what was accepted is done, and gives x up.
func (x *deviceIO) accepted(sb *Superblock, then func(error)) {
	sb.accept = acceptNone
	x.writeSuper(sb, func(err error) {
		x.release()
		then(err)
	})
}
