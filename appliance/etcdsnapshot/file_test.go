package etcdsnapshot

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/core/registry"
)

const id = `{"id":"0123456789abcdef0123456789abcdef"}`

// sample has values of every form.
func sample() *Snapshot {
	s := &Snapshot{Header: Header{Format: format, Cluster: "0123456789abcdef0123456789abcdef", Revision: 40, Time: time.Date(2026, 11, 22, 11, 0, 0, 0, time.UTC), LeftOut: 2}}
	for i, kv := range []registry.KV{
		{Key: "cluster/id", Value: []byte(id)},
		{Key: "config/global", Value: []byte(`{ "spaces":  1 }`)},
		{Key: "config/inode/1/1", Value: []byte(`{"name":"a<b>&c","size":1}`)},
		{Key: "config/inode/1/2", Value: []byte("{\"name\":\"line\u2028\",\"size\":1}")},
		{Key: "empty"},
		{Key: "index/maxid/1", Value: []byte("7")},
		{Key: "not text", Value: []byte{0xff, 0, 1}},
		{Key: "text", Value: []byte("{\n")},
	} {
		kv.Create, kv.Mod = registry.Revision(i+2), registry.Revision(i+20)
		s.KVs = append(s.KVs, kv)
	}
	s.Keys = len(s.KVs)
	return s
}

func encoded(t testing.TB, s *Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFileGivesBackWhatWasWritten(t *testing.T) {
	s := sample()
	path := filepath.Join(t.TempDir(), s.Name())
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	if err := s.compare(path); err != nil {
		t.Error(err)
	}
	if err := s.Write(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file was written twice: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"value":{"name":"a<b>&c","size":1}`, `"text":"{ \"spaces\":  1 }"`, `"bytes":"/wAB"`, `"text":""`, `"value":7`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("not in the file: %s\n%s", want, text)
		}
	}
}

// TestGolden is the file as docs/formats/etcd-snapshot.md shows it: files of every release can be read.
func TestGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/snapshot.json")
	if err != nil {
		t.Fatal(err)
	}
	if have := encoded(t, sample()); !bytes.Equal(have, want) {
		t.Errorf("have\n%s\nwant\n%s", have, want)
	}
}

func TestEveryDamageIsNoticed(t *testing.T) {
	whole := encoded(t, sample())
	if _, err := decode(bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := decode(bytes.NewReader(whole[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes pass for the whole", n, len(whole))
		}
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for i := range last {
		bad := bytes.Clone(whole)
		bad[i] ^= 1
		if _, err := decode(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a changed byte %d (%q) is not noticed", i, whole[i])
		}
	}
	if _, err := decode(bytes.NewReader(append(bytes.Clone(whole), '\n'))); err == nil {
		t.Error("something after the end is not noticed")
	}
}

func TestWhatCannotBeASnapshotIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Snapshot)
		want string
	}{
		{"another cluster", func(s *Snapshot) { s.Cluster = "f" + s.Cluster[1:] }, "of cluster"},
		{"out of order", func(s *Snapshot) { s.KVs[1], s.KVs[2] = s.KVs[2], s.KVs[1] }, "not in its place"},
		{"twice", func(s *Snapshot) { s.KVs[1] = s.KVs[2] }, "not in its place"},
		{"another count", func(s *Snapshot) { s.Keys++ }, "keys"},
		{"later than the snapshot", func(s *Snapshot) { s.Revision = 5 }, "later"},
		{"a newer format", func(s *Snapshot) { s.Format = 2 }, "newer release"},
		{"no format", func(s *Snapshot) { s.Format = 0 }, "no snapshot"},
		{"no cluster", func(s *Snapshot) { s.KVs[0].Key = "cluster/ie" }, "cluster/id"},
		{"never created", func(s *Snapshot) { s.KVs[1].Create = 0 }, "created"},
		{"a foreign key", func(s *Snapshot) { s.KVs[0].Key = "/x" }, "no key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := sample()
			c.edit(s)
			if _, err := decode(bytes.NewReader(encoded(t, s))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, sample()))
	f.Add([]byte("{\"holdfast_etcd_snapshot\":1}\n{\"end\":true}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := decode(bytes.NewReader(text))
		if err != nil {
			return
		}
		if back, err := decode(bytes.NewReader(encoded(t, s))); err != nil || len(back.KVs) != len(s.KVs) {
			t.Fatalf("read, but not written again: %v", err)
		}
	})
}
