package osd

import (
	"slices"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/planted"
	"holdfast/core/registry"
	"holdfast/osd/primary"
	"holdfast/osd/scrub"
	"holdfast/osd/store"
)

// Scrubbing says when PGs are scrubbed, and how.
type Scrubbing struct {
	Auto     bool          // auto_scrub
	Interval time.Duration // scrub_interval, where a pool has none of its own
	Pass     scrub.Tuning
}

// DefaultScrubbing is what the parameters say where nobody has set them.
func DefaultScrubbing() Scrubbing {
	return Scrubbing{Interval: 30 * 24 * time.Hour, Pass: scrub.DefaultTuning()}
}

const (
	// scrubAgain is after how long a PG is scrubbed again of which not everything could be compared.
	scrubAgain = 24 * time.Hour
	// scrubLook is the longest time after which it is looked again which PG is due.
	scrubLook = time.Minute
	// scrubPause is how long after a pass was broken off, or etcd did not take what was written.
	scrubPause = 5 * time.Second
	// scrubKept is how old a pass may be that is gone on with.
	scrubKept = 7 * 24 * time.Hour
)

// scrubs has the PGs scrubbed that we are primary of, one at a time, when their histories say so (next_scrub), and keeps in etcd what was done and found (docs/adr/0023-scrub.md).
type scrubs struct {
	s   *OSD
	how Scrubbing
	run *scrub.Scrubber

	r       *pgRun             // whose pass is under way, or being written down
	ending  *cluster.ScrubPass // it is at its end, which is not written down yet
	serves  int64              // the next_scrub that it serves
	before  uint64             // bytes read when progress was written last,
	wrote   loop.Instant
	timer   loop.Timer // to look which is due
	writes  loop.Timer // to write progress
	looking loop.Task
}

func (b *scrubs) init(s *OSD) {
	b.s, b.how = s, DefaultScrubbing()
	b.run = scrub.New(s.l, b)
	b.timer.Fire = b.look
	b.writes.Fire = b.progress
	b.looking.Run = b.look
}

// tune takes over how it is done.
func (b *scrubs) tune(how Scrubbing) {
	b.how = how
	b.run.Tune(how.Pass)
	b.s.l.Defer(&b.looking)
}

// stop ends it.
func (b *scrubs) stop() {
	b.run.Stop()
	b.s.l.Disarm(&b.timer)
	b.s.l.Disarm(&b.writes)
	b.r = nil
}

// List brings objects of a PG that our store has.
func (b *scrubs) List(pg layout.PGID, after uint64) (list []layout.ObjectID, next uint64, more bool) {
	entries, at, more := b.s.sec.List(pg, store.Cursor(after), 4096)
	for _, e := range entries {
		if store.StateFlags(e.Flags)&(store.Tombstone|store.Void) == 0 {
			list = append(list, e.Object.Whole())
		}
	}
	return list, uint64(at), more
}

// Compare is the primary's.
func (b *scrubs) Compare(pg layout.PGID, id layout.ObjectID, done func(primary.Compared)) {
	b.s.prim.Compare(pg, id, done)
}

// Rest is the primary's.
func (b *scrubs) Rest(took time.Duration) time.Duration { return b.s.prim.Rest(took) }

// interval is how often a PG is to be scrubbed without anybody's asking; 0: never.
func (b *scrubs) interval(pg layout.PGID) time.Duration {
	if !b.how.Auto {
		return 0
	}
	if pool, ok := b.s.Snapshot().Pools.Get(pg.Pool); ok {
		if d, ok := pool.ScrubEvery(); ok {
			return d
		}
	}
	return b.how.Interval
}

