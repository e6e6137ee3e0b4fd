// Package device is what the disk engines of the loops share: opening block devices and files, what is known of them, the checks of an operation, and the bookkeeping of
// running ones. An engine (a ring, a pool of threads) moves the bytes.
package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// open opens path as o says and finds out what it is. The file is in blocking mode and unknown to Go's poller.
func open(path string, o loop.DiskOptions) (*os.File, loop.DiskInfo, bool, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if o.ReadOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	if !o.Buffered {
		flags |= unix.O_DIRECT
	}
	var st unix.Stat_t
	if o.Exclusive && unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		flags |= unix.O_EXCL // of a block device: refused when it, or a part of it, is mounted or claimed by somebody else, by whatever name (open(2))
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		if errors.Is(err, unix.EINVAL) && !o.Buffered {
			return nil, loop.DiskInfo{}, false, fmt.Errorf("open disk %s: the file system refuses direct I/O; put it on another one or open it Buffered: %w", path, err)
		}
		return nil, loop.DiskInfo{}, false, fmt.Errorf("open disk %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	info, block, err := inspect(f, o)
	if err == nil && o.Exclusive {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("in use by %s (flock); stop that one first: %w", lockedBy(fd), err)
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, loop.DiskInfo{}, false, fmt.Errorf("open disk %s: %w", path, err)
	}
	return f, info, block, nil
}

// lockedBy names the process that holds the lock on a file (proc_locks(5)).
func lockedBy(fd int) string {
	var st unix.Stat_t
	text, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(fd, &st) != nil {
		return "another process"
	}
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(text)) {
		// 1: FLOCK  ADVISORY  WRITE 12345 fe:00:1234 0 EOF; one that waits has -> behind the number.
		if f := strings.Fields(line); len(f) >= 6 && f[1] == "FLOCK" && f[5] == id {
			name, err := os.ReadFile("/proc/" + f[4] + "/comm")
			if err != nil {
				return "process " + f[4]
			}
			return fmt.Sprintf("process %s (%s)", f[4], strings.TrimSpace(string(name)))
		}
	}
	return "another process"
}

func inspect(f *os.File, o loop.DiskOptions) (info loop.DiskInfo, block bool, err error) {
	var st unix.Stat_t
	fd := int(f.Fd())
	if err := unix.Fstat(fd, &st); err != nil {
		return info, false, err
	}
	info.Identity = f.Name()
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		info.Size = st.Size
		info.SectorSize = fileSector(fd, o)
		return info, false, nil
	case unix.S_IFBLK:
		if err := ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&info.Size)); err != nil {
			return info, false, fmt.Errorf("read its size: %w", err)
		}
		var sector int32
		if err := ioctl(fd, unix.BLKSSZGET, unsafe.Pointer(&sector)); err != nil {
			return info, false, fmt.Errorf("read its sector size: %w", err)
		}
		info.SectorSize = int(sector)
		var physical uint32
		if err := ioctl(fd, unix.BLKPBSZGET, unsafe.Pointer(&physical)); err != nil {
			return info, false, fmt.Errorf("read its physical sector size: %w", err)
		}
		info.WritesAtOnce = int(physical)
		major, minor := unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
		sysfs := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
		info.WriteThrough = writeThrough(sysfs)
		if id := serial(sysfs); id != "" {
			info.Identity = id
		}
		return info, true, nil
	}
	return info, false, errors.New("neither a block device nor a regular file")
}

// fileSector is 512 where the file system says that direct I/O may be that small (statx, STATX_DIOALIGN, Linux 6.1), else 4096.
func fileSector(fd int, o loop.DiskOptions) int {
	var st unix.Statx_t
	if !o.Buffered && unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) == nil && st.Mask&unix.STATX_DIOALIGN != 0 &&
		st.Dio_offset_align > 0 && st.Dio_offset_align <= 512 && st.Dio_mem_align <= 512 {
		return 512
	}
	return 4096
}

// writeThrough reads queue/write_cache of the device, or of the one that a partition is on (Linux Documentation/ABI/stable/sysfs-block).
func writeThrough(sysfs string) bool {
	for _, name := range []string{"queue/write_cache", "../queue/write_cache"} {
		if b, err := readBelow(sysfs, name); err == nil {
			return b == "write through"
		}
	}
	return false
}

// serial is the device's serial number; that of a partition has the partition's number behind it.
func serial(sysfs string) string {
	part, _ := readBelow(sysfs, "partition")
	prefix := ""
	if part != "" {
		prefix = "../"
	}
	for _, name := range []string{"serial", "device/serial", "wwid", "device/wwid"} {
		if s, err := readBelow(sysfs, prefix+name); err == nil && s != "" {
			if part != "" {
				s += "-part" + part
			}
			return s
		}
	}
	return ""
}

func readBelow(sysfs, name string) (string, error) {
	dir, err := filepath.EvalSymlinks(sysfs)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b)), err
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}
