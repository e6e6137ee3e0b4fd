package looptest

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/core/loop"
)

func closeAfterSend(g *rig) {
	e := g.end()
	c := g.serve(e)
	want := random(6 << 20)
	g.do(func() {
		e.conn.Send(want)
		e.conn.CloseAfterSend()
		e.conn.Send([]byte("not this"))
		if e.closes != 0 {
			g.Error("Closed was called inside CloseAfterSend")
		}
	})
	got, err := io.ReadAll(c)
	if err != nil {
		g.Fatal(err)
	}
	g.same(got, want)
	c.Close()
	e.closed.wait()
	if e.err != nil {
		g.Errorf("Closed(%v), want nil", e.err)
	}
}

// closeAfterSendTalkingPeer: bytes that the peer has sent and nobody reads must not destroy the last words.
func closeAfterSendTalkingPeer(g *rig) {
	e := g.end()
	c := g.serve(e)
	g.do(func() { e.conn.Pause() })
	if _, err := c.Write(random(50000)); err != nil {
		g.Fatal(err)
	}
	g.do(func() {
		e.conn.Send([]byte("go away"))
		e.conn.CloseAfterSend()
	})
	got, err := io.ReadAll(c)
	if err != nil {
		g.Fatalf("read %q, then %v", got, err)
	}
	g.same(got, []byte("go away"))
	c.Close()
	e.closed.wait()
}

// bound is a socket that has an address, which nobody else can take then, and does not listen there.
func (g *rig) bound() (fd int, a loop.Addr) {
	g.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		g.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		g.Fatal(err)
	}
	return fd, loop.Addr{Network: "tcp", Address: (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}).String()}
}

func refusedDial(g *rig) {
	_, free := g.bound()
	for _, a := range []loop.Addr{free, {Network: "unix", Address: filepath.Join(g.TempDir(), "none")}} {
		e := g.end()
		g.do(func() {
			c := g.Dial(a, e)
			c.Send([]byte("lost"))
			if e.closes != 0 {
				g.Error("Closed was called inside Dial")
			}
		})
		e.closed.wait()
		if e.opens != 0 || e.err == nil || !strings.Contains(e.err.Error(), a.Address) {
			g.Errorf("dial %v: opened %d times, Closed(%v); want an error that names the address", a, e.opens, e.err)
		}
		if !errors.Is(e.err, unix.ECONNREFUSED) && !errors.Is(e.err, unix.ENOENT) {
			g.Errorf("dial %v: %v hides the cause", a, e.err)
		}
	}
}

func badAddresses(g *rig) {
	for _, a := range []loop.Addr{{}, {Network: "udp", Address: "127.0.0.1:1"}, {Network: "tcp", Address: "127.0.0.1"}, {Network: "tcp", Address: "127.0.0.1:x"},
		{Network: "tcp", Address: "nowhere.example:1"}, {Network: "tcp", Address: "[::1]:65536"}, {Network: "unix"}, {Network: "unix", Address: strings.Repeat("x", 200)}} {
		e := g.end()
		g.do(func() { g.Dial(a, e) })
		e.closed.wait()
		if e.err == nil || e.opens > 0 {
			g.Errorf("dial %v: no error", a)
		}
		g.do(func() {
			if l, err := g.Listen(a, loop.ListenOptions{}, accepter(nil)); err == nil {
				g.Errorf("listen on %v: no error", a)
				l.Close()
			}
		})
	}
}

func closeWhileDialling(g *rig) {
	// A listener whose queue is full does not answer further connections.
	fd, a := g.bound()
	if err := unix.Listen(fd, 0); err != nil {
		g.Fatal(err)
	}
	ends := []*end{g.end(), g.end(), g.end(), g.end(), g.end()}
	var conns []loop.Conn
	g.do(func() {
		for _, e := range ends {
			conns = append(conns, g.Dial(a, e))
		}
	})
	ends[0].opened.wait()
	g.do(func() {
		waiting := 0
		for i, e := range ends {
			if e.opens == 0 {
				waiting++
			}
			conns[i].Close()
			conns[i].Close()
			if e.closes != 0 {
				g.Error("Closed was called inside Close")
			}
		}
		if waiting == 0 {
			g.Logf("every dial was answered; nothing waited")
		}
	})
	for _, e := range ends {
		e.closed.wait()
		if e.err != nil {
			g.Errorf("Closed(%v) after our own Close", e.err)
		}
	}
}

