package appliance

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/core/admin"
	"holdfast/tests/stand"
)

// start runs up with the cluster's addresses, where it is expected to refuse.
func start(t *testing.T, u *stand.Up, args ...string) result {
	t.Helper()
	return run(t, append([]string{"up", "--dir", u.Dir, "--nbd", u.NBD, "--nfs", u.NFS, "--iscsi", u.ISCSI, "--etcd", u.Etcd}, args...)...)
}

func TestFoldersThatAreNotOurs(t *testing.T) {
	u := stand.NewUp(t)
	dir := t.TempDir()
	other := filepath.Join(dir, "letters.txt")
	if err := os.WriteFile(other, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.Dir = dir
	start(t, u).refused(t, 4, dir, "letters.txt", "empty folder")
	if b, err := os.ReadFile(other); err != nil || string(b) != "dear" {
		t.Errorf("the file there: %q, %v", b, err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("a refused start left %v", names)
	}
	u.Dir = other
	start(t, u).refused(t, 4, "not a folder")
}

func TestAddressesThatCannotBeUsed(t *testing.T) {
	u := stand.NewUp(t)
	l, err := net.Listen("tcp", u.NBD)
	if err != nil {
		t.Fatal(err)
	}
	start(t, u).refused(t, 4, "--nbd "+u.NBD, "in use", fmt.Sprint(os.Getpid()), "another port")
	l.Close()
	start(t, u, "--etcd", "0.0.0.0:2379").refused(t, 2, "--etcd 0.0.0.0:2379", "loopback")
	start(t, u, "--nfs", "nowhere").refused(t, 2, "--nfs nowhere")
	start(t, u, "--osds", "2", "--replicas", "3").refused(t, 2, "--replicas 3", "2 OSDs")
	start(t, u, "--osds", "0").refused(t, 2, "--osds")
	start(t, u, "--osd-size", "1M").refused(t, 2, "--osd-size")
	start(t, u, "--image", "demo").refused(t, 2, "--image demo", "NAME:SIZE")
	start(t, u, "--pg_lock_tim", "1").refused(t, 2, "--pg_lock_tim")
	start(t, u, "--pg_lock_time", "never").refused(t, 2, "--pg_lock_time")
	start(t, u, "--osd-size", "900T").refused(t, 4, "no space", "--osd-size")
	// Nothing of what was refused has stayed.
	if _, err := os.Stat(filepath.Join(u.Dir, "holdfast.conf")); err == nil {
		t.Error("a refused start wrote holdfast.conf")
	}
}

func TestTwoOnOneFolder(t *testing.T) {
	u := stand.StartUp(t, small...)
	second := stand.NewUp(t)
	second.Dir = u.Dir
	start(t, second).refused(t, 4, u.Dir, fmt.Sprintf("process %d", u.Pid()), "another --dir")
	on(t, u, "status").ok(t)
}

func TestShapeChangesAreRefusedOrGrow(t *testing.T) {
	u := stand.StartUp(t, append([]string{"--osds", "2"}, small...)...)
	u.Stop(20 * time.Second)
	start(t, u, "--osds", "1").refused(t, 4, "--osds 1", "2 OSDs")
	start(t, u, "--replicas", "1").refused(t, 4, "--replicas 1", "create-pool")
	start(t, u, "--osd-size", "256M").refused(t, 4, "--osd-size", "more OSDs")
	start(t, u, "--block_size", "256K").refused(t, 4, "--block_size", "the default")
	start(t, u, "--image", "demo:32M").refused(t, 4, "demo", "--resize")
	u.With("--osds", "3")
	u.Start()
	if osds := decode[[]admin.OSD](t, on(t, u, "ls-osd", "--json")); len(osds) != 3 || !osds[2].Up {
		t.Errorf("after growing: %+v", osds)
	}
	u.AwaitActive(time.Minute) // until then a PG may be served by the new OSD alone, and cannot do without its disk
	u.Stop(20 * time.Second)

	if err := os.Remove(filepath.Join(u.Dir, "osd.3.data")); err != nil {
		t.Fatal(err)
	}
	u.With()
	u.Start()
	if out := u.Output().String(); !strings.Contains(out, "disk of OSD 3 is gone") || !strings.Contains(out, "disk format") {
		t.Errorf("a disk that is gone is not named:\n%s", out)
	}
	on(t, u, "status").ok(t)
}

func TestSecretsAreNotReadableByOthers(t *testing.T) {
	u := stand.StartUp(t, small...)
	st, err := os.Stat(filepath.Join(u.Dir, "cluster.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("cluster.key: %v, %v", st.Mode(), err)
	}
	key, err := os.ReadFile(filepath.Join(u.Dir, "cluster.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"holdfast.conf", "holdfast.log", "cluster.json"} {
		if b, err := os.ReadFile(filepath.Join(u.Dir, name)); err != nil || strings.Contains(string(b), strings.TrimSpace(string(key))) {
			t.Errorf("%s: %v, or it holds the key", name, err)
		}
	}
	if err := os.Chmod(filepath.Join(u.Dir, "cluster.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	on(t, u, "create", "x", "-s", "1M").refused(t, 4, "cluster.key", "chmod 600")
}

func TestWrongValuesInEtcdAreNamedAndTheRestServes(t *testing.T) {
	u := stand.StartUp(t, small...)
	for _, kv := range [][2]string{
		{"config/inode/1/77", "{not JSON"}, {"config/global", `{"pg_lock_time": "never", "no_such_thing": 1}`}, {"osd/stats/9", "[]"}, {"config/osd/1", "17"}, {"gateway/ghost", "\xff\xfe"}, {"config/inode/1/78", `{"name":7}`},
	} {
		u.Etcdctl("put", "--", "/vitastor/"+kv[0], kv[1])
	}
	s := decode[admin.Status](t, on(t, u, "status", "--json"))
	if s.OSDsUp != 3 || s.PoolsUp != 1 {
		t.Errorf("status: %+v", s)
	}
	all := strings.Join(s.Warnings, "\n")
	for _, key := range []string{"config/inode/1/77", "config/inode/1/78", "config/osd/1"} {
		if !strings.Contains(all, key) {
			t.Errorf("no warning names %s:\n%s", key, all)
		}
	}
	on(t, u, "create", "after", "-s", "4M").ok(t)
	c, err := u.Dial("after")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("write: %v", err)
	}
	u.Stop(20 * time.Second)
	u.With()
	u.Start()
	on(t, u, "status").ok(t)
}

func TestDiskCommands(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "osd.data")
	run(t, "disk", "format", disk).refused(t, 1, disk)
	made := decode[map[string]any](t, run(t, "disk", "format", "--size", "64M", "--json", disk))
	if made["store_id"] == "" || made["block_size"] != float64(128<<10) {
		t.Errorf("format: %v", made)
	}
	run(t, "disk", "format", disk).refused(t, 4, disk, fmt.Sprint(made["store_id"]), "force")
	run(t, "disk", "check", disk).ok(t)
	if r := run(t, "disk", "dump", disk).ok(t); !strings.Contains(r.out, fmt.Sprint(made["store_id"])) {
		t.Errorf("dump: %s", r.out)
	}
	run(t, "disk", "check", filepath.Join(t.TempDir(), "none")).refused(t, 3, "none")
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if r := run(t, "disk", "check", disk); r.code == 0 {
		t.Errorf("a disk without superblocks is in order: %s", r.out)
	}
}
