// Package monitor decides where PGs live: it watches the OSDs, places the PGs of every pool, picks primaries, and sums up statistics. Any number run; one leads.
//
// The data path needs no monitor. Everything belongs to one loop. A decision is one transaction that holds only while we lead and pg/config is as we read it.
package monitor

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/monitor/placement"
)

// Options says who the monitor is and sets its times.
type Options struct {
	Hostname string
	IP       []string
	Registry registry.Registry

	LeaseTime    time.Duration // etcd_mon_ttl [5 s]
	ChangeDelay  time.Duration // mon_change_timeout: how long changes of the tree are gathered [1 s]
	StatsDelay   time.Duration // mon_stats_timeout: between sums of statistics [1 s]
	OSDOutTime   time.Duration // osd_out_time: silence after which an OSD's PGs move [600 s]
	HomeInterval time.Duration // between rounds that give primaries back to where they belong [2 s]
	NoOut        bool          // noout: no OSD's PGs move for its silence
	NearFull     float64       // osd_nearfull_ratio: how full an OSD may be before it is warned of [0.95]
	Full         float64       // osd_full_ratio: from here on OSDs refuse clients' writes [0.97]
	BackfillFull float64       // osd_backfillfull_ratio: how full an OSD may become by what its PGs are to have, before its pools are not rebalanced [0.99]

	Log *slog.Logger
}

// Monitor is one running monitor.
type Monitor struct {
	l        loop.Loop
	o        Options
	log      *slog.Logger
	follower *cluster.Follower
	lease    registry.Lease
	member   bool // mon/member and, if leading, mon/master are written under the lease
	leading  bool
	since    registry.Revision // of our last election; what happened before says nothing of its outcome
	electing bool
	stopped  bool

	begun bool      // we have decided since we lead
	cold  time.Time // when we began to lead, if most OSDs were away then: their silence counts from there; zero otherwise

	change  loop.Timer
	stats   loop.Timer
	home    loop.Timer
	retry   loop.Timer
	late    loop.Timer // the leader has left undone what cannot wait
	writing bool
	dirty   bool
	short   map[layout.PoolID]string   // what was said about pools that cannot be placed
	full    map[layout.OSDNum]fullness // OSDs that were warned of
	sums    sums
	back    back

	note, told *cluster.EtcdSnapshot // of snapshots of etcd: as it is, and as mon/member says it
}

// Start begins the monitor's life.
func Start(l loop.Loop, o Options) *Monitor {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.LeaseTime, 5*time.Second)
	def(&o.ChangeDelay, time.Second)
	def(&o.StatsDelay, time.Second)
	def(&o.OSDOutTime, 600*time.Second)
	def(&o.HomeInterval, 2*time.Second)
	o.NearFull, o.Full, o.BackfillFull = cmp.Or(o.NearFull, 0.95), cmp.Or(o.Full, 0.97), cmp.Or(o.BackfillFull, 0.99)
	if o.Log == nil {
		o.Log = l.Log()
	}
	m := &Monitor{l: l, o: o, log: o.Log, short: map[layout.PoolID]string{}, full: map[layout.OSDNum]fullness{}}
	m.change.Fire = m.decide
	m.stats.Fire = m.sumUp
	m.home.Fire = m.giveBack
	m.retry.Fire = m.elect
	m.late.Fire = m.depose
	m.follower = cluster.Follow(l, o.Registry, cluster.ForMonitor, m)
	m.lease = o.Registry.Grant(o.LeaseTime, leaseHandler{m})
	return m
}

// Leading reports whether this monitor decides.
func (m *Monitor) Leading() bool { return m.leading }

// Stop gives the leadership up; done is called when the registry knows.
func (m *Monitor) Stop(done func()) {
	m.stopped = true
	m.follower.Stop()
	for _, t := range []*loop.Timer{&m.change, &m.stats, &m.home, &m.retry, &m.late} {
		m.l.Disarm(t)
	}
	if m.lease == nil {
		done()
		return
	}
	m.lease.Revoke(func(error) { done() })
}

type leaseHandler struct{ m *Monitor }

// Granted says that keys can be attached now.
func (h leaseHandler) Granted(l registry.Lease) {
	if l == h.m.lease && !h.m.stopped {
		h.m.elect()
	}
}

