package stand

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Up is a `holdfast up`: a whole cluster in one process.
type Up struct {
	*Process
	t                     testing.TB
	Dir                   string
	NBD, NFS, ISCSI, Etcd string // addresses, host:port
	args                  []string
	Target                string // prefix of iSCSI target names, without the colon
}

// UpTime bounds a start.
const UpTime = 60 * time.Second

// FreePorts finds ports of the loopback that nobody listens on. They are below the range from which the kernel gives ports to clients, so that none of these takes one.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for p := 20000 + int(time.Now().UnixNano()/1000%10000); len(ports) < n; p++ {
		if p >= 32000 {
			p = 20000
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p)); err == nil {
			held = append(held, l)
			ports = append(ports, p)
		}
	}
	return ports
}

// StartUp makes a cluster in a new folder and waits until it serves.
func StartUp(t testing.TB, args ...string) *Up {
	t.Helper()
	u := NewUp(t, args...)
	u.Start()
	return u
}

// NewUp prepares a cluster without starting it.
func NewUp(t testing.TB, args ...string) *Up {
	t.Helper()
	ports := FreePorts(t, 4)
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	return &Up{t: t, Dir: filepath.Join(t.TempDir(), "cluster"), NBD: at(0), NFS: at(1), ISCSI: at(2), Etcd: at(3), args: args, Target: "iqn.2026-11.local.holdfast"}
}

// Launch starts the process and does not wait.
func (u *Up) Launch() {
	u.t.Helper()
	args := append([]string{"up", "--dir", u.Dir, "--nbd", u.NBD, "--nfs", u.NFS, "--iscsi", u.ISCSI, "--etcd", u.Etcd}, u.args...)
	u.t.Cleanup(func() {
		if u.t.Failed() {
			u.t.Logf("the log ends with:\n%s", u.tail())
		}
	})
	u.Process = Start(u.t, "holdfast up", Binary(u.t), args...)
}

func (u *Up) tail() string {
	lines := strings.Split(strings.TrimSpace(u.Log()), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// Start starts the cluster, again if it has been before, and waits until it serves.
func (u *Up) Start() {
	u.t.Helper()
	began := time.Now()
	u.Launch()
	u.Await(UpTime, `the line "up"`, HasLine("up"))
	if d := time.Since(began); d > 5*time.Second {
		u.t.Logf("the start took %v", d.Round(time.Millisecond))
	}
}

// With sets the arguments of the next start beside the addresses.
func (u *Up) With(args ...string) { u.args = args }

// NBDURI is an image's address for NBD clients.
func (u *Up) NBDURI(image string) string { return "nbd://" + u.NBD + "/" + image }

// NFSURI is an image's address for libnfs.
func (u *Up) NFSURI(image string) string {
	host, port, _ := strings.Cut(u.NFS, ":")
	return fmt.Sprintf("nfs://%s//%s?nfsport=%s&mountport=%s&version=3", host, image, port, port)
}

// ISCSIURI is an image's address for libiscsi.
func (u *Up) ISCSIURI(image string) string {
	return fmt.Sprintf("iscsi://%s/%s:%s/0", u.ISCSI, u.Target, image)
}

// Dial connects to an image over NBD.
func (u *Up) Dial(image string) func() (*NBD, error) {
	return func() (*NBD, error) { return DialNBD(u.NBD, image) }
}

// Config is the path of the cluster's configuration file.
func (u *Up) Config() string { return filepath.Join(u.Dir, "holdfast.conf") }

// Log is what the cluster's parts have written into its log file.
func (u *Up) Log() string {
	u.t.Helper()
	text, err := os.ReadFile(filepath.Join(u.Dir, "holdfast.log"))
	if err != nil && !os.IsNotExist(err) {
		u.t.Fatal(err)
	}
	return string(text)
}

// CLI runs a command of the program on this cluster.
func (u *Up) CLI(args ...string) string {
	u.t.Helper()
	return Run(u.t, Binary(u.t), append(args, "--config", u.Config())...)
}

// TryCLI runs a command that may fail.
func (u *Up) TryCLI(args ...string) (string, error) {
	u.t.Helper()
	return Try(u.t, time.Minute, Binary(u.t), append(args, "--config", u.Config())...)
}

// Etcdctl runs etcdctl on the embedded etcd.
func (u *Up) Etcdctl(args ...string) string {
	u.t.Helper()
	return Run(u.t, "etcdctl", append([]string{"--endpoints", "http://" + u.Etcd}, args...)...)
}

// Create makes an image.
func (u *Up) Create(image, size string) {
	u.t.Helper()
	u.CLI("create", image, "--size", size)
}

// AwaitActive waits until every PG of the cluster is active and nothing else, as the command line tells.
func (u *Up) AwaitActive(limit time.Duration) {
	u.t.Helper()
	awaitActive(u.t, limit, func() (string, error) { return u.TryCLI("pg-list", "--json") })
}
