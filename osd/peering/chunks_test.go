package peering

import (
	"fmt"
	"strings"
	"testing"

	"holdfast/core/layout"
)

// chunkCopies is written as "object/role:interval.version" with t for a tombstone, v for void, u for unstable: "0/2:1.5 0/2:2.6u".
func chunkCopies(text string) (out []Entry) {
	for _, f := range strings.Fields(text) {
		var o, role uint64
		var e Entry
		var flag string
		fmt.Sscanf(f, "%d/%d:%d.%d%s", &o, &role, &e.Interval, &e.Version, &flag)
		e.Object = layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: o<<17 | role}
		e.Tombstone, e.Void, e.Unstable = strings.Contains(flag, "t"), strings.Contains(flag, "v"), strings.Contains(flag, "u")
		out = append(out, e)
	}
	return out
}

// rolesOf is written as "12-4": OSD 1 has role 0, nobody role 2.
func rolesOf(text string) (out []layout.OSDNum) {
	for _, c := range text {
		n := layout.OSDNum(0)
		if c != '-' {
			n = layout.OSDNum(c - '0')
		}
		out = append(out, n)
	}
	return out
}

func (v *Verdict) chunkText() string {
	b := fmt.Sprintf("objects %d", v.Objects)
	if v.Incomplete > 0 {
		b += fmt.Sprintf(" incomplete %d", v.Incomplete)
	}
	for n := layout.OSDNum(1); n < 9; n++ {
		for _, e := range v.Rollbacks[n] {
			b += fmt.Sprintf(" rollback %d:%d>%s", n, e.Object.Role(), e.text())
		}
		for _, e := range v.Voids[n] {
			b += fmt.Sprintf(" void %d:%d=%s", n, e.Object.Role(), e.text())
		}
		for _, e := range v.Commits[n] {
			b += fmt.Sprintf(" commit %d:%d=%s", n, e.Object.Role(), e.text())
		}
	}
	for _, e := range v.Tombstones {
		b += " tombstone " + e.text()
	}
	for _, u := range v.Unclean {
		b += fmt.Sprintf("; unclean %s on", u.Truth.text())
		for _, c := range u.Chunks {
			b += fmt.Sprintf(" %d:%d", c.OSD, c.Role)
		}
		for _, l := range u.Lacks {
			b += fmt.Sprintf(" lacks %d:%d=%s", l.OSD, l.Have.Object.Role(), l.Have.text())
		}
		for _, l := range u.Strays {
			b += fmt.Sprintf(" stray %d:%d=%s", l.OSD, l.Have.Object.Role(), l.Have.text())
		}
	}
	return b
}

