package store

import (
	"errors"
	"fmt"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

const ioChunk = 1 << 20

// deviceIO runs one request after the other, for formatting, opening and checking. It owns one buffer.
type deviceIO struct {
	d    loop.Disk
	ref  *buf.Ref
	op   loop.DiskOp
	then func(error)
	good int // the copy of the superblock that counts
}

func newDeviceIO(l loop.Loop, d loop.Disk) *deviceIO {
	x := &deviceIO{d: d, ref: l.Alloc(ioChunk)}
	x.op.Done = func(op *loop.DiskOp) { x.then(op.Err) }
	return x
}

func (x *deviceIO) release() { x.ref.Release() }

// run starts one request; then is called with its error, which names the place.
func (x *deviceIO) run(kind loop.DiskKind, off int64, data []byte, then func(error)) {
	x.op.Kind, x.op.Off, x.op.Data, x.op.Vec = kind, off, data, nil
	x.then = func(err error) {
		if err != nil {
			err = fmt.Errorf("%v %d bytes at device offset %d: %w", kind, len(data), off, err)
		}
		then(err)
	}
	x.d.Submit(&x.op)
}

// each reads [off, off+length) in pieces; f gets each of them with its offset from off.
func (x *deviceIO) each(off, length int64, f func(at int64, b []byte) error, then func(error)) {
	var at int64
	var step func()
	step = func() {
		if at == length {
			then(nil)
			return
		}
		b := x.ref.Bytes()[:min(length-at, ioChunk)]
		x.run(loop.DiskRead, off+at, b, func(err error) {
			if err == nil {
				err = f(at, b)
			}
			if err != nil {
				then(err)
				return
			}
			at += int64(len(b))
			step()
		})
	}
	step()
}

// zero writes zeroes over [off, off+length).
func (x *deviceIO) zero(off, length int64, then func(error)) {
	clear(x.ref.Bytes())
	var at int64
	var step func(error)
	step = func(err error) {
		if err != nil || at == length {
			then(err)
			return
		}
		b := x.ref.Bytes()[:min(length-at, ioChunk)]
		pos := off + at
		at += int64(len(b))
		x.run(loop.DiskWrite, pos, b, step)
	}
	step(nil)
}

// writeSuper writes both copies, the one that counts last, so that one is good whatever happens.
func (x *deviceIO) writeSuper(sb *Superblock, then func(error)) {
	b := x.ref.Bytes()[:superSize]
	sb.seq++
	sb.encode(b)
	x.run(loop.DiskSync, int64(1-x.good)*superCopy, b, func(err error) {
		if err != nil {
			then(err)
			return
		}
		x.run(loop.DiskSync, int64(x.good)*superCopy, b, then)
	})
}

// superState is what was found of the two copies.
type superState struct {
	sb   Superblock
	errs [2]error
	ok   bool
	good int // the copy that counts
}

// readSuper reads both copies and takes the newer good one.
func (x *deviceIO) readSuper(then func(superState, error)) {
	if x.d.Info().Size < superRegion {
		then(superState{errs: [2]error{errTooSmall, errTooSmall}}, nil)
		return
	}
	var st superState
	read := func(i int, off int64, next func()) {
		b := x.ref.Bytes()[:superSize]
		x.run(loop.DiskRead, off, b, func(err error) {
			var sb Superblock
			if err == nil {
				sb, err = decodeSuperblock(b)
			}
			st.errs[i] = err
			if err == nil && (!st.ok || sb.seq > st.sb.seq) {
				st.sb, st.ok, st.good, x.good = sb, true, i, i
			}
			next()
		})
	}
	read(0, 0, func() { read(1, superCopy, func() { then(st, nil) }) })
}

var errTooSmall = &NotStoreError{"the device is smaller than a superblock region"}

// failure says why there is no good superblock.
func (st *superState) failure() error {
	for _, err := range st.errs {
		if _, is := errors.AsType[*NotStoreError](err); !is {
			return &DamagedError{Area: "superblock", Offset: 0, What: fmt.Sprintf("neither copy is good (%v; %v)", st.errs[0], st.errs[1])}
		}
	}
	return st.errs[0]
}

// Format makes a store of the device. It refuses when one is there already, unless c.Force.
func Format(l loop.Loop, d loop.Disk, c Config, done func(Superblock, error)) {
	info := d.Info()
	if c.Identity == "" {
		c.Identity = info.Identity
	}
	c = c.withDefaults(info.Size)
	x := newDeviceIO(l, d)
	finish := func(sb Superblock, err error) {
		x.release()
		if err != nil {
			err = fmt.Errorf("format: %w", err)
		}
		done(sb, err)
	}
	x.readSuper(func(st superState, _ error) {
		err := c.validate(info.SectorSize)
		var sb Superblock
		if err == nil {
			sb, err = layOut(c, info.Size, info.SectorSize)
		}
		switch {
		case st.ok && !c.Force:
			err = &OccupiedError{Store: st.sb.StoreID, What: fmt.Sprintf("the device holds Holdfast store %v of %s with %d blocks of %d bytes, opened %d times",
				st.sb.StoreID, st.sb.Created.Format("2006-01-02 15:04"), st.sb.Blocks, st.sb.Config.BlockSize, st.sb.Boot)}
		case !st.ok && !c.Force && !isNotStore(st.failure()):
			err = &OccupiedError{What: fmt.Sprintf("the device holds something that may be a Holdfast store: %v", st.failure())}
		}
		if err != nil {
			finish(sb, err)
			return
		}
		sb.Config.Force = false
		sb.renew(l)
		sb.Boot = 1
		sb.seq = st.sb.seq
		steps := []func(func(error)){
			func(next func(error)) { x.zero(0, superRegion, next) },
			func(next func(error)) { x.run(loop.DiskFlush, 0, nil, next) },
			func(next func(error)) { x.wipe(&sb, next) },
			func(next func(error)) { x.writeSuper(&sb, next) },
		}
		inOrder(steps, func(err error) { finish(sb, err) })
	})
}

// inOrder runs steps one after the other until one fails.
func inOrder(steps []func(func(error)), then func(error)) {
	var step func(error)
	step = func(err error) {
		if err != nil || len(steps) == 0 {
			then(err)
			return
		}
		f := steps[0]
		steps = steps[1:]
		f(step)
	}
	step(nil)
}

// renew makes another store of sb, which is empty once wipe has been there.
func (sb *Superblock) renew(l loop.Loop) {
	for i := 0; i < 16; i += 8 {
		le.PutUint64(sb.StoreID[i:], l.Rand().Uint64())
		le.PutUint64(sb.secret[i:], l.Rand().Uint64())
	}
	sb.Created = l.Wall().UTC()
	sb.endBatch, sb.endEntry, sb.endCRC = 1, 0, 0
	sb.tailBatch, sb.tailPos, sb.headPos = 1, 0, journalAlign
}

// wipe empties the metadata and begins the journal. It is durable before the superblock that says so is written.
func (x *deviceIO) wipe(sb *Superblock, then func(error)) {
	first := batchInfo{seq: 1, epoch: sb.Boot - 1, first: 1, tailSeq: 1, headerLen: batchHeader, dataOff: journalAlign}
	inOrder([]func(func(error)){
		func(next func(error)) { x.zero(sb.Meta.Off, sb.Meta.Len, next) },
		func(next func(error)) {
			b := x.ref.Bytes()[:journalAlign]
			clear(b)
			first.encode(b, &sb.secret)
			sb.endCRC = first.crc
			x.run(loop.DiskWrite, sb.Journal.Off, b, next)
		},
		func(next func(error)) { x.run(loop.DiskFlush, 0, nil, next) },
	}, then)
}

func isNotStore(err error) bool {
	_, is := errors.AsType[*NotStoreError](err)
	return is
}
