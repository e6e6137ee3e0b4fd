package sim

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/wire"
	"holdfast/osd"
	"holdfast/osd/store"
)

// find says where on an OSD's disk some bytes lie; there must be one place.
func (n *Node) find(t *testing.T, what []byte) int64 {
	t.Helper()
	at, ok := n.has(what)
	if !ok {
		t.Fatalf("OSD %d: the data lies nowhere, or in two places", n.Num)
	}
	return at
}

// has is find when it may lie elsewhere.
func (n *Node) has(what []byte) (int64, bool) {
	d := n.c.W.Disk(n.disk())
	all := make([]byte, d.Size())
	d.Peek(all, 0)
	at := bytes.Index(all, what)
	return int64(at), at >= 0 && !bytes.Contains(all[at+1:], what)
}

// spoil changes a byte of an object that was written as a whole, on some OSDs, each the same one to the same.
func spoil(t *testing.T, c *Cluster, what []byte, on ...layout.OSDNum) {
	t.Helper()
	for _, osd := range on {
		n := c.Nodes[osd]
		c.W.Disk(n.disk()).Flip(n.find(t, what[:64])+5000, 0x40)
	}
}

// spoilOther changes another byte on each of the OSDs.
func spoilOther(t *testing.T, c *Cluster, what []byte, on ...layout.OSDNum) {
	t.Helper()
	for i, osd := range on {
		n := c.Nodes[osd]
		c.W.Disk(n.disk()).Flip(n.find(t, what[:64])+int64(9000+i), 0x40)
	}
}

// scrub compares the copies of the object at an offset of the image.
func (k *Client) scrub(t *testing.T, offset uint64) wire.ScrubReply {
	t.Helper()
	r, ok := k.Do(wire.ReadWrite{Op: wire.OpScrub, Inode: image, Offset: offset}, nil, time.Minute)
	var m wire.ScrubReply
	if !ok || r.Retval != 0 || m.Decode(&r.Reply) != nil {
		t.Fatalf("scrub at %d: %+v answered %v; %s", offset, r, ok, k.c.describe())
	}
	return m
}

const blockLen = 128 << 10

// unsummed is a store without checksums of the data.
var unsummed = store.Config{ChecksumType: store.ChecksumNone}

// wholes is content that occurs once.
func wholes(seed byte) []byte {
	p := make([]byte, blockLen)
	x := uint64(seed) + 1
	for i := range p {
		x = x*6364136223846793005 + 1442695040888963407
		p[i] = byte(x >> 56)
	}
	return p
}

// TestScrubMendsWhatChecksumsOrTheMajorityTell: whatever is wrong on one copy of three is found, made anew from the others, and counted.
func TestScrubMendsWhatChecksumsOrTheMajorityTell(t *testing.T) {
	for _, s := range []store.Config{{}, unsummed} {
		for wrong := range layout.OSDNum(3) {
			c := start(t, Options{Seed: 5, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, Store: s})
			k := c.NewClient(7)
			data := wholes(1)
			k.Write(image, 0, data)
			if m := k.scrub(t, 0); m.Found != wire.FoundSame || m.Bytes != 3*blockLen || m.Bad != 0 {
				t.Errorf("of whole copies %+v is found", m)
			}
			spoil(t, c, data, wrong+1)
			if m := k.scrub(t, 0); m.Found != wire.FoundBad || m.Bad != 1 {
				t.Errorf("checksums %v, OSD %d wrong: %+v is found", s.ChecksumType, wrong+1, m)
			}
			c.Wait("the PG is whole", time.Minute, func() bool { return c.States(cluster.StateActive) && c.mended() == 1 })
			for _, n := range c.Nodes {
				n.find(t, data)
			}
			if m := k.scrub(t, 0); m.Found != wire.FoundSame {
				t.Errorf("after that %+v is found", m)
			}
			c.W.Close()
		}
	}
}

// mended is how many copies were made anew.
func (c *Cluster) mended() (n uint64) {
	for _, node := range c.Nodes {
		n += node.OSD.Events().Mended
	}
	return n
}

