// Package nbd runs real NBD clients against frontends/nbd on the loops of this machine, with images in memory.
package nbd

import (
	"log/slog"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/frontends/nbd"
	"holdfast/frontends/volume/memory"
)

// server is an NBD server on a loop of its own, at a TCP and a unix address.
type server struct {
	tcp     string // host:port
	socket  string
	catalog *memory.Catalog
	run     loop.Runner
	srv     *nbd.Server
}

// start serves the given images until the test ends; it then checks that the server lets go of everything.
func start(t testing.TB, kind string, o nbd.Options, images ...*memory.Device) *server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	run, err := system.New(system.Options{Kind: kind, Name: "nbd", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{socket: filepath.Join(t.TempDir(), "nbd.sock"), catalog: memory.NewCatalog(images...), run: run}
	ended := make(chan error, 1)
	go func() { ended <- run.Run() }()
	failed := make(chan error, 1)
	run.Post(&loop.Task{Run: func() {
		s.srv = nbd.New(run, o, s.catalog)
		ln, err := s.srv.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:0"}, loop.ListenOptions{})
		if err == nil {
			s.tcp = ln.Addr().Address
			_, err = s.srv.Listen(loop.Addr{Network: "unix", Address: s.socket}, loop.ListenOptions{})
		}
		failed <- err
	}})
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		run.Post(&loop.Task{Run: func() { s.srv.Close(func() { close(closed) }) }})
		select {
		case <-closed:
		case <-time.After(15 * time.Second):
			t.Error("the server did not close")
		}
		run.Stop()
		if err := <-ended; err != nil {
			t.Errorf("loop: %v", err)
		}
		for _, d := range images {
			if n := d.Sessions(); n != 0 {
				t.Errorf("image %s has %d sessions after the server has closed", d.Info().Name, n)
			}
		}
	})
	return s
}

func (s *server) uri(name string) string     { return "nbd://" + s.tcp + "/" + name }
func (s *server) unixURI(name string) string { return "nbd+unix:///" + name + "?socket=" + s.socket }

// debian says which package brings a program.
var debian = map[string]string{"nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin", "qemu-img": "qemu-utils", "qemu-io": "qemu-utils", "fio": "fio", "nbdkit": "nbdkit"}

// client runs a program and returns what it prints. A missing program fails the test: without it nothing is proved.
func client(t testing.TB, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: apt install %s", program, debian[program])
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// onEachLoop runs f on both loops of this machine.
func onEachLoop(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range []string{"uring", "portable"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "uring" {
				if _, err := system.New(system.Options{Kind: kind}); err != nil {
					t.Skipf("this kernel has no io_uring: %v", err)
				}
			}
			f(t, kind)
		})
	}
}
