package client

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/registry"
	"holdfast/core/wire"
)

const (
	// fenceRetry is the wait before an OSD is asked again that could not be asked.
	fenceRetry = 50 * time.Millisecond
	// fenceReload is how often the PGs' records are read again while an OSD that must answer does not.
	fenceReload = 500 * time.Millisecond
	// fenceRemind is how often a fence that takes long is spoken of.
	fenceRemind = 10 * time.Second
)

// ErrFenceForgotten says that a fence was not awaited to its end: write it again, and await that.
var ErrFenceForgotten = errors.New("etcd does not hold the fence any more, or has gone back to an earlier state while it was awaited: fence again")

// Fencing waits until a fence in etcd has come into force: until in every PG one member of the set that may be serving has applied it, and the locks have run out that it granted before. From then on no
// primary carries out anything of what is fenced: that member renews its lock only for primaries that have applied the fence, too. An interval that is activated later has applied it from its start.
//
// Each look at etcd is to show the fence. If one does not, or etcd has gone back to an earlier state in another way, the records may be older than the sets that serve, and who starts may not learn
// of the fence: the waiting fails. The last look comes after the OSDs have answered. If etcd goes back after that, they report the fence to it before another interval is activated.
type Fencing struct {
	c    *Client
	q    cluster.FenceRequest
	body []byte
	lock time.Duration
	done func(error)

	pending  map[layout.PGID]*fencedPG
	osds     map[layout.OSDNum]*fencedOSD
	loaded   bool              // records of the fence's revision or later
	settled  bool              // nothing is pending; the locks run out, and then comes the last look
	copy     int               // cluster.Snapshot.Copy at the beginning
	seen     registry.Revision // no look that is begun now may show an earlier one
	restored registry.Revision // of the declaration of a restore that has been reported to, when loaded
	waits    string            // for what it is not loaded
	retry    loop.Timer
	reload   loop.Instant
	remind   loop.Instant
	ended    bool
}

// fencedPG is a PG that may be served by a primary that has not applied the fence.
type fencedPG struct {
	interval layout.Interval
	members  []cluster.PGMember
}

type fencedOSD struct {
	call    peer.Call
	asked   bool
	applied layout.StoreID // by the OSD on this store
}

// AwaitFence calls done when the fence, which etcd has under name since revision, is in force. lock is the cluster's pg_lock_time. Until then nobody may act for the one who is fenced, however long it takes:
// an OSD that cannot be reached may still be serving it. With ErrFenceForgotten the fence has to be written again, and awaited anew.
func (c *Client) AwaitFence(name string, f cluster.Fence, revision registry.Revision, lock time.Duration, done func(error)) *Fencing {
	w := &Fencing{c: c, lock: lock, done: done, osds: map[layout.OSDNum]*fencedOSD{}, copy: c.snap.Copy, seen: revision}
	w.q = cluster.FenceRequest{NamedFence: cluster.NamedFence{Name: name, Fence: f}, Revision: int64(revision)}
	w.body = cluster.Value(&w.q)
	w.remind = c.l.Now().Add(fenceRemind)
	w.retry.Fire = w.step
	w.step()
	return w
}

// Stop gives the waiting up; done is not called any more.
func (w *Fencing) Stop() {
	w.ended = true
	w.c.l.Disarm(&w.retry)
}

func (w *Fencing) step() {
	c := w.c
	if w.ended || c.closed {
		return
	}
	c.l.Arm(&w.retry, c.l.Now().Add(fenceRetry))
	if now := c.l.Now(); now >= w.reload {
		w.reload = now.Add(fenceReload)
		since, last := w.seen, w.settled
		registry.Load(c.o.Registry, []string{
			cluster.PrefixPGRecord, cluster.PrefixOSDIdentity, cluster.PrefixPoolIdentity, cluster.KeyRestored, cluster.KeyRestoring, cluster.FenceKey(w.q.Name),
		}, func(kvs []registry.KV, rev registry.Revision, err error) {
			switch {
			case w.ended || err != nil:
			case rev < since || w.copy != c.snap.Copy:
				w.end(ErrFenceForgotten)
			default:
				w.seen = max(w.seen, rev)
				w.read(kvs, last)
			}
		})
	}
	w.ask()
}

// end is the outcome.
func (w *Fencing) end(err error) {
	w.Stop()
	w.done(err)
}

