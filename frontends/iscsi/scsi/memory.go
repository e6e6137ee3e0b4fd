package scsi

import (
	"slices"
	"sync"
	"sync/atomic"

	"holdfast/core/loop"
)

// MemoryReservations is Reservations within one process: nothing survives it (APTPL is refused), and other gateways do not see it, so a gateway that is not alone must
// not use it.
type MemoryReservations struct {
	mu    sync.Mutex
	units map[[16]byte]*memoryUnit // guarded by mu
}

// memoryUnit stays when its last member leaves, as registrations do.
type memoryUnit struct {
	state   atomic.Pointer[State] // stored with mu held
	members []*memoryMember       // guarded by MemoryReservations.mu
}

type memoryMember struct {
	r    *MemoryReservations
	u    *memoryUnit
	l    loop.Loop
	self Nexus
	e    NexusEvents
	left atomic.Bool
}

var (
	_ Reservations = (*MemoryReservations)(nil)
	_ Membership   = (*memoryMember)(nil)
)

// NewMemoryReservations is empty.
func NewMemoryReservations() *MemoryReservations {
	return &MemoryReservations{units: make(map[[16]byte]*memoryUnit)}
}

// Join is Reservations'.
func (r *MemoryReservations) Join(l loop.Loop, unit [16]byte, n Nexus, e NexusEvents) Membership {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.units[unit]
	if u == nil {
		u = new(memoryUnit)
		u.state.Store(new(State))
		r.units[unit] = u
	}
	m := &memoryMember{r: r, u: u, l: l, self: n, e: e}
	u.members = append(u.members, m)
	return m
}

func (m *memoryMember) State() *State { return m.u.state.Load() }
func (m *memoryMember) Self() Nexus   { return m.self }
func (m *memoryMember) Durable() bool { return false }

func (m *memoryMember) ResetUnit() {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.u.state.Store(m.u.state.Load().resetUnit())
}

func (m *memoryMember) Leave() {
	m.left.Store(true)
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.u.members = slices.DeleteFunc(m.u.members, func(o *memoryMember) bool { return o == m })
	if !slices.ContainsFunc(m.u.members, func(o *memoryMember) bool { return o.self == m.self }) {
		m.u.state.Store(m.u.state.Load().leave(m.self))
	}
}

// Change applies c at once, tells the losers on their loops, and completes when those whose commands are to be aborted have said so.
func (m *memoryMember) Change(c *Change) {
	done := &loop.Task{Run: func() { c.Done(c) }}
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	state, notices := m.u.state.Load().Apply(m.self, c)
	m.u.state.Store(state)
	waiting := new(atomic.Int32)
	waiting.Store(1)
	arrive := func() {
		if waiting.Add(-1) == 0 {
			m.l.Post(done)
		}
	}
	for _, n := range notices {
		for _, o := range m.u.members {
			if o.self != n.To {
				continue
			}
			if n.Abort {
				waiting.Add(1)
			}
			o.l.Post(&loop.Task{Run: func() { o.notify(n, arrive) }})
		}
	}
	arrive()
}

func (m *memoryMember) notify(n Notice, arrive func()) {
	if m.left.Load() {
		if n.Abort {
			arrive()
		}
		return
	}
	m.e.Raise(n.Attention)
	if n.Abort {
		m.e.AbortTasks(arrive)
	}
}
