package iscsi

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strings"
)

// CHAP are the credentials of one target (RFC 7143, section 12.1.3, on RFC 1994).
type CHAP struct {
	User, Secret string // what the initiator must prove
	// MutualUser and MutualSecret are what the target proves when the initiator asks; an initiator that asks is refused when MutualSecret is empty. It must differ from Secret.
	MutualUser, MutualSecret string
}

// chapChallenge is the length of a challenge, bytes.
const chapChallenge = 16

// maxChapValue bounds a binary value of the peer (RFC 7143, section 12.1.3: 1024 bytes).
const maxChapValue = 1024

// Digest algorithms (IANA, PPP Authentication Algorithms).
var chapDigests = map[string]func() hash.Hash{"5": md5.New, "7": sha256.New}

// chap is one authentication of an initiator by a target. It is pure: the challenge comes from the caller.
type chap struct {
	cred      CHAP
	newHash   func() hash.Hash
	id        byte
	challenge []byte
	done      bool
}

// offer chooses an algorithm of CHAP_A and challenges; it reports whether there is one.
func (c *chap) offer(algorithms string, id byte, challenge []byte, reply []byte) ([]byte, bool) {
	for a := range strings.SplitSeq(algorithms, ",") {
		if h := chapDigests[a]; h != nil {
			c.newHash, c.id, c.challenge = h, id, challenge
			reply = appendPair(reply, "CHAP_A", a)
			reply = appendPair(reply, "CHAP_I", itoa(int(id)))
			return appendPair(reply, "CHAP_C", "0x"+hex.EncodeToString(challenge)), true
		}
	}
	return reply, false
}

// verify checks CHAP_N and CHAP_R, and answers a mutual challenge; it reports whether the initiator is who it says.
func (c *chap) verify(pairs []pair, reply []byte) ([]byte, bool) {
	name, _ := find(pairs, "CHAP_N")
	value, _ := find(pairs, "CHAP_R")
	response, ok := binaryValue(value)
	want := c.response(c.id, c.cred.Secret, c.challenge)
	same := subtle.ConstantTimeCompare(response, want) & subtle.ConstantTimeCompare([]byte(name), []byte(c.cred.User))
	if !ok || same != 1 {
		return reply, false
	}
	theirID, asks := find(pairs, "CHAP_I")
	value, asks2 := find(pairs, "CHAP_C")
	if asks || asks2 {
		id := 0
		challenge, ok := binaryValue(value)
		if !ok || !number(theirID, 0, 255, &id) || c.cred.MutualSecret == "" || len(challenge) == 0 {
			return reply, false
		}
		if subtle.ConstantTimeCompare(challenge, c.challenge) == 1 { // our own challenge reflected (RFC 7143, section 9.2.1)
			return reply, false
		}
		reply = appendPair(reply, "CHAP_N", c.cred.MutualUser)
		reply = appendPair(reply, "CHAP_R", "0x"+hex.EncodeToString(c.response(byte(id), c.cred.MutualSecret, challenge)))
	}
	c.done = true
	return reply, true
}

func (c *chap) response(id byte, secret string, challenge []byte) []byte {
	h := c.newHash()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// binaryValue decodes a hexadecimal or base64 constant (RFC 7143, section 6.1).
func binaryValue(v string) ([]byte, bool) {
	if len(v) < 3 || len(v) > 2+2*maxChapValue {
		return nil, false
	}
	switch v[:2] {
	case "0x", "0X":
		digits := v[2:]
		if len(digits)%2 != 0 {
			digits = "0" + digits
		}
		b, err := hex.DecodeString(digits)
		return b, err == nil
	case "0b", "0B":
		b, err := base64.StdEncoding.DecodeString(v[2:])
		return b, err == nil
	}
	return nil, false
}

// secure fills b with bytes that nobody can guess; a challenge must not come from a seeded generator.
func secure(b []byte) { _, _ = rand.Read(b) } // never fails (crypto/rand)
