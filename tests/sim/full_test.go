package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// filler writes into an image with many requests at once until OSDs have no space, and knows what must be there.
type filler struct {
	t    *testing.T
	c    *Cluster
	k    *Client
	unit int
	want []byte // the image
	rng  *rand.Rand
	pace time.Duration // between writes

	seq     uint64
	open    map[uint64]bool // sequences that are not answered
	refused int
	done    int
}

func newFiller(t *testing.T, o Options, size int) *filler {
	f := &filler{t: t, c: start(t, o), unit: 32 << 10, want: make([]byte, size), rng: rand.New(rand.NewPCG(o.Seed, 1)), open: map[uint64]bool{}}
	f.k = f.c.NewClient(77)
	return f
}

// do begins a request. done says what of it.
func (f *filler) do(op wire.Opcode, off, n int, data []byte, done func(Result)) {
	f.seq++
	seq, low := f.seq, f.seq
	for s := range f.open {
		low = min(low, s)
	}
	f.open[seq] = true
	m := wire.ReadWrite{Op: op, Inode: image, Offset: uint64(off), Len: uint32(n), Trailer: wire.Trailer{Session: 77, Sequence: seq, Low: low}}
	f.k.Begin(m, data, func(r Result) {
		delete(f.open, seq)
		done(r)
	})
}

// write writes noise over a part. What is refused must leave what was there.
func (f *filler) write(off, n int) {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(f.rng.Uint32()) | 1
	}
	f.do(wire.OpWrite, off, n, data, func(r Result) {
		switch r.Retval {
		case int64(n):
			f.done++
			copy(f.want[off:], data)
		case wire.ENOSPC:
			f.refused++
		default:
			f.t.Errorf("write %d bytes at %d: %d", n, off, r.Retval)
		}
	})
}

// all runs f for each part of the image, depth at once, none of which overlap, and returns how many writes were refused.
func (f *filler) all(depth int, parts [][2]int) (done, refused int) {
	f.t.Helper()
	f.done, f.refused = 0, 0
	for _, p := range parts {
		f.write(p[0], p[1])
		f.c.W.Run(f.pace)
		f.until("an answer", func() bool { return len(f.open) < depth })
	}
	f.until("all answers", func() bool { return len(f.open) == 0 })
	return f.done, f.refused
}

func (f *filler) until(what string, cond func() bool) {
	f.t.Helper()
	if !f.c.W.RunUntil(cond, time.Minute) {
		f.t.Fatalf("not within a minute: %s; %s", what, f.c.describe())
	}
}

// compare reads the image.
func (f *filler) compare(when string) {
	f.t.Helper()
	for off := 0; off < len(f.want); off += f.unit {
		r := f.k.Read(image, uint64(off), f.unit)
		if !bytes.Equal(r.Data, f.want[off:off+f.unit]) {
			f.t.Fatalf("%s: what is at %d is not what was acknowledged; %s", when, off, f.c.describe())
		}
	}
}

// intervals are those of all PGs.
func (f *filler) intervals() string {
	text := ""
	for id, r := range f.c.Snapshot().Records.All() {
		text += fmt.Sprint(id, r.Interval, " ")
	}
	return text
}

// killAll kills each OSD, one after the other, and starts it again.
func (f *filler) killAll(pause, down time.Duration) {
	for i := range f.c.O.OSDs {
		n := f.c.Nodes[layout.OSDNum(i+1)]
		f.c.W.After(time.Duration(i)*(pause+down)+pause, n.Kill)
		f.c.W.After(time.Duration(i+1)*(pause+down), n.Start)
	}
}

// pieces cuts the image into parts of n bytes, in order.
func (f *filler) pieces(n int) (list [][2]int) {
	for off := 0; off+n <= len(f.want); off += n {
		list = append(list, [2]int{off, n})
	}
	return list
}

