// Package osd is the daemon of one disk: it serves clients' requests for the PGs it is primary of, carries out what other primaries ask, and keeps its state in the registry.
//
// appliance starts it on a loop with an opened store. It wires peering (who must be heard, who is right), primary and secondary (execution), the grants by which members let
// a primary serve, and the registry. Everything belongs to the loop; nothing here blocks.
package osd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/registry"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/primary"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// Options says who the OSD is and sets its times.
type Options struct {
	Num      layout.OSDNum
	Instance uint64 // random, of this run
	Host     string
	Version  string
	Bind     []loop.Addr // where to listen; port 0 takes any, the same for all addresses
	Key      []byte      // cluster key, nil for none
	// AllowLegacy says whether a stock client may connect from an address; nil: none may.
	AllowLegacy func(remote loop.Addr) bool
	Registry    registry.Registry
	Store       *store.Store

	LeaseTime     time.Duration // life of the registry lease [5 s]
	LockTime      time.Duration // T, how long a grant lasts [1.5 s]
	StatsInterval time.Duration // between writes of statistics [30 s]
	// StrangerTime is how long an instance that is not registered is remembered after we have first met it: a tool that is not registered may wait so long for an answer. [1 h]
	StrangerTime  time.Duration
	RecoveryDepth int           // recovery_queue_depth [1]
	LockConfirm   bool          // members confirm their grants before each read is answered
	Peer          peer.Options  // times and limits of connections; identity is filled in
	Probe         primary.Probe // of the simulator; nil

	Log *slog.Logger
	// Fatal is called once when the OSD cannot go on; the process should end.
	Fatal func(error)
}

func (o *Options) fill(l loop.Loop) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.LeaseTime, 5*time.Second)
	def(&o.LockTime, 1500*time.Millisecond)
	def(&o.StatsInterval, 30*time.Second)
	def(&o.StrangerTime, time.Hour)
	if o.RecoveryDepth == 0 {
		o.RecoveryDepth = 1
	}
	if o.Log == nil {
		o.Log = l.Log()
	}
}

// OSD is one running daemon.
type OSD struct {
	l    loop.Loop
	o    Options
	log  *slog.Logger
	self secondary.Holder

	hub       *peer.Hub
	listeners []loop.Listener
	addresses []string
	port      int

	locks *secondary.Locks
	sec   *secondary.Server
	prim  *primary.Primary

	follower *cluster.Follower
	lease    registry.Lease
	leaseUp  bool // osd/state is ours under the present lease
	backs    int  // how often etcd has gone back to an earlier state
	entered  bool // osd/identity may say of this opening of the store
	identity *cluster.OSDIdentity
	holder   holder // of our number, when it is not us

	pgs       map[layout.PGID]*pgRun
	peers     map[layout.OSDNum]*peerRun
	shards    map[layout.PoolID]*shard
	fences    fences
	strangers map[uint64]loop.Instant // instances with pairs in our store that are not registered, and since when
	stopping  bool
	leaving   bool // all OSDs are about to stop: no PG begins another interval
	stopped   func()
	failed    bool

	retry    loop.Timer
	stats    loop.Timer
	progress progress
	renewal  loop.Timer
	stray    strayJob
	missing  missing
	scrubs   scrubs

	verifying       *verification
	declaring       bool
	undeclared      string            // why, when the declaration was not written; it is tried again
	undeclaredAfter *cluster.Restored // unless this is not the last one any more
	reporting       bool
	restoredRetry   loop.Timer
}

