package nbd

import (
	"errors"

	"holdfast/frontends/volume"
)

// Errno is an error on the wire. The protocol allows these values only (NBD proto.md, "Error values").
type Errno uint32

// The errors.
const (
	EPERM     Errno = 1
	EIO       Errno = 5
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

// Errors of our own, before a request reaches the device.
var (
	errCommand  = errors.New("unknown command")
	errFlags    = errors.New("a flag that this command does not have")
	errNoStatus = errors.New("block status needs a range and a metadata context that was negotiated")
)

// errnos translates what a device answers.
var errnos = []struct {
	err   error
	errno Errno
}{
	{volume.ErrCanceled, EIO}, // we cancel only for a client that is gone; nobody reads this
	// A client that reads ESHUTDOWN has to disconnect (NBD proto.md, "Terminating the transmission phase"): right where this connection is of no use any more.
	// ENXIO, the errno for a device that is gone, is not among the protocol's values.
	{volume.ErrGone, ESHUTDOWN},
	{volume.ErrFenced, ESHUTDOWN},
	{volume.ErrShutdown, ESHUTDOWN},
	{volume.ErrReadOnly, EPERM},
	{volume.ErrRange, EINVAL}, // ENOSPC for what writes, see errno
	{volume.ErrAlignment, EINVAL},
	{volume.ErrTooLong, EINVAL},
	{volume.ErrNoSpace, ENOSPC},
	{volume.ErrIO, EIO},
	{volume.ErrUnsupported, EINVAL}, // ENOTSUP for a fast zero, see errno
	{volume.ErrExpired, EIO},
	{errCommand, EINVAL},
	{errFlags, EINVAL},
	{errNoStatus, EINVAL},
}

// errno is what a command that ended with err answers; 0 for nil. What the table does not know is EIO.
func errno(err error, command, flags uint16) Errno {
	if err == nil {
		return 0
	}
	switch {
	case errors.Is(err, volume.ErrRange) && (command == cmdWrite || command == cmdWriteZeroes):
		return ENOSPC // NBD proto.md, "Error values": a write beyond the size of the device
	case errors.Is(err, volume.ErrTooLong) && flags&cmdFlagDF != 0:
		return EOVERFLOW // NBD proto.md, NBD_CMD_FLAG_DF
	case errors.Is(err, volume.ErrUnsupported) && flags&cmdFlagFastZero != 0:
		return ENOTSUP // NBD proto.md, NBD_CMD_FLAG_FAST_ZERO
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	return EIO
}
