package scenarios

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// sized reports whether a PG is clean on so many OSDs.
func sized(n int) func(pg) bool {
	return func(p pg) bool { return p.clean() && len(p.Set) == n && !slices.Contains(p.Set, 0) }
}

// everyOSD fails the test when an OSD has no PG.
func everyOSD(t *testing.T, osds int, list []pg) {
	t.Helper()
	for n := 1; n <= osds; n++ {
		if !slices.ContainsFunc(list, func(p pg) bool { return slices.Contains(p.Set, n) }) {
			t.Errorf("OSD %d has no PG", n)
		}
	}
}

// fio lets fio write and verify in an image of its own, for this long at least.
func (c *cluster) fio(lasts time.Duration) *stand.Fio {
	c.t.Helper()
	c.CLI("create", "fioimg", "--size", strconv.FormatInt(stand.FioSize(lasts), 10))
	c.AwaitGateway(settle, "fioimg")
	return c.FioFor("fioimg", lasts)
}

// changePGSize: pg_size goes from 2 to 3, to 2 and to 1 and back under load: each time every PG has so many members, is clean, and every OSD is used. Nobody sees an error.
func changePGSize(t *testing.T) {
	const osds = 5
	c := start(t, stand.Plan{OSDs: osds, Copies: 2, MinSize: 1, PGs: 16}, "")
	m := newMirror(c, "testimg", 32<<20)
	m.fill()
	fio := c.fio(20 * time.Second)
	m.begin(3)
	for _, copies := range []int{3, 2, 1, 3} {
		c.CLI("modify-pool", "pool", "--pg_size", strconv.Itoa(copies), "--wait")
		everyOSD(t, osds, c.every(fmt.Sprintf("every PG has %d members", copies), sized(copies)))
		m.progress(50)
	}
	m.end()
	fio.End(t, settle)
	m.compare("at last")
	if err := fio.Check(); err != nil {
		t.Error(err)
	}
	c.quiet()
	c.sameCopies(3)
}

// parityChange: 4+1 becomes 4+3 and 4+1 again under load. With 4+3 any three OSDs may be killed.
func parityChange(t *testing.T) {
	const osds = 7
	c := start(t, stand.Plan{OSDs: osds, Code: "4+1", MinSize: 4, PGs: 8}, `,"etcd_lease_ttl":3`)
	m := newMirror(c, "testimg", 32<<20)
	m.fill()
	fio := c.fio(20 * time.Second)
	m.begin(3)
	c.CLI("modify-pool", "pool", "--ec", "4+3", "--pg_minsize", "4", "--wait")
	c.every("every PG has 7 members", sized(7))
	m.progress(50)
	for n := 1; n <= 3; n++ {
		c.kill(n, true)
	}
	c.every("every PG is served by what is left", func(p pg) bool { return p.has("active") && len(p.Peers) == 4 })
	m.progress(50)
	for n := 1; n <= 3; n++ {
		c.revive(n)
	}
	c.every("every PG is whole again", sized(7))
	if out, err := c.TryCLI("modify-pool", "pool", "--ec", "3+4"); err == nil || !strings.Contains(out+err.Error(), "chunks of data") {
		t.Errorf("the number of data chunks can be changed: %v\n%s", err, out)
	}
	c.CLI("modify-pool", "pool", "--ec", "4+1", "--wait")
	everyOSD(t, osds, c.every("every PG has 5 members", sized(5)))
	m.progress(50)
	m.end()
	fio.End(t, settle)
	m.compare("at last")
	if err := fio.Check(); err != nil {
		t.Error(err)
	}
	c.quiet()
	c.sameChunks(5)
}

// smallBlockSize: blocks of 16 KiB with a bitmap_granularity of 4 KiB, so that a block has fewer units than a byte has bits. fio reads and writes 128 KiB and 4 KiB in order, at random and
// mixed, verifying, with copies and with erasure codes; nothing ends, and what was written is there, also when it has to come from other OSDs, and the map of what was written is right.
func smallBlockSize(t *testing.T) {
	for _, plan := range []stand.Plan{{OSDs: 3, Copies: 2, MinSize: 1}, {OSDs: 3, Code: "2+1", MinSize: 2}} {
		t.Run(cmp.Or(plan.Code, "copies"), func(t *testing.T) {
			plan.Format = []string{"--block_size", "16K", "--bitmap_granularity", "4K"}
			plan.Keys = map[string]string{}
			c := start(t, plan, `,"block_size":16384,"etcd_lease_ttl":3`)
			c.CLI("create", "testimg", "--size", "32M")
			uri := "nbd://" + c.NBD + "/testimg"
			for _, way := range []string{"--bs=128k --rw=randwrite", "--bs=4k --rw=randwrite", "--bs=128k --rw=write", "--bs=4k --rw=write --size=4M", "--bs=4k --rw=randrw", "--bs=128k --rw=randrw", "--bs=4k --rw=randread", "--bs=128k --rw=read"} {
				args := append([]string{"--name=test", "--thread", "--minimal", "--ioengine=nbd", "--uri=" + uri, "--iodepth=16", "--size=16M", "--verify_fatal=1", "--verify_state_save=0"}, strings.Fields(way)...)
				if !strings.Contains(way, "read") {
					args = append(args, "--verify=crc32c", "--do_verify=1")
				}
				if out, err := c.Client.Try(settle, "fio", args...); err != nil {
					t.Fatalf("fio %s: %v\n%s", way, err, out)
				}
			}
			m := newMirror(c, "other", 8<<20)
			m.fill()
			m.begin(2)
			c.kill(2, true)
			m.progress(50)
			c.revive(2)
			c.awaitClean()
			c.kill(1, true)
			m.progress(50)
			m.end()
			m.compare("without OSD 1")
			c.revive(1)
			c.awaitClean()
			m.compare("at last")
			s := newMirrorOn(c, "holes", 1<<20, func(image string) disk { d, err := c.Dial(image)(); m.must(err); return d })
			s.must(s.write(s.random(0), 4<<10, 4<<10))
			s.must(s.write(s.random(0), 40<<10, 8<<10))
			s.compare("with holes")
			if out := stand.Run(t, "qemu-img", "map", "--output=json", "-f", "raw", "nbd://"+c.NBD+"/holes"); written(t, out) != "4096+4096 40960+8192" {
				t.Errorf("of the image with holes is written: %s\n%s", written(t, out), out)
			}
			c.quiet()
			if plan.Code == "" {
				c.sameCopies(2)
			} else {
				c.sameChunks(3)
			}
		})
	}
}

