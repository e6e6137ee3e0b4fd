package gateway

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	client "github.com/willscott/go-nfs-client/nfs"
	"github.com/willscott/go-nfs-client/nfs/rpc"

	"holdfast/frontends/volume"
)

// mount connects a Go NFS client that shares no code with the server.
func (g *started) mount() *client.Target {
	g.c.t.Helper()
	c, err := rpc.DialTCP("tcp", g.nfs, false)
	for range 100 {
		if !errors.Is(err, syscall.EADDRINUSE) { // it draws a local port and does not look whether that is free
			break
		}
		c, err = rpc.DialTCP("tcp", g.nfs, false)
	}
	if err != nil {
		g.c.t.Fatal(err)
	}
	v, err := (&client.Mount{Client: c}).Mount("/", rpc.NewAuthUnix("tester", 0, 0).Auth())
	if err != nil {
		g.c.t.Fatal(err)
	}
	g.c.t.Cleanup(c.Close)
	return v
}

func TestFilesAreImagesOnEveryGateway(t *testing.T) {
	c := newCluster(t, "")
	g, other := c.gateway("a", 2, 100), c.gateway("b", 1, 200)
	v, w := g.mount(), other.mount()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(v.Mkdir("/vm", 0o755))
	f, err := v.OpenFile("/vm/disk", 0o644)
	must(f, err)
	data := content(3*mib + 1234) // its last sector is not a whole one
	must(f.Write(data))
	must(nil, f.Close())
	must(nil, v.Rename("/vm/disk", "/vm/other"))
	// The other gateway hears of it within a moment.
	var r *client.File
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if r, err = w.Open("/vm/other"); err == nil || time.Now().After(end) {
			break
		}
	}
	must(r, err)
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the other gateway gives %d bytes, %v; want %d", len(got), err, len(data))
	}
	// Over NBD it is as long as whole sectors are.
	h := g.attach("vm/other", volume.Session{Protocol: "nbd"})
	if got, want := h.Info().Size, uint64(len(data))&^511; got != want {
		t.Errorf("size over NBD: %d, want %d", got, want)
	}
	g.detach(h)
	must(nil, v.Remove("/vm/other"))
	if _, err := v.Open("/vm/other"); err == nil {
		t.Error("the file is still there after it was removed")
	}
	c.until("the data is gone", func() bool { return c.client.Snapshot().Inodes.Len() == 0 })
	must(nil, v.RmDir("/vm"))
}
