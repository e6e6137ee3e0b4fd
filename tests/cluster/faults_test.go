package cluster

import (
	"fmt"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// fault is one thing that goes wrong and is put right again.
type fault struct {
	name  string
	lasts time.Duration // about how long do takes
	// limit bounds the slowest request, from when it was sent to its answer. Where nothing is promised it is twice what was measured and more, as the machine may be busy; the table of docs/proof.md says what it was.
	limit time.Duration
	// gateway says that the gateway ends: then clients lose their connections and connect again, which fio cannot do.
	gateway bool
	do      func(t *testing.T, d *stand.Daemons, round int)
}

// hosts is how many there are with an etcd member, a monitor and an OSD.
const hosts = 3

// expire is longer than every lease and lock: etcd_lease_ttl is 5 s, pg_lock_time 1.5 s.
const expire = 8 * time.Second

// pick is the host that a round hits.
func pick(round int) int { return round%hosts + 1 }

var faults = []fault{
	{"OSD process killed", 2 * time.Second, time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		d.KillChild(pick(round))
		time.Sleep(2 * time.Second) // its parent starts it again
	}},
	{"OSD and its parent killed", expire, 6 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		n := pick(round)
		d.OSDs[n].Kill()
		time.Sleep(expire)
		d.StartOSD(n)
	}},
	{"OSD stopped in order", 2 * time.Second, time.Second, false, func(t *testing.T, d *stand.Daemons, round int) {
		n := pick(round)
		if code := d.OSDs[n].Stop(20 * time.Second); code != 0 {
			t.Errorf("OSD %d ended with code %d after SIGTERM", n, code)
		}
		time.Sleep(time.Second)
		d.StartOSD(n)
	}},
	{"OSD paused for 8 s", expire, 6 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		n := pick(round)
		d.PauseOSD(n)
		time.Sleep(expire)
		d.ResumeOSD(n)
	}},
	{"host unplugged for 8 s", expire, 6 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		cut(d, expire, d.Hosts[pick(round)].Unplug)
	}},
	{"host deaf for 8 s", expire, 12 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		cut(d, expire, func() { d.Hosts[pick(round)].Deafen() })
	}},
	{"host mute for 8 s", expire, 12 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		cut(d, expire, func() { d.Hosts[pick(round)].Mute() })
	}},
	{"two hosts parted for 8 s", expire, 12 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		cut(d, expire, func() { d.Hosts[pick(round)].Part(d.Hosts[pick(round+1)]) })
	}},
	{"host deaf to another for 8 s", expire, 12 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		cut(d, expire, func() { d.Hosts[pick(round)].Deafen(d.Hosts[pick(round+1)]) })
	}},
	{"gateway parted from a host for 3 s", 3 * time.Second, 8 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		cut(d, 3*time.Second, func() { d.GateHost.Part(d.Hosts[pick(round)]) })
	}},
	{"link flapping for 6 s", 6 * time.Second, 12 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		h := d.Hosts[pick(round)]
		for range 10 {
			h.Unplug()
			time.Sleep(300 * time.Millisecond)
			h.Plug()
			time.Sleep(300 * time.Millisecond)
		}
	}},
	{"etcd's leader killed for 6 s", 6 * time.Second, 3 * time.Second, false, func(_ *testing.T, d *stand.Daemons, _ int) {
		n := d.EtcdLeader()
		d.Etcds[n].Kill()
		time.Sleep(6 * time.Second)
		d.StartEtcd(n)
	}},
	{"two of three etcd members killed for 8 s", expire, 3 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		a, b := pick(round), pick(round+1)
		d.Etcds[a].Kill()
		d.Etcds[b].Kill()
		time.Sleep(expire)
		d.StartEtcd(a)
		d.StartEtcd(b)
		d.AwaitEtcd(20 * time.Second)
	}},
	{"all monitors killed for 6 s", 6 * time.Second, 2 * time.Second, false, func(_ *testing.T, d *stand.Daemons, _ int) {
		for n := 1; n <= hosts; n++ {
			d.Mons[n].Kill()
		}
		time.Sleep(6 * time.Second)
		for n := 1; n <= hosts; n++ {
			d.StartMonitor(n)
		}
	}},
	{"disks full", 10 * time.Second, 10 * time.Second, false, fill},
	{"all but the gateway killed", 3 * time.Second, 15 * time.Second, false, func(_ *testing.T, d *stand.Daemons, _ int) {
		killAll(d)
		startAll(d)
	}},
	{"gateway killed", time.Second, 5 * time.Second, true, func(_ *testing.T, d *stand.Daemons, _ int) {
		d.Gate.Kill()
		d.StartGateway()
	}},
	{"everything killed", 3 * time.Second, 15 * time.Second, true, func(_ *testing.T, d *stand.Daemons, _ int) {
		d.Gate.Kill()
		killAll(d)
		startAll(d)
		d.StartGateway()
	}},
}

