package store

import (
	"fmt"
	"hash/crc32"
)

// A batch is what the journal writes with one device write: a header, the entries, and, from the next multiple of 4096 on, their data.
const (
	batchMagic   = 0x4c4e524a4448 // "HDJRNL"
	batchHeader  = 128
	journalAlign = 4096

	// Flags in a batch's header.
	batchSoft  = 1
	batchPages = 2
)

// batchInfo is a batch's header.
type batchInfo struct {
	seq       uint64 // of the batch
	epoch     uint64 // the boot counter of the opening that wrote it
	first     uint64 // sequence of its first entry
	durable   uint64 // every batch up to this was durable when this one was built
	tailSeq   uint64 // replay starts at this batch,
	tailPos   uint64 // which is here in the journal
	pos       uint64 // where this batch is in the journal
	roundDone uint64 // the last round of page writes that was durable
	prevCRC   uint32 // crc of the batch before
	headerLen uint32 // header and entries
	dataOff   uint32 // where the data begins: headerLen, rounded up
	dataLen   uint32
	dataCRC   uint32
	count     uint32 // entries
	pages     uint32 // the sum of the generations of all metadata pages when that round was durable,
	counted   bool   // if it is known: earlier releases did not write it
	soft      bool   // it was not written through, and data of its changes may have been lost
	crc       uint32 // of the header and the entries
}

// size is the length of the batch in the journal.
func (h *batchInfo) size() int {
	return (int(h.dataOff) + int(h.dataLen) + journalAlign - 1) &^ (journalAlign - 1)
}

func (h *batchInfo) encode(b []byte, secret *[16]byte) {
	clear(b[:batchHeader])
	le.PutUint64(b, batchMagic)
	le.PutUint32(b[12:], FormatVersion)
	copy(b[16:], secret[:])
	for i, v := range []uint64{h.seq, h.epoch, h.first, h.durable, h.tailSeq, h.tailPos, h.pos, h.roundDone} {
		le.PutUint64(b[32+8*i:], v)
	}
	for i, v := range []uint32{h.prevCRC, h.headerLen, h.dataOff, h.dataLen, h.dataCRC, h.count} {
		le.PutUint32(b[96+4*i:], v)
	}
	if h.soft {
		b[120] |= batchSoft
	}
	if h.counted {
		b[120] |= batchPages
		le.PutUint32(b[124:], h.pages)
	}
	h.crc = crc32.Checksum(b[12:h.headerLen], castagnoli)
	le.PutUint32(b[8:], h.crc)
}

// errNoBatch: there is nothing that claims to be one of this store's batches.
var errNoBatch = fmt.Errorf("there is no batch")

// decodeBatch reads the header of a batch at position pos of the journal; b is the journal from there to its end. The data is not checked.
func decodeBatch(b []byte, sb *Superblock, pos uint64) (batchInfo, error) {
	var h batchInfo
	if len(b) < batchHeader || le.Uint64(b) != batchMagic || string(b[16:32]) != string(sb.secret[:]) {
		return h, errNoBatch
	}
	for i, p := range []*uint64{&h.seq, &h.epoch, &h.first, &h.durable, &h.tailSeq, &h.tailPos, &h.pos, &h.roundDone} {
		*p = le.Uint64(b[32+8*i:])
	}
	for i, p := range []*uint32{&h.prevCRC, &h.headerLen, &h.dataOff, &h.dataLen, &h.dataCRC, &h.count} {
		*p = le.Uint32(b[96+4*i:])
	}
	h.soft, h.counted = b[120]&batchSoft != 0, b[120]&batchPages != 0
	h.pages = le.Uint32(b[124:])
	h.crc = le.Uint32(b[8:])
	if v := le.Uint32(b[12:]); v != FormatVersion {
		return h, fmt.Errorf("the batch has format version %d", v)
	}
	if h.headerLen < batchHeader || int64(h.headerLen) > int64(len(b)) || h.dataOff < h.headerLen || h.dataOff%journalAlign != 0 ||
		int64(h.dataOff)+int64(h.dataLen) > int64(len(b)) || h.pos != pos || h.tailPos%journalAlign != 0 || h.tailPos >= uint64(sb.Journal.Len) ||
		int64(h.count)*entryHeader > int64(h.headerLen) || h.tailSeq > h.seq || h.durable >= h.seq {
		return h, fmt.Errorf("the batch's header is impossible")
	}
	if have := crc32.Checksum(b[12:h.headerLen], castagnoli); have != h.crc {
		return h, fmt.Errorf("checksum of the batch's header is %08x, expected %08x", have, h.crc)
	}
	return h, nil
}

// checkData verifies the data of a batch whose header is good.
func (h *batchInfo) checkData(b []byte) error {
	if have := crc32.Checksum(b[h.dataOff:h.dataOff+h.dataLen], castagnoli); have != h.dataCRC {
		return fmt.Errorf("checksum of the batch's data is %08x, expected %08x", have, h.dataCRC)
	}
	return nil
}

// entries calls f for each entry of a batch whose header is good; f's entry is valid during the call.
func (h *batchInfo) entries(b []byte, sb *Superblock, f func(e *entry, at uint32) error) error {
	at := uint32(batchHeader)
	var e entry
	for i := uint32(0); i < h.count; i++ {
		n, err := decodeEntry(b[at:h.headerLen], sb, h.size(), &e)
		if err != nil {
			return fmt.Errorf("entry %d of batch %d: %w", i, h.seq, err)
		}
		if e.seq != h.first+uint64(i) {
			return fmt.Errorf("entry %d of batch %d has sequence %d, expected %d", i, h.seq, e.seq, h.first+uint64(i))
		}
		if err := f(&e, at); err != nil {
			return err
		}
		at += uint32(n)
	}
	if at != h.headerLen {
		return fmt.Errorf("batch %d has %d bytes behind its last entry", h.seq, h.headerLen-at)
	}
	return nil
}
