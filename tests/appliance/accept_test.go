package appliance

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/core/admin"
	"holdfast/tests/stand"
)

// setBack starts a cluster with an earlier copy of OSD 1's disk.
func setBack(t *testing.T, args ...string) (u *stand.Up, disk string) {
	t.Helper()
	u = stand.StartUp(t, append(small, args...)...)
	disk = filepath.Join(u.Dir, "osd.1.data")
	u.Stop(20 * time.Second)
	early, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	u.With(args...)
	for range 3 {
		u.Start()
		u.Stop(20 * time.Second)
	}
	if err := os.WriteFile(disk, early, 0o600); err != nil {
		t.Fatal(err)
	}
	u.Start()
	return u, disk
}

func await(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// TestDiskThatWasSetBackIsRefusedUntilAccepted puts an earlier copy of an OSD's disk back: with auto_accept off the OSD does not come up on it, however often it is tried, until an operator has
// accepted it; then it does at once.
func TestDiskThatWasSetBackIsRefusedUntilAccepted(t *testing.T) {
	for _, keep := range []bool{false, true} {
		u, disk := setBack(t, "--auto_accept=false")
		osd1 := func() admin.OSD {
			list := decode[[]admin.OSD](t, on(t, u, "ls-osd", "--json"))
			if len(list) != 3 {
				t.Fatalf("%d OSDs", len(list))
			}
			return list[0]
		}
		for round := range 4 { // more often than it lacks openings
			await(t, 20*time.Second, "OSD 1 says that it waits", func() bool {
				if osd1().Up {
					t.Fatal("OSD 1 runs on a disk that was set back")
				}
				return strings.Contains(osd1().Waits, "disk accept")
			})
			if round == 3 || keep {
				break
			}
			u.Stop(20 * time.Second)
			u.Start()
		}
		if s := decode[admin.Status](t, on(t, u, "status", "--json")); !strings.Contains(strings.Join(s.Warnings, "\n"), "disk accept") {
			t.Errorf("status does not say what to do: %v", s.Warnings)
		}
		var v struct {
			Needed, SetBack bool
			Cluster         struct {
				OSD     int
				Verdict string
			}
			Accepted string
		}
		args := []string{"disk", "accept", "--json", disk}
		r := on(t, u, args...)
		if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != 4 || !v.Needed || v.Cluster.OSD != 1 || v.Cluster.Verdict != "older" || v.Accepted != "" {
			t.Fatalf("%v: exit code %d, %s%s", err, r.code, r.out, r.errors)
		}
		args = append(args, "--yes")
		if keep {
			args = append(args, "--keep-id")
		}
		on(t, u, args...).ok(t)
		await(t, 20*time.Second, "OSD 1 runs on the accepted disk", func() bool { return osd1().Up })
		u.Stop(20 * time.Second)
		u.Start()
		await(t, 20*time.Second, "OSD 1 runs on the accepted disk again", func() bool { return osd1().Up })
		u.Stop(20 * time.Second)
	}
}

// TestDiskThatWasSetBackIsRefilledByItself does it with nobody there to accept it.
func TestDiskThatWasSetBackIsRefilledByItself(t *testing.T) {
	u, _ := setBack(t)
	u.AwaitActive(60 * time.Second)
	if list := decode[[]admin.OSD](t, on(t, u, "ls-osd", "--json")); !list[0].Up || list[0].Waits != "" {
		t.Errorf("OSD 1: %+v", list[0])
	}
	if log := u.Log(); !strings.Contains(log, "the store is empty, under a new id") {
		t.Errorf("the log does not say what was done:\n%s", log)
	}
	u.Stop(20 * time.Second)
}

// TestOldDiskIsRefilledFromTheOthers writes, puts an earlier copy of OSD 1's disk back, and starts OSD 1 on that: first while the others serve, then alone, when it may be the last one there
// is. It is refilled each time once the others serve, and then holds all that was written.
func TestOldDiskIsRefilledFromTheOthers(t *testing.T) {
	d := stand.StartPlan(t, stand.Plan{OSDs: 3, OSDSize: 128 << 20})
	d.CLI("create", "demo", "--size", "16M")
	l := stand.NewLoad(t, 2048, d.Dial("demo"))
	write := func() {
		l.Start(6)
		time.Sleep(time.Second)
		l.Stop()
	}
	stop := func(n int) {
		if code := d.OSDs[n].Stop(20 * time.Second); code != 0 {
			t.Fatalf("OSD %d: exit code %d", n, code)
		}
	}
	start := func(n int) { d.StartOSD(n) }
	early := filepath.Join(d.Dir, "early")
	for _, alone := range []bool{false, true} {
		write()
		stop(1)
		copyFile(t, d.Disk(1), early)
		start(1)
		d.AwaitActive(30 * time.Second)
		write()
		if alone {
			for n := 3; n >= 1; n-- {
				d.OSDs[n].Kill()
			}
		} else {
			stop(1)
			write()
		}
		copyFile(t, early, d.Disk(1))
		start(1)
		if alone {
			var waits string
			await(t, 30*time.Second, "OSD 1 says why it waits", func() bool {
				waits = decode[[]admin.OSD](t, result{out: d.CLI("ls-osd", "--json")})[0].Waits
				return strings.Contains(waits, "start OSD 2, 3")
			})
			t.Log(waits)
			time.Sleep(3 * time.Second)
			if out := d.OSDs[1].Output().String(); strings.Contains(out, "it is emptied under a new id, and refilled") {
				t.Fatalf("OSD 1 has emptied its disk although it was alone:\n%s", out)
			}
			start(2)
			start(3)
		}
		d.OSDs[1].Await(60*time.Second, `the line "up"`, stand.HasLine("up"))
		d.AwaitActive(60 * time.Second)
		l.Verify()
		// What it holds is all there is.
		stop(2)
		stop(3)
		l.Verify()
		start(2)
		start(3)
		d.AwaitActive(60 * time.Second)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err2 := out.Close(); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
}
