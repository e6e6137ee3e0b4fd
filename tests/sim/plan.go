package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// What a seed is at least (DESIGN section 13).
const (
	seedTime     = 60 * time.Second
	seedOSDs     = 5 // more where an object has more chunks
	seedOps      = 1000
	seedSlots    = 3 // clients
	seedFaults   = 8
	seedOverlaps = 2               // of them
	faultsFrom   = 3 * time.Second // the first operations run undisturbed
	faultsTo     = 46 * time.Second
)

// Plan is everything that a seed decides in advance, so that a shorter one can be tried: what happens in the run itself (latencies, crashes) the world draws from the same seed.
type Plan struct {
	Seed   uint64
	Draw   int
	Config Config
	Ops    []PlannedOp
	Faults []PlannedFault
}

// opKind is what a planned operation does.
type opKind uint8

const (
	opWrite opKind = iota
	opRead
	opZero
	opTrim
	opDelete  // of a whole object
	opCompare // compare-and-write of one block
	opCAS     // read a granule, write it if the object has still that version
	opFlush
	opExtents
)

var opNames = [...]string{"write", "read", "zero", "trim", "delete", "compare-and-write", "cas", "flush", "extents"}

func (k opKind) String() string { return opNames[k] }

// PlannedOp is one operation of a client.
type PlannedOp struct {
	ID    uint32 // what it writes; from 1
	Slot  int
	At    time.Duration
	Kind  opKind
	Image int
	Off   uint64
	Len   uint64
	Guess bool // of opCompare: with the expectation of what was seen last
}

func (o *PlannedOp) String() string {
	return fmt.Sprintf("operation %d of client %d: %v of image %d at %d+%d, at %v", o.ID, o.Slot+1, o.Kind, o.Image, o.Off, o.Len, o.At.Round(time.Millisecond))
}

// PlannedFault is one fault: it begins At and ends For later. What A, B and N mean depends on the kind.
type PlannedFault struct {
	ID   int
	At   time.Duration
	For  time.Duration
	Kind *faultKind
	A, B int
	N    uint64
	// Spare ones happen when those before them were too few, since some could not happen or were over at once.
	Spare bool
}

func (f *PlannedFault) String() string {
	what := "fault"
	if f.Spare {
		what = "spare fault"
	}
	return fmt.Sprintf("%s %d: %s at %v for %v (%d, %d, %d)", what, f.ID, f.Kind.name, f.At.Round(time.Millisecond), f.For.Round(time.Millisecond), f.A, f.B, f.N)
}

// opMix is how often each operation is drawn.
var opMix = []struct {
	weight int
	draw   func(o *PlannedOp, c *Config, rng *rand.Rand)
}{
	{26, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opWrite; blocks(o, c, rng, 4) }},
	{6, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opWrite; sectors(o, c, rng) }},
	{4, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opWrite; across(o, c, rng) }},
	{2, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opWrite; object(o, c, rng) }},
	{28, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opRead; blocks(o, c, rng, 6) }},
	{3, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opRead; sectors(o, c, rng) }},
	{3, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opRead; across(o, c, rng) }},
	{3, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opZero; blocks(o, c, rng, 4) }},
	{1, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opZero; sectors(o, c, rng) }},
	{3, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opTrim; blocks(o, c, rng, 4) }},
	{1, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opTrim; object(o, c, rng) }},
	{4, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opDelete; object(o, c, rng) }},
	{6, func(o *PlannedOp, c *Config, rng *rand.Rand) {
		o.Kind, o.Guess = opCompare, rng.IntN(4) != 0
		blocks(o, c, rng, 1)
	}},
	{4, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opCAS; granule(o, c, rng) }},
	{2, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opFlush }},
	{1, func(o *PlannedOp, c *Config, rng *rand.Rand) { o.Kind = opExtents; object(o, c, rng) }},
}

const blockSize = 4096 // of the checker

// hot draws a place: half of all operations fall on the first object, half of those on its first eight blocks.
func hot(o *PlannedOp, c *Config, rng *rand.Rand) (first, perObject uint64) {
	perObject = c.Object() / blockSize
	o.Image = rng.IntN(c.Images)
	switch rng.IntN(4) {
	case 0:
		return rng.Uint64N(min(8, perObject)), perObject
	case 1:
		return rng.Uint64N(perObject), perObject
	}
	return rng.Uint64N(perObject * uint64(c.Objects)), perObject
}

func blocks(o *PlannedOp, c *Config, rng *rand.Rand, most uint64) {
	first, per := hot(o, c, rng)
	o.Off = first * blockSize
	o.Len = min(1+rng.Uint64N(most), per*uint64(c.Objects)-first) * blockSize
}

func sectors(o *PlannedOp, c *Config, rng *rand.Rand) {
	first, per := hot(o, c, rng)
	o.Off = first*blockSize + 512*rng.Uint64N(8)
	o.Len = min(512*(1+rng.Uint64N(12)), per*uint64(c.Objects)*blockSize-o.Off)
}

