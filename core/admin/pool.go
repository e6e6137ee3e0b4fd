package admin

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"strconv"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// NewPool says what pool to make. Zero values mean the defaults.
type NewPool struct {
	Name          string
	Replicas      int    // copies of each object
	Data, Parity  int    // instead of Replicas: chunks of data and of parity
	MinSize       int    // copies or chunks that must be there to serve [2 of 3 or more copies, else 1; Data+1 chunks with more than one of parity, else Data]
	PGCount       int    // [32 per OSD and copy or chunk, as a power of two from 16 to 4096]
	FailureDomain string // level of the placement tree of which a PG uses each node once [host]
	RootNode      string
	OSDTags       []string
	BlockSize     int64  // bytes [the cluster's]
	Granularity   int64  // bytes [the cluster's]
	PGStripeSize  int64  // bytes
	Commit        string // immediate_commit: all, small or none [the cluster's]
	LocalReads    string // who answers reads: primary, nearest or random [primary]
	ScrubInterval string // how often it is scrubbed, with auto_scrub, such as 7d [scrub_interval]
	Force         bool   // also when there are too few OSDs or failure domains now
}

// Pool fills in the defaults and checks the pool against the cluster, which must have been read with its OSD states and statistics.
func (n NewPool) Pool(s *cluster.Snapshot) (*cluster.Pool, error) {
	if _, taken := s.Pool(n.Name); taken {
		return nil, &Error{Kind: Refused, What: fmt.Sprintf("pool %q exists already", n.Name), Way: "choose another name; `holdfast ls-pools` lists them"}
	}
	coded := n.Data != 0 || n.Parity != 0
	if n.Replicas < 0 || n.Data < 0 || n.Parity < 0 || n.MinSize < 0 || n.PGCount < 0 {
		return nil, &Error{Kind: Usage, What: fmt.Sprintf("pool %q", n.Name), Err: errors.New("a negative number")}
	}
	size := n.Replicas
	if coded {
		size = n.Data + n.Parity
	}
	if n.MinSize == 0 {
		n.MinSize = defaultMinSize(coded, max(n.Data, 1), size)
	}
	if n.PGCount == 0 {
		n.PGCount = defaultPGs(s.OSDStats.Len(), size)
	}
	p := &cluster.Pool{
		Name: n.Name, Scheme: cluster.Replicated, PGSize: cluster.Number(size), PGMinSize: cluster.Number(n.MinSize), PGCount: cluster.Number(n.PGCount), FailureDomain: n.FailureDomain,
		RootNode: n.RootNode, OSDTags: n.OSDTags, BlockSize: cluster.Number(n.BlockSize), Granularity: cluster.Number(n.Granularity), PGStripeSize: cluster.Number(n.PGStripeSize),
		ImmediateCommit: n.Commit, LocalReads: n.LocalReads,
	}
	if err := setScrubInterval(p, n.ScrubInterval); err != nil {
		return nil, err
	}
	if coded {
		p.Scheme, p.ParityChunks = cluster.EC, cluster.Number(n.Parity)
	}
	if err := p.Validate(); err != nil {
		return nil, &Error{Kind: Usage, What: fmt.Sprintf("pool %q", n.Name), Err: err}
	}
	if n.Force {
		return p, nil
	}
	return p, roomFor(s, p)
}

// setScrubInterval sets how often a pool is scrubbed; empty: as all are.
func setScrubInterval(p *cluster.Pool, text string) error {
	if text == "" {
		p.ScrubInterval = nil
		return nil
	}
	if _, err := cluster.ParseInterval(text); err != nil {
		return &Error{Kind: Usage, What: fmt.Sprintf("pool %q: scrub_interval", p.Name), Err: err}
	}
	p.ScrubInterval = text
	return nil
}

// defaultMinSize is how many of size copies or chunks must be there where nobody has said it.
func defaultMinSize(coded bool, data, size int) int {
	if coded && size-data > 1 || !coded && size > 2 {
		return data + 1
	}
	return data
}

// roomFor says whether there are enough failure domains for each PG of the pool.
func roomFor(s *cluster.Snapshot, p *cluster.Pool) error {
	what, size := "copies", int(p.PGSize)
	if p.Scheme != cluster.Replicated {
		what = "chunks"
	}
	if have := domains(s, p); have < size {
		return &Error{Kind: Refused, What: fmt.Sprintf("pool %q wants %d %s on different nodes of level %q, and there are %d with OSDs", p.Name, size, what, p.Domain(), have),
			Way: fmt.Sprintf("add OSDs, ask for fewer %s or give another --failure_domain (osd: several on one host), or --force to have the pool so all the same", what)}
	}
	return nil
}

