package volume

import "fmt"

// MaxCompare is the largest Length of a CompareAndWrite, bytes: what one object write carries in every pool.
const MaxCompare = 64 << 10

// Check says what is wrong with op on a device with the given facts: nil, or an error that wraps ErrReadOnly, ErrAlignment, ErrRange or ErrTooLong. Every Device refuses what
// Check refuses, so that a client sees one behaviour whatever is behind its export.
func Check(info *Info, op *Op) error {
	switch op.Kind {
	case Flush:
		return nil
	case Read, Extents:
	case Write, Zero, Trim, CompareAndWrite:
		if info.ReadOnly {
			return ErrReadOnly
		}
	default:
		return fmt.Errorf("operation kind %d: %w", op.Kind, ErrUnsupported)
	}
	if unit := uint64(info.BlockSize) - 1; op.Offset&unit != 0 || op.Length&unit != 0 {
		return ErrAlignment
	}
	if op.Offset > info.Size || op.Length > info.Size-op.Offset {
		return ErrRange
	}
	switch op.Kind {
	case Read:
		if op.Length > uint64(info.MaxTransfer) {
			return ErrTooLong
		}
		if len(op.Pieces) != 0 {
			return checkPieces("destination", op.Pieces, op.Length)
		}
	case Write:
		if op.Length > uint64(info.MaxTransfer) {
			return ErrTooLong
		}
		return checkPieces("data", op.Pieces, op.Length)
	case CompareAndWrite:
		if op.Length > MaxCompare || op.Length > 0 && info.OptimalSize > 0 &&
			op.Offset/uint64(info.OptimalSize) != (op.Offset+op.Length-1)/uint64(info.OptimalSize) {
			return ErrTooLong
		}
		if err := checkPieces("data", op.Pieces, op.Length); err != nil {
			return err
		}
		return checkPieces("expected data", op.Compare, op.Length)
	}
	return nil
}

func checkPieces(what string, pieces []Piece, want uint64) error {
	n := uint64(0)
	for _, p := range pieces {
		n += uint64(p.Len)
	}
	if n != want {
		return fmt.Errorf("%s has %d bytes where the request names %d: %w", what, n, want, ErrAlignment)
	}
	return nil
}
