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
	slow := paceSample{span: time.Second, client: 4 * time.Second, copies: 1, took: 3 * time.Second}
	late := paceSample{span: time.Second, copies: 80, took: 16 * time.Second}
	fair := paceSample{span: time.Second, copies: 100, took: 3 * time.Second}
	quiet := paceSample{span: time.Second}
	light := paceSample{span: time.Second, client: 255 * ms}
	short := paceSample{span: time.Second, client: time.Second, copies: 100, took: 100 * time.Microsecond}
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
		{"nothing known yet", DefaultPacing(), nil, pace{16, 0, 0}},
		{"idle", DefaultPacing(), []paceSample{idle}, pace{16, 0, 18 * ms}},
		{"idle, and copies are quick", DefaultPacing(), []paceSample{idle, idle, idle, idle}, pace{64, 0, 18 * ms}},
		{"idle, and copies are slow", DefaultPacing(), []paceSample{late, late}, pace{3, 0, 1800 * ms}},
		{"idle, and copies are very slow", DefaultPacing(), []paceSample{late, late, late, late, late}, pace{1, 0, 1800 * ms}},
		{"idle, and copies are quick enough", DefaultPacing(), []paceSample{fair, fair, fair}, pace{16, 0, 270 * ms}},
		{"quiet again: as deep as before", DefaultPacing(), []paceSample{idle, idle, busy, quiet}, pace{32, 0, 18 * ms}},
		{"busy", DefaultPacing(), []paceSample{busy}, pace{1, 18 * ms, 18 * ms}},
		{"it yields at once", DefaultPacing(), []paceSample{idle, idle, idle, busy}, pace{1, 18 * ms, 18 * ms}},
		{"the latency follows", DefaultPacing(), []paceSample{busy, {span: time.Second, client: time.Second, copies: 1, took: 4 * ms}}, pace{1, 27 * ms, 27 * ms}},
		{"clients have left", DefaultPacing(), []paceSample{busy, busy, quiet}, pace{16, 0, 18 * ms}},
		{"few are left", DefaultPacing(), []paceSample{busy, busy, light}, pace{1, 18 * ms, 18 * ms}},
		{"few are left, for a while", few, []paceSample{busy, light, light}, pace{1, 1636363 * time.Nanosecond, 18 * ms}},
		{"now and then one", DefaultPacing(), []paceSample{busy, quiet, busy}, pace{1, 18 * ms, 18 * ms}},
		{"no copy ended: the latency is as before", few, []paceSample{idle, quiet, quiet, {span: time.Second, client: time.Second}}, pace{1, 18 * ms, 18 * ms}},
		{"no pause is longer than allowed", DefaultPacing(), []paceSample{slow}, pace{1, 10 * time.Second, 10 * time.Second}},
		{"a pause too short to matter", DefaultPacing(), []paceSample{short}, pace{1, 0, 0}},
		{"not tuned", fixed, []paceSample{busy, idle}, pace{5, 3 * ms, 3 * ms}},
		{"idle is never less than busy", deep, []paceSample{idle}, pace{64, 0, 18 * ms}},
		{"no time has passed", DefaultPacing(), []paceSample{{client: time.Second}}, pace{16, 0, 0}},
	} {
		var r pacer
		got := r.decide(&c.p)
		for _, s := range c.samples {
			got = r.step(&c.p, s)
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if len(r.kept) > c.p.Samples {
			t.Errorf("%s: %d samples are kept", c.name, len(r.kept))
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
func (d *plant) second(clients float64, p pace) (s paceSample, ops float64) {
	stretch := 1.0
	for range 50 { // to the fixed point
		l := float64(d.copying) * stretch
		under := clients + float64(p.depth)*l/(l+float64(p.pause))
		stretch = max(1, (stretch+under/float64(d.at))/2)
	}
	l := float64(d.copying) * stretch
	n, begun := math.Modf(d.begun + float64(p.depth)*float64(time.Second)/(l+float64(p.pause)))
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
				s, ops = d.second(clients, now)
				now = r.step(&p, s)
				return s, ops
			}
			full, _ := d.second(0, pace{depth: d.at})
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
				_, alone := d.second(clients, pace{pause: 1})
				var last pace
				for i := range 30 {
					s, ops := step(clients)
					if ops < 0.75*alone {
						t.Fatalf("%g clients, second %d: %.0f operations/s beside recovery, %.0f alone", clients, i, ops, alone)
					}
					if s.copies == 0 && i > 5 { // the first pauses are for a line as long as recovery itself had made it
						t.Fatalf("%g clients, second %d: recovery stands still", clients, i)
					}
					if i > 10 && (now.depth != last.depth || now.pause > last.pause*11/10 || now.pause < last.pause*9/10) {
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
