package appliance

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/core/admin"
	"holdfast/tests/stand"
)

// small is a cluster that starts fast.
var small = []string{"--osd-size", "128M", "--image", "demo:16M"}

func TestCommandsOnACluster(t *testing.T) {
	u := stand.StartUp(t, small...)

	if s := decode[admin.Status](t, on(t, u, "status", "--json")); s.Health != "ok" || s.OSDsUp != 3 || s.PoolsUp != 1 || s.Images != 1 || len(s.Warnings) != 0 || len(s.ClusterID) != 32 {
		t.Errorf("status: %+v", s)
	}
	made := decode[admin.Image](t, on(t, u, "create", "vm/disk", "-s", "1.5G", "--json"))
	if made.Size != 3<<29 || made.Pool != "pool" || len(made.Identity) != 32 {
		t.Errorf("create: %+v", made)
	}
	on(t, u, "create", "vm/disk", "-s", "1G").refused(t, 4, `"vm/disk"`, "exists already", "another name")
	on(t, u, "create", "x", "-s", "1Q").refused(t, 2, "--size 1Q", "10G")
	on(t, u, "create", "x", "-s", "0").refused(t, 2, "--size 0")
	on(t, u, "create", "x").refused(t, 2, "--size is missing")
	on(t, u, "create", "a\nb", "-s", "1G").refused(t, 2, "image name")
	on(t, u, "create", "x", "-s", "1G", "--pool", "none").refused(t, 3, `no pool "none"`, "ls-pools")
	on(t, u, "create").refused(t, 2, "wants the name of an image", "--help")
	on(t, u, "creat").refused(t, 2, "creat")
	on(t, u, "status", "--nonsense").refused(t, 2, "--nonsense", "--help")
	on(t, u, "status", "--op_ttl", "soon").refused(t, 2, "--op_ttl")

	names := func(args ...string) (out []string) {
		for _, i := range decode[[]admin.Image](t, on(t, u, append([]string{"ls", "--json"}, args...)...)) {
			out = append(out, i.Name)
		}
		return out
	}
	if got := names(); !slices.Equal(got, []string{"demo", "vm/disk"}) {
		t.Errorf("ls: %v", got)
	}
	if got := names("v*k"); !slices.Equal(got, []string{"vm/disk"}) {
		t.Errorf("ls v*k: %v", got)
	}
	if got := names("--sort", "size", "-r", "-n", "1"); !slices.Equal(got, []string{"vm/disk"}) {
		t.Errorf("ls --sort size -r -n 1: %v", got)
	}
	on(t, u, "ls", "--sort", "color").refused(t, 2, "name, raw_used, size")

	on(t, u, "modify", "vm/disk", "--resize", "2G", "--rename", "mail").ok(t)
	on(t, u, "modify", "mail", "--resize", "1G").refused(t, 4, "--force")
	on(t, u, "modify", "mail", "--resize", "1G", "--force").ok(t)
	on(t, u, "modify", "mail", "--rename", "demo").refused(t, 4, "exists already")
	on(t, u, "modify", "mail").refused(t, 2, "nothing to change")
	on(t, u, "modify", "none", "--resize", "1G").refused(t, 3, `no image "none"`)
	list := decode[[]admin.Image](t, on(t, u, "ls", "mail", "--json"))
	if len(list) != 1 || list[0].Size != 1<<30 || list[0].Identity != made.Identity {
		t.Errorf("after modify: %+v, want 1 GiB and the identity %s", list, made.Identity)
	}
	on(t, u, "rm", "mail").ok(t)
	on(t, u, "rm", "mail").refused(t, 3, `no image "mail"`)

	on(t, u, "create-pool", "two", "-s", "2").refused(t, 4, `level "host"`, "--failure_domain")
	on(t, u, "create-pool", "two", "-s", "2", "--failure_domain", "osd", "-n", "8", "--wait").ok(t)
	on(t, u, "create-pool", "two", "-s", "2", "--failure_domain", "osd").refused(t, 4, "exists already")
	on(t, u, "create-pool", "bad", "-s", "2", "--pg_minsize", "5", "--force").refused(t, 2, "pg_minsize")
	on(t, u, "create-pool", "coded", "--ec", "2+1", "-s", "3").refused(t, 2, "--pg_size", "--ec")
	for _, code := range []string{"3", "2+0", "0+2", "two+1", "-2+1"} {
		on(t, u, "create-pool", "coded", "--ec="+code).refused(t, 2, "--ec "+code, "4+2")
	}
	on(t, u, "create-pool", "coded", "--ec", "30+3", "--force").refused(t, 2, "want 3..32")
	on(t, u, "create-pool", "coded", "--ec", "2+2", "--failure_domain", "osd").refused(t, 4, "4 chunks", "there are 3")
	on(t, u, "create", "x", "-s", "1G").refused(t, 2, "several pools", "--pool")
	on(t, u, "create", "x", "-s", "1G", "--pool", "two").ok(t)
	pools := decode[[]admin.Pool](t, on(t, u, "ls-pools", "--json"))
	if len(pools) != 2 || pools[1].Name != "two" || pools[1].PGMinSize != 1 || pools[1].Active != 8 || pools[1].Images != 1 {
		t.Errorf("ls-pools: %+v", pools)
	}
	on(t, u, "modify-pool", "two", "-s", "4").refused(t, 4, "4 copies", "there are 3")
	on(t, u, "modify-pool", "two", "--ec", "2+1").refused(t, 4, "it has copies", "--pg_size")
	on(t, u, "modify-pool", "two", "--pg_count", "16").refused(t, 4, "pg_count of a pool cannot be changed")
	on(t, u, "modify-pool", "three", "-s", "2").refused(t, 3, `no pool "three"`)
	on(t, u, "modify-pool", "two", "-s", "3", "--wait").ok(t)
	if pools := decode[[]admin.Pool](t, on(t, u, "ls-pools", "--json")); len(pools) != 2 || pools[1].PGSize != 3 || pools[1].PGMinSize != 2 {
		t.Errorf("ls-pools after modify-pool: %+v", pools)
	}
	if pgs := decode[[]admin.PG](t, on(t, u, "pg-list", "active", "--pool", "two", "--json")); len(pgs) != 8 || len(pgs[0].OSDSet) != 3 {
		t.Errorf("pg-list after modify-pool: %+v", pgs)
	}
	on(t, u, "modify-pool", "two", "-s", "2", "--wait").ok(t)
	if osds := decode[[]admin.OSD](t, on(t, u, "ls-osd", "--json")); len(osds) != 3 || !osds[2].Up || osds[2].Size == 0 || osds[2].PGs == 0 {
		t.Errorf("ls-osd: %+v", osds)
	}
	if pgs := decode[[]admin.PG](t, on(t, u, "pg-list", "active", "--pool", "two", "--json")); len(pgs) != 8 || len(pgs[0].OSDSet) != 2 {
		t.Errorf("pg-list: %+v", pgs)
	}
	on(t, u, "pg-list", "lively").refused(t, 2, "lively")
	for _, c := range []string{"status", "df", "ls", "ls-pools", "ls-osd", "pg-list"} {
		if r := on(t, u, c).ok(t); !strings.Contains(r.out, "\n") {
			t.Errorf("%s prints %q", c, r.out)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, c := range []string{"up", "osd", "mon", "gateway", "status", "df", "ls", "create", "rm", "modify", "create-pool", "modify-pool", "ls-pools", "ls-osd", "pg-list", "version", "disk format", "disk dump", "disk check", "disk accept"} {
		r := run(t, append(strings.Fields(c), "--help")...).ok(t)
		if !strings.Contains(r.out, "holdfast "+strings.Fields(c)[0]) || !strings.Contains(r.out, "Examples:") {
			t.Errorf("%s --help: %s", c, r.out)
		}
	}
	if v := decode[map[string]string](t, run(t, "version", "--json")); v["version"] == "" || v["go"] == "" {
		t.Errorf("version: %v", v)
	}
	if r := run(t, "help", "parameters").ok(t); !strings.Contains(r.out, "etcd_address") || !strings.Contains(r.out, "pg_lock_time") {
		t.Error("help parameters does not list the parameters")
	}
}

func TestClusterThatIsNotThere(t *testing.T) {
	run(t, "status", "--etcd_address", "127.0.0.1:1", "--etcd_slow_timeout", "300").refused(t, 5, "127.0.0.1:1", "does not answer", "--etcd_address")
	run(t, "status", "--config", "/nonexistent/holdfast.conf").refused(t, 2, "/nonexistent/holdfast.conf")
	run(t, "create", "x", "-s", "1G", "--etcd_address", "127.0.0.1:1", "--etcd_slow_timeout", "300").refused(t, 5, "does not answer")
	run(t, "status").refused(t, 2, "no cluster is named", "HOLDFAST_CONFIG", "--etcd_address")
}

func TestStopsInOrderAndStartsAgain(t *testing.T) {
	u := stand.StartUp(t, small...)
	on(t, u, "rm", "demo").ok(t)
	on(t, u, "create", "kept", "-s", "8M").ok(t)
	start := time.Now()
	u.Signal(syscall.SIGINT)
	if code := u.Wait(20 * time.Second); code != 0 {
		t.Errorf("exit code %d after SIGINT", code)
	}
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("stopping took %v", d)
	}
	text := u.Output().String()
	at := 0
	for _, step := range []string{"stopping the gateway", "stopping the monitor", "stopping 3 OSDs", "stopping etcd", "stopped"} {
		i := strings.Index(text[at:], step)
		if i < 0 {
			t.Fatalf("no line %q, in order, in:\n%s", step, text)
		}
		at += i
	}
	u.With()
	u.Start()
	list := decode[[]admin.Image](t, on(t, u, "ls", "--json"))
	if len(list) != 1 || list[0].Name != "kept" {
		t.Errorf("after a restart: %+v; the image that was removed must not come back, the other one be there", list)
	}
}
