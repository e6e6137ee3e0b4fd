package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/osd"
	"holdfast/osd/store"
)

// Halt looks whether an OSD that did not start, or ended, must not be started again before somebody has looked: its disk has failed or is gone, or its disk or its number is another one's. Then it
// says so in words, for the cluster (ReportFailure; nothing where another OSD runs) and as an error of the kind admin.Halted. Other errors stay as they are, without a failure.
func (o *OSDOptions) Halt(err error) (*cluster.OSDFailure, error) {
	f := &cluster.OSDFailure{Host: o.Host, Time: time.Now().Unix(), Device: o.Device}
	e := &admin.Error{Kind: admin.Halted, What: fmt.Sprintf("OSD %d stopped", o.Num), Err: err}
	device, broken := store.BrokenDevice(err)
	place, misplaced := errors.AsType[*osd.PlaceError](err)
	owner, foreign := errors.AsType[*store.OwnerError](err)
	halted, is := errors.AsType[*admin.Error](err)
	switch {
	case broken:
		e.Err, e.Way = device, deviceWay(o, device)
		f.Device, f.Operation, f.Errno = device.Device, device.Op.String(), int(device.Errno())
		f.Offset = device.Off
	case foreign:
		e.Err, e.Way = owner, fmt.Sprintf("give OSD %d its own disk; `holdfast disk format --force %s` would make an empty one of this", o.Num, o.Device)
	case misplaced:
		e.Err, e.Way = errors.New(place.What), place.Way
		if place.Taken {
			return nil, e
		}
	case is && halted.Kind == admin.Halted:
		e = halted
	default:
		return nil, err
	}
	f.Reason = cluster.ClipReason((&admin.Error{What: e.Err.Error(), Way: e.Way}).Error())
	return f, e
}

// deviceWay is what to do about a device that failed.
func deviceWay(o *OSDOptions, e *store.DeviceError) string {
	look := "look at the kernel's log"
	if slices.Contains([]syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}, e.Errno()) {
		if st, err := os.Stat(e.Device); err == nil && st.Mode().IsRegular() {
			return fmt.Sprintf("the file system of the disk's file gave it no space: make room there, then start OSD %d again", o.Num)
		}
		look += " (has a thin volume run out of space, or is the device gone?)"
	}
	return fmt.Sprintf(look+"; replace the disk, then `holdfast disk format` the new one and start OSD %d on it, which is refilled from the other copies", o.Num)
}

// ReportFailure writes down why an OSD has ended, so that status says it until the OSD runs again. It waits until the keys of its last run are gone, and leaves it when another run is up.
func (k *Link) ReportFailure(ctx context.Context, n layout.OSDNum, f *cluster.OSDFailure) error {
	t := registry.Txn{
		If:   []registry.Compare{registry.Absent(cluster.OSDStateKey(n))},
		Then: []registry.Op{{Kind: registry.Put, Key: cluster.OSDFailureKey(n), Value: cluster.Value(f)}},
	}
	for {
		res, err := k.Txn(ctx, t)
		if err == nil && res.Succeeded {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New("an OSD of this number is up")
			}
			return fmt.Errorf("report why OSD %d has stopped: %w", n, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
