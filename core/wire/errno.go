package wire

import "fmt"

// Results below zero. They are Linux errno values, negated as they stand in retval.
const (
	EPERM     = -1
	ENOENT    = -2
	EINTR     = -4 // the expected version is not the object's; the reply carries the present one
	EIO       = -5 // the object is incomplete or unreadable
	EAGAIN    = -11
	ENOMEM    = -12
	EACCES    = -13 // the handshake was refused
	EBUSY     = -16
	EEXIST    = -17
	EINVAL    = -22
	ENOSPC    = -28
	EROFS     = -30
	EPIPE     = -32 // not served here now: ask again, perhaps elsewhere
	EDOM      = -33 // checksum mismatch of a copy
	ERANGE    = -34
	ENOSYS    = -38
	ESTALE    = -116 // the session is fenced, or the interval is over
	ETIMEDOUT = -110
)

// Errno is a negative retval as an error.
type Errno int64

var errnoNames = map[Errno]string{
	EPERM:     "EPERM: not allowed to this sender",
	ENOENT:    "ENOENT: no such pool, PG or object here",
	EINTR:     "EINTR: the object has another version",
	EIO:       "EIO: the object is incomplete or unreadable",
	EAGAIN:    "EAGAIN: changed meanwhile",
	ENOMEM:    "ENOMEM: out of memory",
	EACCES:    "EACCES: the handshake was refused",
	EBUSY:     "EBUSY: held by another OSD",
	EEXIST:    "EEXIST: the version exists already",
	EINVAL:    "EINVAL: the request is not valid",
	ENOSPC:    "ENOSPC: an OSD of the set is full",
	EROFS:     "EROFS: read-only",
	EPIPE:     "EPIPE: the PG is not served here now",
	EDOM:      "EDOM: a copy's checksum does not match",
	ERANGE:    "ERANGE: copies differ in version",
	ENOSYS:    "ENOSYS: not supported",
	ESTALE:    "ESTALE: the sender's session or interval is over",
	ETIMEDOUT: "ETIMEDOUT: too late",
}

func (e Errno) Error() string {
	if s, ok := errnoNames[e]; ok {
		return s
	}
	return fmt.Sprintf("errno %d", -int64(e))
}
