package sim

import (
	"bytes"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"holdfast/core/loop"
)

func wantFault(t *testing.T, w *World, f Fault, n uint64) {
	t.Helper()
	if got := w.Faults()[f]; got != n {
		t.Errorf("%v was counted %d times, want %d", f, got, n)
	}
}

func TestHalfOpenConnectionIsNoticedByWhoeverSends(t *testing.T) {
	w, a, b, ca, cb := pair(t, 1)
	if n := w.Net.Break(a, b, BreakOne); n != 1 {
		t.Errorf("%d connections were broken", n)
	}
	w.Run(time.Minute)
	if ca.closed != 1 || !errors.Is(ca.err, syscall.ECONNRESET) || cb.closed != 0 {
		t.Errorf("closed %d (%v) here and %d there, want 1 and 0", ca.closed, ca.err, cb.closed)
	}
	cb.conn.Send([]byte("anybody there?"))
	w.Run(time.Second)
	if cb.closed != 1 || !errors.Is(cb.err, syscall.ECONNRESET) || len(ca.got) != 0 {
		t.Errorf("after sending closed %d (%v)", cb.closed, cb.err)
	}
	wantFault(t, w, FaultHalfOpen, 1)
	wantFault(t, w, FaultReset, 0)
}

func TestHalfOpenConnectionIsNoticedByKeepAlive(t *testing.T) {
	w, a, b, _, cb := pair(t, 1)
	cb.conn.SetKeepAlive(time.Second, time.Second, 3)
	w.Net.Break(a, b, BreakOne)
	w.Run(1500 * time.Millisecond)
	if cb.closed != 1 || !errors.Is(cb.err, syscall.ECONNRESET) {
		t.Errorf("closed %d (%v)", cb.closed, cb.err)
	}
}

func TestSilentlyBrokenConnectionIsNoticedByNobody(t *testing.T) {
	w, a, b, ca, cb := pair(t, 1)
	w.Net.Break(a, b, BreakSilent)
	ca.conn.Send([]byte("lost"))
	cb.conn.Send([]byte("lost"))
	w.Run(time.Minute)
	if ca.closed+cb.closed != 0 || len(ca.got)+len(cb.got) != 0 {
		t.Errorf("closed %d and %d, %q and %q arrived", ca.closed, cb.closed, ca.got, cb.got)
	}
	ca.conn.SetKeepAlive(time.Second, time.Second, 3)
	w.Run(10 * time.Second)
	if ca.closed != 1 || !errors.Is(ca.err, syscall.ETIMEDOUT) || cb.closed != 0 {
		t.Errorf("with keep-alive closed %d (%v) and %d", ca.closed, ca.err, cb.closed)
	}
	again := &client{}
	again.conn = a.Dial(service, again)
	w.Run(time.Second)
	if !again.opened {
		t.Error("a new connection does not come about")
	}
	wantFault(t, w, FaultSilentBreak, 1)
}

func TestConnectionsOvertakeEachOther(t *testing.T) {
	w, a, _, ca, cb := pair(t, 1)
	second := &client{}
	second.conn = a.Dial(service, second)
	w.Run(time.Second)
	other := cb.conn // the last one accepted
	_ = other
	w.Net.SetDelay(Delay{Min: time.Millisecond, Max: 10 * time.Millisecond})
	order := map[byte]bool{}
	var last []byte
	cb.received = func(_ loop.Conn, p []byte) int {
		last = append(last, p...)
		return len(p)
	}
	for range 50 {
		last = last[:0]
		ca.conn.Send([]byte("1"))
		second.conn.Send([]byte("2"))
		w.Run(100 * time.Millisecond)
		if len(last) != 2 {
			t.Fatalf("%q arrived", last)
		}
		order[last[0]] = true
	}
	if !order['1'] || !order['2'] {
		t.Error("what was sent first over one connection always arrives before what is sent over another")
	}
}

func TestPiecesAreAsManyAsAllowed(t *testing.T) {
	for _, c := range []struct{ pieces, least, most int }{{1, 1, 1}, {3, 2, 3}, {40, 10, 40}} {
		w, _, _, ca, cb := pair(t, 1)
		w.Net.SetPieces(c.pieces)
		most, calls := 0, 0
		cb.received = func(_ loop.Conn, p []byte) int {
			calls++
			cb.got = append(cb.got, p...)
			return len(p)
		}
		want := random(10_000)
		for range 30 {
			calls, cb.got = 0, nil
			ca.conn.Send(want)
			w.Run(time.Second)
			if !bytes.Equal(cb.got, want) {
				t.Fatal("bytes are lost or out of order")
			}
			most = max(most, calls)
		}
		if most < c.least || most > c.most {
			t.Errorf("with %d pieces at most %d came", c.pieces, most)
		}
	}
}

