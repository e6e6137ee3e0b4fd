package stand

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Host is where daemons and clients run: an address of the loopback, or a network namespace of its own.
type Host struct {
	t       testing.TB
	Name    string
	Address string
	holder  *Process // whose namespaces the host is; nil on the loopback
	net     *Network
	room    string // what Room mounted, as the host's processes see it
}

// Start starts a program on the host.
func (h *Host) Start(name, path string, args ...string) *Process {
	h.t.Helper()
	if h.holder == nil {
		return Start(h.t, name, path, args...)
	}
	return Start(h.t, name, Tool(h.t, "nsenter"), h.enter(path, args)...)
}

// Run runs a program on the host to its end. A failure fails the test.
func (h *Host) Run(name string, args ...string) string {
	h.t.Helper()
	if h.holder == nil {
		return Run(h.t, name, args...)
	}
	return Run(h.t, "nsenter", h.enter(name, args)...)
}

// Try runs a program on the host to its end, which comes within limit.
func (h *Host) Try(limit time.Duration, name string, args ...string) (string, error) {
	h.t.Helper()
	if h.holder == nil {
		return Try(h.t, limit, name, args...)
	}
	return Try(h.t, limit, "nsenter", h.enter(name, args)...)
}

// enter is the arguments of nsenter, which becomes the program: process and group ids stay.
func (h *Host) enter(name string, args []string) []string {
	path := name
	if filepath.Base(name) == name {
		path = Tool(h.t, name)
	}
	in := []string{"--target", strconv.Itoa(h.holder.Pid()), "--net", "--uts"}
	if h.room != "" {
		in = append(in, "--mount")
	}
	return append(append(in, "--", path), args...)
}

// Dial connects from the host to an address.
func (h *Host) Dial(address string) (c net.Conn, err error) {
	dial := func() error {
		c, err = net.DialTimeout("tcp", address, 5*time.Second)
		return err
	}
	if h.holder == nil {
		err = dial()
	} else if e := within(h.holder.Pid(), dial); e != nil {
		err = e
	}
	return c, err
}
