package sim

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"holdfast/core/sim"
	"holdfast/osd/store"
)

// Config is what a seed runs on. Each field is drawn from the weighted lines below.
type Config struct {
	Name     []string // the lines that were drawn
	Replicas int
	Parity   int  // of Replicas, which are the chunks of an object then; 0: copies
	XOR      bool // the scheme of the pool is xor
	OSDs     int  // [seedOSDs]
	MinSize  int
	PGs      int
	Store    store.Config
	Sector   int
	DiskSize int64
	LockTime time.Duration
	OutTime  time.Duration
	Monitors int
	Depth    int
	Parallel int // operations that a client has under way at once
	Faults   int
	Longest  time.Duration // of a fault
	Images   int
	Objects  int // of an image
	Gateways int // how many of the clients go through the gateway's volume layer
	Drift    int64
	Net      sim.Delay // how long bytes take when nothing is wrong; zero: as the simulator has it
	Second   bool      // a second pool, of one PG, without redundancy
	Commit   string    // immediate_commit of the pools [all]
	Back     string    // what is set back to an earlier state: backEtcd or backDisks
	Reads    string    // local_reads of the pools [primary]
}

// choice is one line of a table: how often it is drawn beside the others, and what it sets.
type choice struct {
	weight int
	name   string
	set    func(*Config)
}

// The draws. A line that is added to a table of configurations, faults or operations gives every seed another meaning, so the lines of earlier draws stay what and where they are, and a new
// draw has more of them: what a seed meant can always be run again. DefaultDraw is that of seeds of which nothing else is said.
const (
	FirstDraw   = 1
	NewestDraw  = 7
	DefaultDraw = 7

	// fullDraw is the first in which every seed has as many faults as a seed must have, by stand-ins.
	fullDraw = 4
)

