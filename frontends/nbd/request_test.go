package nbd

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
)

func TestEveryVolumeErrorHasAnErrno(t *testing.T) {
	for _, err := range volume.Sentinels {
		if !slices.ContainsFunc(errnos, func(e struct {
			err   error
			errno Errno
		}) bool {
			return e.err == err
		}) {
			t.Errorf("%q has no errno", err)
		}
		for command := range uint16(commands) {
			switch e := errno(fmt.Errorf("wrapped: %w", err), command, 0); e {
			case EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ESHUTDOWN:
			default: // ENOTSUP only for a fast zero
				t.Errorf("%q: command %d answers %d", err, command, e)
			}
		}
	}
	for _, c := range []struct {
		err            error
		command, flags uint16
		want           Errno
	}{
		{nil, cmdRead, 0, 0},
		{volume.ErrRange, cmdWrite, 0, ENOSPC},
		{volume.ErrRange, cmdWriteZeroes, 0, ENOSPC},
		{volume.ErrRange, cmdRead, 0, EINVAL},
		{volume.ErrRange, cmdTrim, 0, EINVAL},
		{volume.ErrTooLong, cmdRead, cmdFlagDF, EOVERFLOW},
		{volume.ErrUnsupported, cmdWriteZeroes, cmdFlagFastZero, ENOTSUP},
		{volume.ErrReadOnly, cmdTrim, 0, EPERM},
		{&volume.MiscompareError{}, cmdWrite, 0, EIO},
	} {
		if got := errno(c.err, c.command, c.flags); got != c.want {
			t.Errorf("errno(%v, %d, %#x) = %d, want %d", c.err, c.command, c.flags, got, c.want)
		}
	}
}

func pattern(n int, v byte) []byte { return bytes.Repeat([]byte{v}, n) }

