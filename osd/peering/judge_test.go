package peering

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"holdfast/core/layout"
)

func members(osds string) (out []Member) {
	for _, c := range osds {
		n := layout.OSDNum(c - '0')
		out = append(out, Member{OSD: n, Store: layout.StoreID{byte(n)}})
	}
	return out
}

// record is written as "sets;participants": "12@3 13@5;123".
func record(text string) (r Record) {
	setsText, participants, _ := strings.Cut(text, ";")
	for _, f := range strings.Fields(setsText) {
		m, at, _ := strings.Cut(f, "@")
		var interval layout.Interval
		fmt.Sscan(at, &interval)
		r.Sets = append(r.Sets, Set{Interval: interval, Members: members(m)})
		r.Activated = interval
	}
	r.Participants = members(participants)
	r.Interval = r.Activated + 1
	return r
}

func (r Record) text() string {
	var b strings.Builder
	for i, s := range r.Sets {
		if i > 0 {
			b.WriteByte(' ')
		}
		for _, m := range s.Members {
			fmt.Fprint(&b, m.OSD)
		}
		fmt.Fprintf(&b, "@%d", s.Interval)
	}
	b.WriteByte(';')
	for _, m := range r.Participants {
		fmt.Fprint(&b, m.OSD)
	}
	return b.String()
}

func TestWithSet(t *testing.T) {
	for _, c := range []struct{ name, record, set, heard, want string }{
		{"first", ";", "123", "123", "123@9;123"},
		{"same again", "123@3;123", "123", "123", "123@9;123"},
		{"same in another order", "123@3;123", "312", "123", "312@9;123"},
		{"shrinks", "123@3;123", "12", "12", "12@9;12"},
		{"shrinks, the third heard", "123@3;123", "12", "123", "12@9;123"},
		{"grows by one that took part", "12@3;123", "123", "123", "12@3 123@9;123"},
		{"grows by one that did not", "123@2 12@3;12", "123", "123", "12@3 123@9;123"},
		{"a returning member stands for no older set", "13@1 2@3;12", "31", "123", "1@1 2@3 31@9;123"},
		{"moves", "12@3;12", "34", "1234", "12@3 34@9;1234"},
		{"moves, one of the old heard", "12@3;12", "34", "234", "12@3 34@9;234"},
		{"heard, but not of the last interval", "12@3;1", "13", "123", "12@3 13@9;13"},
		{"smaller old set implies the larger", "1@2 12@3;12", "34", "134", "1@2 34@9;134"},
		{"same set twice", "12@2 3@4 12@5;123", "4", "1234", "3@4 12@5 4@9;1234"},
	} {
		r := record(c.record)
		before := r.text()
		if have := r.WithSet(9, members(c.set), members(c.heard), 77).text(); have != c.want {
			t.Errorf("%s: %s with set %s, heard %s = %s, want %s", c.name, c.record, c.set, c.heard, have, c.want)
		}
		if r.text() != before {
			t.Errorf("%s: the record before was changed", c.name)
		}
	}
	r := record("12@3;12")
	r.Floor = 100
	if n := r.WithSet(9, members("12"), members("12"), 50); n.Floor != 100 || n.Activated != 9 {
		t.Errorf("floor %d activated %d, want 100 and 9", n.Floor, n.Activated)
	}
}

func TestUnheardAndClean(t *testing.T) {
	for _, c := range []struct{ record, heard, missing string }{
		{";", "1", ""},
		{"123@3;123", "3", ""},
		{"123@3;12", "3", "123@3"},
		{"12@3 34@5;1234", "13", ""},
		{"12@3 34@5;1234", "34", "12@3"},
		{"12@3 34@5;34", "1234", "12@3"},
		{"12@3 34@5;1234", "", "12@3 34@5"},
	} {
		have := strings.TrimSuffix(Record{Sets: record(c.record).Unheard(members(c.heard))}.text(), ";")
		if have != c.missing {
			t.Errorf("%s, heard %q: unheard %q, want %q", c.record, c.heard, have, c.missing)
		}
	}
	r := record("12@3 34@5;1234")
	if r.IsClean() {
		t.Error("a record with two sets counts as clean, or names the wrong stores")
	}
	c := r.Clean()
	if c.text() != "34@5;34" || !c.IsClean() || r.text() != "12@3 34@5;1234" {
		t.Errorf("clean: %s", c.text())
	}
	// Another store under a number is another member.
	other := []Member{{OSD: 3, Store: layout.StoreID{99}}}
	if len(record("3@5;3").Unheard(other)) != 1 {
		t.Error("an empty disk under the number stands for the recorded store")
	}
}

