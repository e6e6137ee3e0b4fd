// Package cluster is the typed form of what the registry holds: every key of the cluster's configuration and state, and the watched, immutable snapshot of them.
//
// Daemons, clients and the CLI use it. Readers are strict about meaning and lenient about form: numbers may be strings, as the stock monitor writes them. A malformed
// value never panics and never takes anything else down: it becomes a *KeyError that names the key, and the state before it keeps serving.
//
// The keys are Vitastor's (the same names and JSON), and beside them our own: cluster/id, pool/identity/, interval/, osd/identity/, fence/, gateway/ and config/export/.
package cluster

import (
	"fmt"

	"holdfast/core/registry"
)

// Meta is what the registry knows of the key that a value came from.
type Meta struct {
	Mod    registry.Revision `json:"-"` // revision of its last change
	Create registry.Revision `json:"-"` // revision of its creation
	Lease  registry.LeaseID  `json:"-"` // the lease that it vanishes with, or 0
}

func metaOf(kv registry.KV) Meta { return Meta{Mod: kv.Mod, Create: kv.Create, Lease: kv.Lease} }

func (m *Meta) setMeta(kv registry.KV) { *m = metaOf(kv) }

// KeyError says that a key's value cannot be used. What the key held before stays in force.
type KeyError struct {
	Key    string
	Reason error
	Action string            // what the operator can do
	Mod    registry.Revision // of the value that cannot be used
}

func (e *KeyError) Error() string { return fmt.Sprintf("key %s: %v; %s", e.Key, e.Reason, e.Action) }

// Unwrap is the reason.
func (e *KeyError) Unwrap() error { return e.Reason }

// badKey is the KeyError for a value that a person or another program wrote.
func badKey(key string, reason error) *KeyError {
	return &KeyError{Key: key, Reason: reason, Action: "what it held before stays in force until the value is corrected or the key is deleted"}
}
