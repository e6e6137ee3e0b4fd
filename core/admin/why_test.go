package admin

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
)

const (
	storeA = "0a000000000000000000000000000000"
	storeB = "0b000000000000000000000000000000"
	storeC = "0c000000000000000000000000000000"
)

// onePG is a pool of three copies with one PG on three OSDs, which are up as told; keys add to that or, empty, take away. GEN in a value is the pool's generation.
func onePG(t *testing.T, up string, keys map[string]string) *world {
	w := newWorld(t, map[string]string{"pool/identity/1": `{"name":"p"}`})
	gen := fmt.Sprint(w.snapshot().Generation(1))
	all := map[string]string{
		"config/pools": `{"1":{"name":"p","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":1,"failure_domain":"osd"}}`,
		"pg/config":    `{"items":{"1":{"1":{"osd_set":[1,2,3],"primary":1}}}}`,
		"mon/master":   `{"hostname":"a"}`,
		"osd/stats/1":  `{"host":"a","time":"1790000000.5"}`,
		"osd/stats/2":  `{"host":"b","time":"1790000060.5"}`,
		"osd/stats/3":  `{"host":"c"}`,
	}
	for i, store := range []string{storeA, storeB, storeC} {
		n := fmt.Sprint(i + 1)
		if strings.Contains(up, n) {
			all["osd/state/"+n] = `{"state":"up","addresses":["10.0.0.` + n + `"],"host":"h` + n + `","port":7000,"holdfast_store":"` + store + `"}`
		}
	}
	for k, v := range keys {
		all[k] = strings.ReplaceAll(v, "GEN", gen)
	}
	if v, ok := all["pg/state/1/1"]; ok { // before what its primary publishes
		w.put("pg/state/1/1", v)
	}
	for k, v := range all {
		if v != "" && k != "pg/state/1/1" {
			w.put(k, v)
		}
	}
	return w
}

