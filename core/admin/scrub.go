package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
)

// Scrub is how far a scrub is, or what it has done.
type Scrub struct {
	What         string `json:"what"` // "pool NAME, PG 1/7", or "image NAME"
	Ended        bool   `json:"ended"`
	Objects      uint64 `json:"objects"` // compared
	Total        uint64 `json:"objects_total"`
	Bytes        uint64 `json:"bytes"` // read, of all copies
	Rate         uint64 `json:"bytes_per_second"`
	Bad          uint64 `json:"wrong_copies"` // which are made anew from others
	Inconsistent uint64 `json:"inconsistent_objects"`
	Lost         uint64 `json:"lost_objects"`    // of which too few copies can be read
	Skipped      uint64 `json:"skipped_objects"` // that could not be compared, because copies were missing
	Partial      bool   `json:"partial"`         // an OSD was missing for some of the time
	Waits        string `json:"waits,omitempty"` // why it does not go on
	Verified     string `json:"verified"`        // when everything was last compared and found right; empty: not known
}

// Sound reports whether everything was compared, and nothing is in doubt.
func (v *Scrub) Sound() bool {
	return v.Ended && v.Inconsistent+v.Lost+v.Skipped == 0 && !v.Partial
}

// Line is what was found, in words.
func (v *Scrub) Line() string {
	text := fmt.Sprintf("%d objects, %s read", v.Objects, Size(int64(v.Bytes)))
	for _, n := range []struct {
		n    uint64
		text string
	}{{v.Bad, "%d wrong copies made anew"}, {v.Inconsistent, "%d objects inconsistent"}, {v.Lost, "%d objects of which too few copies can be read"}, {v.Skipped, "%d objects not compared, as copies are missing"}} {
		if n.n > 0 {
			text += ", " + fmt.Sprintf(n.text, n.n)
		}
	}
	if v.Partial {
		text += ", an OSD was missing"
	}
	if v.Ended && v.Sound() && v.Bad == 0 {
		text += ", all copies right"
	}
	return text
}

func (v *Scrub) take(p *cluster.ScrubPass) {
	v.Objects, v.Total, v.Bytes, v.Rate = uint64(p.Objects), uint64(p.Total), uint64(p.Bytes), uint64(p.Rate)
	v.Bad, v.Inconsistent, v.Lost, v.Skipped, v.Partial = uint64(p.Bad), uint64(p.Inconsistent), uint64(p.Lost), uint64(p.Skipped), p.Partial
}

// TotalScrub sums scrubs up.
func TotalScrub(list []Scrub) (sum Scrub) {
	sum.Ended = true
	for _, v := range list {
		sum.Ended = sum.Ended && v.Ended
		sum.Objects, sum.Total, sum.Bytes = sum.Objects+v.Objects, sum.Total+max(v.Total, v.Objects), sum.Bytes+v.Bytes
		sum.Bad, sum.Inconsistent, sum.Lost, sum.Skipped, sum.Partial = sum.Bad+v.Bad, sum.Inconsistent+v.Inconsistent, sum.Lost+v.Lost, sum.Skipped+v.Skipped, sum.Partial || v.Partial
		if !v.Ended {
			sum.Rate += v.Rate
		}
	}
	return sum
}

// Progress is how far scrubs are, on one line.
func (v *Scrub) Progress() string {
	text := fmt.Sprintf("%d of %d objects, %s read", v.Objects, max(v.Total, v.Objects), Size(int64(v.Bytes)))
	if v.Rate > 0 {
		text += fmt.Sprintf(", %s/s", Size(int64(v.Rate)))
		if left := v.Total - min(v.Total, v.Objects); left > 0 && v.Objects > 0 {
			text += ", about " + Period(time.Duration(float64(left)/float64(v.Objects)*float64(v.Bytes)/float64(v.Rate)*float64(time.Second))) + " left"
		}
	}
	return text
}

// ScrubChoice says which PGs are scrubbed.
type ScrubChoice struct {
	PGs  []string // POOL/NUMBER
	Pool string   // all of a pool, by its name
	OSD  uint64   // all that an OSD has copies of
	All  bool
}

