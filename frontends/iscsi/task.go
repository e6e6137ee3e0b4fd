package iscsi

import (
	"holdfast/core/loop/buf"
	"holdfast/frontends/iscsi/scsi"
	"holdfast/frontends/volume"
)

// task is one SCSI command of a session. Tasks are pooled by the Server.
type task struct {
	scsi.Task
	s    *session
	next *task // in a queue, or in the pool
	hash *task // in the session's table
	prev *task // in the session's list of all tasks
	succ *task

	itt    uint32
	cmdSN  uint32
	lun    uint64
	edtl   uint32 // Expected Data Transfer Length
	attr   byte   // task attribute
	reads  bool   // R bit
	writes bool   // W bit

	immediate   bool // not counted in the window
	held        bool // waits for a command of lower CmdSN
	parked      bool // waits for other tasks because of its attribute
	begun       bool // scsi.Unit.Begin has run
	unsolicited bool // Data-Out without R2T is still to come
	solicited   bool // an R2T is out
	admitted    bool // counted in the read or write budget
	queued      bool // waits for the budget
	running     bool // an Op or a Change is under way
	changing    bool // it is a Change
	filling     bool // data is being received into a region
	aborted     bool
	silent      bool // no response when it ends
	counted     bool // in session.active

	ttt                   uint32
	received              uint32 // contiguous bytes of Data-Out and immediate data
	limit                 uint32 // where the present sequence ends
	dataSN                uint32 // next expected, or next to send
	r2tSN                 uint32
	region                int // bytes that the last piece of Data can take in all
	readBytes, writeBytes int // counted in the session's budgets
	want                  *tmf
	more                  []*tmf // further ones that wait for its end
}

// Task attributes (RFC 7143, section 11.3.1).
const (
	attrUntagged    = 0
	attrSimple      = 1
	attrOrdered     = 2
	attrHeadOfQueue = 3
	attrACA         = 4
)

// init is called once in a task's life.
func (t *task) init() {
	t.Op.Done = func(*volume.Op) { t.s.completed(t) }
	t.Change.Done = func(*scsi.Change) { t.s.completed(t) }
}

// clear makes a task new again, keeping its memory. Its data buffers have been released.
func (t *task) clear() {
	t.Reset()
	t.s, t.next, t.hash, t.prev, t.succ = nil, nil, nil, nil, nil
	t.itt, t.cmdSN, t.lun, t.edtl, t.attr = 0, 0, 0, 0, 0
	t.reads, t.writes, t.immediate, t.held, t.parked, t.begun = false, false, false, false, false, false
	t.unsolicited, t.solicited, t.admitted, t.queued, t.running, t.changing, t.filling, t.aborted, t.silent, t.counted = false, false, false, false, false, false, false, false, false, false
	t.ttt, t.received, t.limit, t.dataSN, t.r2tSN, t.region, t.readBytes, t.writeBytes = 0, 0, 0, 0, 0, 0, 0, 0
	t.want, t.more = nil, nil
}

// place is where the next n bytes of data go, in the buffer of the present sequence; it is nil when they do not fit.
func (t *task) place(n, room int, alloc func(int) *buf.Ref) []byte {
	last := len(t.Data) - 1
	if last < 0 || t.Data[last].Len == t.region {
		if n > room {
			return nil
		}
		t.Data = append(t.Data, volume.Piece{Ref: alloc(room)})
		t.region = room
		last++
	}
	p := &t.Data[last]
	if n > t.region-p.Len {
		return nil
	}
	dst := p.Ref.Bytes()[p.Len : p.Len+n]
	p.Len += n
	return dst
}

// trim cuts the data to n bytes; what an initiator sent beyond the command's length is not used.
func (t *task) trim(n int) {
	for i := range t.Data {
		p := &t.Data[i]
		p.Len = min(p.Len, n)
		n -= p.Len
	}
	for len(t.Data) > 0 && t.Data[len(t.Data)-1].Len == 0 {
		t.Data[len(t.Data)-1].Ref.Release()
		t.Data[len(t.Data)-1] = volume.Piece{}
		t.Data = t.Data[:len(t.Data)-1]
	}
}

func (t *task) releaseData() {
	for i := range t.Data {
		t.Data[i].Ref.Release()
		t.Data[i] = volume.Piece{}
	}
	t.Data = t.Data[:0]
}

// queue is a first-in first-out list of tasks.
type queue struct{ first, last *task }

func (q *queue) push(t *task) {
	t.next = nil
	if q.last == nil {
		q.first = t
	} else {
		q.last.next = t
	}
	q.last = t
}

func (q *queue) pop() *task {
	t := q.first
	if t != nil {
		q.first = t.next
		if q.first == nil {
			q.last = nil
		}
		t.next = nil
	}
	return t
}

func (q *queue) remove(t *task) {
	var before *task
	for o := q.first; o != nil; before, o = o, o.next {
		if o != t {
			continue
		}
		if before == nil {
			q.first = o.next
		} else {
			before.next = o.next
		}
		if q.last == o {
			q.last = before
		}
		o.next = nil
		return
	}
}
