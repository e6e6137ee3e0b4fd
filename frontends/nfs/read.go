package nfs

import (
	"holdfast/core/loop"
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/nfs/xdr"
	"holdfast/frontends/volume"
)

// read is READ (RFC 1813, section 3.3.6).
func read(r *request, d *xdr.Decoder) {
	fh := d.Opaque(maxHandle)
	r.offset, r.count = d.Uint64(), d.Uint32()
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	r.count = min(r.count, MaxTransfer)
	if c := r.conn; c.waiting.n > 0 || !c.mayRead(int(r.count)) {
		c.waiting.push(r)
		return
	}
	r.readNow()
}

// readNow runs a READ for which there is room.
func (r *request) readNow() {
	r.charge(int(r.count))
	r.prepare(TreeAttr, r.id)
	r.submit(readAttr)
}

func readAttr(r *request) {
	if r.tree.Err != nil {
		r.dataFailed(r.tree.Err)
		return
	}
	r.attr = r.tree.Attr
	switch {
	case r.attr.Type != Regular:
		r.dataFailed(ErrInvalid)
	case r.offset >= r.attr.Size || r.count == 0:
		r.count = 0
		r.readDone()
	default:
		r.count = uint32(min(uint64(r.count), r.attr.Size-r.offset))
		if r.file != nil {
			readData(r)
		} else {
			r.withFile(readData)
		}
	}
}

func readData(r *request) {
	info := r.file.handle.Info()
	bs := uint64(info.BlockSize)
	from, to := r.offset&^(bs-1), (r.offset+uint64(r.count)+bs-1)&^(bs-1)
	if to > info.Size {
		r.again(readStart, volume.ErrRange)
		return
	}
	limit := uint64(info.MaxTransfer) &^ (bs - 1)
	for at := from; at < to; at += limit {
		p := r.s.takePart(r)
		p.op.Kind, p.op.Offset, p.op.Length = volume.Read, at, min(limit, to-at)
	}
	r.run(readEnd)
}

func readStart(r *request) {
	r.prepare(TreeAttr, r.id)
	r.submit(readAttr)
}

func readEnd(r *request) {
	if err := r.failed; err != nil {
		r.again(readStart, err)
		return
	}
	r.readDone()
}

// readDone sends the reply, or holds it while the peer has not taken earlier ones.
func (r *request) readDone() {
	c := r.conn
	switch {
	case c.closed:
		r.release()
	case c.held.n > 0 || c.c.Queued() > loop.HighWater:
		r.leaveFile()
		c.held.push(r)
	default:
		r.sendRead()
	}
}

// sendRead sends READ3resok: the data leaves from where the device put it.
func (r *request) sendRead() {
	c, n := r.conn.c, int(r.count)
	e := r.start(OK)
	r.postAttr(e, &r.attr)
	e.Uint32(r.count)
	e.Bool(r.offset+uint64(r.count) >= r.attr.Size)
	e.Uint32(r.count)
	rpc.PutMark(e.B, len(e.B)-rpc.MarkSize+n+xdr.Pad(n))
	c.Send(e.B)
	left, skip := n, 0
	if len(r.parts) > 0 {
		skip = int(r.offset - r.parts[0].op.Offset)
	}
	for _, p := range r.parts {
		for _, piece := range p.op.Pieces {
			off := min(skip, piece.Len)
			skip -= off
			m := min(left, piece.Len-off)
			left -= m
			if piece.Ref != nil {
				if m > 0 {
					c.SendRef(piece.Ref, piece.Off+off, m)
				}
				continue
			}
			for m > 0 {
				z := min(m, zeroBytes)
				c.SendRef(r.s.zero, 0, z)
				m -= z
			}
		}
	}
	if pad := xdr.Pad(n); pad > 0 {
		c.Send(padding[:pad])
	}
	r.s.stats.BytesRead += uint64(n)
	r.release()
}

var padding [3]byte
