package nfs_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	client "github.com/willscott/go-nfs-client/nfs"
	"github.com/willscott/go-nfs-client/nfs/rpc"
)

// mount mounts path with a client that shares no code with the server.
func (s *served) mount(t *testing.T, path string) *client.Target {
	t.Helper()
	auth := rpc.NewAuthUnix("tester", 0, 0).Auth()
	c, err := rpc.DialTCP("tcp", s.addr.String(), false)
	for range 100 {
		if !errors.Is(err, syscall.EADDRINUSE) { // it draws a local port and does not look whether that is free
			break
		}
		c, err = rpc.DialTCP("tcp", s.addr.String(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := (&client.Mount{Client: c}).Mount(path, auth)
	if err != nil {
		t.Fatalf("mount %s: %v", path, err)
	}
	t.Cleanup(c.Close)
	return v
}

func TestGoClient(t *testing.T) {
	onLoops(t, func(t *testing.T, s *served) {
		v := s.mount(t, "/")
		if _, err := v.Mkdir("/vm", 0o755); err != nil {
			t.Fatalf("mkdir: %v", err)
		}
		f, err := v.OpenFile("/vm/disk", 0o644)
		if err != nil {
			t.Fatalf("create: %v", err)
		}
		data := make([]byte, 3_000_001)
		fill(data, 2)
		if n, err := f.Write(data); n != len(data) || err != nil {
			t.Fatalf("write %d, %v", n, err)
		}
		if err := f.Close(); err != nil {
			t.Fatalf("commit: %v", err)
		}
		if err := v.Rename("/vm/disk", "/vm/other"); err != nil {
			t.Fatalf("rename: %v", err)
		}
		g, err := s.mount(t, "/vm").Open("/other")
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		var got []byte
		chunk := make([]byte, 1<<20)
		for err == nil {
			var n int
			n, err = g.Read(chunk)
			got = append(got, chunk[:n]...)
			if err == nil && n == 0 {
				t.Fatal("read nothing before the end")
			}
		}
		if !errors.Is(err, io.EOF) || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes, %v; want the %d written", len(got), err, len(data))
		}
		list, err := v.ReadDirPlus("/vm")
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		if err != nil || !slices.Contains(names, "other") || slices.Contains(names, "disk") {
			t.Errorf("readdirplus = %q, %v", names, err)
		}
		if err := v.Remove("/vm/other"); err != nil {
			t.Errorf("remove: %v", err)
		}
		if err := v.RmDir("/vm"); err != nil {
			t.Errorf("rmdir: %v", err)
		}
		if _, _, err := v.Lookup("/vm"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("lookup of what was removed: %v", err)
		}
	})
}

// Several clients at once, each with files of its own, over one loop.
func TestManyGoClients(t *testing.T) {
	onLoops(t, func(t *testing.T, s *served) {
		var wg sync.WaitGroup
		for i := range 8 {
			v := s.mount(t, "/")
			wg.Go(func() {
				name := "/file-" + string(rune('a'+i))
				f, err := v.OpenFile(name, 0o644)
				if err != nil {
					t.Error(err)
					return
				}
				data := make([]byte, 400_000)
				fill(data, uint64(i))
				for part := range slices.Chunk(data, 7_777) {
					if _, err := f.Write(part); err != nil {
						t.Error(err)
						return
					}
				}
				got := make([]byte, 0, len(data))
				for p := make([]byte, 50_000); len(got) < len(data); {
					n, err := f.ReadAt(p, int64(len(got)))
					if err != nil && !errors.Is(err, io.EOF) || n == 0 {
						t.Errorf("%s: read %d, %v", name, n, err)
						return
					}
					got = append(got, p[:n]...)
				}
				if !bytes.Equal(got, data) {
					t.Errorf("%s differs from what was written", name)
				}
			})
		}
		wg.Wait()
	})
}

// What a client sees when storage is away: nothing, until it is back.
func TestClientWaitsOutAnOutage(t *testing.T) {
	onLoops(t, func(t *testing.T, s *served) {
		v := s.mount(t, "/")
		f, err := v.OpenFile("/disk", 0o644)
		if err != nil {
			t.Fatal(err)
		}
		s.tree.Stall(true)
		done := make(chan error, 1)
		go func() {
			_, err := f.Write(make([]byte, 100_000))
			done <- err
		}()
		for s.tree.Parked() == 0 {
			s.on(func() {})
		}
		select {
		case err := <-done:
			t.Fatalf("the write returned during the outage: %v", err)
		default:
		}
		s.tree.Stall(false)
		if err := <-done; err != nil {
			t.Errorf("the write after the outage: %v", err)
		}
	})
}
