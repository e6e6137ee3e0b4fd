package secondary

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// Holder is a primary as a member knows it: the running instance of an OSD on its store.
type Holder struct {
	OSD      layout.OSDNum  `json:"osd"`
	Instance uint64         `json:"instance"`
	Store    layout.StoreID `json:"store"`
}

// LockRequest is the payload of SUB_LOCK.
type LockRequest struct {
	Holder     Holder          `json:"holder"`
	PG         layout.PGID     `json:"pg"`
	Generation uint64          `json:"generation"`
	Earlier    *int64          `json:"earlier,omitempty"` // as in the pool's identity; primaries of earlier versions do not say
	Interval   layout.Interval `json:"interval"`
}

// LockReply answers it. Seen and TookPart are given in every answer.
type LockReply struct {
	Store    layout.StoreID  `json:"store"`
	Seen     layout.Interval `json:"seen"`      // the highest interval the store was ever locked for
	TookPart layout.Interval `json:"took_part"` // the last activated interval it knows of
	Instance uint64          `json:"instance"`  // of the member
	Reason   string          `json:"reason,omitempty"`
}

// RenewRequest is the payload of SUB_RENEW: one for all grants that one OSD holds of another.
type RenewRequest struct {
	Holder   Holder `json:"holder"`
	Revision uint64 `json:"revision"` // of the member's lock table, as the last answer gave it
	Applied  int64  `json:"applied"`  // etcd revision up to which the holder has applied fences, for members of earlier versions
	Fenced   uint64 `json:"fenced"`   // 1 + Fenced of the last answer whose fences the holder has applied; 0 from holders of earlier versions

	Heard uint64      `json:"heard,omitempty"` // Sent of the last answer that came
	Reads []ReadRight `json:"reads,omitempty"` // what the member may answer reads of
}

// RenewReply answers it. Grants is there only when Revision differs from the request's. Who counts on the answer has applied Fences.
type RenewReply struct {
	Revision uint64      `json:"revision"`
	Grants   []HeldGrant `json:"grants,omitempty"`
	Free     uint64      `json:"free"`               // how many objects that need space the holder may have clients begin: its share
	Recovery *uint64     `json:"recovery,omitempty"` // how many blocks recovery may still fill; members of earlier versions do not say
	Requests uint64      `json:"requests"`           // how many more requests the member could remember, less what it keeps for recovery
	Sent     uint64      `json:"sent"`               // the member's clock, nanoseconds

	Fenced uint64          `json:"fenced,omitempty"` // the number of the last fence that is given here, or was before
	Fences json.RawMessage `json:"fences,omitempty"` // those that the holder has not applied, a list as the daemons have it; the rest comes when it asks again if the answer is wire.EAGAIN
}

// HeldGrant is one PG in a RenewReply.
type HeldGrant struct {
	PG       layout.PGID     `json:"pg"`
	Interval layout.Interval `json:"interval"`
}

// AnnounceRequest is the payload of SUB_ANNOUNCE: the PG's record as etcd has it. It is sent when the interval is activated, again when the record has become clean, and before copies are
// voided: what is done to a store's copies by a record must not be forgotten with etcd.
type AnnounceRequest struct {
	PG           layout.PGID     `json:"pg"`
	Interval     layout.Interval `json:"interval"` // of the grant
	Activated    layout.Interval `json:"activated"`
	Instance     uint64          `json:"instance"`
	Floor        layout.Version  `json:"floor"`
	Participants []store.Member  `json:"participants"`
	Sets         []store.PGSet   `json:"sets"`
}

// pair is all that one holder has been granted here.
type pair struct {
	holder   Holder
	revision uint64
	expires  loop.Instant
}

// grant is one PG's lock.
type grant struct {
	pair     *pair
	interval layout.Interval
	// frozen, when not 0, is when the grant ends whatever renewals come: somebody asks for a higher interval.
	frozen  loop.Instant
	pending bool // being written down; not in force yet
	reads   *reads
}

