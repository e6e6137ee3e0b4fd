package model

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"holdfast/tests/stand"
)

// setup is the layout of one run's cluster.
type setup struct {
	blockSize, granularity uint64 // bytes
	journal                uint64 // bytes
	copies, osds, pgs      int
	loop                   string // of the OSDs and of the client
	checksum               string
	checksumBlock          uint64 // bytes
}

var (
	blockSizes = []uint64{64 << 10, 128 << 10, 1 << 20}
	journals   = []uint64{4 << 20, 8 << 20, 32 << 20}
	pgCounts   = []int{1, 3, 16, 64}
	loops      = []string{"uring", "portable"}
	checksums  = []string{"crc32c", "none"}
)

// draw makes a layout.
func draw(rng *rand.Rand) setup {
	s := setup{
		blockSize:     blockSizes[rng.IntN(len(blockSizes))],
		granularity:   []uint64{512, 4096, 4096, 8192}[rng.IntN(4)],
		journal:       journals[rng.IntN(len(journals))],
		copies:        1 + rng.IntN(3),
		pgs:           pgCounts[rng.IntN(len(pgCounts))],
		loop:          loops[rng.IntN(len(loops))],
		checksum:      checksums[rng.IntN(len(checksums))],
		checksumBlock: 4096,
	}
	s.journal = max(s.journal, 9*s.blockSize) // the least that holds a few whole blocks
	if rng.IntN(4) == 0 {
		s.checksumBlock = 16384
	}
	s.osds = s.copies + rng.IntN(2)
	return s
}

func (s setup) String() string {
	return fmt.Sprintf("block size %d, granularity %d, journal %d, %d copies on %d OSDs, %d PGs, loop %s, checksums %s per %d", s.blockSize, s.granularity, s.journal, s.copies, s.osds, s.pgs,
		s.loop, s.checksum, s.checksumBlock)
}

// start starts the cluster.
func (s setup) start(t *testing.T) *stand.Daemons {
	t.Helper()
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return stand.StartPlan(t, stand.Plan{
		OSDs: s.osds, OSDSize: 160 << 20, Copies: s.copies, PGs: s.pgs, NoGate: true,
		Format: []string{"--block_size", text(s.blockSize), "--bitmap_granularity", text(s.granularity), "--journal_size", text(s.journal), "--data_csum_type", s.checksum,
			"--csum_block_size", text(s.checksumBlock)},
		Pool: []string{"--block_size", text(s.blockSize), "--bitmap_granularity", text(s.granularity)},
		OSD:  []string{"--loop", s.loop},
	})
}

// TestFixedSeedsCoverTheLayouts: every value of every part of a layout occurs.
func TestFixedSeedsCoverTheLayouts(t *testing.T) {
	seen := map[string]bool{}
	for _, seed := range fixedSeeds {
		s := draw(generator(seed))
		seen[fmt.Sprint("block size ", s.blockSize)] = true
		seen[fmt.Sprint("granularity ", s.granularity)] = true
		seen[fmt.Sprint("journal ", s.journal)] = true
		seen[fmt.Sprint("copies ", s.copies)] = true
		seen[fmt.Sprint("PGs ", s.pgs)] = true
		seen["loop "+s.loop] = true
		seen["checksums "+s.checksum] = true
	}
	if want := len(blockSizes) + 3 + len(journals) + 1 + 3 + len(pgCounts) + len(loops) + len(checksums); len(seen) != want {
		t.Errorf("the fixed seeds have %d values, there are %d: %v", len(seen), want, seen)
	}
}