// ScrubPGs finds them.
func ScrubPGs(s *cluster.Snapshot, f ScrubChoice) ([]layout.PGID, error) {
	list, err := PGs(s, PGFilter{Pool: f.Pool, OSD: f.OSD})
	if err != nil {
		return nil, err
	}
	var out []layout.PGID
	for _, name := range f.PGs {
		d, err := Describe(s, []string{name}, PGFilter{})
		if err != nil {
			return nil, err
		}
		out = append(out, layout.PGID{Pool: layout.PoolID(d[0].PoolID), Num: uint32(d[0].Num)})
	}
	if f.Pool != "" || f.OSD != 0 || f.All {
		for _, p := range list {
			out = append(out, layout.PGID{Pool: layout.PoolID(p.PoolID), Num: uint32(p.Num)})
		}
	}
	if f.OSD != 0 && len(list) == 0 {
		return nil, &Error{Kind: NotFound, What: fmt.Sprintf("no PG has a place on OSD %d", f.OSD), Way: "`holdfast ls-osd` lists the OSDs"}
	}
	if flag(s, "no_scrub") {
		return nil, &Error{Kind: Refused, What: "no_scrub holds scrub back", Way: "set it to false in config/global"}
	}
	return out, nil
}

// scrubLook is how often it is looked how far a scrub is.
const scrubLook = time.Second

// ScrubRun has PGs scrubbed by their primaries, and looks how far they are.
type ScrubRun struct {
	c     *client.Client
	pgs   []layout.PGID
	show  func([]Scrub)
	done  func([]Scrub, error)
	timer loop.Timer
	over  bool

	asked map[layout.PGID]bool
	ended map[layout.PGID]bool
	list  []Scrub
}

// StartScrub asks for it and waits for the end. show, which may be nil, is told now and then how far it is. done is called later, once. An end of the waiting by Stop leaves the scrub going on.
func StartScrub(c *client.Client, pgs []layout.PGID, show func([]Scrub), done func([]Scrub, error)) *ScrubRun {
	r := &ScrubRun{c: c, pgs: pgs, show: show, done: done, asked: map[layout.PGID]bool{}, ended: map[layout.PGID]bool{}}
	r.timer.Fire = r.look
	c.Loop().Arm(&r.timer, c.Loop().Now())
	return r
}

// Stop ends the waiting; done is not called any more.
func (r *ScrubRun) Stop() {
	r.over = true
	r.c.Loop().Disarm(&r.timer)
}

// histories reads what is known of PGs.
func histories(c *client.Client, done func(map[layout.PGID]*cluster.PGHistory, map[layout.PGID]*cluster.PGScrub, error)) {
	t := registry.Txn{Then: []registry.Op{{Kind: registry.GetPrefix, Key: cluster.PrefixPGHistory}, {Kind: registry.GetPrefix, Key: cluster.PrefixPGScrub}}, Timeout: registry.Slow}
	c.Registry().Txn(t, func(res registry.TxnResult, err error) {
		if err != nil {
			done(nil, nil, fmt.Errorf("read the histories of PGs: %w", err))
			return
		}
		hs, ss := map[layout.PGID]*cluster.PGHistory{}, map[layout.PGID]*cluster.PGScrub{}
		for _, kv := range res.Results[0] {
			h := &cluster.PGHistory{}
			if k, ok := cluster.ParseKey(kv.Key); ok && json.Unmarshal(kv.Value, h) == nil {
				h.Mod = kv.Mod
				hs[k.PG] = h
			}
		}
		for _, kv := range res.Results[1] {
			k, ok := cluster.ParseKey(kv.Key)
			if v, err := cluster.ReadPGScrub(kv); ok && err == nil {
				ss[k.PG] = v
			}
		}
		done(hs, ss, nil)
	})
}

// setNext writes next_scrub of a PG.
func setNext(c *client.Client, pg layout.PGID, h *cluster.PGHistory, at int64, done func(ok bool, err error)) {
	next := *h
	next.NextScrub = at
	key := cluster.PGHistoryKey(pg)
	t := registry.Txn{If: []registry.Compare{registry.Unchanged(key, h.Mod)}, Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&next)}}}
	c.Registry().Txn(t, func(res registry.TxnResult, err error) { done(err == nil && res.Succeeded, err) })
}

