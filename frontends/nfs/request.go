package nfs

import (
	"hash/crc32"
	"slices"

	"holdfast/core/loop/buf"
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/nfs/xdr"
	"holdfast/frontends/volume"
)

// request is one call from its record to its reply. It is pooled; nothing in it is allocated again in steady state.
type request struct {
	next *request // in the list that it is in
	s    *Server
	conn *conn
	cl   *client
	call rpc.Call

	// args are the arguments as received, lent until the procedure's start returns; ref, if not nil, is the buffer that holds them from refOff.
	args   []byte
	ref    *buf.Ref
	refOff int
	dec    xdr.Decoder // of args; it stands here because a procedure called through a table would make it escape

	// out is the reply: a record mark, then the message. mark says how many bytes follow out in the record.
	out xdr.Encoder

	tree TreeOp
	// then is what follows: a step run when tree or file is ready. Steps are plain functions, so that none is allocated.
	then func(*request)
	file *file

	id             ID
	early          Status // what is wrong with a WRITE's handle
	offset         uint64
	count          uint32
	stable         uint32
	attr, pre      Attr
	grown, ungrown Attr // after and before TreeGrow
	plus           bool
	access         uint32
	dirCount       uint32
	maxCount       uint32
	path           string // of a MNT, looked up as far as mountAt
	mountAt        int

	data       []volume.Piece // a WRITE's
	parts      []*part        // operations on the device
	busy       int            // of them, under way
	failed     error          // of them, the first
	tries      int
	charged    int // bytes accounted to conn and server
	registered bool
	sameXID    *request     // in client.writes
	joined     []*conn      // connections on which the call came again
	cached     *cachedReply // where the reply is kept
}

// takeRequest lends a request.
func (s *Server) takeRequest() *request {
	r := s.freeRequests
	if r == nil {
		r = &request{s: s}
		r.tree.User = r
		r.tree.Loop = s.l
		r.tree.Done = treeDone
		r.out.B = make([]byte, 0, 512)
		s.requests = append(s.requests, r)
	} else {
		s.freeRequests = r.next
		r.next = nil
	}
	return r
}

// charge accounts n bytes of data to the request until it is released.
func (r *request) charge(n int) {
	r.charged += n
	*r.load() += n
	r.s.bytes += n
}

// load is the counter of the connection that r's data is in.
func (r *request) load() *int {
	if r.call.Procedure == procWrite {
		return &r.conn.writeBytes
	}
	return &r.conn.readBytes
}

// release ends the request and returns it to the pool.
func (r *request) release() {
	c, s := r.conn, r.s
	if r.registered {
		r.cl.removeWrite(r)
		r.registered = false
	}
	r.leaveFile()
	r.dropParts()
	for i := range r.data {
		r.data[i].Ref.Release()
		r.data[i] = volume.Piece{}
	}
	r.data = r.data[:0]
	*r.load() -= r.charged
	s.bytes -= r.charged
	c.requests--
	r.cl.running--
	s.running--
	clear(r.joined)
	if cap(r.out.B) > maxDirBytes+4096 {
		r.out.B = nil
	}
	r.conn, r.cl, r.args, r.ref, r.then, r.failed, r.cached, r.dec = nil, nil, nil, nil, nil, nil, nil, xdr.Decoder{}
	r.joined, r.tries, r.charged, r.path = r.joined[:0], 0, 0, ""
	r.attr, r.pre, r.grown, r.ungrown = Attr{}, Attr{}, Attr{}, Attr{}
	r.next = s.freeRequests
	s.freeRequests = r
	c.relax()
	if s.closed != nil {
		s.finishClose()
	}
}

// submit starts a tree operation on id; then(r) follows when it has completed. Fields besides Kind and ID are set by the caller after prepare.
func (r *request) submit(then func(*request)) {
	r.then = then
	r.s.tree.Submit(&r.tree)
}

// prepare clears the tree operation for its next use.
func (r *request) prepare(k TreeKind, id ID) *TreeOp {
	op := &r.tree
	clear(op.Entries)
	*op = TreeOp{
		Kind: k, ID: id, Loop: op.Loop, Done: op.Done, User: op.User, Task: op.Task, Entries: op.Entries[:0],
		UID: r.call.Cred.UID, GID: r.call.Cred.GID,
	}
	return op
}

func treeDone(op *TreeOp) {
	r := op.User.(*request)
	r.then(r)
}

