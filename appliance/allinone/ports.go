package allinone

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"holdfast/core/admin"
)

// checkAddress refuses an address that cannot be listened on now; flag is the one that changes it.
func checkAddress(flag, address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("--%s: another process serves %s", flag, path), Way: "stop it, or give another path"}
		}
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l.Close()
	}
	e := &admin.Error{Kind: admin.Usage, What: fmt.Sprintf("--%s %s", flag, address), Err: err, Way: "give HOST:PORT with an address of this host"}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.Kind, e.Err = admin.Refused, nil
		e.What = fmt.Sprintf("--%s %s: the port is in use%s", flag, address, holder(address))
		e.Way = fmt.Sprintf("stop that process, or give --%s with another port", flag)
	case errors.Is(err, syscall.EACCES):
		e.Kind, e.Way = admin.Refused, "ports below 1024 need root: give another one"
	}
	return e
}

// holder names the process that listens on the port, as far as this user may see it.
func holder(address string) string {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return ""
	}
	inodes := map[string]bool{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			// sl local_address rem_address st ... uid timeout inode; state 0A is LISTEN (Linux, Documentation/networking/proc_net_tcp.rst)
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			pid := strings.Split(fd, "/")[2]
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf(" by %s (process %s)", strings.TrimSpace(string(comm)), pid)
		}
	}
	return " by another process"
}
