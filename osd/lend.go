package osd

import (
	"cmp"
	"math"
	"slices"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/secondary"
)

// A primary lends its members the right to answer reads, with each renewal of its grants (docs/adr/0018-local-reads.md). Whatever was lent has ended before anything is served that the borrower might not
// know of:
//   - the primary itself ends an interval only when everybody has given the right back, or it has run out: it holds its own and the others' grants until then;
//   - whoever takes the PG over from a primary that died hears the borrowers, whose right ends as they grant their locks, or waits until it has run out. That a right may have been lent is in the record
//     before any is.

// lent is to whom rights are lent, and until when.
type lent struct {
	to    []borrower // by OSD
	timer loop.Timer
	done  func() // what waits for them to be given back
}

type borrower struct {
	osd      layout.OSDNum
	instance uint64
	until    loop.Instant // by our clock, and so at the latest by the borrower's
}

// mayLend reports whether the PG's pool has its members answer reads.
func (r *pgRun) mayLend() bool {
	p, ok := r.s.Snapshot().Pools.Get(r.id.Pool)
	return ok && p.LendsReads() && !r.s.o.LockConfirm
}

// lender is us, as records name who may lend.
func (s *OSD) lender() cluster.PGLender {
	return cluster.PGLender{OSD: s.o.Num, Instance: s.o.Instance}
}

// lends reports whether the record says that we may lend reads in the present interval.
func (r *pgRun) lends() bool { return r.saysSo(&r.record) }

func (r *pgRun) saysSo(rec *cluster.PGRecord) bool {
	return rec.Lender.Instance == r.s.o.Instance && rec.Activated == r.m.Interval
}

// lend is what the member may answer reads of from now on. A right ends before the earliest grant of its PG.
func (p *peerRun) lend() (list []secondary.ReadRight) {
	s := p.s
	if p.heard == 0 {
		return nil
	}
	now := s.l.Now()
	for id, g := range p.pgs { // order: sorted below
		r := s.pgs[id]
		if r == nil || r.served == nil || r.m.Phase != peering.Active || g.interval != r.served.Interval {
			continue
		}
		sent, mark, ok := r.served.Lends()
		if !ok || !r.mayLend() {
			continue
		}
		// As etcd has it now, which may have been set back.
		if rec, known := s.Snapshot().Records.Get(id); !known || !r.saysSo(rec) || !slices.ContainsFunc(r.m.Acting, func(a peering.Member) bool { return a.OSD == p.osd }) {
			continue
		}
		until := r.earliest()
		if until <= now {
			continue
		}
		// The member counts from when it sent its last answer, which was before that came, and takes a tenth off, more than clocks differ.
		r.lent.note(p.osd, g.instance, p.heardAt.Add(until.Sub(now)))
		list = append(list, secondary.ReadRight{PG: id, Interval: g.interval, Sent: sent, Mark: mark, For: until.Sub(now)})
	}
	slices.SortFunc(list, func(a, b secondary.ReadRight) int {
		return cmp.Or(cmp.Compare(a.PG.Pool, b.PG.Pool), cmp.Compare(a.PG.Num, b.PG.Num))
	})
	return list
}

// earliest is when the first of the grants ends that we hold of the other members. It is over when we hold none of one, and for one of an earlier version: as the next primary it would not wait.
func (r *pgRun) earliest() loop.Instant {
	until := loop.Instant(math.MaxInt64)
	for _, a := range r.m.Acting {
		if a.OSD == r.s.o.Num {
			continue
		}
		m := r.s.peers[a.OSD]
		if m == nil || m.pgs[r.id].instance == 0 {
			return 0
		}
		until = min(until, m.until)
	}
	return until
}

// note keeps until when an OSD may answer reads.
func (l *lent) note(osd layout.OSDNum, instance uint64, until loop.Instant) {
	i, ok := slices.BinarySearchFunc(l.to, osd, func(b borrower, osd layout.OSDNum) int { return cmp.Compare(b.osd, osd) })
	if !ok {
		l.to = slices.Insert(l.to, i, borrower{osd: osd, instance: instance})
	}
	l.to[i].until = max(l.to[i].until, until)
}

// recall has every right that was lent in the interval given back, and then calls done; at the latest when they have run out.
func (r *pgRun) recall(done func()) {
	s, l := r.s, &r.lent
	now := s.l.Now()
	l.to = slices.DeleteFunc(l.to, func(b borrower) bool { return b.until <= now || s.locks.Died(b.osd, b.instance) })
	if len(l.to) == 0 {
		done()
		return
	}
	l.done = done
	last := now
	for _, b := range slices.Clone(l.to) {
		last = max(last, b.until)
		g, held := s.peer(b.osd).pgs[r.id]
		if !held {
			continue // its connection is gone
		}
		s.peer(b.osd).dropped(r.id, g.interval)
		s.callJSON(b.osd, wire.OpSubUnlock, r.grantOf(g.interval), nil, func(retval int64, _ []byte, err error) {
			if err == nil && retval == 0 {
				r.returned(b)
			}
		})
	}
	s.l.Arm(&l.timer, last)
}

// returned says that a borrower has no right any more.
func (r *pgRun) returned(b borrower) {
	l := &r.lent
	if l.done == nil {
		return
	}
	if l.to = slices.DeleteFunc(l.to, func(a borrower) bool { return a == b }); len(l.to) == 0 {
		r.s.l.Disarm(&l.timer)
		r.recalled()
	}
}

// borrowersDied looks for rights that ended with the process that they were lent to.
func (s *OSD) borrowersDied() {
	for _, r := range s.sortedPGs() {
		for _, b := range slices.Clone(r.lent.to) {
			if s.locks.Died(b.osd, b.instance) {
				r.returned(b)
			}
		}
	}
}

// recalled goes on when no right is in force any more.
func (r *pgRun) recalled() {
	l := &r.lent
	done := l.done
	l.to, l.done = nil, nil
	done()
}

// lenderEnd is when rights have run out that another primary may have lent.
type lenderEnd struct {
	interval layout.Interval
	by       cluster.PGLender
	at       loop.Instant
}

// afterLender calls f when no right that another primary has lent in the last activated interval can be in force: each borrower has granted us its lock, which ended it, or has had the time that no grant outlasts. A
// primary that died is no borrower. That time counts from when we came here first: then a member of that set had granted us its lock, and without that no right of the interval is lent any more.
func (r *pgRun) afterLender(round uint64, f func()) {
	s, by := r.s, r.record.Lender
	if by.Instance == 0 || by.Instance == s.o.Instance || len(r.record.Sets) == 0 {
		f()
		return
	}
	heard := r.m.Heard()
	for _, m := range r.record.Sets[len(r.record.Sets)-1].Members {
		if m.OSD == by.OSD || slices.Contains(heard, peering.Member(m)) {
			continue
		}
		now := s.l.Now()
		if e := &r.lenderEnd; e.interval != r.record.Activated || e.by != by {
			*e = lenderEnd{r.record.Activated, by, now.Add(s.o.LockTime + time.Millisecond)}
		}
		if now >= r.lenderEnd.at {
			break
		}
		s.log.Info("PG waits until rights to read have run out", "pg", r.id.String(), "interval", uint64(r.m.Interval), "lent_by", uint64(by.OSD), "unheard", uint64(m.OSD))
		t := &loop.Timer{Fire: func() {
			if round == r.m.Round {
				f()
			}
		}}
		s.l.Arm(t, r.lenderEnd.at)
		return
	}
	f()
}