// Lost ends the leadership.
func (h leaseHandler) Lost(l registry.Lease, err error) {
	m := h.m
	if l != m.lease || m.stopped {
		return
	}
	m.log.Warn("the monitor's lease is lost", "err", err)
	m.leading, m.member, m.since = false, false, 0
	m.lease = m.o.Registry.Grant(m.o.LeaseTime, h)
}

// elect becomes the leader if there is none.
func (m *Monitor) elect() {
	if m.stopped || m.leading || m.electing || m.lease == nil || m.lease.ID() == 0 {
		return
	}
	if s := m.follower.Snapshot(); s.Revision == 0 || s.Restoring != nil {
		return // looked at again with the first, or the next, state of the cluster
	}
	m.electing = true
	lease := m.lease
	member := m.self()
	master := cluster.Master{IP: m.o.IP, Hostname: m.o.Hostname}
	master.ID = cluster.Number(lease.ID())
	put := registry.Op{Kind: registry.Put, Key: cluster.MonMemberKey(lease.ID()), Value: cluster.Value(member), Lease: lease.ID()}
	t := registry.Txn{
		If:   []registry.Compare{registry.Absent(cluster.KeyMonMaster), registry.Absent(cluster.KeyRestoring)},
		Then: []registry.Op{put, {Kind: registry.Put, Key: cluster.KeyMonMaster, Value: cluster.Value(&master), Lease: lease.ID()}},
		Else: []registry.Op{put, {Kind: registry.Get, Key: cluster.KeyMonMaster}},
	}
	m.told = m.note
	etcd := m.follower.Snapshot().Copy
	m.o.Registry.Txn(t, func(res registry.TxnResult, err error) {
		m.electing = false
		switch {
		case m.stopped:
		case m.lease != lease:
			m.elect() // the next one may be there, and has waited for this answer
		case err != nil || etcd != m.follower.Snapshot().Copy:
			m.l.Arm(&m.retry, m.l.Now().Add(500*time.Millisecond))
		default:
			m.since = res.Revision
			if res.Succeeded || len(res.Results[1]) == 1 && res.Results[1][0].Lease == lease.ID() {
				// The key may be ours already: from a transaction whose answer was lost.
				m.leading, m.begun = true, false
				m.log.Info("this monitor leads")
				m.l.Arm(&m.change, m.l.Now())
				m.l.Arm(&m.stats, m.l.Now().Add(m.o.StatsDelay))
				m.l.Arm(&m.home, m.l.Now().Add(m.o.HomeInterval))
			}
			m.stand(m.follower.Snapshot()) // which may be later than the answer
		}
		m.tell()
	})
}

// stand ends a leadership that etcd does not show, and stands for election when it shows no leader.
func (m *Monitor) stand(s *cluster.Snapshot) {
	if m.stopped || s.Revision < m.since {
		return
	}
	ours := s.Master != nil && m.lease.ID() != 0 && s.Master.Lease == m.lease.ID()
	if m.leading && !ours {
		m.leading = false
		m.log.Warn("the leader's key was removed")
	}
	if s.Master == nil || ours {
		m.elect()
	}
}

// self is mon/member as it should be.
func (m *Monitor) self() *cluster.Master {
	return &cluster.Master{IP: m.o.IP, Hostname: m.o.Hostname, Snapshot: m.note}
}

// Note publishes what the monitor's process says of its snapshots of etcd, on the monitor's loop.
func (m *Monitor) Note(n cluster.EtcdSnapshot) {
	m.note = &n
	m.tell()
}

// tell brings mon/member up to date.
func (m *Monitor) tell() {
	if m.stopped || m.electing || m.told == m.note || m.lease == nil || m.lease.ID() == 0 {
		return
	}
	note := m.note
	m.told = note
	m.o.Registry.Txn(registry.Txn{
		If:   []registry.Compare{registry.HeldBy(cluster.MonMemberKey(m.lease.ID()), m.lease.ID())}, // else the next election writes it
		Then: []registry.Op{{Kind: registry.Put, Key: cluster.MonMemberKey(m.lease.ID()), Value: cluster.Value(m.self()), Lease: m.lease.ID()}},
	}, func(res registry.TxnResult, err error) {
		if (err != nil || !res.Succeeded) && m.told == note {
			m.told = nil // tried again with the next change
		}
	})
}

