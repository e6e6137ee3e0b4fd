package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// TestGarbageOnEveryPort sends garbage, halves of packets and absurd lengths to the ports of OSDs, NBD, NFS and iSCSI, while a load runs that must not notice, and looks that memory stays small.
func TestGarbageOnEveryPort(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "256M", "--image", "demo:64M")
	ports := map[string]string{"nbd": u.NBD, "nfs": u.NFS, "iscsi": u.ISCSI}
	var osds []struct {
		Num  uint64 `json:"osd_num"`
		Port int
	}
	if err := json.Unmarshal([]byte(u.CLI("ls-osd", "--json")), &osds); err != nil {
		t.Fatal(err)
	}
	for _, o := range osds {
		ports[fmt.Sprintf("osd %d", o.Num)] = "127.0.0.1:" + strconv.Itoa(o.Port)
	}
	l := stand.NewLoad(t, 4096, u.Dial("demo"))
	l.Start(4)
	before := resident(t, u.Pid())
	var open []net.Conn
	for name, address := range ports {
		for i, p := range badPackets(name) {
			c, err := net.DialTimeout("tcp", address, 5*time.Second)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = c.Write(p) // the server may close before it has everything
			switch i % 3 {
			case 0:
				c.Close()
			case 1: // a half-closed connection
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
				c.Close()
			default:
				open = append(open, c) // stays, silent, to the end
			}
		}
	}
	time.Sleep(time.Second)
	after := resident(t, u.Pid())
	gap, _ := l.Pause()
	l.Stop()
	for _, c := range open {
		c.Close()
	}
	l.Verify()
	t.Logf("resident memory %d MiB before, %d MiB after; longest pause of the load %v", before>>20, after>>20, gap.Round(time.Millisecond))
	if after > before+300<<20 {
		t.Errorf("memory grew from %d to %d MiB", before>>20, after>>20)
	}
	if errs := l.Errors(); len(errs) > 0 {
		t.Errorf("the load saw errors: %v", errs)
	}
	if gap > time.Second {
		t.Errorf("the load stood still for %v", gap)
	}
	u.AwaitActive(10 * time.Second)
	stand.Run(t, "nfs-cp", u.NFSURI("demo"), filepath.Join(t.TempDir(), "x"))
	stand.Run(t, "iscsi-inq", u.ISCSIURI("demo"))
}

// resident is the memory of a process in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// badPackets are what a port gets: for all the same garbage, and packets of its own protocol with absurd lengths.
func badPackets(port string) [][]byte {
	rng := rand.NewChaCha8([32]byte{7})
	garbage := make([]byte, 64<<10)
	_, _ = rng.Read(garbage)
	list := [][]byte{
		nil, {0}, {0xff, 0xff, 0xff, 0xff}, garbage, garbage[:127], garbage[:129], make([]byte, 4096), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), // a TLS client's hello
	}
	big := func(b []byte, at ...int) []byte {
		for _, i := range at {
			binary.BigEndian.PutUint32(b[i:], 0xfffffff0)
		}
		return b
	}
	switch {
	case port == "nbd":
		hello := []byte("\x00\x00\x00\x03IHAVEOPT")
		list = append(list, hello[:2], hello, big(append(hello, make([]byte, 8)...), 12), big(append(hello, make([]byte, 8)...), 12, 16),
			append(hello, "\x00\x00\x00\x07\x00\x00\x00\x0a\xff\xff\xff\xffdemo\x00\x00"...), append(hello, "\x00\x00\x00\x0a\x00\x00\x00\x0c\x00\x00\x00\x04demo\xff\xff\xff\xff"...),
			// A write of 4 GiB, after a good start.
			append(hello, "\x00\x00\x00\x01\x00\x00\x00\x04demo\x25\x60\x95\x13\x00\x00\x00\x01cookie!!\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"...),
			append(hello, "\x00\x00\x00\x01\x00\x00\x00\x04demo\x25\x60\x95\x13\x00\x00\x00\x00cookie!!\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x10\x00"...))
	case port == "nfs":
		call := func(program, version, procedure uint32, rest ...uint32) []byte {
			var b []byte
			for _, v := range append([]uint32{0, 1, 0, 2, program, version, procedure, 0, 0, 0, 0}, rest...) {
				b = binary.BigEndian.AppendUint32(b, v)
			}
			binary.BigEndian.PutUint32(b, 1<<31|uint32(len(b)-4))
			return b
		}
		list = append(list, call(100003, 3, 0)[:20], call(100003, 3, 1, 0xffffffff), call(100003, 3, 7, 64, 0, 0), call(100005, 3, 1, 0xfffffff0), call(100003, 3, 999), call(100003, 9, 1), call(77, 1, 1),
			big(call(100003, 3, 0), 0), big(call(100003, 3, 0), 28), []byte("\x7f\xff\xff\xff\x00\x00\x00\x01"), []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	case port == "iscsi":
		pdu := func(op byte, ahs byte, length uint32) []byte {
			b := make([]byte, 48)
			b[0], b[1] = op, 0x87
			binary.BigEndian.PutUint32(b[4:], length)
			b[4] = ahs
			return b
		}
		list = append(list, pdu(0x43, 0, 0xffffff), pdu(0x43, 0xff, 64), pdu(0x43, 0, 0), append(pdu(0x43, 0, 24), "InitiatorName=a\x00x\x00\x00\x00\x00\x00\x00\x00"...), pdu(0x01, 0, 0), pdu(0x05, 0, 0xffffff), pdu(0x3f, 0, 8), pdu(0x43, 0, 8)[:20],
			func() []byte { b := pdu(0x43, 0, 0); b[14], b[15] = 0xab, 0xcd; return b }()) // a TSIH that does not exist
	default: // an OSD: header of 128 bytes, the magic of a request, an id, an opcode
		packet := func(opcode uint64, at map[int]uint64) []byte {
			b := make([]byte, 128)
			copy(b, "\x53\x45\x43\x25\x03\xb1\xd7\x2b")
			binary.LittleEndian.PutUint64(b[8:], 1)
			binary.LittleEndian.PutUint64(b[16:], opcode)
			for i, v := range at {
				binary.LittleEndian.PutUint64(b[i:], v)
			}
			return b
		}
		all := map[int]uint64{24: ^uint64(0), 32: ^uint64(0), 40: ^uint64(0), 48: ^uint64(0), 56: ^uint64(0), 64: ^uint64(0), 112: ^uint64(0), 120: ^uint64(0)}
		for op := range uint64(48) {
			list = append(list, packet(op, nil), packet(op, all), packet(op, map[int]uint64{40: 0xfffffff0}))
		}
		list = append(list, packet(^uint64(0), nil), packet(15, nil)[:64])
	}
	return list
}

