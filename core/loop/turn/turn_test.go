package turn

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"holdfast/core/loop"
)

func TestTimersFireByMomentThenByOrderOfArming(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h Timers
	type armed struct {
		at  loop.Instant
		seq int
		id  int
	}
	var want []armed
	var got []int
	timers := make([]*loop.Timer, 200)
	seq := 0
	model := map[int]armed{}
	for i := range timers {
		timers[i] = &loop.Timer{Fire: func() { got = append(got, i) }}
	}
	for range 2000 {
		i := rng.IntN(len(timers))
		if rng.IntN(4) == 0 {
			h.Disarm(timers[i])
			delete(model, i)
			continue
		}
		seq++
		at := loop.Instant(1 + rng.IntN(50))
		h.Arm(timers[i], at, 0)
		model[i] = armed{at, seq, i}
	}
	for i := range timers {
		a, ok := model[i]
		if ok != timers[i].Armed() {
			t.Fatalf("timer %d: Armed() = %v, want %v", i, timers[i].Armed(), ok)
		}
		if ok && a.at <= 30 {
			want = append(want, a)
		}
	}
	slices.SortFunc(want, func(a, b armed) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return a.seq - b.seq
	})
	h.Fire(30)
	if len(got) != len(want) {
		t.Fatalf("%d timers fired, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i].id {
			t.Fatalf("timer %d fired at place %d, want %d", got[i], i, want[i].id)
		}
	}
	if h.Len() != len(model)-len(want) {
		t.Fatalf("%d timers left, want %d", h.Len(), len(model)-len(want))
	}
	if at, ok := h.Next(); ok && at <= 30 {
		t.Fatalf("Next() = %d after firing up to 30", at)
	}
}

func TestTimerArmedInThePastWaitsForTheNextTurn(t *testing.T) {
	var h Timers
	fired := 0
	now := loop.Instant(10)
	var tm loop.Timer
	tm.Fire = func() {
		if fired++; fired > 2 {
			t.Fatal("a timer armed in the past fires again and again in one turn")
		}
		h.Arm(&tm, 3, now)
	}
	h.Arm(&tm, 5, 4)
	h.Fire(now)
	if fired != 1 || !tm.Armed() {
		t.Fatalf("fired %d times, armed %v, want once and armed again", fired, tm.Armed())
	}
	now++
	h.Fire(now)
	if fired != 2 {
		t.Fatalf("fired %d times by the next turn, want 2", fired)
	}
}

func TestDisarmedByAnEarlierTimerOfTheSameTurn(t *testing.T) {
	var h Timers
	b := loop.Timer{Fire: func() { t.Error("a disarmed timer fired") }}
	a := loop.Timer{Fire: func() { h.Disarm(&b) }}
	h.Arm(&a, 1, 0)
	h.Arm(&b, 2, 0)
	h.Fire(5)
}

func TestDeferredRunInOrderOnceAndASelfDeferringTaskEnds(t *testing.T) {
	var q Tasks
	var got []string
	var b, c, self loop.Task
	a := loop.Task{Run: func() { got = append(got, "a"); q.Push(&c) }}
	b.Run = func() { got = append(got, "b") }
	c.Run = func() { got = append(got, "c") }
	q.Push(&a)
	q.Push(&b)
	if q.Push(&a) {
		t.Error("a queued task was queued again")
	}
	q.RunDeferred()
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("ran %v, want a b c", got)
	}
	self.Run = func() { q.Push(&self) }
	q.Push(&self)
	if n := q.RunDeferred(); n != maxRounds || q.Len() != 1 {
		t.Fatalf("a self-deferring task ran %d times with %d left, want %d and 1", n, q.Len(), maxRounds)
	}
}

func TestInboxLosesNothing(t *testing.T) {
	var b Inbox
	ran := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				b.Post(&loop.Task{Run: func() { ran++ }})
			}
		})
	}
	wg.Wait()
	again := &loop.Task{}
	again.Run = func() { b.Post(again) }
	if b.Post(again) {
		t.Error("Post reported an empty inbox")
	}
	if n := b.Run(); n != 8001 || ran != 8000 || b.Len() != 1 {
		t.Fatalf("Run() = %d, ran %d, left %d; want 8001, 8000, 1", n, ran, b.Len())
	}
}
