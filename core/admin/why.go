package admin

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// Why a PG waits or is not whole. The OSD that has taken it knows best and publishes a reason; where nobody has taken it the words come from its record.

// maxSets bounds the sets that a reason explains.
const maxSets = 3

// reasoner explains the PGs of one snapshot.
type reasoner struct {
	s      *cluster.Snapshot
	noout  bool
	held   string // no_recovery or no_rebalance, if set
	unsaid []layout.OSDNum
}

func newReasoner(s *cluster.Snapshot) *reasoner {
	w := &reasoner{s: s, noout: flag(s, "noout"), unsaid: s.Unreported()}
	switch {
	case flag(s, heldBack):
		w.held = heldBack
	case flag(s, heldMoves):
		w.held = heldMoves
	}
	return w
}

// flag reports whether config/global sets a switch.
func flag(s *cluster.Snapshot, name string) bool {
	var f cluster.Flag
	raw, ok := s.Global[name]
	return ok && f.UnmarshalJSON(raw) == nil && bool(f)
}

// lastHeard is when an OSD last wrote its statistics; zero when it never did.
func lastHeard(s *cluster.Snapshot, n layout.OSDNum) time.Time {
	st, ok := s.OSDStats.Get(n)
	if !ok {
		return time.Time{}
	}
	sec, err := strconv.ParseFloat(st.Time, 64)
	if err != nil || sec <= 0 || sec > math.MaxInt32*100 {
		return time.Time{}
	}
	return time.Unix(int64(sec), 0).UTC()
}

// stamp writes a moment for people.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" }

// downText names an OSD that is down, on which host it was, and since when at most.
func downText(s *cluster.Snapshot, n layout.OSDNum) string {
	text := fmt.Sprintf("OSD %d", n)
	if st, ok := s.OSDStats.Get(n); ok && st.Host != "" {
		text += " on host " + st.Host
	}
	if text += " is down"; !lastHeard(s, n).IsZero() {
		text += " (last heard of " + stamp(lastHeard(s, n)) + ")"
	}
	return text
}

func (w *reasoner) up(n layout.OSDNum) bool {
	_, ok := w.s.OSDStates.Get(n)
	return ok
}

// published is the reason that the PG's primary wrote, if it still is its primary.
func (w *reasoner) published(id layout.PGID) string {
	st, ok := w.s.PGStates.Get(id)
	if !ok {
		return ""
	}
	return cluster.ClipReason(w.stats(id, st).Reason)
}

// explain sets why a PG waits or is not whole, and what would help; nothing when it is active and whole.
func (w *reasoner) explain(v *PG, p *cluster.Pool, id layout.PGID) {
	st, ok := w.s.PGStates.Get(id)
	if !ok || st.State&cluster.StateActive == 0 {
		v.Reason = w.whyWaits(p, id)
		return
	}
	v.cause = w.whyUnclean(id, st)
	if v.Reason = v.sentence(); v.Reason == "" && !st.State.Whole() {
		v.Reason = "its state is about to be written anew"
	}
}

// whyWaits explains a PG that is not served.
func (w *reasoner) whyWaits(p *cluster.Pool, id layout.PGID) string {
	st, taken := w.s.PGStates.Get(id)
	if w.s.Restoring != nil {
		return "a restore of etcd was begun and has not ended: run `holdfast etcd restore` again"
	}
	if len(w.unsaid) > 0 { // whoever has taken the PG only waits for that, too
		return fmt.Sprintf("etcd was restored from an older state, and %s not reported yet; start %s, or declare what is gone for good lost: `holdfast etcd lost OSD`", have(w.unsaid), them(w.unsaid))
	}
	if taken {
		if text := w.published(id); text != "" {
			return text
		}
		return fmt.Sprintf("OSD %d is taking it over and asks the others what they hold; that takes a moment", st.Primary)
	}
	return w.whyUntaken(p, id)
}

// whyUntaken explains a PG that no OSD has taken.
func (w *reasoner) whyUntaken(p *cluster.Pool, id layout.PGID) string {
	t, ok := w.s.PGConfig.Target(id)
	if ok && t.Pause {
		return "it is paused while the monitor changes the pool's pg_count; that ends by itself"
	}
	var missing []string
	rec, known := w.s.Records.Get(id)
	if known = known && rec.Generation == w.s.Generation(id.Pool) && rec.Activated != 0; known {
		for _, set := range rec.Sets {
			if text := w.whySet(rec, set); text != "" {
				missing = append(missing, text)
			}
		}
	}
	if more := len(missing) - maxSets; more > 0 {
		return strings.Join(missing[:maxSets], "; also ") + fmt.Sprintf("; and %d more", more)
	}
	if len(missing) > 0 {
		return strings.Join(missing, "; also ")
	}
	if text := w.whyTooFew(p, t); text != "" {
		return text
	}
	leader := "the monitor names one"
	if w.s.Master == nil {
		leader = "no monitor leads that could name one; start `holdfast mon`"
	}
	if t.Primary == 0 {
		return "it has no primary yet; " + leader
	}
	if !w.up(t.Primary) {
		return downText(w.s, t.Primary) + ", which is to be its primary; " + strings.Replace(leader, "names one", "names another", 1)
	}
	return fmt.Sprintf("OSD %d is to take it and has not yet; if that lasts look at its log", t.Primary)
}

