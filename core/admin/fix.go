package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"holdfast/core/client"
	"holdfast/core/layout"
)

// FixChoice says which copies are wrong.
type FixChoice struct {
	Objects []layout.ObjectID
	OSDs    []uint64
	Part    int  // of erasure-coded objects; below 0: any
	Check   bool // ask first which of these copies are in doubt: the others are left alone without a question
	DryRun  bool
}

// Fixed is one copy, and what became of it.
type Fixed struct {
	PoolID  uint64 `json:"pool_id"`
	InodeID uint64 `json:"inode_id"`
	Offset  uint64 `json:"offset"`
	OSD     uint64 `json:"osd_num"`
	Part    uint64 `json:"part"`
	State   string `json:"state,omitempty"` // before
	// Result is "would be made anew", "made anew", "in doubt" (the copies that are left differ as well), "lost" (none of them can be read), "not wrong" or "refused".
	Result string `json:"result"`
	Error  string `json:"error,omitempty"`
}

// The results.
const (
	FixWould    = "would be made anew"
	FixDone     = "made anew"
	FixInDoubt  = "in doubt"
	FixLost     = "lost"
	FixNotWrong = "not wrong"
	FixRefused  = "refused"
)

// objectText is one object in a text: 0x<inode>:0x<stripe>, as stock tools write it, or decimal; the inode is with its pool.
var objectText = regexp.MustCompile(`\b(0[xX][0-9a-fA-F]+|[0-9]+):(0[xX][0-9a-fA-F]+|[0-9]+)\b`)

