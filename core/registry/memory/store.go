// Package memory is the registry in one process: etcd's semantics on a sorted slice. Tests and the simulator use it.
//
// A Store is shared by handles on several loops, each made by Open; a mutex guards it, and what happens is delivered to the loops by Post. With one seed and all loops
// on one goroutine everything happens in the same order each time: nothing ranges over a map, reads a clock of its own or draws a number that is not given to it (Handle.SetFaults).
//
// Requests travel: there by the handle's latency, done on the store's loop, whose clock also ends the leases, and back. So a slow answer comes after its caller gave up, and what a
// process sent before it died still happens.
package memory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// keepRevisions is how many revisions a watch can go back before it is told to read again, as with the etcd flags that we recommend.
const keepRevisions = 10000

// Store holds the keys. It belongs to no loop, but leases run out on one.
type Store struct {
	l      loop.Loop
	expiry loop.Timer
	rearm  loop.Task

	mu        sync.Mutex
	rev       registry.Revision
	compacted registry.Revision // events up to here are gone
	kvs       []*registry.KV    // by key; the values of a KV never change once it is here
	history   []change          // revisions compacted+1..rev
	leases    []*lease          // by id
	lastLease registry.LeaseID
	watches   []*watch // in the order of their making
	down      bool
	copies    int        // times that an older copy was put in place
	late      []*request // what cuts and outages hold
	observe   func(a Act, l loop.Loop, key string, n int64)
}

// change is the events of one revision.
type change struct {
	rev registry.Revision
	evs []registry.Event
}

// lease is a lease as the store knows it.
type lease struct {
	id      registry.LeaseID
	ttl     time.Duration
	expires loop.Instant // by the store's loop
	renewed bool         // it gets its whole time to live from now on
}

// New is an empty store at revision 1, as a new etcd is. Leases run out by timers on l.
func New(l loop.Loop) *Store {
	s := &Store{l: l, rev: 1, compacted: 1}
	s.expiry.Fire = s.expire
	s.rearm.Run = s.expire
	return s
}

// Compact forgets the events up to rev; a watch that needs them is reset.
func (s *Store) Compact(rev registry.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.act(ActCompact, nil, "", int64(rev))
	s.compactLocked(min(rev, s.rev))
}

func (s *Store) compactLocked(rev registry.Revision) {
	n := 0
	for n < len(s.history) && s.history[n].rev <= rev {
		n++
	}
	s.history = append(s.history[:0:0], s.history[n:]...)
	s.compacted = max(s.compacted, rev)
}

// Revision is the revision of the last change.
func (s *Store) Revision() registry.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev
}

// Dump is every key, sorted, for the assertions of tests.
func (s *Store) Dump() []registry.KV {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prefixLocked("")
}

func (s *Store) searchLocked(key string) (int, bool) {
	return slices.BinarySearchFunc(s.kvs, key, func(kv *registry.KV, key string) int { return strings.Compare(kv.Key, key) })
}

// getLocked is the key, or a zero KV when it does not exist.
func (s *Store) getLocked(key string) (registry.KV, bool) {
	if i, ok := s.searchLocked(key); ok {
		return *s.kvs[i], true
	}
	return registry.KV{Key: key}, false
}

func (s *Store) prefixLocked(prefix string) []registry.KV {
	i, _ := s.searchLocked(prefix)
	var kvs []registry.KV
	for ; i < len(s.kvs) && strings.HasPrefix(s.kvs[i].Key, prefix); i++ {
		kvs = append(kvs, *s.kvs[i])
	}
	return kvs
}

// txnLocked carries t out.
func (s *Store) txnLocked(t registry.Txn) (registry.TxnResult, error) {
	if err := t.Check(); err != nil {
		return registry.TxnResult{}, err
	}
	res := registry.TxnResult{Succeeded: true}
	for _, c := range t.If {
		if !s.holdsLocked(c) {
			res.Succeeded = false
			break
		}
	}
	ops := t.Then
	if !res.Succeeded {
		ops = t.Else
	}
	for _, o := range ops {
		if _, ok := s.leaseLocked(o.Lease); o.Kind == registry.Put && o.Lease != 0 && !ok {
			return registry.TxnResult{}, &registry.RequestError{What: t.String(), Err: fmt.Errorf("put of %q under lease %d: %w", o.Key, o.Lease, registry.ErrNoLease)}
		}
	}
	ch := change{rev: s.rev + 1}
	res.Results = make([][]registry.KV, len(ops))
	for i, o := range ops {
		switch o.Kind {
		case registry.Put:
			ch.evs = append(ch.evs, s.putLocked(o, ch.rev))
		case registry.Delete:
			if i, ok := s.searchLocked(o.Key); ok {
				ch.evs = append(ch.evs, s.deleteLocked(i, i+1, ch.rev)...)
			}
		case registry.DeletePrefix:
			i, _ := s.searchLocked(o.Key)
			j := i
			for j < len(s.kvs) && strings.HasPrefix(s.kvs[j].Key, o.Key) {
				j++
			}
			ch.evs = append(ch.evs, s.deleteLocked(i, j, ch.rev)...)
		case registry.Get:
			if kv, ok := s.getLocked(o.Key); ok {
				res.Results[i] = []registry.KV{kv}
			}
		case registry.GetPrefix:
			res.Results[i] = s.prefixLocked(o.Key)
		}
	}
	s.commitLocked(ch)
	res.Revision = s.rev
	return res, nil
}

func (s *Store) holdsLocked(c registry.Compare) bool {
	kv, ok := s.getLocked(c.Key)
	var d int
	switch c.Target {
	case registry.CompareValue:
		if !ok {
			return false
		}
		d = slices.Compare(kv.Value, c.Value)
	case registry.CompareMod:
		d = cmp.Compare(int64(kv.Mod), c.Num)
	case registry.CompareCreate:
		d = cmp.Compare(int64(kv.Create), c.Num)
	case registry.CompareVersion:
		d = cmp.Compare(kv.Version, c.Num)
	case registry.CompareLease:
		d = cmp.Compare(int64(kv.Lease), c.Num)
	}
	switch c.Op {
	case registry.Equal:
		return d == 0
	case registry.Less:
		return d < 0
	case registry.Greater:
		return d > 0
	}
	return d != 0
}

func (s *Store) putLocked(o registry.Op, rev registry.Revision) registry.Event {
	kv := &registry.KV{Key: o.Key, Value: slices.Clone(o.Value), Create: rev, Mod: rev, Version: 1, Lease: o.Lease}
	i, ok := s.searchLocked(o.Key)
	if ok {
		kv.Create, kv.Version = s.kvs[i].Create, s.kvs[i].Version+1
		s.kvs[i] = kv
	} else {
		s.kvs = slices.Insert(s.kvs, i, kv)
	}
	return registry.Event{KV: *kv}
}

func (s *Store) deleteLocked(i, j int, rev registry.Revision) []registry.Event {
	evs := make([]registry.Event, 0, j-i)
	for _, kv := range s.kvs[i:j] {
		evs = append(evs, registry.Event{Deleted: true, KV: registry.KV{Key: kv.Key, Mod: rev}})
	}
	s.kvs = slices.Delete(s.kvs, i, j)
	return evs
}

// commitLocked makes ch part of the history and wakes the watches; nothing happened when it has no events.
func (s *Store) commitLocked(ch change) {
	if len(ch.evs) == 0 {
		return
	}
	s.rev = ch.rev
	s.history = append(s.history, ch)
	if len(s.history) > 2*keepRevisions {
		s.compactLocked(s.rev - keepRevisions)
	}
	for _, w := range s.watches {
		w.wake()
	}
}
