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
	memoryIdle  = 4 << 20 // a second in which less is allocated is idle
	memoryOver  = 4 << 20 // beyond 5/4 of what is in use
	memoryPause = 10 * time.Second
)

// ReturnMemory gives memory back to the system after a peak, once the process is idle, until ctx is done. Peering makes lists of all objects of a PG, and an OSD that starts does so for each of its PGs: the Go runtime collects what is left of that only
// when as much again has been used, and keeps the memory for minutes.
func ReturnMemory(ctx context.Context) {
	var m memory
	m.look(time.Now())
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
	samples   []metrics.Sample
	allocated uint64 // ever
	last      time.Time
}

// look reports whether giving memory back is worth while now.
func (m *memory) look(now time.Time) bool {
	if m.samples == nil {
		for _, name := range []string{"objects:bytes", "unused:bytes", "free:bytes"} {
			m.samples = append(m.samples, metrics.Sample{Name: "/memory/classes/heap/" + name})
		}
		m.samples = append(m.samples, metrics.Sample{Name: "/gc/heap/live:bytes"}, metrics.Sample{Name: "/gc/heap/allocs:bytes"})
	}
	metrics.Read(m.samples)
	var v [5]uint64
	for i, s := range m.samples {
		v[i] = s.Value.Uint64()
	}
	held, live, used := v[0]+v[1]+v[2], v[3], v[4]-m.allocated
	m.allocated = v[4]
	if used >= memoryIdle || held <= live+live/4+memoryOver || now.Sub(m.last) < memoryPause {
		return false
	}
	m.last = now
	return true
}