// copies is written as "object:interval.version" with t for a tombstone and v for void: "0:1.5 1:2.7t".
func copies(text string) (out []Entry) {
	for _, f := range strings.Fields(text) {
		var e Entry
		var o uint64
		var flag string
		fmt.Sscanf(f, "%d:%d.%d%s", &o, &e.Interval, &e.Version, &flag)
		e.Object = layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: o << 17}
		e.Tombstone, e.Void = strings.Contains(flag, "t"), strings.Contains(flag, "v")
		out = append(out, e)
	}
	return out
}

func (e Entry) text() string {
	s := fmt.Sprintf("%d.%d", e.Interval, e.Version)
	if e.Tombstone {
		s += "t"
	}
	if e.Void {
		s += "v"
	}
	return s
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, participants, set string
		lists                   []string // of OSD 1, 2, ...
		want                    string
	}{
		{"all the same", "123", "123", []string{"0:1.5", "0:1.5", "0:1.5"}, "objects 1"},
		{"nothing anywhere", "12", "12", []string{"", ""}, "objects 0"},
		{"never activated", "", "12", []string{"0:1.5", ""}, "objects 0 void 1:1.5 unclean 0.0 on [] lacks 1:1.5v"},
		{"newest of the participants", "12", "12", []string{"0:1.5", "0:1.6"}, "objects 1 unclean 1.6 on [2] lacks 1:1.5"},
		{"newer on a stranger is false", "12", "123", []string{"0:1.5", "0:1.5", "0:1.6"}, "objects 1 void 3:1.6 unclean 1.5 on [1 2] lacks 3:1.6v"},
		{"older on a stranger is outdated", "12", "123", []string{"0:2.5", "0:2.5", "0:1.4"}, "objects 1 unclean 2.5 on [1 2] lacks 3:1.4"},
		{"older on a stranger, but not than every participant's", "12", "123", []string{"0:2.5", "0:1.2", "0:1.4"}, "objects 1 void 3:1.4 unclean 2.5 on [1] lacks 2:1.2 lacks 3:1.4v"},
		{"older on a stranger, and a participant has none", "12", "123", []string{"0:2.5", "", "0:1.4"}, "objects 1 void 3:1.4 unclean 2.5 on [1] lacks 2:0.0 lacks 3:1.4v"},
		{"equal version of another interval is false", "1", "12", []string{"0:2.5", "0:1.5"}, "objects 1 unclean 2.5 on [1] lacks 2:1.5"},
		{"greater version of an earlier interval", "1", "12", []string{"0:2.5", "0:1.9"}, "objects 1 unclean 2.5 on [1] lacks 2:1.9"},
		{"equal version of a later interval on a stranger", "1", "12", []string{"0:1.5", "0:2.5"}, "objects 1 void 2:2.5 unclean 1.5 on [1] lacks 2:2.5v"},
		{"a void copy is not heard", "12", "12", []string{"0:1.6v", "0:1.5"}, "objects 1 unclean 1.5 on [2] lacks 1:1.6v"},
		{"tombstone against an outdated copy", "12", "123", []string{"0:2.6t", "0:2.6t", "0:1.5"}, "objects 0 tombstone 2.6t unclean 2.6t on [1 2] lacks 3:1.5"},
		{"tombstone that one has forgotten", "12", "12", []string{"0:2.6t", ""}, "objects 0 tombstone 2.6t unclean 2.6t on [1] lacks 2:0.0"},
		{"tombstones of two versions", "12", "12", []string{"0:2.6t", "0:1.5t"}, "objects 0 tombstone 2.6t unclean 2.6t on [1] lacks 2:1.5t"},
		{"only a stranger has it: the tombstone is forgotten", "12", "123", []string{"", "", "0:1.5"}, "objects 0 void 3:1.5 unclean 0.0 on [] lacks 3:1.5v"},
		{"truth on one that is no member", "12", "1", []string{"0:1.5", "0:2.6"}, "objects 1 unclean 2.6 on [2] lacks 1:1.5"},
		{"one that is no member need not be whole", "12", "1", []string{"0:2.6", "0:1.5"}, "objects 1"},
	} {
		r := Record{Participants: members(c.participants)}
		var lists []Listing
		for i, l := range c.lists {
			lists = append(lists, Listing{Member: members(fmt.Sprint(i + 1))[0], Entries: copies(l)})
		}
		var set []layout.OSDNum
		for _, m := range members(c.set) {
			set = append(set, m.OSD)
		}
		v := Judge(r, set, lists)
		have := fmt.Sprintf("objects %d", v.Objects)
		for n := layout.OSDNum(1); n < 9; n++ {
			for _, e := range v.Voids[n] {
				have += fmt.Sprintf(" void %d:%s", n, e.text())
			}
		}
		for _, e := range v.Tombstones {
			have += " tombstone " + e.text()
		}
		for _, u := range v.Unclean {
			have += fmt.Sprintf(" unclean %s on %v", u.Truth.text(), u.Holders)
			for _, l := range u.Lacks {
				have += fmt.Sprintf(" lacks %d:%s", l.OSD, l.Have.text())
			}
		}
		if have != c.want {
			t.Errorf("%s:\n have %s\n want %s", c.name, have, c.want)
		}
	}
}