func reset(g *rig, c net.Conn) {
	g.Helper()
	if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
		g.Fatal(err)
	}
}

func peerReset(g *rig) {
	for _, paused := range []bool{false, true} {
		e := g.end()
		c := g.serve(e)
		g.do(func() {
			if paused {
				e.conn.Pause()
			}
		})
		reset(g, c)
		e.closed.wait()
		if !errors.Is(e.err, unix.ECONNRESET) {
			g.Errorf("paused %v: Closed(%v), want %v", paused, e.err, unix.ECONNRESET)
		}
	}
}

func peerClosesWithBytesQueued(g *rig) {
	e := g.end()
	c := g.serve(e)
	g.do(func() {
		e.conn.Send(random(8 << 20))
		e.conn.Fill(make([]byte, 100))
	})
	g.readAll(c, 1000)
	c.Close()
	e.closed.wait()
	g.do(func() {
		if e.conn.Queued() != 0 {
			g.Errorf("%d bytes queued on a closed connection", e.conn.Queued())
		}
		e.conn.Send([]byte("x")) // harmless on a closed connection, like all of these
		b := g.Alloc(10)
		e.conn.SendRef(b, 0, 10)
		b.Release()
		e.conn.Fill(make([]byte, 1))
		e.conn.Pause()
		e.conn.Resume()
		e.conn.SetKeepAlive(time.Second, time.Second, 3)
		e.conn.LastAck()
		e.conn.CloseAfterSend()
		e.conn.Close()
	})
}

func replyAfterShutdown(g *rig) {
	e := g.end()
	echoer(g, e)
	c := g.serve(e)
	want := random(1 << 20)
	go func() {
		if _, err := c.Write(want); err != nil {
			g.Error(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			g.Error(err)
		}
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		g.Fatal(err)
	}
	g.same(got, want)
	e.closed.wait()
	if e.err != nil {
		g.Errorf("Closed(%v) after an orderly end", e.err)
	}
}

func closeTellsOnce(g *rig) {
	e := g.end()
	e.received = func(c loop.Conn, p []byte) int {
		c.Send(p)
		c.Close()
		c.Close()
		if e.closes != 0 {
			g.Error("Closed was called inside Close")
		}
		return 1
	}
	c := g.serve(e)
	if _, err := c.Write([]byte("hello")); err != nil {
		g.Fatal(err)
	}
	e.closed.wait()
	if e.err != nil {
		g.Errorf("Closed(%v) after our own Close", e.err)
	}
	if got, _ := io.ReadAll(c); len(got) > 0 {
		g.Errorf("the peer got %q though queued bytes are dropped", got)
	}
}

func refusedConnection(g *rig) {
	l := g.listen(tcp, func(loop.Conn) loop.ConnHandler { return nil })
	c := g.outside(l.Addr())
	if n, err := c.Read(make([]byte, 1)); err == nil {
		g.Errorf("read %d bytes from a refused connection", n)
	}
}

func sharedListen(g *rig) {
	other := newRig(g.T, g.fresh)
	var addr loop.Addr
	counts := [2]int{}
	for i, r := range []*rig{g, other} {
		r.do(func() {
			a := tcp
			if i == 1 {
				a = addr
			}
			l, err := r.Listen(a, loop.ListenOptions{Share: true}, accepter(func(loop.Conn) loop.ConnHandler {
				counts[i]++
				return r.end()
			}))
			if err != nil {
				r.Errorf("listen %d: %v", i, err)
				return
			}
			addr = l.Addr()
		})
	}
	const n = 64
	for range n {
		g.outside(addr)
	}
	seen := func(r *rig, i int) (k int) {
		r.do(func() { k = counts[i] })
		return k
	}
	for deadline := time.Now().Add(patience); seen(g, 0)+seen(other, 1) < n; {
		if time.Now().After(deadline) {
			g.Fatalf("%d and %d of %d connections were accepted", seen(g, 0), seen(other, 1), n)
		}
	}
	if a, b := seen(g, 0), seen(other, 1); a == 0 || b == 0 {
		g.Errorf("the loops got %d and %d connections, want some each", a, b)
	}
}

func portInUse(g *rig) {
	l := g.listen(tcp, func(loop.Conn) loop.ConnHandler { return nil })
	g.do(func() {
		_, err := g.Listen(l.Addr(), loop.ListenOptions{}, accepter(nil))
		if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().Address) {
			g.Errorf("second Listen: %v; want %v with the address", err, unix.EADDRINUSE)
		}
		l.Close()
		l.Close()
		again, err := g.Listen(l.Addr(), loop.ListenOptions{}, accepter(nil))
		if err != nil {
			g.Errorf("Listen after Close: %v", err)
			return
		}
		again.Close()
	})
}

