package bootstrap

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/registry"
)

// InitCluster writes cluster/id, once, and the values of config/global that are given. Values that differ from what is there already are refused: they belong to how
// disks were formatted.
func InitCluster(ctx context.Context, k *daemon.Link, s *cluster.Snapshot, global map[string]json.RawMessage) error {
	if s.ClusterID == nil {
		t, err := newID()
		if err != nil {
			return err
		}
		if len(global) > 0 {
			t.If = append(t.If, registry.Absent(cluster.KeyGlobal))
			t.Then = append(t.Then, registry.Op{Kind: registry.Put, Key: cluster.KeyGlobal, Value: cluster.Value(global)})
		}
		res, err := k.Txn(ctx, t)
		if err == nil && !res.Succeeded {
			err = &admin.Error{Kind: admin.Refused, What: "another process made this cluster at the same moment", Way: "start again"}
		}
		return err
	}
	return sameGlobal(s, global)
}

// EnsureID writes cluster/id if there is none: the first daemon of a cluster does that.
func EnsureID(ctx context.Context, k *daemon.Link, s *cluster.Snapshot) error {
	if s.ClusterID != nil {
		return nil
	}
	if _, bad := s.Faults.Get(cluster.KeyClusterID); bad {
		return nil // it is there; the operator corrects it
	}
	t, err := newID()
	if err != nil {
		return err
	}
	_, err = k.Txn(ctx, t) // when the condition fails, another daemon was first
	return err
}

func newID() (registry.Txn, error) {
	var id cluster.ClusterID
	if _, err := rand.Read(id.ID[:]); err != nil {
		return registry.Txn{}, fmt.Errorf("draw the cluster's id: %w", err)
	}
	return registry.Txn{
		If:   []registry.Compare{registry.Absent(cluster.KeyClusterID)},
		Then: []registry.Op{{Kind: registry.Put, Key: cluster.KeyClusterID, Value: cluster.Value(&id)}},
	}, nil
}

// sameGlobal refuses values that differ from what is there.
func sameGlobal(s *cluster.Snapshot, global map[string]json.RawMessage) error {
	for name, want := range global {
		if have := string(s.Global[name]); have != string(want) {
			if have == "" {
				have = "the default"
			}
			return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("--%s %s: the cluster was made with %s, and disks and pools depend on it", name, want, have), Way: "leave the flag out, or make a new cluster in another --dir"}
		}
	}
	return nil
}

// Identity draws the identity of an image.
func Identity() (id [16]byte) {
	if _, err := rand.Read(id[:]); err != nil {
		panic("bootstrap: the system gives no random numbers: " + err.Error())
	}
	return id
}
