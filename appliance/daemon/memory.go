package daemon

import (
	"context"
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/admin"
	"holdfast/core/config"
)

// lockMemory keeps the memory of the process from being swapped out, if osd_memlock says so. Pages are locked as they are used (MCL_ONFAULT): the Go runtime reserves much more than it uses.
func lockMemory(v *config.Values) error {
	if !v.Bool("osd_memlock") {
		return nil
	}
	// With a limit, and without CAP_IPC_LOCK, what is locked counts; beyond the limit the process could get no memory any more and would die at any later moment.
	none := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err == nil && limit != none && unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none) == nil {
		limit = none
	}
	if err == nil && limit.Cur != unix.RLIM_INFINITY && !mayLock() {
		err = fmt.Errorf("the process may lock %s only (RLIMIT_MEMLOCK)", admin.Size(int64(limit.Cur)))
	}
	if err == nil {
		err = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if err != nil {
		return &admin.Error{Kind: admin.Usage, What: "osd_memlock: memory cannot be locked", Err: err, Way: "set LimitMEMLOCK=infinity in the OSD's unit (`ulimit -l unlimited` in a shell), or osd_memlock to false"}
	}
	return nil
}

// mayLock reports whether the process may lock memory whatever the limit is (CAP_IPC_LOCK).
func mayLock() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}

// When memory is given back.
const (
	memoryLook = 3 * time.Second
	memoryUsed = 16 << 20 // allocated since memory was given back last
)

// ReturnMemory gives memory back to the system that is not needed any more, until ctx is done. Peering makes lists of all objects of a PG, and an OSD that starts does so for each of its PGs: the Go runtime collects what is left of that only
// when as much again has been used, and keeps the memory for minutes.
func ReturnMemory(ctx context.Context) {
	var m memory
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if m.due() {
				debug.FreeOSMemory()
			}
		}
	}
}

type memory struct{ given uint64 } // allocated ever, when memory was given back last

// due reports whether enough was allocated for giving memory back to be worth while.
func (m *memory) due() bool {
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(allocated)
	total := allocated[0].Value.Uint64()
	if total-m.given < memoryUsed {
		return false
	}
	m.given = total
	return true
}