// Locks is the lock table of one store: whom it has granted which PG, and until when. Time is CLOCK_BOOTTIME.
type Locks struct {
	l       loop.Loop
	st      *store.Store
	self    Holder
	ttl     time.Duration
	started loop.Instant
	pairs   map[layout.OSDNum]*pair
	pgs     map[layout.PGID]*grant
	given   map[layout.PGID]bool       // PGs that this process has granted to somebody
	busy    map[layout.PGID]int        // changes that the store is carrying out
	idle    map[layout.PGID][]func()   // who waits for busy to be 0
	dead    map[layout.OSDNum][]uint64 // instances reported dead by their parents, at most maxDead of each OSD
	fences  Fences
}

// Fences adds the fences that a holder has not applied to the answer to its renewal. It returns false when the holder must ask again after it has applied them.
type Fences func(q *RenewRequest, a *RenewReply) bool

// NewLocks makes the table of a store that has just been opened. ttl is T, how long a grant lasts; fences may be nil.
func NewLocks(l loop.Loop, st *store.Store, self Holder, ttl time.Duration, fences Fences) *Locks {
	return &Locks{
		l: l, st: st, self: self, ttl: ttl, started: l.Now(), fences: fences,
		pairs: map[layout.OSDNum]*pair{}, pgs: map[layout.PGID]*grant{}, given: map[layout.PGID]bool{}, busy: map[layout.PGID]int{}, idle: map[layout.PGID][]func(){}, dead: map[layout.OSDNum][]uint64{},
	}
}

// live reports whether g is in force. Our own process's grants last as long as it does.
func (t *Locks) live(g *grant) bool {
	if g == nil || g.pending || t.isDead(g.pair.holder) {
		return false
	}
	if g.pair.holder == t.self {
		return true
	}
	if g.frozen != 0 && t.l.Now() >= g.frozen {
		return false
	}
	return t.l.Now() < g.pair.expires
}

// Holds reports whether the grant in force is the one named.
func (t *Locks) Holds(w wire.Grant) bool {
	g := t.pgs[w.PG]
	return g != nil && g.interval == w.Interval && g.pair.holder.Instance == w.Instance && t.live(g)
}

