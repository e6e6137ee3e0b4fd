package etcd

import (
	"context"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"holdfast/core/registry"
)

// Requests go to one member, and when it does not answer to the next: a client of all would try one that is gone with its host again and again, and every third request would wait for its timeout.

// member is one member of etcd.
type member struct {
	endpoint string
	mu       sync.Mutex
	client   *clientv3.Client // guarded by mu; made when it is needed
}

// client is one of the n-th member, in turn, alone.
func (r *Registry) client(n int) (_ *clientv3.Client, err error) {
	m := &r.members[n%len(r.members)]
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		m.client, err = r.connect(m.endpoint)
	}
	return m.client, err
}

// seat is the member that requests go to.
type seat struct {
	n     int
	ctx   context.Context // of the requests to it
	over  context.CancelFunc
	users atomic.Int32 // requests to it, and one for the registry
}

func (r *Registry) take(n int) *seat {
	s := &seat{n: n}
	s.ctx, s.over = context.WithCancel(r.ctx)
	s.users.Store(1)
	return s
}

// enter begins a request; false when the registry has left the seat, and everybody else.
func (s *seat) enter() bool {
	for {
		n := s.users.Load()
		if n == 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *seat) exit() {
	if s.users.Add(-1) == 0 {
		s.over()
	}
}

// leave has requests go to the next member from now on.
func (r *Registry) leave(s *seat) {
	if len(r.members) == 1 || r.ctx.Err() != nil {
		return
	}
	next := r.take(s.n + 1)
	if !r.seat.CompareAndSwap(s, next) {
		next.over() // another request was first
		return
	}
	s.exit()
}

// unanswered reports whether an error says nothing of what has become of a request.
func unanswered(err error) bool {
	return err != nil && !registry.IsRequestError(classify("a request", err))
}

// at runs work with a client of the present member, and leaves that if there is no answer.
func (r *Registry) at(ctx context.Context, work func(context.Context, *clientv3.Client) error) error {
	s := r.seat.Load()
	for !s.enter() {
		s = r.seat.Load()
	}
	defer s.exit()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	c, err := r.client(s.n)
	if err == nil {
		err = work(ctx, c)
	}
	if unanswered(err) {
		r.leave(s)
	}
	return err
}

// probe asks the present member for a sign of life, and none of the others. If none comes in half of QuickTimeout, what the member was asked before ends without an answer: who asked can do so
// again elsewhere.
func (r *Registry) probe() {
	s := r.seat.Load()
	if len(r.members) == 1 || r.closed {
		return
	}
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, r.Times().QuickTimeout/2)
		defer cancel()
		c, err := r.client(s.n)
		if err == nil {
			_, err = c.Get(ctx, r.root, clientv3.WithSerializable(), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
		}
		if unanswered(err) {
			r.leave(s)
			s.over()
		}
	})
}
