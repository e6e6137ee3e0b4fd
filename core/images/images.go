package images

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// Info is one image, or layer.
type Info struct {
	Inode    layout.Inode
	Name     string
	Pool     string // name
	Size     uint64 // bytes
	Parent   layout.Inode
	ReadOnly bool
	Deleted  bool   // its removal was begun
	Shrink   bool   // its shrinking was begun and is not finished
	Identity string // 32 hexadecimal digits, "" of a stock image
}

// List is the images that a snapshot shows, by name. Only those whose name begins with prefix.
func List(s *cluster.Snapshot, prefix string) []Info {
	var out []Info
	for _, i := range s.Inodes.All() {
		if strings.HasPrefix(i.Name, prefix) {
			out = append(out, infoOf(s, i))
		}
	}
	slices.SortStableFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Find is one image by its name.
func Find(s *cluster.Snapshot, name string) (Info, bool) {
	i, ok := s.Image(name)
	if !ok {
		return Info{}, false
	}
	return infoOf(s, i), true
}

func infoOf(s *cluster.Snapshot, i *cluster.Inode) Info {
	info := Info{
		Inode: i.ID, Name: i.Name, Size: uint64(i.Size), Parent: i.Parent(), ReadOnly: bool(i.ReadOnly), Deleted: bool(i.Deleted),
		Shrink: shrinkToken(i) != "", Identity: i.Identity(),
	}
	if p, ok := s.Pools.Get(i.ID.Pool()); ok {
		info.Pool = p.Name
	}
	return info
}

// NotFoundError says that there is no image of a name.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("there is no image %q", e.Name) }

// ExistsError says that a name is taken.
type ExistsError struct {
	Name  string
	Inode layout.Inode
}

func (e *ExistsError) Error() string {
	return fmt.Sprintf("there is an image %q already, inode %v; choose another name or remove it", e.Name, e.Inode)
}

// New is what Create makes.
type New struct {
	Name     string
	Size     uint64 // bytes
	Pool     string // name
	Identity [16]byte
}

// Create makes an image. Identity must be drawn by the caller, at random: by it the image is recognized when an answer is lost.
func Create(c *client.Client, n New, done func(layout.Inode, error)) *Operation {
	var id layout.Inode
	end := func(err error) {
		if err != nil {
			id = 0
		}
		done(id, err)
	}
	return start(c, Options{}, fmt.Sprintf("create image %q", n.Name), end, func(op *Operation) {
		pool, ok := c.Snapshot().Pool(n.Pool)
		if !ok {
			op.finish(fmt.Errorf("there is no pool %q", n.Pool))
			return
		}
		identity := hex.EncodeToString(n.Identity[:])
		index, maxID := cluster.ImageIndexKey(n.Name), cluster.MaxIDKey(pool.ID)
		wanted := []string{index, maxID}
		if other, ok := c.Snapshot().Image(n.Name); ok {
			wanted = append(wanted, cluster.InodeKey(other.ID)) // a stock tool may have made it without an index
		}
		var tried []layout.Inode // numbers that a transaction may have given it
		op.reach(wanted, func(k keys) decision {
			for _, i := range tried {
				if kv := k.get(cluster.InodeKey(i)); kv != nil {
					if cfg, err := cluster.ReadInode(*kv); err == nil && cfg.Identity() == identity {
						id = i
						return decision{}
					}
				}
			}
			if kv := k.get(index); kv != nil {
				x, err := cluster.ReadImageIndex(kv.Value)
				if err != nil {
					return decision{err: &cluster.KeyError{Key: index, Reason: err, Action: "delete the key when no image has this name"}}
				}
				return decision{err: &ExistsError{n.Name, x.Inode()}}
			}
			if other, ok := c.Snapshot().Image(n.Name); ok && k.get(cluster.InodeKey(other.ID)) != nil {
				return decision{err: &ExistsError{n.Name, other.ID}}
			}
			t, made, err := cluster.CreateImage(cluster.NewImage{
				Pool: pool.ID, Name: n.Name, Size: n.Size, Identity: identity, MaxID: k.get(maxID), Largest: largest(c.Snapshot(), pool.ID),
			})
			if err != nil {
				return decision{err: err}
			}
			id = made
			if !slices.Contains(tried, made) {
				// From now on its key is looked at, so that an answer that is lost does no harm.
				tried = append(tried, made)
				return decision{look: cluster.InodeKey(made)}
			}
			return decision{txn: &t}
		}, func(rev registry.Revision) {
			op.sync(rev, func(s *cluster.Snapshot) bool { _, ok := s.Inode(id); return ok }, func() { op.finish(nil) })
		})
	})
}

// largest is the largest inode number of a pool that is known.
func largest(s *cluster.Snapshot, pool layout.PoolID) uint64 {
	last := uint64(0)
	for id := range s.Inodes.From(layout.MakeInode(pool, 0)) {
		if id.Pool() != pool {
			break
		}
		last = id.Num()
	}
	return last
}

// Rename gives an image another name.
func Rename(c *client.Client, from, to string, done func(error)) *Operation {
	return start(c, Options{}, fmt.Sprintf("rename image %q to %q", from, to), done, func(op *Operation) {
		i, ok := c.Snapshot().Image(from)
		if !ok {
			op.finish(&NotFoundError{from})
			return
		}
		key, oldIndex, newIndex := cluster.InodeKey(i.ID), cluster.ImageIndexKey(from), cluster.ImageIndexKey(to)
		sent := false
		op.reach([]string{key, oldIndex, newIndex}, func(k keys) decision {
			cfg, err := readInode(k, key, from)
			switch {
			case err != nil:
				return decision{err: err}
			case cfg.Name == to && sent:
				return decision{}
			case cfg.Name != from:
				return decision{err: fmt.Errorf("it is called %q meanwhile", cfg.Name)}
			case bool(cfg.Deleted):
				return decision{err: errors.New("it is being removed")}
			}
			if kv := k.get(newIndex); kv != nil {
				x, _ := cluster.ReadImageIndex(kv.Value) // only for the message
				return decision{err: &ExistsError{to, x.Inode()}}
			}
			if other, ok := c.Snapshot().Image(to); ok && other.ID != i.ID {
				return decision{err: &ExistsError{to, other.ID}}
			}
			t, err := cluster.RenameImage(cfg, k.get(oldIndex), to)
			if err != nil {
				return decision{err: err}
			}
			sent = true
			return decision{txn: &t}
		}, func(rev registry.Revision) {
			op.sync(rev, func(s *cluster.Snapshot) bool { n, ok := s.Inode(i.ID); return ok && n.Name == to }, func() { op.finish(nil) })
		})
	})
}

// readInode reads an image's configuration.
func readInode(k keys, key, name string) (*cluster.Inode, error) {
	kv := k.get(key)
	if kv == nil {
		return nil, &NotFoundError{name}
	}
	return cluster.ReadInode(*kv)
}

// MetaShrink is the field of an image's metadata that says that everything beyond its end is being deleted, and by whom. Nobody may let the image grow while it is there.
const MetaShrink = "holdfast_shrink"

func shrinkToken(i *cluster.Inode) string {
	t, _ := i.ImageMeta[MetaShrink].(string)
	return t
}

// withToken is the edit that sets size and token ("" removes it).
func withToken(size uint64, token string) func(*cluster.Inode) {
	return func(i *cluster.Inode) {
		i.Size = cluster.Number(size)
		i.ImageMeta = maps.Clone(i.ImageMeta)
		if token == "" {
			delete(i.ImageMeta, MetaShrink)
			return
		}
		if i.ImageMeta == nil {
			i.ImageMeta = map[string]any{}
		}
		i.ImageMeta[MetaShrink] = token
	}
}
