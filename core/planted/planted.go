// Package planted names bugs that can be put into the data path on purpose, so that the testers can be tested: tests/planted shows that each of them is caught.
//
// They exist only in builds with the tag `planted`; one of them is there when HOLDFAST_TEST_PLANTED names it. Without the tag each name is the constant false, and what depends on it is not
// compiled: a test (tests/planted) looks for them in the release binary.
package planted

// Bug is one line of the table.
type Bug struct{ Name, Says string }

// Bugs is every bug, by the layer that it is in.
var Bugs = []Bug{
	{"flush-missing", "a change is acknowledged when the device has it in its cache: its journal batch is written without a flush"},
	{"journal-late", "a change is acknowledged when its journal batch is sent off, not when it is durable"},
	{"torn-tail", "opening a store takes a journal batch whose data is not all there: its checksum is not compared"},
	{"ack-out-of-order", "of two journal batches under way, the second is acknowledged although the first is not durable"},
	{"ring-reused", "a journal batch overwrites what the newest durable batch still names as the beginning of the journal"},
	{"pages-unflushed", "the journal lets go of changes when their metadata pages are written, before the flush"},
	{"block-freed-early", "the block of an object's old version is free before the new metadata is durable"},
	{"sync-unflushed", "a store answers a sync without a flush of the device"},
	{"soft-unchecked", "opening a store does not compare the data that lazy whole-block writes left in blocks"},
	{"pg-record-early", "a PG's record is acknowledged before it is durable"},
	{"replace-keeps-newer", "a REPLACE that would lower an object's version changes nothing"},
	{"checksum-unverified", "checksums of data are not compared when it is read"},
	{"bitmap-without-data", "a write marks a unit as written that it has not written"},
	{"no-space-half", "a change that is refused for want of space keeps the block that was taken for it"},
	{"reply-early", "a change is acknowledged to the client while one member has not answered"},
	{"read-uncommitted", "a read shows a version that is not on every member yet"},
	{"grant-not-rechecked", "that every member's grant is in force is checked before the data is read, and not afterwards"},
	{"lock-run-out", "a primary serves on although a member's grant has run out"},
	{"renewal-by-arrival", "a renewed grant counts from the arrival of the answer instead of the sending of the request"},
	{"interval-unchecked", "a secondary carries out changes of whoever sends them, whatever grant it has given"},
	{"restart-grants", "a member that has just started grants to another primary than before, although the earlier grant may be in force"},
	{"active-early", "a PG serves before its activate transaction has gone through"},
	{"activate-uncompared", "the activate transaction is not compared with the take: a set that never served is recorded over another OSD's"},
	{"empty-disk-counts", "an empty disk counts as the member that had its number before: store ids are not compared"},
	{"stranger-judges", "a store that did not take part in the last activated interval is believed about its objects"},
	{"void-judges", "a voided copy is taken for the truth when it is the newest"},
	{"void-skipped", "a PG activates without having had false copies voided"},
	{"unclean-served", "a read is served from our copy although peering has found that it is not the truth"},
	{"tombstone-early", "a tombstone is forgotten while a store that is not here may hold an older copy"},
	{"pairs-not-recovered", "a recovered object comes without the record of the requests that made it"},
	{"cas-ignored", "a conditional write is carried out over whatever version there is"},
	{"retry-twice", "a request that is sent again is carried out again, over newer writes of others"},
	{"deadline-unchecked", "a change is begun after its deadline (op_ttl) has passed"},
	{"fenced-write", "a change of a fenced session is carried out"},
	{"fence-renewed", "a member that has acknowledged a fence renews the grants of a primary that has not applied it"},
	{"fence-leaves-changes", "a change that hangs on a disk when its session is fenced stays under way, and takes effect later"},
	{"sync-early", "a SYNC is answered before the other members have flushed"},
	{"tombs-unsynced", "a lazy deletion is forgotten before it is durable on every member"},
	{"replay-over", "a lazy change that was lost is written again over what another writer has flushed meanwhile"},
	{"restore-not-awaited", "after a restore of etcd a PG activates although a store has not reported"},
}
