package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

// Snapshot is the state of the cluster at one revision, as far as the Sections that were asked for go. It never changes and may be read from every loop; what it points
// to must not be changed either. A newer snapshot shares with it what did not change.
type Snapshot struct {
	Revision registry.Revision

	// SectionConfig.
	// Copy counts how often the registry was found to be another copy, which an operator put in the place of the one before: its revisions, too, are other ones.
	Copy int

	ClusterID   *ClusterID                 // nil when the cluster has none yet
	Global      map[string]json.RawMessage // config/global
	Pools       Map[layout.PoolID, *Pool]
	PoolsMod    registry.Revision // of config/pools, 0 when there is none
	Identities  Map[layout.PoolID, *PoolIdentity]
	Placement   Placement
	OSDConfigs  Map[layout.OSDNum, *OSDConfig]
	Exports     Map[string, Export]
	Inodes      Map[layout.Inode, *Inode] // SectionInodes
	InodeByName Map[string, layout.Inode]
	PGConfig    *PGConfig // SectionPGs; nil when there is none yet
	PGStates    Map[layout.PGID, *PGState]
	Histories   Map[layout.PGID, *PGHistory] // SectionHistory
	Records     Map[layout.PGID, *PGRecord]  // SectionRecords
	Skips       Map[layout.PGID, *PGSkip]
	Missing     Map[layout.OSDNum, *OSDMissing]
	OSDStates   Map[layout.OSDNum, *OSDState]
	OSDStats    Map[layout.OSDNum, *OSDStats]
	Waiting     Map[layout.OSDNum, *OSDWaiting] // SectionOSDStats
	Failures    Map[layout.OSDNum, *OSDFailure]
	Stores      Map[layout.OSDNum, *OSDIdentity] // SectionStores
	Restored    *Restored                        // nil when etcd was never restored
	Restoring   *Restoring                       // nil but while a snapshot of etcd is put back
	Fences      Map[string, *Fence]
	Gateways    Map[string, *Gateway]
	PGStats     Map[layout.PGID, *PGStats]
	OSDSpace    Map[layout.OSDNum, OSDSpace]
	OSDInodes   Map[layout.OSDNum, OSDInodeStats]
	InodeStats  Map[layout.Inode, *InodeStats]
	PoolStats   Map[layout.PoolID, *PoolStats]
	Stats       *Stats
	Master      *Master
	Monitors    Map[string, *Master]
	LastClean   *PGConfig
	PGScrubs    Map[layout.PGID, *PGScrub] // SectionScrubs
	ImageScrubs Map[layout.Inode, *ImageScrub]

	// Faults are the keys that could not be used, by key.
	Faults Map[string, *KeyError]
}

// Export is one key under config/export/, whose content belongs to appliance/exports.
type Export struct {
	Meta
	Value []byte
}

// newSnapshot is an empty one.
func newSnapshot() *Snapshot {
	return &Snapshot{
		Pools:       NewMap[layout.PoolID, *Pool](cmp.Compare[layout.PoolID]),
		Identities:  NewMap[layout.PoolID, *PoolIdentity](cmp.Compare[layout.PoolID]),
		OSDConfigs:  NewMap[layout.OSDNum, *OSDConfig](cmp.Compare[layout.OSDNum]),
		Exports:     NewMap[string, Export](strings.Compare),
		Inodes:      NewMap[layout.Inode, *Inode](cmp.Compare[layout.Inode]),
		InodeByName: NewMap[string, layout.Inode](strings.Compare),
		PGStates:    NewMap[layout.PGID, *PGState](comparePGs),
		Histories:   NewMap[layout.PGID, *PGHistory](comparePGs),
		Records:     NewMap[layout.PGID, *PGRecord](comparePGs),
		Skips:       NewMap[layout.PGID, *PGSkip](comparePGs),
		Missing:     NewMap[layout.OSDNum, *OSDMissing](cmp.Compare[layout.OSDNum]),
		OSDStates:   NewMap[layout.OSDNum, *OSDState](cmp.Compare[layout.OSDNum]),
		OSDStats:    NewMap[layout.OSDNum, *OSDStats](cmp.Compare[layout.OSDNum]),
		Waiting:     NewMap[layout.OSDNum, *OSDWaiting](cmp.Compare[layout.OSDNum]),
		Failures:    NewMap[layout.OSDNum, *OSDFailure](cmp.Compare[layout.OSDNum]),
		Stores:      NewMap[layout.OSDNum, *OSDIdentity](cmp.Compare[layout.OSDNum]),
		Fences:      NewMap[string, *Fence](strings.Compare),
		Gateways:    NewMap[string, *Gateway](strings.Compare),
		PGStats:     NewMap[layout.PGID, *PGStats](comparePGs),
		OSDSpace:    NewMap[layout.OSDNum, OSDSpace](cmp.Compare[layout.OSDNum]),
		OSDInodes:   NewMap[layout.OSDNum, OSDInodeStats](cmp.Compare[layout.OSDNum]),
		InodeStats:  NewMap[layout.Inode, *InodeStats](cmp.Compare[layout.Inode]),
		PoolStats:   NewMap[layout.PoolID, *PoolStats](cmp.Compare[layout.PoolID]),
		Monitors:    NewMap[string, *Master](strings.Compare),
		PGScrubs:    NewMap[layout.PGID, *PGScrub](comparePGs),
		ImageScrubs: NewMap[layout.Inode, *ImageScrub](cmp.Compare[layout.Inode]),
		Faults:      NewMap[string, *KeyError](strings.Compare),
	}
}

