package looptest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// file makes a file of n bytes and opens it on the loop: directly where the file system of the test's directory can do that.
func (g *rig) file(n int64, o loop.DiskOptions) (loop.Disk, string) {
	g.Helper()
	path := filepath.Join(g.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		g.Fatal(err)
	}
	if err := os.Truncate(path, n); err != nil {
		g.Fatal(err)
	}
	return g.open(path, o), path
}

func (g *rig) open(path string, o loop.DiskOptions) loop.Disk {
	g.Helper()
	var d loop.Disk
	var err error
	g.do(func() {
		if d, err = g.OpenDisk(path, o); err != nil && !o.Buffered {
			o.Buffered = true
			d, err = g.OpenDisk(path, o)
		}
	})
	if err != nil {
		g.Fatal(err)
	}
	return d
}

// submit runs op and waits for it.
func (g *rig) submit(d loop.Disk, op *loop.DiskOp) error {
	g.Helper()
	s := g.signal("a disk " + op.Kind.String())
	op.Done = func(got *loop.DiskOp) {
		if got != op {
			g.Error("Done was called with another operation")
		}
		s.fire()
	}
	g.do(func() { d.Submit(op) })
	s.wait()
	return op.Err
}

func (g *rig) ok(d loop.Disk, op *loop.DiskOp) {
	g.Helper()
	if err := g.submit(d, op); err != nil {
		g.Fatalf("%v: %v", op.Kind, err)
	}
}

func diskReadWrite(g *rig) {
	for _, o := range []loop.DiskOptions{{}, {Buffered: true}, {NoFlush: true}} {
		d, path := g.file(1<<20, o)
		info := d.Info()
		if info.Size != 1<<20 || info.SectorSize != 512 && info.SectorSize != 4096 || info.Identity != path || info.WriteThrough {
			g.Fatalf("Info() = %+v", info)
		}
		b := g.Alloc(3 * 64 << 10)
		defer b.Release()
		w, r := b.Bytes()[:64<<10], b.Bytes()[64<<10:128<<10]
		copy(w, random(len(w)))
		g.ok(d, &loop.DiskOp{Kind: loop.DiskWrite, Off: 4096, Data: w})
		g.ok(d, &loop.DiskOp{Kind: loop.DiskFlush})
		g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: 4096, Data: r})
		g.same(r, w)
		g.ok(d, &loop.DiskOp{Kind: loop.DiskSync, Off: 128 << 10, Data: w})
		g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: 128 << 10, Data: r})
		g.same(r, w)
		g.ok(d, &loop.DiskOp{Kind: loop.DiskDiscard, Off: 128 << 10, Len: 64 << 10})
		g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: 4096, Data: r})
		g.same(r, w)
		if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 {
			g.Errorf("the file has %d bytes now, error %v", st.Size(), err)
		}
	}
}

func diskVectors(g *rig) {
	d, _ := g.file(64<<20, loop.DiskOptions{})
	const piece = 4096
	for _, n := range []int{1, 2, 3, 1024, 2500} { // more than IOV_MAX too
		b := g.Alloc(2 * n * piece)
		w, r := b.Bytes()[:n*piece], b.Bytes()[n*piece:]
		copy(w, random(len(w)))
		var wv, rv [][]byte
		for i := range n {
			// Written backwards, so that the order shows.
			k := n - 1 - i
			wv = append(wv, w[k*piece:(k+1)*piece])
			rv = append(rv, r[k*piece:(k+1)*piece])
		}
		g.ok(d, &loop.DiskOp{Kind: loop.DiskSync, Off: 8192, Vec: wv})
		first := g.Alloc(piece)
		g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: 8192, Data: first.Bytes()})
		g.same(first.Bytes(), wv[0])
		first.Release()
		g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: 8192, Vec: rv})
		g.same(r, w)
		b.Release()
	}
}

