package sim

import (
	"fmt"

	"holdfast/core/loop"
)

// eventKind says what an event does and, with it, what x and n are.
type eventKind uint8

// Kinds of events. The loop's own come in the order of a turn: completions, timers, posted tasks.
const (
	evAccept     eventKind = iota + 1 // x *conn
	evOpened                          // x *conn
	evRead                            // x *conn: bytes or the end of the stream have come, or reading goes on
	evFlush                           // x *conn: the peer has made room
	evDrained                         // x *conn
	evFailed                          // x *connError
	evClosed                          // x *conn: Closed after Close
	evDisk                            // x *diskRun
	evDiskClosed                      // x *handle
	evWake                            // a turn for what was deferred or sent outside of one
	evTimers
	evPost // x *loop.Task

	// Outside every loop:
	evCall        // x func()
	evArrive      // x *wire
	evWritable    // x *conn
	evProbe       // x *conn, n generation of the keep-alive setting
	evDialTimeout // x *conn
	evDiskDone    // x *diskRun, n its generation
)

// event is one thing to happen. Events are ordered by (at, seq).
type event struct {
	at   loop.Instant
	seq  uint64
	l    *Loop // nil when no process is concerned
	kind eventKind
	n    int
	x    any
}

// label names a connection and the process at its other end.
func (c *conn) label() string {
	if c.peer == nil {
		return fmt.Sprintf("conn %d", c.id)
	}
	return fmt.Sprintf("conn %d with %s", c.id, c.peer.l.name)
}

func (e *event) describe() string {
	switch e.kind {
	case evAccept:
		c := e.x.(*conn)
		return fmt.Sprintf("%s: accepted, %s", c.label(), c.remote)
	case evOpened:
		return e.x.(*conn).label() + ": opened"
	case evRead:
		c := e.x.(*conn)
		end := ""
		if c.eof {
			end = ", then the end"
		}
		return fmt.Sprintf("%s: %d bytes to read%s", c.label(), c.in.avail, end)
	case evFlush:
		return e.x.(*conn).label() + ": room to send"
	case evDrained:
		return e.x.(*conn).label() + ": drained"
	case evFailed:
		f := e.x.(*connError)
		return fmt.Sprintf("%s: %v", f.c.label(), f.err)
	case evClosed:
		return e.x.(*conn).label() + ": closed"
	case evDisk:
		r := e.x.(*diskRun)
		if r.err != nil {
			return r.err.Error()
		}
		if r.op.Kind == loop.DiskFlush {
			return fmt.Sprintf("disk %s: flush done", r.d.name)
		}
		return fmt.Sprintf("disk %s: %s %d+%d done", r.d.name, r.op.Kind, r.op.Off, r.bytes)
	case evDiskClosed:
		return fmt.Sprintf("disk %s: closed", e.x.(*handle).d.name)
	case evWake:
		return "turn"
	case evTimers:
		return "timers"
	case evPost:
		return "post"
	}
	return fmt.Sprintf("event %d", e.kind)
}

// eventQueue is a heap of events by (at, seq).
type eventQueue []event

func (q eventQueue) less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].seq < q[j].seq
}

func (q *eventQueue) push(e event) {
	h := append(*q, e)
	*q = h
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *eventQueue) pop() event {
	h := *q
	e, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	*q = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			return e
		}
		if child+1 < len(h) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return e
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