// route finds the procedure of a call, or answers the call and returns nil (RFC 5531, section 9).
func (r *request) route() func(*request, *xdr.Decoder) {
	c := &r.call
	if c.RPCVersion != rpc.Version {
		r.bare()
		rpc.DeniedVersion(&r.out, c.XID)
		r.reply()
		return nil
	}
	if c.Auth != rpc.AuthOK {
		r.bare()
		rpc.DeniedAuth(&r.out, c.XID, c.Auth)
		r.reply()
		return nil
	}
	var procs []func(*request, *xdr.Decoder)
	version := uint32(3)
	switch c.Program {
	case rpc.ProgramNFS:
		procs = nfsProcs[:]
	case rpc.ProgramMount:
		procs = mountProcs[:]
	case rpc.ProgramPortmap:
		procs, version = portmapProcs[:], 2
	default:
		r.answer(rpc.ProgUnavail)
		return nil
	}
	if c.Version != version {
		r.bare()
		rpc.Mismatch(&r.out, c.XID, version, version)
		r.reply()
		return nil
	}
	if c.Procedure >= uint32(len(procs)) || procs[c.Procedure] == nil {
		r.answer(rpc.ProcUnavail)
		return nil
	}
	if c.Program == rpc.ProgramNFS {
		r.s.stats.Procedures[c.Procedure]++
	}
	return procs[c.Procedure]
}

// bare starts a reply: room for the record mark and nothing else.
func (r *request) bare() { r.out.B = append(r.out.B[:0], 0, 0, 0, 0) }

// begin starts the reply of a call that was carried out.
func (r *request) begin() *xdr.Encoder {
	r.bare()
	rpc.Accepted(&r.out, r.call.XID, rpc.Success)
	return &r.out
}

// start begins the reply of an NFS call with its status.
func (r *request) start(st Status) *xdr.Encoder {
	e := r.begin()
	e.Uint32(uint32(st))
	return e
}

// answer replies without results.
func (r *request) answer(stat rpc.AcceptStat) {
	r.bare()
	rpc.Accepted(&r.out, r.call.XID, stat)
	r.reply()
}

func (r *request) garbageArgs() { r.answer(rpc.GarbageArgs) }

// reply sends out as it is to everyone who waits for it, and ends the request.
func (r *request) reply() {
	rpc.PutMark(r.out.B, len(r.out.B)-rpc.MarkSize)
	r.conn.send(r.out.B)
	for _, c := range r.joined {
		c.send(r.out.B)
	}
	if e := r.cached; e != nil {
		e.done, e.when = true, r.s.l.Now()
		e.reply = append([]byte(nil), r.out.B...)
		for _, c := range e.also {
			c.send(e.reply)
		}
		e.first, e.also = nil, nil
	}
	r.release()
}

func (c *conn) send(p []byte) {
	if !c.closed {
		c.c.Send(p)
		c.throttle()
	}
}

// silence ends the request without an answer, and with it the connections that wait for one.
func (r *request) silence(err error) {
	r.s.stats.Dropped++
	r.s.l.Log().Info("nfs request not answered, connection closed for the client to send it again", "client", r.cl.addr.String(), "xid", r.call.XID, "err", err)
	r.conn.hangUp()
	for _, c := range r.joined {
		c.hangUp()
	}
	if e := r.cached; e != nil {
		for _, c := range e.also {
			c.hangUp()
		}
		r.cl.replies.remove(e)
	}
	r.release()
}

// once joins r to the call that it repeats, if it does, and reports whether it is the first. A client that lost a reply sends the call again with the same xid.
func (r *request) once() bool {
	e, repeated := r.cl.replies.enter(callKey{r.call.XID, r.call.Procedure, crc32.Checksum(r.args, castagnoli)}, r.s.l.Now())
	if !repeated {
		r.cached, e.first = e, r.conn
		return true
	}
	if e.done {
		r.s.stats.Replayed++
		r.conn.send(e.reply)
	} else {
		r.s.stats.Joined++
		if e.first != r.conn && !slices.Contains(e.also, r.conn) {
			e.also = append(e.also, r.conn)
		}
	}
	r.release()
	return false
}

// status translates an error: silent means that nothing must be answered.
func (r *request) status(err error) (st Status, silent bool) {
	o, known := translate(err)
	if !known {
		r.s.l.Log().Error("nfs request failed for an unexpected reason", "client", r.cl.addr.String(), "procedure", r.call.Procedure, "err", err)
	}
	return o.status, o.silent
}
