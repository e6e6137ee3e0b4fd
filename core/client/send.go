package client

import (
	"errors"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/wire"
)

func wirePiece(r *buf.Ref, off, n int) peer.Piece { return peer.Piece{Ref: r, Off: off, Len: n} }

// pump sends what is ready, as far as the limits allow.
func (c *Client) pump() {
	if c.pumping {
		return
	}
	c.pumping = true
	for p := c.ready.first; p != nil; p = c.ready.first {
		if c.flying > 0 && (c.flying >= c.o.MaxParts || c.bytes+int(p.len) > c.o.MaxBytes) {
			break
		}
		c.send(p)
	}
	c.pumping = false
}

// send asks the primary, or waits for one, or ends p.
func (c *Client) send(p *part) {
	op, now := p.op, c.l.Now()
	code := p.opcode()
	change := code != wire.OpRead
	s := op.Session
	switch {
	case c.closed:
		c.endPart(p, ErrClosed)
		return
	case s != nil && s.fenced:
		c.endPart(p, ErrFenced)
		return
	}
	inode, ok := c.snap.Inode(op.Inode)
	if (!ok || bool(inode.Deleted)) && op.Kind != Delete {
		c.endPart(p, ErrGone)
		return
	}
	if change {
		if p.deadline = s.deadline(p, now); p.deadline <= now && !p.unknown {
			c.endPart(p, ErrExpired)
			return
		}
	}
	pg, osd := c.primary(op.Inode, p.stripe)
	if c.o.RetryLimit > 0 && p.tries >= c.o.RetryLimit {
		c.endPart(p, &UnreachableError{PG: pg, OSD: osd, Tries: p.tries, Since: now.Sub(p.since)})
		return
	}
	p.revision = 0
	parent := false
	if ok {
		p.revision, parent = inode.Mod, inode.Parent() != 0
	}
	if osd == 0 {
		p.primary = 0
		p.tries++
		c.wait(p, recheck)
		return
	}
	if c.keep.n > 0 && c.detained(p, osd) {
		c.wait(p, recheck)
		return
	}
	if p.primary != 0 && p.primary != osd {
		c.Stats.Moved++
	}
	serves := osd
	osd = c.reader(p, pg, serves)
	p.primary, p.local = osd, osd != serves
	if change && p.seq == 0 && s.full() {
		s.held = true
		c.wait(p, recheck)
		if len(s.kept) > 0 {
			c.keep.held = true
			c.syncKept()
		}
		return
	}
	var t wire.Trailer
	if s != nil {
		if change {
			if p.seq == 0 {
				p.lazy = c.mayKeep(p)
			}
			s.number(p)
		}
		t = wire.Trailer{Session: s.id, Sequence: p.seq, Low: s.low()}
	}
	h := &p.call.Header
	p.call.Deadline = 0
	if change {
		p.call.Deadline = p.deadline
	}
	version := op.CAS
	if p.rewrite {
		version = p.version
	}
	switch code {
	case wire.OpZero:
		m := wire.Zero{Inode: op.Inode, Offset: p.stripe + uint64(p.off), Len: p.len, Version: uint64(version), Trailer: t}
		if p.explicit = op.KeepWritten || parent; p.explicit {
			m.Flags = wire.ZeroKeepWritten
		}
		if p.lazy {
			m.Flags |= wire.FlagLazy
		}
		m.Encode(h)
	default:
		m := wire.ReadWrite{Op: code, Inode: op.Inode, Offset: p.stripe + uint64(p.off), Len: p.len, Version: uint64(version), Trailer: t}
		switch {
		case change:
			m.MetaRevision = uint64(p.revision)
			if p.lazy {
				m.Flags = wire.FlagLazy
			}
		case parent:
			m.MetaRevision, m.Version = uint64(p.revision), 0
		default:
			m.Version = 0
		}
		m.Encode(h)
	}
	p.call.Payload = p.call.Payload[:0]
	switch {
	case code == wire.OpWrite && p.rewrite:
		p.call.Payload = append(p.call.Payload, wirePiece(p.data, 0, int(p.len)))
	case code == wire.OpWrite:
		c.payload(p)
	}
	p.move(partCalling)
	c.hub.Call(osd, &p.call)
}

// wait sets p aside for d, or until the cluster changes in what concerns it.
func (c *Client) wait(p *part, d time.Duration) {
	p.move(partWaiting)
	c.l.Arm(&p.timer, c.l.Now().Add(d))
}

