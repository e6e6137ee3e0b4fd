// Package registry is the small interface to a consistent key-value store with transactions, watches and leases that every daemon keeps the cluster's state in.
//
// core/registry/etcd speaks to etcd, core/registry/memory is the same semantics in one process (tests and the simulator); core/registry/registrytest is the suite
// that both pass. A Registry belongs to one loop: its methods are called there, and every callback arrives there, later, never inside the call.
//
// Keys are relative to the cluster's prefix (etcd_prefix) and start without a slash: "config/pools". Values are JSON text and belong to nobody: neither side changes
// them. A transaction's answer and the watch events it causes arrive in no particular order.
package registry

import (
	"errors"
	"fmt"
	"time"

	"holdfast/core/loop"
)

// Revision counts the registry's changes: every transaction that changes something is one revision. 0 means none.
type Revision int64

// LeaseID names a lease; 0 means none.
type LeaseID int64

// KV is one key with its value and history.
type KV struct {
	Key     string
	Value   []byte
	Create  Revision // revision that created the key
	Mod     Revision // revision that changed it last
	Version int64    // how many times it was written since its creation, from 1
	Lease   LeaseID  // the lease that it vanishes with, or 0
}

// CompareTarget is what of a key a Compare looks at.
type CompareTarget uint8

// What a Compare can look at. An absent key has numbers of 0 and, compared by value, fails whatever the operator is.
const (
	CompareValue CompareTarget = iota + 1
	CompareMod
	CompareCreate
	CompareVersion
	CompareLease
)

// CompareOp is how a Compare compares the key (left) with the given number or value (right).
type CompareOp uint8

// The operators.
const (
	Equal CompareOp = iota + 1
	Less
	Greater
	NotEqual
)

// Compare is one condition of a transaction.
type Compare struct {
	Key    string
	Target CompareTarget
	Op     CompareOp
	Num    int64  // for all targets but CompareValue
	Value  []byte // for CompareValue
}

// Absent holds when the key does not exist.
func Absent(key string) Compare { return Compare{Key: key, Target: CompareVersion, Op: Equal} }

// Exists holds when the key exists.
func Exists(key string) Compare { return Compare{Key: key, Target: CompareVersion, Op: Greater} }

// Unchanged holds when the key's last change is mod; with 0, when it does not exist.
func Unchanged(key string, mod Revision) Compare {
	return Compare{Key: key, Target: CompareMod, Op: Equal, Num: int64(mod)}
}

// NotAfter holds when the key has not changed after revision rev (or does not exist).
func NotAfter(key string, rev Revision) Compare {
	return Compare{Key: key, Target: CompareMod, Op: Less, Num: int64(rev) + 1}
}

// HeldBy holds when the key exists and vanishes with the lease, which is not 0.
func HeldBy(key string, lease LeaseID) Compare {
	return Compare{Key: key, Target: CompareLease, Op: Equal, Num: int64(lease)}
}

// OpKind is what an Op does.
type OpKind uint8

// The kinds of an Op. A prefix of "" means every key.
const (
	Put OpKind = iota + 1
	Delete
	DeletePrefix
	Get
	GetPrefix
)

// Op is one step of a transaction. One transaction may put a key only once, and not both put and delete it.
type Op struct {
	Kind  OpKind
	Key   string
	Value []byte  // for Put
	Lease LeaseID // for Put
}

// Writes reports whether the op may change something.
func (o Op) Writes() bool { return o.Kind == Put || o.Kind == Delete || o.Kind == DeletePrefix }

// Slow as a Txn's Timeout asks for the registry's slow timeout (etcd_slow_timeout).
const Slow time.Duration = -1

// Txn runs Then when every condition of If holds (also when there is none), and Else otherwise, all at one revision.
type Txn struct {
	If         []Compare
	Then, Else []Op
	// Timeout bounds the wait for the answer: 0 means the registry's quick timeout (etcd_quick_timeout), Slow its slow one.
	Timeout time.Duration
}

// ReadOnly reports whether the transaction cannot change anything, so that it may be repeated.
func (t Txn) ReadOnly() bool {
	for _, o := range t.Then {
		if o.Writes() {
			return false
		}
	}
	for _, o := range t.Else {
		if o.Writes() {
			return false
		}
	}
	return true
}

