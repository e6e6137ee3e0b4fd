package sim

import (
	"hash/fnv"
	"io"
	"math/rand/v2"
	"time"
)

// Stream is the sub-stream of the world's seed that has this name; each call with the name gives the same generator. Every kind of choice draws from a stream of its own
// (a disk's latencies, its crashes and each of its kinds of faults, the network's delays and its pieces ...), so that adding one kind of fault leaves the draws of the others alone.
func (w *World) Stream(name string) *rand.Rand {
	r := w.streams[name]
	if r == nil {
		h := fnv.New64a()
		_, _ = io.WriteString(h, name)
		r = rand.New(rand.NewPCG(w.seed, h.Sum64()))
		w.streams[name] = r
	}
	return r
}

// Delay is a distribution of durations: evenly from Min to Max, and with odds of Rare (0 to 1) from Max to Worst instead.
type Delay struct {
	Min, Max time.Duration
	Worst    time.Duration
	Rare     float64
}

func (d *Delay) draw(r *rand.Rand) time.Duration {
	if d.Rare > 0 && r.Float64() < d.Rare {
		return between(r, d.Max, d.Worst)
	}
	return between(r, d.Min, d.Max)
}

// between draws a duration from lo to hi.
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// chance draws from r, unless the odds are 0.
func chance(odds float64, r *rand.Rand) bool { return odds > 0 && r.Float64() < odds }
