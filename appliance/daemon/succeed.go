package daemon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"holdfast/core/loop"
	"holdfast/osd"
)

// Succeed makes the disk of an OSD usable again whose store cannot be trusted (osd.Untrusted): it waits until the cluster needs nothing of the store, and makes an empty one of it under a
// new id; or until an operator has accepted it. Start the OSD afterwards.
func Succeed(ctx context.Context, o OSDOptions, cause error) error {
	t, err := NewThread(o.Config.Values().String("loop"), "osd."+strconv.FormatUint(uint64(o.Num), 10), o.Log)
	if err != nil {
		return err
	}
	defer t.Stop()
	v := o.Config.Values()
	_, err = Await(ctx, t, func(done func(struct{}, error)) {
		reg, err := OpenRegistry(t, v, o.Log)
		if err != nil {
			done(struct{}{}, err)
			return
		}
		osd.Succeed(t, osd.SuccessionOptions{
			Num: o.Num, Host: o.Host, Cause: cause, Registry: reg, LeaseTime: v.Duration("etcd_lease_ttl"), Log: o.Log,
			OpenDisk: func(alone bool) (loop.Disk, error) {
				d, _, err := DisksOf(v, o.Device).Open(t, v, loop.DiskOptions{ReadOnly: !alone, Exclusive: alone && !v.Bool("disable_device_lock")})
				return d, err
			},
			Auto: v.Bool("auto_accept"),
			Done: func(err error) { done(struct{}{}, err) },
		})
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("OSD %d: make an empty store of %s: %w", o.Num, o.Device, err)
	}
	return err
}

// InUse reports whether an OSD did not start because somebody else has its disk open.
func InUse(err error) bool {
	return errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EBUSY)
}
