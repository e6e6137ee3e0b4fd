package iscsi

import (
	"slices"
	"sync"

	"holdfast/core/loop"
	"holdfast/frontends/iscsi/scsi"
)

// Shared is what the servers of one gateway have in common: session handles, who is logged in where, and reservations. It is touched at login, at the end of a session and by resets,
// never per command.
type Shared struct {
	reservations scsi.Reservations

	mu       sync.Mutex
	sessions map[sessionKey]*entry // guarded by mu
	tsihs    map[uint16]bool       // guarded by mu; handles in use
	lastTSIH uint16                // guarded by mu
	lastDisc uint64                // guarded by mu
}

// NewShared makes the state of one gateway. r is who keeps reservations; nil asks for scsi.MemoryReservations, which is right only for a gateway that is alone.
func NewShared(r scsi.Reservations) *Shared {
	if r == nil {
		r = scsi.NewMemoryReservations()
	}
	return &Shared{reservations: r, sessions: make(map[sessionKey]*entry), tsihs: make(map[uint16]bool)}
}

// sessionKey is what makes two sessions the same (RFC 7143, section 4.4.2: an I_T nexus): initiator name, ISID, target and portal group.
type sessionKey struct {
	initiator string
	isid      [6]byte
	target    string // "" in discovery
	group     uint16
	discovery uint64 // numbers discovery sessions: they do not replace each other, since initiators run several under one ISID
}

// entry is one session in Shared. s is touched on l only; key, tsih and unit do not change once it is claimed.
type entry struct {
	key     sessionKey
	tsih    uint16
	unit    [16]byte
	l       loop.Loop
	s       *session
	waiters []*loop.Task // guarded by Shared.mu: logins that wait for the end of this session
	loops   []loop.Loop  // guarded by Shared.mu: where each waiter is posted
}

// claim registers e unless its key is taken. When it is, the other session is told to end and retry is posted once it has; when no handle is free, neither happens.
func (sh *Shared) claim(e *entry, retry *loop.Task) (claimed, full bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.key.target == "" {
		sh.lastDisc++
		e.key.discovery = sh.lastDisc
	}
	if old := sh.sessions[e.key]; old != nil {
		old.waiters = append(old.waiters, retry)
		old.loops = append(old.loops, e.l)
		old.l.Post(&loop.Task{Run: func() { old.s.end("the initiator logged in again") }})
		return false, false
	}
	tsih, ok := sh.handle()
	if !ok {
		return false, true
	}
	e.tsih = tsih
	sh.tsihs[tsih] = true
	sh.sessions[e.key] = e
	return true, false
}

// handle finds a free target session identifying handle; 0 is none. The caller holds mu.
func (sh *Shared) handle() (uint16, bool) {
	for range 1 << 16 {
		sh.lastTSIH++
		if sh.lastTSIH != 0 && !sh.tsihs[sh.lastTSIH] {
			return sh.lastTSIH, true
		}
	}
	return 0, false
}

// release takes e out and lets those go on who waited for it.
func (sh *Shared) release(e *entry) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.sessions[e.key] != e {
		return
	}
	delete(sh.sessions, e.key)
	delete(sh.tsihs, e.tsih)
	for i, t := range e.waiters {
		e.loops[i].Post(t)
	}
	e.waiters, e.loops = nil, nil
}

// knows reports whether a session of the initiator has the handle.
func (sh *Shared) knows(tsih uint16, initiator string) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for k, e := range sh.sessions {
		if e.tsih == tsih && k.initiator == initiator {
			return true
		}
	}
	return false
}

// others lists the sessions of a unit but e, in no particular order.
func (sh *Shared) others(e *entry) []*entry {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	var list []*entry
	for _, o := range sh.sessions {
		if o != e && o.key.target != "" && o.unit == e.unit {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return int(a.tsih) - int(b.tsih) })
	return list
}
