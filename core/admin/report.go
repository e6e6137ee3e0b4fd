package admin

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// Sections are what the reports need.
const Sections = cluster.ForMonitor

// Image is one image in a list.
type Image struct {
	Name     string `json:"name"`
	Pool     string `json:"pool"`
	PoolID   uint64 `json:"pool_id"`
	ID       uint64 `json:"inode_id"`
	Size     uint64 `json:"size"`     // bytes
	RawUsed  uint64 `json:"raw_used"` // bytes of all copies
	ReadOnly bool   `json:"readonly"`
	Deleted  bool   `json:"deleted"`
	Identity string `json:"identity,omitempty"`
	ParentID uint64 `json:"parent_id,omitempty"`
	// Verified is when all copies of what the image holds were last compared and found right; empty: never, or something about it is in doubt.
	Verified string `json:"verified,omitempty"`
}

// ImageFilter narrows a list of images.
type ImageFilter struct {
	Globs   []string // names; none: all
	Exact   bool     // the globs are names
	Pool    string   // name of the only pool; empty: all
	Deleted bool     // only images whose removal has begun
}

// Images lists images by name. The error says that a pool does not exist or a glob is wrong.
func Images(s *cluster.Snapshot, f ImageFilter) ([]Image, error) {
	if _, ok := s.Pool(f.Pool); f.Pool != "" && !ok {
		return nil, noPool(f.Pool)
	}
	out := []Image{}
	for id, i := range s.Inodes.All() {
		pool := poolName(s, id.Pool())
		if f.Pool != "" && pool != f.Pool || f.Deleted && !bool(i.Deleted) {
			continue
		}
		if ok, err := f.match(i.Name); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		v := Image{Name: i.Name, Pool: pool, PoolID: uint64(id.Pool()), ID: id.Num(), Size: uint64(i.Size), ReadOnly: bool(i.ReadOnly), Deleted: bool(i.Deleted), Identity: i.Identity(), ParentID: uint64(i.ParentID)}
		if st, ok := s.InodeStats.Get(id); ok {
			v.RawUsed = uint64(st.RawUsed)
		}
		if at := verified(s, i); at != 0 {
			v.Verified = stamp(time.Unix(at, 0))
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Image) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

func (f ImageFilter) match(name string) (bool, error) {
	if len(f.Globs) == 0 {
		return true, nil
	}
	for _, g := range f.Globs {
		if f.Exact {
			if g == name {
				return true, nil
			}
			continue
		}
		// A slash is a letter like any other here: "vm*" finds "vm/1".
		ok, err := path.Match(strings.ReplaceAll(g, "/", "\x00"), strings.ReplaceAll(name, "/", "\x00"))
		if err != nil {
			return false, &Error{Kind: Usage, What: "pattern " + g, Err: err}
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

func noPool(name string) error {
	return &Error{Kind: NotFound, What: "there is no pool " + quote(name), Way: "`holdfast ls-pools` lists them"}
}

// NoImage is the error about an image that does not exist.
func NoImage(name string) error {
	return &Error{Kind: NotFound, What: "there is no image " + quote(name), Way: "`holdfast ls` lists them"}
}

func quote(s string) string { return `"` + s + `"` }

// FindPool finds a pool by its name; an empty name finds the only one.
func FindPool(s *cluster.Snapshot, name string) (*cluster.Pool, error) {
	if name != "" {
		p, ok := s.Pool(name)
		if !ok {
			return nil, noPool(name)
		}
		return p, nil
	}
	switch s.Pools.Len() {
	case 0:
		return nil, &Error{Kind: NotFound, What: "there is no pool yet", Way: "make one: holdfast create-pool NAME --pg_size 3"}
	case 1:
		for _, p := range s.Pools.All() {
			return p, nil
		}
	}
	return nil, &Error{Kind: Usage, What: "there are several pools", Way: "name one: --pool NAME; `holdfast ls-pools` lists them"}
}

func poolName(s *cluster.Snapshot, id layout.PoolID) string {
	if p, ok := s.Pools.Get(id); ok {
		return p.Name
	}
	return ""
}

// Pool is one pool in a list.
type Pool struct {
	ID            uint64  `json:"id"`
	Name          string  `json:"name"`
	Scheme        string  `json:"scheme"`
	PGSize        uint64  `json:"pg_size"`
	PGMinSize     uint64  `json:"pg_minsize"`
	PGCount       uint64  `json:"pg_count"`
	FailureDomain string  `json:"failure_domain"`
	BlockSize     uint64  `json:"block_size"`
	Granularity   uint64  `json:"bitmap_granularity"`
	Active        uint64  `json:"active_pgs"`
	Images        uint64  `json:"images"`
	Total         uint64  `json:"total"`     // bytes that images can fill, all together
	Used          uint64  `json:"used"`      // of them
	Available     uint64  `json:"available"` // and the rest
	RawUsed       uint64  `json:"raw_used"`
	Efficiency    float64 `json:"space_efficiency"` // stored bytes per used byte, copies taken out
	Provisioned   uint64  `json:"provisioned"`      // bytes that images may grow to, all together
	Fits          uint64  `json:"provisioned_fits"` // of them, for so many there is space, beside other pools on the same OSDs
	// Warnings are what an operator should know of the pool's space.
	Warnings []string `json:"warnings"`
}

// tb is the unit of pool/stats.
const tb = 1 << 40

// Pools lists the pools by number, with their space (df and ls-pools).
func Pools(s *cluster.Snapshot) []Pool {
	out := []Pool{}
	committed := commitments(s)
	for id, p := range s.Pools.All() {
		v := Pool{ID: uint64(id), Name: p.Name, Scheme: string(p.Scheme), PGSize: uint64(p.PGSize), PGMinSize: uint64(p.PGMinSize), PGCount: uint64(p.PGCount), FailureDomain: p.Domain()}
		if g, err := s.Geometry(id); err == nil {
			v.BlockSize, v.Granularity = uint64(g.BlockSize), uint64(g.Granularity)
		}
		v.Provisioned, v.Fits, v.Warnings = committed[id].provisioned, committed[id].fits, poolWarnings(s, id, p.Name, committed[id])
		for pg, st := range s.PGStates.All() {
			if pg.Pool == id && st.State&cluster.StateActive != 0 {
				v.Active++
			}
		}
		for i := range s.Inodes.From(layout.MakeInode(id, 0)) {
			if i.Pool() != id {
				break
			}
			v.Images++
		}
		if st, ok := s.PoolStats.Get(id); ok && st.RawToUsable > 0 {
			v.Total = uint64(float64(st.TotalRawTB) * tb / float64(st.RawToUsable))
			v.RawUsed = uint64(float64(st.UsedRawTB) * tb)
			v.Used = uint64(float64(v.RawUsed) / float64(st.RawToUsable))
			v.Available = v.Total - min(v.Total, v.Used)
			v.Efficiency = float64(st.SpaceEfficiency)
		}
		out = append(out, v)
	}
	return out
}

// OSD is one OSD in a list.
type OSD struct {
	Num       uint64   `json:"osd_num"`
	Up        bool     `json:"up"`
	Host      string   `json:"host"`
	Addresses []string `json:"addresses"`
	Port      uint64   `json:"port"`
	Size      uint64   `json:"size"` // bytes
	Free      uint64   `json:"free"`
	Fullness  Fullness `json:"fullness"`
	Reweight  float64  `json:"reweight"`
	Tags      []string `json:"tags"`
	NoOut     bool     `json:"noout"`
	BlockSize uint64   `json:"block_size"`
	Version   string   `json:"version"`
	Store     string   `json:"store_id,omitempty"`
	PGs       uint64   `json:"pgs"`               // whose set it is in
	Primary   uint64   `json:"primary"`           // of them, those that it serves
	Left      uint64   `json:"left_pgs"`          // it is down, and these have no place on it any more: copies that nobody needs may be left there
	Stopped   *Stopped `json:"stopped,omitempty"` // why it is down, if it told
	Waits     string   `json:"waits,omitempty"`   // why it is not up although it runs: what is wrong with its disk, what it waits for, and what would help
}

// Stopped is why an OSD has stopped and is not started again by itself.
type Stopped struct {
	Time      string `json:"time"`
	Host      string `json:"host"`
	Reason    string `json:"reason"` // and what to do
	Device    string `json:"device,omitempty"`
	Operation string `json:"operation,omitempty"`
	Offset    int64  `json:"offset,omitempty"`
	Errno     int    `json:"errno,omitempty"`
}

// OSDs lists the OSDs by number.
func OSDs(s *cluster.Snapshot) []OSD {
	out := []OSD{}
	ratios := ratiosOf(s)
	at := map[layout.OSDNum]int{}
	get := func(n layout.OSDNum) *OSD {
		i, ok := at[n]
		if !ok {
			i = len(out)
			at[n] = i
			out = append(out, OSD{Num: uint64(n), Fullness: Roomy, Reweight: 1, Addresses: []string{}, Tags: []string{}})
		}
		return &out[i]
	}
	for n, st := range s.OSDStats.All() {
		v := get(n)
		v.Host, v.Size, v.Free, v.BlockSize, v.Version = st.Host, uint64(st.Size), uint64(st.Free), uint64(st.DataBlockSize), st.Version
		v.Fullness = ratios.of(st)
	}
	for n, st := range s.OSDStates.All() {
		v := get(n)
		v.Up, v.Host, v.Port, v.Version = true, st.Host, uint64(st.Port), st.Version
		v.Addresses = append(v.Addresses, st.Addresses...)
	}
	for n, w := range s.Waiting.All() {
		v := get(n)
		v.Waits = w.Reason
		v.Host = cmp.Or(v.Host, w.Host)
	}
	for n, f := range s.Failures.All() {
		if v := get(n); !v.Up {
			v.Host = cmp.Or(v.Host, f.Host)
			v.Stopped = &Stopped{stamp(time.Unix(f.Time, 0)), cmp.Or(f.Host, v.Host), f.Reason, f.Device, f.Operation, f.Offset, f.Errno}
		}
	}
	for n, c := range s.OSDConfigs.All() {
		v := get(n)
		v.Reweight, v.NoOut = c.Weight(), bool(c.NoOut)
		v.Tags = append(v.Tags, c.Tags...)
	}
	for n, id := range s.Stores.All() {
		get(n).Store = id.Store.String()
	}
	if s.PGConfig != nil {
		for _, pgs := range s.PGConfig.Pools { // order: sums
			for _, t := range pgs {
				for _, n := range t.OSDSet {
					if i, ok := at[n]; ok {
						out[i].PGs++
					}
				}
				if i, ok := at[t.Primary]; ok {
					out[i].Primary++
				}
			}
		}
	}
	for id := range s.Histories.All() {
		for _, n := range s.LeftOnDead(id) {
			if i, ok := at[n]; ok {
				out[i].Left++
			}
		}
	}
	slices.SortFunc(out, func(a, b OSD) int { return cmp.Compare(a.Num, b.Num) })
	return out
}

// PG is one PG in a list.
type PG struct {
	Pool     string   `json:"pool"`
	PoolID   uint64   `json:"pool_id"`
	Num      uint64   `json:"pg_num"`
	State    []string `json:"state"` // "offline" when nobody has taken it
	Primary  uint64   `json:"primary"`
	OSDSet   []uint64 `json:"osd_set"`
	Peers    []uint64 `json:"peers"`
	Interval uint64   `json:"interval"`
	Objects  uint64   `json:"object_count"`
	Degraded uint64   `json:"degraded_count"`

	Misplaced     uint64 `json:"misplaced_count"`
	Incomplete    uint64 `json:"incomplete_count"`
	Unfound       uint64 `json:"unfound_count"`   // of Incomplete, those that no OSD could give at the last try
	Corrupted     uint64 `json:"corrupted_count"` // those of which a copy cannot be read, or is wrong
	Inconsistent  uint64 `json:"inconsistent_count"`
	RecoveryLeft  uint64 `json:"recovery_left"`  // objects to be copied
	RecoveryTotal uint64 `json:"recovery_total"` // as many as there were when the PG began to be served
	RecoveryRate  uint64 `json:"recovery_rate"`  // of RecoveryLeft, per second lately
	// RecoverySeconds is how long it takes at this rate; 0: unknown, or done.
	RecoverySeconds uint64 `json:"recovery_seconds_left"`
	// RecoveryMisplaced are those of RecoveryLeft that have enough copies, if elsewhere.
	RecoveryMisplaced uint64 `json:"recovery_misplaced"`

	Verified  string `json:"verified"`        // when all copies were last compared and found right; empty: never
	NextScrub string `json:"next_scrub"`      // when they are to be compared next; empty: not before somebody asks for it
	Scrub     *Scrub `json:"scrub,omitempty"` // how far that is

	Reason string `json:"reason"` // why it waits or is not whole, and what would help; empty when it is active and whole

	cause string // Reason without counts
}

// PGFilter narrows a list of PGs.
type PGFilter struct {
	Pool   string   // name; empty: all
	OSD    uint64   // only those whose set it is in; 0: all
	States []string // each must be there; with ! or ^ before it must not
}

// PGs lists PGs by pool and number.
func PGs(s *cluster.Snapshot, f PGFilter) ([]PG, error) {
	if _, ok := s.Pool(f.Pool); f.Pool != "" && !ok {
		return nil, noPool(f.Pool)
	}
	for _, want := range f.States {
		name := strings.TrimLeft(want, "!^+")
		if _, err := cluster.ParseState([]string{name}); err != nil {
			return nil, &Error{Kind: Usage, What: "PG state " + quote(name), Err: err}
		}
	}
	out := []PG{}
	w := newReasoner(s)
	for id, p := range s.Pools.All() {
		if f.Pool != "" && p.Name != f.Pool {
			continue
		}
		for num := uint32(1); num <= s.PGConfig.Count(id); num++ {
			v := pgOf(w, p, layout.PGID{Pool: id, Num: num})
			if f.OSD != 0 && !slices.Contains(v.OSDSet, f.OSD) || !matchStates(v.State, f.States) {
				continue
			}
			out = append(out, v)
		}
	}
	return out, nil
}

func pgOf(w *reasoner, p *cluster.Pool, id layout.PGID) PG {
	s := w.s
	v := PG{Pool: p.Name, PoolID: uint64(id.Pool), Num: uint64(id.Num), State: []string{"offline"}, OSDSet: []uint64{}, Peers: []uint64{}}
	if t, ok := s.PGConfig.Target(id); ok {
		v.Primary = uint64(t.Primary)
		for _, n := range t.OSDSet {
			v.OSDSet = append(v.OSDSet, uint64(n))
		}
	}
	if st, ok := s.PGStates.Get(id); ok {
		v.State, v.Primary = st.State.Names(), uint64(st.Primary)
		for _, n := range st.Peers {
			v.Peers = append(v.Peers, uint64(n))
		}
	}
	if r, ok := s.Records.Get(id); ok {
		v.Interval = uint64(r.Interval)
	}
	if st, ok := s.PGStats.Get(id); ok {
		v.Objects, v.Degraded = uint64(st.ObjectCount), uint64(st.DegradedCount)
		v.Misplaced, v.Incomplete, v.Unfound = uint64(st.MisplacedCount), uint64(st.IncompleteCount), uint64(st.UnfoundCount)
		v.Corrupted, v.Inconsistent = uint64(st.CorruptedCount), uint64(st.InconsistentCount)
		v.RecoveryLeft, v.RecoveryTotal = uint64(st.RecoveryLeft), uint64(max(st.RecoveryLeft, st.RecoveryTotal))
		if v.RecoveryRate = uint64(st.RecoveryRate); v.RecoveryRate > 0 && v.RecoveryLeft > 0 {
			v.RecoverySeconds = max(1, (v.RecoveryLeft+v.RecoveryRate/2)/v.RecoveryRate)
		}
		v.RecoveryMisplaced = uint64(min(st.RecoveryLeft, st.RecoveryMisplaced))
	}
	v.scrubbed(s, id)
	w.explain(&v, p, id)
	return v
}

func matchStates(have, want []string) bool {
	for _, w := range want {
		not := strings.HasPrefix(w, "!") || strings.HasPrefix(w, "^")
		if slices.Contains(have, strings.TrimLeft(w, "!^+")) == not {
			return false
		}
	}
	return true
}