// diskDepth runs more operations at a time than any queue holds.
func diskDepth(g *rig) {
	const n, size = 1500, 4096
	d, _ := g.file(n*size, loop.DiskOptions{})
	b := g.Alloc(2 * n * size)
	defer b.Release()
	w, r := b.Bytes()[:n*size], b.Bytes()[n*size:]
	copy(w, random(len(w)))
	ops := make([]loop.DiskOp, n)
	for _, kind := range []loop.DiskKind{loop.DiskWrite, loop.DiskRead} {
		all := g.signal("every operation")
		left := n
		g.do(func() {
			for i := range ops {
				data := w
				if kind == loop.DiskRead {
					data = r
				}
				ops[i] = loop.DiskOp{Kind: kind, Off: int64(i) * size, Data: data[i*size : (i+1)*size], Done: func(op *loop.DiskOp) {
					if op.Err != nil {
						g.Error(op.Err)
					}
					if left--; left == 0 {
						all.fire()
					}
				}}
				d.Submit(&ops[i])
			}
		})
		all.wait()
	}
	g.same(r, w)
}

func diskEndOfFile(g *rig) {
	d, _ := g.file(10000, loop.DiskOptions{})
	b := g.Alloc(16384)
	defer b.Release()
	for _, off := range []int64{0, 8192, 12288, 1 << 30} {
		if err := g.submit(d, &loop.DiskOp{Kind: loop.DiskRead, Off: off, Data: b.Bytes()}); !errors.Is(err, io.ErrUnexpectedEOF) {
			g.Errorf("read of 16384 bytes at %d of a file of 10000: %v, want %v", off, err, io.ErrUnexpectedEOF)
		}
	}
	g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: 0, Data: b.Bytes()[:8192]})
	g.ok(d, &loop.DiskOp{Kind: loop.DiskWrite, Off: 8192, Data: b.Bytes()[:4096]}) // extends it
	g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: 8192, Data: b.Bytes()[:4096]})
}

func diskBadOperations(g *rig) {
	d, path := g.file(1<<20, loop.DiskOptions{Buffered: true})
	b := g.Alloc(16384)
	defer b.Release()
	p := b.Bytes()
	for _, op := range []loop.DiskOp{
		{},
		{Kind: 99},
		{Kind: loop.DiskRead},
		{Kind: loop.DiskWrite, Data: p[:0]},
		{Kind: loop.DiskRead, Data: p[:100]},
		{Kind: loop.DiskRead, Off: 100, Data: p[:4096]},
		{Kind: loop.DiskRead, Off: -4096, Data: p[:4096]},
		{Kind: loop.DiskWrite, Data: p[1:4097]},
		{Kind: loop.DiskSync, Vec: [][]byte{p[:4096], p[4097:8193]}},
		{Kind: loop.DiskSync, Vec: [][]byte{p[:4096], p[4096:5000]}},
		{Kind: loop.DiskWrite, Off: 1<<63 - 4096, Data: p[:4096]},
		{Kind: loop.DiskDiscard},
		{Kind: loop.DiskDiscard, Len: -4096},
		{Kind: loop.DiskDiscard, Off: 1, Len: 4096},
	} {
		err := g.submit(d, &op)
		if err == nil || !strings.Contains(err.Error(), path) {
			g.Errorf("%v at %d of %d bytes: error %v, want one that names %s", op.Kind, op.Off, op.Bytes(), err, path)
		}
	}
	// A reused operation starts afresh.
	op := &loop.DiskOp{Kind: loop.DiskRead, Off: 1, Data: p[:4096]}
	_ = g.submit(d, op)
	op.Off = 0
	g.ok(d, op)
}

