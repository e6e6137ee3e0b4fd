package primary

import (
	"math"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestShareOfRecovery(t *testing.T) {
	d := DefaultPacing()
	gentle := Pacing{UtilLow: 0.2, UtilHigh: 0.8, ClientLow: 0.1, ClientHigh: 1.1}
	cliff := Pacing{UtilLow: 0.5, UtilHigh: 1, ClientLow: 2, ClientHigh: 1}
	none := Pacing{UtilLow: 0, UtilHigh: 0, ClientHigh: 1}
	for _, c := range []struct {
		name  string
		p     Pacing
		load  float64
		share float64
		quiet bool
	}{
		{"nobody", d, 0, 1, true},
		{"hardly anybody", d, 0.01, 1, true},
		{"halfway", d, 0.255, 0.55, false},
		{"busy", d, 0.5, 0.1, false},
		{"copies matter as before", d, 4, 0.1, false},
		{"copies matter less", d, 10, 0.25, false},
		{"copies matter little", d, 64, 1, false},
		{"below its low", gentle, 0.1, 0.8, true},
		{"in between", gentle, 0.6, 0.5, false},
		{"above its high", gentle, 3, 0.2, false},
		{"far above it, no more than its most", gentle, 300, 0.8, false},
		{"low above high: up to low", cliff, 2, 1, true},
		{"low above high: from there on", cliff, 2.1, 0.5, false},
		{"never nothing", none, 5, leastShare, false},
	} {
		if share, quiet := c.p.share(c.load), c.p.quiet(c.load); math.Abs(share-c.share) > 1e-9 || quiet != c.quiet {
			t.Errorf("%s: share(%g) = %g, quiet %t, want %g, %t", c.name, c.load, share, quiet, c.share, c.quiet)
		}
	}
}

func TestPace(t *testing.T) {
	idle := paceSample{span: time.Second, copies: 100, took: 200 * ms} // 2 ms each
	busy := paceSample{span: time.Second, client: 4 * time.Second, copies: 50, took: 100 * ms}
	late := paceSample{span: time.Second, copies: 80, took: 16 * time.Second}
	fair := paceSample{span: time.Second, copies: 100, took: 3 * time.Second}
	quiet := paceSample{span: time.Second}
	light := paceSample{span: time.Second, client: 255 * ms}
	few := DefaultPacing()
	few.Samples = 2
	fixed := DefaultPacing()
	fixed.Interval, fixed.Pause, fixed.Depth = 0, 3*ms, 5
	deep := DefaultPacing()
	deep.Depth = 64
	for _, c := range []struct {
		name    string
		p       Pacing
		samples []paceSample
		want    pace
	}{
		{"nothing known yet", DefaultPacing(), nil, pace{16, 0, 9}},
		{"idle", DefaultPacing(), []paceSample{idle}, pace{16, 0, 9}},
		{"idle, and copies are quick", DefaultPacing(), []paceSample{idle, idle, idle, idle}, pace{64, 0, 9}},
		{"idle, and copies are slow", DefaultPacing(), []paceSample{late, late}, pace{3, 0, 9}},
		{"idle, and copies are very slow", DefaultPacing(), []paceSample{late, late, late, late, late}, pace{1, 0, 9}},
		{"idle, and copies are quick enough", DefaultPacing(), []paceSample{fair, fair, fair}, pace{16, 0, 9}},
		{"quiet again: as deep as before", DefaultPacing(), []paceSample{idle, idle, busy, quiet}, pace{32, 0, 9}},
		{"busy", DefaultPacing(), []paceSample{busy}, pace{1, 9, 9}},
		{"it yields at once", DefaultPacing(), []paceSample{idle, idle, idle, busy}, pace{1, 9, 9}},
		{"clients have left", DefaultPacing(), []paceSample{busy, busy, quiet}, pace{16, 0, 9}},
		{"few are left", DefaultPacing(), []paceSample{busy, busy, light}, pace{1, 9, 9}},
		{"few are left, for a while", few, []paceSample{busy, light, light}, pace{1, 1/0.55 - 1, 9}},
		{"now and then one", DefaultPacing(), []paceSample{busy, quiet, busy}, pace{1, 9, 9}},
		{"not tuned", fixed, []paceSample{busy, idle}, pace{depth: 5}},
		{"idle is never less than busy", deep, []paceSample{idle}, pace{64, 0, 9}},
		{"no time has passed", DefaultPacing(), []paceSample{{client: time.Second}}, pace{16, 0, 9}},
	} {
		var r pacer
		got := r.decide(&c.p)
		for _, s := range c.samples {
			got = r.step(&c.p, s)
		}
		if got.depth != c.want.depth || math.Abs(got.rest-c.want.rest) > 1e-9 || math.Abs(got.yield-c.want.yield) > 1e-9 {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if len(r.kept) > c.p.Samples {
			t.Errorf("%s: %d samples are kept", c.name, len(r.kept))
		}
	}
}

func TestPauseAfterACopy(t *testing.T) {
	tuned, fixed := DefaultPacing(), DefaultPacing()
	fixed.Interval, fixed.Pause = 0, 3*ms
	for _, c := range []struct {
		name string
		p    Pacing
		rest float64
		took time.Duration
		want time.Duration
	}{
		{"clients are quiet", tuned, 0, 5 * ms, 0},
		{"busy", tuned, 9, 2 * ms, 18 * ms},
		{"so short that it does not matter", tuned, 9, time.Microsecond, 0},
		{"no longer than allowed", tuned, 9, 3 * time.Second, 10 * time.Second},
		{"not tuned", fixed, 0, 2 * ms, 3 * ms},
	} {
		if got := c.p.pause(c.rest, c.took); got != c.want {
			t.Errorf("%s: %v after a copy that took %v, want %v", c.name, got, c.took, c.want)
		}
	}
}

// plant is a disk that does so many operations at a time; each client always has one operation under way.
type plant struct {
	at      int
	client  time.Duration // time of a client's operation on an idle disk
	copying time.Duration // time of a copy on an idle disk
	begun   float64       // part of a copy that is done
}

// second is what happens in one second at a pace: everybody waits in one line.
func (d *plant) second(clients float64, p *Pacing, now pace) (s paceSample, ops float64) {
	stretch := 1.0
	for range 50 { // to the fixed point
		l := float64(d.copying) * stretch
		under := clients + float64(now.depth)*l/(l+float64(p.pause(now.rest, time.Duration(l))))
		stretch = max(1, (stretch+under/float64(d.at))/2)
	}
	l := float64(d.copying) * stretch
	n, begun := math.Modf(d.begun + float64(now.depth)*float64(time.Second)/(l+float64(p.pause(now.rest, time.Duration(l)))))
	d.begun = begun
	ops = clients * float64(time.Second) / (float64(d.client) * stretch)
	return paceSample{span: time.Second, client: time.Duration(clients * float64(time.Second)), copies: int(n), took: time.Duration(n * l)}, ops
}

// On disks of all kinds: full speed while nobody is there, and beside clients a small part of what they could do alone, within one interval; the pace does not swing.
func TestPaceOnDisks(t *testing.T) {
	for name, d := range map[string]*plant{
		"flash":    {at: 16, client: 100 * time.Microsecond, copying: 400 * time.Microsecond},
		"spinning": {at: 1, client: 8 * ms, copying: 12 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			p := DefaultPacing()
			var r pacer
			now := r.decide(&p)
			step := func(clients float64) (s paceSample, ops float64) {
				s, ops = d.second(clients, &p, now)
				now = r.step(&p, s)
				return s, ops
			}
			full, _ := d.second(0, &p, pace{depth: d.at})
			for i := range 20 {
				s, _ := step(0)
				if s.copies < full.copies*9/10 {
					t.Fatalf("%d copies/s while nobody is there, the disk can do %d", s.copies, full.copies)
				}
				if i > 3 && s.took > time.Duration(s.copies)*idleLatency {
					t.Fatalf("a copy takes %v while nobody is there", s.took/time.Duration(s.copies))
				}
			}
			for _, clients := range []float64{1, 4, 32} {
				step(clients) // the one that surprises it
				_, alone := d.second(clients, &p, pace{})
				var last pace
				for i := range 30 {
					s, ops := step(clients)
					if ops < 0.75*alone {
						t.Fatalf("%g clients, second %d: %.0f operations/s beside recovery, %.0f alone", clients, i, ops, alone)
					}
					if s.copies == 0 && i > 2 {
						t.Fatalf("%g clients, second %d: recovery stands still", clients, i)
					}
					if i > 10 && (now != last) {
						t.Fatalf("%g clients, second %d: from %+v to %+v", clients, i, last, now)
					}
					last = now
				}
			}
			step(0)
			if s, _ := step(0); s.copies < full.copies*9/10 {
				t.Errorf("%d copies/s after clients have left, the disk can do %d", s.copies, full.copies)
			}
		})
	}
}
