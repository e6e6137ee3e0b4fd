package peering

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"holdfast/core/layout"
)

// TestStories runs the scenario files of testdata on the model's stores and locks, with nothing left to chance. A file reads as one PG's life:
//
//	cluster osds=N                          N OSDs with empty stores; a new PG
//	peer primary=P target=(A,B) min=N       P is named primary; runs until the PG serves or waits. A primary before is gone unless stays is given
//	     until=PHASE only=(A,B)             stops in that phase, when the OSDs named, or none, have done what it asks of them
//	write object=X on=(A,B)                 the primary's next write of X reaches these members; delete likewise. Reaching all, it is acknowledged.
//	                                        hot: its version reaches into those of the next interval
//	crash, start, replace osd=N             the process ends; comes back; comes back on an empty disk
//	spoil object=X osd=N                    N's copy of X cannot be read any more
//	recover [object=X], clean, forget       what the primary does in the background
//	read object=X                           what a client is told
//	stores                                  what every store holds
//	etcd-save, etcd-restore                 set the PG's record back to an earlier state
//	full osd=N, room osd=N                  N refuses writes for lack of space; it has room again
//	go-on primary=N                         what an OSD was stopped in goes on, although another is named now
//	lost osd=N, readmit                     the primary loses N's grant; it tries those again that were left out
//
// With erasure codes, k=K in cluster, a target has the OSD of each role, 0 where there is none, and
//
//	write object=X on=(A,B)                 is unstable, on top of what was sent before on the same connections; delete likewise
//	commit object=X on=(A,B)                the commit that was sent reaches these members
//	recover object=X most=N                 stops when N chunks have been put in place or removed
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *story
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "cluster" {
				s = newStory(number(t, d, "osds"))
				if d.HasArg("k") {
					s.ec.k = number(t, d, "k")
					s.ec.m = maxRoles - s.ec.k
				}
				return "ok\n"
			}
			s.log = nil
			s.run(t, d)
			if len(s.log) == 0 {
				return "ok\n"
			}
			return strings.Join(s.log, "\n") + "\n"
		})
	})
}

// maxRoles is how many roles a story may have.
const maxRoles = 6

type story struct {
	*model
	saved Record
}

func newStory(osds int) *story {
	w := &model{rng: rand.New(rand.NewPCG(1, 1)), low: map[layout.ObjectID]int{}, dead: map[layout.ObjectID][][2]int{}, deletes: map[int]bool{}, spoilt: map[layout.OSDNum]modelCopy{}, calm: true}
	for i := range osds {
		o := &modelOSD{num: layout.OSDNum(i + 1), up: true}
		w.format(o)
		w.osds = append(w.osds, o)
	}
	w.record.Generation = 1
	return &story{model: w}
}

func number(t *testing.T, d *datadriven.TestData, key string) (n int) {
	d.ScanArgs(t, key, &n)
	return n
}

func list(t *testing.T, d *datadriven.TestData, key string) (out []layout.OSDNum) {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			for _, v := range a.Vals {
				var n uint64
				if _, err := fmt.Sscan(v, &n); err != nil {
					d.Fatalf(t, "%s: %v", v, err)
				}
				out = append(out, layout.OSDNum(n))
			}
		}
	}
	return out
}

func (s *story) object(t *testing.T, d *datadriven.TestData) layout.ObjectID {
	id := layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: uint64(number(t, d, "object")) << 17}
	if !slices.Contains(s.objects, id) {
		s.objects = append(s.objects, id)
	}
	return id
}

