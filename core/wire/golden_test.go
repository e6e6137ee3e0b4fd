package wire

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"holdfast/core/layout"
)

// packet is any of the packets of this package.
type packet interface {
	Encode(*Header)
	Decode(*Header) error
}

// golden is what the file testdata/<name>.hex must mean.
type golden struct {
	name    string
	id      uint64
	m       packet
	payload int
}

var goldens = []golden{
	{"read/chained", 42, &ReadWrite{Op: OpRead, Inode: layout.MakeInode(3, 5), Offset: 1 << 20, Len: 4096, MetaRevision: 12345}, 0},
	{"write/cas", 1, &ReadWrite{Op: OpWrite, Inode: layout.MakeInode(65535, 1<<48-1), Offset: 8192, Len: 8192, Flags: 1, Version: 7,
		Trailer: Trailer{0x0102030405060708, 16, 15, 1e9}}, 8192},
	{"delete/stock", 2, &ReadWrite{Op: OpDelete, Inode: layout.MakeInode(1, 7), Offset: 131072, Len: 131072}, 0},
	{"scrub/one", 3, &ReadWrite{Op: OpScrub, Inode: layout.MakeInode(1, 7)}, 0},
	{"read_reply/bitmap", 42, &ReadWriteReply{OpRead, 4096, 4, 5<<16 | 3}, 4100},
	{"write_reply/mismatch", 1, &ReadWriteReply{OpWrite, EINTR, 0, 9}, 0},
	{"delete_reply/left_on_dead", 2, &DeleteReply{Retval: 131072, Flags: SupportLeftOnDead | LeftOnDead, Count: 2, OSDs: [MaxLeftOnDead]uint32{4, 70000}, Version: 11}, 0},
	{"delete_reply/full", 2, &DeleteReply{Flags: 3, Count: 22, OSDs: [MaxLeftOnDead]uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}}, 0},
	{"sync/ours", 5, &Sync{Trailer{1, 2, 2, 0}}, 0},
	{"bare_reply/sync", 5, &BareReply{OpSync, EPIPE}, 0},
	{"ping/stock", 6, &Ping{}, 0},
	{"ping/ours", 7, &Ping{10e9}, 0},
	{"ping_reply/ours", 7, &PingReply{OpPing, 0, 20e9}, 0},
	{"show_config/request", 1, &ShowConfig{JSONLen: 15}, 15},
	{"show_config_reply/stock", 1, &PingReply{Op: OpShowConfig, Retval: 35}, 35},
	{"list/primary", 8, &List{9, 256, 4 << 20, layout.MakeInode(3, 5), layout.MakeInode(3, 5), 4 << 20, 0, 10, ListPrimary}, 0},
	{"list_reply/one", 8, &ListReply{1, 1, ListPrimary}, 24},
	{"describe/range", 9, &Describe{ObjectCorrupted, layout.MakeInode(1, 1), 4096, layout.MakeInode(1, 2), 8192, 100, 1, 2}, 0},
	{"describe_reply/one", 9, &DescribeReply{1, 32}, 32},
	{"sec_write_stable/bitmap", 10, &SecReadWrite{OpSecWriteStable, layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: 131073}, 1<<16 | 7, 4096, 512, 4,
		SecRecovery | SecIgnorePGLock}, 516},
	{"sec_read_reply/data", 11, &SecReadWriteReply{OpSecRead, 4096, 1<<16 | 7, 4}, 4100},
	{"sec_delete/fix", 12, &SecDelete{layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: 131074}, 5, SecRecovery}, 0},
	{"sec_delete_reply/ok", 12, &SecDeleteReply{0, 5}, 0},
	{"sec_sync/flags", 13, &SecSync{SecIgnorePGLock}, 0},
	{"sec_stabilize/one", 14, &SecVersions{OpSecStabilize, 24, SecRecovery}, 24},
	{"sec_lock/lock", 15, &SecLock{LockPG, 3, 9, PGActive | PGDegraded}, 0},
	{"sec_lock_reply/busy", 15, &SecLockReply{EBUSY, 6}, 0},
}

// ownGrant and ownObject are in all the packets below.
var (
	ownGrant  = Grant{layout.PGID{Pool: 1, Num: 9}, 5, 0x1122334455667788}
	ownObject = layout.ObjectID{Inode: layout.MakeInode(1, 7), Stripe: 131072}
	ownChange = SubChange{ownObject, 5<<16 | 8, 5<<16 | 9, 4096, 8192, 0x0102030405060708, 16, 15, ownGrant, ChangeWrite, 0, 0, false, 0}
)

