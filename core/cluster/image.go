package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

// MaxImageName is the longest image name, in bytes: a path of an NFS client and an iSCSI name have to carry it.
const MaxImageName = 200

// CheckImageName says whether a new image may have the name. A slash makes a directory for NFS, an at sign separates an image from its snapshot.
func CheckImageName(name string) error {
	switch {
	case name == "":
		return errors.New("the image name is empty")
	case len(name) > MaxImageName:
		return fmt.Errorf("the image name has %d bytes, want at most %d", len(name), MaxImageName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("the image name %q has characters that cannot be shown", name)
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("the image name %q has an empty, \".\" or \"..\" part", name)
		}
	}
	return nil
}

// CheckImageSize says whether an image may have the size. It may have any number of bytes, also none, because a file may; block protocols serve its whole sectors.
func CheckImageSize(size uint64) error {
	if size > MaxImageSize {
		return fmt.Errorf("the image size is %d bytes, want at most %d", size, int64(MaxImageSize))
	}
	return nil
}

// NewImage is what CreateImage needs.
type NewImage struct {
	Pool     layout.PoolID
	Name     string
	Size     uint64 // bytes
	Identity string // 32 hexadecimal digits, drawn by the caller; kept as MetaID
	Parent   layout.Inode

	MaxID   *registry.KV // index/maxid/<pool> as it was read, nil when it does not exist
	Largest uint64       // the largest inode number of the pool that is known from config/inode
}

// CreateImage is the transaction that makes an image, and the inode it will have. It fails when the name or the number is taken in the meantime.
func CreateImage(n NewImage) (registry.Txn, layout.Inode, error) {
	if err := errors.Join(CheckImageName(n.Name), CheckImageSize(n.Size)); err != nil {
		return registry.Txn{}, 0, err
	}
	if _, err := layout.ParseStoreID(n.Identity); err != nil {
		return registry.Txn{}, 0, fmt.Errorf("image identity %q is not 32 hexadecimal digits", n.Identity)
	}
	last, mod := n.Largest, registry.Revision(0)
	if n.MaxID != nil {
		known, err := ReadMaxID(n.MaxID.Value)
		if err != nil {
			return registry.Txn{}, 0, &KeyError{Key: MaxIDKey(n.Pool), Reason: err, Action: "set it to the largest inode number of the pool"}
		}
		last, mod = max(last, known), n.MaxID.Mod
	}
	if last >= layout.MaxInodeNum {
		return registry.Txn{}, 0, fmt.Errorf("pool %d has no inode numbers left", n.Pool)
	}
	id := layout.MakeInode(n.Pool, last+1)
	cfg := &Inode{ID: id, Name: n.Name, Size: Number(n.Size), ImageMeta: map[string]any{MetaID: n.Identity}}
	if n.Parent != 0 {
		cfg.ParentID = Number(n.Parent.Num())
		if n.Parent.Pool() != n.Pool {
			cfg.ParentPool = Number(n.Parent.Pool())
		}
	}
	return registry.Txn{
		If: []registry.Compare{registry.Absent(InodeKey(id)), registry.Absent(ImageIndexKey(n.Name)), registry.Unchanged(MaxIDKey(n.Pool), mod)},
		Then: []registry.Op{
			{Kind: registry.Put, Key: InodeKey(id), Value: mustJSON(cfg)},
			{Kind: registry.Put, Key: ImageIndexKey(n.Name), Value: indexValue(id)},
			{Kind: registry.Put, Key: MaxIDKey(n.Pool), Value: strconv.AppendUint(nil, id.Num(), 10)},
		},
	}, id, nil
}

func indexValue(id layout.Inode) []byte {
	return mustJSON(ImageIndex{ID: Number(id.Num()), PoolID: Number(id.Pool())})
}

// clone is a copy of i that may be changed; its maps are still shared.
func (i *Inode) clone() *Inode {
	c := *i
	return &c
}

// EditInode is the transaction that replaces an inode's configuration by a changed copy of it, if it is still as it was read.
func EditInode(i *Inode, edit func(*Inode)) registry.Txn {
	c := i.clone()
	edit(c)
	return registry.Txn{
		If:   []registry.Compare{registry.Unchanged(InodeKey(i.ID), i.Mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: InodeKey(i.ID), Value: mustJSON(c)}},
	}
}

