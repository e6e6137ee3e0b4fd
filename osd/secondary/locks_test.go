package secondary

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

const ttl = 1500 * time.Millisecond

var thePG = layout.PGID{Pool: 1, Num: 1}

// member is a process with a store and its lock table.
type member struct {
	t     testing.TB
	w     *sim.World
	l     *sim.Loop
	st    *store.Store
	locks *Locks
	self  Holder
	ppm   int64
	drift time.Duration
}

func newMember(t testing.TB, w *sim.World) *member {
	m := &member{t: t, w: w, self: Holder{OSD: 9, Instance: 900, Store: layout.StoreID{9}}}
	w.NewDisk("d", 16<<20, 4096)
	l := w.NewLoop("format")
	d, err := l.OpenDisk("d", loop.DiskOptions{})
	if err != nil {
		t.Fatal(err)
	}
	done := false
	store.Format(l, d, store.Config{JournalSize: 2 << 20}, func(_ store.Superblock, err error) {
		if err != nil {
			t.Fatal(err)
		}
		d.Close(func() { done = true })
	})
	if !w.RunUntil(func() bool { return done }, time.Minute) {
		t.Fatal("format does not end")
	}
	m.start()
	return m
}

// start opens the store in a new process with an empty lock table.
func (m *member) start() {
	m.self.Instance++
	m.l = m.w.NewLoop("member")
	m.l.SetClock(m.drift, m.ppm)
	d, err := m.l.OpenDisk("d", loop.DiskOptions{})
	if err != nil {
		m.t.Fatal(err)
	}
	m.st = nil
	store.Open(m.l, d, store.Options{}, func(s *store.Store, err error) {
		if err != nil {
			m.t.Fatal(err)
		}
		m.st = s
		m.locks = NewLocks(m.l, s, m.self, ttl, nil)
	})
}

func (m *member) up() {
	m.t.Helper()
	if !m.w.RunUntil(func() bool { return m.st != nil }, time.Minute) {
		m.t.Fatal("the store does not open")
	}
}

func (m *member) restart() {
	m.l.Kill()
	m.start()
	m.up()
}

// lock asks and waits for the answer.
func (m *member) lock(h Holder, interval layout.Interval) (retval int64, a LockReply) {
	return m.lockPG(h, thePG, interval)
}

func (m *member) lockPG(h Holder, pg layout.PGID, interval layout.Interval) (retval int64, a LockReply) {
	m.t.Helper()
	done := false
	m.locks.Lock(LockRequest{Holder: h, PG: pg, Generation: 5, Interval: interval}, func(r int64, b LockReply) { retval, a, done = r, b, true })
	if !m.w.RunUntil(func() bool { return done }, time.Minute) {
		m.t.Fatal("a lock request is not answered")
	}
	return retval, a
}

func (m *member) holds(h Holder, interval layout.Interval) bool {
	return m.locks.Holds(wire.Grant{PG: thePG, Interval: interval, Instance: h.Instance})
}

var (
	osdA  = Holder{OSD: 1, Instance: 11, Store: layout.StoreID{1}}
	osdA2 = Holder{OSD: 1, Instance: 12, Store: layout.StoreID{1}} // the next process of OSD 1
	osdA3 = Holder{OSD: 1, Instance: 13, Store: layout.StoreID{7}} // OSD 1 on another disk
	osdB  = Holder{OSD: 2, Instance: 21, Store: layout.StoreID{2}}
)

func withMember(t *testing.T, f func(t *testing.T, m *member)) {
	w := sim.NewWorld(1)
	defer w.Close()
	m := newMember(t, w)
	m.up()
	f(t, m)
}

func expect(t *testing.T, what string, have, want int64) {
	t.Helper()
	if have != want {
		t.Errorf("%s = %d, want %d", what, have, want)
	}
}

func TestGrantRunsOut(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		r, a := m.lock(osdA, 3)
		expect(t, "first lock", r, 0)
		if a.Seen != 3 || !m.holds(osdA, 3) || m.holds(osdA, 2) || m.holds(osdA2, 3) {
			t.Errorf("after the grant: %+v", a)
		}
		r, _ = m.lock(osdB, 4)
		expect(t, "lock while another holds it", r, wire.EBUSY)
		m.w.Run(ttl + time.Millisecond)
		if m.holds(osdA, 3) {
			t.Error("the grant is in force after T")
		}
		r, _ = m.lock(osdA, 3)
		expect(t, "the lapsed interval again", r, wire.ESTALE)
		r, _ = m.lock(osdB, 4)
		expect(t, "lock after T", r, 0)
		r, a = m.lock(osdA, 4)
		expect(t, "an interval that is not new", r, wire.ESTALE)
		if a.Seen != 4 {
			t.Errorf("seen = %d, want 4", a.Seen)
		}
	})
}

