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
	good [maxDevices]int // the copy of the superblock that counts
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
			err = fmt.Errorf("%v %d bytes at device offset %d: %w", kind, len(data), offsetOf(off), err)
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

// writeSuper writes both copies on each device, the one that counts last, so that one is good whatever happens. The data device is the last: the others' are as new as its, or one write newer.
func (x *deviceIO) writeSuper(sb *Superblock, then func(error)) {
	b := x.ref.Bytes()[:superSize]
	sb.seq++
	var steps []func(func(error))
	for k := int(sb.others); k >= 0; k-- {
		at := int64(k) << deviceShift
		steps = append(steps, func(next func(error)) {
			sb.encode(b, uint32(k))
			x.run(loop.DiskSync, at+int64(1-x.good[k])*superCopy, b, next)
		}, func(next func(error)) { x.run(loop.DiskSync, at+int64(x.good[k])*superCopy, b, next) })
	}
	inOrder(steps, then)
}

// superCopies is what was found of the two copies on one device.
type superCopies struct {
	sb   Superblock
	errs [2]error
	ok   bool // one is good
}

// superState is what was found on all devices.
type superState struct {
	superCopies                         // of the data device; ok: and the devices are the right ones
	labels      [maxDevices]superCopies // of the others
	there       bool                    // the data device has a good superblock
	misfit      error
	good        [maxDevices]int // the copies that count
}

// readSuper reads both copies on each device and takes the newer good ones.
func (x *deviceIO) readSuper(then func(superState, error)) {
	st := &superState{}
	parts, meta, journal := partsOf(x.d)
	if st.misfit = sectorsFit(parts); st.misfit != nil {
		then(*st, nil)
		return
	}
	steps := []func(func(error)){func(next func(error)) { x.readCopies(0, parts[0], &st.superCopies, next) }}
	for k := 1; k < len(parts); k++ {
		steps = append(steps, func(next func(error)) { x.readCopies(k, parts[k], &st.labels[k], next) })
	}
	inOrder(steps, func(error) {
		if st.there = st.ok; st.ok {
			if st.sb.device != 0 {
				st.misfit = &WrongDeviceError{parts[0].Name, fmt.Sprintf("it has the %s of store %v, not its data", st.sb.roles(st.sb.device), st.sb.StoreID), "give the device with the data as the data device"}
			} else {
				st.misfit = st.fit(parts, meta, journal)
			}
			st.ok = st.misfit == nil
		}
		st.good = x.good
		then(*st, nil)
	})
}

// readCopies reads both copies on device k.
func (x *deviceIO) readCopies(k int, p *part, c *superCopies, then func(error)) {
	if p.info.Size < superRegion {
		c.errs = [2]error{errTooSmall, errTooSmall}
		then(nil)
		return
	}
	read := func(i int, off int64, next func()) {
		b := x.ref.Bytes()[:superSize]
		x.run(loop.DiskRead, int64(k)<<deviceShift+off, b, func(err error) {
			var sb Superblock
			if err == nil {
				sb, err = decodeSuperblock(b)
			}
			c.errs[i] = err
			if err == nil && (!c.ok || sb.seq > c.sb.seq) {
				c.sb, c.ok, x.good[k] = sb, true, i
			}
			next()
		})
	}
	read(0, 0, func() { read(1, superCopy, func() { then(nil) }) })
}

var errTooSmall = &NotStoreError{"the device is smaller than a superblock region"}

// failure says why the store cannot be used.
func (st *superState) failure() error {
	if st.misfit != nil {
		return st.misfit
	}
	return st.superCopies.failure()
}

// failure says why there is no good superblock.
func (c *superCopies) failure() error {
	if gone, is := BrokenDevice(c.errs[0]); is {
		return gone
	}
	for _, err := range c.errs {
		if _, is := errors.AsType[*NotStoreError](err); !is {
			return &DamagedError{Area: "superblock", Offset: 0, What: fmt.Sprintf("neither copy is good (%v; %v)", c.errs[0], c.errs[1])}
		}
	}
	return c.errs[0]
}

