package daemon

import (
	"errors"
	"os"

	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/osd/store"
)

// Disks are the paths of what an OSD's store is on; empty ones are as in store.Devices.
type Disks struct{ Data, Meta, Journal string }

// DisksOf are the disks of the OSD whose data is on the given one.
func DisksOf(v *config.Values, data string) Disks {
	return Disks{data, v.String("meta_device"), v.String("journal_device")}
}

// String is how commands name them.
func (d Disks) String() string {
	s := d.Data
	if d.Meta != "" {
		s += " --meta_device " + d.Meta
	}
	if d.Journal != "" {
		s += " --journal_device " + d.Journal
	}
	return s
}

// Paths are the disks by the number that they have in store.Area.
func (d Disks) Paths() []string {
	out := []string{d.Data}
	for _, path := range []string{d.Meta, d.Journal} {
		if path != "" && find(out, path) < 0 {
			out = append(out, path)
		}
	}
	return out
}

// find is where a path, or another name of the same file, is among others; -1: nowhere.
func find(paths []string, path string) int {
	this, err := os.Stat(path)
	for i, p := range paths {
		other, failed := os.Stat(p)
		if p == path || err == nil && failed == nil && os.SameFile(this, other) {
			return i
		}
	}
	return -1
}

// Open opens all of them as one disk; v says which are flushed. The error is that of the disk at path. It is called on the loop.
func (d Disks) Open(l loop.Loop, v *config.Values, o loop.DiskOptions) (disk loop.Disk, path string, err error) {
	paths := d.Paths()
	meta, journal := find(paths, d.Meta), find(paths, d.Journal)
	var open []store.Device
	for i, path := range paths {
		o.NoFlush = noFlush(v, i, meta, journal)
		one, err := OpenDisk(l, path, o)
		if err != nil {
			for _, d := range open {
				d.Disk.Close(nil)
			}
			return nil, path, err
		}
		open = append(open, store.Device{Disk: one, Name: path})
	}
	devices := store.Devices{Data: open[0]}
	if d.Meta != "" {
		devices.Meta = open[meta]
	}
	if d.Journal != "" {
		devices.Journal = open[journal]
	}
	return devices.Join(l), "", nil
}

// noFlush reports whether disk i is never flushed: each use that it was named for must say so.
func noFlush(v *config.Values, i, meta, journal int) bool {
	if i == 0 {
		return v.Bool("disable_data_fsync")
	}
	return (i != meta || v.Bool("disable_meta_fsync")) && (i != journal || v.Bool("disable_journal_fsync"))
}

// DeviceProblem explains devices that are not those of one store; nil when err is about something else.
func DeviceProblem(what string, err error) error {
	var wrong *store.WrongDeviceError
	if !errors.As(err, &wrong) {
		return nil
	}
	return &admin.Error{Kind: admin.Refused, What: what, Err: err, Way: wrong.Way + ". Nothing was written"}
}
