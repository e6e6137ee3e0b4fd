// Package iscsi drives the iSCSI target with real initiators over the loops of this machine: libiscsi's tools, qemu-img, and libiscsi's conformance suite.
//
// It needs the Debian packages libiscsi-bin, qemu-utils and qemu-block-extra; a missing one fails the test.
package iscsi

import (
	"context"
	"log/slog"
	"os/exec"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/frontends/iscsi"
	"holdfast/frontends/volume/memory"
)

// kinds are the loops that every test here runs on.
var kinds = []string{"portable", "uring"}

// each runs f on a server of each kind.
func each(t *testing.T, o iscsi.Options, size uint64, f func(t *testing.T, g *gateway)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f(t, start(t, kind, 1, o, size))
		})
	}
}

// gateway is one or more servers, each on its own loop and address, that share one disk.
type gateway struct {
	t       *testing.T
	disk    *memory.Device
	portals []string
}

// start runs n servers until the test ends.
func start(t *testing.T, kind string, n int, o iscsi.Options, size uint64) *gateway {
	t.Helper()
	g := &gateway{t: t, disk: memory.New(memory.Options{Name: "disk", Size: size})}
	catalog := memory.NewCatalog(g.disk, memory.New(memory.Options{Name: "Other disk", Size: 1 << 20}))
	shared := iscsi.NewShared(nil)
	for range n {
		r, err := system.New(system.Options{Kind: kind, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		s := iscsi.New(r, o, catalog, shared)
		a, err := s.Listen(loop.Addr{Network: "tcp", Address: "127.0.0.1:0"}, loop.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		g.portals = append(g.portals, a.Address)
		ended := make(chan error, 1)
		go func() { ended <- r.Run() }()
		t.Cleanup(func() {
			closed := make(chan struct{})
			r.Post(&loop.Task{Run: func() { s.Close(func() { close(closed) }) }})
			select {
			case <-closed:
			case <-time.After(10 * time.Second):
				t.Error("Close has not called done after 10 s")
			}
			r.Stop()
			if err := <-ended; err != nil {
				t.Errorf("the loop ended with %v", err)
			}
		})
	}
	return g
}

// url names LUN 0 of the disk.
func (g *gateway) url() string { return "iscsi://" + g.portals[0] + "/" + target + "/0" }

const target = iscsi.DefaultPrefix + ":disk"

// packages says where each program comes from in Debian.
var packages = map[string]string{
	"iscsi-ls": "libiscsi-bin", "iscsi-inq": "libiscsi-bin", "iscsi-readcapacity16": "libiscsi-bin", "iscsi-perf": "libiscsi-bin", "iscsi-test-cu": "libiscsi-bin",
	"qemu-img": "qemu-utils and qemu-block-extra",
}

// run executes a program and returns what it printed and whether it ended well.
func run(t *testing.T, limit time.Duration, program string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: apt install %s", program, packages[program])
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return string(out), err
}

// must is run for a program that must end well.
func must(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := run(t, 60*time.Second, program, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return out
}