// defaultPGs is a number of PGs that gives every OSD about 32 of them.
func defaultPGs(osds, replicas int) int {
	n := max(16, osds*32/max(1, replicas))
	return min(4096, 1<<bits.Len(uint(n-1)))
}

// domains counts the failure domains that have OSDs.
func domains(s *cluster.Snapshot, p *cluster.Pool) int {
	seen := map[string]bool{}
	for n, st := range s.OSDStats.All() {
		node := fmt.Sprint(uint64(n))
		if p.Domain() == "osd" {
			seen[node] = true
			continue
		}
		at, ok := s.Placement[node]
		if !ok || at.Parent == "" {
			at.Parent = st.Host
		}
		for depth := 0; at.Parent != "" && depth < maxDepth; depth++ {
			name := at.Parent
			parent, ok := s.Placement[name]
			if !ok {
				parent = cluster.Node{Level: "host"}
			}
			if parent.Level == p.Domain() || parent.Level == "" && p.Domain() == "host" {
				seen[name] = true
				break
			}
			at = parent
		}
	}
	return len(seen)
}

// maxDepth bounds the placement tree: a loop in it ends there.
const maxDepth = 64

// createTries is how often the pools are looked at when it is not known whether the pool was added.
const createTries = 5

// CreatePool adds the pool to config/pools under the lowest free number; s is the cluster as Pool was called with. done gets the number.
func CreatePool(r registry.Registry, s *cluster.Snapshot, p *cluster.Pool, done func(layout.PoolID, error)) {
	createPool(r, s, p, nil, createTries, done)
}

// createPool is one look and try. unsure is the pool as it may have been added by the try before; one that comes late does nothing, since the pools have changed by then.
func createPool(r registry.Registry, s *cluster.Snapshot, p, unsure *cluster.Pool, tries int, done func(layout.PoolID, error)) {
	r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: cluster.KeyPools}}}, func(res registry.TxnResult, err error) {
		if err != nil {
			if tries--; unsure != nil && tries > 0 && errors.Is(err, registry.ErrUnavailable) {
				createPool(r, s, p, unsure, tries, done)
				return
			}
			done(0, err)
			return
		}
		var kv *registry.KV
		taken := map[layout.PoolID]bool{}
		if len(res.Results[0]) > 0 {
			kv = &res.Results[0][0]
			pools, faults, err := cluster.ReadPools(kv.Value)
			if err != nil {
				done(0, &Error{Kind: Failed, What: "etcd key config/pools cannot be read", Err: err, Way: "correct it"})
				return
			}
			for id, other := range pools {
				taken[id] = true
				if unsure != nil && id == unsure.ID && bytes.Equal(cluster.Value(other), cluster.Value(unsure)) {
					done(id, nil) // only the answer was lost
					return
				}
				if other.Name == p.Name {
					done(0, &Error{Kind: Refused, What: fmt.Sprintf("pool %q exists already", p.Name), Way: "choose another name"})
					return
				}
			}
			for _, f := range faults {
				taken[f.ID] = true // it is still there, and may be corrected
			}
		}
		if s.Restored != nil {
			for n, id := range s.Stores.All() {
				if _, said := s.OSDSpace.Get(n); !said && !id.Store.IsZero() {
					done(0, &Error{Kind: Refused, What: fmt.Sprintf("etcd was restored, and OSD %d has not said yet of which pools it holds data: one that etcd has forgotten could be taken for the new one", n),
						Way: "start it and wait for etcd_stats_interval, or give it up (`holdfast etcd lost`)"})
					return
				}
			}
		}
		// A pool that etcd has forgotten, as after a restore: its images would show through in the new one's.
		for _, space := range s.OSDSpace.All() {
			for text := range space { // order: a set
				if n, err := strconv.ParseUint(text, 10, 16); err == nil {
					taken[layout.PoolID(n)] = true
				}
			}
		}
		id := layout.PoolID(1)
		for taken[id] {
			if id++; id == 0 {
				done(0, &Error{Kind: Refused, What: "there are no pool numbers left"})
				return
			}
		}
		made := *p
		made.ID = id
		txn, err := cluster.SetPool(kv, id, &made)
		if err != nil {
			done(0, err)
			return
		}
		r.Txn(txn, func(res registry.TxnResult, err error) {
			if errors.Is(err, registry.ErrUnavailable) && tries > 1 {
				createPool(r, s, p, &made, tries-1, done)
				return
			}
			if err == nil && !res.Succeeded {
				err = &Error{Kind: Refused, What: "somebody else changed the pools at the same moment", Way: "try again"}
			}
			done(id, err)
		})
	})
}
