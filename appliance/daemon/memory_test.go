package daemon

import (
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

func TestMemoryOfAPeakIsGivenBackWhenItIsOver(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // so that no collection comes in between
	var m memory
	m.due()
	if m.due() {
		t.Fatal("memory is given back while nothing was allocated")
	}
	var peak [][]byte
	for range 64 {
		peak = append(peak, make([]byte, 1<<20))
	}
	for _, p := range peak {
		p[0] = 1
	}
	peak = nil
	if !m.due() {
		t.Fatal("the memory of a peak is kept")
	}
	debug.FreeOSMemory()
	if m.due() {
		t.Fatal("memory is given back again and again")
	}
	held := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	if metrics.Read(held); held[0].Value.Uint64() > 16<<20 {
		t.Fatalf("%d bytes are still held", held[0].Value.Uint64())
	}
}