// written is what `qemu-img map` says is no hole.
func written(t *testing.T, out string) string {
	t.Helper()
	var list []struct {
		Start, Length uint64
		Data          bool
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("qemu-img map: %v\n%s", err, out)
	}
	var parts []string
	for _, e := range list {
		if e.Data {
			parts = append(parts, fmt.Sprintf("%d+%d", e.Start, e.Length))
		}
	}
	return strings.Join(parts, " ")
}

// usage is an image with what it is said to use.
type usage struct {
	Name    string `json:"name"`
	ID      int    `json:"inode_id"`
	RawUsed uint64 `json:"raw_used"`
}

// summedUp waits until the monitor has summed up what the OSDs say that they hold.
func (c *cluster) summedUp() {
	c.t.Helper()
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		images, err := read[[]usage](c, "ls")
		sum := uint64(0)
		for _, i := range images {
			sum += i.RawUsed
		}
		if err == nil && sum == c.held(0) {
			return
		}
	}
	c.t.Fatalf("not within %v: the images use what the OSDs hold", settle)
}

// misused compares what the images are said to use with the blocks that their objects have on the disks, and says where the two differ.
func (c *cluster) misused(disks map[int]map[string]object) (bad string) {
	c.t.Helper()
	images, err := read[[]usage](c, "ls")
	if err != nil {
		c.t.Fatal(err)
	}
	pools, err := read[[]struct {
		Block uint64 `json:"block_size"`
	}](c, "ls-pools")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, i := range images {
		blocks := uint64(0)
		for _, disk := range disks {
			for id, o := range disk {
				if o.Block != nil && strings.HasPrefix(id, fmt.Sprintf("1/%d:", i.ID)) {
					blocks++
				}
			}
		}
		if blocks == 0 || blocks*pools[0].Block != i.RawUsed {
			bad = fmt.Sprintf("image %s is said to use %d bytes, its objects have %d blocks of %d", i.Name, i.RawUsed, blocks, pools[0].Block)
		}
	}
	return bad
}

// sameChunks stops the OSDs and looks at their disks: each object of a clean cluster is there in so many chunks, each once, in one version, and the blocks of an image add up to what it is said to use. What has
// left an OSD goes a while after the PGs are clean.
func (c *cluster) sameChunks(chunks int) {
	c.t.Helper()
	for end := time.Now().Add(settle); ; {
		c.awaitClean()
		c.summedUp()
		found := map[string][]object{} // by object without its role
		roles := map[string]int{}
		disks := c.stopAndDump()
		bad := c.misused(disks)
		for n, disk := range disks {
			for id, o := range disk {
				inode, at, _ := strings.Cut(id, ":")
				stripe, err := strconv.ParseUint(at, 16, 64)
				if err != nil {
					c.t.Fatalf("object %q: %v", id, err)
				}
				whole := fmt.Sprintf("%s:%x", inode, stripe&^0xfff)
				found[whole] = append(found[whole], o)
				if roles[id]++; roles[id] > 1 || stripe&0xfff >= uint64(chunks) {
					bad = fmt.Sprintf("OSD %d has chunk %s, which is too much", n, id)
				}
			}
		}
		if bad != "" && time.Now().Before(end) {
			for n := range c.OSDs {
				c.revive(n)
			}
			continue
		}
		if bad != "" {
			c.t.Error(bad)
		}
		for id, all := range found {
			if len(all) != chunks {
				c.t.Errorf("object %s: %d chunks although every PG was clean, wanted %d", id, len(all), chunks)
			}
			for _, o := range all[1:] {
				if o.Version != all[0].Version {
					c.t.Errorf("object %s: one OSD has %+v, another one %+v", id, o, all[0])
				}
			}
		}
		if len(found) == 0 {
			c.t.Error("there are no objects at all")
		}
		c.t.Logf("%d objects on the disks", len(found))
		return
	}
}