// Format makes a store of the device. It refuses when one is there already, unless c.Force.
func Format(l loop.Loop, d loop.Disk, c Config, done func(Superblock, error)) {
	info := d.Info()
	parts, meta, journal := partsOf(d)
	if c.Identity == "" {
		c.Identity = info.Identity
	}
	defaultJournal := c.JournalSize == 0
	c = c.withDefaults(info.Size)
	if defaultJournal && journal > meta {
		c.JournalSize = max(minJournal(c.BlockSize), min(c.JournalSize, (parts[journal].info.Size-superRegion)&^(journalAlign-1)))
	}
	x := newDeviceIO(l, d)
	finish := func(sb Superblock, err error) {
		x.release()
		if err != nil {
			err = fmt.Errorf("format: %w", err)
		}
		done(sb, err)
	}
	x.readSuper(func(st superState, _ error) {
		err := sectorsFit(parts)
		if err != nil {
			finish(Superblock{}, err)
			return
		}
		err = c.validate(info.SectorSize)
		if err == nil {
			err = c.aligned(info)
		}
		var sb Superblock
		if err == nil {
			sizes := make([]int64, len(parts))
			for i, p := range parts {
				sizes[i] = p.info.Size
			}
			sb, err = layOutOn(c, sizes, meta, journal, info.SectorSize)
		}
		if busy := st.occupied(parts); busy != nil && !c.Force {
			err = busy
		}
		if err != nil {
			finish(sb, err)
			return
		}
		sb.Config.Force, sb.Config.Alignment = false, 0
		for i, p := range parts[1:] {
			sb.Others[i] = p.info.Identity[:min(len(p.info.Identity), maxIdentity)]
		}
		sb.renew(l)
		if sb.others > 0 {
			le.PutUint64(sb.set[:], l.Rand().Uint64())
			le.PutUint64(sb.set[8:], l.Rand().Uint64())
		}
		sb.Boot = 1
		sb.seq = st.sb.seq
		var steps []func(func(error))
		for k := range parts {
			steps = append(steps, func(next func(error)) { x.zero(int64(k)<<deviceShift, superRegion, next) })
		}
		steps = append(steps,
			func(next func(error)) { x.run(loop.DiskFlush, 0, nil, next) },
			func(next func(error)) { x.wipe(&sb, next) },
			func(next func(error)) { x.writeSuper(&sb, next) },
		)
		inOrder(steps, func(err error) { finish(sb, err) })
	})
}

// occupied says what store the devices hold already.
func (st *superState) occupied(parts []*part) error {
	all := append([]superCopies{st.superCopies}, st.labels[1:len(parts)]...)
	all[0].ok = st.there
	for i, c := range all {
		switch what := "the device"; {
		case c.ok && c.sb.device != 0:
			return &OccupiedError{Store: c.sb.StoreID, What: fmt.Sprintf("device %s holds the %s of Holdfast store %v of %s, whose data is on %s", parts[i].Name, c.sb.roles(c.sb.device), c.sb.StoreID,
				c.sb.Created.Format("2006-01-02 15:04"), c.sb.Config.Identity)}
		case c.ok:
			if i > 0 {
				what += " " + parts[i].Name
			}
			return &OccupiedError{Store: c.sb.StoreID, What: fmt.Sprintf("%s holds Holdfast store %v of %s with %d blocks of %d bytes, opened %d times",
				what, c.sb.StoreID, c.sb.Created.Format("2006-01-02 15:04"), c.sb.Blocks, c.sb.Config.BlockSize, c.sb.Boot)}
		case !isNotStore(c.failure()):
			return &OccupiedError{What: fmt.Sprintf("device %s holds something that may be a Holdfast store: %v", parts[i].Name, c.failure())}
		}
	}
	return nil
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
		func(next func(error)) { x.zero(sb.Meta.at(0), sb.Meta.Len, next) },
		func(next func(error)) {
			b := x.ref.Bytes()[:journalAlign]
			clear(b)
			first.encode(b, &sb.secret)
			sb.endCRC = first.crc
			x.run(loop.DiskWrite, sb.Journal.at(0), b, next)
		},
		func(next func(error)) { x.run(loop.DiskFlush, 0, nil, next) },
	}, then)
}

func isNotStore(err error) bool {
	_, is := errors.AsType[*NotStoreError](err)
	return is
}
