package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/admin"
	"holdfast/tests/stand"
)

// areas are where things begin on a disk of 256 MiB.
type areas struct{ journal, metadata, data int64 }

// layoutOf reads them off a disk that is formatted for that.
func layoutOf(t *testing.T) (a areas) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty")
	stand.Run(t, stand.Binary(t), "disk", "format", "--size", "256M", path)
	out := stand.Run(t, stand.Binary(t), "disk", "dump", path)
	for name, at := range map[string]*int64{"journal_offset": &a.journal, "meta_offset": &a.metadata, "data_offset": &a.data} {
		_, rest, _ := strings.Cut(out, " "+name+"=")
		if n, err := fmt.Sscan(rest, at); n != 1 || err != nil {
			t.Fatalf("no %s in %s", name, out)
		}
	}
	return a
}

// TestBitsFlippedUnderARunningCluster flips bits in the data, the journal and the metadata of each of three OSDs in turn, and in two copies of the same data. What is read is right in every case; what was
// flipped is repaired, and counted or named.
func TestBitsFlippedUnderARunningCluster(t *testing.T) {
	const blocks = 1024
	d := stand.StartPlan(t, stand.Plan{OSDs: 3, OSDSize: 256 << 20, PGs: 4, OSD: []string{"--etcd_stats_interval", "1", "--etcd_lease_ttl", "2"}})
	d.CLI("create", "demo", "--size", "4M")
	l := stand.NewLoad(t, blocks, d.Dial("demo"))
	l.Start(8)
	l.AwaitWrites(2 * blocks)
	l.Stop()
	// Who serves decides which copy is read: the test does, and no monitor.
	d.Mons[1].Stop(30 * time.Second)
	f := &flipper{t: t, d: d, load: l, blocks: blocks, at: layoutOf(t)}
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprintf("data of OSD %d", n), func(t *testing.T) { f.data(t, n, n) })
		t.Run(fmt.Sprintf("journal of OSD %d", n), func(t *testing.T) {
			f.serveFrom(t, n%3+1) // so that they are served without it
			l.Start(8)
			l.AwaitWrites(blocks / 4)
			l.Stop()
			if flips := flipPages(t, d.Disk(n), f.at.journal, f.at.metadata); flips == 0 {
				t.Fatal("nothing in the journal")
			}
			f.restart(t, n, "journal is damaged")
		})
		t.Run(fmt.Sprintf("metadata of OSD %d", n), func(t *testing.T) {
			time.Sleep(2 * time.Second) // the metadata goes to its place, and what comes then says that it is there: until then the journal would mend it
			l.Start(8)
			l.AwaitWrites(blocks / 4)
			l.Stop()
			if flips := flipPages(t, d.Disk(n), f.at.metadata, f.at.data); flips == 0 {
				t.Fatal("nothing in the metadata")
			}
			f.restart(t, n, "metadata is damaged")
		})
	}
	t.Run("the same data of two OSDs", func(t *testing.T) { f.data(t, 1, 1, 2) })
}

type flipper struct {
	t      *testing.T
	d      *stand.Daemons
	load   *stand.Load
	blocks int
	turns  int
	at     areas
}

// data flips a bit in every 8th block of the image on some of the OSDs, of which one serves every PG, and reads all of it.
func (f *flipper) data(t *testing.T, primary int, damaged ...int) {
	time.Sleep(2 * time.Second) // the journal goes to its place
	f.serveFrom(t, primary)
	f.turns++
	want := f.every(t, 8, f.turns)
	before := map[int]uint64{}
	for _, n := range damaged {
		before[n] = f.counted(t, n)
		if flips := flipContents(t, f.d.Disk(n), f.at.data, want); flips < len(want) {
			t.Fatalf("only %d of %d blocks are on the disk of OSD %d", flips, len(want), n)
		}
	}
	f.load.Verify()
	f.d.AwaitActive(60 * time.Second)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		missing, uncounted := 0, []int{}
		for _, n := range damaged {
			missing += len(want) - len(onDiskOf(t, f.d.Disk(n), f.at.data, want))
			if f.counted(t, n) == before[n] {
				uncounted = append(uncounted, n)
			}
		}
		if missing == 0 && len(uncounted) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d blocks are not repaired; OSDs %v have counted none", missing, uncounted)
		}
	}
	time.Sleep(3 * time.Second) // OSDs write their counts once a second
	for _, n := range damaged {
		t.Logf("OSD %d: %d blocks flipped and repaired, counted %d damaged copies", n, len(want), f.counted(t, n)-before[n])
	}
	counts := f.counted(t, primary)
	f.load.Verify()
	time.Sleep(1500 * time.Millisecond)
	if now := f.counted(t, primary); now != counts {
		t.Errorf("%d more damaged copies although all were repaired", now-counts)
	}
}