func (s *story) run(t *testing.T, d *datadriven.TestData) {
	defer func() {
		if r := recover(); r != nil {
			s.say("WRONG: %v", r)
		}
	}()
	switch d.Cmd {
	case "peer":
		s.peer(t, d)
	case "write", "delete":
		if s.ec.k > 0 {
			s.changeChunks(s.object(t, d), d.Cmd == "delete", d.HasArg("hot"), list(t, d, "on"))
			return
		}
		s.changeObject(s.object(t, d), d.Cmd == "delete", d.HasArg("hot"), list(t, d, "on"))
	case "commit":
		for role, osd := range s.mustServe(t, d).m.Roles() {
			if slices.Contains(list(t, d, "on"), osd) {
				s.flow(osd, chunkOf(s.object(t, d), role))
			}
		}
	case "crash":
		s.crash(s.osd(layout.OSDNum(number(t, d, "osd"))))
		s.log = nil
	case "start":
		s.osd(layout.OSDNum(number(t, d, "osd"))).up = true
	case "spoil":
		n := layout.OSDNum(number(t, d, "osd"))
		s.spoilt[n] = s.osd(n).store.objects[s.object(t, d)]
	case "replace":
		o := s.osd(layout.OSDNum(number(t, d, "osd")))
		s.format(o)
		o.up = true
	case "recover":
		a := s.mustServe(t, d)
		all := s.objects
		if d.HasArg("object") {
			s.objects = []layout.ObjectID{s.object(t, d)}
		}
		keep := a.m.Record
		if s.ec.most = 0; d.HasArg("most") {
			s.ec.most = number(t, d, "most")
		}
		s.recoverOne(a)
		s.objects = all
		if a.m.Phase == Active && len(a.unclean) == 0 && !keep.IsClean() && len(s.log) > 0 && s.log[len(s.log)-1] == "clean" {
			s.log[len(s.log)-1] = "every object is whole: the record is clean, sets " + fmt.Sprint(sets(a.m.Record.Sets))
		}
	case "forget":
		if s.ec.k > 0 {
			s.forgetChunks(s.mustServe(t, d))
			return
		}
		s.forget(s.mustServe(t, d))
	case "read":
		s.read(t, d, s.object(t, d))
	case "stores":
		s.show()
	case "etcd-save":
		s.saved = s.record
	case "etcd-restore":
		s.record, s.owner = s.saved, 0
	case "lost":
		a := s.mustServe(t, d)
		o := s.osd(layout.OSDNum(number(t, d, "osd")))
		o.lock = modelLock{}
		s.put(a, a.m.Lost(o.num))
		s.settlePeering(a)
	case "full":
		a := s.mustServe(t, d)
		o := s.osd(layout.OSDNum(number(t, d, "osd")))
		o.lock = modelLock{}
		s.put(a, a.m.Excluded(o.num))
		s.settlePeering(a)
	case "room":
		a := s.mustServe(t, d)
		s.say("left out as full: %v", a.m.Full())
		a.m.Room(layout.OSDNum(number(t, d, "osd")))
	case "go-on":
		o := s.osd(layout.OSDNum(number(t, d, "primary")))
		s.settlePeering(o)
	case "readmit":
		a := s.mustServe(t, d)
		s.put(a, a.m.Readmit())
		s.settlePeering(a)
	default:
		d.Fatalf(t, "no command %s", d.Cmd)
	}
}

func (s *story) mustServe(t *testing.T, d *datadriven.TestData) *modelOSD {
	a := s.active()
	if a == nil {
		d.Fatalf(t, "nobody serves")
	}
	return a
}

func (s *story) peer(t *testing.T, d *datadriven.TestData) {
	old := s.primary
	s.primary, s.target, s.min = layout.OSDNum(number(t, d, "primary")), list(t, d, "target"), 1
	if s.ec.k > 0 {
		s.ec.slots = s.target
		s.target = slices.DeleteFunc(slices.Clone(s.target), func(n layout.OSDNum) bool { return n == 0 })
	}
	if d.HasArg("min") {
		s.min = number(t, d, "min")
	}
	if old != s.primary && s.owner == old {
		s.owner = 0
	}
	if old != 0 && old != s.primary && s.osd(old).m != nil && !d.HasArg("stays") {
		o := s.osd(old)
		s.put(o, o.m.Unwant())
		for len(o.todo) > 0 {
			e := o.todo[0]
			o.todo = o.todo[1:]
			s.do(o, e)
		}
	}
	p := s.osd(s.primary)
	if p.m == nil {
		p.m = New(p.member())
	}
	s.put(p, p.m.Want(s.config()))
	for _, a := range d.CmdArgs {
		if a.Key == "until" {
			s.peerUntil(t, d, p, a.Vals[0], list(t, d, "only"))
			return
		}
	}
	s.settlePeering(p)
}

// peerUntil carries out what the primary asks for until it has come to a phase, and there what it asks of some.
func (s *story) peerUntil(t *testing.T, d *datadriven.TestData, p *modelOSD, phase string, only []layout.OSDNum) {
	reached := false
	for range 100 {
		there := p.m.Phase.String() == phase
		reached = reached || there
		if reached && !there {
			d.Fatalf(t, "the phase has ended: now %v", p.m.Phase)
		}
		i := slices.IndexFunc(p.todo, func(e Effect) bool { return !there || slices.Contains(only, e.OSD) })
		if i < 0 {
			break
		}
		e := p.todo[i]
		p.todo = slices.Delete(p.todo, i, i+1)
		s.do(p, e)
	}
	if !reached {
		d.Fatalf(t, "the phase is not reached: %v", p.m.Phase)
	}
	s.log = slices.DeleteFunc(s.log, func(l string) bool { return strings.HasPrefix(l, "take") })
	s.say("stopped while %v; unanswered: %v", p.m.Phase, waitsFor(p.todo))
}

func waitsFor(todo []Effect) (list []layout.OSDNum) {
	for _, e := range todo {
		list = append(list, e.OSD)
	}
	slices.Sort(list)
	return list
}

// settlePeering carries out what the primary asks for until it serves or can only wait.
func (s *story) settlePeering(p *modelOSD) {
	for waits := 0; len(p.todo) > 0; {
		i := slices.IndexFunc(p.todo, func(e Effect) bool { return e.Do != Retry })
		if i < 0 {
			if waits++; waits == 5 {
				break
			}
			i = 0
		}
		e := p.todo[i]
		p.todo = slices.Delete(p.todo, i, i+1)
		s.do(p, e)
	}
	s.log = slices.DeleteFunc(s.log, func(l string) bool { return strings.HasPrefix(l, "take") })
	if p.m.Phase != Active {
		s.say("%v: %s", p.m.Phase, p.m.Reason)
	}
}

