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
		have := strings.TrimSuffix(Record{Sets: record(c.record).Unheard(members(c.heard), 1)}.text(), ";")
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
	if len(record("3@5;3").Unheard(other, 1)) != 1 {
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
		{"written before the last interval", "12", []string{"0:1.6", "0:1.5"}, "1.5 on [2] lacks 1:1.6"},
		{"one version after the other", "123", []string{"0:2.9", "0:2.5", "0:2.7"}, "2.7 on [3] lacks 1:2.9 lacks 2:2.5, 2.5 on [2] lacks 1:2.9 lacks 3:2.7"},
		{"the next one beside the set", "124", []string{"0:2.9", "0:2.5", "0:2.7", ""}, "2.7 on [3] lacks 1:2.9 lacks 2:2.5 lacks 4:0.0, 2.5 on [2] lacks 1:2.9 lacks 4:0.0 voids 3:2.7"},
		{"the newest beside the set", "23", []string{"0:2.9", "0:2.5", "0:2.7"}, "2.7 on [3] lacks 2:2.5 voids 1:2.9, 2.5 on [2] lacks 3:2.7 voids 1:2.9"},
		{"back to one that is gone", "12", []string{"0:2.6", "0:2.5v"}, ""},
		{"one that joins", "124", []string{"0:2.6", "0:2.5", "0:2.5", ""}, "2.5 on [2 3] lacks 1:2.6 lacks 4:0.0"},
		{"one that joins has a false copy", "124", []string{"0:2.6", "0:2.5", "0:2.5", "0:2.7"}, "2.5 on [2 3] lacks 1:2.6 lacks 4:2.7v"},
	} {
		r := Record{Activated: 2, Sets: []Set{{Interval: 2, Members: members("123")}}, Participants: members("123")}
		if len(c.lists) == 2 {
			r.Sets[0].Members, r.Participants = members("12"), members("12")
		}
		v := judgeTexts(r, c.set, c.lists)
		if have := wayBack(&v); have != c.want {
			t.Errorf("%s:\n have %s\n want %s", c.name, have, c.want)
		}
	}
}

