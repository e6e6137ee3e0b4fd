package crash

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Options say how many states of each case are looked at.
type Options struct {
	Workers  int
	Variants int           // per moment at which something may be lost; at others there is one
	Moments  int           // per case, drawn; 0: every one
	States   int           // stop after the case that reaches so many; 0: when the cases are over
	Enough   int           // violations that end it; 0: 5
	Progress func(*Report) // called now and then, never twice at once; may be nil
}

// progressStates is how many states lie between two calls of Progress.
const progressStates = 100000

// Report is what a Run did.
type Report struct {
	Counts
	Cases      int // for which there was time
	Violations []*Violation
	Elapsed    time.Duration
}

func (r *Report) String() string {
	return fmt.Sprintf("crash: %d states of %d sequences (%d operations acknowledged), %d of them cut twice, %d where only the process died, %d reopened, %d filled, %d with rotten data, %d checked; %v; %d violations; %.0f states per second",
		r.States, r.Sequences, r.Operations, r.Nested, r.Killed, r.Reopened, r.Filled, r.Rotten, r.Checked, r.Losses, len(r.Violations), float64(r.States)/r.Elapsed.Seconds())
}

// Run looks at the states of the cases that next gives, on several goroutines: each case has worlds of its own.
func Run(next func(i int) (Case, bool), o Options) *Report {
	start := time.Now()
	report := &Report{}
	if o.Enough == 0 {
		o.Enough = 5
	}
	var mu sync.Mutex
	taken, shown := 0, 0
	take := func() (c Case, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(report.Violations) >= o.Enough || o.States > 0 && report.States >= o.States {
			return c, false
		}
		if c, ok = next(taken); ok {
			taken++
		}
		return c, ok
	}
	var wg sync.WaitGroup
	for range max(1, o.Workers) {
		wg.Go(func() {
			w := newWorker()
			for {
				c, ok := take()
				if !ok {
					return
				}
				w.Counts = Counts{}
				bad := w.run(c, o)
				mu.Lock()
				report.add(w.Counts)
				report.Cases++
				if k := report.States / progressStates; o.Progress != nil && k > shown {
					shown = k
					report.Elapsed = time.Since(start)
					o.Progress(report)
				}
				for _, v := range bad {
					v.After, v.States = time.Since(start), report.States
					report.Violations = append(report.Violations, v)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	report.Elapsed = time.Since(start)
	return report
}

// run records a case and looks at its states, up to the first that is wrong.
func (w *worker) run(c Case, o Options) []*Violation {
	rc, err := w.record(c)
	if err != nil {
		return []*Violation{{State: State{c, 0, 0}.String(), Err: fmt.Errorf("without any loss of power: %w", err)}}
	}
	rng := rand.New(rand.NewPCG(hash(c.String()), 4))
	for m := range rc.tape.steps + 1 {
		if o.Moments > 0 && rng.IntN(rc.tape.steps+1) >= o.Moments {
			continue
		}
		variants := 1
		if rc.tape.unsure(m) > 0 {
			variants = max(1, o.Variants)
		}
		for range variants {
			// Of three, one loses or keeps everything.
			v := rng.Uint64N(1 << 20)
			if rng.IntN(3) == 0 {
				v %= 2
			}
			if err := w.state(rc, m, v); err != nil {
				return []*Violation{{State: State{c, m, v}.String(), Err: err}}
			}
		}
	}
	return nil
}

// Replay looks at one state again and says what it finds.
func Replay(s State) (log []string, err error) {
	w := newWorker()
	w.log = &lines{}
	rc, err := w.record(s.Case)
	if err != nil {
		return w.log.all, fmt.Errorf("without any loss of power: %w", err)
	}
	for i, o := range rc.h.objects {
		for k := range o.hist[1:] {
			st := &o.hist[k+1]
			w.say("object %d (%v): change %d, submitted before step %d, acknowledged before step %s, makes %+v", i+1, o.id, k+1, st.submitted, when(st.acked), st.top().State)
		}
	}
	err = w.state(rc, min(s.Moment, rc.tape.steps), s.Variant)
	return w.log.all, err
}

// lines collects what is said.
type lines struct{ all []string }

func (l *lines) say(format string, args ...any) { l.all = append(l.all, fmt.Sprintf(format, args...)) }

// Exhaustive is every sequence of 1 to n letters: those of one letter on every base and in every mode, longer ones in each of the modes (none: in one that is drawn) on a base that is drawn.
func Exhaustive(n int, modes string, seed uint64) func(i int) (Case, bool) {
	singles := len(alphabet) * len(bases) * len(allModes)
	return func(i int) (Case, bool) {
		if i < singles {
			c := Case{Base: bases[i%len(bases)].name, Mode: allModes[i/len(bases)%len(allModes)], Sequence: string(alphabet[i/len(bases)/len(allModes)].id), Seed: seed}
			return c, true
		}
		i -= singles
		mode := byte(0)
		if len(modes) > 0 {
			mode = modes[i%len(modes)]
			i /= len(modes)
		}
		for length, total := 2, len(alphabet)*len(alphabet); length <= n; length, total = length+1, total*len(alphabet) {
			if i >= total {
				i -= total
				continue
			}
			b := make([]byte, length)
			for k := range b {
				b[k] = alphabet[i%len(alphabet)].id
				i /= len(alphabet)
			}
			c := Case{Mode: mode, Sequence: string(b), Seed: seed}
			draw := rand.New(rand.NewPCG(seed, hash(c.String())))
			c.Base = bases[draw.IntN(len(bases))].name
			if mode == 0 {
				c.Mode = allModes[draw.IntN(len(allModes))]
			}
			return c, true
		}
		return Case{}, false
	}
}

const allModes = "scg"

// Drawn is any sequence of the lengths from lo to hi, without end.
func Drawn(lo, hi int, seed uint64) func(i int) (Case, bool) {
	return func(i int) (Case, bool) {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		c := Case{Base: bases[rng.IntN(len(bases))].name, Mode: allModes[rng.IntN(len(allModes))], Seed: seed}
		if n := lo + rng.IntN(hi-lo+1); n <= 6 {
			b := make([]byte, n)
			for k := range b {
				b[k] = alphabet[rng.IntN(len(alphabet))].id
			}
			c.Sequence = string(b)
		} else {
			c.Sequence = randomSequence(rng, n)
		}
		return c, true
	}
}

// First is the first n cases.
func First(n int, next func(int) (Case, bool)) func(int) (Case, bool) {
	return func(i int) (Case, bool) {
		if i >= n {
			return Case{}, false
		}
		return next(i)
	}
}

// Mixed takes turns: five short cases, then a long one.
func Mixed(short, long func(int) (Case, bool)) func(int) (Case, bool) {
	return func(i int) (Case, bool) {
		if i%6 == 5 {
			return long(i / 6)
		}
		return short(i - i/6)
	}
}
