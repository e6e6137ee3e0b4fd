package looptest

import "runtime"

// perRun is the average number of heap objects that a call of f makes in the whole process.
func perRun(n int, f func()) float64 {
	var before, after runtime.MemStats
	f()
	runtime.ReadMemStats(&before)
	for range n {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}