// retry sends p again later, or at once to another primary, if it is worth it.
func (c *Client) retry(p *part, d time.Duration) {
	c.Stats.Retries++
	p.tries++
	switch _, osd := c.primary(p.op.Inode, p.stripe); {
	case p.op.Err != nil && (!p.unknown || rank(p.op.Err) >= 5):
		c.endPart(p, nil)
	case osd != 0 && osd != p.primary:
		p.move(partReady)
	default:
		c.wait(p, d)
	}
}

// reconsider looks at everything that waits, after news of PGs, OSDs and inodes.
func (c *Client) reconsider() {
	if c.keep.n > 0 {
		c.moved()
	}
	for p := c.waiting.first; p != nil; {
		next := p.links[inQueue].next
		_, osd := c.primary(p.op.Inode, p.stripe)
		var mod registry.Revision
		if i, ok := c.snap.Inode(p.op.Inode); ok {
			mod = i.Mod
		}
		if osd != 0 && osd != p.primary || mod != p.revision {
			c.l.Disarm(&p.timer)
			p.move(partReady)
		}
		p = next
	}
	for p := c.calling.first; p != nil; {
		next := p.links[inQueue].next
		pg, osd := c.primary(p.op.Inode, p.stripe)
		if osd != 0 && osd != p.primary && !(p.local && mayAsk(c.snap, pg, p.primary)) && c.hub.Cancel(&p.call) {
			p.stay = p.stay || p.local
			p.move(partReady)
		}
		p = next
	}
	c.pump()
}

// called takes the answer to p, or the loss of the connection.
func (c *Client) called(p *part) {
	p.move(partIdle)
	c.answer(p)
	c.pump()
}

func (c *Client) answer(p *part) {
	op, call := p.op, &p.call
	change := p.opcode() != wire.OpRead
	data := call.ReplyData
	call.ReplyData = nil
	if call.Err != nil {
		if c.keep.n > 0 {
			c.unsure(p.primary)
		}
		if p.local {
			c.leftToPrimary(p, true)
			return
		}
		if d, ok := errors.AsType[*peer.DisconnectedError](call.Err); change && (!ok || d.Sent) {
			p.unknown, op.touched = true, true
			c.Stats.Lost++
		}
		c.retry(p, c.o.RetryInterval)
		return
	}
	op.touched = op.touched || change
	if errno := call.Reply.Retval(); errno < 0 {
		if data != nil {
			data.Release()
		}
		if p.local {
			c.leftToPrimary(p, errno != wire.EAGAIN)
			return
		}
		c.refused(p, change, errno)
		return
	}
	version, ok := replyVersion(&call.Reply)
	if !ok || !change && p.len > 0 && (data == nil || data.Len() != int(p.len)) {
		if data != nil {
			data.Release()
		}
		c.endPart(p, &RefusedError{p.primary, p.objectOf(), errReply})
		return
	}
	switch {
	case change && p.lazy && version != 0: // else it has changed nothing, and must not when it comes again
		c.retain(p, version)
		c.ended(p, version)
	case change:
		c.made(p.objectOf(), version)
		c.ended(p, version)
	case p.rewrite:
		c.rewrite(p, data, version)
	default:
		if p.local {
			c.Stats.Local++
		}
		r := &op.Parts[p.index]
		r.Data, r.DataOff, r.Version = data, int(p.inOff), version
		if n := len(call.ReplyMeta); n > 0 {
			at := len(op.bits)
			op.bits = c.appendBits(op.bits, call.ReplyMeta, op.Inode.Pool())
			r.Bitmap = op.bits[at:len(op.bits):len(op.bits)]
		} else {
			r.Bitmap = nil
		}
		c.ended(p, version)
	}
}

// appendBits appends the bitmap of an object as a reply has it, a bit for each unit without gaps: chunks begin with a byte each there.
func (c *Client) appendBits(dst, bitmap []byte, pool layout.PoolID) []byte {
	pl := c.pools[pool]
	if pl == nil || pl.err != nil || pl.g.Units()%8 == 0 || pl.g.DataChunks == 1 {
		return append(dst, bitmap...)
	}
	n, units := pl.g.BitmapLen(), pl.g.Units()
	first := len(dst)
	for i := range len(bitmap) / n * units {
		if i%8 == 0 {
			dst = append(dst, 0)
		}
		if unit := i % units; bitmap[i/units*n+unit/8]>>(unit%8)&1 != 0 {
			dst[first+i/8] |= 1 << (i % 8)
		}
	}
	return dst
}

