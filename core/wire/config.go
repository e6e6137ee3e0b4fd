package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"holdfast/core/layout"
)

// Values of immediate_commit, weakest first.
const (
	CommitNone  = "none"
	CommitSmall = "small"
	CommitAll   = "all"
)

// ConfigRequest is the JSON of a SHOW_CONFIG request. Unknown fields are ignored: stock peers send RDMA addresses there, which we leave to TCP.
type ConfigRequest struct {
	OSDNum   layout.OSDNum   `json:"osd_num,omitempty"`
	Features RequestFeatures `json:"features"`
	Holdfast *Hello          `json:"holdfast,omitempty"`
}

// RequestFeatures is what a dialler can do.
type RequestFeatures struct {
	CheckSequencing bool `json:"check_sequencing,omitempty"`
}

// ConfigReply is the JSON of a SHOW_CONFIG reply.
type ConfigReply struct {
	OSDNum            layout.OSDNum `json:"osd_num"`
	ProtocolVersion   int           `json:"protocol_version"`
	BlockSize         uint64        `json:"block_size"`
	BitmapGranularity uint64        `json:"bitmap_granularity"`
	PrimaryEnabled    bool          `json:"primary_enabled"`
	BlockstoreEnabled bool          `json:"blockstore_enabled"`
	Readonly          bool          `json:"readonly"`
	ImmediateCommit   string        `json:"immediate_commit"`
	LeaseTimeout      uint64        `json:"lease_timeout"` // seconds
	Features          ReplyFeatures `json:"features"`
	Holdfast          *Hello        `json:"holdfast,omitempty"`
}

// ReplyFeatures is what an OSD can do.
type ReplyFeatures struct {
	PGLocks bool `json:"pg_locks,omitempty"`
}

// Hello is our addition to both: who speaks, and the proof of the cluster key (docs/formats/wire.md, "Handshake").
type Hello struct {
	Version  int    `json:"version"`
	Role     string `json:"role,omitempty"`
	Instance Hex64  `json:"instance"`
	Client   string `json:"client,omitempty"` // a name for people
	Nonce    string `json:"nonce,omitempty"`  // 32 hexadecimal digits
	Proof    string `json:"proof,omitempty"`  // 64 hexadecimal digits
	Refused  string `json:"refused,omitempty"`
}

// HelloVersion is the version of Hello that we speak.
const HelloVersion = 1

// Limits of the strings in Hello.
const (
	MaxRole   = 16
	MaxClient = 128
)

// Hex64 is a number that stands in JSON as 16 hexadecimal digits, since JSON readers round large numbers.
type Hex64 uint64

// MarshalText writes the digits.
func (v Hex64) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(v)), nil }

// UnmarshalText reads them.
func (v *Hex64) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || len(b) != 16 {
		return fmt.Errorf("%q is not 16 hexadecimal digits", b)
	}
	*v = Hex64(n)
	return nil
}

// AppendConfigRequest appends the JSON of c.
func AppendConfigRequest(b []byte, c *ConfigRequest) ([]byte, error) {
	text, err := json.Marshal(c)
	return append(b, text...), err
}

// AppendConfigReply appends the JSON of c with the NUL that the protocol wants behind it.
func AppendConfigReply(b []byte, c *ConfigReply) ([]byte, error) {
	text, err := json.Marshal(c)
	return append(append(b, text...), 0), err
}

// DecodeConfigRequest reads a request's JSON. No bytes at all are an empty object, as from the oldest clients.
func DecodeConfigRequest(b []byte) (*ConfigRequest, error) {
	var c ConfigRequest
	if len(b) != 0 {
		if err := decodeConfig(b, &c); err != nil {
			return nil, err
		}
	}
	return &c, checkHello(c.Holdfast)
}

// DecodeConfigReply reads a reply's JSON, with or without the NUL.
func DecodeConfigReply(b []byte) (*ConfigReply, error) {
	var c ConfigReply
	if err := decodeConfig(bytes.TrimSuffix(b, []byte{0}), &c); err != nil {
		return nil, err
	}
	return &c, checkHello(c.Holdfast)
}

func decodeConfig(b []byte, into any) error {
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return fmt.Errorf("SHOW_CONFIG: not a JSON object")
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("SHOW_CONFIG: %w", err)
	}
	return nil
}

func checkHello(h *Hello) error {
	if h == nil {
		return nil
	}
	if len(h.Role) > MaxRole || len(h.Client) > MaxClient {
		return fmt.Errorf("SHOW_CONFIG: holdfast.role or .client is too long (%d, %d bytes; allowed are %d, %d)", len(h.Role), len(h.Client), MaxRole, MaxClient)
	}
	return nil
}