// Lock answers a request for a grant; done gets a retval of 0, wire.EBUSY (ask again) or wire.ESTALE (take a higher interval than Seen).
func (t *Locks) Lock(q LockRequest, done func(int64, LockReply)) {
	rec, known := t.st.PG(q.PG)
	if planted.IntervalForgotten && !t.given[q.PG] {
		rec.Interval, rec.TookPart = 0, 0
	}
	if known && rec.Generation != q.Generation && !planted.GenerationIgnored {
		if rec.Generation > q.Generation {
			done(wire.ENOENT, LockReply{Store: t.self.Store, Reason: "the pool was made anew"})
			return
		}
		if q.Earlier != nil && rec.Generation > uint64(*q.Earlier) {
			done(wire.ENOENT, LockReply{Store: t.self.Store, Reason: "the pool's generation was given by an etcd that has forgotten ours"})
			return
		}
		rec = store.PGRecord{PG: q.PG} // an earlier pool of the same number
	}
	answer := func(retval int64, reason string) {
		done(retval, LockReply{Store: t.self.Store, Seen: rec.Interval, TookPart: rec.TookPart, Instance: t.self.Instance, Reason: reason})
	}
	g := t.pgs[q.PG]
	switch {
	case g != nil && g.pending:
		answer(wire.EBUSY, "another request is being answered")
		return
	case g != nil && t.live(g) && g.interval == q.Interval && g.pair.holder == q.Holder:
		answer(0, "")
		return
	case q.Interval <= rec.Interval && !(planted.IntervalTwice && q.Interval == rec.Interval):
		answer(wire.ESTALE, "the interval is not new")
		return
	case t.isDead(q.Holder):
		answer(wire.ESTALE, "the instance was reported dead")
		return
	}
	if g != nil && t.live(g) && !t.succeeds(q.Holder, g.pair.holder) && !planted.GrantsBoth {
		if g.frozen == 0 && g.pair.holder != t.self {
			g.frozen = g.pair.expires
			g.pair.revision++
		}
		answer(wire.EBUSY, "granted to another primary")
		return
	}
	if !t.given[q.PG] && known && rec.Primary != 0 && t.l.Now() < t.started.Add(t.ttl) && !planted.RestartGrants {
		// Before our start we may have granted it for up to ttl.
		was := Holder{OSD: rec.Primary, Instance: rec.Instance, Store: rec.PrimaryStore}
		if was.OSD != t.self.OSD && was != q.Holder && !t.succeeds(q.Holder, was) && !t.isDead(was) {
			answer(wire.EBUSY, "a grant of before our start may be in force")
			return
		}
	}
	p := t.pairs[q.Holder.OSD]
	if p == nil || p.holder != q.Holder {
		if p != nil && !t.succeeds(q.Holder, p.holder) && t.l.Now() < p.expires {
			answer(wire.EBUSY, "another instance's grants are in force")
			return
		}
		p = &pair{holder: q.Holder}
		t.pairs[q.Holder.OSD] = p
	}
	if p.holder != t.self && p.expires != 0 && t.l.Now() >= p.expires && !planted.GrantRevived {
		// What it was granted before has lapsed and is not revived by this one.
		p = &pair{holder: q.Holder, revision: p.revision}
		t.pairs[q.Holder.OSD] = p
	}
	g = &grant{pair: p, interval: q.Interval, pending: true}
	t.pgs[q.PG], t.given[q.PG] = g, true
	rec.PG, rec.Generation, rec.Interval = q.PG, q.Generation, q.Interval
	rec.Primary, rec.Instance, rec.PrimaryStore = q.Holder.OSD, q.Holder.Instance, q.Holder.Store
	// What was admitted under the grant before must be in the store before its objects are listed.
	t.whenIdle(q.PG, func() {
		t.st.PutPG(rec, func(err error) {
			if t.pgs[q.PG] != g {
				answer(wire.EBUSY, "given back meanwhile")
				return
			}
			if err != nil {
				delete(t.pgs, q.PG)
				answer(wire.EIO, err.Error())
				return
			}
			g.pending = false
			p.revision++
			p.expires = max(p.expires, t.l.Now().Add(t.ttl))
			answer(0, "")
		})
	})
}

// succeeds reports whether a's existence proves that b is dead: a later process on the same store, which only one process can have open.
func (t *Locks) succeeds(a, b Holder) bool {
	return a.OSD == b.OSD && a.Store == b.Store && !a.Store.IsZero()
}

// Renew prolongs what the holder has. retval is 0 or wire.ESTALE when nothing of it is in force, wire.EAGAIN when the holder must apply fences first, and ask again.
func (t *Locks) Renew(q RenewRequest) (int64, RenewReply) {
	p := t.pairs[q.Holder.OSD]
	if p == nil || p.holder != q.Holder || t.isDead(q.Holder) || p.holder != t.self && t.l.Now() >= p.expires && !planted.GrantRevived {
		return wire.ESTALE, RenewReply{}
	}
	r := RenewReply{Revision: p.revision}
	if t.fences != nil && !t.fences(&q, &r) {
		return wire.EAGAIN, r
	}
	p.expires = t.l.Now().Add(t.ttl)
	t.lent(p, &q)
	r.Sent = uint64(t.l.Now())
	if q.Revision != p.revision {
		for pg, g := range t.pgs { // order: sorted below
			if g.pair == p && !g.pending && g.frozen == 0 {
				r.Grants = append(r.Grants, HeldGrant{PG: pg, Interval: g.interval})
			}
		}
		slices.SortFunc(r.Grants, func(a, b HeldGrant) int {
			return cmp.Or(cmp.Compare(a.PG.Pool, b.PG.Pool), cmp.Compare(a.PG.Num, b.PG.Num))
		})
	}
	return 0, r
}

// primaries is how many OSDs may send us changes now, at least 1.
func (t *Locks) primaries() (n uint64) {
	for _, p := range t.pairs { // order: counts
		if !t.isDead(p.holder) && (p.holder == t.self || t.l.Now() < p.expires) {
			n++
		}
	}
	return max(n, 1)
}

