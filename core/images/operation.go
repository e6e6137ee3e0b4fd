// Package images is the administration of images on top of core/client: create, rename, resize, remove, and what there is.
//
// The CLI, the console and the gateway use it, each on its client's loop. Everything that changes something is an Operation: it goes on by itself, tells its progress and
// ends once. It may be stopped, or die with its process, at any point: run again it goes on where it stopped. A transaction whose answer was lost is judged by what is in
// the registry afterwards, never repeated blindly.
package images

import (
	"errors"
	"fmt"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
)

// ErrStopped says that the operation was stopped. What it had begun is kept; run it again to go on.
var ErrStopped = errors.New("stopped; run it again to go on")

// Progress is how far an Operation is.
type Progress struct {
	Step    string  // what it does, for people
	Objects uint64  // deleted
	Total   uint64  // to be deleted, as far as is known
	Bytes   uint64  // of the deleted objects
	Rate    float64 // bytes per second, since the start of the deletions
	Waiting string  // what it waits for, for people; "" when it gets on
}

// Options are common to the operations. The zero value is usable.
type Options struct {
	// Parallel is how many objects are deleted at once [32].
	Parallel int
	// Patience ends an operation that gets no further, with an error that says why; 0 waits for ever (client_wait_up_timeout for commands).
	Patience time.Duration
	// Progress, when set, is called about twice a second while something is deleted, and at the end.
	Progress func(Progress)
}

const (
	defaultParallel = 32
	// progressInterval is how often progress is told and patience is looked at.
	progressInterval = 500 * time.Millisecond
	// maxConflicts bounds how often a transaction that somebody else was faster than is built anew.
	maxConflicts = 50
	// maxUnavailable bounds how often in a row the registry may give no answer.
	maxUnavailable = 10
	// txnPause is the wait before another try.
	txnPause = 20 * time.Millisecond
)

// Operation is an administrative operation under way.
type Operation struct {
	c    *client.Client
	l    loop.Loop
	o    Options
	what string // for errors: "remove image \"a\""
	done func(error)
	over bool
	stop bool

	progress Progress
	began    loop.Instant // of the deletions
	moved    loop.Instant // when it last got on
	tick     loop.Timer
	pause    loop.Timer
	resume   func()
	session  *client.Session
	sweep    *sweep
	sent     *cluster.Snapshot // the newest when reach last asked the registry
}

func start(c *client.Client, o Options, what string, done func(error), begin func(*Operation)) *Operation {
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	op := &Operation{c: c, l: c.Loop(), o: o, what: what, done: done}
	op.moved = op.l.Now()
	op.tick.Fire = op.ticked
	op.pause.Fire = func() {
		f := op.resume
		op.resume = nil
		if f != nil && !op.ended() {
			f()
		}
	}
	op.l.Arm(&op.tick, op.l.Now().Add(progressInterval))
	op.progress.Step = "reading"
	// The first step comes later, so that done is never called from in here.
	op.after(0, func() { op.ready(func() { begin(op) }) })
	return op
}

// Progress is how far it is.
func (op *Operation) Progress() Progress { return op.progress }

// Stop ends it with ErrStopped, later, once nothing of it is under way.
func (op *Operation) Stop() {
	if op.over || op.stop {
		return
	}
	op.stop = true
	if op.sweep != nil {
		op.sweep.halt()
		return
	}
	if op.session != nil {
		op.session.Fence()
	}
	if op.resume != nil { // between two steps
		op.l.Arm(&op.pause, op.l.Now())
	}
}

// ended ends an operation that was stopped, and reports whether it is over.
func (op *Operation) ended() bool {
	if !op.over && op.stop {
		op.finish(ErrStopped)
	}
	return op.over
}

// after goes on with f in d.
func (op *Operation) after(d time.Duration, f func()) {
	op.resume = f
	op.l.Arm(&op.pause, op.l.Now().Add(d))
}

// ready goes on with f once the state of the cluster is known.
func (op *Operation) ready(f func()) {
	if op.c.Ready() {
		f()
		return
	}
	op.progress.Waiting = "the registry"
	op.after(txnPause, func() { op.ready(f) })
}

// advance notes that it gets on.
func (op *Operation) advance() {
	op.moved = op.l.Now()
	op.progress.Waiting = ""
}

