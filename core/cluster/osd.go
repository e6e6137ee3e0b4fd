package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"holdfast/core/layout"
)

// OSDState is osd/state/<n>, which the OSD holds under its lease.
type OSDState struct {
	Meta              `json:"-"`
	State             string         `json:"state"` // "up"
	Addresses         []string       `json:"addresses"`
	Host              string         `json:"host"`
	Version           string         `json:"version,omitempty"`
	Port              Number         `json:"port"`
	PrimaryEnabled    Flag           `json:"primary_enabled"`
	BlockstoreEnabled Flag           `json:"blockstore_enabled"`
	Instance          Number         `json:"holdfast_instance,omitempty"` // ours: drawn when the process started
	Store             layout.StoreID `json:"holdfast_store,omitzero"`     // ours
}

func (s *OSDState) check() error {
	if s.State != "up" {
		return fmt.Errorf("state is %q, want up", s.State)
	}
	if s.Port == 0 || s.Port > 65535 {
		return fmt.Errorf("port is %d, want 1..65535", s.Port)
	}
	if len(s.Addresses) == 0 {
		return errors.New("addresses is empty")
	}
	for _, a := range s.Addresses {
		if _, err := netip.ParseAddr(a); err != nil {
			return fmt.Errorf("address %q is not an IP address", a)
		}
	}
	return nil
}

// OpStats are sums since the start of a process.
type OpStats struct {
	Count Number `json:"count"`
	Usec  Number `json:"usec"`
	Bytes Number `json:"bytes,omitempty"`
	Lat   Number `json:"lat,omitempty"` // microseconds
	Bps   Number `json:"bps,omitempty"`
	Iops  Number `json:"iops,omitempty"`
}

// OSDStats is osd/stats/<n>. Its existence registers the OSD.
type OSDStats struct {
	Meta              `json:"-"`
	Time              string             `json:"time,omitempty"` // seconds.milliseconds of Unix time
	BlockstoreReady   Flag               `json:"blockstore_ready,omitempty"`
	Size              Number             `json:"size,omitempty"` // bytes
	Free              Number             `json:"free,omitempty"` // bytes
	DataBlockSize     Number             `json:"data_block_size,omitempty"`
	BitmapGranularity Number             `json:"bitmap_granularity,omitempty"`
	ImmediateCommit   string             `json:"immediate_commit,omitempty"`
	Host              string             `json:"host,omitempty"`
	Version           string             `json:"version,omitempty"`
	ChecksumErrors    Number             `json:"holdfast_checksum_errors,omitempty"` // ours: copies found damaged since the OSD started
	SlowOpsPrimary    Number             `json:"slow_ops_primary,omitempty"`
	SlowOpsSecondary  Number             `json:"slow_ops_secondary,omitempty"`
	OpStats           map[string]OpStats `json:"op_stats,omitempty"`
	SubopStats        map[string]OpStats `json:"subop_stats,omitempty"`
	RecoveryStats     map[string]OpStats `json:"recovery_stats,omitempty"`

	// Ours, as a primary, since the start.
	BadCopies    map[string]Number `json:"holdfast_bad_copies,omitempty"`    // by OSD: copies there that could not be read, or were wrong
	MendedCopies Number            `json:"holdfast_mended_copies,omitempty"` // of all of them, those that were made anew
	Scrub        *ScrubSums        `json:"holdfast_scrub,omitempty"`
}

// ScrubSums sums up what was compared.
type ScrubSums struct {
	Objects      Number `json:"objects"`
	Bytes        Number `json:"bytes"` // read, of all copies
	Bad          Number `json:"bad"`   // copies that were wrong
	Inconsistent Number `json:"inconsistent"`
}

// Used is the part of the OSD's space that is used, 0 to 1.
func (s *OSDStats) Used() float64 {
	if s.Size == 0 {
		return 0
	}
	return 1 - float64(min(s.Free, s.Size))/float64(s.Size)
}

// Refuses reports whether the OSD takes no clients' writes that need space, by an osd_full_ratio.
func (s *OSDStats) Refuses(ratio float64) bool {
	return s.Size > 0 && (s.Used() >= ratio || s.Free <= layout.LeastLeft*s.DataBlockSize)
}

// OSDSpace is osd/space/<n>: bytes by pool and inode number.
type OSDSpace map[string]map[string]Number

// OSDInodeStats is osd/inodestats/<n>: by pool, inode number, and read, write or delete.
type OSDInodeStats map[string]map[string]map[string]OpStats

// OSDIdentity is osd/identity/<n>, ours: what store an OSD's number stands for.
type OSDIdentity struct {
	Meta     `json:"-"`
	Store    layout.StoreID   `json:"store"`
	Boot     uint64           `json:"boot"`     // the store's boot counter
	Sequence uint64           `json:"sequence"` // its last durable journal sequence when this was written
	Retired  []layout.StoreID `json:"retired,omitempty"`
	Reported string           `json:"reported,omitempty"` // the ID of the Restored that the store has reported to
}

// OSDWaiting is osd/waiting/<n>, ours, which an OSD that cannot trust its store holds under its lease: it is not up, and waits until the cluster needs nothing of that store.
type OSDWaiting struct {
	Meta   `json:"-"`
	Store  layout.StoreID `json:"store"`
	Host   string         `json:"host,omitempty"`
	Reason string         `json:"reason"` // for people: what is wrong with the store, what the OSD waits for, and what would help; see ClipReason
}

// OSDFailure is osd/failure/<n>, ours: why the OSD has stopped and is not started again by itself. The next run that registers removes it.
type OSDFailure struct {
	Meta   `json:"-"`
	Reason string         `json:"reason"` // for people: what went wrong and what to do; see ClipReason
	Host   string         `json:"host,omitempty"`
	Store  layout.StoreID `json:"store,omitzero"`
	Time   int64          `json:"time"` // Unix time, seconds
	// Of a device that failed:
	Device    string `json:"device,omitempty"`
	Operation string `json:"operation,omitempty"` // "write", "sync write", "flush", "read"
	Offset    int64  `json:"offset,omitempty"`
	Errno     int    `json:"errno,omitempty"`
}

// OSDMissing is osd/missing/<n>, ours, under the OSD's lease: OSDs that are up by etcd, and that this one has lost and cannot reach.
type OSDMissing struct {
	Meta `json:"-"`
	OSDs []layout.OSDNum `json:"osds"`
}

// MissedBy lists the OSDs that miss an OSD which is up by etcd.
func (s *Snapshot) MissedBy(osd layout.OSDNum) (list []layout.OSDNum) {
	if _, up := s.OSDStates.Get(osd); !up {
		return nil
	}
	for n, missing := range s.Missing.All() {
		by, known := s.OSDStates.Get(n)
		if known && by.Lease == missing.Lease && slices.Contains(missing.OSDs, osd) {
			list = append(list, n)
		}
	}
	return list
}

// CutOff reports whether an OSD that is up by etcd is missed by OSDs of two other hosts at least: it is dead as a rule, with its host, and its lease has not run out yet. One host alone may be
// the one that is cut off.
func (s *Snapshot) CutOff(osd layout.OSDNum) bool {
	own, host := "", ""
	for _, n := range s.MissedBy(osd) {
		if own == "" {
			state, _ := s.OSDStates.Get(osd)
			own = state.Host
		}
		by, _ := s.OSDStates.Get(n)
		switch {
		case by.Host == "" || by.Host == own:
		case host == "":
			host = by.Host
		case host != by.Host:
			return true
		}
	}
	return false
}
