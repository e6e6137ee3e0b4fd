package osd

import (
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd/secondary"
)

// renewal has OSD 1, alone and without peers, hold grants of "OSD 9", and brings it an answer that a renewal sent at a moment has.
type renewal struct {
	b *bed
	s *OSD
	p *peerRun
	r *pgRun
}

func newRenewal(t *testing.T) *renewal {
	b := newBed(t, 1)
	s := b.osds[1].s
	x := &renewal{b: b, s: s, p: s.peer(9)}
	s.l.Disarm(&s.renewal)
	x.r = s.newPG(pg1)
	x.r.m.Interval = 5
	return x
}

func (x *renewal) held(layout.PGID) bool { _, ok := x.p.pgs[pg1]; return ok }

// A grant that was made after the renewal was sent is not in its answer and not lost; the next answer must list it.
func TestCompareTakesNothingNewForLost(t *testing.T) {
	x := newRenewal(t)
	x.b.osds[1].run(func() {
		now := x.s.l.Now()
		x.p.sent = now
		x.p.pgs[pg1] = heldGrant{interval: 5, since: now.Add(time.Millisecond)}
		x.p.compare(nil)
		if !x.held(pg1) {
			t.Error("a grant that was made while a renewal was under way is taken for lost")
		}
		x.p.pgs[pg1] = heldGrant{interval: 5, since: now.Add(-time.Millisecond)}
		x.p.compare([]secondary.HeldGrant{{PG: pg1, Interval: 5}})
		if !x.held(pg1) {
			t.Error("a grant that the member lists is taken for lost")
		}
		x.p.compare([]secondary.HeldGrant{{PG: pg1, Interval: 4}, {PG: layout.PGID{Pool: 1, Num: 2}, Interval: 5}})
		if x.held(pg1) {
			t.Error("a grant that the member has dropped is held on to")
		}
	})
}

// A primary stops before the member may grant the PG to somebody else, and asks four times until then.
func TestGrantsCountNineTenthsOfTheirTime(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	s := b.osds[1].s
	p := s.peers[2]
	const T = 1500 * time.Millisecond
	if d := p.until.Sub(p.sent); d != T*9/10 {
		t.Errorf("a renewal counts for %v from when it was sent, want %v", d, T*9/10)
	}
	renewals, sent := 0, p.sent
	b.w.RunUntil(func() bool {
		if p.sent != sent {
			renewals, sent = renewals+1, p.sent
		}
		return false
	}, 10*T)
	if renewals < 38 || renewals > 42 {
		t.Errorf("%d renewals in 10 T, want 40", renewals)
	}
	b.osds[2].l.Pause()
	paused := b.osds[1].l.Now()
	for i := range 600 {
		b.w.After(time.Duration(i)*5*time.Millisecond, func() {}) // the condition is looked at with every event
	}
	b.wait("the grant to lapse", func() bool { return !s.Valid(2) })
	if d := b.osds[1].l.Now().Sub(paused); d < T*9/10-T/4-10*time.Millisecond || d > T*9/10+5*time.Millisecond {
		t.Errorf("without answers it counts for %v more", d)
	}
	b.wait("the interval to end", func() bool { return s.pgs[pg1].served == nil || s.pgs[pg1].m.Round > 1 })
	if d := b.osds[1].l.Now().Sub(paused); d > 2*T {
		t.Errorf("the interval goes on for %v", d)
	}
	if _, held := p.pgs[pg1]; held {
		t.Error("a grant that has lapsed is still counted on")
	}
}

// Whoever waits for a renewal is answered when it has become sure that there is none, and once.
func TestConfirmIsAnsweredOnceWhateverHappens(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	s := b.osds[1].s
	var answers []bool
	confirm := func() { s.Confirm(2, func(ok bool) { answers = append(answers, ok) }) }
	asked := loop.Instant(0)
	b.osds[1].run(func() { confirm(); confirm(); asked = s.l.Now() })
	b.wait("answers", func() bool { return len(answers) == 2 })
	if !answers[0] || !answers[1] || s.peers[2].sent < asked-1 {
		t.Errorf("confirmations of a member that holds: %v", answers)
	}
	answers = nil
	b.osds[2].l.Pause()
	b.osds[1].run(func() { confirm() })
	b.osds[1].run(func() { s.peers[2].lapsed("a test") })
	b.osds[2].l.Resume()
	b.w.Run(5 * time.Second)
	if len(answers) != 1 || answers[0] {
		t.Errorf("a confirmation under way when the grants lapsed is answered %v, want false, once", answers)
	}
	answers = nil
	b.osds[2].l.Pause()
	b.osds[1].run(func() { confirm() })
	b.osds[2].kill()
	b.w.Run(5 * time.Second)
	if len(answers) != 1 || answers[0] {
		t.Errorf("a confirmation of a dead member is answered %v, want false, once", answers)
	}
}
