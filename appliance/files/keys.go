package files

import (
	"slices"
	"strings"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
)

// keys follows nfs/ and keeps the view's records up to date. It belongs to the home loop.
type keys struct {
	t       *Tree
	rev     registry.Revision // applied; 0: nothing read yet
	pending []batch           // that came before what they follow was read
	reading bool
	again   bool
	retry   loop.Timer
	unwatch func()
	waiting []waiting
	stopped bool
}

type batch struct {
	rev registry.Revision
	evs []registry.Event
}

type waiting struct {
	rev  registry.Revision
	done func()
}

const keysRetry = time.Second

func (k *keys) start(t *Tree) {
	k.t = t
	k.retry.Fire = k.read
	k.read()
}

func (k *keys) stop() {
	k.stopped = true
	k.t.l.Disarm(&k.retry)
	if k.unwatch != nil {
		k.unwatch()
	}
}

// await calls done, later, once a revision that changed keys of ours is applied.
func (k *keys) await(rev registry.Revision, done func()) {
	k.waiting = append(k.waiting, waiting{rev, done})
	k.t.l.Post(&loop.Task{Run: k.wake})
}

func (k *keys) wake() {
	for i := 0; i < len(k.waiting); {
		if w := k.waiting[i]; w.rev <= k.rev {
			k.waiting = slices.Delete(k.waiting, i, i+1)
			w.done()
			continue
		}
		i++
	}
}

// forget has nobody wait for a revision of an etcd that has gone back to an earlier state: whoever waits goes on when the keys have been read again.
func (k *keys) forget() {
	for i := range k.waiting {
		k.waiting[i].rev = 0
	}
}

func (k *keys) read() {
	k.reading, k.again = true, false
	registry.Load(k.t.c.Registry(), []string{prefix}, func(kvs []registry.KV, rev registry.Revision, err error) {
		switch {
		case k.stopped:
			return
		case err != nil:
			k.t.l.Arm(&k.retry, k.t.l.Now().Add(keysRetry))
			return
		case k.again:
			k.read()
			return
		}
		k.reading = false
		k.replace(kvs)
		if rev < k.rev {
			k.forget() // another copy, which the watch will tell
		}
		k.rev = rev
		if k.unwatch == nil {
			k.unwatch = k.t.c.Registry().Watch([]string{prefix}, rev+1, k)
		}
		pending := k.pending
		k.pending = nil
		for _, b := range pending {
			k.Events(b.rev, b.evs)
		}
		k.wake()
	})
}

// replace makes kvs all that there is.
func (k *keys) replace(kvs []registry.KV) {
	t := k.t
	now := t.now(t.l)
	v := *t.view.Load()
	v.names++
	found := make(map[string]bool, len(kvs))
	for _, kv := range kvs {
		found[kv.Key] = true
		k.apply(&v, registry.Event{KV: kv}, now)
	}
	for id := range t.view.Load().attrs.All() {
		if !found[attrKey(id)] {
			v.attrs = v.attrs.Without(id)
		}
	}
	for path, d := range t.view.Load().dirs.All() {
		if d.rec != nil && !found[dirKey(path)] {
			v.record(path, nil, now)
		}
	}
	t.view.Store(&v)
}

func (k *keys) apply(v *view, ev registry.Event, now nfs.Time) {
	var rec *record
	if !ev.Deleted {
		r, err := readRecord(ev.KV)
		if err != nil {
			k.t.log.Error("unusable key; what it held before stays in force", "key", ev.KV.Key, "err", err)
			return
		}
		rec = r
	}
	if path, ok := strings.CutPrefix(ev.KV.Key, prefixDir); ok {
		if path != "" && checkPath(path) != nil {
			k.t.log.Error("unusable key: it names no directory", "key", ev.KV.Key)
			return
		}
		v.record(path, rec, now)
	} else if id, ok := parseAttrKey(ev.KV.Key); ok {
		if rec == nil {
			v.attrs = v.attrs.Without(id)
		} else {
			v.attrs = v.attrs.With(id, rec)
		}
	}
}

// Events is registry.Watcher's.
func (k *keys) Events(rev registry.Revision, evs []registry.Event) {
	switch {
	case k.stopped || rev <= k.rev:
		return
	case k.reading:
		k.pending = append(k.pending, batch{rev, evs})
		return
	}
	now := k.t.now(k.t.l)
	v := *k.t.view.Load()
	v.names++
	for _, ev := range evs {
		k.apply(&v, ev, now)
	}
	k.t.view.Store(&v)
	k.rev = rev
	k.wake()
}

// Reset is registry.Watcher's.
func (k *keys) Reset(rev registry.Revision) {
	k.pending = nil
	if rev < k.rev {
		k.rev = rev
		k.forget()
	}
	if k.reading {
		k.again = true
		return
	}
	k.read()
}

// Unavailable is registry.Watcher's; the client says the same.
func (k *keys) Unavailable(error) {}