func comparePGs(a, b layout.PGID) int {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Num, b.Num))
}

// Inode finds a layer.
func (s *Snapshot) Inode(i layout.Inode) (*Inode, bool) { return s.Inodes.Get(i) }

// Image finds an image by its name.
func (s *Snapshot) Image(name string) (*Inode, bool) {
	id, ok := s.InodeByName.Get(name)
	if !ok {
		return nil, false
	}
	return s.Inodes.Get(id)
}

// Pool finds a pool by its name.
func (s *Snapshot) Pool(name string) (*Pool, bool) {
	for _, p := range s.Pools.All() {
		if p.Name == name {
			return p, true
		}
	}
	return nil, false
}

// Unreported lists the OSDs whose stores have not yet said what they know of the PGs since etcd was restored, in order. As long as there are any no PG may activate: one of them may know
// of a set that etcd has forgotten.
func (s *Snapshot) Unreported() []layout.OSDNum {
	if s.Restored == nil {
		return nil
	}
	var list []layout.OSDNum
	for n, id := range s.Stores.All() {
		if !id.Store.IsZero() && id.Reported != s.Restored.ID {
			list = append(list, n)
		}
	}
	return list
}

// Generation is the generation of a pool's PGs, 0 as long as the pool has no identity key.
func (s *Snapshot) Generation(pool layout.PoolID) int64 {
	if id, ok := s.Identities.Get(pool); ok {
		return id.Generation()
	}
	return 0
}

// Primary is who serves the PG now, or 0.
func (s *Snapshot) Primary(pg layout.PGID) layout.OSDNum {
	if st, ok := s.PGStates.Get(pg); ok && st.State&StateActive != 0 {
		return st.Primary
	}
	return 0
}

// LeftOnDead lists the OSDs that are down, have no place in the PG's set, and may hold copies of its objects all the same: its history names them. An OSD that nothing is known of any more is
// none of them.
func (s *Snapshot) LeftOnDead(pg layout.PGID) (list []layout.OSDNum) {
	h, ok := s.Histories.Get(pg)
	if !ok {
		return nil
	}
	t, _ := s.PGConfig.Target(pg)
	for _, n := range h.AllPeers {
		_, up := s.OSDStates.Get(n)
		_, known := s.Stores.Get(n)
		if !up && known && !slices.Contains(t.OSDSet, n) {
			list = append(list, n)
		}
	}
	return list
}

// GlobalNumber is a number of config/global, or def.
func (s *Snapshot) GlobalNumber(name string, def uint64) uint64 {
	raw, ok := s.Global[name]
	if !ok {
		return def
	}
	v, err := parseUint(raw)
	if err != nil {
		return def
	}
	return v
}

// GlobalString is a string of config/global, or def.
func (s *Snapshot) GlobalString(name, def string) string {
	var v string
	if raw, ok := s.Global[name]; !ok || json.Unmarshal(raw, &v) != nil {
		return def
	}
	return v
}

// ImmediateCommit is the pool's commit mode: its own, or the cluster's.
func (s *Snapshot) ImmediateCommit(p *Pool) string {
	if p.ImmediateCommit != "" {
		return p.ImmediateCommit
	}
	return s.GlobalString("immediate_commit", "all")
}

// Geometry is how the pool's bytes map to objects and PGs. PGCount is 0 as long as the monitor has not made the PGs.
func (s *Snapshot) Geometry(id layout.PoolID) (layout.Geometry, error) {
	p, ok := s.Pools.Get(id)
	if !ok {
		return layout.Geometry{}, fmt.Errorf("pool %d does not exist", id)
	}
	block, granularity := uint64(p.BlockSize), uint64(p.Granularity)
	if block == 0 {
		block = s.GlobalNumber("block_size", DefaultBlockSize)
	}
	if granularity == 0 {
		granularity = s.GlobalNumber("bitmap_granularity", DefaultGranularity)
	}
	if !layout.IsPowerOfTwo(block) || block < MinBlockSize || block > MaxBlockSize {
		return layout.Geometry{}, fmt.Errorf("pool %d: block_size of config/global is %d, want a power of two from %d to %d", id, block, MinBlockSize, MaxBlockSize)
	}
	if err := checkGranularity(granularity, block); err != nil {
		return layout.Geometry{}, fmt.Errorf("pool %d: %w", id, err)
	}
	g := layout.Geometry{BlockSize: uint32(block), Granularity: uint32(granularity), DataChunks: uint32(p.DataChunks()), PGCount: s.PGConfig.Count(id)}
	g.PGStripeSize = max(uint64(p.PGStripeSize), g.ObjectSize())
	if life, ok := s.Identities.Get(id); ok {
		if err := life.fits(g); err != nil {
			return layout.Geometry{}, fmt.Errorf("pool %d: %w", id, err)
		}
	}
	return g, nil
}

