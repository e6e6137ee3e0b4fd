package nfs

import (
	"bytes"
	"errors"
	"hash/crc32"
	"slices"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/nfs/xdr"
	"holdfast/frontends/volume"
)

// fileSync is the only answer to stable_how (RFC 1813, section 3.3.7): more than was asked for is allowed, less is not.
const fileSync = 2

// maxTries is how often a READ or WRITE starts over because the file's size changed under it.
const maxTries = 16

// part is one operation on a device, for a READ, a WRITE or a COMMIT. The Server pools them.
type part struct {
	op   volume.Op
	r    *request
	next *part // in the pool

	flying bool // op is the device's

	// A block of which only [lo, hi) is written, with the WRITE's data from src on: was holds what the block was, now what it shall be.
	edge        bool
	block       uint64
	lo, hi, src int
	was, now    *buf.Ref
	line        *part // who wants the same block next
	lineEnd     *part
}

func (s *Server) takePart(r *request) *part {
	p := s.freeParts
	if p == nil {
		p = &part{}
		p.op.User = p
		p.op.Done = partDone
	} else {
		s.freeParts = p.next
		p.next = nil
	}
	p.r = r
	r.parts = append(r.parts, p)
	return p
}

// dropParts returns r's operations, and what READs brought, to where they came from.
func (r *request) dropParts() {
	for i, p := range r.parts {
		if p.op.Kind == volume.Read && !p.edge {
			p.op.ReleasePieces()
		}
		if p.was != nil {
			p.was.Release()
			p.now.Release()
		}
		clear(p.op.Pieces)
		clear(p.op.Compare)
		p.op = volume.Op{User: p, Done: p.op.Done, Pieces: p.op.Pieces[:0], Compare: p.op.Compare[:0], Extents: p.op.Extents[:0]}
		*p = part{op: p.op, next: r.s.freeParts}
		r.s.freeParts = p
		r.parts[i] = nil
	}
	r.parts = r.parts[:0]
}

func partDone(op *volume.Op) {
	p := op.User.(*part)
	r := p.r
	p.flying = false
	if p.edge && p.step() {
		return
	}
	if op.Err != nil && r.failed == nil {
		r.failed = op.Err
	}
	r.busy--
	if r.busy == 0 {
		r.then(r)
	}
}

// dataFailed answers a READ, WRITE or COMMIT with an error.
func (r *request) dataFailed(err error) {
	if errors.Is(err, volume.ErrGone) || errors.Is(err, volume.ErrFenced) {
		if r.file != nil {
			r.file.drop()
		}
	}
	st, silent := r.status(err)
	if silent {
		r.silence(err)
		return
	}
	e := r.start(st)
	if r.call.Procedure != procRead {
		e.Bool(false)
	}
	r.postAttr(e, &r.attr)
	r.reply()
}

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

// again starts the request over after an error that a change of size explains, or fails it.
func (r *request) again(start func(*request), err error) {
	r.failed = nil
	r.tries++
	if !errors.Is(err, volume.ErrRange) || r.tries > maxTries {
		r.dataFailed(err)
		return
	}
	r.dropParts()
	start(r)
}

// run submits r's parts; then(r) follows when all have completed.
func (r *request) run(then func(*request)) {
	if r.s.closed != nil {
		r.dataFailed(volume.ErrShutdown)
		return
	}
	r.then = then
	r.busy = len(r.parts)
	for i := 0; i < len(r.parts); i++ {
		if p := r.parts[i]; p.edge {
			p.enter()
		} else {
			p.submit()
		}
	}
}

func (p *part) submit() {
	p.flying = true
	p.r.file.handle.Submit(&p.op)
}

// cancel asks the device to take back r's operations.
func (r *request) cancel() {
	for i := 0; i < len(r.parts); i++ {
		if p := r.parts[i]; p.flying {
			r.file.handle.Cancel(&p.op)
		}
	}
}

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
		// The tree says that the file is large enough, the device does not yet: it was cut meanwhile, or the news is on its way.
		if r.tries++; r.tries <= 2 {
			writeStart(r)
		} else {
			r.file.awaitSize(r, writeStart)
		}
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

// slice appends the pieces of data[from:from+n] to dst. References are lent, not added.
func slice(dst, data []volume.Piece, from, n int) []volume.Piece {
	for _, p := range data {
		if n == 0 {
			break
		}
		if from >= p.Len {
			from -= p.Len
			continue
		}
		m := min(n, p.Len-from)
		dst = append(dst, volume.Piece{Ref: p.Ref, Off: p.Off + from, Len: m})
		from, n = 0, n-m
	}
	return dst
}

// copyOut copies data[from:from+len(p)] into p.
func copyOut(p []byte, data []volume.Piece, from int) {
	for _, piece := range data {
		if len(p) == 0 {
			return
		}
		if from >= piece.Len {
			from -= piece.Len
			continue
		}
		n := copy(p, piece.Bytes()[from:])
		p, from = p[n:], 0
	}
}

// checksum is the CRC32C of data.
func checksum(data []volume.Piece) (crc uint32) {
	for _, p := range data {
		crc = crc32.Update(crc, castagnoli, p.Bytes())
	}
	return crc
}

// sameData compares two WRITEs' data, however they are cut.
func sameData(a, b []volume.Piece) bool {
	i, j, ai, bj := 0, 0, 0, 0
	for i < len(a) && j < len(b) {
		x, y := a[i].Bytes()[ai:], b[j].Bytes()[bj:]
		n := min(len(x), len(y))
		if !bytes.Equal(x[:n], y[:n]) {
			return false
		}
		if ai += n; ai == a[i].Len {
			i, ai = i+1, 0
		}
		if bj += n; bj == b[j].Len {
			j, bj = j+1, 0
		}
	}
	return i == len(a) && j == len(b)
}