func init() {
	hole := ownChange
	hole.Kind = ChangeHole
	lazy := ownChange
	lazy.Kind, lazy.Lazy = ChangeDelete, 2
	parity := ownChange
	parity.Unstable, parity.Lazy, parity.Meta = true, 2, 4
	parity.Object.Stripe |= 3
	raise := parity
	raise.Offset, raise.Len, raise.Lazy, raise.Meta = 0, 0, 0, 0
	chunk := layout.ObjectID{Inode: ownObject.Inode, Stripe: ownObject.Stripe | 2}
	replace := Sub{Op: OpSubReplace, Object: ownObject, Base: 5<<16 | 8, Version: 4<<16 | 3, BaseInterval: 4, Written: 3, Grant: ownGrant, Meta: 40}
	tombstone := replace
	tombstone.Flags, tombstone.Meta = SubTombstone, 0
	goldens = append(goldens, []golden{
		{"zero/keep_written", 31, &Zero{layout.MakeInode(3, 5), 1 << 20, 8192, ZeroKeepWritten, 7, Trailer{0x0102030405060708, 16, 15, 1e9}}, 0},
		{"version_reply/zero", 31, &VersionReply{OpZero, 8192, 1000, 5<<16 | 8}, 0},
		{"version_reply/sub_change_refused", 32, &VersionReply{OpSubChange, EINTR, 1000, 5<<16 | 9}, 0},
		{"sub_change/write", 32, &ownChange, 8192},
		{"sub_change/hole", 33, &hole, 0},
		{"sub_read/one", 34, &Sub{Op: OpSubRead, Object: ownObject, Grant: ownGrant}, 0},
		{"sub_reply/read", 34, &SubReply{Op: OpSubRead, Free: 1000, Version: 5<<16 | 8, Written: 4, Object: ownObject, Meta: 40, Data: 131072}, 131112},
		{"sub_replace/meta", 35, &replace, 40},
		{"sub_replace/tombstone", 36, &tombstone, 0},
		{"sub_void/one", 37, &Sub{Op: OpSubVoid, Grant: ownGrant, Meta: SubEntrySize}, SubEntrySize},
		{"sub_forget/one", 38, &Sub{Op: OpSubForget, Grant: ownGrant, Meta: SubEntrySize}, SubEntrySize},
		{"sub_list/next", 39, &Sub{Op: OpSubList, Object: layout.ObjectID{Stripe: 0x1234}, Limit: 26214, Grant: ownGrant}, 0},
		{"sub_reply/list", 39, &SubReply{Op: OpSubList, Retval: 1, Free: 1000, Object: layout.ObjectID{Stripe: 0x1234}, Flags: SubResume, Meta: SubEntrySize}, SubEntrySize},
		{"sub_lock/json", 40, &Sub{Op: OpSubLock, Grant: ownGrant, Meta: 2}, 2},
		{"sub_reply/lock_refused", 40, &SubReply{Op: OpSubLock, Retval: EBUSY, Free: 1000, Meta: 2}, 2},
		{"sub_renew/json", 41, &Sub{Op: OpSubRenew, Meta: 2}, 2},
		{"sub_unlock/one", 42, &Sub{Op: OpSubUnlock, Grant: ownGrant}, 0},
		{"sub_announce/json", 43, &Sub{Op: OpSubAnnounce, Grant: ownGrant, Meta: 2}, 2},
		{"sub_dead/json", 44, &Sub{Op: OpSubDead, Meta: 2}, 2},
		{"sub_sync/one", 47, &Sub{Op: OpSubSync, Grant: ownGrant}, 0},
		{"sub_change/lazy", 48, &lazy, 0},
		{"sub_change/parity", 49, &parity, 8196},
		{"sub_change/raise", 50, &raise, 0},
		{"sub_read_range/data", 51, &SubReadRange{chunk, 5<<16 | 8, 4096, 8192, ownGrant}, 0},
		{"sub_read_range/state", 52, &SubReadRange{chunk, Newest, 0, 0, ownGrant}, 0},
		{"sub_reply/read_range", 51, &SubReply{Op: OpSubReadRange, Version: 5<<16 | 8, Written: 5, Flags: SubUnstable, Meta: 4, Data: 8192}, 8196},
		{"sub_commit/one", 53, &Sub{Op: OpSubCommit, Grant: ownGrant, Meta: VersionedSize}, VersionedSize},
		{"sub_rollback/one", 54, &Sub{Op: OpSubRollback, Grant: ownGrant, Meta: VersionedSize}, VersionedSize},
		{"sub_reply/commit", 53, &SubReply{Op: OpSubCommit, Retval: ERANGE}, 0},
		{"sub_digest/one", 55, &Sub{Op: OpSubDigest, Object: ownObject, Grant: ownGrant}, 0},
		{"sub_reply/digest", 55, &SubReply{Op: OpSubDigest, Version: 5<<16 | 8, Written: 4, Meta: DigestSize}, DigestSize},
		{"fix/any_part", 56, &Fix{ownObject, 70000, AnyPart}, 0},
		{"scrub_reply/bad", 3, &ScrubReply{OpScrub, 0, 3 * 131072, FoundBad, 1}, 0},
		{"fence/json", 45, &Sub{Op: OpFence, Meta: 2}, 2},
	}...)
}