// replyVersion is the version in the reply to a READ, WRITE, DELETE or ZERO.
func replyVersion(h *wire.Header) (layout.Version, bool) {
	switch h.Op() {
	case wire.OpDelete:
		var m wire.DeleteReply
		err := m.Decode(h)
		return layout.Version(m.Version), err == nil
	case wire.OpZero:
		var m wire.VersionReply
		err := m.Decode(h)
		return layout.Version(m.Version), err == nil
	}
	var m wire.ReadWriteReply
	err := m.Decode(h)
	return layout.Version(m.Version), err == nil
}

// ended is the success of p.
func (c *Client) ended(p *part, version layout.Version) {
	if op := p.op; p.index == 0 && op.cursor >= op.end && op.index == 1 {
		op.Version = version
	}
	c.endPart(p, nil)
}

// rewrite goes on with the write once the granules that p touches are here.
func (c *Client) rewrite(p *part, data *buf.Ref, version layout.Version) {
	op := p.op
	b := data.Bytes()[p.inOff : p.inOff+p.inLen]
	p.data = data
	if op.Err != nil {
		c.endPart(p, nil)
		return
	}
	if op.Kind == CompareWrite {
		if at := mismatch(b, op.Compare); at >= 0 {
			c.endPart(p, &MismatchError{uint64(at)})
			return
		}
	}
	if op.Kind == Zero {
		clear(b)
	} else {
		copyPieces(b, op.Pieces, int(p.at))
	}
	p.writing, p.version = true, version+1
	p.move(partReady)
}

// refused takes a negative answer.
func (c *Client) refused(p *part, change bool, errno int64) {
	op := p.op
	pause := c.o.EIORetryInterval
	if pause == 0 {
		pause = time.Second
	}
	switch errno {
	case wire.EPIPE, wire.EAGAIN, wire.EBUSY, wire.ENOENT, wire.ENOMEM:
		// The interval ended, perhaps with the change on some members: the next one decides. Or the OSD has not heard yet of the image's newest configuration, which it will in a
		// moment: so the first tries follow each other sooner.
		p.unknown = p.unknown || change
		c.retry(p, c.o.RetryInterval>>max(0, 4-p.tries))
	case wire.EIO:
		if c.o.EIORetryInterval == 0 {
			c.endPart(p, ErrIO)
			return
		}
		p.unknown = p.unknown || change
		c.retry(p, pause)
	case wire.ENOSPC:
		c.Stats.Full++
		if c.keep.n > 0 {
			c.keep.held = true // OSDs that remember what is not synced have less room
			c.syncKept()
		}
		if !c.o.RetryENOSPC {
			c.endPart(p, ErrNoSpace)
			return
		}
		c.retry(p, pause)
	case wire.ETIMEDOUT:
		// It was not begun, and is not any more: every earlier try has an earlier deadline.
		c.Stats.Late++
		p.unknown = false
		if change && op.Session.deadline(p, c.l.Now()) <= c.l.Now() {
			c.endPart(p, ErrExpired)
			return
		}
		c.retry(p, c.o.RetryInterval)
	case wire.EINTR:
		version, _ := replyVersion(&p.call.Reply)
		if !p.rewrite {
			c.endPart(p, &ConflictError{version})
			return
		}
		c.conflict(p)
	case wire.EROFS:
		c.endPart(p, ErrReadOnly)
	case wire.ESTALE:
		if s := op.Session; s != nil && !s.fenced {
			s.fenced = true
			c.log.Info("session fenced", "session", s.id, "osd", p.primary)
			defer c.dropSession(s, ErrFenced)
		}
		c.endPart(p, ErrFenced)
	default:
		c.endPart(p, &RefusedError{p.primary, p.objectOf(), wire.Errno(errno)})
	}
}

// conflict begins a rewrite again: another writer changed the object in between. The same pair must not be used again, as it has its answer.
func (c *Client) conflict(p *part) {
	c.Stats.Conflicts++
	p.data.Release()
	p.data = nil
	p.writing, p.unknown, p.version = false, false, 0
	p.op.Session.answered(p)
	if p.op.Err != nil {
		c.endPart(p, nil)
		return
	}
	// Whoever lost waits a moment, so that two writers do not go on in step.
	c.wait(p, time.Duration(c.l.Rand().Int64N(int64(max(c.o.RetryInterval/16, 1)))))
}
