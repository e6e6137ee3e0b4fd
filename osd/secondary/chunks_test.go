package secondary

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/loop/system"
	"holdfast/core/peer"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// asker is a primary on another OSD, connected to a member.
type asker struct {
	t     *testing.T
	m     *member
	l     *sim.Loop
	hub   *peer.Hub
	grant wire.Grant
	n     int // requests under way
}

// serving is what a member's hub calls.
type serving struct{ s *Server }

func (v serving) Serve(r *peer.Request)       { v.s.Serve(r) }
func (serving) PeerUp(layout.OSDNum)          {}
func (serving) PeerDown(layout.OSDNum, error) {}
func (serving) IncomingDown(*peer.Incoming)   {}
func testConfig() wire.ConfigReply {
	return wire.ConfigReply{BlockSize: 128 << 10, BitmapGranularity: 4096, PrimaryEnabled: true, BlockstoreEnabled: true, ImmediateCommit: wire.CommitAll}
}
func chunk(n uint64, role uint64) layout.ObjectID {
	return layout.ObjectID{Inode: layout.MakeInode(thePG.Pool, 7), Stripe: n<<20 | role}
}

func withAsker(t *testing.T, f func(t *testing.T, a *asker)) {
	withMember(t, func(t *testing.T, m *member) {
		done := false
		m.st.Shard(thePG.Pool, store.Sharding{PGCount: 1, PGStripeSize: 1 << 20}, func() { done = true })
		m.w.RunUntil(func() bool { return done }, time.Minute)
		key := []byte("a cluster key of the tests")
		hub := peer.New(m.l, peer.Options{Self: m.self.OSD, Instance: m.self.Instance, Client: "member", Key: key, Config: testConfig}, serving{New(m.l, m.st, m.locks)})
		addr := loop.Addr{Network: "tcp", Address: m.l.Host() + ":7000"}
		if _, err := hub.Listen(addr, loop.ListenOptions{}); err != nil {
			t.Fatal(err)
		}
		a := &asker{t: t, m: m, l: m.w.NewLoop("primary"), grant: wire.Grant{PG: thePG, Interval: 5, Instance: osdA.Instance}}
		a.hub = peer.New(a.l, peer.Options{Self: osdA.OSD, Instance: osdA.Instance, Client: "primary", Key: key, Config: testConfig}, nil)
		a.hub.SetPeer(m.self.OSD, []loop.Addr{addr})
		f(t, a)
	})
}

// request is a packet that can be sent.
type request interface{ Encode(*wire.Header) }

// send asks, and does not wait.
func (a *asker) send(q request, meta []byte, data []byte, done func(*peer.Call)) {
	c := &peer.Call{Meta: meta}
	q.Encode(&c.Header)
	if len(data) > 0 {
		ref := a.l.Alloc(len(data))
		copy(ref.Bytes(), data)
		c.Payload = []peer.Piece{{Ref: ref, Len: len(data)}}
	}
	a.n++
	c.Done = func(c *peer.Call) {
		a.n--
		for _, p := range c.Payload {
			p.Ref.Release()
		}
		if c.Err != nil {
			a.t.Errorf("%v: %v", c.Header.Op(), c.Err)
		}
		if done != nil {
			done(c)
		}
	}
	a.hub.Call(a.m.self.OSD, c)
}

func (a *asker) wait() {
	a.t.Helper()
	if !a.m.w.RunUntil(func() bool { return a.n == 0 }, time.Minute) {
		a.t.Fatal("a request is not answered")
	}
}

// ask waits for the answer.
func (a *asker) ask(q request, meta, data []byte) (retval int64, reply wire.SubReply) {
	a.t.Helper()
	a.send(q, meta, data, func(c *peer.Call) {
		retval = c.Reply.Retval()
		if err := reply.Decode(&c.Reply); err != nil && retval >= 0 && c.Header.Op() != wire.OpSubChange {
			a.t.Error(err)
		}
	})
	a.wait()
	return retval, reply
}

func (a *asker) change(o layout.ObjectID, base, version layout.Version, bitmap []byte, data []byte) wire.SubChange {
	return wire.SubChange{Object: o, Base: base, Version: version, Len: uint32(len(data)), Session: 3, Sequence: uint64(version), Grant: a.grant, Kind: wire.ChangeWrite, Unstable: true, Meta: len(bitmap)}
}

