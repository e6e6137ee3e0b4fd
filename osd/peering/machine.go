package peering

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/core/layout"
	"holdfast/core/planted"
)

// Phase is where a PG is in its life on the OSD that should be its primary.
type Phase uint8

// The phases.
const (
	Offline    Phase = iota // not ours
	Draining                // operations of the interval before are finishing
	Taking                  // the transaction that raises the interval is under way
	Locking                 // members are asked for their locks
	Listing_                // the heard stores list their objects
	Voiding                 // false copies are being voided
	Activating              // the transaction that records the set is under way
	Announcing              // the members write down that they take part
	Committing              // what is true and still unstable on chunks' stores is being committed
	Active                  // serving
	Waiting                 // somebody must come back first: see Reason
)

func (p Phase) String() string {
	return [...]string{"offline", "draining", "taking", "locking", "listing", "voiding", "activating", "announcing", "committing", "active", "waiting"}[p]
}

// Config is what the PG map and the OSD states say.
type Config struct {
	Target  []layout.OSDNum                  // the PG's OSD set, without empty slots
	MinSize int                              // fewest members that may serve
	K       int                              // data chunks of an erasure-coded pool, 2 or more; 0 or 1 in replicated ones
	Slots   []layout.OSDNum                  // erasure-coded: the OSD of each role, 0 where there is none. Target has the same OSDs
	Up      map[layout.OSDNum]layout.StoreID // OSDs that are up, with their stores
}

// need is how few members may serve.
func (c *Config) need() int { return max(1, c.K, c.MinSize) }

// roles has the OSD of each role, 0 for those that are not among members; nil in replicated pools.
func (c *Config) roles(members []Member) []layout.OSDNum {
	if c.K < 2 {
		return nil
	}
	list := slices.Clone(c.Slots)
	for i, osd := range list {
		if !slices.ContainsFunc(members, func(a Member) bool { return a.OSD == osd }) {
			list[i] = 0
		}
	}
	return list
}

// Effect is something the driver must do. Answers come back as calls of the Machine's methods that name the same round.
type Effect struct {
	Do       Action
	OSD      layout.OSDNum // Lock, List, Void, Announce, Commit
	Entries  []Entry       // Void, Commit
	Rollback []Entry       // Void
	Record   Record        // Activate
	Above    layout.Interval
	Verdict  *Verdict        // Serve
	Members  []Member        // Serve, Activate: the acting set
	Roles    []layout.OSDNum // Serve: see Machine.Roles
	After    time.Duration
	Interval layout.Interval
}

// Action is what an Effect asks for.
type Action uint8

// The actions.
const (
	Drain    Action = iota + 1 // stop serving, let local operations finish, then call Drained
	Take                       // create the state key, raise the interval above Above; then Taken
	Lock                       // ask OSD for its lock in this interval; then Granted or Refused
	List                       // ask OSD for its objects; then Listed
	Void                       // have OSD drop what each chunk in Rollback has unstable above the version named, then void Entries; then Voided
	Activate                   // write Record if the take's revision still stands; then Activated
	Announce                   // have OSD write down that it takes part in this interval; then Announced
	Commit                     // have OSD commit what each chunk in Entries has unstable up to the version named; then Committed
	Serve                      // serve with Members and Verdict
	Retry                      // call Retry after After
	Release                    // unlock the members and delete the state key; then Drained was the last word
	Report                     // the phase or reason changed: publish it
)

type heard struct {
	store   layout.StoreID
	granted bool
	failed  bool // refused or unreachable in this round
	listed  bool
	entries []Entry
	voided  bool
	told    bool
	commits bool            // are under way
	part    layout.Interval // the last activated interval that the store knows; for Reason
}

// Machine is the peering of one PG on the OSD that the PG map names as its primary. The driver calls its methods with what happened and does what the returned effects say, in
// order. It reads no clock: waiting is a Retry effect. Every answer carries the round it was asked in; answers of earlier rounds are ignored.
type Machine struct {
	Self     Member
	Phase    Phase
	Round    uint64 // grows whenever peering starts over
	Interval layout.Interval
	Record   Record
	Acting   []Member
	Reason   string // why the PG waits, for people

	cfg     Config
	wanted  bool
	peers   map[layout.OSDNum]*heard
	asked   []layout.OSDNum // sorted
	exclude map[layout.OSDNum]bool
	above   layout.Interval
	grace   int
	roles   []layout.OSDNum // of Acting
	verdict Verdict
	backs   []layout.OSDNum // that have what an object may have to go back to
	unfound bool
}