// read reads the whole object at the start of the image, and brings what is answered.
func (k *Client) read(t *testing.T, n int) Result {
	t.Helper()
	r, ok := k.Do(wire.ReadWrite{Op: wire.OpRead, Inode: image, Len: uint32(n)}, nil, time.Minute)
	if !ok {
		t.Fatalf("a read is not answered; %s", k.c.describe())
	}
	return r
}

// TestScrubOfCopiesThatDiffer: where nobody can know which copy is right none is served, until it is written anew or deleted.
func TestScrubOfCopiesThatDiffer(t *testing.T) {
	for _, replicas := range []int{2, 3} {
		c := start(t, Options{Seed: 6, OSDs: replicas, Replicas: replicas, MinSize: 1, PGs: 1, Store: unsummed})
		k := c.NewClient(7)
		data := wholes(2)
		k.Write(image, 0, data)
		spoilOther(t, c, data, 1, 2)
		if replicas == 2 {
			c.Nodes[2].find(t, data[:64])
		}
		if m := k.scrub(t, 0); m.Found != wire.FoundInconsistent || m.Bad != 0 {
			t.Fatalf("of %d copies that differ %+v is found", replicas, m)
		}
		c.Wait("that is shown", time.Minute, func() bool { return c.States(cluster.StateActive | cluster.StateHasInconsistent) })
		if r := k.read(t, blockLen); r.Retval != wire.EIO {
			t.Errorf("a read is answered %d", r.Retval)
		}
		if r, _ := k.Do(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Len: 4096}, data[:4096], time.Minute); r.Retval != wire.EIO {
			t.Errorf("a write of a part is answered %d", r.Retval)
		}
		c.W.Run(5 * time.Second)
		if n := c.mended(); n != 0 {
			t.Errorf("%d copies were made anew", n)
		}
		if m := k.scrub(t, 0); m.Found != wire.FoundInconsistent {
			t.Errorf("then %+v is found", m)
		}
		if replicas == 2 {
			again := wholes(3)
			k.Write(image, 0, again)
			if r := k.read(t, blockLen); !bytes.Equal(r.Data, again) {
				t.Errorf("what was written anew reads differently: %d", r.Retval)
			}
		} else {
			if r, _ := k.Do(wire.ReadWrite{Op: wire.OpDelete, Inode: image}, nil, time.Minute); r.Retval != 0 {
				t.Errorf("a deletion is answered %d", r.Retval)
			}
			if r := k.read(t, blockLen); !bytes.Equal(r.Data, make([]byte, blockLen)) {
				t.Errorf("what was deleted reads %d", r.Retval)
			}
		}
		c.Wait("the PG is whole", time.Minute, func() bool { return c.States(cluster.StateActive) })
		if m := k.scrub(t, 0); m.Found != wire.FoundSame && m.Found != wire.FoundNothing {
			t.Errorf("at last %+v is found", m)
		}
		c.W.Close()
	}
}

// TestAllCopiesUnreadable: an object of which no copy can be read is refused, not waited for, and may be written anew.
func TestAllCopiesUnreadable(t *testing.T) {
	for _, coded := range []int{0, 1} {
		for _, byScrub := range []bool{false, true} {
			c := start(t, Options{Seed: 6, OSDs: 3, Replicas: 3, Parity: coded, MinSize: 2, PGs: 1})
			k := c.NewClient(7)
			n := blockLen * (1 + coded)
			data, parts := make([]byte, n), [][]byte{}
			for i := 0; i < n; i += blockLen {
				parts = append(parts, wholes(byte(9+i>>17)))
				copy(data[i:], parts[len(parts)-1])
			}
			k.Write(image, 0, data)
			if coded == 0 {
				spoil(t, c, data, 1, 2, 3)
			} else {
				for _, p := range parts { // each on one of them
					for _, node := range c.Nodes {
						if at, ok := node.has(p[:64]); ok {
							c.W.Disk(node.disk()).Flip(at+5000, 1)
						}
					}
				}
			}
			if byScrub {
				if m := k.scrub(t, 0); m.Found != wire.FoundLost {
					t.Errorf("%+v is found", m)
				}
			}
			if r := k.read(t, n); r.Retval != wire.EIO {
				t.Errorf("coded %d, by scrub %v: a read is answered %d", coded, byScrub, r.Retval)
			}
			c.Wait("that is shown", time.Minute, func() bool {
				return c.States(cluster.StateActive | cluster.StateHasIncomplete | cluster.StateHasCorrupted)
			})
			if m := k.scrub(t, 0); m.Found != wire.FoundLost {
				t.Errorf("coded %d, by scrub %v: then %+v is found", coded, byScrub, m)
			}
			again := append(wholes(70), wholes(71)...)[:n]
			k.Write(image, 0, again)
			if r := k.read(t, n); !bytes.Equal(r.Data, again) {
				t.Errorf("what was written anew reads differently: %d", r.Retval)
			}
			c.Wait("the PG is whole", time.Minute, func() bool { return c.States(cluster.StateActive) })
			if m := k.scrub(t, 0); m.Found != wire.FoundSame {
				t.Errorf("at last %+v is found", m)
			}
			c.W.Close()
		}
	}
}