// changeChunks begins a change, which reaches the chunks of these OSDs; reaching all of them, it is acknowledged.
func (s *story) changeChunks(id layout.ObjectID, tombstone, hot bool, osds []layout.OSDNum) {
	a := s.active()
	if a == nil {
		s.say("nobody serves")
		return
	}
	if a.unclean[id] != nil {
		s.say("waits until the object is whole")
		return
	}
	roles := a.m.Roles()
	on, failing := make([]bool, len(roles)), false
	for role, osd := range roles {
		on[role] = slices.Contains(osds, osd)
		failing = failing || osd != 0 && !on[role]
	}
	ends := a.m.Round
	s.model.change(a, id, tombstone, hot, on, failing)
	s.log = nil
	if a.m.Round != ends { // it failed: the interval goes on until the next peer
		s.say("content %d not acknowledged; the interval ends", s.writes)
		return
	}
	s.say("content %d acknowledged", s.writes)
}

func (s *story) changeObject(id layout.ObjectID, tombstone, hot bool, on []layout.OSDNum) {
	a := s.active()
	if a == nil {
		s.say("nobody serves")
		return
	}
	if a.unclean[id] != nil {
		s.say("waits until the object is whole")
		return
	}
	s.check(a, id)
	base := a.store.objects[id]
	s.writes++
	v := max(base.Version, a.floor, layout.Version(a.m.Interval)<<layout.VersionCounterBits) + 1
	if hot {
		v = layout.Version(a.m.Interval+1)<<layout.VersionCounterBits + 5
	}
	c := modelCopy{Entry{Object: id, Version: v, Interval: a.m.Interval, Tombstone: tombstone}, s.writes}
	s.deletes[c.content] = tombstone
	for _, m := range a.acting {
		if slices.Contains(on, m.OSD) {
			s.osd(m.OSD).store.objects[id] = c
		}
	}
	if len(on) == len(a.acting) {
		s.low[id] = c.content
		s.say("content %d acknowledged", c.content)
		return
	}
	s.say("content %d not acknowledged", c.content)
}

func (s *story) read(t *testing.T, d *datadriven.TestData, id layout.ObjectID) {
	a := s.active()
	switch {
	case a == nil:
		s.say("nobody serves")
	case a.unclean[id] != nil:
		u := a.unclean[id]
		if s.ec.k > 0 {
			s.readUnclean(a, id)
			return
		}
		s.say("waits: the truth is on %v", u.Holders)
	default:
		s.check(a, id)
		c := a.store.objects[id]
		if role := slices.Index(a.m.Roles(), a.num); role >= 0 {
			c = a.store.newest(chunkOf(id, role))
		}
		if c.Version == 0 || c.Tombstone {
			s.say("nothing is there")
			return
		}
		s.say("content %d", c.content)
	}
}

// readUnclean reads an object that is not whole.
func (s *story) readUnclean(a *modelOSD, id layout.ObjectID) {
	c, readable := s.compute(a, id)
	switch {
	case !readable:
		s.say("waits: the truth is on %v", a.unclean[id].Chunks)
		return
	case c.Version == 0 || c.Tombstone:
		s.say("nothing is there")
	default:
		s.say("content %d, computed from %v", c.content, a.unclean[id].Chunks)
	}
	s.told(id, c)
}

// showChunks says what a store has of an object.
func (s *story) showChunks(o *modelOSD, id layout.ObjectID) (line string) {
	for role := range s.ec.k + s.ec.m {
		chunk := chunkOf(id, role)
		c, stable := o.store.objects[chunk]
		if !stable && len(o.store.unstable[chunk]) == 0 {
			continue
		}
		line += fmt.Sprintf(" chunk %s", chunkName(chunk))
		if stable {
			line += " " + showCopy(c)
		}
		for _, c := range o.store.unstable[chunk] {
			line += " unstable " + showCopy(c)
		}
	}
	return line
}

func showCopy(c modelCopy) string {
	line := fmt.Sprintf("content %d of interval %d", c.content, c.Interval)
	if c.Tombstone {
		line += " (tombstone)"
	}
	if c.Void {
		line += " (void)"
	}
	return line
}

func (s *story) show() {
	for _, o := range s.osds {
		line := fmt.Sprintf("OSD %d:", o.num)
		for _, id := range s.objects {
			if s.ec.k > 0 {
				line += s.showChunks(o, id)
			} else if c, ok := o.store.objects[id]; ok {
				line += fmt.Sprintf(" object %d %s", id.Stripe>>17, showCopy(c))
			}
		}
		if !o.up {
			line += " (down)"
		}
		s.say("%s", line)
	}
}