func unixSocketFiles(g *rig) {
	path := filepath.Join(g.TempDir(), "socket")
	a := loop.Addr{Network: "unix", Address: path}
	none := accepter(func(loop.Conn) loop.ConnHandler { return nil })
	l := g.listen(a, none)
	g.do(func() {
		if _, err := g.Listen(a, loop.ListenOptions{}, none); !errors.Is(err, unix.EADDRINUSE) {
			g.Errorf("Listen on a path with a living listener: %v, want %v", err, unix.EADDRINUSE)
		}
		l.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			g.Errorf("after Close the socket file is still there: %v", err)
		}
	})
	// A file that its process left behind.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		g.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l = g.listen(a, none)
	g.do(l.Close)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		g.Fatal(err)
	}
	g.do(func() {
		if _, err := g.Listen(a, loop.ListenOptions{}, none); err == nil {
			g.Error("Listen replaced a regular file")
		}
	})
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		g.Errorf("the file now holds %q", b)
	}
}

func keepAlive(g *rig) {
	e := g.end()
	c := g.serve(e)
	g.do(func() {
		e.conn.SetKeepAlive(3*time.Second, time.Second, 2)
		e.conn.Send([]byte("x"))
	})
	g.readAll(c, 1)
	g.do(func() {
		if age := g.Now().Sub(e.conn.LastAck()); age < 0 || age > patience {
			g.Errorf("LastAck is %v ago", age)
		}
	})
}

// outOfDescriptors: a listener that cannot accept neither dies nor spins, and goes on when it can again.
func outOfDescriptors(g *rig) {
	if g.Kind() == "sim" {
		g.Skip("the simulator has no descriptors")
	}
	e := g.end()
	l := g.listen(tcp, func(c loop.Conn) loop.ConnHandler { e.conn = c; e.opened.fire(); return e })
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		g.Fatal(err)
	}
	defer unix.Close(fd)
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		g.Fatal(err)
	}
	low := lim
	low.Cur = uint64(lowestFree(g))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		g.Skip(err)
	}
	port := l.Addr().Address[strings.LastIndexByte(l.Addr().Address, ':')+1:]
	var n int
	for _, d := range port {
		n = n*10 + int(d-'0')
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: n})
	turns := g.turnsIn(20 * time.Millisecond)
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); e != nil {
		g.Fatal(e)
	}
	if err != nil {
		g.Fatal(err)
	}
	if turns > 200 {
		g.Errorf("the loop made %d turns in 20 ms while it could not accept", turns)
	}
	e.opened.wait()
}

// lowestFree is a descriptor number at and above which nothing is open.
func lowestFree(g *rig) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		g.Skip(err)
	}
	top := 0
	for _, e := range entries {
		n := 0
		for _, d := range e.Name() {
			n = n*10 + int(d-'0')
		}
		top = max(top, n)
	}
	// Fill the holes, so that the limit bites.
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			g.Fatal(err)
		}
		g.Cleanup(func() { unix.Close(fd) })
		if fd > top {
			return fd + 1
		}
	}
}

// turnsIn counts the loop's turns in d, through a deferred task that is counted but does not keep the loop awake: Now changes with each turn.
func (g *rig) turnsIn(d time.Duration) int {
	turner, ok := g.Runner.(interface{ Turns() uint64 })
	if !ok {
		time.Sleep(d)
		return 0
	}
	var before, after uint64
	g.do(func() { before = turner.Turns() })
	time.Sleep(d)
	g.do(func() { after = turner.Turns() })
	return int(after - before)
}