// TestScrubOfChunks: chunks without checksums are judged by each other as far as the code goes.
func TestScrubOfChunks(t *testing.T) {
	for _, x := range []struct {
		k, m  int
		wrong int // chunks
		sums  bool
		found wire.Found
	}{{2, 1, 1, false, wire.FoundInconsistent}, {2, 1, 1, true, wire.FoundBad}, {3, 2, 1, false, wire.FoundBad}, {3, 2, 2, false, wire.FoundInconsistent}, {3, 2, 2, true, wire.FoundBad}, {2, 3, 2, false, wire.FoundBad}} {
		o := Options{Seed: 8, OSDs: x.k + x.m, Replicas: x.k + x.m, Parity: x.m, MinSize: x.k, PGs: 1}
		if !x.sums {
			o.Store = unsummed
		}
		c := start(t, o)
		k := c.NewClient(7)
		var data []byte
		for i := range x.k {
			data = append(data, wholes(byte(i+1))...)
		}
		k.Write(image, 0, data)
		if m := k.scrub(t, 0); m.Found != wire.FoundSame || m.Bytes != uint64((x.k+x.m)*blockLen) {
			t.Errorf("of whole chunks %+v is found", m)
		}
		wrong := 0
		for i := range x.wrong {
			for _, node := range c.Nodes {
				if at, ok := node.has(data[i*blockLen:][:64]); ok {
					c.W.Disk(node.disk()).Flip(at+5000+int64(i), 1)
					wrong++
				}
			}
		}
		m := k.scrub(t, 0)
		if m.Found != x.found || wrong != x.wrong {
			t.Errorf("%+v: %+v is found", x, m)
		}
		if x.found == wire.FoundBad {
			c.Wait("the PG is whole", time.Minute, func() bool { return c.States(cluster.StateActive) && c.mended() == uint64(x.wrong) })
			if r := k.read(t, len(data)); !bytes.Equal(r.Data, data) {
				t.Errorf("%+v: then it reads differently: %d", x, r.Retval)
			}
		} else if r := k.read(t, len(data)); r.Retval != wire.EIO {
			t.Errorf("%+v: a read is answered %d", x, r.Retval)
		}
		c.W.Close()
	}
}

// scrubAll has every PG scrubbed, as an operator does, and waits until that is done.
func scrubAll(c *Cluster) {
	c.T.Helper()
	before := map[layout.PGID]registry.Revision{}
	for id, h := range c.Snapshot().Histories.All() {
		next := *h
		next.NextScrub = 1
		c.put(cluster.PGHistoryKey(id), cluster.Value(&next))
		if v, ok := c.Snapshot().PGScrubs.Get(id); ok {
			before[id] = v.Mod
		}
	}
	c.Wait("all PGs are scrubbed", 10*time.Minute, func() bool {
		n := 0
		for id, v := range c.Snapshot().PGScrubs.All() {
			if h, ok := c.Snapshot().Histories.Get(id); ok && v.Last != nil && v.Mod > before[id] && h.NextScrub != 1 {
				n++
			}
		}
		return n == c.pgs
	})
}

