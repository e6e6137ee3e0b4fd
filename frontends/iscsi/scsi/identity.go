package scsi

import (
	"crypto/sha256"
	"encoding/hex"

	"holdfast/frontends/volume"
)

// vendor is T10 VENDOR IDENTIFICATION, 8 characters.
const vendor = "HOLDFAST"

// NAA is the image's NAA IEEE Registered Extended identifier (SPC-4, NAA designator format 6h): the same on every gateway for ever, since it derives from Info.Cluster and Info.ID only.
//
// Holdfast owns no IEEE company id. The 24 bits 02 48 46 carry the "locally administered" bit of the first byte, which no assigned company id has; the other 100 bits are a hash, so
// that two images collide as rarely as two random numbers.
func NAA(info *volume.Info) (naa [16]byte) {
	h := sha256.New()
	h.Write(info.Cluster[:])
	h.Write(info.ID[:])
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	copy(naa[:], sum[:])
	naa[0] = 0x60
	naa[1] = 0x24
	naa[2] = 0x84
	naa[3] = 0x60 | naa[3]&0x0f
	return naa
}

// Serial is the image's unit serial number: 32 hexadecimal digits of its identity.
func Serial(info *volume.Info) string { return hex.EncodeToString(info.ID[:]) }
