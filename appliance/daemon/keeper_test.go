package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"holdfast/appliance/etcdsnapshot"
	"holdfast/core/cluster"
	"holdfast/core/config"
)

// TestMonitorKeepsSnapshots: they come as often as asked for, by a parameter that changes online; one that fails is told of, and tried again.
func TestMonitorKeepsSnapshots(t *testing.T) {
	c, address := startEtcd(t)
	dir := filepath.Join(t.TempDir(), "is", "made")
	v, err := config.Load(config.Sources{Flags: map[string]string{"etcd_address": address, "etcd_snapshot_dir": dir}, FileName: "none", File: []byte(`{"etcd_snapshot_interval":0}`)})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := c.Put(context.Background(), "/vitastor/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("cluster/id", `{"id":"0123456789abcdef0123456789abcdef"}`)
	l := slog.New(slog.NewTextHandler(t.Output(), nil))
	live := config.NewLive(v, config.Monitor, l)
	m, err := StartMonitor(MonitorOptions{Config: live, Host: "h", Log: l})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop(context.Background())
	list := func() []etcdsnapshot.Entry {
		all, err := etcdsnapshot.List(dir, "0123456789abcdef0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	note := func() (n cluster.EtcdSnapshot) {
		res, err := c.Get(context.Background(), "/vitastor/mon/member/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range res.Kvs {
			var one cluster.Master
			if json.Unmarshal(kv.Value, &one) == nil && one.Snapshot != nil {
				n = *one.Snapshot
			}
		}
		return n
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within 10 s: %s; noted is %+v", what, note())
			}
		}
	}
	m.Follow()
	time.Sleep(50 * time.Millisecond)
	if n := len(list()); n != 0 {
		t.Errorf("%d snapshots were written with an interval of 0", n)
	}
	put("config/global", `{"etcd_snapshot_interval":"100ms"}`)
	wait("two snapshots", func() bool { return len(list()) >= 2 && note().Keys > 0 })
	last := list()[0]
	s, err := etcdsnapshot.Read(last.Path)
	if err != nil || s.Keys != 2 || s.LeftOut == 0 {
		t.Errorf("%+v, %v: want cluster/id and config/global, and the monitor's keys left out", s, err)
	}
	// A folder that cannot be written. A file takes its place at once, since the monitor makes a folder that is not there.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	wait("a failure", func() bool { return strings.Contains(note().Error, "made") })
	before := note()
	if before.Time == 0 || before.Host != "h" {
		t.Errorf("noted is %+v: the last good one is not there", before)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	wait("a snapshot again", func() bool { return note().Error == "" && len(list()) > 0 })
}