func TestCommands(t *testing.T) {
	for _, structured := range []bool{false, true} {
		t.Run(fmt.Sprintf("structured=%v", structured), func(t *testing.T) {
			r := newRig(t, memory.Options{}, Options{})
			p := r.attached(structured)
			const size = 16 << 20
			long := pattern(maxPayload+512, 9)
			ifStructured := func(e Errno) Errno {
				if structured {
					return e
				}
				return EINVAL
			}
			for _, c := range []struct {
				name        string
				kind, flags uint16
				off         uint64
				length      uint32
				payload     []byte
				want        Errno
				data        []byte
			}{
				{"read a hole", cmdRead, 0, 0, 4096, nil, 0, pattern(4096, 0)},
				{"write", cmdWrite, 0, 4096, 8192, pattern(8192, 1), 0, nil},
				{"read it", cmdRead, 0, 4096, 8192, nil, 0, pattern(8192, 1)},
				{"write with FUA", cmdWrite, cmdFlagFUA, 8192, 512, pattern(512, 2), 0, nil},
				{"read with FUA, tolerated", cmdRead, cmdFlagFUA, 8192, 512, nil, 0, pattern(512, 2)},
				{"flush with FUA, tolerated", cmdFlush, cmdFlagFUA, 0, 0, nil, 0, nil},
				{"flush", cmdFlush, 0, 0, 0, nil, 0, nil},
				{"trim with FUA", cmdTrim, cmdFlagFUA, 4096, 512, nil, 0, nil},
				{"read what was trimmed", cmdRead, 0, 4096, 1024, nil, 0, append(pattern(512, 0), pattern(512, 1)...)},
				{"trim everything", cmdTrim, 0, 0, size, nil, 0, nil},
				{"write zeroes without a hole", cmdWriteZeroes, cmdFlagNoHole, 0, 8192, nil, 0, nil},
				{"write zeroes, fast", cmdWriteZeroes, cmdFlagFastZero, 0, 8192, nil, 0, nil},
				{"cache", cmdCache, 0, 0, 65536, nil, 0, nil},
				{"read nothing", cmdRead, 0, 0, 0, nil, 0, []byte{}},
				{"write nothing", cmdWrite, 0, 0, 0, nil, 0, nil},
				{"read beyond the end", cmdRead, 0, size, 512, nil, EINVAL, nil},
				{"write beyond the end", cmdWrite, 0, size - 512, 1024, pattern(1024, 3), ENOSPC, nil},
				{"write far beyond the end", cmdWrite, 0, 1<<64 - 512, 512, pattern(512, 3), ENOSPC, nil},
				{"write zeroes beyond the end", cmdWriteZeroes, 0, size, 512, nil, ENOSPC, nil},
				{"trim beyond the end", cmdTrim, 0, size, 512, nil, EINVAL, nil},
				{"cache beyond the end", cmdCache, 0, size, 512, nil, EINVAL, nil},
				{"unaligned read", cmdRead, 0, 1, 512, nil, EINVAL, nil},
				{"unaligned write", cmdWrite, 0, 0, 100, pattern(100, 3), EINVAL, nil},
				{"read longer than the payload", cmdRead, 0, 0, maxPayload + 512, nil, EINVAL, nil},
				{"write longer than the payload", cmdWrite, 0, 0, maxPayload + 512, long, EINVAL, nil},
				{"unknown command", 99, 0, 0, 0, nil, EINVAL, nil},
				{"resize, an extension we do not have", 8, 0, 0, 512, nil, EINVAL, nil},
				{"unknown flag", cmdRead, 1 << 9, 0, 512, nil, EINVAL, nil},
				{"flag of another command", cmdWrite, cmdFlagDF, 0, 512, pattern(512, 3), EINVAL, nil},
				{"DF", cmdRead, cmdFlagDF, 0, 512, nil, ifStructured(0), pattern(512, 0)},
				{"block status without a range", cmdBlockStatus, 0, 0, 0, nil, EINVAL, nil},
				{"block status", cmdBlockStatus, 0, 0, 4096, nil, ifStructured(0), nil},
				{"block status beyond the end", cmdBlockStatus, 0, size, 512, nil, EINVAL, nil},
				{"nothing changed meanwhile", cmdRead, 0, 0, 1 << 20, nil, 0, pattern(1<<20, 0)},
			} {
				a := p.do(c.kind, c.flags, c.off, c.length, c.payload)
				if a.errno != c.want {
					t.Errorf("%s: errno %d, want %d", c.name, a.errno, c.want)
				}
				if a.errno == 0 && c.data != nil && !bytes.Equal(a.data, c.data) {
					t.Errorf("%s: %d bytes differ from what was expected", c.name, len(a.data))
				}
			}
			p.send(request1(cmdDisc, 0, 1, 0, 0))
			p.wantClosed()
			r.end()
		})
	}
}

func TestReadOnlyExport(t *testing.T) {
	r := newRig(t, memory.Options{ReadOnly: true}, Options{})
	p := r.attached(true)
	for _, kind := range []uint16{cmdWrite, cmdTrim, cmdWriteZeroes} {
		var payload []byte
		if kind == cmdWrite {
			payload = pattern(512, 1)
		}
		if a := p.do(kind, 0, 0, 512, payload); a.errno != EPERM {
			t.Errorf("command %d: errno %d, want EPERM", kind, a.errno)
		}
	}
	for _, kind := range []uint16{cmdRead, cmdFlush, cmdCache, cmdBlockStatus} {
		if a := p.do(kind, 0, 0, 512, nil); a.errno != 0 {
			t.Errorf("command %d: errno %d", kind, a.errno)
		}
	}
	r.end()
}

