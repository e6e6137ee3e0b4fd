// Package looptest is the conformance suite of loop.Runner: the laws of package loop, one test each, against real sockets and files.
package looptest

import (
	"testing"
	"time"

	"holdfast/core/loop"
)

// Run runs the whole suite; fresh makes a loop that does not run yet.
func Run(t *testing.T, fresh func(t *testing.T) loop.Runner) {
	for _, c := range []struct {
		name string
		test func(*rig)
	}{
		{"timers fire in order", timersInOrder},
		{"timers are disarmed and moved", timersDisarmedAndMoved},
		{"time stands still in a turn", timeStandsStill},
		{"posts from many goroutines", postsFromManyGoroutines},
		{"a queued task runs once", queuedTaskRunsOnce},
		{"deferred tasks run at the end of the turn", deferredAtEnd},
		{"buffers", buffers},
		{"echo", echo},
		{"both ends on one loop", bothEnds},
		{"received again with what follows", receivedAgain},
		{"fill", fill},
		{"fill from a peer that dribbles", fillDribble},
		{"pause and resume", pauseResume},
		{"back-pressure and drained", backPressure},
		{"close after send", closeAfterSend},
		{"close after send to a talking peer", closeAfterSendTalkingPeer},
		{"refused dial", refusedDial},
		{"bad addresses", badAddresses},
		{"close while dialling", closeWhileDialling},
		{"peer reset", peerReset},
		{"peer closes with our bytes queued", peerClosesWithBytesQueued},
		{"reply to a peer that has shut down its side", replyAfterShutdown},
		{"close drops and tells once", closeTellsOnce},
		{"refused connection", refusedConnection},
		{"shared listen", sharedListen},
		{"port in use", portInUse},
		{"unix socket files", unixSocketFiles},
		{"keep-alive and acknowledgements", keepAlive},
		{"out of descriptors", outOfDescriptors},
		{"disk reads what was written", diskReadWrite},
		{"disk vectors", diskVectors},
		{"disk depth", diskDepth},
		{"disk end of file", diskEndOfFile},
		{"disk refuses bad operations", diskBadOperations},
		{"disk completion is later", diskCompletionLater},
		{"disk exclusive", diskExclusive},
		{"disk read-only", diskReadOnly},
		{"disk direct refused", diskDirectRefused},
		{"disk errors pass through", diskErrorsPass},
		{"disk block device", diskBlockDevice},
		{"disk close waits", diskCloseWaits},
		{"stop with work under way", stopBusy},
		{"allocations", allocations},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(newRig(t, fresh)) })
	}
}

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

// rig is a running loop and what a test does with it. Tests act on the loop through do and wait for signals outside of it.
type rig struct {
	*testing.T
	fresh func(t *testing.T) loop.Runner
	loop.Runner
	ended chan error
}

func newRig(t *testing.T, fresh func(t *testing.T) loop.Runner) *rig {
	g := &rig{T: t, fresh: fresh, Runner: fresh(t), ended: make(chan error, 1)}
	go func() { g.ended <- g.Run() }()
	t.Cleanup(g.stop)
	return g
}

// Run keeps the two embedded methods of that name apart.
func (g *rig) Run() error { return g.Runner.Run() }

func (g *rig) stop() {
	if g.ended == nil {
		return
	}
	var lent int64
	counter, counts := g.Runner.(interface{ Lent() int64 })
	if counts && !g.Failed() {
		g.until("buffers to come back", func() bool { lent = counter.Lent(); return lent == 0 })
	}
	g.Stop()
	select {
	case err := <-g.ended:
		if err != nil {
			g.Errorf("Run() = %v", err)
		}
	case <-time.After(patience):
		g.Error("Run did not return after Stop")
	}
	g.ended = nil
}

// do runs f on the loop and waits for it.
func (g *rig) do(f func()) {
	g.Helper()
	s := g.signal("the loop to run a task")
	g.Post(&loop.Task{Run: func() {
		defer s.fire()
		f()
	}})
	s.wait()
}

// until checks cond on the loop, turn after turn.
func (g *rig) until(what string, cond func() bool) {
	g.Helper()
	s := g.signal(what)
	var tm loop.Timer
	tm.Fire = func() {
		if cond() {
			s.fire()
			return
		}
		g.Arm(&tm, g.Now().Add(time.Millisecond))
	}
	g.Post(&loop.Task{Run: func() { tm.Fire() }})
	s.wait()
}

// signal is something that happens once.
type signal struct {
	g    *rig
	what string
	c    chan struct{}
}

func (g *rig) signal(what string) *signal { return &signal{g, what, make(chan struct{}, 100)} }

func (s *signal) fire() { s.c <- struct{}{} }

func (s *signal) wait() {
	s.g.Helper()
	select {
	case <-s.c:
	case <-time.After(patience):
		s.g.Fatalf("waited %v for %s", patience, s.what)
	}
}