// TestFullPool fills pools until writes are refused, and again over what is partly written. No interval ends; what was acknowledged is there on every member and what was refused is on none; what is stored can be
// overwritten and deleted, and then there is space again.
func TestFullPool(t *testing.T) { fullPools(t, false) }

// TestFullPoolWithFailures is the same while OSDs are killed one after the other: what is under way is undone or completed by peering.
func TestFullPoolWithFailures(t *testing.T) { fullPools(t, true) }

func fullPools(t *testing.T, failures bool) {
	for _, o := range []Options{
		{Replicas: 2, MinSize: 2}, {Replicas: 3, MinSize: 1}, {Replicas: 3, Parity: 1, MinSize: 3}, {Replicas: 3, Parity: 1, MinSize: 2}, {Replicas: 4, Parity: 2, MinSize: 3},
	} {
		o.Seed, o.OSDs, o.PGs = 5, o.Replicas+1, 8 // PGs have other members each
		o.Store = store.Config{BlockSize: 64 << 10, Granularity: 4096, JournalSize: 2 << 20}
		o.DiskSize = 12 << 20
		t.Run(fmt.Sprintf("%d of which %d parity, %d at least", o.Replicas, o.Parity, o.MinSize), func(t *testing.T) { fullPool(t, o, failures) })
	}
}

func fullPool(t *testing.T, o Options, failures bool) {
	data := max(1, o.Replicas-o.Parity)
	if o.Parity == 0 {
		data = 1
	}
	object := data * int(o.Store.BlockSize)
	f := newFiller(t, o, 300*object)
	defer f.c.W.Close()
	f.c.W.Run(10 * time.Second) // primaries have gone where they belong
	at := f.intervals()
	if failures {
		f.pace = 15 * time.Millisecond
		f.killAll(time.Second, 3*time.Second)
	}
	// A quarter of each object: erasure-coded ones have blocks on some members only.
	quarters := f.pieces(object / 4)
	var first [][2]int
	for i := 0; i < len(quarters); i += 4 {
		first = append(first, quarters[i+f.rng.IntN(4)])
	}
	done, refused := f.all(4, first)
	if refused == 0 || done < 20 {
		t.Fatalf("%d writes were done and %d refused", done, refused)
	}
	t.Logf("%d done and %d refused", done, refused)
	f.compare("full")
	done, refused = f.all(32, quarters)
	if refused == 0 || done == 0 {
		t.Fatalf("%d writes over what is partly written were done, %d refused", done, refused)
	}
	t.Logf("%d done and %d refused over what is partly written", done, refused)
	f.compare("full again")
	if now := f.intervals(); now != at && !failures {
		t.Errorf("intervals have ended: %s, before %s", now, at)
	}
	unmade := uint64(0)
	for _, n := range f.c.Nodes { // order: a sum
		unmade += n.OSD.Events().Unmade
	}
	if t.Logf("%d changes undone", unmade); unmade == 0 && o.Parity > 0 && !failures {
		t.Error("no change was refused by one member and undone on others")
	}
	if failures {
		f.c.W.Run(10 * time.Second)
		f.c.Wait("all members", time.Minute, func() bool { return f.c.States(cluster.StateActive) })
	}
	// What is stored can be overwritten, in small parts and whole.
	var small, whole [][2]int
	for i := 0; i < len(f.want); i += object {
		for off := i; off < i+object; off += object / 4 {
			if f.want[off] != 0 {
				small = append(small, [2]int{off + 4096, 4096})
			}
		}
		if o.Parity == 0 && !bytes.Equal(f.want[i:i+object], make([]byte, object)) {
			whole = append(whole, [2]int{i, object})
		}
	}
	if _, refused = f.all(32, small); refused > 0 {
		t.Errorf("%d of %d small overwrites were refused", refused, len(small))
	}
	if _, refused = f.all(8, whole); refused > 0 {
		t.Errorf("%d of %d overwrites of whole blocks were refused", refused, len(whole))
	}
	f.compare("overwritten")
	// Each copy by itself.
	for n := 1; n <= o.OSDs && o.MinSize < o.Replicas; n++ {
		node := f.c.Nodes[layout.OSDNum(n)]
		node.Kill()
		f.compare(fmt.Sprintf("without OSD %d", n))
		node.Start()
		f.c.Wait("all members", time.Minute, func() bool { return f.c.States(cluster.StateActive) })
	}
	// Deletions need no space, and give some.
	removed := 0
	for off := 0; off < len(f.want); off += 2 * object {
		f.do(wire.OpDelete, off, 0, nil, func(r Result) {
			if r.Retval < 0 {
				t.Errorf("delete at %d: %d", off, r.Retval)
			}
			removed++
			clear(f.want[off : off+object])
		})
		f.until("an answer", func() bool { return len(f.open) < 16 })
	}
	f.until("all answers", func() bool { return len(f.open) == 0 })
	f.compare("deleted")
	f.c.W.Run(3 * time.Second)
	if done, _ = f.all(8, first); done < 20 {
		t.Errorf("%d writes were done after %d deletions", done, removed)
	}
	f.compare("at last")
}

