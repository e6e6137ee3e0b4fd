package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// When memory is given back.
const (
	memoryLook  = time.Second
	memoryIdle  = 4 << 20  // a second in which less is allocated is idle
	memoryUsed  = 16 << 20 // allocated since memory was given back last
	memoryPause = 10 * time.Second
)

// ReturnMemory gives memory back to the system after a peak, once the process is idle, until ctx is done. Peering makes lists of all objects of a PG, and an OSD that starts does so for each of its PGs: the Go runtime collects what is left of that only
// when as much again has been used, and keeps the memory for minutes.
func ReturnMemory(ctx context.Context) {
	m := memory{allocated: []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}}
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if m.look(now) {
				debug.FreeOSMemory()
			}
		}
	}
}

type memory struct {
	allocated []metrics.Sample
	before    uint64 // allocated ever, a look ago
	given     uint64 // allocated ever, when memory was given back last
	last      time.Time
}

// look reports whether giving memory back is worth while now.
func (m *memory) look(now time.Time) bool {
	metrics.Read(m.allocated)
	total := m.allocated[0].Value.Uint64()
	second := total - m.before
	m.before = total
	if second >= memoryIdle || total-m.given < memoryUsed || now.Sub(m.last) < memoryPause {
		return false
	}
	m.last, m.given = now, total
	return true
}
