package wire

import "fmt"

// Opcode says what a packet asks for. 1..19 are the stock protocol's; 32..63 are ours, laid out in sub.go.
type Opcode uint64

// The stock opcodes.
const (
	OpSecRead         Opcode = 1  // primary -> secondary
	OpSecWrite        Opcode = 2  // primary -> secondary: creates an unstable version (EC)
	OpSecWriteStable  Opcode = 3  // primary -> secondary: stable at once (replicated)
	OpSecSync         Opcode = 4  // primary -> secondary
	OpSecStabilize    Opcode = 5  // primary -> secondary
	OpSecRollback     Opcode = 6  // primary -> secondary
	OpSecDelete       Opcode = 7  // primary -> secondary, and an administrator's fix
	OpTestSyncStabAll Opcode = 8  // reserved
	OpSecList         Opcode = 9  // primary -> secondary; client -> primary with ListPrimary
	OpShowConfig      Opcode = 10 // handshake
	OpRead            Opcode = 11 // client -> primary
	OpWrite           Opcode = 12 // client -> primary
	OpSync            Opcode = 13 // client -> primary, for the whole OSD
	OpDelete          Opcode = 14 // client -> primary
	OpPing            Opcode = 15 // both ways
	OpSecReadBmp      Opcode = 16 // primary -> secondary
	OpScrub           Opcode = 17 // client -> primary, one object
	OpDescribe        Opcode = 18 // administrator -> OSD
	OpSecLock         Opcode = 19 // primary -> secondary
)

// Opcodes of our own.
const (
	FirstOwnOp Opcode = 32
	LastOwnOp  Opcode = 63
)

// IsOwn reports whether op is in the range that we lay out.
func (op Opcode) IsOwn() bool { return op >= FirstOwnOp && op <= LastOwnOp }

// Access says who may send a request. The zero value is nobody: the opcode does not exist.
type Access uint8

// The kinds of Access.
const (
	Nobody    Access = iota
	AnyClient        // also stock clients, where they are let in at all
	OwnClient        // our own clients (which have the cluster key) and OSDs
	OSDOnly          // connections whose other end proved to be an OSD of the cluster
)

type opInfo struct {
	name   string
	access Access
}

// opTable is filled below and by sub.go's init; it does not change afterwards.
var opTable = [64]opInfo{
	OpSecRead:         {"read", OSDOnly},
	OpSecWrite:        {"write", OSDOnly},
	OpSecWriteStable:  {"write_stable", OSDOnly},
	OpSecSync:         {"sync", OSDOnly},
	OpSecStabilize:    {"stabilize", OSDOnly},
	OpSecRollback:     {"rollback", OSDOnly},
	OpSecDelete:       {"delete", AnyClient},
	OpTestSyncStabAll: {"sync_stab_all", OSDOnly},
	OpSecList:         {"list", AnyClient},
	OpShowConfig:      {"show_config", AnyClient},
	OpRead:            {"primary_read", AnyClient},
	OpWrite:           {"primary_write", AnyClient},
	OpSync:            {"primary_sync", AnyClient},
	OpDelete:          {"primary_delete", AnyClient},
	OpPing:            {"ping", AnyClient},
	OpSecReadBmp:      {"sec_read_bmp", OSDOnly},
	OpScrub:           {"scrub", AnyClient},
	OpDescribe:        {"describe", AnyClient},
	OpSecLock:         {"sec_lock", OSDOnly},
}

// registerOp names one of our own opcodes; only init functions of this package call it.
func registerOp(op Opcode, name string, access Access) {
	if !op.IsOwn() || opTable[op].access != Nobody {
		panic(fmt.Sprintf("wire: opcode %d cannot be registered as %q", uint64(op), name))
	}
	opTable[op] = opInfo{name, access}
}

// Access says who may send op; Nobody when there is no such opcode.
func (op Opcode) Access() Access {
	if op >= Opcode(len(opTable)) {
		return Nobody
	}
	return opTable[op].access
}

// String is the name that statistics use.
func (op Opcode) String() string {
	if op.Access() == Nobody {
		return fmt.Sprintf("op_%d", uint64(op))
	}
	return opTable[op].name
}