// longer are what TestVerify puts on pools of two and of three copies.
var longer = []fault{
	{"each OSD process killed in turn", 12 * time.Second, 2 * time.Second, false, func(_ *testing.T, d *stand.Daemons, _ int) {
		for n := 1; n <= hosts; n++ {
			d.KillChild(n)
			time.Sleep(2 * time.Second)
			d.AwaitActive(settle)
		}
	}},
	{"OSD paused for twice the lease", 10 * time.Second, 10 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		n := pick(round)
		d.PauseOSD(n)
		time.Sleep(10 * time.Second)
		d.ResumeOSD(n)
	}},
	{"host unplugged for a minute", time.Minute, 6 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		cut(d, time.Minute, d.Hosts[pick(round)].Unplug)
	}},
	{"etcd member killed for 6 s", 6 * time.Second, 3 * time.Second, false, func(_ *testing.T, d *stand.Daemons, round int) {
		n := pick(round)
		d.Etcds[n].Kill()
		time.Sleep(6 * time.Second)
		d.StartEtcd(n)
	}},
}

// promised is the longest time without any answer that is promised, by fault, whether the host has etcd's leader or not.
var promised = map[string]time.Duration{
	"OSD process killed": time.Second, "each OSD process killed in turn": time.Second,
	"OSD stopped in order":   500 * time.Millisecond,
	"host unplugged for 8 s": 6 * time.Second, "host unplugged for a minute": 6 * time.Second,
	// What is away with nobody to tell of it is lost as a host is.
	"OSD and its parent killed": 6 * time.Second, "OSD paused for 8 s": 6 * time.Second, "OSD paused for twice the lease": 6 * time.Second,
	// I/O goes on while no set must change.
	"two of three etcd members killed for 8 s": time.Second, "all monitors killed for 6 s": time.Second,
}

// cut does something to the network for a while.
func cut(d *stand.Daemons, lasts time.Duration, f func()) {
	defer d.Net.Heal()
	f()
	time.Sleep(lasts)
}

func killAll(d *stand.Daemons) {
	for n := 1; n <= hosts; n++ {
		d.OSDs[n].Kill()
		d.Etcds[n].Kill()
		d.Mons[n].Kill()
	}
}

func startAll(d *stand.Daemons) {
	for n := 1; n <= hosts; n++ {
		d.StartEtcd(n)
		d.StartOSD(n)
		d.StartMonitor(n)
	}
}

// fill writes another image until the disks are full, which a write that waits for space shows, holds them full for a while, and deletes that image.
func fill(t *testing.T, d *stand.Daemons, round int) {
	image := fmt.Sprintf("filler%d", round)
	d.CLI("create", image, "--size", "2G")
	c, err := d.Dial(image)()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i>>12) | 1
	}
	for off := int64(0); ; off += int64(len(p)) {
		if off >= 2<<30 {
			t.Fatal("2 GiB went into disks that are smaller")
		}
		written := make(chan error, 1)
		go func() {
			_, err := c.WriteAt(p, off)
			written <- err
		}()
		full := false
		select {
		case err := <-written:
			if err != nil {
				t.Fatalf("write of MiB %d: %v, wanted it to wait for space", off>>20, err)
			}
		case <-time.After(3 * time.Second):
			full = true
		}
		if full {
			t.Logf("full after %d MiB", off>>20)
			break
		}
	}
	time.Sleep(2 * time.Second)
	d.CLI("rm", image)
}
