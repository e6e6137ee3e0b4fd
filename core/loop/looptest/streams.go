package looptest

import (
	"time"

	"holdfast/core/loop"
)

// echoer answers every byte, half of them by reference.
func echoer(g *rig, e *end) {
	turn := 0
	e.received = func(c loop.Conn, p []byte) int {
		if turn++; turn%2 == 0 {
			c.Send(p)
			return len(p)
		}
		b := g.Alloc(len(p) + 10)
		copy(b.Bytes()[10:], p)
		c.SendRef(b, 10, len(p))
		b.Release()
		return len(p)
	}
}

func echo(g *rig) {
	for _, a := range g.addresses() {
		for _, piece := range []int{1, 7, 4096, 1 << 20} {
			e := g.end()
			echoer(g, e)
			l := g.listen(a, func(c loop.Conn) loop.ConnHandler { e.conn = c; return e })
			c := g.outside(l.Addr())
			want := random(min(2000*piece, 8<<20))
			g.writeAll(c, want, piece)
			g.same(g.readAll(c, len(want)), want)
			g.do(func() {
				if e.conn.Queued() != 0 {
					g.Errorf("%d bytes queued after all have arrived", e.conn.Queued())
				}
				if a.Network == "tcp" && (e.conn.Remote().Address != c.LocalAddr().String() || e.conn.Local().Address != c.RemoteAddr().String()) {
					g.Errorf("ends are %v and %v, want %v and %v", e.conn.Local(), e.conn.Remote(), c.RemoteAddr(), c.LocalAddr())
				}
				l.Close()
			})
			c.Close()
			e.closed.wait()
			if e.err != nil {
				g.Errorf("Closed(%v) after an orderly end", e.err)
			}
		}
	}
}

func bothEnds(g *rig) {
	for _, a := range g.addresses() {
		server, client := g.end(), g.end()
		echoer(g, server)
		l := g.listen(a, func(loop.Conn) loop.ConnHandler { return server })
		want := random(1 << 20)
		back := g.signal("the echo")
		client.received = func(_ loop.Conn, p []byte) int {
			if client.got = append(client.got, p...); len(client.got) == len(want) {
				back.fire()
			}
			return len(p)
		}
		g.do(func() {
			c := g.Dial(l.Addr(), client)
			if client.opens != 0 {
				g.Error("Opened was called inside Dial")
			}
			c.Send(want[:1000]) // leaves once the connection is there
		})
		client.opened.wait()
		g.do(func() { client.conn.Send(want[1000:]) })
		back.wait()
		g.same(client.got, want)
		g.do(func() { client.conn.Close(); l.Close() })
		client.closed.wait()
		server.closed.wait()
		if client.err != nil || server.err != nil {
			g.Errorf("Closed(%v) here and Closed(%v) there after an orderly end", client.err, server.err)
		}
	}
}

func receivedAgain(g *rig) {
	e := g.end()
	done := g.signal("all bytes")
	want := random(300 << 10)
	e.received = func(_ loop.Conn, p []byte) int {
		// Consumes whole records of 60,001 bytes only.
		n := len(p) / 60001 * 60001
		if len(e.got)+len(p) == len(want) {
			n = len(p)
		}
		if e.got = append(e.got, p[:n]...); len(e.got) == len(want) {
			done.fire()
		}
		return n
	}
	c := g.serve(e)
	g.writeAll(c, want, 777)
	done.wait()
	g.same(e.got, want)
}

// fill reads records of a four-byte header, then a body by Fill, whose bytes may be partly or wholly buffered already, with two more Fills from inside Filled.
func fill(g *rig) {
	for _, size := range []int{1, 100, 4096, 300 << 10, 2 << 20} {
		for _, piece := range []int{3, 5000, 1 << 20} {
			if size/piece > 10000 {
				continue
			}
			fillRecords(g, size, piece)
		}
	}
}

func fillDribble(g *rig) { fillRecords(g, 50, 1) }

func fillRecords(g *rig, size, piece int) {
	g.Helper()
	const records = 5
	e := g.end()
	done := g.signal("all records")
	bodies := make([][]byte, 0, 3*records)
	total := 0
	next := func(c loop.Conn) {
		p := make([]byte, size)
		bodies = append(bodies, p)
		c.Fill(p)
	}
	e.received = func(c loop.Conn, p []byte) int {
		if len(p) < 4 {
			return 0
		}
		if string(p[:4]) != "head" {
			g.Errorf("header is %q", p[:4])
		}
		total++
		next(c)
		return 4
	}
	e.filled = func(c loop.Conn) {
		switch {
		case len(bodies)%3 != 0:
			next(c)
		case total == records:
			done.fire()
		}
	}
	c := g.serve(e)
	want := random(3 * records * size)
	var stream []byte
	for i := range records {
		stream = append(stream, "head"...)
		stream = append(stream, want[3*i*size:3*(i+1)*size]...)
	}
	g.writeAll(c, stream, piece)
	done.wait()
	var got []byte
	for _, b := range bodies {
		got = append(got, b...)
	}
	g.same(got, want)
	c.Close()
	e.closed.wait()
}

