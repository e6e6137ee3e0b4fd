package peering

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/core/layout"
)

// The reasons of a PG that waits, in words for people: what it waits for; what would help.

// maxReasons bounds the sets that a reason explains.
const maxReasons = 3

// names lists OSDs: "OSD 2" or "OSDs 2,3".
func names(list []layout.OSDNum) string {
	if len(list) == 1 {
		return fmt.Sprintf("OSD %d", list[0])
	}
	return "OSDs " + numbers(list, ",")
}

// anyOf lists OSDs one of which is enough: "OSD 2 or 3".
func anyOf(list []layout.OSDNum) string {
	last := len(list) - 1
	if last == 0 {
		return names(list)
	}
	return "OSD " + numbers(list[:last], ", ") + " or " + fmt.Sprint(list[last])
}

func numbers(list []layout.OSDNum, between string) string {
	var b strings.Builder
	for i, n := range list {
		if i > 0 {
			b.WriteString(between)
		}
		fmt.Fprint(&b, uint64(n))
	}
	return b.String()
}

// whyUnheard explains recorded sets of which nobody, or too few, were heard.
func (m *Machine) whyUnheard(missing []Set) string {
	var list []string
	for _, s := range missing[:min(len(missing), maxReasons)] {
		list = append(list, m.whySet(s))
	}
	text := strings.Join(list, "; also ")
	if more := len(missing) - len(list); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

func (m *Machine) whySet(s Set) string {
	var members, away, down, another, silent []layout.OSDNum
	need := max(1, m.cfg.K)
	for _, a := range s.Members {
		members = append(members, a.OSD)
		if !contains(m.Record.Participants, a) {
			continue // what it holds may be older or false: hearing it does not help
		}
		if h := m.peers[a.OSD]; m.cfg.K > 1 && h != nil && h.granted && h.store == a.Store {
			need--
			continue
		}
		store, up := m.cfg.Up[a.OSD]
		if a.OSD == m.Self.OSD {
			store, up = m.Self.Store, true
		}
		switch {
		case !up:
			down = append(down, a.OSD)
		case store != a.Store:
			another = append(another, a.OSD)
		default:
			silent = append(silent, a.OSD)
		}
	}
	for _, osd := range m.cfg.Target {
		if h := m.peers[osd]; h != nil && h.granted && h.part != 0 && h.part < s.Interval && !slices.Contains(members, osd) && !slices.Contains(away, osd) {
			away = append(away, osd)
		}
	}
	slices.Sort(members)
	slices.Sort(away)
	text := fmt.Sprintf("written in interval %d by %s", s.Interval, names(members))
	switch len(away) {
	case 0:
	case 1:
		text += fmt.Sprintf(" while %d was away", away[0])
	default:
		text += fmt.Sprintf(" while %s were away", numbers(away, ","))
	}
	if m.cfg.K > 1 {
		text += fmt.Sprintf("; %d of them are needed, %d more", m.cfg.K, need)
	}
	var help []string
	if len(down) > 0 {
		help = append(help, start(need, down))
	}
	if len(silent) > 0 {
		slices.Sort(silent)
		help = append(help, m.whySilent(silent))
	}
	for _, osd := range another {
		i := slices.IndexFunc(s.Members, func(a Member) bool { return a.OSD == osd })
		help = append(help, fmt.Sprintf("OSD %d runs on another disk now: bring back the one with store %.8s, and accept it (`holdfast disk accept --keep-id`)", osd, s.Members[i].Store.String()))
	}
	if len(help) == 0 {
		nobody := "none of them"
		if m.cfg.K > 1 {
			nobody = "no other of them"
		}
		help = append(help, fmt.Sprintf("%s took part in the last interval, %d: the PG's record is wrong; restore etcd from a snapshot", nobody, m.Record.Activated))
	}
	between := ", or "
	if need > 1 {
		between = "; "
	}
	return text + "; " + strings.Join(help, between)
}

// start says which OSDs to start when so many are needed.
func start(need int, down []layout.OSDNum) string {
	slices.Sort(down)
	switch {
	case need >= len(down):
		return "start " + names(down)
	case need == 1:
		return "start " + anyOf(down)
	}
	return fmt.Sprintf("start %d of %s", need, names(down))
}

// whySilent explains OSDs that are up and did not grant their locks.
func (m *Machine) whySilent(list []layout.OSDNum) string {
	verb := "does"
	if len(list) > 1 {
		verb = "do"
	}
	return fmt.Sprintf("%s, up, %s not give OSD %d the lock: unreachable from there (look at the network), or still bound to another primary for a moment", names(list), verb, m.Self.OSD)
}

// whyTooFew explains why only these can take part, when that is not enough.
func (m *Machine) whyTooFew(acting []Member) string {
	need := m.cfg.need()
	text := fmt.Sprintf("only %d of the %d OSDs that pg_minsize asks for can take part", len(acting), need)
	if len(acting) == 0 {
		text = fmt.Sprintf("none of the %d OSDs that pg_minsize asks for can take part", need)
	}
	var down, silent []layout.OSDNum
	for _, osd := range m.cfg.Target {
		_, up := m.cfg.Up[osd]
		switch {
		case slices.ContainsFunc(acting, func(a Member) bool { return a.OSD == osd }):
		case up || osd == m.Self.OSD:
			silent = append(silent, osd)
		default:
			down = append(down, osd)
		}
	}
	var help []string
	if len(down) > 0 {
		help = append(help, start(need-len(acting), down))
	}
	if len(silent) > 0 {
		slices.Sort(silent)
		help = append(help, m.whySilent(silent))
	}
	if len(m.cfg.Target) < need {
		help = append(help, "the PG has places on too few: add OSDs or hosts")
	}
	return text + "; " + strings.Join(help, "; ")
}
