package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/core/layout"
)

// PGConfig is pg/config: where every PG of every pool is to be.
type PGConfig struct {
	Meta
	Hash         string
	Pools        map[layout.PoolID][]PGTarget // by pool; the PG numbered n is at n-1
	Backfillfull []layout.PoolID
}

// PGTarget is one PG of PGConfig.
type PGTarget struct {
	OSDSet  []layout.OSDNum // one per role; 0 is an empty slot
	Primary layout.OSDNum   // 0: nobody
	Pause   bool            // its primary must stop it
}

// Target finds a PG.
func (c *PGConfig) Target(pg layout.PGID) (PGTarget, bool) {
	if c == nil || pg.Num == 0 || uint64(pg.Num) > uint64(len(c.Pools[pg.Pool])) {
		return PGTarget{}, false
	}
	return c.Pools[pg.Pool][pg.Num-1], true
}

// Count is the number of PGs that the pool really has.
func (c *PGConfig) Count(pool layout.PoolID) uint32 {
	if c == nil {
		return 0
	}
	return uint32(len(c.Pools[pool]))
}

// IsBackfillfull reports whether the pool's OSDs are too full for recovery to fill them more.
func (c *PGConfig) IsBackfillfull(pool layout.PoolID) bool {
	return c != nil && slices.Contains(c.Backfillfull, pool)
}

type pgTargetJSON struct {
	OSDSet  []Number `json:"osd_set"`
	Primary Number   `json:"primary"`
	Pause   Flag     `json:"pause,omitempty"`
}

type pgConfigJSON struct {
	Hash         string                                `json:"hash,omitempty"`
	Items        map[string]map[string]json.RawMessage `json:"items"`
	Backfillfull []Number                              `json:"backfillfull_pools,omitempty"`
}

// ReadPGConfig reads pg/config (or the items of history/last_clean_pgs). A pool whose PGs are not numbered 1..N, or are malformed, is left out and named in faults.
func ReadPGConfig(data []byte) (c *PGConfig, faults []*PoolError, err error) {
	var raw *pgConfigJSON
	if err := decode(data, &raw); err != nil {
		return nil, nil, err
	}
	if raw == nil {
		return nil, nil, errors.New("is null, not an object")
	}
	c = &PGConfig{Hash: raw.Hash, Pools: make(map[layout.PoolID][]PGTarget, len(raw.Items))}
	for _, n := range raw.Backfillfull {
		if n > 0 && n < 1<<16 {
			c.Backfillfull = append(c.Backfillfull, layout.PoolID(n))
		}
	}
	for _, text := range slices.SortedFunc(maps.Keys(raw.Items), byNumber) {
		pool, ok := parsePool(text)
		if !ok {
			faults = append(faults, &PoolError{Name: text, Err: errors.New("the id is not a number from 1 to 65535")})
			continue
		}
		pgs, err := readTargets(raw.Items[text])
		if err != nil {
			faults = append(faults, &PoolError{ID: pool, Name: text, Err: err})
			continue
		}
		if len(pgs) > 0 {
			c.Pools[pool] = pgs
		}
	}
	return c, faults, nil
}

func readTargets(raw map[string]json.RawMessage) ([]PGTarget, error) {
	pgs := make([]PGTarget, len(raw))
	for _, text := range slices.SortedFunc(maps.Keys(raw), byNumber) {
		n, ok := parseID(text, maxPGs)
		if !ok || n > uint64(len(raw)) {
			return nil, fmt.Errorf("PG %q: the %d PGs are not numbered 1..%d", text, len(raw), len(raw))
		}
		var pg pgTargetJSON
		if err := decode(raw[text], &pg); err != nil {
			return nil, fmt.Errorf("PG %d: %w", n, err)
		}
		if len(pg.OSDSet) == 0 || len(pg.OSDSet) > MaxPGSize {
			return nil, fmt.Errorf("PG %d: osd_set has %d OSDs, want 1..%d", n, len(pg.OSDSet), MaxPGSize)
		}
		t := PGTarget{OSDSet: osdNums(pg.OSDSet), Primary: layout.OSDNum(pg.Primary), Pause: bool(pg.Pause)}
		for i, osd := range t.OSDSet {
			if osd != 0 && slices.Contains(t.OSDSet[:i], osd) {
				return nil, fmt.Errorf("PG %d: osd_set names OSD %d twice", n, osd)
			}
		}
		pgs[n-1] = t
	}
	return pgs, nil
}

// MarshalJSON writes the value of pg/config.
func (c *PGConfig) MarshalJSON() ([]byte, error) {
	out := struct {
		Hash         string                             `json:"hash,omitempty"`
		Items        map[string]map[string]pgTargetJSON `json:"items"`
		Backfillfull []layout.PoolID                    `json:"backfillfull_pools,omitempty"`
	}{Hash: c.Hash, Items: make(map[string]map[string]pgTargetJSON, len(c.Pools)), Backfillfull: c.Backfillfull}
	for pool, pgs := range c.Pools {
		items := make(map[string]pgTargetJSON, len(pgs))
		for i, t := range pgs {
			items[strconv.Itoa(i+1)] = pgTargetJSON{OSDSet: numbers(t.OSDSet), Primary: Number(t.Primary), Pause: Flag(t.Pause)}
		}
		out.Items[strconv.Itoa(int(pool))] = items
	}
	return json.Marshal(out)
}

