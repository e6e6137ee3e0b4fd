package osd

import (
	"slices"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// Who may still hold copies of a PG that it does not need any more: pg/history names them beside those that the record names. A PG is left_on_dead while one of them is down. One that is up
// removes its copies (strayJob), and then its name.

// history is pg/history as it follows from a PG's record. Those who were named before stay: nobody knows yet that they hold nothing any more.
func (s *OSD) history(pg layout.PGID, rec *cluster.PGRecord) *cluster.PGHistory {
	h := &cluster.PGHistory{Epoch: uint64(rec.Interval)}
	add := func(n layout.OSDNum) {
		if !slices.Contains(h.AllPeers, n) {
			h.AllPeers = append(h.AllPeers, n)
		}
	}
	for _, m := range rec.Participants {
		add(m.OSD)
	}
	for i, set := range rec.Sets {
		var osds []layout.OSDNum
		for _, m := range set.Members {
			add(m.OSD)
			osds = append(osds, m.OSD)
		}
		if i < len(rec.Sets)-1 {
			h.OSDSets = append(h.OSDSets, osds)
		}
	}
	snap := s.Snapshot()
	if old, ok := snap.Histories.Get(pg); ok {
		h.NextScrub = old.NextScrub
		for _, n := range old.AllPeers {
			if _, known := snap.Stores.Get(n); known {
				add(n)
			}
		}
	}
	slices.Sort(h.AllPeers)
	return h
}

// restated has the PG's state written anew if others' coming and going has changed it.
func (r *pgRun) restated() {
	if r.haveState && (r.shown.State^cluster.StateBits(r.bits()))&cluster.StateLeftOnDead != 0 {
		r.s.l.Defer(&r.report)
	}
}

// holdsNothing reports whether this store holds nothing of a PG whose history names it, and is not to.
func (j *strayJob) holdsNothing(s *OSD, pg layout.PGID) bool {
	now, ok := s.Snapshot().Records.Get(pg)
	if t, _ := s.Snapshot().PGConfig.Target(pg); !ok || !now.Active() || slices.Contains(t.OSDSet, s.o.Num) || s.pgs[pg] != nil || slices.ContainsFunc(now.Participants, s.isUs) {
		return false
	}
	for _, set := range now.Sets {
		if slices.ContainsFunc(set.Members, s.isUs) {
			return false
		}
	}
	rec, known := s.o.Store.PG(pg)
	last, empty := j.empty[pg]
	return !known || empty && last == rec.Interval
}

func (s *OSD) isUs(m cluster.PGMember) bool { return m.OSD == s.o.Num }

// maxForgetting is how many histories one OSD writes at once; the others follow with the next statistics.
const maxForgetting = 64

// forgetUs takes our number out of the histories of PGs of which this store holds nothing.
func (j *strayJob) forgetUs(s *OSD) {
	for pg, h := range s.Snapshot().Histories.All() {
		j.forgetUsIn(s, pg, h)
	}
}

func (j *strayJob) forgetUsIn(s *OSD, pg layout.PGID, h *cluster.PGHistory) {
	if j.forgetting[pg] || len(j.forgetting) == maxForgetting || !slices.Contains(h.AllPeers, s.o.Num) || !j.holdsNothing(s, pg) {
		return
	}
	if j.forgetting == nil {
		j.forgetting = map[layout.PGID]bool{}
	}
	j.forgetting[pg] = true
	now := *h
	now.AllPeers = slices.DeleteFunc(slices.Clone(h.AllPeers), func(n layout.OSDNum) bool { return n == s.o.Num })
	key := cluster.PGHistoryKey(pg)
	s.o.Registry.Txn(registry.Txn{
		If:   []registry.Compare{registry.Unchanged(key, h.Mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&now)}},
	}, func(registry.TxnResult, error) { delete(j.forgetting, pg) }) // tried again with the next statistics
}
