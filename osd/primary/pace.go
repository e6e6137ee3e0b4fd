package primary

import (
	"cmp"
	"time"
)

// Pacing says how recovery shares the disks with clients.
//
// An OSD's load is how many operations of clients are under way on it, on the average over an interval. Up to ClientLow recovery has UtilHigh of the time of each copy that may be under way,
// at ClientHigh and above UtilLow, in between a straight line: a copy that took L is followed by a pause of L/share - L. When the load is at most ClientLow, up to IdleDepth copies may be under
// way instead of Depth: as many as end within idleLatency, since so long the first operation of a client may have to wait behind them, be it on a slow disk or on one that many primaries fill. Beside more than copyCost operations a copy matters less than beside one, and the share grows with them: recovery has UtilLow of all that is done.
type Pacing struct {
	Depth      int           // recovery_queue_depth: objects recovered at once in the background, over all PGs
	IdleDepth  int           // recovery_idle_queue_depth: the most while clients are quiet, if it is more
	Pause      time.Duration // recovery_sleep_us: after each object where Interval is 0
	Interval   time.Duration // recovery_tune_interval: how often the pace is decided; 0: never
	UtilLow    float64       // recovery_tune_util_low
	UtilHigh   float64       // recovery_tune_util_high
	ClientLow  float64       // recovery_tune_client_util_low
	ClientHigh float64       // recovery_tune_client_util_high
	Samples    int           // recovery_tune_agg_interval: intervals over which the load is averaged when it falls
	PauseMin   time.Duration // recovery_tune_sleep_min_us: a shorter pause is left out
	PauseMax   time.Duration // recovery_tune_sleep_cutoff_us: no pause is longer
}

// DefaultPacing is what the parameters say where nobody has set them.
func DefaultPacing() Pacing {
	return Pacing{Depth: 1, IdleDepth: 64, Interval: time.Second, UtilLow: 0.1, UtilHigh: 1, ClientLow: 0, ClientHigh: 0.5, Samples: 10, PauseMin: 10 * time.Microsecond, PauseMax: 10 * time.Second}
}

// leastShare is the least of what recovery gets, and the load below which clients count as quiet, whatever the parameters say: a share of nothing would never end.
const leastShare = 0.01

// paceSample is what happened in one interval.
type paceSample struct {
	span   time.Duration
	client time.Duration // what clients' operations took, one with another
	copies int           // background copies that ended
	took   time.Duration // what these took, one with another
}

// idleLatency is how long a copy may take while clients are quiet.
const idleLatency = 50 * time.Millisecond

// idleStart is how many copies are under way at first while clients are quiet.
const idleStart = 16

// copyCost is how many operations of clients cost about as much as a copy.
const copyCost = 4

// pacer decides the pace. It is a value: its owner gives it one sample in each interval and does as it says.
type pacer struct {
	kept  []paceSample // the last ones, oldest first
	idle  bool         // clients were quiet at the last sample
	depth int          // copies under way while they are
}

// pace is how recovery goes on until the next sample.
type pace struct {
	depth int     // copies under way or resting
	rest  float64 // each is followed by a pause of so many times what it took
	yield float64 // the same while an operation of a client is under way that was not reckoned with
}

// step takes a sample in. A load that rises counts at once; one that falls is averaged over the samples that are kept, until clients are quiet.
func (c *pacer) step(p *Pacing, s paceSample) pace {
	if n := len(c.kept) + 1 - max(p.Samples, 1); n > 0 {
		c.kept = c.kept[:copy(c.kept, c.kept[n:])]
	}
	c.kept = append(c.kept, s)
	quiet := p.quiet(s.load())
	if c.idle && quiet && s.copies > 0 {
		c.adapt(p, s.took/time.Duration(s.copies))
	}
	c.idle = quiet
	return c.decide(p)
}

// adapt finds the depth at which copies end in time, latency being what they took at the present one.
func (c *pacer) adapt(p *Pacing, latency time.Duration) {
	c.depth = c.quietDepth(p)
	switch {
	case latency > idleLatency:
		c.depth = max(1, int(float64(c.depth)*0.75*float64(idleLatency)/float64(latency)))
	case latency < idleLatency/2:
		c.depth *= 2
	}
}

// quietDepth is how many copies may be under way while clients are quiet.
func (c *pacer) quietDepth(p *Pacing) int {
	return max(p.Depth, min(cmp.Or(c.depth, idleStart), p.IdleDepth))
}

// decide is the pace by the samples that are there.
func (c *pacer) decide(p *Pacing) pace {
	if p.Interval == 0 {
		return pace{depth: p.Depth}
	}
	var sum, s paceSample
	for _, s = range c.kept {
		sum.span, sum.client = sum.span+s.span, sum.client+s.client
	}
	load := s.load()
	if !p.quiet(load) {
		load = max(load, sum.load())
	}
	v := pace{depth: p.Depth, rest: 1/p.share(load) - 1, yield: 1/p.share(p.ClientHigh) - 1}
	if p.quiet(load) {
		v.depth = c.quietDepth(p)
	}
	return v
}

// pause is how long a place for a copy stays empty after one that took so long.
func (p *Pacing) pause(rest float64, took time.Duration) time.Duration {
	if p.Interval == 0 {
		return p.Pause
	}
	d := min(time.Duration(rest*float64(took)), p.PauseMax)
	if d < p.PauseMin {
		return 0
	}
	return d
}

// load is how many operations of clients were under way on the average.
func (s paceSample) load() float64 {
	if s.span <= 0 {
		return 0
	}
	return float64(s.client) / float64(s.span)
}

// quiet reports whether clients count as quiet at such a load.
func (p *Pacing) quiet(load float64) bool { return load <= max(p.ClientLow, leastShare) }

// share is what recovery gets of the time of each of its copies beside such a load, at most 1.
func (p *Pacing) share(load float64) float64 {
	low, high := max(p.ClientLow, leastShare), p.ClientHigh
	share := p.UtilHigh
	switch {
	case p.quiet(load):
	case load >= high:
		share = min(p.UtilLow*max(1, load/copyCost), p.UtilHigh)
	default:
		share -= (p.UtilHigh - p.UtilLow) * (load - low) / (high - low)
	}
	return min(max(share, leastShare), 1)
}
