package cluster

import (
	"errors"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

// Restored is restored, ours: etcd was set back to an older state. It stays when every store has reported (OSDIdentity.Reported), until the next time.
type Restored struct {
	Meta   `json:"-"`
	ID     string `json:"id"`     // drawn anew each time
	Time   int64  `json:"time"`   // Unix time, seconds
	Reason string `json:"reason"` // who found it, and how
}

func (r *Restored) check() error {
	if r.ID == "" {
		return errors.New("id is missing")
	}
	return nil
}

// Restoring is restoring, ours: a snapshot of etcd is being put back, and not all keys are here yet. Nobody registers and no monitor leads as long as it exists, since half of the keys say
// something else than all of them.
type Restoring struct {
	Meta     `json:"-"`
	ID       string            `json:"id"`       // of the Restored that was declared with it
	File     string            `json:"file"`     // the snapshot's name, for people
	Sum      string            `json:"sha256"`   // of the snapshot
	Revision registry.Revision `json:"revision"` // of the snapshot
	Time     int64             `json:"time"`     // when it was begun; Unix time, seconds
}

// ReadRestoring reads restoring.
func ReadRestoring(data []byte) (*Restoring, error) {
	v := new(Restoring)
	err := decode(data, v)
	return v, err
}

// LaterThan reports whether r was declared after prev, the one that was known when etcd was seen to go back; each may be nil. One that is not is of before, and was in the copy: all may have reported to
// it, but not what they have learned since.
func (r *Restored) LaterThan(prev *Restored) bool {
	return r != nil && (prev == nil || r.ID != prev.ID && r.Time > prev.Time)
}

// Mark says what the key was last changed by, 0 when there is none: whoever must act before a restore is declared compares it.
func (r *Restored) Mark() registry.Compare {
	if r == nil {
		return registry.Absent(KeyRestored)
	}
	return registry.Unchanged(KeyRestored, r.Mod)
}

// DeclareRestored is the transaction that makes every store report before another PG activates. s must hold SectionStores.
func DeclareRestored(s *Snapshot, r Restored) registry.Txn {
	return registry.Txn{If: []registry.Compare{s.Restored.Mark()}, Then: []registry.Op{{Kind: registry.Put, Key: KeyRestored, Value: Value(&r)}}}
}

// DeclareLost is the transaction that gives up the store of an OSD: it is not waited for, and not trusted should it come back. ok is false when the OSD has none.
func DeclareLost(s *Snapshot, osd layout.OSDNum) (t registry.Txn, ok bool) {
	id, ok := s.Stores.Get(osd)
	if !ok || id.Store.IsZero() {
		return t, false
	}
	return Retire(s, osd, id.Store)
}

// Retire is the transaction that gives up a store that an OSD's number stands for, or stood for, while no OSD of that number is up. ok is false when the number has nothing to do with the
// store. Of a store that is retired already it says so again.
func Retire(s *Snapshot, osd layout.OSDNum, store layout.StoreID) (t registry.Txn, ok bool) {
	id, ok := s.Stores.Get(osd)
	if !ok || store.IsZero() || id.Store != store && !id.IsRetired(store) {
		return t, false
	}
	next := *id
	if id.Store == store {
		next.Store, next.Boot, next.Sequence, next.Reported = layout.StoreID{}, 0, 0, ""
	}
	if !id.IsRetired(store) {
		next.Retired = append(append([]layout.StoreID(nil), id.Retired...), store)
	}
	key := OSDIdentityKey(osd)
	return registry.Txn{
		If:   []registry.Compare{registry.Unchanged(key, id.Mod), registry.Absent(OSDStateKey(osd))},
		Then: []registry.Op{{Kind: registry.Put, Key: key, Value: Value(&next)}},
	}, true
}

// Newer is the record that holds what both know: the one of the later activated interval, or, of the same one, that which needs fewer stores.
func (r PGRecord) Newer(o PGRecord) PGRecord {
	n, p := r, o
	if p.Activated > n.Activated || p.Activated == n.Activated && p.needs() < n.needs() {
		n, p = p, n
	}
	if p.Interval > n.Interval {
		n.Interval, n.Primary, n.Instance = p.Interval, p.Primary, p.Instance
	}
	n.Floor = max(n.Floor, p.Floor)
	if p.Activated == n.Activated && n.Lender == AnyLender {
		n.Lender = p.Lender
	}
	return n
}

// needs counts the stores that the record names.
func (r *PGRecord) needs() int {
	n := len(r.Participants)
	for _, s := range r.Sets {
		n += len(s.Members)
	}
	return n
}
