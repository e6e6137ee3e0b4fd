package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry/etcd"
	"holdfast/osd"
	"holdfast/osd/store"
)

// OSDOptions say which OSD to run.
type OSDOptions struct {
	Num     layout.OSDNum
	Device  string
	Config  *config.Live // with config/global
	Key     []byte
	Bind    []loop.Addr
	Host    string
	Version string
	Log     *slog.Logger
	// Fatal is called once, from the OSD's loop, when it cannot go on: its disk has failed, or another disk has taken its number. Stop it then.
	Fatal func(error)
}

// OSD is one running OSD on its own thread.
type OSD struct {
	Num      layout.OSDNum
	Instance uint64
	StoreID  layout.StoreID

	o      OSDOptions
	t      *Thread
	part   *config.Part
	reg    *etcd.Registry
	disk   loop.Disk
	st     *store.Store
	osd    *osd.OSD
	failed bool // on the loop: the store or the OSD has given up
}

// StartOSD opens the disk, replays its journal and starts the OSD. It returns when the OSD listens; being up in the cluster comes later. With a disk that cannot be trusted it waits until it
// can be emptied or was accepted (Succeed).
func StartOSD(ctx context.Context, o OSDOptions) (*OSD, error) {
	d, err := OpenOSD(ctx, o)
	for osd.Untrusted(err) && !o.Config.Values().Bool("readonly") {
		o.Log.Error("the OSD does not start yet", "err", err)
		if err := Succeed(ctx, o, err); err != nil {
			return nil, err
		}
		d, err = OpenOSD(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	if err := d.Serve(); err != nil {
		return nil, err
	}
	return d, nil
}

// OpenOSD opens the disk and replays its journal, which may take a while. The cluster does not know of the OSD before Serve.
func OpenOSD(ctx context.Context, o OSDOptions) (*OSD, error) {
	t, err := NewThread(o.Config.Values().String("loop"), "osd."+strconv.FormatUint(uint64(o.Num), 10), o.Log)
	if err != nil {
		return nil, err
	}
	d := &OSD{Num: o.Num, Instance: Instance(), o: o, t: t, part: o.Config.Part(t.Later)}
	if err := d.open(ctx); err != nil {
		d.Kill()
		return nil, err
	}
	return d, nil
}

func (d *OSD) open(ctx context.Context) error {
	var err error
	t, o, v := d.t, d.o, d.o.Config.Values()
	name := fmt.Sprintf("OSD %d", o.Num)
	if err := lockMemory(v); err != nil {
		return err
	}
	disk := loop.DiskOptions{Exclusive: !v.Bool("disable_device_lock"), ReadOnly: v.Bool("readonly")}
	disks, path := DisksOf(v, o.Device), o.Device
	if !t.Do(func() { d.disk, path, err = disks.Open(t, v, disk) }) {
		err = errEnded
	}
	if err != nil {
		return diskError(name, path, err)
	}
	owner, err := d.place(ctx)
	if err != nil {
		return err
	}
	d.st, err = Await(ctx, t, func(done func(*store.Store, error)) {
		so := store.Options{Log: o.Log, ReadOnly: v.Bool("readonly"), Owner: owner, OnFailure: d.storeFailed, Throttle: throttle(v)}
		if v.Bool("discard_on_start") {
			so.MinDiscard = v.Bytes("min_discard_size")
		}
		store.Open(t, d.disk, so, done)
	})
	if err != nil {
		return storeError(name, disks.String(), err)
	}
	d.StoreID = d.st.Superblock().StoreID
	return nil
}

// place says whose the disk is to be, and compares it with what the cluster knows, before anything is written to it. It waits for etcd: an OSD cannot start without.
func (d *OSD) place(ctx context.Context) (store.Owner, error) {
	o, v := d.o, d.o.Config.Values()
	k := &Link{Thread: d.t, Config: v}
	var err error
	d.t.Do(func() { k.Registry, err = OpenRegistry(d.t, v, o.Log) })
	if err != nil {
		return store.Owner{}, err
	}
	defer d.t.Do(k.Registry.Close)
	var s *cluster.Snapshot
	for s, err = k.Snapshot(ctx, cluster.SectionConfig|cluster.SectionOSDs|cluster.SectionStores); err != nil; s, err = k.Snapshot(ctx, cluster.SectionConfig|cluster.SectionOSDs|cluster.SectionStores) {
		if ctx.Err() != nil {
			return store.Owner{}, ctx.Err()
		}
		o.Log.Warn("waiting for etcd", "err", err)
	}
	owner := store.Owner{OSD: o.Num}
	if s.ClusterID != nil {
		owner.Cluster = s.ClusterID.ID
	}
	_, err = Await(ctx, d.t, func(done func(struct{}, error)) {
		store.Peek(d.t, d.disk, func(sb store.Superblock, err error) {
			if err != nil {
				done(struct{}{}, nil) // opening it says more
				return
			}
			po := PeerOptions(v)
			po.Instance, po.Key, po.Log = d.Instance, o.Key, o.Log
			osd.CheckPlace(d.t, s, o.Num, &sb, po, func(err error) { done(struct{}{}, err) })
		})
	})
	return owner, err
}

// Serve starts the OSD on its open disk. After an error it has ended.
func (d *OSD) Serve() error {
	var err error
	if !d.t.Do(func() { err = d.serve() }) {
		err = errEnded
	}
	if err != nil {
		d.Kill()
	}
	return err
}

// serve connects to etcd and starts the OSD; on the loop.
func (d *OSD) serve() (err error) {
	o, v := d.o, d.o.Config.Values()
	if d.reg, err = OpenRegistry(d.t, v, o.Log); err != nil {
		return err
	}
	d.osd, err = osd.Start(d.t, osd.Options{
		Num: o.Num, Instance: d.Instance, Host: o.Host, Version: o.Version, Bind: o.Bind, Key: o.Key, AllowLegacy: AllowLegacy(v), Registry: d.reg, Store: d.st,
		LeaseTime: v.Duration("etcd_lease_ttl"), LockTime: v.Duration("pg_lock_time"), LockConfirm: v.Bool("lock_confirm"), StatsInterval: v.Duration("etcd_stats_interval"),
		RecoveryDepth: int(v.Int("recovery_queue_depth")), Peer: PeerOptions(v), Log: o.Log, Fatal: d.fatal,
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("OSD %d cannot listen", o.Num), Err: err, Way: "free the port, or give another --bind_address or --bind_port"}
	}
	if err == nil {
		tuneRegistry(d.part, d.reg)
		tuneOSD(d.part, d.osd)
		tuneStore(d.part, d.st)
	}
	return err
}

// Follow keeps the configuration as config/global is. One part of a process does that, once it serves.
func (d *OSD) Follow() { d.t.Do(func() { Follow(d.t, d.reg, d.o.Config) }) }

func (d *OSD) storeFailed(err error) {
	if d.osd != nil {
		d.osd.StoreFailed(err)
		return
	}
	d.fatal(err)
}

func (d *OSD) fatal(err error) {
	if d.failed {
		return
	}
	d.failed = true
	if d.o.Fatal != nil {
		d.o.Fatal(err)
	}
}

// Stop ends the OSD in order: its PGs are handed over, its store is closed. When ctx ends first, the thread is ended as it is; nothing acknowledged is lost.
func (d *OSD) Stop(ctx context.Context) error {
	_, err := Await(ctx, d.t, func(done func(struct{}, error)) {
		if d.failed {
			done(struct{}{}, nil)
			return
		}
		d.osd.Stop(func() {
			d.st.Close(func() { d.disk.Close(func() { done(struct{}{}, nil) }) })
		})
	})
	d.Kill()
	return err
}

// Leave says that all OSDs of the cluster are about to stop (osd.OSD.Leave).
func (d *OSD) Leave(ctx context.Context) error {
	_, err := Await(ctx, d.t, func(done func(struct{}, error)) {
		if d.osd != nil {
			d.osd.Leave()
		}
		done(struct{}{}, nil)
	})
	return err
}

// Kill ends the thread at once, as the death of a process would.
func (d *OSD) Kill() {
	d.part.End()
	d.t.Do(d.close)
	d.t.Stop()
}

func (d *OSD) close() {
	if d.reg != nil {
		d.reg.Close()
	}
}

// PeerOptions are the times of connections between daemons.
func PeerOptions(v *config.Values) (o peer.Options) {
	setPeerTimes(&o, v)
	return o
}

// AllowLegacy decides about clients without the cluster key; nil when there are none.
func AllowLegacy(v *config.Values) func(loop.Addr) bool {
	if !v.Bool("allow_legacy_clients") {
		return nil
	}
	nets := v.Networks("legacy_client_networks")
	return func(remote loop.Addr) bool {
		host, _, err := net.SplitHostPort(remote.Address)
		if err != nil {
			return false
		}
		a, err := netip.ParseAddr(host)
		if err != nil {
			return false
		}
		for _, n := range nets {
			if n.Contains(a.Unmap().WithZone("")) {
				return true
			}
		}
		return false
	}
}

// OpenDisk opens a disk, through the page cache where the file system refuses direct I/O. It is called on the loop.
func OpenDisk(l loop.Loop, path string, o loop.DiskOptions) (loop.Disk, error) {
	d, err := l.OpenDisk(path, o)
	if errors.Is(err, syscall.EINVAL) && !o.Buffered {
		l.Log().Info("the file system refuses direct I/O; using the page cache", "device", path)
		o.Buffered = true
		return l.OpenDisk(path, o)
	}
	return d, err
}

func diskError(name, device string, err error) error {
	e := &admin.Error{Kind: admin.Failed, What: fmt.Sprintf("%s: cannot open its disk %s", name, device), Err: err}
	switch {
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENOMEDIUM):
		e.Kind, e.Way = admin.Halted, "the disk is gone or has failed: look at its cables and at the kernel's log, or replace it"
	case errors.Is(err, syscall.ENOENT):
		e.Kind, e.Way = admin.NotFound, "check --data_device, --meta_device and --journal_device; `holdfast disk format` makes a new OSD"
	case errors.Is(err, syscall.EACCES):
		e.Way = "run as a user who may read and write it"
	case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, syscall.EBUSY):
		e.Kind, e.Way = admin.Refused, "another process uses it: stop that one first"
	}
	return e
}

func storeError(name, device string, err error) error {
	if problem := DeviceProblem(fmt.Sprintf("%s: its devices do not belong together (%s)", name, device), err); problem != nil {
		return problem
	}
	e := &admin.Error{Kind: admin.Failed, What: fmt.Sprintf("%s: cannot use its disk %s", name, device), Err: err}
	var damaged *store.DamagedError
	var foreign *store.NotStoreError
	switch {
	case errors.As(err, &damaged):
		e.Way = "`holdfast disk accept " + device + "` says what may be lost, and takes the damage out; `holdfast disk check " + device + "` looks closer"
	case errors.As(err, new(*store.SetBackError)):
		e.Kind, e.Way = admin.Refused, "put the right disk back, or see `holdfast disk accept "+device+"`"
	case errors.As(err, &foreign):
		e.Kind, e.Way = admin.Refused, "is it the right device? `holdfast disk format "+device+"` makes an empty OSD of it, to be refilled from the other copies"
	}
	return e
}
