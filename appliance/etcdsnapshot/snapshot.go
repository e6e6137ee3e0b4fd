package etcdsnapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/registry"
)

// Snapshot is what etcd held at one revision.
type Snapshot struct {
	Header
	Sum string        // SHA-256 of the file up to its last line, hexadecimal; "" before it is written or read
	KVs []registry.KV // sorted by key, none with a lease
}

// Header is the first line of a snapshot's file.
type Header struct {
	Format   int               `json:"holdfast_etcd_snapshot"` // 1
	Cluster  string            `json:"cluster_id"`
	Revision registry.Revision `json:"revision"`
	Time     time.Time         `json:"time"` // UTC, whole seconds
	Keys     int               `json:"keys"`
	LeftOut  int               `json:"left_out"` // keys that belong to leases
}

// format is the version of the file.
const format = 1

// Reasons for which there is nothing to keep.
var (
	ErrEmpty = errors.New("etcd holds no cluster")
	ErrHalf  = errors.New("a restore of etcd was begun and has not ended")
)

// Take reads etcd.
func Take(ctx context.Context, r Registry, now time.Time) (*Snapshot, error) {
	all, rev, err := load(ctx, r)
	if err != nil {
		return nil, err
	}
	return take(all, rev, now)
}

// load reads every key.
func load(ctx context.Context, r Registry) ([]registry.KV, registry.Revision, error) {
	res, err := r.Txn(ctx, registry.Txn{Then: []registry.Op{{Kind: registry.GetPrefix}}, Timeout: registry.Slow})
	if err != nil {
		return nil, 0, err
	}
	return res.Results[0], res.Revision, nil
}

// take makes a snapshot of what was read.
func take(all []registry.KV, rev registry.Revision, now time.Time) (*Snapshot, error) {
	s := &Snapshot{Header: Header{Format: format, Revision: rev, Time: now.UTC().Truncate(time.Second)}}
	for _, kv := range all {
		switch {
		case kv.Key == cluster.KeyRestoring:
			return nil, ErrHalf
		case kv.Lease != 0:
			s.LeftOut++
			continue
		}
		s.KVs = append(s.KVs, kv)
	}
	s.Keys = len(s.KVs)
	if s.Keys == 0 {
		return nil, ErrEmpty
	}
	id, err := clusterID(s.KVs)
	if err != nil {
		return nil, err
	}
	s.Cluster = id
	return s, nil
}

// clusterID is the identity of the cluster whose keys these are.
func clusterID(kvs []registry.KV) (string, error) {
	for _, kv := range kvs {
		if kv.Key == cluster.KeyClusterID {
			id, err := cluster.ReadClusterID(kv.Value)
			if err != nil {
				return "", fmt.Errorf("etcd key %s: %w", kv.Key, err)
			}
			return id.ID.String(), nil
		}
	}
	return "", fmt.Errorf("%w: the key %s is missing", ErrEmpty, cluster.KeyClusterID)
}
