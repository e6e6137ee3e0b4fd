//go:build planted

package planted

import (
	"fmt"
	"os"
	"strings"
)

// On says whether this build can have bugs planted.
const On = true

// The bugs. They are set once, before anything runs.
var (
	FlushMissing       = is("flush-missing")
	JournalLate        = is("journal-late")
	TornTail           = is("torn-tail")
	AckOutOfOrder      = is("ack-out-of-order")
	RingReused         = is("ring-reused")
	PagesUnflushed     = is("pages-unflushed")
	DataUnflushed      = is("data-unflushed")
	BlockFreedEarly    = is("block-freed-early")
	FoldedTooFar       = is("folded-too-far")
	PGRecordEarly      = is("pg-record-early")
	ReplaceKeepsNewer  = is("replace-keeps-newer")
	ChecksumUnverified = is("checksum-unverified")
	BitmapWithoutData  = is("bitmap-without-data")
	HoleTold           = is("hole-told")
	NoSpaceHalf        = is("no-space-half")
	FullIgnored        = is("full-ignored")
	FullDelete         = is("full-delete")
	ReplyEarly         = is("reply-early")
	ReadUncommitted    = is("read-uncommitted")
	GrantNotRechecked  = is("grant-not-rechecked")
	LockRunOut         = is("lock-run-out")
	RenewalByArrival   = is("renewal-by-arrival")
	IntervalUnchecked  = is("interval-unchecked")
	RestartGrants      = is("restart-grants")
	ActiveEarly        = is("active-early")
	ActivateUncompared = is("activate-uncompared")
	EmptyDiskCounts    = is("empty-disk-counts")
	StrangerJudges     = is("stranger-judges")
	VoidJudges         = is("void-judges")
	VoidSkipped        = is("void-skipped")
	UncleanServed      = is("unclean-served")
	TombstoneEarly     = is("tombstone-early")
	PairsNotRecovered  = is("pairs-not-recovered")
	CASIgnored         = is("cas-ignored")
	RetryTwice         = is("retry-twice")
	DeadlineUnchecked  = is("deadline-unchecked")
	FencedWrite        = is("fenced-write")
	FenceRenewed       = is("fence-renewed")
	FenceLeavesChanges = is("fence-leaves-changes")
	RestoreNotAwaited  = is("restore-not-awaited")
	SyncUnflushed      = is("sync-unflushed")
	SyncEarly          = is("sync-early")
	TombsUnsynced      = is("tombs-unsynced")
	ReplayOver         = is("replay-over")
	SoftUnchecked      = is("soft-unchecked")
	IntervalTwice      = is("interval-twice")
	GrantsBoth         = is("grants-both")
	GrantRevived       = is("grant-revived")
	IntervalForgotten  = is("interval-forgotten")
	UnactivatedBinds   = is("unactivated-binds")
	ServeUnapplied     = is("serve-unapplied")
	VoidUnawaited      = is("void-unawaited")
	StrangerStands     = is("stranger-stands")
	NewcomerStands     = is("newcomer-stands")
	HeardLeftOut       = is("heard-left-out")
	CleanEarly         = is("clean-early")
	UndoAcknowledged   = is("undo-acknowledged")
	UncleanChanged     = is("unclean-changed")
	VersionReused      = is("version-reused")
	ForgottenRepeated  = is("forgotten-repeated")
	RetryBeside        = is("retry-beside")
	PairDropped        = is("pair-dropped")
	UndoneAnswered     = is("undone-answered")
	InstanceUnfenced   = is("instance-unfenced")
	FencesForgotten    = is("fences-forgotten")
	FenceUnawaited     = is("fence-unawaited")
	WritersKept        = is("writers-kept")
	DeletionUnsettled  = is("deletion-unsettled")
	CopyLetGo          = is("copy-let-go")
	ReportEmpty        = is("report-empty")
	HalfRestored       = is("half-restored")
	SetBackOpens       = is("set-back-opens")
	RetiredOpens       = is("retired-opens")
	OwnerIgnored       = is("owner-ignored")
	FlushTriedAgain    = is("flush-tried-again")
	PlaceTaken         = is("place-taken")
	DiscardTaken       = is("discard-taken")
	EmptiedNeeded      = is("emptied-needed")
	GenerationIgnored  = is("generation-ignored")
	AtMostIgnored      = is("at-most-ignored")
	RollbackStable     = is("rollback-stable")
	CommitUndurable    = is("commit-undurable")
	PairsKept          = is("pairs-kept")
	ListNewestOnly     = is("list-newest-only")
	LocalUncommitted   = is("local-uncommitted")
	ReadRightRunOut    = is("read-right-run-out")
	UnstableBelieved   = is("unstable-believed")
	UnstableDropped    = is("unstable-dropped")
	CarriedDoubted     = is("carried-doubted")
	RollbackSkipped    = is("rollback-skipped")
	CommitEarly        = is("commit-early")
	OlderSetTooFew     = is("older-set-too-few")
)

// is reports whether a bug is the one to be planted.
func is(name string) bool {
	want := os.Getenv("HOLDFAST_TEST_PLANTED")
	var names []string
	for _, b := range Bugs {
		names = append(names, b.Name)
	}
	if all := " " + strings.Join(names, " ") + " "; want != "" && !strings.Contains(all, " "+want+" ") || !strings.Contains(all, " "+name+" ") {
		panic(fmt.Sprintf("HOLDFAST_TEST_PLANTED=%q, %q: the bugs that can be planted are%s", want, name, all))
	}
	return want == name
}
