package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// lost is a cluster whose etcd is about to be lost.
type lost struct {
	t *testing.T
	*stand.Daemons
}

const blocks = 256 // of an image: of each of its PGs, and of several objects

// write fills the blocks of an image that are of a kind by their number with a letter. It returns when all is acknowledged.
func (x *lost) write(image string, letter byte, of func(block int) bool) {
	x.t.Helper()
	c, err := x.Dial(image)()
	if err != nil {
		x.t.Fatal(err)
	}
	defer c.Close()
	for b := range blocks {
		if of(b) {
			if _, err := c.WriteAt(content(image, letter, b), int64(b)*stand.BlockSize*17); err != nil { // in objects that are not neighbours
				x.t.Fatalf("write %c to block %d of %s: %v", letter, b, image, err)
			}
		}
	}
}

// content is what a block holds: no two are the same.
func content(image string, letter byte, block int) []byte {
	one := fmt.Sprintf("%s %c %d;", image, letter, block)
	return []byte(strings.Repeat(one, stand.BlockSize/len(one)+1)[:stand.BlockSize])
}

// read compares an image with the letters that it should have.
func (x *lost) read(image, as string, want func(block int) byte) {
	x.t.Helper()
	c, err := x.Dial(image)()
	if err != nil {
		x.t.Fatal(err)
	}
	defer c.Close()
	p, wrong := make([]byte, stand.BlockSize), 0
	for b := range blocks {
		if _, err := c.ReadAt(p, int64(b)*stand.BlockSize*17); err != nil {
			x.t.Fatalf("read block %d of %s: %v", b, image, err)
		}
		should := make([]byte, stand.BlockSize)
		if l := want(b); l != 0 {
			should = content(as, l, b)
		}
		if !bytes.Equal(p, should) {
			if wrong++; wrong == 1 {
				x.t.Errorf("block %d of %s holds %.20q, want %.20q", b, image, p, should)
			}
		}
	}
	if wrong > 0 {
		x.t.Errorf("%d of %d blocks of %s are wrong", wrong, blocks, image)
	}
}

// refused runs a command that has to end with 4.
func (x *lost) refused(want string, args ...string) {
	x.t.Helper()
	out, err := x.TryCLI(args...)
	if err == nil || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(out, want) {
		x.t.Fatalf("%v: %v, want exit code 4 and %q:\n%s", args, err, want, out)
	}
}

// stop stops every daemon.
func (x *lost) stop() {
	x.t.Helper()
	x.Gate.Kill()
	for _, m := range x.Mons {
		m.Kill()
	}
	for _, o := range x.OSDs {
		o.Kill()
	}
}

