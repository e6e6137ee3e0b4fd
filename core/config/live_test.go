package config_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/config"
)

// global is config/global with what the pairs say.
func global(t *testing.T, text string) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestValuesAreResolvedAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "holdfast.conf")
	for _, c := range []struct {
		name        string
		flags       map[string]string
		environ     []string
		file, file2 string // before, and when SIGHUP comes
		etcd, etcd2 string
		want        time.Duration // of osd_out_time, at the end
		from        config.Source
		refused     string // what the log must say
	}{
		{"etcd changes", nil, nil, `{}`, "", `{"osd_out_time": 1}`, `{"osd_out_time": "2m"}`, 2 * time.Minute, config.FromEtcd, ""},
		{"a key comes", nil, nil, `{"osd_out_time": 7}`, "", `{}`, `{"osd_out_time": 2}`, 2 * time.Second, config.FromEtcd, ""},
		{"a key goes, the file stays", nil, nil, `{"osd_out_time": 7}`, "", `{"osd_out_time": 1}`, `{}`, 7 * time.Second, config.FromFile, ""},
		{"a key goes, the default stays", nil, nil, `{}`, "", `{"osd_out_time": 1}`, `{}`, 600 * time.Second, config.FromDefault, ""},
		{"config/global goes", nil, nil, `{}`, "", `{"osd_out_time": 1}`, `null`, 600 * time.Second, config.FromDefault, ""},
		{"a flag wins", map[string]string{"osd_out_time": "3"}, nil, `{}`, "", `{"osd_out_time": 1}`, `{"osd_out_time": 2}`, 3 * time.Second, config.FromFlag, ""},
		{"the environment wins", nil, []string{"HOLDFAST_OSD_OUT_TIME=4"}, `{}`, `{"osd_out_time": 8}`, `{"osd_out_time": 1}`, `{"osd_out_time": 2}`, 4 * time.Second, config.FromEnvironment, ""},
		{"a bad value is refused", nil, nil, `{}`, "", `{"osd_out_time": 1}`, `{"osd_out_time": "soon"}`, time.Second, config.FromEtcd, `osd_out_time is \"soon\", want a number of s, or a duration such as 500ms, 2s, 1h, 30d from 0 s to 1e+09 s`},
		{"out of range is refused", nil, nil, `{}`, "", `{}`, `{"osd_out_time": -1}`, 600 * time.Second, config.FromDefault, `osd_out_time is \"-1\", want`},
		{"a bad neighbour holds nothing up", nil, nil, `{}`, "", `{}`, `{"osd_out_time": 2, "no_such": 1}`, 2 * time.Second, config.FromEtcd, "no_such is not a parameter"},
		{"the file changes", nil, nil, `{"osd_out_time": 7}`, `{"osd_out_time": 8}`, `{}`, `{}`, 8 * time.Second, config.FromFile, ""},
		{"the file's key goes", nil, nil, `{"osd_out_time": 7}`, `{}`, `{}`, `{}`, 600 * time.Second, config.FromDefault, ""},
		{"etcd beats the changed file", nil, nil, `{"osd_out_time": 7}`, `{"osd_out_time": 8}`, `{"osd_out_time": 1}`, `{"osd_out_time": 2}`, 2 * time.Second, config.FromEtcd, ""},
		{"a bad value in the file", nil, nil, `{"osd_out_time": 7}`, `{"osd_out_time": "x"}`, `{}`, `{}`, 7 * time.Second, config.FromFile, `osd_out_time is \"x\", want`},
		{"a file that is no JSON", nil, nil, `{"osd_out_time": 7}`, `{"osd_out_`, `{}`, `{}`, 7 * time.Second, config.FromFile, "cannot be used"},
		{"a file that is empty", nil, nil, `{"osd_out_time": 7}`, " \n", `{}`, `{}`, 7 * time.Second, config.FromFile, "cannot be used"},
		{"a file that is gone", nil, nil, `{"osd_out_time": 7}`, "gone", `{}`, `{}`, 7 * time.Second, config.FromFile, "cannot be used"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := config.Load(config.Sources{Flags: c.flags, Environ: c.environ, File: []byte(c.file), FileName: file})
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			l := config.NewLive(v, config.Monitor, slog.New(slog.NewTextHandler(&log, nil)))
			l.SetEtcd(global(t, c.etcd))
			if log.Len() > 0 {
				t.Errorf("the start is told as a change: %s", log.String())
			}
			var told []time.Duration
			l.Part(func(f func()) { f() }).On(func(v *config.Values) { told = append(told, v.Duration("osd_out_time")) }, "osd_out_time")
			before := l.Values().Duration("osd_out_time")
			switch {
			case c.file2 == "gone":
				err = os.Remove(file)
				l.Reload()
			case c.file2 != "":
				err = os.WriteFile(file, []byte(c.file2), 0o600)
				l.Reload()
			}
			if err != nil {
				t.Fatal(err)
			}
			l.SetEtcd(global(t, c.etcd2))
			l.SetEtcd(global(t, c.etcd2)) // the same again says nothing new
			if got := l.Values(); got.Duration("osd_out_time") != c.want || got.From("osd_out_time") != c.from {
				t.Errorf("osd_out_time = %v from %v, want %v from %v", got.Duration("osd_out_time"), got.From("osd_out_time"), c.want, c.from)
			}
			want := []time.Duration{before}
			if c.want != before {
				want = append(want, c.want)
			}
			if !slices.Equal(told, want) {
				t.Errorf("told %v, want %v", told, want)
			}
			if n := strings.Count(log.String(), c.refused); c.refused != "" && n != 1 {
				t.Errorf("%q is in the log %d times, want once:\n%s", c.refused, n, log.String())
			}
			if c.refused == "" && strings.Contains(log.String(), "ERROR") {
				t.Errorf("something was refused:\n%s", log.String())
			}
		})
	}
}

