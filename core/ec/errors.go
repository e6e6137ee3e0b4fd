package ec

import (
	"errors"
	"fmt"
)

// ErrCall is in every error that only a wrong call can cause: numbers or lengths of chunks that do not fit the code or each other.
var ErrCall = errors.New("chunks do not fit")

// ErrInconsistent says that chunks disagree, and that no set of them small enough to be sure of explains it (FindBad).
var ErrInconsistent = errors.New("chunks disagree and it cannot be told which are wrong")

// TooFewChunksError says that more chunks are needed. Nothing was computed; another chunk has to be read.
type TooFewChunksError struct{ Have, Need int }

func (e *TooFewChunksError) Error() string {
	return fmt.Sprintf("%d chunks are here, %d are needed", e.Have, e.Need)
}

// fit checks that all chunks have one length and that no output begins where another chunk does. in is not empty. A nil output is not there.
func fit(in, out [][]byte) error {
	size := len(in[0])
	for i, b := range in {
		if len(b) != size {
			return fmt.Errorf("%w: input %d has %d bytes, input 0 %d", ErrCall, i, len(b), size)
		}
	}
	for i, b := range out {
		if b == nil {
			continue
		}
		if len(b) != size {
			return fmt.Errorf("%w: output %d has %d bytes, the inputs %d", ErrCall, i, len(b), size)
		}
		if size > 0 && (among(in, &b[0]) || among(out[:i], &b[0])) {
			return fmt.Errorf("%w: output %d is the memory of another chunk", ErrCall, i)
		}
	}
	return nil
}

// among reports whether one of the chunks begins at first.
func among(chunks [][]byte, first *byte) bool {
	for _, b := range chunks {
		if len(b) > 0 && &b[0] == first {
			return true
		}
	}
	return false
}
