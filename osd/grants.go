package osd

import (
	"encoding/json"
	"slices"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/secondary"
)

// peerRun is what we, as a primary, hold of another OSD: its grants, renewed together, and until when they count.
//
// A grant counts until 9/10 of T after the renewal that prolonged it was sent; the member counts T from when it received it. So by any pair of clocks that run alike we
// stop before the member may grant the PG to somebody else.
type peerRun struct {
	s        *OSD
	osd      layout.OSDNum
	pgs      map[layout.PGID]heldGrant
	revision uint64
	until    loop.Instant
	sent     loop.Instant
	heard    uint64       // the member's clock when it sent the last answer; 0: none came over this connection
	heardAt  loop.Instant // when that came
	fenced   uint64       // the number of its last fence that we have applied; 0: none came over this connection
	renewing bool
	again    bool
	waiting  []func(bool) // for the next renewal that is sent
	inFlight []func(bool)
	call     peer.Call
	payload  []byte
	foreign  []secondary.HeldGrant // what the member holds for us and we do not count on
}

// heldGrant is one PG's grant.
type heldGrant struct {
	interval layout.Interval
	instance uint64 // of the member
	since    loop.Instant
}

func (s *OSD) peer(osd layout.OSDNum) *peerRun {
	p := s.peers[osd]
	if p == nil {
		p = &peerRun{s: s, osd: osd, pgs: map[layout.PGID]heldGrant{}}
		p.call.Done = func(*peer.Call) { p.renewed() }
		s.peers[osd] = p
	}
	return p
}

func (s *OSD) sortedPeers() []*peerRun {
	list := make([]*peerRun, 0, len(s.peers))
	for _, p := range s.peers { // order: sorted below
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *peerRun) int { return int(int64(a.osd) - int64(b.osd)) })
	return list
}

// Valid reports whether the OSD's grants to us are in force now.
func (s *OSD) Valid(osd layout.OSDNum) bool {
	p := s.peers[osd]
	return p != nil && (s.l.Now() < p.until || planted.LockRunOut)
}

// Confirm asks an OSD whether its grants to us are in force, with the next renewal that is sent.
func (s *OSD) Confirm(osd layout.OSDNum, done func(bool)) {
	p := s.peer(osd)
	if !s.hub.Connected(osd) {
		done(false)
		return
	}
	p.waiting = append(p.waiting, done)
	p.renew()
}

// granted notes a new grant; done is called once a renewal has confirmed it.
func (p *peerRun) granted(pg layout.PGID, interval layout.Interval, instance uint64, done func(bool)) {
	p.pgs[pg] = heldGrant{interval: interval, instance: instance, since: p.s.l.Now()}
	p.waiting = append(p.waiting, done)
	p.renew()
}

// dropped forgets a grant that is given back.
func (p *peerRun) dropped(pg layout.PGID, interval layout.Interval) {
	if p.pgs[pg].interval == interval {
		delete(p.pgs, pg)
	}
}

// renew prolongs all grants of this OSD.
func (p *peerRun) renew() {
	if p.renewing {
		p.again = true
		return
	}
	s := p.s
	p.renewing, p.again = true, false
	p.inFlight, p.waiting = p.waiting, p.inFlight[:0]
	p.sent = s.l.Now()
	q := secondary.RenewRequest{Holder: s.self, Revision: p.revision, Applied: int64(s.Snapshot().Revision), Fenced: p.fenced + 1, Reads: p.lend()}
	if q.Reads != nil {
		q.Heard = p.heard
	}
	p.payload = cluster.Value(q)
	p.call.Meta = p.payload
	m := wire.Sub{Op: wire.OpSubRenew, Meta: len(p.payload)}
	m.Encode(&p.call.Header)
	s.hub.Call(p.osd, &p.call)
}

