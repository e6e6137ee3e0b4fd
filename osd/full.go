package osd

import (
	"encoding/json"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/osd/peering"
)

// roomPart is how much of its space, as a part, an OSD that was left out because it was full must have free to be a member again: enough that it does not go at once.
const roomPart = 20

// refusedPauseMax bounds how long an OSD that refuses although it said that it had room is left out.
const refusedPauseMax = time.Minute

// NoRoom is the primary's word that a member has no space for what recovery brings: it is left out if the PG can be served without it. If not, objects wait that it lacks.
func (s *OSD) NoRoom(pg layout.PGID, osd layout.OSDNum) {
	if r := s.pgs[pg]; r != nil && osd != s.o.Num && r.m.Phase == peering.Active && r.m.Spares(osd) {
		s.Lost(pg, osd, true)
	}
}

// refused notes that an OSD has no room for the PG. Each time is an interval that ends: so while that goes on without the PG becoming whole, it is asked more and more seldom.
func (r *pgRun) refused() {
	r.refusedPause = min(max(r.refusedPause*2, readmitPause), refusedPauseMax)
	r.askAt = r.s.l.Now().Add(r.refusedPause)
}

// askRoom looks in the statistics of the OSDs that are left out whether they have room again.
func (r *pgRun) askRoom(full []layout.OSDNum) {
	if r.s.l.Now().Sub(r.askAt) < 0 {
		return
	}
	s, round := r.s, r.m.Round
	var t registry.Txn
	for _, osd := range full {
		t.Then = append(t.Then, registry.Op{Kind: registry.Get, Key: cluster.OSDStatsKey(osd)})
	}
	s.o.Registry.Txn(t, func(res registry.TxnResult, err error) {
		if err != nil || round != r.m.Round || r.m.Phase != peering.Active || s.failed {
			return // asked again after the pause
		}
		again := false
		for i, osd := range full {
			var st cluster.OSDStats
			if len(res.Results[i]) == 0 || json.Unmarshal(res.Results[i][0].Value, &st) != nil || st.DataBlockSize == 0 || st.Free <= st.Size/roomPart {
				continue
			}
			s.log.Info("OSD has room again", "pg", r.id.String(), "peer", uint64(osd), "free", uint64(st.Free))
			s.prim.Space(osd, s.sec.Limits.Clients(uint64(st.Free/st.DataBlockSize), uint64(st.Size/st.DataBlockSize)))
			r.m.Room(osd)
			again = true
		}
		if again {
			r.exec(r.m.Readmit())
		}
	})
}
