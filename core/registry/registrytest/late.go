package registrytest

import "holdfast/core/registry"

// Late is a Registry with whom something comes late: what etcd does when answers, requests that were given up, and watches overtake each other.
type Late struct {
	registry.Registry
	// Catch is shown each transaction. It says true when it takes care of it.
	Catch func(t registry.Txn, done func(registry.TxnResult, error)) bool
}

// Txn implements registry.Registry.
func (l *Late) Txn(t registry.Txn, done func(registry.TxnResult, error)) {
	if l.Catch == nil || !l.Catch(t, done) {
		l.Registry.Txn(t, done)
	}
}

// Held is a transaction of which something is held back.
type Held struct {
	Caught  bool               // it has come
	Done    bool               // it has been carried out
	Result  registry.TxnResult // of that
	Release func()             // lets go what is held back; on the loop
}

// first catches the first transaction that which picks.
func (l *Late) first(which func(registry.Txn) bool, hold func(h *Held, t registry.Txn, done func(registry.TxnResult, error))) *Held {
	h := &Held{Release: func() {}}
	l.Catch = func(t registry.Txn, done func(registry.TxnResult, error)) bool {
		if h.Caught || !which(t) {
			return false
		}
		h.Caught = true
		hold(h, t, done)
		return true
	}
	return h
}

// carryOut carries it out, and keeps what comes of it.
func (l *Late) carryOut(h *Held, t registry.Txn, then func(registry.TxnResult, error)) {
	l.Registry.Txn(t, func(res registry.TxnResult, err error) {
		h.Done, h.Result = err == nil, res
		then(res, err)
	})
}

// Answer holds the answer back: the transaction is carried out at once.
func (l *Late) Answer(which func(registry.Txn) bool) *Held {
	return l.first(which, func(h *Held, t registry.Txn, done func(registry.TxnResult, error)) {
		l.carryOut(h, t, func(res registry.TxnResult, err error) { h.Release = func() { done(res, err) } })
	})
}

// Request holds the transaction itself back.
func (l *Late) Request(which func(registry.Txn) bool) *Held {
	return l.first(which, func(h *Held, t registry.Txn, done func(registry.TxnResult, error)) {
		h.Release = func() { l.carryOut(h, t, done) }
	})
}

// GivenUp holds the transaction back, of which is said at once that its outcome is not known.
func (l *Late) GivenUp(which func(registry.Txn) bool) *Held {
	return l.first(which, func(h *Held, t registry.Txn, done func(registry.TxnResult, error)) {
		h.Release = func() { l.carryOut(h, t, func(registry.TxnResult, error) {}) }
		done(registry.TxnResult{}, registry.ErrUnavailable)
	})
}
