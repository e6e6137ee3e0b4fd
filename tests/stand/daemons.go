package stand

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Plan says what a cluster of separate daemons is made of. Zero values mean the defaults in brackets.
type Plan struct {
	OSDs     int      // each on a host of its own, and a failure domain
	OSDSize  int64    // bytes [512 MiB]
	Meta     int64    // bytes of a file of its own for each OSD's metadata, and its journal unless that has one; 0: none
	Journal  int64    // the same for its journal
	Sparse   bool     // disks are files with holes, which may add up to more than there is space for
	Copies   int      // of the pool [one on each OSD]
	Code     string   // instead of Copies: chunks of data and parity, such as 2+1
	MinSize  int      // copies that must be there for the pool to be served [1]
	PGs      int      // [16]
	Etcds    int      // members, on the first hosts [1]
	Monitors int      // on the first hosts [1]
	Format   []string // more flags of `disk format`
	Pool     []string // more flags of `create-pool`
	OSD      []string // more flags of OSDs
	Gateway  []string // more flags of the gateway
	Monitor  []string // more flags of monitors
	NoGate   bool     // without a gateway
	// Keys are what etcd holds before any of our daemons starts, by name without the prefix: "config/global", "config/node_placement".
	Keys map[string]string
	// Network puts each host, the gateway and the clients into network namespaces of their own, on one switch. Otherwise each host has an address of the loopback.
	Network bool
	// Room, when not 0, is the size of a file system in memory that each OSD's disk lies on. It needs Network.
	Room int64
}

// Daemons is a cluster of separate processes: Debian's etcd, monitors, OSDs and a gateway.
type Daemons struct {
	t     testing.TB
	plan  Plan
	Dir   string
	Net   *Network      // nil on the loopback
	Hosts map[int]*Host // by number of their OSD
	// GateHost and Client are where the gateway and the clients run.
	GateHost, Client *Host
	Etcd             string // addresses, by commas
	NBD              string // address
	NFS              string
	ISCSI            string
	OSDs             map[int]*Process
	Mons             map[int]*Process // by number of the host
	Etcds            map[int]*Process // by number of the host
	Gate             *Process
	ports            []int
	rooms            map[int]string
	fios             int // runs of fio so far
}

// StartDaemons starts a cluster on the loopback with one pool in as many copies as there are OSDs.
func StartDaemons(t testing.TB, osds int, osdSize int64) *Daemons {
	t.Helper()
	return StartPlan(t, Plan{OSDs: osds, OSDSize: osdSize})
}

// StartPlan starts a cluster with one pool and waits until it serves.
func StartPlan(t testing.TB, plan Plan) *Daemons {
	t.Helper()
	plan.OSDSize = cmp.Or(plan.OSDSize, 512<<20)
	plan.Copies = cmp.Or(plan.Copies, plan.OSDs)
	plan.MinSize, plan.PGs, plan.Etcds, plan.Monitors = cmp.Or(plan.MinSize, 1), cmp.Or(plan.PGs, 16), cmp.Or(plan.Etcds, 1), cmp.Or(plan.Monitors, 1)
	d := &Daemons{t: t, plan: plan, Dir: t.TempDir(), Hosts: map[int]*Host{}, OSDs: map[int]*Process{}, Mons: map[int]*Process{}, Etcds: map[int]*Process{}, rooms: map[int]string{}}
	d.ports = FreePorts(t, 5)
	Binary(t)
	d.build()
	d.NBD, d.NFS, d.ISCSI = d.GateHost.at(d.ports[2]), d.GateHost.at(d.ports[3]), d.GateHost.at(d.ports[4])
	var etcds []string
	for i := 1; i <= plan.Etcds; i++ {
		etcds = append(etcds, d.Hosts[i].at(d.ports[0]))
	}
	d.Etcd = strings.Join(etcds, ",")
	for i := 1; i <= plan.Etcds; i++ {
		d.StartEtcd(i)
	}
	d.AwaitEtcd(20 * time.Second)
	for _, name := range slices.Sorted(maps.Keys(plan.Keys)) {
		d.Put(name, plan.Keys[name])
	}
	for i := 1; i <= plan.Monitors; i++ {
		d.StartMonitor(i)
	}
	for n := 1; n <= plan.OSDs; n++ {
		if plan.Sparse {
			d.hole(d.Disk(n), plan.OSDSize)
		}
		for _, file := range []struct {
			path string
			size int64
		}{{d.Disk(n) + ".meta", plan.Meta}, {d.Disk(n) + ".journal", plan.Journal}} {
			if file.size > 0 {
				d.hole(file.path, file.size)
			}
		}
		d.Hosts[n].Run(Binary(t), slices.Concat([]string{"disk", "format", "--size", strconv.FormatInt(plan.OSDSize, 10), d.Disk(n)}, d.Beside(n), plan.Format)...)
		d.StartOSD(n)
	}
	for n := 1; n <= plan.OSDs; n++ {
		d.OSDs[n].Await(UpTime, `the line "up"`, HasLine("up"))
	}
	var out string
	d.await(10*time.Second, "a pool is made", func() (ok bool) {
		if out != "" {
			d.t.Logf("create-pool: %s", out)
		}
		redundancy := []string{"--pg_size", strconv.Itoa(plan.Copies)}
		if plan.Code != "" {
			redundancy = []string{"--ec", plan.Code}
		}
		var err error
		out, err = d.TryCLI(append([]string{"create-pool", "pool", redundancy[0], redundancy[1], "--pg_minsize", strconv.Itoa(plan.MinSize), "--pg_count", strconv.Itoa(plan.PGs),
			"--failure_domain", "osd"}, plan.Pool...)...)
		return err == nil
	})
	d.AwaitActive(30 * time.Second)
	if !plan.NoGate {
		d.StartGateway()
		d.Gate.Await(UpTime, `the line "up"`, HasLine("up"))
	}
	return d
}