// ReadObjects reads a list of objects: text, JSON [{"inode":"0x...","stripe":"0x..."}], or what `holdfast describe --json` prints.
func ReadObjects(text []byte) ([]layout.ObjectID, error) {
	var out []layout.ObjectID
	add := func(inode, stripe uint64) error {
		id := layout.ObjectID{Inode: layout.Inode(inode), Stripe: stripe}
		if id.Inode.Pool() == 0 || id.Inode.Num() == 0 {
			return &Error{Kind: Usage, What: fmt.Sprintf("%#x:%#x is no object", inode, stripe), Way: "its inode is the number of the pool in the upper 16 bits and that of the image below"}
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
		return nil
	}
	if t := bytes.TrimSpace(text); len(t) > 0 && (t[0] == '[' || t[0] == '{') {
		var list []struct {
			Inode   any `json:"inode"`
			Stripe  any `json:"stripe"`
			Unclean []struct {
				InodeID uint64 `json:"inode_id"`
				Offset  uint64 `json:"offset"`
			} `json:"unclean_objects"`
			Pool uint64 `json:"pool_id"`
		}
		if t[0] == '{' {
			t = append(append([]byte{'['}, t...), ']')
		}
		d := json.NewDecoder(bytes.NewReader(t))
		d.UseNumber() // 64 bits
		if err := d.Decode(&list); err != nil {
			return nil, &Error{Kind: Usage, What: "the list of objects", Err: err}
		}
		for _, v := range list {
			for _, o := range v.Unclean {
				if err := add(uint64(layout.MakeInode(layout.PoolID(v.Pool), o.InodeID)), o.Offset); err != nil {
					return nil, err
				}
			}
			if v.Inode == nil && v.Unclean != nil {
				continue
			}
			inode, err := strconv.ParseUint(fmt.Sprint(v.Inode), 0, 64)
			stripe, err2 := strconv.ParseUint(fmt.Sprint(v.Stripe), 0, 64)
			if err = errors.Join(err, err2); err == nil {
				err = add(inode, stripe)
			}
			if err != nil {
				return nil, &Error{Kind: Usage, What: "the list of objects", Err: err, Way: `write [{"inode":"0x1000000000001","stripe":"0x20000"}]`}
			}
		}
		return out, nil
	}
	for _, m := range objectText.FindAllStringSubmatch(string(text), -1) {
		inode, err := strconv.ParseUint(m[1], 0, 64)
		stripe, err2 := strconv.ParseUint(m[2], 0, 64)
		if err = errors.Join(err, err2); err == nil {
			err = add(inode, stripe)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// FixRun has copies made anew, object by object.
type FixRun struct {
	c    *client.Client
	f    FixChoice
	done func([]Fixed, error)
	list []Fixed
	over bool
}

// Fix has what is wrong made anew from what is left. done is called later, once.
func Fix(c *client.Client, f FixChoice, done func([]Fixed, error)) *FixRun {
	r := &FixRun{c: c, f: f, done: done, list: []Fixed{}}
	r.object(0)
	return r
}

// Stop ends it after the object under way; done is called.
func (r *FixRun) Stop() { r.over = true }

func (r *FixRun) object(i int) {
	if r.over && i < len(r.f.Objects) {
		r.done(r.list, client.ErrCanceled)
		return
	}
	if i == len(r.f.Objects) {
		r.done(r.list, nil)
		return
	}
	id := r.f.Objects[i]
	var copies []Fixed
	for _, osd := range r.f.OSDs {
		v := Fixed{PoolID: uint64(id.Inode.Pool()), InodeID: id.Inode.Num(), Offset: id.Stripe, OSD: osd}
		if r.f.Part > 0 {
			v.Part = uint64(r.f.Part)
		}
		copies = append(copies, v)
	}
	if !r.f.Check {
		r.copies(i, id, copies)
		return
	}
	g, err := r.c.Snapshot().Geometry(id.Inode.Pool())
	if err != nil || g.PGCount == 0 {
		r.done(r.list, &Error{Kind: NotFound, What: fmt.Sprintf("object %v: its pool does not exist or has no PGs", id)})
		return
	}
	id.Stripe = g.Stripe(id.Stripe)
	pg := layout.PGID{Pool: id.Inode.Pool(), Num: g.PG(id.Stripe)}
	r.c.Describe(pg, client.Query{From: id, To: layout.ObjectID{Inode: id.Inode, Stripe: max(id.Stripe, 1)}}, func(list []client.Unclean, _ bool, err error) {
		if err != nil {
			r.done(r.list, err)
			return
		}
		var wrong []Fixed
		for k := range copies {
			v := copies[k]
			v.Result = FixNotWrong
			for n := range list {
				if list[n].Object != id {
					continue
				}
				for _, c := range list[n].Copies {
					if uint64(c.OSD) == v.OSD && (r.f.Part < 0 || uint32(r.f.Part) == c.Part) {
						v.State, v.Part = copyStates[c.State], uint64(c.Part)
						if c.State == client.CopyCorrupted || c.State == client.CopyInconsistent {
							v.Result = FixWould
						}
					}
				}
			}
			if v.Result == FixWould && !r.f.DryRun {
				wrong = append(wrong, v)
			} else {
				r.list = append(r.list, v)
			}
		}
		r.copies(i, id, wrong)
	})
}

// copies makes copies of one object anew, one after the other.
func (r *FixRun) copies(i int, id layout.ObjectID, left []Fixed) {
	if len(left) == 0 {
		r.object(i + 1)
		return
	}
	v := left[0]
	part := client.AnyPart
	if r.f.Part >= 0 {
		part = uint32(r.f.Part)
	}
	r.c.Fix(id, layout.OSDNum(v.OSD), part, func(found client.Compared, err error) {
		switch {
		case errors.Is(err, client.ErrNotWrong):
			v.Result = FixNotWrong
		case errors.Is(err, client.ErrNoneLeft):
			v.Result, v.Error = FixRefused, "too few copies would be left: write the object anew, or delete it"
		case err != nil:
			v.Result, v.Error = FixRefused, err.Error()
		case found.Found == client.FoundInconsistent:
			v.Result = FixInDoubt
		case found.Found == client.FoundLost:
			v.Result = FixLost
		default:
			v.Result = FixDone
		}
		r.list = append(r.list, v)
		r.copies(i, id, left[1:])
	})
}
