package monitor

import (
	"slices"
	"strconv"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// sums is what the last round of statistics found, for rates.
type sums struct {
	at   int64 // of the loop's clock, ns
	ops  map[string]cluster.OpStats
	recv map[string]cluster.OpStats
	last map[string]string // values written, by key
}

// sumUp writes the cluster's, the pools' and the inodes' statistics.
func (m *Monitor) sumUp() {
	if m.stopped || !m.leading {
		return
	}
	m.l.Arm(&m.stats, m.l.Now().Add(m.o.StatsDelay))
	s := m.follower.Snapshot()
	if s.Revision == 0 {
		return
	}
	ops, recv := map[string]cluster.OpStats{}, map[string]cluster.OpStats{}
	for n, st := range s.OSDStats.All() {
		if _, up := s.OSDStates.Get(n); !up {
			continue
		}
		add(ops, st.OpStats)
		add(recv, st.RecoveryStats)
	}
	m.warnFull(s)
	if s.PGConfig != nil && !slices.Equal(s.PGConfig.Backfillfull, m.backfillfull(s, s.PGConfig)) {
		m.soon(m.o.ChangeDelay)
	}
	now := int64(m.l.Now())
	dt := float64(now-m.sums.at) / 1e9
	total := cluster.Stats{OpStats: rates(ops, m.sums.ops, dt), RecoveryStats: rates(recv, m.sums.recv, dt)}
	if m.sums.last == nil {
		m.sums.last = map[string]string{}
	}
	m.sums.at, m.sums.ops, m.sums.recv = now, ops, recv
	for pg, st := range s.PGStats.All() {
		g, err := s.Geometry(pg.Pool)
		if err != nil {
			continue
		}
		size := cluster.BigNumber(g.ObjectSize())
		c, b := &total.ObjectCounts, &total.ObjectBytes
		for _, x := range []struct {
			to, bytes *cluster.BigNumber
			n         cluster.Number
		}{{&c.Object, &b.Object, st.ObjectCount}, {&c.Clean, &b.Clean, st.CleanCount}, {&c.Misplaced, &b.Misplaced, st.MisplacedCount}, {&c.Degraded, &b.Degraded, st.DegradedCount}, {&c.Incomplete, &b.Incomplete, st.IncompleteCount}} {
			*x.to += cluster.BigNumber(x.n)
			*x.bytes += cluster.BigNumber(x.n) * size
		}
	}
	var t registry.Txn
	t.If = []registry.Compare{registry.HeldBy(cluster.KeyMonMaster, m.lease.ID())}
	put := func(key string, v any) {
		text := string(cluster.Value(v))
		if m.sums.last[key] != text {
			m.sums.last[key] = text
			t.Then = append(t.Then, registry.Op{Kind: registry.Put, Key: key, Value: []byte(text)})
		}
	}
	put(cluster.KeyStats, &total)
	used := m.inodeSums(s, put)
	m.poolSums(s, used, put)
	if len(t.Then) == 0 {
		return
	}
	m.o.Registry.Txn(t, func(res registry.TxnResult, err error) {
		if err != nil || !res.Succeeded {
			m.sums.last = nil // unknown what was written, or nothing because another one leads: write it again
		}
	})
}

func add(to, from map[string]cluster.OpStats) {
	for name, o := range from { // order: sums commute
		t := to[name]
		t.Count, t.Usec, t.Bytes = t.Count+o.Count, t.Usec+o.Usec, t.Bytes+o.Bytes
		to[name] = t
	}
}

// rates are the sums with what they grew per second since before.
func rates(now, before map[string]cluster.OpStats, dt float64) map[string]cluster.SumStats {
	out := map[string]cluster.SumStats{}
	for name, o := range now { // order: a map again
		v := cluster.SumStats{Count: cluster.BigNumber(o.Count), Usec: cluster.BigNumber(o.Usec), Bytes: cluster.BigNumber(o.Bytes)}
		if b, ok := before[name]; ok && dt > 0 && o.Count >= b.Count && o.Bytes >= b.Bytes && o.Usec >= b.Usec {
			v.Iops = cluster.BigNumber(float64(o.Count-b.Count) / dt)
			v.Bps = cluster.BigNumber(float64(o.Bytes-b.Bytes) / dt)
			if n := o.Count - b.Count; n > 0 {
				v.Lat = cluster.BigNumber((o.Usec - b.Usec) / n)
			}
		}
		out[name] = v
	}
	return out
}

// inodeSums writes what each inode uses and returns what each pool does, in bytes of all copies.
func (m *Monitor) inodeSums(s *cluster.Snapshot, put func(string, any)) map[layout.PoolID]uint64 {
	used := map[layout.PoolID]uint64{}
	inodes := map[layout.Inode]uint64{}
	for _, space := range s.OSDSpace.All() {
		for pool, list := range space { // order: sums commute
			p, err := strconv.ParseUint(pool, 10, 16)
			if err != nil {
				continue
			}
			for num, bytes := range list { // order: sums commute
				n, err := strconv.ParseUint(num, 10, 48)
				if err != nil {
					continue
				}
				used[layout.PoolID(p)] += uint64(bytes)
				inodes[layout.MakeInode(layout.PoolID(p), n)] += uint64(bytes)
			}
		}
	}
	for id := range s.Inodes.All() {
		put(cluster.InodeStatsKey(id), &cluster.InodeStats{RawUsed: cluster.BigNumber(inodes[id])})
	}
	return used
}

// tb is the unit of pool statistics.
const tb = 1 << 40

func (m *Monitor) poolSums(s *cluster.Snapshot, used map[layout.PoolID]uint64, put func(string, any)) {
	for id, pool := range s.Pools.All() {
		if s.PGConfig == nil {
			continue
		}
		pgs := map[layout.OSDNum]int{}
		size := 0
		for _, t := range s.PGConfig.Pools[id] {
			size = max(size, len(t.OSDSet))
			for _, n := range t.OSDSet {
				if n != 0 {
					pgs[n]++
				}
			}
		}
		// What fits is bounded by the OSD that fills first.
		fits := -1.0
		sum := 0.0
		for n, c := range pgs { // order: a minimum and a sum
			st, ok := s.OSDStats.Get(n)
			if !ok {
				continue
			}
			sum += float64(st.Size)
			if v := float64(st.Size) * float64(s.PGConfig.Count(id)) / float64(c); fits < 0 || v < fits {
				fits = v
			}
		}
		v := &cluster.PoolStats{UsedRawTB: cluster.Float(float64(used[id]) / tb), PGRealSize: cluster.Number(size), RawToUsable: cluster.Float(float64(max(size, 1)) / float64(pool.DataChunks()))}
		if fits > 0 {
			v.TotalRawTB = cluster.Float(fits * float64(size) / tb)
			v.SpaceEfficiency = cluster.Float(min(1, fits*float64(size)/sum))
		}
		put(cluster.PoolStatsKey(id), v)
	}
}