func diskCompletionLater(g *rig) {
	d, _ := g.file(1<<20, loop.DiskOptions{NoFlush: true})
	b := g.Alloc(4096)
	defer b.Release()
	done := g.signal("three operations")
	count := 0
	g.do(func() {
		start := g.Now()
		for _, op := range []*loop.DiskOp{{Kind: loop.DiskRead, Data: b.Bytes()}, {Kind: loop.DiskFlush}, {Kind: loop.DiskRead, Off: 1, Data: b.Bytes()}} {
			op.Done = func(op *loop.DiskOp) {
				if g.Now() == start {
					g.Errorf("%v completed in the turn that started it", op.Kind)
				}
				if count++; count == 3 {
					done.fire()
				}
			}
			d.Submit(op)
		}
		if count != 0 {
			g.Error("an operation completed inside Submit")
		}
	})
	done.wait()
}

func diskExclusive(g *rig) {
	d, path := g.file(1<<20, loop.DiskOptions{Exclusive: true})
	var err error
	g.do(func() {
		o := loop.DiskOptions{Exclusive: true}
		if _, err = g.OpenDisk(path, o); err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			o.Buffered = true
			_, err = g.OpenDisk(path, o)
		}
	})
	if !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), path) {
		g.Fatalf("second exclusive open: %v; want %v with the path", err, unix.EWOULDBLOCK)
	}
	closed := g.signal("the close")
	g.do(func() { d.Close(closed.fire) })
	closed.wait()
	g.open(path, loop.DiskOptions{Exclusive: true})
}

func diskReadOnly(g *rig) {
	_, path := g.file(1<<20, loop.DiskOptions{})
	d := g.open(path, loop.DiskOptions{ReadOnly: true})
	b := g.Alloc(4096)
	defer b.Release()
	g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Data: b.Bytes()})
	for _, k := range []loop.DiskKind{loop.DiskWrite, loop.DiskSync, loop.DiskDiscard} {
		if err := g.submit(d, &loop.DiskOp{Kind: k, Data: b.Bytes(), Len: 4096}); !errors.Is(err, unix.EROFS) {
			g.Errorf("%v to a read-only disk: %v, want %v", k, err, unix.EROFS)
		}
	}
	g.do(func() {
		missing := filepath.Join(g.TempDir(), "missing")
		if _, err := g.OpenDisk(missing, loop.DiskOptions{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
			g.Errorf("open of a missing file: %v", err)
		}
		if _, err := g.OpenDisk("/dev/null", loop.DiskOptions{Buffered: true}); err == nil {
			g.Error("a character device was opened as a disk")
		}
	})
}

// diskDirectRefused needs a file system without direct I/O; where there is none (tmpfs has it since Linux 6.6) there is nothing to refuse.
func diskDirectRefused(g *rig) {
	f, err := os.CreateTemp("/dev/shm", "looptest")
	if err != nil {
		g.Skip(err)
	}
	defer os.Remove(f.Name())
	f.Close()
	g.do(func() {
		d, err := g.OpenDisk(f.Name(), loop.DiskOptions{})
		if err == nil {
			d.Close(nil)
			return
		}
		if !strings.Contains(err.Error(), "Buffered") || !strings.Contains(err.Error(), f.Name()) {
			g.Errorf("refused direct I/O: %v; want the path and the way out", err)
		}
		if d, err = g.OpenDisk(f.Name(), loop.DiskOptions{Buffered: true}); err != nil {
			g.Error(err)
			return
		}
		d.Close(nil)
	})
}

