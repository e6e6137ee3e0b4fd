// Package model compares a real cluster with a slice of bytes: random sequences of operations run on the client library over separate daemons, under many layouts, and every byte
// that is read must be what the slice says.
//
// A seed decides the layout (block size, granularity, copies, PGs, journal, checksums, event loop) and the sequence: writes, zeroes, trims, deletes and compare-and-writes of any
// alignment, alone and in batches that overlap, flushes, changes of the size, and OSDs that are killed in the middle. At the end every OSD is started anew, and what a single copy
// holds is read, too.
//
//	go test ./tests/model                             fixed seeds and drawn ones
//	go test -v ./tests/model -seed 17                 one of them again
//	HOLDFAST_TEST_ROUNDS=300 go test ./tests/model    more that are drawn
package model
