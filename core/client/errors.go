package client

import (
	"errors"
	"fmt"
	"time"

	"holdfast/core/layout"
)

// What an Op can end with, besides *ConflictError, *MismatchError, *RefusedError, *UnreachableError and *PoolError.
var (
	ErrFenced    = errors.New("another session has taken over: this one is fenced")
	ErrExpired   = errors.New("the client was silent for too long: the change was not carried out any more")
	ErrReadOnly  = errors.New("the image is read-only")
	ErrNoSpace   = errors.New("no space left in the pool: add OSDs or remove images")
	ErrIO        = errors.New("the object cannot be read or written: no usable copy is left; see holdfast why")
	ErrCanceled  = errors.New("canceled before it was sent")
	ErrGone      = errors.New("the image does not exist any more")
	ErrClosed    = errors.New("the client or the session is closed")
	ErrBusy      = errors.New("too many operations are under way")
	ErrAlignment = errors.New("the range does not have the alignment that the operation needs")
	ErrTooLong   = errors.New("the range is longer than one operation may be")
	ErrOvertaken = errors.New("a change that was not synced was lost with the power of hosts, and another client has written to the object since: it is not written again")
	ErrSessions  = errors.New("this process has used up its session ids: restart it")
)

// ConflictError says that the object does not have the expected version (CAS). Read it again.
type ConflictError struct {
	Version layout.Version // that it has
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the object has version %d, another writer was faster", uint64(e.Version))
}

// MismatchError says where CompareWrite found another byte.
type MismatchError struct {
	Offset uint64 // of the first differing byte, from the start of the Op
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("byte %d is not what was expected", e.Offset)
}

// RefusedError says that an OSD refused the request for good.
type RefusedError struct {
	OSD    layout.OSDNum
	Object layout.ObjectID
	Err    error // wire.Errno, or why the reply is not understood
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("OSD %d refused the request for object %v: %v", e.OSD, e.Object, e.Err)
}

// Unwrap is the errno.
func (e *RefusedError) Unwrap() error { return e.Err }

// UnreachableError says that Options.RetryLimit tries brought no answer. Of a change it is not known whether it took effect.
type UnreachableError struct {
	PG    layout.PGID
	OSD   layout.OSDNum // the primary that was tried last; 0: the PG has none
	Tries int
	Since time.Duration
}

func (e *UnreachableError) Error() string {
	if e.OSD == 0 {
		return fmt.Sprintf("PG %v has no active primary after %d tries in %v", e.PG, e.Tries, e.Since)
	}
	return fmt.Sprintf("PG %v: OSD %d brought no answer after %d tries in %v", e.PG, e.OSD, e.Tries, e.Since)
}

// PoolError says that a pool cannot be used.
type PoolError struct {
	Pool layout.PoolID
	Err  error
}

func (e *PoolError) Error() string { return fmt.Sprintf("pool %d: %v", e.Pool, e.Err) }

// Unwrap is the reason.
func (e *PoolError) Unwrap() error { return e.Err }

// rank orders errors of the parts of one Op: the highest is the Op's.
func rank(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrFenced), errors.Is(err, ErrClosed):
		return 6
	case errors.Is(err, ErrGone):
		return 5
	case errors.Is(err, ErrIO):
		return 4
	case errors.Is(err, ErrNoSpace):
		return 3
	case errors.Is(err, ErrExpired):
		return 2
	}
	return 1
}
