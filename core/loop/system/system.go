// Package system makes the event loop that suits this machine: io_uring where the kernel allows it, else the portable one.
package system

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"holdfast/core/loop"
	"holdfast/core/loop/portable"
	"holdfast/core/loop/reactor"
	"holdfast/core/loop/uring"
)

// Environment overrides Kind "auto": uring or portable.
const Environment = "HOLDFAST_LOOP"

// procs is the least GOMAXPROCS a process with loops gets, unless its environment says otherwise. A loop's thread that waits in the kernel keeps its processor until the scheduler's monitor
// takes it away; while processors are short the monitor looks every 20 us and never rests, which costs most of a core: six loops on 2 cores took 92 us per replicated
// 4 KiB write with 2 processors and 67 us with 16.
const procs = 16

// Options say which loop to make.
type Options struct {
	Kind string       // "auto" (also when empty), "uring" or "portable"
	Name string       // attached to log lines
	Log  *slog.Logger // nil: slog.Default
	Seed uint64       // of Rand; 0: drawn at random
}

// New makes a loop. Its Run is to be called on a goroutine of its own.
func New(o Options) (loop.Runner, error) {
	kind, err := choose(o.Kind, os.Getenv(Environment))
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < procs {
		runtime.GOMAXPROCS(procs)
	}
	ro := reactor.Options{Name: o.Name, Log: o.Log, Seed: o.Seed}
	if kind == "portable" {
		return made(portable.New(ro))
	}
	l, err := made(uring.New(ro))
	if err == nil || kind == "uring" {
		return l, err
	}
	o.Log.Info("event loop without io_uring", "loop", o.Name, "kind", "portable", "err", err)
	return made(portable.New(ro))
}

// made keeps a nil pointer from becoming a Runner that is not nil.
func made[L loop.Runner](l L, err error) (loop.Runner, error) {
	if err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	return l, nil
}

// choose decides between the option and the environment.
func choose(kind, environment string) (string, error) {
	switch kind {
	case "", "auto":
	case "uring", "portable":
		return kind, nil
	default:
		return "", fmt.Errorf("loop %q is unknown; use auto, uring or portable", kind)
	}
	switch environment {
	case "", "auto":
		return "auto", nil
	case "uring", "portable":
		return environment, nil
	}
	return "", fmt.Errorf("%s=%q is unknown; use uring or portable", Environment, environment)
}
