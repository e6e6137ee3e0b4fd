package cluster

import (
	"maps"
	"slices"
	"strings"
	"time"

	"holdfast/core/loop"
	"holdfast/core/registry"
)

// Sections says which parts of the cluster's state to follow.
type Sections uint32

// The sections and their keys.
const (
	SectionConfig     Sections = 1 << iota // cluster/id, config/global, pools, node_placement, osd/, export/, pool/identity/
	SectionInodes                          // config/inode/
	SectionPGs                             // pg/config, pg/state/
	SectionHistory                         // pg/history/
	SectionRecords                         // interval/, skip/
	SectionOSDs                            // osd/state/
	SectionStores                          // osd/identity/, restored, restoring
	SectionFences                          // fence/
	SectionGateways                        // gateway/
	SectionOSDStats                        // osd/stats/, osd/waiting/, osd/failure/
	SectionOSDSpace                        // osd/space/, osd/inodestats/
	SectionPGStats                         // pgstats/
	SectionInodeStats                      // inode/stats/
	SectionPoolStats                       // pool/stats/, stats
	SectionMonitors                        // mon/
	SectionLastClean                       // history/last_clean_pgs
	SectionGlobal                          // config/global alone, which is also in SectionConfig
	SectionScrubs                          // scrub/
)

// ForClient is what a client needs.
const ForClient = SectionConfig | SectionInodes | SectionPGs | SectionOSDs

// ForOSD is what an OSD needs.
const ForOSD = ForClient | SectionHistory | SectionRecords | SectionStores | SectionFences

// ForMonitor is what a monitor needs.
const ForMonitor = ForOSD | SectionGateways | SectionOSDStats | SectionOSDSpace | SectionPGStats | SectionInodeStats | SectionPoolStats | SectionMonitors | SectionLastClean | SectionScrubs

// Prefixes are what has to be read and watched for the sections.
func (s Sections) Prefixes() []string {
	var out []string
	for i, p := range [...][]string{
		{KeyClusterID, KeyGlobal, KeyPools, KeyPlacement, PrefixOSDConfig, PrefixExport, PrefixPoolIdentity},
		{PrefixInode},
		{KeyPGConfig, PrefixPGState},
		{PrefixPGHistory},
		{PrefixPGRecord, PrefixPGSkip, PrefixOSDMissing},
		{PrefixOSDState},
		{PrefixOSDIdentity, KeyRestored, KeyRestoring},
		{PrefixFence},
		{PrefixGateway},
		{PrefixOSDStats, PrefixOSDWaiting, PrefixOSDFailure},
		{PrefixOSDSpace, PrefixOSDInodeStats},
		{PrefixPGStats},
		{PrefixInodeStats},
		{PrefixPoolStats, KeyStats},
		{"mon/"},
		{KeyLastClean},
		{KeyGlobal},
		{PrefixPGScrub, PrefixImageScrub},
	} {
		if s&(1<<i) != 0 {
			out = append(out, p...)
		}
	}
	return out
}

// Handler is told how the cluster changes.
type Handler interface {
	// Changed is called once per revision that changed anything in the sections, with all of its changes applied. keys are the changed ones, sorted; the first call has
	// an empty prev and every key that exists, and after changes were missed one call has all that differs.
	Changed(prev, next *Snapshot, keys []string)
	// Fault says that a key's value is unusable and what it held before stays in force. It comes before the Changed of its revision.
	Fault(err *KeyError)
	// Unavailable says that contact is lost, for the log; following goes on by itself and misses nothing.
	Unavailable(err error)
}

// reloadPause is how long to wait before reading again after reading was not possible (etcd_min_reload_interval).
const reloadPause = time.Second

// maxWaiting is how many revisions are kept while everything is read; beyond it reading starts over, which is cheaper than remembering them.
const maxWaiting = 4096

// Follower keeps a snapshot up to date. It belongs to its loop.
type Follower struct {
	l        loop.Loop
	r        registry.Registry
	prefixes []string
	h        Handler
	snap     *Snapshot
	mods     map[string]registry.Revision // of every key that snap was made from

	stopWatch func()
	loading   bool
	again     bool // another reset came while loading
	fresh     bool // the next load starts over: the registry may have gone back
	waiting   []batch
	retry     loop.Timer
	stopped   bool
}

// batch is one revision's events that arrived while loading.
type batch struct {
	rev registry.Revision
	evs []registry.Event
}