// look starts the pass that has been due for longest.
func (b *scrubs) look() {
	s := b.s
	switch {
	case s.stopping || s.failed || !s.leaseUp:
		return
	case b.ending != nil:
		b.finish()
		return
	case b.r != nil:
		b.recall()
		return
	}
	now := s.l.Wall()
	var next *pgRun
	due, wake := int64(0), now.Add(scrubLook).Unix()
	for _, r := range s.sortedPGs() {
		h, ok := s.Snapshot().Histories.Get(r.id)
		if !ok || r.served == nil || !r.haveState || !r.scrub.known {
			continue
		}
		at := h.NextScrub
		if every := b.interval(r.id); every > 0 && (at == 0 || at > now.Add(every).Unix()) {
			// At different times: they are not all made at once, nor scrubbed.
			at = now.Unix() + 1 + s.l.Rand().Int64N(max(1, int64(every/time.Second)))
			b.schedule(r, h, at)
		}
		switch {
		case at == 0:
		case at > now.Unix():
			wake = min(wake, at)
		case next == nil || at < due:
			next, due = r, at
		}
	}
	s.l.Arm(&b.timer, s.l.Now().Add(max(time.Second, time.Unix(wake, 0).Sub(now))))
	if next != nil && !b.how.Pass.Paused {
		b.begin(next, due)
	}
}

// recall breaks the pass off if it is not wanted any more. What it has done is kept.
func (b *scrubs) recall() {
	r := b.r
	if h, ok := b.s.Snapshot().Histories.Get(r.id); ok && (h.NextScrub == 0 || h.NextScrub > b.s.l.Wall().Unix()) {
		b.note(b.run.Done())
		b.run.Stop()
		r.putScrub()
		b.over()
	}
}

// schedule writes when a PG is to be scrubbed.
func (b *scrubs) schedule(r *pgRun, h *cluster.PGHistory, at int64) {
	if r.scrub.scheduling {
		return
	}
	r.scrub.scheduling = true
	next := *h
	next.NextScrub = at
	key := cluster.PGHistoryKey(r.id)
	b.s.txn(registry.Txn{
		If:   []registry.Compare{registry.HeldBy(cluster.PGStateKey(r.id), b.s.lease.ID()), registry.Unchanged(key, h.Mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&next)}},
	}, func(registry.TxnResult, error) { r.scrub.scheduling = false })
}

// begin begins a pass, or goes on with the one that was broken off.
func (b *scrubs) begin(r *pgRun, due int64) {
	s, k := b.s, &r.scrub
	now := s.l.Wall()
	p := k.rec.Pass
	if p == nil || p.Ended != 0 || now.Sub(time.Unix(p.Began, 0)) > scrubKept || p.Began > now.Unix() {
		p = &cluster.ScrubPass{Began: now.Unix()}
		k.rec.Pass = p
	}
	p.Total = max(cluster.Number(s.o.Store.CountPG(r.id)), p.Objects)
	p.Partial = p.Partial || len(r.m.Acting) < r.size
	b.r, b.serves, b.before, b.wrote = r, due, uint64(p.Bytes), s.l.Now()
	s.log.Info("scrub begins", "pg", r.id.String(), "objects", uint64(p.Total), "done", uint64(p.Objects))
	b.run.Start(r.id, scrub.Done{
		At:      layout.ObjectID{Inode: layout.Inode(p.Inode), Stripe: uint64(p.Stripe)},
		Objects: uint64(p.Objects), Bytes: uint64(p.Bytes), Bad: uint64(p.Bad), Inconsistent: uint64(p.Inconsistent), Lost: uint64(p.Lost), Skipped: uint64(p.Skipped),
	}, b.ended)
	s.l.Arm(&b.writes, s.l.Now().Add(progressInterval))
	s.l.Defer(&r.report)
}

// note takes over what the pass has done.
func (b *scrubs) note(d scrub.Done) {
	p := b.r.scrub.rec.Pass
	p.Inode, p.Stripe = cluster.Number(d.At.Inode), cluster.Number(d.At.Stripe)
	p.Objects, p.Bytes, p.Bad = cluster.Number(d.Objects), cluster.Number(d.Bytes), cluster.Number(d.Bad)
	p.Inconsistent, p.Lost, p.Skipped = cluster.Number(d.Inconsistent), cluster.Number(d.Lost), cluster.Number(d.Skipped)
	p.Total = max(p.Total, p.Objects)
}