func TestRenewalDoesNotProlongAContestedGrant(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		other := layout.PGID{Pool: 1, Num: 2}
		m.lock(osdA, 3)
		m.lockPG(osdA, other, 3)
		_, a := m.locks.Renew(RenewRequest{Holder: osdA})
		if len(a.Grants) != 2 {
			t.Fatalf("grants listed: %+v", a)
		}
		m.w.Run(ttl / 2)
		r, _ := m.lock(osdB, 4)
		expect(t, "contesting", r, wire.EBUSY)
		for range 4 {
			r, b := m.locks.Renew(RenewRequest{Holder: osdA, Revision: a.Revision})
			expect(t, "renewal", r, 0)
			if !slices.Equal(b.Grants, []HeldGrant{{PG: other, Interval: 3}}) {
				t.Fatalf("the holder is not told that a grant is contested: %+v", b)
			}
			m.w.Run(ttl / 4)
		}
		if m.holds(osdA, 3) {
			t.Error("the contested grant was prolonged")
		}
		if !m.locks.Holds(wire.Grant{PG: other, Interval: 3, Instance: osdA.Instance}) {
			t.Error("the other PG's grant has run out in spite of renewals")
		}
		r, _ = m.lock(osdB, 4)
		expect(t, "after it has run out", r, 0)
	})
}

func TestLapsedGrantsAreNotRevivedByANewOne(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(osdA, 3)
		_, a := m.locks.Renew(RenewRequest{Holder: osdA})
		m.w.Run(2 * ttl)
		r, _ := m.locks.Renew(RenewRequest{Holder: osdA, Revision: a.Revision})
		expect(t, "a renewal too late", r, wire.ESTALE)
		other := layout.PGID{Pool: 1, Num: 2}
		r, _ = m.lockPG(osdA, other, 3)
		expect(t, "another PG", r, 0)
		if m.holds(osdA, 3) {
			t.Error("a grant that lapsed is in force again")
		}
		_, b := m.locks.Renew(RenewRequest{Holder: osdA, Revision: a.Revision})
		if !slices.Equal(b.Grants, []HeldGrant{{PG: other, Interval: 3}}) {
			t.Errorf("the holder is not told what it has left: %+v", b)
		}
	})
}

func TestUnlock(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(osdA, 3)
		m.locks.Unlock(wire.Grant{PG: thePG, Interval: 2, Instance: osdA.Instance})
		m.locks.Unlock(wire.Grant{PG: thePG, Interval: 3, Instance: osdB.Instance})
		if !m.holds(osdA, 3) {
			t.Fatal("somebody else's unlock ended the grant")
		}
		m.locks.Unlock(wire.Grant{PG: thePG, Interval: 3, Instance: osdA.Instance})
		r, _ := m.lock(osdB, 4)
		expect(t, "lock after unlock", r, 0)
		m.locks.GiveBack(thePG)
		if !m.holds(osdB, 4) {
			t.Error("GiveBack ended another OSD's grant")
		}
	})
}

func TestOwnGrantLastsUntilGivenBack(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(m.self, 3)
		m.w.Run(10 * ttl)
		r, _ := m.lock(osdB, 4)
		expect(t, "lock while our own primary serves", r, wire.EBUSY)
		m.locks.GiveBack(thePG)
		r, _ = m.lock(osdB, 4)
		expect(t, "lock after GiveBack", r, 0)
	})
}

func TestDeadInstances(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(osdA, 3)
		m.locks.Dead(osdB.OSD, osdA.Instance)
		if !m.holds(osdA, 3) {
			t.Fatal("another OSD's parent ended the grant")
		}
		m.locks.Dead(m.self.OSD, m.self.Instance)
		m.locks.Dead(osdA.OSD, osdA.Instance)
		if m.holds(osdA, 3) {
			t.Error("a dead instance's grant is in force")
		}
		r, _ := m.locks.Renew(RenewRequest{Holder: osdA})
		expect(t, "renewal of a dead instance", r, wire.ESTALE)
		r, _ = m.lock(osdA, 4)
		expect(t, "lock of a dead instance", r, wire.ESTALE)
		r, _ = m.lock(osdB, 4)
		expect(t, "lock at once after the report", r, 0)
		r, _ = m.lockPG(m.self, layout.PGID{Pool: 1, Num: 3}, 4)
		expect(t, "our own lock after a report of our death", r, 0)
		for i := range uint64(1000) {
			m.locks.Dead(osdA.OSD, 1000+i)
		}
		if n := len(m.locks.dead[osdA.OSD]); n != maxDead {
			t.Errorf("%d dead instances are remembered, want %d", n, maxDead)
		}
	})
}

