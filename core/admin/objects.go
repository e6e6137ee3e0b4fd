package admin

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// Object is one object that is not whole.
type Object struct {
	Image   string   `json:"image,omitempty"` // name of the image or layer
	InodeID uint64   `json:"inode_id"`
	Offset  uint64   `json:"offset"` // of its first byte in the image
	State   []string `json:"state"`  // "degraded", "misplaced" or "incomplete", and "corrupted" besides
	Deleted bool     `json:"deleted,omitempty"`
	Copies  []Copy   `json:"copies"`
	Reason  string   `json:"reason"` // why it is not whole, and what would help
}

// Copy is one copy of an object, or the place for one.
type Copy struct {
	OSD  uint64 `json:"osd_num"`
	Part uint64 `json:"part"` // of an erasure-coded object; 0
	// State is "whole", "outdated", "corrupted" (it cannot be read), "inconsistent" (it differs from others, and nobody knows which is right) or "missing".
	State string `json:"state"`
}

type objectState struct {
	bit  client.ObjectState
	name string
}

// objectStates are the names of the states that --object-state takes.
var objectStates = []objectState{{client.Degraded, "degraded"}, {client.Misplaced, "misplaced"}, {client.Incomplete, "incomplete"}, {client.Corrupted, "corrupted"}, {client.Inconsistent, "inconsistent"}}

// ObjectState joins states by their names.
func ObjectState(names []string) (mask client.ObjectState, err error) {
	for _, name := range names {
		i := slices.IndexFunc(objectStates, func(s objectState) bool { return s.name == name })
		if i < 0 {
			return 0, &Error{Kind: Usage, What: "there is no object state " + quote(name), Way: "degraded, misplaced, incomplete, corrupted and inconsistent are known"}
		}
		mask |= objectStates[i].bit
	}
	return mask, nil
}

// Objects puts what an OSD told of objects that are not whole into words.
func Objects(s *cluster.Snapshot, list []client.Unclean) []Object {
	out := []Object{}
	w := newReasoner(s)
	for i := range list {
		out = append(out, w.object(&list[i]))
	}
	return out
}

// copyStates are the words for copies.
var copyStates = [...]string{client.CopyWhole: "whole", client.CopyOutdated: "outdated", client.CopyCorrupted: "corrupted", client.CopyInconsistent: "inconsistent", client.CopyMissing: "missing"}

func (w *reasoner) object(o *client.Unclean) Object {
	v := Object{InodeID: o.Object.Inode.Num(), Offset: o.Object.Stripe, State: []string{}, Copies: []Copy{}, Deleted: o.Deleted}
	if i, ok := w.s.Inode(o.Object.Inode); ok {
		v.Image = i.Name
	}
	state := o.State
	var on [len(copyStates)][]layout.OSDNum // OSDs by the state of their copies
	for _, c := range o.Copies {
		v.Copies = append(v.Copies, Copy{OSD: uint64(c.OSD), Part: uint64(c.Part), State: copyStates[c.State]})
		on[c.State] = append(on[c.State], c.OSD)
	}
	whole, outdated, corrupted, inconsistent, missing := on[client.CopyWhole], on[client.CopyOutdated], on[client.CopyCorrupted], on[client.CopyInconsistent], on[client.CopyMissing]
	for _, f := range objectStates {
		if state&f.bit != 0 {
			v.State = append(v.State, f.name)
		}
	}
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if len(corrupted) > 0 {
		say("what is on %s cannot be read: look at the disk", osdList(corrupted))
	}
	if len(inconsistent) > 0 {
		say("what is on %s differs, and nobody knows which is right", osdList(inconsistent))
	}
	data := 1 // chunks that the object is read from
	if p, ok := w.s.Pools.Get(o.Object.Inode.Pool()); ok {
		data = p.DataChunks()
	}
	lacks := append(slices.Clone(outdated), missing...)
	slices.Sort(lacks)
	switch {
	case v.Deleted && len(lacks) > 0:
		say("it is deleted, and %s does not know that yet", osdList(lacks))
	case state&client.Incomplete != 0 && data > 1:
		if missed := data - parts(o.Copies); missed > 0 {
			say("%d of the %d chunks that are needed can be read; start the OSDs that have the others, or bring back their disks", data-missed, data)
		} else {
			say("%s could not give its chunks when that was tried last; it is tried again every second: look whether they are up and can be reached", osdList(whole))
		}
	case state&client.Incomplete != 0 && len(whole) > 0:
		say("%s could not give it when it was tried last; that is tried again every second: look whether it is up and can be reached", osdList(whole))
	case state&client.Incomplete != 0:
		say("no copy is left that can be read, so it is not served; one on a disk that was taken away would do: start its OSD; else write it anew, or delete it")
	default:
		if len(outdated) > 0 {
			say("%s had no part in its last change", osdList(outdated))
		}
		if len(missing) > 0 {
			what := "copy"
			if data > 1 {
				what = "chunk"
			}
			say("%s is to have a %s and has none yet", osdList(missing), what)
		}
	}
	switch {
	case len(inconsistent) > 0:
		say("it is not served until `holdfast fix` says which are wrong, or it is written anew")
	case state&client.Incomplete != 0 || len(lacks)+len(corrupted) == 0:
	case w.held == heldBack, w.held == heldMoves && state&client.Misplaced != 0:
		say("%s holds that back: set it to false", w.held)
	case len(whole) > 0 && data > 1:
		say("it is computed from %d of those on %s, without anybody's doing", data, osdList(whole))
	case len(whole) > 0:
		say("it is copied from %s, without anybody's doing", anyOf(whole))
	default:
		say("that is put right without anybody's doing")
	}
	v.Reason = strings.Join(list, "; ")
	return v
}

// parts counts the chunks of which there is a whole one.
func parts(copies []client.Copy) int {
	seen := map[uint32]bool{}
	for _, c := range copies {
		if c.State == client.CopyWhole {
			seen[c.Part] = true
		}
	}
	return len(seen)
}
