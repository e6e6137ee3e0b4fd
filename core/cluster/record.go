package cluster

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"holdfast/core/layout"
)

// PGMember is an OSD together with the store it ran on.
type PGMember struct {
	OSD   layout.OSDNum  `json:"osd"`
	Store layout.StoreID `json:"store"`
}

// PGSet is one activated set of a PG. Its members are those whose word counts. Nobody waits for the silent ones; what is on no disk of theirs helps to tell what was never acknowledged.
type PGSet struct {
	Interval layout.Interval `json:"interval"`
	Members  []PGMember      `json:"members"`
	Silent   []PGMember      `json:"silent,omitempty"`
	First    layout.Interval `json:"first,omitempty"` // it may stand for sets of intervals from here
	Last     layout.Interval `json:"last,omitempty"`  // up to here; both 0: for any
}

// PGRecord is interval/<pool>/<pg>, ours: the history that binds a PG's primaries (DESIGN section 9). It is raised by take and extended by activate, each comparing Mod.
type PGRecord struct {
	Meta         `json:"-"`
	Generation   int64           `json:"generation"`              // of the pool, see PoolIdentity
	Interval     layout.Interval `json:"interval"`                // of the last take
	Primary      layout.OSDNum   `json:"primary,omitempty"`       // who took it
	Instance     uint64          `json:"instance,omitempty"`      // which of its processes
	Activated    layout.Interval `json:"activated,omitempty"`     // the last interval that was activated
	Floor        layout.Version  `json:"version_floor,omitempty"` // every version given out later is above it
	Sets         []PGSet         `json:"sets,omitempty"`          // activated sets that may hold the only copy of something; the last is that of Activated
	Participants []PGMember      `json:"participants,omitempty"`  // of the interval Activated
	// Lender is the primary of Activated, if it may have lent its members the right to answer reads: until that has certainly run out nobody else serves.
	Lender PGLender `json:"lender,omitzero"`
}

// PGLender is a process that may lend reads.
type PGLender struct {
	OSD      layout.OSDNum `json:"osd"`
	Instance uint64        `json:"instance"`
}

// AnyLender stands for a process that nobody knows: stores do not remember who may have lent reads.
var AnyLender = PGLender{Instance: math.MaxUint64}

// Active reports whether the last take was followed by its activation.
func (r *PGRecord) Active() bool { return r != nil && r.Activated == r.Interval && r.Interval != 0 }

// Names reports whether a store is in one of the record's sets, or a participant.
func (r *PGRecord) Names(store layout.StoreID) bool {
	is := func(m PGMember) bool { return m.Store == store }
	return slices.ContainsFunc(r.Participants, is) || slices.ContainsFunc(r.Sets, func(s PGSet) bool { return slices.ContainsFunc(s.Members, is) })
}

// TookPart reports whether a store is a participant of the last activated interval: only those satisfy the record's sets, and only they know what is true.
func (r *PGRecord) TookPart(store layout.StoreID) bool {
	return slices.ContainsFunc(r.Participants, func(m PGMember) bool { return m.Store == store })
}

func (r *PGRecord) check() error {
	switch {
	case r.Interval == 0:
		return errors.New("interval is missing")
	case r.Activated > r.Interval:
		return fmt.Errorf("activated is %d, want at most the interval, %d", r.Activated, r.Interval)
	case r.Activated != 0 && (len(r.Sets) == 0 || r.Sets[len(r.Sets)-1].Interval != r.Activated || len(r.Participants) == 0):
		return fmt.Errorf("the set of the activated interval %d, or its participants, are missing", r.Activated)
	}
	var before layout.Interval
	for i, s := range r.Sets {
		if s.Interval <= before || s.Interval > r.Interval {
			return fmt.Errorf("set %d has interval %d, want one above %d and at most %d", i, s.Interval, before, r.Interval)
		}
		if len(s.Members) == 0 {
			return fmt.Errorf("set %d has no members", i)
		}
		if s.First > s.Interval || s.Last != 0 && s.Last < s.Interval || (s.First == 0) != (s.Last == 0) {
			return fmt.Errorf("set %d of interval %d stands for those of %d to %d, want its own among them", i, s.Interval, s.First, s.Last)
		}
		before = s.Interval
	}
	return nil
}

// PGSkip is skip/<pool>/<pg>, ours: OSDs that could not activate the PG because members are unreachable to them, and until when each shall not be its primary.
type PGSkip struct {
	Meta `json:"-"`
	OSDs []SkippedOSD `json:"osds"`
}

