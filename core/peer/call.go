package peer

import (
	"fmt"

	"holdfast/core/wire"
)

type callState uint8

const (
	callIdle   callState = iota
	callQueued           // waits for the connection
	callSent             // waits for its reply
	callFailed           // waits for its Done
)

// callImpl is the Hub's part of a Call.
type callImpl struct {
	state      callState
	id         uint64
	list       *callList // that c is in
	prev, next *Call
}

// callList is a queue of calls, linked through them.
type callList struct {
	first, last *Call
	n           int
}

func (q *callList) push(c *Call, state callState) {
	i := &c.impl
	i.state, i.list, i.prev, i.next = state, q, q.last, nil
	if q.last == nil {
		q.first = c
	} else {
		q.last.impl.next = c
	}
	q.last = c
	q.n++
}

// remove takes c out; its state is the caller's to set.
func (q *callList) remove(c *Call) {
	i := &c.impl
	if i.prev == nil {
		q.first = i.next
	} else {
		i.prev.impl.next = i.next
	}
	if i.next == nil {
		q.last = i.prev
	} else {
		i.next.impl.prev = i.prev
	}
	i.list, i.prev, i.next = nil, nil, nil
	q.n--
}

// moveTo appends all calls to another list.
func (q *callList) moveTo(to *callList, state callState, err error) {
	for c := q.first; c != nil; c = q.first {
		q.remove(c)
		c.Err = err
		to.push(c, state)
	}
}

// check finds a payload that is not what the header announces, which would confuse the stream: a fault of the caller.
func (c *Call) check() {
	meta, data, err := wire.PayloadLen(&c.Header)
	if err != nil || meta != len(c.Meta) || data != pieceBytes(c.Payload) {
		panic(fmt.Sprintf("peer: call of %v with %d + %d bytes, its header announces %d + %d (%v)",
			c.Header.Op(), len(c.Meta), pieceBytes(c.Payload), meta, data, err))
	}
}

// finish gives c back to its owner. It is in no list any more.
func (c *Call) finish(err error) {
	c.impl.state = callIdle
	c.Err = err
	c.Done(c)
}

// callTable finds the calls of one connection by id: open addressing, where ids that grow by one fall side by side.
type callTable struct {
	slots []*Call // a power of two, at most half full
	n     int
}

func (t *callTable) put(c *Call) {
	if 2*(t.n+1) > len(t.slots) {
		old := t.slots
		t.slots = make([]*Call, max(64, 2*len(old)))
		for _, o := range old {
			if o != nil {
				t.place(o)
			}
		}
	}
	t.place(c)
	t.n++
}

func (t *callTable) place(c *Call) {
	mask := uint64(len(t.slots) - 1)
	i := c.impl.id & mask
	for t.slots[i] != nil {
		i = (i + 1) & mask
	}
	t.slots[i] = c
}

// take removes and returns the call with the id, or nil.
func (t *callTable) take(id uint64) *Call {
	if t.n == 0 {
		return nil
	}
	mask := uint64(len(t.slots) - 1)
	i := id & mask
	for t.slots[i] != nil && t.slots[i].impl.id != id {
		i = (i + 1) & mask
	}
	c := t.slots[i]
	if c == nil {
		return nil
	}
	t.n--
	// Close the gap, so that whoever was pushed past it is still found.
	for j := i; ; {
		j = (j + 1) & mask
		o := t.slots[j]
		if o == nil {
			break
		}
		if (j-o.impl.id)&mask >= (j-i)&mask {
			t.slots[i] = o
			i = j
		}
	}
	t.slots[i] = nil
	return c
}
