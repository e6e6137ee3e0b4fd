// Package iscsi is the iSCSI target: it serves each image of a volume.Catalog as LUN 0 of a target of its own (RFC 7143).
//
// The gateway runs one Server per loop; the servers of a gateway share a Shared. A connection is a session (MaxConnections=1, ErrorRecoveryLevel=0) and lives on the loop that accepted
// it. Commands complete in any order. Write data is received straight into the buffers that the volume is lent, read data is sent from those that the volume lends.
//
// Bounds: at most Options.QueueDepth commands and maxImmediate immediate ones per session, each holding at most firstBurst bytes that were not asked for; readBudget and writeBudget bytes
// of data beyond that; loop.HighWater bytes of output, above which reading stops. Nothing is allocated because a length field says so, except within those bounds. A peer that breaks the
// protocol loses its connection and nothing else.
package iscsi

import (
	"log/slog"
	"strconv"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
)

// Server is the target on one loop.
type Server struct {
	l      loop.Loop
	o      Options
	c      volume.Catalog
	shared *Shared
	log    *slog.Logger

	listeners []loop.Listener
	conns     map[*conn]struct{}
	closing   bool
	closed    func()

	free  *task // pooled tasks
	nfree int
	zero  *buf.Ref // what holes are sent from
}

// maxFreeTasks is how many idle tasks a Server keeps.
const maxFreeTasks = 4096

// zeroSize is the length of Server.zero, bytes.
const zeroSize = 256 << 10

// New makes a server. Nothing happens before Listen.
func New(l loop.Loop, o Options, c volume.Catalog, shared *Shared) *Server {
	return &Server{l: l, o: o.withDefaults(), c: c, shared: shared, log: l.Log().With("component", "iscsi"), conns: make(map[*conn]struct{})}
}

// Listen accepts connections at a. It may be called for several addresses, on the loop or before the loop runs.
func (s *Server) Listen(a loop.Addr, o loop.ListenOptions) (loop.Addr, error) {
	l, err := s.l.Listen(a, o, s)
	if err != nil {
		return loop.Addr{}, err
	}
	s.listeners = append(s.listeners, l)
	return l.Addr(), nil
}

// Accepted is loop.ListenHandler's.
func (s *Server) Accepted(c loop.Conn) loop.ConnHandler {
	if s.closing || len(s.conns) >= s.o.MaxConnections {
		s.log.Warn("connection refused", "client", c.Remote().Address, "connections", len(s.conns))
		return nil
	}
	return newConn(s, c)
}

// Close stops listening and ends every session; done is called on the loop when their commands have ended and the volumes are detached.
func (s *Server) Close(done func()) {
	if s.closing {
		return
	}
	s.closing, s.closed = true, done
	for _, l := range s.listeners {
		l.Close()
	}
	for x := range s.conns {
		x.fail("the gateway is stopping")
	}
	s.finishClose()
}

// finishClose calls done when the last connection is gone.
func (s *Server) finishClose() {
	if !s.closing || len(s.conns) != 0 {
		return
	}
	if s.zero != nil {
		s.zero.Release()
		s.zero = nil
	}
	if done := s.closed; done != nil {
		s.closed = nil
		s.l.Post(&loop.Task{Run: done})
	}
}

// zeroes is memory full of zeroes that stays the server's.
func (s *Server) zeroes() *buf.Ref {
	if s.zero == nil {
		s.zero = s.l.Alloc(zeroSize)
		clear(s.zero.Bytes())
	}
	return s.zero
}

func (s *Server) newTask() *task {
	t := s.free
	if t == nil {
		t = new(task)
		t.init()
		return t
	}
	s.free = t.next
	s.nfree--
	t.next = nil
	return t
}

func (s *Server) putTask(t *task) {
	if s.nfree == maxFreeTasks {
		return
	}
	t.next = s.free
	s.free = t
	s.nfree++
}

func itoa(n int) string { return strconv.Itoa(n) }
