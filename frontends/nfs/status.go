package nfs

import (
	"errors"

	"holdfast/frontends/volume"
)

// Status is nfsstat3 (RFC 1813, section 2.6).
type Status uint32

// The values of Status.
const (
	OK             Status = 0
	ErrStatPerm    Status = 1
	ErrStatNoEnt   Status = 2
	ErrStatIO      Status = 5
	ErrStatAccess  Status = 13
	ErrStatExist   Status = 17
	ErrStatNotDir  Status = 20
	ErrStatIsDir   Status = 21
	ErrStatInval   Status = 22
	ErrStatFBig    Status = 27
	ErrStatNoSpc   Status = 28
	ErrStatROFS    Status = 30
	ErrStatNameLen Status = 63
	ErrStatNotEmpt Status = 66
	ErrStatDQuot   Status = 69
	ErrStatStale   Status = 70
	ErrStatBadFH   Status = 10001
	ErrStatNotSync Status = 10002
	ErrStatCookie  Status = 10003
	ErrStatNotSupp Status = 10004
	ErrStatSmall   Status = 10005
	ErrStatFault   Status = 10006
)

// outcome is what an error means for a client: a status to answer with, or no answer at all.
type outcome struct {
	err    error
	status Status
	// silent closes the connection without an answer: nothing definite can be said, so the client connects again, perhaps to another gateway, and sends the request again, as
	// it does when a server restarts (RFC 1813, section 4.4). An error here would reach the guest as a failed disk.
	silent bool
}

// outcomes translates the errors of volume and of Tree. A test proves it total.
var outcomes = []outcome{
	{err: volume.ErrCanceled, silent: true},
	{err: volume.ErrGone, status: ErrStatStale},
	{err: volume.ErrReadOnly, status: ErrStatROFS},
	{err: volume.ErrRange, status: ErrStatFBig}, // not from READ and WRITE, which look at the size again
	{err: volume.ErrAlignment, status: ErrStatFault},
	{err: volume.ErrTooLong, status: ErrStatFault},
	{err: volume.ErrNoSpace, status: ErrStatNoSpc}, // never IO: ESXi pauses a guest at NOSPC and kills it at IO (spec/clients.md N13)
	{err: volume.ErrIO, status: ErrStatIO},
	{err: volume.ErrFenced, silent: true},
	{err: volume.ErrUnsupported, status: ErrStatNotSupp},
	{err: volume.ErrExpired, silent: true},
	{err: volume.ErrShutdown, silent: true},

	{err: ErrNotFound, status: ErrStatNoEnt},
	{err: ErrExists, status: ErrStatExist},
	{err: ErrNotDir, status: ErrStatNotDir},
	{err: ErrIsDir, status: ErrStatIsDir},
	{err: ErrNotEmpty, status: ErrStatNotEmpt},
	{err: ErrStale, status: ErrStatStale},
	{err: ErrName, status: ErrStatInval},
	{err: ErrNameTooLong, status: ErrStatNameLen},
	{err: ErrNotSync, status: ErrStatNotSync},
	{err: ErrBadCookie, status: ErrStatCookie},
	{err: ErrTooBig, status: ErrStatFBig},
	{err: ErrRefused, status: ErrStatAccess},
	{err: ErrInvalid, status: ErrStatInval},
	{err: ErrTooMany, status: ErrStatNoSpc},
}

// translate finds err in the table; known is false for an error that is not there, which is answered as an I/O error.
func translate(err error) (o outcome, known bool) {
	if err == nil {
		return outcome{}, true
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return o, true
		}
	}
	return outcome{err: err, status: ErrStatIO}, false
}
