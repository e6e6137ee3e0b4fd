package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/osd/secondary"
)

const (
	// firstPause is the wait before a child that died is started again; it doubles up to lastPause, and starts over after steadyLife.
	firstPause = 200 * time.Millisecond
	lastPause  = 30 * time.Second
	steadyLife = time.Minute
	// childStop is how long a child may take to stop before it is killed.
	childStop = 20 * time.Second
	// reportTime bounds the report of a death.
	reportTime = 5 * time.Second
	// childPipe is the descriptor on which a child says who it is.
	childPipe = 3
)

// Parent runs an OSD in a child process and watches over it. When the child dies, the parent, having reaped it, knows that nothing of it can still reach a disk, and says so to
// the cluster, which then need not wait for leases and grants to run out.
type Parent struct {
	Name    string   // "OSD 1", for messages
	Command []string // of the child; its descriptor 3 takes the announcement (AnnounceSelf)
	Log     *slog.Logger
	// Report tells the cluster of a death; nothing is told of a child that never announced itself.
	Report func(context.Context, secondary.Holder) error
	// Failed tells the cluster why a child has ended that must not be started again (admin.Halted).
	Failed func(context.Context, *cluster.OSDFailure) error

	hangup chan os.Signal
}

// Run starts the child again until it ends cleanly, refuses to run (fatal), or ctx ends; then the child is asked to stop and waited for. The code is the child's exit code. A SIGHUP is
// passed on: the child reads its configuration again.
func (p *Parent) Run(ctx context.Context) (code int, err error) {
	p.hangup = make(chan os.Signal, 1)
	signal.Notify(p.hangup, syscall.SIGHUP)
	defer signal.Stop(p.hangup)
	// The child dies with the thread that started it (PDEATHSIG), so that thread stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pause, ran := firstPause, false
	for {
		start := time.Now()
		state, said, err := p.once(ctx)
		if err != nil {
			return int(admin.Failed), err
		}
		holder := said.Holder
		// What the disk has not answered yet of a child that was killed holds the disk: the next one is refused it for a moment.
		if code := state.ExitCode(); state.Success() || fatal(code) && !(ran && code == int(admin.Refused)) {
			return code, nil
		}
		ran = ran || holder.OSD != 0
		p.Log.Warn("the child has died", "state", state.String(), "life", time.Since(start).Round(time.Millisecond))
		report := func(f func(context.Context) error, what string) {
			x, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
			defer cancel()
			if err := f(x); err != nil {
				p.Log.Warn(what, "err", err)
			}
		}
		if holder.OSD != 0 {
			report(func(x context.Context) error { return p.Report(x, holder) }, "the death was not reported; the others wait for the lease to run out")
		}
		if said.Failure != nil {
			report(func(x context.Context) error { return p.Failed(x, said.Failure) }, "`holdfast status` cannot say why the OSD has stopped")
		}
		if code := state.ExitCode(); code == int(admin.Halted) {
			p.Log.Error("the OSD is not started again before somebody has looked", "exit", code)
			return code, nil
		}
		if ctx.Err() != nil {
			return int(admin.Failed), nil
		}
		if time.Since(start) > steadyLife {
			pause = firstPause
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, nil
		}
		pause = min(2*pause, lastPause)
	}
}

// fatal reports whether starting the child again would change nothing: its command, its disk or its number is wrong.
func fatal(code int) bool {
	return slices.Contains([]int{int(admin.Usage), int(admin.NotFound), int(admin.Refused)}, code)
}

// said is what a child tells its parent, in one JSON object per line: who it is, and in the end why it stops.
type said struct {
	secondary.Holder
	Failure *cluster.OSDFailure `json:"failure,omitempty"`
}

// once runs one child until it is reaped. ctx's end asks it to stop.
func (p *Parent) once(ctx context.Context) (*os.ProcessState, said, error) {
	var all said
	r, w, err := os.Pipe()
	if err != nil {
		return nil, all, fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer r.Close()
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	// A terminal's Ctrl-C goes to the whole group; the child has its own, so that the parent alone decides.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, all, fmt.Errorf("start %s: %w", p.Name, err)
	}
	w.Close()
	heard := make(chan said, 1)
	go func() { // ends when the child's end of the pipe is closed, at the latest by its death
		var h said
		for lines := bufio.NewScanner(r); lines.Scan(); {
			var line said
			switch err := json.Unmarshal(lines.Bytes(), &line); {
			case err != nil:
			case line.Failure != nil:
				h.Failure = line.Failure
			default:
				h.Holder = line.Holder
			}
		}
		heard <- h
	}()
	ended := make(chan struct{})
	stopper := make(chan struct{})
	go func() {
		defer close(stopper)
		for stop := false; !stop; {
			select {
			case <-ended:
				return
			case s := <-p.hangup:
				_ = cmd.Process.Signal(s)
			case <-ctx.Done():
				stop = true
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM) // gone already: Wait says so
		t := time.NewTimer(childStop)
		defer t.Stop()
		select {
		case <-ended:
		case <-t.C:
			p.Log.Warn("the child does not stop; killing it")
			_ = cmd.Process.Kill()
		}
	}()
	err = cmd.Wait()
	close(ended)
	<-stopper
	all = <-heard
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, all, fmt.Errorf("wait for %s: %w", p.Name, err)
	}
	return cmd.ProcessState, all, nil
}

// AnnounceSelf tells the parent who this run of the OSD is.
func AnnounceSelf(h secondary.Holder) error { return tellParent(&said{Holder: h}) }

// AnnounceFailure tells the parent why this run ends.
func AnnounceFailure(f *cluster.OSDFailure) error { return tellParent(&said{Failure: f}) }

// tellParent writes one line. The pipe stays open until the process ends.
func tellParent(s *said) error {
	b, err := json.Marshal(s)
	if err == nil {
		_, err = syscall.Write(childPipe, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("tell the parent: %w", err)
	}
	return nil
}