// Start begins the OSD's life. The store must be open. An error means that it cannot listen.
func Start(l loop.Loop, o Options) (*OSD, error) {
	o.fill(l)
	sb := o.Store.Superblock()
	s := &OSD{
		l: l, o: o, log: o.Log.With("osd", uint64(o.Num)),
		self:   secondary.Holder{OSD: o.Num, Instance: o.Instance, Store: sb.StoreID},
		pgs:    map[layout.PGID]*pgRun{},
		peers:  map[layout.OSDNum]*peerRun{},
		shards: map[layout.PoolID]*shard{},
	}
	s.locks = secondary.NewLocks(l, o.Store, s.self, o.LockTime, s.fences.forHolder)
	s.sec = secondary.New(l, o.Store, s.locks)
	s.hub = peer.New(l, s.peerOptions(), s)
	s.prim = primary.New(l, s.hub, s.sec, o.Store, s, primary.Options{Self: o.Num, Instance: o.Instance, RecoveryDepth: o.RecoveryDepth, LockConfirm: o.LockConfirm, Probe: o.Probe})
	s.scrubs.init(s)
	s.retry.Fire = s.grant
	s.stats.Fire = s.publishStats
	s.renewal.Fire = s.renewAll
	s.fences.due.Fire = s.endFenced
	s.restoredRetry.Fire = s.compareRecords
	for _, a := range o.Bind {
		host, port, err := net.SplitHostPort(a.Address)
		if err == nil && port == "0" && s.port != 0 {
			a.Address = net.JoinHostPort(host, strconv.Itoa(s.port))
		}
		ln, err := s.hub.Listen(a, loop.ListenOptions{})
		if err != nil {
			s.closeListeners()
			return nil, fmt.Errorf("OSD %d: %w", o.Num, err)
		}
		s.listeners = append(s.listeners, ln)
		bound, text, _ := net.SplitHostPort(ln.Addr().Address)
		s.port, _ = strconv.Atoi(text)
		s.addresses = append(s.addresses, bound)
	}
	s.follower = cluster.Follow(l, o.Registry, cluster.ForOSD|cluster.SectionGateways, s)
	return s, nil
}

// peerOptions are those of our connections.
func (s *OSD) peerOptions() peer.Options {
	o := s.o.Peer
	o.Self, o.Instance, o.Key, o.AllowLegacy, o.Config, o.Log = s.o.Num, s.o.Instance, s.o.Key, s.o.AllowLegacy, s.config, s.log
	return o
}

func (s *OSD) closeListeners() {
	for _, ln := range s.listeners {
		ln.Close()
	}
}

// Events count what happened rarely on this OSD as a primary.
func (s *OSD) Events() primary.Events { return s.prim.Events }

// RecoveryStat sums up the recovery that this OSD did as a primary.
func (s *OSD) RecoveryStat() primary.RecoveryStat { return s.prim.Recovery }

// Scrubbed sums up what this OSD compared as a primary.
func (s *OSD) Scrubbed() primary.ScrubStat { return s.prim.Scrubbed }

// config is what SHOW_CONFIG tells about us.
func (s *OSD) config() wire.ConfigReply {
	c := s.o.Store.Superblock().Config
	return wire.ConfigReply{
		BlockSize: uint64(c.BlockSize), BitmapGranularity: uint64(c.Granularity), PrimaryEnabled: true, BlockstoreEnabled: true,
		ImmediateCommit: "all", LeaseTimeout: uint64(s.o.LeaseTime / time.Second),
	}
}

// Snapshot is the state of the cluster as applied.
func (s *OSD) Snapshot() *cluster.Snapshot { return s.follower.Snapshot() }

// fatal ends the OSD.
func (s *OSD) fatal(err error) {
	if s.failed {
		return
	}
	s.failed = true
	s.log.Error("the OSD stops", "err", err)
	if s.o.Fatal != nil {
		s.o.Fatal(err)
	}
}

// StoreFailed is called when the store has stopped after a device error: nothing here may be served any more.
func (s *OSD) StoreFailed(err error) {
	s.fatal(fmt.Errorf("OSD %d: its disk has failed: %w; replace the disk, or check it with `holdfast disk check`", s.o.Num, err))
}

// Fault says that a key's value cannot be used.
func (s *OSD) Fault(err *cluster.KeyError) {
	s.log.Warn("a key cannot be used", "key", err.Key, "err", err.Reason, "action", err.Action)
}

