package osd

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/planted"
	"holdfast/core/registry"
	"holdfast/osd/store"
)

// UntrustedError says that the cluster does not take the store of an OSD for what it knows under its id: it was set back to an earlier state, or retired. The store is condemned by then: it
// opens only when it was accepted, by an operator or by its Succession.
type UntrustedError struct {
	OSD layout.OSDNum
	Err error
}

func (e *UntrustedError) Error() string { return fmt.Sprintf("OSD %d: %v", e.OSD, e.Err) }
func (e *UntrustedError) Unwrap() error { return e.Err }

// Untrusted reports whether an OSD did not start, or ended, because its store cannot be trusted, so that a Succession helps. A disk of which no superblock is left is not one: whose it is
// cannot be said.
func Untrusted(err error) bool {
	if damage, is := errors.AsType[*store.DamagedError](err); is {
		return damage.Area != "superblock"
	}
	_, setBack := errors.AsType[*store.SetBackError](err)
	_, refused := errors.AsType[*UntrustedError](err)
	return setBack || refused
}

// SuccessionOptions say whose store is to be followed by an empty one.
type SuccessionOptions struct {
	Num   layout.OSDNum
	Host  string
	Cause error // Untrusted
	// OpenDisk opens the OSD's disk: for reading beside others, or alone.
	OpenDisk  func(alone bool) (loop.Disk, error)
	Registry  registry.Registry
	LeaseTime time.Duration // [5 s]
	Pause     time.Duration // between looks [1 s]
	// Auto says whether an OSD may take a new id by itself (auto_accept); without, it waits for an operator.
	Auto bool
	Log  *slog.Logger
	// Done is called once, when the disk may be opened again: as an empty store under a new id, or as an operator has accepted it. An error says that nothing can be made of the disk.
	Done func(error)
}

// Succession makes an empty store under a new id of one that cannot be trusted: one that is damaged in what it may have acknowledged, was set back, or is retired. An operator may do the
// same, or keep the old data, with `disk accept`.
//
// What is on the disk may be the only copy of something. So the OSD is not up, the disk is left alone and nobody is kept from it, until the registry shows that no PG needs the store (see
// need). Then, with the disk locked: the store is opened once more, since somebody may have accepted it; its id is retired in the registry, in one transaction with its being the number's
// store and no such OSD being up; the registry, as of after that, is asked again; and only then the disk takes a new id, in one write of its superblock, after which its areas are emptied.
// An end at any point leaves the old store whole, retired or not, or the new id, whose emptying the next opening finishes.
type Succession struct {
	l   loop.Loop
	o   SuccessionOptions
	log *slog.Logger

	seen     store.Superblock
	wrong    string // what is wrong with the store
	known    []store.PGRecord
	follower *cluster.Follower
	lease    registry.Lease
	tick     loop.Timer
	busy     bool // with the disk or the registry
	said     string
	saying   bool
	ended    bool

	idle loop.Instant  // since when nobody has needed the store, as far as we saw; 0: somebody does
	back *wentBackFrom // etcd has gone back to an earlier state, and that is not declared yet

	held  loop.Disk       // locked, while the id is being given up
	after *cluster.Moment // when the id was retired; nil: not yet
}

// settle is for how many lives of a lease nobody must have needed the store: the leases in an older copy of etcd that was put back live once more, and with them its words of what is served.
const settle = 2

