package admin

import (
	"errors"
	"fmt"
	"slices"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// PoolChange says what to change of a pool while it is used. What is nil or zero stays.
type PoolChange struct {
	Name          string // of the pool
	Replicas      int    // of a pool of copies
	Data, Parity  int    // of an erasure-coded pool; Data must be what it is
	MinSize       int    // [as it is; but where it was the default, or does not fit any more, the default]
	FailureDomain *string
	RootNode      *string
	OSDTags       *[]string
	LocalReads    *string
	ScrubInterval *string
	Force         bool // also when there are too few OSDs now, or PGs that are not whole
}

// Apply is p with the change; p stays as it is.
func (c *PoolChange) Apply(p *cluster.Pool) (*cluster.Pool, error) {
	refuse := func(way, format string, args ...any) (*cluster.Pool, error) {
		return nil, &Error{Kind: Refused, What: fmt.Sprintf("pool %q", p.Name), Err: fmt.Errorf(format, args...), Way: way}
	}
	const anew = "make another pool and copy the images"
	coded := p.Scheme != cluster.Replicated
	data := p.DataChunks()
	next := *p
	switch {
	case c.Replicas < 0 || c.Data < 0 || c.Parity < 0 || c.MinSize < 0:
		return nil, &Error{Kind: Usage, What: fmt.Sprintf("pool %q", p.Name), Err: errors.New("a negative number")}
	case c.Replicas != 0 && coded:
		return refuse(fmt.Sprintf("give --ec %d+PARITY; for copies %s", data, anew), "it has chunks of data and of parity, no copies")
	case c.Data != 0 && !coded:
		return refuse("give --pg_size; for erasure codes "+anew, "it has copies, no chunks")
	case c.Data != 0 && c.Data != data:
		return refuse(anew, "its %d chunks of data cannot be made %d: every object would have to be cut anew", data, c.Data)
	case c.Data != 0 && p.Scheme == cluster.XOR && c.Parity == 1: // as it is
	case c.Data != 0: // the first parity chunk of ec is that of xor
		next.Scheme = cluster.EC
		next.PGSize, next.ParityChunks = cluster.Number(c.Data+c.Parity), cluster.Number(c.Parity)
	case c.Replicas != 0:
		next.PGSize = cluster.Number(c.Replicas)
	}
	switch was := defaultMinSize(coded, data, int(p.PGSize)); {
	case c.MinSize != 0:
		next.PGMinSize = cluster.Number(c.MinSize)
	case next.PGSize != p.PGSize && (int(p.PGMinSize) == was || p.PGMinSize > next.PGSize):
		next.PGMinSize = cluster.Number(defaultMinSize(coded, data, int(next.PGSize)))
	}
	for _, one := range []struct {
		from *string
		to   *string
	}{{c.FailureDomain, &next.FailureDomain}, {c.RootNode, &next.RootNode}, {c.LocalReads, &next.LocalReads}} {
		if one.from != nil {
			*one.to = *one.from
		}
	}
	if c.OSDTags != nil {
		next.OSDTags = *c.OSDTags
	}
	if c.ScrubInterval != nil {
		if err := setScrubInterval(&next, *c.ScrubInterval); err != nil {
			return nil, err
		}
	}
	if err := next.Validate(); err != nil {
		return nil, &Error{Kind: Usage, What: fmt.Sprintf("pool %q", p.Name), Err: err}
	}
	return &next, nil
}

// check says whether the cluster is ready for a change of p into next.
func (c *PoolChange) check(s *cluster.Snapshot, p, next *cluster.Pool) error {
	if c.Force {
		return nil
	}
	if next.PGSize != p.PGSize || next.Domain() != p.Domain() {
		if err := roomFor(s, next); err != nil {
			return err
		}
	}
	if next.PGSize >= p.PGSize {
		return nil
	}
	bad := 0
	for i := range s.PGConfig.Count(p.ID) {
		if id := (layout.PGID{Pool: p.ID, Num: i + 1}); !Settled(s, id) {
			bad++
		}
	}
	if bad > 0 {
		return &Error{Kind: Refused, What: fmt.Sprintf("pool %q: %d of its PGs are not whole, so what would be taken away may be needed", p.Name, bad),
			Way: "wait until they are (`holdfast pg-list` says why), or --force: nothing is lost, but PGs may wait for OSDs that are away"}
	}
	return nil
}

// Settled reports whether a PG is served by all that the PG map names, and each has all that it should have.
func Settled(s *cluster.Snapshot, id layout.PGID) bool {
	t, ok := s.PGConfig.Target(id)
	st, served := s.PGStates.Get(id)
	if !ok || !served || !st.State.Whole() || len(st.Peers) != len(t.OSDSet) {
		return false
	}
	return !slices.ContainsFunc(t.OSDSet, func(n layout.OSDNum) bool { return !slices.Contains(st.Peers, n) })
}

// ModifyPool makes the change in config/pools, whatever else is done to the pools at the same moment; s is the cluster as it was read just before. done gets the pool as it is then.
func ModifyPool(r registry.Registry, s *cluster.Snapshot, c *PoolChange, done func(*cluster.Pool, error)) {
	modifyPool(r, s, c, createTries, done)
}

func modifyPool(r registry.Registry, s *cluster.Snapshot, c *PoolChange, tries int, done func(*cluster.Pool, error)) {
	// again looks once more: it is not known whether the pool was changed, or somebody else changed the pools. What has been changed is not changed again.
	again := func(err error) {
		if tries > 1 {
			modifyPool(r, s, c, tries-1, done)
			return
		}
		done(nil, err)
	}
	r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: cluster.KeyPools}}}, func(res registry.TxnResult, err error) {
		switch {
		case errors.Is(err, registry.ErrUnavailable):
			again(err)
			return
		case err != nil:
			done(nil, err)
			return
		case len(res.Results[0]) == 0:
			done(nil, noPool(c.Name))
			return
		}
		kv := &res.Results[0][0]
		pools, _, err := cluster.ReadPools(kv.Value)
		if err != nil {
			done(nil, &Error{Kind: Failed, What: "etcd key config/pools cannot be read", Err: err, Way: "correct it"})
			return
		}
		var p *cluster.Pool
		for _, one := range pools { // order: names are unique
			if one.Name == c.Name {
				p = one
			}
		}
		if p == nil {
			done(nil, noPool(c.Name))
			return
		}
		next, err := c.Apply(p)
		if err == nil {
			err = c.check(s, p, next)
		}
		if err != nil {
			done(nil, err)
			return
		}
		if string(cluster.Value(next)) == string(cluster.Value(p)) {
			done(next, nil)
			return
		}
		txn, err := cluster.SetPool(kv, p.ID, next)
		if err != nil {
			done(nil, err)
			return
		}
		r.Txn(txn, func(res registry.TxnResult, err error) {
			switch {
			case errors.Is(err, registry.ErrUnavailable):
				again(err)
			case err != nil:
				done(nil, err)
			case !res.Succeeded:
				again(&Error{Kind: Refused, What: "somebody else changes the pools again and again", Way: "try again"})
			default:
				done(next, nil)
			}
		})
	})
}
