package store

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"holdfast/core/loop"
)

// DeviceError says that the device did not write or flush what it was given, or is gone. The store, and its OSD, end with it: nothing is tried again, since after a failed flush nobody knows what is
// on the device, and one that lost a write cannot be trusted with the next.
type DeviceError struct {
	Device   string // its path
	Op       loop.DiskKind
	Of       string // what was read or written: "the journal", "metadata", "data"; may be empty
	Off, Len int64  // on the device, bytes; not of a flush
	Err      error
}

func (e *DeviceError) Error() string {
	of := ""
	if e.Of != "" {
		of = " of " + e.Of
	}
	switch e.Op {
	case loop.DiskFlush:
		return fmt.Sprintf("flush of %s: %v", e.Device, e.Err)
	case loop.DiskRead:
		return fmt.Sprintf("%v of %d bytes%s from %s at %d: %v", e.Op, e.Len, of, e.Device, e.Off, e.Err)
	}
	return fmt.Sprintf("%v of %d bytes%s to %s at %d: %v", e.Op, e.Len, of, e.Device, e.Off, e.Err)
}

// Unwrap is the cause.
func (e *DeviceError) Unwrap() error { return e.Err }

// Errno is the cause as the system says it, 0 if it is another one.
func (e *DeviceError) Errno() syscall.Errno {
	errno, _ := errors.AsType[syscall.Errno](e.Err)
	return errno
}

// deviceError says more of what a disk operation ended with.
func deviceError(of string, op *loop.DiskOp) *DeviceError {
	e := &DeviceError{Op: op.Kind, Of: of, Off: offsetOf(op.Off), Len: int64(op.Bytes()), Err: op.Err}
	if d, is := errors.AsType[*loop.DiskError](op.Err); is {
		e.Device, e.Off, e.Err = d.Disk, d.Off, d.Err // of that device, where there are several
	}
	return e
}

// BrokenDevice finds in the error of an opening, a format or an acceptance what the device did not do, if that is what it failed for. A sector that cannot be read is none: that is damage
// (DamagedError), and only on that sector.
func BrokenDevice(err error) (*DeviceError, bool) {
	if e, is := errors.AsType[*DeviceError](err); is {
		return e, true
	}
	d, is := errors.AsType[*loop.DiskError](err)
	if !is || d.Kind == loop.DiskRead && !gone(d.Err) {
		return nil, false
	}
	return &DeviceError{Device: d.Disk, Op: d.Kind, Off: d.Off, Len: d.Len, Err: d.Err}, true
}

// gone reports whether a read failed because there is no device any more, not because of what was to be read: Linux answers so after a disk was pulled (ENODEV, ENXIO, ENOMEDIUM, or as if it ended
// there), or was given to somebody else (ESHUTDOWN, EBADF). What is read lies within the size that the device had when it was opened.
func gone(err error) bool {
	errno, _ := errors.AsType[syscall.Errno](err)
	return errors.Is(err, io.ErrUnexpectedEOF) || slices.Contains([]syscall.Errno{syscall.ENODEV, syscall.ENXIO, syscall.ENOMEDIUM, syscall.ESHUTDOWN, syscall.EBADF}, errno)
}

// Device is what the device calls itself: its serial number, or its path.
func (s *Store) Device() string { return s.info.Identity }

// WaitsFor names the part of the store's work that an op waits for; it is empty when the op is not under way. For people, when an op is slow.
func (s *Store) WaitsFor(op *Op) string {
	x := &op.impl
	if !x.busy || x.store != s {
		return ""
	}
	switch {
	case (op.Kind == OpRead || op.Kind == OpReadObject) && x.onDevice:
		return "read"
	case op.Kind == OpRead || op.Kind == OpReadObject:
		return "earlier changes of the object"
	case op.Kind == OpSync && s.lazy.flushing:
		return "flush"
	case op.Kind == OpSync:
		return "journal"
	case s.ops[x.change] != op: // it has ended
		return ""
	}
	switch c := &s.changes[x.change]; {
	case c.state == changeWriting:
		return "write of data"
	case c.state == changeLogged:
		return "write of the journal"
	case s.j.stalled:
		return "space in the journal: metadata and data are not written fast enough"
	}
	return "its turn in the journal"
}

// deviceFailed stops the store because of a disk operation that failed.
func (s *Store) deviceFailed(of string, op *loop.DiskOp) { s.fail(deviceError(of, op)) }
