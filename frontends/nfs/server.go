// Package nfs serves images as files over NFS version 3, with MOUNT version 3 and portmapper version 2 on the same port (RFC 1813, RFC 1833, RFC 5531).
//
// One Server lives on one loop; several, one per loop, may listen on one address. It knows a Tree (names, sizes, attributes) and what the Tree opens (volume.Device), nothing of
// clusters. What it promises:
//   - Every WRITE is durable when it is answered (FILE_SYNC), so the write verifier is the same on all gateways and for ever, and COMMIT has little to do.
//   - Requests of one connection run in parallel and are answered as they finish. GETATTR, ACCESS, FSSTAT and the other requests without data pass those that wait for data.
//   - A retransmitted request that is still under way is joined; the reply of one that changed names is kept and given again.
//   - While storage is away requests wait; a client never sees an error for an outage.
//   - Any bytes from a client cost that client only; memory is bounded by Options.
//
// Access is granted by network address (Options.Allow); root is not squashed and permission bits are kept but not enforced: hypervisors come as root (spec/clients.md N1).
package nfs

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
)

// Options are a Server's settings. The zero value of a field asks for its default.
type Options struct {
	// Allow lists the networks whose clients are served; empty: loopback only.
	Allow []netip.Prefix
	// Port is what the portmapper answers for NFS and MOUNT; default: the port of the first Listen.
	Port int
	// MaxConns limits connections (default 1024); more are refused.
	MaxConns int
	// MaxRequests limits the requests under way of one connection (default 1024); at the limit the connection is not read.
	MaxRequests int
	// MaxConnBytes limits the data of one connection's requests under way (default 32 MiB), and MaxBytes that of all connections (default 512 MiB). Above, READs wait in line and
	// connections that send WRITEs are not read. A connection with nothing under way may always have one request.
	MaxConnBytes, MaxBytes int
	// Idle is after which time an unfinished request on a connection ends the connection (default 60 s).
	Idle time.Duration
}