// read says what the member answers to a SUB_READ_RANGE.
func (a *asker) read(o layout.ObjectID, atMost layout.Version, n uint32) (out string) {
	a.t.Helper()
	m := wire.SubReadRange{Object: o, AtMost: atMost, Offset: 4096, Len: n, Grant: a.grant}
	a.send(&m, nil, nil, func(c *peer.Call) {
		var r wire.SubReply
		if err := r.Decode(&c.Reply); err != nil || r.Retval != 0 {
			out = fmt.Sprint(r.Retval, err)
			return
		}
		out = fmt.Sprintf("version %x of %d, flags %d, bitmap %x", uint64(r.Version), r.Written, r.Flags, c.ReplyMeta)
		if c.ReplyData != nil {
			out += fmt.Sprintf(", %d bytes of %q", c.ReplyData.Len(), c.ReplyData.Bytes()[:1])
			c.ReplyData.Release()
		}
	})
	a.wait()
	return out
}

func versions(list ...wire.Versioned) (p []byte) {
	for _, v := range list {
		p = wire.AppendVersioned(p, v)
	}
	return p
}

func (a *asker) settle(op wire.Opcode, list ...wire.Versioned) int64 {
	a.t.Helper()
	p := versions(list...)
	retval, _ := a.ask(&wire.Sub{Op: op, Grant: a.grant, Meta: len(p)}, p, nil)
	return retval
}

func block(c byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = c
	}
	return b
}

