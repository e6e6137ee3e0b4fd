package store

import (
	"fmt"
	"strings"

	"holdfast/core/loop"
	"holdfast/core/planted"
)

// Device is one of the disks that a store is on, with the name by which people know it.
type Device struct {
	Disk loop.Disk
	Name string
}

// Devices are the disks of one store. Without Meta the metadata is on Data, without Journal the journal is where the metadata is. One Disk may be named twice.
type Devices struct{ Data, Meta, Journal Device }

// maxDevices is how many disks a store is on at most.
const maxDevices = 3

// deviceShift is where the number of the device begins in an address: the offset of an operation on joined disks. The data device has number 0, so that with one device addresses are offsets.
const deviceShift = 56

// offsetOf is an address without its device.
func offsetOf(addr int64) int64 { return addr & (1<<deviceShift - 1) }

// Join makes one disk of those that a store is on, for Format, Open and all else that takes one. A single device is returned as it is.
func (d Devices) Join(l loop.Loop) loop.Disk {
	if d.Meta.Disk == nil {
		d.Meta = d.Data
	}
	if d.Journal.Disk == nil {
		d.Journal = d.Meta
	}
	j := &joined{l: l, parts: []*part{{Device: d.Data}}}
	j.meta = j.add(d.Meta)
	j.journal = j.add(d.Journal)
	if len(j.parts) == 1 {
		return d.Data.Disk
	}
	for _, p := range j.parts {
		p.info = p.Disk.Info()
		p.written = 1 // what a process that died wrote may be in the device's cache only
	}
	return j
}

// joined are several disks as one. An operation goes to the disk that its address names; a flush covers all of them.
//
// It keeps the promises of loop.Disk if each of the disks does: an operation other than a flush is one on one disk, and a flush is done when each disk has been flushed
// that has completed writes since its last flush. Only that holds the parts of a store together: whatever relies on a flush need not know which disk it is about.
type joined struct {
	l             loop.Loop
	parts         []*part
	meta, journal uint32 // their devices
	free          []*forward
	freeFlushes   []*joinedFlush
}

var _ loop.Disk = (*joined)(nil)

// part is one of joined disks.
type part struct {
	Device
	info    loop.DiskInfo
	written uint64 // writes that have completed,
	covered uint64 // so many of which a flush has made durable
}

func (j *joined) add(d Device) uint32 {
	for i, p := range j.parts {
		if p.Disk == d.Disk {
			return uint32(i)
		}
	}
	j.parts = append(j.parts, &part{Device: d})
	return uint32(len(j.parts) - 1)
}

// Info is the data device's, but that only disks which are all write-through need no flush.
func (j *joined) Info() loop.DiskInfo {
	info := j.parts[0].info
	for _, p := range j.parts {
		info.WriteThrough = info.WriteThrough && p.info.WriteThrough
	}
	return info
}

// forward is an operation on one of the disks.
type forward struct {
	j     *joined
	p     *part
	op    loop.DiskOp
	outer *loop.DiskOp
}

// Submit starts op.
func (j *joined) Submit(op *loop.DiskOp) {
	if op.Kind == loop.DiskFlush {
		j.flush(op)
		return
	}
	var f *forward
	if n := len(j.free); n > 0 {
		f, j.free = j.free[n-1], j.free[:n-1]
	} else {
		f = &forward{j: j}
		f.op.Done = func(*loop.DiskOp) { f.done() }
	}
	f.outer, f.p = op, j.parts[op.Off>>deviceShift]
	f.op.Kind, f.op.Off, f.op.Data, f.op.Vec, f.op.Len = op.Kind, offsetOf(op.Off), op.Data, op.Vec, op.Len
	f.p.Disk.Submit(&f.op)
}

func (f *forward) done() {
	if f.op.Kind != loop.DiskRead && (f.op.Kind != loop.DiskSync || f.op.Err != nil) {
		f.p.written++
	}
	op := f.outer
	op.Err = f.op.Err
	f.outer, f.p, f.op.Data, f.op.Vec = nil, nil, nil, nil
	f.j.free = append(f.j.free, f)
	op.Done(op)
}

// joinedFlush is a flush of several disks.
type joinedFlush struct {
	j     *joined
	outer *loop.DiskOp
	left  int
	err   error
	ops   [maxDevices]loop.DiskOp
	mark  [maxDevices]uint64 // the writes that it covers
	none  loop.Task          // stands for one that no disk needs
}

func (j *joined) newFlush() *joinedFlush {
	if n := len(j.freeFlushes); n > 0 {
		f := j.freeFlushes[n-1]
		j.freeFlushes = j.freeFlushes[:n-1]
		return f
	}
	f := &joinedFlush{j: j}
	f.none.Run = f.done
	for i := range f.ops {
		f.ops[i].Kind = loop.DiskFlush
		f.ops[i].Done = func(op *loop.DiskOp) {
			if op.Err == nil {
				p := j.parts[i]
				p.covered = max(p.covered, f.mark[i])
			} else if f.err == nil {
				f.err = op.Err
			}
			if f.left--; f.left == 0 {
				f.done()
			}
		}
	}
	return f
}

