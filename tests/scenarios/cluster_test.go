package scenarios

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// settle is how long a cluster may take to reach a state that it must reach.
const settle = 60 * time.Second

// cluster is a running one with what scenarios ask of it.
type cluster struct {
	*stand.Daemons
	t *testing.T
}

// start starts a cluster of small OSDs whose daemons react and report sooner than by default. global are more values of config/global.
func start(t *testing.T, plan stand.Plan, global string) *cluster {
	t.Helper()
	if plan.OSDSize == 0 {
		plan.OSDSize = 128 << 20
	}
	if plan.PGs == 0 {
		plan.PGs = 8
	}
	if plan.Keys == nil {
		plan.Keys = map[string]string{}
	}
	plan.Keys["config/global"] = `{"etcd_stats_interval":1,"mon_change_timeout":200` + global + `}`
	return &cluster{stand.StartPlan(t, plan), t}
}

// pg is one PG as pg-list tells.
type pg struct {
	Num      int      `json:"pg_num"`
	State    []string `json:"state"`
	Primary  int      `json:"primary"`
	Set      []int    `json:"osd_set"`
	Peers    []int    `json:"peers"`
	Objects  int      `json:"object_count"`
	Degraded int      `json:"degraded_count"`
	Reason   string   `json:"reason"`
}

// is reports whether the PG's state is exactly this.
func (p pg) is(state ...string) bool { return slices.Equal(p.State, state) }

// has reports whether the state has this among others.
func (p pg) has(state string) bool { return slices.Contains(p.State, state) }

// clean reports whether all that should have the PG's objects have them.
func (p pg) clean() bool {
	return (p.is("active") || p.is("active", "left_on_dead")) && p.Degraded == 0 && same(p.Set, p.Peers)
}

// same reports whether two sets of OSDs are.
func same(a, b []int) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// read is the JSON that a command prints.
func read[T any](c *cluster, args ...string) (v T, err error) {
	c.t.Helper()
	out, err := c.TryCLI(append(args, "--json")...)
	if err != nil {
		return v, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		c.t.Fatalf("%s --json: %v\n%s", strings.Join(args, " "), err, out)
	}
	return v, nil
}

// pgs lists the PGs.
func (c *cluster) pgs() ([]pg, error) { c.t.Helper(); return read[[]pg](c, "pg-list") }

// until waits for a state of the cluster and returns its PGs then.
func (c *cluster) until(what string, ok func([]pg) bool) []pg {
	c.t.Helper()
	var last []pg
	var err error
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if last, err = c.pgs(); err == nil && len(last) > 0 && ok(last) {
			return last
		}
	}
	c.t.Fatalf("not within %v: %s (%v); the PGs are: %s", settle, what, err, show(last))
	return nil
}

// every is until for a condition that each PG fulfils.
func (c *cluster) every(what string, ok func(pg) bool) []pg {
	c.t.Helper()
	return c.until(what, func(list []pg) bool { return !slices.ContainsFunc(list, func(p pg) bool { return !ok(p) }) })
}

// awaitClean waits until every PG is, all copies where they belong.
func (c *cluster) awaitClean() []pg { c.t.Helper(); return c.every("every PG is clean", pg.clean) }

// show is PGs for messages: those that are not clean, with their number.
func show(list []pg) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d in all, with %d objects", len(list), objects(list))
	for _, p := range list {
		if !p.clean() {
			fmt.Fprintf(&b, "\n%+v", p)
		}
	}
	return b.String()
}

// objects is the sum over all PGs.
func objects(list []pg) (n int) {
	for _, p := range list {
		n += p.Objects
	}
	return n
}

// osd is one OSD as ls-osd tells.
type osd struct {
	Num int  `json:"osd_num"`
	Up  bool `json:"up"`
}

// untilOSD waits for a state of one OSD.
func (c *cluster) untilOSD(n int, what string, ok func(osd) bool) {
	c.t.Helper()
	var last []osd
	var err error
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if last, err = read[[]osd](c, "ls-osd"); err == nil && slices.ContainsFunc(last, func(o osd) bool { return o.Num == n && ok(o) }) {
			return
		}
	}
	c.t.Fatalf("not within %v: OSD %d %s (%v); the OSDs are: %+v", settle, n, what, err, last)
}

// held is how many bytes of data an OSD says it holds, as of its last statistics; 0 for all OSDs together.
func (c *cluster) held(n int) (sum uint64) {
	c.t.Helper()
	key := "/vitastor/osd/space/"
	args := []string{"get", "--print-value-only", "--prefix", key}
	if n != 0 {
		args = []string{"get", "--print-value-only", key + strconv.Itoa(n)}
	}
	out, err := c.Etcdctl(args...)
	if err != nil {
		return 1 // not known
	}
	for line := range strings.Lines(out) {
		var pools map[string]map[string]uint64
		if err := json.Unmarshal([]byte(line), &pools); err != nil {
			c.t.Fatalf("%s: %v\n%s", key, err, line)
		}
		for _, inodes := range pools {
			for _, bytes := range inodes {
				sum += bytes
			}
		}
	}
	return sum
}

