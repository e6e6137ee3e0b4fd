package files

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/frontends/nfs"
)

// Keys of ours.
const (
	prefix     = "nfs/"
	prefixDir  = "nfs/dir/"
	prefixAttr = "nfs/attr/"
)

func dirKey(path string) string { return prefixDir + path }
func attrKey(id nfs.ID) string  { return prefixAttr + hex.EncodeToString(id[:]) }

// record is what etcd keeps of a file or directory besides its name and size.
type record struct {
	ID       string   `json:"id,omitempty"` // of a directory
	Mode     uint32   `json:"mode"`
	UID      uint32   `json:"uid,omitempty"`
	GID      uint32   `json:"gid,omitempty"`
	Atime    nfs.Time `json:"atime,omitempty"`
	Mtime    nfs.Time `json:"mtime,omitempty"`
	Ctime    nfs.Time `json:"ctime,omitempty"`
	Verifier string   `json:"verifier,omitempty"` // of an exclusive create

	mod registry.Revision
}

func (r *record) value() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("files: a record does not marshal: %v", err))
	}
	return b
}

// maxRecord bounds what is read, bytes.
const maxRecord = 4096

// readRecord reads a key's value.
func readRecord(kv registry.KV) (*record, error) {
	if len(kv.Value) > maxRecord {
		return nil, fmt.Errorf("has %d bytes, want at most %d", len(kv.Value), maxRecord)
	}
	r := &record{mod: kv.Mod}
	d := json.NewDecoder(bytes.NewReader(kv.Value))
	if err := d.Decode(r); err != nil {
		return nil, err
	}
	_, noID := layout.ParseStoreID(r.ID)
	verifier, noVerifier := hex.DecodeString(r.Verifier)
	switch {
	case r.ID != "" && noID != nil:
		return nil, fmt.Errorf("id %.40q is not 32 hexadecimal digits", r.ID)
	case noVerifier != nil || len(verifier) > 8:
		return nil, fmt.Errorf("verifier %.40q is not up to 16 hexadecimal digits", r.Verifier)
	case r.Mode > 0o7777:
		return nil, fmt.Errorf("mode is %#o, want permission bits", r.Mode)
	case r.Atime < 0 || r.Mtime < 0 || r.Ctime < 0:
		return nil, errors.New("a time is before 1970")
	}
	return r, nil
}

// parseAttrKey finds whose attributes a key holds.
func parseAttrKey(key string) (nfs.ID, bool) {
	rest, ok := strings.CutPrefix(key, prefixAttr)
	if !ok {
		return nfs.ID{}, false
	}
	id, err := layout.ParseStoreID(rest)
	return nfs.ID(id), err == nil
}

// dirID is a directory's identity: the one in its record, or, as long as it has none, one that derives from its path.
func dirID(cluster [16]byte, path string, r *record) nfs.ID {
	if path == "" {
		return nfs.Root
	}
	if r != nil {
		if id, err := layout.ParseStoreID(r.ID); err == nil && id != (layout.StoreID{}) {
			return nfs.ID(id)
		}
	}
	h := sha256.New()
	h.Write([]byte("holdfast directory "))
	h.Write(cluster[:])
	h.Write([]byte(path))
	return nfs.ID(h.Sum(nil)[:16])
}

// split is a path's directory and name.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