// Succeed begins a succession.
func Succeed(l loop.Loop, o SuccessionOptions) *Succession {
	if o.LeaseTime == 0 {
		o.LeaseTime = 5 * time.Second
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Log == nil {
		o.Log = l.Log()
	}
	s := &Succession{l: l, o: o, log: o.Log.With("osd", uint64(o.Num))}
	s.tick.Fire = s.look
	s.examine()
	return s
}

// Stop ends it as it is; Done is not called.
func (s *Succession) Stop() {
	s.ended = true
	s.l.Disarm(&s.tick)
	if s.follower != nil {
		s.follower.Stop()
	}
	if s.lease != nil {
		s.lease.Revoke(nil)
	}
	if s.held != nil && !s.busy {
		s.release(nil)
	}
}

func (s *Succession) finish(err error) {
	if s.ended {
		return
	}
	s.Stop()
	s.o.Done(err)
}

// release closes the disk.
func (s *Succession) release(then func()) {
	d := s.held
	s.held = nil
	if then == nil {
		then = func() {}
	}
	d.Close(then)
}

// examine looks at all of the store once: what is wrong with it, and what it knows of its PGs.
func (s *Succession) examine() {
	d, err := s.o.OpenDisk(false)
	if err != nil {
		s.l.Defer(&loop.Task{Run: func() { s.finish(err) }})
		return
	}
	store.Examine(s.l, d, store.Options{Log: s.log}, func(e store.Examination, err error) {
		d.Close(func() {
			switch {
			case s.ended:
				return
			case err != nil || e.Accepted != "": // which the next opening goes on with
				s.finish(err)
				return
			}
			s.seen, s.known = e.Superblock, e.PGs
			switch {
			case len(e.Findings) > 0:
				f := e.Findings[0]
				s.wrong = fmt.Sprintf("its %s is damaged at device offset %d (%s)", f.Area, f.Offset, f.What)
			case e.SetBack:
				s.wrong = "the cluster knows a newer state of it, or has given it up"
			default:
				s.wrong = s.o.Cause.Error()
			}
			s.log.Warn("the store cannot be trusted; when the cluster needs nothing of it, it is emptied under a new id and refilled", "store", s.seen.StoreID.String(), "wrong", s.wrong)
			s.lease = s.o.Registry.Grant(s.o.LeaseTime, waiterLease{s})
			s.follower = cluster.Follow(s.l, s.o.Registry, cluster.SectionConfig|cluster.SectionPGs|cluster.SectionRecords|cluster.SectionOSDs|cluster.SectionStores|cluster.SectionPGStats, s)
			s.l.Arm(&s.tick, s.l.Now().Add(s.o.Pause))
		})
	})
}

// wentBackFrom is what etcd knew before it went back to an earlier state.
type wentBackFrom struct {
	restored *cluster.Restored
	revision registry.Revision
}

// declared reports whether a declaration is later than what etcd knew before it went back.
func (b *wentBackFrom) declared(now *cluster.Restored) bool {
	return now != nil && (b.restored == nil || now.ID != b.restored.ID && now.Time > b.restored.Time)
}

// Changed goes on when the registry shows what it is after our own change.
func (s *Succession) Changed(prev, next *cluster.Snapshot, keys []string) {
	if prev.Revision != 0 && s.back == nil && wentBack(prev, next, keys) {
		s.back = &wentBackFrom{prev.Restored, prev.Revision}
	}
	s.confirm()
}

// declare has every store report when etcd has gone back, as an OSD that is up does: what etcd has forgotten may be what needs this store.
func (s *Succession) declare() {
	snap := s.follower.Snapshot()
	switch {
	case s.back == nil:
	case s.back.declared(snap.Restored):
		s.back = nil
	case snap.Restoring == nil && snap.Revision != 0:
		reason := fmt.Sprintf("OSD %d, whose store waits, saw etcd go back from revision %d", s.o.Num, s.back.revision)
		s.log.Error("etcd was restored from an older state; every OSD must report what it knows", "reason", reason)
		r := cluster.Restored{ID: strconv.FormatUint(s.l.Rand().Uint64()|1, 16), Time: s.l.Wall().Unix(), Reason: reason}
		s.o.Registry.Txn(cluster.DeclareRestored(snap, r), func(registry.TxnResult, error) {}) // the next look finds out
	}
}

// Fault is seen in the snapshot.
func (s *Succession) Fault(*cluster.KeyError) {}

// Unavailable is said to the log; what is decided is decided by the registry's answers.
func (s *Succession) Unavailable(err error) { s.log.Warn("no contact with etcd", "err", err) }

// look is done every now and then: has somebody accepted the disk, and does the cluster still need the store?
func (s *Succession) look() {
	if s.ended {
		return
	}
	s.l.Arm(&s.tick, s.l.Now().Add(s.o.Pause))
	if s.busy {
		s.confirm()
		return
	}
	s.busy = true
	d, err := s.o.OpenDisk(false)
	if err != nil {
		s.busy = false
		s.say("the disk cannot be read: " + err.Error())
		return
	}
	store.Peek(s.l, d, func(sb store.Superblock, err error) {
		d.Close(func() {
			s.busy = false
			switch {
			case s.ended:
			case err != nil:
				s.finish(err)
			case !sb.Same(&s.seen):
				s.log.Info("the disk was accepted, or another one put in its place")
				s.finish(nil)
			default:
				s.decide()
			}
		})
	})
}

// decide takes the disk when the cluster needs nothing of it.
func (s *Succession) decide() {
	s.declare()
	why := s.need(s.follower.Snapshot())
	switch {
	case why != "":
		s.idle = 0
	case s.idle == 0:
		s.idle = s.l.Now()
		return
	case s.l.Now().Sub(s.idle) < settle*s.o.LeaseTime:
		return
	}
	if why == "" && !s.o.Auto {
		why = "auto_accept is off; nobody needs this store: `holdfast disk accept --yes` empties it, to be refilled"
	}
	if why != "" {
		s.say(why)
		return
	}
	d, err := s.o.OpenDisk(true)
	if err != nil {
		s.say("the disk is used by somebody else: " + err.Error())
		return
	}
	s.busy, s.held, s.after = true, d, nil
	store.Peek(s.l, d, func(sb store.Superblock, err error) {
		switch {
		case s.ended:
			s.release(nil)
		case err != nil:
			s.release(func() { s.finish(err) })
		case !sb.Same(&s.seen): // now that nobody else can change it
			s.release(func() { s.finish(nil) })
		default:
			s.open()
		}
	})
}

// open opens the store once more, as somebody may have accepted it, or what was wrong may have passed.
func (s *Succession) open() {
	store.Open(s.l, s.held, store.Options{Log: s.log}, func(st *store.Store, err error) {
		switch {
		case s.ended:
			s.release(nil)
		case err == nil:
			st.Close(func() { s.release(func() { s.finish(nil) }) })
		case !Untrusted(err):
			s.release(func() { s.finish(err) })
		default:
			s.retire()
		}
	})
}

// retire has the registry give the id up.
func (s *Succession) retire() {
	snap := s.follower.Snapshot()
	t, ok := cluster.Retire(snap, s.o.Num, s.seen.StoreID)
	if !ok {
		s.letGo()
		return
	}
	t.If = append(t.If, snap.Restored.Mark())
	s.o.Registry.Txn(t, func(res registry.TxnResult, err error) {
		switch {
		case s.ended:
			s.release(nil)
		case err != nil || !res.Succeeded: // retired or not: the next look finds out
			s.letGo()
		default:
			after := snap.Moment(res.Revision)
			s.after = &after
			s.confirm()
		}
	})
}

// letGo leaves the disk alone again, until the next look.
func (s *Succession) letGo() { s.release(func() { s.busy = false }) }

// confirm asks the registry again, as of after the id was retired, and then empties the disk.
func (s *Succession) confirm() {
	snap := s.follower.Snapshot()
	if s.ended || s.held == nil || s.after == nil || !snap.Past(*s.after) {
		return
	}
	lost := snap.Lost(*s.after) || s.back != nil
	s.after = nil
	if lost { // the registry may not know that the id is retired
		s.letGo()
		return
	}
	if why := s.need(snap); why != "" {
		s.say(why)
		s.letGo()
		return
	}
	s.log.Warn("no PG needs the store: it is emptied under a new id, and refilled from the other copies", "store", s.seen.StoreID.String())
	store.Accept(s.l, s.held, false, store.Options{Log: s.log}, func(sb store.Superblock, err error) {
		s.release(func() {
			if err == nil {
				s.log.Warn("the store is empty, under a new id", "store", sb.StoreID.String(), "was", s.seen.StoreID.String())
			}
			s.finish(err)
		})
	})
}

// need says why the cluster may need what is on the disk, and what would help; "" when it needs nothing.
func (s *Succession) need(snap *cluster.Snapshot) string {
	id := s.seen.StoreID
	if snap.Revision == 0 {
		return "etcd does not answer yet"
	}
	if planted.EmptiedNeeded {
		return ""
	}
	for key, f := range snap.Faults.All() {
		return fmt.Sprintf("etcd key %s cannot be used (%v), so what the PGs need is not known: correct it", key, f.Reason)
	}
	if s.back != nil && !s.back.declared(snap.Restored) {
		return "etcd went back to an earlier state: what it has forgotten may need the store"
	}
	if snap.Restoring != nil {
		return "a restore of etcd was begun and has not ended: run `holdfast etcd restore` again"
	}
	if list := snap.Unreported(); len(list) > 0 {
		return "etcd was restored from an older state: " + describeOSDs(list) + " must report first; start them, or declare what is gone lost (`holdfast etcd lost`)"
	}
	own, ok := snap.Stores.Get(s.o.Num)
	if !ok || own.Store != id && !own.IsRetired(id) {
		return fmt.Sprintf("the cluster does not know the store as OSD %d's: is it the right number, and the right etcd?", s.o.Num)
	}
	if up, ok := snap.OSDStates.Get(s.o.Num); ok && up.Store == id {
		return fmt.Sprintf("OSD %d is in etcd as up with this store, at %s port %d: that was its last run and goes by itself, or another copy of the disk is in use", s.o.Num, up.Host, up.Port)
	} else if ok {
		return fmt.Sprintf("OSD %d is up on another disk, at %s port %d: this one was replaced; take it out, or give it another number", s.o.Num, up.Host, up.Port)
	}
	for i := range s.known {
		if pg := s.known[i].PG; snap.Restored != nil && snap.Generation(pg.Pool) == 0 {
			return fmt.Sprintf("the store has PG %v of a pool that etcd does not know, and etcd was restored: the pool was removed, or was made after what etcd holds", pg)
		}
		if pg, g := s.known[i].PG, snap.Generation(s.known[i].PG.Pool); g != 0 && uint64(g) < s.known[i].Generation {
			return fmt.Sprintf("the store has PG %v of a later pool %d than etcd knows (generation %d; etcd has %d): etcd was set back, or pool/identity/%d is wrong", pg, pg.Pool, s.known[i].Generation, g, pg.Pool)
		}
		if why := fallsShort(snap, s.o.Num, &s.known[i]); why != "" {
			return "etcd was set back, or the store was given up with what only it knows: " + why
		}
	}
	for pg, rec := range snap.Records.All() {
		if g := snap.Generation(pg.Pool); g != rec.Generation {
			if _, exists := snap.Pools.Get(pg.Pool); g == 0 && exists && rec.Names(id) {
				return fmt.Sprintf("pool %d of PG %v has no identity in etcd", pg.Pool, pg)
			}
			continue // of a pool that was removed
		}
		if own.Store != id && !own.Store.IsZero() && rec.Names(own.Store) {
			return fmt.Sprintf("another disk has taken its place, with store %v, which PG %v names: start OSD %d on that one", own.Store, pg, s.o.Num)
		}
		if !rec.Names(id) {
			continue
		}
		if why := s.unserved(snap, pg, rec); why != "" {
			return why
		}
	}
	return ""
}

// unserved says why a PG that names the store may need it; "" when it is served in an interval that was activated without it. From such an interval on the store satisfies no set and knows
// nothing that counts, whatever the record still says of it: everything acknowledged is with the participants (peering, Record.WithSet).
func (s *Succession) unserved(snap *cluster.Snapshot, pg layout.PGID, rec *cluster.PGRecord) string {
	if rec.Activated == 0 {
		return "" // nothing in it was ever acknowledged
	}
	help := ""
	var down []layout.OSDNum
	for _, m := range rec.Participants {
		if st, up := snap.OSDStates.Get(m.OSD); (!up || st.Store != m.Store) && m.OSD != s.o.Num {
			down = append(down, m.OSD)
		}
	}
	if len(down) > 0 {
		slices.Sort(down)
		help = "; start " + describeOSDs(slices.Compact(down))
	}
	if rec.TookPart(s.seen.StoreID) {
		return fmt.Sprintf("PG %v was served with this store, and not without it since: what was written then may be here only%s", pg, help)
	}
	st, ok := snap.PGStates.Get(pg)
	if !ok || st.State&cluster.StateActive == 0 || !rec.Active() || st.Primary != rec.Primary {
		state := "offline"
		if ok {
			state = strings.Join(st.State.Names(), "+")
		}
		return fmt.Sprintf("PG %v is %s, not active%s", pg, state, help)
	}
	const bad = cluster.StateHasIncomplete | cluster.StateHasInvalid | cluster.StateHasCorrupted | cluster.StateHasInconsistent
	stats, ok := snap.PGStats.Get(pg)
	missing := uint64(0)
	if ok {
		missing = uint64(max(stats.UnfoundCount, stats.IncompleteCount, stats.CorruptedCount)) // the first are among the second
	}
	switch {
	case !ok || stats.Mod <= rec.Mod || stats.Mod < st.Create:
		return fmt.Sprintf("PG %v has just become active: its primary has not said yet whether it found everything", pg)
	case st.State&bad != 0 || missing > 0:
		return fmt.Sprintf("PG %v is %s and has %d objects that no OSD can give: they may be on this disk%s", pg, strings.Join(st.State.Names(), "+"), missing, help)
	case len(down) > 0:
		// Its primary finds out one object after the other what only they have. Until the PG is clean, and names this store no more, an old copy is better than none.
		return fmt.Sprintf("PG %v is recovered without some of those who took part; what only they have may be on this disk in an older state%s", pg, help)
	}
	return ""
}

// say tells people, in the log and in the registry, why the store waits.
func (s *Succession) say(why string) {
	text := cluster.ClipReason(fmt.Sprintf("store %v cannot be trusted: %s. It is emptied and refilled when no PG needs it: %s. `holdfast disk accept` takes it as it is or empties it at once",
		s.seen.StoreID, s.wrong, why))
	if text == s.said || s.saying || s.lease == nil || s.lease.ID() == 0 {
		return
	}
	s.saying = true
	s.log.Warn("the store waits", "why", why)
	v := &cluster.OSDWaiting{Store: s.seen.StoreID, Host: s.o.Host, Reason: text}
	t := registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: cluster.OSDWaitingKey(s.o.Num), Value: cluster.Value(v), Lease: s.lease.ID()}}}
	lease := s.lease
	s.o.Registry.Txn(t, func(_ registry.TxnResult, err error) {
		if s.saying = false; err == nil && lease == s.lease {
			s.said = text
		}
	})
}

// waiterLease is the succession as its lease sees it.
type waiterLease struct{ s *Succession }

// Granted lets the next look say why.
func (waiterLease) Granted(registry.Lease) {}

// Lost asks for another lease; what was said is gone with this one.
func (w waiterLease) Lost(l registry.Lease, _ error) {
	if s := w.s; l == s.lease && !s.ended {
		s.said = ""
		s.lease = s.o.Registry.Grant(s.o.LeaseTime, w)
	}
}
