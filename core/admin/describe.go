package admin

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// Described is everything that the cluster's keys say of one PG.
type Described struct {
	PG
	Activated uint64   `json:"activated"` // the last interval that served
	Sets      []PGSet  `json:"sets"`      // that may hold the only copy of something: of each somebody must be heard
	OSDs      []PGPart `json:"osds"`      // everybody it has to do with
	Clean     uint64   `json:"clean_count"`

	// What its primary tells of its objects; see Objects.
	Unclean      []Object `json:"unclean_objects"`
	UncleanMore  bool     `json:"unclean_objects_more,omitempty"`  // there are more than were asked for
	UncleanError string   `json:"unclean_objects_error,omitempty"` // why it could not be asked
}

// PGSet is one recorded set.
type PGSet struct {
	Interval uint64   `json:"interval"`
	OSDs     []uint64 `json:"osds"`
}

// PGPart is one OSD that a PG has to do with.
type PGPart struct {
	Num       uint64 `json:"osd_num"`
	Host      string `json:"host,omitempty"`
	Up        bool   `json:"up"`
	LastHeard string `json:"last_heard,omitempty"` // when it last wrote its statistics
	InSet     bool   `json:"in_set"`               // where the PG is to be
	Serving   bool   `json:"serving"`              // takes part now
	Primary   bool   `json:"primary"`
	Word      bool   `json:"word"`               // took part in the last interval: what it holds counts
	Replaced  bool   `json:"replaced,omitempty"` // runs on another disk than then
}

// Text says for people what the OSD is to the PG.
func (o PGPart) Text() string {
	var list []string
	switch {
	case o.Up:
		list = append(list, "up")
	case o.LastHeard != "":
		list = append(list, "down, last heard of "+o.LastHeard)
	default:
		list = append(list, "down")
	}
	if o.Host != "" {
		list = append(list, "host "+o.Host)
	}
	for _, f := range []struct {
		is   bool
		text string
	}{{o.Primary, "primary"}, {o.Serving && !o.Primary, "takes part"}, {o.InSet && !o.Serving && !o.Primary, "has a place and takes no part"}, {!o.InSet, "has no place any more"}, {o.Word, "what it holds counts"}, {o.Replaced, "runs on another disk than then"}} {
		if f.is {
			list = append(list, f.text)
		}
	}
	return strings.Join(list, ", ")
}

// Describe tells everything about PGs: those named ("1/7", or POOL/7 by the pool's name), or, without names, those that are not active and whole and that f does not leave out.
func Describe(s *cluster.Snapshot, names []string, f PGFilter) ([]Described, error) {
	list, err := PGs(s, f)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		list = slices.DeleteFunc(list, func(p PG) bool { return p.Reason == "" })
	} else {
		wanted := []PG{}
		for _, name := range names {
			i := slices.IndexFunc(list, func(p PG) bool {
				return name == fmt.Sprintf("%d/%d", p.PoolID, p.Num) || name == fmt.Sprintf("%s/%d", p.Pool, p.Num)
			})
			if i < 0 {
				return nil, &Error{Kind: NotFound, What: "there is no PG " + quote(name), Way: "name it as POOL/NUMBER; `holdfast pg-list` lists them"}
			}
			wanted = append(wanted, list[i])
		}
		list = wanted
	}
	out := []Described{}
	for _, p := range list {
		out = append(out, describe(s, p))
	}
	return out, nil
}

func describe(s *cluster.Snapshot, p PG) Described {
	v := Described{PG: p, Sets: []PGSet{}, OSDs: []PGPart{}, Unclean: []Object{}}
	id := layout.PGID{Pool: layout.PoolID(p.PoolID), Num: uint32(p.Num)}
	at := func(n layout.OSDNum) *PGPart {
		for i := range v.OSDs {
			if v.OSDs[i].Num == uint64(n) {
				return &v.OSDs[i]
			}
		}
		o := PGPart{Num: uint64(n), InSet: slices.Contains(p.OSDSet, uint64(n)), Serving: slices.Contains(p.Peers, uint64(n))}
		if st, ok := s.OSDStats.Get(n); ok {
			o.Host = st.Host
		}
		if st, ok := s.OSDStates.Get(n); ok {
			o.Up, o.Host = true, st.Host
		}
		if t := lastHeard(s, n); !t.IsZero() {
			o.LastHeard = stamp(t)
		}
		if st, ok := s.PGStates.Get(id); ok {
			o.Primary = st.Primary == n
			o.Serving = o.Serving && st.State&cluster.StateActive != 0
		}
		v.OSDs = append(v.OSDs, o)
		return &v.OSDs[len(v.OSDs)-1]
	}
	for _, n := range p.OSDSet {
		if n != 0 {
			at(layout.OSDNum(n))
		}
	}
	if st, ok := s.PGStats.Get(id); ok {
		v.Clean = uint64(st.CleanCount)
	}
	rec, ok := s.Records.Get(id)
	if !ok || rec.Generation != s.Generation(id.Pool) {
		return v
	}
	v.Activated = uint64(rec.Activated)
	for _, m := range rec.Participants {
		o := at(m.OSD)
		if st, up := s.OSDStates.Get(m.OSD); up && !st.Store.IsZero() && st.Store != m.Store {
			o.Replaced = true
		} else {
			o.Word = true
		}
	}
	for _, set := range rec.Sets {
		x := PGSet{Interval: uint64(set.Interval), OSDs: []uint64{}}
		for _, m := range set.Members {
			at(m.OSD)
			x.OSDs = append(x.OSDs, uint64(m.OSD))
		}
		slices.Sort(x.OSDs)
		v.Sets = append(v.Sets, x)
	}
	slices.SortFunc(v.OSDs, func(a, b PGPart) int { return int(int64(a.Num) - int64(b.Num)) })
	return v
}
