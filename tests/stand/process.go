package stand

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is one program that runs beside the test, in a process group of its own.
type Process struct {
	t    testing.TB
	Name string
	cmd  *exec.Cmd
	out  Output
	done chan struct{}
	err  error // after done
}

// Output is what a process has printed, both streams together. It is safe for concurrent use.
type Output struct {
	mu   sync.Mutex
	text []byte // guarded by mu; at most maxOutput, the oldest goes
	from int    // guarded by mu; bytes that have gone
}

const maxOutput = 4 << 20

// Write adds to the output.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if n := len(o.text) - maxOutput; n > 0 {
		o.text, o.from = o.text[n:], o.from+n
	}
	return len(p), nil
}

// String is all that there is.
func (o *Output) String() string { return o.Since(0) }

// Mark is a position for Since.
func (o *Output) Mark() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.from + len(o.text)
}

// Since is what was printed after a mark.
func (o *Output) Since(mark int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text[min(max(mark-o.from, 0), len(o.text)):])
}

// Tail is the last lines, for messages.
func (o *Output) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Start runs a program until the test's end at the latest.
func Start(t testing.TB, name, path string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(path, args...)
	// The child dies with us, and all its children can be signalled at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return start(t, name, cmd)
}

func start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, Name: name, cmd: cmd, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if p.cmd.Env == nil {
		p.cmd.Env = Environment()
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		fine := p.Ended() && p.err == nil
		p.Kill()
		if t.Failed() && !fine && p.out.Mark() > 0 {
			t.Logf("%s printed at the end:\n%s", name, p.out.Tail(60))
		}
	})
	return p
}

// Environment is ours without what is meant for tests, which the program would refuse as unknown parameters; the choice of the loop stays.
func Environment() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "HOLDFAST_") && !strings.HasPrefix(e, "HOLDFAST_LOOP=")
	})
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output is what it has printed.
func (p *Process) Output() *Output { return &p.out }

// Kill ends the process and all its children at once, as kill -9 does, and waits for its end.
func (p *Process) Kill() {
	if p.Ended() {
		return
	}
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", p.Name, err)
	}
}

// Stop asks the process to end and waits for that.
func (p *Process) Stop(limit time.Duration) (code int) {
	p.t.Helper()
	began := time.Now()
	p.Signal(syscall.SIGTERM)
	code = p.Wait(limit)
	if d := time.Since(began); d > 5*time.Second {
		p.t.Logf("%s took %v to stop; it printed at last:\n%s", p.Name, d.Round(time.Millisecond), p.out.Tail(6))
	}
	return code
}

// Wait waits until the process has ended by itself.
func (p *Process) Wait(limit time.Duration) (code int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%s (process %d) has not ended within %v; it printed at last:\n%s", p.Name, p.Pid(), limit, p.out.Tail(30))
	}
	return p.cmd.ProcessState.ExitCode()
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Await waits until ok says so of what the process has printed. It fails when the process ends before.
func (p *Process) Await(limit time.Duration, what string, ok func(out string) bool) {
	p.t.Helper()
	end := time.Now().Add(limit)
	for !ok(p.out.String()) {
		if p.Ended() && !ok(p.out.String()) {
			p.t.Fatalf("%s ended (%v) before: %s. It printed:\n%s", p.Name, p.err, what, p.out.Tail(40))
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s: not within %v: %s. It printed:\n%s", p.Name, limit, what, p.out.Tail(40))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// HasLine says whether some line of the output is exactly this.
func HasLine(line string) func(string) bool {
	return func(out string) bool {
		return strings.HasPrefix(out, line+"\n") || strings.Contains(out, "\n"+line+"\n")
	}
}

// debian names the package of each program of others.
var debian = map[string]string{
	"qemu-img": "qemu-utils", "qemu-io": "qemu-utils", "nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin", "fio": "fio", "nfs-ls": "libnfs-utils", "nfs-cp": "libnfs-utils", "nfs-cat": "libnfs-utils",
	"iscsi-ls": "libiscsi-bin", "iscsi-inq": "libiscsi-bin", "mkfs.ext4": "e2fsprogs", "e2fsck": "e2fsprogs", "etcd": "etcd-server", "etcdctl": "etcd-client", "debugfs": "e2fsprogs",
	"nft": "nftables", "ip": "iproute2", "nsenter": "util-linux", "mount": "mount",
}

// Tool is the path of a program of others. A missing one fails the test.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if p := "/usr/sbin/" + name; errors.Is(err, exec.ErrNotFound) {
			if _, e := os.Stat(p); e == nil {
				return p
			}
		}
		t.Fatalf("%s is not installed: apt install %s", name, debian[name])
	}
	return path
}

// toolTime bounds one run of a program of others.
const toolTime = 3 * time.Minute

// Run runs a program to its end and returns what it printed. A failure fails the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := Try(t, toolTime, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// Try runs a program to its end, which comes within limit.
func Try(t testing.TB, limit time.Duration, name string, args ...string) (string, error) {
	t.Helper()
	path := name
	if !strings.Contains(name, "/") {
		path = Tool(t, name)
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Env = Environment()
	cmd.Dir = t.TempDir() // fio leaves files where it runs
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(limit, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !timer.Stop() && err != nil {
		err = fmt.Errorf("not done within %v: %w", limit, err)
	}
	return out.String(), err
}
