package gateway

import (
	"errors"
	"fmt"

	"holdfast/core/client"
	"holdfast/frontends/volume"
)

// translations are what frontends are told for what the client says.
var translations = []struct{ from, to error }{
	{client.ErrFenced, volume.ErrFenced},
	{client.ErrExpired, volume.ErrExpired},
	{client.ErrReadOnly, volume.ErrReadOnly},
	{client.ErrNoSpace, volume.ErrNoSpace},
	{client.ErrIO, volume.ErrIO},
	{client.ErrCanceled, volume.ErrCanceled},
	{client.ErrGone, volume.ErrGone},
	{client.ErrClosed, volume.ErrShutdown},
	{client.ErrAlignment, volume.ErrAlignment},
	{client.ErrTooLong, volume.ErrTooLong},
}

// translate is a client's error as a volume's. What has no counterpart is ErrIO, with the cause in its text.
func translate(err error) error {
	if m, ok := errors.AsType[*client.MismatchError](err); ok {
		return &volume.MiscompareError{Offset: m.Offset}
	}
	for _, t := range translations {
		if errors.Is(err, t.from) {
			return t.to
		}
	}
	return fmt.Errorf("%w: %w", volume.ErrIO, err)
}