func TestSparseReadsComeAsHoles(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	r.disk.WriteAt(pattern(8192, 1), 4096) // 4096..12288
	r.disk.WriteAt(pattern(512, 2), 16384) // after a hole of 4096
	r.disk.WriteAt(pattern(512, 3), 17408) // after a hole of 512
	p := r.attached(true)
	for _, c := range []struct {
		off    uint64
		length uint32
		flags  uint16
		chunks string
	}{
		{0, 4096, 0, "hole 0+4096"},
		{0, 8192, 0, "hole 0+4096, data 4096+4096"},
		{4096, 12288 + 1536 + 4096, 0, "data 4096+8192, hole 12288+4096, data 16384+1536, hole 17920+4096"},
		{16384, 1024 + 1024, 0, "data 16384+2048"},
		{512, 512, 0, "hole 512+512"},
		{0, 65536, cmdFlagDF, "data 0+65536"},
		{1 << 20, 65536, cmdFlagDF, "hole 1048576+65536"},
		{1 << 20, 8 << 20, 0, "hole 1048576+8388608"},
	} {
		want := make([]byte, c.length)
		r.disk.ReadAt(want, c.off)
		a := p.do(cmdRead, c.flags, c.off, c.length, nil)
		if a.chunks != c.chunks || !bytes.Equal(a.data, want) {
			t.Errorf("read %d+%d: %s (data right: %v), want %s", c.off, c.length, a.chunks, bytes.Equal(a.data, want), c.chunks)
		}
	}
	q := r.attached(false)
	want := make([]byte, 1<<20)
	r.disk.ReadAt(want, 0)
	if a := q.do(cmdRead, 0, 0, 1<<20, nil); !bytes.Equal(a.data, want) {
		t.Error("a simple reply with holes differs")
	}
	r.end()
}

func TestRandomSparseReads(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	rng := r.w.Rand()
	for range 200 {
		r.disk.WriteAt(pattern(512*(1+rng.IntN(12)), byte(1+rng.IntN(255))), uint64(rng.IntN(512))*512)
	}
	for _, structured := range []bool{false, true} {
		p := r.attached(structured)
		for range 300 {
			off, n := uint64(rng.IntN(512))*512, uint32(1+rng.IntN(200))*512
			flags := uint16(0)
			if structured && rng.IntN(4) == 0 {
				flags = cmdFlagDF
			}
			want := make([]byte, n)
			r.disk.ReadAt(want, off)
			if a := p.do(cmdRead, flags, off, n, nil); !bytes.Equal(a.data, want) || flags != 0 && strings.Contains(a.chunks, ",") {
				t.Fatalf("read %d+%d, flags %d: errno %d, %s", off, n, flags, a.errno, a.chunks)
			}
		}
	}
	r.end()
}

func TestBlockStatus(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	r.disk.WriteAt(pattern(8192, 1), 4096)
	p := r.attached(true)
	if a := p.do(cmdWriteZeroes, cmdFlagNoHole, 12288, 4096, nil); a.errno != 0 {
		t.Fatal(a.errno)
	}
	for _, c := range []struct {
		off    uint64
		length uint32
		flags  uint16
		want   []uint32
	}{
		{0, 20480, 0, []uint32{4096, 3, 8192, 0, 4096, 2, 4096, 3}},
		{0, 20480, cmdFlagReqOne, []uint32{4096, 3}},
		{8192, 1024, 0, []uint32{1024, 0}},
		{0, 16 << 20, 0, []uint32{4096, 3, 8192, 0, 4096, 2, 16<<20 - 16384, 3}},
	} {
		if a := p.do(cmdBlockStatus, c.flags, c.off, c.length, nil); !slices.Equal(a.status, c.want) {
			t.Errorf("status of %d+%d: %v, want %v", c.off, c.length, a.status, c.want)
		}
	}
	r.end()
}

func TestFastZeroThatWouldBeSlow(t *testing.T) {
	r := newRig(t, memory.Options{SlowZero: true}, Options{})
	p := r.attached(true)
	if a := p.do(cmdWriteZeroes, cmdFlagFastZero, 0, 4096, nil); a.errno != ENOTSUP {
		t.Errorf("errno %d, want ENOTSUP", a.errno)
	}
	r.end()
}

