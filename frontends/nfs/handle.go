package nfs

import (
	"encoding/binary"
	"hash/crc32"
)

// A file handle (nfs_fh3, at most 64 bytes: RFC 1813, section 2.4) is 40 bytes, the same on every gateway for ever:
//
//	0   format, 0x48 0x46 0x00 0x01
//	4   cluster id, 16 bytes
//	20  object id, 16 bytes
//	36  CRC32C of the first 36 bytes, big-endian
//
// It names the object, not its place: it stays good across rename, restart and change of gateway (spec/clients.md N8).
const (
	handleSize   = 40
	handleFormat = 0x48460001
	maxHandle    = 64 // NFS3_FHSIZE
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Handle is a file handle as it goes over the wire.
type Handle [handleSize]byte

// MakeHandle is the handle of an object in a cluster.
func MakeHandle(cluster [16]byte, id ID) (h Handle) {
	binary.BigEndian.PutUint32(h[0:], handleFormat)
	copy(h[4:], cluster[:])
	copy(h[20:], id[:])
	binary.BigEndian.PutUint32(h[36:], crc32.Checksum(h[:36], castagnoli))
	return h
}

// parseHandle finds the object that a handle from a client names: BADHANDLE for what no gateway ever made, STALE for another cluster's.
func parseHandle(cluster [16]byte, b []byte) (ID, Status) {
	if len(b) != handleSize || binary.BigEndian.Uint32(b) != handleFormat || crc32.Checksum(b[:36], castagnoli) != binary.BigEndian.Uint32(b[36:]) {
		return ID{}, ErrStatBadFH
	}
	if [16]byte(b[4:20]) != cluster {
		return ID{}, ErrStatStale
	}
	return ID(b[20:36]), OK
}

// FileNumber is the fileid of an object: 64 bits derived from its id, so the same on every gateway. ESXi names its lock files after it (spec/clients.md N5).
func FileNumber(id ID) uint64 {
	return max(1, mix(binary.BigEndian.Uint64(id[:8])^mix(binary.BigEndian.Uint64(id[8:]))))
}

// fileSystemNumber is the fsid: derived from the cluster's id, so the same on every gateway.
func fileSystemNumber(cluster [16]byte) uint64 { return FileNumber(ID(cluster)) }

// mix is a bijection that spreads each bit over all (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
