package main

// tester is who should catch a bug.
type tester int

const (
	crash    tester = iota // the crash tester of the store: make crash
	sim                    // seeds of the simulator: make sim
	scenario               // a scripted cluster in the simulator: a test of tests/sim
	model                  // random histories of a PG's peering: a test of osd/peering
)

func (t tester) String() string {
	return [...]string{"crash states", "simulated seeds", "a scenario", "random histories of peering"}[t]
}

// hunt is how a bug is looked for.
type hunt struct {
	Bug  string
	By   tester
	Test string // of a scenario, or of the model [of replicated pools]
	From int    // the first seed [1], or history [0]
	Draw int    // of the seeds [huntDraw]
	Most int    // seeds or states, and no more [as many as there is time for]
}

// huntDraw is what seeds mean here, so that those that are named stay what they are.
const huntDraw = 3

// codedDraw is what seeds mean in which most pools are erasure-coded and disks lie.
const codedDraw = 7

// chunkHistories is the model's test of erasure-coded pools.
const chunkHistories = "TestRandomChunkHistoriesLoseNothing"

// hunts has each bug once.
var hunts = []hunt{
	{Bug: "flush-missing", By: crash},
	{Bug: "journal-late", By: crash},
	{Bug: "torn-tail", By: crash},
	{Bug: "ack-out-of-order", By: crash},
	{Bug: "ring-reused", By: crash},
	{Bug: "pages-unflushed", By: crash},
	{Bug: "data-unflushed", By: crash},
	{Bug: "block-freed-early", By: crash},
	{Bug: "folded-too-far", By: crash},
	{Bug: "sync-unflushed", By: crash},
	{Bug: "soft-unchecked", By: crash},
	{Bug: "flush-tried-again", By: scenario, Test: "TestFailedWriteOrFlushEndsTheOSD"},
	{Bug: "discard-taken", By: scenario, Test: "TestDiscardAtTheStartHarmsNothing"},
	{Bug: "pg-record-early", By: crash},
	{Bug: "replace-keeps-newer", By: crash},
	{Bug: "checksum-unverified", By: crash},
	{Bug: "bitmap-without-data", By: crash},
	{Bug: "hole-told", By: sim},
	{Bug: "at-most-ignored", By: crash},
	{Bug: "rollback-stable", By: crash},
	{Bug: "commit-undurable", By: crash},
	{Bug: "pairs-kept", By: crash},
	{Bug: "list-newest-only", By: crash},
	{Bug: "no-space-half", By: crash},
	{Bug: "full-ignored", By: scenario, Test: "TestFullPool"},
	{Bug: "full-delete", By: scenario, Test: "TestFullPool"},
	{Bug: "refused-kept", By: scenario, Test: "TestFullPool"},
	{Bug: "reply-early", By: sim},
	{Bug: "read-uncommitted", By: sim},
	{Bug: "local-uncommitted", By: scenario, Test: "TestLocalReads"},
	{Bug: "read-right-run-out", By: scenario, Test: "TestRightToReadRunsOut"},
	{Bug: "grant-not-rechecked", By: sim},
	{Bug: "lock-run-out", By: sim},
	{Bug: "renewal-by-arrival", By: scenario, Test: "TestGrantsAreCountedFromTheSending"},
	{Bug: "interval-unchecked", By: scenario, Test: "TestChangeThatComesLateIsNotCarriedOut"},
	{Bug: "restart-grants", By: scenario, Test: "TestRestartedMembersHonourTheirGrants"},
	{Bug: "active-early", By: sim},
	{Bug: "activate-uncompared", By: scenario, Test: "TestActivationThatComesLateChangesNothing"},
	{Bug: "empty-disk-counts", By: model},
	{Bug: "stranger-judges", By: model},
	{Bug: "void-judges", By: model},
	{Bug: "void-skipped", By: model},
	{Bug: "unclean-served", By: sim, From: 24},
	{Bug: "tombstone-early", By: scenario, Test: "TestDeletionIsRememberedWhileOlderCopiesCount"},
	{Bug: "pairs-not-recovered", By: scenario, Test: "TestRecoveredObjectsKnowTheirRequests"},
	{Bug: "cas-ignored", By: sim},
	{Bug: "retry-twice", By: sim},
	{Bug: "deadline-unchecked", By: scenario, Test: "TestLateChangeIsNotBegun"},
	{Bug: "fenced-write", By: scenario, Test: "TestFenceReachesOSDsWithoutEtcd"},
	{Bug: "fence-renewed", By: scenario, Test: "TestFenceEndsThePrimaryThatItDoesNotReach"},
	{Bug: "fence-leaves-changes", By: sim},
	{Bug: "sync-early", By: scenario, Test: "TestSyncedChangesSurvive"},
	{Bug: "tombs-unsynced", By: scenario, Test: "TestLazyDeletionIsRememberedUntilItIsDurable"},
	{Bug: "replay-over", By: scenario, Test: "TestLazyChangeIsNotRepeatedOverAnother"},
	{Bug: "restore-not-awaited", By: scenario, Test: "TestRestoredEtcdWaitsForEveryStore"},
	{Bug: "interval-twice", By: sim},
	{Bug: "grants-both", By: sim, From: 70},
	{Bug: "grant-revived", By: scenario, Test: "TestGrantThatRanOutIsNotRenewed"},
	{Bug: "interval-forgotten", By: scenario, Test: "TestRestoredEtcdIsFound"},
	{Bug: "unactivated-binds", By: sim},
	{Bug: "serve-unapplied", By: scenario, Test: "TestFenceIsKnownBeforeServing"},
	{Bug: "void-unawaited", By: model},
	{Bug: "stranger-stands", By: model},
	{Bug: "newcomer-stands", By: model},
	{Bug: "heard-left-out", By: model},
	{Bug: "clean-early", By: model},
	{Bug: "undo-acknowledged", By: model, From: 12590},
	{Bug: "unclean-changed", By: sim},
	{Bug: "version-reused", By: sim},
	{Bug: "forgotten-repeated", By: scenario, Test: "TestWriteIsDoneOnceThoughItsObjectWasDeleted"},
	{Bug: "retry-beside", By: scenario, Test: "TestRepeatedRequestsTakeEffectOnce"},
	{Bug: "pair-dropped", By: sim},
	{Bug: "undone-answered", By: crash},
	{Bug: "instance-unfenced", By: sim, From: 11, Draw: 5},
	{Bug: "fences-forgotten", By: scenario, Test: "TestFencesOutliveARestoreOfEtcd"},
	{Bug: "fence-unawaited", By: scenario, Test: "TestFenceWaitsForThoseItCannotReach"},
	{Bug: "writers-kept", By: scenario, Test: "TestWritersOfUnsyncedChangesAreDropped"},
	{Bug: "deletion-unsettled", By: scenario, Test: "TestDurableDeletionOfWhatALazyOneDeletedStays"},
	{Bug: "copy-let-go", By: sim},
	{Bug: "report-empty", By: scenario, Test: "TestRestoredEtcdIsFound"},
	{Bug: "half-restored", By: scenario, Test: "TestLostEtcdAtRandom"},
	{Bug: "set-back-opens", By: scenario, Test: "TestDisksSetBackAtRandom"},
	{Bug: "owner-ignored", By: scenario, Test: "TestDiskInAnothersPlaceChangesNothing"},
	{Bug: "place-taken", By: scenario, Test: "TestCopyOfARunningDiskIsRefused"},
	{Bug: "retired-opens", By: scenario, Test: "TestRestoredEtcdGoesOnWithoutAStoreThatIsGivenUp"},
	{Bug: "emptied-needed", By: scenario, Test: "TestDisksSetBackAtRandom"},
	{Bug: "generation-ignored", By: scenario, Test: "TestPoolMadeAnewIsEmpty"},
	{Bug: "unstable-believed", By: model, Test: chunkHistories},
	{Bug: "unstable-dropped", By: model, Test: chunkHistories},
	{Bug: "carried-doubted", By: model, Test: chunkHistories},
	{Bug: "rollback-skipped", By: model, Test: chunkHistories},
	{Bug: "commit-early", By: model, Test: chunkHistories},
	{Bug: "older-set-too-few", By: model, Test: chunkHistories},
	{Bug: "parity-mixed", By: sim, Draw: codedDraw, From: 5},
	{Bug: "delta-from-new", By: sim, Draw: codedDraw, From: 7},
	{Bug: "band-left-out", By: sim, Draw: codedDraw},
	{Bug: "stabilised-early", By: sim, Draw: codedDraw, From: 11},
	{Bug: "commit-left-out", By: sim, Draw: codedDraw},
	{Bug: "untouched-left", By: sim, Draw: codedDraw},
	{Bug: "degraded-mixed", By: sim, Draw: codedDraw, From: 61},
	{Bug: "unstable-read", By: sim, Draw: codedDraw},
	{Bug: "stale-rebuilt", By: sim, Draw: codedDraw, From: 7},
	{Bug: "bitmap-unrebuilt", By: sim, Draw: codedDraw},
	{Bug: "role-ignored", By: sim, Draw: codedDraw, From: 26},
	{Bug: "unreadable-zero", By: scenario, Test: "TestUnreadableChunkIsNoSource"},
	{Bug: "forgot-uncommitted", By: scenario, Test: "TestDeletionIsForgottenWhenItIsCommitted"},
	{Bug: "mend-forgotten", By: sim, Draw: codedDraw, From: 11},
	{Bug: "scrub-trusts-wrong", By: scenario, Test: "TestScrubMendsWhatChecksumsOrTheMajorityTell"},
	{Bug: "scrub-unordered", By: scenario, Test: "TestScrubLeavesChangesUnderWay"},
	{Bug: "repair-from-bad", By: scenario, Test: "TestScrubMendsWhatChecksumsOrTheMajorityTell"},
	{Bug: "mended-uncounted", By: scenario, Test: "TestScrubMendsWhatChecksumsOrTheMajorityTell"},
	{Bug: "inconsistent-served", By: scenario, Test: "TestScrubOfCopiesThatDiffer"},
	{Bug: "doubt-forgotten", By: scenario, Test: "TestInconsistentObjectsAreRemembered"},
	{Bug: "verified-unsound", By: scenario, Test: "TestScrubWithoutAMemberVerifiesNothing"},
}
