package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

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
