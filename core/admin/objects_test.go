package admin

import (
	"reflect"
	"testing"

	"holdfast/core/client"
	"holdfast/core/layout"
)

func TestObjectsInWords(t *testing.T) {
	const whole, outdated, spoilt, differs, missing = client.CopyWhole, client.CopyOutdated, client.CopyCorrupted, client.CopyInconsistent, client.CopyMissing
	of := func(state client.ObjectState, copies ...client.CopyState) client.Unclean {
		u := client.Unclean{Object: layout.ObjectID{Inode: layout.MakeInode(1, 5)}, State: state}
		for i, c := range copies {
			u.Copies = append(u.Copies, client.Copy{OSD: layout.OSDNum(i + 1), State: c})
		}
		return u
	}
	chunks := func(state client.ObjectState, copies ...client.CopyState) client.Unclean {
		u := of(state, copies...)
		for i := range u.Copies {
			u.Copies[i].Part = uint32(i)
		}
		return u
	}
	coded := map[string]string{"config/pools": `{"1":{"name":"p","scheme":"ec","parity_chunks":1,"pg_size":3,"pg_minsize":2,"pg_count":1,"failure_domain":"osd"}}`}
	const degraded, misplaced, incomplete, corrupted = client.Degraded, client.Misplaced, client.Incomplete, client.Corrupted
	for _, c := range []struct {
		name   string
		keys   map[string]string
		object client.Unclean
		state  []string
		want   string
	}{
		{"degraded", nil, of(degraded, whole, outdated, missing), []string{"degraded"},
			"OSD 2 had no part in its last change; OSD 3 is to have a copy and has none yet; it is copied from OSD 1, without anybody's doing"},
		{"held back", map[string]string{"config/global": `{"no_recovery":true}`}, of(degraded, whole, outdated), []string{"degraded"},
			"OSD 2 had no part in its last change; no_recovery holds that back: set it to false"},
		{"misplaced, held back", map[string]string{"config/global": `{"no_rebalance":true}`}, of(misplaced, whole, whole, missing), []string{"misplaced"},
			"OSD 3 is to have a copy and has none yet; no_rebalance holds that back: set it to false"},
		{"degraded while moves are held back", map[string]string{"config/global": `{"no_rebalance":true}`}, of(degraded, whole, missing), []string{"degraded"},
			"OSD 2 is to have a copy and has none yet; it is copied from OSD 1, without anybody's doing"},
		{"deleted", nil, of(degraded, whole, outdated), []string{"degraded"},
			"it is deleted, and OSD 2 does not know that yet; it is copied from OSD 1, without anybody's doing"},
		{"corrupted", nil, of(degraded|corrupted, spoilt, whole, whole), []string{"degraded", "corrupted"},
			"what is on OSD 1 cannot be read: look at the disk; it is copied from OSD 2 or 3, without anybody's doing"},
		{"unfound", nil, of(incomplete, whole, missing), []string{"incomplete"},
			"OSD 1 could not give it when it was tried last; that is tried again every second: look whether it is up and can be reached"},
		{"all corrupted", nil, of(incomplete|corrupted, spoilt, spoilt), []string{"incomplete", "corrupted"},
			"what is on OSDs 1,2 cannot be read: look at the disk; no copy is left that can be read, so it is not served; one on a disk that was taken away would do: start its OSD; else write it anew, or delete it"},
		{"a chunk is missing", coded, chunks(degraded, whole, whole, missing), []string{"degraded"},
			"OSD 3 is to have a chunk and has none yet; it is computed from 2 of those on OSDs 1,2, without anybody's doing"},
		{"too few chunks", coded, chunks(incomplete|corrupted, whole, spoilt, missing), []string{"incomplete", "corrupted"},
			"what is on OSD 2 cannot be read: look at the disk; 1 of the 2 chunks that are needed can be read; start the OSDs that have the others, or bring back their disks"},
		{"of a stock OSD", nil, of(0, differs), []string{}, "what is on OSD 1 differs, and nobody knows which is right; it is not served until `holdfast fix` says which are wrong, or it is written anew"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := map[string]string{"config/inode/1/5": `{"name":"mail","size":1048576}`}
			for k, v := range c.keys {
				keys[k] = v
			}
			c.object.Deleted = c.name == "deleted"
			other := of(degraded, whole)
			other.Object.Stripe = 131072
			list := Objects(onePG(t, "123", keys).snapshot(), []client.Unclean{c.object, other})
			if len(list) != 2 || list[0].Image != "mail" || list[0].InodeID != 5 || list[1].Offset != 131072 || len(list[0].Copies) != len(c.object.Copies) {
				t.Fatalf("Objects = %+v", list)
			}
			if !reflect.DeepEqual(list[0].State, c.state) || list[0].Reason != c.want {
				t.Errorf("got  %v, %s\nwant %v, %s", list[0].State, list[0].Reason, c.state, c.want)
			}
		})
	}
	if mask, err := ObjectState([]string{"incomplete", "corrupted"}); mask != incomplete|corrupted || err != nil {
		t.Errorf("ObjectState = %x, %v", mask, err)
	}
	if _, err := ObjectState([]string{"lost"}); kind(err) != Usage {
		t.Errorf("a state that does not exist: %v", err)
	}
}
