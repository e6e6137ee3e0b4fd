package store

import (
	"fmt"

	"holdfast/core/layout"
)

// Owner is the OSD that a store belongs to. The superblock names it from the first opening by an OSD on, so that a disk in the wrong place is told by itself, whatever etcd knows.
type Owner struct {
	Cluster layout.StoreID // the cluster's id; zero: any
	OSD     layout.OSDNum  // 0: any
}

func (o Owner) String() string {
	if o.Cluster.IsZero() {
		return fmt.Sprintf("OSD %d", o.OSD)
	}
	return fmt.Sprintf("OSD %d of cluster %v", o.OSD, o.Cluster)
}

// admits reports whether a store of o may be opened by p.
func (o Owner) admits(p Owner) bool {
	return (o.OSD == 0 || p.OSD == 0 || o.OSD == p.OSD) && (o.Cluster.IsZero() || p.Cluster.IsZero() || o.Cluster == p.Cluster)
}

// claim takes over what o does not say yet.
func (o *Owner) claim(p Owner) {
	if o.OSD == 0 {
		o.OSD = p.OSD
	}
	if o.Cluster.IsZero() {
		o.Cluster = p.Cluster
	}
}

// OwnerError says that a store belongs to somebody else than who wanted to open it.
type OwnerError struct {
	Store     layout.StoreID
	Has, Want Owner
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("the disk (store %v) belongs to %v, and not to %v", e.Store, e.Has, e.Want)
}
