// Package blocking is core/client for goroutines: calls that wait, with a context, for tools and tests that are not hot.
//
// The command line and tests use it. A Conn runs the loop that it was given on a goroutine of its own; its methods may be called from any goroutine. Data is copied once
// each way. A call whose context ends returns at once with an error that wraps the context's; a change that was sent by then may take effect or not.
package blocking

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/registry"
)

// Config says what a Conn is made of.
type Config struct {
	Runner loop.Runner // not running yet; the Conn runs and stops it
	// Registry opens the registry; it is called on the loop. When what it returns has a method Close(), or Close() error, that is called at the end.
	Registry func(l loop.Loop) (registry.Registry, error)
	Client   client.Options // Registry is filled in
}

// Conn is a client with its loop and one session.
type Conn struct {
	runner  loop.Runner
	c       *client.Client  // touched on the loop only, as are s and reg
	s       *client.Session //
	reg     registry.Registry
	stopped chan struct{} // closed when Run has returned
	runErr  error         // valid then

	mu     sync.Mutex
	closed bool // guarded by mu
}

// ErrClosed says that the Conn is closed.
var ErrClosed = client.ErrClosed

// Open starts the loop and waits until the state of the cluster is known.
func Open(ctx context.Context, cfg Config) (*Conn, error) {
	c := &Conn{runner: cfg.Runner, stopped: make(chan struct{})}
	go c.run()
	ready := make(chan error, 1)
	c.post(func() {
		reg, err := cfg.Registry(cfg.Runner)
		if err != nil {
			ready <- err
			return
		}
		o := cfg.Client
		o.Registry = reg
		c.reg, c.c = reg, client.New(cfg.Runner, o)
		c.s = c.c.NewSession(nil)
		if c.c.Ready() {
			ready <- nil
			return
		}
		var stop func()
		stop = c.c.OnChange(func(_, _ *cluster.Snapshot, _ []string) {
			stop()
			ready <- nil
		})
	})
	var err error
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = fmt.Errorf("the registry did not answer: %w", ctx.Err())
	case <-c.stopped:
		err = fmt.Errorf("the event loop ended: %w", errors.Join(ErrClosed, c.runErr))
	}
	if err != nil {
		_ = c.Close() // err is what matters
		return nil, fmt.Errorf("open the cluster: %w", err)
	}
	return c, nil
}

// run is the only goroutine that drives the loop. Close stops it and waits for it.
func (c *Conn) run() {
	c.runErr = c.runner.Run()
	close(c.stopped)
}

// post runs f on the loop.
func (c *Conn) post(f func()) { c.runner.Post(&loop.Task{Run: f}) }

// Do runs f on the loop with the client and its session, and waits until done is called, once, from there or later on the loop.
func (c *Conn) Do(ctx context.Context, f func(c *client.Client, s *client.Session, done func(error))) error {
	if err := c.usable(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	c.post(func() { f(c.c, c.s, func(err error) { ended <- err }) })
	return c.wait(ctx, ended, nil)
}

func (c *Conn) usable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return nil
}

// wait waits for the end of what runs on the loop; cancel is posted when the context ends first.
func (c *Conn) wait(ctx context.Context, ended <-chan error, cancel func()) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		if cancel != nil {
			c.post(cancel)
		}
		return fmt.Errorf("gave up waiting, whether it took effect is not known: %w", ctx.Err())
	case <-c.stopped:
		select {
		case err := <-ended:
			return err
		default:
			return errors.Join(ErrClosed, c.runErr)
		}
	}
}

// Snapshot is the state of the cluster now; nil when the Conn is closed.
func (c *Conn) Snapshot() *cluster.Snapshot {
	var s *cluster.Snapshot
	err := c.Do(context.Background(), func(cl *client.Client, _ *client.Session, done func(error)) {
		s = cl.Snapshot()
		done(nil)
	})
	if err != nil {
		return nil
	}
	return s
}

// Txn runs a transaction on the registry.
func (c *Conn) Txn(ctx context.Context, t registry.Txn) (registry.TxnResult, error) {
	type answer struct {
		res registry.TxnResult
		err error
	}
	got := make(chan answer, 1)
	err := c.Do(ctx, func(cl *client.Client, _ *client.Session, done func(error)) {
		cl.Registry().Txn(t, func(res registry.TxnResult, err error) {
			got <- answer{res, err}
			done(err)
		})
	})
	select {
	case a := <-got:
		return a.res, a.err
	default:
		return registry.TxnResult{}, err
	}
}

// request is one Op under way. The goroutine that waits and the loop agree by mu who has it at the end.
type request struct {
	op    client.Op
	data  *buf.Ref
	ended chan error

	mu   sync.Mutex
	left bool // guarded by mu; nobody waits any more
	over bool // guarded by mu
}

// submit runs an Op, with a copy of p as its data, and waits. After success the Op's parts are the caller's.
func (c *Conn) submit(ctx context.Context, op client.Op, p []byte) (*request, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	r := &request{op: op, ended: make(chan error, 1)}
	started := make(chan struct{})
	r.op.Done = func(op *client.Op) {
		if r.data != nil {
			r.data.Release()
		}
		r.mu.Lock()
		r.over = true
		if r.left {
			op.ReleaseParts()
		}
		r.mu.Unlock()
		r.ended <- op.Err
	}
	c.post(func() {
		r.op.Session = c.s
		if p != nil {
			r.data = c.runner.Alloc(len(p))
			copy(r.data.Bytes(), p)
			r.op.Pieces = []client.Piece{{Ref: r.data, Len: len(p)}}
		}
		close(started)
		c.c.Submit(&r.op)
	})
	select {
	case <-started: // p is not needed any more
	case <-c.stopped:
		return nil, errors.Join(ErrClosed, c.runErr)
	}
	err := c.wait(ctx, r.ended, func() { c.c.Cancel(&r.op) })
	if err != nil {
		r.mu.Lock()
		r.left = true
		if r.over {
			r.op.ReleaseParts()
		}
		r.mu.Unlock()
		return nil, err
	}
	return r, nil
}

