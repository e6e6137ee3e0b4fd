package nbd

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/frontends/nbd"
	"holdfast/frontends/volume/memory"
)

const size = 64 << 20

func image(name string, delay time.Duration) *memory.Device {
	return memory.New(memory.Options{Name: name, Size: size, MaxDelay: delay, Seed: 11})
}

func TestNbdinfo(t *testing.T) {
	s := start(t, "", nbd.Options{}, image("demo", 0))
	type export struct {
		Name     string   `json:"export-name"`
		Size     uint64   `json:"export-size"`
		Minimum  uint32   `json:"block_size_minimum"`
		Prefer   uint32   `json:"block_size_preferred"`
		Maximum  uint32   `json:"block_size_maximum"`
		Multi    bool     `json:"can_multi_conn"`
		DF       bool     `json:"can_df"`
		FUA      bool     `json:"can_fua"`
		Flush    bool     `json:"can_flush"`
		Trim     bool     `json:"can_trim"`
		Zero     bool     `json:"can_zero"`
		Fast     bool     `json:"can_fast_zero"`
		Cache    bool     `json:"can_cache"`
		ReadOnly bool     `json:"is_read_only"`
		Contexts []string `json:"contexts"`
	}
	for _, uri := range []string{s.uri("demo"), s.uri(""), s.unixURI("demo")} {
		var info struct {
			Protocol   string `json:"protocol"`
			Structured bool   `json:"structured"`
			Exports    []export
		}
		out := client(t, "nbdinfo", "--json", uri)
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			t.Fatalf("nbdinfo --json: %v\n%s", err, out)
		}
		if info.Protocol != "newstyle-fixed" || !info.Structured || len(info.Exports) != 1 {
			t.Fatalf("%s: %+v", uri, info)
		}
		e := info.Exports[0]
		if e.Size != size || e.Minimum != 512 || e.Prefer != 4096 || e.Maximum != 32<<20 || e.ReadOnly ||
			!(e.Multi && e.DF && e.FUA && e.Flush && e.Trim && e.Zero && e.Fast && e.Cache) || len(e.Contexts) != 1 || e.Contexts[0] != "base:allocation" {
			t.Errorf("%s: %+v", uri, e)
		}
	}
	s.catalog.Add(image("another", 0))
	if out := client(t, "nbdinfo", "--list", "nbd://"+s.tcp); !strings.Contains(out, `export="demo"`) || !strings.Contains(out, `export="another"`) {
		t.Errorf("nbdinfo --list:\n%s", out)
	}
}

func TestNbdinfoMap(t *testing.T) {
	d := image("demo", 0)
	d.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 1<<20)
	s := start(t, "", nbd.Options{}, d)
	got := strings.Join(strings.Fields(client(t, "nbdinfo", "--map", s.uri("demo"))), " ")
	want := "0 1048576 3 hole,zero 1048576 1048576 0 data 2097152 65011712 3 hole,zero"
	if got != want {
		t.Errorf("nbdinfo --map: %s, want %s", got, want)
	}
}

// content is a file of size bytes with data, zeroes and holes.
func content(t *testing.T) string {
	t.Helper()
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	for off := 0; off < size; off += 1 << 20 {
		if off>>20%3 != 1 {
			_, _ = rng.Read(b[off : off+1<<20-512*(off>>20%7)])
		}
	}
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func same(t *testing.T, d *memory.Device, path string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	d.ReadAt(got, 0)
	if !bytes.Equal(got, want) {
		t.Error("the image differs from what was written to it")
	}
}

func TestQemuImgConvertsThereAndBack(t *testing.T) {
	onEachLoop(t, func(t *testing.T, kind string) {
		d := image("demo", 200*time.Microsecond)
		s := start(t, kind, nbd.Options{}, d)
		from := content(t)
		client(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-m", "16", "-W", from, s.uri("demo"))
		same(t, d, from)
		back := filepath.Join(t.TempDir(), "back")
		client(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.unixURI("demo"), back)
		same(t, d, back)
		client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", from, s.uri("demo"))
	})
}

func TestNbdcopyThereAndBack(t *testing.T) {
	onEachLoop(t, func(t *testing.T, kind string) {
		d := image("demo", 200*time.Microsecond)
		s := start(t, kind, nbd.Options{MaxInFlight: 40, MaxBytes: 4 << 20}, d)
		from := content(t)
		client(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", from, s.uri("demo"))
		same(t, d, from)
		back := filepath.Join(t.TempDir(), "back")
		client(t, "nbdcopy", "--connections=4", "--requests=64", s.unixURI("demo"), back)
		same(t, d, back)
	})
}

func TestQemuIO(t *testing.T) {
	s := start(t, "", nbd.Options{}, image("demo", 0))
	out := client(t, "qemu-io", "-f", "raw",
		"-c", "write -P 0x11 0 1M", "-c", "write -f -P 0x22 512 512", "-c", "flush", "-c", "discard 64k 64k", "-c", "write -z 128k 64k", "-c", "write -z -u 192k 64k",
		"-c", "read -P 0x11 0 512", "-c", "read -P 0x22 512 512", "-c", "read -P 0x11 1k 63k", "-c", "read -P 0 64k 192k", "-c", "read -P 0x11 256k 768k",
		"-c", "read -P 0 63M 1M", "-c", "write -P 0x33 0 32M", "-c", "read -P 0x33 0 32M", "-c", "map",
		s.uri("demo"))
	if strings.Contains(out, "failed") || strings.Contains(out, "error") {
		t.Error(out)
	}
}

func TestQemuIORefusesToWriteReadOnly(t *testing.T) {
	s := start(t, "", nbd.Options{ReadOnly: true}, image("demo", 0))
	out := client(t, "qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 1M", s.uri("demo"))
	if strings.Contains(out, "failed") {
		t.Error(out)
	}
}

func TestFioVerify(t *testing.T) {
	onEachLoop(t, func(t *testing.T, kind string) {
		s := start(t, kind, nbd.Options{}, image("demo", 300*time.Microsecond))
		for _, uri := range []string{s.uri("demo"), s.unixURI("demo")} {
			client(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+uri, "--rw=randrw", "--bsrange=512-64k", "--bs_unaligned=0", "--blockalign=512",
				"--iodepth=32", "--size=16m", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--randseed=5")
		}
	})
}

// Garbage, half requests and vanishing clients cost the sender only, on real sockets as in the simulator.
func TestBadClientsBesideGoodOnes(t *testing.T) {
	onEachLoop(t, func(t *testing.T, kind string) {
		d := image("demo", 200*time.Microsecond)
		s := start(t, kind, nbd.Options{}, d)
		hello := []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x04demo")
		write := func(n byte) []byte { // of 16 MiB, with n bytes of it
			return append([]byte("\x25\x60\x95\x13\x00\x00\x00\x01cookie!!\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"), make([]byte, n)...)
		}
		for i, b := range [][]byte{
			nil, {1}, []byte("GET / HTTP/1.1\r\n\r\n"), hello[:13], append(hello, "garbage that is long enough to be a request"...),
			append(hello, write(0)...), append(hello, write(200)...),
		} {
			c, err := net.Dial("tcp", s.tcp)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(b); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			if i%2 == 0 {
				c.Close() // the others stay until the end
			} else {
				defer c.Close()
			}
		}
		from := content(t)
		client(t, "nbdcopy", from, s.uri("demo"))
		same(t, d, from)
	})
}