// read takes over what etcd holds. last says that it was asked for after everything was settled.
func (w *Fencing) read(kvs []registry.KV, last bool) {
	stores := map[layout.OSDNum]*cluster.OSDIdentity{}
	pools := map[layout.PoolID]int64{}
	records := map[layout.PGID]*cluster.PGRecord{}
	var restored cluster.Restored
	restoring, there := false, false
	for _, kv := range kvs {
		k, ok := cluster.ParseKey(kv.Key)
		if !ok {
			continue
		}
		switch k.Kind {
		case cluster.KindPoolIdentity:
			id := &cluster.PoolIdentity{Meta: cluster.Meta{Create: kv.Create}}
			if json.Unmarshal(kv.Value, id) != nil {
				return // which PGs are of an earlier pool cannot be said before it is corrected
			}
			pools[k.Pool] = id.Generation()
		case cluster.KindOSDIdentity:
			id := &cluster.OSDIdentity{}
			if json.Unmarshal(kv.Value, id) == nil {
				stores[k.OSD] = id
			}
		case cluster.KindPGRecord:
			r := &cluster.PGRecord{}
			if json.Unmarshal(kv.Value, r) == nil {
				records[k.PG] = r
			}
		case cluster.KindRestored:
			if json.Unmarshal(kv.Value, &restored) != nil {
				return // who has reported cannot be said before it is corrected
			}
			restored.Mod = kv.Mod
		case cluster.KindRestoring:
			restoring = true
		case cluster.KindFence:
			f := &cluster.Fence{}
			there = there || k.Name == w.q.Name && int64(kv.Mod) >= w.q.Revision && json.Unmarshal(kv.Value, f) == nil && w.q.Fence.Within(f)
		}
	}
	switch {
	case !there || w.loaded && restored.Mod != w.restored:
		w.end(ErrFenceForgotten)
		return
	case last:
		w.end(nil)
		return
	case !w.loaded:
		// Until all have reported, etcd may know earlier sets than those that serve.
		w.waits = ""
		for _, id := range stores { // order: a disjunction
			if restored.Mod != 0 && !id.Store.IsZero() && id.Reported != restored.ID {
				w.waits = "etcd was restored from an older state, and not every OSD has reported what it knows: start them, or declare what is gone lost (`holdfast etcd lost`)"
			}
		}
		if restoring {
			w.waits = "etcd is being restored"
		}
		if w.waits != "" {
			return
		}
		w.restored = restored.Mod
		w.loaded, w.pending = true, map[layout.PGID]*fencedPG{}
		for pg, r := range records { // order: each by itself
			if r.Activated != 0 && len(r.Sets) > 0 && w.q.Fence.Covers(pg.Pool) {
				w.pending[pg] = &fencedPG{interval: r.Activated, members: r.Sets[len(r.Sets)-1].Members}
			}
		}
	}
	for pg, p := range w.pending { // order: each by itself
		r := records[pg]
		gone := r == nil || pools[pg.Pool] != r.Generation || r.Activated > p.interval
		// A set whose stores have all been given up serves nobody: an operator has said so.
		if gone || !slices.ContainsFunc(p.members, func(m cluster.PGMember) bool { id := stores[m.OSD]; return id != nil && id.Store == m.Store }) {
			delete(w.pending, pg)
		}
	}
	w.look()
}

// ask puts the question to the OSDs that are up and could settle a PG.
func (w *Fencing) ask() {
	c := w.c
	list := w.needed()
	for _, n := range list {
		st, up := c.snap.OSDStates.Get(n)
		o := w.osds[n]
		if o == nil {
			o = &fencedOSD{}
			w.osds[n] = o
		}
		if !up || o.asked || o.applied == st.Store {
			continue
		}
		store := st.Store
		o.asked = true
		o.call = peer.Call{Meta: w.body}
		m := wire.Sub{Op: wire.OpFence, Meta: len(w.body)}
		m.Encode(&o.call.Header)
		o.call.Done = func(call *peer.Call) {
			o.asked = false
			if w.ended || call.Err != nil || call.Reply.Retval() != 0 {
				return
			}
			if now, up := c.snap.OSDStates.Get(n); up && now.Store == store {
				o.applied = store
				w.look()
			}
		}
		c.hub.Call(n, &o.call)
	}
	if now := c.l.Now(); now >= w.remind && (w.loaded || w.waits != "") {
		w.remind = now.Add(fenceRemind)
		why := w.waits
		if w.loaded {
			why = "OSDs that may be serving what is fenced do not answer"
		}
		c.log.Warn("a fence is not in force yet", "fence", w.q.Name, "why", why, "pgs", len(w.pending), "osds", list)
	}
}

// needed lists the OSDs that could settle a PG, in order.
func (w *Fencing) needed() []layout.OSDNum {
	var list []layout.OSDNum
	for _, p := range w.pending { // order: sorted below
		for _, m := range p.members {
			list = append(list, m.OSD)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// look settles PGs by what is known, and ends when none is left.
func (w *Fencing) look() {
	if !w.loaded || w.ended || w.settled {
		return
	}
	for pg, p := range w.pending { // order: each by itself
		for _, m := range p.members {
			if o := w.osds[m.OSD]; o != nil && o.applied == m.Store && !m.Store.IsZero() {
				delete(w.pending, pg)
				break
			}
		}
	}
	if len(w.pending) > 0 && !planted.FenceUnawaited {
		return
	}
	w.settled, w.reload = true, 0
	w.c.l.Arm(&w.retry, w.c.l.Now().Add(w.lock+w.lock/4)) // the locks that were renewed just before; then step looks for the last time
}
