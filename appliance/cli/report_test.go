package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"holdfast/core/admin"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// TestGoldenOutput compares what people read with testdata; run with -rewrite after a change that is meant.
func TestGoldenOutput(t *testing.T) {
	waits := "written in interval 12 by OSDs 2,3 while 1 was away; start OSD 2 or 3"
	lacks := "of 500 objects 12 degraded, 3 misplaced; 15 are being copied"
	pgs := []admin.PG{
		{Pool: "main", PoolID: 1, Num: 6, State: []string{"active"}, Primary: 2, OSDSet: []uint64{2, 3, 4}, Peers: []uint64{2, 3, 4}, Interval: 3, Objects: 40},
		{Pool: "main", PoolID: 1, Num: 7, State: []string{"incomplete"}, Primary: 1, OSDSet: []uint64{1, 2, 3}, Interval: 14, Objects: 37, Incomplete: 37, Reason: waits},
		{Pool: "main", PoolID: 1, Num: 8, State: []string{"active", "has_degraded", "has_misplaced"}, Primary: 4, OSDSet: []uint64{4, 1, 5}, Peers: []uint64{4, 1, 5}, Interval: 9, Objects: 500, Degraded: 12, Misplaced: 3,
			RecoveryLeft: 15, RecoveryTotal: 60, RecoveryRate: 3, RecoverySeconds: 5, Reason: lacks},
	}
	going := admin.Progress{Left: 15, Total: 60, Objects: 3, Bytes: 400 << 10, SecondsLeft: 5}
	status := admin.Status{
		Health: "down", ClusterID: "0123456789abcdef", Monitors: 1, Master: "a", OSDsUp: 3, OSDs: 5, Pools: 1, Images: 2, RawTotal: 5 << 40, RawUsed: 1 << 40, Clean: 60 << 20, Degraded: 1 << 20, Incomplete: 4 << 20,
		PGs:    []admin.StateCount{{State: "active", Count: 1}, {State: "active+has_degraded+has_misplaced", Count: 1}, {State: "incomplete", Count: 1}},
		Client: []admin.Rate{{Op: "write", Bps: 1 << 20, Iops: 256}}, Progress: going, Reasons: admin.Reasons(pgs), MoreWait: 12, Flags: []string{"noout"},
		Warnings: []string{"OSD 2 (host b) is down, last heard of 2026-09-21 14:14:20 UTC"},
	}
	held := status
	held.Progress = admin.Progress{Left: 15, Total: 60, Held: 15, HeldBy: []string{"no_recovery"}}
	held.Reasons, held.MoreWait, held.Warnings, held.Flags = nil, 0, nil, []string{"no_recovery", "noout"}
	described := []admin.Described{{
		PG: pgs[1], Activated: 12, Sets: []admin.PGSet{{Interval: 12, OSDs: []uint64{2, 3}}},
		OSDs: []admin.PGPart{{Num: 1, Host: "a", Up: true, InSet: true, Primary: true}, {Num: 2, Host: "b", LastHeard: "2026-09-21 14:14:20 UTC", InSet: true, Word: true}, {Num: 3, InSet: true, Word: true}},
	}, {
		PG: pgs[2], Activated: 9, Clean: 485, Sets: []admin.PGSet{{Interval: 9, OSDs: []uint64{1, 4, 5}}},
		OSDs: []admin.PGPart{{Num: 2, Host: "b", Up: true, Word: true}, {Num: 4, Host: "d", Up: true, InSet: true, Serving: true, Primary: true, Word: true}},
	}}
	described[1].Unclean = []admin.Object{
		{Image: "vm/mail", InodeID: 4, Offset: 131072, State: []string{"degraded", "corrupted"}, Copies: []admin.Copy{{OSD: 1, State: "corrupted"}, {OSD: 4, State: "whole"}}, Reason: "what is on OSD 1 cannot be read: look at the disk; it is copied from OSD 4, without anybody's doing"},
		{InodeID: 9, State: []string{"misplaced"}, Copies: []admin.Copy{{OSD: 2, State: "whole"}, {OSD: 4, State: "whole"}, {OSD: 5, State: "missing"}}, Reason: "OSD 5 is to have a copy and has none yet"},
	}
	described[1].UncleanMore = true
	for name, write := range map[string]func(b *bytes.Buffer){
		"status":        func(b *bytes.Buffer) { writeStatus(b, status) },
		"status_held":   func(b *bytes.Buffer) { writeStatus(b, held) },
		"pg-list":       func(b *bytes.Buffer) { writePGs(b, pgs, going) },
		"pg-list_whole": func(b *bytes.Buffer) { writePGs(b, pgs[:1], admin.Progress{}) },
		"describe":      func(b *bytes.Buffer) { writeDescribed(b, described) },
		"describe_none": func(b *bytes.Buffer) { writeDescribed(b, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			write(&b)
			path := filepath.Join("testdata", name+".golden")
			if *rewrite {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(want, b.Bytes()) {
				t.Errorf("%v, got:\n%s\nwant:\n%s", err, b.Bytes(), want)
			}
		})
	}
}
