package peering

import (
	"testing"

	"holdfast/core/layout"
)

// TestReasons: what waits is named, and what would help for each OSD that could.
func TestReasons(t *testing.T) {
	m := func(n layout.OSDNum) Member { return Member{OSD: n, Store: layout.StoreID{byte(n)}} }
	ms := func(list ...layout.OSDNum) (out []Member) {
		for _, n := range list {
			out = append(out, m(n))
		}
		return out
	}
	up := func(list ...layout.OSDNum) map[layout.OSDNum]layout.StoreID {
		out := map[layout.OSDNum]layout.StoreID{}
		for _, n := range list {
			out[n] = m(n).Store
		}
		return out
	}
	swapped := up(2)
	swapped[2] = layout.StoreID{9}
	set := func(i layout.Interval, list ...layout.OSDNum) Set { return Set{Interval: i, Members: ms(list...)} }
	for _, c := range []struct {
		name    string
		cfg     Config
		record  Record
		missing []Set    // whyUnheard
		acting  []Member // whyTooFew
		want    string
	}{
		{"down", Config{Target: []layout.OSDNum{1, 2, 3}}, Record{Participants: ms(2, 3)}, []Set{set(12, 3, 2)}, nil, "written in interval 12 by OSDs 2,3 while 1 was away; start OSD 2 or 3"},
		{"one of them is not asked for its word", Config{}, Record{Participants: ms(2)}, []Set{set(12, 2, 3)}, nil, "written in interval 12 by OSDs 2,3; start OSD 2"},
		{"up and silent", Config{Up: up(2)}, Record{Participants: ms(2, 3)}, []Set{set(12, 2, 3)}, nil,
			"written in interval 12 by OSDs 2,3; start OSD 3, or OSD 2, up, does not give OSD 1 the lock: unreachable from there (look at the network), or still bound to another primary for a moment"},
		{"another disk", Config{Up: swapped}, Record{Participants: ms(2)}, []Set{set(12, 2)}, nil, "written in interval 12 by OSD 2; OSD 2 runs on another disk now: bring back the one with store 02000000, and accept it (`holdfast disk accept --keep-id`)"},
		{"nobody helps", Config{}, Record{Activated: 13}, []Set{set(12, 2)}, nil, "written in interval 12 by OSD 2; none of them took part in the last interval, 13: the PG's record is wrong; restore etcd from a snapshot"},
		{"many", Config{}, Record{Participants: ms(2, 3, 4, 5, 6)}, []Set{set(1, 2), set(2, 3), set(3, 4), set(4, 5), set(5, 6)}, nil,
			"written in interval 1 by OSD 2; start OSD 2; also written in interval 2 by OSD 3; start OSD 3; also written in interval 3 by OSD 4; start OSD 4; and 2 more"},
		{"k are needed", Config{K: 2}, Record{Participants: ms(1, 2, 3)}, []Set{set(12, 1, 2, 3)}, nil, "written in interval 12 by OSDs 1,2,3; 2 of them are needed, 1 more; start OSD 2 or 3"},
		{"several of k", Config{K: 3}, Record{Participants: ms(1, 2, 3, 4)}, []Set{set(12, 1, 2, 3, 4)}, nil, "written in interval 12 by OSDs 1,2,3,4; 3 of them are needed, 2 more; start 2 of OSDs 2,3,4"},
		{"of k one is silent", Config{K: 3, Up: up(3)}, Record{Participants: ms(1, 2, 3)}, []Set{set(12, 1, 2, 3)}, nil,
			"written in interval 12 by OSDs 1,2,3; 3 of them are needed, 2 more; start OSD 2; OSD 3, up, does not give OSD 1 the lock: unreachable from there (look at the network), or still bound to another primary for a moment"},
		{"no more of k helps", Config{K: 2}, Record{Activated: 13, Participants: ms(1)}, []Set{set(12, 1, 2, 3)}, nil,
			"written in interval 12 by OSDs 1,2,3; 2 of them are needed, 1 more; no other of them took part in the last interval, 13: the PG's record is wrong; restore etcd from a snapshot"},
		{"fewer than k", Config{Target: []layout.OSDNum{1, 2, 3}, K: 2}, Record{}, nil, ms(1), "only 1 of the 2 OSDs that pg_minsize asks for can take part; start OSD 2 or 3"},
		{"one too few", Config{Target: []layout.OSDNum{1, 2, 3}, MinSize: 2}, Record{}, nil, ms(1), "only 1 of the 2 OSDs that pg_minsize asks for can take part; start OSD 2 or 3"},
		{"two of three too few", Config{Target: []layout.OSDNum{1, 2, 3, 4}, MinSize: 3}, Record{}, nil, ms(1), "only 1 of the 3 OSDs that pg_minsize asks for can take part; start 2 of OSDs 2,3,4"},
		{"all are needed", Config{Target: []layout.OSDNum{1, 2, 3}, MinSize: 3}, Record{}, nil, ms(1), "only 1 of the 3 OSDs that pg_minsize asks for can take part; start OSDs 2,3"},
		{"too few and silent", Config{Target: []layout.OSDNum{1, 2}, MinSize: 2, Up: up(2)}, Record{}, nil, ms(1),
			"only 1 of the 2 OSDs that pg_minsize asks for can take part; OSD 2, up, does not give OSD 1 the lock: unreachable from there (look at the network), or still bound to another primary for a moment"},
		{"too few places", Config{Target: []layout.OSDNum{1}, MinSize: 2}, Record{}, nil, ms(1), "only 1 of the 2 OSDs that pg_minsize asks for can take part; the PG has places on too few: add OSDs or hosts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := New(m(1))
			x.cfg, x.Record = c.cfg, c.record
			x.peers = map[layout.OSDNum]*heard{1: {store: m(1).Store, granted: true, part: 5}}
			got := ""
			if c.missing != nil {
				got = x.whyUnheard(c.missing)
			} else {
				got = x.whyTooFew(c.acting)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
