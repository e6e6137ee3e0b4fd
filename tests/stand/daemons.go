package stand

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Daemons is a cluster of separate processes: Debian's etcd, a monitor, OSDs and a gateway.
type Daemons struct {
	t         testing.TB
	Dir       string
	Etcd      string // address
	NBD       string // address
	NFS       string
	ISCSI     string
	OSDs      map[int]*Process
	Mon, Gate *Process
	EtcdProc  *Process
}

// StartDaemons starts a cluster with one pool in as many copies as there are OSDs, each in a failure domain of its own.
func StartDaemons(t testing.TB, osds int, osdSize int64) *Daemons {
	t.Helper()
	ports := FreePorts(t, 5)
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	d := &Daemons{t: t, Dir: t.TempDir(), Etcd: at(0), NBD: at(2), NFS: at(3), ISCSI: at(4), OSDs: map[int]*Process{}}
	Binary(t)
	d.EtcdProc = Start(t, "etcd", Tool(t, "etcd"), "--data-dir", filepath.Join(d.Dir, "etcd"), "--listen-client-urls", "http://"+d.Etcd, "--advertise-client-urls", "http://"+d.Etcd,
		"--listen-peer-urls", "http://"+at(1), "--initial-advertise-peer-urls", "http://"+at(1), "--initial-cluster", "default=http://"+at(1), "--log-level", "warn")
	d.await(20*time.Second, "etcd answers", func() bool {
		_, err := Try(t, 5*time.Second, "etcdctl", "--endpoints", "http://"+d.Etcd, "get", "x")
		return err == nil
	})
	d.Mon = Start(t, "holdfast mon", Binary(t), "mon", "--etcd_address", d.Etcd, "--etcd_mon_ttl", "5")
	for n := 1; n <= osds; n++ {
		Run(t, Binary(t), "disk", "format", "--size", strconv.FormatInt(osdSize, 10), d.Disk(n))
		d.StartOSD(n)
	}
	for n := range d.OSDs {
		d.OSDs[n].Await(UpTime, `the line "up"`, HasLine("up"))
	}
	d.CLI("create-pool", "pool", "--pg_size", strconv.Itoa(osds), "--pg_minsize", "1", "--pg_count", "16", "--failure_domain", "osd")
	d.AwaitActive(30 * time.Second)
	d.Gate = Start(t, "holdfast gateway", Binary(t), "gateway", "--etcd_address", d.Etcd, "--nbd_address", d.NBD, "--nfs_address", d.NFS, "--iscsi_address", d.ISCSI)
	d.Gate.Await(UpTime, `the line "up"`, HasLine("up"))
	return d
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
func (d *Daemons) Disk(n int) string { return filepath.Join(d.Dir, fmt.Sprintf("osd.%d", n)) }

// StartOSD starts an OSD on its disk.
func (d *Daemons) StartOSD(n int) {
	d.t.Helper()
	d.OSDs[n] = Start(d.t, fmt.Sprintf("OSD %d", n), Binary(d.t), "osd", "--osd_num", strconv.Itoa(n), "--data_device", d.Disk(n), "--etcd_address", d.Etcd, "--bind_address", "127.0.0.1")
}

// Child is the id of the process that is the OSD itself, whose parent is OSDs[n].
func (d *Daemons) Child(n int) int {
	d.t.Helper()
	pid := d.OSDs[n].Pid()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists { // a child belongs to the thread that made it
		if more, e := os.ReadFile(l); e == nil && len(bytes.TrimSpace(text)) == 0 {
			text, err = more, nil
		}
	}
	child, e := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || e != nil {
		d.t.Fatalf("OSD %d (process %d) has no child: %q, %v", n, pid, text, err)
	}
	return child
}

// CLI runs a command of the program on this cluster.
func (d *Daemons) CLI(args ...string) string {
	d.t.Helper()
	return Run(d.t, Binary(d.t), append(args, "--etcd_address", d.Etcd)...)
}

// TryCLI runs a command that may fail.
func (d *Daemons) TryCLI(args ...string) (string, error) {
	d.t.Helper()
	return Try(d.t, time.Minute, Binary(d.t), append(args, "--etcd_address", d.Etcd)...)
}

// Dial connects to an image over NBD.
func (d *Daemons) Dial(image string) func() (*NBD, error) {
	return func() (*NBD, error) { return DialNBD(d.NBD, image) }
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
				if slices.Equal(pg.State, []string{"active"}) {
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
