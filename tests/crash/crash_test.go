package crash

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
)

func number(t *testing.T, name string, standard int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, s)
	}
	return n
}

func run(t *testing.T, next func(int) (Case, bool), o Options) *Report {
	t.Helper()
	o.Workers = runtime.GOMAXPROCS(0)
	r := Run(next, o)
	fmt.Println(r)
	for _, v := range r.Violations {
		t.Errorf("after %.1f s and %d states: %v", v.After.Seconds(), v.States, v)
	}
	return r
}

// once skips what does not depend on the event loop where only that is tested.
func once(t *testing.T) {
	t.Helper()
	if os.Getenv("HOLDFAST_LOOP") != "" {
		t.Skip("the simulator is the event loop here")
	}
}

// TestEverySequenceOfUpToTwoOperations cuts each of them at every moment.
func TestEverySequenceOfUpToTwoOperations(t *testing.T) {
	once(t)
	r := run(t, Exhaustive(2, "sc", 1), Options{Variants: 1})
	if l := r.Losses; !t.Failed() && (r.States < 5000 || l.Kept == 0 || l.Lost == 0 || l.Torn == 0 || l.Swapped == 0 || r.Nested == 0 || r.Killed == 0) {
		t.Errorf("something was not tried at all: %v", r)
	}
}

// TestLongSequencesThatGoRoundTheJournal cuts each at some moments.
func TestLongSequencesThatGoRoundTheJournal(t *testing.T) {
	once(t)
	n, seed := 60, uint64(1)
	if long() {
		n, seed = 2000, 2
	}
	run(t, First(n, Drawn(60, 200, seed)), Options{Variants: 1, Moments: 20})
}

// TestChunks is every pair of operations with one of erasure-coded pools, and long sequences of them, each at some moments.
func TestChunks(t *testing.T) {
	once(t)
	n, moments, seed := 6, 8, uint64(1)
	if long() {
		n, moments, seed = 2000, 0, 2
	}
	run(t, Chunks(seed), Options{Variants: 1, Moments: moments})
	run(t, First(n, DrawnChunks(60, 200, seed)), Options{Variants: 1, Moments: 20})
}

func long() bool { return os.Getenv("HOLDFAST_TEST_CRASH_LONG") != "" }

// TestStates is `make crash`: as many states as asked for of short and long sequences, or one by its name.
func TestStates(t *testing.T) {
	if name := os.Getenv("HOLDFAST_TEST_CRASH_STATE"); name != "" {
		s, err := ParseState(name)
		if err != nil {
			t.Fatal(err)
		}
		log, err := Replay(s)
		for _, line := range log {
			fmt.Println(line)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("crash: nothing is wrong in this state")
		return
	}
	states := number(t, "HOLDFAST_TEST_CRASH_STATES", 0)
	if states == 0 {
		t.Skip("make crash runs this")
	}
	seed := uint64(number(t, "HOLDFAST_TEST_CRASH_SEED", 1))
	fmt.Printf("crash: seed %d\n", seed)
	short, long := Every(4, Drawn(1, 3, seed), DrawnChunks(1, 4, seed)), Every(4, Drawn(60, 200, seed), DrawnChunks(60, 200, seed))
	run(t, Mixed(short, long), Options{Variants: 2, Moments: 60, States: states, Enough: number(t, "HOLDFAST_TEST_CRASH_ENOUGH", 0)})
}

// TestEverySequenceOfThreeOperations is for make test-long.
func TestEverySequenceOfThreeOperations(t *testing.T) {
	if !long() {
		t.Skip("make test-long PART=crash runs this")
	}
	run(t, Exhaustive(3, "", 2), Options{Variants: 1, Progress: func(r *Report) { fmt.Println(r) }})
}

// TestEveryDeviceCallThatFails fails the n-th read, write or flush of a run, for n = 1, 2, ... until a run has none left.
func TestEveryDeviceCallThatFails(t *testing.T) {
	for _, c := range []struct{ base, sequence string }{
		{"clean", "s2mwzf"}, {"waiting", "ukUrwpdg"}, {"dirty", "lehxFqvb"}, {"through", "smtnZ"}, {"wrap", "ooEswi2"}, {"fine", "fFzuUkyr"}, {"bare", "Q6kA8"}, {"fast", "s2mwzf"}, {"three", "ukUrwpdg"},
	} {
		t.Run(c.base, func(t *testing.T) {
			t.Parallel()
			for _, f := range Faults {
				for _, mode := range []byte("sc") {
					runs, err := Sweep(c.base, c.sequence, mode, f)
					if err != nil {
						t.Error(err)
					}
					if runs == 0 && (f.Kind != "flush" || c.base != "through") {
						t.Errorf("no %s failed", f.Kind)
					}
					t.Logf("%s/%c/%s: %d runs with a %s that failed with %s", c.base, mode, c.sequence, runs, f.Kind, f.How)
				}
			}
		})
	}
}
