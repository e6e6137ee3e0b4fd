package nfs

import (
	"errors"

	"holdfast/frontends/volume"
)

// maxTries is how often a READ or WRITE starts over at once because the file's size changed under it.
const maxTries = 3

// dataFailed answers a READ, WRITE or COMMIT with an error.
func (r *request) dataFailed(err error) {
	if errors.Is(err, volume.ErrGone) || errors.Is(err, volume.ErrFenced) {
		if r.file != nil {
			r.file.drop()
		}
	}
	st, silent := r.status(err)
	if silent {
		r.silence(err)
		return
	}
	e := r.start(st)
	if r.call.Procedure != procRead {
		e.Bool(false)
	}
	r.postAttr(e, &r.attr)
	r.reply()
}

// again starts the request over after an error that a change of size explains, or fails it. When that does not help the tree knows of a size that the device does not have yet: the
// request waits for the device.
func (r *request) again(start func(*request), err error) {
	r.failed = nil
	if !errors.Is(err, volume.ErrRange) {
		r.dataFailed(err)
		return
	}
	r.dropParts()
	if r.tries++; r.tries <= maxTries {
		start(r)
	} else {
		r.file.awaitSize(r, start)
	}
}
