package sim

// Found are seeds that showed something when they were first run, each with what that was; make test runs them besides. They are of the first draw. A change of what is run on top gives a
// seed another course, so a fault that must never come back has a test of its own beside what was mended.
var Found = []struct {
	Seed uint64
	What string
}{
	{1, "requests of instances that ended while an OSD was down were remembered by it for ever (osd: endStrangers)"},
	{77, "a change that hung on a slow disk took effect after its session's fence was complete (osd: endFenced)"},
	{1745, "a read saw a deletion before every member had it, and a later one the data again when the primary was gone (osd/primary: seen)"},
	{318, "a tombstone was recovered without the request that made it, so a delete that was sent again took effect twice and undid a newer write (osd/primary: recovery of tombstones)"},
	{694769105, "a PG that became active just after its primary had got another lease never had its state key made again (osd: serve)"},
	{119, "a grant of an interval that was over was renewed for ever, and kept what the store no longer needs (osd: compare)"},
}