// apply makes s hold what ev says of its key. s must not have been shown to anybody yet. It returns why the value cannot be used; then s keeps what it had.
func (s *Snapshot) apply(ev registry.Event) *KeyError {
	k, ok := ParseKey(ev.KV.Key)
	if !ok {
		return nil // somebody else's
	}
	var err error
	switch k.Kind {
	case KindGlobal:
		err = s.applyGlobal(ev)
	case KindPools:
		err = s.applyPools(ev)
	case KindPlacement:
		err = s.applyPlacement(ev)
	case KindPGConfig:
		s.PGConfig, err = applyPGConfig(s.PGConfig, ev)
	case KindLastClean:
		s.LastClean, err = applyPGConfig(s.LastClean, ev)
	case KindInode:
		err = s.applyInode(k.Inode, ev)
	case KindExport:
		if ev.Deleted {
			s.Exports = s.Exports.Without(k.Name)
		} else {
			s.Exports = s.Exports.With(k.Name, Export{metaOf(ev.KV), ev.KV.Value})
		}
	case KindClusterID:
		s.ClusterID, err = applyOne(s.ClusterID, ev)
	case KindRestored:
		s.Restored, err = applyOne(s.Restored, ev)
	case KindRestoring:
		if s.Restoring, err = applyOne(s.Restoring, ev); s.Restoring == nil && !ev.Deleted {
			s.Restoring = &Restoring{Meta: metaOf(ev.KV)} // who cannot read it must not act either
		}
	case KindMonMaster:
		s.Master, err = applyOne(s.Master, ev)
	case KindStats:
		s.Stats, err = applyOne(s.Stats, ev)
	case KindPoolIdentity:
		err = applyTo(&s.Identities, k.Pool, ev)
	case KindOSDConfig:
		err = applyTo(&s.OSDConfigs, k.OSD, ev)
	case KindPGState:
		err = applyTo(&s.PGStates, k.PG, ev)
	case KindPGHistory:
		err = applyTo(&s.Histories, k.PG, ev)
	case KindPGRecord:
		err = applyTo(&s.Records, k.PG, ev)
	case KindPGSkip:
		err = applyTo(&s.Skips, k.PG, ev)
	case KindPGStats:
		err = applyTo(&s.PGStats, k.PG, ev)
	case KindOSDState:
		err = applyTo(&s.OSDStates, k.OSD, ev)
	case KindOSDStats:
		err = applyTo(&s.OSDStats, k.OSD, ev)
	case KindOSDMissing:
		err = applyTo(&s.Missing, k.OSD, ev)
	case KindOSDWaiting:
		err = applyTo(&s.Waiting, k.OSD, ev)
	case KindOSDFailure:
		err = applyTo(&s.Failures, k.OSD, ev)
	case KindOSDIdentity:
		err = applyTo(&s.Stores, k.OSD, ev)
	case KindFence:
		err = applyTo(&s.Fences, k.Name, ev)
	case KindGateway:
		err = applyTo(&s.Gateways, k.Name, ev)
	case KindMonMember:
		err = applyTo(&s.Monitors, k.Name, ev)
	case KindInodeStats:
		err = applyTo(&s.InodeStats, k.Inode, ev)
	case KindPoolStats:
		err = applyTo(&s.PoolStats, k.Pool, ev)
	case KindPGScrub:
		err = applyTo(&s.PGScrubs, k.PG, ev)
	case KindImageScrub:
		err = applyTo(&s.ImageScrubs, k.Inode, ev)
	case KindOSDSpace:
		err = applyPlain(&s.OSDSpace, k.OSD, ev)
	case KindOSDInodeStats:
		err = applyPlain(&s.OSDInodes, k.OSD, ev)
	}
	if err != nil {
		fault := badKey(ev.KV.Key, err)
		fault.Mod = ev.KV.Mod
		s.Faults = s.Faults.With(ev.KV.Key, fault)
		return fault
	}
	s.Faults = s.Faults.Without(ev.KV.Key)
	return nil
}

// checked is a value with rules beyond its form.
type checked interface{ check() error }

