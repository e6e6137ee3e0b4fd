package appliance

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"holdfast/tests/stand"
)

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }

// result is one run of the program.
type result struct {
	code        int
	out, errors string
}

// run runs the program to its end.
func run(t *testing.T, args ...string) result {
	t.Helper()
	cmd := exec.Command(stand.Binary(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errs, stand.Environment()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// on runs a command on a cluster.
func on(t *testing.T, u *stand.Up, args ...string) result {
	t.Helper()
	return run(t, append(args, "--config", u.Config())...)
}

// ok fails the test when the program did.
func (r result) ok(t *testing.T) result {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("exit code %d: %s%s", r.code, r.out, r.errors)
	}
	return r
}

// refused checks the exit code, and that the message has the words: the thing, the cause, the way out.
func (r result) refused(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d: %s%s", r.code, code, r.out, r.errors)
	}
	for _, w := range words {
		if !strings.Contains(r.errors, w) {
			t.Errorf("the message does not say %q: %s", w, r.errors)
		}
	}
	if n := strings.Count(strings.TrimSpace(r.errors), "\n"); n > 0 {
		t.Errorf("the message has %d lines: %s", n+1, r.errors)
	}
}

// decode reads --json.
func decode[T any](t *testing.T, r result) (v T) {
	t.Helper()
	r.ok(t)
	d := json.NewDecoder(strings.NewReader(r.out))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("--json: %v\n%s", err, r.out)
	}
	return v
}
