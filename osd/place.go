package osd

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// PlaceError says that an OSD must not run where it is: its disk is another OSD's, or its number or its disk is in use by an OSD that runs. Starting it again changes nothing.
type PlaceError struct {
	OSD   layout.OSDNum
	What  string
	Way   string
	Taken bool // by an OSD that runs: nothing is wrong with that one
}

func (e *PlaceError) Error() string { return fmt.Sprintf("OSD %d: %s; %s", e.OSD, e.What, e.Way) }

// checkPlace compares a store with what the cluster knows of the stores of other numbers.
func checkPlace(s *cluster.Snapshot, n layout.OSDNum, id layout.StoreID) error {
	for other, known := range s.Stores.All() {
		switch {
		case other == n || planted.OwnerIgnored:
		case known.Store == id:
			return &PlaceError{OSD: n, What: fmt.Sprintf("its disk (store %v) is that of OSD %d", id, other), Way: fmt.Sprintf("start OSD %d on it, and OSD %d on its own disk", other, n)}
		case known.IsRetired(id):
			return &PlaceError{OSD: n, What: fmt.Sprintf("its disk (store %v) was that of OSD %d before another one took its place", id, other),
				Way: fmt.Sprintf("to use it for OSD %d, make an empty one of it: `holdfast disk format --force`", n)}
		}
	}
	return nil
}

// answerTime bounds how long the process that is registered under a number, or on a disk, is asked whether it lives. It is far above what a process takes that is only busy.
const answerTime = time.Second

// answer is what came of asking it.
type answer uint8

const (
	unasked answer = iota
	asking
	lives  // it answers
	ended  // nobody listens there, or somebody else does
	silent // nothing comes back: it hangs, its host is dead, or the network between is
)

// askAfter finds out whether the run of OSD n that st speaks of lives.
func askAfter(l loop.Loop, o peer.Options, n layout.OSDNum, st *cluster.OSDState, done func(answer)) {
	o.Self, o.Role, o.Client, o.Config = 0, peer.RoleClient, fmt.Sprintf("another OSD %d", n), nil
	o.ConnectTimeout, o.HandshakeTimeout, o.PingTimeout = answerTime, answerTime, answerTime
	hub := peer.New(l, o, nil)
	hub.SetPeer(n, addressesOf(st))
	var ping wire.Ping
	c := &peer.Call{}
	ping.Encode(&c.Header)
	c.Done = func(c *peer.Call) {
		a := ended
		switch info, up := hub.Info(n); {
		case c.Err == nil && up && info.Instance == uint64(st.Instance):
			a = lives
		case c.Err != nil && !errors.Is(c.Err, syscall.ECONNREFUSED) && !errors.Is(c.Err, peer.ErrHandshake):
			a = silent
		}
		hub.Close()
		done(a)
	}
	hub.Call(n, c)
}

func addressesOf(st *cluster.OSDState) (list []loop.Addr) {
	for _, a := range st.Addresses {
		list = append(list, loop.Addr{Network: "tcp", Address: net.JoinHostPort(a, strconv.FormatUint(uint64(st.Port), 10))})
	}
	return list
}

// runsElsewhere says who has the number or the disk.
func runsElsewhere(n, other layout.OSDNum, st *cluster.OSDState, disk layout.StoreID) error {
	at := fmt.Sprintf("on host %s at %s port %d", st.Host, strings.Join(st.Addresses, ","), uint64(st.Port))
	e := &PlaceError{OSD: n, Taken: true, Way: "stop that one first; a copy of a disk must never run beside it"}
	e.What = fmt.Sprintf("its disk (store %v) is in use by OSD %d, which runs %s", disk, other, at)
	if other == n && st.Store != disk {
		e.What = fmt.Sprintf("another OSD %d runs %s, on the disk with store %v; this one has store %v", n, at, st.Store, disk)
		e.Way = "stop that one first, or give this one another number"
	}
	return e
}

// CheckPlace finds out, before the disk of OSD n is opened for writing, whether it is somebody else's or in use on another host; done is called with why it must not be opened, as a rule with nil.
func CheckPlace(l loop.Loop, s *cluster.Snapshot, n layout.OSDNum, sb *store.Superblock, o peer.Options, done func(error)) {
	if err := checkPlace(s, n, sb.StoreID); err != nil {
		done(err)
		return
	}
	for other, st := range s.OSDStates.All() {
		if other != n && st.Store != sb.StoreID || planted.PlaceTaken {
			continue
		}
		askAfter(l, o, other, st, func(a answer) {
			if a == lives {
				done(runsElsewhere(n, other, st, sb.StoreID))
				return
			}
			done(nil)
		})
		return
	}
	done(nil)
}

// holder is the run that is registered under our number when we are about to register.
type holder struct {
	instance uint64
	answer   answer
}

// place reports whether the number may be taken over from the run that is registered under it: it has ended, and had our disk. Otherwise it sees to it that register is called again, or ends this OSD.
func (s *OSD) place(st *cluster.OSDState) bool {
	h := &s.holder
	if h.instance != uint64(st.Instance) {
		*h = holder{instance: uint64(st.Instance)}
	}
	if planted.PlaceTaken {
		h.answer = ended
	}
	switch h.answer {
	case unasked:
		h.answer = asking
		askAfter(s.l, s.peerOptions(), s.o.Num, st, func(a answer) {
			h.answer = a
			s.register()
		})
	case lives:
		s.fatal(runsElsewhere(s.o.Num, s.o.Num, st, s.self.Store))
	case ended:
		if st.Store == s.self.Store {
			return true
		}
		fallthrough
	case silent:
		s.log.Warn("another OSD of this number was up and does not answer; waiting for its lease to run out", "host", st.Host, "addresses", st.Addresses, "port", uint64(st.Port))
		h.answer = unasked
		s.l.Arm(&s.retry, s.l.Now().Add(500*time.Millisecond))
	}
	return false
}