// now is what next_scrub is set to for a scrub at once.
const now = 1

func (r *ScrubRun) look() {
	histories(r.c, func(hs map[layout.PGID]*cluster.PGHistory, ss map[layout.PGID]*cluster.PGScrub, err error) {
		if r.over {
			return
		}
		if err != nil {
			r.over = true
			r.done(r.list, err)
			return
		}
		r.looked(hs, ss)
	})
}

func (r *ScrubRun) looked(hs map[layout.PGID]*cluster.PGHistory, ss map[layout.PGID]*cluster.PGScrub) {
	s := r.c.Snapshot()
	r.list = r.list[:0]
	left := 0
	for _, pg := range r.pgs {
		v := Scrub{What: fmt.Sprintf("PG %v of pool %s", pg, poolName(s, pg.Pool))}
		h, rec := hs[pg], ss[pg]
		switch {
		case r.ended[pg]:
		case h == nil:
			v.Waits = "it was never active"
		case !r.asked[pg]:
			setNext(r.c, pg, h, now, func(ok bool, _ error) { r.asked[pg] = r.asked[pg] || ok })
		case h.NextScrub != now:
			r.ended[pg] = true
		case s.Primary(pg) == 0:
			v.Waits = "nobody serves it"
		}
		if rec != nil {
			switch {
			case r.ended[pg] && rec.Last != nil:
				v.take(rec.Last)
			case rec.Pass != nil:
				v.take(rec.Pass)
			}
			if rec.Verified != 0 && len(rec.Inconsistent) == 0 {
				v.Verified = stamp(time.Unix(rec.Verified, 0))
			}
		}
		if v.Ended = r.ended[pg]; !v.Ended {
			left++
		}
		r.list = append(r.list, v)
	}
	if left == 0 {
		r.over = true
		r.done(r.list, nil)
		return
	}
	if r.show != nil {
		r.show(r.list)
	}
	r.c.Loop().Arm(&r.timer, r.c.Loop().Now().Add(scrubLook))
}

// CancelScrub breaks the scrub of PGs off, and takes back what is scheduled; what is done is kept for a week, and gone on with.
func CancelScrub(c *client.Client, pgs []layout.PGID, done func(n int, err error)) {
	histories(c, func(hs map[layout.PGID]*cluster.PGHistory, _ map[layout.PGID]*cluster.PGScrub, err error) {
		if err != nil {
			done(0, err)
			return
		}
		left, n := 1, 0
		var first error
		end := func() {
			if left--; left == 0 {
				done(n, first)
			}
		}
		for _, pg := range pgs {
			h := hs[pg]
			if h == nil || h.NextScrub == 0 {
				continue
			}
			left++
			setNext(c, pg, h, 0, func(ok bool, err error) {
				switch {
				case ok:
					n++
				case first == nil:
					first = cmp.Or(err, error(&Error{Kind: Refused, What: fmt.Sprintf("PG %v has changed meanwhile", pg), Way: "run the command again"}))
				}
				end()
			})
		}
		end()
	})
}

// Layers are an image's layer and those it rests on.
func Layers(s *cluster.Snapshot, name string) ([]layout.Inode, error) {
	i, ok := s.Image(name)
	if !ok {
		return nil, NoImage(name)
	}
	list := []layout.Inode{i.ID}
	for p := i.Parent(); p != 0 && !slices.Contains(list, p); {
		list = append(list, p)
		if i, ok = s.Inode(p); !ok {
			break
		}
		p = i.Parent()
	}
	return list, nil
}

// verified is when an image, with all it rests on, was last found right; 0: never.
func verified(s *cluster.Snapshot, i *cluster.Inode) (at int64) {
	list := []layout.Inode{}
	for id := i.ID; id != 0 && !slices.Contains(list, id); {
		v := s.Verified(id)
		if v == 0 {
			return 0
		}
		if len(list) == 0 || v < at {
			at = v
		}
		list = append(list, id)
		up, ok := s.Inode(id)
		if !ok {
			break
		}
		id = up.Parent()
	}
	return at
}