// TestFullPoolLosesAnOSD fills a pool and then loses one of three OSDs for good: two have no space for all that it had. Nothing is lost or served wrong meanwhile; what misses a copy says why; deletions go through, and when
// there is space everything is whole on the two.
func TestFullPoolLosesAnOSD(t *testing.T) {
	for _, min := range []int{1, 2} {
		for _, parity := range []int{0, 1} {
			if parity == 1 && min == 1 {
				continue
			}
			o := Options{Seed: 3, OSDs: 3 + parity, Replicas: 2 + parity, Parity: parity, MinSize: min, PGs: 8, OutTime: 4 * time.Second, DiskSize: 12 << 20, Store: store.Config{BlockSize: 64 << 10, Granularity: 4096, JournalSize: 2 << 20}}
			t.Run(fmt.Sprintf("%d of which %d parity, %d at least", o.Replicas, parity, min), func(t *testing.T) { fullPoolLoses(t, o) })
		}
	}
}

func fullPoolLoses(t *testing.T, o Options) {
	object := (1 + o.Parity) * int(o.Store.BlockSize)
	f := newFiller(t, o, 300*object)
	defer f.c.W.Close()
	f.c.W.Run(10 * time.Second)
	if done, refused := f.all(8, f.pieces(object)); refused == 0 || done < 50 {
		t.Fatalf("%d done, %d refused", done, refused)
	}
	f.c.Nodes[layout.OSDNum(o.OSDs)].Kill()
	f.c.W.Run(time.Minute)
	waits := false
	for id, st := range f.c.Snapshot().PGStats.All() {
		waits = waits || strings.Contains(st.Reason, "space")
		t.Logf("%v: %s", id, st.Reason)
	}
	if !waits {
		t.Error("no PG says that it waits for space")
	}
	if o.MinSize < o.Replicas || o.Parity > 0 {
		f.compare("with an OSD lost")
	}
	// Two thirds of the objects go. What misses copies can be deleted, too.
	answered := 0
	for off := 0; off < len(f.want); off += object {
		if off/object%3 == 0 {
			continue
		}
		f.do(wire.OpDelete, off, 0, nil, func(r Result) {
			if r.Retval < 0 {
				t.Errorf("delete at %d: %d", off, r.Retval)
			}
			answered++
			clear(f.want[off : off+object])
		})
		f.until("an answer", func() bool { return len(f.open) < 32 })
	}
	f.until("all deletions", func() bool { return len(f.open) == 0 })
	f.c.Wait("everything whole again", 3*time.Minute, func() bool { return f.c.States(cluster.StateActive) })
	f.compare("whole again")
	if done, _ := f.all(8, f.pieces(object)[:20]); done != 20 {
		t.Errorf("%d of 20 writes were done after %d deletions", done, answered)
	}
	f.compare("at last")
}