// Fault says that a key's value cannot be used.
func (m *Monitor) Fault(err *cluster.KeyError) {
	m.log.Warn("a key cannot be used", "key", err.Key, "err", err.Reason, "action", err.Action)
}

// Unavailable says that contact with the registry is lost.
func (m *Monitor) Unavailable(err error) { m.log.Warn("no contact with etcd", "err", err) }

// Changed decides again: at once when an OSD came or went, gathered when the tree or the pools changed.
func (m *Monitor) Changed(prev, next *cluster.Snapshot, keys []string) {
	if next.Copy != prev.Copy {
		m.since = 0 // revisions count from there
	}
	m.back.look(prev, next)
	m.stand(next)
	if prev.Revision == 0 || prev.Restoring != nil && next.Restoring == nil {
		m.elect() // or stand by
	}
	m.tell()
	delay := time.Duration(-1)
	for _, key := range keys {
		k, ok := cluster.ParseKey(key)
		if !ok {
			continue
		}
		switch k.Kind {
		case cluster.KindOSDState, cluster.KindPools, cluster.KindPGSkip, cluster.KindOSDMissing:
			delay = 0
		case cluster.KindOSDIdentity:
			if next.Restored != nil && len(prev.Unreported()) > 0 && len(next.Unreported()) == 0 {
				delay = 0 // pools without an identity have waited for it
			}
		case cluster.KindGlobal, cluster.KindPlacement, cluster.KindOSDConfig, cluster.KindPGConfig:
			if delay < 0 { // what cannot wait may be among the same changes
				delay = m.o.ChangeDelay
			}
		case cluster.KindOSDStats:
			if _, known := prev.OSDStats.Get(k.OSD); !known {
				delay = 0
			}
		}
	}
	if delay >= 0 && m.leading {
		m.soon(delay)
	}
	m.watchLeader(next)
}

// soon has decide run within d.
func (m *Monitor) soon(d time.Duration) {
	at := m.l.Now().Add(d)
	if !m.change.Armed() || m.change.At > at {
		m.l.Arm(&m.change, at)
	}
}

// usable are the OSDs that PGs may be placed on, with when the next silent one is due to go out.
func (m *Monitor) usable(s *cluster.Snapshot) (list []layout.OSDNum, due time.Duration) {
	for n, st := range s.OSDStats.All() {
		if st.Size == 0 {
			continue
		}
		cfg, _ := s.OSDConfigs.Get(n)
		if cfg.Weight() <= 0 {
			continue
		}
		if _, up := s.OSDStates.Get(n); !up && !m.o.NoOut && !(cfg != nil && bool(cfg.NoOut)) {
			heard := parseTime(st.Time)
			if heard.Before(m.cold) {
				heard = m.cold
			}
			left := m.o.OSDOutTime - m.l.Wall().Sub(heard)
			if left <= 0 {
				continue
			}
			if due == 0 || left < due {
				due = left
			}
		}
		list = append(list, n)
	}
	return list, due
}

// parseTime reads seconds.milliseconds.
func parseTime(text string) time.Time {
	sec, ms, _ := strings.Cut(text, ".")
	a, _ := strconv.ParseInt(sec, 10, 64)
	b, _ := strconv.ParseInt(ms, 10, 64)
	return time.Unix(a, b*int64(time.Millisecond))
}

// domainOf is the name of the node at a level above an OSD, or the OSD itself.
func domainOf(s *cluster.Snapshot, osd layout.OSDNum, level string) (string, []string) {
	name := strconv.FormatUint(uint64(osd), 10)
	parent := ""
	if n, ok := s.Placement[name]; ok {
		parent = n.Parent
	}
	if parent == "" {
		if st, ok := s.OSDStats.Get(osd); ok {
			parent = st.Host
		}
	}
	path := []string{name}
	domain := ""
	if level == "osd" {
		domain = name
	}
	for hops := 0; parent != "" && hops < 32; hops++ {
		path = append(path, parent)
		n, ok := s.Placement[parent]
		l := n.Level
		if !ok || l == "" {
			l = "host" // hosts exist by their OSDs' statistics
		}
		if l == level && domain == "" {
			domain = parent
		}
		parent = n.Parent
	}
	return domain, path
}

