package turn

import (
	"sync"

	"holdfast/core/loop"
)

// Tasks is a first-in first-out queue through the tasks themselves. The zero value is ready; it is not safe for several goroutines.
//
// One task is in one queue at a time: a task that is given to Post is not given to Defer as well.
type Tasks struct {
	head, tail *loop.Task
	n          int
}

// Len is the number of queued tasks.
func (q *Tasks) Len() int { return q.n }

// Push queues t unless it is queued already, and reports whether it did.
func (q *Tasks) Push(t *loop.Task) bool {
	if t.Queued {
		return false
	}
	t.Queued, t.Next = true, nil
	if q.tail == nil {
		q.head = t
	} else {
		q.tail.Next = t
	}
	q.tail = t
	q.n++
	return true
}

// Pop takes the oldest task, or returns nil. It may be queued again from then on, also by its own Run.
func (q *Tasks) Pop() *loop.Task {
	t := q.head
	if t == nil {
		return nil
	}
	q.head = t.Next
	if q.head == nil {
		q.tail = nil
	}
	t.Queued, t.Next = false, nil
	q.n--
	return t
}

// maxRounds is how often tasks deferred by deferred tasks still run in the same turn. It is a bound only so that a task that defers itself does not stop its loop.
const maxRounds = 16

// RunDeferred runs the tasks for the end of a turn, and those that they defer. What is left after maxRounds rounds waits for the end of the next turn, which then must not sleep.
func (q *Tasks) RunDeferred() (ran int) {
	for round := 0; round < maxRounds && q.n > 0; round++ {
		for n := q.n; n > 0; n-- {
			t := q.Pop()
			ran++
			t.Run()
		}
	}
	return ran
}

// Inbox is a queue of tasks posted from any goroutine. The zero value is ready.
type Inbox struct {
	mu sync.Mutex
	q  Tasks // guarded by mu, as are the Queued and Next of its tasks
}

// Post queues t unless it is queued already, and reports whether the inbox was empty before, so that the loop may have to be woken.
func (b *Inbox) Post(t *loop.Task) (first bool) {
	b.mu.Lock()
	first = b.q.Push(t) && b.q.n == 1
	b.mu.Unlock()
	return first
}

// Len is the number of queued tasks.
func (b *Inbox) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.q.n
}

// Run runs the tasks that are queued when it is called; those posted meanwhile wait for the next turn. Only the loop calls it.
func (b *Inbox) Run() (ran int) {
	n := b.Len()
	for ; ran < n; ran++ {
		b.mu.Lock()
		t := b.q.Pop()
		b.mu.Unlock()
		t.Run()
	}
	return ran
}