// tables is the one list of configurations of the first draw. An issue that adds a dimension adds a table to those of a new draw in laterTables.
var tables = [][]choice{
	{ // redundancy: pg_size/pg_minsize
		{2, "3/1", func(c *Config) { c.Replicas, c.MinSize = 3, 1 }},
		{6, "3/2", func(c *Config) { c.Replicas, c.MinSize = 3, 2 }},
		{2, "3/3", func(c *Config) { c.Replicas, c.MinSize = 3, 3 }},
		{4, "2/1", func(c *Config) { c.Replicas, c.MinSize = 2, 1 }},
		{2, "2/2", func(c *Config) { c.Replicas, c.MinSize = 2, 2 }},
		{1, "1/1", func(c *Config) { c.Replicas, c.MinSize = 1, 1 }},
	},
	{ // number of PGs
		{2, "1 PG", func(c *Config) { c.PGs = 1 }},
		{4, "3 PGs", func(c *Config) { c.PGs = 3 }},
		{4, "6 PGs", func(c *Config) { c.PGs = 6 }},
		{1, "16 PGs", func(c *Config) { c.PGs = 16 }},
	},
	{ // object and granule
		{5, "128k/4k", func(c *Config) { c.Store.BlockSize, c.Store.Granularity = 128<<10, 4096 }},
		{4, "32k/4k", func(c *Config) { c.Store.BlockSize, c.Store.Granularity = 32<<10, 4096 }},
		{2, "64k/512", func(c *Config) { c.Store.BlockSize, c.Store.Granularity = 64<<10, 512 }},
		{1, "64k/8k", func(c *Config) { c.Store.BlockSize, c.Store.Granularity = 64<<10, 8192 }},
	},
	{ // journal
		{3, "smallest journal", func(c *Config) { c.Store.JournalSize = max(256<<10, 8*(int64(c.Store.BlockSize)+64<<10)) }},
		{3, "2M journal", func(c *Config) { c.Store.JournalSize = 2 << 20 }},
		{1, "8M journal", func(c *Config) { c.Store.JournalSize = 8 << 20 }},
	},
	{ // checksums
		{6, "crc32c", func(c *Config) { c.Store.ChecksumType = store.ChecksumCRC32C }},
		{1, "no checksums", func(c *Config) { c.Store.ChecksumType = store.ChecksumNone }},
	},
	{ // disks: room for everything, or for little more than that
		{8, "large disks", func(c *Config) { c.DiskSize = 40 << 20 }},
		{1, "small disks", func(c *Config) {
			c.DiskSize = 4<<20 + c.Store.JournalSize + int64(c.Store.BlockSize)*48
		}},
	},
	{ // images and their size
		{2, "1 image of 2 objects", func(c *Config) { c.Images, c.Objects = 1, 2 }},
		{4, "2 images of 4 objects", func(c *Config) { c.Images, c.Objects = 2, 4 }},
		{2, "2 images of 10 objects", func(c *Config) { c.Images, c.Objects = 2, 10 }},
	},
	{ // pg_lock_time
		{6, "lock 1.5 s", func(c *Config) { c.LockTime = 1500 * time.Millisecond }},
		{2, "lock 0.6 s", func(c *Config) { c.LockTime = 600 * time.Millisecond }},
		{1, "lock 4 s", func(c *Config) { c.LockTime = 4 * time.Second }},
	},
	{ // osd_out_time
		{5, "no out", func(c *Config) { c.OutTime = 600 * time.Second }},
		{3, "out after 8 s", func(c *Config) { c.OutTime = 8 * time.Second }},
	},
	{ // monitors
		{3, "1 monitor", func(c *Config) { c.Monitors = 1 }},
		{1, "2 monitors", func(c *Config) { c.Monitors = 2 }},
		{2, "3 monitors", func(c *Config) { c.Monitors = 3 }},
	},
	{ // recovery_queue_depth
		{2, "recovery 1", func(c *Config) { c.Depth = 1 }},
		{2, "recovery 4", func(c *Config) { c.Depth = 4 }},
	},
	{ // operations of a client at once
		{1, "depth 1", func(c *Config) { c.Parallel = 1 }},
		{4, "depth 4", func(c *Config) { c.Parallel = 4 }},
		{2, "depth 8", func(c *Config) { c.Parallel = 8 }},
	},
	{ // who the clients are
		{2, "no gateway", func(c *Config) { c.Gateways = 0 }},
		{3, "1 gateway", func(c *Config) { c.Gateways = 1 }},
		{2, "2 gateways", func(c *Config) { c.Gateways = 2 }},
	},
	{ // intensity
		{5, "8 faults", func(c *Config) { c.Faults, c.Longest = 8, 12*time.Second }},
		{3, "14 faults", func(c *Config) { c.Faults, c.Longest = 14, 6*time.Second }},
		{2, "24 faults", func(c *Config) { c.Faults, c.Longest = 24, 3*time.Second }},
	},
	{ // clocks: how much faster or slower each host's is at most, parts per million; pg_lock_time allows for 10 %
		{4, "clocks agree", func(c *Config) { c.Drift = 0 }},
		{3, "clocks drift 0.02 %", func(c *Config) { c.Drift = 200 }},
		{2, "clocks drift 4 %", func(c *Config) { c.Drift = 40000 }},
	},
	{ // pools
		{4, "1 pool", func(c *Config) { c.Second = false }},
		{1, "2 pools", func(c *Config) { c.Second = true }},
	},
}

