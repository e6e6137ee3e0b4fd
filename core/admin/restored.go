package admin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// DeclareRestored tells the cluster that etcd was restored from an older state: no PG becomes active until every OSD has reported what its store knows. done gets the OSDs to be heard.
func DeclareRestored(r registry.Registry, s *cluster.Snapshot, now time.Time, draw *rand.Rand, done func([]layout.OSDNum, error)) {
	next := cluster.Restored{ID: strconv.FormatUint(draw.Uint64()|1, 16), Time: now.Unix(), Reason: "declared by an operator"}
	r.Txn(cluster.DeclareRestored(s, next), func(res registry.TxnResult, err error) {
		if err == nil && !res.Succeeded {
			err = &Error{Kind: Refused, What: "the restore was declared by somebody else meanwhile", Way: "nothing is left to do"}
		}
		after := *s
		after.Restored = &next
		done(after.Unreported(), err)
	})
}

// DeclareLost gives an OSD's store up: the cluster no longer waits for what it knows, and refuses the disk should it come back.
func DeclareLost(r registry.Registry, s *cluster.Snapshot, osd layout.OSDNum, done func(error)) {
	if _, up := s.OSDStates.Get(osd); up {
		done(&Error{Kind: Refused, What: fmt.Sprintf("OSD %d is up", osd), Way: "stop it first, if its disk is really to be given up"})
		return
	}
	t, ok := cluster.DeclareLost(s, osd)
	if !ok {
		done(&Error{Kind: NotFound, What: fmt.Sprintf("OSD %d", osd), Err: errors.New("the cluster knows no store of it"), Way: "`holdfast ls-osd` lists the OSDs"})
		return
	}
	r.Txn(t, func(res registry.TxnResult, err error) {
		if err == nil && !res.Succeeded {
			err = &Error{Kind: Refused, What: fmt.Sprintf("OSD %d has changed meanwhile", osd), Way: "look at `holdfast ls-osd` and try again"}
		}
		done(err)
	})
}