// A primary of an erasure-coded pool writes, reads, commits and rolls back chunks of a member.
func TestChunksOverTheWire(t *testing.T) {
	withAsker(t, func(t *testing.T, a *asker) {
		data, parity := chunk(1, 0), chunk(1, 2)
		one := a.change(data, 0, 4, nil, block('a', 16384))
		if retval, _ := a.ask(&one, nil, block('a', 16384)); retval != wire.ESTALE {
			t.Errorf("a change without a grant: %d", retval)
		}
		if out := a.read(data, 9, 4096); out != fmt.Sprint(wire.ESTALE, error(nil)) {
			t.Errorf("a read without a grant: %s", out)
		}
		if retval := a.settle(wire.OpSubCommit, wire.Versioned{OID: data, Version: 4}); retval != wire.ESTALE {
			t.Errorf("a commit without a grant: %d", retval)
		}
		if retval, _ := a.m.lock(osdA, 5); retval != 0 {
			t.Fatalf("lock: %d", retval)
		}
		bitmap := []byte{0x0f, 1, 0, 0x80}
		two := a.change(parity, 0, 4, bitmap, block('p', 16384))
		// A change, its commit and the next change go out one behind the other.
		a.send(&one, nil, block('a', 16384), nil)
		a.send(&two, bitmap, block('p', 16384), nil)
		p := versions(wire.Versioned{OID: data, Version: 4}, wire.Versioned{OID: parity, Version: 4})
		a.send(&wire.Sub{Op: wire.OpSubCommit, Grant: a.grant, Meta: len(p)}, p, nil, func(c *peer.Call) {
			if v := c.Reply.Retval(); v != 0 {
				t.Errorf("commit: %d", v)
			}
		})
		raise := a.change(data, 4, 6, nil, nil)
		next := a.change(parity, 4, 6, []byte{0xff, 0, 0, 0}, block('q', 8192))
		a.send(&raise, nil, nil, nil)
		a.send(&next, []byte{0xff, 0, 0, 0}, block('q', 8192), nil)
		a.wait()
		for _, c := range []struct {
			o    layout.ObjectID
			at   layout.Version
			n    uint32
			want string
		}{
			{data, 4, 4096, `version 4 of 5, flags 0, bitmap 0f000000, 4096 bytes of "a"`},
			{data, 5, 0, `version 4 of 5, flags 0, bitmap 0f000000`},
			{data, wire.Newest, 8192, `version 6 of 5, flags 4, bitmap 0f000000, 8192 bytes of "a"`},
			{parity, 4, 4096, `version 4 of 5, flags 0, bitmap 0f010080, 4096 bytes of "p"`},
			{parity, 6, 4096, `version 6 of 5, flags 4, bitmap ff000000, 4096 bytes of "q"`},
			{parity, 3, 4096, fmt.Sprint(wire.EAGAIN, error(nil))},
			{parity, 0, 0, fmt.Sprint(wire.EAGAIN, error(nil))},
			{chunk(1, 1), 0, 4096, `version 0 of 0, flags 0, bitmap 00000000, 4096 bytes of "\x00"`},
			{data, 4, 4095, fmt.Sprint(wire.EINVAL, error(nil))},
			{data, 4, 128 << 10, fmt.Sprint(wire.EINVAL, error(nil))},
			{layout.ObjectID{Inode: layout.MakeInode(2, 7)}, 4, 0, fmt.Sprint(wire.ESTALE, error(nil))},
		} {
			if out := a.read(c.o, c.at, c.n); out != c.want {
				t.Errorf("%v at most %x: %s, want %s", c.o, uint64(c.at), out, c.want)
			}
		}
		if retval := a.settle(wire.OpSubRollback, wire.Versioned{OID: data, Version: 4}, wire.Versioned{OID: parity, Version: 5}); retval != 0 {
			t.Errorf("rollback: %d", retval)
		}
		if out := a.read(parity, wire.Newest, 0); out != "version 4 of 5, flags 0, bitmap 0f010080" {
			t.Errorf("after a rollback: %s", out)
		}
		if _, _, ok := a.m.st.FindPair(store.Pair{Session: 3, Sequence: 6}); ok {
			t.Error("the request of what was rolled back is known")
		}
		// Refused, each in a way of its own.
		if retval := a.settle(wire.OpSubRollback, wire.Versioned{OID: data, Version: 3}); retval != wire.ERANGE {
			t.Errorf("a rollback of what is stable: %d", retval)
		}
		if retval := a.settle(wire.OpSubCommit, wire.Versioned{OID: data, Version: 4}, wire.Versioned{OID: parity, Version: 9}); retval != wire.ERANGE {
			t.Errorf("a commit of what is not there: %d", retval)
		}
		if retval := a.settle(wire.OpSubCommit, wire.Versioned{OID: layout.ObjectID{Inode: layout.MakeInode(2, 1)}, Version: 1}); retval != wire.EINVAL {
			t.Errorf("a commit in another pool: %d", retval)
		}
		if retval, _ := a.ask(&wire.Sub{Op: wire.OpSubCommit, Grant: a.grant, Meta: 23}, make([]byte, 23), nil); retval != wire.EINVAL {
			t.Errorf("a commit of 23 bytes: %d", retval)
		}
		wrong := a.change(data, 4, 7, []byte{1, 2, 3}, nil)
		if retval, _ := a.ask(&wrong, []byte{1, 2, 3}, nil); retval != wire.EINVAL {
			t.Errorf("a bitmap of three bytes: %d", retval)
		}
		// A listing has what is stable and what waits.
		gone := a.change(data, 4, 8, nil, nil)
		gone.Kind = wire.ChangeDelete
		if retval, _ := a.ask(&gone, nil, nil); retval != 0 {
			t.Errorf("an unstable deletion: %d", retval)
		}
		if out := a.read(data, 8, 0); out != "version 8 of 5, flags 5, bitmap 00000000" {
			t.Errorf("the deletion reads as %s", out)
		}
		var list []string
		a.send(&wire.Sub{Op: wire.OpSubList, Limit: 1, Grant: a.grant}, nil, nil, func(c *peer.Call) {
			if err := wire.SubEntries(c.ReplyMeta, func(e wire.SubEntry) {
				list = append(list, fmt.Sprintf("%v@%x %d", e.Object, uint64(e.Version), e.Flags))
			}); err != nil {
				t.Error(err)
			}
		})
		a.wait()
		// One object with all its versions, however few were asked for.
		if want := []string{fmt.Sprintf("%v@4 0", data), fmt.Sprintf("%v@8 5", data)}; !slices.Equal(list, want) {
			t.Errorf("the first page is %q, wanted %q", list, want)
		}
	})
}