func (p *peerRun) renewed() {
	s := p.s
	p.renewing = false
	ok := false
	var a secondary.RenewReply
	switch err := p.call.Err; {
	case err != nil:
		// The connection is gone, which PeerDown tells the PGs; or the call timed out, and the grants run out by themselves.
	case p.call.Reply.Retval() != 0 && p.call.Reply.Retval() != wire.EAGAIN:
		p.lapsed("the member says they have run out")
	case json.Unmarshal(p.call.ReplyMeta, &a) != nil || !p.hear(&a):
	case p.call.Reply.Retval() == wire.EAGAIN:
		if len(a.Fences) > 0 { // there are more of them than go into one answer; else the member is of an earlier version, and waits until our watch has brought one
			p.waiting, p.inFlight = append(p.waiting, p.inFlight...), p.inFlight[:0]
			p.renew()
			return
		}
	default:
		ok = true
		p.heard, p.heardAt = a.Sent, s.l.Now()
		s.prim.Space(p.osd, a.Free)
		if a.Recovery != nil {
			s.prim.RecoverySpace(p.osd, *a.Recovery)
		}
		s.prim.Requests(p.osd, a.Requests)
		if a.Revision != p.revision {
			p.compare(a.Grants)
		}
		p.revision = a.Revision
		for _, g := range p.pgs { // order: any
			if g.since >= p.sent {
				p.revision = 0 // not compared: the next answer must list it
			}
		}
		p.until = p.sent.Add(s.o.LockTime * 9 / 10)
		if planted.RenewalByArrival {
			p.until = s.l.Now().Add(s.o.LockTime * 9 / 10)
		}
	}
	done := p.inFlight
	p.inFlight = nil
	for _, f := range done {
		f(ok)
	}
	if p.inFlight == nil {
		p.inFlight = done[:0]
	}
	if p.again {
		p.renew()
	}
}

// hear applies the fences that an answer brings: afterwards it may be counted on.
func (p *peerRun) hear(a *secondary.RenewReply) bool {
	list, err := fencesOf(a)
	if err != nil {
		p.s.log.Error("a member knows a fence that cannot be applied here, so its grants run out", "peer", uint64(p.osd), "err", err)
		return false
	}
	for i := range list {
		p.s.fences.hear(&list[i])
	}
	if len(list) > 0 {
		p.s.watchFenced()
	}
	p.fenced = a.Fenced
	return true
}

// compare gives up what the member no longer holds for us.
func (p *peerRun) compare(list []secondary.HeldGrant) {
	p.foreign = p.foreign[:0]
	for _, g := range list {
		if p.pgs[g.PG].interval != g.Interval {
			p.foreign = append(p.foreign, g)
		}
	}
	p.giveBack()
	for _, r := range p.s.sortedPGs() {
		g, held := p.pgs[r.id]
		if !held || g.since >= p.sent {
			continue
		}
		if !slices.Contains(list, secondary.HeldGrant{PG: r.id, Interval: g.interval}) {
			delete(p.pgs, r.id)
			r.lost(p.osd, false)
		}
	}
}

// giveBack gives back what the member holds for us although we had given it up for lost: our renewals would keep it in force for ever, and the member could not clear away what it no
// longer needs. A grant of the present interval is kept until the PG needs nobody but its members.
func (p *peerRun) giveBack() {
	kept := p.foreign[:0]
	for _, g := range p.foreign {
		r := p.s.pgs[g.PG]
		if p.pgs[g.PG].interval == g.Interval {
			continue // ours again
		}
		if r != nil && r.m.Interval == g.Interval && !(r.m.Phase == peering.Active && r.m.Record.IsClean() && !slices.ContainsFunc(r.m.Acting, func(a peering.Member) bool { return a.OSD == p.osd })) {
			kept = append(kept, g)
			continue
		}
		p.s.callJSON(p.osd, wire.OpSubUnlock, wire.Grant{PG: g.PG, Interval: g.Interval, Instance: p.s.o.Instance}, nil, func(int64, []byte, error) {})
	}
	p.foreign = kept
}

// lapsed ends the use of everything this OSD had granted.
func (p *peerRun) lapsed(why string) {
	if len(p.pgs) > 0 {
		p.s.log.Warn("grants have run out", "peer", uint64(p.osd), "pgs", len(p.pgs), "reason", why)
	}
	p.until, p.revision, p.heard = 0, 0, 0
	p.pgs = map[layout.PGID]heldGrant{}
	p.fail()
	for _, r := range p.s.sortedPGs() {
		r.lost(p.osd, false)
	}
}

