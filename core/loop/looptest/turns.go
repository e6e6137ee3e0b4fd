package looptest

import (
	"slices"
	"sync"
	"time"
	"unsafe"

	"holdfast/core/loop"
)

func timersInOrder(g *rig) {
	var got []int
	last := g.signal("the last timer")
	delays := []time.Duration{5, 1, 3, 1, 0, -4, 9, 3}
	g.do(func() {
		now := g.Now()
		for i, d := range delays {
			at := now.Add(d * time.Millisecond)
			tm := &loop.Timer{}
			tm.Fire = func() {
				if g.Now() < at {
					g.Errorf("timer %d fired %v early", i, at.Sub(g.Now()))
				}
				if tm.Armed() {
					g.Errorf("timer %d is armed while it fires", i)
				}
				if got = append(got, i); len(got) == len(delays) {
					last.fire()
				}
			}
			g.Arm(tm, at)
			if !tm.Armed() || len(got) > 0 {
				g.Errorf("after Arm: armed %v, fired %v", tm.Armed(), got)
			}
		}
	})
	last.wait()
	// The two that are due at once may come in either order of moment or arming.
	slices.Sort(got[:2])
	if want := []int{4, 5, 1, 3, 2, 7, 0, 6}; !slices.Equal(got, want) {
		g.Errorf("timers fired in the order %v, want %v", got, want)
	}
}

func timersDisarmedAndMoved(g *rig) {
	end := g.signal("the last timer")
	var fired []string
	g.do(func() {
		add := func(name string) *loop.Timer {
			return &loop.Timer{Fire: func() { fired = append(fired, name) }}
		}
		never, moved, back, late := add("never"), add("moved"), add("back"), add("late")
		g.Disarm(never)
		g.Arm(never, g.Now().Add(time.Millisecond))
		g.Arm(moved, g.Now().Add(time.Hour))
		g.Arm(moved, g.Now().Add(2*time.Millisecond))
		g.Arm(back, g.Now().Add(time.Millisecond))
		g.Arm(back, g.Now().Add(time.Hour))
		g.Disarm(never)
		if never.Armed() {
			g.Error("armed after Disarm")
		}
		late.Fire = func() {
			fired = append(fired, "late")
			g.Disarm(back)
			end.fire()
		}
		g.Arm(late, g.Now().Add(5*time.Millisecond))
	})
	end.wait()
	if want := []string{"moved", "late"}; !slices.Equal(fired, want) {
		g.Errorf("fired %v, want %v", fired, want)
	}
}

func timeStandsStill(g *rig) {
	var first loop.Instant
	g.do(func() {
		first = g.Now()
		for end := time.Now().Add(2 * time.Millisecond); time.Now().Before(end); {
		}
		if g.Now() != first {
			g.Errorf("Now moved by %v within a turn", g.Now().Sub(first))
		}
		if g.Wall().IsZero() || g.Rand() == nil || g.Log() == nil {
			g.Error("no Wall, Rand or Log")
		}
	})
	g.do(func() {
		if g.Kind() != "sim" && g.Now().Sub(first) < time.Millisecond {
			g.Errorf("Now is only %v later", g.Now().Sub(first))
		}
	})
}

func postsFromManyGoroutines(g *rig) {
	const posters, each = 8, 2000
	count := 0
	all := g.signal("all posted tasks")
	var wg sync.WaitGroup
	for range posters {
		wg.Go(func() {
			last := -1
			for i := range each {
				g.Post(&loop.Task{Run: func() {
					if i != last+1 {
						g.Errorf("task %d of a goroutine ran after %d", i, last)
					}
					last = i
					if count++; count == posters*each {
						all.fire()
					}
				}})
			}
		})
	}
	wg.Wait()
	all.wait()
}

func queuedTaskRunsOnce(g *rig) {
	posted, deferred := 0, 0
	a := &loop.Task{Run: func() { posted++ }}
	b := &loop.Task{Run: func() { deferred++ }}
	g.do(func() {
		for range 3 {
			g.Post(a)
			g.Defer(b)
		}
		if posted+deferred != 0 {
			g.Error("a task ran inside Post or Defer")
		}
	})
	g.do(func() {})
	g.do(func() {
		if posted != 1 || deferred != 1 {
			g.Errorf("posted task ran %d times, deferred one %d times; want once each", posted, deferred)
		}
		g.Post(a)
	})
	g.do(func() {})
	if posted != 2 {
		g.Errorf("a task posted again ran %d times in all, want 2", posted)
	}
}

func deferredAtEnd(g *rig) {
	var got []string
	end := g.signal("the deferred task")
	now := loop.Instant(0)
	d := &loop.Task{Run: func() {
		got = append(got, "deferred")
		if g.Now() != now {
			g.Error("the deferred task ran in a later turn")
		}
		end.fire()
	}}
	g.do(func() {
		// Both tasks are posted from one turn, so both run in the next.
		g.Post(&loop.Task{Run: func() {
			now = g.Now()
			got = append(got, "first")
			g.Defer(d)
		}})
		g.Post(&loop.Task{Run: func() { got = append(got, "second") }})
	})
	end.wait()
	if want := []string{"first", "second", "deferred"}; !slices.Equal(got, want) {
		g.Errorf("ran %v, want %v", got, want)
	}
}

func buffers(g *rig) {
	g.do(func() {
		for _, n := range []int{0, 1, 511, 512, 513, 4096, 5000, 128 << 10, 1 << 20, 5 << 20} {
			b := g.Alloc(n)
			if b.Len() != n || len(b.Bytes()) != n {
				g.Errorf("Alloc(%d) has %d bytes", n, b.Len())
			}
			if n >= 4096 && uintptr(unsafe.Pointer(&b.Bytes()[0]))%4096 != 0 {
				g.Errorf("Alloc(%d) is not aligned to 4096", n)
			}
			for i := range b.Bytes() {
				b.Bytes()[i] = 1
			}
			b.Release()
		}
	})
}
