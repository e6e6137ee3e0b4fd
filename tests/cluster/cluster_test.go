package cluster

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }

// settle is how long everything may take to be as before, once a fault is over.
const settle = 60 * time.Second

// every is the report of TestFaults, fewer that of TestVerify.
var (
	every = &report{name: "faults", names: names("", faults)}
	fewer = &report{name: "verify", names: slices.Concat(names(inCopies(2), longer), names(inCopies(3), longer))}
)

func inCopies(n int) string { return fmt.Sprintf("%d copies: ", n) }

func names(prefix string, list []fault) (all []string) {
	for _, f := range list {
		all = append(all, prefix+f.name)
	}
	return all
}

// TestFaults puts every fault on one cluster.
func TestFaults(t *testing.T) {
	bed := newBed(t, stand.Plan{MinSize: 2, Room: 300 << 20}, every, "")
	fioNotices(t, bed.Daemons)
	bed.through(t, faults)
	every.record(t)
}

// TestVerify puts those that last on two clusters beside each other: one whose images are in two copies, on three hosts, and one in three.
func TestVerify(t *testing.T) {
	t.Run("in", func(t *testing.T) {
		for _, copies := range []int{2, 3} {
			t.Run(fmt.Sprintf("%d copies", copies), func(t *testing.T) {
				t.Parallel()
				bed := newBed(t, stand.Plan{Copies: copies, MinSize: copies - 1, Room: 600 << 20}, fewer, inCopies(copies))
				bed.through(t, longer)
			})
		}
	})
	fewer.record(t)
}

// bed is a cluster, what runs on it, and what is told of it.
type bed struct {
	*stand.Daemons
	load   *stand.Load
	report *report
	prefix string // of the names of faults
}

// newBed starts a cluster of hosts with all that is needed of each.
func newBed(t *testing.T, plan stand.Plan, p *report, prefix string) *bed {
	t.Helper()
	plan.OSDs, plan.Etcds, plan.Monitors, plan.Network, plan.OSDSize = hosts, hosts, hosts, true, plan.Room-44<<20
	b := &bed{Daemons: stand.StartPlan(t, plan), report: p, prefix: prefix}
	b.CLI("create", "load", "--size", "32M")
	b.CLI("create", "fio", "--size", strconv.FormatInt(plan.Room/8, 10))
	b.load = stand.NewLoad(t, 4096, b.Dial("load")) // 16 MiB
	b.load.Pace = 5 * time.Millisecond
	return b
}

// through puts the chosen of these faults on the cluster, in as many rounds as the environment says.
func (b *bed) through(t *testing.T, list []fault) {
	t.Helper()
	chosen, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if !chosen.MatchString(b.prefix + f.name) {
			continue
		}
		for round := range stand.Rounds(t, 1) {
			if f.run(t, b, round); t.Failed() {
				t.Fatalf("that was round %d of: %s%s", round, b.prefix, f.name) // what comes next would only tell of this
			}
		}
	}
}

// fioNotices shows that fio would see one block that is not what it wrote last, even if it is one that it wrote before.
func fioNotices(t *testing.T, d *stand.Daemons) {
	t.Helper()
	const block = 17
	c, err := d.Dial("fio")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d.FioFor("fio", time.Second).End(t, settle)
	old, now := make([]byte, stand.BlockSize), make([]byte, stand.BlockSize)
	if _, err := c.ReadAt(old, block*stand.BlockSize); err != nil {
		t.Fatal(err)
	}
	f := d.FioFor("fio", time.Second)
	f.End(t, settle)
	if err := f.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAt(now, block*stand.BlockSize); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(old, now) {
		t.Fatal("two runs of fio wrote the same")
	}
	if _, err := c.WriteAt(old, block*stand.BlockSize); err != nil {
		t.Fatal(err)
	}
	if f.Check() == nil {
		t.Fatal("fio does not notice a block that is older than what it wrote")
	}
}

// run puts the fault on the cluster once.
func (f *fault) run(t *testing.T, b *bed, round int) {
	d, l := b.Daemons, b.load
	d.AwaitActive(settle)
	lasts := f.lasts + 4*time.Second
	if f.gateway {
		lasts = time.Second
	}
	fio := d.FioFor("fio", lasts)
	if f.gateway {
		fio.End(t, settle)
	}
	l.Start(6)
	time.Sleep(time.Second)
	if !f.gateway && fio.Ended() {
		t.Fatalf("fio ended before the fault:\n%s", fio.Output())
	}
	f.do(t, d, round)
	if !f.gateway && fio.Ended() {
		t.Errorf("fio ended before the fault did: it did not run through:\n%s", fio.Output())
	}
	d.AwaitActive(settle)
	if f.gateway {
		d.AwaitGateway(settle, "load")
	}
	l.StopWithin(settle) // every request is answered
	gap, slowest := l.Pause()
	l.Verify()
	for text, n := range l.Errors() {
		if !f.gateway || !strings.HasPrefix(text, "NBD connection: ") {
			t.Errorf("clients saw %d times: %s", n, text)
		}
	}
	if !f.gateway {
		fio.End(t, settle)
	}
	if err := fio.Check(); err != nil {
		t.Error(err)
	}
	b.report.measured(b.prefix+f.name, gap, slowest)
	if most := promised[f.name]; most > 0 && gap > most {
		t.Errorf("nothing was answered for %v, promised are %v", gap.Round(time.Millisecond), most)
	}
	if slowest > f.limit {
		t.Errorf("a request took %v, wanted at most %v", slowest.Round(time.Millisecond), f.limit)
	}
}