// place computes the PG map for the snapshot.
func (m *Monitor) place(s *cluster.Snapshot) (*cluster.PGConfig, []registry.Op, []registry.Compare, time.Duration) {
	usable, due := m.usable(s)
	next := &cluster.PGConfig{Pools: map[layout.PoolID][]cluster.PGTarget{}}
	var ops []registry.Op
	var ifs []registry.Compare
	for id, pool := range s.Pools.All() {
		var old []cluster.PGTarget
		if s.PGConfig != nil {
			old = s.PGConfig.Pools[id]
		}
		g, err := s.Geometry(id)
		if err != nil && old != nil {
			m.say(id, err.Error())
			next.Pools[id] = old // until it is corrected
			continue
		}
		in := placement.Input{Size: int(pool.PGSize), PGs: int(pool.PGCount)}
		if old != nil && len(old) != int(pool.PGCount) {
			m.say(id, "pg_count of a pool cannot be changed in this version; it stays "+strconv.Itoa(len(old)))
			in.PGs = len(old)
		}
		for _, t := range old {
			in.Previous = append(in.Previous, t.OSDSet)
		}
		in.Leaves = m.leaves(s, pool, usable)
		sets, err := placement.Place(in)
		if err != nil {
			m.say(id, err.Error())
		} else if len(in.Leaves) > 0 {
			delete(m.short, id)
		}
		targets := make([]cluster.PGTarget, len(sets))
		for i, set := range sets {
			targets[i].OSDSet = set
			if i < len(old) {
				targets[i].Pause, targets[i].Primary = old[i].Pause, old[i].Primary
			}
		}
		m.primaries(s, id, targets)
		next.Pools[id] = targets
		if known, ok := s.Identities.Get(id); !ok && (m.undeclared(s) || len(s.Unreported()) > 0) {
			m.say(id, "etcd was restored without the pool's identity; OSDs may know it, and have not all reported")
		} else if !ok {
			earlier := s.LastGeneration(id, s.Revision)
			ops = append(ops, cluster.CreatePoolIdentity(pool, s.NewGeneration(id, m.l.Wall()), &earlier, g))
			ifs = append(ifs, registry.Absent(cluster.PoolIdentityKey(id)), s.Restored.Mark())
		} else if op, unchanged, missing := cluster.KeepGeneration(id, known, g); missing {
			ops = append(ops, op)
			ifs = append(ifs, unchanged)
		}
	}
	if fault, bad := s.Faults.Get(cluster.KeyPools); bad {
		// What is not among the pools may be one that is wrong: it is corrected one day, and has to be the same then.
		if s.PGConfig != nil {
			for _, id := range slices.Sorted(maps.Keys(s.PGConfig.Pools)) {
				old := s.PGConfig.Pools[id]
				if _, ok := s.Pools.Get(id); !ok {
					m.say(id, "it stays as it is, and so do removed pools, until config/pools is correct: "+fault.Reason.Error())
					next.Pools[id] = old
				}
			}
		}
		next.Backfillfull = m.backfillfull(s, next)
		return next, ops, ifs, due
	}
	next.Backfillfull = m.backfillfull(s, next)
	for id := range s.Identities.All() {
		if _, ok := s.Pools.Get(id); !ok {
			if id, ok := s.Identities.Get(id); ok { // the pool was removed: the next one of this number is another one
				ops = append(ops, registry.Op{Kind: registry.Delete, Key: cluster.PoolIdentityKey(poolOf(s, id))})
			}
		}
	}
	return next, ops, ifs, due
}

func poolOf(s *cluster.Snapshot, want *cluster.PoolIdentity) layout.PoolID {
	for id, v := range s.Identities.All() {
		if v == want {
			return id
		}
	}
	return 0
}

// say logs what is wrong with a pool, once.
func (m *Monitor) say(id layout.PoolID, what string) {
	if m.short[id] != what {
		m.short[id] = what
		m.log.Warn("pool cannot be placed as demanded", "pool", int(id), "reason", what)
	}
}

