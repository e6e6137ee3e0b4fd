// Package gateway runs whole clusters in this process - OSDs on files, a monitor, gateways - on the loops of this machine, and real clients against them.
package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/appliance/gateway"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/monitor"
	"holdfast/osd"
	"holdfast/osd/store"
)

// testCluster is a cluster of three OSDs in this process.
type testCluster struct {
	t    *testing.T
	kind string
	log  *slog.Logger
	reg  *memory.Store
	key  []byte
	dir  string

	admin  loop.Runner
	client *client.Client
	osds   map[layout.OSDNum]loop.Runner
}

const osds = 3

// newCluster starts a cluster on loops of a kind; it ends with the test.
func newCluster(t *testing.T, kind string) *testCluster {
	t.Helper()
	c := &testCluster{t: t, kind: kind, key: []byte("a cluster key of the tests"), dir: t.TempDir(), osds: make(map[layout.OSDNum]loop.Runner)}
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	c.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
	c.admin = c.loop("admin")
	c.reg = memory.New(c.admin)
	c.on(c.admin, func() {
		txn, err := cluster.SetPool(nil, 1, &cluster.Pool{ID: 1, Name: "p", Scheme: cluster.Replicated, PGSize: 2, PGMinSize: 1, PGCount: 8, FailureDomain: "osd"})
		if err != nil {
			t.Error(err)
		}
		c.reg.Open(c.admin).Txn(txn, func(registry.TxnResult, error) {})
		monitor.Start(c.admin, monitor.Options{Hostname: "mon", Registry: c.reg.Open(c.admin), ChangeDelay: 50 * time.Millisecond, Log: c.log})
		o := client.Defaults()
		o.Registry, o.Key, o.Instance, o.Log = c.reg.Open(c.admin), c.key, 1, c.log
		c.client = client.New(c.admin, o)
	})
	for n := 1; n <= osds; n++ {
		c.startOSD(layout.OSDNum(n))
	}
	c.until("every PG is active", func() bool {
		s := c.client.Snapshot()
		for _, st := range s.PGStates.All() {
			if st.State != cluster.StateActive {
				return false
			}
		}
		return s.PGStates.Len() == 8
	})
	return c
}

// loop makes a loop that runs until the test ends.
func (c *testCluster) loop(name string) loop.Runner {
	c.t.Helper()
	l, err := system.New(system.Options{Kind: c.kind, Name: name, Log: c.log})
	if err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	c.t.Cleanup(func() {
		l.Stop()
		if err := <-ended; err != nil {
			c.t.Errorf("loop %s: %v", name, err)
		}
	})
	return l
}

func (c *testCluster) on(l loop.Loop, f func()) {
	done := make(chan struct{})
	l.Post(&loop.Task{Run: func() { f(); close(done) }})
	<-done
}

// wait runs f on the loop, which calls its argument when it has ended.
func (c *testCluster) wait(what string, l loop.Loop, f func(done func())) {
	c.t.Helper()
	ended := make(chan struct{})
	l.Post(&loop.Task{Run: func() { f(func() { close(ended) }) }})
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		c.t.Fatalf("%s has not ended within 20 s", what)
	}
}

// until waits for a condition, which is looked at on the admin's loop.
func (c *testCluster) until(what string, cond func() bool) {
	c.t.Helper()
	c.wait(what, c.admin, func(done func()) {
		var look func()
		t := &loop.Timer{Fire: func() { look() }}
		look = func() {
			if cond() {
				done()
				return
			}
			c.admin.Arm(t, c.admin.Now().Add(10*time.Millisecond))
		}
		look()
	})
}

func (c *testCluster) startOSD(n layout.OSDNum) {
	c.t.Helper()
	path := filepath.Join(c.dir, fmt.Sprintf("osd%d", n))
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(1 << 30)
		_ = f.Close() // nothing was written
	}
	if err != nil {
		c.t.Fatal(err)
	}
	l := c.loop(fmt.Sprintf("osd%d", n))
	c.osds[n] = l
	fail := func(err error) {
		if err != nil {
			c.t.Errorf("OSD %d: %v", n, err)
		}
	}
	c.wait("the start of an OSD", l, func(done func()) {
		d, err := l.OpenDisk(path, loop.DiskOptions{Buffered: true, NoFlush: true})
		if err != nil {
			fail(err)
			done()
			return
		}
		store.Format(l, d, store.Config{}, func(_ store.Superblock, err error) {
			fail(err)
			store.Open(l, d, store.Options{OnFailure: fail}, func(st *store.Store, err error) {
				fail(err)
				if err == nil {
					_, err = osd.Start(l, osd.Options{
						Num: n, Instance: uint64(n)<<32 | 1, Host: "test", Bind: []loop.Addr{{Network: "tcp", Address: "127.0.0.1:0"}}, Key: c.key, Registry: c.reg.Open(l), Store: st, Fatal: fail, Log: c.log, LeaseTime: 2 * time.Second,
					})
					fail(err)
				}
				done()
			})
		})
	})
}

// create makes an image.
func (c *testCluster) create(name string, size uint64) {
	c.t.Helper()
	c.wait("the creation of "+name, c.admin, func(done func()) {
		var id [16]byte
		copy(id[:], name)
		id[15] = 1
		images.Create(c.client, images.New{Name: name, Size: size, Pool: "p", Identity: id}, func(_ layout.Inode, err error) {
			if err != nil {
				c.t.Error(err)
			}
			done()
		})
	})
}

// started is a gateway under test.
type started struct {
	*gateway.Gateway
	c               *testCluster
	loops           []loop.Runner
	nbd, nfs, iscsi string
	socket          string
}

// gateway starts one with n loops; it is stopped when the test ends.
func (c *testCluster) gateway(name string, n int, instance uint64) *started {
	c.t.Helper()
	g := &started{c: c, socket: filepath.Join(c.dir, name+".sock")}
	v, err := config.Load(config.Sources{Flags: map[string]string{
		"gateway_id": name, "nbd_address": "127.0.0.1:0,unix:" + g.socket, "nfs_address": "127.0.0.1:0", "iscsi_address": "127.0.0.1:0",
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range n {
		g.loops = append(g.loops, c.loop(fmt.Sprintf("%s%d", name, i)))
	}
	g.Gateway, err = gateway.Start(gateway.Options{
		Loops: g.loops, Registry: func(l loop.Loop) registry.Registry { return c.reg.Open(l) }, Key: c.key, Instance: instance, Config: v, Host: name, Version: "test", Log: c.log,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	a := g.Addresses()
	g.nbd, g.nfs, g.iscsi = a.NBD[0], a.NFS[0], a.ISCSI[0]
	c.t.Cleanup(func() {
		stopped := make(chan struct{})
		begun := time.Now()
		g.Stop(func() { close(stopped) })
		<-stopped
		if d := time.Since(begun); d > 10*time.Second {
			c.t.Errorf("stopping took %v", d)
		}
	})
	return g
}

// run runs a program and returns what it prints. A missing one fails the test: without it nothing is proved.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// onEachLoop runs f on both loops of this machine.
func onEachLoop(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range []string{"uring", "portable"} {
		if only := os.Getenv(system.Environment); only != "" && only != "auto" && only != kind {
			continue
		}
		t.Run(kind, func(t *testing.T) { f(t, kind) })
	}
}

// file is how libnfs names a file: what stands before the last slash is the export, and "/" needs one of its own.
func (g *started) file(name string) string {
	host, port, _ := strings.Cut(g.nfs, ":")
	if name != "" {
		name = "/" + name
	}
	return "nfs://" + host + "/" + name + "?nfsport=" + port + "&mountport=" + port
}
