package etcdsnapshot

import (
	"encoding/json"
	"slices"
	"strconv"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// skippedInodes is by how much a restore raises the last inode number of each pool: images that were made after the snapshot are forgotten, their objects are still there, and no new image
// may be given their numbers. A million images between two snapshots is far more than any cluster makes.
const skippedInodes = 1 << 20

// target is what etcd shall hold, by key.
type target map[string][]byte

// target is the snapshot's keys as they go into another etcd. What was told by revisions is written down, since those are other ones there.
func (s *Snapshot) target() target {
	t := target{}
	last := map[layout.PoolID]uint64{}
	var pools []layout.PoolID
	known, records := map[layout.PoolID]bool{}, map[layout.PoolID][]cluster.PGRecord{}
	raise := func(pool layout.PoolID, n uint64) { last[pool] = max(last[pool], n) }
	for _, kv := range s.KVs {
		value := kv.Value
		k, _ := cluster.ParseKey(kv.Key)
		switch k.Kind {
		case cluster.KindRestored:
			continue // a new one is declared
		case cluster.KindOSDSpace:
			continue // until the OSD has said it anew, nobody knows of which pools it holds data (admin.CreatePool)
		case cluster.KindPoolIdentity:
			value, known[k.Pool] = withGeneration(kv), true
		case cluster.KindPGRecord:
			var r cluster.PGRecord
			if json.Unmarshal(kv.Value, &r) == nil {
				records[k.PG.Pool] = append(records[k.PG.Pool], r)
			}
		case cluster.KindPools:
			list, faults, _ := cluster.ReadPools(kv.Value)
			for id := range list { // order: any
				raise(id, 0)
				pools = append(pools, id)
			}
			for _, f := range faults {
				if raise(f.ID, 0); f.ID != 0 {
					pools = append(pools, f.ID)
				}
			}
		case cluster.KindInode:
			raise(k.Inode.Pool(), k.Inode.Num())
		case cluster.KindMaxID:
			if n, err := cluster.ReadMaxID(kv.Value); err == nil {
				raise(k.Pool, n)
			}
		}
		t[kv.Key] = value
	}
	for pool, n := range last { // order: each by itself
		if pool != 0 {
			t[cluster.MaxIDKey(pool)] = strconv.AppendUint(nil, min(n+skippedInodes, layout.MaxInodeNum), 10)
		}
	}
	for _, pool := range pools {
		if !known[pool] { // or a monitor would make it another one than the stores have
			id := cluster.UnknownGeneration(records[pool])
			t[cluster.PoolIdentityKey(pool)] = cluster.Value(&id)
		}
	}
	return t
}

// withGeneration is the value of pool/identity with the pool's generation in it. A value that cannot be read says nothing but that; the generation is what counts.
func withGeneration(kv registry.KV) []byte {
	id := cluster.PoolIdentity{}
	if err := json.Unmarshal(kv.Value, &id); err != nil || id.Given < 0 {
		id = cluster.PoolIdentity{}
	}
	if id.Given != 0 {
		return kv.Value
	}
	id.Given = int64(kv.Create)
	return cluster.Value(&id)
}

// keys are sorted.
func (t target) keys() []string {
	out := make([]string, 0, len(t))
	for key := range t {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}

// stores are the OSDs whose stores have to report.
func (t target) stores() []layout.OSDNum {
	list := []layout.OSDNum{}
	for _, key := range t.keys() {
		k, _ := cluster.ParseKey(key)
		var id cluster.OSDIdentity
		if k.Kind == cluster.KindOSDIdentity && json.Unmarshal(t[key], &id) == nil && !id.Store.IsZero() {
			list = append(list, k.OSD)
		}
	}
	slices.Sort(list)
	return list
}