// whySet explains a recorded set of which no store is up; empty when one is.
func (w *reasoner) whySet(rec *cluster.PGRecord, set cluster.PGSet) string {
	var members, down []layout.OSDNum
	var help []string
	for _, m := range set.Members {
		members = append(members, m.OSD)
		if !slices.Contains(rec.Participants, m) {
			continue // what it holds may be older: hearing it does not help
		}
		identity, known := w.s.Stores.Get(m.OSD)
		switch st, ok := w.s.OSDStates.Get(m.OSD); {
		case ok && !st.Store.IsZero() && st.Store != m.Store:
			help = append(help, fmt.Sprintf("OSD %d runs on another disk now: bring back the one with store %.8s, and accept it (`holdfast disk accept --keep-id`)", m.OSD, m.Store.String()))
		case ok:
			return ""
		case known && identity.IsRetired(m.Store):
			help = append(help, fmt.Sprintf("the disk of OSD %d with store %.8s was given up: if it is still there, accept it (`holdfast disk accept --keep-id`)", m.OSD, m.Store.String()))
		default:
			down = append(down, m.OSD)
		}
	}
	slices.Sort(members)
	if len(down) > 0 {
		slices.Sort(down)
		help = append([]string{"start " + anyOf(down)}, help...)
	}
	text := fmt.Sprintf("written in interval %d by %s", set.Interval, osdList(members))
	for _, n := range down {
		text += ", " + downText(w.s, n)
	}
	if len(help) == 0 {
		help = append(help, fmt.Sprintf("none of them took part in the last interval, %d: the PG's record is wrong; restore etcd from a snapshot", rec.Activated)) // no OSD writes such a one
	}
	return text + "; " + strings.Join(help, ", or ")
}

// whyTooFew explains a PG too few of whose OSDs are up; empty when enough are.
func (w *reasoner) whyTooFew(p *cluster.Pool, t cluster.PGTarget) string {
	var up, places int
	var down []layout.OSDNum
	for _, n := range t.OSDSet {
		switch {
		case n == 0:
		case w.up(n):
			up, places = up+1, places+1
		default:
			places++
			down = append(down, n)
		}
	}
	need := max(1, int(p.PGMinSize))
	if up >= need {
		return ""
	}
	text := fmt.Sprintf("%d of the %d OSDs that pg_minsize asks for are up", up, need)
	slices.Sort(down)
	for _, n := range down {
		text += ", " + downText(w.s, n)
	}
	var help []string
	if len(down) > 0 {
		if need-up == 1 {
			help = append(help, "start "+anyOf(down))
		} else {
			help = append(help, "start "+osdList(down))
		}
	}
	if places < need {
		help = append(help, fmt.Sprintf("only %d of its %d places are filled: add OSDs or hosts", places, max(len(t.OSDSet), int(p.PGSize))))
	}
	return text + "; " + strings.Join(help, "; ")
}

// whyUnclean explains a PG that is served and not whole, but for the counts; see PG.sentence.
func (w *reasoner) whyUnclean(id layout.PGID, st *cluster.PGState) string {
	t, _ := w.s.PGConfig.Target(id)
	v := w.stats(id, st)
	var list []string
	empty, joining := 0, []layout.OSDNum{}
	for _, n := range t.OSDSet {
		switch {
		case n == 0:
			empty++
		case slices.Contains(st.Peers, n):
		case w.up(n):
			joining = append(joining, n)
		default:
			text := downText(w.s, n) + ": start it"
			cfg, _ := w.s.OSDConfigs.Get(n)
			if w.noout || cfg != nil && bool(cfg.NoOut) {
				text += " (noout keeps its place)"
			} else {
				text += ", or its copies are made elsewhere after osd_out_time"
			}
			list = append(list, text)
		}
	}
	said := w.published(id)
	if said != "" {
		list = append(list, said)
	} else if len(joining) > 0 {
		list = append(list, "joining next, as up: "+osdList(joining))
	}
	if empty > 0 {
		list = append(list, fmt.Sprintf("%d of %d places are empty: add OSDs or hosts", empty, len(t.OSDSet)))
	}
	if v.UnfoundCount > 0 {
		list = append(list, "what is unfound could be read from no OSD: look at their logs and disks; it is tried again every second")
	}
	if v.CorruptedCount > 0 {
		list = append(list, "copies that cannot be read are replaced from others; look at the disks (`holdfast describe` names them)")
	}
	if left := w.s.LeftOnDead(id); len(left) > 0 {
		list = append(list, fmt.Sprintf("copies that nobody needs may be left on %s, down and without a place: they go when it is started, and do no harm", osdList(left)))
	}
	if v.RecoveryLeft > 0 && w.held == heldBack && !strings.Contains(said, heldBack) {
		list = append(list, heldBack+" holds recovery back: set it to false")
	}
	if v.RecoveryMisplaced > 0 && w.held == heldMoves && !strings.Contains(said, heldMoves) {
		list = append(list, heldMoves+" holds misplaced objects back: set it to false")
	}
	return strings.Join(list, "; ")
}

