package scenarios

import (
	"bytes"
	"context"
	"io"
	"log/slog"

	"holdfast/appliance/daemon"
	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/config"
	"holdfast/core/layout"
	"holdfast/core/loop"
)

// disk is how a mirror reaches its image.
type disk interface {
	io.ReaderAt
	io.WriterAt
	Trim(off int64, n int) error
	Flush() error
	Close()
}

// lazyDisk is an image opened with the client library, as the originals' fio does: in a pool whose immediate_commit is none its writes are durable when they are flushed, and the client keeps
// copies until then. (Gateways ask for durable writes in every pool: docs/adr/0014-lazy-sync.md.)
type lazyDisk struct {
	conn  *blocking.Conn
	inode layout.Inode
}

// noCommit are the flags of a pool that acknowledges what is not durable.
var noCommit = []string{"--immediate_commit", "none"}

// library opens the cluster with the client library.
func (c *cluster) library() *blocking.Conn {
	c.t.Helper()
	v, err := config.Load(config.Sources{Flags: map[string]string{"etcd_address": c.Etcd}})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), settle)
	defer cancel()
	conn, err := daemon.OpenClient(ctx, v, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

func (c *cluster) openLazy(image string) disk {
	c.t.Helper()
	conn := c.library()
	i, err := conn.OpenImage(image)
	if err != nil {
		_ = conn.Close()
		c.t.Fatal(err)
	}
	return &lazyDisk{conn, i.Inode}
}

// do runs one operation; p is what is written, or filled.
func (d *lazyDisk) do(kind client.Kind, off int64, n int, p []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*settle)
	defer cancel()
	return d.conn.Do(ctx, func(cl *client.Client, s *client.Session, done func(error)) {
		op := &client.Op{Kind: kind, Session: s, Inode: d.inode, Offset: uint64(off), Len: uint64(n), Lazy: true}
		if kind == client.Write {
			r := cl.Loop().(loop.Runner).Alloc(n)
			copy(r.Bytes(), p)
			op.Pieces = []client.Piece{{Ref: r, Len: n}}
		}
		op.Done = func(op *client.Op) {
			if kind == client.Read {
				clear(p) // what was never written is not sent
				for i := range op.Parts {
					copy(p[op.Parts[i].Offset-uint64(off):], op.Parts[i].Bytes())
				}
			}
			op.ReleaseParts()
			for _, piece := range op.Pieces {
				piece.Ref.Release()
			}
			done(op.Err)
		}
		cl.Submit(op)
	})
}

func (d *lazyDisk) ReadAt(p []byte, off int64) (int, error) {
	return len(p), d.do(client.Read, off, len(p), p)
}

func (d *lazyDisk) WriteAt(p []byte, off int64) (int, error) {
	return len(p), d.do(client.Write, off, len(p), p)
}

func (d *lazyDisk) Trim(off int64, n int) error { return d.do(client.Zero, off, n, nil) }
func (d *lazyDisk) Flush() error                { return d.do(client.Flush, 0, 0, nil) }
func (d *lazyDisk) Close()                      { _ = d.conn.Close() }

// readsLocally reads an image with the client library, and fails the test if all of it came from primaries.
func (c *cluster) readsLocally(m *mirror) {
	c.t.Helper()
	d := c.openLazy(m.image).(*lazyDisk)
	defer d.Close()
	p := make([]byte, 1<<20)
	for off := 0; off < len(m.want); off += len(p) {
		if _, err := d.ReadAt(p, int64(off)); err != nil {
			c.t.Fatal(err)
		}
		if !bytes.Equal(p, m.want[off:off+len(p)]) {
			c.t.Fatalf("LOST: what members answer of %s differs from its mirror among %d bytes from %d on", m.image, len(p), off)
		}
	}
	var local uint64
	err := d.conn.Do(c.t.Context(), func(cl *client.Client, _ *client.Session, done func(error)) {
		local = cl.Stats.Local
		done(nil)
	})
	if err != nil || local == 0 {
		c.t.Errorf("%d reads were answered by members that are not primaries (%v)", local, err)
	}
	c.t.Logf("%d reads were answered by members that are not primaries", local)
}
