package etcdsnapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// Bounds of one transaction. etcd takes 128 operations and 1.5 MiB if it is not told otherwise; a larger value goes alone.
const (
	batchOps   = 100
	batchBytes = 1 << 20
)

// Restore puts a snapshot into etcd. It may be interrupted at any moment and begun again: until the last transaction the key restoring says that etcd is not whole, and nothing acts on it.
type Restore struct {
	s    *Snapshot
	r    Registry
	want target

	// What Look has found.
	Running []string           // keys of leases: daemons that run
	Cluster string             // whose keys are there; "" when there are none or they do not say
	Begun   *cluster.Restoring // a restore that was begun before
	Same    bool               // Begun is of this snapshot
	Other   []string           // keys that would go or be changed, sorted, without those of a restore that was begun
	Missing int                // keys that would be put

	found []registry.KV
	rev   registry.Revision
	mark  registry.Revision // of the key restoring
}

// Open makes a restore. Nothing happens before Look and Run.
func (s *Snapshot) Open(r Registry) *Restore { return &Restore{s: s, r: r, want: s.target()} }

// Look reads what etcd holds now.
func (x *Restore) Look(ctx context.Context) (err error) {
	if x.found, x.rev, err = load(ctx, x.r); err != nil {
		return err
	}
	x.Running, x.Cluster, x.Begun, x.Same, x.Other, x.Missing, x.mark = nil, "", nil, false, nil, len(x.want), 0
	x.Cluster, _ = clusterID(x.found)
	for _, kv := range x.found {
		want, ours := x.want[kv.Key]
		switch {
		case kv.Key == cluster.KeyRestoring:
			x.mark, x.Begun = kv.Mod, &cluster.Restoring{}
			if b, err := cluster.ReadRestoring(kv.Value); err == nil {
				x.Begun = b
			}
			x.Same = x.Begun.Sum == x.s.Sum
		case kv.Lease != 0:
			x.Running = append(x.Running, kv.Key)
		case ours && bytes.Equal(want, kv.Value):
			x.Missing--
		default:
			x.Other = append(x.Other, kv.Key)
		}
	}
	if x.Same { // its declaration
		for i, key := range x.Other {
			if key == cluster.KeyRestored {
				x.Other = append(x.Other[:i:i], x.Other[i+1:]...)
				break
			}
		}
	}
	return nil
}

// Before is what etcd holds, as a snapshot to be kept before it is replaced; nil when there is nothing that could be put back: no cluster, or half of one.
func (x *Restore) Before(now time.Time) *Snapshot {
	s, err := take(x.found, x.rev, now)
	if err != nil {
		return nil
	}
	return s
}

// Progress is told how far a restore is.
type Progress func(what string, done, of int)

// errTold are conditions that did not hold.
var errTold = errors.New("somebody else has changed etcd meanwhile: stop every daemon, and run it again")

// Run does it, as Look has found it; the caller has seen to what must not be there. It declares the restore under the id, and returns the OSDs whose stores have to report.
func (x *Restore) Run(ctx context.Context, id, file string, now time.Time, tell Progress) ([]layout.OSDNum, error) {
	before := map[string]bool{}
	for _, kv := range x.found {
		before[kv.Key] = true
	}
	resumed := x.Same
	if !resumed {
		begun := x.begin(ctx, id, file, now)
		if err := x.Look(ctx); err != nil {
			return nil, err
		}
		if begun != nil && !(x.Same && x.Begun.ID == id) { // else only the answer was lost
			return nil, begun
		}
	}
	// From here on nobody registers. What was written between Look and begin is seen now.
	if len(x.Running) > 0 {
		return nil, fmt.Errorf("%s has come up meanwhile: stop every daemon, and run it again", x.Running[0])
	}
	for _, key := range x.Other {
		if !before[key] && !resumed {
			return nil, fmt.Errorf("the key %s was written meanwhile: stop every daemon, and run it again", key)
		}
	}
	if err := x.write(ctx, tell); err != nil {
		return nil, err
	}
	if err := x.Look(ctx); err != nil {
		return nil, err
	}
	if x.Missing > 0 || len(x.Other) > 0 {
		key := "none"
		if len(x.Other) > 0 {
			key = x.Other[0]
		}
		return nil, fmt.Errorf("%d keys are not in etcd as they were put, %d should not be there (%s): %w", x.Missing, len(x.Other), key, errTold)
	}
	tell("checked", len(x.want), len(x.want))
	err := x.txn(ctx, registry.Txn{
		If:   []registry.Compare{registry.Unchanged(cluster.KeyRestoring, x.mark)},
		Then: []registry.Op{{Kind: registry.Delete, Key: cluster.KeyRestoring}},
	})
	if err != nil {
		if x.Look(ctx) != nil || x.Begun != nil || x.Missing > 0 { // else only the answer was lost
			return nil, err
		}
	}
	return x.want.stores(), nil
}