// Unavailable says that contact with the registry is lost. Input and output go on.
func (s *OSD) Unavailable(err error) {
	s.log.Warn("no contact with etcd; what is served now goes on being served", "err", err)
}

// Changed applies a new state of the cluster.
func (s *OSD) Changed(prev, next *cluster.Snapshot, keys []string) {
	if s.failed {
		return
	}
	if prev.Revision == 0 {
		if s.begin(); s.failed {
			return
		}
	}
	back := wentBack(prev, next, keys)
	if back {
		s.wentBack(prev, next)
	}
	s.applyFences(prev, next, back)
	s.applyPeers(prev, next)
	s.applyPGs(prev, next)
	s.endSessions(prev, next)
	for _, r := range s.sortedPGs() {
		r.applied(next.Revision)
		r.restated()
	}
	s.stray.look(s)
	s.compareRecords()
	s.forgotten(keys)
	if slices.ContainsFunc(keys, func(key string) bool {
		return key == cluster.KeyPools || strings.HasPrefix(key, cluster.PrefixPGHistory)
	}) {
		s.l.Defer(&s.scrubs.looking)
	}
}

// begin checks our identity against the registry and asks for a lease.
func (s *OSD) begin() {
	sb := s.o.Store.Superblock()
	if err := checkPlace(s.Snapshot(), s.o.Num, sb.StoreID); err != nil {
		s.fatal(err)
		return
	}
	id, ok := s.Snapshot().Stores.Get(s.o.Num)
	if ok && !s.o.Store.ReadOnly() {
		s.identity = id
		if err := checkIdentity(id, sb, s.o.Store.Stats().Sequence); err != nil {
			s.distrust(err)
			return
		}
	}
	s.grant()
	s.l.Arm(&s.renewal, s.l.Now().Add(s.o.LockTime/4))
}

// distrust ends the OSD because the cluster does not take its store for what it knows. Each opening counts on a little: if that were not written down, a store that was set back would pass one day.
func (s *OSD) distrust(err error) {
	err = &UntrustedError{OSD: s.o.Num, Err: err}
	s.failed = true
	s.o.Store.Condemn(func(failed error) {
		s.failed = false
		s.fatal(errors.Join(err, failed))
	})
}

// checkIdentity compares the store with what the cluster remembers of its earlier openings.
func checkIdentity(id *cluster.OSDIdentity, sb store.Superblock, sequence uint64) error {
	switch {
	case id.IsRetired(sb.StoreID) && !planted.RetiredOpens:
		return fmt.Errorf("store %v was retired: another disk has taken its place, or it was given up", sb.StoreID)
	case id.SetBack(sb.StoreID, sb.Boot, sequence) && !planted.SetBackOpens:
		return fmt.Errorf("store %v is older than the cluster remembers (boot %d, sequence %d; known are boot %d, sequence %d): the disk was set back to an earlier state, and what it holds cannot be trusted",
			sb.StoreID, sb.Boot, sequence, id.Boot, id.Sequence)
	}
	return nil // or a new disk under this number
}

// grant asks for a lease, which register then ties our state to.
func (s *OSD) grant() {
	if s.stopping || s.failed {
		return
	}
	if s.lease == nil {
		s.lease = s.o.Registry.Grant(s.o.LeaseTime, leaseHandler{s})
	} else if s.lease.ID() != 0 && !s.leaseUp {
		s.register()
	}
}

// leaseHandler is the OSD as its lease sees it.
type leaseHandler struct{ s *OSD }

// Granted is called when the lease is there.
func (h leaseHandler) Granted(l registry.Lease) {
	if l == h.s.lease {
		h.s.register()
	}
}

// Lost is the end of the lease: our keys are gone or will be. What is served goes on under the members' grants, and the keys are made again if nobody took over.
func (h leaseHandler) Lost(l registry.Lease, err error) {
	s := h.s
	if l != s.lease || s.stopping {
		return
	}
	s.log.Warn("the lease is lost; asking for another one", "err", err)
	s.lease, s.leaseUp = nil, false
	for _, r := range s.sortedPGs() {
		r.haveState = false
	}
	s.grant()
}