// TestScrubOfAllPGs: an operator has all PGs scrubbed beside clients at work. What has gone wrong silently is found and mended, and it is written down when everything was last found right.
func TestScrubOfAllPGs(t *testing.T) {
	for _, parity := range []int{0, 2} {
		o := Options{Seed: 9, OSDs: 5, Replicas: 3 + parity, Parity: parity, MinSize: 3, PGs: 4, Store: unsummed}
		c := start(t, o)
		k := c.NewClient(7)
		size := blockLen
		if parity > 0 {
			size *= 3
		}
		const objects = 12
		whole := func(i int) (p []byte) {
			for len(p) < size {
				p = append(p, wholes(byte(i*3+len(p)/blockLen))...)
			}
			return p
		}
		for i := range objects {
			k.Write(image, uint64(i*size), whole(i))
		}
		if c.Snapshot().Verified(image) != 0 {
			t.Error("it was verified before it was scrubbed")
		}
		scrubAll(c)
		first := c.Snapshot().Verified(image)
		if first == 0 || first > c.adminLoop.Wall().Unix() {
			t.Errorf("it was verified at %d", first)
		}
		wrong := 0
		for i := range objects {
			for n := range layout.OSDNum(5) {
				if at, ok := c.Nodes[n+1].has(whole(i)[:64]); ok && i%2 == 0 {
					c.W.Disk(c.Nodes[n+1].disk()).Flip(at+100, 4)
					wrong++
					break
				}
			}
		}
		if wrong != objects/2 {
			t.Fatalf("%d copies were spoilt", wrong)
		}
		busy := c.NewClient(8)
		var beside func(i uint64)
		writes := 0
		beside = func(i uint64) { // writes to every object that is not spoilt, over and over
			off := (i%(objects/2)*2 + 1) * uint64(size)
			busy.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: off + 4096*(i%32), Len: 4096}, pattern(4096, byte(i)), func(Result) {
				writes++
				beside(i + 1)
			})
		}
		beside(0)
		for writes < 100 {
			scrubAll(c)
		}
		c.Wait("everything is mended", time.Minute, func() bool { return c.States(cluster.StateActive) && c.mended() == uint64(wrong) })
		if v := c.Snapshot().Verified(image); v < first {
			t.Errorf("it was verified at %d, before at %d", v, first)
		}
		for i := 0; i < objects; i += 2 {
			if r := k.Read(image, uint64(i*size), size); !bytes.Equal(r.Data, whole(i)) {
				t.Errorf("object %d reads differently", i)
			}
		}
		for id, v := range c.Snapshot().PGScrubs.All() {
			if l := v.Last; l.Bad > 0 && !l.Sound() || l.Inconsistent+l.Lost+l.Skipped != 0 || v.Pass != nil || l.Objects != l.Total {
				t.Errorf("PG %v: %+v", id, l)
			}
		}
		c.W.Close()
	}
}

// TestInconsistentObjectsAreRemembered: whoever serves the PG next does not take one of two copies that differ for the right one, and an operator can say which is wrong.
func TestInconsistentObjectsAreRemembered(t *testing.T) {
	c := start(t, Options{Seed: 10, OSDs: 2, Replicas: 2, MinSize: 1, PGs: 1, Store: unsummed})
	k := c.NewClient(7)
	data := wholes(2)
	k.Write(image, 0, data)
	spoil(t, c, data, 2)
	scrubAll(c)
	for round := range 3 {
		if r := k.read(t, blockLen); r.Retval != wire.EIO {
			t.Fatalf("round %d: a read is answered %d", round, r.Retval)
		}
		v, ok := c.Snapshot().PGScrubs.Get(layout.PGID{Pool: 1, Num: 1})
		if !ok || len(v.Inconsistent) != 1 || v.Inconsistent[0].ID() != (layout.ObjectID{Inode: image}) || v.Verified != 0 {
			t.Fatalf("round %d: written down is %+v", round, v)
		}
		n := c.Nodes[layout.OSDNum(round%2+1)]
		n.Kill()
		n.Start()
		c.Wait("the PG is served again", time.Minute, func() bool { return c.States(cluster.StateActive | cluster.StateHasInconsistent) })
	}
	fix := func(osd layout.OSDNum) (m wire.ScrubReply) {
		t.Helper()
		r := k.fix(osd)
		if r.Retval == 0 && m.Decode(&r.Reply) != nil {
			t.Fatal("the answer to FIX cannot be read")
		}
		m.Retval = r.Retval
		return m
	}
	if m := fix(3); m.Retval != wire.ENOENT {
		t.Errorf("OSD 3, which has nothing, is fixed: %+v", m)
	}
	if m := fix(2); m.Retval != 0 || m.Found != wire.FoundBad {
		t.Errorf("fixed: %+v", m)
	}
	if r := k.read(t, blockLen); !bytes.Equal(r.Data, data) {
		t.Errorf("then it reads %d", r.Retval)
	}
	c.Wait("the PG is whole", time.Minute, func() bool {
		v, _ := c.Snapshot().PGScrubs.Get(layout.PGID{Pool: 1, Num: 1})
		return c.States(cluster.StateActive) && len(v.Inconsistent) == 0
	})
	c.Nodes[2].find(t, data)
	if m := fix(1); m.Retval != wire.ENOENT {
		t.Errorf("a right copy is fixed: %+v", m)
	}
}