func TestNextProcessOnTheSameStoreSucceeds(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(osdA, 3)
		r, _ := m.lock(osdA3, 4)
		expect(t, "the same number on another disk", r, wire.EBUSY)
		r, _ = m.lock(osdA2, 4)
		expect(t, "the next process", r, 0)
		if m.holds(osdA, 3) || !m.holds(osdA2, 4) {
			t.Error("the grant did not pass on")
		}
	})
}

func TestAfterARestartOnlyTheLastHolderIsGrantedForT(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(osdA, 3)
		m.restart()
		if m.holds(osdA, 3) {
			t.Error("a grant outlived the process that gave it")
		}
		r, a := m.lock(osdB, 4)
		expect(t, "another primary after our restart", r, wire.EBUSY)
		if a.Seen != 3 {
			t.Errorf("seen = %d, want 3", a.Seen)
		}
		r, _ = m.lock(osdA3, 4)
		expect(t, "the holder's number on another disk", r, wire.EBUSY)
		r, _ = m.lock(osdA, 3)
		expect(t, "the holder in its old interval", r, wire.ESTALE)
		m.w.Run(ttl)
		r, _ = m.lock(osdB, 4)
		expect(t, "another primary after T", r, 0)
		m.restart()
		r, _ = m.lock(osdB, 5)
		expect(t, "the holder after our restart", r, 0)
	})
}

func TestLockWaitsForChangesUnderWay(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(osdA, 3)
		m.locks.begin(thePG)
		answered := false
		m.locks.Lock(LockRequest{Holder: osdA2, PG: thePG, Generation: 5, Interval: 4}, func(int64, LockReply) { answered = true })
		m.w.Run(10 * time.Second)
		if answered || m.holds(osdA, 3) {
			t.Fatal("granted while a change of the holder before was under way, or that one still holds it")
		}
		m.locks.end(thePG)
		m.w.Run(time.Second)
		if !answered {
			t.Error("not granted after the change has ended")
		}
	})
}

func TestPoolMadeAnewForgetsItsIntervals(t *testing.T) {
	withMember(t, func(t *testing.T, m *member) {
		m.lock(osdA, 9)
		m.w.Run(ttl)
		var r int64
		ask := func(generation uint64, earlier *int64, interval layout.Interval) {
			done := false
			m.locks.Lock(LockRequest{Holder: osdB, PG: thePG, Generation: generation, Earlier: earlier, Interval: interval}, func(v int64, _ LockReply) { r, done = v, true })
			m.w.RunUntil(func() bool { return done }, time.Minute)
		}
		ask(4, nil, 20)
		expect(t, "an older pool of the number", r, wire.ENOENT)
		known := int64(4)
		ask(6, &known, 1)
		expect(t, "a pool of which etcd did not know that it is newer", r, wire.ENOENT)
		if rec, _ := m.st.PG(thePG); rec.Generation != 5 || rec.Interval != 9 {
			t.Errorf("the store knows %+v no more", rec)
		}
		known = 5
		ask(6, &known, 1)
		expect(t, "a newer pool of the number", r, 0)
	})
}

// rival is a would-be primary under the holder's rule of osd's peerRun: a grant counts until 0.9 T after the renewal that confirmed it was sent, by its own clock, and only as
// long as the member's list has it.
type rival struct {
	r        *race
	l        *sim.Loop
	h        Holder
	held     bool
	interval layout.Interval
	since    loop.Instant
	until    loop.Instant
	revision uint64
	renewing bool
	tick     loop.Timer
}

type race struct {
	w      *sim.World
	rng    *rand.Rand
	m      *member
	rivals []*rival
	next   layout.Interval
	served int
}

func (q *race) delay() time.Duration {
	d := time.Duration(q.rng.IntN(20)) * time.Millisecond
	if q.rng.IntN(6) == 0 {
		d += time.Duration(q.rng.IntN(3000)) * time.Millisecond
	}
	return d
}

// send runs f in a process after a delay, unless the packet is lost.
func (q *race) send(l *sim.Loop, f func()) {
	if q.rng.IntN(20) == 0 {
		return
	}
	q.w.After(q.delay(), func() {
		if l.Alive() {
			l.Post(&loop.Task{Run: f})
		}
	})
}

func (v *rival) valid() bool { return v.held && v.l.Now() < v.until }

func (v *rival) lock() {
	q := v.r
	q.next++
	interval := q.next
	v.held, v.until = false, 0
	req := LockRequest{Holder: v.h, PG: thePG, Generation: 5, Interval: interval}
	l := v.l
	q.send(q.m.l, func() {
		if q.m.st == nil {
			return
		}
		q.m.locks.Lock(req, func(retval int64, _ LockReply) {
			q.send(l, func() {
				if retval == 0 && interval > v.interval && l == v.l {
					v.held, v.interval, v.since = true, interval, v.l.Now()
					v.renew()
				}
			})
		})
	})
}