func across(o *PlannedOp, c *Config, rng *rand.Rand) {
	_, per := hot(o, c, rng)
	border := per * (1 + rng.Uint64N(uint64(c.Objects)-1))
	before, after := 1+rng.Uint64N(min(per, 6)), 1+rng.Uint64N(min(per, 6))
	o.Off, o.Len = (border-before)*blockSize, (before+after)*blockSize
}

func object(o *PlannedOp, c *Config, rng *rand.Rand) {
	first, per := hot(o, c, rng)
	o.Off, o.Len = first/per*per*blockSize, per*blockSize
}

func granule(o *PlannedOp, c *Config, rng *rand.Rand) {
	first, _ := hot(o, c, rng)
	g := max(uint64(c.Store.Granularity), blockSize)
	o.Off, o.Len = first*blockSize/g*g, g
}

// NewPlan draws a seed's plan.
func NewPlan(seed uint64) *Plan { return NewPlanOf(seed, DefaultDraw) }

// NewPlanOf draws what a seed means in a draw.
func NewPlanOf(seed uint64, drawn int) *Plan {
	rng := rand.New(rand.NewPCG(seed, 0x706c616e))
	p := &Plan{Seed: seed, Draw: drawn, Config: drawConfig(rng, drawn)}
	kinds := faultKinds[:drawnFaults[drawn]]
	c := &p.Config
	for i := range seedOps {
		o := PlannedOp{ID: uint32(i + 1), Slot: rng.IntN(seedSlots), At: time.Duration(rng.Int64N(int64(seedTime - 10*time.Second)))}
		opMix[draw(rng, len(opMix), func(i int) int { return opMix[i].weight })].draw(&o, c, rng)
		if lazy := c.lazySlot(); lazy >= 0 {
			o.share(lazy, c)
		}
		p.Ops = append(p.Ops, o)
	}
	slices.SortFunc(p.Ops, func(a, b PlannedOp) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.ID, b.ID)) })
	for i := range c.Faults {
		f := PlannedFault{At: faultsFrom + time.Duration(rng.Int64N(int64(faultsTo-faultsFrom)))}
		f.For = 50*time.Millisecond + time.Duration(rng.Int64N(int64(c.Longest)))
		if i%4 == 1 { // begins while the one before is on
			b := &p.Faults[i-1]
			f.At = b.At + time.Duration(rng.Int64N(int64(b.For)))
		}
		f.Kind = &kinds[draw(rng, len(kinds), func(i int) int {
			if k := &kinds[i]; k.fits == nil || k.fits(c) {
				return k.weight
			}
			return 0
		})]
		f.place(rng, c.osds())
		p.Faults = append(p.Faults, f)
	}
	slices.SortStableFunc(p.Faults, func(a, b PlannedFault) int { return cmp.Compare(a.At, b.At) })
	for i := range p.Faults {
		p.Faults[i].ID = i + 1
	}
	if drawn >= fullDraw {
		p.spare(rng)
	}
	return p
}

// Spare faults are as many as a seed must have, each of which begins while the one before is on.
const (
	sparesFrom = faultsTo - seedFaults*spareApart
	spareApart = 500 * time.Millisecond
)

// spareKinds can always happen, and last.
var spareKinds = []string{"OSD cut off", "link between OSDs cut", "link between OSDs cut one way", "client cut off from an OSD", "connections dropped", "registry without a leader"}

// spare adds the spare faults.
func (p *Plan) spare(rng *rand.Rand) {
	for i := range seedFaults {
		f := PlannedFault{ID: len(p.Faults) + 1, At: sparesFrom + time.Duration(i)*spareApart, For: 2 * spareApart, Spare: true}
		name := spareKinds[rng.IntN(len(spareKinds))]
		f.Kind = &faultKinds[slices.IndexFunc(faultKinds, func(k faultKind) bool { return k.name == name })]
		f.place(rng, p.Config.osds())
		p.Faults = append(p.Faults, f)
	}
}

// place draws what the fault's kind needs to know.
func (f *PlannedFault) place(rng *rand.Rand, osds int) {
	f.A = rng.IntN(osds)
	f.B = (f.A + 1 + rng.IntN(osds-1)) % osds
	f.N = rng.Uint64()
}

// share gives the last image to one client alone, which syncs now and then.
func (o *PlannedOp) share(lazy int, c *Config) {
	switch {
	case o.Slot != lazy && o.Image == c.Images-1:
		o.Image = 0
	case o.Slot == lazy && o.ID%10 == 0:
		o.Kind = opFlush
		fallthrough
	case o.Slot == lazy:
		o.Image = c.Images - 1
	}
}

// Overlapping is how many faults begin while another is on, if each takes its time. Report.Overlaps is how many did.
func (p *Plan) Overlapping() int {
	n := 0
	for i := range p.Faults {
		for j := range i {
			if p.Faults[j].At+p.Faults[j].For > p.Faults[i].At {
				n++
				break
			}
		}
	}
	return n
}