// fix says that what an OSD has of the object at the start of the image is wrong.
func (k *Client) fix(osd layout.OSDNum) (out Result) {
	c := k.c
	done := false
	call := &peer.Call{}
	var send func()
	call.Done = func(*peer.Call) {
		if call.Err != nil || call.Reply.Retval() == wire.EPIPE {
			k.Loop.Arm(&loop.Timer{Fire: send}, k.Loop.Now().Add(50*time.Millisecond))
			return
		}
		out, done = Result{Retval: call.Reply.Retval(), Reply: call.Reply}, true
	}
	m := wire.Fix{Object: layout.ObjectID{Inode: image}, OSD: osd, Part: wire.AnyPart}
	send = func() {
		m.Encode(&call.Header)
		n := c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1})
		k.hub.SetPeer(n, []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", n)}})
		k.hub.Call(n, call)
	}
	k.Loop.Post(&loop.Task{Run: send})
	c.Wait("FIX is answered", time.Minute, func() bool { return done })
	return out
}

// TestBadCopyThatAMemberReadsIsMended: a member that answers clients' reads finds its copy damaged. Nobody is told what it holds, and it is made anew without the primary's ever reading it.
func TestBadCopyThatAMemberReadsIsMended(t *testing.T) {
	c := start(t, Options{Seed: 12, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, Reads: "random"})
	defer c.W.Close()
	k := c.NewClient(7)
	data := wholes(4)
	k.Write(image, 0, data)
	member := layout.OSDNum(1)
	for member == c.Snapshot().Primary(onlyPG) {
		member++
	}
	n := c.Nodes[member]
	c.W.Disk(n.disk()).Flip(n.find(t, data[:64])+100, 1)
	answers := 0
	newReader(c, member, func(_ time.Duration, got []byte) {
		if answers++; !bytes.Equal(got, data[:len(got)]) {
			t.Error("a member answers with a damaged copy")
		}
	})
	c.Wait("it is mended", time.Minute, func() bool { return c.mended() == 1 })
	c.Wait("it answers", time.Minute, func() bool { return answers > 0 })
	n.find(t, data)
	st, ok := uint64(0), false
	c.Wait("it is counted for its OSD", 2*time.Minute, func() bool {
		if s, have := c.Snapshot().OSDStats.Get(c.Snapshot().Primary(onlyPG)); have {
			n, known := s.BadCopies[fmt.Sprint(member)]
			st, ok = uint64(n), known && s.MendedCopies == 1
		}
		return ok
	})
	if st != 1 {
		t.Errorf("%d bad copies are counted", st)
	}
}

