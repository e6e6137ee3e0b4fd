package nfs

import (
	"slices"

	"holdfast/frontends/nfs/xdr"
	"holdfast/frontends/volume"
)

// fileSync is the only answer to stable_how (RFC 1813, section 3.3.7): more than was asked for is allowed, less is not.
const fileSync = 2

// writeArgs reads WRITE3args up to the data; false when they make no sense.
func (r *request) writeArgs(d *xdr.Decoder) bool {
	fh := d.Opaque(maxHandle)
	r.offset, r.count, r.stable = d.Uint64(), d.Uint32(), d.Uint32()
	n := d.Uint32()
	if !d.OK() || r.stable > fileSync || n != r.count || n > MaxTransfer {
		return false
	}
	r.id, r.early = parseHandle(r.s.cluster, fh)
	return true
}

// write is WRITE (RFC 1813, section 3.3.7) when all of it has arrived in one piece.
func write(r *request, d *xdr.Decoder) {
	if !r.writeArgs(d) {
		r.garbageArgs()
		return
	}
	at, n := d.Offset(), int(r.count)
	data := d.Fixed(n)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if n > 0 {
		piece := volume.Piece{Len: n}
		if r.ref != nil {
			piece.Ref, piece.Off = r.ref.Retain(), r.refOff+at
		} else {
			piece.Ref = r.s.l.Alloc(n)
			copy(piece.Ref.Bytes(), data)
		}
		r.data = append(r.data, piece)
		r.charge(n)
	}
	r.startWrite()
}

// startWrite carries out a WRITE whose data is in r.data.
func (r *request) startWrite() {
	if r.early != OK {
		r.refuse(r.early)
		return
	}
	if o := r.cl.twin(r); o != nil {
		r.s.stats.Joined++
		if o.conn != r.conn && !slices.Contains(o.joined, r.conn) {
			o.joined = append(o.joined, r.conn)
		}
		r.release()
		return
	}
	if r.count > 0 && r.cl.wasDone(r) {
		r.s.stats.Replayed++
		r.prepare(TreeAttr, r.id)
		r.submit(writeRepeated)
		return
	}
	r.cl.addWrite(r)
	r.registered = true
	writeStart(r)
}

// writeRepeated answers a WRITE that was carried out before.
func writeRepeated(r *request) {
	if r.tree.Err != nil {
		r.dataFailed(r.tree.Err)
		return
	}
	r.attr = r.tree.Attr
	r.writeDone()
}

func writeStart(r *request) {
	r.prepare(TreeAttr, r.id)
	r.submit(writeAttr)
}

func writeAttr(r *request) {
	if r.tree.Err != nil {
		r.dataFailed(r.tree.Err)
		return
	}
	r.attr = r.tree.Attr
	end := r.offset + uint64(r.count)
	switch {
	case r.attr.Type != Regular:
		r.dataFailed(ErrInvalid)
	case end < r.offset || end > 1<<63-1:
		r.dataFailed(ErrTooBig)
	case r.count == 0:
		r.pre = Attr{}
		r.writeDone()
	case end > r.attr.Size:
		op := r.prepare(TreeGrow, r.id)
		op.Size = end
		r.submit(writeGrown)
	default:
		writeReady(r)
	}
}

func writeGrown(r *request) {
	if r.tree.Err != nil {
		r.dataFailed(r.tree.Err)
		return
	}
	r.ungrown, r.grown = r.tree.Pre, r.tree.Attr
	writeReady(r)
}

func writeReady(r *request) {
	if r.file != nil {
		writeData(r)
	} else {
		r.withFile(writeData)
	}
}

func writeData(r *request) {
	info := r.file.handle.Info()
	bs := uint64(info.BlockSize)
	end := r.offset + uint64(r.count)
	if (end+bs-1)&^(bs-1) > info.Size {
		r.again(writeStart, volume.ErrRange)
		return
	}
	at := r.offset
	if at&(bs-1) != 0 {
		stop := min(at&^(bs-1)+bs, end)
		r.addEdge(bs, at, stop)
		at = stop
	}
	limit := uint64(info.MaxTransfer) &^ (bs - 1)
	for whole := end &^ (bs - 1); at < whole; {
		p := r.s.takePart(r)
		p.op.Kind, p.op.Offset, p.op.Length, p.op.FUA = volume.Write, at, min(limit, whole-at), true
		p.op.Pieces = slice(p.op.Pieces, r.data, int(at-r.offset), int(p.op.Length))
		at += p.op.Length
	}
	if at < end {
		r.addEdge(bs, at, end)
	}
	r.run(writeEnd)
}

func writeEnd(r *request) {
	if err := r.failed; err != nil {
		r.again(writeStart, err)
		return
	}
	r.prepare(TreeTouch, r.id)
	r.submit(writeTouched)
}

func writeTouched(r *request) {
	op := &r.tree
	if op.Err != nil {
		r.dataFailed(op.Err)
		return
	}
	r.attr, r.pre = op.Attr, op.Pre
	if r.grown.Known() && op.Pre.Known() && r.grown.Ctime == op.Pre.Ctime && r.grown.Size == op.Pre.Size {
		r.pre = r.ungrown // growth and data are one change when nothing came between
	}
	r.s.stats.BytesWritten += uint64(r.count)
	r.cl.keepWrite(r)
	r.writeDone()
}

func (r *request) writeDone() {
	e := r.start(OK)
	r.wcc(e, &r.pre, &r.attr)
	e.Uint32(r.count)
	e.Uint32(fileSync)
	e.Uint64(r.s.verifier)
	r.reply()
}

// commit is COMMIT (RFC 1813, section 3.3.21). Every WRITE was durable when it was answered; the flush reports what the store has to say all the same.
func commit(r *request, d *xdr.Decoder) {
	fh := d.Opaque(maxHandle)
	d.Uint64() // offset and count: all of the file is committed
	d.Uint32()
	if !d.OK() {
		r.garbageArgs()
		return
	}
	if !r.handle(fh) {
		return
	}
	r.prepare(TreeAttr, r.id)
	r.submit(commitAttr)
}

func commitAttr(r *request) {
	if r.tree.Err != nil {
		r.dataFailed(r.tree.Err)
		return
	}
	r.attr = r.tree.Attr
	if r.attr.Type != Regular {
		r.dataFailed(ErrInvalid)
		return
	}
	r.withFile(commitData)
}

func commitData(r *request) {
	p := r.s.takePart(r)
	p.op.Kind = volume.Flush
	r.run(commitEnd)
}

func commitEnd(r *request) {
	if r.failed != nil {
		r.dataFailed(r.failed)
		return
	}
	e := r.start(OK)
	e.Bool(false)
	r.postAttr(e, &r.attr)
	e.Uint64(r.s.verifier)
	r.reply()
}
