package looptest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// blockDevice makes a loop device of n bytes that goes away with its last user. It skips the test where that is not allowed.
func (g *rig) blockDevice(n int64) string {
	g.Helper()
	backing, err := os.OpenFile(filepath.Join(g.TempDir(), "backing"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		g.Fatal(err)
	}
	defer backing.Close()
	if err := backing.Truncate(n); err != nil {
		g.Fatal(err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		g.Skip(err)
	}
	defer control.Close()
	for range 20 { // another process may take the free one first
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			g.Skip(err)
		}
		path := fmt.Sprintf("/dev/loop%d", number)
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			g.Skip(err)
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: 512, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			g.Cleanup(func() { dev.Close() })
			return path
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			g.Skip(err)
		}
	}
	g.Skip("no free loop device")
	return ""
}

func diskBlockDevice(g *rig) {
	if g.Kind() == "sim" {
		g.Skip("the simulator has its own disks")
	}
	const size = 8 << 20
	path := g.blockDevice(size)
	d := g.open(path, loop.DiskOptions{Exclusive: true})
	info := d.Info()
	if info.Size != size || info.SectorSize != 512 || info.Identity == "" {
		g.Errorf("Info() = %+v", info)
	}
	b := g.Alloc(256 << 10)
	defer b.Release()
	w, r := b.Bytes()[:128<<10], b.Bytes()[128<<10:]
	copy(w, random(len(w)))
	g.ok(d, &loop.DiskOp{Kind: loop.DiskSync, Off: size - int64(len(w)), Data: w})
	g.ok(d, &loop.DiskOp{Kind: loop.DiskWrite, Off: 512, Vec: [][]byte{w[:512], w[512:4096], w[4096:]}})
	g.ok(d, &loop.DiskOp{Kind: loop.DiskFlush})
	g.ok(d, &loop.DiskOp{Kind: loop.DiskDiscard, Off: 1 << 20, Len: 1 << 20})
	for _, off := range []int64{512, size - int64(len(w))} {
		clear(r)
		g.ok(d, &loop.DiskOp{Kind: loop.DiskRead, Off: off, Data: r})
		g.same(r, w)
	}
	for _, kind := range []loop.DiskKind{loop.DiskRead, loop.DiskWrite} {
		if err := g.submit(d, &loop.DiskOp{Kind: kind, Off: size - 512, Data: w}); err == nil {
			g.Errorf("%v across the end of the device: no error", kind)
		}
	}
	closed := g.signal("the close")
	g.do(func() { d.Close(closed.fire) })
	closed.wait()
}
