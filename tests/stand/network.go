package stand

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is a switch with hosts on it, each in a network namespace of its own, whose links can be cut.
//
// A namespace here has no name: it is that of a process that only sleeps. It goes with its processes, so nothing is left when a test is killed, and tests may run side by side with
// the same addresses.
type Network struct {
	t     testing.TB
	sw    *Process
	hosts []*Host
}

// NewNetwork makes a switch.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root: run the tests as root")
	}
	n := &Network{t: t, sw: hold(t, "switch")}
	n.do("ip", "link", "add", "switch", "type", "bridge")
	n.do("ip", "link", "set", "switch", "up")
	return n
}

// hold starts a process in namespaces of its own that only sleeps.
func hold(t testing.TB, name string) *Process {
	t.Helper()
	cmd := exec.Command(Tool(t, "sleep"), "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS, Unshareflags: syscall.CLONE_NEWNS}
	return start(t, name, cmd)
}

func (n *Network) do(name string, args ...string) {
	n.t.Helper()
	Run(n.t, "nsenter", append([]string{"--target", strconv.Itoa(n.sw.Pid()), "--net", "--", Tool(n.t, name)}, args...)...)
}

// subnet is where the hosts' addresses are. It is seen in the namespaces only.
const subnet = "10.77.0."

// Host adds a host.
func (n *Network) Host(name string) *Host {
	n.t.Helper()
	h := &Host{t: n.t, Name: name, Address: subnet + strconv.Itoa(len(n.hosts)+1), holder: hold(n.t, name), net: n}
	n.hosts = append(n.hosts, h)
	h.Run("sh", "-c", `echo "$0" >/proc/sys/kernel/hostname`, strings.ReplaceAll(name, " ", "-")) // daemons tell hosts apart by their names
	n.do("ip", "link", "add", h.port(), "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(h.holder.Pid()))
	n.do("ip", "link", "set", h.port(), "master", "switch", "up")
	h.Run("ip", "address", "add", h.Address+"/24", "dev", "eth0")
	h.Run("ip", "link", "set", "eth0", "up")
	h.Run("ip", "link", "set", "lo", "up")
	return h
}

// Room gives the host a file system in memory with room for n bytes, and says where its processes see it.
func (h *Host) Room(n int64) string {
	h.t.Helper()
	dir := filepath.Join(h.t.TempDir(), h.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	h.room = dir
	h.Run("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", n), h.Name, dir)
	return dir
}

// port is the host's port on the switch.
func (h *Host) port() string { return "port" + h.Address[strings.LastIndexByte(h.Address, '.')+1:] }

// Unplug takes the host's link down at the switch.
func (h *Host) Unplug() { h.t.Helper(); h.net.do("ip", "link", "set", h.port(), "down") }

// Plug takes it up again.
func (h *Host) Plug() { h.t.Helper(); h.net.do("ip", "link", "set", h.port(), "up") }

// Mute drops what the host sends, to those hosts or to all, on the switch: the host does not notice.
func (h *Host) Mute(to ...*Host) { h.t.Helper(); h.drop("ingress", "daddr", to) }

// Deafen drops what is sent to the host, by those hosts or by all.
func (h *Host) Deafen(from ...*Host) { h.t.Helper(); h.drop("egress", "saddr", from) }

// Part cuts the link between two hosts in both directions.
func (h *Host) Part(other *Host) {
	h.t.Helper()
	h.Mute(other)
	h.Deafen(other)
}

func (h *Host) drop(hook, match string, others []*Host) {
	h.t.Helper()
	var rules string
	for _, o := range others {
		rules += fmt.Sprintf("ip %s %s drop; ", match, o.Address)
	}
	if rules == "" {
		rules = "drop;"
	}
	h.net.do("nft", fmt.Sprintf("table netdev cut { chain %s-%s { type filter hook %s device %q priority 0; %s }; }", h.port(), hook, hook, h.port(), rules))
}

// Heal undoes every cut.
func (n *Network) Heal() {
	n.t.Helper()
	n.do("nft", "flush", "ruleset")
	for _, h := range n.hosts {
		h.Plug()
	}
}

// within runs f in the network namespace of a process. f must do its system calls itself, not in other goroutines.
func within(pid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread keeps its namespace if the way back fails: then it ends with this goroutine, which stays locked to it.
		runtime.LockOSThread()
		done <- func() error {
			home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(home)
			there, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(there)
			if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the network namespace of process %d: %w", pid, err)
			}
			err = f()
			if e := unix.Setns(home, unix.CLONE_NEWNET); e != nil {
				return errors.Join(err, fmt.Errorf("leave the network namespace of process %d: %w", pid, e))
			}
			runtime.UnlockOSThread()
			return err
		}()
	}()
	return <-done
}
