package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// binaries are the testers, built with the tag.
type binaries struct{ dir, root string }

// names of the binaries, and of the packages that they are built of and run in.
var binary = map[tester]struct{ name, pkg string }{
	crash:    {"planted-crash", "tests/crash"},
	sim:      {"planted-sim", "tests/sim/simulate"},
	scenario: {"planted-scenario", "tests/sim"},
	model:    {"planted-model", "osd/peering"},
}

// build makes all testers.
func build() (*binaries, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	b := &binaries{root: root}
	if b.dir, err = os.MkdirTemp("", "planted"); err != nil {
		return nil, err
	}
	for _, t := range []tester{crash, sim, scenario, model} {
		args := []string{"test", "-c"}
		if t == sim {
			args = []string{"build"}
		}
		cmd := exec.Command("go", append(args, "-tags", "planted", "-o", filepath.Join(b.dir, binary[t].name), "./"+binary[t].pkg)...)
		cmd.Dir = b.root
		if out, err := cmd.CombinedOutput(); err != nil {
			b.remove()
			return nil, fmt.Errorf("build %s: %w\n%s", binary[t].pkg, err, out)
		}
	}
	return b, nil
}

// moduleRoot is the folder of go.mod.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (b *binaries) remove() { _ = os.RemoveAll(b.dir) }

// catch is what a tester made of a bug.
type catch struct {
	hunt
	Caught  bool
	Where   string // the seed, state or test that shows it again
	What    string // the first line of what is wrong
	Tried   int    // seeds, states, histories or scenarios up to that one
	Elapsed time.Duration
}

func (c catch) String() string {
	if !c.Caught {
		return fmt.Sprintf("%-20s NOT CAUGHT by %v in %.1f s %s", c.Bug, c.By, c.Elapsed.Seconds(), c.What)
	}
	return fmt.Sprintf("%-20s caught by %v: %s, the %d. tried, after %.1f s: %s", c.Bug, c.By, shorten(c.Where, 70), c.Tried, c.Elapsed.Seconds(), shorten(c.What, 160))
}

func shorten(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

// hunt lets the tester of a bug look for it.
func (b *binaries) hunt(h hunt, limit time.Duration) catch {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := b.try(ctx, h)
	if err != nil && !c.Caught {
		c.What = err.Error()
	}
	return c
}

// What testers print.
var (
	crashFound = regexp.MustCompile(`after [0-9.]+ s and (\d+) states: (.*)`)
	crashState = regexp.MustCompile(`make crash STATE='([^']*)'`)
	simFound   = regexp.MustCompile(`^seed (\d+): \d+ VIOLATIONS`)
	modelFound = regexp.MustCompile(`(history (\d+)): (.*)`)
	testFound  = regexp.MustCompile(`^\s+\w+_test\.go:\d+: (.*)`)
)

// try runs a tester once, until it reports a violation, has done what it should (Most), or ctx is over. The error says why it ended otherwise.
func (b *binaries) try(ctx context.Context, h hunt) (c catch, err error) {
	c.hunt = h
	start := time.Now()
	defer func() { c.Elapsed = time.Since(start) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	most, from := strconv.Itoa(cmp.Or(h.Most, 1_000_000)), cmp.Or(h.From, 1)
	env := []string{"HOLDFAST_TEST_PLANTED=" + h.Bug, "GOMAXPROCS=1", "HOLDFAST_LOOP="}
	var args []string
	switch h.By {
	case crash:
		args = []string{"-test.run=^TestStates$", "-test.v", "-test.timeout=1h"}
		env = append(env, "HOLDFAST_TEST_CRASH_STATES="+most, "HOLDFAST_TEST_CRASH_ENOUGH=1", "HOLDFAST_TEST_CRASH_SEED=1")
	case sim:
		args = []string{"-workers=1", "-seeds=" + most, "-from=" + strconv.Itoa(from), "-draw=" + strconv.Itoa(cmp.Or(h.Draw, huntDraw))}
	case scenario:
		args = []string{"-test.run=^" + h.Test + "$", "-test.v", "-test.timeout=1h"}
	case model:
		args = []string{"-test.run=^" + cmp.Or(h.Test, "TestRandomHistoriesLoseNothing") + "$", "-test.v", "-test.timeout=1h", "-first=" + strconv.Itoa(h.From)}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, binary[h.By].name), args...)
	cmd.Dir = filepath.Join(b.root, binary[h.By].pkg)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	r, w := io.Pipe()
	var tail bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return c, err
	}
	ended := make(chan error, 1)
	go func() { // ends with the process
		ended <- cmd.Wait()
		_ = w.Close()
	}()
	in := bufio.NewScanner(r)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		line := in.Text()
		tail.WriteString(shorten(line, 300) + "\n")
		if !c.Caught && c.note(line) {
			stop() // that is enough
		}
	}
	err = <-ended
	switch {
	case c.Caught:
		return c, nil
	case ctx.Err() != nil:
		return c, fmt.Errorf("%v found nothing in time", h.By)
	case err == nil:
		return c, nil
	case strings.Contains(tail.String(), "the bugs that can be planted are"):
		return c, fmt.Errorf("there is no bug %q", h.Bug)
	case h.By == scenario || strings.Contains(tail.String(), "panic:"):
		// A store or an OSD that stops with a panic is caught, too.
		c.Caught, c.Where, c.Tried = true, cmp.Or(c.Where, h.Test), max(c.Tried, 1)
		c.What = cmp.Or(c.What, after(tail.String(), "panic:"))
		return c, nil
	}
	return c, errors.Join(err, errors.New(lastLines(tail.String(), 12)))
}

// note takes one line of what the tester prints; it reports whether nothing else needs to be read.
func (c *catch) note(line string) bool {
	switch c.By {
	case crash:
		if m := crashFound.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			c.Tried, c.What = max(n, 1), m[2]
		} else if m := crashState.FindStringSubmatch(line); m != nil {
			c.Where, c.Caught = m[1], true
			return true
		}
	case sim:
		if m := simFound.FindStringSubmatch(line); m != nil && c.Where == "" {
			seed, _ := strconv.Atoi(m[1])
			c.Where, c.Tried = "seed "+m[1], seed-cmp.Or(c.From, 1)+1
		} else if c.Where != "" {
			c.What, c.Caught = strings.TrimSpace(line), true
			return true
		}
	case model:
		if m := modelFound.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[2])
			c.Where, c.Tried, c.What, c.Caught = m[1], n-c.From+1, m[3], true
			return true
		}
	case scenario:
		if m := testFound.FindStringSubmatch(line); m != nil && c.What == "" {
			c.What = m[1]
		}
	}
	return false
}

// after is the line of text that begins with a word.
func after(text, word string) string {
	if _, rest, ok := strings.Cut(text, word); ok {
		line, _, _ := strings.Cut(rest, "\n")
		return word + line
	}
	return ""
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
