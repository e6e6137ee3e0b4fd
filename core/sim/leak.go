package sim

import "testing"

// CheckLeaks fails t when a living process has not given back what it borrowed from Alloc. Call it when the work is done; connections and operations in flight hold buffers.
func (w *World) CheckLeaks(t testing.TB) {
	t.Helper()
	for _, l := range w.loops {
		if n := l.Live(); n != 0 && !l.dead {
			t.Errorf("process %s holds %d buffers that it should have released", l.name, n)
		}
	}
}