// TestMalformedKeys puts garbage into etcd under a running cluster: what was good stays served, what is said is clear, and a restart works.
func TestMalformedKeys(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "256M", "--image", "demo:64M")
	u.Create("other", "16M")
	l := stand.NewLoad(t, 4096, u.Dial("demo"))
	l.Start(4)
	put := func(key, value string) { u.Etcdctl("put", "/vitastor/"+key, value) }
	inode := strings.Fields(u.Etcdctl("get", "--keys-only", "--prefix", "/vitastor/config/inode/"))
	if len(inode) < 2 {
		t.Fatalf("inodes: %q", inode)
	}
	pools := u.Etcdctl("get", "--print-value-only", "/vitastor/config/pools")
	for key, value := range map[string]string{
		"config/inode/1/99": "{", "config/inode/1/98": `{"name":7,"size":"x"}`, "config/inode/1/97": `{"name":"huge","size":99999999999999999999}`, "config/inode/abc/def": "{}", "config/inode/1/96": "\xff\xfe",
		"config/inode/77/1": `{"name":"poolless","size":1048576}`, "config/inode/1/95": `[[[[[[`, "config/global": `{"pg_lock_time":"never"`, "config/node_placement": `[1]`, "config/osd/1": `"x"`,
		"osd/state/77": "nonsense", "osd/stats/1": "{{", "pg/state/1/1x": "{}", "pool/stats/1": "[]", "fence/x": "{}", "gateway/zzz": "3", "interval/9/9": "no",
		"index/image/ghost": `{"id":1}`, "index/maxid/1": "many",
	} {
		put(key, value)
	}
	time.Sleep(1500 * time.Millisecond)
	stillServes(t, u, l, "inodes, states and statistics")
	for _, value := range []string{"{", `{"1":{"name":"pool","scheme":"replicated","pg_size":-3}}`, `{"x":1}`, `null`, "7"} {
		put("config/pools", value)
		time.Sleep(300 * time.Millisecond)
		stillServes(t, u, l, "config/pools "+value)
	}
	put("config/pools", strings.TrimSpace(pools))
	good := strings.TrimSpace(u.Etcdctl("get", "--print-value-only", "/vitastor/pg/config"))
	for _, value := range []string{"{", `{"items":{"1":{"1":{"osd_set":["x"],"primary":9}}}}`, `{"items":7}`} {
		put("pg/config", value)
		time.Sleep(300 * time.Millisecond)
		stillServes(t, u, l, "pg/config "+value)
	}
	put("pg/config", good)
	time.Sleep(time.Second)
	u.AwaitActive(stand.UpTime)
	stillServes(t, u, l, "the good values again")
	l.Stop()
	l.Verify()
	said := u.Log() + u.Output().String()
	for _, key := range []string{"config/inode/1/99", "config/pools", "pg/config"} {
		if !strings.Contains(said, key) {
			t.Errorf("nothing was said of %s", key)
		}
	}
	if code := u.Stop(30 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	u.Start()
	l.Verify()
}

// stillServes fails unless the load goes on without errors.
func stillServes(t *testing.T, u *stand.Up, l *stand.Load, after string) {
	t.Helper()
	if u.Ended() {
		t.Fatalf("the cluster ended after: %s", after)
	}
	n := l.Writes.Load()
	for end := time.Now().Add(5 * time.Second); l.Writes.Load() < n+20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing is written any more after: %s", after)
		}
	}
	if errs := l.Errors(); len(errs) > 0 {
		t.Errorf("clients saw errors after %s: %v", after, errs)
	}
}