// Requests complete in an order that a seed draws; each is answered once, with its own data, and the bounds hold.
func TestOutOfOrderWithinBounds(t *testing.T) {
	for _, c := range []struct {
		name       string
		structured bool
		o          Options
	}{
		{"simple", false, Options{}},
		{"structured", true, Options{}},
		{"few at once", true, Options{MaxInFlight: 3}},
		{"few bytes at once", false, Options{MaxBytes: 10000}},
		{"few bytes for all", true, Options{TotalBytes: 20000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, memory.Options{MaxDelay: 5 * time.Millisecond, Seed: 3}, c.o)
			p := r.attached(c.structured)
			const n = 200
			var stream []byte
			for i := range uint64(n) {
				stream = append(append(stream, request1(cmdWrite, 0, i, i*4096, 4096)...), pattern(4096, byte(i+1))...)
			}
			p.send(stream)
			order := []uint64{}
			check := func(a answer) {
				if a.errno != 0 || slices.Contains(order, a.cookie) {
					t.Fatalf("request %d: errno %d, answered before: %v", a.cookie, a.errno, slices.Contains(order, a.cookie))
				}
				order = append(order, a.cookie)
				k := r.srv.conns[0]
				if o := r.srv.o; k.inFlight > o.MaxInFlight || k.bytes > o.MaxBytes || r.srv.bytes > o.TotalBytes {
					t.Fatalf("%d requests, %d bytes under way", k.inFlight, k.bytes)
				}
			}
			for range n {
				check(p.answer(nil))
			}
			if slices.IsSorted(order) {
				t.Error("all were answered in order: this test shows nothing")
			}
			order = order[:0]
			lengths := map[uint64]uint32{}
			for i := range uint64(n) {
				lengths[i] = 4096
				p.send(request1(cmdRead, 0, i, i*4096, 4096))
			}
			for range n {
				a := p.answer(lengths)
				check(a)
				if !bytes.Equal(a.data, pattern(4096, byte(a.cookie+1))) {
					t.Fatalf("read %d brought other data", a.cookie)
				}
			}
			k := r.srv.conns[0]
			if k.inFlight != 0 || k.bytes != 0 || r.srv.bytes != 0 {
				t.Errorf("when all is answered %d requests, %d bytes count as under way", k.inFlight, k.bytes)
			}
			r.end()
		})
	}
}

// A client that does not take its replies is not read any more, so what waits for it is bounded.
func TestClientThatDoesNotRead(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	r.disk.WriteAt(pattern(1<<20, 1), 0)
	p := r.attached(true)
	p.c.Pause()
	for i := range uint64(200) {
		p.send(request1(cmdRead, 0, i, 0, 1<<20))
	}
	r.w.Run(10 * time.Second)
	k := r.srv.conns[0]
	if !k.behind {
		t.Error("the server goes on reading requests")
	}
	if q := k.c.Queued(); q > 4<<20+r.srv.o.MaxBytes {
		t.Errorf("%d bytes wait for the client", q)
	}
	p.c.Resume()
	for range 200 {
		if a := p.answer(nil); len(a.data) != 1<<20 {
			t.Fatalf("answer of %d bytes, errno %d", len(a.data), a.errno)
		}
	}
	r.end()
}

func TestGarbageCostsItsSenderOnly(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	good, bad := r.attached(true), r.attached(true)
	bad.send(bytes.Repeat([]byte{0xde, 0xad}, 50))
	bad.wantClosed()
	if a := good.do(cmdWrite, 0, 0, 512, pattern(512, 1)); a.errno != 0 {
		t.Errorf("the other client: errno %d", a.errno)
	}
	r.end()
}

func TestLostClientIsForgotten(t *testing.T) {
	r := newRig(t, memory.Options{MaxDelay: 10 * time.Millisecond, Seed: 1}, Options{})
	p := r.attached(true)
	for i := range uint64(20) {
		p.send(append(request1(cmdWrite, 0, i, i*4096, 4096), pattern(4096, 1)...))
		p.send(request1(cmdRead, 0, i, i*4096, 4096))
	}
	p.send(request1(cmdWrite, 0, 99, 0, 1<<20)) // whose payload does not come
	r.w.RunUntil(func() bool { return r.srv.conns[0].filling != nil && r.srv.conns[0].filling.head.cookie == 99 }, time.Second)
	r.w.Net.ResetConn(p.c)
	if !r.w.RunUntil(func() bool { return r.disk.Sessions() == 0 }, time.Second) {
		t.Error("its handle is still attached")
	}
	if r.srv.bytes != 0 || len(r.srv.conns) != 0 {
		t.Errorf("%d bytes and %d connections are still counted", r.srv.bytes, len(r.srv.conns))
	}
	r.end()
}