func (j *joined) flush(op *loop.DiskOp) {
	f := j.newFlush()
	f.outer, f.err, f.left = op, nil, 0
	var due [maxDevices]bool
	for i, p := range j.parts {
		if p.written > p.covered && !p.info.WriteThrough && !(planted.DataUnflushed && i == 0) {
			due[i], f.mark[i] = true, p.written
			f.left++
		}
	}
	if f.left == 0 {
		j.l.Defer(&f.none)
		return
	}
	for i, is := range due {
		if is {
			j.parts[i].Disk.Submit(&f.ops[i])
		}
	}
}

func (f *joinedFlush) done() {
	op := f.outer
	op.Err, f.outer = f.err, nil
	f.j.freeFlushes = append(f.j.freeFlushes, f)
	op.Done(op)
}

// Close closes all of the disks.
func (j *joined) Close(done func()) {
	left := len(j.parts)
	for _, p := range j.parts {
		p.Disk.Close(func() {
			if left--; left == 0 && done != nil {
				done()
			}
		})
	}
}

// partsOf are the disks that d is made of, and where metadata and journal are meant to be.
func partsOf(d loop.Disk) (parts []*part, meta, journal uint32) {
	if j, is := d.(*joined); is {
		return j.parts, j.meta, j.journal
	}
	info := d.Info()
	return []*part{{Device: Device{d, info.Identity}, info: info}}, 0, 0
}

// roles says what is on a device, for messages.
func (sb *Superblock) roles(device uint32) string {
	var all []string
	for _, a := range []struct {
		name string
		Area
	}{{"data", sb.Data}, {"metadata", sb.Meta}, {"journal", sb.Journal}} {
		if a.Device == device {
			all = append(all, a.name)
		}
	}
	return strings.Join(all, " and ")
}

// WrongDeviceError says that the devices given for a store are not those that it is on. Nothing was written.
type WrongDeviceError struct {
	Name string // of the device
	What string
	Way  string // out of it
}

func (e *WrongDeviceError) Error() string { return fmt.Sprintf("device %s: %s", e.Name, e.What) }

// sectorsFit refuses devices that cannot write what a store writes at once.
func sectorsFit(parts []*part) error {
	for _, p := range parts {
		if p.info.SectorSize > journalAlign {
			return &WrongDeviceError{p.Name, fmt.Sprintf("it has sectors of %d bytes", p.info.SectorSize), fmt.Sprintf("give one with sectors of at most %d bytes", journalAlign)}
		}
	}
	return nil
}

// fit compares the devices given with those that the store is on; labels are what their superblocks say.
func (st *superState) fit(parts []*part, meta, journal uint32) error {
	sb := &st.sb
	for _, a := range []struct {
		name, flag, none string
		have, given      uint32
	}{
		{"metadata", "--meta_device", "leave out --meta_device", sb.Meta.Device, meta},
		{"journal", "--journal_device", "give --journal_device " + parts[0].Name, sb.Journal.Device, journal},
	} {
		switch {
		case a.have == a.given:
		case a.given == 0, a.have > uint32(len(parts)-1):
			return &WrongDeviceError{parts[0].Name, fmt.Sprintf("the %s of store %v is on another device, which was %s when it was formatted", a.name, sb.StoreID, sb.Others[a.have-1]),
				fmt.Sprintf("give it with %s; %s", a.flag, ifLost)}
		case a.have == 0:
			return &WrongDeviceError{parts[a.given].Name, fmt.Sprintf("store %v has its %s on the data device %s, not on one of its own", sb.StoreID, a.name, parts[0].Name), a.none}
		}
	}
	for i, p := range parts[1:] {
		n := uint32(i + 1)
		l := &st.labels[n]
		want := sb.roles(n)
		if want == "" {
			return &WrongDeviceError{p.Name, fmt.Sprintf("store %v has nothing on a third device: its %s is on %s", sb.StoreID, sb.roles(1), parts[1].Name), "leave it out"}
		}
		have := l.sb.roles(l.sb.device)
		other := ""
		switch {
		case !l.ok && isNotStore(l.failure()):
			other = "nothing of a store is on it"
		case !l.ok:
			other = l.failure().Error()
		case l.sb.set != sb.set:
			other = fmt.Sprintf("it has the %s of store %v", have, l.sb.StoreID)
		}
		switch {
		case other != "":
			return &WrongDeviceError{p.Name, fmt.Sprintf("%s, not the %s of store %v, which was on %s when that was formatted", other, want, sb.StoreID, sb.Others[i]), "give the right device; " + ifLost}
		case l.sb.device != n:
			return &WrongDeviceError{p.Name, fmt.Sprintf("it has the %s of store %v and is given for its %s", have, sb.StoreID, want), "give each device for what is on it: two of them are swapped"}
		case l.sb.seq < sb.seq:
			return &WrongDeviceError{p.Name, fmt.Sprintf("it is an older state of the %s of store %v: it was set back, or is a copy (write %d of the superblock, %s has write %d)", want, sb.StoreID, l.sb.seq, parts[0].Name, sb.seq),
				"give the device as it was last used; " + ifLost}
		case l.sb.seq > sb.seq+1:
			return &WrongDeviceError{parts[0].Name, fmt.Sprintf("it is an older state of the data of store %v: it was set back, or is a copy (write %d of the superblock, %s has write %d)", sb.StoreID, sb.seq, p.Name, l.sb.seq),
				"give the device as it was last used; " + ifLost}
		}
	}
	return nil
}

// ifLost is what to do without one of a store's devices.
const ifLost = "without it the whole store is lost: then make an empty one with `holdfast disk format --force`, to be refilled from the other copies"