// progress writes how far the pass is.
func (b *scrubs) progress() {
	s := b.s
	if _, going := b.run.Going(); !going {
		return
	}
	b.note(b.run.Done())
	p := b.r.scrub.rec.Pass
	if dt := s.l.Now().Sub(b.wrote).Seconds(); dt > 0 {
		p.Rate = cluster.Number(float64(uint64(p.Bytes)-b.before) / dt)
	}
	b.before, b.wrote = uint64(p.Bytes), s.l.Now()
	b.r.putScrub()
	s.l.Arm(&b.writes, s.l.Now().Add(progressInterval))
}

// left is called when a PG is not served any more.
func (b *scrubs) left(r *pgRun) {
	if b.r == r {
		if _, going := b.run.Going(); going {
			b.note(b.run.Done())
			r.putScrub()
		}
		b.run.Stop()
		b.over()
	}
	r.scrub.known = false
}

// over is the end of a pass, as far as we have to do with it.
func (b *scrubs) over() {
	s, r := b.s, b.r
	b.r, b.ending = nil, nil
	s.l.Disarm(&b.writes)
	s.l.Defer(&r.report)
	if !s.stopping && !s.failed {
		s.l.Arm(&b.timer, s.l.Now().Add(scrubPause))
	}
}

// ended takes the end of a pass.
func (b *scrubs) ended(d scrub.Done, whole bool) {
	s, r := b.s, b.r
	b.note(d)
	if !whole {
		r.putScrub()
		b.over()
		return
	}
	p := r.scrub.rec.Pass
	p.Ended, p.Inode, p.Stripe = s.l.Wall().Unix(), 0, 0
	p.Partial = p.Partial || len(r.m.Acting) < r.size
	if took := p.Ended - p.Began; took > 0 {
		p.Rate = p.Bytes / cluster.Number(took)
	}
	ended := *p
	b.ending = &ended
	b.finish()
}

// finish writes the end of a pass down, and when the next one is to be. It is tried until it succeeds, or the PG is not ours any more.
func (b *scrubs) finish() {
	s, r, p := b.s, b.r, *b.ending
	s.l.Arm(&b.timer, s.l.Now().Add(scrubPause))
	if !r.haveState || s.lease == nil || r.scrub.putting {
		return
	}
	rec := r.scrub.rec
	rec.Pass, rec.Last = nil, &p
	if (p.Sound() || planted.VerifiedUnsound) && len(r.served.Disputed()) == 0 {
		rec.Verified, rec.Began = p.Ended, p.Began
	}
	rec.Inconsistent = r.disputed()
	historyKey, scrubKey := cluster.PGHistoryKey(r.id), cluster.PGScrubKey(r.id)
	t := registry.Txn{
		If:   []registry.Compare{registry.HeldBy(cluster.PGStateKey(r.id), s.lease.ID())},
		Then: []registry.Op{{Kind: registry.Put, Key: scrubKey, Value: cluster.Value(&rec)}},
	}
	if h, ok := s.Snapshot().Histories.Get(r.id); ok {
		t.If = append(t.If, registry.Unchanged(historyKey, h.Mod))
		if h.NextScrub == b.serves { // nobody has asked for another one
			next := *h
			next.NextScrub = 0
			every := b.interval(r.id)
			if every > 0 {
				next.NextScrub = p.Ended + int64(every/time.Second)
			}
			if again := p.Ended + int64(scrubAgain/time.Second); p.Skipped > 0 || p.Partial {
				if next.NextScrub == 0 || again < next.NextScrub {
					next.NextScrub = again
				}
			}
			t.Then = append(t.Then, registry.Op{Kind: registry.Put, Key: historyKey, Value: cluster.Value(&next)})
		}
	}
	k := &r.scrub
	k.putting = true
	s.txn(t, func(res registry.TxnResult, err error) {
		k.putting = false
		ours := b.r == r && b.ending != nil && err == nil && res.Succeeded
		if ours {
			k.rec = rec
		}
		if k.again {
			k.again = false
			r.putScrub()
		}
		if !ours {
			return // it is tried again, if it is not over
		}
		log := s.log.Info
		if !p.Sound() || p.Bad > 0 {
			log = s.log.Warn
		}
		log("scrub ends", "pg", r.id.String(), "objects", uint64(p.Objects), "bytes", uint64(p.Bytes), "wrong_copies", uint64(p.Bad), "inconsistent", uint64(p.Inconsistent), "lost", uint64(p.Lost), "skipped", uint64(p.Skipped))
		b.over()
		s.l.Arm(&b.timer, s.l.Now().Add(time.Second)) // by then we have heard of what was written
	})
}