// TestLostEtcdIsRestoredFromASnapshot loses etcd with everything in it. The snapshot is older than what happened last: images were made, and OSDs wrote on while others were away.
func TestLostEtcdIsRestoredFromASnapshot(t *testing.T) {
	x := &lost{t, stand.StartPlan(t, stand.Plan{OSDs: 3, OSDSize: 128 << 20, PGs: 8, Monitor: []string{"--etcd_snapshot_interval", "1"}})}
	x.CLI("create", "data", "--size", "20M")
	x.CLI("create", "gone", "--size", "20M")
	all := func(int) bool { return true }
	x.write("data", 'A', all)
	x.AwaitActive(settle)
	file := filepath.Join(x.Dir, "snapshot.json")
	x.CLI("etcd", "snapshot", file)

	// What the snapshot does not know: an image, one that is removed, and writes that only two OSDs have, then only one.
	x.CLI("create", "later", "--size", "20M")
	x.write("later", 'L', all)
	x.CLI("rm", "gone")
	later := inode(t, x, "later")
	x.OSDs[3].Stop(20 * time.Second)
	x.write("data", 'B', func(b int) bool { return b%2 == 1 })
	x.OSDs[1].Stop(20 * time.Second)
	x.write("data", 'C', func(b int) bool { return b%4 == 3 })
	want := func(b int) byte { return "ABAC"[b%4] }
	x.read("data", "data", want)

	// The monitor has written files of its own, the newest of which status names.
	var status struct {
		Snapshot struct{ File string } `json:"etcd_snapshot"`
	}
	for end := time.Now().Add(10 * time.Second); status.Snapshot.File == ""; time.Sleep(100 * time.Millisecond) {
		out := x.CLI("status", "--json")
		if err := json.Unmarshal([]byte(out), &status); err != nil || time.Now().After(end) {
			t.Fatalf("status tells of no snapshot of etcd (%v):\n%s", err, out)
		}
	}
	x.CLI("etcd", "check", status.Snapshot.File)

	x.stop()
	x.WipeEtcd()

	// Somebody starts daemons with the empty etcd: they make another cluster of it.
	x.StartMonitor(1)
	x.Mons[1].Await(stand.UpTime, `the line "up"`, stand.HasLine("up"))
	time.Sleep(500 * time.Millisecond)
	x.refused("daemons run", "etcd", "restore", "--yes", file)
	x.Mons[1].Stop(20 * time.Second)
	x.refused("is not empty", "etcd", "restore", "--yes", file)
	x.refused("nothing was done", "etcd", "restore", "--replace", file)
	x.CLI("etcd", "restore", "--replace", "--yes", file)
	if kept, _ := filepath.Glob(filepath.Join(x.Dir, "replaced-*")); len(kept) != 1 {
		t.Errorf("what was replaced is kept in %q", kept)
	}

	// Without the OSD that knows what came last nothing is served that is older.
	x.StartMonitor(1)
	x.StartOSD(1)
	x.StartOSD(3)
	for _, n := range []int{1, 3} {
		x.OSDs[n].Await(stand.UpTime, `the line "up"`, stand.HasLine("up"))
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if out := x.CLI("pg-list", "--json"); strings.Contains(out, `"active"`) {
			t.Fatalf("a PG is active before OSD 2 has reported:\n%s", out)
		}
	}
	if out := x.CLI("status"); !strings.Contains(out, "until OSD [2] have reported") {
		t.Errorf("status does not say who is waited for:\n%s", out)
	}
	x.StartOSD(2)
	x.AwaitActive(settle)
	x.StartGateway()
	x.Gate.Await(stand.UpTime, `the line "up"`, stand.HasLine("up"))
	x.read("data", "data", want)
	x.read("gone", "gone", func(int) byte { return 0 })
	if out := x.CLI("ls"); strings.Contains(out, "later") {
		t.Errorf("an image that was made after the snapshot is listed:\n%s", out)
	}
	// A new image is empty, and that of before can be got back as docs/operating.md says.
	x.CLI("create", "later", "--size", "20M")
	x.read("later", "later", func(int) byte { return 0 })
	if inode(t, x, "later") == later {
		t.Error("the new image has the number of one whose data is still there")
	}
	x.write("later", 'N', all)
	x.Put("config/inode/1/"+later, `{"name":"found","size":20971520,"meta":{"holdfast_id":"00112233445566778899aabbccddeeff"}}`)
	x.Put("index/image/found", `{"id":`+later+`,"pool_id":1}`)
	waitListed(t, x, "found")
	x.read("found", "later", func(int) byte { return 'L' })
	x.read("later", "later", func(int) byte { return 'N' })
	x.read("data", "data", want)
}

// inode is the number of an image.
func inode(t *testing.T, x *lost, image string) string {
	t.Helper()
	out, err := x.Etcdctl("get", "--print-value-only", "/vitastor/index/image/"+image)
	m := regexp.MustCompile(`"id":(\d+)`).FindStringSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("the index of %s: %v\n%s", image, err, out)
	}
	return m[1]
}

func waitListed(t *testing.T, x *lost, image string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		c, err := x.Dial(image)()
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not served: %v", image, err)
		}
	}
}