// hold waits until every PG is clean and the OSDs together hold so many copies of so many bytes. (The PGs' object_count is no measure of what was deleted: it has tombstones in it, too.)
func (c *cluster) hold(copies, bytes int) {
	c.t.Helper()
	c.awaitClean()
	c.untilHeld(0, uint64(copies*bytes))
}

// untilHeld waits until an OSD, or all together, hold so many bytes.
func (c *cluster) untilHeld(n int, want uint64) {
	c.t.Helper()
	var have uint64
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if have = c.held(n); have == want {
			return
		}
	}
	c.t.Fatalf("not within %v: OSD %d (0: all together) holds %d bytes; it is %d", settle, n, want, have)
}

// kill kills an OSD with its parent, as kill -9 does, and waits until the cluster knows: by itself, or told at once by the removal of the OSD's state.
func (c *cluster) kill(n int, tell bool) {
	c.t.Helper()
	c.OSDs[n].Kill()
	if tell {
		c.Delete(fmt.Sprintf("osd/state/%d", n))
	}
	c.untilOSD(n, "is down", func(o osd) bool { return !o.Up })
}

// revive starts an OSD again and waits until it is up.
func (c *cluster) revive(n int) {
	c.t.Helper()
	c.StartOSD(n)
	c.untilOSD(n, "is up", func(o osd) bool { return o.Up })
}

// reweight sets an OSD's share of the data.
func (c *cluster) reweight(n int, weight float64) {
	c.t.Helper()
	c.Put(fmt.Sprintf("config/osd/%d", n), fmt.Sprintf(`{"reweight":%g}`, weight))
}

// object is one object on a disk, as `disk dump` tells.
type object struct {
	Object  string `json:"object"`
	Version uint64 `json:"version"`
	Flags   string `json:"flags"`
	Written string `json:"written"`
	Block   *int   `json:"block"` // none: it takes no space
}

// stopAndDump stops the OSDs and reads what is on each disk, whose checksums must be good: by OSD and object, without tombstones.
func (c *cluster) stopAndDump() map[int]map[string]object {
	c.t.Helper()
	for _, p := range c.OSDs {
		if !p.Ended() {
			p.Signal(syscall.SIGTERM)
		}
	}
	all := map[int]map[string]object{}
	for n, p := range c.OSDs {
		p.Wait(settle)
		all[n] = c.dump(n)
	}
	return all
}

func (c *cluster) dump(n int) map[string]object {
	c.t.Helper()
	disk := append([]string{c.Disk(n)}, c.Beside(n)...)
	stand.Run(c.t, stand.Binary(c.t), append([]string{"disk", "check"}, disk...)...)
	list := map[string]object{}
	for line := range strings.Lines(stand.Run(c.t, stand.Binary(c.t), append([]string{"disk", "dump", "--json"}, disk...)...)) {
		if !strings.HasPrefix(line, `{"kind":"object"`) {
			continue
		}
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			c.t.Fatalf("disk dump --json of OSD %d: %v\n%s", n, err, line)
		}
		if !strings.Contains(o.Flags, "tombstone") {
			list[o.Object] = o
		}
	}
	return list
}

// sameCopies stops the OSDs and compares their disks: each object of a clean cluster is there exactly as often as the pool has copies, in one version, with the same parts written. What an
// OSD still holds of PGs that have left it goes a while after they are clean: the OSDs get that while.
func (c *cluster) sameCopies(copies int) {
	c.t.Helper()
	for end := time.Now().Add(settle); ; {
		list := c.awaitClean()
		found := map[string][]object{}
		more := false
		for _, disk := range c.stopAndDump() {
			for id, o := range disk {
				found[id] = append(found[id], o)
				more = more || len(found[id]) > copies
			}
		}
		if more && time.Now().Before(end) {
			for n := range c.OSDs {
				c.revive(n)
			}
			continue
		}
		for id, all := range found {
			if len(all) != copies {
				c.t.Errorf("object %s: %d copies although every PG was clean, wanted %d", id, len(all), copies)
			}
			for _, o := range all[1:] {
				if o.Version != all[0].Version || o.Written != all[0].Written {
					c.t.Errorf("object %s: one OSD has %+v, another one %+v", id, o, all[0])
				}
			}
		}
		if len(found) == 0 {
			c.t.Error("there are no objects at all")
		}
		c.t.Logf("%d objects on the disks, %d counted by the PGs", len(found), objects(list))
		return
	}
}

// quiet fails the test when a daemon has spoken of a fault in the data or in itself.
func (c *cluster) quiet() {
	c.t.Helper()
	for n, p := range c.OSDs {
		for line := range strings.Lines(p.Output().String()) {
			for _, bad := range []string{"panic", "checksum mismatch", "level=ERROR"} {
				if strings.Contains(line, bad) {
					c.t.Errorf("OSD %d: %s", n, line)
				}
			}
		}
	}
}