// laterTables are what each draw has besides, by its number. In earlier draws the zero values of what they set hold.
var laterTables = map[int][][]choice{
	2: {
		{ // network: how long bytes take each way
			{5, "usual network", func(*Config) {}},
			{1, "slow network", func(c *Config) { c.Net = sim.Delay{Min: time.Millisecond, Max: 8 * time.Millisecond} }},
			{1, "uneven network", func(c *Config) {
				c.Net = sim.Delay{Min: 50 * time.Microsecond, Max: 400 * time.Microsecond, Worst: 150 * time.Millisecond, Rare: 0.01}
			}},
		},
	},
	3: {
		{ // which writes are durable when they are acknowledged
			{4, "commit all", func(*Config) {}},
			{2, "commit small", func(c *Config) { c.Commit = "small" }},
			{4, "commit none", func(c *Config) { c.Commit = "none" }},
		},
	},
	5: {
		{ // what is set back to an earlier state
			{2, "nothing set back", func(*Config) {}},
			{3, "etcd set back", func(c *Config) { c.Back = backEtcd }},
			{3, "disks set back", func(c *Config) { c.Back = backDisks }},
		},
	},
	6: {
		{ // data+parity/pg_minsize, instead of copies; without a second pool, whose objects would have another size
			{4, "copies", func(*Config) {}},
			{2, "2+1/2", func(c *Config) { c.code(2, 1, 2) }},
			{2, "2+1/3", func(c *Config) { c.code(2, 1, 3) }},
			{2, "2+2/3", func(c *Config) { c.code(2, 2, 3) }},
			{1, "3+1/4", func(c *Config) { c.code(3, 1, 4) }},
			{1, "3+2/4", func(c *Config) { c.code(3, 2, 4) }},
		},
	},
	7: {
		{ // more chunks, on more OSDs, and copies again, instead of what the lines before say
			{6, "as before", func(*Config) {}},
			{4, "3/2 after all", func(c *Config) { c.copies(3, 2) }},
			{1, "3/3 after all", func(c *Config) { c.copies(3, 3) }},
			{1, "4+2/4", func(c *Config) { c.wide(4, 2, 4) }},
			{2, "4+2/5", func(c *Config) { c.wide(4, 2, 5) }},
			{1, "4+2/6", func(c *Config) { c.wide(4, 2, 6) }},
			{1, "8+3/8", func(c *Config) { c.wide(8, 3, 8) }},
			{1, "8+3/9", func(c *Config) { c.wide(8, 3, 9) }},
			{1, "8+3/10", func(c *Config) { c.wide(8, 3, 10) }},
			{1, "xor 3+1/3", func(c *Config) { c.wide(3, 1, 3); c.XOR = true }},
			{2, "xor 3+1/4", func(c *Config) { c.wide(3, 1, 4); c.XOR = true }},
		},
	},
}

func (c *Config) code(data, parity, min int) {
	c.Replicas, c.Parity, c.MinSize, c.Second = data+parity, parity, min, false
}

// copies has objects lie in copies.
func (c *Config) copies(n, min int) { c.Replicas, c.Parity, c.MinSize = n, 0, min }

// wide codes objects in many chunks: there is an OSD more than those, and chunks are small, or a seed would take long.
func (c *Config) wide(data, parity, least int) {
	c.code(data, parity, least)
	c.OSDs = max(seedOSDs, data+parity+1)
	c.Store.BlockSize, c.Store.Granularity = 32<<10, 4096
	c.PGs = min(c.PGs, 6)
}

// osds is how many there are.
func (c *Config) osds() int {
	return max(c.OSDs, seedOSDs)
}

// Data is how many members an object can be read from.
func (c *Config) Data() int {
	if c.Parity > 0 {
		return c.Replicas - c.Parity
	}
	return 1
}

// Object is the size of an object.
func (c *Config) Object() uint64 {
	if c.Parity > 0 {
		return uint64(c.Store.BlockSize) * uint64(c.Data())
	}
	return uint64(c.Store.BlockSize)
}

// lazySlot is the client whose changes need not be durable when they are acknowledged, and that keeps copies; -1: none. The last image is its alone: that is the condition.
func (c *Config) lazySlot() int {
	if c.Commit == "" || c.Images < 2 || c.Gateways == seedSlots {
		return -1
	}
	return seedSlots - 1
}

// tablesOf are all tables of a draw.
func tablesOf(drawn int) [][]choice {
	all := slices.Clip(tables)
	for i := FirstDraw + 1; i <= drawn; i++ {
		all = append(all, laterTables[i]...)
	}
	return all
}

// drawConfig draws a line of each table.
func drawConfig(rng *rand.Rand, drawn int) Config {
	var c Config
	for _, t := range tablesOf(drawn) {
		line := &t[draw(rng, len(t), func(i int) int { return t[i].weight })]
		line.set(&c)
		c.Name = append(c.Name, line.name)
	}
	return c
}

// draw is a number below n, by weight.
func draw(rng *rand.Rand, n int, weight func(int) int) int {
	sum := 0
	for i := range n {
		sum += weight(i)
	}
	k := rng.IntN(sum)
	for i := range n {
		if k -= weight(i); k < 0 {
			return i
		}
	}
	panic("unreachable")
}

func (c *Config) String() string { return strings.Join(c.Name, ", ") }
