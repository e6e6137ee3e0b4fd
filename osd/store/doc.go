// Package store is the block store of one disk, or of one with its metadata and journal on faster ones (Devices): objects of one block each, with versions, written-bitmaps, checksums, request pairs and PG records.
//
// The OSD's rooms use it from their loop; nothing here locks or blocks. It promises that a change whose Done reported no error survives power loss (one with Op.Lazy: when a later OpSync is done), that a change is all
// there or not at all, that changes take effect in the order they were submitted, and that data is checked against its checksum whenever it is read from the device.
// The bytes on disk are drawn in docs/formats/store.md, the reasons are in docs/adr/0010-store-format.md.
//
// How a change travels: Submit checks it against the newest state and appends it to its object's chain of changes; the journal gathers ready changes into a batch and
// writes it with one durable write; when it and every batch before it are durable the change is visible and done. A change without data in the journal is folded into the
// object's slot at once; one with data waits for the flusher, which writes the data to the object's block and then folds. Slots live in metadata pages, written in rounds; a journal
// batch may be overwritten when each of its changes is in a durable page.
package store
