package etcdsnapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"holdfast/core/registry"
)

// Entry is a snapshot in a folder, as its name tells it.
type Entry struct {
	Path     string
	Time     time.Time
	Revision registry.Revision
}

// stamp is the time in a name.
const stamp = "20060102T150405Z"

var nameForm = regexp.MustCompile(`^etcd-([0-9a-f]{8})-([0-9]{8}T[0-9]{6}Z)-r([0-9]+)\.json$`)

// Name is the name of a snapshot's file: cluster, time, revision.
func (h *Header) Name() string {
	return fmt.Sprintf("etcd-%.8s-%s-r%d.json", h.Cluster, h.Time.UTC().Format(stamp), h.Revision)
}

// List finds the snapshots of a cluster in a folder, oldest first. A folder that does not exist has none.
func List(dir, clusterID string) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var list []Entry
	for _, f := range files {
		m := nameForm.FindStringSubmatch(f.Name())
		if m == nil || len(clusterID) < 8 || m[1] != clusterID[:8] {
			continue
		}
		at, err := time.Parse(stamp, m[2])
		rev, e := strconv.ParseInt(m[3], 10, 64)
		if err == nil && e == nil {
			list = append(list, Entry{filepath.Join(dir, f.Name()), at, registry.Revision(rev)})
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	return list, nil
}

// Expired are those of a list, oldest first, that need not be kept: all of the last hour are, one of each hour of the last day, and one of each day of the last days. The newest one always is,
// however old.
func Expired(list []Entry, now time.Time, days int) (out []Entry) {
	var hour, day time.Time // the last ones that have theirs
	for i, e := range list {
		age := now.Sub(e.Time)
		h, d := e.Time.UTC().Truncate(time.Hour), e.Time.UTC().Truncate(24*time.Hour)
		keep := i == len(list)-1 || age <= time.Hour || age <= 24*time.Hour && h != hour || age <= time.Duration(days)*24*time.Hour && d != day
		if keep {
			hour, day = h, d // the oldest of each is the one that stays
		} else {
			out = append(out, e)
		}
	}
	return out
}

// Add writes the snapshot into the folder, which is made if need be, and removes those that have expired.
func Add(dir string, s *Snapshot, days int) (path string, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	path = filepath.Join(dir, s.Name())
	if err := s.Write(path); err != nil && !(errors.Is(err, os.ErrExist) && s.compare(path) == nil) { // another monitor on this host was first
		return "", err
	}
	list, err := List(dir, s.Cluster)
	if err != nil {
		return path, err
	}
	for _, e := range Expired(list, s.Time, days) {
		if e.Path != path {
			if e := os.Remove(e.Path); e != nil && !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}
	return path, err
}