// hole makes the file of a disk beforehand: what is there already is taken as it is.
func (d *Daemons) hole(path string, size int64) {
	d.t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// clusters counts those of this process, so that each has addresses of its own.
var clusters atomic.Int32

// build makes the hosts.
func (d *Daemons) build() {
	d.t.Helper()
	if d.plan.Network {
		d.Net = NewNetwork(d.t)
		for n := 1; n <= d.plan.OSDs; n++ {
			d.Hosts[n] = d.Net.Host(fmt.Sprintf("host%d", n))
			if d.plan.Room != 0 {
				d.rooms[n] = d.Hosts[n].Room(d.plan.Room)
			}
		}
		d.GateHost, d.Client = d.Net.Host("gateway"), d.Net.Host("client")
		return
	}
	number := 1 + clusters.Add(1)%250
	loopback := func(last int, name string) *Host {
		// The whole of 127.0.0.0/8 is ours (RFC 1122, section 3.2.1.3).
		return &Host{t: d.t, Name: name, Address: fmt.Sprintf("127.%d.%d.%d", number, 1+os.Getpid()%250, last)}
	}
	for n := 1; n <= max(d.plan.OSDs, d.plan.Etcds, d.plan.Monitors); n++ {
		d.Hosts[n] = loopback(n, fmt.Sprintf("host%d", n))
	}
	d.GateHost, d.Client = loopback(250, "gateway"), loopback(251, "client")
}

// at is an address on the host.
func (h *Host) at(port int) string { return fmt.Sprintf("%s:%d", h.Address, port) }

// StartEtcd starts the etcd member of a host, again if it ran before.
func (d *Daemons) StartEtcd(i int) {
	d.t.Helper()
	var all []string
	for n := 1; n <= d.plan.Etcds; n++ {
		all = append(all, fmt.Sprintf("member%d=http://%s", n, d.Hosts[n].at(d.ports[1])))
	}
	client, peer := "http://"+d.Hosts[i].at(d.ports[0]), "http://"+d.Hosts[i].at(d.ports[1])
	d.Etcds[i] = d.Hosts[i].Start(fmt.Sprintf("etcd %d", i), Tool(d.t, "etcd"), "--name", fmt.Sprintf("member%d", i), "--data-dir", d.etcdDir(i),
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", strings.Join(all, ","),
		"--log-level", "warn", "--pre-vote") // as later versions do: a member that returns does not depose the leader
}

// AwaitEtcd waits until etcd writes.
func (d *Daemons) AwaitEtcd(limit time.Duration) {
	d.t.Helper()
	d.await(limit, "etcd writes", func() bool {
		_, err := d.Etcdctl("put", "holdfast-test", "x")
		return err == nil
	})
}

// Etcdctl runs etcdctl on all members; it may fail.
func (d *Daemons) Etcdctl(args ...string) (string, error) {
	d.t.Helper()
	all := "http://" + strings.ReplaceAll(d.Etcd, ",", ",http://")
	return d.Client.Try(5*time.Second, "etcdctl", append([]string{"--endpoints", all}, args...)...)
}

// prefix is what all keys of the cluster begin with.
const prefix = "/vitastor/"

// Put writes a key, given without the prefix, as an operator with etcdctl would.
func (d *Daemons) Put(name, value string) {
	d.t.Helper()
	if out, err := d.Etcdctl("put", prefix+name, value); err != nil {
		d.t.Fatalf("put %s: %v\n%s", name, err, out)
	}
}

// Delete removes a key, given without the prefix.
func (d *Daemons) Delete(name string) {
	d.t.Helper()
	if out, err := d.Etcdctl("del", prefix+name); err != nil {
		d.t.Fatalf("delete %s: %v\n%s", name, err, out)
	}
}

// EtcdLeader is the host of etcd's leader.
func (d *Daemons) EtcdLeader() (leader int) {
	d.t.Helper()
	d.await(20*time.Second, "etcd has a leader", func() bool {
		for i := 1; i <= d.plan.Etcds; i++ {
			out, err := d.Client.Try(5*time.Second, "etcdctl", "--endpoints", "http://"+d.Hosts[i].at(d.ports[0]), "endpoint", "status", "--write-out", "json")
			var all []struct {
				Status struct {
					Header struct {
						Member uint64 `json:"member_id"`
					} `json:"header"`
					Leader uint64 `json:"leader"`
				}
			}
			if err == nil && json.Unmarshal([]byte(out), &all) == nil && len(all) == 1 && all[0].Status.Leader != 0 && all[0].Status.Leader == all[0].Status.Header.Member {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// StartMonitor starts the monitor of a host.
func (d *Daemons) StartMonitor(i int) {
	d.t.Helper()
	d.Mons[i] = d.Hosts[i].Start(fmt.Sprintf("monitor %d", i), Binary(d.t), append([]string{"mon", "--etcd_address", d.Etcd, "--etcd_snapshot_dir", d.Snapshots(i)}, d.plan.Monitor...)...)
}

// Snapshots is the folder into which the monitor of a host writes what is in etcd.
func (d *Daemons) Snapshots(i int) string {
	return filepath.Join(d.Dir, fmt.Sprintf("snapshots.%d", i))
}

// WipeEtcd kills every member of etcd, removes what they held, and starts empty ones in their place.
func (d *Daemons) WipeEtcd() {
	d.t.Helper()
	for i, p := range d.Etcds {
		p.Kill()
		if err := os.RemoveAll(d.etcdDir(i)); err != nil {
			d.t.Fatal(err)
		}
	}
	for i := 1; i <= d.plan.Etcds; i++ {
		d.StartEtcd(i)
	}
	d.AwaitEtcd(20 * time.Second)
}

func (d *Daemons) etcdDir(i int) string { return filepath.Join(d.Dir, fmt.Sprintf("etcd.%d", i)) }

// StartGateway starts the gateway.
func (d *Daemons) StartGateway() {
	d.t.Helper()
	allow := d.GateHost.Address + "/16"
	d.Gate = d.GateHost.Start("gateway", Binary(d.t), append([]string{"gateway", "--etcd_address", d.Etcd, "--nbd_address", d.NBD, "--nfs_address", d.NFS, "--iscsi_address", d.ISCSI,
		"--nbd_allow", allow + ",127.0.0.0/8", "--nfs_allow", allow + ",127.0.0.0/8", "--iscsi_allow", allow + ",127.0.0.0/8"}, d.plan.Gateway...)...)
}

// AwaitGateway waits until the gateway serves an image.
func (d *Daemons) AwaitGateway(limit time.Duration, image string) {
	d.t.Helper()
	d.await(limit, "the gateway serves", func() bool {
		c, err := d.Dial(image)()
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (d *Daemons) await(limit time.Duration, what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Disk is the path of an OSD's disk.
func (d *Daemons) Disk(n int) string {
	return filepath.Join(cmp.Or(d.rooms[n], d.Dir), fmt.Sprintf("osd.%d", n))
}

// Beside are the flags that name what an OSD has besides its disk.
func (d *Daemons) Beside(n int) (flags []string) {
	if d.plan.Meta > 0 {
		flags = append(flags, "--meta_device", d.Disk(n)+".meta")
	}
	if d.plan.Journal > 0 {
		flags = append(flags, "--journal_device", d.Disk(n)+".journal")
	}
	return flags
}

// StartOSD starts an OSD on its disk.
func (d *Daemons) StartOSD(n int) {
	d.t.Helper()
	d.OSDs[n] = d.Hosts[n].Start(fmt.Sprintf("OSD %d", n), Binary(d.t), slices.Concat([]string{"osd", "--osd_num", strconv.Itoa(n), "--data_device", d.Disk(n), "--etcd_address", d.Etcd,
		"--bind_address", d.Hosts[n].Address}, d.Beside(n), d.plan.OSD)...)
}

// Child is the id of the process that is the OSD itself, whose parent is OSDs[n]. It is waited for: a parent lets a child that died often wait.
func (d *Daemons) Child(n int) (child int) {
	d.t.Helper()
	pid := d.OSDs[n].Pid()
	d.await(time.Minute, fmt.Sprintf("OSD %d (process %d) has a child", n, pid), func() bool {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // a child belongs to the thread that made it
		for _, l := range lists {
			text, _ := os.ReadFile(l)
			if n, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil {
				child = n
				return true
			}
		}
		return false
	})
	return child
}

// PauseOSD stops an OSD and its parent as SIGSTOP does, until ResumeOSD.
func (d *Daemons) PauseOSD(n int) { d.t.Helper(); d.signalOSD(n, syscall.SIGSTOP) }

// ResumeOSD lets both go on.
func (d *Daemons) ResumeOSD(n int) { d.t.Helper(); d.signalOSD(n, syscall.SIGCONT) }

// signalOSD signals both processes; each is in a group of its own.
func (d *Daemons) signalOSD(n int, s syscall.Signal) {
	d.t.Helper()
	for _, pid := range []int{d.OSDs[n].Pid(), d.Child(n)} {
		if err := syscall.Kill(pid, s); err != nil {
			d.t.Fatalf("signal OSD %d (process %d): %v", n, pid, err)
		}
	}
}

// KillChild kills the process that is the OSD itself; its parent tells the others and starts it again.
func (d *Daemons) KillChild(n int) {
	d.t.Helper()
	if err := syscall.Kill(d.Child(n), syscall.SIGKILL); err != nil {
		d.t.Fatalf("kill OSD %d: %v", n, err)
	}
}

// CLI runs a command of the program on this cluster.
func (d *Daemons) CLI(args ...string) string {
	d.t.Helper()
	return d.Client.Run(Binary(d.t), append(args, "--etcd_address", d.Etcd)...)
}

// TryCLI runs a command that may fail.
func (d *Daemons) TryCLI(args ...string) (string, error) {
	d.t.Helper()
	return d.Client.Try(time.Minute, Binary(d.t), append(args, "--etcd_address", d.Etcd)...)
}

// Dial connects to an image over NBD.
func (d *Daemons) Dial(image string) func() (*NBD, error) {
	return func() (*NBD, error) {
		c, err := d.Client.Dial(d.NBD)
		if err != nil {
			return nil, err
		}
		return OpenNBD(c, image)
	}
}

// AwaitActive waits until every PG is active and nothing else.
func (d *Daemons) AwaitActive(limit time.Duration) {
	d.t.Helper()
	awaitActive(d.t, limit, func() (string, error) { return d.TryCLI("pg-list", "--json") })
}

func awaitActive(t testing.TB, limit time.Duration, list func() (string, error)) {
	t.Helper()
	var out string
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		var err error
		out, err = list()
		var pgs []struct {
			Num      int      `json:"pg_num"`
			State    []string `json:"state"`
			Primary  int      `json:"primary"`
			Peers    []int    `json:"peers"`
			Interval int      `json:"interval"`
			Objects  int      `json:"object_count"`
			Degraded int      `json:"degraded_count"`
		}
		if err == nil {
			if err = json.Unmarshal([]byte(out), &pgs); err != nil {
				t.Fatalf("pg-list --json: %v\n%s", err, out)
			}
			active := 0
			out = fmt.Sprintf("%d PGs in all", len(pgs))
			for _, pg := range pgs {
				if slices.Equal(pg.State, []string{"active"}) || slices.Equal(pg.State, []string{"active", "left_on_dead"}) {
					active++
				} else {
					out += fmt.Sprintf("\n%+v", pg)
				}
			}
			if active == len(pgs) && active > 0 {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("not all PGs are active within %v (%v):\n%s", limit, err, out)
		}
	}
}
