package scenarios

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/tests/stand"
)

// wipe stops an OSD, overwrites all data on its disk with zeroes, and starts it again.
func (c *cluster) wipe(n int) {
	c.t.Helper()
	c.OSDs[n].Signal(syscall.SIGTERM)
	c.OSDs[n].Wait(settle)
	line, _, _ := strings.Cut(stand.Run(c.t, stand.Binary(c.t), "disk", "dump", "--json", c.Disk(n)), "\n")
	var sb struct {
		Off  int64 `json:"data_offset"`
		Size int64 `json:"data_size"`
	}
	if err := json.Unmarshal([]byte(line), &sb); err != nil || sb.Size == 0 {
		c.t.Fatalf("disk dump --json of OSD %d: %v\n%s", n, err, line)
	}
	f, err := os.OpenFile(c.Disk(n), os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, sb.Off, sb.Size); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		c.t.Fatal(err)
	}
	c.revive(n)
}

// unclean are all objects that describe tells.
func (c *cluster) unclean() (list []unclean) {
	c.t.Helper()
	pgs, err := read[[]struct {
		Unclean []unclean `json:"unclean_objects"`
		Error   string    `json:"unclean_objects_error"`
	}](c, "describe", "--limit", "0")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range pgs {
		if p.Error != "" {
			c.t.Fatalf("describe: %s", p.Error)
		}
		list = append(list, p.Unclean...)
	}
	return list
}

// unclean is one object of them.
type unclean struct {
	State  []string `json:"state"`
	Copies []struct {
		OSD   int    `json:"osd_num"`
		State string `json:"state"`
	} `json:"copies"`
}

// scrubNow asks every PG of the pool for a scrub, as stock tools do (pg/history, next_scrub), and waits until it is over.
func (c *cluster) scrubNow(pgs int) {
	c.t.Helper()
	for n := 1; n <= pgs; n++ {
		history := c.history(n)
		history["next_scrub"] = json.RawMessage("1")
		text, err := json.Marshal(history)
		if err != nil {
			c.t.Fatal(err)
		}
		c.Put("pg/history/1/"+strconv.Itoa(n), string(text))
	}
	left := []int{}
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		left = left[:0]
		for n := 1; n <= pgs; n++ {
			if string(c.history(n)["next_scrub"]) == "1" {
				left = append(left, n)
			}
		}
		if list, err := c.pgs(); err == nil && len(left) == 0 && !slices.ContainsFunc(list, func(p pg) bool { return p.has("scrubbing") }) {
			return
		}
	}
	c.t.Fatalf("not within %v: PGs %v are scrubbed", settle, left)
}

// history is what pg/history says of a PG.
func (c *cluster) history(n int) map[string]json.RawMessage {
	c.t.Helper()
	history := map[string]json.RawMessage{}
	out, err := c.Etcdctl("get", "--print-value-only", "/vitastor/pg/history/1/"+strconv.Itoa(n))
	if err == nil && strings.TrimSpace(out) != "" {
		err = json.Unmarshal([]byte(out), &history)
	}
	if err != nil {
		c.t.Fatalf("pg/history/1/%d: %v\n%s", n, err, out)
	}
	return history
}

// checksum: the data of one OSD of three is overwritten with zeroes; everything reads as before, and is mended by reading. (32 KiB checksums; with copies, and with chunks.)
func checksum(t *testing.T) {
	for _, code := range []string{"", "2+1"} {
		t.Run("redundancy "+code, func(t *testing.T) {
			c := start(t, stand.Plan{OSDs: 3, Copies: 3, Code: code, MinSize: 2, Format: []string{"--csum_block_size", "32768"}}, "")
			m := newMirror(c, "testimg", 32<<20)
			m.fill()
			c.wipe(1)
			c.until("every PG is clean, and OSD 1 serves some from its own copies", func(list []pg) bool {
				return slices.ContainsFunc(list, func(p pg) bool { return p.Primary == 1 }) && !slices.ContainsFunc(list, func(p pg) bool { return !p.clean() })
			})
			m.compare("with zeroes on OSD 1")
			c.awaitClean()
			m.begin(2)
			m.progress(300)
			m.end()
			m.compare("after more writes")
			if !slices.ContainsFunc(slices.Collect(c.outputs()), func(s string) bool { return strings.Contains(s, "unreadable") }) {
				t.Error("nobody noticed")
			}
		})
	}
}

// outputs is what each OSD has printed.
func (c *cluster) outputs() func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, p := range c.OSDs {
			if !yield(p.Output().String()) {
				return
			}
		}
	}
}

// partwrCsum: of each object a single block is written, and whole objects are read: what was never written is zeroes, and has no checksum that could be wrong.
func partwrCsum(t *testing.T) {
	for _, sum := range []string{"4096", "32768"} {
		t.Run("checksums of "+sum, func(t *testing.T) {
			c := start(t, stand.Plan{OSDs: 3, Copies: 2, Format: []string{"--csum_block_size", sum}}, "")
			m := newMirror(c, "testimg", 32<<20)
			rng := m.random(0)
			for off := 0; off < len(m.want); off += 128 << 10 {
				m.must(m.write(rng, off+off>>12%(124<<10)&^4095, 4<<10))
			}
			m.compare("after single blocks")
			for n := range c.OSDs {
				c.KillChild(n)
			}
			c.awaitClean()
			m.compare("after a restart")
			c.quiet()
		})
	}
}

