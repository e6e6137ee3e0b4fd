package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/tests/stand"
)

// TestPrintedLinesWork pastes what `holdfast up` prints into a shell, in order. Lines that need root and change this machine (mount, iscsiadm) are run in the guest's tests instead.
func TestPrintedLinesWork(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "512M")
	var env []string
	ran := map[string]bool{}
	bin := t.TempDir()
	if err := os.Symlink(stand.Binary(t), filepath.Join(bin, "holdfast")); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(u.Output().String()) {
		line = strings.TrimSpace(line)
		word, _, _ := strings.Cut(line, " ")
		switch {
		case line == "up":
			for _, want := range []string{"export", "holdfast", "nbdinfo", "qemu-img", "nfs-ls", "iscsi-ls"} {
				if !ran[want] {
					t.Errorf("no line with %s was printed:\n%s", want, u.Output())
				}
			}
			return
		case word == "export":
			env = append(env, strings.TrimPrefix(line, "export "))
		case line == "", strings.HasPrefix(line, "#"), strings.HasPrefix(line, "time="), strings.HasPrefix(line, "warning:"), strings.HasPrefix(line, "waiting:"):
			continue
		case word == "mount", word == "iscsiadm", word == "nbd-client", word == "sudo":
			continue
		default:
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", line)
			cmd.Env = append(append(stand.Environment(), env...), "PATH="+bin+":"+os.Getenv("PATH"))
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("$ %s\n%s%v", line, out, err)
			}
			t.Logf("$ %s\n%.300s", line, out)
		}
		ran[filepath.Base(word)] = true
	}
	t.Error(`no line "up"`)
}
