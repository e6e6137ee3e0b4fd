package nfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/frontends/nfs"
	"holdfast/frontends/nfs/memtree"
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
)

// pattern is n bytes that differ from place to place.
func pattern(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 3))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// The same calls, however TCP and the client cut them.
func TestRecordsMayArriveInAnyPieces(t *testing.T) {
	for _, size := range []int{1, 511, 4096, 16_000, 70_000, 1 << 20} {
		data := pattern(size, 1)
		for _, cut := range []struct {
			name     string
			fragment int // bytes of a fragment; 0: one
			piece    int // bytes shown at once; 0: all
			empty    bool
		}{{"whole", 0, 0, false}, {"pieces", 0, 1000, false}, {"odd pieces", 0, 7, false}, {"fragments", 1500, 0, false}, {"fragments and pieces", 999, 333, true}, {"tiny fragments", 260, 13, true}} {
			t.Run(fmt.Sprintf("%d bytes/%s", size, cut.name), func(t *testing.T) {
				b := newBench(t, nil, nfs.Options{})
				defer b.close()
				p := b.local()
				f := p.create(root, "f")
				msg := message(77, rpc.ProgramNFS, 3, 7, args(f, uint64(100), size, 2, data))
				stream := record(msg)
				if cut.fragment > 0 {
					stream = nil
					for part := range slices.Chunk(msg, cut.fragment) {
						if cut.empty {
							stream = binary.BigEndian.AppendUint32(stream, 0)
						}
						stream = binary.BigEndian.AppendUint32(stream, uint32(len(part)))
						stream = append(stream, part...)
					}
					stream = binary.BigEndian.AppendUint32(stream, 1<<31) // the last fragment may be empty
				}
				stream = append(stream, record(message(78, rpc.ProgramNFS, 3, 1, args(f)))...)
				piece := cut.piece
				if piece == 0 {
					piece = len(stream)
				}
				if cut.fragment == 260 && size > 1<<19 {
					t.Skip("more fragments than a record may have; TestNonsense has that case")
				}
				for part := range slices.Chunk(stream, piece) {
					p.raw(part)
				}
				b.l.settle()
				r := p.replies()
				if len(r) != 2 {
					t.Fatalf("%d replies, want 2 (closed: %v)", len(r), p.c.closed)
				}
				if got, _ := p.read(f, 100, size); !bytes.Equal(got, data) {
					t.Errorf("READ differs from the WRITE at %d", differs(got, data))
				}
			})
		}
	}
}

// Bytes that make no sense end the connection they came on, at once, and cost nothing else.
func TestNonsense(t *testing.T) {
	long := message(1, rpc.ProgramNFS, 3, 7, args(root, uint64(0), 1<<20, 2, make([]byte, 1<<20)))
	reply := message(1, rpc.ProgramNFS, 3, 0, nil)
	reply[7] = 1
	var fragments []byte
	for range 5000 {
		fragments = binary.BigEndian.AppendUint32(fragments, 0)
	}
	for _, tc := range []struct {
		name   string
		in     []byte
		closed bool
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), true},
		{"a record of 2 GiB", []byte{0xff, 0xff, 0xff, 0xff}, true},
		{"a fragment of 2 GiB", []byte{0x7f, 0xff, 0xff, 0xff}, true},
		{"fragments of 1 MiB each", append([]byte{0, 0x10, 0, 0}, append(make([]byte, 1<<20), 0, 0x10, 0, 0)...), true},
		{"5000 empty fragments", fragments, true},
		{"an empty record", []byte{0x80, 0, 0, 0}, true},
		{"a reply", record(reply), true},
		{"a short call", record(reply[:20]), true},
		{"half a WRITE", record(long)[:500_000], false},
		{"half a record mark", []byte{0x80, 0}, false},
		{"a WRITE whose data is longer than its record", record(long[:300_000]), false},
		{"a WRITE that says one length and another", record(message(1, rpc.ProgramNFS, 3, 7, args(root, uint64(0), 5, 2, []byte("data")))), false},
		{"a WRITE of 4 GiB", record(message(1, rpc.ProgramNFS, 3, 7, append(args(root, uint64(0), ^uint32(0), 2, ^uint32(0)), make([]byte, 30_000)...))), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, nil, nfs.Options{})
			defer b.close()
			other := b.local()
			p := b.local()
			p.raw(tc.in)
			b.l.settle()
			if p.c.closed != tc.closed {
				t.Errorf("closed = %v, want %v", p.c.closed, tc.closed)
			}
			if live := b.l.live(); live > 8 {
				t.Errorf("%d buffers lent", live)
			}
			other.attr(root)
			b.l.advance(2 * time.Minute)
			half := strings.HasPrefix(tc.name, "half")
			if p.c.closed != (tc.closed || half) {
				t.Errorf("closed = %v after two minutes", p.c.closed)
			}
			other.attr(root)
		})
	}
}