// TxnResult is the answer to a Txn.
type TxnResult struct {
	Succeeded bool     // the conditions held and Then ran
	Revision  Revision // the registry's revision after the transaction
	Results   [][]KV   // one per op of the branch that ran, in its order: what a Get found, sorted by key; nil for the other kinds
}

// ErrUnavailable says that no answer came. A transaction that ended with it may have been carried out or not, and may yet be.
var ErrUnavailable = errors.New("registry unavailable")

// ErrNoLease says that the lease does not exist (any more).
var ErrNoLease = errors.New("lease does not exist")

// RequestError says that the registry refused a request and did nothing; repeating it would not help. Err wraps ErrNoLease where that is the reason.
type RequestError struct {
	What string // what was asked for
	Err  error
}

func (e *RequestError) Error() string { return fmt.Sprintf("registry refused %s: %v", e.What, e.Err) }

// Unwrap is the reason.
func (e *RequestError) Unwrap() error { return e.Err }

// Event is one key's change.
type Event struct {
	Deleted bool
	KV      KV // of a deleted key only Key and Mod
}

// Registry is one loop's handle on the registry.
type Registry interface {
	// Txn runs t and calls done once. The error is a *RequestError (nothing was done) or wraps ErrUnavailable (the outcome is unknown).
	Txn(t Txn, done func(TxnResult, error))

	// Watch shows w every change of the keys under the prefixes at revision from (0: the next) or later, until stop is called: one logical watch, all events of one
	// revision together, in order, across all prefixes. After stop, w is not called again.
	Watch(prefixes []string, from Revision, w Watcher) (stop func())

	// Grant asks for a lease of the given time to live and keeps it alive until Revoke. Asking goes on until it is granted.
	Grant(ttl time.Duration, h LeaseHandler) Lease

	// Revoke ends the lease of a holder that is known to be dead: its keys vanish. One that is over already is no error. done may be nil.
	Revoke(id LeaseID, done func(error))

	// Doubt says that contact with some host was lost, which may have held the member of the registry that the watches come from: they are tried at once.
	Doubt()
}

// Watcher is told what happens on a watch.
type Watcher interface {
	// Events are all changes of one revision, in the order in which they were made. They belong to everybody and must not be changed.
	Events(rev Revision, evs []Event)
	// Reset says that changes were missed, because they are compacted or because the registry was restored from an older copy: everything has to be read again.
	// The watch goes on with the changes after rev; a later Load's revision may be higher than the next event's, which is then old news. A rev below one that was shown, 0 too, says
	// that the registry is another copy, where equal revisions do not mean equal values.
	Reset(rev Revision)
	// Unavailable says that contact is lost, for the log; the watch goes on by itself and misses nothing.
	Unavailable(err error)
}

// Lease makes keys vanish when its holder does.
type Lease interface {
	// ID is 0 until Granted.
	ID() LeaseID
	// Until is the moment after which the lease may have run out: its time to live counted from when the last successful keep-alive was sent. Who must not outlive the
	// lease compares it with Now, since a stalled loop learns of the loss late.
	Until() loop.Instant
	// Revoke gives the lease up: its keys vanish. The handler is not called again. done (which may be nil) is called when the registry has confirmed it, or with an error
	// that wraps ErrUnavailable when it did not answer and the keys will vanish within the time to live.
	Revoke(done func(error))
}

// LeaseHandler is told what becomes of a lease.
type LeaseHandler interface {
	// Granted says that keys can be attached now.
	Granted(l Lease)
	// Lost is the last call: the registry has ended the lease, or may have, since no keep-alive was answered during its time to live, or it refused to grant it. Ask for
	// another one to go on.
	Lost(l Lease, err error)
}

// Load reads every key under the prefixes at one revision; kvs is sorted by prefix, in the order given, then key.
func Load(r Registry, prefixes []string, done func(kvs []KV, rev Revision, err error)) {
	t := Txn{Timeout: Slow}
	for _, p := range prefixes {
		t.Then = append(t.Then, Op{Kind: GetPrefix, Key: p})
	}
	r.Txn(t, func(res TxnResult, err error) {
		if err != nil {
			done(nil, 0, fmt.Errorf("load %q: %w", prefixes, err))
			return
		}
		var kvs []KV
		for _, found := range res.Results {
			kvs = append(kvs, found...)
		}
		done(kvs, res.Revision, nil)
	})
}
