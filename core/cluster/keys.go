package cluster

import (
	"fmt"
	"strconv"
	"strings"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

// Keys without a number in them, and the prefixes of the others.
const (
	KeyGlobal    = "config/global"
	KeyPools     = "config/pools"
	KeyPlacement = "config/node_placement"
	KeyPGConfig  = "pg/config"
	KeyMonMaster = "mon/master"
	KeyLastClean = "history/last_clean_pgs"
	KeyStats     = "stats"
	KeyClusterID = "cluster/id" // ours
	KeyRestored  = "restored"   // ours
	KeyRestoring = "restoring"  // ours

	PrefixOSDConfig     = "config/osd/"
	PrefixInode         = "config/inode/"
	PrefixImageIndex    = "index/image/"
	PrefixMaxID         = "index/maxid/"
	PrefixPGState       = "pg/state/"
	PrefixPGHistory     = "pg/history/"
	PrefixPGStats       = "pgstats/"
	PrefixOSDState      = "osd/state/"
	PrefixOSDStats      = "osd/stats/"
	PrefixOSDSpace      = "osd/space/"
	PrefixOSDInodeStats = "osd/inodestats/"
	PrefixMonMember     = "mon/member/"
	PrefixInodeStats    = "inode/stats/"
	PrefixPoolStats     = "pool/stats/"

	// Ours.
	PrefixPoolIdentity = "pool/identity/"
	PrefixPGRecord     = "interval/"
	PrefixPGSkip       = "skip/"
	PrefixOSDIdentity  = "osd/identity/"
	PrefixOSDWaiting   = "osd/waiting/"
	PrefixOSDMissing   = "osd/missing/"
	PrefixOSDFailure   = "osd/failure/"
	PrefixFence        = "fence/"
	PrefixGateway      = "gateway/"
	PrefixExport       = "config/export/"
	PrefixPGScrub      = "scrub/pg/"
	PrefixImageScrub   = "scrub/image/"
)

// Kind says what a key is of.
type Kind uint8

// The kinds of keys.
const (
	KindUnknown Kind = iota
	KindGlobal
	KindPools
	KindPlacement
	KindPGConfig
	KindMonMaster
	KindLastClean
	KindStats
	KindClusterID
	KindRestored
	KindRestoring
	KindOSDConfig
	KindInode
	KindImageIndex
	KindMaxID
	KindPGState
	KindPGHistory
	KindPGStats
	KindOSDState
	KindOSDStats
	KindOSDSpace
	KindOSDInodeStats
	KindMonMember
	KindInodeStats
	KindPoolStats
	KindPoolIdentity
	KindPGRecord
	KindPGSkip
	KindOSDIdentity
	KindOSDWaiting
	KindOSDMissing
	KindOSDFailure
	KindFence
	KindGateway
	KindExport
	KindPGScrub
	KindImageScrub
)

// Key is a key taken apart. Only the fields that its kind has are set.
type Key struct {
	Kind  Kind
	Pool  layout.PoolID // KindMaxID, KindPoolStats, KindPoolIdentity
	PG    layout.PGID   // KindPG*
	Inode layout.Inode  // KindInode, KindInodeStats, KindImageScrub
	OSD   layout.OSDNum // KindOSD*
	Name  string        // KindImageIndex, KindMonMember, KindFence, KindGateway, KindExport
}

var exactKeys = map[string]Kind{
	KeyGlobal: KindGlobal, KeyPools: KindPools, KeyPlacement: KindPlacement, KeyPGConfig: KindPGConfig, KeyMonMaster: KindMonMaster,
	KeyLastClean: KindLastClean, KeyStats: KindStats, KeyClusterID: KindClusterID,
	KeyRestored: KindRestored, KeyRestoring: KindRestoring,
}

// keyShape is what follows a prefix.
type keyShape uint8

const (
	shapeName keyShape = iota
	shapeOSD
	shapePool
	shapePG
	shapeInode
)

var prefixKeys = []struct {
	prefix string
	kind   Kind
	shape  keyShape
}{
	{PrefixOSDConfig, KindOSDConfig, shapeOSD},
	{PrefixInode, KindInode, shapeInode},
	{PrefixImageIndex, KindImageIndex, shapeName},
	{PrefixMaxID, KindMaxID, shapePool},
	{PrefixPGState, KindPGState, shapePG},
	{PrefixPGHistory, KindPGHistory, shapePG},
	{PrefixPGStats, KindPGStats, shapePG},
	{PrefixOSDState, KindOSDState, shapeOSD},
	{PrefixOSDStats, KindOSDStats, shapeOSD},
	{PrefixOSDSpace, KindOSDSpace, shapeOSD},
	{PrefixOSDInodeStats, KindOSDInodeStats, shapeOSD},
	{PrefixMonMember, KindMonMember, shapeName},
	{PrefixInodeStats, KindInodeStats, shapeInode},
	{PrefixPoolStats, KindPoolStats, shapePool},
	{PrefixPoolIdentity, KindPoolIdentity, shapePool},
	{PrefixPGRecord, KindPGRecord, shapePG},
	{PrefixPGSkip, KindPGSkip, shapePG},
	{PrefixOSDIdentity, KindOSDIdentity, shapeOSD},
	{PrefixOSDWaiting, KindOSDWaiting, shapeOSD},
	{PrefixOSDMissing, KindOSDMissing, shapeOSD},
	{PrefixOSDFailure, KindOSDFailure, shapeOSD},
	{PrefixFence, KindFence, shapeName},
	{PrefixGateway, KindGateway, shapeName},
	{PrefixExport, KindExport, shapeName},
	{PrefixPGScrub, KindPGScrub, shapePG},
	{PrefixImageScrub, KindImageScrub, shapeInode},
}

// ParseKey takes a key apart; ok is false when it is not one of ours or its numbers are out of range or not in their canonical form.
func ParseKey(key string) (k Key, ok bool) {
	if kind, ok := exactKeys[key]; ok {
		return Key{Kind: kind}, true
	}
	for _, p := range prefixKeys {
		rest, found := strings.CutPrefix(key, p.prefix)
		if !found {
			continue
		}
		k.Kind = p.kind
		switch p.shape {
		case shapeName:
			k.Name, ok = rest, rest != ""
		case shapeOSD:
			var n uint64
			n, ok = parseID(rest, 1<<64-1)
			k.OSD = layout.OSDNum(n)
		case shapePool:
			k.Pool, ok = parsePool(rest)
		case shapePG:
			pool, num, _ := strings.Cut(rest, "/")
			var n uint64
			k.PG.Pool, ok = parsePool(pool)
			if ok {
				n, ok = parseID(num, maxPGs)
			}
			k.PG.Num = uint32(n)
		case shapeInode:
			pool, num, _ := strings.Cut(rest, "/")
			p, pok := parsePool(pool)
			n, nok := parseID(num, layout.MaxInodeNum)
			k.Inode, ok = layout.MakeInode(p, n), pok && nok
		}
		if !ok {
			return Key{}, false
		}
		return k, true
	}
	return Key{}, false
}

// maxPGs bounds the PGs of one pool.
const maxPGs = 1 << 20

func parsePool(s string) (layout.PoolID, bool) {
	n, ok := parseID(s, 1<<16-1)
	return layout.PoolID(n), ok
}

// parseID reads a number from 1 to limit without sign or leading zeros.
func parseID(s string, limit uint64) (uint64, bool) {
	if s == "" || s[0] < '1' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= limit
}

// OSDConfigKey is config/osd/<n>.
func OSDConfigKey(n layout.OSDNum) string { return osdKey(PrefixOSDConfig, n) }

// InodeKey is config/inode/<pool>/<inode>.
func InodeKey(i layout.Inode) string { return PrefixInode + i.String() }

// ImageIndexKey is index/image/<name>.
func ImageIndexKey(name string) string { return PrefixImageIndex + name }

// MaxIDKey is index/maxid/<pool>.
func MaxIDKey(p layout.PoolID) string { return poolKey(PrefixMaxID, p) }

// PGStateKey is pg/state/<pool>/<pg>.
func PGStateKey(pg layout.PGID) string { return PrefixPGState + pg.String() }

// PGHistoryKey is pg/history/<pool>/<pg>.
func PGHistoryKey(pg layout.PGID) string { return PrefixPGHistory + pg.String() }

// PGStatsKey is pgstats/<pool>/<pg>.
func PGStatsKey(pg layout.PGID) string { return PrefixPGStats + pg.String() }

// OSDStateKey is osd/state/<n>.
func OSDStateKey(n layout.OSDNum) string { return osdKey(PrefixOSDState, n) }

// OSDStatsKey is osd/stats/<n>.
func OSDStatsKey(n layout.OSDNum) string { return osdKey(PrefixOSDStats, n) }

// OSDSpaceKey is osd/space/<n>.
func OSDSpaceKey(n layout.OSDNum) string { return osdKey(PrefixOSDSpace, n) }

// OSDInodeStatsKey is osd/inodestats/<n>.
func OSDInodeStatsKey(n layout.OSDNum) string { return osdKey(PrefixOSDInodeStats, n) }

// MonMemberKey is mon/member/<lease in hexadecimal>.
func MonMemberKey(id registry.LeaseID) string { return fmt.Sprintf("%s%x", PrefixMonMember, int64(id)) }

// InodeStatsKey is inode/stats/<pool>/<inode>.
func InodeStatsKey(i layout.Inode) string { return PrefixInodeStats + i.String() }

// PoolStatsKey is pool/stats/<pool>.
func PoolStatsKey(p layout.PoolID) string { return poolKey(PrefixPoolStats, p) }

// PoolIdentityKey is pool/identity/<pool>, which tells the generation of the pool's PGs.
func PoolIdentityKey(p layout.PoolID) string { return poolKey(PrefixPoolIdentity, p) }

// PGRecordKey is interval/<pool>/<pg>.
func PGRecordKey(pg layout.PGID) string { return PrefixPGRecord + pg.String() }

// OSDMissingKey is osd/missing/<n>.
func OSDMissingKey(n layout.OSDNum) string { return osdKey(PrefixOSDMissing, n) }

// PGSkipKey is skip/<pool>/<pg>.
func PGSkipKey(pg layout.PGID) string { return PrefixPGSkip + pg.String() }

// OSDIdentityKey is osd/identity/<n>.
func OSDIdentityKey(n layout.OSDNum) string { return osdKey(PrefixOSDIdentity, n) }

// OSDWaitingKey is osd/waiting/<n>.
func OSDWaitingKey(n layout.OSDNum) string { return osdKey(PrefixOSDWaiting, n) }

// OSDFailureKey is osd/failure/<n>.
func OSDFailureKey(n layout.OSDNum) string { return osdKey(PrefixOSDFailure, n) }

// FenceKey is fence/<name>; FenceSessionName and FenceGatewayName make the names.
func FenceKey(name string) string { return PrefixFence + name }

// GatewayKey is gateway/<id>.
func GatewayKey(id string) string { return PrefixGateway + id }

// ExportKey is config/export/<name>.
func ExportKey(name string) string { return PrefixExport + name }

// PGScrubKey is scrub/pg/<pool>/<pg>.
func PGScrubKey(pg layout.PGID) string { return PrefixPGScrub + pg.String() }

// ImageScrubKey is scrub/image/<pool>/<inode>.
func ImageScrubKey(i layout.Inode) string { return PrefixImageScrub + i.String() }

func osdKey(prefix string, n layout.OSDNum) string { return prefix + strconv.FormatUint(uint64(n), 10) }

func poolKey(prefix string, p layout.PoolID) string { return prefix + strconv.Itoa(int(p)) }