// The last activated interval is 2; its set are those named first, and others took part.
func TestJudgeChunks(t *testing.T) {
	for _, c := range []struct {
		name              string
		k                 int
		set, others, role string
		lists             []string // of OSD 1, 2, ...; "-": not heard
		want              string
	}{
		{"nothing anywhere", 2, "123", "", "123", []string{"", "", ""}, "objects 0"},
		{"all the same", 2, "123", "", "123", []string{"0/0:1.5", "0/1:1.5", "0/2:1.5"}, "objects 1"},
		{"two objects", 2, "123", "", "123", []string{"0/0:1.5 1/0:1.6", "0/1:1.5 1/1:1.6", "0/2:1.5"}, "objects 2; unclean 1.6 on 1:0 2:1 lacks 3:2=0.0"},

		// Rule 1.
		{"one has committed, the others have not", 2, "123", "", "123", []string{"0/0:2.6", "0/1:1.5 0/1:2.6u", "0/2:1.5 0/2:2.6u"}, "objects 1 commit 2:1=2.6 commit 3:2=2.6"},
		{"one has committed, another has the next already", 2, "123", "", "123", []string{"0/0:2.6 0/0:2.7u", "0/1:1.5 0/1:2.6u", "0/2:2.6 0/2:2.7u"},
			"objects 1 rollback 1:0>2.6 commit 2:1=2.6 rollback 3:2>2.6"},
		{"committed on one, unheard on the rest", 2, "123", "", "12-", []string{"0/0:2.6", "0/1:2.6u", "-"}, "objects 1 commit 2:1=2.6"},
		{"carried over by one that took part besides", 2, "124", "3", "124", []string{"0/0:1.6u", "", "0/2:1.6u", ""}, "objects 1 commit 1:0=1.6 commit 3:2=1.6; unclean 1.6 on 1:0 3:2 lacks 2:1=0.0 lacks 4:2=0.0"},
		{"carried over, and there is a newer one", 2, "12", "3", "12-", []string{"0/0:2.7", "0/1:2.7", "0/2:1.5 0/2:1.6u"}, "objects 1 rollback 3:2>1.5"},
		{"a void chunk is not heard", 2, "123", "", "123", []string{"0/0:1.5", "0/1:1.5", "0/2:2.6v"}, "objects 1; unclean 1.5 on 1:0 2:1 lacks 3:2=2.6v"},
		{"intervals go before versions", 2, "123", "", "123", []string{"0/0:2.5", "0/1:2.5", "0/2:1.9"}, "objects 1; unclean 2.5 on 1:0 2:1 lacks 3:2=1.9"},

		{"an equal version of another interval is another", 2, "123", "", "123", []string{"0/0:2.5", "0/1:2.5", "0/2:1.5"}, "objects 1; unclean 2.5 on 1:0 2:1 lacks 3:2=1.5"},

		// Rule 2.
		{"on every member, not committed", 2, "123", "", "123", []string{"0/0:1.5 0/0:2.6u", "0/1:1.5 0/1:2.6u", "0/2:1.5 0/2:2.6u"}, "objects 1 commit 1:0=2.6 commit 2:1=2.6 commit 3:2=2.6"},
		{"the first write of an object", 2, "123", "", "123", []string{"0/0:2.6u", "0/1:2.6u", "0/2:2.6u"}, "objects 1 commit 1:0=2.6 commit 2:1=2.6 commit 3:2=2.6"},
		{"on every heard one", 2, "123", "", "12-", []string{"0/0:1.5 0/0:2.6u", "0/1:1.5 0/1:2.6u", "-"}, "objects 1 commit 1:0=2.6 commit 2:1=2.6"},
		{"one lacks it", 2, "123", "", "123", []string{"0/0:1.5 0/0:2.6u", "0/1:1.5 0/1:2.6u", "0/2:1.5"}, "objects 1 rollback 1:0>1.5 rollback 2:1>1.5"},
		{"two lack it", 2, "123", "", "123", []string{"0/0:1.5", "0/1:1.5 0/1:2.6u", "0/2:1.5"}, "objects 1 rollback 2:1>1.5"},
		{"one lacks the first write of an object", 2, "123", "", "123", []string{"0/0:2.6u", "0/1:2.6u", ""}, "objects 0 rollback 1:0>0.0 rollback 2:1>0.0"},
		{"one that took part besides does not count", 2, "12", "3", "12-", []string{"0/0:1.5 0/0:2.6u", "0/1:1.5 0/1:2.6u", "0/2:1.5"}, "objects 1 commit 1:0=2.6 commit 2:1=2.6"},
		{"fewer than k", 3, "1234", "", "12--", []string{"0/0:1.5 0/0:2.6u", "0/1:1.5 0/1:2.6u"}, "objects 1 incomplete 1 rollback 1:0>1.5 rollback 2:1>1.5"},
		{"a chain of lazy ones, the last not everywhere", 2, "123", "", "123", []string{"0/0:1.5 0/0:2.6u 0/0:2.7u 0/0:2.8u", "0/1:1.5 0/1:2.6u 0/1:2.7u", "0/2:1.5 0/2:2.6u 0/2:2.7u 0/2:2.8u"},
			"objects 1 rollback 1:0>2.7 commit 1:0=2.7 commit 2:1=2.7 rollback 3:2>2.7 commit 3:2=2.7"},
		{"unstable of a later interval than the last", 2, "123", "", "123", []string{"0/0:1.5 0/0:3.6u", "0/1:1.5 0/1:3.6u", "0/2:1.5 0/2:3.6u"}, "objects 1 rollback 1:0>1.5 rollback 2:1>1.5 rollback 3:2>1.5"},

		// Strangers.
		{"a stranger's unstable one is false", 2, "123", "", "1234", []string{"0/0:1.5", "0/1:1.5", "0/2:1.5", "0/3:1.4 0/3:1.6u"}, "objects 1 rollback 4:3>1.4; unclean 1.5 on 1:0 2:1 3:2 lacks 4:3=1.4"},
		{"a stranger has the truth, not committed", 2, "123", "", "1234", []string{"0/0:1.5", "0/1:1.5", "0/2:1.5", "0/3:1.4 0/3:1.5u"}, "objects 1 commit 4:3=1.5"},
		{"a stranger's stable one is false", 2, "123", "", "1234", []string{"0/0:1.5", "0/1:1.5", "0/2:1.5", "0/3:1.6"}, "objects 1 void 4:3=1.6; unclean 1.5 on 1:0 2:1 3:2 lacks 4:3=1.6v"},
		{"a stranger's is older, and a participant has none", 2, "123", "", "1234", []string{"0/0:1.5", "0/1:1.5", "", "0/3:1.4"}, "objects 1 void 4:3=1.4; unclean 1.5 on 1:0 2:1 lacks 3:2=0.0 lacks 4:3=1.4v"},
		{"what a stranger has rolled back to is void", 2, "123", "", "1234", []string{"", "", "", "0/3:1.4 0/3:1.6u"}, "objects 0 rollback 4:3>1.4 void 4:3=1.4; unclean 0.0 on lacks 4:3=1.4v"},
		{"never activated", 2, "", "", "12", []string{"0/0:1.5u", "0/1:1.5"}, "objects 0 rollback 1:0>0.0 void 2:1=1.5; unclean 0.0 on lacks 2:1=1.5v"},

		// Roles.
		{"two have swapped", 2, "123", "", "213", []string{"0/0:1.5", "0/1:1.5", "0/2:1.5"}, "objects 1; unclean 1.5 on 1:0 2:1 3:2 lacks 2:0=0.0 lacks 1:1=0.0 stray 1:0=1.5 stray 2:1=1.5"},
		{"one is whole and has a stray", 2, "123", "", "123", []string{"0/0:1.5 0/1:1.5", "0/1:1.5", "0/2:1.5"}, "objects 1; unclean 1.5 on 1:0 1:1 2:1 3:2 stray 1:1=1.5"},
		{"a stray does not say that a member has the truth", 2, "123", "", "123", []string{"0/0:1.4 0/1:1.5", "0/1:1.5", "0/2:1.5"}, "objects 1; unclean 1.5 on 1:1 2:1 3:2 lacks 1:0=1.4 stray 1:1=1.5"},
		{"an older stray is no older copy of the member's", 2, "123", "", "123", []string{"0/0:1.5 0/2:1.3", "0/1:1.5", "0/2:1.5"}, "objects 1; unclean 1.5 on 1:0 2:1 3:2 stray 1:2=1.3"},
		{"an unstable one is on top of the right role", 2, "123", "", "123", []string{"0/0:1.5 0/2:1.3 0/0:2.6u", "0/1:1.5 0/1:2.6u", "0/2:1.5 0/2:2.6u"},
			"objects 1 commit 1:0=2.6 commit 2:1=2.6 commit 3:2=2.6; unclean 2.6 on 1:0 2:1 3:2 stray 1:2=1.3"},
		{"one that is no member has no strays", 2, "123", "", "12-", []string{"0/0:1.5", "0/1:1.5", "0/2:1.5 0/1:1.4"}, "objects 1"},
		{"chunks of one role on two stores count once", 2, "123", "", "123", []string{"0/0:1.5", "0/0:1.5", ""}, "objects 1 incomplete 1; unclean 1.5 on 1:0 2:0 lacks 2:1=0.0 lacks 3:2=0.0 stray 2:0=1.5"},
		{"a stray of what does not exist", 2, "23", "", "123", []string{"0/1:1.4", "", ""}, "objects 0 void 1:1=1.4; unclean 0.0 on stray 1:1=1.4v"},
		{"what does not exist is on one that is no member", 2, "123", "", "123", []string{"", "", "", "0/3:1.4"}, "objects 0 void 4:3=1.4"},

		// Deletions.
		{"deleted everywhere, not committed", 2, "123", "", "123", []string{"0/0:1.5 0/0:2.6tu", "0/1:1.5 0/1:2.6tu", "0/2:1.5 0/2:2.6tu"}, "objects 0 commit 1:0=2.6t commit 2:1=2.6t commit 3:2=2.6t tombstone 2.6t"},
		{"deleted on two of three", 2, "123", "", "123", []string{"0/0:1.5 0/0:2.6tu", "0/1:1.5 0/1:2.6tu", "0/2:1.5"}, "objects 1 rollback 1:0>1.5 rollback 2:1>1.5"},
		{"one knows of the deletion", 2, "123", "", "123", []string{"0/0:2.6t", "", ""}, "objects 0 tombstone 2.6t; unclean 2.6t on 1:0 lacks 2:1=0.0 lacks 3:2=0.0"},

		// Nothing goes back.
		{"too few chunks of what is committed", 2, "123", "", "123", []string{"0/0:2.6", "0/1:1.5", "0/2:1.5"}, "objects 1 incomplete 1; unclean 2.6 on 1:0 lacks 2:1=1.5 lacks 3:2=1.5"},
	} {
		r := Record{Participants: members(c.set + c.others)}
		if c.set != "" {
			r.Activated, r.Sets = 2, []Set{{Interval: 2, Members: members(c.set)}}
		}
		var lists []Listing
		for i, l := range c.lists {
			if l != "-" {
				lists = append(lists, Listing{Member: members(fmt.Sprint(i + 1))[0], Entries: chunkCopies(l)})
			}
		}
		v := JudgeChunks(r, c.k, rolesOf(c.role), lists)
		if have := v.chunkText(); have != c.want {
			t.Errorf("%s:\n have %s\n want %s", c.name, have, c.want)
		}
		for i := range v.Unclean {
			if v.Unclean[i].Back != nil {
				t.Errorf("%s: goes back", c.name)
			}
		}
	}
}

