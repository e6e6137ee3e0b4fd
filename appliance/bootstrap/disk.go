package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd/store"
)

// MakeFile makes a file of the size, with its space reserved where the file system can do that. A file of that size is kept.
func MakeFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return &admin.Error{Kind: admin.Failed, What: "cannot make " + path, Err: err}
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if st.Size() == size {
		return nil
	}
	if err := f.Truncate(size); err != nil {
		return &admin.Error{Kind: admin.Failed, What: "cannot make " + path, Err: err}
	}
	var fs unix.Statfs_t
	inMemory := unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.TMPFS_MAGIC
	if inMemory {
		return f.Sync()
	}
	switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); {
	case errors.Is(err, unix.ENOSPC):
		f.Truncate(0)
		return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("no space for %s (%s)", path, admin.Size(size)), Err: err, Way: "free some, or give a smaller --osd-size"}
	case err != nil && !errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("reserve the space of %s: %w", path, err)
	}
	return f.Sync()
}

// etcdSpace is what is left for etcd, logs and the file system itself.
const etcdSpace = 256 << 20

// CheckSpace refuses a start whose disks would not fit.
func (d *Dir) CheckSpace() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Path, &fs); err != nil {
		return &admin.Error{Kind: admin.Failed, What: "cannot see how much space --dir " + d.Path + " has", Err: err}
	}
	missing := d.Shape.OSDs - len(d.Shape.Made)
	if missing <= 0 {
		return nil
	}
	free := int64(fs.Bavail) * fs.Bsize
	if d.Shape.OSDSize > (free-etcdSpace)/int64(missing) {
		return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("no space in --dir %s: %d disks of %s are to be made there, and %s are free", d.Path, missing, admin.Size(d.Shape.OSDSize), admin.Size(free)),
			Way: "free some, or give a smaller --osd-size or fewer --osds"}
	}
	return nil
}

// StoreConfig is what a disk is formatted with, from the configuration.
func StoreConfig(v *config.Values) store.Config {
	c := store.Config{BlockSize: uint32(v.Bytes("block_size")), Granularity: uint32(v.Bytes("bitmap_granularity")), ChecksumType: store.ChecksumCRC32C, ChecksumBlock: uint32(v.Bytes("csum_block_size"))}
	c.Alignment = uint32(v.Bytes("disk_alignment"))
	if v.String("data_csum_type") == "none" {
		c.ChecksumType = store.ChecksumNone
	}
	c.ChecksumBlock = min(c.ChecksumBlock, c.Granularity)
	if v.From("journal_size") != config.FromDefault {
		c.JournalSize = v.Bytes("journal_size")
	}
	return c
}

// Format makes a store of a disk, or of several.
func Format(ctx context.Context, t *daemon.Thread, v *config.Values, disks daemon.Disks, c store.Config) (store.Superblock, error) {
	path := disks.Data
	sb, err := daemon.Await(ctx, t, func(done func(store.Superblock, error)) {
		d, failed, err := disks.Open(t, v, loop.DiskOptions{Exclusive: true})
		if err != nil {
			path = failed
			done(store.Superblock{}, err)
			return
		}
		store.Format(t, d, c, func(sb store.Superblock, err error) { d.Close(func() { done(sb, err) }) })
	})
	if err != nil {
		e := &admin.Error{Kind: admin.Failed, What: "cannot format " + path, Err: err}
		var occupied *store.OccupiedError
		if errors.As(err, &occupied) || errors.Is(err, unix.EWOULDBLOCK) {
			e.Kind = admin.Refused
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			e.Way = "another process uses it: stop that one first"
		}
		return sb, e
	}
	path = disks.Paths()[sb.Journal.Device]
	if err := writeThrough(ctx, path, sb.Journal.Off+journalStart, sb.Journal.Off+sb.Journal.Len); err != nil {
		return sb, &admin.Error{Kind: admin.Failed, What: "cannot write the journal of " + path, Err: err}
	}
	return sb, nil
}

// journalStart is how much of the journal Format writes itself: its first batch (docs/formats/store.md).
const journalStart = 4096

// writeThrough writes zeroes over a part of a file, so that the file system has given it blocks and written them before somebody waits for it: the first write of each block takes longer than all later ones. Devices,
// and files in memory, need none of this.
func writeThrough(ctx context.Context, path string, from, to int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	var fs unix.Statfs_t
	if err != nil || !st.Mode().IsRegular() || unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		return err
	}
	zeroes := make([]byte, 1<<20)
	for from < to {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n, err := f.WriteAt(zeroes[:min(to-from, int64(len(zeroes)))], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return f.Sync()
}

// MakeDisk makes and formats the file of an OSD that has none, and remembers it. A file that was made and is gone is an error: its copies are lost.
func (d *Dir) MakeDisk(ctx context.Context, t *daemon.Thread, n layout.OSDNum, v *config.Values) error {
	path := d.OSDFile(n)
	for _, made := range d.Shape.Made {
		if layout.OSDNum(made) != n {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return &admin.Error{Kind: admin.NotFound, What: fmt.Sprintf("the disk of OSD %d is gone", n), Err: err,
				Way: fmt.Sprintf("put it back, or make an empty one, to be refilled from the other copies: holdfast disk format --size %d %s", d.Shape.OSDSize, path)}
		}
		return nil
	}
	if err := MakeFile(path, d.Shape.OSDSize); err != nil {
		return err
	}
	c := StoreConfig(v)
	c.Force = true // of an interrupted start: it is not in Made, so no OSD ever ran on it
	if _, err := Format(ctx, t, v, daemon.Disks{Data: path}, c); err != nil {
		return err
	}
	if err := syncDir(d.Path); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	d.Shape.Made = append(d.Shape.Made, int(n))
	return d.Save()
}