// SkippedOSD is one OSD of a PGSkip.
type SkippedOSD struct {
	OSD   layout.OSDNum `json:"osd"`
	Until int64         `json:"until"` // Unix time, milliseconds
}

// Skipped reports whether an OSD shall not be the PG's primary at a moment (Unix time, milliseconds).
func (s *PGSkip) Skipped(osd layout.OSDNum, now int64) bool {
	if s == nil {
		return false
	}
	for _, o := range s.OSDs {
		if o.OSD == osd && now < o.Until {
			return true
		}
	}
	return false
}

// ClusterID is cluster/id, ours: drawn once when the cluster is made.
type ClusterID struct {
	Meta `json:"-"`
	ID   layout.StoreID `json:"id"`
}

// Fence is fence/<name>, ours: the OSDs refuse the operations of the named session, or of every session of the named gateway instance.
type Fence struct {
	Meta    `json:"-"`
	Session uint64          `json:"session,omitempty"`
	Gateway uint64          `json:"gateway,omitempty"` // instance: the upper bits of its sessions' ids, see SessionBits
	Pools   []layout.PoolID `json:"pools,omitempty"`   // none: all
	Reason  string          `json:"reason,omitempty"`
}

// NamedFence is a fence as daemons tell each other of it, with the name that it has in etcd.
type NamedFence struct {
	Name  string `json:"name"`
	Fence Fence  `json:"fence"`
}

// Check finds what no fence can be.
func (f *NamedFence) Check() error {
	if f.Name == "" || len(f.Name) > 256 {
		return errors.New("a fence without a name, or with too long a one")
	}
	return f.Fence.check()
}

// FenceRequest is the payload of FENCE: a fence as it was written to etcd at a revision, which counts for primaries of earlier versions. An OSD that answers 0 has applied it, whether its watch has
// brought it or not.
type FenceRequest struct {
	NamedFence
	Revision int64 `json:"revision"`
}

// Check finds what no fence can be.
func (q *FenceRequest) Check() error {
	if q.Revision <= 0 {
		return errors.New("a fence without a revision")
	}
	return q.NamedFence.Check()
}

// Covers reports whether the fence is of a pool too.
func (f *Fence) Covers(pool layout.PoolID) bool {
	return len(f.Pools) == 0 || slices.Contains(f.Pools, pool)
}

// Within reports whether o refuses whatever f refuses.
func (f *Fence) Within(o *Fence) bool {
	if f.Session != o.Session || f.Gateway != o.Gateway {
		return false
	}
	return len(o.Pools) == 0 || len(f.Pools) > 0 && !slices.ContainsFunc(f.Pools, func(p layout.PoolID) bool { return !slices.Contains(o.Pools, p) })
}

// Join is the fence that refuses what f and o, which are of the same session or gateway, refuse.
func (f Fence) Join(o *Fence) Fence {
	if len(f.Pools) == 0 || len(o.Pools) == 0 {
		f.Pools = nil
		return f
	}
	f.Pools = append(slices.Clone(f.Pools), o.Pools...)
	slices.Sort(f.Pools)
	f.Pools = slices.Compact(f.Pools)
	return f
}

// SessionBits is how many low bits of a session's id count the sessions of one instance; the bits above are the instance, which is never used again.
const SessionBits = 24

// FenceSessionName names the fence of one session.
func FenceSessionName(session uint64) string { return fmt.Sprintf("session-%016x", session) }

// FenceGatewayName names the fence of a gateway instance.
func FenceGatewayName(instance uint64) string { return fmt.Sprintf("gateway-%010x", instance) }

func (f *Fence) check() error {
	if (f.Session == 0) == (f.Gateway == 0) {
		return errors.New("want either a session or a gateway")
	}
	return nil
}

// Gateway is gateway/<id>, ours, held under the gateway's lease.
type Gateway struct {
	Meta      `json:"-"`
	Instance  uint64   `json:"instance"` // never used again: the upper part of its sessions' ids
	Host      string   `json:"host"`
	Version   string   `json:"version,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	NBD       []string `json:"nbd,omitempty"` // listening addresses, host:port
	NFS       []string `json:"nfs,omitempty"`
	ISCSI     []string `json:"iscsi,omitempty"`
	Revision  int64    `json:"revision,omitempty"` // images are served as they were then, or later
}
