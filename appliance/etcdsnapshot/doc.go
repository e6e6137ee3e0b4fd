// Package etcdsnapshot keeps what the cluster has in etcd in files, and puts it back.
//
// A snapshot holds every key below etcd_prefix at one revision, but for those that belong to a lease: they say who runs, and must not come back. Monitors write one every
// etcd_snapshot_interval, `holdfast etcd snapshot` on demand, and `holdfast etcd restore` puts one back. A file is written beside its place, flushed, read again and compared before it gets its name.
//
// The format is in docs/formats/etcd-snapshot.md, why a restore is safe in docs/adr/0015-etcd-snapshots.md. Everything here is ordinary blocking code, and belongs to no loop.
package etcdsnapshot

import (
	"context"

	"holdfast/core/registry"
)

// Registry is what is asked of etcd. *daemon.Link is one.
type Registry interface {
	// Txn runs a transaction. The error wraps registry.ErrUnavailable when the outcome is unknown.
	Txn(ctx context.Context, t registry.Txn) (registry.TxnResult, error)
}
