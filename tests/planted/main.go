// Command planted shows that the testers catch what they are for: it plants each bug of core/planted, one after the other, and lets the tester that should catch it run until it reports a violation, or a
// minute is over. Then it runs the same tests without any bug. `make planted` calls it; its tests try a few bugs, and show that a release has none.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/core/planted"
)

func main() {
	only := flag.String("bugs", "", "plant only these, separated by commas")
	jobs := flag.Int("jobs", 2, "so many at once")
	limit := flag.Duration("limit", time.Minute, "how long a tester may take to catch a bug")
	control := flag.Bool("control", true, "run the same tests without any bug, too")
	update := flag.Bool("update", false, "write what was found to the table of docs/proof.md")
	flag.Parse()
	if err := run(*only, *jobs, *limit, *control, *update); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

func run(only string, jobs int, limit time.Duration, control, update bool) error {
	list, err := chosen(only)
	if err != nil {
		return err
	}
	start := time.Now()
	b, err := build()
	if err != nil {
		return err
	}
	defer b.remove()
	fmt.Printf("built in %.0f s\n", time.Since(start).Seconds())
	found := make([]catch, len(list))
	inParallel(jobs, len(list), func(i int) {
		found[i] = b.hunt(list[i], limit)
		fmt.Println(found[i])
	})
	missed := 0
	for _, c := range found {
		if !c.Caught {
			missed++
		}
	}
	fmt.Printf("%d bugs planted, %d caught, in %.0f s\n", len(found), len(found)-missed, time.Since(start).Seconds())
	var same result
	if control {
		if same, err = b.control(found, jobs); err != nil {
			return fmt.Errorf("without any bug: %w", err)
		}
		fmt.Printf("without any bug: %v: 0 violations\n", same)
	}
	switch {
	case missed > 0:
		return fmt.Errorf("%d bugs were not caught in %v each: a tester has a hole", missed, limit)
	case update && (only != "" || !control):
		return fmt.Errorf("the table is written from a run with every bug and the control")
	case update:
		return record(found, same)
	}
	return nil
}

// chosen are the hunts for the bugs that were named.
func chosen(only string) (list []hunt, err error) {
	if only == "" {
		return hunts, nil
	}
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(hunts, func(h hunt) bool { return h.Bug == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no bug %q", name)
		}
		list = append(list, hunts[i])
	}
	return list, nil
}

// inParallel calls f for 0 to n-1, so many at once, and returns when all are done.
func inParallel(jobs, n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(jobs, n) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// result is how much was tried.
type result struct{ States, Seeds, Histories, Scenarios int }

func (r result) String() string {
	return fmt.Sprintf("%d crash states, %d seeds, %d scenarios, %d histories of peering", r.States, r.Seeds, r.Scenarios, r.Histories)
}

// control runs what caught the bugs without any: it must find nothing.
func (b *binaries) control(found []catch, jobs int) (same result, err error) {
	var list []hunt
	first := 0 // seeds from 1 on
	for _, c := range found {
		switch c.By {
		case crash:
			same.States = max(same.States, c.Tried)
		case sim:
			if c.From == 0 {
				first = max(first, c.Tried)
				continue
			}
			list = append(list, hunt{By: sim, From: c.From, Draw: c.Draw, Most: c.Tried})
			same.Seeds += c.Tried
		case model:
			if h := (hunt{By: model, Test: c.Test, From: c.From}); h != (hunt{By: model}) && !slices.Contains(list, h) {
				list = append(list, h)
			}
			same.Histories = max(same.Histories, c.Tried)
		case scenario:
			if h := (hunt{By: scenario, Test: c.Test}); !slices.Contains(list, h) {
				list = append(list, h)
				same.Scenarios++
			}
		}
	}
	same.Seeds += first
	for _, h := range []struct {
		by tester
		n  int
	}{{crash, same.States}, {sim, first}, {model, same.Histories}} {
		if h.n > 0 {
			list = append(list, hunt{By: h.by, Most: h.n})
		}
	}
	slices.SortFunc(list, func(x, y hunt) int { return cmp.Compare(x.By, y.By) })
	errs := make([]error, len(list))
	inParallel(jobs, len(list), func(i int) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		c, e := b.try(ctx, list[i])
		if c.Caught {
			e = fmt.Errorf("%v reports a violation: %s: %s", c.By, c.Where, c.What)
		}
		errs[i] = e
	})
	for _, e := range errs {
		err = cmp.Or(err, e)
	}
	return same, err
}

// says is what a bug does.
func says(name string) string {
	for _, b := range planted.Bugs {
		if b.Name == name {
			return b.Says
		}
	}
	return ""
}