// leaves are the OSDs that fit the pool.
func (m *Monitor) leaves(s *cluster.Snapshot, pool *cluster.Pool, usable []layout.OSDNum) []placement.Leaf {
	g, err := s.Geometry(pool.ID)
	if err != nil {
		m.say(pool.ID, err.Error())
		return nil
	}
	var list []placement.Leaf
	for _, n := range usable {
		st, _ := s.OSDStats.Get(n)
		if uint32(st.DataBlockSize) != g.BlockSize || uint32(st.BitmapGranularity) != g.Granularity {
			continue
		}
		cfg, _ := s.OSDConfigs.Get(n)
		tagged := true
		for _, tag := range pool.OSDTags {
			tagged = tagged && cfg != nil && slices.Contains(cfg.Tags, tag)
		}
		domain, path := domainOf(s, n, pool.Domain())
		if !tagged || domain == "" || pool.RootNode != "" && !slices.Contains(path, pool.RootNode) {
			continue
		}
		list = append(list, placement.Leaf{OSD: n, Weight: float64(st.Size) / (1 << 40) * cfg.Weight(), Domain: domain})
	}
	return list
}

// primaries keeps primaries that are up and gives the others' PGs to the members with the fewest. An OSD that gave a PG back because it could not reach its members is passed over
// while there is another.
func (m *Monitor) primaries(s *cluster.Snapshot, pool layout.PoolID, targets []cluster.PGTarget) {
	count := map[layout.OSDNum]int{}
	now := m.l.Wall().UnixMilli()
	up := func(n layout.OSDNum) bool {
		_, ok := s.OSDStates.Get(n)
		return ok && n != 0
	}
	skipped := func(i int, n layout.OSDNum) bool {
		skip, _ := s.Skips.Get(layout.PGID{Pool: pool, Num: uint32(i + 1)})
		return skip.Skipped(n, now)
	}
	for i := range targets {
		t := &targets[i]
		if !up(t.Primary) || !slices.Contains(t.OSDSet, t.Primary) || skipped(i, t.Primary) || replaceable(s, t) {
			t.Primary = 0
		} else {
			count[t.Primary]++
		}
	}
	for i := range targets {
		t := &targets[i]
		if t.Primary != 0 {
			continue
		}
		home := homeOf(i, t.OSDSet)
		for passed := range 3 { // over those that are skipped or cut off at first, then over those that are cut off, then over nobody
			for _, n := range t.OSDSet {
				if up(n) && (passed > 0 || !skipped(i, n)) && (passed > 1 || !s.CutOff(n)) && (t.Primary == 0 || count[n] < count[t.Primary] || count[n] == count[t.Primary] && n == home) {
					t.Primary = n
				}
			}
			if t.Primary != 0 {
				break
			}
		}
		count[t.Primary]++
	}
}

// homeOf is the member that should be the primary when all are up.
func homeOf(pg int, set []layout.OSDNum) layout.OSDNum {
	var members []layout.OSDNum
	for _, n := range set {
		if n != 0 {
			members = append(members, n)
		}
	}
	if len(members) == 0 {
		return 0
	}
	return members[pg%len(members)]
}

// decide writes a new PG map if the present one is not what it should be.
func (m *Monitor) decide() {
	s := m.follower.Snapshot()
	if !m.leading || m.stopped || s.Revision == 0 {
		return
	}
	if m.writing {
		m.dirty = true
		return
	}
	if !m.begun {
		m.begun = true
		m.start(s)
	}
	next, ops, ifs, due := m.place(s)
	if due > 0 {
		m.soon(due + 10*time.Millisecond)
	}
	m.write(s, next, ops, ifs)
	if !m.writing {
		m.release(next)
	}
}

// start looks how a leader finds the cluster. When most OSDs are away, everything was: a power cut, or etcd was gone or restored, and what it says of when they were last heard of is no news.
// Without this the first to come back would be given all PGs, and they would all be moved again and again as the others come.
func (m *Monitor) start(s *cluster.Snapshot) {
	known, up := 0, 0
	for n, st := range s.OSDStats.All() {
		if cfg, _ := s.OSDConfigs.Get(n); st.Size == 0 || cfg.Weight() <= 0 {
			continue
		}
		known++
		if _, ok := s.OSDStates.Get(n); ok {
			up++
		}
	}
	m.cold = time.Time{}
	if 2*up < known {
		m.cold = m.l.Wall()
		m.log.Info("most OSDs are away; that they are silent counts from now on", "up", up, "known", known)
	}
}

