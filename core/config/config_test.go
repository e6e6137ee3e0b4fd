package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/config"
)

var update = flag.Bool("update", false, "write docs/parameters.md and docs/holdfast.conf.sample anew")

func TestReferenceAndSampleAreCurrent(t *testing.T) {
	for path, want := range map[string]string{"../../docs/parameters.md": config.Reference(), "../../docs/holdfast.conf.sample": config.Sample()} {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s does not match the table (%v); run go test ./core/config -update", path, err)
		}
	}
	if _, err := config.Load(config.Sources{File: []byte(config.Sample())}); err != nil {
		t.Errorf("the sample does not load: %v", err)
	}
}

func TestStrongestSourceWins(t *testing.T) {
	s := config.Sources{
		File:    []byte(`{"osd_out_time": 1, "osd_ping_timeout": 2, "peer_connect_timeout": 3, "etcd_stats_interval": 4}`),
		Etcd:    map[string]json.RawMessage{"osd_ping_timeout": []byte(`"3"`), "peer_connect_timeout": []byte("4"), "etcd_stats_interval": []byte("5")},
		Environ: []string{"PATH=/bin", "HOLDFAST_PEER_CONNECT_TIMEOUT=5", "HOLDFAST_ETCD_STATS_INTERVAL=6", "HOLDFAST_TEST_X=1"},
		Flags:   map[string]string{"etcd_stats_interval": "7s"},
	}
	v, err := config.Load(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		want time.Duration
		from config.Source
	}{
		{"osd_idle_timeout", 500 * time.Millisecond, config.FromDefault},
		{"osd_out_time", time.Second, config.FromFile},
		{"osd_ping_timeout", 3 * time.Second, config.FromEtcd},
		{"peer_connect_timeout", 5 * time.Second, config.FromEnvironment},
		{"etcd_stats_interval", 7 * time.Second, config.FromFlag},
	} {
		if got := v.Duration(c.name); got != c.want || v.From(c.name) != c.from {
			t.Errorf("%s = %v from %v, want %v from %v", c.name, got, v.From(c.name), c.want, c.from)
		}
	}
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	_, err := config.Load(config.Sources{
		FileName: "h.conf",
		File:     []byte(`{"bind_prt": 1, "bind_port": 70000, "etcd_password": ["a"]}`),
		Etcd:     map[string]json.RawMessage{"etcd_address": []byte(`"a:1"`), "osd_network": []byte(`"10.0.0.0/99"`), "block_size": []byte("1000")},
		Environ:  []string{"HOLDFAST_NO_RECOVERY=maybe", "HOLDFAST_NONSENSE=1"},
		Flags:    map[string]string{"data_csum_type": "md5", "what": ""},
	})
	faults, ok := errors.AsType[config.Faults](err)
	if !ok {
		t.Fatalf("err = %v, want Faults", err)
	}
	want := []string{
		`h.conf bind_port is "70000", want integer from 0 to 65535`,
		`h.conf bind_prt is not a parameter; did you mean bind_port?`,
		`h.conf etcd_password is "********", want text`,
		`etcd config/global block_size is "1000", want a number of bytes, or one with K, M, G or T from 4K to 128M`,
		`etcd config/global etcd_address may not be set in etcd; use the configuration file, HOLDFAST_ETCD_ADDRESS or --etcd_address`,
		`etcd config/global osd_network has "10.0.0.0/99", want networks such as 10.0.0.0/8 or fd00::/8`,
		`HOLDFAST_NONSENSE is not a parameter; docs/parameters.md lists them`,
		`HOLDFAST_NO_RECOVERY is "maybe", want true or false`,
		`--data_csum_type is "md5", want crc32c, none`,
		`--what is not a parameter; docs/parameters.md lists them`,
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.Error())
	}
	if !slices.Equal(got, want) {
		t.Errorf("faults:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, err := config.Load(config.Sources{File: []byte("[1]")}); err == nil {
		t.Error("a file that is no object was accepted")
	}
}

func TestLayoutIsNotTakenFromTheFile(t *testing.T) {
	v, err := config.Load(config.Sources{File: []byte(`{"block_size": 1048576, "use_rdma": true}`)})
	if err != nil {
		t.Fatal(err)
	}
	if v.Bytes("block_size") != 128<<10 || len(v.Warnings) != 2 {
		t.Errorf("block_size = %d, warnings %q", v.Bytes("block_size"), v.Warnings)
	}
}

func TestTypes(t *testing.T) {
	v, err := config.Load(config.Sources{
		File: []byte(`{"etcd_address": ["a:1", "b:2"], "osd_network": "10.1.2.3/8,::1", "osd_nearfull_ratio": 0.5, "client_retry_enospc": "no",
			"etcd_password": "secret", "recovery_queue_depth": "4"}`),
		Flags: map[string]string{"block_size": "1m", "etcd_quick_timeout": "2s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(v.List("etcd_address"), []string{"a:1", "b:2"}) || !slices.Equal(v.Networks("osd_network"), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}) ||
		v.Float("osd_nearfull_ratio") != 0.5 || v.Bool("client_retry_enospc") || v.Int("recovery_queue_depth") != 4 || v.Bytes("block_size") != 1<<20 ||
		v.Duration("etcd_quick_timeout") != 2*time.Second || v.String("etcd_password") != "secret" {
		t.Errorf("values are wrong: %+v", v.Effective(config.All))
	}
	for _, e := range v.Effective(config.All) {
		if strings.Contains(e.Value, "secret") {
			t.Errorf("%s shows a secret", e.Name)
		}
	}
}

func TestChangedTellsOnlineFromRestart(t *testing.T) {
	old, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	next, err := old.WithEtcd(map[string]json.RawMessage{"no_recovery": []byte("true"), "bind_port": []byte("5"), "osd_out_time": []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	online, restart := config.Changed(old, next, config.OSD)
	if !slices.Equal(online, []string{"no_recovery"}) || !slices.Equal(restart, []string{"bind_port"}) {
		t.Errorf("online %v, restart %v", online, restart)
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "4096": 4096, "128K": 128 << 10, "1.5g": 3 << 29, "1T": 1 << 40, "-1": -1, "": -1, "K": -1, "1X": -1, "9999999T": -1, "NaN": -1, "0.3": -1} {
		got, err := config.ParseBytes(in)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(config.Sample()), "osd_out_time", "5")
	f.Add([]byte(`{"osd_out_time": 1e99}`), "journal_size", "1.5G")
	f.Fuzz(func(t *testing.T, file []byte, name, value string) {
		_, _ = config.Load(config.Sources{File: file, Flags: map[string]string{name: value}})
	})
}
