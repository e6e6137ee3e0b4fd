package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/osd/store"
)

// OnDisk runs f with an OSD's disks that nobody else uses. Disks that a running OSD holds are refused.
func OnDisk[T any](ctx context.Context, t *daemon.Thread, v *config.Values, disks daemon.Disks, readOnly bool, f func(d loop.Disk, done func(T, error))) (T, error) {
	return daemon.Await(ctx, t, func(done func(T, error)) {
		d, path, err := disks.Open(t, v, loop.DiskOptions{ReadOnly: readOnly, Exclusive: true})
		if err != nil {
			e := &admin.Error{Kind: admin.Failed, What: "cannot open " + path, Err: err}
			switch {
			case errors.Is(err, os.ErrNotExist):
				e.Kind = admin.NotFound
			case errors.Is(err, unix.EWOULDBLOCK):
				e.Kind, e.Way = admin.Refused, "an OSD uses it: stop that one first"
			}
			var none T
			done(none, e)
			return
		}
		f(d, func(out T, err error) { d.Close(func() { done(out, err) }) })
	})
}

// Standing is what the cluster thinks of a store.
type Standing struct {
	OSD      layout.OSDNum `json:"osd"` // whose store it is or was
	Verdict  string        `json:"verdict"`
	Boot     uint64        `json:"boot,omitempty"`     // what the cluster remembers of it
	Sequence uint64        `json:"sequence,omitempty"` // and of its journal
	Reason   string        `json:"reason,omitempty"`   // why the cluster was not asked
}

// The verdicts.
const (
	Unasked = "not asked" // no cluster is named, or it does not answer
	Unknown = "unknown"   // no OSD has or had that store
	Current = "current"   // the cluster knows nothing newer
	Older   = "older"     // the cluster knows a newer state of it
	Retired = "retired"   // another store has taken its place
)

// judge says what the cluster in s thinks of a store with the last sequence.
func judge(s *cluster.Snapshot, sb *store.Superblock, sequence uint64) Standing {
	for n, id := range s.Stores.All() {
		switch {
		case id.IsRetired(sb.StoreID):
			return Standing{OSD: n, Verdict: Retired}
		case id.Store != sb.StoreID:
			continue
		case id.SetBack(sb.StoreID, sb.Boot+1, sequence): // the OSD judges after its opening, which counts
			return Standing{OSD: n, Verdict: Older, Boot: id.Boot, Sequence: id.Sequence}
		}
		return Standing{OSD: n, Verdict: Current, Boot: id.Boot, Sequence: id.Sequence}
	}
	return Standing{Verdict: Unknown}
}

// StandingOf asks the cluster, if one is named, what it thinks of a store.
func StandingOf(ctx context.Context, v *config.Values, log *slog.Logger, e *store.Examination) (Standing, error) {
	k, err := daemon.Connect(v, log)
	if err != nil {
		return Standing{Verdict: Unasked, Reason: err.Error()}, err
	}
	defer k.Close()
	s, err := k.Snapshot(ctx, cluster.SectionStores)
	if err != nil {
		return Standing{Verdict: Unasked, Reason: err.Error()}, err
	}
	return judge(s, &e.Superblock, e.Sequence), nil
}

// Examine looks at a disk; see store.Examine.
func Examine(ctx context.Context, t *daemon.Thread, v *config.Values, disks daemon.Disks) (store.Examination, error) {
	return OnDisk(ctx, t, v, disks, true, func(d loop.Disk, done func(store.Examination, error)) { store.Examine(t, d, store.Options{}, done) })
}

// Accept takes the damage out of a disk; see store.Accept.
func Accept(ctx context.Context, t *daemon.Thread, v *config.Values, disks daemon.Disks, keep bool) (store.Superblock, error) {
	return OnDisk(ctx, t, v, disks, false, func(d loop.Disk, done func(store.Superblock, error)) { store.Accept(t, d, keep, store.Options{}, done) })
}

// Recognize makes the cluster take a store as it is, although it knew a newer state of it or had put another in its place. Done twice it changes nothing.
func Recognize(ctx context.Context, v *config.Values, log *slog.Logger, e *store.Examination) error {
	k, err := daemon.Connect(v, log)
	if err != nil {
		return err
	}
	defer k.Close()
	for range 10 {
		s, err := k.Snapshot(ctx, cluster.SectionStores|cluster.SectionOSDs)
		if err != nil {
			return err
		}
		st := judge(s, &e.Superblock, e.Sequence)
		if st.Verdict != Older && st.Verdict != Retired {
			return nil
		}
		if up, ok := s.OSDStates.Get(st.OSD); ok && up.Store == e.Superblock.StoreID {
			return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("OSD %d is up with another copy of this store", st.OSD), Way: "the running one is newer: leave this disk away, or accept it as an empty one (without --keep-id)"}
		}
		old, _ := s.Stores.Get(st.OSD)
		id := *old
		id.Retired = slices.DeleteFunc(slices.Clone(old.Retired), func(r layout.StoreID) bool { return r == e.Superblock.StoreID })
		if st.Verdict == Older {
			id.Boot, id.Sequence = e.Superblock.Boot, e.Sequence
		}
		key := cluster.OSDIdentityKey(st.OSD)
		res, err := k.Txn(ctx, registry.Txn{If: []registry.Compare{registry.Unchanged(key, old.Mod)}, Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&id)}}})
		if err != nil || res.Succeeded {
			return err
		}
	}
	return &admin.Error{Kind: admin.Refused, What: "somebody else changes osd/identity all the time", Way: "try again"}
}