// restart reads, which the running OSD does from what it has in memory, and has the OSD start again: it names the damage, and is refilled.
func (f *flipper) restart(t *testing.T, n int, names string) {
	f.load.Verify()
	was := f.store(t, n)
	mark := f.d.OSDs[n].Output().Mark()
	f.d.KillChild(n)
	f.d.OSDs[n].Await(time.Minute, "the OSD is started again", func(string) bool { return strings.Contains(f.d.OSDs[n].Output().Since(mark), "level=INFO msg=up ") })
	f.d.AwaitActive(time.Minute)
	if said := f.d.OSDs[n].Output().Since(mark); !strings.Contains(said, names) || f.store(t, n) == was {
		t.Errorf("the OSD did not say %q, or kept its store:\n%.3000s", names, said)
	}
	f.load.Verify()
}

func (f *flipper) store(t *testing.T, n int) string {
	for _, o := range osdList(t, f.d) {
		if o.Num == uint64(n) {
			return o.Store
		}
	}
	t.Fatalf("there is no OSD %d", n)
	return ""
}

// counted is how many damaged copies an OSD has found since it started.
func (f *flipper) counted(t *testing.T, n int) (count uint64) {
	t.Helper()
	out, err := f.d.Etcdctl("get", "--print-value-only", fmt.Sprintf("/vitastor/osd/stats/%d", n))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Errors uint64 `json:"holdfast_checksum_errors"`
	}
	fromJSON(t, out, &v)
	return v.Errors
}

// serveFrom makes one OSD the primary of every PG.
func (f *flipper) serveFrom(t *testing.T, n int) {
	t.Helper()
	out, err := f.d.Etcdctl("get", "--print-value-only", "/vitastor/pg/config")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Items map[string]map[string]map[string]any `json:"items"`
	}
	fromJSON(t, out, &config)
	for _, pgs := range config.Items {
		for _, pg := range pgs {
			pg["primary"] = n
		}
	}
	text, err := json.Marshal(&config)
	if err != nil {
		t.Fatal(err)
	}
	f.d.Put("pg/config", string(text))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		f.d.AwaitActive(30 * time.Second)
		var pgs []admin.PG
		fromJSON(t, f.d.CLI("pg-list", "--json"), &pgs)
		if !slices.ContainsFunc(pgs, func(pg admin.PG) bool { return pg.Primary != uint64(n) }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("OSD %d does not serve every PG", n)
		}
	}
}

type digest = [sha256.Size]byte

// every is the content of each of so many blocks of the image, from one on.
func (f *flipper) every(t *testing.T, step, from int) map[digest]bool {
	t.Helper()
	c, err := f.d.Dial("demo")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	set := map[digest]bool{}
	b := make([]byte, 4096)
	for k := from; k < f.blocks; k += step {
		if _, err := c.ReadAt(b, int64(k)*4096); err != nil {
			t.Fatal(err)
		}
		set[sha256.Sum256(b)] = true
	}
	return set
}

// eachPage calls f with every page of a part of a disk, read past the page cache, which the OSD does not use either; when f says so, what it has made of the page is written back.
func eachPage(t *testing.T, path string, from, to int64, f func(page []byte) bool) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	piece := aligned(t, 1<<20)
	for at := from; at < to; at += int64(len(piece)) {
		n, err := file.ReadAt(piece[:min(int64(len(piece)), to-at)], at)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		for off := 0; off+4096 <= n; off += 4096 {
			if f(piece[off : off+4096]) {
				if _, err := file.WriteAt(piece[off:off+4096], at+int64(off)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// flipPages flips a bit in every page of a part of a disk that holds something.
func flipPages(t *testing.T, path string, from, to int64) (flips int) {
	t.Helper()
	eachPage(t, path, from, to, func(page []byte) bool {
		if !slices.ContainsFunc(page, func(b byte) bool { return b != 0 }) {
			return false
		}
		page[flips*97%len(page)] ^= 1 << (flips % 8)
		flips++
		return true
	})
	return flips
}

// flipContents flips a bit in every page of the data that has one of these contents.
func flipContents(t *testing.T, path string, from int64, of map[digest]bool) (flips int) {
	t.Helper()
	eachPage(t, path, from, 256<<20, func(page []byte) bool {
		if !of[sha256.Sum256(page)] {
			return false
		}
		page[flips*97%len(page)] ^= 1 << (flips % 8)
		flips++
		return true
	})
	return flips
}

// onDiskOf is which of these contents the data of a disk has.
func onDiskOf(t *testing.T, path string, from int64, of map[digest]bool) map[digest]bool {
	t.Helper()
	found := map[digest]bool{}
	eachPage(t, path, from, 256<<20, func(page []byte) bool {
		if s := sha256.Sum256(page); of[s] {
			found[s] = true
		}
		return false
	})
	return found
}