// What was read is answered before the connection ends; what was not read is not answered at all.
func TestCloseDrains(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(r *rig, p *peer)
	}{
		{"server closes", func(r *rig, p *peer) { r.srv.Close(nil) }},
		{"gateway drains", func(r *rig, p *peer) { r.disk.Drain() }},
		{"client disconnects", func(r *rig, p *peer) { p.send(request1(cmdDisc, 0, 0, 0, 0)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, memory.Options{MaxDelay: 100 * time.Millisecond, Seed: 1}, Options{})
			p := r.attached(true)
			for i := range uint64(20) {
				p.send(append(request1(cmdWrite, 0, i, i*4096, 4096), pattern(4096, 1)...))
			}
			r.w.RunUntil(func() bool { return r.srv.conns[0].inFlight == 20 && r.srv.conns[0].filling == nil }, time.Second)
			c.f(r, p)
			for range 20 {
				if a := p.answer(nil); a.errno != 0 {
					t.Errorf("request %d: errno %d", a.cookie, a.errno)
				}
			}
			p.wantClosed()
			r.end()
		})
	}
}

func TestCloseWhileAPayloadIsMissing(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{DrainTimeout: time.Second})
	p := r.attached(true)
	p.send(request1(cmdWrite, 0, 1, 0, 1<<20))
	q := r.attached(true)
	q.send(append(request1(cmdWrite, 0, 1, 1<<40, 1<<20), 1, 2, 3)) // refused, and still to be passed over
	r.w.Run(time.Second)
	r.end()
	p.wantClosed()
	q.wantClosed()
}

func TestRemovedImage(t *testing.T) {
	r := newRig(t, memory.Options{MaxDelay: 100 * time.Millisecond, Seed: 1}, Options{})
	p := r.attached(true)
	for i := range uint64(5) {
		p.send(request1(cmdRead, 0, i, 0, 512))
	}
	r.w.RunUntil(func() bool { return r.srv.conns[0].inFlight == 5 }, time.Second)
	r.catalog.Remove("disk")
	for range 5 {
		if a := p.answer(nil); a.errno != ESHUTDOWN && a.errno != 0 {
			t.Errorf("errno %d, want ESHUTDOWN", a.errno)
		}
	}
	p.wantClosed()
	r.end()
}

func TestResizedImage(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	p := r.attached(true)
	if a := p.do(cmdWrite, 0, 16<<20, 512, pattern(512, 1)); a.errno != ENOSPC {
		t.Errorf("before: errno %d, want ENOSPC", a.errno)
	}
	r.disk.Resize(32 << 20)
	r.w.Run(time.Second)
	if a := p.do(cmdWrite, 0, 16<<20, 512, pattern(512, 1)); a.errno != 0 {
		t.Errorf("after growing: errno %d", a.errno)
	}
	r.end()
}

func TestDeviceErrorsReachTheClient(t *testing.T) {
	var fault error
	r := newRig(t, memory.Options{Fail: func(*volume.Op) error { return fault }}, Options{})
	for _, structured := range []bool{false, true} {
		p := r.attached(structured)
		for _, err := range volume.Sentinels {
			fault = err
			for _, kind := range []uint16{cmdRead, cmdWrite, cmdFlush} {
				var payload []byte
				if kind == cmdWrite {
					payload = pattern(512, 1)
				}
				if a := p.do(kind, 0, 0, 512, payload); a.errno != errno(err, kind, 0) {
					t.Errorf("%v: command %d answers %d", err, kind, a.errno)
				}
			}
		}
	}
	r.end()
}