// TestScrubLeavesChangesUnderWay: an object is compared over and over while it is written to, and its writes are not on every member at the same time. Nothing is found, and nothing is made anew.
func TestScrubLeavesChangesUnderWay(t *testing.T) {
	for _, parity := range []int{0, 2} {
		c := start(t, Options{Seed: 13, OSDs: 5, Replicas: 3 + parity, Parity: parity, MinSize: 3, PGs: 1, Store: unsummed})
		size := blockLen
		if parity > 0 {
			size *= 3
		}
		record := func() uint64 {
			r, _ := c.Snapshot().Records.Get(onlyPG)
			return uint64(r.Interval)
		}
		k := c.NewClient(7)
		k.Write(image, 0, make([]byte, size))
		before := record()
		want := make([]byte, size)
		writes := 0
		for lane := range 4 { // each writes blocks of its own
			w := c.NewClient(uint64(20 + lane))
			var next func(i int)
			next = func(i int) {
				off := (i*4 + lane) * 4096 % size
				p := pattern(4096, byte(i*7+lane))
				w.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: uint64(off), Len: 4096}, p, func(r Result) {
					if r.Retval != 4096 {
						t.Fatalf("a write is answered %d", r.Retval)
					}
					copy(want[off:], p)
					if writes++; writes < 600 {
						next(i + 1)
					}
				})
			}
			next(0)
		}
		scrubs := 0
		for writes < 600 {
			if m := k.scrub(t, 0); m.Found != wire.FoundSame {
				t.Fatalf("beside writes %+v is found", m)
			}
			scrubs++
		}
		c.W.Run(5 * time.Second)
		if r := k.read(t, size); !bytes.Equal(r.Data, want) {
			t.Error("it reads differently from what was written")
		}
		if n := c.mended(); n != 0 || record() != before || scrubs < 20 {
			t.Errorf("%d copies were made anew, the interval is %d and was %d, after %d scrubs", n, record(), before, scrubs)
		}
		c.W.Close()
	}
}

// TestScrubWithoutAMemberVerifiesNothing: what could not be compared because an OSD was away does not count as verified; the scrub that was asked for is to be made again a day later.
func TestScrubWithoutAMemberVerifiesNothing(t *testing.T) {
	c := start(t, Options{Seed: 14, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 2, OutTime: time.Hour * 100})
	defer c.W.Close()
	k := c.NewClient(7)
	for i := range uint64(4) {
		k.Write(image, i*blockLen, wholes(byte(i)))
	}
	c.Nodes[3].Kill()
	c.Wait("the others serve", time.Minute, func() bool { return c.States(cluster.StateActive | cluster.StateDegraded) })
	scrubAll(c)
	if v := c.Snapshot().Verified(image); v != 0 {
		t.Errorf("with a member away it was verified at %d", v)
	}
	c.Nodes[3].Start()
	c.Wait("all are back", time.Minute, func() bool { return c.States(cluster.StateActive) })
	if v := c.Snapshot().Verified(image); v != 0 {
		t.Errorf("before it was compared again it was verified at %d", v)
	}
	day := c.adminLoop.Wall().Add(24 * time.Hour).Unix()
	for id, h := range c.Snapshot().Histories.All() {
		if h.NextScrub > day || h.NextScrub < day-3600 {
			t.Errorf("PG %v is to be scrubbed again at %d, a day later is %d", id, h.NextScrub, day)
		}
	}
	scrubAll(c)
	if c.Snapshot().Verified(image) == 0 {
		t.Error("then it is not verified")
	}
	for id, h := range c.Snapshot().Histories.All() {
		if h.NextScrub != 0 {
			t.Errorf("PG %v is to be scrubbed again at %d", id, h.NextScrub)
		}
	}
}