func (s *OSD) stateValue() []byte {
	return cluster.Value(&cluster.OSDState{
		State: "up", Addresses: s.addresses, Host: s.o.Host, Version: s.o.Version, Port: cluster.Number(s.port), PrimaryEnabled: true, BlockstoreEnabled: true,
		Instance: cluster.Number(s.o.Instance), Store: s.self.Store,
	})
}

// register makes osd/state and osd/identity ours.
func (s *OSD) register() {
	if s.lease == nil || s.lease.ID() == 0 || s.stopping || s.failed {
		return
	}
	if s.Snapshot().Restoring != nil && !planted.HalfRestored {
		s.log.Error("a restore of etcd was begun and has not ended; nothing is served before it has: run `holdfast etcd restore` again", "file", s.Snapshot().Restoring.File)
		s.l.Arm(&s.retry, s.l.Now().Add(5*time.Second))
		return
	}
	if old, ok := s.Snapshot().OSDStates.Get(s.o.Num); ok && uint64(old.Instance) != s.o.Instance && !s.place(old) {
		return
	}
	sb := s.o.Store.Superblock()
	if err := checkPlace(s.Snapshot(), s.o.Num, sb.StoreID); err != nil {
		s.fatal(err)
		return
	}
	if s.o.Store.ReadOnly() {
		s.lookOnly()
		return
	}
	id := cluster.OSDIdentity{Store: sb.StoreID, Boot: sb.Boot, Sequence: s.o.Store.Stats().Sequence}
	var mod registry.Revision
	if old, ok := s.Snapshot().Stores.Get(s.o.Num); ok {
		opened := sb
		if s.entered {
			opened.Boot++ // what etcd knows of this opening is our own word, and our journal has only grown since
		}
		// Again, as begin may have seen an etcd that was not whole, and the lease may have been lost: the store may have been given up meanwhile, and a machine that was set back with its
		// memory opens no disk.
		if err := checkIdentity(old, opened, id.Sequence); err != nil {
			s.distrust(err)
			return
		}
		mod, id.Retired = old.Mod, old.Retired
		if old.Store == sb.StoreID {
			id.Reported = old.Reported
		}
		if r := s.Snapshot().Restored; r != nil && old.Reported != r.ID && old.Store != sb.StoreID && !old.Store.IsZero() {
			s.log.Error("the store of this number has not reported since etcd was restored, and another one would take its place: start the OSD on that disk, or give it up (`holdfast etcd lost`)", "store", old.Store.String())
			s.l.Arm(&s.retry, s.l.Now().Add(5*time.Second))
			return
		}
		if old.Store != sb.StoreID && !old.Store.IsZero() {
			id.Retired = append(append([]layout.StoreID(nil), old.Retired...), old.Store)
		}
	}
	key := cluster.OSDStateKey(s.o.Num)
	t := registry.Txn{
		If: []registry.Compare{registry.Absent(key), registry.Unchanged(cluster.OSDIdentityKey(s.o.Num), mod), registry.Absent(cluster.KeyRestoring)},
		Then: []registry.Op{
			{Kind: registry.Put, Key: key, Value: s.stateValue(), Lease: s.lease.ID()},
			{Kind: registry.Put, Key: cluster.OSDIdentityKey(s.o.Num), Value: cluster.Value(&id)},
			{Kind: registry.Put, Key: cluster.OSDStatsKey(s.o.Num), Value: cluster.Value(s.statsValue())},
			{Kind: registry.Delete, Key: cluster.OSDFailureKey(s.o.Num)},
		},
	}
	if planted.HalfRestored {
		t.If = t.If[:2]
	}
	if old, ok := s.Snapshot().OSDStates.Get(s.o.Num); ok {
		// Ours, or that of an earlier process on the same store, which has ended.
		t.If[0] = registry.Unchanged(key, old.Mod)
	}
	lease, known := s.lease, s.o.Store.PGs()
	var dead registry.LeaseID // of that process
	if old, ok := s.Snapshot().OSDStates.Get(s.o.Num); ok && uint64(old.Instance) != s.o.Instance && old.Lease != lease.ID() {
		dead = old.Lease
	}
	if planted.IntervalForgotten {
		known = nil
	}
	s.entered = true
	s.txn(t, func(res registry.TxnResult, err error) {
		switch {
		case s.stopping || s.lease != lease:
		case err == nil && res.Succeeded:
			if dead != 0 {
				s.o.Registry.Revoke(dead, nil) // or its PGs could not be taken before it has run out
			}
			s.verify(res.Revision, known, func() { s.up(lease) })
		default:
			if err != nil && !errors.Is(err, registry.ErrUnavailable) {
				s.log.Warn("registering failed", "err", err)
			}
			s.l.Arm(&s.retry, s.l.Now().Add(200*time.Millisecond))
		}
	})
}

