package store

import (
	"errors"
	"fmt"

	"holdfast/core/layout"
)

// More errors that callers act on.
var (
	// ErrReadOnly: the store was opened for looking only.
	ErrReadOnly = errors.New("the store was opened read-only")
	// ErrClosed: the store is closing or closed.
	ErrClosed = errors.New("the store is closed")
	// ErrVersionGone: what AtMost asks for is older than the newest stable version, and no longer kept.
	ErrVersionGone = errors.New("that old a version is not kept any more")
	// ErrUnsettled: a version of the object waits for its commit; it must be committed or rolled back before the object is replaced or voided.
	ErrUnsettled = errors.New("a version of the object waits for its commit")
	// ErrWaiting: so many versions wait for their commits that the store takes no more before some were committed (or rolled back). Nothing has changed.
	ErrWaiting = errors.New("too many versions wait for their commits")
	// ErrUnsupported: the operation is not possible in this form; nothing has changed.
	ErrUnsupported = errors.New("not supported by the store")
)

// DamagedError says that the store's own structures are damaged in what it may have acknowledged. Open returns it; with Options.AcceptDamage the store is
// emptied under a new store id instead.
type DamagedError struct {
	Area   string // "superblock", "journal", "metadata"
	Offset int64  // on the device
	What   string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged at device offset %d: %s", e.Area, e.Offset, e.What)
}

// NotStoreError says that a device holds no store, or one that this release cannot open.
type NotStoreError struct{ What string }

func (e *NotStoreError) Error() string { return e.What }

// OccupiedError says that Format found a store on the device.
type OccupiedError struct {
	Store layout.StoreID
	What  string
}

func (e *OccupiedError) Error() string {
	return e.What + "; everything on it would be lost (force to format all the same)"
}

// MediaError says that the device could not read.
type MediaError struct {
	Object layout.ObjectID
	Device int64 // byte offset on the device
	Len    int
	Err    error
}

func (e *MediaError) Error() string {
	return fmt.Sprintf("object %v: read %d bytes at device offset %d: %v", e.Object, e.Len, e.Device, e.Err)
}

func (e *MediaError) Unwrap() error { return e.Err }