// TestReadsGoOnWhereEnoughCopiesAreRight: as many copies, or chunks, are damaged as there are to spare, at the same place or not. Clients read what was written, and everything is made anew and counted.
func TestReadsGoOnWhereEnoughCopiesAreRight(t *testing.T) {
	for _, x := range []struct{ size, parity int }{{2, 0}, {3, 0}, {3, 1}, {6, 2}} {
		data := max(1, x.size-x.parity)
		if x.parity == 0 {
			data = 1
		}
		for first := range x.size {
			c := start(t, Options{Seed: 16, OSDs: x.size, Replicas: x.size, Parity: x.parity, MinSize: data, PGs: 1})
			k := c.NewClient(7)
			var want []byte
			for i := range data {
				want = append(want, wholes(byte(i+1))...)
			}
			k.Write(image, 0, want)
			spoilt := 0
			spare := x.size - data
			for i := range x.size {
				n := c.Nodes[layout.OSDNum((first+i)%x.size+1)]
				for d := range data {
					if at, ok := n.has(want[d*blockLen:][:64]); ok && spoilt < spare {
						c.W.Disk(n.disk()).Flip(at+200, 0x80)
						spoilt++
					}
				}
			}
			if r := k.read(t, len(want)); !bytes.Equal(r.Data, want) {
				t.Errorf("%+v, from OSD %d on %d are spoilt: a read is answered %d", x, first+1, spoilt, r.Retval)
			}
			for range 2 { // what nobody read is found by scrub
				k.scrub(t, 0)
				c.Wait("the PG is whole", time.Minute, func() bool { return c.States(cluster.StateActive) })
			}
			if n := c.mended(); n != uint64(spoilt) || spoilt == 0 {
				t.Errorf("%+v, from OSD %d on: %d copies were spoilt, %d made anew", x, first+1, spoilt, n)
			}
			if m := k.scrub(t, 0); m.Found != wire.FoundSame {
				t.Errorf("%+v: at last %+v is found", x, m)
			}
			c.W.Close()
		}
	}
}

// TestPGsAreScrubbedByThemselves: with auto_scrub every PG is scrubbed once in scrub_interval, or in its pool's own; not while no_scrub is set. Without it nothing is.
func TestPGsAreScrubbedByThemselves(t *testing.T) {
	const often = 5 * time.Minute
	c := start(t, Options{Seed: 17, OSDs: 3, Replicas: 2, MinSize: 1, PGs: 6})
	defer c.W.Close()
	tune := func(f func(*osd.Scrubbing)) {
		for _, n := range c.Nodes {
			n.Loop.Post(&loop.Task{Run: func() {
				to := n.OSD.Tuning()
				f(&to.Scrub)
				n.OSD.Tune(to)
			}})
		}
	}
	k := c.NewClient(7)
	for i := range uint64(8) {
		k.Write(image, i*blockLen, wholes(byte(i)))
	}
	c.W.Run(often)
	for id, h := range c.Snapshot().Histories.All() {
		if h.NextScrub != 0 {
			t.Errorf("without auto_scrub PG %v is to be scrubbed at %d", id, h.NextScrub)
		}
	}
	began := c.adminLoop.Wall().Unix()
	tune(func(s *osd.Scrubbing) { s.Auto, s.Interval = true, often })
	times := map[int64]bool{}
	c.Wait("all PGs have their time", time.Minute, func() bool {
		clear(times)
		n := 0
		for _, h := range c.Snapshot().Histories.All() {
			if times[h.NextScrub] = true; h.NextScrub > began && h.NextScrub <= began+int64(often/time.Second)+60 {
				n++
			}
		}
		return n == 6
	})
	if len(times) < 3 {
		t.Errorf("all PGs are to be scrubbed at %v", times)
	}
	c.Wait("the image is verified", often+time.Minute, func() bool { return c.Snapshot().Verified(image) >= began })
	tune(func(s *osd.Scrubbing) { s.Pass.Paused = true })
	c.W.Run(time.Second)
	before := c.compared()
	c.W.Run(2 * often)
	if n := c.compared() - before; n > 0 {
		t.Errorf("in spite of no_scrub %d objects are compared", n)
	}
	began = c.adminLoop.Wall().Unix()
	tune(func(s *osd.Scrubbing) { s.Pass.Paused = false })
	c.Wait("what was due is scrubbed", time.Minute, func() bool { return c.Snapshot().Verified(image) >= began })

	pool, _ := c.Snapshot().Pool("p")
	own := *pool
	own.ScrubInterval = "30s"
	kv := c.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: cluster.KeyPools}}}).Results[0]
	txn, err := cluster.SetPool(&kv[0], 1, &own)
	if err != nil {
		t.Fatal(err)
	}
	c.Txn(txn)
	for range 3 {
		began = c.adminLoop.Wall().Unix()
		c.Wait("it is verified again within its pool's own time", 70*time.Second, func() bool { return c.Snapshot().Verified(image) > began })
	}
}
