// Package nbd serves volumes to NBD clients: fixed newstyle negotiation, structured replies, block status, many requests in flight. One Server is one loop's share.
//
// The protocol is NetworkBlockDevice/nbd, doc/proto.md; comments name its headings. Left out and answered NBD_REP_ERR_UNSUP: TLS and extended headers.
//
// A connection lives on one loop with a volume.Handle of its own. Payloads are received straight into the loop's buffers and leave from the device's; nothing is copied,
// and in steady state nothing is allocated. What a client can make us hold is bounded by Options; at a bound its connection is not read until replies have left.
package nbd

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
)

// Options are a Server's limits and choices. The zero value of a field asks for its default.
type Options struct {
	// Default is the export that a client gets who names none. Without it that is the only one, when there is exactly one.
	Default string
	// ReadOnly serves everything read-only.
	ReadOnly bool

	MaxConns    int // connections on this loop; more are closed at once. Default 1024
	MaxInFlight int // requests of one connection under way. Default 256
	MaxBytes    int // payload of one connection under way, bytes. Default 64 MiB; one request may always be
	TotalBytes  int // the same of all connections of this loop. Default 1 GiB; one request of each connection may always be

	// NegotiationTimeout is how long a client has from its connection to the transmission phase. Default 15 s.
	NegotiationTimeout time.Duration
	// DrainTimeout is how long requests under way may take when a connection is being ended. Default 10 s.
	DrainTimeout time.Duration
	// KeepAlive is the idle time and the interval of TCP keep-alive probes. It has to be well below op_ttl (4 s): a write that waits is dropped when its client has not
	// acknowledged anything for that long. Default 1 s.
	KeepAlive time.Duration
	// KeepAliveProbes is how many unanswered probes end a connection. Default 15.
	KeepAliveProbes int

	// Log has its identity attached; nil for the loop's.
	Log *slog.Logger
}

func (o Options) withDefaults(l loop.Loop) Options {
	number := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	span := func(p *time.Duration, v time.Duration) {
		if *p <= 0 {
			*p = v
		}
	}
	number(&o.MaxConns, 1024)
	number(&o.MaxInFlight, 256)
	number(&o.MaxBytes, 64<<20)
	number(&o.TotalBytes, 1<<30)
	number(&o.KeepAliveProbes, 15)
	span(&o.NegotiationTimeout, 15*time.Second)
	span(&o.DrainTimeout, 10*time.Second)
	span(&o.KeepAlive, time.Second)
	if o.Log == nil {
		o.Log = l.Log()
	}
	return o
}

// Stats are counts since the Server was made.
type Stats struct {
	Conns    int    // open now
	Accepted uint64 // connections
	Refused  uint64 // connections over MaxConns
	Requests [commands]uint64
	Errors   uint64 // requests answered with an error
	Read     uint64 // bytes
	Written  uint64 // bytes
}

// zeroSize is the size of the buffer that stands for zeroes, bytes: large enough that 32 MiB of them is a moderate number of pieces.
const zeroSize = 256 << 10

// Server serves a catalog on one loop. All of it belongs to that loop.
type Server struct {
	l       loop.Loop
	o       Options
	catalog volume.Catalog
	log     *slog.Logger

	listeners []loop.Listener
	conns     []*conn // in no order; each knows its index
	bytes     int     // payload of all requests under way
	stats     Stats

	zero    *buf.Ref // zeroes for replies
	free    *request // pool
	scratch []byte   // for replies that are put together

	closing bool
	closed  []func()
}

// New makes a Server that listens nowhere yet.
func New(l loop.Loop, o Options, c volume.Catalog) *Server {
	o = o.withDefaults(l)
	s := &Server{l: l, o: o, catalog: c, log: o.Log.With("component", "nbd"), zero: l.Alloc(zeroSize)}
	clear(s.zero.Bytes())
	return s
}

// Listen serves clients that connect to a ("tcp" or "unix"), until the listener or the Server is closed.
func (s *Server) Listen(a loop.Addr, o loop.ListenOptions) (loop.Listener, error) {
	if s.closing {
		return nil, fmt.Errorf("nbd: listen on %s: the server is closed", a)
	}
	ln, err := s.l.Listen(a, o, s)
	if err != nil {
		return nil, fmt.Errorf("nbd: listen on %s: %w", a, err)
	}
	s.listeners = append(s.listeners, ln)
	return ln, nil
}

// Accepted is loop.ListenHandler's.
func (s *Server) Accepted(c loop.Conn) loop.ConnHandler {
	if s.closing || len(s.conns) >= s.o.MaxConns {
		s.stats.Refused++
		s.log.Warn("connection refused", "client", c.Remote().String(), "connections", len(s.conns), "limit", s.o.MaxConns, "closing", s.closing)
		return nil
	}
	s.stats.Accepted++
	n := newConn(s, c)
	n.index = len(s.conns)
	s.conns = append(s.conns, n)
	n.greet()
	return n
}

// Stats is a copy of the counts.
func (s *Server) Stats() Stats {
	st := s.stats
	st.Conns = len(s.conns)
	return st
}

// Close stops listening, lets requests under way finish, closes every connection, and calls done, later, when the last handle is detached. Clients learn it by the end of
// their connection: what they have sent and was not answered they send again to whoever serves next.
func (s *Server) Close(done func()) {
	if done != nil {
		s.closed = append(s.closed, done)
	}
	if !s.closing {
		s.closing = true
		for _, ln := range s.listeners {
			ln.Close()
		}
		s.listeners = nil
		for _, c := range slices.Clone(s.conns) {
			c.drain("the server is stopping")
		}
	}
	s.l.Defer(&loop.Task{Run: s.maybeClosed})
}

// maybeClosed ends Close when nothing is left.
func (s *Server) maybeClosed() {
	if !s.closing || len(s.conns) > 0 {
		return
	}
	if s.zero != nil {
		s.zero.Release()
		s.zero = nil
	}
	done := s.closed
	s.closed = nil
	for _, f := range done {
		f()
	}
}

// forget takes a connection off the list when nothing of it is left.
func (s *Server) forget(c *conn) {
	last := len(s.conns) - 1
	s.conns[c.index] = s.conns[last]
	s.conns[c.index].index = c.index
	s.conns[last] = nil
	s.conns = s.conns[:last]
	s.maybeClosed()
}

// resolve is the export that a client means, by the name that the catalog knows it by.
func (s *Server) resolve(name string) (volume.Device, volume.Info, bool) {
	if name == "" {
		name = s.o.Default
	}
	if name == "" {
		names := s.catalog.Names()
		if len(names) != 1 {
			return nil, volume.Info{}, false
		}
		name = names[0]
	}
	return s.catalog.Lookup(name)
}