// requestOf is the request that a golden reply answers, where its payload depends on it.
func requestOf(g golden) *Header {
	var h Header
	switch op := opOf(g); op {
	case OpRead, OpWrite, OpDelete, OpScrub:
		(&ReadWrite{Op: op, Len: 4096}).Encode(&h)
	case OpSecRead:
		(&SecReadWrite{Op: op, Len: 4096}).Encode(&h)
	case OpSubReadRange:
		(&SubReadRange{Len: 8192}).Encode(&h)
	default:
		h.begin(RequestMagic, op)
	}
	return &h
}

func opOf(g golden) Opcode {
	var h Header
	g.m.Encode(&h)
	return h.Op()
}

// loadGolden reads an annotated file: hexadecimal bytes, "# comment", "@N" for zeroes up to offset N. The header is filled up to 128 bytes.
func loadGolden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for i, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		line = strings.ReplaceAll(strings.TrimSpace(line), " ", "")
		if at, ok := strings.CutPrefix(line, "@"); ok {
			n, err := strconv.Atoi(at)
			if err != nil || n < len(b) {
				t.Fatalf("%s:%d: @%s after %d bytes", name, i+1, at, len(b))
			}
			b = append(b, make([]byte, n-len(b))...)
			continue
		}
		p, err := hex.DecodeString(line)
		if err != nil {
			t.Fatalf("%s:%d: %v", name, i+1, err)
		}
		b = append(b, p...)
	}
	return b
}

func TestGoldenPackets(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			seen[g.name] = true
			b := loadGolden(t, g.name)
			var want, h Header
			if copy(want[:], b) != HeaderSize {
				t.Fatalf("%d bytes are no header", len(b))
			}
			g.m.Encode(&h)
			h.SetID(g.id)
			if h != want {
				t.Errorf("encoded\n%s\nwant\n%s", hex.Dump(h[:]), hex.Dump(want[:]))
			}
			got := reflect.New(reflect.TypeOf(g.m).Elem()).Interface().(packet)
			if err := got.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, g.m) {
				t.Errorf("decoded %+v, want %+v", got, g.m)
			}
			var meta, data int
			var err error
			if want.IsRequest() {
				meta, data, err = PayloadLen(&want)
			} else {
				meta, data, err = ReplyPayloadLen(requestOf(g), &want)
			}
			if err != nil || meta+data != g.payload {
				t.Errorf("payload of %d + %d bytes (%v), want %d", meta, data, err, g.payload)
			}
			if n := len(b) - HeaderSize; n != 0 && n != g.payload {
				t.Errorf("the file has %d bytes of payload, want %d", n, g.payload)
			}
		})
	}
	files, err := filepath.Glob("testdata/*/*.hex")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(f, "testdata/"), ".hex")
		if !seen[name] && !strings.HasPrefix(name, "fuzz/") {
			t.Errorf("%s is tested by nobody", f)
		}
	}
}

func TestGoldenPayloads(t *testing.T) {
	v, err := DecodeVersioned(nil, loadGolden(t, "sec_stabilize/one")[HeaderSize:])
	if err != nil || len(v) != 1 || v[0] != (Versioned{layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: 131072}, 1<<16 | 7}) {
		t.Errorf("versions %v, %v", v, err)
	}
	if b := AppendVersioned(nil, v[0]); !bytes.Equal(b, loadGolden(t, "sec_stabilize/one")[HeaderSize:]) {
		t.Errorf("encoded %x", b)
	}
	for _, name := range []string{"sub_commit/one", "sub_rollback/one"} {
		v, err := DecodeVersioned(nil, loadGolden(t, name)[HeaderSize:])
		if err != nil || len(v) != 1 || v[0] != (Versioned{layout.ObjectID{Inode: layout.MakeInode(1, 7), Stripe: 131074}, 5<<16 | 8}) {
			t.Errorf("%s: versions %v, %v", name, v, err)
		}
	}
	items, err := DecodeDescribeItems(nil, loadGolden(t, "describe_reply/one")[HeaderSize:])
	want := DescribeItem{layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: 131072}, 2, LocOutdated | LocCorrupted, 11}
	if err != nil || len(items) != 1 || items[0] != want {
		t.Errorf("items %v, %v", items, err)
	}
	if b := AppendDescribeItem(nil, want); !bytes.Equal(b, loadGolden(t, "describe_reply/one")[HeaderSize:]) {
		t.Errorf("encoded %x", b)
	}
	q, err := DecodeConfigRequest(loadGolden(t, "show_config/request")[HeaderSize:])
	if err != nil || q.OSDNum != 100 || q.Holdfast != nil {
		t.Errorf("request %+v, %v", q, err)
	}
	p, err := DecodeConfigReply(loadGolden(t, "show_config_reply/stock")[HeaderSize:])
	if err != nil || p.OSDNum != 1 || p.ProtocolVersion != 1 {
		t.Errorf("reply %+v, %v", p, err)
	}
}
