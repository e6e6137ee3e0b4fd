package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast/core/layout"
)

// Scheme is a pool's redundancy scheme.
type Scheme string

// The schemes. "jerasure" is an old name of ec.
const (
	Replicated Scheme = "replicated"
	XOR        Scheme = "xor"
	EC         Scheme = "ec"
)

// Bounds and defaults of a pool's layout.
const (
	MaxPGSize          = 256
	MaxChunks          = 32 // of an erasure-coded object
	MinBlockSize       = 4 << 10
	MaxBlockSize       = 128 << 20
	DefaultBlockSize   = 128 << 10
	DefaultGranularity = 4 << 10
	MaxPGCount         = maxPGs
)

// Pool is one pool of config/pools. A zero BlockSize, Granularity or ImmediateCommit means the cluster's (config/global).
type Pool struct {
	ID    layout.PoolID `json:"-"`
	Extra Extra         `json:"-"` // fields that we do not know

	Name                string  `json:"name"`
	Scheme              Scheme  `json:"scheme"`
	PGSize              Number  `json:"pg_size"`
	PGMinSize           Number  `json:"pg_minsize"`
	ParityChunks        Number  `json:"parity_chunks,omitempty"`
	PGCount             Number  `json:"pg_count"`
	FailureDomain       string  `json:"failure_domain,omitempty"`
	LevelPlacement      string  `json:"level_placement,omitempty"`
	RawPlacement        any     `json:"raw_placement,omitempty"`
	MaxOSDCombinations  Number  `json:"max_osd_combinations,omitempty"`
	BlockSize           Number  `json:"block_size,omitempty"`         // bytes
	Granularity         Number  `json:"bitmap_granularity,omitempty"` // bytes
	ImmediateCommit     string  `json:"immediate_commit,omitempty"`
	PGStripeSize        Number  `json:"pg_stripe_size,omitempty"` // bytes
	RootNode            string  `json:"root_node,omitempty"`
	OSDTags             Strings `json:"osd_tags,omitempty"`
	PrimaryAffinityTags Strings `json:"primary_affinity_tags,omitempty"`
	ScrubInterval       any     `json:"scrub_interval,omitempty"`
	UsedForApp          string  `json:"used_for_app,omitempty"`
	LocalReads          string  `json:"local_reads,omitempty"`
}

// poolJSON is Pool without its methods.
type poolJSON Pool

// MarshalJSON writes the pool with the fields that we do not know.
func (p *Pool) MarshalJSON() ([]byte, error) { return encodeObject((*poolJSON)(p), p.Extra) }

// UnmarshalJSON reads a pool.
func (p *Pool) UnmarshalJSON(b []byte) (err error) {
	p.Extra, err = decodeObject(b, (*poolJSON)(p))
	if p.Scheme == "jerasure" {
		p.Scheme = EC
	}
	return err
}

// DataChunks is how many chunks of a PG carry data: 1 in replicated pools.
func (p *Pool) DataChunks() int {
	switch p.Scheme {
	case XOR:
		return int(p.PGSize) - 1
	case EC:
		return int(p.PGSize) - int(p.ParityChunks)
	}
	return 1
}

// LendsReads reports whether members besides the primary answer clients' reads.
func (p *Pool) LendsReads() bool {
	return p.Scheme == Replicated && (p.LocalReads == "nearest" || p.LocalReads == "random")
}

// Domain is the level of the placement tree of which a PG uses each node once.
func (p *Pool) Domain() string {
	if p.FailureDomain == "" {
		return "host"
	}
	return p.FailureDomain
}