// Unlock ends a grant that its holder gives back.
func (t *Locks) Unlock(w wire.Grant) {
	if g := t.pgs[w.PG]; g != nil && g.interval == w.Interval && g.pair.holder.Instance == w.Instance {
		g.pair.revision++
		delete(t.pgs, w.PG)
	}
}

// maxDead bounds how many dead instances of one OSD are remembered. Forgetting one is safe: what it was granted runs out.
const maxDead = 16

// Dead ends everything that a dead instance of an OSD was granted. An instance that another OSD holds grants under is not touched.
func (t *Locks) Dead(osd layout.OSDNum, instance uint64) {
	h := Holder{OSD: osd, Instance: instance}
	if osd == t.self.OSD && instance == t.self.Instance || t.isDead(h) {
		return
	}
	list := append(t.dead[osd], instance)
	t.dead[osd] = list[max(0, len(list)-maxDead):]
}

// Died reports whether an instance of an OSD was reported dead.
func (t *Locks) Died(osd layout.OSDNum, instance uint64) bool {
	return t.isDead(Holder{OSD: osd, Instance: instance})
}

func (t *Locks) isDead(h Holder) bool { return slices.Contains(t.dead[h.OSD], h.Instance) }

// GiveBack ends the grant of a PG that this OSD gave itself, of whatever interval.
func (t *Locks) GiveBack(pg layout.PGID) {
	if g := t.pgs[pg]; g != nil && g.pair.holder == t.self {
		g.pair.revision++
		delete(t.pgs, pg)
	}
}

// Announce writes down the last activated interval, and who takes part in it.
func (t *Locks) Announce(q AnnounceRequest, done func(int64)) {
	if !t.Holds(wire.Grant{PG: q.PG, Interval: q.Interval, Instance: q.Instance}) {
		done(wire.ESTALE)
		return
	}
	rec, _ := t.st.PG(q.PG)
	if q.Activated < rec.TookPart {
		done(wire.ESTALE)
		return
	}
	rec.TookPart, rec.Floor, rec.Participants, rec.Sets = q.Activated, max(rec.Floor, q.Floor), q.Participants, q.Sets
	t.st.PutPG(rec, func(err error) {
		if err != nil {
			done(wire.EIO)
			return
		}
		done(0)
	})
}

// begin and end bracket a change that the store carries out for a PG.
func (t *Locks) begin(pg layout.PGID) { t.busy[pg]++ }

func (t *Locks) end(pg layout.PGID) {
	t.busy[pg]--
	if t.busy[pg] > 0 {
		return
	}
	waiting := t.idle[pg]
	if len(waiting) == 0 {
		return
	}
	delete(t.idle, pg)
	for _, f := range waiting {
		f()
	}
}

func (t *Locks) whenIdle(pg layout.PGID, f func()) {
	if t.busy[pg] == 0 {
		f()
		return
	}
	t.idle[pg] = append(t.idle[pg], f)
}

// decodeJSON reads a cold payload.
func decodeJSON[T any](p []byte) (v T, ok bool) {
	err := json.Unmarshal(p, &v)
	return v, err == nil
}

// Granted reports whether somebody holds the PG's grant now.
func (t *Locks) Granted(pg layout.PGID) bool {
	g := t.pgs[pg]
	return g != nil && (g.pending || t.live(g))
}

// Silent are the OSDs that hold grants which have run out for want of a renewal.
func (t *Locks) Silent() (list []layout.OSDNum) {
	for _, g := range t.pgs { // order: sorted below
		if n := g.pair.holder.OSD; g.pair.holder != t.self && !g.pending && t.l.Now() >= g.pair.expires && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

// Describe says for people whom each PG is granted to.
func (t *Locks) Describe() string {
	var b strings.Builder
	ids := slices.SortedFunc(maps.Keys(t.pgs), func(a, b layout.PGID) int { return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Num, b.Num)) })
	for _, id := range ids {
		g := t.pgs[id]
		fmt.Fprintf(&b, "grant %v: OSD %d interval %d in force %v pending %v frozen %v, %d changes under way\n", id, g.pair.holder.OSD, g.interval, t.live(g), g.pending, g.frozen != 0, t.busy[id])
	}
	return b.String()
}
