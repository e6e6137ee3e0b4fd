package device

import (
	"errors"
	"io"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

func disk() *Disk {
	return &Disk{info: loop.DiskInfo{SectorSize: 512, Identity: "/dev/test"}}
}

func TestShortTransfersAreContinuedWhereTheyEnded(t *testing.T) {
	mem := make([]byte, 6*512)
	for _, vec := range [][][]byte{nil, {mem[:512], mem[512:2048], mem[2048:]}} {
		j := &Job{Disk: disk(), Op: &loop.DiskOp{Kind: loop.DiskWrite, Off: 4096, Data: mem, Vec: vec}}
		for done, step := range []int{512, 512, 1024, 1024} {
			_ = done
			at := j.Op.Impl.Done
			if off := j.Prepare(); off != 4096+int64(at) {
				t.Fatalf("after %d bytes: offset %d", at, off)
			}
			left := 0
			for _, v := range j.Iov {
				left += int(v.Len)
			}
			if left != len(mem)-at || j.Iov[0].Base != unsafe.SliceData(mem[at:]) {
				t.Fatalf("after %d bytes: %d left, from byte %d", at, left, uintptr(unsafe.Pointer(j.Iov[0].Base))-uintptr(unsafe.Pointer(&mem[0])))
			}
			if over := j.Result(step, nil); over != (at+step == len(mem)) {
				t.Fatalf("after %d bytes: over = %v", at+step, over)
			}
		}
		if j.Op.Err != nil {
			t.Fatal(j.Op.Err)
		}
	}
}

func TestOutcomes(t *testing.T) {
	mem := make([]byte, 1024)
	for _, c := range []struct {
		name string
		kind loop.DiskKind
		n    int
		err  error
		over bool
		want error
	}{
		{"all", loop.DiskRead, 1024, nil, true, nil},
		{"half", loop.DiskRead, 512, nil, false, nil},
		{"end of file", loop.DiskRead, 0, nil, true, io.ErrUnexpectedEOF},
		{"end of file within a sector", loop.DiskRead, 700, nil, true, io.ErrUnexpectedEOF},
		{"nothing written", loop.DiskSync, 0, nil, true, io.ErrShortWrite},
		{"interrupted", loop.DiskWrite, 0, unix.EINTR, false, nil},
		{"media", loop.DiskRead, 0, unix.EIO, true, unix.EIO},
		{"full", loop.DiskWrite, 0, unix.ENOSPC, true, unix.ENOSPC},
		{"flush", loop.DiskFlush, 0, nil, true, nil},
		{"flush failed", loop.DiskFlush, 0, unix.EIO, true, unix.EIO},
		{"discard", loop.DiskDiscard, 0, nil, true, nil},
		{"discard not supported", loop.DiskDiscard, 0, unix.EOPNOTSUPP, true, nil},
		{"discard failed", loop.DiskDiscard, 0, unix.EIO, true, unix.EIO},
	} {
		j := &Job{Disk: disk(), Op: &loop.DiskOp{Kind: c.kind, Data: mem, Len: 1024}}
		if over := j.Result(c.n, c.err); over != c.over || !errors.Is(j.Op.Err, c.want) {
			t.Errorf("%s: over = %v, error %v; want %v, %v", c.name, over, j.Op.Err, c.over, c.want)
		}
	}
}

func TestInterruptionsEnd(t *testing.T) {
	j := &Job{Disk: disk(), Op: &loop.DiskOp{Kind: loop.DiskWrite, Data: make([]byte, 512)}}
	for n := 1; ; n++ {
		if j.Result(0, unix.EAGAIN) {
			break
		}
		if n > maxTries {
			t.Fatal("started again for ever")
		}
	}
	if !errors.Is(j.Op.Err, unix.EAGAIN) {
		t.Errorf("error %v, want %v", j.Op.Err, unix.EAGAIN)
	}
}