// diskErrorsPass: past the largest file size the kernel says EFBIG; a full file system says ENOSPC.
func diskErrorsPass(g *rig) {
	d, path := g.file(1<<20, loop.DiskOptions{})
	b := g.Alloc(4096)
	defer b.Release()
	err := g.submit(d, &loop.DiskOp{Kind: loop.DiskWrite, Off: 1<<63 - 8192, Data: b.Bytes()})
	var no unix.Errno
	if !errors.As(err, &no) || !strings.Contains(err.Error(), path) {
		g.Errorf("write at the end of the address space: %v; want an error of the kernel with the path", err)
	}
	full := g.TempDir()
	if err := unix.Mount("looptest", full, "tmpfs", 0, "size=64k"); err != nil {
		g.Logf("no file system to fill: %v", err)
		return
	}
	defer func() { _ = unix.Unmount(full, unix.MNT_DETACH) }()
	path = filepath.Join(full, "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		g.Fatal(err)
	}
	fd := g.open(path, loop.DiskOptions{Buffered: true})
	for off := int64(0); err == nil || off == 0; off += 4096 {
		if err = g.submit(fd, &loop.DiskOp{Kind: loop.DiskWrite, Off: off, Data: b.Bytes()}); off > 1<<20 {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), path) {
		g.Errorf("write to a full file system: %v, want %v with the path", err, unix.ENOSPC)
	}
	closed := g.signal("the close")
	g.do(func() { fd.Close(closed.fire) })
	closed.wait()
}

func diskCloseWaits(g *rig) {
	d, _ := g.file(1<<20, loop.DiskOptions{})
	b := g.Alloc(4096)
	defer b.Release()
	closed := g.signal("the close")
	left, late := 10, 0
	g.do(func() {
		for range left {
			d.Submit(&loop.DiskOp{Kind: loop.DiskRead, Data: b.Bytes(), Done: func(op *loop.DiskOp) {
				if left--; op.Err != nil {
					g.Error(op.Err)
				}
			}})
		}
		d.Close(func() {
			if left != 0 || late != 1 {
				g.Errorf("closed with %d operations under way and %d refused, want 0 and 1", left, late)
			}
			closed.fire()
		})
		d.Submit(&loop.DiskOp{Kind: loop.DiskRead, Data: b.Bytes(), Done: func(op *loop.DiskOp) {
			if late++; !errors.Is(op.Err, os.ErrClosed) {
				g.Errorf("operation after Close: %v, want %v", op.Err, os.ErrClosed)
			}
		}})
	})
	closed.wait()
}

// stopBusy stops a loop with operations under way: Run returns once the kernel has let go of their memory.
func stopBusy(g *rig) {
	d, _ := g.file(1<<20, loop.DiskOptions{})
	e := g.end()
	c := g.serve(e)
	b := g.Alloc(1 << 20)
	stopped := false
	g.do(func() {
		for range 100 {
			d.Submit(&loop.DiskOp{Kind: loop.DiskSync, Data: b.Bytes(), Done: func(*loop.DiskOp) {
				if stopped {
					g.Error("a completion after Stop had taken effect")
				}
			}})
		}
	})
	g.Stop()
	if err := <-g.ended; err != nil {
		g.Errorf("Run() = %v", err)
	}
	g.ended = nil
	stopped = true
	if _, err := c.Read(make([]byte, 1)); err == nil {
		g.Error("the connection outlived its loop")
	}
	g.Post(&loop.Task{Run: func() { g.Error("a task ran after Run had returned") }})
}

// diskAllocations measures reads and writes at depth 1.
func (g *rig) diskAllocations() {
	g.Helper()
	d, _ := g.file(1<<20, loop.DiskOptions{})
	b := g.Alloc(8192)
	defer b.Release()
	s := g.signal("a disk operation")
	op := &loop.DiskOp{Data: b.Bytes()[:4096], Done: func(*loop.DiskOp) { s.fire() }}
	vec := [][]byte{b.Bytes()[:4096], b.Bytes()[4096:]}
	kinds := []loop.DiskKind{loop.DiskWrite, loop.DiskRead}
	turn := 0
	start := &loop.Task{Run: func() {
		turn++
		op.Kind = kinds[turn%2]
		if op.Vec = nil; turn%4 < 2 {
			op.Vec = vec
		}
		d.Submit(op)
	}}
	once := func() { g.Post(start); <-s.c }
	for range 50 {
		once()
	}
	if n := perRun(500, once); n > 0.05 {
		g.Errorf("a disk operation makes %v allocations, want none", n)
	}
	if op.Err != nil {
		g.Error(op.Err)
	}
}