// What was never acknowledged is undone one version after the other, as far as no newer copy is out of reach.
func TestWhatAnUnreadableTruthGoesBackTo(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   string
		lists []string
		want  string
	}{
		{"one lacks it", "12", []string{"0:2.6", "0:2.5"}, "2.5 on [2] lacks 1:2.6"},
		{"nobody lacks it", "12", []string{"0:2.6", "0:2.6"}, ""},
		{"it never was anywhere else", "12", []string{"0:2.6", ""}, "0.0 on [] lacks 1:2.6"},
		{"written before the last interval", "12", []string{"0:1.6", "0:1.5"}, ""},
		{"one version after the other", "123", []string{"0:2.9", "0:2.5", "0:2.7"}, "2.7 on [3] lacks 1:2.9 lacks 2:2.5, 2.5 on [2] lacks 1:2.9 lacks 3:2.7"},
		{"the next one beside the set", "124", []string{"0:2.9", "0:2.5", "0:2.7", ""}, "2.7 on [3] lacks 1:2.9 lacks 2:2.5 lacks 4:0.0"},
		{"the newest beside the set", "23", []string{"0:2.9", "0:2.5", "0:2.7"}, ""},
		{"back to one that is gone", "12", []string{"0:2.6", "0:2.5v"}, ""},
		{"one that joins", "124", []string{"0:2.6", "0:2.5", "0:2.5", ""}, "2.5 on [2 3] lacks 1:2.6 lacks 4:0.0"},
		{"one that joins has a false copy", "124", []string{"0:2.6", "0:2.5", "0:2.5", "0:2.7"}, "2.5 on [2 3] lacks 1:2.6 lacks 4:2.7v"},
	} {
		r := Record{Activated: 2, Sets: []Set{{Interval: 2, Members: members("123")}}, Participants: members("123")}
		if len(c.lists) == 2 {
			r.Sets[0].Members, r.Participants = members("12"), members("12")
		}
		var lists []Listing
		for i, l := range c.lists {
			lists = append(lists, Listing{Member: members(fmt.Sprint(i + 1))[0], Entries: copies(l)})
		}
		var set []layout.OSDNum
		for _, m := range members(c.set) {
			set = append(set, m.OSD)
		}
		v := Judge(r, set, lists)
		var have []string
		if len(v.Unclean) > 0 {
			for u := v.Unclean[0].Back; u != nil; u = u.Back {
				text := fmt.Sprintf("%s on %v", u.Truth.text(), u.Holders)
				for _, l := range u.Lacks {
					text += fmt.Sprintf(" lacks %d:%s", l.OSD, l.Have.text())
				}
				have = append(have, text)
			}
		}
		if have := strings.Join(have, ", "); have != c.want {
			t.Errorf("%s:\n have %s\n want %s", c.name, have, c.want)
		}
	}
}

// The order of the listings, and of the entries in them, must not matter.
func TestJudgeDoesNotDependOnOrder(t *testing.T) {
	r := Record{Participants: members("12"), Floor: 3}
	a := Listing{members("1")[0], copies("0:1.5 1:1.6 2:2.9 4:2.2t")}
	b := Listing{members("2")[0], copies("1:1.7 0:1.5 3:1.1")}
	c := Listing{members("3")[0], copies("3:3.1 2:2.8 5:1.1")}
	sorted := func(l []Lack) map[Lack]bool {
		out := map[Lack]bool{}
		for _, x := range l {
			out[x] = true
		}
		return out
	}
	v, w := Judge(r, []layout.OSDNum{1, 2, 3}, []Listing{a, b, c}), Judge(r, []layout.OSDNum{3, 2, 1}, []Listing{c, b, a})
	if !reflect.DeepEqual(v.Voids, w.Voids) || v.Floor != 9 || w.Floor != 9 || len(v.Unclean) != len(w.Unclean) {
		t.Fatalf("verdicts differ:\n%+v\n%+v", v, w)
	}
	for i := range v.Unclean {
		if v.Unclean[i].Truth != w.Unclean[i].Truth || !reflect.DeepEqual(sorted(v.Unclean[i].Lacks), sorted(w.Unclean[i].Lacks)) {
			t.Errorf("object %d: %+v and %+v", i, v.Unclean[i], w.Unclean[i])
		}
	}
}
