package monitor

import (
	"maps"
	"slices"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// fullness is how full an OSD was found to be.
type fullness uint8

const (
	roomy fullness = iota
	nearFull
	tooFull // clients' writes that need space are refused
)

// fullnessOf says which of the ratios an OSD has reached.
func (m *Monitor) fullnessOf(st *cluster.OSDStats) (fullness, float64) {
	if st.Size == 0 {
		return roomy, 0
	}
	switch used := st.Used(); {
	case st.Refuses(m.o.Full):
		return tooFull, used
	case used >= m.o.NearFull:
		return nearFull, used
	default:
		return roomy, used
	}
}

// warnFull names OSDs that have become fuller than they may be, once for each ratio, and those that have room again.
func (m *Monitor) warnFull(s *cluster.Snapshot) {
	for n, st := range s.OSDStats.All() {
		now, used := m.fullnessOf(st)
		if before := m.full[n]; now != before {
			switch {
			case now == tooFull:
				m.log.Warn("an OSD is full and refuses clients' writes that need space: add OSDs, or remove images", "osd", uint64(n), "used", used, "osd_full_ratio", m.o.Full)
			case now == roomy:
				m.log.Info("an OSD has room again", "osd", uint64(n), "used", used)
			case before == tooFull:
				m.log.Info("an OSD that was full takes clients' writes again, and is still nearly full", "osd", uint64(n), "used", used)
			default:
				m.log.Warn("an OSD is nearly full: add OSDs, or remove images", "osd", uint64(n), "used", used, "osd_nearfull_ratio", m.o.NearFull)
			}
		}
		if now == roomy {
			delete(m.full, n)
		} else {
			m.full[n] = now
		}
	}
}

// backfillSlack is how far below its ratio an OSD must come, as a part of it, before its pools are rebalanced again: object counts go up and down.
const backfillSlack = 0.01

// backfillfull lists the pools that cannot be placed as the map says without filling an OSD beyond its ratio: the objects of all its PGs, as far as they are counted, would take more.
func (m *Monitor) backfillfull(s *cluster.Snapshot, pgs *cluster.PGConfig) (list []layout.PoolID) {
	objects, pools := map[layout.OSDNum]float64{}, map[layout.OSDNum][]layout.PoolID{}
	for _, id := range slices.Sorted(maps.Keys(pgs.Pools)) {
		for i, t := range pgs.Pools[id] {
			st, ok := s.PGStats.Get(layout.PGID{Pool: id, Num: uint32(i + 1)})
			if !ok {
				continue
			}
			for _, osd := range t.OSDSet {
				if osd != 0 {
					objects[osd] += float64(st.ObjectCount)
					if !slices.Contains(pools[osd], id) {
						pools[osd] = append(pools[osd], id)
					}
				}
			}
		}
	}
	for n, st := range s.OSDStats.All() {
		if st.Size == 0 || st.DataBlockSize == 0 {
			continue
		}
		most := float64(st.Size) / float64(st.DataBlockSize) * m.o.BackfillFull
		for _, id := range pools[n] {
			limit := most
			if s.PGConfig.IsBackfillfull(id) {
				limit *= 1 - backfillSlack
			}
			if objects[n] > limit && !slices.Contains(list, id) {
				list = append(list, id)
			}
		}
	}
	slices.Sort(list)
	return list
}
