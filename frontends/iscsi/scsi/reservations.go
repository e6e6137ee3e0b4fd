package scsi

import (
	"slices"

	"holdfast/core/loop"
)

// Reservations keeps who is registered with and holds a logical unit. It is shared by every session that can reach the unit, whatever its loop or gateway; an implementation that spans
// gateways lives outside this package, MemoryReservations serves one process. Both decide by State.Apply.
type Reservations interface {
	// Join makes a nexus known to the unit with the given identity (volume.Info.ID). e is called on l.
	Join(l loop.Loop, unit [16]byte, n Nexus, e NexusEvents) Membership
}

// Membership is one nexus's part in the reservations of a unit. It is used on the loop it was joined on.
type Membership interface {
	// State is the reservations as they are now: never nil, never changed afterwards. It is read for every command.
	State() *State
	// Self is the nexus that joined.
	Self() Nexus
	// Durable reports whether what is reserved can survive the loss of power of every gateway (APTPL).
	Durable() bool
	// Change applies c; c.Done is called later on the loop, once, when every loser's commands have ended.
	Change(c *Change)
	// ResetUnit ends an SPC-2 reservation, as a logical unit reset does.
	ResetUnit()
	// Leave ends the membership: an SPC-2 reservation of the nexus ends with it, registrations stay (SPC-4: they survive the loss of the nexus).
	Leave()
}

// NexusEvents is told what the reservations do to a nexus.
type NexusEvents interface {
	Raise(a Attention)
	// AbortTasks ends the nexus's commands and calls done, later, when none can take effect any more (PREEMPT AND ABORT).
	AbortTasks(done func())
}

// Nexus names an I_T nexus for reservations.
type Nexus struct {
	Initiator string // initiator port name: initiator name, ",i,0x" and the ISID (RFC 7143, section 4.2.7.1)
	Port      uint16 // relative target port identifier
}

// Type is a persistent reservation type (SPC-4).
type Type uint8

// The persistent reservation types.
const (
	WriteExclusive              Type = 1
	ExclusiveAccess             Type = 3
	WriteExclusiveRegistrants   Type = 5
	ExclusiveAccessRegistrants  Type = 6
	WriteExclusiveAllRegistrant Type = 7
	ExclusiveAccessAllRegistant Type = 8
)

func (t Type) valid() bool { return t == 1 || t == 3 || t >= 5 && t <= 8 }

// registrants: every registered nexus may do everything.
func (t Type) registrants() bool { return t >= 5 }

// all: every registered nexus is a holder.
func (t Type) all() bool { return t >= 7 }

// exclusive: others may not read either.
func (t Type) exclusive() bool { return t == 3 || t == 6 || t == 8 }

// Registration is one registered nexus.
type Registration struct {
	Nexus
	Key uint64
}

// State is everything reserved on one unit. It is a value: Apply returns a new one.
type State struct {
	Generation uint32 // PRGENERATION
	APTPL      bool   // keep over loss of power
	Registered []Registration
	Type       Type  // 0: no persistent reservation
	Holder     Nexus // unless Type.all
	Legacy     Nexus // who has RESERVE (SPC-2), when HasLegacy
	HasLegacy  bool
}

// maxRegistrations bounds what initiators can make a unit remember.
const maxRegistrations = 256

// key finds a nexus's registration.
func (s *State) key(n Nexus) (uint64, bool) {
	for i := range s.Registered {
		if s.Registered[i].Nexus == n {
			return s.Registered[i].Key, true
		}
	}
	return 0, false
}

// holds reports whether n holds the persistent reservation.
func (s *State) holds(n Nexus) bool {
	if s.Type == 0 {
		return false
	}
	if s.Type.all() {
		_, ok := s.key(n)
		return ok
	}
	return s.Holder == n
}

// conflicts reports whether the command must end with RESERVATION CONFLICT.
func conflicts(m Membership, c *command) bool {
	s := m.State()
	if !s.HasLegacy && s.Type == 0 {
		return false
	}
	self := m.Self()
	if s.HasLegacy && s.Legacy != self && c.flags&legacyAllowed == 0 {
		return true
	}
	if s.Type == 0 || c.access == accessAlways || s.holds(self) {
		return false
	}
	if s.Type.registrants() {
		if _, ok := s.key(self); ok {
			return false
		}
	}
	return c.access == accessWrite || s.Type.exclusive()
}