// graceRounds is how often locking is tried again while a member that is up cannot be reached or still honours another holder, before the PG goes on without it if it may.
const graceRounds = 3

// RetryInterval is the time between tries.
const RetryInterval = 100 * time.Millisecond

// New makes a machine that is offline.
func New(self Member) *Machine {
	return &Machine{Self: self, exclude: map[layout.OSDNum]bool{}}
}

// Want says that we should be the primary under cfg.
func (m *Machine) Want(cfg Config) []Effect {
	old, before := m.cfg, m.candidates()
	m.cfg = cfg
	for osd := range m.exclude { // order: deletions commute
		if cfg.Up[osd] != old.Up[osd] {
			delete(m.exclude, osd)
		}
	}
	switch {
	case !m.wanted:
		m.wanted = true
		if m.Phase == Draining {
			return nil
		}
		return m.restart(nil)
	case m.Phase == Active && len(m.Acting) < cfg.need():
		return m.restart(nil) // fewer than are wanted now
	case m.Phase == Active:
		if now := m.candidates(); slices.Equal(before, now) && slices.Equal(old.roles(now), cfg.roles(now)) {
			return nil // who is left out although it is up is tried again by Readmit, with pauses
		}
		return m.Readmit()
	case !slices.Equal(old.Target, cfg.Target) || !slices.Equal(old.Slots, cfg.Slots):
		return m.restart(nil)
	}
	return nil // what is under way reads the new configuration when it gets there
}

// Readmit starts a new interval if the acting set, or a member's role, is not what it could be: a member has come back, or the PG map has changed; or if a store that objects are copied
// from was lost.
func (m *Machine) Readmit() []Effect {
	if m.Phase != Active || slices.Equal(m.candidates(), m.Acting) && slices.Equal(m.cfg.roles(m.Acting), m.roles) && len(m.lostSources()) == 0 {
		return nil
	}
	return m.restart(nil)
}

// candidates are the members of the target set that are up, in the target's order, without those that are full as long as enough are left: a PG that can take no more writes must
// still be read.
func (m *Machine) candidates() []Member {
	if list := m.upMembers(true); len(list) >= m.cfg.need() {
		return list
	}
	return m.upMembers(false)
}

