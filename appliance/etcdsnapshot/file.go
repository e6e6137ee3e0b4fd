package etcdsnapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"holdfast/core/registry"
)

// line is one key. Its value is under one of three names: as JSON where that gives the same bytes back, as text, or as base64.
type line struct {
	Key    string            `json:"key"`
	Value  json.RawMessage   `json:"value,omitempty"`
	Text   *string           `json:"text,omitempty"`
	Bytes  []byte            `json:"bytes,omitempty"`
	Create registry.Revision `json:"create"`
	Mod    registry.Revision `json:"mod"`
}

// end is the last line.
type end struct {
	End  bool   `json:"end"`
	Keys int    `json:"keys"`
	Sum  string `json:"sha256"` // of every line before
}

// maxLine bounds a line, bytes: etcd takes requests of at most 100 MiB (docs/operating.md), and a value grows in base64.
const maxLine = 160 << 20

// compact writes v on one line, without changing characters that HTML knows.
func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

func encodeLine(kv registry.KV) ([]byte, error) {
	l := line{Key: kv.Key, Create: kv.Create, Mod: kv.Mod}
	if json.Valid(kv.Value) {
		l.Value = kv.Value
		if text, err := compact(&l); err == nil {
			if back, err := decodeLine(text); err == nil && bytes.Equal(back.Value, kv.Value) {
				return text, nil
			}
		}
		l.Value = nil
	}
	if text := string(kv.Value); utf8.ValidString(text) {
		l.Text = &text
	} else {
		l.Bytes = kv.Value
	}
	return compact(&l)
}

func decodeLine(text []byte) (kv registry.KV, err error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return kv, err
	}
	kv = registry.KV{Key: l.Key, Create: l.Create, Mod: l.Mod}
	named := 0
	if len(l.Value) > 0 {
		kv.Value, named = l.Value, named+1
	}
	if l.Text != nil {
		kv.Value, named = []byte(*l.Text), named+1
	}
	if l.Bytes != nil {
		kv.Value, named = l.Bytes, named+1
	}
	switch {
	case l.Key == "" || l.Key[0] == '/':
		return kv, fmt.Errorf("%.40q is no key", l.Key)
	case named != 1:
		return kv, fmt.Errorf("key %.80q: want one of value, text and bytes", l.Key)
	case l.Create <= 0 || l.Mod < l.Create:
		return kv, fmt.Errorf("key %.80q: changed at revision %d, created at %d", l.Key, l.Mod, l.Create)
	}
	return kv, nil
}

// encode writes the snapshot, and sets its Sum.
func (s *Snapshot) encode(to io.Writer) error {
	sum := sha256.New()
	w := bufio.NewWriter(to)
	put := func(text []byte, err error) error {
		if err == nil {
			sum.Write(text)
			_, err = w.Write(text)
		}
		return err
	}
	err := put(compact(&s.Header))
	for _, kv := range s.KVs {
		if err == nil {
			err = put(encodeLine(kv))
		}
	}
	s.Sum = hex.EncodeToString(sum.Sum(nil))
	if err == nil {
		err = put(compact(&end{true, len(s.KVs), s.Sum}))
	}
	return errors.Join(err, w.Flush())
}