func TestUnheardChunks(t *testing.T) {
	for _, c := range []struct {
		k                      int
		record, heard, missing string
	}{
		{2, "123@3;123", "3", "123@3"},
		{2, "123@3;123", "13", ""},
		{2, "123@3;12", "13", "123@3"},
		{2, "123@3 345@5;12345", "134", ""},
		{2, "123@3 345@5;12345", "345", "123@3"},
		{3, "1234@3;1234", "12", "1234@3"},
		{0, "123@3;123", "3", ""},
	} {
		have := strings.TrimSuffix(Record{Sets: record(c.record).Unheard(members(c.heard), c.k)}.text(), ";")
		if have != c.missing {
			t.Errorf("k %d, %s, heard %q: unheard %q, want %q", c.k, c.record, c.heard, have, c.missing)
		}
	}
}

// A change of roles is a new interval, as one of members is; a change of places that nobody has is none.
func TestChangeOfRolesIsANewInterval(t *testing.T) {
	s := newStory(4)
	s.ec.k = 2
	set := func(slots string) *Machine {
		s.ec.slots = rolesOf(slots)
		s.target = nil
		for _, n := range s.ec.slots {
			if n != 0 {
				s.target = append(s.target, n)
			}
		}
		s.primary, s.min = 1, 2
		p := s.osd(1)
		if p.m == nil {
			p.m = New(p.member())
		}
		s.put(p, p.m.Want(s.config()))
		s.settlePeering(p)
		return p.m
	}
	interval := layout.Interval(0)
	for _, c := range []struct {
		slots string
		isNew bool
		roles string
	}{
		{"12-", true, "12-"},
		{"1-2", true, "1-2"},
		{"1-2", false, "1-2"},
		{"-12", true, "-12"},
		{"312", true, "312"},
		{"123", true, "123"},
		{"123-", true, "123-"},
	} {
		m := set(c.slots)
		if m.Phase != Active || (m.Interval != interval) != c.isNew || fmt.Sprint(m.Roles()) != fmt.Sprint(rolesOf(c.roles)) {
			t.Errorf("slots %s: %v in interval %d after %d with roles %v, want %s, a new interval: %v", c.slots, m.Phase, m.Interval, interval, m.Roles(), c.roles, c.isNew)
		}
		interval = m.Interval
	}
	// One that is down has no role, and its place may change without anybody noticing.
	s.crash(s.osd(3))
	m := set("123-")
	if interval = m.Interval; fmt.Sprint(m.Roles()) != "[1 2 0 0]" {
		t.Errorf("roles %v with OSD 3 down", m.Roles())
	}
	if m = set("12-3"); m.Interval != interval {
		t.Errorf("OSD 3, which is down, changed its role: interval %d after %d", m.Interval, interval)
	}
}