// ResizeImage is the transaction that changes an image's size, if its configuration is still as it was read.
func ResizeImage(i *Inode, size uint64) (registry.Txn, error) {
	if err := CheckImageSize(size); err != nil {
		return registry.Txn{}, err
	}
	if i.ReadOnly || i.Deleted {
		return registry.Txn{}, fmt.Errorf("image %q is read-only or being deleted", i.Name)
	}
	return EditInode(i, func(c *Inode) { c.Size = Number(size) }), nil
}

// RenameImage is the transaction that gives an image another name. index is index/image/<old name> as it was read, nil when it does not exist.
func RenameImage(i *Inode, index *registry.KV, name string) (registry.Txn, error) {
	if err := CheckImageName(name); err != nil {
		return registry.Txn{}, err
	}
	if name == i.Name {
		return registry.Txn{}, fmt.Errorf("the image is called %q already", name)
	}
	t := EditInode(i, func(c *Inode) { c.Name = name })
	t.If = append(t.If, registry.Absent(ImageIndexKey(name)))
	t.Then = append(t.Then, registry.Op{Kind: registry.Put, Key: ImageIndexKey(name), Value: indexValue(i.ID)})
	return dropIndex(t, i, index), nil
}

// MarkDeleted is the transaction at the start of an image's removal: from then on writes are refused, and its name is free once DeleteImage has run.
func MarkDeleted(i *Inode) registry.Txn { return EditInode(i, func(c *Inode) { c.Deleted = true }) }

// DeleteImage is the transaction at the end of an image's removal. index is index/image/<name> as it was read, nil when it does not exist. index/maxid keeps the number
// from being used again.
func DeleteImage(i *Inode, index *registry.KV) registry.Txn {
	t := registry.Txn{
		If:   []registry.Compare{registry.Unchanged(InodeKey(i.ID), i.Mod)},
		Then: []registry.Op{{Kind: registry.Delete, Key: InodeKey(i.ID)}, {Kind: registry.Delete, Key: ImageScrubKey(i.ID)}},
	}
	return dropIndex(t, i, index)
}

// dropIndex removes the image's name from the index, if the name is this image's.
func dropIndex(t registry.Txn, i *Inode, index *registry.KV) registry.Txn {
	key := ImageIndexKey(i.Name)
	if index == nil {
		t.If = append(t.If, registry.Absent(key))
		return t
	}
	t.If = append(t.If, registry.Unchanged(key, index.Mod))
	if x, err := ReadImageIndex(index.Value); err == nil && x.Inode() == i.ID {
		t.Then = append(t.Then, registry.Op{Kind: registry.Delete, Key: key})
	}
	return t
}

// SetPool is the transaction that puts p into config/pools, or removes pool id when p is nil, if the key is still as it was read (kv is nil when it does not exist). Every
// other pool is written back as it is, also one that we cannot read.
func SetPool(kv *registry.KV, id layout.PoolID, p *Pool) (registry.Txn, error) {
	pools, mod := map[string]json.RawMessage{}, registry.Revision(0)
	if kv != nil {
		if err := decode(kv.Value, &pools); err != nil {
			return registry.Txn{}, badKey(KeyPools, err)
		}
		mod = kv.Mod
	}
	if p == nil {
		delete(pools, strconv.Itoa(int(id)))
	} else {
		if err := p.Validate(); err != nil {
			return registry.Txn{}, fmt.Errorf("pool %d: %w", id, err)
		}
		if pools == nil {
			pools = map[string]json.RawMessage{}
		}
		pools[strconv.Itoa(int(id))] = mustJSON(p)
	}
	return registry.Txn{
		If:   []registry.Compare{registry.Unchanged(KeyPools, mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: KeyPools, Value: mustJSON(pools)}},
	}, nil
}

// Value is v as the value of a key. It is for the types of this package, which always marshal.
func Value(v any) []byte { return mustJSON(v) }

// ReadInode reads config/inode/<pool>/<inode>.
func ReadInode(kv registry.KV) (*Inode, error) {
	k, ok := ParseKey(kv.Key)
	if !ok || k.Kind != KindInode {
		return nil, badKey(kv.Key, errors.New("is not the key of an inode"))
	}
	i := &Inode{ID: k.Inode, Meta: metaOf(kv)}
	if err := decode(kv.Value, i); err != nil {
		return nil, badKey(kv.Key, err)
	}
	if err := i.check(); err != nil {
		return nil, badKey(kv.Key, err)
	}
	return i, nil
}