// corruptAll: all data of both OSDs is overwritten with zeroes. Nothing wrong is read; a scrub finds every copy of every object corrupted, and describe says so. What is written as a whole is right again, and what is
// left can be removed.
func corruptAll(t *testing.T) {
	const size, object = 16 << 20, 128 << 10
	c := start(t, stand.Plan{OSDs: 2, Copies: 2}, `,"client_eio_retry_interval":0`)
	m := newMirror(c, "testimg", size)
	m.fill()
	c.wipe(1)
	c.wipe(2)
	c.until("every PG is served", func(list []pg) bool {
		return !slices.ContainsFunc(list, func(p pg) bool { return !p.has("active") })
	})
	got := make([]byte, object)
	for off := int64(0); off < size; off += 4 * object {
		if _, err := m.conn.ReadAt(got, off); err == nil {
			t.Fatalf("the object at %d, of which no copy is whole, is read", off)
		}
	}
	c.scrubNow(8)
	list := c.unclean()
	if len(list) != size/object {
		t.Errorf("describe tells of %d objects, wanted all %d", len(list), size/object)
	}
	for _, o := range list {
		bad := 0
		for _, copy := range o.Copies {
			if strings.Contains(copy.State, "corrupted") {
				bad++
			}
		}
		if bad != 2 || !slices.Contains(o.State, "corrupted") {
			t.Errorf("describe: %+v, wanted two corrupted copies", o)
		}
	}
	// The first half is written anew.
	rng := m.random(0)
	for off := 0; off < size/2; off += object {
		m.must(m.write(rng, off, object))
	}
	for off := 0; off < size/2; off += object {
		if err := m.check(off, object); err != nil {
			t.Error(err)
		}
	}
	m.conn.Close()
	c.CLI("rm", "testimg")
	c.awaitClean()
	c.nothingLeft()
}

// mended waits until the OSDs have counted so many copies that were wrong and are right now.
func (c *cluster) mended(want int) {
	c.t.Helper()
	var all []int
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		all = all[:0]
		sum := 0
		for n := range c.OSDs {
			var st struct {
				Mended int `json:"holdfast_mended_copies"`
			}
			out, err := c.Etcdctl("get", "--print-value-only", fmt.Sprintf("/vitastor/osd/stats/%d", n))
			if err == nil {
				err = json.Unmarshal([]byte(out), &st)
			}
			if err != nil {
				c.t.Fatalf("osd/stats/%d: %v\n%s", n, err, out)
			}
			all = append(all, st.Mended)
			sum += st.Mended
		}
		if sum == want {
			return
		}
	}
	c.t.Errorf("not within %v: %d copies are counted as mended; the OSDs count %v", settle, want, all)
}

// scrubs are the redundancies of scrub. Where votes tells that the greater part is right, or the parity tells which chunk is wrong, a scrub mends by itself.
var scrubs = []struct {
	name   string
	plan   stand.Plan
	wipe   int
	data   int // chunks of an object; 1: copies
	decide bool
}{
	{"2 copies", stand.Plan{OSDs: 2, Copies: 2}, 1, 1, false},
	{"2 copies, the second", stand.Plan{OSDs: 2, Copies: 2}, 2, 1, false},
	{"3 copies", stand.Plan{OSDs: 3, Copies: 3, MinSize: 2}, 1, 1, true},
	{"2+1", stand.Plan{OSDs: 3, Code: "2+1", MinSize: 2}, 1, 2, false},
	{"3+2", stand.Plan{OSDs: 5, Code: "3+2", MinSize: 3}, 1, 3, true},
	{"4+2", stand.Plan{OSDs: 6, Code: "4+2", MinSize: 4}, 1, 4, true},
}

// scrub: disks without checksums; the data of one is overwritten with zeroes. A scrub finds every object. With enough redundancy it mends them; else each is inconsistent, until an operator says whose copies are wrong.
func scrub(t *testing.T) {
	for _, s := range scrubs {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			const size = 12 << 20 // whole objects of all of them
			all := size / (s.data * 128 << 10)
			s.plan.Format = []string{"--data_csum_type", "none"}
			c := start(t, s.plan, "")
			m := newMirror(c, "testimg", size)
			m.fill()
			c.awaitClean()
			c.wipe(s.wipe)
			c.awaitClean()
			c.scrubNow(8)
			if !s.decide {
				list := c.unclean()
				if len(list) != all {
					t.Errorf("describe tells of %d objects, wanted all %d", len(list), all)
				}
				for _, o := range list {
					if !slices.Contains(o.State, "inconsistent") {
						t.Errorf("describe: %+v, wanted it inconsistent", o)
					}
				}
				bad := c.CLI("describe", "--limit", "0", "--object-state", "inconsistent", "--json")
				t.Log(c.CLI("fix", "--objects", bad, "--bad-osds", strconv.Itoa(s.wipe)))
			}
			c.awaitClean()
			if list := c.unclean(); len(list) > 0 {
				t.Errorf("describe tells of %d objects at last, such as %+v", len(list), list[0])
			}
			c.mended(all)
			m.compare("at last")
			// Whoever is asked tells the same: without any other OSD, as far as the pool allows.
			for n := range c.OSDs {
				c.kill(n, true)
				c.until("every PG is served", func(list []pg) bool {
					return !slices.ContainsFunc(list, func(p pg) bool { return !p.has("active") || slices.Contains(p.Peers, n) })
				})
				m.compare(fmt.Sprintf("without OSD %d", n))
				c.revive(n)
				c.awaitClean()
			}
		})
	}
}