// Follow reads the sections, then watches them, and tells h of every change until Stop.
func Follow(l loop.Loop, r registry.Registry, s Sections, h Handler) *Follower {
	f := &Follower{l: l, r: r, prefixes: s.Prefixes(), h: h, snap: newSnapshot(), mods: make(map[string]registry.Revision)}
	f.retry.Fire = f.load
	f.load()
	return f
}

// Snapshot is the newest snapshot; before the first Changed an empty one of revision 0.
func (f *Follower) Snapshot() *Snapshot { return f.snap }

// Stop ends the following; the handler is not called again.
func (f *Follower) Stop() {
	f.stopped = true
	f.l.Disarm(&f.retry)
	if f.stopWatch != nil {
		f.stopWatch()
	}
}

func (f *Follower) load() {
	f.loading, f.again = true, false
	registry.Load(f.r, f.prefixes, f.loaded)
}

func (f *Follower) loaded(kvs []registry.KV, rev registry.Revision, err error) {
	switch {
	case f.stopped:
		return
	case err != nil:
		f.h.Unavailable(err)
		if !f.stopped {
			f.l.Arm(&f.retry, f.l.Now().Add(reloadPause))
		}
		return
	case f.again:
		f.load()
		return
	}
	f.loading = false
	if rev < f.snap.Revision {
		// Another copy, which the watch has not told yet, nor may it ever, once that copy has come as far as the watch: what it brought meanwhile is of the one before, too.
		f.fresh, f.waiting = true, nil
		f.stopWatch()
		f.stopWatch = nil
	}
	evs := f.difference(kvs, rev)
	first := f.snap.Revision == 0
	if f.fresh {
		f.fresh = false
		other := *f.snap
		other.Copy++
		f.apply(&other, rev, evs, true)
	} else {
		f.apply(f.snap, rev, evs, first)
	}
	if f.stopped {
		return
	}
	if f.stopWatch == nil {
		f.stopWatch = f.r.Watch(f.prefixes, rev+1, watcher{f})
	}
	waiting := f.waiting
	f.waiting = nil
	for _, b := range waiting {
		f.events(b.rev, b.evs)
	}
}

// difference is the events that lead from what is known to kvs.
func (f *Follower) difference(kvs []registry.KV, rev registry.Revision) []registry.Event {
	var evs []registry.Event
	found := make(map[string]bool, len(kvs))
	for _, kv := range kvs {
		if found[kv.Key] {
			continue // under two prefixes
		}
		found[kv.Key] = true
		if mod, known := f.mods[kv.Key]; !known || mod != kv.Mod || f.fresh {
			evs = append(evs, registry.Event{KV: kv})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.mods)) {
		if !found[key] {
			evs = append(evs, registry.Event{Deleted: true, KV: registry.KV{Key: key, Mod: rev}})
		}
	}
	return evs
}

// apply makes the snapshot of rev out of base and shows it.
func (f *Follower) apply(base *Snapshot, rev registry.Revision, evs []registry.Event, always bool) {
	prev := f.snap
	next := *base
	next.Revision = rev
	f.snap = &next
	keys := make([]string, 0, len(evs))
	for _, ev := range evs {
		keys = append(keys, ev.KV.Key)
		if ev.Deleted {
			delete(f.mods, ev.KV.Key)
		} else {
			f.mods[strings.Clone(ev.KV.Key)] = ev.KV.Mod
		}
		if fault := next.apply(ev); fault != nil {
			f.h.Fault(fault)
		}
	}
	if len(keys) == 0 && !always || f.stopped {
		return
	}
	slices.Sort(keys)
	f.h.Changed(prev, &next, slices.Compact(keys))
}

func (f *Follower) events(rev registry.Revision, evs []registry.Event) {
	switch {
	case f.stopped:
	case f.loading && len(f.waiting) == maxWaiting:
		f.waiting, f.again = nil, true
	case f.loading:
		f.waiting = append(f.waiting, batch{rev, evs})
	case rev > f.snap.Revision:
		f.apply(f.snap, rev, evs, false)
	}
}

// reset reads everything again.
func (f *Follower) reset(rev registry.Revision) {
	if f.stopped {
		return
	}
	if rev < f.snap.Revision {
		f.fresh = true // an older copy: equal revisions do not mean equal values
	}
	f.waiting = nil
	if f.loading {
		f.again = true
		return
	}
	f.load()
}

// watcher is the Follower as the registry sees it.
type watcher struct{ f *Follower }

func (w watcher) Events(rev registry.Revision, evs []registry.Event) { w.f.events(rev, evs) }
func (w watcher) Reset(rev registry.Revision)                        { w.f.reset(rev) }
func (w watcher) Unavailable(err error) {
	if !w.f.stopped {
		w.f.h.Unavailable(err)
	}
}