// begin marks etcd as not whole, and declares the restore, in one transaction: at no moment could a PG become active by what is there.
func (x *Restore) begin(ctx context.Context, id, file string, now time.Time) error {
	reason := fmt.Sprintf("the snapshot %s of %s was put back", file, x.s.Time.UTC().Format("2006-01-02 15:04:05 UTC"))
	mod := map[string]registry.Revision{}
	for _, kv := range x.found {
		mod[kv.Key] = kv.Mod
	}
	t := registry.Txn{
		Then: []registry.Op{
			{Kind: registry.Put, Key: cluster.KeyRestoring, Value: cluster.Value(&cluster.Restoring{ID: id, File: file, Sum: x.s.Sum, Revision: x.s.Revision, Time: now.Unix()})},
			{Kind: registry.Put, Key: cluster.KeyRestored, Value: cluster.Value(&cluster.Restored{ID: id, Time: now.Unix(), Reason: reason})},
			{Kind: registry.Put, Key: cluster.KeyClusterID, Value: x.want[cluster.KeyClusterID]},
		},
	}
	for _, op := range t.Then {
		t.If = append(t.If, registry.Unchanged(op.Key, mod[op.Key]))
	}
	t.If = append(t.If, registry.Absent(cluster.KeyMonMaster))
	return x.txn(ctx, t)
}

// write makes etcd hold what it shall.
func (x *Restore) write(ctx context.Context, tell Progress) error {
	have := map[string][]byte{}
	for _, kv := range x.found {
		have[kv.Key] = kv.Value
	}
	var ops []registry.Op
	for _, key := range x.Other {
		if _, ours := x.want[key]; !ours {
			ops = append(ops, registry.Op{Kind: registry.Delete, Key: key})
		}
	}
	for _, key := range x.want.keys() {
		if value, there := have[key]; !there || !bytes.Equal(value, x.want[key]) {
			ops = append(ops, registry.Op{Kind: registry.Put, Key: key, Value: x.want[key]})
		}
	}
	for done := 0; done < len(ops); {
		n, size := 0, 0
		for done+n < len(ops) && n < batchOps {
			size += len(ops[done+n].Key) + len(ops[done+n].Value)
			if n > 0 && size > batchBytes {
				break
			}
			n++
		}
		t := registry.Txn{If: []registry.Compare{registry.Unchanged(cluster.KeyRestoring, x.mark)}, Then: ops[done : done+n], Timeout: registry.Slow}
		if err := x.txn(ctx, t); err != nil {
			return err
		}
		done += n
		tell("written", done, len(ops))
	}
	return nil
}

// attempts is how often a transaction is tried whose outcome is unknown: each may be carried out twice.
const attempts = 5

// txn carries out one transaction.
func (x *Restore) txn(ctx context.Context, t registry.Txn) error {
	for try := 1; ; try++ {
		res, err := x.r.Txn(ctx, t)
		switch {
		case err == nil && res.Succeeded:
			return nil
		case err == nil:
			return errTold // or an earlier try of ours has
		case !errors.Is(err, registry.ErrUnavailable) || try == attempts || ctx.Err() != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
