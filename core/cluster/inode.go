package cluster

import (
	"encoding/json"
	"fmt"

	"holdfast/core/layout"
)

// MetaID is the field of an image's metadata that holds its identity: 32 hexadecimal digits drawn when the image is created, kept for its life.
const MetaID = "holdfast_id"

// Inode is config/inode/<pool>/<inode>: one layer of an image. Mod is the meta_revision of the wire protocol.
type Inode struct {
	Meta  `json:"-"`
	ID    layout.Inode `json:"-"`
	Extra Extra        `json:"-"`

	Name       string         `json:"name"`
	Size       Number         `json:"size"` // bytes
	ParentPool Number         `json:"parent_pool,omitempty"`
	ParentID   Number         `json:"parent_id,omitempty"`
	ReadOnly   Flag           `json:"readonly,omitempty"`
	Deleted    Flag           `json:"deleted,omitempty"`
	ImageMeta  map[string]any `json:"meta,omitempty"`
}

type inodeJSON Inode

// MarshalJSON writes the inode with the fields that we do not know.
func (i *Inode) MarshalJSON() ([]byte, error) { return encodeObject((*inodeJSON)(i), i.Extra) }

// UnmarshalJSON reads an inode.
func (i *Inode) UnmarshalJSON(b []byte) (err error) {
	i.Extra, err = decodeObject(b, (*inodeJSON)(i))
	return err
}

// Parent is the layer below, or 0.
func (i *Inode) Parent() layout.Inode {
	switch {
	case i.ParentID == 0:
		return 0
	case i.ParentPool == 0:
		return layout.MakeInode(i.ID.Pool(), uint64(i.ParentID))
	}
	return layout.MakeInode(layout.PoolID(i.ParentPool), uint64(i.ParentID))
}

// Identity is what MetaID holds, or "".
func (i *Inode) Identity() string {
	id, _ := i.ImageMeta[MetaID].(string)
	return id
}

// MaxImageSize bounds an image: file and block protocols count bytes in a signed 64-bit number.
const MaxImageSize = 1 << 62

func (i *Inode) check() error {
	switch {
	case i.Size > MaxImageSize:
		return fmt.Errorf("size is %d, want at most %d", i.Size, int64(MaxImageSize))
	case i.ParentID > layout.MaxInodeNum:
		return fmt.Errorf("parent_id is %d, want at most %d", i.ParentID, int64(layout.MaxInodeNum))
	case i.ParentPool > 1<<16-1:
		return fmt.Errorf("parent_pool is %d, want at most 65535", i.ParentPool)
	case i.Parent() == i.ID:
		return fmt.Errorf("the layer is its own parent")
	}
	return nil
}

// ImageIndex is index/image/<name>.
type ImageIndex struct {
	ID     Number `json:"id"`
	PoolID Number `json:"pool_id"`
}

// Inode is the inode that the name stands for.
func (x ImageIndex) Inode() layout.Inode {
	return layout.MakeInode(layout.PoolID(x.PoolID), uint64(x.ID))
}

// ReadImageIndex reads the value of index/image/<name>.
func ReadImageIndex(data []byte) (x ImageIndex, err error) {
	if err = decode(data, &x); err == nil && (x.ID == 0 || x.ID > layout.MaxInodeNum || x.PoolID == 0 || x.PoolID > 1<<16-1) {
		err = fmt.Errorf("inode %d of pool %d cannot exist", x.ID, x.PoolID)
	}
	return x, err
}

// ReadMaxID reads the value of index/maxid/<pool>.
func ReadMaxID(data []byte) (uint64, error) {
	var n Number
	err := decode(data, &n)
	if err == nil && n > layout.MaxInodeNum {
		err = fmt.Errorf("%d is beyond the last inode, %d", n, int64(layout.MaxInodeNum))
	}
	return uint64(n), err
}

// Placement is config/node_placement: the nodes of the tree by name.
type Placement map[string]Node

// Node is one node of the placement tree. A node whose name is a number is that OSD.
type Node struct {
	Level  string `json:"level,omitempty"`
	Parent string `json:"parent,omitempty"`
}

// UnmarshalJSON reads a node; a parent may be written as a number.
func (n *Node) UnmarshalJSON(b []byte) error {
	var raw struct {
		Level  string          `json:"level"`
		Parent json.RawMessage `json:"parent"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	n.Level, n.Parent = raw.Level, ""
	if len(raw.Parent) == 0 || isNull(raw.Parent) {
		return nil
	}
	if raw.Parent[0] == '"' {
		return json.Unmarshal(raw.Parent, &n.Parent)
	}
	n.Parent = string(raw.Parent)
	return nil
}

// OSDConfig is config/osd/<n>.
type OSDConfig struct {
	Meta  `json:"-"`
	Extra Extra `json:"-"`

	Reweight *Float  `json:"reweight,omitempty"` // 0..1, 1 when missing
	Tags     Strings `json:"tags,omitempty"`
	NoOut    Flag    `json:"noout,omitempty"`
}

type osdConfigJSON OSDConfig

// MarshalJSON writes the configuration with the fields that we do not know.
func (c *OSDConfig) MarshalJSON() ([]byte, error) { return encodeObject((*osdConfigJSON)(c), c.Extra) }

// UnmarshalJSON reads it.
func (c *OSDConfig) UnmarshalJSON(b []byte) (err error) {
	c.Extra, err = decodeObject(b, (*osdConfigJSON)(c))
	return err
}

// Weight is the part of the OSD's size that placement counts.
func (c *OSDConfig) Weight() float64 {
	if c == nil || c.Reweight == nil {
		return 1
	}
	return float64(*c.Reweight)
}

func (c *OSDConfig) check() error {
	if w := c.Weight(); w < 0 || w > 1 {
		return fmt.Errorf("reweight is %v, want 0..1", w)
	}
	return nil
}
