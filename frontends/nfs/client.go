package nfs

import (
	"net/netip"
	"slices"
	"time"

	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// client is one client address, over all of its connections: its open files and the replies kept for it. A client that reconnects finds both.
type client struct {
	s       *Server
	addr    netip.Addr
	conns   []*conn
	running int          // requests under way
	seen    loop.Instant // when it last showed life, once it has no connection
	alive   func() loop.Instant
	files   map[ID]*file
	opened  []*file        // the same, in a fixed order
	writes  [256]*request  // WRITEs under way by xid, chained by sameXID
	done    [256]doneWrite // WRITEs answered lately, by xid
	replies replyCache
}

// client finds or makes the state of an address; nil when there are too many.
func (s *Server) client(a netip.Addr) *client {
	cl := s.clients[a]
	if cl != nil {
		return cl
	}
	if len(s.clients) >= maxClients {
		s.forgetClients(func(cl *client) bool { return true })
		if len(s.clients) >= maxClients {
			return nil
		}
	}
	cl = &client{s: s, addr: a, files: make(map[ID]*file), seen: s.l.Now()}
	cl.alive = cl.lastAck
	s.clients[a] = cl
	s.known = append(s.known, cl)
	return cl
}

// forgetClients drops the state of those clients that have nothing under way and that old picks.
func (s *Server) forgetClients(old func(*client) bool) {
	s.known = slices.DeleteFunc(s.known, func(cl *client) bool {
		if len(cl.conns) > 0 || len(cl.files) > 0 || cl.running > 0 || !old(cl) {
			return false
		}
		delete(s.clients, cl.addr)
		return true
	})
}

// lastAck is volume.Session.Alive: when the client last acknowledged anything on any connection.
func (cl *client) lastAck() loop.Instant {
	at := cl.seen
	for _, c := range cl.conns {
		at = max(at, c.c.LastAck())
	}
	return at
}

func (cl *client) closed(c *conn) {
	cl.seen = max(cl.seen, c.c.LastAck())
	cl.conns = slices.DeleteFunc(cl.conns, func(o *conn) bool { return o == c })
}

// tidy closes the files that have not been used for idle.
func (cl *client) tidy(idle time.Duration) {
	now := cl.s.l.Now()
	for i := len(cl.opened) - 1; i >= 0; i-- { // from the end: drop takes files out
		f := cl.opened[i]
		f.rerun()
		if f.users == 0 && f.handle != nil && now.Sub(f.used) >= idle {
			f.drop()
		}
	}
}

// addWrite notes a WRITE under way, for retransmissions to find.
func (cl *client) addWrite(r *request) {
	slot := &cl.writes[r.call.XID&255]
	r.sameXID = *slot
	*slot = r
}

func (cl *client) removeWrite(r *request) {
	for at := &cl.writes[r.call.XID&255]; *at != nil; at = &(*at).sameXID {
		if *at == r {
			*at = r.sameXID
			r.sameXID = nil
			return
		}
	}
}

// twin finds the WRITE under way that r repeats: same xid, same arguments, same data.
func (cl *client) twin(r *request) *request {
	for o := cl.writes[r.call.XID&255]; o != nil; o = o.sameXID {
		if o.call.XID == r.call.XID && o.id == r.id && o.offset == r.offset && o.count == r.count && o.stable == r.stable && sameData(o.data, r.data) {
			return o
		}
	}
	return nil
}

// doneWrite recognizes a WRITE that was answered and comes again because the answer was lost: done again, it would undo what others have written meanwhile.
type doneWrite struct {
	xid    uint32
	count  uint32
	crc    uint32 // of the data: an xid and a place alone may come again with something new
	id     ID
	offset uint64
	when   loop.Instant
}

// keepWrite remembers that r has been carried out.
func (cl *client) keepWrite(r *request) {
	cl.done[r.call.XID&255] = doneWrite{r.call.XID, r.count, checksum(r.data), r.id, r.offset, cl.s.l.Now()}
}

// wasDone reports whether r has been carried out already.
func (cl *client) wasDone(r *request) bool {
	d := &cl.done[r.call.XID&255]
	return d.when != 0 && d.xid == r.call.XID && d.id == r.id && d.offset == r.offset && d.count == r.count && cl.s.l.Now().Sub(d.when) < keptFor &&
		d.crc == checksum(r.data)
}

// file is an image that a client uses: one attached Handle and who waits for it.
type file struct {
	s       *Server
	cl      *client
	id      ID
	open    TreeOp
	handle  volume.Handle // nil while opening
	dropped bool
	users   int // requests that use or wait for it
	used    loop.Instant

	waiting requestList // for handle
	short   requestList // for the device to have grown
	edges   []*part     // partial blocks being rewritten; each heads the line of those that want the same block
}

// withFile calls then(r) when the file r.id is attached, at once if it is; it fails r if it cannot be.
func (r *request) withFile(then func(*request)) {
	f := r.cl.files[r.id]
	if f == nil {
		if len(r.cl.files) >= maxFiles {
			r.cl.tidy(0)
		}
		f = &file{s: r.s, cl: r.cl, id: r.id}
		f.open.Kind, f.open.Loop, f.open.ID = TreeOpen, r.s.l, r.id
		f.open.Done = func(*TreeOp) { f.opened() }
		r.cl.files[r.id] = f
		r.cl.opened = append(r.cl.opened, f)
		f.users++
		r.file, r.then = f, then
		f.waiting.push(r)
		r.s.tree.Submit(&f.open)
		return
	}
	f.users++
	r.file = f
	if f.handle == nil {
		r.then = then
		f.waiting.push(r)
		return
	}
	then(r)
}

// leaveFile ends r's use of its file.
func (r *request) leaveFile() {
	f := r.file
	if f == nil {
		return
	}
	r.file = nil
	f.users--
	f.used = r.s.l.Now()
	f.maybeDetach()
}

func (f *file) opened() {
	err := f.open.Err
	if err == nil {
		f.handle, err = f.open.Device.Attach(f.s.l, f.s.sessionOf(f.cl))
		f.open.Device = nil
	}
	if err != nil {
		f.drop()
	} else {
		f.handle.Events(f)
	}
	for r := f.waiting.pop(); r != nil; r = f.waiting.pop() {
		if err != nil {
			r.dataFailed(err)
		} else {
			r.then(r)
		}
	}
}

// VolumeEvent is volume.EventHandler's.
func (f *file) VolumeEvent(e volume.Event) {
	switch e {
	case volume.Resized:
		f.rerun()
	case volume.Gone:
		f.failShort(volume.ErrGone)
		f.drop()
	}
}

// rerun lets those who wait for the device to grow look again.
func (f *file) rerun() {
	for r := f.short.takeAll(); r != nil; {
		next := r.next
		r.next = nil
		r.then(r)
		r = next
	}
}

// failShort fails those who wait for the device to grow.
func (f *file) failShort(err error) {
	for r := f.short.takeAll(); r != nil; {
		next := r.next
		r.next = nil
		r.dataFailed(err)
		r = next
	}
}

// awaitSize parks r until the device may have grown, when then(r) follows.
func (f *file) awaitSize(r *request, then func(*request)) {
	if f.s.closed != nil {
		r.dataFailed(volume.ErrShutdown)
		return
	}
	r.then = then
	f.short.push(r)
}

// drop takes the file out of use: the next request attaches anew.
func (f *file) drop() {
	if f.cl.files[f.id] == f {
		delete(f.cl.files, f.id)
		f.cl.opened = slices.DeleteFunc(f.cl.opened, func(o *file) bool { return o == f })
	}
	if !f.dropped {
		f.dropped = true
		f.maybeDetach()
	}
}

func (f *file) maybeDetach() {
	if !f.dropped || f.users > 0 || f.handle == nil {
		return
	}
	h := f.handle
	f.handle = nil
	f.s.detaching++
	h.Detach(func() {
		f.s.detaching--
		f.s.finishClose()
	})
}

// requestList is a first-in-first-out list through request.next.
type requestList struct {
	first, last *request
	n           int
}

func (q *requestList) push(r *request) {
	r.next = nil
	if q.last == nil {
		q.first = r
	} else {
		q.last.next = r
	}
	q.last = r
	q.n++
}

func (q *requestList) pop() *request {
	r := q.first
	if r == nil {
		return nil
	}
	q.first = r.next
	if q.first == nil {
		q.last = nil
	}
	r.next = nil
	q.n--
	return r
}

// takeAll empties the list and returns its first, chained by next.
func (q *requestList) takeAll() *request {
	r := q.first
	*q = requestList{}
	return r
}