// Action is what a Change does. The values up to RegisterAndIgnore are the service actions of PERSISTENT RESERVE OUT (SPC-4).
type Action uint8

// The actions.
const (
	Register          Action = 0x00
	Reserve           Action = 0x01
	Release           Action = 0x02
	Clear             Action = 0x03
	Preempt           Action = 0x04
	PreemptAndAbort   Action = 0x05
	RegisterAndIgnore Action = 0x06
	LegacyReserve     Action = 0x80 // RESERVE (6), RESERVE (10)
	LegacyRelease     Action = 0x81
)

// Change is one request to change the reservations. The owner embeds and reuses it; Done is set once.
type Change struct {
	Action     Action
	Type       Type
	Key        uint64 // RESERVATION KEY
	ServiceKey uint64 // SERVICE ACTION RESERVATION KEY
	APTPL      bool
	Done       func(*Change)

	// Status and Code are the result.
	Status Status
	Code   Code
}

// Notice is a consequence of a Change for another nexus.
type Notice struct {
	To        Nexus
	Attention Attention
	Abort     bool // end its commands
}

// Apply is what becomes of s when self asks for c. On refusal c says why and the state is s itself.
func (s *State) Apply(self Nexus, c *Change) (*State, []Notice) {
	c.Status, c.Code = Good, codeNone
	switch c.Action {
	case LegacyReserve, LegacyRelease:
		return s.applyLegacy(self, c), nil
	case Register, RegisterAndIgnore:
		return s.applyRegister(self, c)
	}
	if key, ok := s.key(self); !ok || key != c.Key {
		c.Status = ReservationConflict
		return s, nil
	}
	switch c.Action {
	case Reserve:
		return s.applyReserve(self, c), nil
	case Release:
		return s.applyRelease(self, c)
	case Clear:
		return s.applyClear(self)
	case Preempt, PreemptAndAbort:
		return s.applyPreempt(self, c)
	}
	c.refuse(codeInvalidField)
	return s, nil
}

func (c *Change) refuse(code Code) { c.Status, c.Code = CheckCondition, code }

// applyLegacy is RESERVE and RELEASE. Beside persistent reservations a registered nexus gets GOOD without effect (CRH is 1 in REPORT CAPABILITIES), another a conflict.
func (s *State) applyLegacy(self Nexus, c *Change) *State {
	if len(s.Registered) != 0 {
		if _, ok := s.key(self); !ok {
			c.Status = ReservationConflict
		}
		return s
	}
	next := *s
	switch {
	case c.Action == LegacyReserve && s.HasLegacy && s.Legacy != self:
		c.Status = ReservationConflict
		return s
	case c.Action == LegacyReserve:
		next.Legacy, next.HasLegacy = self, true
	case s.HasLegacy && s.Legacy == self:
		next.Legacy, next.HasLegacy = Nexus{}, false
	}
	return &next
}

// leave is the loss of a nexus.
func (s *State) leave(self Nexus) *State {
	if !s.HasLegacy || s.Legacy != self {
		return s
	}
	return s.resetUnit()
}

func (s *State) resetUnit() *State {
	if !s.HasLegacy {
		return s
	}
	next := *s
	next.Legacy, next.HasLegacy = Nexus{}, false
	return &next
}

func (s *State) applyRegister(self Nexus, c *Change) (*State, []Notice) {
	have, registered := s.key(self)
	if c.Action == Register && have != c.Key { // an unregistered nexus must say 0
		c.Status = ReservationConflict
		return s, nil
	}
	next := s.clone()
	next.Generation++
	next.APTPL = c.APTPL
	switch {
	case c.ServiceKey == 0 && !registered:
		return s, nil
	case c.ServiceKey == 0:
		return next, next.unregister(self)
	case registered:
		next.Registered[next.index(self)].Key = c.ServiceKey
	case len(next.Registered) >= maxRegistrations:
		c.refuse(codeNoRegistrations)
		return s, nil
	default:
		next.Registered = append(next.Registered, Registration{self, c.ServiceKey})
	}
	return next, nil
}