// scrubbed takes over what is known of the PG's scrub.
func (v *PG) scrubbed(s *cluster.Snapshot, id layout.PGID) {
	if h, ok := s.Histories.Get(id); ok && h.NextScrub > 0 {
		v.NextScrub = stamp(time.Unix(h.NextScrub, 0))
	}
	rec, ok := s.PGScrubs.Get(id)
	if !ok || rec.Generation != s.Generation(id.Pool) || uint64(rec.PGCount) != uint64(s.PGConfig.Count(id.Pool)) {
		return
	}
	if rec.Verified != 0 && len(rec.Inconsistent) == 0 {
		v.Verified = stamp(time.Unix(rec.Verified, 0))
	}
	if st, ok := s.PGStates.Get(id); ok && rec.Pass != nil && st.State&cluster.StateScrubbing != 0 {
		v.Scrub = &Scrub{What: fmt.Sprintf("PG %v of pool %s", id, poolName(s, id.Pool)), Verified: v.Verified}
		v.Scrub.take(rec.Pass)
	}
}

// scrubbing sums up the scrubs that go on; nil when there are none.
func scrubbing(pgs []PG) *Scrub {
	var list []Scrub
	for i := range pgs {
		if v := pgs[i].Scrub; v != nil {
			list = append(list, *v)
		}
	}
	if len(list) == 0 {
		return nil
	}
	sum := TotalScrub(list)
	sum.What = fmt.Sprintf("%d PGs", len(list))
	return &sum
}

const (
	// imageDepth is how many objects of an image are compared at once.
	imageDepth = 4
	// imageSave is how often it is written down how far that is.
	imageSave = 5 * time.Second
	// imageKept is how old an interrupted scrub may be that is gone on with.
	imageKept = 7 * 24 * time.Hour
)

// ImageScrub compares all objects of one layer.
type ImageScrub struct {
	c     *client.Client
	inode layout.Inode
	wall  func() time.Time
	show  func(Scrub)
	done  func(Scrub, error)

	v       Scrub
	old     cluster.ImageScrub
	pass    cluster.ScrubPass
	objects []uint64
	at      int
	under   []uint64 // being compared
	listing *client.Listing
	started loop.Instant
	before  uint64
	timer   loop.Timer // to show, and to write down
	saved   loop.Instant
	over    bool
	failed  error
}

// ScrubImage compares them, and goes on where an earlier one was interrupted. what names the layer. done is called later, once, also after Stop.
func ScrubImage(c *client.Client, inode layout.Inode, what string, show func(Scrub), done func(Scrub, error)) *ImageScrub {
	j := &ImageScrub{c: c, inode: inode, wall: c.Loop().Wall, show: show, done: done, v: Scrub{What: what}}
	j.timer.Fire = j.tick
	key := cluster.ImageScrubKey(inode)
	c.Registry().Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: key}}}, func(res registry.TxnResult, err error) {
		if err != nil {
			j.end(fmt.Errorf("read %s: %w", key, err))
			return
		}
		if kvs := res.Results[0]; len(kvs) == 1 && json.Unmarshal(kvs[0].Value, &j.old) == nil && j.old.Pass != nil && j.old.Pass.Ended == 0 && j.wall().Sub(time.Unix(j.old.Pass.Began, 0)) < imageKept {
			j.pass = *j.old.Pass
		} else {
			j.pass = cluster.ScrubPass{Began: j.wall().Unix()}
		}
		j.list()
	})
	return j
}

// Stop breaks it off; what was done is kept.
func (j *ImageScrub) Stop() {
	if j.listing != nil {
		j.listing.Stop()
	}
	j.fail(client.ErrCanceled)
}

