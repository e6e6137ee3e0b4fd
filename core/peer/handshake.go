package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/wire"
)

// The handshake takes two rounds of SHOW_CONFIG (docs/formats/wire.md, "Handshake"). First each side sends who it is and a nonce, and the acceptor its proof; then the
// dialler its own. A proof is an HMAC of the cluster key over both nonces, both identities and which side made it, so that none can be used again, elsewhere, or
// sent back to its maker.

// identity is what one side says of itself.
type identity struct {
	osd      layout.OSDNum
	role     string
	instance uint64
	client   string
}

const (
	nonceLen = 16
	// maxHello bounds the JSON of a SHOW_CONFIG request; ours take about 300 bytes.
	maxHello = 8 << 10
)

func (b *Hub) self() identity { return identity{b.o.Self, b.o.Role, b.o.Instance, b.o.Client} }

// nonce is a number that nobody without the key can foresee and that never comes twice: Instance is this run's, the counter this Hub's, and two Hubs of a process
// have generators of their own.
func (b *Hub) nonce() string {
	b.nonces++
	m := hmac.New(sha256.New, b.o.Key)
	m.Write([]byte("holdfast nonce 1"))
	for _, v := range [...]uint64{b.o.Instance, b.nonces, b.l.Rand().Uint64(), b.l.Rand().Uint64(), uint64(b.l.Now())} {
		m.Write(binary.LittleEndian.AppendUint64(nil, v))
	}
	return hex.EncodeToString(m.Sum(nil)[:nonceLen])
}

// side is who makes a proof.
type side string

const (
	dialler  side = "dialler"
	acceptor side = "acceptor"
)

// terms is what a proof covers.
type terms struct {
	dialNonce, acceptNonce string
	dial, accept           identity
}

// proof is empty without a key.
func (t *terms) proof(key []byte, by side) string {
	if len(key) == 0 {
		return ""
	}
	text := []byte("holdfast handshake 1")
	field := func(s string) {
		text = binary.LittleEndian.AppendUint32(text, uint32(len(s)))
		text = append(text, s...)
	}
	field(string(by))
	field(t.dialNonce)
	field(t.acceptNonce)
	for _, id := range [...]*identity{&t.dial, &t.accept} {
		text = binary.LittleEndian.AppendUint64(text, uint64(id.osd))
		text = binary.LittleEndian.AppendUint64(text, id.instance)
		field(id.role)
		field(id.client)
	}
	m := hmac.New(sha256.New, key)
	m.Write(text)
	return hex.EncodeToString(m.Sum(nil))
}

// check judges the other side's proof.
func (t *terms) check(key []byte, by side, proof string) error {
	switch {
	case len(key) == 0 && proof == "":
		return nil
	case len(key) == 0:
		return fmt.Errorf("%w: the %s has a cluster key and we have none; give this process the cluster's key", ErrHandshake, by)
	case proof == "":
		return fmt.Errorf("%w: the %s shows no proof of the cluster key; give it the cluster's key", ErrHandshake, by)
	case !hmac.Equal([]byte(t.proof(key, by)), []byte(proof)):
		return fmt.Errorf("%w: the %s has another cluster key than we", ErrHandshake, by)
	}
	return nil
}

// checkHello judges the form of what the other side says.
func checkHello(h *wire.Hello) error {
	if h.Version != wire.HelloVersion {
		return fmt.Errorf("%w: handshake version %d, we speak %d", ErrHandshake, h.Version, wire.HelloVersion)
	}
	if b, err := hex.DecodeString(h.Nonce); err != nil || len(b) != nonceLen {
		return fmt.Errorf("%w: nonce %q is not %d hexadecimal digits", ErrHandshake, h.Nonce, 2*nonceLen)
	}
	return nil
}

// commitRank orders the values of immediate_commit; unknown ones are the weakest.
func commitRank(s string) int {
	switch s {
	case wire.CommitAll:
		return 2
	case wire.CommitSmall:
		return 1
	}
	return 0
}

// checkConfig judges an OSD's configuration: it must be the one we wanted and, between OSDs, fit ours.
func (b *Hub) checkConfig(want layout.OSDNum, c *wire.ConfigReply) error {
	switch {
	case c.OSDNum != want:
		return fmt.Errorf("%w: OSD %d answers at the address of OSD %d", ErrHandshake, c.OSDNum, want)
	case c.ProtocolVersion != wire.ProtocolVersion:
		return fmt.Errorf("%w: protocol_version %d, we speak %d", ErrHandshake, c.ProtocolVersion, wire.ProtocolVersion)
	case b.o.Role != RoleOSD || b.o.Config == nil:
		return nil
	}
	own := b.o.Config()
	switch {
	case c.BlockSize != own.BlockSize:
		return fmt.Errorf("%w: block_size %d of OSD %d, ours is %d", ErrHandshake, c.BlockSize, want, own.BlockSize)
	case c.BitmapGranularity != own.BitmapGranularity:
		return fmt.Errorf("%w: bitmap_granularity %d of OSD %d, ours is %d", ErrHandshake, c.BitmapGranularity, want, own.BitmapGranularity)
	case commitRank(c.ImmediateCommit) < commitRank(own.ImmediateCommit):
		return fmt.Errorf("%w: immediate_commit %q of OSD %d is weaker than our %q", ErrHandshake, c.ImmediateCommit, want, own.ImmediateCommit)
	}
	return nil
}