func (v *rival) renew() {
	if v.renewing || !v.held {
		return
	}
	q, sent, l, asked := v.r, v.l.Now(), v.l, v.interval
	v.renewing = true
	req := RenewRequest{Holder: v.h, Revision: v.revision}
	answered := false
	q.w.After(4*time.Second, func() {
		if !answered {
			answered = true
			if l == v.l && l.Alive() {
				l.Post(&loop.Task{Run: func() { v.renewing = false }})
			}
		}
	})
	q.send(q.m.l, func() {
		if q.m.st == nil {
			return
		}
		retval, a := q.m.locks.Renew(req)
		q.send(l, func() {
			if l != v.l || answered {
				return
			}
			answered = true
			v.renewing = false
			if retval != 0 {
				v.held, v.until, v.revision = false, 0, 0
				return
			}
			if !v.held || v.since >= sent || v.interval != asked {
				v.revision = 0
				v.renew()
				return
			}
			if a.Revision != v.revision && !slices.Contains(a.Grants, HeldGrant{PG: thePG, Interval: v.interval}) {
				v.held, v.until = false, 0
			}
			v.revision = a.Revision
			v.until = sent.Add(ttl * 9 / 10)
		})
	})
}

func (q *race) check(t *testing.T, seed uint64) {
	n := 0
	for _, v := range q.rivals {
		if v.valid() {
			n++
		}
	}
	if n > 1 {
		t.Fatalf("seed %d: after %v both rivals believe that they hold the PG: intervals %d and %d", seed, q.w.Elapsed(), q.rivals[0].interval, q.rivals[1].interval)
	}
	q.served += n
}

func (q *race) start(v *rival) {
	v.l = q.w.NewLoop(fmt.Sprintf("rival%d", v.h.OSD))
	v.l.SetClock(time.Duration(1+q.rng.IntN(1000))*time.Hour, int64(q.rng.IntN(1001))-500)
	v.held, v.until, v.revision, v.renewing = false, 0, 0, false
	v.tick = loop.Timer{Fire: func() {
		if v.held && v.until != 0 && v.l.Now() >= v.until {
			v.held, v.revision = false, 0
		}
		v.renew()
		v.l.Arm(&v.tick, v.l.Now().Add(ttl/4))
	}}
	v.l.Post(&loop.Task{Run: v.tick.Fire})
}

var raceSeeds = flag.Uint64("races", 60, "how many seeds TestNeverTwoHolders runs")

func TestNeverTwoHolders(t *testing.T) {
	total := 0
	for seed := range *raceSeeds {
		q := &race{w: sim.NewWorld(seed), rng: rand.New(rand.NewPCG(seed, 5))}
		q.m = newMember(t, q.w)
		q.m.ppm = int64(q.rng.IntN(1001)) - 500
		q.m.drift = time.Duration(1+q.rng.IntN(1000)) * time.Hour
		q.m.up()
		q.rivals = []*rival{{r: q, h: osdA}, {r: q, h: osdB}}
		for _, v := range q.rivals {
			q.start(v)
		}
		for range 400 {
			for range 1 + q.rng.IntN(30) {
				q.w.Run(time.Duration(1+q.rng.IntN(20)) * time.Millisecond)
				q.check(t, seed)
			}
			v := q.rivals[q.rng.IntN(2)]
			switch k := q.rng.IntN(20); {
			case k < 10:
				if !v.valid() && v.l.Alive() {
					v.lock()
				}
			case k < 12:
				l := v.l
				l.Pause()
				q.w.After(time.Duration(q.rng.IntN(4000))*time.Millisecond, l.Resume)
			case k < 13:
				l := q.m.l
				l.Pause()
				q.w.After(time.Duration(q.rng.IntN(4000))*time.Millisecond, l.Resume)
			case k < 14: // a new process of the primary
				v.l.Kill()
				v.h.Instance++
				q.start(v)
			case k < 15:
				q.m.restart()
			case k < 17:
				if v.held {
					g := wire.Grant{PG: thePG, Interval: v.interval, Instance: v.h.Instance}
					v.held, v.until = false, 0
					q.send(q.m.l, func() {
						if q.m.st != nil {
							q.m.locks.Unlock(g)
						}
					})
				}
			}
		}
		total += q.served
		q.w.Close()
	}
	t.Logf("%d instants at which one held the PG", total)
	if total == 0 {
		t.Error("nobody ever held the PG")
	}
}
