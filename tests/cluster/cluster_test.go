package cluster

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }

// settle is how long everything may take to be as before, once a fault is over.
const settle = 60 * time.Second

// TestFaults puts every fault on one cluster.
func TestFaults(t *testing.T) {
	d := stand.StartPlan(t, stand.Plan{OSDs: hosts, OSDSize: 256 << 20, MinSize: 2, Etcds: hosts, Monitors: hosts, Network: true, Room: 300 << 20})
	d.CLI("create", "load", "--size", "32M")
	d.CLI("create", "fio", "--size", "32M")
	l := stand.NewLoad(t, 4096, d.Dial("load")) // 16 MiB
	l.Pace = 5 * time.Millisecond
	fioNotices(t, d)
	chosen, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		if !chosen.MatchString(f.name) {
			continue
		}
		for round := range stand.Rounds(t, 1) {
			if f.run(t, d, l, round); t.Failed() {
				t.Fatalf("that was round %d of: %s", round, f.name) // what comes next would only tell of this
			}
		}
	}
	record(t)
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
func (f *fault) run(t *testing.T, d *stand.Daemons, l *stand.Load, round int) {
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
	measured(f.name, gap, slowest)
	if slowest > f.limit {
		t.Errorf("a request took %v, wanted at most %v", slowest.Round(time.Millisecond), f.limit)
	}
}