func osdNums(in []Number) []layout.OSDNum {
	if in == nil {
		return nil
	}
	out := make([]layout.OSDNum, len(in))
	for i, n := range in {
		out[i] = layout.OSDNum(n)
	}
	return out
}

func numbers(in []layout.OSDNum) []Number {
	out := make([]Number, len(in))
	for i, n := range in {
		out[i] = Number(n)
	}
	return out
}

// PGState is pg/state/<pool>/<pg>, which its primary holds under its lease.
type PGState struct {
	Meta
	Primary layout.OSDNum
	State   StateBits
	Peers   []layout.OSDNum
}

type pgStateJSON struct {
	Primary Number    `json:"primary"`
	State   StateBits `json:"state"`
	Peers   []Number  `json:"peers"`
}

// MarshalJSON writes it.
func (s *PGState) MarshalJSON() ([]byte, error) {
	return json.Marshal(pgStateJSON{Number(s.Primary), s.State, numbers(s.Peers)})
}

// UnmarshalJSON reads it and checks the rules of states.
func (s *PGState) UnmarshalJSON(b []byte) error {
	var raw pgStateJSON
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if raw.Primary == 0 {
		return errors.New("primary is missing")
	}
	if err := raw.State.Check(); err != nil {
		return err
	}
	s.Primary, s.State, s.Peers = layout.OSDNum(raw.Primary), raw.State, osdNums(raw.Peers)
	return nil
}

// PGHistory is pg/history/<pool>/<pg>: derived from our PGRecord, for stock tools. Of AllPeers, those that the record does not name may still hold copies that nobody needs.
type PGHistory struct {
	Meta
	Epoch     uint64
	OSDSets   [][]layout.OSDNum
	AllPeers  []layout.OSDNum
	NextScrub int64 // Unix time, 0: not set
}

type pgHistoryJSON struct {
	Epoch     Number     `json:"epoch"`
	OSDSets   [][]Number `json:"osd_sets"`
	AllPeers  []Number   `json:"all_peers"`
	NextScrub Number     `json:"next_scrub,omitempty"`
}

// MarshalJSON writes it.
func (h *PGHistory) MarshalJSON() ([]byte, error) {
	raw := pgHistoryJSON{Epoch: Number(h.Epoch), OSDSets: make([][]Number, len(h.OSDSets)), AllPeers: numbers(h.AllPeers), NextScrub: Number(h.NextScrub)}
	for i, set := range h.OSDSets {
		raw.OSDSets[i] = numbers(set)
	}
	return json.Marshal(raw)
}

// UnmarshalJSON reads it.
func (h *PGHistory) UnmarshalJSON(b []byte) error {
	var raw pgHistoryJSON
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	h.Epoch, h.AllPeers, h.NextScrub, h.OSDSets = uint64(raw.Epoch), osdNums(raw.AllPeers), int64(raw.NextScrub), nil
	for _, set := range raw.OSDSets {
		h.OSDSets = append(h.OSDSets, osdNums(set))
	}
	return nil
}

// PGStats is pgstats/<pool>/<pg>.
type PGStats struct {
	Meta            `json:"-"`
	ObjectCount     Number   `json:"object_count"`
	CleanCount      Number   `json:"clean_count"`
	MisplacedCount  Number   `json:"misplaced_count"`
	DegradedCount   Number   `json:"degraded_count"`
	IncompleteCount Number   `json:"incomplete_count"`
	CorruptedCount  Number   `json:"corrupted_count,omitempty"`
	WriteOSDSet     []Number `json:"write_osd_set"`

	// Ours.
	Reason        string `json:"reason,omitempty"`         // for people: why the PG waits or is not whole, and what would help; see ClipReason
	RecoveryLeft  Number `json:"recovery_left,omitempty"`  // objects that are not whole on the acting set
	RecoveryTotal Number `json:"recovery_total,omitempty"` // as many as there were when the PG began to serve
	RecoveryRate  Number `json:"recovery_rate,omitempty"`  // of RecoveryLeft, per second lately
	// RecoveryMisplaced are those of RecoveryLeft of which there are enough copies, if elsewhere.
	RecoveryMisplaced Number `json:"recovery_misplaced,omitempty"`

	InconsistentCount Number `json:"inconsistent_count,omitempty"` // objects whose copies differ; RecoveryLeft is without them

	UnfoundCount Number `json:"unfound_count,omitempty"` // of RecoveryLeft, those that no OSD could give at the last try
}

// MaxReason bounds a reason, in bytes.
const MaxReason = 600

// ClipReason makes text fit for a reason: one line, bounded, without what a terminal might obey.
func ClipReason(text string) string {
	const more = "..."
	var b strings.Builder
	for _, c := range text {
		if !unicode.IsPrint(c) {
			c = ' '
		}
		if b.Len()+utf8.RuneLen(c) > MaxReason-len(more) {
			return b.String() + more
		}
		b.WriteRune(c)
	}
	return b.String()
}