func (o Options) withDefaults() Options {
	if len(o.Allow) == 0 {
		o.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	o.MaxConns = orDefault(o.MaxConns, 1024)
	o.MaxRequests = orDefault(o.MaxRequests, 1024)
	o.MaxConnBytes = orDefault(o.MaxConnBytes, 32<<20)
	o.MaxBytes = orDefault(o.MaxBytes, 512<<20)
	o.Idle = orDefault(o.Idle, 60*time.Second)
	return o
}

func orDefault[T ~int | ~int64](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// Limits of one request.
const (
	// MaxTransfer is the most data of a READ or WRITE, bytes. Linux asks for no more (spec/clients.md N16).
	MaxTransfer = 1 << 20
	// maxRecord bounds a record: a WRITE of MaxTransfer with the largest headers.
	maxRecord = MaxTransfer + 4096
	// inlineRecord is up to which size a record is looked at when all of it has arrived; longer ones can only be WRITEs.
	inlineRecord = 16 << 10
	// headBytes is enough for everything before a WRITE's data: call header 840, handle 68, offset 8, count, stable and length 12.
	headBytes = 1024
	// chunkBytes is the unit in which a WRITE's data is received: what a peer can make us lend before it has sent it.
	chunkBytes = 128 << 10
	maxName    = 255
	maxTarget  = 4096 // of a symbolic link
	maxPath    = 1024 // MNTPATHLEN (RFC 1813, section 5.1.3)
	// maxDirBytes bounds a READDIR reply.
	maxDirBytes = 64 << 10
	zeroBytes   = 64 << 10
)

// Times of housekeeping.
const (
	sweepEvery   = 5 * time.Second
	fileIdle     = 60 * time.Second  // an unused file is closed
	clientIdle   = 300 * time.Second // a client without connections is forgotten, with the replies kept for it
	maxFiles     = 4096              // open files of one client; beyond, unused ones are closed at once
	maxClients   = 4096
	keepIdle     = time.Second // keep-alive probes feed volume.Session.Alive, so they must be more frequent than op_ttl (4 s)
	keepEvery    = time.Second
	keepProbes   = 15
	maxMounts    = 1024 // entries of the list that DUMP shows
	refusedEvery = 10 * time.Second
	maxFragment  = 4096 // fragments of one record
)

// Stats count what a Server has done.
type Stats struct {
	Connections, Refused uint64 // accepted; refused by address or limit
	Requests             uint64
	Procedures           [numProcs]uint64 // NFS calls
	BytesRead            uint64
	BytesWritten         uint64
	Joined, Replayed     uint64 // retransmissions that joined their original; that were answered from the cache
	Garbage              uint64 // connections closed for bytes that make no sense
	Dropped              uint64 // requests without an answer, with their connection
}

// Server serves one Tree on one loop. Everything in it is touched on that loop only.
type Server struct {
	l    loop.Loop
	o    Options
	tree Tree

	cluster  [16]byte
	fsid     uint64
	verifier uint64
	zero     *buf.Ref // zeroBytes of zeroes

	listeners []loop.Listener
	port      int
	conns     []*conn
	clients   map[netip.Addr]*client
	known     []*client // the same, in a fixed order
	mounts    []mountEntry
	bytes     int // data of requests under way
	running   int // requests under way
	detaching int // handles that are being given back
	sweep     loop.Timer
	closed    func()       // not nil while closing
	refusedAt loop.Instant // when a refusal was last logged

	requests     []*request // all there are
	freeRequests *request
	freeParts    *part
	stats        Stats
}

// New makes a server of t on l. It serves after Listen.
func New(l loop.Loop, o Options, t Tree) *Server {
	s := &Server{l: l, o: o.withDefaults(), tree: t, cluster: t.Cluster(), clients: make(map[netip.Addr]*client)}
	s.fsid = fileSystemNumber(s.cluster)
	s.verifier = mix(s.fsid)
	s.zero = l.Alloc(zeroBytes)
	clear(s.zero.Bytes())
	s.sweep.Fire = s.tidy
	l.Arm(&s.sweep, l.Now().Add(sweepEvery))
	return s
}

// Listen serves on an address too; it may be called for several.
func (s *Server) Listen(a loop.Addr, o loop.ListenOptions) (loop.Listener, error) {
	if s.closed != nil {
		return nil, errors.New("the NFS server is closed")
	}
	ln, err := s.l.Listen(a, o, s)
	if err != nil {
		return nil, err
	}
	if s.port == 0 {
		s.port = portOf(ln.Addr())
	}
	s.listeners = append(s.listeners, ln)
	return ln, nil
}

// Close stops listening, ends every connection, takes back what the devices can still take back, and calls done when every request has ended and every image was given back.
// Requests that wait for the Tree end when it ends them (with volume.ErrShutdown).
func (s *Server) Close(done func()) {
	if s.closed != nil {
		return
	}
	if done == nil {
		done = func() {}
	}
	s.closed = done
	for _, ln := range s.listeners {
		ln.Close()
	}
	for _, c := range s.conns {
		c.hangUp()
	}
	for _, r := range s.requests {
		r.cancel()
	}
	for _, cl := range s.known {
		for _, f := range slices.Clone(cl.opened) { // failing a request may drop its file
			f.failShort(volume.ErrShutdown)
		}
	}
	s.l.Disarm(&s.sweep)
	s.finishClose()
}

// finishClose gives the images back once nothing runs, and ends Close when that is done.
func (s *Server) finishClose() {
	if s.closed == nil || s.running > 0 || len(s.conns) > 0 {
		return
	}
	for _, cl := range s.known {
		for len(cl.opened) > 0 {
			cl.opened[0].drop()
		}
	}
	if s.detaching == 0 && s.zero != nil {
		s.zero.Release()
		s.zero = nil
		s.closed()
	}
}

// Stats are the counters so far.
func (s *Server) Stats() Stats { return s.stats }

// Accepted is loop.ListenHandler's.
func (s *Server) Accepted(c loop.Conn) loop.ConnHandler {
	ap, err := netip.ParseAddrPort(c.Remote().Address)
	addr := ap.Addr().Unmap().WithZone("")
	switch {
	case s.closed != nil:
		return nil
	case err != nil || !s.allowed(addr):
		s.refuse(c, "not in the allowed networks")
		return nil
	case len(s.conns) >= s.o.MaxConns:
		s.refuse(c, "too many connections")
		return nil
	}
	cl := s.client(addr)
	if cl == nil {
		s.refuse(c, "too many client addresses")
		return nil
	}
	s.stats.Connections++
	c.SetKeepAlive(keepIdle, keepEvery, keepProbes)
	n := &conn{s: s, c: c, cl: cl, index: len(s.conns), heard: s.l.Now()}
	s.conns = append(s.conns, n)
	cl.conns = append(cl.conns, n)
	return n
}

// refuse counts a connection that is not accepted, and says so now and then: a client that is refused tries again without end and without telling its user why.
func (s *Server) refuse(c loop.Conn, why string) {
	s.stats.Refused++
	if now := s.l.Now(); s.refusedAt == 0 || now.Sub(s.refusedAt) > refusedEvery {
		s.refusedAt = now
		s.l.Log().Warn("nfs client refused", "client", c.Remote().Address, "why", why, "refused", s.stats.Refused)
	}
}

// SetAllow changes Options.Allow: for connections and mounts from now on.
func (s *Server) SetAllow(list []netip.Prefix) {
	s.o.Allow = Options{Allow: list}.withDefaults().Allow
}

// Allow is the networks whose clients are served.
func (s *Server) Allow() []netip.Prefix { return s.o.Allow }

func (s *Server) allowed(a netip.Addr) bool {
	for _, p := range s.o.Allow {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forget takes a closed connection out of the lists.
func (s *Server) forget(c *conn) {
	last := len(s.conns) - 1
	s.conns[c.index] = s.conns[last]
	s.conns[c.index].index = c.index
	s.conns[last] = nil
	s.conns = s.conns[:last]
}

// tidy ends what is idle: half-sent requests, unused files, absent clients.
func (s *Server) tidy() {
	now := s.l.Now()
	for _, c := range s.conns {
		if c.unfinished() && !c.paused && now.Sub(c.heard) > s.o.Idle {
			c.garbage("an unfinished request", errors.New("no more of it came"))
		}
	}
	for _, cl := range s.known {
		cl.tidy(fileIdle)
	}
	s.forgetClients(func(cl *client) bool { return now.Sub(cl.seen) > clientIdle })
	if s.closed == nil {
		s.l.Arm(&s.sweep, now.Add(sweepEvery))
	}
}

func portOf(a loop.Addr) int {
	ap, err := netip.ParseAddrPort(a.Address)
	if err != nil {
		return 0
	}
	return int(ap.Port())
}

// sessionOf says who attaches to an image.
func (s *Server) sessionOf(cl *client) volume.Session {
	return volume.Session{Protocol: "nfs", Client: cl.addr.String(), Alive: cl.alive}
}

func itoa(n int) string { return strconv.Itoa(n) }
