package cluster

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

// PGScrub is scrub/pg/<pool>/<pg>, ours, which the PG's primary writes: what scrub has done, how far it is, and what it must not be forgotten that it has found.
type PGScrub struct {
	Meta       `json:"-"`
	Generation int64  `json:"generation"` // of the pool,
	PGCount    Number `json:"pg_count"`   // which had so many PGs: of another number only Inconsistent means something
	// Verified is when a pass ended that compared every copy of every object, and after which none was in doubt; Unix time, 0: never. Began is when that pass began.
	Verified int64      `json:"verified,omitempty"`
	Began    int64      `json:"began,omitempty"`
	Pass     *ScrubPass `json:"pass,omitempty"` // under way, or interrupted
	Last     *ScrubPass `json:"last,omitempty"` // the last one that has ended
	// Inconsistent are the objects whose copies differ without its being known which are right. A primary serves none of them before it has compared them.
	Inconsistent []ScrubObject `json:"inconsistent,omitempty"`
}

// MaxInconsistent bounds PGScrub.Inconsistent.
const MaxInconsistent = 10000

// ScrubPass is one pass over a PG, or one over an image.
type ScrubPass struct {
	Began int64  `json:"began"`           // Unix time
	Ended int64  `json:"ended,omitempty"` // 0: it has not
	Inode Number `json:"inode,omitempty"` // objects before this one have been compared
	// Stripe is that object's.
	Stripe       Number `json:"stripe,omitempty"`
	Objects      Number `json:"objects"` // compared
	Total        Number `json:"total"`   // there were, about, when it began
	Bytes        Number `json:"bytes"`   // read, of all copies
	Rate         Number `json:"rate,omitempty"`
	Bad          Number `json:"bad,omitempty"`          // copies that were wrong
	Inconsistent Number `json:"inconsistent,omitempty"` // objects
	Lost         Number `json:"lost,omitempty"`         // objects of which too few copies can be read
	Skipped      Number `json:"skipped,omitempty"`      // objects that could not be compared, because copies were missing
	Partial      bool   `json:"partial,omitempty"`      // a member was missing for some of the time
}

// Sound reports whether everything was compared, and nothing is in doubt.
func (p *ScrubPass) Sound() bool {
	return p.Inconsistent == 0 && p.Lost == 0 && p.Skipped == 0 && !p.Partial
}

// ScrubObject is one object.
type ScrubObject struct {
	Inode  Number `json:"inode"`
	Stripe Number `json:"stripe"`
}

// ID is the object.
func (o ScrubObject) ID() layout.ObjectID {
	return layout.ObjectID{Inode: layout.Inode(o.Inode), Stripe: uint64(o.Stripe)}
}

// ImageScrub is scrub/image/<pool>/<inode>, ours, which `holdfast scrub` writes: the scrub of one layer alone.
type ImageScrub struct {
	Meta     `json:"-"`
	Verified int64      `json:"verified,omitempty"` // as in PGScrub
	Pass     *ScrubPass `json:"pass,omitempty"`     // under way, or interrupted; Stripe is that of the first object that has not been compared
}

// ReadPGScrub reads scrub/pg/<pool>/<pg>.
func ReadPGScrub(kv registry.KV) (*PGScrub, error) {
	return read[PGScrub](registry.Event{KV: kv})
}

func (s *PGScrub) check() error {
	if len(s.Inconsistent) > MaxInconsistent {
		return fmt.Errorf("inconsistent lists %d objects, at most %d are allowed", len(s.Inconsistent), MaxInconsistent)
	}
	return nil
}

// Verified is when all that a layer holds was last compared and found right, Unix time; 0: never, or not since something about it is in doubt. It is when the scrub of its last PG ended, or that of the layer itself, if
// that is newer.
func (s *Snapshot) Verified(i layout.Inode) int64 {
	pool, own := i.Pool(), int64(0)
	if v, ok := s.ImageScrubs.Get(i); ok {
		own = v.Verified
	}
	count, all := s.PGConfig.Count(pool), int64(0)
	for num := uint32(1); num <= count; num++ {
		v, ok := s.PGScrubs.Get(layout.PGID{Pool: pool, Num: num})
		if !ok || v.Generation != s.Generation(pool) {
			return own
		}
		for _, o := range v.Inconsistent {
			if o.ID().Inode == i {
				return 0
			}
		}
		if uint64(v.PGCount) != uint64(count) {
			return own
		}
		if num == 1 || v.Verified < all {
			all = v.Verified
		}
	}
	return max(own, all)
}

// ScrubEvery is the pool's own scrub_interval: a number of seconds, or a text such as "30d". ok is false when it has none that can be read.
func (p *Pool) ScrubEvery() (d time.Duration, ok bool) {
	if p.ScrubInterval == nil {
		return 0, false
	}
	b, err := json.Marshal(p.ScrubInterval)
	if err != nil {
		return 0, false
	}
	d, err = ParseInterval(strings.Trim(string(b), `"`))
	return d, err == nil
}

// ParseInterval reads a time such as "30d", "12h" or "3600": units are s (also without one), m, h, d, M (30 days) and y (365).
func ParseInterval(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	units := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": day, "M": 30 * day, "y": 365 * day}
	number := strings.TrimRight(text, "smhdMy")
	unit, known := units[text[len(number):]]
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || !(f > 0 && f*float64(unit) < math.MaxInt64) {
		return 0, fmt.Errorf("%q is not a time; write 30d, 12h or 3600", text)
	}
	return time.Duration(f * float64(unit)), nil
}