func (j *ImageScrub) list() {
	if j.over {
		return
	}
	j.listing = j.c.ListObjects(j.inode, func(stripe uint64) { j.objects = append(j.objects, stripe) }, func(err error) {
		j.listing = nil
		if err != nil || j.over {
			j.fail(err)
			return
		}
		slices.Sort(j.objects)
		j.objects = slices.Compact(j.objects)
		j.pass.Total = cluster.Number(len(j.objects))
		j.at, _ = slices.BinarySearch(j.objects, uint64(j.pass.Stripe))
		j.started, j.saved, j.before = j.c.Loop().Now(), j.c.Loop().Now(), uint64(j.pass.Bytes)
		j.c.Loop().Arm(&j.timer, j.started.Add(scrubLook))
		j.next()
	})
}

func (j *ImageScrub) next() {
	for len(j.under) < imageDepth && j.at < len(j.objects) && j.failed == nil {
		stripe := j.objects[j.at]
		j.at++
		j.under = append(j.under, stripe)
		j.c.Scrub(layout.ObjectID{Inode: j.inode, Stripe: stripe}, func(found client.Compared, err error) { j.compared(stripe, found, err) })
	}
	if len(j.under) == 0 && !j.over {
		j.finish()
	}
}

func (j *ImageScrub) compared(stripe uint64, found client.Compared, err error) {
	p := &j.pass
	if err != nil {
		j.fail(err)
	} else {
		j.under = slices.DeleteFunc(j.under, func(s uint64) bool { return s == stripe })
		p.Objects++
		p.Bytes += cluster.Number(found.Bytes)
		p.Bad += cluster.Number(found.Bad)
		switch found.Found {
		case client.FoundInconsistent:
			p.Inconsistent++
		case client.FoundLost:
			p.Lost++
		case client.FoundUnclean:
			p.Skipped++
		}
	}
	if !j.over {
		j.next()
	}
}

// where is the first object that has not been compared.
func (j *ImageScrub) where() uint64 {
	at := ^uint64(0)
	if j.at < len(j.objects) {
		at = j.objects[j.at]
	}
	for _, s := range j.under {
		at = min(at, s)
	}
	return at
}

func (j *ImageScrub) tick() {
	l := j.c.Loop()
	if dt := l.Now().Sub(j.started).Seconds(); dt > 0 {
		j.pass.Rate = cluster.Number(float64(uint64(j.pass.Bytes)-j.before) / dt)
	}
	if j.v.take(&j.pass); j.show != nil {
		j.show(j.v)
	}
	if l.Now().Sub(j.saved) >= imageSave {
		j.saved = l.Now()
		j.save(func(error) {})
	}
	l.Arm(&j.timer, l.Now().Add(scrubLook))
}

// save writes down how far it is.
func (j *ImageScrub) save(done func(error)) {
	rec := j.old
	pass := j.pass
	pass.Stripe = cluster.Number(j.where())
	rec.Pass = &pass
	if pass.Ended != 0 {
		pass.Stripe = 0
		if rec.Verified = 0; pass.Sound() {
			rec.Verified = pass.Ended
		}
	}
	op := registry.Op{Kind: registry.Put, Key: cluster.ImageScrubKey(j.inode), Value: cluster.Value(&rec)}
	// An image that is gone has none.
	t := registry.Txn{If: []registry.Compare{registry.Exists(cluster.InodeKey(j.inode))}, Then: []registry.Op{op}}
	j.c.Registry().Txn(t, func(_ registry.TxnResult, err error) { done(err) })
}

// fail breaks it off.
func (j *ImageScrub) fail(err error) {
	if j.failed != nil || j.over {
		return
	}
	j.failed = cmp.Or(err, client.ErrCanceled)
	j.over = true
	if len(j.objects) == 0 {
		j.end(j.failed)
		return
	}
	j.save(func(error) { j.end(j.failed) })
}

func (j *ImageScrub) finish() {
	j.over = true
	j.pass.Ended = j.wall().Unix()
	j.save(func(err error) {
		if err != nil {
			err = fmt.Errorf("write down what was found: %w", err)
		}
		j.v.Ended = err == nil
		if j.pass.Sound() {
			j.v.Verified = stamp(time.Unix(j.pass.Ended, 0))
		}
		j.end(err)
	})
}

func (j *ImageScrub) end(err error) {
	j.over = true
	j.c.Loop().Disarm(&j.timer)
	j.v.take(&j.pass)
	j.done(j.v, err)
}