// step is how much one Op moves.
const step = 4 << 20

// ReadAt fills p from an image.
func (c *Conn) ReadAt(ctx context.Context, inode layout.Inode, p []byte, off uint64) error {
	for len(p) > 0 {
		n := min(len(p), step)
		r, err := c.submit(ctx, client.Op{Kind: client.Read, Inode: inode, Offset: off, Len: uint64(n)}, nil)
		if err != nil {
			return fmt.Errorf("read %d bytes of inode %v at %d: %w", n, inode, off, err)
		}
		at := 0
		for i := range r.op.Parts {
			at += copy(p[at:n], r.op.Parts[i].Bytes())
		}
		r.op.ReleaseParts() // references may be given back from any goroutine
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

// WriteAt writes p to an image. It is durable when it returns.
func (c *Conn) WriteAt(ctx context.Context, inode layout.Inode, p []byte, off uint64) error {
	for len(p) > 0 {
		n := min(len(p), step)
		if _, err := c.submit(ctx, client.Op{Kind: client.Write, Inode: inode, Offset: off, Len: uint64(n)}, p[:n]); err != nil {
			return fmt.Errorf("write %d bytes to inode %v at %d: %w", n, inode, off, err)
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

// Zero makes a range read as zeroes, keeping its space.
func (c *Conn) Zero(ctx context.Context, inode layout.Inode, off, n uint64) error {
	return c.change(ctx, client.Op{Kind: client.Zero, KeepWritten: true, Inode: inode, Offset: off, Len: n})
}

// Trim makes a range read as zeroes and frees what it can.
func (c *Conn) Trim(ctx context.Context, inode layout.Inode, off, n uint64) error {
	return c.change(ctx, client.Op{Kind: client.Zero, Inode: inode, Offset: off, Len: n})
}

// Delete deletes whole objects.
func (c *Conn) Delete(ctx context.Context, inode layout.Inode, off, n uint64) error {
	return c.change(ctx, client.Op{Kind: client.Delete, Inode: inode, Offset: off, Len: n})
}

func (c *Conn) change(ctx context.Context, op client.Op) error {
	if _, err := c.submit(ctx, op, nil); err != nil {
		return fmt.Errorf("%v %d bytes of inode %v at %d: %w", op.Kind, op.Len, op.Inode, op.Offset, err)
	}
	return nil
}

// closeWait is how long Close waits for what runs to end.
const closeWait = 5 * time.Second

// Close ends what runs, stops the loop and waits for it.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.stopped
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	ended := make(chan struct{})
	c.post(func() {
		if c.c == nil {
			close(ended)
			return
		}
		c.c.Close(func() { close(ended) })
	})
	t := time.NewTimer(closeWait)
	defer t.Stop()
	select {
	case <-ended:
	case <-c.stopped:
	case <-t.C:
	}
	var err error
	if c.isStopped() || c.reg == nil {
		c.runner.Stop()
	} else {
		closed := make(chan error, 1)
		c.post(func() { closed <- closeRegistry(c.reg) })
		select {
		case err = <-closed:
		case <-c.stopped:
		}
		c.runner.Stop()
	}
	<-c.stopped
	return errors.Join(err, c.runErr)
}

func (c *Conn) isStopped() bool {
	select {
	case <-c.stopped:
		return true
	default:
		return false
	}
}

func closeRegistry(r registry.Registry) error {
	switch r := r.(type) {
	case interface{ Close() error }:
		return r.Close()
	case interface{ Close() }:
		r.Close()
	}
	return nil
}

// Image is an image of a Conn.
type Image struct {
	c     *Conn
	Name  string
	Inode layout.Inode
	Size  uint64 // bytes, when it was opened
}

// OpenImage finds an image by its name.
func (c *Conn) OpenImage(name string) (*Image, error) {
	s := c.Snapshot()
	if s == nil {
		return nil, ErrClosed
	}
	i, ok := s.Image(name)
	if !ok {
		return nil, fmt.Errorf("image %q: %w", name, client.ErrGone)
	}
	return &Image{c, name, i.ID, uint64(i.Size)}, nil
}

// ReadAt fills p.
func (i *Image) ReadAt(ctx context.Context, p []byte, off uint64) error {
	if err := i.check(uint64(len(p)), off); err != nil {
		return err
	}
	return i.c.ReadAt(ctx, i.Inode, p, off)
}

// WriteAt writes p.
func (i *Image) WriteAt(ctx context.Context, p []byte, off uint64) error {
	if err := i.check(uint64(len(p)), off); err != nil {
		return err
	}
	return i.c.WriteAt(ctx, i.Inode, p, off)
}

// Trim makes a range read as zeroes and frees what it can.
func (i *Image) Trim(ctx context.Context, off, n uint64) error {
	if err := i.check(n, off); err != nil {
		return err
	}
	return i.c.Trim(ctx, i.Inode, off, n)
}

func (i *Image) check(n, off uint64) error {
	if off > i.Size || n > i.Size-off {
		return fmt.Errorf("image %q has %d bytes: %d bytes at %d are beyond its end", i.Name, i.Size, n, off)
	}
	return nil
}
