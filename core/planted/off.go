//go:build !planted

package planted

// On says whether this build can have bugs planted.
const On = false

// The bugs, none of which is in this build.
const (
	FlushMissing       = false
	JournalLate        = false
	TornTail           = false
	AckOutOfOrder      = false
	RingReused         = false
	PagesUnflushed     = false
	DataUnflushed      = false
	BlockFreedEarly    = false
	FoldedTooFar       = false
	PGRecordEarly      = false
	ReplaceKeepsNewer  = false
	ChecksumUnverified = false
	BitmapWithoutData  = false
	HoleTold           = false
	NoSpaceHalf        = false
	FullIgnored        = false
	FullDelete         = false
	ReplyEarly         = false
	ReadUncommitted    = false
	GrantNotRechecked  = false
	LockRunOut         = false
	RenewalByArrival   = false
	IntervalUnchecked  = false
	RestartGrants      = false
	ActiveEarly        = false
	ActivateUncompared = false
	EmptyDiskCounts    = false
	StrangerJudges     = false
	VoidJudges         = false
	VoidSkipped        = false
	UncleanServed      = false
	TombstoneEarly     = false
	PairsNotRecovered  = false
	CASIgnored         = false
	RetryTwice         = false
	DeadlineUnchecked  = false
	FencedWrite        = false
	FenceRenewed       = false
	FenceLeavesChanges = false
	RestoreNotAwaited  = false
	SyncUnflushed      = false
	SyncEarly          = false
	TombsUnsynced      = false
	ReplayOver         = false
	SoftUnchecked      = false
	IntervalTwice      = false
	GrantsBoth         = false
	GrantRevived       = false
	IntervalForgotten  = false
	UnactivatedBinds   = false
	ServeUnapplied     = false
	VoidUnawaited      = false
	StrangerStands     = false
	NewcomerStands     = false
	HeardLeftOut       = false
	CleanEarly         = false
	UndoAcknowledged   = false
	UncleanChanged     = false
	VersionReused      = false
	ForgottenRepeated  = false
	RetryBeside        = false
	PairDropped        = false
	UndoneAnswered     = false
	InstanceUnfenced   = false
	FencesForgotten    = false
	FenceUnawaited     = false
	WritersKept        = false
	DeletionUnsettled  = false
	CopyLetGo          = false
	ReportEmpty        = false
	HalfRestored       = false
	SetBackOpens       = false
	RetiredOpens       = false
	EmptiedNeeded      = false
	GenerationIgnored  = false
	AtMostIgnored      = false
	RollbackStable     = false
	CommitUndurable    = false
	PairsKept          = false
	ListNewestOnly     = false
	LocalUncommitted   = false
	ReadRightRunOut    = false
	UnstableBelieved   = false
	UnstableDropped    = false
	CarriedDoubted     = false
	RollbackSkipped    = false
	CommitEarly        = false
	OlderSetTooFew     = false
)