// The switches that hold recovery back, as reasons name them.
const (
	heldBack  = "no_recovery"  // everything
	heldMoves = "no_rebalance" // what is only misplaced
)

// stats are what the PG's present primary has published; empty when it has not yet.
func (w *reasoner) stats(id layout.PGID, st *cluster.PGState) *cluster.PGStats {
	if v, ok := w.s.PGStats.Get(id); ok && v.Mod >= st.Create {
		return v
	}
	return &cluster.PGStats{}
}

// sentence is the reason of PGs that are served: what is not whole, why, and what goes on.
func (p *PG) sentence() string {
	var list, counts []string
	for _, c := range []struct {
		n    uint64
		word string
	}{{p.Degraded, "degraded"}, {p.Misplaced, "misplaced"}, {p.Incomplete - min(p.Incomplete, p.Unfound), "incomplete"}, {p.Unfound, "unfound"}, {p.Corrupted, "corrupted"}, {p.Inconsistent, "inconsistent"}} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", c.n, c.word))
		}
	}
	if len(counts) > 0 {
		list = append(list, fmt.Sprintf("of %d objects %s", p.Objects, strings.Join(counts, ", ")))
	}
	if p.cause != "" {
		list = append(list, p.cause)
	}
	going := p.RecoveryLeft
	switch {
	case strings.Contains(p.cause, heldBack):
		going = 0
	case strings.Contains(p.cause, heldMoves):
		going -= p.RecoveryMisplaced
	}
	if going > 0 {
		list = append(list, fmt.Sprintf("%d are being copied", going))
	}
	return strings.Join(list, "; ")
}

// osdList is "OSD 2" or "OSDs 2,3".
func osdList(list []layout.OSDNum) string {
	if len(list) == 1 {
		return fmt.Sprintf("OSD %d", list[0])
	}
	return "OSDs " + joined(list, ",")
}

// anyOf is "OSD 2 or 3".
func anyOf(list []layout.OSDNum) string {
	if len(list) == 1 {
		return osdList(list)
	}
	last := len(list) - 1
	return "OSD " + joined(list[:last], ", ") + fmt.Sprintf(" or %d", list[last])
}

func joined(list []layout.OSDNum, between string) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = strconv.FormatUint(uint64(n), 10)
	}
	return strings.Join(out, between)
}

func have(list []layout.OSDNum) string {
	if len(list) == 1 {
		return osdList(list) + " has"
	}
	return osdList(list) + " have"
}

func them(list []layout.OSDNum) string {
	if len(list) == 1 {
		return "it"
	}
	return "them"
}

// Waits is the reason of one PG, or of several with the same, for people.
type Waits struct {
	PG     string `json:"pg"`     // "1/7"
	Others int    `json:"others"` // how many PGs more have the same reason
	Active bool   `json:"active"` // they are served, but not whole
	Reason string `json:"reason"`
}

// Line is "pg 1/7 waits: REASON", or "pg 1/7: REASON" for one that is served.
func (v Waits) Line() string {
	who, verb := "pg "+v.PG, " waits"
	if v.Others > 0 {
		who, verb = fmt.Sprintf("%s and %d more", who, v.Others), " wait"
	}
	if v.Active {
		verb = ""
	}
	return who + verb + ": " + v.Reason
}

// Reasons are those of a list of PGs, those first that are not served. PGs that are not whole for the same cause are taken together.
func Reasons(list []PG) []Waits {
	type group struct {
		sum   PG
		count int
	}
	groups := []*group{}
	find := map[string]*group{}
	for _, p := range list {
		if p.Reason == "" {
			continue
		}
		active := slices.Contains(p.State, "active")
		key := fmt.Sprint(active, p.Reason)
		if active {
			key = fmt.Sprint(active, p.cause, p.RecoveryLeft > 0)
		}
		g := find[key]
		if g == nil {
			g = &group{sum: p, count: 1}
			find[key] = g
			groups = append(groups, g)
			continue
		}
		g.count++
		if s := &g.sum; active {
			s.Objects, s.Degraded, s.Misplaced = s.Objects+p.Objects, s.Degraded+p.Degraded, s.Misplaced+p.Misplaced
			s.Incomplete, s.Unfound, s.RecoveryLeft = s.Incomplete+p.Incomplete, s.Unfound+p.Unfound, s.RecoveryLeft+p.RecoveryLeft
			s.RecoveryMisplaced, s.Corrupted = s.RecoveryMisplaced+p.RecoveryMisplaced, s.Corrupted+p.Corrupted
			s.Reason = cmp.Or(s.sentence(), s.Reason)
		}
	}
	out := []Waits{}
	for _, active := range []bool{false, true} {
		for _, g := range groups {
			if v := g.sum; slices.Contains(v.State, "active") == active {
				out = append(out, Waits{PG: fmt.Sprintf("%d/%d", v.PoolID, v.Num), Others: g.count - 1, Active: active, Reason: v.Reason})
			}
		}
	}
	return out
}