// fail answers those who wait for a renewal: there will be none that counts.
func (p *peerRun) fail() {
	list := append(p.inFlight, p.waiting...)
	p.inFlight, p.waiting = nil, nil
	for _, f := range list {
		f(false)
	}
}

// renewAll runs four times per T.
func (s *OSD) renewAll() {
	for _, p := range s.sortedPeers() {
		if len(p.pgs) == 0 {
			continue
		}
		if p.until != 0 && s.l.Now() >= p.until && !planted.LockRunOut && !planted.GrantRevived {
			p.lapsed("no renewal was answered in time")
			continue
		}
		p.giveBack()
		p.renew()
	}
	if !s.failed {
		s.lookForMissing()
		s.l.Arm(&s.renewal, s.l.Now().Add(s.o.LockTime/4))
	}
}

// lost tells the PG's peering that a member is gone, refuses writes (full), or no longer grants.
func (r *pgRun) lost(osd layout.OSDNum, full bool) {
	if full && osd != r.s.o.Num {
		r.refused()
		r.exec(r.m.Excluded(osd))
		return
	}
	r.exec(r.m.Lost(osd))
	if r.m.Phase == peering.Active && !r.readmit.Armed() && len(r.m.LeftOut()) > 0 {
		r.s.l.Arm(&r.readmit, r.s.l.Now().Add(readmitPause)) // a store that objects are copied from
	}
}

// Lost is the primary's word that a member failed it.
func (s *OSD) Lost(pg layout.PGID, osd layout.OSDNum, full bool) {
	r := s.pgs[pg]
	if r == nil || r.m.Phase != peering.Active {
		return
	}
	r.lost(osd, full)
	if r.m.Phase == peering.Active {
		r.exec(r.m.Restart())
	}
}

// Recovered is the primary's word that every object of the PG is whole.
func (s *OSD) Recovered(pg layout.PGID) {
	if r := s.pgs[pg]; r != nil {
		r.recovered()
	}
}

// Unfound is the primary's word that nobody who was heard can give some objects: whoever comes back may know more.
func (s *OSD) Unfound(pg layout.PGID) {
	if r := s.pgs[pg]; r != nil {
		r.m.Unfound(r.m.Round)
		if !r.readmit.Armed() {
			r.unfound = min(max(r.unfound*2, readmitPause), readmitPauseMax)
			s.l.Arm(&r.readmit, s.l.Now().Add(r.unfound))
		}
	}
}

// Restated is the primary's word that a PG's state may read differently now.
func (s *OSD) Restated(pg layout.PGID) {
	if r := s.pgs[pg]; r != nil {
		s.l.Defer(&r.report)
		r.restateScrub()
	}
}

// PeerUp says that an OSD can be reached.
func (s *OSD) PeerUp(osd layout.OSDNum) {
	for _, r := range s.sortedPGs() {
		if slices.Contains(r.m.LeftOut(), osd) {
			r.exec(r.m.Readmit())
		}
	}
}

// PeerDown says that a connection is gone: what was sent may or may not have been done, so the intervals with that member end.
func (s *OSD) PeerDown(osd layout.OSDNum, err error) {
	s.log.Info("peer lost", "peer", uint64(osd), "err", err)
	s.missing.lost(osd, s.l.Now())
	s.o.Registry.Doubt()
	if p := s.peers[osd]; p != nil {
		p.until = 0
		p.pgs = map[layout.PGID]heldGrant{}
		p.revision, p.heard, p.fenced = 0, 0, 0
		p.fail()
	}
	for _, r := range s.sortedPGs() {
		r.lost(osd, false)
	}
}

// callJSON sends a cold request with a JSON payload (nil: none); done gets the answer's result and payload, which is valid during the call.
func (s *OSD) callJSON(osd layout.OSDNum, op wire.Opcode, g wire.Grant, v any, done func(retval int64, meta []byte, err error)) {
	c := &peer.Call{}
	if v != nil {
		c.Meta = cluster.Value(v)
	}
	m := wire.Sub{Op: op, Grant: g, Meta: len(c.Meta)}
	m.Encode(&c.Header)
	c.Done = func(c *peer.Call) {
		if c.Err != nil {
			done(0, nil, c.Err)
			return
		}
		done(c.Reply.Retval(), c.ReplyMeta, nil)
	}
	s.hub.Call(osd, c)
}
