// Package nfs_test runs foreign NFS clients against the server of frontends/nfs, over real sockets on every kind of loop.
package nfs_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// url is how libnfs wants to be told the ports, so that it asks no portmapper. path is in the export "/": a file in it is "/name", which makes two slashes in the URL, as libnfs
// takes what stands before the last slash for the export and refuses an empty one.
func (s *served) url(path string) string {
	return fmt.Sprintf("nfs://127.0.0.1%s?nfsport=%d&mountport=%d&version=3", path, s.addr.Port(), s.addr.Port())
}

// runs starts a program and returns what it prints.
func runs(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, name, "libnfs-utils"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

func TestLibnfsCopiesAFileThereAndBack(t *testing.T) {
	onLoops(t, func(t *testing.T, s *served) {
		dir := t.TempDir()
		data := make([]byte, 5_234_567) // not a multiple of a block: the last one is partial
		fill(data, 1)
		local, back := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		if err := os.WriteFile(local, data, 0o600); err != nil {
			t.Fatal(err)
		}
		runs(t, "nfs-cp", local, s.url("//disk.img"))
		runs(t, "nfs-cp", s.url("//disk.img"), back)
		got, err := os.ReadFile(back)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read back %d bytes, err %v; want the %d bytes written", len(got), err, len(data))
		}
		if ls := runs(t, "nfs-ls", s.url("/")); !strings.Contains(ls, "5234567") || !strings.Contains(ls, "disk.img") {
			t.Errorf("nfs-ls / = %q, want disk.img of 5234567 bytes", ls)
		}
		if cat := runs(t, "nfs-cat", s.url("//disk.img")); cat != string(data) {
			t.Errorf("nfs-cat printed %d bytes, want the %d of the file", len(cat), len(data))
		}
	})
}

func fill(p []byte, seed uint64) {
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(p) // never fails
}