// read is the value of ev, checked.
func read[T any](ev registry.Event) (*T, error) {
	v := new(T)
	if err := decode(ev.KV.Value, v); err != nil {
		return nil, err
	}
	if c, ok := any(v).(checked); ok {
		if err := c.check(); err != nil {
			return nil, err
		}
	}
	if m, ok := any(v).(interface{ setMeta(registry.KV) }); ok {
		m.setMeta(ev.KV)
	}
	return v, nil
}

// applyOne is what a single key holds after ev.
func applyOne[T any](old *T, ev registry.Event) (*T, error) {
	if ev.Deleted {
		return nil, nil
	}
	v, err := read[T](ev)
	if err != nil {
		return old, err
	}
	return v, nil
}

// applyTo changes a map's entry by ev.
func applyTo[K, T any](m *Map[K, *T], k K, ev registry.Event) error {
	if ev.Deleted {
		*m = m.Without(k)
		return nil
	}
	v, err := read[T](ev)
	if err == nil {
		*m = m.With(k, v)
	}
	return err
}

// applyPlain changes the entry of a map of values without Meta.
func applyPlain[K, T any](m *Map[K, T], k K, ev registry.Event) error {
	if ev.Deleted {
		*m = m.Without(k)
		return nil
	}
	var v T
	err := decode(ev.KV.Value, &v)
	if err == nil {
		*m = m.With(k, v)
	}
	return err
}

func (s *Snapshot) applyGlobal(ev registry.Event) error {
	if ev.Deleted {
		s.Global = nil
		return nil
	}
	var v map[string]json.RawMessage
	err := decode(ev.KV.Value, &v)
	if err == nil {
		s.Global = v
	}
	return err
}

func (s *Snapshot) applyPlacement(ev registry.Event) error {
	if ev.Deleted {
		s.Placement = nil
		return nil
	}
	var v Placement
	err := decode(ev.KV.Value, &v)
	if err == nil {
		s.Placement = v
	}
	return err
}

// applyPools takes over every valid pool; an invalid one stays as it was. Where it cannot be said which one is invalid, none goes.
func (s *Snapshot) applyPools(ev registry.Event) error {
	next := NewMap[layout.PoolID, *Pool](cmp.Compare[layout.PoolID])
	if ev.Deleted {
		s.Pools, s.PoolsMod = next, 0
		return nil
	}
	pools, faults, err := ReadPools(ev.KV.Value)
	if err != nil {
		return err
	}
	for id, p := range pools { // into a sorted map: the order does not matter
		next = next.With(id, p)
	}
	var errs []error
	for _, f := range faults {
		errs = append(errs, f)
		for id, old := range s.Pools.All() {
			if _, there := next.Get(id); !there && (id == f.ID || f.ID == 0) {
				next = next.With(id, old)
			}
		}
	}
	s.Pools, s.PoolsMod = next, ev.KV.Mod
	return errors.Join(errs...)
}

// applyPGConfig takes over every valid pool's PGs; an invalid pool's stay as they were. Where it cannot be said which one is invalid, none goes.
func applyPGConfig(old *PGConfig, ev registry.Event) (*PGConfig, error) {
	if ev.Deleted {
		return nil, nil
	}
	c, faults, err := ReadPGConfig(ev.KV.Value)
	if err != nil {
		return old, err
	}
	c.Meta = metaOf(ev.KV)
	var errs []error
	for _, f := range faults {
		errs = append(errs, f)
		if old == nil {
			continue
		}
		for id, pgs := range old.Pools { // into a map: the order does not matter
			if c.Pools[id] == nil && (id == f.ID || f.ID == 0) {
				c.Pools[id] = pgs
			}
		}
	}
	return c, errors.Join(errs...)
}

func (s *Snapshot) applyInode(id layout.Inode, ev registry.Event) error {
	old, existed := s.Inodes.Get(id)
	if ev.Deleted {
		s.Inodes = s.Inodes.Without(id)
		s.forgetName(old, existed)
		return nil
	}
	v := &Inode{ID: id, Meta: metaOf(ev.KV)}
	if err := decode(ev.KV.Value, v); err != nil {
		return err
	}
	if err := v.check(); err != nil {
		return err
	}
	s.Inodes = s.Inodes.With(id, v)
	if existed && old.Name != v.Name {
		s.forgetName(old, true)
	}
	if v.Name != "" && (!existed || old.Name != v.Name) {
		s.InodeByName = s.InodeByName.With(v.Name, id)
	}
	return nil
}

// forgetName drops a name, unless another inode took it in the meantime, as a new snapshot's head does.
func (s *Snapshot) forgetName(i *Inode, existed bool) {
	if !existed {
		return
	}
	if id, ok := s.InodeByName.Get(i.Name); ok && id == i.ID {
		s.InodeByName = s.InodeByName.Without(i.Name)
	}
}
