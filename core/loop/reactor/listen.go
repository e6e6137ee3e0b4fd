package reactor

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

const (
	backlog = 1024
	// acceptBatch is how many connections one listener takes in a turn.
	acceptBatch = 64
	// acceptPause is how long a listener rests when the process or the system has run out of descriptors or memory.
	acceptPause = 100 * time.Millisecond
)

// Listener is a listening socket.
type Listener struct {
	node
	r        *Reactor
	fd       int
	slot     uint32
	family   int
	h        loop.ListenHandler
	addr     loop.Addr
	retry    loop.Timer
	starving bool // said so in the log
	dev, ino uint64
}

// Listen binds and listens.
func (r *Reactor) Listen(a loop.Addr, o loop.ListenOptions, h loop.ListenHandler) (loop.Listener, error) {
	l, err := r.listen(a, o, h)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", a, err)
	}
	return l, nil
}

func (r *Reactor) listen(a loop.Addr, o loop.ListenOptions, h loop.ListenHandler) (*Listener, error) {
	family, sa, err := resolve(a)
	if err != nil {
		return nil, err
	}
	if family == unix.AF_UNIX {
		if o.Share {
			return nil, errors.New("a unix socket cannot be shared between loops")
		}
		if err := removeStale(a.Address); err != nil {
			return nil, err
		}
	}
	fd, err := socket(family)
	if err != nil {
		return nil, err
	}
	l := &Listener{r: r, fd: fd, family: family, h: h}
	if err := l.start(sa, o); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return l, nil
}

func (l *Listener) start(sa unix.Sockaddr, o loop.ListenOptions) error {
	if l.family != unix.AF_UNIX {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if l.family == unix.AF_INET6 {
		// The wildcard address takes IPv4 connections too, whatever the system's default.
		_ = unix.SetsockoptInt(l.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if o.Share {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("share the port: %w", err)
		}
	}
	if err := unix.Bind(l.fd, sa); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("another process listens there; stop it or choose another address: %w", err)
		}
		return err
	}
	if err := unix.Listen(l.fd, backlog); err != nil {
		return err
	}
	l.addr = localAddr(l.fd)
	if l.family == unix.AF_UNIX {
		var st unix.Stat_t
		if err := unix.Stat(l.addr.Address, &st); err != nil {
			return err
		}
		l.dev, l.ino = st.Dev, st.Ino
	}
	l.retry.Fire = l.accept
	var err error
	l.slot, err = l.r.watch(l.fd, l, unix.EPOLLIN)
	return err
}

// removeStale removes the socket file of a listener that is gone: one on which nobody answers.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return errors.New("the path exists and is not a socket; remove it or choose another")
	}
	fd, err := socket(unix.AF_UNIX)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	return fmt.Errorf("another process listens there; stop it or choose another path: %w", unix.EADDRINUSE)
}

// Addr is the bound address.
func (l *Listener) Addr() loop.Addr { return l.addr }

// Close stops listening and removes the socket file if it is still this listener's.
func (l *Listener) Close() {
	if l.fd < 0 {
		return
	}
	l.r.forget(l.slot)
	l.abandon()
	l.r.Disarm(&l.retry)
}

func (l *Listener) abandon() {
	if l.fd < 0 {
		return
	}
	_ = unix.Close(l.fd)
	l.fd = -1
	if l.family == unix.AF_UNIX {
		var st unix.Stat_t
		if unix.Stat(l.addr.Address, &st) == nil && st.Dev == l.dev && st.Ino == l.ino {
			_ = os.Remove(l.addr.Address)
		}
	}
}

func (l *Listener) event(uint32) { l.r.ready.push(l, &l.node, false) }

func (l *Listener) step() { l.accept() }

func (l *Listener) accept() {
	for range acceptBatch {
		if l.fd < 0 {
			return
		}
		fd, sa, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			l.starving = false
			l.take(fd, sa)
		case err == unix.EAGAIN:
			return
		case err == unix.EMFILE, err == unix.ENFILE, err == unix.ENOBUFS, err == unix.ENOMEM:
			if !l.starving {
				l.starving = true
				l.r.log.Warn("cannot accept connections; raise the limit of open files", "listen", l.addr.String(), "err", err)
			}
			l.r.Arm(&l.retry, l.r.now.Add(acceptPause))
			return
		default:
			// The connection ended before it was taken, or the network said something about it (accept(2), "Error handling"): the next one is not concerned.
		}
	}
	l.r.ready.push(l, &l.node, false)
}

func (l *Listener) take(fd int, sa unix.Sockaddr) {
	noDelay(fd, l.family)
	c := &Conn{r: l.r, fd: fd, family: l.family, state: stateOpen, writable: true, local: localAddr(fd), remote: describe(sa)}
	c.lingerTimer.Fire = c.lingered
	slot, err := l.r.watch(fd, c, connMask)
	if err != nil {
		_ = unix.Close(fd)
		l.r.log.Warn("connection refused", "remote", c.remote.String(), "err", err)
		return
	}
	c.slot = slot
	if c.h = l.h.Accepted(c); c.h == nil {
		c.refuse()
	}
}