// Validate returns every fault of the pool, joined.
func (p *Pool) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if p.Name == "" {
		fault("name is empty")
	}
	minSize, maxSize := uint64(1), uint64(MaxPGSize)
	switch p.Scheme {
	case Replicated:
	case XOR, EC:
		minSize, maxSize = 3, MaxChunks
	default:
		fault("scheme is %q, want replicated, xor or ec", p.Scheme)
	}
	size, parity := uint64(p.PGSize), uint64(p.ParityChunks)
	sizeOK := size >= minSize && size <= maxSize
	if !sizeOK {
		fault("pg_size is %d, want %d..%d", size, minSize, maxSize)
	}
	switch {
	case p.Scheme == EC && sizeOK && (parity < 1 || parity > size-2):
		fault("parity_chunks is %d, want 1..%d", parity, size-2)
		sizeOK = false
	case p.Scheme == XOR && parity > 1:
		fault("parity_chunks is %d, want 1 with scheme xor", parity)
	}
	if sizeOK {
		least := uint64(1)
		if p.Scheme == XOR || p.Scheme == EC {
			least = uint64(p.DataChunks())
		}
		if m := uint64(p.PGMinSize); m < least || m > size {
			fault("pg_minsize is %d, want %d..%d", m, least, size)
		}
	}
	if p.PGCount < 1 || p.PGCount > MaxPGCount {
		fault("pg_count is %d, want 1..%d", p.PGCount, MaxPGCount)
	}
	block := uint64(p.BlockSize)
	if block != 0 && (!layout.IsPowerOfTwo(block) || block < MinBlockSize || block > MaxBlockSize) {
		fault("block_size is %d, want a power of two from %d to %d", block, MinBlockSize, MaxBlockSize)
		block = 0
	}
	if err := checkGranularity(uint64(p.Granularity), block); p.Granularity != 0 && err != nil {
		faults = append(faults, err)
	}
	switch p.ImmediateCommit {
	case "", "all", "small", "none":
	default:
		fault("immediate_commit is %q, want all, small or none", p.ImmediateCommit)
	}
	switch p.LocalReads {
	case "", "primary", "nearest", "random":
	default:
		fault("local_reads is %q, want primary, nearest or random", p.LocalReads)
	}
	if n := p.MaxOSDCombinations; n != 0 && n < 100 {
		fault("max_osd_combinations is %d, want at least 100", n)
	}
	if block != 0 && sizeOK {
		if object := block * uint64(p.DataChunks()); p.PGStripeSize != 0 && uint64(p.PGStripeSize)%object != 0 {
			fault("pg_stripe_size is %d, want a multiple of the object size, %d", p.PGStripeSize, object)
		}
	}
	return errors.Join(faults...)
}

// checkGranularity checks bitmap_granularity against block_size, which is 0 when it is not known.
func checkGranularity(granularity, block uint64) error {
	switch {
	case !layout.IsPowerOfTwo(granularity) || granularity < 512:
		return fmt.Errorf("bitmap_granularity is %d, want a power of two from 512", granularity)
	case block != 0 && granularity > block:
		return fmt.Errorf("bitmap_granularity is %d, want at most block_size, %d", granularity, block)
	}
	return nil
}

// ReadPools reads config/pools. A pool that is wrong is left out and named in faults, the others are returned; err says that nothing could be read. A cluster that has
// no such key has no pools.
func ReadPools(data []byte) (pools map[layout.PoolID]*Pool, faults []*PoolError, err error) {
	var raw map[string]json.RawMessage
	if err := decode(data, &raw); err != nil {
		return nil, nil, err
	}
	if raw == nil {
		return nil, nil, errors.New("is null, not an object")
	}
	pools = make(map[layout.PoolID]*Pool, len(raw))
	names := make(map[string]layout.PoolID, len(raw))
	for _, text := range slices.SortedFunc(maps.Keys(raw), byNumber) {
		id, ok := parsePool(text)
		if !ok {
			faults = append(faults, &PoolError{Name: text, Err: errors.New("the id is not a number from 1 to 65535")})
			continue
		}
		p := &Pool{ID: id}
		if err := decode(raw[text], p); err != nil {
			faults = append(faults, &PoolError{ID: id, Name: text, Err: err})
			continue
		}
		if err := p.Validate(); err != nil {
			faults = append(faults, &PoolError{ID: id, Name: text, Err: err})
			continue
		}
		if other, taken := names[p.Name]; taken {
			faults = append(faults, &PoolError{ID: id, Name: text, Err: fmt.Errorf("the name %q is that of pool %d already", p.Name, other)})
			continue
		}
		names[p.Name] = id
		pools[id] = p
	}
	return pools, faults, nil
}

// PoolError says what is wrong with one pool of config/pools.
type PoolError struct {
	ID   layout.PoolID // 0 when the id itself is wrong
	Name string        // the id as it was written
	Err  error
}

func (e *PoolError) Error() string { return fmt.Sprintf("pool %s: %v", e.Name, e.Err) }

// Unwrap is the faults.
func (e *PoolError) Unwrap() error { return e.Err }

// byNumber orders decimal numbers.
func byNumber(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
