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
	BlockFreedEarly    = false
	PGRecordEarly      = false
	ReplaceKeepsNewer  = false
	ChecksumUnverified = false
	BitmapWithoutData  = false
	NoSpaceHalf        = false
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
)