// DamagedError says that a file is no whole snapshot.
type DamagedError struct {
	Line int
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap is the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

// decoder checks a snapshot line by line.
type decoder struct {
	s     Snapshot
	sum   hash.Hash
	line  int
	ended bool
}

func (d *decoder) take(text []byte) error {
	d.line++
	switch {
	case d.ended:
		return errors.New("there is something after the end")
	case d.line == 1:
		if err := json.Unmarshal(text, &d.s.Header); err != nil || d.s.Format == 0 {
			return errors.New("this is no snapshot of etcd by holdfast")
		}
		if d.s.Format != format {
			return fmt.Errorf("the snapshot has format %d, which a newer release has written; this one reads %d", d.s.Format, format)
		}
	default:
		var e end
		if bytes.HasPrefix(text, []byte(`{"end":`)) && json.Unmarshal(text, &e) == nil && e.End {
			return d.end(e)
		}
		kv, err := decodeLine(text)
		if err != nil {
			return err
		}
		if n := len(d.s.KVs); n > 0 && d.s.KVs[n-1].Key >= kv.Key {
			return fmt.Errorf("key %.80q is not in its place", kv.Key)
		}
		if kv.Mod > d.s.Revision {
			return fmt.Errorf("key %.80q is of revision %d, later than the snapshot's, %d", kv.Key, kv.Mod, d.s.Revision)
		}
		d.s.KVs = append(d.s.KVs, kv)
	}
	d.sum.Write(text)
	return nil
}

func (d *decoder) end(e end) error {
	d.ended = true
	d.s.Sum = hex.EncodeToString(d.sum.Sum(nil))
	switch {
	case e.Sum != d.s.Sum:
		return errors.New("the checksum does not fit: the file was changed or is damaged")
	case e.Keys != len(d.s.KVs) || d.s.Keys != e.Keys:
		return fmt.Errorf("the file holds %d keys; %d were written", len(d.s.KVs), e.Keys)
	}
	id, err := clusterID(d.s.KVs)
	if err == nil && id != d.s.Cluster {
		err = fmt.Errorf("the keys are of cluster %s, the snapshot of %s", id, d.s.Cluster)
	}
	return err
}

// decode reads a snapshot and checks all of it. The error is a *DamagedError, or one of reading.
func decode(from io.Reader) (*Snapshot, error) {
	d := &decoder{sum: sha256.New()}
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		var text []byte
		for {
			part, err := r.ReadSlice('\n')
			text = append(text, part...)
			if err == nil {
				break
			}
			switch {
			case errors.Is(err, bufio.ErrBufferFull) && len(text) <= maxLine:
				continue
			case errors.Is(err, bufio.ErrBufferFull):
				return nil, &DamagedError{d.line + 1, fmt.Errorf("it is longer than %d bytes", maxLine)}
			case !errors.Is(err, io.EOF):
				return nil, err
			case len(text) > 0:
				return nil, &DamagedError{d.line + 1, errors.New("it is cut off")}
			case !d.ended:
				return nil, &DamagedError{d.line + 1, errors.New("the end is missing: the file is cut off")}
			}
			return &d.s, nil
		}
		if err := d.take(text); err != nil {
			return nil, &DamagedError{d.line, err}
		}
	}
}

// Read reads a file and checks all of it.
func Read(path string) (*Snapshot, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := decode(f)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	return s, nil
}

// Write makes a new file of the snapshot: it is there with all of its content, or not at all, and was read back. A file of that name is not replaced (fs.ErrExist).
func (s *Snapshot) Write(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".etcd-snapshot-*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		if e := os.Remove(tmp); err == nil {
			err = e
		}
	}()
	if err := errors.Join(s.encode(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.compare(tmp); err != nil {
		return err
	}
	if err := os.Link(tmp, path); err != nil { // unlike a rename it never replaces
		return err
	}
	return syncDir(filepath.Dir(path))
}

// compare reads a file back.
func (s *Snapshot) compare(path string) error {
	back, err := Read(path)
	if err != nil {
		return fmt.Errorf("what was written is not what is read: %w", err)
	}
	same := func(a, b registry.KV) bool {
		return a.Key == b.Key && a.Create == b.Create && a.Mod == b.Mod && bytes.Equal(a.Value, b.Value)
	}
	if back.Header != s.Header || back.Sum != s.Sum || !slices.EqualFunc(back.KVs, s.KVs, same) {
		return fmt.Errorf("what was written into %s is not what is read", path)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Since is how old the snapshot is.
func (h *Header) Since(now time.Time) time.Duration { return now.Sub(h.Time).Truncate(time.Second) }
