package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// degraded: three hosts with two OSDs each, three copies, two of which must be there. One host dies under load; no client sees an error.
func degraded(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 6, Copies: 3, MinSize: 2, Pool: []string{"--failure_domain", "host"}, Keys: map[string]string{"config/node_placement": `{
		"rack-a":{"level":"host"}, "rack-b":{"level":"host"}, "rack-c":{"level":"host"},
		"1":{"level":"osd","parent":"rack-a"}, "4":{"level":"osd","parent":"rack-a"},
		"2":{"level":"osd","parent":"rack-b"}, "5":{"level":"osd","parent":"rack-b"},
		"3":{"level":"osd","parent":"rack-c"}, "6":{"level":"osd","parent":"rack-c"}}`}}, "")
	for _, p := range c.awaitClean() {
		if !oneOfEach(p.Set, []int{1, 4}, []int{2, 5}, []int{3, 6}) {
			t.Errorf("PG %d is on OSDs %v: not one of each host", p.Num, p.Set)
		}
	}
	m := newMirror(c, "testimg", 16<<20)
	m.begin(4)
	m.progress(50)
	c.OSDs[1].Kill()
	c.OSDs[4].Kill()
	c.every("every PG is active without OSDs 1 and 4", func(p pg) bool {
		return p.has("active") && p.has("degraded") && !slices.Contains(p.Peers, 1) && !slices.Contains(p.Peers, 4)
	})
	m.progress(100)
	m.end()
	m.compare("degraded")
	// What the host missed is made up for when it is back.
	c.revive(1)
	c.revive(4)
	c.awaitClean()
	m.compare("with the host back")
	c.quiet()
	c.sameCopies(3)
}

// oneOfEach reports whether a set has one member of each group.
func oneOfEach(set []int, groups ...[]int) bool {
	for _, g := range groups {
		n := 0
		for _, osd := range set {
			if slices.Contains(g, osd) {
				n++
			}
		}
		if n != 1 {
			return false
		}
	}
	return len(set) == len(groups)
}

// minsize1: two of three OSDs are told to end. The last one serves.
func minsize1(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 3, Copies: 3, MinSize: 1, PGs: 4}, `,"osd_out_time":1`)
	m := newMirror(c, "testimg", 8<<20)
	m.fill()
	m.begin(2)
	m.progress(20)
	for _, n := range []int{1, 2} {
		c.OSDs[n].Signal(syscall.SIGINT)
		c.OSDs[n].Wait(settle)
	}
	// left_on_dead comes as the monitor takes the two out of the set; nothing else may.
	c.every("every PG is active+degraded on OSD 3", func(p pg) bool {
		return (p.is("active", "degraded") || p.is("active", "degraded", "left_on_dead")) && slices.Equal(p.Peers, []int{3}) && p.Primary == 3
	})
	c.every("every PG is exactly active+degraded+left_on_dead", func(p pg) bool { return p.is("active", "degraded", "left_on_dead") })
	m.progress(50)
	m.end()
	m.compare("on the last OSD")
	c.revive(1)
	c.revive(2)
	c.awaitClean()
	// What the last one wrote alone is on the others: it is read from them when it is gone.
	c.kill(3, false)
	c.every("every PG is active without OSD 3", func(p pg) bool { return p.has("active") && !slices.Contains(p.Peers, 3) })
	m.compare("without the one that served alone")
	c.quiet()
}

// switchPrimary: the primary of the only PG dies; another one is named within 25 s, and the image is served on.
func switchPrimary(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 3, Copies: 3, MinSize: 2, PGs: 1}, "")
	m := newMirror(c, "testimg", 8<<20)
	m.begin(2)
	m.progress(50)
	old := c.awaitClean()[0]
	began := time.Now()
	c.OSDs[old.Primary].Kill()
	now := c.until("the PG has another primary that serves", func(list []pg) bool {
		return list[0].Primary != old.Primary && list[0].has("active")
	})
	took := time.Since(began)
	t.Logf("primary %d killed; %d serves after %v", old.Primary, now[0].Primary, took.Round(time.Millisecond))
	if took > 25*time.Second {
		t.Errorf("it took %v", took)
	}
	m.progress(100)
	m.end()
	m.compare("with another primary")
	c.revive(old.Primary)
	c.awaitClean()
	m.compare("with the old primary back")
	c.quiet()
	c.sameCopies(3)
}

// splitbrain: two copies, one of which is enough. What was written while one was away is on the other alone, so that the one must not serve until the other is back; the command line says
// what it waits for. Each of the two is the one that knows once.
func splitbrain(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 2, Copies: 2, MinSize: 1, PGs: 1}, `,"etcd_lease_ttl":3`)
	m := newMirror(c, "testimg", 1<<20)
	m.fill()
	rng := m.random(0)
	for _, knows := range []int{1, 2} {
		stale := 3 - knows
		c.kill(stale, false)
		c.every("the PG is served by one", func(p pg) bool { return p.is("active", "degraded") && p.Primary == knows })
		m.must(m.write(rng, knows*2*block, block))
		m.trim(512<<10, 128<<10)
		c.kill(knows, false)
		c.revive(stale)
		c.every("the PG is taken by the one that missed a write", func(p pg) bool { return p.is("incomplete") && p.Primary == stale })
		answered := make(chan error, 1)
		go func() { answered <- m.check(0, len(m.want)) }()
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
			list, err := c.pgs()
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(list[0].State, "active") {
				t.Fatalf("OSD %d serves alone, without what was written on OSD %d alone: %+v", stale, knows, list[0])
			}
			select {
			case err := <-answered:
				t.Fatalf("a read was answered by OSD %d alone, which missed a write (%v)", stale, err)
			default:
			}
		}
		c.saysWhy(knows)
		c.revive(knows)
		c.awaitClean()
		select {
		case err := <-answered:
			m.must(err)
		case <-time.After(settle):
			t.Fatalf("the read is not answered within %v of the return of OSD %d", settle, knows)
		}
		m.compare("with both back")
	}
	c.quiet()
	c.sameCopies(2)
}

// saysWhy looks that an operator is told by pg-list and by status that the PG waits for an OSD.
func (c *cluster) saysWhy(knows int) {
	c.t.Helper()
	who := fmt.Sprintf("OSD %d", knows)
	list := c.until("pg-list says what the PG waits for", func(list []pg) bool { return strings.Contains(list[0].Reason, who) })
	c.t.Logf("pg-list: %s", list[0].Reason)
	for _, command := range []string{"pg-list", "status"} {
		if out := c.CLI(command); !strings.Contains(out, list[0].Reason) {
			c.t.Errorf("%s does not say %q:\n%s", command, list[0].Reason, out)
		}
	}
}