// FuzzJudgeChunks: whatever stores list, roles and incomplete objects are counted right.
func FuzzJudgeChunks(f *testing.F) {
	f.Add([]byte("\x01\x00\x12\x01\x01\x12\x02\x02\x12"))
	f.Add([]byte("\x01\x00\x12\x01\x00\x2b\x02\xff\x6b\x03\x01\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lists := make([]Listing, 4)
		for i := range lists {
			lists[i].Member = members(fmt.Sprint(i + 1))[0]
		}
		for ; len(b) >= 3; b = b[3:] {
			l := &lists[b[0]%4]
			e := Entry{Object: layout.ObjectID{Stripe: uint64(b[0]>>6)<<17 | uint64(b[1])<<4 | uint64(b[1]&3)}, Version: layout.Version(b[2]>>4) + 1, Interval: layout.Interval(b[2] & 3), Tombstone: b[2]&4 != 0, Unstable: b[2]&8 != 0, Void: b[1] == 77}
			l.Entries = append(l.Entries, e)
		}
		r := Record{Activated: 2, Sets: []Set{{Interval: 2, Members: members("123")}}, Participants: members("123")}
		v := JudgeChunks(r, 2, rolesOf("21-4"), lists)
		incomplete := 0
		for i := range v.Unclean {
			u := &v.Unclean[i]
			roles := map[int]bool{}
			for _, c := range u.Chunks {
				roles[c.Role] = true
			}
			if len(roles) != u.Roles() {
				t.Errorf("%+v: %d roles, counted %d", u.Chunks, len(roles), u.Roles())
			}
			if u.Truth.Version != 0 && !u.Truth.Tombstone && len(roles) < 2 {
				incomplete++
			}
		}
		if incomplete != v.Incomplete {
			t.Errorf("%d objects are incomplete, counted %d", incomplete, v.Incomplete)
		}
	})
}
