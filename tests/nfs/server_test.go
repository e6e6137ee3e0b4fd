package nfs_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os/exec"
	"testing"

	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/frontends/nfs"
	"holdfast/frontends/nfs/memtree"
)

// kinds are the loops that every test here runs on.
var kinds = []string{"portable", "uring"}

// served is a server in this process, on a loop of its own.
type served struct {
	tree *memtree.Tree
	l    loop.Runner
	s    *nfs.Server
	addr netip.AddrPort
}

// onLoops runs f against a new server on each kind of loop.
func onLoops(t *testing.T, f func(t *testing.T, s *served)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			f(t, serve(t, kind, memtree.New(memtree.Options{}), nfs.Options{}))
		})
	}
}

// serve starts a server; it is closed and checked for what it left behind when the test ends.
func serve(t *testing.T, kind string, tree *memtree.Tree, o nfs.Options) *served {
	t.Helper()
	l, err := system.New(system.Options{Kind: kind, Name: t.Name(), Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), Seed: 1})
	if err != nil {
		t.Fatalf("make a %s loop: %v", kind, err)
	}
	ran := make(chan error, 1)
	go func() { ran <- l.Run() }()
	s := &served{tree: tree, l: l}
	s.on(func() {
		s.s = nfs.New(l, o, tree)
		var ln loop.Listener
		if ln, err = s.s.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:0"}, loop.ListenOptions{}); err == nil {
			s.addr = addrOf(ln)
		}
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		s.on(func() { s.s.Close(func() { close(closed) }) })
		<-closed
		l.Stop()
		if err := <-ran; err != nil {
			t.Errorf("loop: %v", err)
		}
	})
	return s
}

// on runs f on the server's loop and waits for it.
func (s *served) on(f func()) {
	done := make(chan struct{})
	s.l.Post(&loop.Task{Run: func() { f(); close(done) }})
	<-done
}

// program finds a program of a Debian package; without it the test fails, since what it proves would be lost silently.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func addrOf(ln loop.Listener) netip.AddrPort { return netip.MustParseAddrPort(ln.Addr().Address) }
