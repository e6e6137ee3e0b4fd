package bootstrap

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"holdfast/core/admin"
	"holdfast/core/layout"
)

// shapeFile marks a folder as ours. Its content is what cannot change behind the cluster's back.
const shapeFile = "cluster.json"

// Shape is what a folder's cluster was made as.
type Shape struct {
	Format   int    `json:"format"` // of the folder: 1
	OSDs     int    `json:"osds"`
	OSDSize  int64  `json:"osd_size"` // bytes
	Replicas int    `json:"replicas"`
	Made     []int  `json:"made,omitempty"`        // OSDs whose disks have been formatted
	Ready    bool   `json:"ready,omitempty"`       // the first pool and image have been made
	Image    string `json:"first_image,omitempty"` // made with the pool
}

// Dir is a locked folder that holds a cluster.
type Dir struct {
	Path  string // absolute
	Shape Shape
	Fresh bool // nothing was there before that a different shape could harm

	lock *os.File
}

// OpenDir locks the folder, which is made when it does not exist, and reads its shape. Fresh says that there was none; then the caller fills Shape in and calls Save.
func OpenDir(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("--dir %s: %w", path, err)
	}
	d := &Dir{Path: abs}
	if err := d.look(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(abs, 0o750); err != nil {
		return nil, &admin.Error{Kind: admin.Failed, What: "cannot make --dir " + abs, Err: err, Way: "give a folder that this user may write"}
	}
	d.lock, err = os.OpenFile(d.File("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &admin.Error{Kind: admin.Failed, What: "cannot write in --dir " + abs, Err: err, Way: "give a folder that this user may write"}
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := ""
		if b, e := os.ReadFile(d.File("lock")); e == nil {
			if pid, e := strconv.Atoi(string(bytes.TrimSpace(b))); e == nil {
				holder = fmt.Sprintf(" (process %d)", pid)
			}
		}
		d.lock.Close()
		return nil, &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("another `holdfast up`%s runs in --dir %s", holder, abs), Way: "stop that one first, or give another --dir"}
	}
	// The number is for people only: the lock is what counts.
	if err := errors.Join(d.lock.Truncate(0), writeAt(d.lock, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		d.Close()
		return nil, &admin.Error{Kind: admin.Failed, What: "cannot write in --dir " + abs, Err: err, Way: "give a folder with space that this user may write"}
	}
	return d, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// look reads the shape, and refuses folders that are not ours.
func (d *Dir) look() error {
	b, err := os.ReadFile(d.File(shapeFile))
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &d.Shape); err != nil || d.Shape.Format < 1 || d.Shape.OSDs < 1 {
			return &admin.Error{Kind: admin.Failed, What: d.File(shapeFile) + " is damaged", Err: err, Way: "put it back from a backup, or give another --dir"}
		}
		if d.Shape.Format > 1 {
			return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("--dir %s was made by a newer release (format %d)", d.Path, d.Shape.Format), Way: "use that release"}
		}
		d.Fresh = !d.Shape.Ready && len(d.Shape.Made) == 0 // an interrupted start that held nothing yet
		return nil
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
		return &admin.Error{Kind: admin.Failed, What: "cannot read --dir " + d.Path, Err: err, Way: "run as a user who may read it"}
	}
	entries, err := os.ReadDir(d.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, unix.ENOTDIR):
		return &admin.Error{Kind: admin.Refused, What: "--dir " + d.Path + " is not a folder", Way: "give a new or empty folder"}
	case err != nil:
		return &admin.Error{Kind: admin.Failed, What: "cannot read --dir " + d.Path, Err: err, Way: "run as a user who may read it"}
	}
	for _, e := range entries {
		if e.Name() != "lock" && e.Name() != "lost+found" {
			return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("--dir %s holds other things (%s) and no cluster of holdfast", d.Path, e.Name()), Way: "give a new or empty folder, or the folder of a cluster"}
		}
	}
	d.Fresh = true
	return nil
}

// File is the path of a file in the folder.
func (d *Dir) File(name string) string { return filepath.Join(d.Path, name) }

// OSDFile is the path of an OSD's disk.
func (d *Dir) OSDFile(n layout.OSDNum) string {
	return d.File("osd." + strconv.FormatUint(uint64(n), 10) + ".data")
}

// ConfigFile is the path of the configuration file.
func (d *Dir) ConfigFile() string { return d.File("holdfast.conf") }

// Save writes the shape.
func (d *Dir) Save() error {
	b, err := json.MarshalIndent(&d.Shape, "", "  ")
	if err != nil {
		return err
	}
	return d.write(shapeFile, append(b, '\n'), 0o644)
}

// write replaces a file as a whole: after a crash it is the old one or the new one.
func (d *Dir) write(name string, data []byte, mode os.FileMode) error {
	tmp := d.File(name + ".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(tmp, d.File(name))
	}
	if err == nil {
		err = syncDir(d.Path)
	}
	if err != nil {
		return &admin.Error{Kind: admin.Failed, What: "cannot write " + d.File(name), Err: err, Way: "is there space, and may this user write it?"}
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close unlocks the folder.
func (d *Dir) Close() { d.lock.Close() }

// keyBytes is the length of a cluster key before it is written as hexadecimal digits.
const keyBytes = 32

// MakeKey makes the cluster key if there is none.
func (d *Dir) MakeKey() (path string, err error) {
	const name = "cluster.key"
	path = d.File(name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if !d.Fresh && d.Shape.Ready {
		return "", &admin.Error{Kind: admin.Refused, What: path + " is missing", Way: "put it back from a backup; if it is lost, delete cluster_key_file from holdfast.conf to run without"}
	}
	var b [keyBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw a cluster key: %w", err)
	}
	return path, d.write(name, []byte(hex.EncodeToString(b[:])+"\n"), 0o600)
}

// Configuration reads holdfast.conf; an absent one is empty.
func (d *Dir) Configuration() (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	b, err := os.ReadFile(d.ConfigFile())
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, &admin.Error{Kind: admin.Usage, What: d.ConfigFile(), Err: err, Way: "correct it, or delete it: it is written anew"}
	}
	return all, nil
}

// WriteConfiguration replaces holdfast.conf, if it is to change.
func (d *Dir) WriteConfiguration(all map[string]json.RawMessage) error {
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if old, err := os.ReadFile(d.ConfigFile()); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return d.write("holdfast.conf", b, 0o644)
}