func (m *Machine) upMembers(withRoom bool) []Member {
	var list []Member
	for _, osd := range m.cfg.Target {
		store, up := m.cfg.Up[osd]
		if osd == m.Self.OSD {
			store, up = m.Self.Store, true
		}
		if a := (Member{OSD: osd, Store: store}); up && !(withRoom && m.exclude[osd]) && !contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// Unwant says that the PG map names somebody else, or that the OSD stops.
func (m *Machine) Unwant() []Effect {
	if !m.wanted {
		return nil
	}
	m.wanted = false
	m.Round++
	if m.Phase == Offline {
		return nil
	}
	m.Phase = Draining
	return []Effect{{Do: Drain}, {Do: Report}}
}

// Excluded leaves an OSD out of the next sets until it has room or its state changes: it refuses writes for lack of space.
func (m *Machine) Excluded(osd layout.OSDNum) []Effect {
	m.exclude[osd] = true
	return m.Lost(osd)
}

// Full lists the OSDs that are left out because they refused writes.
func (m *Machine) Full() []layout.OSDNum {
	var list []layout.OSDNum
	for osd := range m.exclude { // order: sorted below
		list = append(list, osd)
	}
	slices.Sort(list)
	return list
}

// Spares reports whether enough members are left without an OSD, and without those that are left out already.
func (m *Machine) Spares(osd layout.OSDNum) bool {
	n := 0
	for _, a := range m.upMembers(true) {
		if a.OSD != osd {
			n++
		}
	}
	return n >= m.cfg.need()
}

// Room lets an OSD that was left out by Excluded be a member again; Readmit makes it one.
func (m *Machine) Room(osd layout.OSDNum) { delete(m.exclude, osd) }

// Lost says that a member's connection or grant is gone. A grant that lapsed is never revived, so this starts a new interval wherever one was held.
func (m *Machine) Lost(osd layout.OSDNum) []Effect {
	switch m.Phase {
	case Offline, Draining, Taking:
		return nil
	case Active:
		for _, a := range m.Acting {
			if a.OSD == osd {
				return m.restart(nil)
			}
		}
		if h := m.peers[osd]; h != nil {
			h.granted = false
		}
		return nil
	}
	h := m.peers[osd]
	switch {
	case h == nil:
		return nil
	case h.granted:
		return m.restart(nil)
	}
	return m.Refused(m.Round, osd, 0)
}

// Restart begins a new interval for a reason the machine cannot see: a grant ran out, a sub-operation failed.
func (m *Machine) Restart() []Effect {
	if !m.wanted || m.Phase == Draining || m.Phase == Offline {
		return nil
	}
	return m.restart(nil)
}

func (m *Machine) restart(effects []Effect) []Effect {
	m.Round++
	m.grace = 0
	m.peers = nil
	m.Phase = Draining
	return append(effects, Effect{Do: Drain}, Effect{Do: Report})
}

// Drained says that nothing of the interval before is under way here any more.
func (m *Machine) Drained() []Effect {
	if m.Phase != Draining {
		return nil
	}
	m.Acting, m.roles = nil, nil
	if !m.wanted {
		m.Phase = Offline
		return []Effect{{Do: Release}, {Do: Report}}
	}
	m.Phase = Taking
	return []Effect{{Do: Take, Above: max(m.above, m.Interval)}, {Do: Report}}
}

// Taken says that the take's transaction has raised the interval: r is the record as written.
func (m *Machine) Taken(round uint64, r Record) []Effect {
	if round != m.Round || m.Phase != Taking {
		return nil
	}
	m.Record, m.Interval = r, r.Interval
	return m.lock(nil)
}

// TakeFailed says that the take did not happen; it is tried again.
func (m *Machine) TakeFailed(round uint64, reason string) []Effect {
	if round != m.Round || m.Phase != Taking {
		return nil
	}
	return m.wait(reason)
}

func (m *Machine) wait(reason string) []Effect {
	m.Phase = Waiting
	m.Reason = reason
	return []Effect{{Do: Retry, After: RetryInterval}, {Do: Report}}
}

// Retry is the answer to the effect of that name.
func (m *Machine) Retry(round uint64) []Effect {
	if round != m.Round || !m.wanted {
		return nil
	}
	switch m.Phase {
	case Waiting:
		if m.peers == nil {
			m.Phase = Taking
			return []Effect{{Do: Take, Above: max(m.above, m.Interval)}}
		}
		return m.lock(nil)
	case Locking:
		return m.lock(nil)
	}
	return nil
}

// lock asks everybody who matters for a lock: the members of the set to be, and whoever the record may need.
func (m *Machine) lock(effects []Effect) []Effect {
	m.Phase = Locking
	if m.peers == nil {
		m.peers = map[layout.OSDNum]*heard{}
	}
	m.asked = m.asked[:0]
	ask := func(a Member) {
		if !slices.Contains(m.asked, a.OSD) {
			m.asked = append(m.asked, a.OSD)
			h := m.peers[a.OSD]
			if h == nil || h.store != a.Store {
				m.peers[a.OSD] = &heard{store: a.Store}
			}
		}
	}
	for _, a := range m.candidates() {
		ask(a)
	}
	others := func(list []Member) {
		for _, a := range list {
			if store, up := m.cfg.Up[a.OSD]; (up && (store == a.Store || planted.EmptyDiskCounts) || a == m.Self) && len(m.asked) < MaxHeard {
				ask(a)
			}
		}
	}
	for _, s := range m.Record.Sets {
		others(s.Members)
	}
	others(m.Record.Participants)
	for _, s := range m.Record.Sets {
		others(s.Silent)
	}
	slices.Sort(m.asked)
	for _, osd := range m.asked {
		h := m.peers[osd]
		h.failed = false
		if !h.granted {
			effects = append(effects, Effect{Do: Lock, OSD: osd, Interval: m.Interval})
		}
	}
	return append(append(effects, Effect{Do: Report}), m.locked()...)
}

// Granted says that osd, on the given store, granted its lock. seen is the highest interval and part the last activated interval that the store knows of the PG.
func (m *Machine) Granted(round uint64, osd layout.OSDNum, store layout.StoreID, seen, part layout.Interval) []Effect {
	if round != m.Round || m.Phase != Locking && m.Phase != Waiting {
		return nil
	}
	h := m.peers[osd]
	if h == nil {
		return nil
	}
	if h.store != store {
		return m.Refused(round, osd, seen)
	}
	if part > m.Record.Activated {
		// The store took part in an interval that etcd does not know: etcd was set back. Nobody can say who else took part.
		return m.wait(fmt.Sprintf("OSD %d took part in interval %d, but etcd's record ends at %d: etcd was restored from an older state; start every OSD, each has to report what it knows", osd, part, m.Record.Activated))
	}
	if seen > m.Interval {
		m.above = max(m.above, seen)
		return m.restart(nil)
	}
	h.granted, h.failed, h.part = true, false, part
	if m.Phase == Waiting {
		return nil
	}
	return m.locked()
}

// Refused says that osd did not grant its lock: unreachable, or it honours another holder. seen is the highest interval it named, 0 when unknown.
func (m *Machine) Refused(round uint64, osd layout.OSDNum, seen layout.Interval) []Effect {
	if round != m.Round || m.Phase != Locking {
		return nil
	}
	h := m.peers[osd]
	if h == nil {
		return nil
	}
	if seen > m.Interval {
		m.above = max(m.above, seen)
		return m.restart(nil)
	}
	h.granted, h.failed = false, true
	return m.locked()
}

// locked goes on once everybody asked has answered.
func (m *Machine) locked() []Effect {
	var granted []Member
	pending, failedMember := false, false
	for _, osd := range m.asked {
		h := m.peers[osd]
		switch {
		case h.granted:
			granted = append(granted, Member{OSD: osd, Store: h.store})
		case h.failed:
			failedMember = failedMember || slices.Contains(m.cfg.Target, osd)
		default:
			pending = true
		}
	}
	if pending {
		return nil
	}
	var acting []Member
	for _, c := range m.candidates() {
		if contains(granted, c) {
			acting = append(acting, c)
		}
	}
	if !contains(m.candidates(), m.Self) {
		return m.wait(fmt.Sprintf("the PG map names OSD %d as the primary, but not as a member; the monitor corrects it: look whether one leads", m.Self.OSD))
	}
	if !contains(granted, m.Self) {
		return m.wait(fmt.Sprintf("the store of OSD %d is still bound to another primary or to changes of before; that ends by itself within seconds", m.Self.OSD))
	}
	if missing := m.Record.Unheard(granted, m.cfg.K); len(missing) > 0 {
		return m.wait(m.whyUnheard(missing))
	}
	if len(acting) < m.cfg.need() {
		return m.wait(m.whyTooFew(acting))
	}
	if failedMember && m.grace < graceRounds {
		m.grace++
		return []Effect{{Do: Retry, After: RetryInterval / 2}}
	}
	m.Acting, m.roles = acting, m.cfg.roles(acting)
	m.Reason = ""
	m.Phase = Listing_
	var effects []Effect
	for _, g := range granted {
		effects = append(effects, Effect{Do: List, OSD: g.OSD, Interval: m.Interval})
	}
	return append(effects, Effect{Do: Report})
}

// Listed brings the objects of one heard store, sorted or not; the machine keeps entries.
func (m *Machine) Listed(round uint64, osd layout.OSDNum, entries []Entry) []Effect {
	if round != m.Round || m.Phase != Listing_ || m.peers[osd] == nil {
		return nil
	}
	m.peers[osd].listed, m.peers[osd].entries = true, entries
	var lists []Listing
	for _, osd := range m.asked {
		h := m.peers[osd]
		if !h.granted {
			continue
		}
		if !h.listed {
			return nil
		}
		lists = append(lists, Listing{Member: Member{OSD: osd, Store: h.store}, Entries: h.entries})
	}
	if m.roles != nil {
		m.verdict = JudgeChunks(m.Record, m.cfg.K, m.roles, lists)
	} else {
		var set []layout.OSDNum
		for _, a := range m.Acting {
			set = append(set, a.OSD)
		}
		m.verdict = Judge(m.Record, set, lists)
	}
	for _, h := range m.peers { // order: each by itself
		h.entries = nil
	}
	m.Phase = Voiding
	var effects []Effect
	for _, l := range lists {
		h := m.peers[l.Member.OSD]
		false_, unstable := m.verdict.Voids[l.Member.OSD], m.verdict.Rollbacks[l.Member.OSD]
		if h.voided = len(false_)+len(unstable) == 0; !h.voided {
			effects = append(effects, Effect{Do: Void, OSD: l.Member.OSD, Entries: false_, Rollback: unstable, Interval: m.Interval})
		}
	}
	if planted.CommitEarly {
		effects = append(effects, m.commits()...)
	}
	return append(effects, m.voided()...)
}

// commits asks for what is true and unstable to be committed.
func (m *Machine) commits() (effects []Effect) {
	for _, osd := range m.asked {
		if list := m.verdict.Commits[osd]; len(list) > 0 {
			m.peers[osd].commits = true
			effects = append(effects, Effect{Do: Commit, OSD: osd, Entries: list, Interval: m.Interval})
		}
	}
	return effects
}

// Roles has the acting OSD of each role, 0 where there is none; nil in replicated pools, and before the acting set is known.
func (m *Machine) Roles() []layout.OSDNum { return m.roles }

// Voided says that osd has durably rolled back and voided what it was told.
func (m *Machine) Voided(round uint64, osd layout.OSDNum) []Effect {
	if round != m.Round || m.Phase != Voiding || m.peers[osd] == nil {
		return nil
	}
	m.peers[osd].voided = true
	return m.voided()
}

// Heard lists the OSDs that have granted their locks in this round, with their stores.
func (m *Machine) Heard() []Member {
	var list []Member
	for _, osd := range m.asked {
		if h := m.peers[osd]; h.granted {
			list = append(list, Member{OSD: osd, Store: h.store})
		}
	}
	return list
}

func (m *Machine) voided() []Effect {
	heard := m.Heard()
	for _, a := range heard {
		if h := m.peers[a.OSD]; (!h.voided || h.commits) && !planted.VoidUnawaited {
			return nil
		}
	}
	m.Phase = Activating
	r := m.Record.WithSet(m.Interval, m.Acting, heard, m.verdict.Floor)
	if len(m.verdict.Unclean) == 0 || planted.CleanEarly {
		r = r.Clean()
	}
	return []Effect{{Do: Activate, Record: r, Members: m.Acting}, {Do: Report}}
}

// Activated says whether the activate transaction went through; when not, somebody else has changed the record and peering starts over.
func (m *Machine) Activated(round uint64, ok bool) []Effect {
	if round != m.Round || m.Phase != Activating {
		return nil
	}
	if !ok {
		return m.restart(nil)
	}
	r := m.Record.WithSet(m.Interval, m.Acting, m.Heard(), m.verdict.Floor)
	if len(m.verdict.Unclean) == 0 || planted.CleanEarly {
		r = r.Clean()
	}
	m.Record = r
	m.Phase = Announcing
	var effects []Effect
	for _, a := range m.Heard() {
		effects = append(effects, Effect{Do: Announce, OSD: a.OSD, Members: m.Acting, Interval: m.Interval})
	}
	return effects
}

// Announced says that osd has durably written down that it takes part in the interval.
func (m *Machine) Announced(round uint64, osd layout.OSDNum) []Effect {
	if round != m.Round || m.Phase != Announcing || m.peers[osd] == nil {
		return nil
	}
	m.peers[osd].told = true
	for _, a := range m.Heard() {
		if !m.peers[a.OSD].told {
			return nil
		}
	}
	if effects := m.commits(); len(effects) > 0 && !planted.CommitEarly {
		m.Phase = Committing
		return effects
	}
	return m.serve()
}

// Committed says that osd has durably committed what it was told.
func (m *Machine) Committed(round uint64, osd layout.OSDNum) []Effect {
	if round != m.Round || m.Phase != Committing && !planted.CommitEarly || m.peers[osd] == nil {
		return nil
	}
	m.peers[osd].commits = false
	if m.Phase == Voiding {
		return m.voided()
	}
	for _, a := range m.Heard() {
		if m.peers[a.OSD].commits {
			return nil
		}
	}
	return m.serve()
}

func (m *Machine) serve() []Effect {
	m.Phase = Active
	m.Reason = ""
	v := m.verdict
	m.verdict, m.backs, m.unfound = Verdict{}, v.backs(), false
	return []Effect{{Do: Serve, Members: m.Acting, Roles: m.roles, Verdict: &v, Interval: m.Interval}, {Do: Report}}
}

// Cleaned replaces the record after the driver has written it with Record.Clean.
func (m *Machine) Cleaned(round uint64, r Record) {
	if round == m.Round && m.Phase == Active {
		m.Record = r
	}
}

// Wanted reports whether we should be the primary.
func (m *Machine) Wanted() bool { return m.wanted }

// Pending lists the OSDs that were asked for a lock and have not answered.
func (m *Machine) Pending() []layout.OSDNum {
	var list []layout.OSDNum
	if m.Phase == Locking {
		for _, osd := range m.asked {
			if h := m.peers[osd]; !h.granted && !h.failed {
				list = append(list, osd)
			}
		}
	}
	return list
}

// Unfound says that no copy of an object's truth can be read. A store that was a member of a recorded set, and was not heard with the others, may prove what was never acknowledged.
func (m *Machine) Unfound(round uint64) {
	if round == m.Round && m.Phase == Active {
		m.unfound = true
	}
}

// lostSources lists the stores outside the acting set that took part in peering, may hold the only copy of something, and whose grant is gone; and those that may help to find what is unfound.
func (m *Machine) lostSources() []layout.OSDNum {
	if m.Phase != Active || m.Record.IsClean() {
		return nil
	}
	var list []layout.OSDNum
	for _, osd := range m.asked {
		if h := m.peers[osd]; !h.granted && h.told && m.cfg.Up[osd] == h.store && (contains(m.Record.Participants, Member{OSD: osd, Store: h.store}) || slices.Contains(m.backs, osd)) {
			list = append(list, osd)
		}
	}
	for _, s := range m.Record.Sets {
		for _, a := range slices.Concat(s.Members, s.Silent) {
			if h := m.peers[a.OSD]; m.unfound && (h == nil || h.store != a.Store || !h.granted && !h.told) && m.cfg.Up[a.OSD] == a.Store && a.OSD != m.Self.OSD && !slices.Contains(list, a.OSD) {
				list = append(list, a.OSD)
			}
		}
	}
	return list
}

// Failed lists the OSDs that were asked for a lock in this round and did not grant it.
func (m *Machine) Failed() []layout.OSDNum {
	var list []layout.OSDNum
	for _, osd := range m.asked {
		if h := m.peers[osd]; h != nil && h.failed {
			list = append(list, osd)
		}
	}
	return list
}

// LeftOut lists the OSDs that could be members and are not, and those that objects can't be copied from any more because their grant is gone.
func (m *Machine) LeftOut() []layout.OSDNum {
	var list []layout.OSDNum
	for _, c := range m.candidates() {
		if !contains(m.Acting, c) {
			list = append(list, c.OSD)
		}
	}
	for _, osd := range m.lostSources() {
		if !slices.Contains(list, osd) {
			list = append(list, osd)
		}
	}
	return list
}

// Describe says for people who was asked and what was answered.
func (m *Machine) Describe() string {
	var b strings.Builder
	if m.Reason != "" {
		fmt.Fprintf(&b, "waits: %s; ", m.Reason)
	}
	for _, osd := range m.asked {
		if h := m.peers[osd]; h != nil {
			fmt.Fprintf(&b, "OSD %d granted %v failed %v listed %v voided %v told %v; ", osd, h.granted, h.failed, h.listed, h.voided, h.told)
		}
	}
	return b.String()
}
