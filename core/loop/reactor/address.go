package reactor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

// resolve turns an address into what the kernel takes. Names are not looked up: that would block.
func resolve(a loop.Addr) (family int, sa unix.Sockaddr, err error) {
	switch a.Network {
	case "unix":
		if a.Address == "" || len(a.Address) > 107 { // sun_path with its final zero, unix(7)
			return 0, nil, fmt.Errorf("a socket path has 1 to 107 bytes, not %d", len(a.Address))
		}
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: a.Address}, nil
	case "tcp":
	default:
		return 0, nil, fmt.Errorf("unknown network %q; use tcp or unix", a.Network)
	}
	host, portText, err := net.SplitHostPort(a.Address)
	if err != nil {
		return 0, nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return 0, nil, fmt.Errorf("port %q is not a number up to 65535", portText)
	}
	if host == "" {
		host = "::"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return 0, nil, fmt.Errorf("%q is not an IPv4 or IPv6 address; names are not looked up here", host)
	}
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}, nil
	}
	sa6 := &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		ifc, err := net.InterfaceByName(zone)
		if err != nil {
			return 0, nil, fmt.Errorf("zone %q: %w", zone, err)
		}
		sa6.ZoneId = uint32(ifc.Index)
	}
	return unix.AF_INET6, sa6, nil
}

// describe is the reverse of resolve.
func describe(sa unix.Sockaddr) loop.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return loop.Addr{Network: "tcp", Address: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()}
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && ip.Is6() {
			ip = ip.WithZone(zoneName(sa.ZoneId))
		}
		return loop.Addr{Network: "tcp", Address: netip.AddrPortFrom(ip, uint16(sa.Port)).String()}
	case *unix.SockaddrUnix:
		return loop.Addr{Network: "unix", Address: sa.Name}
	}
	return loop.Addr{}
}

func zoneName(index uint32) string {
	if ifc, err := net.InterfaceByIndex(int(index)); err == nil {
		return ifc.Name
	}
	return strconv.Itoa(int(index))
}

func localAddr(fd int) loop.Addr {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return loop.Addr{}
	}
	return describe(sa)
}

func remoteAddr(fd int) loop.Addr {
	sa, err := unix.Getpeername(fd)
	if err != nil {
		return loop.Addr{}
	}
	return describe(sa)
}

// socket makes a non-blocking stream socket.
func socket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	return fd, nil
}

func noDelay(fd, family int) {
	if family != unix.AF_UNIX {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // it cannot fail on a TCP socket
	}
}

var errOrderly = errors.New("orderly end")