// A peer that announces much and sends little makes the server lend little.
func TestMemoryFollowsWhatArrivedNotWhatWasAnnounced(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	head := record(message(1, rpc.ProgramNFS, 3, 7, append(args(root, uint64(0), 1<<20, 2, 1<<20), make([]byte, 1<<20)...)))[:1200]
	before := b.l.live()
	for range 100 {
		b.local().raw(head)
	}
	if n := b.l.live() - before; n > 100 {
		t.Errorf("100 beginnings of WRITEs lent %d buffers, want one of 128 KiB each at most", n)
	}
}

// Every word of every call, in turn, says 4 GiB: nobody allocates on the word of a peer.
func TestHugeNumbersCostNothing(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	b.local().create(root, "file")
	calls := map[uint32][]byte{
		1: args(root), 2: args(root, sattr{}, false), 3: args(root, "file"), 4: args(root, 63), 6: args(root, uint64(0), 512), 7: args(root, uint64(0), 4, 2, []byte("data")),
		8: args(root, "x", 0, sattr{}), 9: args(root, "x", sattr{}), 10: args(root, "x", sattr{}, "y"), 12: args(root, "x"), 14: args(root, "x", root, "y"),
		16: args(root, uint64(0), [8]byte{}, 4096), 17: args(root, uint64(0), [8]byte{}, 4096, 4096),
	}
	n := 0
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p := b.local()
	for proc, a := range calls {
		whole := record(message(9, rpc.ProgramNFS, 3, proc, a))
		for at := 0; at+4 <= len(whole); at += 4 {
			msg := slices.Clone(whole)
			copy(msg[at:], "\xff\xff\xff\xff")
			p.raw(msg)
			b.l.settle()
			p.c.out = p.c.out[:0]
			if p.c.closed {
				p = b.local()
			}
			n++
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / uint64(n); each > 8192 {
		t.Errorf("%d calls allocated %d bytes each", n, each)
	}
	if live := b.l.live(); live > 2 {
		t.Errorf("%d buffers lent", live)
	}
}

func TestRepliesComeAsRequestsFinish(t *testing.T) {
	tree := memtree.New(memtree.Options{Device: memory.Options{MaxDelay: 50 * time.Millisecond, Seed: 3}})
	b := newBench(t, tree, nfs.Options{})
	defer b.close()
	p := b.local()
	st, d := p.call(8, args(root, "f", 0, sattr{size: ptr(uint64(64 << 12))}))
	if st != nfs.OK || !d.Bool() {
		t.Fatal(st)
	}
	f := getHandle(&d)
	first := p.xid + 1
	for i := range 64 {
		p.send(7, args(f, uint64(i)<<12, 4096, 2, pattern(4096, uint64(i))))
	}
	b.l.advance(time.Second)
	var order []uint32
	for _, r := range p.replies() {
		order = append(order, binary.BigEndian.Uint32(r))
	}
	if len(order) != 64 || slices.IsSorted(order) {
		t.Errorf("WRITE replies came in the order %v, want all 64 as they finish", order)
	}
	slices.Sort(order)
	if order[0] != first || order[63] != first+63 {
		t.Errorf("answered xids %v", order)
	}
	for i := range 64 {
		p.send(6, args(f, uint64(i)<<12, 4096))
	}
	fast := p.send(1, args(f))
	b.l.settle()
	if r := p.replies(); len(r) != 1 || binary.BigEndian.Uint32(r[0]) != fast {
		t.Errorf("GETATTR behind 64 READs: %d replies before any time has passed, want its own", len(r))
	}
	b.l.advance(time.Second)
	for _, r := range p.replies() {
		xid := binary.BigEndian.Uint32(r)
		i := uint64(xid - (fast - 64))
		if !bytes.Equal(r[len(r)-4096:], pattern(4096, i)) {
			t.Errorf("READ %d has other data", i)
		}
	}
}

// A READ reply that a slow peer does not take must not hold back GETATTR's, nor make the server hold more than its limit.
func TestSlowReaderIsBoundedAndStillGetsAttributes(t *testing.T) {
	b := newBench(t, nil, nfs.Options{MaxConnBytes: 8 << 20})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	data := pattern(1<<20, 1)
	p.write(f, 0, data)
	p.c.stuck = true
	for range 100 {
		p.send(6, args(f, uint64(0), 1<<20))
	}
	b.l.settle()
	if q := p.c.queued; q > 8<<20 {
		t.Errorf("%d MiB queued for a peer that takes nothing", q>>20)
	}
	sent := len(p.c.out)
	fast := p.send(1, args(f))
	b.l.settle()
	tail := p.c.out[sent:]
	if len(tail) < 8 || binary.BigEndian.Uint32(tail[4:]) != fast {
		t.Errorf("GETATTR was not answered while READs wait (%d bytes came)", len(tail))
	}
	n := 0
	for range 100 {
		for _, r := range p.replies() {
			if binary.BigEndian.Uint32(r) != fast {
				n++
				if !bytes.Equal(r[len(r)-len(data):], data) {
					t.Fatal("a READ has other data")
				}
			}
		}
		p.c.unstick()
		p.c.stuck = true
	}
	if n != 100 {
		t.Errorf("%d READs answered, want 100", n)
	}
	p.c.stuck = false
}

func TestLimitsHoldBackReading(t *testing.T) {
	tree := memtree.New(memtree.Options{Device: memory.Options{MaxDelay: 10 * time.Millisecond}})
	b := newBench(t, tree, nfs.Options{MaxConnBytes: 1 << 20, MaxRequests: 16})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	for i := range 200 {
		p.send(7, args(f, uint64(i)<<16, 1<<16, 2, pattern(1<<16, uint64(i))))
	}
	b.l.settle()
	if !p.c.paused {
		t.Error("12 MiB of WRITEs were read over a limit of 1 MiB")
	}
	n := len(p.replies())
	for range 400 {
		b.l.advance(10 * time.Millisecond)
		n += len(p.replies())
	}
	if n != 200 {
		t.Errorf("%d of 200 WRITEs answered", n)
	}
	for range 100 {
		p.send(1, args(f))
	}
	b.l.settle()
	if n := len(p.replies()); n != 100 {
		t.Errorf("%d of 100 GETATTRs answered", n)
	}
}

func TestAccessByNetwork(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	for from, want := range map[string]bool{"127.0.0.1:1": true, "127.9.9.9:5": true, "[::1]:1": true, "[::ffff:127.0.0.1]:4": true, "10.0.0.1:1": false, "[fe80::1%eth0]:1": false, "nonsense": false} {
		p := b.dial(from)
		if (p != nil) != want {
			t.Errorf("a connection from %s: accepted %v, want %v", from, p != nil, want)
		}
	}
	limited := newBench(t, nil, nfs.Options{MaxConns: 2})
	defer limited.close()
	limited.local()
	p := limited.local()
	if limited.dial("127.0.0.1:1") != nil {
		t.Error("a third connection was accepted over a limit of two")
	}
	p.c.Close()
	limited.l.settle()
	limited.local()
}

// A retransmission of a call that changed names gets the first reply, on any connection of the client; a new call with the same xid does not.
func TestRetransmittedNamesAreAnsweredOnce(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p, q := b.local(), b.local()
	p.create(root, "f")
	remove := record(message(5000, rpc.ProgramNFS, 3, 12, args(root, "f")))
	exchange := func(p *peer, msg []byte) []byte {
		t.Helper()
		p.raw(msg)
		b.l.settle()
		r := p.replies()
		if len(r) != 1 {
			t.Fatalf("%d replies, want 1", len(r))
		}
		return r[0]
	}
	first := exchange(p, remove)
	if second := exchange(q, remove); !bytes.Equal(first, second) || first[27] != 0 {
		t.Errorf("REMOVE = %x, again %x", first, second)
	}
	if other := exchange(q, record(message(5000, rpc.ProgramNFS, 3, 12, args(root, "g")))); other[27] != byte(nfs.ErrStatNoEnt) {
		t.Errorf("another REMOVE with the same xid = %x, want NOENT", other)
	}
	stranger := b.dial("127.0.0.2:1")
	if got := exchange(stranger, remove); got[27] != byte(nfs.ErrStatNoEnt) {
		t.Errorf("another client's REMOVE with the same xid = %x, want NOENT", got)
	}
	b.l.advance(3 * time.Minute)
	if got := exchange(p, remove); got[27] != byte(nfs.ErrStatNoEnt) {
		t.Errorf("the same REMOVE after three minutes = %x, want NOENT", got)
	}

	b.tree.Stall(true)
	mkdir := record(message(6000, rpc.ProgramNFS, 3, 9, args(root, "d", sattr{})))
	for range 3 {
		p.raw(mkdir)
		q.raw(mkdir)
	}
	b.l.settle()
	if n := b.tree.Parked(); n != 1 {
		t.Errorf("%d MKDIRs under way, want 1", n)
	}
	b.tree.Stall(false)
	b.l.settle()
	for _, p := range []*peer{p, q} {
		if r := p.replies(); len(r) != 1 || r[0][27] != 0 {
			t.Errorf("MKDIR sent thrice = %x, want one reply, OK", r)
		}
	}
}

func TestRetransmittedWriteJoinsTheOneUnderWay(t *testing.T) {
	writes := 0
	tree := memtree.New(memtree.Options{Device: memory.Options{Fail: func(op *volume.Op) error {
		if op.Kind == volume.Write {
			writes++
		}
		return nil
	}}})
	b := newBench(t, tree, nfs.Options{})
	defer b.close()
	p, q := b.local(), b.local()
	f := p.create(root, "f")
	tree.Stall(true)
	data := pattern(300_000&^511, 1)
	write := record(message(5000, rpc.ProgramNFS, 3, 7, args(f, uint64(0), len(data), 2, data)))
	p.raw(write)
	p.raw(write)
	q.raw(write)
	other := slices.Clone(write)
	other[len(other)-1]++
	q.raw(other)
	b.l.settle()
	p.c.Close() // the reply goes to whoever still waits
	b.l.settle()
	tree.Stall(false)
	b.l.settle()
	if r := q.replies(); len(r) != 2 || !bytes.Equal(r[0][:28], r[1][:28]) {
		t.Errorf("%d replies on the second connection, want 2", len(r))
	}
	if writes != 2 {
		t.Errorf("%d writes of the device, want 2: the first, and the one with other data", writes)
	}
	if got := b.s.Stats().Joined; got != 2 {
		t.Errorf("%d WRITEs joined, want 2", got)
	}
}

// A WRITE whose reply was lost comes again after another client has written the same place: it must not undo that.
func TestRetransmittedWriteDoesNotUndoALaterOne(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p, q := b.local(), b.dial("127.0.0.2:1")
	f := p.create(root, "f")
	write := func(p *peer, xid uint32, data string) {
		t.Helper()
		p.raw(record(message(xid, rpc.ProgramNFS, 3, 7, args(f, uint64(10), len(data), 2, []byte(data)))))
		b.l.settle()
		if r := p.replies(); len(r) != 1 || r[0][27] != 0 {
			t.Fatalf("WRITE %q = %x", data, r)
		}
	}
	for _, tc := range []struct {
		who  *peer
		xid  uint32
		data string
		want string
	}{
		{p, 900, "first", "first"}, {q, 900, "other", "other"}, {p, 900, "first", "other"}, // the repetition
		{p, 901, "first", "first"}, {q, 901, "other", "other"}, {p, 901, "Fresh", "Fresh"}, // the same xid for something new
	} {
		write(tc.who, tc.xid, tc.data)
		if got, _ := p.read(f, 10, 5); string(got) != tc.want {
			t.Errorf("after WRITE %d %q the file has %q, want %q", tc.xid, tc.data, got, tc.want)
		}
	}
	b.l.advance(3 * time.Minute)
	write(p, 901, "Fresh")
	write(q, 902, "other")
	b.l.advance(3 * time.Minute)
	write(p, 901, "Fresh")
	if got, _ := p.read(f, 10, 5); string(got) != "Fresh" {
		t.Errorf("minutes later the same call is a new one, but the file has %q", got)
	}
}

// Writers at different gateways change bytes of the same blocks; none undoes another's.
func TestNeighboursInOneBlockAcrossGateways(t *testing.T) {
	for seed := range uint64(5) {
		tree := memtree.New(memtree.Options{Device: memory.Options{MaxDelay: 3 * time.Millisecond, Seed: seed + 1}})
		a := newBench(t, tree, nfs.Options{})
		b := &bench{t: t, l: a.l, tree: tree, s: nfs.New(a.l, nfs.Options{}, tree)} // two gateways, one clock
		p := a.local()
		if _, err := b.s.Listen(loop.Addr{}, loop.ListenOptions{}); err != nil {
			t.Fatal(err)
		}
		q := b.local()
		const size = 3000
		st, d := p.call(8, args(root, "f", 0, sattr{size: ptr(uint64(size))}))
		if st != nfs.OK || !d.Bool() {
			t.Fatal(st)
		}
		f := getHandle(&d)
		want := pattern(size, seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		for at := 0; at < size; {
			n := min(1+rng.IntN(300), size-at)
			w := p
			if rng.IntN(2) == 0 {
				w = q
			}
			w.send(7, args(f, uint64(at), n, 2, want[at:at+n]))
			at += n
		}
		a.l.advance(time.Second)
		p.replies()
		q.replies()
		p.send(6, args(f, uint64(0), size))
		a.l.advance(time.Second)
		r := p.replies()
		if len(r) != 1 || !bytes.Equal(r[0][len(r[0])-size:], want) {
			t.Errorf("seed %d: the file differs from what was written", seed)
		}
		done := 0
		a.s.Close(func() { done++ })
		b.s.Close(func() { done++ })
		a.l.advance(time.Second)
		if done != 2 {
			t.Error("Close has not ended")
		}
	}
}

func TestRequestsWaitWhileStorageIsAway(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	p := b.local()
	f := p.create(root, "f")
	b.tree.Stall(true)
	p.send(7, args(f, uint64(0), 512, 2, make([]byte, 512)))
	p.send(1, args(f))
	b.l.advance(10 * time.Minute)
	if n := len(p.replies()); n != 0 || p.c.closed {
		t.Errorf("%d replies while storage was away, closed %v; want patience", n, p.c.closed)
	}
	b.tree.Stall(false)
	b.l.settle()
	if n := len(p.replies()); n != 2 {
		t.Errorf("%d replies when storage is back, want 2", n)
	}
	b.close()
}

func TestCloseTakesBackWhatTheDeviceHasNotDone(t *testing.T) {
	tree := memtree.New(memtree.Options{Device: memory.Options{MaxDelay: time.Hour}})
	b := newBench(t, tree, nfs.Options{})
	p := b.local()
	st, d := p.call(8, args(root, "f", 0, sattr{size: ptr(uint64(1 << 20))}))
	if st != nfs.OK || !d.Bool() {
		t.Fatal(st)
	}
	f := getHandle(&d)
	p.send(7, args(f, uint64(100), 5000, 2, make([]byte, 5000)))
	for i := range 10 {
		p.send(7, args(f, uint64(101+i), 1, 2, []byte{1}))
	}
	p.send(6, args(f, uint64(0), 5000))
	p.send(21, args(f, uint64(0), 0))
	b.l.settle()
	b.close()
	if n := len(p.replies()); n != 0 {
		t.Errorf("%d replies to canceled requests, want none", n)
	}
	if n := tree.Device("/f").Sessions(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
}

// The tree may know a size before the device does: requests wait for the device, they do not fail.
func TestRequestsWaitForTheDeviceToHaveItsSize(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	p := b.local()
	f := p.create(root, "f")
	p.write(f, 0, pattern(10_000, 1))
	d := b.tree.Device("/f")
	d.Resize(512)
	p.send(6, args(f, uint64(0), 10_000))
	p.send(7, args(f, uint64(9000), 100, 2, pattern(100, 2)))
	b.l.advance(time.Minute)
	if n := len(p.replies()); n != 0 || p.c.closed {
		t.Fatalf("%d replies while the device is too small", n)
	}
	d.Resize(10_240)
	b.l.settle()
	if n := len(p.replies()); n != 2 {
		t.Errorf("%d replies when the device has its size, want 2", n)
	}
	d.Resize(512)
	p.send(6, args(f, uint64(0), 10_000))
	b.l.settle()
	b.close()
}

func TestUnusedFilesAreClosed(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	p.write(f, 0, []byte("x"))
	d := b.tree.Device("/f")
	if d.Sessions() != 1 {
		t.Fatalf("%d sessions, want 1", d.Sessions())
	}
	b.l.advance(2 * time.Minute)
	if d.Sessions() != 0 {
		t.Errorf("%d sessions after two idle minutes, want 0", d.Sessions())
	}
	p.write(f, 0, []byte("y"))
}

// In steady state a READ or a WRITE allocates nothing.
func TestDataPathDoesNotAllocate(t *testing.T) {
	b := newBench(t, nil, nfs.Options{})
	defer b.close()
	p := b.local()
	f := p.create(root, "f")
	p.write(f, 0, pattern(1<<20, 1))
	for _, tc := range []struct {
		name string
		proc uint32
		args []byte
	}{
		{"READ 4 KiB", 6, args(f, uint64(8192), 4096)},
		{"READ 1 MiB", 6, args(f, uint64(0), 1<<20)},
		{"READ of odd bytes", 6, args(f, uint64(777), 5000)},
		{"WRITE 4 KiB", 7, args(f, uint64(4096), 4096, 2, pattern(4096, 2))},
		{"WRITE 256 KiB", 7, args(f, uint64(0), 256<<10, 2, pattern(256<<10, 2))},
		{"WRITE of odd bytes", 7, args(f, uint64(777), 5000, 2, pattern(5000, 2))},
		{"GETATTR", 1, args(f)},
	} {
		msg := record(message(1, rpc.ProgramNFS, 3, tc.proc, tc.args))
		p.c.out = make([]byte, 0, 2<<20)
		n := testing.AllocsPerRun(100, func() {
			p.xid++ // a WRITE that is repeated is not carried out
			binary.BigEndian.PutUint32(msg[4:], p.xid)
			p.c.in = msg
			p.c.deliver()
			b.l.settle()
			p.c.out = p.c.out[:0]
		})
		if n > 0 {
			t.Errorf("%s allocates %v times", tc.name, n)
		}
	}
}

// FuzzCall sends well-formed calls of every procedure with any arguments.
func FuzzCall(f *testing.F) {
	dir := root
	for proc, a := range [][]byte{
		nil, args(dir), args(dir, sattr{}, false), args(dir, "file"), args(dir, 63), args(dir), args(dir, uint64(0), 512), args(dir, uint64(0), 4, 2, []byte("data")),
		args(dir, "x", 2, [8]byte{1}), args(dir, "x", sattr{}), args(dir, "x", sattr{}, "y"), args(dir, "x", 7), args(dir, "file"), args(dir, "x"),
		args(dir, "file", dir, "y"), args(dir, dir, "x"), args(dir, uint64(0), [8]byte{}, 4096), args(dir, uint64(0), [8]byte{}, 4096, 4096),
		args(dir), args(dir), args(dir), args(dir, uint64(0), 0),
	} {
		f.Add(uint8(0), uint8(proc), a)
	}
	f.Add(uint8(0), uint8(8), args(dir, "y", 0, sattr{size: ptr(uint64(700)), mode: ptr(uint32(1)), mtime: &[2]uint32{1, 2}}))
	f.Add(uint8(1), uint8(1), args("/x"))
	f.Add(uint8(2), uint8(3), args(100003, 3, 6, 0))
	f.Fuzz(func(t *testing.T, program, proc uint8, a []byte) {
		b := newBench(t, nil, nfs.Options{})
		p := b.local()
		p.create(root, "file")
		prog := []uint32{rpc.ProgramNFS, rpc.ProgramMount, rpc.ProgramPortmap}[program%3]
		vers := []uint32{3, 3, 2}[program%3]
		p.raw(record(message(9, prog, vers, uint32(proc), a)))
		b.l.settle()
		if n := len(p.replies()); n != 1 && len(a) < 1<<20 {
			t.Errorf("%d replies to one call", n)
		}
		p.attr(root)
		b.close()
	})
}

// FuzzStream feeds a server with whatever a peer may send, cut as TCP may cut it.
func FuzzStream(f *testing.F) {
	f.Add(record(message(1, rpc.ProgramNFS, 3, 1, args(root))), uint16(0))
	f.Add(append(record(message(1, rpc.ProgramNFS, 3, 7, args(root, uint64(0), 4, 2, []byte("data")))), 0, 0, 0, 0, 0x80, 0, 0, 0), uint16(3))
	f.Add(record(message(1, rpc.ProgramNFS, 3, 8, args(root, "x", 0, sattr{size: ptr(uint64(700))}))), uint16(9))
	f.Add(record(message(1, rpc.ProgramNFS, 3, 7, args(root, uint64(0), 20_000, 2, make([]byte, 20_000)))), uint16(100))
	f.Add(record(message(1, rpc.ProgramNFS, 3, 17, args(root, uint64(0), [8]byte{}, 512, 8192))), uint16(7))
	f.Add(record(message(1, rpc.ProgramNFS, 3, 14, args(root, "a", root, "b"))), uint16(7))
	f.Add(record(message(1, rpc.ProgramMount, 3, 1, args("/a/b"))), uint16(1))
	f.Add(record(message(1, rpc.ProgramPortmap, 2, 3, args(rpc.ProgramNFS, 3, 6, 0))), uint16(1))
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		if len(in) > 1<<17 {
			return
		}
		tree := memtree.New(memtree.Options{})
		b := newBench(t, tree, nfs.Options{})
		p := b.local()
		p.create(root, "file")
		for part := range slices.Chunk(in, 1+int(cut)) {
			p.raw(part)
			b.l.step()
		}
		b.l.settle()
		p.replies()
		b.local().attr(root)
		b.close()
	})
}