// record is one of a PG written by sets in intervals; the last one's members, and more, took part.
func record(participants string, sets ...string) string {
	m := func(list string) string {
		var out []string
		for _, c := range list {
			out = append(out, fmt.Sprintf(`{"osd":%d,"store":"0%c%s"}`, c-'a'+1, c, strings.Repeat("0", 30)))
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	var list []string
	for i, s := range sets {
		list = append(list, fmt.Sprintf(`{"interval":%d,"members":%s}`, 11+i, m(s)))
	}
	return fmt.Sprintf(`{"generation":GEN,"interval":14,"activated":%d,"sets":[%s],"participants":%s}`, 10+len(sets), strings.Join(list, ","), m(participants))
}

const skippedStats = `{"object_count":9,"clean_count":9,"write_osd_set":[1],"reason":"an old story"}`

func TestWhy(t *testing.T) {
	const heardA, heardB = " (last heard of 2026-09-21 14:13:20 UTC)", " (last heard of 2026-09-21 14:14:20 UTC)"
	for _, c := range []struct {
		name, up string
		keys     map[string]string
		want     string
	}{
		{"active and whole", "123", map[string]string{"pg/state/1/1": `{"primary":1,"state":["active"],"peers":[1,2,3]}`}, ""},
		{"the primary says it", "1", map[string]string{"pg/state/1/1": `{"primary":1,"state":["incomplete"],"peers":[]}`, "pgstats/1/1": `{"reason":"written in interval 12 by OSDs 2,3 while 1 was away; start OSD 2 or 3"}`},
			"written in interval 12 by OSDs 2,3 while 1 was away; start OSD 2 or 3"},
		{"no terminal codes", "1", map[string]string{"pg/state/1/1": `{"primary":1,"state":["incomplete"],"peers":[]}`, "pgstats/1/1": `{"reason":"a\u001b[2Jb\nc"}`}, "a [2Jb c"},
		{"peering", "123", map[string]string{"pg/state/1/1": `{"primary":2,"state":["peering"],"peers":[]}`}, "OSD 2 is taking it over and asks the others what they hold; that takes a moment"},
		{"nobody speaks: the record does", "1", map[string]string{"interval/1/1": record("bc", "bc"), "pgstats/1/1": skippedStats},
			"written in interval 11 by OSDs 2,3, OSD 2 on host b is down" + heardB + ", OSD 3 on host c is down; start OSD 2 or 3"},
		{"one that took no part does not help", "1", map[string]string{"interval/1/1": record("b", "bc", "b")},
			"written in interval 11 by OSDs 2,3, OSD 2 on host b is down" + heardB + "; start OSD 2; also written in interval 12 by OSD 2, OSD 2 on host b is down" + heardB + "; start OSD 2"},
		{"another disk", "12", map[string]string{"interval/1/1": record("b", "b"), "osd/state/2": `{"state":"up","addresses":["10.0.0.2"],"host":"b","port":7000,"holdfast_store":"` + storeC + `"}`},
			"written in interval 11 by OSD 2; OSD 2 runs on another disk now: bring back the one with store 0b000000, and accept it (`holdfast disk accept --keep-id`)"},
		{"given up", "1", map[string]string{"interval/1/1": record("b", "b"), "osd/identity/2": `{"retired":["` + storeB + `"]}`},
			"written in interval 11 by OSD 2; the disk of OSD 2 with store 0b000000 was given up: if it is still there, accept it (`holdfast disk accept --keep-id`)"},
		{"nobody's word counts", "1", map[string]string{"interval/1/1": record("a", "b", "a")},
			"written in interval 11 by OSD 2; none of them took part in the last interval, 12: the PG's record is wrong; restore etcd from a snapshot"},
		{"half a restore", "123", map[string]string{"restoring": `{"id":"x","file":"f","sum":"s","revision":1,"time":1}`}, "a restore of etcd was begun and has not ended: run `holdfast etcd restore` again"},
		{"all down", "", map[string]string{"interval/1/1": record("abc", "abc")},
			"written in interval 11 by OSDs 1,2,3, OSD 1 on host a is down" + heardA + ", OSD 2 on host b is down" + heardB + ", OSD 3 on host c is down; start OSD 1, 2 or 3"},
		{"a record of the pool before", "1", map[string]string{"interval/1/1": strings.Replace(record("b", "b"), "GEN", "1999", 1)}, "1 of the 2 OSDs that pg_minsize asks for are up, OSD 2 on host b is down" + heardB + ", OSD 3 on host c is down; start OSD 2 or 3"},
		{"too few places", "1", map[string]string{"pg/config": `{"items":{"1":{"1":{"osd_set":[1,0,0],"primary":0}}}}`}, "1 of the 2 OSDs that pg_minsize asks for are up; only 1 of its 3 places are filled: add OSDs or hosts"},
		{"paused", "123", map[string]string{"pg/config": `{"items":{"1":{"1":{"osd_set":[1,2,3],"primary":1,"pause":true}}}}`}, "it is paused while the monitor changes the pool's pg_count; that ends by itself"},
		{"no primary", "123", map[string]string{"pg/config": `{"items":{"1":{"1":{"osd_set":[1,2,3],"primary":0}}}}`}, "it has no primary yet; the monitor names one"},
		{"no primary and no monitor", "123", map[string]string{"pg/config": `{"items":{"1":{"1":{"osd_set":[1,2,3],"primary":0}}}}`, "mon/master": ""}, "it has no primary yet; no monitor leads that could name one; start `holdfast mon`"},
		{"its primary died", "23", nil, "OSD 1 on host a is down" + heardA + ", which is to be its primary; the monitor names another"},
		{"not yet taken", "123", nil, "OSD 1 is to take it and has not yet; if that lasts look at its log"},
		{"etcd restored", "23", map[string]string{"restored": `{"id":"x","time":1,"reason":"by a test"}`, "osd/identity/1": `{"store":"` + storeA + `"}`, "osd/identity/2": `{"store":"` + storeB + `","reported":"x"}`},
			"etcd was restored from an older state, and OSD 1 has not reported yet; start it, or declare what is gone for good lost: `holdfast etcd lost OSD`"},
		{"a member is away", "12", map[string]string{"pg/state/1/1": `{"primary":1,"state":["active","degraded"],"peers":[1,2]}`, "pgstats/1/1": `{"object_count":9,"degraded_count":9}`},
			"of 9 objects 9 degraded; OSD 3 on host c is down: start it, or its copies are made elsewhere after osd_out_time"},
		{"a member is away, noout", "12", map[string]string{"pg/state/1/1": `{"primary":1,"state":["active","degraded"],"peers":[1,2]}`, "config/osd/3": `{"noout":true}`}, "OSD 3 on host c is down: start it (noout keeps its place)"},
		{"a full member", "123", map[string]string{"pg/state/1/1": `{"primary":1,"state":["active","degraded"],"peers":[1,2]}`, "pgstats/1/1": `{"object_count":9,"degraded_count":9,"reason":"OSD 3 refused writes"}`}, "of 9 objects 9 degraded; OSD 3 refused writes"},
		{"joining", "123", map[string]string{"pg/state/1/1": `{"primary":1,"state":["active","degraded"],"peers":[1,2]}`}, "joining next, as up: OSD 3"},
		{"empty places", "12", map[string]string{"pg/config": `{"items":{"1":{"1":{"osd_set":[1,2,0],"primary":1}}}}`, "pg/state/1/1": `{"primary":1,"state":["active","degraded"],"peers":[1,2]}`}, "1 of 3 places are empty: add OSDs or hosts"},
		{"recovering", "123", map[string]string{"pg/state/1/1": `{"primary":1,"state":["active","has_degraded"],"peers":[1,2,3]}`, "pgstats/1/1": `{"object_count":9,"degraded_count":4,"misplaced_count":1,"unfound_count":1,"recovery_left":5,"recovery_total":8}`},
			"of 9 objects 4 degraded, 1 misplaced, 1 unfound; what is unfound could be read from no OSD: look at their logs and disks; it is tried again every second; 5 are being copied"},
		{"held back", "123", map[string]string{"config/global": `{"no_recovery":"yes"}`, "pg/state/1/1": `{"primary":1,"state":["active","has_degraded"],"peers":[1,2,3]}`, "pgstats/1/1": `{"object_count":9,"degraded_count":4,"recovery_left":4}`},
			"of 9 objects 4 degraded; no_recovery holds recovery back: set it to false"},
		{"moves held back", "123", map[string]string{"config/global": `{"no_rebalance":1}`, "pg/state/1/1": `{"primary":1,"state":["active","has_degraded","has_misplaced"],"peers":[1,2,3]}`, "pgstats/1/1": `{"object_count":9,"degraded_count":4,"misplaced_count":3,"recovery_left":7,"recovery_misplaced":3}`},
			"of 9 objects 4 degraded, 3 misplaced; no_rebalance holds misplaced objects back: set it to false; 4 are being copied"},
		{"moves held back, and nothing else to do", "123", map[string]string{"config/global": `{"no_rebalance":1}`, "pg/state/1/1": `{"primary":1,"state":["active","has_misplaced"],"peers":[1,2,3]}`, "pgstats/1/1": `{"object_count":9,"misplaced_count":3,"recovery_left":3,"recovery_misplaced":3,"reason":"no_rebalance holds misplaced objects back: set it to false"}`},
			"of 9 objects 3 misplaced; no_rebalance holds misplaced objects back: set it to false"},
		{"a copy that cannot be read", "123", map[string]string{"pg/state/1/1": `{"primary":1,"state":["active","has_incomplete","has_corrupted"],"peers":[1,2,3]}`, "pgstats/1/1": `{"object_count":9,"incomplete_count":1,"unfound_count":1,"corrupted_count":1,"recovery_left":1}`},
			"of 9 objects 1 unfound, 1 corrupted; what is unfound could be read from no OSD: look at their logs and disks; it is tried again every second; copies that cannot be read are replaced from others; look at the disks (`holdfast describe` names them); 1 are being copied"},
		{"copies left", "12", map[string]string{"pg/config": `{"items":{"1":{"1":{"osd_set":[1,2],"primary":1}}}}`, "pg/state/1/1": `{"primary":1,"state":["active","left_on_dead"],"peers":[1,2]}`, "pg/history/1/1": `{"epoch":7,"osd_sets":[],"all_peers":[1,2,3,4]}`,
			"osd/identity/3": `{"store_id":"` + storeC + `","boot":1,"sequence":1}`},
			"copies that nobody needs may be left on OSD 3, down and without a place: they go when it is started, and do no harm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := onePG(t, c.up, c.keys).snapshot()
			if s.Faults.Len() > 0 {
				for _, f := range s.Faults.All() {
					t.Error(f)
				}
			}
			list, err := PGs(s, PGFilter{})
			if err != nil || len(list) != 1 {
				t.Fatalf("PGs = %+v, %v", list, err)
			}
			if got := list[0].Reason; got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestReasonOfThePrimaryBefore: what was published before the present primary took the PG is not its word.
func TestReasonOfThePrimaryBefore(t *testing.T) {
	w := onePG(t, "12", map[string]string{"pgstats/1/1": skippedStats})
	w.put("pg/state/1/1", `{"primary":2,"state":["incomplete"],"peers":[]}`)
	list, _ := PGs(w.snapshot(), PGFilter{})
	if got := list[0].Reason; !strings.Contains(got, "OSD 2 is taking it over") {
		t.Errorf("Reason = %q", got)
	}
}

func TestProgress(t *testing.T) {
	keys := map[string]string{
		"pg/state/1/1": `{"primary":1,"state":["active","has_degraded"],"peers":[1,2,3]}`, "pgstats/1/1": `{"object_count":900,"degraded_count":400,"recovery_left":400,"recovery_total":800}`,
		"osd/stats/1": `{"host":"a","recovery_stats":{"degraded":{"count":9,"bytes":9,"usec":9,"iops":30,"bps":3145728}}}`,
		"osd/stats/2": `{"host":"b","recovery_stats":{"degraded":{"count":9,"bytes":9,"usec":9,"iops":10,"bps":1048576}}}`,
		"osd/stats/3": `{"host":"c","recovery_stats":{"degraded":{"count":9,"bytes":9,"usec":9,"iops":99,"bps":9999999}}}`, // is down: an old number
	}
	v := Report(onePG(t, "12", keys).snapshot())
	if want := (Progress{Left: 400, Total: 800, Objects: 40, Bytes: 4 << 20, SecondsLeft: 10, HeldBy: []string{}}); !reflect.DeepEqual(v.Progress, want) {
		t.Errorf("Progress = %+v, want %+v", v.Progress, want)
	}
	if got, want := v.Progress.Line(), "400 of 800 objects left, 40 objects/s, 4 M/s, about 10 s left"; got != want {
		t.Errorf("Line = %q, want %q", got, want)
	}
	if len(v.Recovery) != 1 || v.Recovery[0] != (Rate{"degraded", 4 << 20, 40}) {
		t.Errorf("Recovery = %+v", v.Recovery)
	}
	keys["config/global"] = `{"no_recovery":1,"noout":true}`
	keys["config/osd/2"] = `{"noout":true}`
	v = Report(onePG(t, "12", keys).snapshot())
	if got, want := v.Progress.Line(), "400 of 800 objects left, held back by no_recovery"; got != want || v.Progress.SecondsLeft != 0 {
		t.Errorf("Line = %q, want %q; %+v", got, want, v.Progress)
	}
	if want := []string{"no_recovery", "noout", "noout of OSD 2"}; !reflect.DeepEqual(v.Flags, want) {
		t.Errorf("Flags = %q, want %q", v.Flags, want)
	}
	keys["config/global"] = `{"no_rebalance":1}`
	keys["pgstats/1/1"] = `{"object_count":900,"degraded_count":300,"misplaced_count":100,"recovery_left":400,"recovery_misplaced":100,"recovery_total":800,"recovery_rate":20}`
	v = Report(onePG(t, "12", keys).snapshot())
	if got, want := v.Progress.Line(), "400 of 800 objects left, 100 of them held back by no_rebalance, 40 objects/s, 4 M/s, about 8 s left"; got != want || v.Progress.Held != 100 {
		t.Errorf("Line = %q, want %q; %+v", got, want, v.Progress)
	}
	if pgs, _ := PGs(onePG(t, "12", keys).snapshot(), PGFilter{}); pgs[0].RecoveryRate != 20 || pgs[0].RecoverySeconds != 20 || pgs[0].RecoveryMisplaced != 100 {
		t.Errorf("the PG: %+v", pgs[0])
	}
	if got, want := (Progress{Left: 5, Total: 9, Misplaced: 3, Objects: 2, Bytes: 4096, SecondsLeft: 3}).Line(), "5 of 9 objects left, 3 of them only misplaced, 2 objects/s, 4 K/s, about 3 s left"; got != want {
		t.Errorf("Line = %q, want %q", got, want)
	}
	keys["pgstats/1/1"] = `{"object_count":900,"misplaced_count":400,"recovery_left":400,"recovery_misplaced":400,"recovery_total":800}`
	v = Report(onePG(t, "12", keys).snapshot())
	if got, want := v.Progress.Line(), "400 of 800 objects left, held back by no_rebalance"; got != want || v.Progress.SecondsLeft != 0 {
		t.Errorf("Line = %q, want %q; %+v", got, want, v.Progress)
	}
	if got := (Progress{Left: 1, Total: 2}).Line(); got != "1 of 2 objects left, time left not known yet" {
		t.Errorf("Line = %q", got)
	}
	if got := (Progress{}).Line(); got != "" {
		t.Errorf("Line = %q", got)
	}
	for d, want := range map[time.Duration]string{0: "0 s", 59 * time.Second: "59 s", 61 * time.Second: "1 min 1 s", 3*time.Hour + 5*time.Minute: "3 h 5 min", 49 * time.Hour: "2 days 1 h"} {
		if got := Period(d); got != want {
			t.Errorf("Period(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestStatusTellsReasons(t *testing.T) {
	v := Report(onePG(t, "1", map[string]string{"interval/1/1": record("bc", "bc")}).snapshot())
	if len(v.Reasons) != 1 || v.MoreWait != 0 || !strings.HasPrefix(v.Reasons[0].Line(), "pg 1/1 waits: written in interval 11 by OSDs 2,3") {
		t.Errorf("Reasons = %+v", v.Reasons)
	}
	many := Reasons([]PG{{PoolID: 1, Num: 1, State: []string{"active", "degraded"}, cause: "a", Reason: "a"}, {PoolID: 1, Num: 2, State: []string{"active"}}, {PoolID: 1, Num: 3, State: []string{"incomplete"}, Reason: "b"}})
	same := Reasons([]PG{
		{PoolID: 1, Num: 1, State: []string{"active", "degraded"}, Objects: 5, Degraded: 5, cause: "c", Reason: "of 5 objects 5 degraded; c"}, {PoolID: 1, Num: 2, State: []string{"incomplete"}, Reason: "b"},
		{PoolID: 1, Num: 3, State: []string{"active", "degraded"}, Objects: 4, Degraded: 4, cause: "c", Reason: "of 4 objects 4 degraded; c"}, {PoolID: 1, Num: 4, State: []string{"incomplete"}, Reason: "b"},
	})
	if len(same) != 2 || same[0].Line() != "pg 1/2 and 1 more wait: b" || same[1].Line() != "pg 1/1 and 1 more: of 9 objects 9 degraded; c" {
		t.Errorf("Reasons = %+v", same)
	}
	if len(many) != 2 || many[0].Line() != "pg 1/3 waits: b" || many[1].Line() != "pg 1/1: a" {
		t.Errorf("Reasons = %+v", many)
	}
}

func TestDescribe(t *testing.T) {
	s := onePG(t, "1", map[string]string{"interval/1/1": record("abc", "bc")}).snapshot()
	for _, name := range []string{"1/1", "p/1", ""} {
		var names []string
		if name != "" {
			names = []string{name}
		}
		list, err := Describe(s, names, PGFilter{})
		if err != nil || len(list) != 1 {
			t.Fatalf("Describe(%s) = %+v, %v", name, list, err)
		}
		v := list[0]
		if v.Activated != 11 || !reflect.DeepEqual(v.Sets, []PGSet{{11, []uint64{2, 3}}}) || len(v.OSDs) != 3 {
			t.Errorf("Describe(%s) = %+v", name, v)
		}
		if got, want := v.OSDs[1].Text(), "down, last heard of 2026-09-21 14:14:20 UTC, host b, has a place and takes no part, what it holds counts"; got != want {
			t.Errorf("OSD 2: %s, want %s", got, want)
		}
		if got, want := v.OSDs[0].Text(), "up, host h1, has a place and takes no part, what it holds counts"; got != want {
			t.Errorf("OSD 1: %s, want %s", got, want)
		}
	}
	if _, err := Describe(s, []string{"1/2"}, PGFilter{}); kind(err) != NotFound {
		t.Errorf("1/2: %v", err)
	}
}

func TestClipReason(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"plain, Ünïcode", "plain, Ünïcode"}, {"a\x1b[1m\tb", "a [1m b"},
		{strings.Repeat("é", 400), strings.Repeat("é", 298) + "..."},
	} {
		if got := cluster.ClipReason(c.in); got != c.want || len(got) > cluster.MaxReason {
			t.Errorf("ClipReason(%.20q) = %d bytes, %.40q", c.in, len(got), got)
		}
	}
}
