package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/tests/stand"
)

// guest is the program that boots a small Linux guest and runs a script in it ("guest run SCRIPT"): HOLDFAST_GUEST, or the one in the shared folder beside the repository.
func guest(t *testing.T) string {
	t.Helper()
	path := os.Getenv("HOLDFAST_GUEST")
	if path == "" {
		path = filepath.Join(stand.Root(t), "..", "shared", "guest", "guest")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no program that boots a Linux guest: %v; say where it is with HOLDFAST_GUEST", err)
	}
	if out, err := exec.CommandContext(t.Context(), path, "build").CombinedOutput(); err != nil {
		t.Fatalf("%s build: %v\n%s", path, err, out)
	}
	return path
}

// inGuest runs a script of testdata as root under a Linux kernel.
func inGuest(t *testing.T, script string, env ...string) {
	t.Helper()
	args := []string{"run", "--timeout", "480"}
	for _, e := range env {
		args = append(args, "--env", e)
	}
	out, err := exec.CommandContext(t.Context(), guest(t), append(args, filepath.Join("testdata", script))...).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in the guest: %v", err)
	}
	if !strings.Contains(string(out), "content\n") {
		t.Error("the script did not come to its end")
	}
}

// TestLinuxKernel makes ext4 and xfs on NBD and on iSCSI, writes, mounts again, checks, and mounts the images over NFS.
func TestLinuxKernel(t *testing.T) {
	// The guest connects from a private address of its own.
	u := stand.StartUp(t, "--osd-size", "1G", "--image", "disk:400M", "--nbd_allow", "10.0.0.0/8", "--nfs_allow", "10.0.0.0/8", "--iscsi_allow", "10.0.0.0/8")
	_, port, _ := strings.Cut(u.NBD, ":")
	t.Run("nbd", func(t *testing.T) { inGuest(t, "nbd.sh", "PORT="+port, "NAME=disk") })
	t.Run("iscsi", func(t *testing.T) { inGuest(t, "iscsi.sh", "PORTAL="+u.ISCSI, "TARGET="+u.Target+":disk") })
	_, port, _ = strings.Cut(u.NFS, ":")
	t.Run("nfs", func(t *testing.T) {
		u.Create("vm/one", "64M")
		inGuest(t, "nfs.sh", "PORT="+port)
		if out := u.CLI("ls"); !strings.Contains(out, "guest/kept") {
			t.Errorf("a file of the guest is no image: %s", out)
		}
	})
	u.AwaitActive(stand.UpTime)
}
