package iscsi

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/frontends/iscsi"
)

func TestDiscovery(t *testing.T) {
	each(t, iscsi.Options{}, 1<<20, func(t *testing.T, g *gateway) {
		out := must(t, "iscsi-ls", "-s", "iscsi://"+g.portals[0]+"/")
		for _, want := range []string{"Target:" + target + " Portal:" + g.portals[0] + ",1", "Target:" + iscsi.TargetName(iscsi.DefaultPrefix, "Other disk") + " ", "Lun:0    Type:DIRECT_ACCESS"} {
			if !strings.Contains(out, want) {
				t.Errorf("iscsi-ls printed %q, want it to contain %q", out, want)
			}
		}
	})
}

func TestInquiryAndCapacity(t *testing.T) {
	each(t, iscsi.Options{}, 1<<30, func(t *testing.T, g *gateway) {
		if out := must(t, "iscsi-inq", g.url()); !strings.Contains(out, "Vendor:HOLDFAST") {
			t.Errorf("iscsi-inq printed %q", out)
		}
		for page, want := range map[string]string{"128": "Unit Serial Number:[", "131": "NAA", "176": "maximum compare and write length:1", "177": "", "178": "lbpu:1"} {
			if out := must(t, "iscsi-inq", "-e", "1", "-c", page, g.url()); !strings.Contains(out, want) {
				t.Errorf("iscsi-inq of page %s printed %q, want it to contain %q", page, out, want)
			}
		}
		if out := must(t, "iscsi-readcapacity16", g.url()); !strings.Contains(out, "Total size:1073741824") || !strings.Contains(out, "EXPONENT:3") {
			t.Errorf("iscsi-readcapacity16 printed %q", out)
		}
	})
}

// TestCHAPWithLibiscsi logs in with one-way and mutual CHAP, and with a wrong secret.
func TestCHAPWithLibiscsi(t *testing.T) {
	o := iscsi.Options{CHAP: func(image string) (iscsi.CHAP, bool) {
		return iscsi.CHAP{User: "alice", Secret: "a secret of twelve", MutualUser: "target", MutualSecret: "another of twelve"}, image != ""
	}}
	each(t, o, 1<<20, func(t *testing.T, g *gateway) {
		with := func(credentials string) string {
			return "iscsi://" + credentials + "@" + g.portals[0] + "/" + target + "/0"
		}
		must(t, "iscsi-inq", with("alice%a secret of twelve"))
		must(t, "iscsi-inq", with("alice%a secret of twelve")+"?target_user=target&target_password=another of twelve")
		if out, err := run(t, 20*time.Second, "iscsi-inq", with("alice%wrong")); err == nil {
			t.Errorf("a wrong secret was accepted: %q", out)
		}
		if out, err := run(t, 20*time.Second, "iscsi-inq", g.url()); err == nil {
			t.Errorf("no credentials were accepted: %q", out)
		}
	})
}

// TestQemuConvert copies an image in and compares it, with and without header digests.
func TestQemuConvert(t *testing.T) {
	const size = 64 << 20
	file := filepath.Join(t.TempDir(), "image.raw")
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	for off := 0; off < size; off += 3 << 20 { // data and holes
		_, _ = rng.Read(data[off:min(off+1<<20+4096, size)]) // never fails
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	each(t, iscsi.Options{}, size, func(t *testing.T, g *gateway) {
		for _, digest := range []string{"none", "crc32c"} {
			url := fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"iscsi","transport":"tcp","portal":%q,"target":%q,"lun":0,"header-digest":%q}}`, g.portals[0], target, digest)
			must(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8", file, g.url())
			if out := must(t, "qemu-img", "compare", "-f", "raw", file, url); !strings.Contains(out, "identical") {
				t.Errorf("qemu-img compare with header digest %s printed %q", digest, out)
			}
		}
		got := make([]byte, size)
		g.disk.ReadAt(got, 0)
		if string(got) != string(data) {
			t.Error("the device holds other bytes than the image")
		}
	})
}

func TestPerfRunsWithoutErrors(t *testing.T) {
	each(t, iscsi.Options{}, 64<<20, func(t *testing.T, g *gateway) {
		out := must(t, "iscsi-perf", "-b", "8", "-m", "32", "-r", "-t", "1", g.url())
		if i := strings.LastIndex(out, "iops average"); i >= 0 {
			t.Log(strings.TrimSpace(strings.SplitN(out[i:], "\n", 2)[0]))
		}
	})
}
