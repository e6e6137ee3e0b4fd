package daemon

import (
	"context"
	"log/slog"
	"sync"

	"holdfast/core/loop"
	"holdfast/core/loop/system"
)

// Thread is a loop together with the goroutine that drives it.
type Thread struct {
	loop.Runner

	stop  sync.Once
	ended chan struct{}
	err   error // of Run; valid after ended
}

// NewThread makes a loop of the kind ("auto", "uring", "portable") and starts it.
func NewThread(kind, name string, log *slog.Logger) (*Thread, error) {
	l, err := system.New(system.Options{Kind: kind, Name: name, Log: log})
	if err != nil {
		return nil, err
	}
	t := &Thread{Runner: l, ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		t.err = l.Run()
	}()
	return t, nil
}

// Do runs f on the loop and waits for it. It reports false, without having run f, when the loop has ended.
func (t *Thread) Do(f func()) bool {
	ran := make(chan struct{})
	t.Post(&loop.Task{Run: func() {
		f()
		close(ran)
	}})
	select {
	case <-ran:
		return true
	case <-t.ended:
		select {
		case <-ran:
			return true
		default:
			return false
		}
	}
}

// Later runs f on the loop, unless that ends before.
func (t *Thread) Later(f func()) { t.Post(&loop.Task{Run: f}) }

// Ended is closed when the loop does not run any more.
func (t *Thread) Ended() <-chan struct{} { return t.ended }

// Stop ends the loop with everything that is open on it, and waits. It may be called more than once.
func (t *Thread) Stop() error {
	t.stop.Do(t.Runner.Stop)
	<-t.ended
	return t.err
}

// Await runs start on the loop and waits until the done that it was given is called, the context ends, or the loop does.
func Await[T any](ctx context.Context, t *Thread, start func(done func(T, error))) (T, error) {
	type answer struct {
		v   T
		err error
	}
	got := make(chan answer, 1)
	t.Post(&loop.Task{Run: func() {
		start(func(v T, err error) {
			select {
			case got <- answer{v, err}:
			default: // only the first counts
			}
		})
	}})
	var none T
	select {
	case a := <-got:
		return a.v, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-t.ended:
		return none, errEnded
	}
}