func pauseResume(g *rig) {
	e := g.end()
	paused, calls := false, 0
	e.received = func(c loop.Conn, p []byte) int {
		if paused {
			g.Error("Received while paused")
		}
		calls++
		paused = true
		c.Pause()
		n := (len(p) + 1) / 2
		e.got = append(e.got, p[:n]...)
		return n
	}
	c := g.serve(e)
	want := random(200 << 10)
	g.writeAll(c, want, 50<<10)
	for i := 0; ; i++ {
		all, before := false, 0
		g.until("bytes while not paused", func() bool { return paused || len(e.got) == len(want) })
		g.do(func() {
			all, before = len(e.got) == len(want), len(e.got)
			paused = false
			e.conn.Resume()
			if len(e.got) != before {
				g.Error("Received was called inside Resume")
			}
		})
		if all {
			break
		}
		if i > 100000 {
			g.Fatal("no end")
		}
	}
	g.same(e.got, want)
	// Pause outside of Received holds what comes.
	g.do(func() { e.conn.Pause(); paused = true; calls = 0 })
	g.writeAll(c, []byte("more"), 4)
	time.Sleep(5 * time.Millisecond) // nothing must happen; a shorter wait only makes the test weaker
	g.do(func() {
		if calls != 0 {
			g.Error("Received while paused")
		}
		paused = false
		e.conn.Resume()
	})
	g.until("the rest", func() bool {
		if paused && len(e.got) < len(want)+4 {
			paused = false
			e.conn.Resume()
		}
		return len(e.got) == len(want)+4
	})
}

func backPressure(g *rig) {
	e := g.end()
	drained := g.signal("Drained")
	drains := 0
	e.drained = func(c loop.Conn) {
		if c.Queued() != 0 {
			g.Errorf("Drained with %d bytes queued", c.Queued())
		}
		drains++
		drained.fire()
	}
	c := g.serve(e)
	want := random(loop.HighWater + 3<<20)
	g.do(func() {
		b := g.Alloc(1 << 20)
		for i := 0; i < len(want); i += 1 << 20 {
			if i%(2<<20) == 0 {
				e.conn.Send(want[i : i+1<<20])
				continue
			}
			r := g.Alloc(1 << 20)
			copy(r.Bytes(), want[i:])
			e.conn.SendRef(r, 0, r.Len())
			r.Release()
		}
		b.Release()
		if e.conn.Queued() != len(want) {
			g.Errorf("Queued() = %d, want %d", e.conn.Queued(), len(want))
		}
	})
	g.do(func() {
		if e.conn.Queued() == 0 || drains != 0 {
			g.Errorf("%d bytes queued and %d times drained though nobody reads", e.conn.Queued(), drains)
		}
	})
	g.same(g.readAll(c, len(want)), want)
	drained.wait()
	g.do(func() { e.conn.Send([]byte("small")) })
	g.same(g.readAll(c, 5), []byte("small"))
	g.do(func() {
		if drains != 1 {
			g.Errorf("Drained was called %d times, want once: the second send never was above HighWater", drains)
		}
	})
}

func allocations(g *rig) {
	if race {
		g.Skip("the race detector allocates")
	}
	e := g.end()
	echoer(g, e)
	c := g.serve(e)
	p := make([]byte, 100)
	once := func() {
		if _, err := c.Write(p); err != nil {
			g.Fatal(err)
		}
		for n := 0; n < len(p); {
			k, err := c.Read(p[n:])
			if err != nil {
				g.Fatal(err)
			}
			n += k
		}
	}
	for range 200 {
		once()
	}
	if n := perRun(2000, once); n > 0.05 {
		g.Errorf("an echo makes %v allocations, want none", n)
	}
	g.diskAllocations()
	ticks := 0
	end := g.signal("a thousand timers")
	var tm loop.Timer
	task := loop.Task{Run: func() {}}
	tm.Fire = func() {
		if ticks++; ticks%1000 == 0 {
			end.fire()
			return
		}
		g.Defer(&task)
		g.Arm(&tm, g.Now())
	}
	start := loop.Task{Run: func() { g.Arm(&tm, g.Now()) }}
	if n := perRun(5, func() { g.Post(&start); end.wait() }); n > 50 {
		g.Errorf("a thousand timers make %v allocations, want none", n)
	}
}
