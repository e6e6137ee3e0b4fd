package scenarios

import (
	"os"
	"testing"

	"holdfast/tests/stand"
)

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }

// scenarios are named as the originals are.
var scenarios = []struct {
	name string
	run  func(*testing.T)
}{
	{"write", write},
	{"cas", cas},
	{"rm", rm},
	{"rm_degraded", rmDegraded},
	{"degraded", degraded},
	{"minsize_1", minsize1},
	{"switch_primary", switchPrimary},
	{"splitbrain", splitbrain},
	{"move_reappear", moveReappear},
	{"rebalance_verify", each(commits, rebalanceVerify)},
	{"interrupted_rebalance", each(commits, interruptedRebalance)},
	{"heal", each(heals, heal)},
	{"etcd_fail", etcdFail},
	{"checksum", checksum},
	{"partwr_csum", partwrCsum},
	{"corrupt_all", corruptAll},
	{"scrub", scrub},
	{"change_pg_size", changePGSize},
	{"parity_change", parityChange},
	{"small_block_size", smallBlockSize},
	{"enospc", enospcs},
	{"write_no_same", writeNoSame},
}

func TestScenario(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel() // as many at once as there are cores: each mostly waits
			s.run(t)
		})
	}
}
