package volume

import (
	"context"
	"sync"

	"holdfast/core/loop"
)

// blockingTransfer is the most that Blocking moves in one Op, bytes: large enough to keep a cluster busy, small beside what a loop lends.
const blockingTransfer = 1 << 20

// BlockingHandle lets ordinary goroutines use a Handle: each call waits for its result. For tools, tests and what is not hot. Calls may run at the same time.
//
// A context that ends makes the call return early with its error; a write that was submitted may then still take effect.
type BlockingHandle struct {
	h Handle
	l loop.Loop
}

// Blocking wraps h, which belongs to l. The calls must not be made on l itself. The Handle stays the caller's to detach.
func Blocking(h Handle, l loop.Loop) *BlockingHandle { return &BlockingHandle{h: h, l: l} }

// Info is the device as it is now.
func (b *BlockingHandle) Info(ctx context.Context) (Info, error) {
	reply := make(chan Info, 1)
	b.l.Post(&loop.Task{Run: func() { reply <- b.h.Info() }})
	select {
	case i := <-reply:
		return i, nil
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
}

// ReadAt fills p from off. It returns how much of p is filled: all of it unless there is an error.
func (b *BlockingHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := b.do(ctx, Op{Kind: Read, Offset: uint64(off) + uint64(done)}, p[done:])
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// WriteAt writes p to off; with an error, any part of it may have been written.
func (b *BlockingHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := b.do(ctx, Op{Kind: Write, Offset: uint64(off) + uint64(done)}, p[done:])
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// Flush makes completed writes durable.
func (b *BlockingHandle) Flush(ctx context.Context) error {
	_, err := b.do(ctx, Op{Kind: Flush}, nil)
	return err
}

// Zero makes n bytes at off read as zeroes.
func (b *BlockingHandle) Zero(ctx context.Context, off, n int64) error {
	_, err := b.do(ctx, Op{Kind: Zero, Offset: uint64(off), Length: uint64(n)}, nil)
	return err
}

// Trim says that n bytes at off are of no more use.
func (b *BlockingHandle) Trim(ctx context.Context, off, n int64) error {
	_, err := b.do(ctx, Op{Kind: Trim, Offset: uint64(off), Length: uint64(n)}, nil)
	return err
}

// call is one Op of a BlockingHandle. The caller's memory is touched by the loop only under mu and only until the caller has left.
type call struct {
	op    Op
	start loop.Task
	stop  loop.Task
	done  chan struct{}

	mu        sync.Mutex
	left      bool // guarded by mu: the caller is gone; nobody reads the result
	started   bool // the rest belongs to the loop until done is closed
	completed bool
	n         int
}

// do runs one Op with as much of p as one transfer takes, and says how much that was.
func (b *BlockingHandle) do(ctx context.Context, op Op, p []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c := &call{op: op, done: make(chan struct{})}
	c.op.Done = func(*Op) { c.complete(p) }
	c.start.Run = func() { b.submit(c, p) }
	b.l.Post(&c.start)
	select {
	case <-c.done:
		return c.n, c.op.Err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.left = true
	c.mu.Unlock()
	c.stop.Run = func() {
		if c.started && !c.completed {
			b.h.Cancel(&c.op)
		}
	}
	b.l.Post(&c.stop)
	return 0, ctx.Err()
}

// submit runs on the loop.
func (b *BlockingHandle) submit(c *call, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return
	}
	c.n = min(len(p), blockingTransfer, int(b.h.Info().MaxTransfer))
	switch c.op.Kind {
	case Read:
		c.op.Length = uint64(c.n)
	case Write:
		c.op.Length = uint64(c.n)
		ref := b.l.Alloc(c.n)
		copy(ref.Bytes(), p)
		c.op.Pieces = []Piece{{Ref: ref, Len: c.n}}
	}
	c.started = true
	b.h.Submit(&c.op)
}

// complete runs on the loop.
func (c *call) complete(p []byte) {
	c.completed = true
	c.mu.Lock()
	if c.op.Kind == Read && c.op.Err == nil && !c.left {
		at := 0
		for _, piece := range c.op.Pieces {
			if piece.Ref == nil {
				clear(p[at : at+piece.Len])
			} else {
				copy(p[at:], piece.Bytes())
			}
			at += piece.Len
		}
	}
	c.mu.Unlock()
	c.op.ReleasePieces()
	close(c.done)
}