func TestRareDelaysAreLong(t *testing.T) {
	w, _, _, ca, cb := pair(t, 1)
	w.Net.SetDelay(Delay{Min: time.Millisecond, Max: 2 * time.Millisecond, Worst: time.Second, Rare: 0.2})
	long := 0
	for range 200 {
		start := w.Elapsed()
		cb.got = nil
		ca.conn.Send([]byte{1})
		w.RunUntil(func() bool { return len(cb.got) > 0 }, time.Minute)
		if w.Elapsed()-start > 2*time.Millisecond {
			long++
		}
	}
	if long < 20 || long > 80 {
		t.Errorf("%d of 200 were long with odds of 1/5", long)
	}
}

func TestBandwidthLimitsHowFastBytesCome(t *testing.T) {
	w, a, b, ca, cb := pair(t, 1)
	w.Net.SetBandwidth(a, b, 1<<20)
	start := w.Elapsed()
	ca.conn.Send(random(4 << 20))
	w.RunUntil(func() bool { return len(cb.got) == 4<<20 }, time.Minute)
	if took := w.Elapsed() - start; took < 4*time.Second || took > 5*time.Second {
		t.Errorf("4 MiB at 1 MiB/s took %v", took)
	}
	start = w.Elapsed()
	cb.conn.Send(random(4 << 20))
	w.RunUntil(func() bool { return len(ca.got) == 4<<20 }, time.Minute)
	if took := w.Elapsed() - start; took > time.Second {
		t.Errorf("the other way took %v", took)
	}
}

func TestFlappingLinkComesAndGoes(t *testing.T) {
	w, a, b, ca, cb := pair(t, 1)
	w.Net.Flap(a, b, 100*time.Millisecond, 200*time.Millisecond, 10*time.Second)
	down, changes, was := 0, 0, false
	for i := range 1000 {
		if i%10 == 0 {
			ca.conn.Send([]byte{byte(i / 10)})
		}
		w.Run(10 * time.Millisecond)
		cut := w.Net.isCut(a, b)
		if cut {
			down++
		}
		if cut != was {
			changes++
		}
		was = cut
	}
	if down < 500 || down > 800 || changes < 40 {
		t.Errorf("down in %d of 1000 moments, %d changes; want about 667 and 66", down, changes)
	}
	w.Run(time.Second)
	if w.Net.isCut(a, b) || len(cb.got) != 100 || !slices.IsSorted(cb.got) {
		t.Errorf("in the end cut %t, %d of 100 bytes arrived", w.Net.isCut(a, b), len(cb.got))
	}
	w.Net.Flap(a, b, time.Second, time.Second, time.Minute)
	w.Run(time.Second)
	w.Net.HealAll()
	for range 100 {
		if w.Run(100 * time.Millisecond); w.Net.isCut(a, b) {
			t.Fatal("it flaps on after HealAll")
		}
	}
	wantFault(t, w, FaultFlap, 2)
}

func TestPartitionCutsGroupsFromEachOther(t *testing.T) {
	w := NewWorld(1)
	var ls []*Loop
	for _, name := range []string{"a", "b", "c", "d"} {
		ls = append(ls, w.NewLoop(name))
	}
	w.Net.Partition(ls[:2], ls[2:3])
	for _, c := range []struct {
		a, b int
		want bool
	}{{0, 1, false}, {0, 2, true}, {2, 1, true}, {3, 0, false}, {3, 2, false}} {
		if got := w.Net.isCut(ls[c.a], ls[c.b]); got != c.want {
			t.Errorf("%s to %s cut: %t", ls[c.a].name, ls[c.b].name, got)
		}
	}
}

func TestEachNetworkCallCanFailInTurn(t *testing.T) {
	for k := uint64(1); k < 20; k++ {
		w := NewWorld(1)
		a, b := w.NewLoop("a"), w.NewLoop("b")
		if _, err := b.Listen(service, loop.ListenOptions{}, echoListener{}); err != nil {
			t.Fatal(err)
		}
		w.Net.FailCall(k)
		c := &client{}
		c.conn = a.Dial(service, c)
		c.conn.Send([]byte("hello"))
		w.Run(time.Second)
		if whole := bytes.Equal(c.got, []byte("hello")); whole != (c.closed == 0) || whole != (w.Faults()[FaultReset] == 0) {
			t.Errorf("call %d: got %q, closed %d (%v)", k, c.got, c.closed, c.err)
		} else if whole {
			if k < 3 {
				t.Errorf("the sweep ended at %d: dial, send and answer are calls", k)
			}
			return
		}
	}
	t.Error("the sweep does not end")
}
