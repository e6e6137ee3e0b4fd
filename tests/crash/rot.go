package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"holdfast/osd/store"
)

// rot turns bits of the data area and reads everything: each object is as it was, or its reader is told. Nothing else may be done on the disk afterwards.
func (p *process) rot(h *history, rng *rand.Rand) error {
	if p.c.config.ChecksumType == store.ChecksumNone {
		return nil
	}
	area := p.s.Superblock().Data
	for range 12 {
		p.devs[0].Flip(area.Off+rng.Int64N(area.Len), 1<<rng.IntN(8))
	}
	j := &judge{process: p, h: h, moment: never - 1, busy: true}
	for _, o := range h.objects {
		op := &store.Op{Kind: store.OpReadObject, Object: o.id}
		if err := p.do(op); err != nil {
			return err
		}
		var err error
		_, told := errors.AsType[*store.ChecksumError](op.Err)
		if top := o.newest().top(); !told && top.Flags&store.Void == 0 {
			err = j.sameVersion(op, top)
		}
		release(op)
		if err != nil {
			return fmt.Errorf("after bits turned on the device, object %v: %w", o.id, err)
		}
	}
	return nil
}