func TestARefusedValueIsUsedOnceItIsRight(t *testing.T) {
	v, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := config.NewLive(v, config.OSD, slog.New(slog.NewTextHandler(&log, nil)))
	for i, step := range []struct {
		etcd string
		want int64
	}{{`{"recovery_queue_depth": 3}`, 3}, {`{"recovery_queue_depth": 0}`, 3}, {`{"recovery_queue_depth": 99999}`, 3}, {`{"recovery_queue_depth": 5}`, 5}, {`{"recovery_queue_depth": 0}`, 5}, {`{}`, 1}} {
		l.SetEtcd(global(t, step.etcd))
		if got := l.Values().Int("recovery_queue_depth"); got != step.want {
			t.Errorf("step %d: recovery_queue_depth = %d, want %d", i, got, step.want)
		}
	}
	if n := strings.Count(log.String(), "is refused"); n != 3 {
		t.Errorf("%d refusals in the log, want 3:\n%s", n, log.String())
	}
}

func TestChangesForTheNextStartAreNamed(t *testing.T) {
	v, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := config.NewLive(v, config.OSD, slog.New(slog.NewTextHandler(&log, nil)))
	l.SetEtcd(nil)
	l.SetEtcd(global(t, `{"pg_lock_time": 2, "etcd_mon_ttl": 9}`))
	if text := log.String(); !strings.Contains(text, "when the daemon starts again") || !strings.Contains(text, "pg_lock_time") || strings.Contains(text, "etcd_mon_ttl") {
		t.Errorf("an OSD's log says:\n%s", text)
	}
}

func TestAnEndedPartHearsNothing(t *testing.T) {
	v, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	l := config.NewLive(v, config.All, slog.New(slog.DiscardHandler))
	n := 0
	p := l.Part(func(f func()) { f() })
	p.On(func(*config.Values) { n++ }, "no_recovery", "osd_out_time")
	l.SetEtcd(global(t, `{"no_recovery": true, "osd_out_time": 5}`)) // one call for both
	if got := l.Registered(); n != 2 || !slices.Equal(got, []string{"no_recovery", "osd_out_time"}) {
		t.Errorf("told %d times, want 2; registered %v", n, got)
	}
	p.End()
	l.SetEtcd(nil)
	if n != 2 || len(l.Registered()) != 0 {
		t.Errorf("told after the end")
	}
	defer func() {
		if recover() == nil {
			t.Error("a parameter that only counts at the start was registered")
		}
	}()
	p.On(func(*config.Values) {}, "pg_lock_time")
}