// The grant is not given to another while versions are being settled: what is listed afterwards is the outcome.
func TestLockWaitsForSettling(t *testing.T) {
	withAsker(t, func(t *testing.T, a *asker) {
		if retval, _ := a.m.lock(osdA, 5); retval != 0 {
			t.Fatalf("lock: %d", retval)
		}
		o := chunk(1, 0)
		one := a.change(o, 0, 4, nil, block('a', 4096))
		if retval, _ := a.ask(&one, nil, block('a', 4096)); retval != 0 {
			t.Fatal(retval)
		}
		s := New(a.m.l, a.m.st, a.m.locks)
		committed, granted := false, false
		s.Commit(thePG, []wire.Versioned{{OID: o, Version: 4}}, func(err error) {
			if committed = true; err != nil || granted {
				t.Errorf("the commit ended with %v; granted %v", err, granted)
			}
		})
		a.m.locks.Unlock(a.grant)
		a.m.locks.Lock(LockRequest{Holder: osdB, PG: thePG, Generation: 5, Interval: 6}, func(retval int64, _ LockReply) { granted = retval == 0 })
		a.m.w.RunUntil(func() bool { return granted }, time.Minute)
		if st, _ := a.m.st.State(o); !committed || !granted || st.Flags != 0 {
			t.Errorf("committed %v, granted %v, the object is %+v", committed, granted, st)
		}
		var err error
		s.Rollback(thePG, []wire.Versioned{{OID: o, Version: 3}}, func(e error) { err = e })
		a.m.w.Run(time.Second)
		if _, is := errors.AsType[*store.BaseError](err); !is {
			t.Errorf("a rollback of what is stable ends with %v", err)
		}
	})
}

// TestChunksAllocateNothing writes, commits and reads chunks on a real loop, as the primary on the same OSD does.
func TestChunksAllocateNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := system.New(system.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run() }()
	on := func(f func(done func())) {
		end := make(chan struct{})
		r.Post(&loop.Task{Run: func() { f(func() { close(end) }) }})
		<-end
	}
	var d loop.Disk
	var st *store.Store
	on(func(done func()) {
		if d, err = r.OpenDisk(path, loop.DiskOptions{}); err != nil {
			d, err = r.OpenDisk(path, loop.DiskOptions{Buffered: true})
		}
		if err != nil {
			done()
			return
		}
		store.Format(r, d, store.Config{}, func(_ store.Superblock, e error) {
			if err = e; err != nil {
				done()
				return
			}
			store.Open(r, d, store.Options{Log: slog.New(slog.DiscardHandler)}, func(s *store.Store, e error) { st, err = s, e; done() })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &steady{bitmap: []byte{1, 2, 3, 4}}
	p.write.Done, p.read.Done, p.committed = p.written, p.hasRead, func(err error) { p.note(err) }
	on(func(done func()) {
		p.s, p.data = New(r, st, NewLocks(r, st, osdA, ttl, nil)), r.Alloc(4096)
		p.left, p.done = 3000, done
		p.next()
	})
	const n = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	on(func(done func()) {
		p.left, p.done = n, done
		p.next()
	})
	runtime.ReadMemStats(&after)
	if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.1 || p.err != nil {
		t.Errorf("%.3f heap objects per write, commit and read; %v", per, p.err)
	} else {
		t.Logf("%.3f heap objects per write, commit and read", per)
	}
	on(func(done func()) {
		p.data.Release()
		st.Close(func() { d.Close(done) })
	})
	r.Stop()
	<-ended
}

// steady is a client that makes one write at a time.
type steady struct {
	s           *Server
	version     layout.Version
	left        int
	err         error
	write, read store.Op
	data        *buf.Ref
	bitmap      []byte
	list        [1]wire.Versioned
	committed   func(error)
	done        func()
}

func (p *steady) note(err error) {
	if err != nil && p.err == nil {
		p.err = err
	}
}

func (p *steady) next() {
	if p.left--; p.left < 0 {
		p.done()
		return
	}
	m := wire.SubChange{Object: chunk(1, 2), Base: p.version, Version: p.version + 1, Len: 4096, Grant: wire.Grant{PG: thePG, Interval: 5}, Kind: wire.ChangeWrite, Unstable: true}
	p.version++
	p.write.Data, p.write.Bitmap = p.data, append(p.write.Bitmap[:0], p.bitmap...)
	p.s.Change(&p.write, &m)
}

func (p *steady) written(op *store.Op) {
	p.note(op.Err)
	ResetOp(op)
	p.s.Changed(thePG)
	p.list[0] = wire.Versioned{OID: chunk(1, 2), Version: uint64(p.version)}
	p.s.Commit(thePG, p.list[:], p.committed)
	p.s.ReadRange(&p.read, &wire.SubReadRange{Object: chunk(1, 2), AtMost: p.version, Len: 4096})
}

func (p *steady) hasRead(op *store.Op) {
	p.note(op.Err)
	if op.Data != nil {
		op.Data.Release()
	}
	ResetOp(op)
	p.next()
}