func (op *Operation) ticked() {
	if op.over || op.sweep == nil && op.ended() {
		return
	}
	if op.sweep != nil {
		op.sweep.look()
		if op.o.Progress != nil {
			op.o.Progress(op.progress)
		}
	}
	if d := op.l.Now().Sub(op.moved); op.o.Patience > 0 && d >= op.o.Patience && !op.stop {
		why := op.progress.Waiting
		if why == "" {
			why = "an answer"
		}
		err := fmt.Errorf("no progress for %v, waiting for %s; run it again when that is mended", d, why)
		if op.sweep != nil {
			op.sweep.fail(err)
		} else {
			if op.session != nil {
				op.session.Fence()
			}
			op.finish(err)
		}
	}
	if !op.over {
		op.l.Arm(&op.tick, op.l.Now().Add(progressInterval))
	}
}

// finish ends it.
func (op *Operation) finish(err error) {
	if op.over {
		return
	}
	op.over = true
	op.l.Disarm(&op.tick)
	op.l.Disarm(&op.pause)
	op.resume = nil
	if op.session != nil {
		op.session.Close(nil)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", op.what, err)
	}
	if op.o.Progress != nil {
		op.o.Progress(op.progress)
	}
	op.done(err)
}

// keys is what a decision is made from: the keys that were asked for and exist.
type keys map[string]registry.KV

func (k keys) get(key string) *registry.KV {
	if kv, ok := k[key]; ok {
		return &kv
	}
	return nil
}

// decision is what a look at the registry leads to: an error, another key to look at first, a transaction, or, when all are missing, that the goal is reached.
type decision struct {
	err  error
	look string
	txn  *registry.Txn
}

// reach reads keys and runs the transaction that decide makes of them, until decide says that the goal is reached; then it calls then, with the revision of the last look or
// transaction. decide must recognize its own work: a transaction without an answer may have been carried out, or may be yet.
func (op *Operation) reach(wanted []string, decide func(keys) decision, then func(rev registry.Revision)) {
	conflicts, silent := 0, 0
	var look func()
	again := func() { op.after(txnPause+time.Duration(op.l.Rand().Int64N(int64(txnPause))), look) }
	unavailable := func(err error) {
		if _, refused := errors.AsType[*registry.RequestError](err); refused {
			op.finish(err)
			return
		}
		op.progress.Waiting = "the registry"
		if silent++; silent >= maxUnavailable {
			op.finish(fmt.Errorf("%w; whether it took effect is not known, run it again", err))
			return
		}
		again()
	}
	look = func() {
		op.sent = op.c.Snapshot()
		t := registry.Txn{}
		for _, k := range wanted {
			t.Then = append(t.Then, registry.Op{Kind: registry.Get, Key: k})
		}
		op.c.Registry().Txn(t, func(res registry.TxnResult, err error) {
			if op.ended() {
				return
			}
			if err != nil {
				unavailable(err)
				return
			}
			silent = 0
			found := keys{}
			for _, kvs := range res.Results {
				for _, kv := range kvs {
					found[kv.Key] = kv
				}
			}
			d := decide(found)
			switch {
			case d.err != nil:
				op.finish(d.err)
				return
			case d.look != "":
				wanted = append(wanted, d.look)
				look()
				return
			case d.txn == nil:
				op.advance()
				then(res.Revision)
				return
			}
			op.sent = op.c.Snapshot()
			op.c.Registry().Txn(*d.txn, func(res registry.TxnResult, err error) {
				switch {
				case op.ended():
				case err != nil:
					unavailable(err)
				case !res.Succeeded:
					if conflicts++; conflicts > maxConflicts {
						op.finish(errors.New("others keep changing the same keys; try again later"))
						return
					}
					again()
				default:
					op.advance()
					then(res.Revision)
				}
			})
		})
	}
	look()
}

// sync goes on once the snapshot shows a change, which the registry had at rev, as reach has just said.
func (op *Operation) sync(rev registry.Revision, shown func(*cluster.Snapshot) bool, then func()) {
	at := op.sent.Moment(rev)
	// A revision in which nothing of ours changed makes no snapshot, so the revision alone would not do.
	op.c.Await(func(s *cluster.Snapshot) bool { return s.Past(at) || shown(s) }, func() {
		switch s := op.c.Snapshot(); {
		case op.ended():
		case s.Lost(at) && !shown(s):
			op.finish(errors.New("etcd has gone back to an earlier state and has forgotten the change; run it again"))
		default:
			then()
		}
	})
}