// lookOnly is what a read-only OSD does instead of registering: it says so, and is not up. A member of a PG has to write down what it grants and what it is given, so this one cannot be one; as long
// as it were up, its PGs would try to have it over and over.
func (s *OSD) lookOnly() {
	key, lease := cluster.OSDWaitingKey(s.o.Num), s.lease
	w := cluster.OSDWaiting{Store: s.self.Store, Host: s.o.Host, Reason: "it was started read-only, and serves nothing: its disk was opened and is not changed; `holdfast disk check` reads all of it; without `readonly` it serves"}
	s.txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&w), Lease: lease.ID()}}}, func(res registry.TxnResult, err error) {
		switch {
		case s.stopping || s.lease != lease:
		case err == nil && res.Succeeded:
			st := s.o.Store.Stats()
			s.log.Info("read-only: nothing is served", "store", s.self.Store.String(), "objects", st.Objects, "pgs", len(s.o.Store.PGs()))
		default:
			s.l.Arm(&s.retry, s.l.Now().Add(200*time.Millisecond))
		}
	})
}

// up begins the work of an OSD that is registered under a lease, and whose store etcd is not behind.
func (s *OSD) up(lease registry.Lease) {
	if s.lease != lease {
		return
	}
	s.leaseUp = true
	s.log.Info("up", "addresses", s.addresses, "port", s.port, "store", s.self.Store.String())
	if !s.stats.Armed() {
		s.l.Arm(&s.stats, s.l.Now().Add(s.o.StatsInterval))
	}
	for _, r := range s.sortedPGs() {
		r.reclaim()
	}
	s.applyPGs(s.Snapshot(), s.Snapshot())
}

// Leave says that all OSDs of the cluster are about to stop. As one after the other goes, those that are left must not take its PGs over: whoever did so last would have to be heard when they are started
// again, although nothing was written.
func (s *OSD) Leave() { s.leaving = true }

// Stop ends the OSD in order: its PGs are given up, its keys removed, its connections closed; then done is called. The store stays open.
func (s *OSD) Stop(done func()) {
	if s.stopping {
		return
	}
	s.stopping = true
	s.stopped = done
	for _, r := range s.sortedPGs() {
		r.exec(r.m.Unwant())
	}
	s.checkStopped()
}

func (s *OSD) checkStopped() {
	if !s.stopping || s.stopped == nil {
		return
	}
	for _, r := range s.pgs { // order: a conjunction
		if r.m.Phase != peering.Offline || r.busy > 0 {
			return
		}
	}
	done := s.stopped
	s.stopped = nil
	finish := func() {
		s.scrubs.stop()
		s.l.Disarm(&s.retry)
		s.l.Disarm(&s.stats)
		s.l.Disarm(&s.renewal)
		s.l.Disarm(&s.fences.due)
		s.l.Disarm(&s.restoredRetry)
		s.follower.Stop()
		s.closeListeners()
		s.hub.Close()
		done()
	}
	s.recordSequence(func() {
		if s.lease == nil {
			finish()
			return
		}
		s.lease.Revoke(func(error) { finish() })
	})
}
