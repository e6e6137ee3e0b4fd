package sim

// Found are seeds that showed something when they were first run, each with what that was; make test runs them besides. A change of what is run on top gives a
// seed another course, so a fault that must never come back has a test of its own beside what was mended.
var Found = []struct {
	Seed
	What string
}{
	{Seed{1, FirstDraw}, "requests of instances that ended while an OSD was down were remembered by it for ever (osd: endStrangers)"},
	{Seed{77, FirstDraw}, "a change that hung on a slow disk took effect after its session's fence was complete (osd: endFenced)"},
	{Seed{1745, FirstDraw}, "a read saw a deletion before every member had it, and a later one the data again when the primary was gone (osd/primary: seen)"},
	{Seed{318, FirstDraw}, "a tombstone was recovered without the request that made it, so a delete that was sent again took effect twice and undid a newer write (osd/primary: recovery of tombstones)"},
	{Seed{694769105, FirstDraw}, "a PG that became active just after its primary had got another lease never had its state key made again (osd: serve)"},
	{Seed{119, FirstDraw}, "a grant of an interval that was over was renewed for ever, and kept what the store no longer needs (osd: compare)"},
	{Seed{499252354, FirstDraw}, "the newest version of an object was on one disk, unacknowledged and unreadable, and requests for the object waited for ever (osd/peering: before)"},
	{Seed{480, 2}, "a deletion was forgotten while an earlier write's answer was on its way, and the write was done again over it (osd/primary: pairs of tombstones)"},
	{Seed{1082, 3}, "a lazy deletion of what was not there left no trace of its request, and removed a newer write when it was sent again (osd/primary)"},
	{Seed{1864767913, 3}, "an answer about the state key came late, and gave back what the members had granted since (osd: shown)"},
	{Seed{880013, 3}, "deletions that had to be remembered took all places of a small disk, which was left out for it and taken back for ever (osd/store: layOut, osd: askRoom)"},
	{Seed{3654, 3}, "an object waited for ever for a change that had reached one store alone, which could not read it: who lacked it came back an interval later (osd/peering: before)"},
	{Seed{2561, 5}, "what was left of a PG was never removed by an OSD that had begun with one of a pool that was removed before it had sorted the pool's objects (osd: strayJob)"},
	{Seed{2471966382, 5}, "an etcd that was set back held whom an OSD had missed then, and nobody asked that one for its lock ever again (osd: tellMissing)"},
	{Seed{53, 6}, "what was left of an erasure-coded PG was never removed by an OSD that had a version there that waited for a commit (osd: strayJob)"},
	{Seed{407, 7}, "a deletion in an erasure-coded pool was forgotten while a member had yet to commit it, and the object was back (osd/primary: burial)"},
	{Seed{20140, 6}, "a change of an erasure-coded object took effect after its session's fence was complete: it had read from a slow disk meanwhile (osd/primary: sendCoded)"},
	{Seed{82096, 7}, "a pool that was copied with etcd while it was made was given another generation after the restore, and what it had was that of an earlier pool (monitor: undeclared, osd: laterPool)"},
	{Seed{3651130619, 7}, "a deletion was never forgotten when a request that came to nothing had its object open in that moment (osd/primary: forgetSome)"},
}