func (m *Monitor) write(s *cluster.Snapshot, next *cluster.PGConfig, ops []registry.Op, ifs []registry.Compare) {
	var mod registry.Revision
	if s.PGConfig != nil {
		mod = s.PGConfig.Mod
		if fault, bad := s.Faults.Get(cluster.KeyPGConfig); bad {
			m.log.Error("the PG map in etcd cannot be used; writing it anew", "err", fault)
			mod = fault.Mod
		} else if len(ops) == 0 && samePGs(s.PGConfig, next) {
			return
		}
	} else if len(next.Pools) == 0 {
		return
	}
	sum := sha1.Sum(cluster.Value(next))
	next.Hash = hex.EncodeToString(sum[:])
	t := registry.Txn{
		If:      append(ifs, registry.HeldBy(cluster.KeyMonMaster, m.lease.ID()), registry.Unchanged(cluster.KeyPGConfig, mod), registry.Unchanged(cluster.KeyPools, s.PoolsMod)),
		Then:    append(ops, registry.Op{Kind: registry.Put, Key: cluster.KeyPGConfig, Value: cluster.Value(next)}),
		Timeout: registry.Slow,
	}
	m.writing, m.dirty = true, false
	m.o.Registry.Txn(t, func(res registry.TxnResult, err error) {
		m.writing = false
		if m.stopped {
			return
		}
		if err != nil || !res.Succeeded || m.dirty {
			if err != nil {
				m.log.Warn("the PG map was not written", "err", err)
			}
			m.soon(retryPause)
			return
		}
		m.log.Info("wrote the PG map", "revision", int64(res.Revision))
		m.release(next)
	})
}

// retryPause is mon_retry_change_timeout.
const retryPause = 50 * time.Millisecond

func samePGs(a, b *cluster.PGConfig) bool {
	if len(a.Pools) != len(b.Pools) || !slices.Equal(a.Backfillfull, b.Backfillfull) {
		return false
	}
	for id, x := range a.Pools { // order: a conjunction
		y := b.Pools[id]
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if x[i].Primary != y[i].Primary || x[i].Pause != y[i].Pause || !slices.Equal(x[i].OSDSet, y[i].OSDSet) {
				return false
			}
		}
	}
	return true
}

// homesAtOnce bounds how many PGs change their primary in one round without need.
const homesAtOnce = 4

// giveBack moves primaries to where they belong, a few at a time, when their PGs are whole.
func (m *Monitor) giveBack() {
	if m.stopped || !m.leading {
		return
	}
	m.l.Arm(&m.home, m.l.Now().Add(m.o.HomeInterval))
	s := m.follower.Snapshot()
	if s.PGConfig == nil || m.writing || m.change.Armed() {
		return
	}
	next := *s.PGConfig
	next.Pools = maps.Clone(s.PGConfig.Pools)
	moved := 0
	for _, id := range slices.SortedFunc(maps.Keys(next.Pools), cmp.Compare[layout.PoolID]) {
		targets := slices.Clone(next.Pools[id])
		count := map[layout.OSDNum]int{}
		for _, t := range targets {
			count[t.Primary]++
		}
		for i := range targets {
			t := &targets[i]
			home := homeOf(i, t.OSDSet)
			st, ok := s.PGStates.Get(layout.PGID{Pool: id, Num: uint32(i + 1)})
			skip, _ := s.Skips.Get(layout.PGID{Pool: id, Num: uint32(i + 1)})
			if skip.Skipped(home, m.l.Wall().UnixMilli()) || s.CutOff(home) {
				continue
			}
			if moved == homesAtOnce || t.Primary == home || !ok || !st.State.Whole() || len(st.Peers) != len(t.OSDSet) || count[home]+1 >= count[t.Primary] {
				continue
			}
			count[home]++
			count[t.Primary]--
			t.Primary = home
			moved++
		}
		next.Pools[id] = targets
	}
	if moved > 0 {
		m.write(s, &next, nil, nil)
	}
}
