package cluster

import (
	"errors"
	"slices"

	"holdfast/core/layout"
)

// IsRetired reports whether another store has taken the place of this one.
func (i *OSDIdentity) IsRetired(store layout.StoreID) bool { return slices.Contains(i.Retired, store) }

// SetBack reports whether a store that was just opened for the boot-th time, with the given last journal sequence, is an earlier state of the one that the cluster knows: what the cluster
// knows was written in an earlier opening, each of which counts.
func (i *OSDIdentity) SetBack(store layout.StoreID, boot, sequence uint64) bool {
	return i.Store == store && (boot <= i.Boot || sequence < i.Sequence)
}

// ReadClusterID reads cluster/id.
func ReadClusterID(data []byte) (id ClusterID, err error) {
	if err = decode(data, &id); err == nil && id.ID.IsZero() {
		err = errors.New("id is missing")
	}
	return id, err
}