// unregister removes a nexus; a reservation that only it held is released.
func (s *State) unregister(n Nexus) []Notice {
	held := s.holds(n)
	s.remove(n)
	if !held || s.Type.all() && len(s.Registered) != 0 {
		return nil
	}
	was := s.Type
	s.Type, s.Holder = 0, Nexus{}
	if !was.registrants() {
		return nil
	}
	return s.tell(n, ReservationsReleased)
}

func (s *State) applyReserve(self Nexus, c *Change) *State {
	switch {
	case !c.Type.valid():
		c.refuse(codeInvalidField)
		return s
	case s.Type == 0:
		next := s.clone()
		next.Type, next.Holder = c.Type, self
		if c.Type.all() {
			next.Holder = Nexus{}
		}
		return next
	case s.holds(self) && s.Type == c.Type:
		return s
	}
	c.Status = ReservationConflict
	return s
}

func (s *State) applyRelease(self Nexus, c *Change) (*State, []Notice) {
	if s.Type == 0 || !s.holds(self) {
		return s, nil
	}
	if s.Type != c.Type {
		c.refuse(codeInvalidRelease)
		return s, nil
	}
	next := s.clone()
	next.Type, next.Holder = 0, Nexus{}
	if !s.Type.registrants() {
		return next, nil
	}
	return next, next.tell(self, ReservationsReleased)
}

func (s *State) applyClear(self Nexus) (*State, []Notice) {
	notices := s.tell(self, ReservationsPreempted)
	next := s.clone()
	next.Generation++
	next.Registered, next.Type, next.Holder = nil, 0, Nexus{}
	return next, notices
}

// applyPreempt is PREEMPT and PREEMPT AND ABORT (SPC-4, preempting persistent reservations).
func (s *State) applyPreempt(self Nexus, c *Change) (*State, []Notice) {
	takes := false // the reservation itself passes to self
	switch {
	case s.Type.all():
		takes = c.ServiceKey == 0
	case c.ServiceKey == 0:
		c.refuse(codeInvalidParameter)
		return s, nil
	case s.Type != 0:
		key, ok := s.key(s.Holder)
		takes = ok && key == c.ServiceKey
	}
	if takes && !c.Type.valid() {
		c.refuse(codeInvalidField)
		return s, nil
	}
	next := s.clone()
	next.Registered = next.Registered[:0]
	var notices []Notice
	lost := 0
	for _, r := range s.Registered {
		gone := r.Key == c.ServiceKey || c.ServiceKey == 0
		if gone {
			lost++
		}
		if !gone || r.Nexus == self {
			next.Registered = append(next.Registered, r)
			if r.Nexus != self && takes && s.Type != c.Type && s.Type.registrants() {
				notices = append(notices, Notice{To: r.Nexus, Attention: ReservationsReleased})
			}
			continue
		}
		notices = append(notices, Notice{To: r.Nexus, Attention: RegistrationsPreempted, Abort: c.Action == PreemptAndAbort})
	}
	if lost == 0 {
		c.Status = ReservationConflict
		return s, nil
	}
	next.Generation++
	if takes {
		next.Type, next.Holder = c.Type, self
		if c.Type.all() {
			next.Holder = Nexus{}
		}
	}
	return next, notices
}

func (s *State) clone() *State {
	next := *s
	next.Registered = slices.Clone(s.Registered)
	return &next
}

func (s *State) index(n Nexus) int {
	return slices.IndexFunc(s.Registered, func(r Registration) bool { return r.Nexus == n })
}

func (s *State) remove(n Nexus) {
	if i := s.index(n); i >= 0 {
		s.Registered = slices.Delete(s.Registered, i, i+1)
	}
}

// tell makes a notice for every registered nexus but one.
func (s *State) tell(except Nexus, a Attention) []Notice {
	var notices []Notice
	for _, r := range s.Registered {
		if r.Nexus != except {
			notices = append(notices, Notice{To: r.Nexus, Attention: a})
		}
	}
	return notices
}
