package monitor

import (
	"fmt"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// miss has an OSD say whom it misses.
func (x *scene) miss(n layout.OSDNum, osds ...layout.OSDNum) {
	x.t.Helper()
	x.put(cluster.OSDMissingKey(n), string(cluster.Value(&cluster.OSDMissing{OSDs: osds})))
}

// hosts puts each OSD on a host of its own, and has every PG held by its primary. It returns PGs that OSD 1 holds.
func (x *scene) hosts() (ofOne []layout.PGID) {
	x.t.Helper()
	x.w.Run(5 * time.Second)
	for n := range 3 {
		x.put(cluster.OSDStateKey(layout.OSDNum(n+1)), fmt.Sprintf(`{"state":"up","addresses":["10.0.0.%d"],"host":"h%d","port":7000,"primary_enabled":true,"blockstore_enabled":true}`, n+1, n+1))
	}
	for i, t := range x.pgs(1) {
		pg := layout.PGID{Pool: 1, Num: uint32(i + 1)}
		x.put(cluster.PGStateKey(pg), string(cluster.Value(&cluster.PGState{Primary: t.Primary, State: cluster.StateActive})))
		if t.Primary == 1 {
			ofOne = append(ofOne, pg)
		}
	}
	if len(ofOne) == 0 {
		x.t.Fatal("OSD 1 is nobody's primary")
	}
	return ofOne
}

func TestPrimaryThatTwoHostsMissIsReplaced(t *testing.T) {
	x := newScene(t)
	pgs := x.hosts()
	all := len(x.pgs(1))
	held := func() (n int) {
		for i := range all {
			if x.key(cluster.PGStateKey(layout.PGID{Pool: 1, Num: uint32(i + 1)})).Key != "" {
				n++
			}
		}
		return n
	}
	x.miss(2, 1)
	x.never("one host's word is enough", 2*time.Second, func() bool { return !x.leads(1) })
	x.miss(3, 1)
	if !x.w.RunUntil(func() bool { return !x.leads(1) && held() == all-len(pgs) }, 200*time.Millisecond) {
		t.Fatalf("PGs are left to an OSD that is cut off, or its keys are: %d of %d PGs are held, OSD 1 held %d", held(), all, len(pgs))
	}
	for _, pg := range pgs {
		if p := x.pgs(1)[pg.Num-1]; p.Primary == 0 || x.key(cluster.PGStateKey(pg)).Key != "" {
			t.Errorf("PG %v is given to %d, and its state key is there: %v", pg, p.Primary, x.key(cluster.PGStateKey(pg)).Key != "")
		}
	}
	for i, p := range x.pgs(1) { // whole again, but none goes back while the OSD is missed
		x.put(cluster.PGStateKey(layout.PGID{Pool: 1, Num: uint32(i + 1)}), string(cluster.Value(&cluster.PGState{Primary: p.Primary, State: cluster.StateActive, Peers: p.OSDSet})))
	}
	x.never("it is given a PG", 10*time.Second, func() bool { return x.leads(1) })
	x.miss(3)
	x.delete(cluster.OSDStateKey(2))
	x.wait("it to be given PGs again", func() bool { return x.leads(1) })
}

// A network that has come apart: whom everybody misses stays what he was, and so does what is told by those who are not up.
func TestWhenAllAreMissedNobodyIsReplaced(t *testing.T) {
	x := newScene(t)
	x.hosts()
	before := x.key(cluster.KeyPGConfig).Mod
	x.miss(4, 1, 2, 3) // it is not up
	x.miss(2, 1)
	x.w.Run(3 * time.Second)
	if x.key(cluster.KeyPGConfig).Mod != before {
		t.Error("the word of an OSD that is down counts")
	}
	s := x.m.follower.Snapshot()
	for n, list := range map[layout.OSDNum][]layout.OSDNum{1: {2, 3}, 2: {1, 3}, 3: {1, 2}} {
		s.Missing = s.Missing.With(n, &cluster.OSDMissing{OSDs: list})
	}
	targets := x.pgs(1)
	x.m.primaries(s, 1, targets)
	for i, p := range x.pgs(1) {
		if targets[i].Primary != p.Primary {
			t.Errorf("PG %d goes from %d to %d", i+1, p.Primary, targets[i].Primary)
		}
	}
}

// The leader dies with the OSD's host: the other monitor does not wait for its lease.
func TestMonitorTakesOverForAnOSDThatIsCutOff(t *testing.T) {
	x := newScene(t)
	x.hosts()
	b, l := x.second()
	x.w.Run(2 * time.Second)
	x.l.Pause()
	x.reg = x.st.Open(x.w.NewLoop("test"))
	x.miss(2, 1)
	x.never("it takes over for one host's word", 2*time.Second, b.Leading)
	x.miss(3, 1)
	from := l.Now()
	x.wait("the PGs of OSD 1 to go to others", func() bool { return b.Leading() && !x.leads(1) })
	if took := l.Now().Sub(from); took < leaderPatience || took > 1500*time.Millisecond {
		t.Errorf("that took %v", took)
	}
	x.l.Resume()
	x.wait("the first one to notice", func() bool { return !x.m.Leading() })
	x.never("the first one leads again", 10*time.Second, x.m.Leading)
}

// Who gave the PG back is taken all the same when the others are cut off: a PG that its leader left there would have the leader replaced again and again.
func TestSkippedOSDIsTakenRatherThanOneThatIsCutOff(t *testing.T) {
	x := newScene(t)
	pg := x.hosts()[0]
	var rest []layout.OSDNum
	for _, n := range x.pgs(1)[pg.Num-1].OSDSet {
		if n != 1 && n != 4 { // which is silent
			rest = append(rest, n)
		}
	}
	skip := &cluster.PGSkip{}
	for _, n := range rest {
		skip.OSDs = append(skip.OSDs, cluster.SkippedOSD{OSD: n, Until: x.l.Wall().Add(time.Hour).UnixMilli()})
	}
	x.put(cluster.PGSkipKey(pg), string(cluster.Value(skip)))
	x.miss(2, 1)
	x.miss(3, 1)
	x.w.Run(time.Second)
	if p := x.pgs(1)[pg.Num-1].Primary; len(rest) == 0 || p == 1 || overdue(x.m.follower.Snapshot()) {
		t.Errorf("PG %v is left to OSD %d, which is cut off; %v are not", pg, p, rest)
	}
}