// What was written before the last activated interval may have been acknowledged in each interval since, unless somebody of its set lacks it.
func TestWhatAnOlderUnreadableTruthGoesBackTo(t *testing.T) {
	fresh := func(i layout.Interval, list string) Set {
		return Set{Interval: i, Members: members(list), First: i, Last: i}
	}
	silent := func(s Set, list string) Set { s.Silent = members(list); return s }
	reach := func(s Set, first, last layout.Interval) Set { s.First, s.Last = first, last; return s }
	for _, c := range []struct {
		name  string
		sets  []Set
		parts string
		set   string
		lists []string
		want  string
		voids string
	}{
		{"the one that lacks it is back", []Set{fresh(2, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "2.5 on [2] lacks 3:0.0 voids 1:2.6", ""},
		{"it joined an interval ago", []Set{silent(fresh(2, "1"), "2"), fresh(4, "13"), fresh(5, "23")}, "123", "23", []string{"0:2.6", "0:2.5", ""}, "2.5 on [2] lacks 3:0.0 voids 1:2.6", ""},
		{"it is not known to have been a member", []Set{fresh(2, "1"), fresh(4, "13"), fresh(5, "23")}, "123", "23", []string{"0:2.6", "0:2.5", ""}, "", ""},
		{"it is void", []Set{fresh(2, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5v", ""}, "", ""},
		{"nobody of a set between is heard but who has it", []Set{fresh(2, "12"), fresh(4, "14"), fresh(5, "13")}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "", "2:2.5"},
		{"a set before does not matter", []Set{fresh(1, "1"), fresh(2, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "2.5 on [2] lacks 3:0.0 voids 1:2.6", ""},
		{"unless it stands for one since", []Set{reach(fresh(1, "1"), 1, 3), fresh(2, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "", "2:2.5"},
		{"or may", []Set{reach(fresh(1, "1"), 0, 0), fresh(2, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "", "2:2.5"},
		{"another stands for the writers", []Set{reach(fresh(3, "12"), 2, 3), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "2.5 on [2] lacks 3:0.0 voids 1:2.6", ""},
		{"two may stand for the writers", []Set{reach(fresh(3, "12"), 2, 3), reach(fresh(4, "13"), 1, 4)}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "", "2:2.5"},
		{"none stands for them", []Set{fresh(3, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5", ""}, "", "2:2.5"},
		{"a later set may have seen more", []Set{fresh(2, "123"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.4", "0:2.5"}, "2.5 on [3] lacks 2:2.4 voids 1:2.6", ""},
		{"never there before", []Set{fresh(2, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "", ""}, "0.0 on [] voids 1:2.6", ""},
		{"to a deletion", []Set{fresh(2, "12"), fresh(4, "13")}, "13", "23", []string{"0:2.6", "0:2.5t", ""}, "2.5t on [2] lacks 3:0.0 voids 1:2.6", ""},
	} {
		r := Record{Activated: c.sets[len(c.sets)-1].Interval, Sets: c.sets, Participants: members(c.parts)}
		v := judgeTexts(r, c.set, c.lists)
		if have := wayBack(&v); have != c.want {
			t.Errorf("%s:\n have %s\n want %s", c.name, have, c.want)
		}
		voids := ""
		for osd, list := range v.Voids { // order: one at most
			voids += fmt.Sprintf("%d:%s", osd, list[0].text())
		}
		if voids != c.voids {
			t.Errorf("%s: voided %q, want %q", c.name, voids, c.voids)
		}
	}
}

// judgeTexts judges by what OSD 1 and up list, as text.
func judgeTexts(r Record, set string, texts []string) Verdict {
	var lists []Listing
	for i, l := range texts {
		lists = append(lists, Listing{Member: members(fmt.Sprint(i + 1))[0], Entries: copies(l)})
	}
	var osds []layout.OSDNum
	for _, m := range members(set) {
		osds = append(osds, m.OSD)
	}
	return Judge(r, osds, lists)
}

// wayBack is the text of what the first unclean object goes back to.
func wayBack(v *Verdict) string {
	var have []string
	if len(v.Unclean) > 0 {
		for u := v.Unclean[0].Back; u != nil; u = u.Back {
			text := fmt.Sprintf("%s on %v", u.Truth.text(), u.Holders)
			for _, l := range u.Lacks {
				text += fmt.Sprintf(" lacks %d:%s", l.OSD, l.Have.text())
			}
			for _, l := range u.Newer {
				text += fmt.Sprintf(" voids %d:%s", l.OSD, l.Have.text())
			}
			have = append(have, text)
		}
	}
	return strings.Join(have, ", ")
}

// Sets that are left out of a record are known to be stood for, and silent members are remembered as long as that keeps the record short.
func TestWithSetRemembersWhoWasAMember(t *testing.T) {
	text := func(r Record) (text string) {
		for _, s := range r.Sets {
			text += fmt.Sprintf("%d%v-%v[%d-%d] ", s.Interval, nums(s.Members), nums(s.Silent), s.First, s.Last)
		}
		return strings.TrimSpace(text)
	}
	r := Record{}
	for _, c := range []struct {
		set, heard, want string
	}{
		{"12", "12", "1[1 2]-[][1-1]"},
		{"12", "12", "2[1 2]-[][1-2]"},
		{"13", "13", "2[1 2]-[][1-2] 3[1 3]-[][3-3]"},
		{"23", "123", "2[1]-[2][1-2] 3[1 3]-[][3-3] 4[2 3]-[][4-4]"},
		{"3", "13", "2[1]-[2][1-2] 5[3]-[][3-5]"},
	} {
		if r = r.WithSet(r.Activated+1, members(c.set), members(c.heard), 0); text(r) != c.want {
			t.Errorf("after %s, hearing %s:\n have %s\n want %s", c.set, c.heard, text(r), c.want)
		}
	}
	if clean := r.Clean(); text(clean) != "5[3]-[][5-5]" {
		t.Errorf("clean: %s", text(clean))
	}
	many := Record{Activated: 90, Participants: members("9")}
	for i := range layout.Interval(40) {
		many.Sets = append(many.Sets, Set{Interval: i + 1, Members: members("9"), Silent: []Member{{OSD: layout.OSDNum(i + 100)}}, First: i + 1, Last: i + 1})
	}
	if have := text(many.WithSet(91, members("8"), members("89"), 0)); have != "40[9]-[][1-40] 91[8]-[][91-91]" {
		t.Errorf("of many: %s", have)
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