// pgScrub is what a PG that we serve has of scrub/pg.
type pgScrub struct {
	known   bool // it was read when the PG was activated
	rec     cluster.PGScrub
	putting bool
	again   bool // there is more to be written

	scheduling bool // next_scrub is being written
}

// adoptScrub takes over what scrub/pg holds as the PG is activated.
func (r *pgRun) adoptScrub(kvs []registry.KV) {
	r.scrub = pgScrub{known: true}
	rec, count := &r.scrub.rec, cluster.Number(r.s.Snapshot().PGConfig.Count(r.id.Pool))
	if len(kvs) == 1 {
		if v, err := cluster.ReadPGScrub(kvs[0]); err == nil && uint64(v.Generation) == r.generation {
			if *rec = *v; v.PGCount != count {
				*rec = cluster.PGScrub{Inconsistent: v.Inconsistent}
			}
		}
	}
	rec.Generation, rec.PGCount = int64(r.generation), count
}

// doubt has what was inconsistent compared before it is served.
func (r *pgRun) doubt() {
	var list []layout.ObjectID
	if planted.DoubtForgotten {
		return
	}
	for _, o := range r.scrub.rec.Inconsistent {
		if id := o.ID(); id.Inode.Pool() == r.id.Pool && r.served.Geometry.PG(id.Stripe) == r.id.Num {
			list = append(list, id)
		}
	}
	r.served.Doubt(list)
	served := r.served
	var next func()
	next = func() {
		if len(list) == 0 || r.served != served {
			return
		}
		id := list[0]
		list = list[1:]
		r.s.prim.Compare(r.id, id, func(primary.Compared) { r.s.l.Post(&loop.Task{Run: next}) })
	}
	next()
}

// disputed are the PG's inconsistent objects, as they are written down.
func (r *pgRun) disputed() (list []cluster.ScrubObject) {
	for _, id := range r.served.Disputed() {
		if len(list) == cluster.MaxInconsistent {
			break
		}
		list = append(list, cluster.ScrubObject{Inode: cluster.Number(id.Inode), Stripe: cluster.Number(id.Stripe)})
	}
	return list
}

// restateScrub writes down which objects are inconsistent, if that has changed.
func (r *pgRun) restateScrub() {
	if r.served != nil && r.scrub.known && !slices.Equal(r.disputed(), r.scrub.rec.Inconsistent) {
		r.putScrub()
	}
}

// putScrub writes what is known of the PG's scrub.
func (r *pgRun) putScrub() {
	s, k := r.s, &r.scrub
	if !k.known || !r.haveState || s.lease == nil {
		return
	}
	if k.putting {
		k.again = true
		return
	}
	if r.served != nil {
		k.rec.Inconsistent = r.disputed()
	}
	k.putting = true
	s.txn(registry.Txn{
		If:   []registry.Compare{registry.HeldBy(cluster.PGStateKey(r.id), s.lease.ID())},
		Then: []registry.Op{{Kind: registry.Put, Key: cluster.PGScrubKey(r.id), Value: cluster.Value(&k.rec)}},
	}, func(registry.TxnResult, error) {
		k.putting = false
		if k.again {
			k.again = false
			r.putScrub()
		}
	})
}
